"""What the routes are given: the service's parts, and what a request prefers.

The parts are opened by the lifespan in `main` and live as long as the app.
"""

import re
import time
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Annotated

from fastapi import Depends, Header, Request
from redis import Redis

from service.catalog import Catalog
from service.errors import RequestError, shown
from service.events import JobEvents
from service.idempotency import KeyHeader, key_of
from service.job_changes import JobChanges
from service.job_client import JobClient
from service.job_list import JobList
from service.metrics import UNKNOWN_TASK, Metrics
from service.redis_health import RedisHealth
from service.settings import ServiceSettings
from service.signed_urls import SignedUrls
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import Task
from worker.contract.model_cards import ModelCard
from worker.contract.submission import IdempotencyKey


@dataclass(frozen=True, slots=True)
class Parts:
    settings: ServiceSettings
    catalog: Catalog
    metrics: Metrics
    image_files: ImageFiles
    jobs: JobClient
    job_list: JobList
    job_changes: JobChanges
    events: JobEvents
    signed_urls: SignedUrls
    redis_health: RedisHealth
    blocking_redis: Redis  # for the contract's synchronous readers, in a thread
    started_at: int  # Unix seconds

    @staticmethod
    def now() -> float:
        return time.time()


async def card_of(request: Request, parts: Parts, name: str | None, task: Task) -> ModelCard:
    """The card of the model that a request asks for work of; see `Catalog.card`."""
    request.state.asked_for = task.value
    return await parts.catalog.card(name, task)


@dataclass(frozen=True, slots=True)
class Preference:
    """How a request's job is to be answered, as its headers say.

    Of RFC 7240's `Prefer` what is understood here, and whether the request may come again.
    """

    is_async: bool  # respond-async: 202 with the job
    wait_s: float | None  # wait=N
    key: IdempotencyKey | None = None

    def applied(self) -> str | None:
        """The value of `Preference-Applied`; None where nothing was asked for."""
        names = ["respond-async"] if self.is_async else []
        names += [f"wait={self.wait_s:g}"] if self.wait_s is not None else []
        return ", ".join(names) or None


async def get_parts(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts), "this is a bug: the lifespan has not run"
    return parts


def caller_of(request: Request) -> str:
    """Who shares the devices with others, as a job names them: for now, a client's address.

    An IPv6 client has 2**64 addresses of its own and counts as one. Short, and no address: it lies
    in Redis with the job, and is neither logged nor counted.
    """
    client = request.client  # None on a Unix socket
    return "" if client is None else _caller_at(client.host)


@lru_cache(maxsize=1024)
def _caller_at(host: str) -> str:
    try:
        name = _network(ip_address(host))
    except ValueError:  # a proxy's name for a client whose address it does not tell
        name = host
    return sha256(name.encode()).hexdigest()[:16]


def _network(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address), 64), strict=False))


Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description="respond-async: 202 with the job at once; wait=N: after N seconds at the most",
        openapi_examples={"respond_async": {"value": "respond-async"}},
    ),
]


async def get_preference(request: Request, _: Prefer = None, __: KeyHeader = None) -> Preference:
    """Unknown preferences are ignored, as the RFC wants; a wait that is no number is a 400.

    Each header may come in several lines, of which FastAPI's parameter has one.
    """
    request.state.asked_for = _task_of_route(request)  # it is a request for work
    is_async, wait_s = False, None
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = preference.split(";")[0].partition("=")
        if name.strip().lower() == "respond-async":
            is_async = True
        elif name.strip().lower() == "wait":
            wait_s = _seconds(value.strip().strip('"'))
    return Preference(is_async, wait_s, await key_of(request, caller_of(request)))


def _task_of_route(request: Request) -> str:
    """As its tags say; of a route for several tasks it is known once the body is read."""
    tags = getattr(request.scope["route"], "tags", ())
    return next((task.value for task in Task if task.value in tags), UNKNOWN_TASK)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        allowed = "allowed: whole seconds, 0 to 999999"
        raise RequestError("Prefer", f"Prefer: got wait={shown(text)}; {allowed}")
    return float(text)


CurrentParts = Annotated[Parts, Depends(get_parts)]
CurrentPreference = Annotated[Preference, Depends(get_preference)]
