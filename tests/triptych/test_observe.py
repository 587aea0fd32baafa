"""Prometheus and Grafana beside the service: what they are told, and that they run with it."""

import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.prometheus_api import Prometheus, Rule
from benchmarks.running_service import free_port
from dashboards.__main__ import FOLDER
from tests.dashboards.expressions import RULES, rules
from tests.dashboards.promtool import promtool
from tests.triptych.conftest import Serve, is_alive, start, wait_until
from triptych.api_launch import api_environment
from triptych.errors import DataDirError
from triptych.observe import (
    grafana_home,
    grafana_provisioning,
    prepare,
    prometheus_config,
)
from triptych.settings import ServeSettings

NEEDS_PROMETHEUS = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="Prometheus is not installed: `apt-get install prometheus` has it",
)


def settings(data_dir: Path, **given: object) -> ServeSettings:
    return ServeSettings.model_validate({"data_dir": data_dir, "observe": True, **given})


def program_named(name: str, directory: Path) -> Path:
    """A program that writes what it is told and where it finds its environment, and ends."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / name
    file.write_text(
        f'#!/bin/sh\necho "$@" > "{directory}/told"\n/usr/bin/env >> "{directory}/told"\n'
    )
    file.chmod(0o755)
    return file


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The one directory where programs are looked for; there are none."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_nothing_is_started_or_written_unless_it_is_asked_for(tmp_path: Path) -> None:
    prepared = prepare(settings(tmp_path, observe=False))
    assert not prepared.children
    assert not prepared.lines
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nothing_installed")
def test_what_is_not_installed_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    prepared = prepare(settings(tmp_path))
    assert not prepared.children
    assert prepared.lines == [
        "Prometheus is not installed (apt-get install prometheus, or prometheus.io)",
        "Grafana is not installed (grafana.com/grafana/download)",
    ]


def test_the_configuration_is_one_that_prometheus_takes(tmp_path: Path) -> None:
    file = tmp_path / "prometheus.yml"
    file.write_text(json.dumps(prometheus_config(settings(tmp_path))))
    promtool("check", "config", file)


def test_prometheus_is_told_the_ports_and_the_folder_of_this_service(tmp_path: Path) -> None:
    said = json.dumps(prometheus_config(settings(tmp_path, host="0.0.0.0", port=9123)))
    assert '"127.0.0.1:9123"' in said
    assert f'"{tmp_path}/prometheus-targets.json"' in said


def test_another_port_is_taken_where_the_one_wanted_is_not_free(
    tmp_path: Path, nothing_installed: Path
) -> None:
    program_named("prometheus", nothing_installed)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with closing(prepare(settings(tmp_path, prometheus_port=port))) as prepared:
            line, _ = prepared.lines
    assert line.startswith("Prometheus: http://127.0.0.1:")
    assert not line.endswith(f":{port}")


def test_two_services_that_start_at_once_take_different_ports(
    tmp_path: Path, nothing_installed: Path
) -> None:
    program_named("prometheus", nothing_installed)
    wanted = settings(tmp_path, prometheus_port=free_port())
    with closing(prepare(wanted)) as first, closing(prepare(wanted)) as second:
        assert first.lines[0] != second.lines[0]
        port = int(first.lines[0].rpartition(":")[2])
        child = first.children[0]
        child.start()
        with socket.create_server(("127.0.0.1", port)):  # it is left to the program
            wait_until(lambda: not child.is_running, "the program went on")


def test_a_data_directory_that_cannot_be_written_is_named(
    tmp_path: Path, nothing_installed: Path
) -> None:
    program_named("prometheus", nothing_installed)
    (tmp_path / "file").touch()
    with pytest.raises(DataDirError, match=f"cannot write in data directory {tmp_path}/file"):
        prepare(settings(tmp_path / "file"))


def test_grafana_waits_for_prometheus_to_be_installed(
    tmp_path: Path, nothing_installed: Path
) -> None:
    program_named("grafana", nothing_installed)
    prepared = prepare(settings(tmp_path))
    assert not prepared.children
    assert prepared.lines[1] == "Grafana is not started: without Prometheus it has nothing to show"


def test_grafana_serves_this_host_alone_and_nobody_logs_in(
    tmp_path: Path, nothing_installed: Path
) -> None:
    program_named("prometheus", nothing_installed)
    program_named("grafana", nothing_installed)
    lay_out_grafana(tmp_path)
    with closing(prepare(settings(tmp_path / "data", grafana_port=free_port()))) as prepared:
        url, _, port = prepared.lines[1].rpartition(":")
        assert url == "Grafana: http://127.0.0.1"
        assert prepared.grafana_url == f"http://127.0.0.1:{port}"
        grafana = prepared.children[1]
        grafana.start()
    wait_until(lambda: not grafana.is_running, "the program went on")
    command, *environment = (nothing_installed / "told").read_text().splitlines()
    assert command == f"server --homepath {tmp_path}"
    assert {
        "GF_SERVER_HTTP_ADDR=127.0.0.1",
        f"GF_SERVER_HTTP_PORT={port}",
        f"GF_PATHS_PROVISIONING={tmp_path}/data/grafana/provisioning",
        "GF_AUTH_ANONYMOUS_ORG_ROLE=Viewer",
        "GF_AUTH_BASIC_ENABLED=false",
        "GF_AUTH_DISABLE_LOGIN_FORM=true",
    } <= set(environment)
    assert (
        tmp_path / "data" / "grafana" / "provisioning" / "dashboards" / "triptych.yml"
    ).is_file()


@pytest.mark.parametrize("own", [None, "https://grafana.example"])
def test_the_playground_links_to_the_grafana_that_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    monkeypatch.delenv("TRIPTYCH_GRAFANA_URL", raising=False)
    if own is not None:
        monkeypatch.setenv("TRIPTYCH_GRAFANA_URL", own)
    told = api_environment(settings(tmp_path), "redis://", [], "http://127.0.0.1:3000")
    linked = (os.environ | told)["TRIPTYCH_GRAFANA_URL"]
    assert linked == (own or "http://127.0.0.1:3000")


def lay_out_grafana(home: Path) -> None:
    (home / "conf").mkdir(parents=True)
    (home / "conf" / "defaults.ini").touch()


@pytest.mark.parametrize("home", [".", "share/grafana"])
def test_grafanas_home_is_found_beside_its_program(tmp_path: Path, home: str) -> None:
    lay_out_grafana(tmp_path / "kept" / home)
    program = program_named("grafana", tmp_path / "kept" / "bin")
    (tmp_path / "link").symlink_to(program)
    assert grafana_home(tmp_path / "link") == (tmp_path / "kept" / home).resolve()


def test_grafana_gets_our_dashboards_and_the_data_source_that_compose_gives_it() -> None:
    given = json.loads(json.dumps(grafana_provisioning("http://127.0.0.1:9090")))
    [source] = given["datasources/prometheus.yml"]["datasources"]
    compose = (FOLDER / "provisioning" / "datasources" / "prometheus.yml").read_text()
    assert f"uid: {source['uid']}" in compose
    [provider] = given["dashboards/triptych.yml"]["providers"]
    assert Path(provider["options"]["path"]) == FOLDER


def hurried_prometheus(directory: Path) -> Path:
    """The installed Prometheus with the configuration it is given, but for how often it looks."""
    rules = directory / "rules"
    rules.mkdir()
    for file in RULES.glob("*.yml"):
        (rules / file.name).write_text(re.sub(r"(?m)^ +interval: .*$", "", file.read_text()))
    program = directory / "prometheus"
    program.write_text(
        f"""#!/bin/sh
        sed -i 's/_interval": "5s"/_interval": "200ms"/; s#{RULES}#{rules}#' "${{1#*=}}"
        exec "{shutil.which("prometheus")}" "$@"
        """
    )
    program.chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A service with a real Prometheus and the task that starts soonest."""
    directory = hurried_prometheus(tmp_path_factory.mktemp("programs"))
    running = start(
        tmp_path_factory.mktemp("data"),
        workers="embeddings=2",
        TRIPTYCH_MODELS="f_net_shapes",
        TRIPTYCH_OBSERVE="true",
        TRIPTYCH_PROMETHEUS_PORT=str(free_port()),
        PATH=f"{directory}:{os.environ['PATH']}",
    )
    try:
        running.wait_until_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


@pytest.fixture
def prometheus(observed: Serve) -> Iterator[Prometheus]:
    """Where the service says that it is: elsewhere than asked for, if that port was taken."""

    def urls() -> list[str]:
        return [line.split()[1] for line in observed.lines() if line.startswith("  Prometheus: ")]

    wait_until(lambda: bool(urls()), "it was not said where Prometheus is")
    with Prometheus(urls()[0]) as found:
        wait_until(found.is_ready, "Prometheus never came")
        yield found


@NEEDS_PROMETHEUS
def test_prometheus_reaches_the_api_and_each_worker(prometheus: Prometheus) -> None:
    def reached() -> set[str]:
        found = prometheus.at("up == 1", time.time())
        return {series.labels.get("worker", "service") for series in found}

    everybody = {"service", "embeddings-0", "embeddings-1"}
    wait_until(lambda: reached() == everybody, "some target was never reached")


@NEEDS_PROMETHEUS
def test_prometheus_evaluates_our_rules(prometheus: Prometheus) -> None:
    def unseen() -> list[Rule]:
        return [rule for rule in prometheus.rules() if rule.health == "unknown"]

    wait_until(lambda: not unseen(), "some rule was never evaluated")
    evaluated = prometheus.rules()
    assert sorted(rule.name for rule in evaluated) == sorted(rule.name for rule in rules())
    assert [rule for rule in evaluated if rule.health != "ok"] == []


@NEEDS_PROMETHEUS
def test_a_prometheus_that_died_is_started_again_and_ends_with_the_service(
    observed: Serve, prometheus: Prometheus
) -> None:
    first = observed.children()["prometheus"]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: observed.has_again("prometheus", first), "it was not started again")
    wait_until(prometheus.is_ready, "it does not answer again")
    assert observed.stop() == 0
    assert not is_alive(observed.children()["prometheus"])
