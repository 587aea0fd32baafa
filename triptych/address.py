"""Addresses to listen on: are they free, and by which URL are they called from this host?"""

import socket

from triptych.errors import PortTakenError

_LAST_PORT = 65_535  # `getaddrinfo` wraps round behind it
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # every interface: call it by this one


def url_of(host: str, port: int) -> str:
    host = _LOOPBACK_OF.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def require_free(host: str, port: int) -> None:
    """Raise PortTakenError where a server could not listen there."""
    try:
        _bind(host, port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PortTakenError(f"cannot listen on {host} port {port}: {reason}") from None


def free_port(host: str, wanted: int) -> int:
    """The port wanted, or another that is free where it is taken or there is none of the number."""
    try:
        return _bind(host, wanted if wanted <= _LAST_PORT else 0)
    except OSError:
        return _bind(host, 0)


def _bind(host: str, port: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        bound: int = probe.getsockname()[1]
        return bound
