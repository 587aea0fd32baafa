"""Bytes that are HTTP in two ways, or in none: each connection gets its answers, and then ends.

Whether one request or two were sent must not depend on who reads: what has two lengths is refused.
"""

import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import httpx
import pytest

from tests.running_service import Service

_HOST = b"Host: x\r\n"
_CLOSE = b"Connection: close\r\n"
_POST = b"POST /v1/embeddings HTTP/1.1\r\n" + _HOST + _CLOSE + b"Content-Type: application/json\r\n"
_GET = b"GET /healthz HTTP/1.1\r\n" + _HOST
_SECOND = b"GET /v1/models HTTP/1.1\r\n" + _HOST + b"Connection: close\r\n\r\n"
_BODY = b'{"input": "x"}'
_CHUNKED = b"Transfer-Encoding: chunked\r\n"


@dataclass(frozen=True, slots=True)
class Exchange:
    sent: bytes
    statuses: tuple[int, ...]  # of all answers; none: we leave before there is one


def chunked(*lines: bytes) -> bytes:
    return _POST + _CHUNKED + b"\r\n" + b"\r\n".join(lines)


def head(*lines: bytes) -> bytes:
    return _GET + b"".join(line + b"\r\n" for line in lines) + b"Connection: close\r\n\r\n"


EXCHANGES: Mapping[str, Exchange] = {
    # two lengths
    "cl_te": Exchange(
        _POST + b"Content-Length: 6\r\n" + _CHUNKED + b"\r\n0\r\n\r\nG" + _SECOND, (400,)
    ),
    "te_cl": Exchange(
        _POST + _CHUNKED + b"Content-Length: 4\r\n\r\n5c\r\n" + _SECOND + b"0\r\n\r\n", (400,)
    ),
    "two_lengths": Exchange(
        _POST + b"Content-Length: 14\r\nContent-Length: 1\r\n\r\n" + _BODY, (400,)
    ),
    "two_equal_lengths": Exchange(
        _POST + b"Content-Length: 14\r\nContent-Length: 14\r\n\r\n" + _BODY, (400,)
    ),
    "a_list_of_lengths": Exchange(_POST + b"Content-Length: 14, 14\r\n\r\n" + _BODY, (400,)),
    "te_twice": Exchange(_POST + _CHUNKED + _CHUNKED + b"\r\n0\r\n\r\n", (400,)),
    "te_identity": Exchange(
        _POST + b"Transfer-Encoding: identity\r\nContent-Length: 14\r\n\r\n" + _BODY, (400,)
    ),
    "te_of_nobody": Exchange(_POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", (400,)),
    "te_chunked_first": Exchange(
        _POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", (400,)
    ),
    "te_after_a_space": Exchange(_POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", (400,)),
    "te_with_a_tab": Exchange(
        _POST + b"Transfer-Encoding:\x0bchunked\r\nContent-Length: 14\r\n\r\n" + _BODY, (400,)
    ),
    # lengths that are none
    "negative_length": Exchange(_POST + b"Content-Length: -1\r\n\r\n" + _BODY, (400,)),
    "plus_length": Exchange(_POST + b"Content-Length: +14\r\n\r\n" + _BODY, (400,)),
    "hexadecimal_length": Exchange(_POST + b"Content-Length: 0xe\r\n\r\n" + _BODY, (400,)),
    "empty_length": Exchange(_POST + b"Content-Length: \r\n\r\n" + _BODY, (400,)),
    "huge_length": Exchange(_POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", (400,)),
    "length_of_a_gibibyte": Exchange(_POST + b"Content-Length: 1073741824\r\n\r\n", (413,)),
    # chunks
    "chunk_size_is_a_word": Exchange(chunked(b"zz", _BODY, b"0", b"", b""), (400,)),
    "chunk_size_of_80_bits": Exchange(chunked(b"fffffffffffffffff", _BODY), (400,)),
    "chunk_size_negative": Exchange(chunked(b"-1", _BODY, b"0", b"", b""), (400,)),
    "chunk_size_0x": Exchange(chunked(b"0xe", _BODY, b"0", b"", b""), (400,)),
    "chunk_longer_than_said": Exchange(chunked(b"2", _BODY, b"0", b"", b""), (400,)),
    "chunk_of_a_gibibyte": Exchange(chunked(b"40000000", b"x" * 1000), ()),
    "chunk_extension": Exchange(chunked(b"e;a=b", _BODY, b"0", b"", b""), (200,)),
    "chunk_extension_of_a_mib": Exchange(
        chunked(b"e;" + b"a" * 2**20, _BODY, b"0", b"", b""), (431,)
    ),
    "chunk_extension_with_a_newline": Exchange(chunked(b"e;a\nb", _BODY, b"0", b"", b""), (400,)),
    "trailers": Exchange(chunked(b"e", _BODY, b"0", b"X-Y: z", b"", b""), (200,)),
    "trailers_of_a_mib": Exchange(chunked(b"e", _BODY, b"0", b"a: b\r\n" * 175_000), (431,)),
    "a_trailer_of_a_mib": Exchange(chunked(b"e", _BODY, b"0", b"X-Y: " + b"z" * 2**20), (431,)),
    # lines and names
    "bare_lf": Exchange(b"GET /healthz HTTP/1.1\nHost: x\nConnection: close\n\n", (400,)),
    "bare_cr": Exchange(head(b"X: a\rb"), (400,)),
    "folded_header": Exchange(head(b"X: a", b" b"), (400,)),
    "nul_in_a_header": Exchange(head(b"X: a\0b"), (400,)),
    "nul_in_a_name": Exchange(head(b"X\0: a"), (400,)),
    "space_in_a_name": Exchange(head(b"X Y: a"), (400,)),
    "no_colon": Exchange(head(b"X"), (400,)),
    "no_name": Exchange(head(b": a"), (400,)),
    "name_of_nobody": Exchange(head("Ж: a".encode()), (400,)),
    "a_request_id_of_two_lines": Exchange(head(b"X-Request-ID: a\r\nSet-Cookie: b=c"), (200,)),
    "no_host": Exchange(b"GET /healthz HTTP/1.1\r\n\r\n", (400,)),
    "no_host_in_http_1_0": Exchange(b"GET /healthz HTTP/1.0\r\n\r\n", (200,)),
    "two_hosts": Exchange(head(b"Host: x"), (400,)),
    "two_hosts_in_http_1_0": Exchange(
        b"GET /healthz HTTP/1.0\r\n" + _HOST + _HOST + b"\r\n", (400,)
    ),
    "an_empty_host": Exchange(b"GET /healthz HTTP/1.1\r\nHost:\r\n" + _CLOSE + b"\r\n", (200,)),
    "100_headers": Exchange(head(*[b"X: a"] * 100), (200,)),
    "endless_header": Exchange(_GET + b"X: " + b"a" * 65_536, (431,)),
    "endless_headers": Exchange(_GET + b"X: abc\r\n" * 8_192, (431,)),
    "a_whole_head_of_100_kib": Exchange(head(*[b"X: abc"] * 12_500), (431,)),
    "endless_path": Exchange(b"GET /" + b"a" * 65_536, (431,)),
    # request lines
    "no_version": Exchange(b"GET /healthz\r\n\r\n", (200,)),
    "http_0_9": Exchange(b"GET /healthz HTTP/0.9\r\n\r\n", (200,)),
    "http_2_preface": Exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400,)),
    "http_9": Exchange(b"GET / HTTP/9.9\r\n\r\n", (400,)),
    "lower_case_method": Exchange(b"get /healthz HTTP/1.1\r\n" + _HOST + b"\r\n", (400,)),
    "method_of_nobody": Exchange(b"HACK /healthz HTTP/1.1\r\n" + _HOST + b"\r\n", (400,)),
    "connect": Exchange(b"CONNECT evil.example:80 HTTP/1.1\r\n" + _HOST + b"\r\n", (400,)),
    "absolute_url": Exchange(
        b"GET http://evil.example/healthz HTTP/1.1\r\n" + _HOST + b"Connection: close\r\n\r\n",
        (200,),
    ),
    "dots": Exchange(
        b"GET /v1/../healthz HTTP/1.1\r\n" + _HOST + b"Connection: close\r\n\r\n", (404,)
    ),
    "space_in_the_path": Exchange(b"GET /a b HTTP/1.1\r\n" + _HOST + b"\r\n", (400,)),
    "nul_in_the_path": Exchange(b"GET /a\0b HTTP/1.1\r\n" + _HOST + b"\r\n", (400,)),
    "newline_in_the_path": Exchange(b"GET /a\nX: b HTTP/1.1\r\n" + _HOST + b"\r\n", (404,)),
    "raw_utf_8_in_the_path": Exchange(
        "GET /v1/models/Ж HTTP/1.1\r\n".encode() + _HOST + b"Connection: close\r\n\r\n", (400,)
    ),
    "a_fragment": Exchange(
        b"GET /healthz#x HTTP/1.1\r\n" + _HOST + b"Connection: close\r\n\r\n", (200,)
    ),
    "upgrade_to_http_2": Exchange(head(b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"), (200,)),
    "upgrade_to_a_socket": Exchange(
        _GET + b"Upgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        (200,),
    ),
    # not HTTP
    "nothing": Exchange(b"", ()),
    "newlines": Exchange(b"\r\n" * 100, ()),
    "tls": Exchange(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), (400,)),
    "redis": Exchange(b"*1\r\n$8\r\nFLUSHALL\r\n", (400,)),
    "ssh": Exchange(b"SSH-2.0-OpenSSH_9.9\r\n", (400,)),
    "zeros": Exchange(bytes(10_000), (400,)),
    # several, and halves
    "two_in_one_write": Exchange(_GET + b"\r\n" + _SECOND, (200, 200)),
    "5000_in_one_write": Exchange((_GET + b"\r\n") * 5000, ()),
    "a_get_with_a_body": Exchange(
        _GET + b"Content-Length: 14\r\n\r\n" + _BODY + _SECOND, (200, 200)
    ),
    "half_a_head": Exchange(_GET, ()),
    "half_a_body": Exchange(_POST + b"Content-Length: 14\r\n\r\n" + _BODY[:7], ()),
    "half_a_chunk": Exchange(chunked(b"e", _BODY[:7]), ()),
    "expects_to_go_on": Exchange(
        _POST + b"Expect: 100-continue\r\nContent-Length: 14\r\n\r\n" + _BODY,
        (100, 200),
    ),
    "expects_the_impossible": Exchange(head(b"Expect: wonders"), (200,)),
}


def exchanged(port: int, sent: bytes, leaves: bool) -> bytes:
    """Send it all, and read until the service ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        received = b""
        with suppress(OSError):  # it has said what it had to say, and has not read the rest
            connection.sendall(sent)
            if leaves:
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while part := connection.recv(65_536):
                received += part
        return received


@pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=EXCHANGES)
def test_a_connection_gets_its_answers_and_the_next_one_too(
    service: Service, exchange: Exchange
) -> None:
    received = exchanged(service.port, exchange.sent, leaves=not exchange.statuses)
    statuses = tuple(map(int, re.findall(rb"HTTP/1\.1 (\d{3}) ", received)))
    assert statuses == exchange.statuses, received[:500]
    assert httpx.get(f"{service.url}/healthz").status_code == 200


def test_a_request_id_of_a_client_cannot_add_a_header(service: Service) -> None:
    received = exchanged(service.port, EXCHANGES["a_request_id_of_two_lines"].sent, False)
    assert b"set-cookie" not in received.lower()
