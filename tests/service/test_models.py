"""The models that workers publish: what is listed, what is found, what is said while one loads."""

import time

import httpx
import pytest
from redis import Redis

from service import catalog
from service.catalog import OPENAI_NAMES
from service.main import create_app
from service.settings import ServiceSettings
from tests.cards import LABELS, SHAPES, card_of, publish, ready, status_of
from tests.service.conftest import TestWorker, error_of, serve
from worker.contract import workers
from worker.contract.jobs import Task
from worker.contract.model_cards import ImageLimits
from worker.contract.workers import ModelState, ServedModel, WorkerState, worker_key

# Nothing of this world is as the bundled presets are.
PAINTER = card_of(
    "oil/painter",
    Task.IMAGES,
    source="hf://someone/oil",
    revision="abc",
    license=None,
    image_limits=ImageLimits(
        default_width=96,
        default_height=48,
        side_multiple=24,
        min_side=24,
        max_side=120,
        max_pixels=9999,
        default_num_steps=3,
        max_num_steps=7,
        default_guidance_scale=None,
        max_guidance_scale=None,
        default_true_cfg_scale=2.0,
        max_true_cfg_scale=5.0,
        max_sequence_length=5,
        max_images=2,
        loras=("pixel-art", "ink"),
    ),
)
SEER = card_of("pets", Task.CLASSIFY, labels=("cat", "dog"))
READER = card_of("reader", Task.EMBEDDINGS, embedding_width=3, max_tokens=11)


@pytest.fixture
def other_world(redis: Redis) -> Redis:
    redis.flushall()
    publish(redis, PAINTER, SEER, READER)
    return redis


def loading(name: str, progress: str | None = None) -> ServedModel:
    return ServedModel(name=name, state=ModelState.LOADING, progress=progress)


def test_what_workers_serve_is_listed(http: httpx.Client) -> None:
    body = http.get("/v1/models").json()
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["flux_shapes", "vit_shapes", "f_net_shapes"]
    assert all(model["object"] == "model" and model["created"] > 0 for model in body["data"])
    assert not any("labels" in model for model in body["data"])


def test_a_model_shows_its_limits_and_defaults(http: httpx.Client) -> None:
    model = http.get("/v1/models/flux_shapes").json()
    assert model["task"] == "text-to-image"
    assert model["limits"] == {
        "min_side": 64,
        "max_side": 256,
        "side_multiple": 16,
        "max_pixels": 65536,
        "max_num_inference_steps": 80,
        "max_guidance_scale": 10.0,
        "max_true_cfg_scale": 10.0,
        "max_n": 10,
        "max_aspect": 3,
        "max_prompt_characters": 32_000,
        "max_lora_scale": 10.0,
        "max_preview_steps": 3,
    }
    assert model["defaults"] == {
        "size": "128x128",
        "num_inference_steps": 20,
        "guidance_scale": 2.0,
        "true_cfg_scale": 3.0,
        "strength": 0.6,
    }
    assert model["loras"] == []


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("vit_shapes", {"num_labels": 112}),
        ("f_net_shapes", {"dimensions": 128, "max_tokens": 512, "vocabulary_size": 1000}),
    ],
)
def test_a_model_shows_only_the_limits_of_its_task(
    http: httpx.Client, name: str, limits: dict[str, int]
) -> None:
    assert http.get(f"/v1/models/{name}").json()["limits"] == limits


def test_a_classifier_shows_its_labels(http: httpx.Client) -> None:
    assert http.get("/v1/models/vit_shapes").json()["labels"] == list(LABELS)


@pytest.mark.usefixtures("other_world")
def test_a_world_of_other_names_and_limits_is_served(
    settings: ServiceSettings, worker: TestWorker
) -> None:
    with serve(create_app(settings)) as url, httpx.Client(base_url=url) as http:
        shown = http.get("/v1/models/oil/painter").json()
        image = http.post("/v1/images/generations", json={"prompt": "x"}).json()
        drawn = http.post(
            "/v1/images/generations", json={"prompt": "x", "loras": [{"name": "ink"}]}
        )
        large = http.post("/v1/images/generations", json={"prompt": "x", "size": "128x128"})
        labels = http.post("/v1/classify", json={"input": "iVBORw0KGgo="}).json()
        vector = http.post("/v1/embeddings", json={"input": "x", "dimensions": 128})
    assert (shown["source"], shown["revision"], "license" in shown) == (
        "hf://someone/oil",
        "abc",
        False,
    )
    assert (image["model"], image["size"], image["num_inference_steps"], image["quality"]) == (
        "oil/painter",
        "96x48",
        3,
        "medium",
    )
    assert shown["loras"] == ["pixel-art", "ink"]
    assert drawn.json()["loras"] == [{"name": "ink", "scale": 1.0}]
    assert "not a multiple of 24" in str(error_of(large, 400)["message"])
    assert len(labels["data"][0]["predictions"]) == 2
    assert "allowed: 3 or null" in str(error_of(vector, 400)["message"])
    assert {job.model for job in worker.jobs} == {"oil/painter", "pets"}


def test_the_first_of_a_task_is_its_default(
    settings: ServiceSettings, redis: Redis, worker: TestWorker
) -> None:
    redis.flushall()
    publish(redis, card_of("second", Task.EMBEDDINGS), READER)
    with serve(create_app(settings)) as url:
        httpx.post(f"{url}/v1/embeddings", json={"input": "x"})
    assert [job.model for job in worker.jobs] == ["second"]


def test_a_model_is_loaded_once_a_warm_worker_serves_it(http: httpx.Client, redis: Redis) -> None:
    redis.flushall()
    still = status_of(Task.IMAGES, WorkerState.LOADING, (loading("flux_shapes", "loading"),))
    workers.write(redis, still)
    before = http.get("/v1/models/flux_shapes").json()
    assert (before["loaded"], before["state"], before["progress"]) == (False, "loading", "loading")
    publish(redis, SHAPES[0])
    after = http.get("/v1/models/flux_shapes").json()
    assert (after["loaded"], after["state"]) == (True, "ready")


def test_a_model_that_is_loading_is_a_503_with_its_progress(
    settings: ServiceSettings, redis: Redis
) -> None:
    redis.flushall()
    models = (loading("oil", "downloading 3.1 of 23.8 GB"),)
    workers.write(redis, status_of(Task.IMAGES, WorkerState.LOADING, models))
    with serve(create_app(settings)) as url:
        for body in ({"prompt": "x"}, {"prompt": "x", "model": "oil"}):
            response = httpx.post(f"{url}/v1/images/generations", json=body)
            error = error_of(response, 503)
            assert error["code"] == "model_loading"
            assert error["message"] == "model oil is loading: downloading 3.1 of 23.8 GB"
            assert int(response.headers["retry-after"]) > 0


def test_a_model_that_did_not_load_is_a_503_and_the_others_are_served(
    settings: ServiceSettings, redis: Redis
) -> None:
    publish(redis, READER)
    broken = ServedModel(name="broken", state=ModelState.FAILED)
    status = status_of(Task.EMBEDDINGS, WorkerState.IDLE, (ready(READER), broken))
    workers.write(redis, status, [READER])
    with serve(create_app(settings)) as url:
        body = {"input": "x", "model": "broken"}
        error = error_of(httpx.post(f"{url}/v1/embeddings", json=body), 503)
        async_ = {"prefer": "respond-async"}
        other = httpx.post(f"{url}/v1/embeddings", json={"input": "x"}, headers=async_)
    assert error["code"] == "model_unusable"
    assert "could not be loaded" in str(error["message"])
    assert (other.status_code, other.json()["model"]) == (202, "reader")


def test_a_task_without_a_living_worker_is_a_503(settings: ServiceSettings, redis: Redis) -> None:
    redis.flushall()
    with serve(create_app(settings)) as url:
        response = httpx.post(f"{url}/v1/embeddings", json={"input": "x", "model": "reader"})
        assert httpx.get(f"{url}/v1/models").json()["data"] == []
    assert error_of(response, 503)["code"] == "no_workers"
    assert response.headers["retry-after"] == "1"


def test_a_task_that_is_not_served_is_a_404(settings: ServiceSettings, redis: Redis) -> None:
    redis.flushall()
    publish(redis, PAINTER)
    told = {"tasks": frozenset({Task.IMAGES})}
    with serve(create_app(settings.model_copy(update=told))) as url:
        error = error_of(httpx.post(f"{url}/v1/embeddings", json={"input": "a red circle"}), 404)
    assert error["code"] == "model_not_found"
    assert error["message"] == "model: none is served for this; allowed: nothing"


def test_two_workers_with_different_lists_are_one_catalogue(
    http: httpx.Client, redis: Redis
) -> None:
    publish(redis, READER, name="another")
    names = [model["id"] for model in http.get("/v1/models").json()["data"]]
    assert names == ["flux_shapes", "vit_shapes", "f_net_shapes", "reader"]


def test_while_one_worker_loads_a_model_another_serves_it(
    settings: ServiceSettings, redis: Redis
) -> None:
    workers.write(
        redis,
        status_of(Task.EMBEDDINGS, WorkerState.LOADING, (loading("f_net_shapes"),), "another"),
    )
    with serve(create_app(settings)) as url:
        async_ = {"prefer": "respond-async"}
        response = httpx.post(f"{url}/v1/embeddings", json={"input": "x"}, headers=async_)
    assert response.status_code == 202


def test_a_model_is_served_while_its_worker_loads_others(
    settings: ServiceSettings, redis: Redis
) -> None:
    redis.flushall()
    models = (ready(READER), loading("other"))
    workers.write(redis, status_of(Task.EMBEDDINGS, WorkerState.IDLE, models), [READER])
    async_ = {"prefer": "respond-async"}
    with serve(create_app(settings)) as url:
        taken = httpx.post(f"{url}/v1/embeddings", json={"input": "x"}, headers=async_)
        other = httpx.post(f"{url}/v1/embeddings", json={"input": "x", "model": "other"})
        assert httpx.get(f"{url}/v1/models/reader").json()["loaded"] is True
    assert taken.status_code == httpx.codes.ACCEPTED
    assert error_of(other, 503)["code"] == "model_loading"


def test_a_worker_that_joins_does_not_change_the_default(
    settings: ServiceSettings, redis: Redis
) -> None:
    joined = status_of(Task.EMBEDDINGS, WorkerState.LOADING, (loading("aaa"),), "new", 2e12)
    workers.write(redis, joined)
    async_ = {"prefer": "respond-async"}
    with serve(create_app(settings)) as url:
        answer = httpx.post(f"{url}/v1/embeddings", json={"input": "x"}, headers=async_)
    assert answer.json()["model"] == "f_net_shapes"


def test_a_name_is_found_before_an_alias(http: httpx.Client, redis: Redis) -> None:
    publish(redis, SHAPES[2], aliases=("reader",))
    publish(redis, READER, name="another")
    assert http.get("/v1/models/reader").json()["id"] == "reader"


def test_a_model_whose_worker_just_left_is_a_503_and_later_a_404(
    settings: ServiceSettings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(redis, READER, name="another")
    body = {"input": "x", "model": "reader"}
    async_ = {"prefer": "respond-async"}
    with serve(create_app(settings)) as url:
        assert httpx.post(f"{url}/v1/embeddings", json=body, headers=async_).status_code == 202
        redis.delete(worker_key("another"))
        monkeypatch.setattr(catalog, "_KEEP_S", 0)
        gone = httpx.post(f"{url}/v1/embeddings", json=body)
        monkeypatch.setattr(catalog, "_RESTART_S", 0)
        unknown = httpx.post(f"{url}/v1/embeddings", json=body)
    assert error_of(gone, 503)["message"] == "model reader: no living worker"
    assert error_of(unknown, 404)["code"] == "model_not_found"


def test_what_workers_say_is_read_again_after_a_while(
    settings: ServiceSettings, redis: Redis, worker: TestWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "_KEEP_S", 0.05)
    with serve(create_app(settings)) as url:
        httpx.post(f"{url}/v1/embeddings", json={"input": "x"})
        redis.flushall()
        publish(redis, card_of("newer", Task.EMBEDDINGS))
        time.sleep(0.1)
        httpx.post(f"{url}/v1/embeddings", json={"input": "x"})
    assert [job.model for job in worker.jobs] == ["f_net_shapes", "newer"]


def test_a_status_that_cannot_be_read_hides_no_other(http: httpx.Client, redis: Redis) -> None:
    status = status_of(Task.EMBEDDINGS, WorkerState.IDLE, (), "old")
    workers.write(redis, status)
    redis.hset(worker_key("old"), "models", '["a name alone"]')
    assert len(http.get("/v1/models").json()["data"]) == 3


def test_a_card_goes_with_its_worker(http: httpx.Client, redis: Redis) -> None:
    assert http.get("/v1/models/vit_shapes").status_code == 200
    redis.delete(worker_key("classify-0"))  # as when its lease runs out
    error_of(http.get("/v1/models/vit_shapes"), 404)


def test_cards_that_redis_lost_are_written_again_by_the_next_heartbeat(redis: Redis) -> None:
    status = status_of(Task.CLASSIFY, WorkerState.IDLE, (ready(SEER),))
    workers.write(redis, status, [SEER])
    redis.flushall()
    workers.write(redis, status, [SEER])
    [read] = workers.read_all(redis)
    assert read.models == (ready(SEER),)
    assert redis.ttl(f"triptych:card:{SEER.digest}") > 0


def test_an_alias_with_a_slash_finds_its_model(http: httpx.Client, redis: Redis) -> None:
    publish(redis, SHAPES[0], aliases=("shapes/flux",))
    model = http.get("/v1/models/shapes/flux").json()
    assert model["id"] == "flux_shapes"
    assert "shapes/flux" in model["aliases"]


@pytest.mark.parametrize(("task", "name"), [(t, n) for t, ns in OPENAI_NAMES.items() for n in ns])
def test_openais_names_mean_the_default_model(http: httpx.Client, task: Task, name: str) -> None:
    default = {Task.IMAGES: "flux_shapes", Task.EMBEDDINGS: "f_net_shapes"}[task]
    model = http.get(f"/v1/models/{name}").json()
    assert model["id"] == default
    assert name in model["aliases"]


def test_openais_name_on_a_request_is_answered_with_the_models_own(http: httpx.Client) -> None:
    body = {"input": "x", "model": "text-embedding-3-small"}
    answer = http.post("/v1/embeddings", json=body, headers={"prefer": "respond-async"})
    assert answer.json()["model"] == "f_net_shapes"


def test_openais_name_is_the_model_that_is_served_by_it(http: httpx.Client, redis: Redis) -> None:
    other = card_of("other", Task.IMAGES)
    publish(redis, other, aliases=("gpt-image-1",), name="another")
    assert http.get("/v1/models/gpt-image-1").json()["id"] == "other"
    assert http.get("/v1/models/gpt-image-2").json()["id"] == "flux_shapes"


def test_openais_names_can_be_left_unknown(settings: ServiceSettings, redis: Redis) -> None:
    publish(redis, *SHAPES)
    unknown = settings.model_copy(update={"openai_names": False})
    with serve(create_app(unknown)) as url, httpx.Client(base_url=url) as http:
        error = error_of(http.get("/v1/models/gpt-image-1"), 404)
        assert http.get("/v1/models/flux_shapes").json()["aliases"] == []
    assert error["code"] == "model_not_found"


def test_an_unknown_model_is_a_404(http: httpx.Client) -> None:
    error = error_of(http.get("/v1/models/gpt-9"), 404)
    assert error["code"] == "model_not_found"
    assert "flux_shapes, vit_shapes, f_net_shapes" in str(error["message"])


def test_the_job_of_a_model_that_is_gone_can_still_be_read(
    http: httpx.Client, redis: Redis, worker: TestWorker
) -> None:
    job = http.post("/v1/images/generations", json={"prompt": "x", "quality": "high"})
    assert job.status_code == 200
    redis.delete(worker_key("images-0"))
    read = http.get(f"/v1/jobs/{worker.jobs[0].id}").json()
    assert (read["status"], read["result"]["quality"]) == ("succeeded", "high")
