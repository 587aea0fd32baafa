"""What Prometheus scrapes is served, and its configurations are such to itself."""

from pathlib import Path

import pytest
import yaml

from tests.dashboards.promtool import promtool
from triptych.prometheus_targets import FILE_NAME
from triptych.settings import ServeSettings

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "dashboards" / "prometheus"


def scrape_targets(file: str) -> set[str]:
    config = yaml.safe_load((CONFIGS / file).read_text())
    return {
        target
        for job in config["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }


@pytest.mark.parametrize("file", ["compose.yml", "local.yml"])
def test_prometheus_reads_the_configuration_with_its_rules(file: str) -> None:
    promtool("check", "config", CONFIGS / file)


def test_compose_runs_what_prometheus_scrapes() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    hosts = {target.partition(":")[0] for target in scrape_targets("compose.yml")}
    assert hosts <= set(compose["services"])


def test_prometheus_in_compose_keeps_what_the_error_budgets_need() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    command = compose["services"]["prometheus"]["command"]
    (days,) = [each.rpartition("=")[2] for each in command if "retention.time" in each]
    assert int(days.removesuffix("d")) > 30


def test_the_local_configuration_scrapes_serve_and_finds_its_workers() -> None:
    settings = ServeSettings()
    file = CONFIGS / "local.yml"
    service, worker = yaml.safe_load(file.read_text())["scrape_configs"]
    assert service["static_configs"] == [{"targets": [f"127.0.0.1:{settings.port}"]}]
    (named,) = worker["file_sd_configs"][0]["files"]
    assert (file.parent / named).resolve() == (ROOT / settings.data_dir / FILE_NAME).resolve()
    assert worker["honor_labels"]
