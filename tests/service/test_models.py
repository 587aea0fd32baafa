"""`GET /v1/models`: every preset served, with what it takes."""

import httpx
import pytest
from redis import Redis

from models.presets import BUNDLED_NAMES
from service.main import create_app
from service.settings import ServiceSettings
from tests.service.conftest import error_of, serve
from tests.service.test_health import status_of
from worker.contract import workers
from worker.contract.jobs import Task
from worker.contract.workers import WorkerState


def test_the_bundled_presets_are_listed_by_default(http: httpx.Client) -> None:
    body = http.get("/v1/models").json()
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == list(BUNDLED_NAMES)
    assert all(model["object"] == "model" and model["created"] > 0 for model in body["data"])


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
        "max_n": 10,
    }
    assert model["defaults"] == {
        "size": "128x128",
        "num_inference_steps": 20,
        "guidance_scale": 2.0,
    }


@pytest.mark.parametrize(
    ("name", "limits"),
    [("vit_shapes", {"num_labels": 112}), ("f_net_shapes", {"dimensions": 128, "max_tokens": 512})],
)
def test_a_model_shows_only_the_limits_of_its_task(
    http: httpx.Client, name: str, limits: dict[str, int]
) -> None:
    assert http.get(f"/v1/models/{name}").json()["limits"] == limits


def test_a_model_is_loaded_once_a_warm_worker_serves_it(http: httpx.Client, redis: Redis) -> None:
    workers.write(redis, status_of(Task.IMAGES, WorkerState.LOADING, models=("flux_shapes",)))
    assert http.get("/v1/models/flux_shapes").json()["loaded"] is False
    workers.write(redis, status_of(Task.IMAGES, WorkerState.IDLE, models=("flux_shapes",)))
    assert http.get("/v1/models/flux_shapes").json()["loaded"] is True


@pytest.mark.usefixtures("redis")
def test_the_presets_that_the_server_was_told_to_serve_are_listed(
    settings: ServiceSettings,
) -> None:
    told = {"models": ("flux_schnell", "f_net_base_en")}
    with serve(create_app(settings.model_copy(update=told))) as url:
        schnell, f_net = httpx.get(f"{url}/v1/models").json()["data"]
        missing = error_of(httpx.get(f"{url}/v1/models/flux_shapes"), 404)
    assert (schnell["id"], schnell["license"]) == ("flux_schnell", "apache-2.0")
    assert schnell["defaults"] == {"size": "1024x1024", "num_inference_steps": 4}
    assert "max_guidance_scale" not in schnell["limits"]
    assert f_net["limits"] == {"dimensions": 768, "max_tokens": 512}
    assert str(missing["message"]).endswith("allowed: flux_schnell, f_net_base_en")


@pytest.mark.usefixtures("redis")
def test_a_task_without_a_model_is_a_404_for_whom_it_is_asked(settings: ServiceSettings) -> None:
    told = {"models": ("flux_shapes", "vit_shapes")}
    with serve(create_app(settings.model_copy(update=told))) as url:
        error = error_of(httpx.post(f"{url}/v1/embeddings", json={"input": "a red circle"}), 404)
    assert error["code"] == "model_not_found"
    assert error["message"] == "model: none is served for this; allowed: nothing"


@pytest.mark.usefixtures("redis")
def test_an_alias_with_a_slash_finds_its_preset(settings: ServiceSettings) -> None:
    aliases = {"model_aliases": {"shapes/flux": "flux_shapes"}}
    with serve(create_app(settings.model_copy(update=aliases))) as url:
        model = httpx.get(f"{url}/v1/models/shapes/flux").json()
    assert (model["id"], model["aliases"]) == ("flux_shapes", ["shapes/flux"])


def test_an_unknown_model_is_a_404(http: httpx.Client) -> None:
    error = error_of(http.get("/v1/models/gpt-9"), 404)
    assert error["code"] == "model_not_found"
    assert "flux_shapes, vit_shapes, f_net_shapes" in str(error["message"])
