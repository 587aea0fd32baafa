"""The models of `triptych serve`: one list, of which each worker gets its own."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from service.settings import ServiceSettings
from triptych.api_launch import api_environment
from triptych.host_devices import Host
from triptych.settings import ServeSettings
from triptych.worker_launch import (
    WORKER,
    shared_environment,
    worker_environment,
    worker_ports,
)
from triptych.worker_slots import WorkerSlot, plan_workers, served_tasks
from worker.contract.jobs import Task
from worker.host_memory import usable_host_bytes
from worker.model_specs import with_tasks
from worker.settings import SERVE_ALONE, WorkerSettings

SETTINGS = ServeSettings.model_validate(
    {"models": "f_net_base_en,flux_dev,f_net_shapes", "model_aliases": {"x": "flux_dev"}}
)
SPECS = with_tasks(SETTINGS.specs)
SLOTS = plan_workers(Host((), num_cores=8), SPECS, {})
URL = "redis://x"


def slot_of(task: Task) -> WorkerSlot:
    return next(slot for slot in SLOTS if slot.task is task)


def test_only_tasks_with_a_model_get_a_worker_on_its_usual_port() -> None:
    assert served_tasks(SPECS) == [Task.IMAGES, Task.EMBEDDINGS]
    ports = {slot.name: port for slot, port in worker_ports(SETTINGS, SLOTS).items()}
    assert ports == {"images-0": 8001, "embeddings-0": 8003}


def test_further_workers_have_the_metrics_ports_from_8004_on() -> None:
    counts = {Task.IMAGES: 3, Task.EMBEDDINGS: 2}
    slots = plan_workers(Host((), num_cores=8), SPECS, {}, num_workers=counts)
    ports = {slot.name: port for slot, port in worker_ports(SETTINGS, slots).items()}
    assert ports == {
        "images-0": 8001,
        "images-1": 8004,
        "images-2": 8005,
        "embeddings-0": 8003,
        "embeddings-1": 8006,
    }


def read_by_worker(told: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> WorkerSettings:
    """The settings of a worker that has these variables besides those of `serve`."""
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    return WorkerSettings.model_validate({})


def test_a_workers_queue_and_device_win_over_what_serve_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIPTYCH_DEVICE", "cuda:0,cuda:3")
    slot = replace(slot_of(Task.IMAGES), index=1, device="cuda:3")
    told = worker_environment(SETTINGS, SPECS, URL, slot, 8004)
    read = read_by_worker(told, monkeypatch)
    assert (read.queue, read.device) == (Task.IMAGES, "cuda:3")
    assert (read.metrics_port, read.num_threads) == (8004, 4)


def test_workers_of_one_gpu_and_of_one_host_are_told_their_shares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIPTYCH_MEMORY_RESERVE", "2000000000")
    slot = replace(
        slot_of(Task.IMAGES), device="cuda:0", share_bytes=30_000_000_000, num_gpu_workers=3
    )
    told = worker_environment(SETTINGS, SPECS, URL, slot, 8001)
    assert told["TRIPTYCH_MEMORY_BUDGET"] == "28000000000"
    third = usable_host_bytes() // 3
    assert int(told["TRIPTYCH_HOST_MEMORY_BUDGET"]) == pytest.approx(third, rel=0.2)
    monkeypatch.setenv("TRIPTYCH_MEMORY_BUDGET", "5GB")
    monkeypatch.setenv("TRIPTYCH_HOST_MEMORY_BUDGET", "7GB")
    told = worker_environment(SETTINGS, SPECS, URL, slot, 8001)
    assert not {name for name in told if "MEMORY" in name}


def test_workers_on_the_cpu_are_told_of_no_memory() -> None:
    told = worker_environment(SETTINGS, SPECS, URL, slot_of(Task.IMAGES), 8001)
    assert not {name for name in told if "MEMORY" in name}


@pytest.mark.parametrize(
    ("shares_cores", "set_already", "is_told"),
    [(False, None, False), (True, None, True), (True, "OMP_WAIT_POLICY", False)],
)
def test_threads_that_share_cores_sleep_soon_unless_the_operator_says_how_they_wait(
    shares_cores: bool, set_already: str | None, is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    if set_already is not None:
        monkeypatch.setenv(set_already, "ACTIVE")
    slot = replace(slot_of(Task.IMAGES), shares_cores=shares_cores)
    told = shared_environment([slot], os.environ)
    assert ("GOMP_SPINCOUNT" in told) == is_told


@pytest.mark.parametrize(
    ("task", "served"),
    [(Task.IMAGES, ["flux_dev"]), (Task.EMBEDDINGS, ["f_net_base_en", "f_net_shapes"])],
)
def test_each_worker_is_told_the_models_of_its_task(
    task: Task, served: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPTYCH_MODEL_ALIASES", '{"x": "flux_dev"}')  # as `serve` was told
    told = worker_environment(SETTINGS, SPECS, URL, slot_of(task), 8001)
    specs = read_by_worker(told, monkeypatch).specs_of_queue()
    assert [spec.name for spec in specs] == served
    assert specs[0].aliases == (("x",) if task is Task.IMAGES else ())


def test_the_api_is_told_the_tasks_and_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    told = api_environment(SETTINGS, URL, served_tasks(SPECS), grafana_url=None)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert ServiceSettings().tasks == {Task.IMAGES, Task.EMBEDDINGS}
    assert "flux_dev" not in json.dumps(told)


def test_one_file_is_for_serve_and_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "triptych.toml"
    file.write_text('port = 9000\nlease_s = 3.5\nmodels = "f_net_shapes"\n', encoding="utf-8")
    settings = ServeSettings.model_validate({"config": file})
    specs = with_tasks(settings.specs)
    assert (settings.port, [spec.name for spec in specs]) == (9000, ["f_net_shapes"])
    (slot,) = plan_workers(Host((), num_cores=2), specs, {})
    told = worker_environment(settings, specs, URL, slot, 8001)
    assert read_by_worker(told, monkeypatch).lease_s == 3.5


def test_what_serve_alone_is_told_is_known_to_the_workers() -> None:
    alone = set(ServeSettings.model_fields) - set(WorkerSettings.model_fields)
    assert alone == set(SERVE_ALONE)


def test_only_what_the_served_models_use_is_imported_for_the_workers() -> None:
    embeddings = WORKER.imports([Task.EMBEDDINGS])
    assert embeddings == ["worker.main", "models.fnet.text_embedder"]
    everything = WORKER.imports(list(Task))
    assert {*embeddings, "models.flux.text_to_image"} < {*everything}
    assert [name for name in everything if find_spec(name) is None] == []
