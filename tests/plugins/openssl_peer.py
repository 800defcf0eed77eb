"""The other side as go-plugin's is, on Python's `ssl` and `h2`: none of our code takes part.

As a program it is a plugin. Its arguments are the kind of its key, the version of TLS, and what it
does wrong, if anything. The functions are also what a host of the same kind needs.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import h2.config
import h2.connection
import h2.events

from tests.crypto.material import Material, foreign_context, make
from tests.protos.echo_pb2 import EchoReply, EchoRequest

CONTENT_TYPE = ("content-type", "application/grpc")


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def context(
    own: Material | None, peer: bytes, *, server_side: bool, version: str, alpn: bool = True
) -> ssl.SSLContext:
    with tempfile.TemporaryDirectory() as folder:
        return foreign_context(
            Path(folder),
            server_side=server_side,
            own=own,
            trusts=[peer],
            version=version,
            alpn=("h2",) if alpn else (),
        )


# --- the plugin ------------------------------------------------------------------------------


def serve(connection: ssl.SSLSocket) -> None:
    """Answer calls until the host asks for the end, or goes."""
    h2c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    h2c.initiate_connection()
    paths: dict[int, str] = {}
    bodies: dict[int, bytes] = {}
    over = False
    while not over:
        connection.sendall(h2c.data_to_send())
        data = connection.recv(65536)
        for event in h2c.receive_data(data) if data else [h2.events.ConnectionTerminated()]:
            match event:
                case h2.events.RequestReceived(stream_id=number, headers=headers):
                    paths[number] = dict(headers)[b":path"].decode()
                    bodies[number] = b""
                case h2.events.DataReceived(stream_id=number, data=body):
                    bodies[number] += body
                case h2.events.ConnectionTerminated():
                    over = True
            if getattr(event, "stream_ended", None):
                ended: int = event.stream_id  # type: ignore[attr-defined]
                over |= answer(h2c, ended, paths[ended], bodies[ended])
    connection.sendall(h2c.data_to_send())


def answer(h2c: Any, number: int, path: str, body: bytes) -> bool:
    """Answer one call; tell whether it asked for the end."""
    reply = b""
    if path.endswith("/Unary"):
        reply = EchoReply(text=EchoRequest.FromString(body[5:]).text).SerializeToString()
    h2c.send_headers(number, [(":status", "200"), CONTENT_TYPE])
    h2c.send_data(number, framed(reply))
    h2c.send_headers(number, [("grpc-status", "0")], end_stream=True)
    return path.endswith("/Shutdown")


def main() -> None:
    kind, version, fault = sys.argv[1], sys.argv[2], sys.argv[3]
    host = ssl.PEM_cert_to_DER_cert(os.environ["PLUGIN_CLIENT_CERT"])
    own = make(kind, ca=True)
    if fault == "trusts-another-host":
        host = make("P-521", ca=True).der
    announced = make(kind, ca=True) if fault == "announces-another" else own
    shown = make(kind, issuer=own) if fault == "shows-what-it-has-signed" else own
    with socket.socket(socket.AF_UNIX) as listener:
        path = f"{os.environ['PLUGIN_UNIX_SOCKET_DIR']}/plugin123"
        listener.bind(path)
        listener.listen()
        text = base64.b64encode(announced.der).decode().rstrip("=")
        print(f"1|1|unix|{path}|grpc|{text}", flush=True)
        tls = context(shown, host, server_side=True, version=version, alpn=fault != "no-alpn")
        plain, _ = listener.accept()
        with plain, tls.wrap_socket(plain, server_side=True) as connection:
            serve(connection)


# --- the host --------------------------------------------------------------------------------


def connect(address: str, tls: ssl.SSLContext) -> ssl.SSLSocket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    try:
        sock.connect(address)
        return tls.wrap_socket(sock, server_hostname="localhost")
    except BaseException:
        sock.close()
        raise


def call(connection: ssl.SSLSocket, path: str, message: bytes) -> tuple[str, bytes]:
    """Make the only call of a connection; return its status and the reply."""
    h2c = h2.connection.H2Connection()
    h2c.initiate_connection()
    fields = [(":method", "POST"), (":scheme", "https"), (":path", path)]
    fields += [(":authority", "localhost"), ("te", "trailers"), CONTENT_TYPE]
    h2c.send_headers(1, fields)
    h2c.send_data(1, framed(message), end_stream=True)
    body = b""
    # All at once: who was asked to shut down does not wait for more.
    connection.sendall(h2c.data_to_send())
    while True:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError
        for event in h2c.receive_data(data):
            match event:
                case h2.events.DataReceived(data=more):
                    body += more
                case h2.events.TrailersReceived(headers=trailers):
                    return dict(trailers)[b"grpc-status"].decode(), body[5:]


if __name__ == "__main__":
    main()
