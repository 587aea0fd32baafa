"""The HTTP server of a process: what it waits for while it runs, and when it is to end."""

import asyncio
import ctypes
import gc
import platform
import resource
import socket

import uvicorn
from fastapi import FastAPI

from service.dependencies import Parts
from service.http_protocol import HttpProtocol
from service.settings import ServiceSettings

# Longer than clients keep an idle connection (httpx and the openai client: 5 s): the client closes
# it, never the server under a request that is on its way.
_KEEP_ALIVE_S = 75

# glibc's defaults at the start, which it raises itself once it has freed a large block (mallopt(3))
_MALLOC_THRESHOLDS = {-1: 128 * 1024, -3: 128 * 1024}  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD

_LAST_WORDS_S = 5  # after the grace: to write the answers of those who waited


class Server(uvicorn.Server):
    """On SIGTERM, who waits for a job gets the grace, then a 504; who follows one leaves at once.

    A follower goes on elsewhere from its last event, and loses nothing.
    """

    def __init__(self, app: FastAPI, settings: ServiceSettings) -> None:
        grace_s = settings.drain_grace_s
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=HttpProtocol,
                ws="none",
                timeout_graceful_shutdown=grace_s + _LAST_WORDS_S,
                timeout_keep_alive=_KEEP_ALIVE_S,
                log_config=None,  # its lines have our form
                access_log=False,  # RequestMiddleware writes it, with route, time and id
                server_header=False,
            )
        )
        self._app = app
        self._grace_s = grace_s

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        _allow_many_files()
        _give_back_memory()
        super().run(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        parts: Parts = self._app.state.parts
        loop = asyncio.get_running_loop()
        parts.events.stop()
        end = loop.call_later(self._grace_s, parts.jobs.stop_waiting)
        await super().shutdown(sockets)
        end.cancel()


def prepare(app: FastAPI) -> None:
    """Do before there are requests what would hold up the event loop under them.

    The description takes 0.2 s; and all that lives as long as the process, some 100,000 objects,
    would take each full garbage collection 0.1 s.
    """
    app.openapi()
    gc.collect()
    gc.freeze()


def _allow_many_files() -> None:
    """As many as the host lets us: a follower takes two, and 1,024 are the usual beginning."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _give_back_memory() -> None:
    """Have what a request held go back to the host; of large bodies a heap of holes would stay."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, num_bytes in _MALLOC_THRESHOLDS.items():
            libc.mallopt(parameter, num_bytes)
