"""Ports for servers that cannot be told to take any."""

import socket


def free_port(host="127.0.0.1"):
    """Nobody listens there. Whoever is quick may take it before it is used."""
    with socket.create_server((host, 0)) as free:
        return free.getsockname()[1]
