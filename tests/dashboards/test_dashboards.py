"""What the dashboard asks for exists, and what Prometheus scrapes is served."""

import json
import re
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry
from redis import Redis

from service.metrics import Metrics
from service.queue_stats import QueueCollector
from triptych.settings import ServeSettings
from triptych.supervisor import worker_ports
from worker.contract.jobs import Task
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


def test_the_local_configuration_scrapes_the_ports_of_serve() -> None:
    settings = ServeSettings()
    ports = {settings.port, *worker_ports(settings, tuple(Task)).values()}
    assert scrape_targets("prometheus-local.yml") == {f"127.0.0.1:{port}" for port in ports}
