"""A newcomer's first minutes, with curl's and OpenAI's eyes, against the running service."""

import base64
import io
import json
import os
import re
import signal
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import urlencode

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from benchmarks.process_tree import tree_of
from models.fnet.text_embedder import TextEmbedder
from tests.running_service import (
    Service,
    poll_until,
    read,
    start_service,
    stop_service,
)
from training.geometry import detect_shapes
from training.shapes_world import single
from training.verdict import compare
from triptych.prometheus_targets import FILE_NAME

PROMPT = "a large red circle on a white background at the left"
GLIBC_HEAP_BYTES = 64 * 2**20  # of address space, for each that is not the first; malloc/arena.c
SLOW = {"prompt": PROMPT, "size": "256x256", "n": 4, "num_inference_steps": 80, "seed": 1}


def open_png(encoded: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert image.format == "PNG"
    return image


def submit(client: httpx.Client, body: dict[str, object]) -> str:
    """Post an image job asynchronously, to be run whatever ran before, and return its id."""
    headers = {"Prefer": "respond-async", "Cache-Control": "no-cache"}
    answer = client.post("/v1/images/generations", json=body, headers=headers)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def status(client: httpx.Client, job_id: str) -> str:
    state: str = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()["status"]
    return state


@pytest.fixture
def stock(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
        yield client


def test_the_image_shows_what_the_prompt_says(client: httpx.Client) -> None:
    answer = client.post("/v1/images/generations", json={"prompt": PROMPT, "seed": 3})

    image = open_png(answer.raise_for_status().json()["data"][0]["b64_json"])
    said = single("red", "circle", "large", "left", "white")
    assert image.size == (128, 128)
    assert compare(said, detect_shapes(np.asarray(image.convert("RGB")))).is_right


def test_the_png_carries_its_parameters(client: httpx.Client) -> None:
    body = {"prompt": PROMPT, "seed": 5, "num_inference_steps": 4, "size": "96x64"}
    answer = client.post("/v1/images/generations", json=body).raise_for_status().json()

    image = open_png(answer["data"][0]["b64_json"])
    parameters = json.loads(image.text["parameters"])  # type: ignore[attr-defined]
    assert image.size == (96, 64)
    assert parameters["prompt"] == PROMPT
    assert parameters["seed"] == 5
    assert parameters["num_inference_steps"] == 4


@pytest.mark.parametrize(("prompt", "is_cut"), [(PROMPT, False), (f"{PROMPT} " * 5, True)])
def test_a_prompt_that_is_cut_is_said(client: httpx.Client, prompt: str, is_cut: bool) -> None:
    answer = client.post("/v1/images/generations", json={"prompt": prompt}).raise_for_status()
    assert answer.json()["prompt_truncated"] is is_cut


def test_one_seed_is_one_image(client: httpx.Client) -> None:
    def paint(seed: int) -> str:
        answer = client.post("/v1/images/generations", json={"prompt": PROMPT, "seed": seed})
        encoded: str = answer.raise_for_status().json()["data"][0]["b64_json"]
        return np.asarray(open_png(encoded)).tobytes().hex()

    assert paint(8) == paint(8)
    assert paint(8) != paint(9)


def test_a_url_serves_the_image(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/images/generations", json={"prompt": PROMPT, "response_format": "url"}
    )
    file = client.get(answer.raise_for_status().json()["data"][0]["url"])
    assert file.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(file.content)).size == (128, 128)


def test_the_stock_client_paints(stock: openai.OpenAI) -> None:
    answer = stock.images.generate(
        model="flux_shapes", prompt=PROMPT, n=2, size="128x128", extra_body={"seed": 1}
    )
    assert answer.data is not None
    assert len({image.b64_json for image in answer.data}) == 2


def test_the_stock_client_sees_images_become(stock: openai.OpenAI) -> None:
    events = list(
        stock.images.generate(
            prompt=PROMPT,
            stream=True,
            partial_images=2,
            output_format="webp",
            extra_body={"seed": 3, "num_inference_steps": 6},
        )
    )
    images = [Image.open(io.BytesIO(base64.b64decode(event.b64_json))) for event in events]
    assert [event.type.rpartition(".")[2] for event in events] == [
        "partial_image", "partial_image", "completed",
    ]  # fmt: skip
    assert [(image.format, image.size) for image in images] == [
        ("PNG", (16, 16)), ("PNG", (16, 16)), ("WEBP", (128, 128)),
    ]  # fmt: skip


def test_the_stock_client_edits(stock: openai.OpenAI) -> None:
    painted = stock.images.generate(prompt=PROMPT, extra_body={"seed": 3})
    assert painted.data is not None
    png = base64.b64decode(painted.data[0].b64_json or "")
    said = single("blue", "circle", "large", "left", "white")
    answer = stock.images.edit(
        image=("start.png", png),
        prompt=PROMPT.replace("red", "blue"),
        extra_body={"seed": 3, "strength": 0.9},
    )
    assert answer.data is not None
    image = open_png(answer.data[0].b64_json or "").convert("RGB")
    assert compare(said, detect_shapes(np.asarray(image))).is_right


def test_the_stock_client_embeds(stock: openai.OpenAI) -> None:
    texts = [PROMPT, "on a white background a big red circle in the left", "a small blue star"]
    answer = stock.embeddings.create(model="f_net_shapes", input=texts)

    vectors = np.array([row.embedding for row in answer.data])
    likeness = vectors @ vectors.T
    assert vectors.shape == (3, 128)
    assert np.allclose(np.diag(likeness), 1.0, atol=1e-5)
    assert likeness[0, 1] > likeness[0, 2]


def test_token_ids_have_their_texts_embedding(stock: openai.OpenAI) -> None:
    token_ids = TextEmbedder.from_preset("f_net_shapes").tokenizer.vocabulary.encode(PROMPT)

    answers = [
        stock.embeddings.create(model="f_net_shapes", input=given)
        for given in (PROMPT, token_ids, [token_ids])
    ]

    text, *ids = [answer.data[0].embedding for answer in answers]
    assert ids == [text, text]
    assert len({answer.usage.prompt_tokens for answer in answers}) == 1


def test_an_image_has_one_answer_in_every_kind_of_body(client: httpx.Client) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (220, 40, 40)).save(buffer, "PNG")
    content, options = buffer.getvalue(), {"top_k": 2, "function_to_apply": "none"}
    encoded = base64.b64encode(content).decode()
    query = f"/v1/classify?{urlencode(options)}"

    answers = [
        client.post("/v1/classify", json={"input": encoded, **options}),
        client.post("/v1/classify", json={"inputs": encoded, "parameters": options}),
        client.post("/v1/classify", files={"file": content}, data=options),
        client.post(query, content=content, headers={"Content-Type": "image/png"}),
    ]

    first, *others = [answer.raise_for_status().json()["data"] for answer in answers]
    assert len(first[0]["predictions"]) == 2
    assert others == [first] * 3


def test_the_stock_client_lists_the_models(stock: openai.OpenAI) -> None:
    assert {model.id for model in stock.models.list()} == {
        "flux_shapes", "vit_shapes", "f_net_shapes",
    }  # fmt: skip


def test_the_service_sees_what_it_painted(client: httpx.Client) -> None:
    image = client.post("/v1/images/generations", json={"prompt": "a red circle", "seed": 3})
    encoded = image.raise_for_status().json()["data"][0]["b64_json"]

    answer = client.post("/v1/classify", json={"input": encoded, "top_k": 3}).raise_for_status()

    predictions = answer.json()["data"][0]["predictions"]
    assert predictions[0]["label"] == "red circle"
    assert len(predictions) == 3


def test_a_killed_workers_job_runs_again(service: Service, client: httpx.Client) -> None:
    job_id = submit(client, {**SLOW, "n": 2, "num_inference_steps": 40})
    poll_until(lambda: client.get(f"/v1/jobs/{job_id}").json()["progress"]["step"] > 2)

    (worker,) = service.workers("images")
    os.kill(worker, signal.SIGKILL)

    poll_until(lambda: status(client, job_id) == "succeeded", timeout_s=120)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["attempt"] == 2
    assert len(job["result"]["data"]) == 2
    poll_until(lambda: client.get("/readyz").status_code == httpx.codes.OK)


def test_a_running_job_is_canceled_between_two_steps(client: httpx.Client) -> None:
    job_id = submit(client, SLOW)
    poll_until(lambda: client.get(f"/v1/jobs/{job_id}").json()["progress"]["step"] > 0)

    client.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()

    poll_until(lambda: status(client, job_id) == "canceled")
    assert client.get(f"/v1/jobs/{job_id}").json()["progress"]["step"] < 80


def test_a_wait_that_is_too_long_ends_in_504_while_the_job_goes_on(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/images/generations",
        json={**SLOW, "n": 1},
        headers={"Prefer": "wait=1"},
    )
    assert answer.status_code == httpx.codes.GATEWAY_TIMEOUT
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"]["code"] == "sync_wait_timeout"
    job_id = answer.headers["location"].rpartition("/")[2]
    poll_until(lambda: status(client, job_id) == "succeeded")


def test_the_api_counts_its_workers(client: httpx.Client) -> None:
    idle = 'triptych_workers{state="idle",task="images"} 1.0'
    poll_until(lambda: idle in client.get("/metrics").text)


def test_the_worker_counts_its_images(service: Service, client: httpx.Client) -> None:
    client.post("/v1/images/generations", json={"prompt": PROMPT, "n": 2}).raise_for_status()
    # another process may have had the port that is planned for the first worker
    (target,) = json.loads((service.data_dir / FILE_NAME).read_text())[0]["targets"]
    page = httpx.get(f"http://{target}/metrics").text
    (counted,) = re.findall(r'triptych_images_generated_total{model="flux_shapes"} (.+)', page)
    assert float(counted) >= 2


def test_sigterm_finishes_the_job_and_leaves_no_process(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    service = start_service(tmp_path_factory.mktemp("drained"))
    with httpx.Client(base_url=service.url, timeout=60) as client:
        job_id = submit(client, {**SLOW, "n": 1})
        poll_until(lambda: status(client, job_id) == "running")
        processes = tree_of(service.process.pid)

        assert stop_service(service) == 0

    # the fork server sees a moment later that nobody is left
    poll_until(lambda: not [pid for pid in processes if read(pid, "cmdline")])
    assert len(list((service.data_dir / "images").glob(f"{job_id}-*.png"))) == 1


@pytest.mark.parametrize("queue", ["images", "classify", "embeddings"])
def test_a_workers_threads_have_one_heap(service: Service, queue: str) -> None:
    """What one of them freed is another's next, and goes back to the host when all are idle."""
    [worker] = service.workers(queue)
    maps = re.findall(r"^(\w+)-(\w+) (\S+)", read(worker, "maps"), re.MULTILINE)
    assert maps
    others = [
        begin
        for (begin, end, access), (begins, ends, reserved) in pairwise(maps)
        if (access, end, reserved) == ("rw-p", begins, "---p")
        and int(ends, 16) - int(begin, 16) == GLIBC_HEAP_BYTES
    ]
    assert others == []
