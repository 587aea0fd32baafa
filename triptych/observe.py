"""Prometheus and Grafana beside the service, those of the two that are installed here.

They scrape and show what `dashboards/` describes, keep their data in the data directory, and listen
on this host alone. Knows nothing of when they are started. Sources:
https://prometheus.io/docs/prometheus/latest/configuration/configuration
https://grafana.com/docs/grafana/latest/setup-grafana/configure-grafana
https://grafana.com/docs/grafana/latest/administration/provisioning
"""

import json
import logging
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import TypeAlias

from triptych.address import hold_port, url_of
from triptych.child import Child, ChildProcess, Launch, program
from triptych.errors import DataDirError, ObserveError
from triptych.prometheus_targets import FILE_NAME
from triptych.settings import ServeSettings

logger = logging.getLogger(__name__)

DASHBOARDS = Path(__file__).parents[1] / "dashboards"
_LOOPBACK = "127.0.0.1"
_SCRAPE_INTERVAL = "5s"
_RETENTION = "40d"  # longer than the 30 days of the error budgets
_IN_ITS_HOME = Path("conf", "defaults.ini")  # of Grafana

_PROMETHEUS_MISSING = "Prometheus is not installed (apt-get install prometheus, or prometheus.io)"
_GRAFANA_MISSING = "Grafana is not installed (grafana.com/grafana/download)"

_Json: TypeAlias = "Mapping[str, _Json] | Sequence[_Json] | str | int | bool"


@dataclass(frozen=True, slots=True)
class Observers:
    """The processes to run, and a line for each that says where to look, or what is missing."""

    children: Sequence[Child]
    lines: Sequence[str]
    held_ports: Sequence[socket] = ()  # by us until they start: another service may look for some
    grafana_url: str | None = None

    def close(self) -> None:
        for port in self.held_ports:
            port.close()


def prepare(settings: ServeSettings) -> Observers:
    """Write their configuration; raises DataDirError or ObserveError where that cannot be."""
    if not settings.observe:
        return Observers((), ())
    if not DASHBOARDS.is_dir():  # installed from a wheel
        raise ObserveError(
            f"observe: there is no {DASHBOARDS}; run it from a copy of the repository"
        )
    try:
        prometheus, prometheus_url = _prometheus(settings)
        grafana, grafana_url, grafana_line = _grafana(settings, prometheus_url)
    except OSError as error:
        raise DataDirError(
            f"cannot write in data directory {settings.data_dir}: {error.strerror}"
        ) from None
    said = _PROMETHEUS_MISSING if prometheus_url is None else f"Prometheus: {prometheus_url}"
    found = [*prometheus, *grafana]
    return Observers(
        [child for child, _ in found],
        [said, grafana_line],
        [port for _, port in found],
        grafana_url,
    )


def _prometheus(settings: ServeSettings) -> tuple[list[tuple[Child, socket]], str | None]:
    binary = shutil.which("prometheus")
    if binary is None:
        return [], None
    directory = (settings.data_dir / "prometheus").resolve()
    config = directory / "prometheus.yml"
    _write(config, prometheus_config(settings))
    held = _hold("prometheus", settings.prometheus_port)
    port = held.getsockname()[1]
    flags = prometheus_flags(config, directory / "data", port, settings.log_format)
    # it writes what it has and goes
    launch = program([binary, *flags], orphan_signal=signal.SIGTERM)
    return [(Child("prometheus", _on(held, launch)), held)], url_of(_LOOPBACK, port)


def prometheus_config(settings: ServeSettings) -> _Json:
    """The scrape configuration of `dashboards/prometheus`, for this service's ports and folder."""
    api = url_of(settings.host, settings.port).removeprefix("http://")
    workers = str((settings.data_dir / FILE_NAME).resolve())
    return {
        "global": {
            "scrape_interval": _SCRAPE_INTERVAL,
            "evaluation_interval": _SCRAPE_INTERVAL,
        },
        "rule_files": [str(DASHBOARDS / "prometheus" / "rules" / "*.yml")],
        "scrape_configs": [
            {"job_name": "triptych-service", "static_configs": [{"targets": [api]}]},
            {
                "job_name": "triptych-worker",
                "honor_labels": True,  # a metric that has a task keeps its own
                "file_sd_configs": [{"files": [workers]}],
            },
        ],
    }


def prometheus_flags(config: Path, data: Path, port: int, log_format: str) -> list[str]:
    return [
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--storage.tsdb.retention.time={_RETENTION}",
        f"--web.listen-address={_LOOPBACK}:{port}",
        "--enable-feature=exemplar-storage",  # from a slow request in a panel to its trace
        "--log.level=warn",
        f"--log.format={'json' if log_format == 'json' else 'logfmt'}",
    ]


def _grafana(
    settings: ServeSettings, prometheus_url: str | None
) -> tuple[list[tuple[Child, socket]], str | None, str]:
    """The process, where it serves, and the line that says so, or why it does not."""
    binary = shutil.which("grafana")
    if binary is None:
        return [], None, _GRAFANA_MISSING
    if prometheus_url is None:
        return [], None, "Grafana is not started: without Prometheus it has nothing to show"
    if (home := grafana_home(Path(binary))) is None:
        return [], None, f"Grafana is not started: no {_IN_ITS_HOME} where {binary} belongs"
    directory = (settings.data_dir / "grafana").resolve()
    for name, content in grafana_provisioning(prometheus_url).items():
        _write(directory / "provisioning" / name, content)
    held = _hold("grafana", settings.grafana_port)
    port = held.getsockname()[1]
    launch = program(
        [binary, "server", "--homepath", str(home)],
        grafana_environment(directory, port, settings.log_format),
        orphan_signal=signal.SIGTERM,
    )
    url = url_of(_LOOPBACK, port)
    return [(Child("grafana", _on(held, launch)), held)], url, f"Grafana: {url}"


def grafana_home(binary: Path) -> Path | None:
    """Where Grafana keeps its pages: above the binary in its archive, else in `share/grafana`."""
    prefixes = [each.parent.parent for each in (binary.resolve(), binary)]
    homes = [*prefixes, *(prefix / "share" / "grafana" for prefix in prefixes)]
    homes.append(Path("/usr/share/grafana"))  # of the packages for Debian and Red Hat
    return next((home for home in homes if (home / _IN_ITS_HOME).is_file()), None)


def grafana_provisioning(prometheus_url: str) -> Mapping[str, _Json]:
    """The files of its data source and dashboards, by name."""
    source: _Json = {
        "name": "Prometheus",
        "uid": "prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus_url,
        "isDefault": True,
        "jsonData": {"timeInterval": _SCRAPE_INTERVAL},
    }
    folder: _Json = {
        "name": "triptych",
        "type": "file",
        "options": {"path": str(DASHBOARDS / "grafana")},
    }
    return {
        "datasources/prometheus.yml": {"apiVersion": 1, "datasources": [source]},
        "dashboards/triptych.yml": {"apiVersion": 1, "providers": [folder]},
    }


def grafana_environment(directory: Path, port: int, log_format: str) -> dict[str, str]:
    """Everybody on this host may look, and nobody may log in: the password would be the default."""
    return {
        "GF_SERVER_HTTP_ADDR": _LOOPBACK,
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_PATHS_DATA": str(directory / "data"),
        "GF_PATHS_LOGS": str(directory / "logs"),
        "GF_PATHS_PLUGINS": str(directory / "plugins"),
        "GF_PATHS_PROVISIONING": str(directory / "provisioning"),
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(DASHBOARDS / "grafana" / "overview.json"),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_AUTH_BASIC_ENABLED": "false",
        "GF_AUTH_DISABLE_LOGIN_FORM": "true",
        # it tells nobody about this host
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_LOG_MODE": "console",
        "GF_LOG_LEVEL": "warn",
        "GF_LOG_CONSOLE_FORMAT": "json" if log_format == "json" else "console",
    }


def _hold(name: str, wanted: int) -> socket:
    """Hold the port wanted, or another: measuring must not keep us from serving."""
    held = hold_port(_LOOPBACK, wanted)
    if (port := held.getsockname()[1]) != wanted:
        logger.warning("event=port_taken child=%s wanted=%d used=%d", name, wanted, port)
    return held


def _on(held: socket, launch: Launch) -> Launch:
    """Leave the port to the program that is launched."""

    def leave_and_launch() -> ChildProcess:
        held.close()
        return launch()

    return leave_and_launch


def _write(path: Path, content: _Json) -> None:
    """As JSON, which every reader of YAML reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
