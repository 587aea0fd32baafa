"""The stock `openai` client, as its users run it, against the service."""

import base64
import time
from collections.abc import Iterator

import httpx
import openai
import pytest
from redis import Redis

from service.main import create_app
from service.settings import ServiceSettings
from tests.service.conftest import PNG, TestWorker, serve
from worker.contract.jobs import Failure, FailureCode, Task
from worker.contract.record import queue_key


@pytest.fixture
def client(service_url: str, http: httpx.Client) -> Iterator[openai.OpenAI]:  # noqa: ARG001
    with openai.OpenAI(base_url=f"{service_url}/v1", api_key="none") as client:
        yield client


@pytest.mark.usefixtures("worker")
def test_it_paints(client: openai.OpenAI) -> None:
    response = client.images.generate(
        prompt="a red circle", n=2, size="128x128", extra_body={"seed": 5, "steps": 4}
    )
    assert response.data is not None
    assert [base64.b64decode(item.b64_json or "") for item in response.data] == [PNG, PNG]
    assert response.usage is not None
    assert response.usage.output_tokens == 128
    assert response.model_extra is not None
    assert response.model_extra["seed"] == 5


@pytest.mark.usefixtures("worker")
def test_it_fetches_by_url(client: openai.OpenAI) -> None:
    response = client.images.generate(prompt="x", response_format="url", size=openai.omit)
    assert response.data is not None
    url = response.data[0].url
    assert url is not None
    assert httpx.get(url).content == PNG


@pytest.mark.usefixtures("worker")
def test_it_embeds_with_its_default_of_base64(client: openai.OpenAI) -> None:
    response = client.embeddings.create(input=["abc", "de"], model="f_net_shapes")
    assert [row.embedding[0] for row in response.data] == [3.0, 2.0]
    assert len(response.data[0].embedding) == 128
    assert response.usage.prompt_tokens == 14


@pytest.mark.usefixtures("worker")
def test_it_embeds_with_floats(client: openai.OpenAI) -> None:
    response = client.embeddings.create(input="abc", model="f_net_shapes", encoding_format="float")
    assert response.data[0].embedding[0] == 3.0


def test_it_lists_and_reads_models(client: openai.OpenAI) -> None:
    assert "flux_shapes" in [model.id for model in client.models.list()]
    assert client.models.retrieve("flux_shapes").owned_by == "triptych"


def test_it_knows_our_errors_by_their_class(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.images.generate(prompt="x", size="100x100", extra_headers={"x-request-id": "r-1"})
    assert (bad.value.param, bad.value.code) == ("size", "invalid_value")
    assert bad.value.request_id == "r-1"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.embeddings.create(input="x", model="text-embedding-3-small")
    assert unknown.value.code == "model_not_found"


def test_it_reaches_asynchronous_jobs(client: openai.OpenAI) -> None:
    response = client.images.generate(prompt="x", extra_headers={"prefer": "respond-async"})
    assert response.data is None
    assert response.model_extra is not None
    assert response.model_extra["status"] == "queued"


def test_it_does_not_repeat_a_job_whose_wait_is_over(client: openai.OpenAI, redis: Redis) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(prompt="x", extra_headers={"prefer": "wait=0"})
    assert caught.value.code == "sync_wait_timeout"
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["job_id"] in caught.value.message
    assert redis.llen(queue_key(Task.IMAGES)) == 1


def test_it_does_not_repeat_a_job_that_fails(client: openai.OpenAI, worker: TestWorker) -> None:
    worker.answer = lambda _job, _attempt: Failure(code=FailureCode.INTERNAL, message="x")
    with pytest.raises(openai.InternalServerError):
        client.embeddings.create(input="x", model="f_net_shapes")
    assert len(worker.jobs) == 1


@pytest.mark.usefixtures("redis")
def test_it_waits_as_long_as_a_full_queue_says(settings: ServiceSettings) -> None:
    app = create_app(settings.model_copy(update={"max_queue_depth": 1}))
    with (
        serve(app) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=1) as client,
    ):
        headers = {"prefer": "respond-async"}
        client.images.generate(prompt="x", extra_headers=headers)
        start = time.monotonic()
        with pytest.raises(openai.RateLimitError) as caught:
            client.images.generate(prompt="x", extra_headers=headers)
    assert caught.value.code == "queue_full"
    assert time.monotonic() - start >= 1.0
