"""A program that is no proper plugin, in the way that its argument names."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> None:
    mode = sys.argv[1]
    print("starting", mode, file=sys.stderr, flush=True)
    match mode:
        case "exits":
            for number in range(100):
                print("reason", number, file=sys.stderr, flush=True)
            sys.exit(3)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "killed-once":
            marker = sys.argv[2]
            if not os.path.exists(marker):
                with open(marker, "w"):
                    os.kill(os.getpid(), signal.SIGKILL)
            os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
        case "silent":
            pass
        case "closes-stdout":
            os.close(1)
        case "noise":
            say("x" * 2_000_000)
        case "lines":
            say(("a line of noise " * 64 + "\n") * 1200)
        case "malformed":
            say("1|1|unix\n")
        case "core":
            say("2|1|unix|/nowhere|grpc\n")
        case "app":
            say("1|7|unix|/nowhere|grpc\n")
        case "netrpc":
            say("1|1|unix|/nowhere|netrpc\n")
        case "dead-unix":
            say("1|1|unix|/nowhere/at/all|grpc\n")
        case "dead-tcp":
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                port = sock.getsockname()[1]
            say(f"1|1|tcp|127.0.0.1:{port}|grpc\n")
        case "certificate":
            import base64

            # The outer shape of a certificate is all that is looked at here.
            body = bytes(300)
            inner = b"\x30\x82" + len(body).to_bytes(2, "big") + body + b"\x30\x00\x03\x01\x00"
            der = b"\x30\x82" + len(inner).to_bytes(2, "big") + inner
            say(f"1|1|unix|/nowhere|grpc|{base64.b64encode(der).decode().rstrip('=')}\n")
        case "not-grpc" | "not-yamux":
            shares = "||true" if mode == "not-yamux" else ""
            with socket.create_server(("127.0.0.1", 0)) as sock:
                say(f"1|1|tcp|127.0.0.1:{sock.getsockname()[1]}|grpc{shares}\n")
                connection, _ = sock.accept()
                connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
                time.sleep(60)
        case "leaves-children":
            if os.fork() == 0:
                time.sleep(60)
            sys.exit(4)
    time.sleep(60)


if __name__ == "__main__":
    main()
