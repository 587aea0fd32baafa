"""What a client of the load test does: each act is of a few requests, and checks what they are.

Together they use every endpoint, as their clients do; how often, `ACTS` says.
"""

import asyncio
import base64
import io
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import httpx
from PIL import Image

_FINAL = frozenset({"succeeded", "failed", "canceled", "expired"})
_LATER = {"prefer": "respond-async"}
_SMALL = {"size": "64x64", "num_inference_steps": 2}
_PNG = {"content-type": "image/png"}


class RefusedError(Exception):
    """Raised for a 429 or a 503 that says when to come again."""

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s


class WrongAnswerError(Exception):
    """Raised for an answer that no client should get."""


@dataclass(slots=True)
class Tally:
    """What the clients of one load got."""

    answers: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    times_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: dict[str, str] = field(default_factory=dict)
    num_refused: int = 0


@dataclass(frozen=True, slots=True)
class Client:
    """One connection or a few, and what its requests are made of."""

    http: httpx.AsyncClient
    choice: random.Random
    kind: str
    tally: Tally

    async def send(self, method: str, path: str, **request: object) -> httpx.Response:
        """Send a request; raises RefusedError or WrongAnswerError for other than a success."""
        answer = await self.http.request(method, path, **request)  # type: ignore[arg-type]
        self.check(answer)
        return answer

    @asynccontextmanager
    async def lines(self, method: str, path: str, **request: object) -> AsyncIterator[list[str]]:
        """The lines of a stream that was read to its end."""
        async with self.http.stream(method, path, **request) as answer:  # type: ignore[arg-type]
            if answer.is_error:
                await answer.aread()
            self.check(answer)
            yield [line async for line in answer.aiter_lines()]

    def check(self, answer: httpx.Response) -> None:
        self.tally.answers[self.kind][answer.status_code] += 1
        retry_after = answer.headers.get("retry-after", "")
        if answer.status_code in (429, 503) and retry_after.isdecimal():
            raise RefusedError(float(retry_after))
        if not answer.is_success and answer.status_code != httpx.codes.NOT_MODIFIED:
            raise WrongAnswerError(f"{self.kind}: {answer.status_code} {answer.text[:300]}")

    def text(self) -> str:
        """No two are equal."""
        return f"a red circle {self.choice.getrandbits(32)}"

    def prompt(self) -> dict[str, object]:
        return {"prompt": self.text(), **_SMALL}

    def image(self) -> bytes:
        """No two are equal."""
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), tuple(self.choice.randbytes(3))).save(buffer, "PNG")
        return buffer.getvalue()

    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.image()).decode()


Act: TypeAlias = Callable[[Client], Awaitable[None]]


def expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise WrongAnswerError(otherwise)


async def paint(client: Client) -> None:
    await client.send("POST", "/v1/images/generations", json=client.prompt())


async def paint_and_fetch(client: Client) -> None:
    body = {**client.prompt(), "response_format": "url"}
    answer = await client.send("POST", "/v1/images/generations", json=body)
    url = answer.json()["data"][0]["url"]
    image = await client.send("GET", url)
    again = await client.send("GET", url, headers={"if-none-match": image.headers["etag"]})
    expect(again.status_code == httpx.codes.NOT_MODIFIED, "an image that was sent again")
    part = await client.send("GET", url, headers={"range": "bytes=0-9"})
    expect(part.content == image.content[:10], "another part than was asked for")


async def paint_streamed(client: Client) -> None:
    body = {**client.prompt(), "stream": True, "partial_images": 1}
    async with client.lines("POST", "/v1/images/generations", json=body) as lines:
        expect(
            any("image_generation.partial_image" in line for line in lines)
            and any("image_generation.completed" in line for line in lines),
            f"a stream without a partial image, or an end: {lines[-3:]}",
        )


async def edit(client: Client) -> None:
    files = {"image": ("image.png", client.image(), "image/png")}
    fields = {"prompt": client.text(), **_SMALL}
    await client.send("POST", "/v1/images/edits", files=files, data=fields)


async def edit_streamed(client: Client) -> None:
    files = {"image": ("image.png", client.image(), "image/png")}
    fields = {"prompt": client.text(), **_SMALL, "stream": "true"}
    async with client.lines("POST", "/v1/images/edits", files=files, data=fields) as lines:
        expect(any("image_edit.completed" in line for line in lines), "an edit without an end")


async def vary(client: Client) -> None:
    files = {"image": ("image.png", client.image(), "image/png")}
    await client.send("POST", "/v1/images/variations", files=files, data={"size": "64x64"})


async def repeat(client: Client) -> None:
    """Send one request twice, as after a lost answer."""
    body, headers = client.prompt(), {"idempotency-key": str(client.choice.getrandbits(64))}
    first = await client.send("POST", "/v1/images/generations", json=body, headers=headers)
    second = await client.send("POST", "/v1/images/generations", json=body, headers=headers)
    expect(second.headers.get("idempotency-replayed") == "true", "an answer that was not stored")
    expect(second.json() == first.json(), "another answer to the same key")


async def paint_later(client: Client) -> str:
    answer = await client.send(
        "POST", "/v1/images/generations", json=client.prompt(), headers=_LATER
    )
    job_id: str = answer.json()["id"]
    return job_id


async def poll(client: Client) -> None:
    await end_of(client, await paint_later(client))


async def end_of(client: Client, job_id: str) -> None:
    while (await client.send("GET", f"/v1/jobs/{job_id}")).json()["status"] not in _FINAL:
        await asyncio.sleep(0.5)


async def keep_house(client: Client) -> None:
    """Ask for a job, list it, read its result, and forget it."""
    body = {"type": "image.generation", "input": client.prompt(), "metadata": {"of": "load"}}
    job_id = (await client.send("POST", "/v1/jobs", json=body)).json()["id"]
    await end_of(client, job_id)
    await client.send("GET", "/v1/jobs", params={"type": "image.generation", "limit": 5})
    await client.send("GET", f"/v1/jobs/{job_id}/result")
    await client.send("DELETE", f"/v1/jobs/{job_id}")


async def embed_later(client: Client) -> None:
    body = {"input": [client.text(), client.text()]}
    answer = await client.send("POST", "/v1/embeddings", json=body, headers=_LATER)
    job_id = answer.json()["id"]
    await end_of(client, job_id)
    result = await client.send("GET", f"/v1/jobs/{job_id}/result")
    expect(len(result.json()["data"]) == 2, "embeddings that are missing")


async def follow(client: Client) -> None:
    job_id = await paint_later(client)
    async with client.lines("GET", f"/v1/jobs/{job_id}/events") as lines:
        expect("event: finished" in lines, f"events without an end: {lines[-3:]}")


async def follow_again(client: Client) -> None:
    """Lose the connection after the first event, and go on from there."""
    path = f"/v1/jobs/{await paint_later(client)}/events"
    async with client.http.stream("GET", path) as answer:
        client.check(answer)
        ids = (line async for line in answer.aiter_lines() if line.startswith("id: "))
        last = (await anext(ids)).removeprefix("id: ")
    async with client.lines("GET", path, headers={"last-event-id": last}) as lines:
        expect(f"id: {last}" not in lines, "an event twice")
        expect("event: finished" in lines, f"resumed events without an end: {lines[-3:]}")


async def cancel(client: Client) -> None:
    job_id = await paint_later(client)
    await client.send("POST", f"/v1/jobs/{job_id}/cancel")


async def leave(client: Client) -> None:
    """Close the connection while the answer is waited for."""
    try:
        async with asyncio.timeout(client.choice.random()):
            await paint(client)
    except TimeoutError:
        return


async def classify(client: Client) -> None:
    await client.send("POST", "/v1/classify", json={"input": client.data_uri()})


async def classify_form(client: Client) -> None:
    files = {"file": ("image.png", client.image(), "image/png")}
    await client.send("POST", "/v1/classify", files=files)


async def classify_large(client: Client) -> None:
    """4 MiB of noise, which no compression makes smaller."""
    buffer = io.BytesIO()
    noise = Image.frombytes("RGB", (1200, 1200), client.choice.randbytes(1200 * 1200 * 3))
    await asyncio.to_thread(noise.save, buffer, "PNG", compress_level=0)
    encoded = await asyncio.to_thread(base64.b64encode, buffer.getvalue())
    await client.send("POST", "/v1/classify", json={"input": encoded.decode()})


async def embed(client: Client) -> None:
    await client.send("POST", "/v1/embeddings", json={"input": client.text()})


async def embed_many(client: Client) -> None:
    texts = [client.text() for _ in range(512)]
    await client.send("POST", "/v1/embeddings", json={"input": texts})


async def hugging_face_paint(client: Client) -> None:
    parameters = {"width": 64, "height": 64, "num_inference_steps": 2}
    body = {"inputs": client.text(), "parameters": parameters}
    answer = await client.send("POST", "/models/flux_shapes", json=body)
    expect(answer.headers["content-type"] == "image/png", "an answer that is no image")


async def hugging_face_classify(client: Client) -> None:
    path = client.choice.choice(["/models/vit_shapes", "/"])
    await client.send("POST", path, content=client.image(), headers=_PNG)


async def hugging_face_embed(client: Client) -> None:
    path = client.choice.choice(
        ["/models/f_net_shapes", "/pipeline/feature-extraction/f_net_shapes"]
    )
    await client.send("POST", path, json={"inputs": client.text()})


async def tei_embed(client: Client) -> None:
    await client.send("POST", "/embed", json={"inputs": [client.text(), client.text()]})


def get(*paths: str, method: str = "GET") -> Act:
    async def read(client: Client) -> None:
        await client.send(method, client.choice.choice(paths))

    return read


# How often each is chosen: by what a client does, not by what it costs.
ACTS: Mapping[str, tuple[Act, float]] = {
    "paint": (paint, 6),
    "paint_and_fetch": (paint_and_fetch, 3),
    "paint_streamed": (paint_streamed, 3),
    "edit": (edit, 3),
    "edit_streamed": (edit_streamed, 1),
    "vary": (vary, 1),
    "repeat": (repeat, 2),
    "poll": (poll, 3),
    "follow": (follow, 3),
    "follow_again": (follow_again, 2),
    "keep_house": (keep_house, 3),
    "cancel": (cancel, 3),
    "leave": (leave, 2),
    "classify": (classify, 20),
    "classify_form": (classify_form, 20),
    "classify_large": (classify_large, 0.2),
    "embed": (embed, 20),
    "embed_many": (embed_many, 0.2),
    "embed_later": (embed_later, 3),
    "hugging_face_paint": (hugging_face_paint, 2),
    "hugging_face_classify": (hugging_face_classify, 5),
    "hugging_face_embed": (hugging_face_embed, 5),
    "tei_embed": (tei_embed, 5),
    "describe": (get("/info", "/models/vit_shapes/info", "/models/vit_shapes/health"), 2),
    "models": (get("/v1/models", "/v1/models/flux_shapes"), 5),
    "jobs": (get("/v1/jobs"), 3),
    "ready": (get("/readyz", "/healthz", "/health"), 3),
    "probe": (get("/readyz", "/healthz", method="HEAD"), 2),
    "metrics": (get("/metrics"), 1),
    "openapi": (get("/openapi.json"), 1),
}
