"""Where to listen."""

import socket

import pytest

from triptych.address import free_port, listen, url_of
from triptych.errors import PortTakenError


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("example.test", "http://example.test:8000"),
    ],
)
def test_the_url_of_an_address_can_be_called_from_this_host(host: str, url: str) -> None:
    assert url_of(host, 8000) == url


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"127\.0\.0\.1 port {port}: Address already in"):
            listen("127.0.0.1", port)


def test_all_addresses_of_a_name_are_listened_on() -> None:
    addresses = {info[4][0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    listeners = listen("localhost", 0)
    assert {each.getsockname()[0] for each in listeners} == addresses
    for listener in listeners:
        with socket.create_connection(listener.getsockname()[:2]):
            listener.close()


def test_an_address_of_another_host_is_refused() -> None:
    with pytest.raises(PortTakenError, match=r"192\.0\.2\.1 port 8000"):  # TEST-NET-1 of RFC 5737
        listen("192.0.2.1", 8000)


def test_a_taken_metrics_port_gives_way_to_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: int = server.getsockname()[1]
        assert free_port("127.0.0.1", taken) != taken


def test_a_free_metrics_port_is_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    assert free_port("127.0.0.1", port) == port
