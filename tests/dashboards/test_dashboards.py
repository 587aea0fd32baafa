"""What the dashboard asks for exists, and what Prometheus scrapes is served."""

import json
import re
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry
from redis import Redis

from service.metrics import Metrics
from service.queue_stats import QueueCollector
from triptych.prometheus_targets import FILE_NAME
from triptych.settings import ServeSettings
from worker.metrics import WorkerMetrics

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "dashboards" / "grafana" / "overview.json"
HISTOGRAM_ENDINGS = ("", "_bucket", "_sum", "_count", "_total")


def names_in(registry: CollectorRegistry) -> set[str]:
    return {
        f"{family.name}{ending}" for family in registry.collect() for ending in HISTOGRAM_ENDINGS
    }


def scrape_targets(file: str) -> set[str]:
    config = yaml.safe_load((ROOT / "dashboards" / file).read_text())
    return {
        target
        for job in config["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }


def test_every_metric_of_the_dashboard_is_exported(redis: Redis) -> None:
    queues = CollectorRegistry()
    queues.register(QueueCollector(redis))
    exported = names_in(Metrics().registry) | names_in(WorkerMetrics().registry) | names_in(queues)
    asked = set(re.findall(r"triptych_\w+", DASHBOARD.read_text()))
    assert len(asked) > 20
    assert asked - exported == set()


def test_every_panel_has_a_query_and_a_title() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert all(panel["title"] for panel in panels)
    assert all(panel["targets"] for panel in panels if panel["type"] != "row")


def test_compose_runs_what_prometheus_scrapes() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    hosts = {target.partition(":")[0] for target in scrape_targets("prometheus.yml")}
    assert hosts <= set(compose["services"])


def test_the_local_configuration_scrapes_serve_and_finds_its_workers() -> None:
    settings = ServeSettings()
    file = ROOT / "dashboards" / "prometheus-local.yml"
    service, worker = yaml.safe_load(file.read_text())["scrape_configs"]
    assert service["static_configs"] == [{"targets": [f"127.0.0.1:{settings.port}"]}]
    (named,) = worker["file_sd_configs"][0]["files"]
    assert (file.parent / named).resolve() == (ROOT / settings.data_dir / FILE_NAME).resolve()
    assert worker["honor_labels"]
