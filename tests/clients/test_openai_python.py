"""The stock `openai` client for Python, as its users run it, against the running service."""

import asyncio
import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from tests.running_service import Service

PROMPT = "a red circle"
SIZE = "64x64"


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
        yield client


@pytest.fixture
def image_file(client: openai.OpenAI, tmp_path: Path) -> Path:
    answer = client.images.generate(prompt=PROMPT, size=SIZE, quality="low", extra_body={"seed": 3})
    assert answer.data is not None
    path = tmp_path / "image.png"
    path.write_bytes(base64.b64decode(answer.data[0].b64_json or ""))
    return path


def opened(encoded: str | None) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded or "")))


def images_of(answer: openai.types.ImagesResponse) -> list[Image.Image]:
    return [opened(image.b64_json) for image in answer.data or ()]


def test_it_paints_four_images_under_openais_name_for_a_model(client: openai.OpenAI) -> None:
    answer = client.images.generate(
        model="gpt-image-1", prompt=PROMPT, n=4, size=SIZE, quality="low"
    )
    images = images_of(answer)
    assert [image.size for image in images] == [(64, 64)] * 4
    assert len({image.tobytes() for image in images}) == 4
    assert answer.usage is not None
    assert answer.usage.output_tokens == 4 * 16
    assert (answer.model_extra or {})["model"] == "flux_shapes"


def test_it_fetches_an_image_by_its_url(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt=PROMPT, size=SIZE, quality="low", response_format="url")
    assert answer.data is not None
    url = answer.data[0].url
    assert url is not None
    assert Image.open(io.BytesIO(httpx.get(url).content)).size == (64, 64)


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_it_paints_in_other_file_formats(
    client: openai.OpenAI, output_format: Literal["jpeg", "webp"]
) -> None:
    answer = client.images.generate(
        prompt=PROMPT,
        size=SIZE,
        quality="low",
        output_format=output_format,
        output_compression=80,
    )
    assert [image.format for image in images_of(answer)] == [output_format.upper()]


def test_it_streams_partial_images_and_the_image(client: openai.OpenAI) -> None:
    stream = client.images.generate(
        prompt=PROMPT, size=SIZE, quality="low", stream=True, partial_images=2
    )
    *partial, completed = list(stream)
    assert completed.type == "image_generation.completed"
    assert completed.usage.total_tokens > 0
    assert opened(completed.b64_json).size == (64, 64)
    for event in partial:
        assert event.type == "image_generation.partial_image"
        assert opened(event.b64_json).format == "PNG"


def test_it_edits_an_image_file(client: openai.OpenAI, image_file: Path) -> None:
    with image_file.open("rb") as file:
        answer = client.images.edit(image=file, prompt="a blue star", size=SIZE, quality="low", n=2)
    assert [image.size for image in images_of(answer)] == [(64, 64)] * 2


def test_it_streams_an_edit(client: openai.OpenAI, image_file: Path) -> None:
    with image_file.open("rb") as file:
        stream = client.images.edit(
            image=file, prompt="a blue star", size=SIZE, quality="low", stream=True
        )
        types = [event.type for event in stream]
    assert types == ["image_edit.completed"]


# deprecated: OpenAI's own server has none any more
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_it_varies_an_image_file(client: openai.OpenAI, image_file: Path) -> None:
    answer = client.images.create_variation(image=image_file, n=2, extra_body={"size": SIZE})
    assert [image.size for image in images_of(answer)] == [(64, 64)] * 2


def test_it_embeds_with_its_default_of_base64_as_with_floats(client: openai.OpenAI) -> None:
    texts, model = [PROMPT, "a blue star"], "text-embedding-3-small"
    by_default = client.embeddings.create(model=model, input=texts)
    floats = client.embeddings.create(model=model, input=texts, encoding_format="float")
    assert by_default.model == "f_net_shapes"
    np.testing.assert_array_equal(
        np.array([row.embedding for row in by_default.data], np.float32),
        np.array([row.embedding for row in floats.data], np.float32),
    )


def test_it_embeds_arrays_of_token_ids(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="f_net_shapes", input=[[5, 6], [7]])
    assert [(row.index, len(row.embedding)) for row in answer.data] == [(0, 128), (1, 128)]


def test_it_is_refused_dimensions_that_the_model_does_not_have(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="text-embedding-3-large", input=PROMPT, dimensions=64)
    assert caught.value.param == "dimensions"


def test_it_lists_and_retrieves_models(client: openai.OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert names == {"flux_shapes", "vit_shapes", "f_net_shapes"}
    assert client.models.retrieve("dall-e-3").id == "flux_shapes"


def test_it_shows_the_requests_id_and_the_jobs(client: openai.OpenAI) -> None:
    response = client.images.with_raw_response.generate(
        prompt=PROMPT, size=SIZE, quality="low", extra_headers={"x-request-id": "r-1"}
    )
    assert response.request_id == "r-1"
    assert response.headers["x-job-id"].startswith("job_")
    assert len(images_of(response.parse())) == 1


def test_it_reaches_asynchronous_jobs(client: openai.OpenAI) -> None:
    answer = client.images.generate(
        prompt=PROMPT, size=SIZE, quality="low", extra_headers={"prefer": "respond-async"}
    )
    assert answer.data is None
    assert (answer.model_extra or {})["status"] in ("queued", "running")


def test_the_async_client_paints_embeds_and_streams_at_once(service: Service) -> None:
    async def all_three() -> tuple[int, int, list[str]]:
        async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
            painted, embedded, stream = await asyncio.gather(
                client.images.generate(prompt=PROMPT, size=SIZE, quality="low"),
                client.embeddings.create(model="f_net_shapes", input=PROMPT),
                client.images.generate(prompt=PROMPT, size=SIZE, quality="low", stream=True),
            )
            types = [str(event.type) async for event in stream]
        return len(images_of(painted)), len(embedded.data), types

    assert asyncio.run(all_three()) == (1, 1, ["image_generation.completed"])
