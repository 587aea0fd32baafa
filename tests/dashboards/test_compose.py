"""The containers: pinned images, ports that meet, and settings that exist."""

import re
from pathlib import Path

import yaml

from service.settings import ServiceSettings
from tests.dashboards.test_scrape_configs import scrape_targets
from worker.contract.jobs import Task
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SERVICES = yaml.safe_load(COMPOSE)["services"]


def target(name: str) -> str:
    """The lines of one target of the Dockerfile."""
    return DOCKERFILE.partition(f" AS {name}\n")[2].partition("\nFROM ")[0]


def test_every_image_has_a_version() -> None:
    images = re.findall(r"^\s*image: (\S+)|^FROM (\S+:\S+)", COMPOSE + DOCKERFILE, re.MULTILINE)
    names = [one or other for one, other in images]
    assert len(names) >= 6
    assert [name for name in names if not re.search(r":v?\d+\.\d+", name)] == []


def test_prometheus_asks_at_the_ports_that_the_images_open() -> None:
    ports = {
        "service": ServiceSettings.model_fields["port"].default,
        "worker": int(re.findall(r"TRIPTYCH_METRICS_PORT=(\d+)", target("worker"))[0]),
    }
    for address in scrape_targets("compose.yml"):
        host, _, port = address.partition(":")
        assert int(port) == ports[host.partition("-")[0]]
        assert f"EXPOSE {port}" in target(host.partition("-")[0])


def test_every_setting_of_the_containers_exists() -> None:
    fields = {*ServiceSettings.model_fields, *WorkerSettings.model_fields}
    named = set(re.findall(r"TRIPTYCH_([A-Z_]+)", COMPOSE + DOCKERFILE))
    assert named
    assert {name.lower() for name in named} <= fields


def test_every_task_has_a_worker_with_a_gpu_and_one_without() -> None:
    for profile in ("gpu", "cpu"):
        commands = [
            each["command"] for each in SERVICES.values() if each.get("profiles") == [profile]
        ]
        assert [command[1] for command in commands] == [task.value for task in Task]


def test_redis_keeps_every_job() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--appendfsync everysec" in command
    assert "--maxmemory-policy noeviction" in command
