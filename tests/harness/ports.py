"""Ports for servers that keep theirs over a restart, or cannot be told to take any."""

import contextlib
import fcntl
import functools
import itertools
import pathlib
import socket
import tempfile

# Below what the system gives to those who ask for any port (32768 and above), so that nobody gets one whose server is down for a moment.
FIRST, MANY = 10_000, 500
SHARES = 44


@functools.cache
def share():
    """The ports of this process, in turn. Others have other ones, as long as it lives."""
    for number in range(SHARES):
        # One that is locked, or another user's, is somebody else's.
        with contextlib.suppress(OSError):
            file = open(pathlib.Path(tempfile.gettempdir()) / f"towline-ports-{number}.lock", "w")  # noqa: SIM115
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            first = FIRST + number * MANY
            return file, itertools.cycle(range(first, first + MANY))
    raise AssertionError(f"{SHARES} processes have ports already: look for towline-ports-*.lock in {tempfile.gettempdir()}")


def free_port(host="127.0.0.1"):
    """Nobody listens there, by TCP or UDP."""
    _, ports = share()
    for port in itertools.islice(ports, MANY):
        with contextlib.suppress(OSError), socket.create_server((host, port)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind((host, port))
            return port
    raise AssertionError(f"all of {MANY} ports from {FIRST} on are taken")
