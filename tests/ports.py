"""Ports for programs of others, which cannot be asked for "any free one" and told which it was."""

import random
import socket
from contextlib import ExitStack

HERE = "127.0.0.1"
CHOICES = range(10_000, 32_000)  # below those that the kernel hands to anybody who asks for any (Linux: from 32768)


def free_ports(count: int) -> list[int]:
    """As many different ports as asked, each free a moment ago; OSError if they cannot be found.

    All are held until the last one is found: a port given back at once may be the very next one handed out.
    """
    ports: list[int] = []
    with ExitStack() as held:
        for port in random.SystemRandom().sample(CHOICES, 1000):
            if len(ports) == count:
                return ports
            try:
                held.enter_context(socket.create_server((HERE, port)))
            except OSError:
                continue  # somebody else's
            ports.append(port)
    raise OSError(f"only {len(ports)} of {count} free ports among 1000 tried")
