"""`TRIPTYCH_MODELS` of `triptych serve`: one list, which reaches each process as its own."""

import pytest

from service.settings import ServiceSettings
from triptych.settings import ServeSettings
from triptych.supervisor import api_child, served_tasks, worker_child, worker_ports
from worker.contract.jobs import Task
from worker.settings import settings_of_process

MODELS = ("f_net_base_en", "flux_dev", "f_net_shapes")
URL = "redis://x"


def test_only_tasks_with_a_model_get_a_worker_on_its_usual_port() -> None:
    settings = ServeSettings(models=MODELS)
    assert served_tasks(settings) == [Task.IMAGES, Task.EMBEDDINGS]
    assert worker_ports(settings) == {Task.IMAGES: 8001, Task.EMBEDDINGS: 8003}


@pytest.mark.parametrize(
    ("task", "served"),
    [(Task.IMAGES, ("flux_dev",)), (Task.EMBEDDINGS, ("f_net_base_en", "f_net_shapes"))],
)
def test_each_worker_is_told_the_models_of_its_task(
    task: Task, served: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    child = worker_child(ServeSettings(models=MODELS), URL, task, 8001, "worker.main")
    for name, value in child.environment.items():
        monkeypatch.setenv(name, value)
    assert settings_of_process(child.command[3:]).served_models == served


def test_the_api_is_told_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in api_child(ServeSettings(models=MODELS), URL).environment.items():
        monkeypatch.setenv(name, value)
    assert ServiceSettings().models == MODELS
