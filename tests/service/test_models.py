"""`GET /v1/models`: every preset with what it takes."""

import httpx
import pytest
from redis import Redis

from models.presets import PRESETS
from service.main import create_app
from service.settings import ServiceSettings
from tests.service.conftest import error_of, serve
from tests.service.test_health import status_of
from worker.contract import workers
from worker.contract.jobs import Task
from worker.contract.workers import WorkerState


def test_every_preset_is_listed(http: httpx.Client) -> None:
    body = http.get("/v1/models").json()
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == list(PRESETS)
    assert all(model["object"] == "model" and model["created"] > 0 for model in body["data"])


def test_a_model_shows_its_limits_and_defaults(http: httpx.Client) -> None:
    model = http.get("/v1/models/flux_shapes").json()
    assert model["task"] == "text-to-image"
    assert model["limits"] == {
        "min_side": 64,
        "max_side": 256,
        "side_multiple": 16,
        "max_pixels": 65536,
        "max_num_inference_steps": 50,
        "max_guidance_scale": 10.0,
        "max_n": 10,
    }
    assert model["defaults"] == {
        "size": "128x128",
        "num_inference_steps": 8,
        "guidance_scale": 3.0,
    }


@pytest.mark.parametrize(
    ("name", "limits"),
    [("vit_shapes", {"num_labels": 48}), ("f_net_shapes", {"dimensions": 128, "max_tokens": 512})],
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
def test_an_alias_with_a_slash_finds_its_preset(settings: ServiceSettings) -> None:
    aliases = {"model_aliases": {"shapes/flux": "flux_shapes"}}
    with serve(create_app(settings.model_copy(update=aliases))) as url:
        model = httpx.get(f"{url}/v1/models/shapes/flux").json()
    assert (model["id"], model["aliases"]) == ("flux_shapes", ["shapes/flux"])


def test_an_unknown_model_is_a_404(http: httpx.Client) -> None:
    error = error_of(http.get("/v1/models/gpt-9"), 404)
    assert error["code"] == "model_not_found"
    assert "flux_shapes, vit_shapes, f_net_shapes" in str(error["message"])
