"""What the routes are given: the service's parts, and what a request prefers.

The parts are opened by the lifespan in `main` and live as long as the app.
"""

import re
import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from redis import Redis

from service.catalog import Catalog
from service.errors import RequestError, shown
from service.events import JobEvents
from service.job_client import JobClient
from service.metrics import Metrics
from service.settings import ServiceSettings
from worker.contract.image_files import ImageFiles


@dataclass(frozen=True, slots=True)
class Parts:
    settings: ServiceSettings
    catalog: Catalog
    metrics: Metrics
    image_files: ImageFiles
    jobs: JobClient
    events: JobEvents
    blocking_redis: Redis  # for the contract's synchronous readers, in a thread
    started_at: int  # Unix seconds

    @staticmethod
    def now() -> float:
        return time.time()


@dataclass(frozen=True, slots=True)
class Preference:
    """RFC 7240's `Prefer`, as far as it is understood here."""

    is_async: bool  # respond-async: 202 with the job
    wait_s: float | None  # wait=N

    def applied(self) -> str | None:
        """The value of `Preference-Applied`; None where nothing was asked for."""
        names = ["respond-async"] if self.is_async else []
        names += [f"wait={self.wait_s:g}"] if self.wait_s is not None else []
        return ", ".join(names) or None


async def get_parts(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts), "this is a bug: the lifespan has not run"
    return parts


async def get_preference(request: Request) -> Preference:
    """Unknown preferences are ignored, as the RFC wants; a wait that is no number is a 400."""
    is_async, wait_s = False, None
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = preference.split(";")[0].partition("=")
        if name.strip().lower() == "respond-async":
            is_async = True
        elif name.strip().lower() == "wait":
            wait_s = _seconds(value.strip().strip('"'))
    return Preference(is_async, wait_s)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        allowed = "allowed: whole seconds, 0 to 999999"
        raise RequestError("Prefer", f"Prefer: got wait={shown(text)}; {allowed}")
    return float(text)


CurrentParts = Annotated[Parts, Depends(get_parts)]
CurrentPreference = Annotated[Preference, Depends(get_preference)]
