"""Stands between a client and the server, and loses replies or goes away when a test says so."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry


class RedisProxy:
    """Where `is_away`, connections end at once; `loses_replies` to so many more requests."""

    def __init__(self, redis_url: str) -> None:
        parts = urlsplit(redis_url)
        self._server = parts.hostname, parts.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.is_away = False
        self.loses_replies = 0
        self.num_accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        return f"redis://{host}:{port}"

    def client(self, num_retries: int) -> Redis:
        return Redis.from_url(self.url, retry=Retry(NoBackoff(), num_retries))

    def go_away(self) -> None:
        self.is_away = True
        for each in self._open:
            _end(each)

    def close(self) -> None:
        self.go_away()
        _end(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener's end
            while True:
                client, _ = self._listener.accept()
                self.num_accepted += 1
                if self.is_away:
                    client.close()
                    continue
                server = socket.create_connection(self._server)
                self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    pump = threading.Thread(target=self._pump, args=(source, sink), daemon=True)
                    pump.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        is_reply = source.getpeername()[1] == self._server[1]
        with suppress(OSError):
            while chunk := source.recv(2**16):
                if is_reply and self.loses_replies:
                    self.loses_replies -= 1
                    break
                sink.sendall(chunk)
        for each in (source, sink):
            _end(each)
        source.close()  # the other pump closes the sink, which is its source


@contextmanager
def redis_proxy(redis_url: str) -> Iterator[RedisProxy]:
    proxy = RedisProxy(redis_url)
    try:
        yield proxy
    finally:
        proxy.close()


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended already
        connection.shutdown(socket.SHUT_RDWR)
