"""Whether an MRD server answers: CLOSE is sent, CLOSE must come back. Exit status 0 or 1."""

from __future__ import annotations

import socket
import sys

CLOSE = (4).to_bytes(2, "little")  # message number of the MRD protocol
PATIENCE = 8.0  # s


def answers(host: str, port: int) -> bool:
    """Whether the last thing that the server says is CLOSE."""
    said = b""
    try:
        with socket.create_connection((host, port), timeout=PATIENCE) as connection:
            connection.sendall(CLOSE)
            while (more := connection.recv(4096)) and len(said) < 1 << 20:
                said += more
    except OSError as error:
        print(f"{host}:{port}: {error}", file=sys.stderr)
        return False
    if not said.endswith(CLOSE):
        print(f"{host}:{port}: {len(said)} bytes came, expected CLOSE at their end", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(0 if answers(sys.argv[1], int(sys.argv[2])) else 1)
