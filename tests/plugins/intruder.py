"""A program that has found a plugin's address and tries to be served. Knows nothing of our code.

Its standard input is JSON: where to connect, what to say once it is connected, and the attempts. Its
output says for each of them what it has got.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys


def connect(address: str) -> socket.socket:
    if address.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(address)
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def attempt(address: str, words: bytes, file: str | None, version: str | None) -> list[object]:
    """Return what ended it, and how many bytes of the application came back."""
    with connect(address) as plain:
        sock = plain
        try:
            if version is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                # What it thinks of the plugin is not the question.
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
                context.set_alpn_protocols(["h2"])
                if file is not None:
                    context.load_cert_chain(file)
                sock = context.wrap_socket(plain, do_handshake_on_connect=False)
                sock.do_handshake()
            sock.sendall(words)
            if data := sock.recv(65536):
                return ["answered", len(data)]
        except OSError as error:
            return [type(error).__name__, 0]
        finally:
            sock.close()
    return ["end", 0]


def main() -> None:
    task = json.load(sys.stdin)
    words = bytes.fromhex(task["words"])
    results = [attempt(task["address"], words, *each) for each in task["attempts"]]
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
