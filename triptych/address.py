"""Addresses to listen on, and the URLs by which they are called from this host."""

import socket
from contextlib import ExitStack

from triptych.errors import PortTakenError

_BACKLOG = (
    2048  # connections that wait for a process to accept them, such as while one starts again
)
_LAST_PORT = 65_535  # `getaddrinfo` wraps round behind it
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # every interface: call it by this one


def url_of(host: str, port: int) -> str:
    host = _LOOPBACK_OF.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of this name; raises PortTakenError where one is not to be had."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with ExitStack() as opened:
            listeners = [
                opened.enter_context(socket.create_server(address, family=family, backlog=_BACKLOG))
                for family, address in dict.fromkeys((each[0], each[4]) for each in addresses)
            ]
            opened.pop_all()
            return listeners
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # Python's own addition
        raise PortTakenError(f"cannot listen on {host} port {port}: {reason}") from None


def free_port(host: str, wanted: int) -> int:
    """The port wanted, or another that is free where it is taken or there is none of the number."""
    try:
        return _bind(host, wanted if wanted <= _LAST_PORT else 0)
    except OSError:
        return _bind(host, 0)


def hold_port(host: str, wanted: int) -> socket.socket:
    """Like `free_port`; nobody else finds that one free until this listener is closed."""
    try:
        return socket.create_server((host, wanted))
    except OSError:
        return socket.create_server((host, 0))


def _bind(host: str, port: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        bound: int = probe.getsockname()[1]
        return bound
