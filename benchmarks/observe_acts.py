"""What goes wrong while the service is observed, beside what the load's clients do anyway.

Each act is a mistake of a client, or meets a model that cannot be loaded, and says which answer it
has to get: seen from the dashboards these are refusals, failures and retries.
"""

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from benchmarks.load_acts import ACTS, Act, Client, expect
from benchmarks.process_tree import tree_of
from benchmarks.running_service import RunningService

BROKEN = "broken"  # the name of a classifier whose files are no weights
_PATHS = {
    "images": "/v1/images/generations",
    "classify": "/v1/classify",
    "embeddings": "/v1/embeddings",
}
_LARGE = {"prompt": "a green ring on white", "size": "128x128", "num_inference_steps": 20}
_LATER = {"prefer": "respond-async", "cache-control": "no-store"}
_TIMEOUT_S = 60.0
_RETRY = {"x-stainless-retry-count": "1"}  # as OpenAI's clients say it


async def _post(
    client: Client, task: str, body: Mapping[str, object], statuses: Sequence[int],
    headers: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    answer = await client.http.post(_PATHS[task], json=body, headers=headers)
    client.tally.answers[client.kind][answer.status_code] += 1
    expect(answer.status_code in (*statuses, 429, 503), f"{answer.status_code} {answer.text[:200]}")


async def retry(client: Client) -> None:
    await _post(client, "classify", {"input": client.data_uri()}, [200], _RETRY)


async def ask_again(client: Client) -> None:
    body = {"input": client.data_uri()}
    for _ in range(2):
        await _post(client, "classify", body, [200])


async def attach(client: Client) -> None:
    """Send a request again while the first is being answered."""
    body, key = client.prompt(), {"idempotency-key": str(client.choice.getrandbits(64))}
    await asyncio.gather(*(_post(client, "images", body, [200, 409], key) for _ in range(2)))


async def reuse_a_key(client: Client) -> None:
    key = {"idempotency-key": str(client.choice.getrandbits(64))}
    await _post(client, "embeddings", {"input": client.text()}, [200], key)
    await _post(client, "embeddings", {"input": client.text()}, [409, 422], key)


async def classify_half_an_image(client: Client) -> None:
    half = client.image()
    files = {"file": ("image.png", half[: len(half) * 2 // 3], "image/png")}
    answer = await client.http.post(_PATHS["classify"], files=files)
    client.tally.answers[client.kind][answer.status_code] += 1
    expect(answer.status_code in (400, 429, 503), f"{answer.status_code} {answer.text[:200]}")


async def embed_too_much(client: Client) -> None:
    await _post(client, "embeddings", {"input": client.text() * 2000}, [400])


async def use_the_broken_model(client: Client) -> None:
    await _post(client, "classify", {"input": client.data_uri(), "model": BROKEN}, [503])


async def ask_for_nothing_there(client: Client) -> None:
    answer = await client.http.get("/v2/everything")
    expect(answer.status_code == httpx.codes.NOT_FOUND, f"{answer.status_code}")


OBSERVED_ACTS: Mapping[str, tuple[Act, float]] = {
    **ACTS,
    "retry": (retry, 3),
    "ask_again": (ask_again, 3),
    "attach": (attach, 2),
    "reuse_a_key": (reuse_a_key, 1),
    "classify_half_an_image": (classify_half_an_image, 2),
    "embed_too_much": (embed_too_much, 1),
    "use_the_broken_model": (use_the_broken_model, 2),
    "ask_for_nothing_there": (ask_for_nothing_there, 1),
}


async def kill_a_worker(service: RunningService, after_s: float) -> None:
    """Kill the worker of images, in the middle of one; the supervisor starts another."""
    await asyncio.sleep(after_s)
    async with httpx.AsyncClient(base_url=service.url, timeout=_TIMEOUT_S) as http:
        await http.post(_PATHS["images"], json=_LARGE, headers=_LATER)
        jobs = {"status": "running", "type": "image.generation"}
        while not (await http.get("/v1/jobs", params=jobs)).json()["data"]:
            await asyncio.sleep(0.01)
    (worker,) = [pid for pid in tree_of(service.pid) if name_of(pid).startswith("images-")]
    os.kill(worker, signal.SIGKILL)


async def fill_the_queue(url: str, after_s: float, until_s: float) -> None:
    """Submit more images than can be painted; who is refused comes again after a second."""
    started = time.monotonic()
    await asyncio.sleep(after_s)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S) as http:
        while time.monotonic() - started < until_s:
            answer = await http.post(_PATHS["images"], json=_LARGE, headers=_LATER)
            if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                await asyncio.sleep(1)


def name_of(pid: int) -> str:
    """As the kernel has it; workers name themselves."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return ""
