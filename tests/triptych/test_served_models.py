"""The models of `triptych serve`: one list, of which each worker gets its own."""

import json
from pathlib import Path

import pytest

from service.settings import ServiceSettings
from triptych.settings import ServeSettings
from triptych.supervisor import api_child, served_tasks, worker_child, worker_ports
from worker.contract.jobs import Task
from worker.model_specs import with_tasks
from worker.settings import SERVE_ALONE, WorkerSettings, settings_of_process

SETTINGS = ServeSettings.model_validate(
    {"models": "f_net_base_en,flux_dev,f_net_shapes", "model_aliases": {"x": "flux_dev"}}
)
SPECS = with_tasks(SETTINGS.specs)
URL = "redis://x"


def test_only_tasks_with_a_model_get_a_worker_on_its_usual_port() -> None:
    tasks = served_tasks(SPECS)
    assert tasks == [Task.IMAGES, Task.EMBEDDINGS]
    assert worker_ports(SETTINGS, tasks) == {Task.IMAGES: 8001, Task.EMBEDDINGS: 8003}


@pytest.mark.parametrize(
    ("task", "served"),
    [(Task.IMAGES, ["flux_dev"]), (Task.EMBEDDINGS, ["f_net_base_en", "f_net_shapes"])],
)
def test_each_worker_is_told_the_models_of_its_task(
    task: Task, served: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPTYCH_MODEL_ALIASES", '{"x": "flux_dev"}')  # as `serve` was told
    child = worker_child(SETTINGS, SPECS, URL, task, 8001, "worker.main")
    for name, value in child.environment.items():
        monkeypatch.setenv(name, value)
    specs = settings_of_process(child.command[3:]).specs_of_queue()
    assert [spec.name for spec in specs] == served
    assert specs[0].aliases == (("x",) if task is Task.IMAGES else ())


def test_the_api_is_told_the_tasks_and_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    child = api_child(SETTINGS, URL, served_tasks(SPECS))
    for name, value in child.environment.items():
        monkeypatch.setenv(name, value)
    assert ServiceSettings().tasks == {Task.IMAGES, Task.EMBEDDINGS}
    assert "flux_dev" not in json.dumps(dict(child.environment))


def test_one_file_is_for_serve_and_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "triptych.toml"
    file.write_text('port = 9000\nlease_s = 3.5\nmodels = "f_net_shapes"\n', encoding="utf-8")
    settings = ServeSettings.model_validate({"config": file})
    specs = with_tasks(settings.specs)
    assert (settings.port, [spec.name for spec in specs]) == (9000, ["f_net_shapes"])
    child = worker_child(settings, specs, URL, Task.EMBEDDINGS, 8001, "worker.main")
    for name, value in child.environment.items():
        monkeypatch.setenv(name, value)
    assert settings_of_process(child.command[3:]).lease_s == 3.5


def test_what_serve_alone_is_told_is_known_to_the_workers() -> None:
    alone = set(ServeSettings.model_fields) - set(WorkerSettings.model_fields)
    assert alone == set(SERVE_ALONE)
