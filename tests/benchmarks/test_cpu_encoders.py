"""The encoders' benchmark on tiny models: its rows, its limit, and peers that are not there."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cpu_encoders
from benchmarks.cpu_encoders import NOT_INSTALLED, Measured, Report, Workload, rows_of
from benchmarks.peers import install
from benchmarks.peers.encoders import Case, load
from benchmarks.peers.line_protocol import Compute, Outputs, answer

TINY = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
WORKLOAD = Workload(
    vit={**TINY, "num_attention_heads": 2, "image_size": 32},
    fnet={**TINY, "vocab_size": 100},
    num_classes=10,
    batch_sizes=(2,),
    num_tokens=(8,),
    products=((16, 32, 64),),
    num_rounds=2,
)
CASE = Case("vit", "float32", batch_size=2)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    nowhere = tmp_path_factory.mktemp("peers")
    return cpu_encoders.measure(WORKLOAD, ("triptych", "openvino"), nowhere)


def test_every_case_is_measured_beside_the_limit(report: Report) -> None:
    ours = [row for row in report.rows if row.runtime == "triptych"]
    assert [str(row.case) for row in ours] == [
        "vit float32 2 0",
        "vit bfloat16 2 0",
        "vit int8 2 0",
        "fnet float32 2 8",
        "fnet bfloat16 2 8",
        "fnet int8 2 8",
    ]
    for row in ours:
        assert row.unavailable is None
        assert row.ours_over_it == 1.0
        assert row.num_runs >= 2
        assert row.of_limit is not None
        assert row.of_limit > 0
    assert set(report.product_gflops) == {"float32", "bfloat16", "int8"}


def test_a_peer_without_int8_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match="timm has no int8 but by a package"):
        load("timm", tmp_path, "vit int8 1 0")


def test_a_peer_that_is_not_installed_is_a_row_that_says_how(report: Report) -> None:
    peers = [row for row in report.rows if row.runtime == "openvino"]
    assert len(peers) == 6
    assert {row.unavailable for row in peers} == {NOT_INSTALLED}
    assert NOT_INSTALLED in cpu_encoders.table(report)


def rows(outputs: Outputs, expected: Outputs, seconds: float = 0.2) -> dict[str, cpu_encoders.Row]:
    measured = {
        "triptych": Measured(expected, [0.1, 0.1]),
        "timm": Measured(outputs, [seconds, seconds]),
    }
    return {row.runtime: row for row in rows_of(CASE, measured, expected, num_flop=10**9)}


def test_a_peer_that_computes_something_else_is_caught() -> None:
    expected = np.random.default_rng(0).standard_normal((2, 10)).astype(np.float32)
    assert rows(expected, expected)["timm"].is_same is True
    assert rows(expected[::-1], expected)["timm"].is_same is False


def test_a_peer_that_takes_twice_the_time_has_half_of_our_speed() -> None:
    row = rows(np.ones((2, 10), np.float32), np.ones((2, 10), np.float32))["timm"]
    assert row.ours_over_it == 2.0
    assert row.items_per_s == 10.0
    assert row.gflops == 10.0


def load_ones(case: str) -> Compute:
    if case == "nothing":
        raise NotImplementedError("there is no such case\nand more")
    return lambda: np.ones(3, np.float32)


@pytest.fixture
def said(tmp_path: Path) -> Callable[[str], list[dict[str, object]]]:
    def say(*requests: str) -> list[dict[str, object]]:
        answers = io.StringIO()
        answer([f"{request}\n" for request in requests], answers, tmp_path, load_ones)
        return [json.loads(line) for line in answers.getvalue().splitlines()]

    return say


def test_a_process_loads_a_case_and_runs_it_as_often_as_it_is_told(
    said: Callable[..., list[dict[str, object]]],
) -> None:
    loaded, run = said("load ones", "run 3")
    assert np.load(str(loaded["outputs"])).tolist() == [1, 1, 1]
    assert isinstance(run["seconds"], list)
    assert len(run["seconds"]) == 3


def test_a_case_that_cannot_be_loaded_says_why_and_the_next_one_is_loaded(
    said: Callable[..., list[dict[str, object]]],
) -> None:
    refused, unloaded, loaded = said("load nothing", "run 1", "load ones")
    assert refused == {"unavailable": "NotImplementedError: there is no such case"}
    assert unloaded == {"unavailable": "got 'run 1'; allowed: load CASE, then run COUNT"}
    assert "outputs" in loaded


def test_a_case_is_the_same_after_a_line() -> None:
    case = Case("fnet", "bfloat16", batch_size=8, num_tokens=512)
    assert Case.parse(str(case)) == case


@pytest.mark.parametrize("environment", install.ENVIRONMENTS)
def test_the_packages_of_a_peer_have_exact_versions(environment: str) -> None:
    versions = install.pinned(environment)
    assert versions
    assert all(versions.values())
