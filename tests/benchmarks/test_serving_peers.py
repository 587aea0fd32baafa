"""The servers' benchmark: what its rows say, and peers that are not there; no server is started."""

from pathlib import Path

import pytest

from benchmarks import serving_peers
from benchmarks.load_client import Load
from benchmarks.serving_peers import SERVERS, Measured, Model, Row, rows_of, small_model

MODEL = Model("tiny", "nowhere", images=[b"\x89PNG\r\n and more"], max_batch=4, seconds=0.1)
OURS, PEER = SERVERS[:2]


def load(per_s: float, median_ms: float) -> Load:
    return Load(8, 10, per_s, median_ms, p95_ms=2 * median_ms, p99_ms=3 * median_ms)


def test_a_peer_that_is_not_installed_is_a_row_that_says_how(
    tmp_path: Path,
) -> None:
    report = serving_peers.measure([small_model(seconds=0.1)], SERVERS[1:], tmp_path)
    assert report.rows == [
        Row("vit_shapes", name, "all", unavailable=f"not installed: python -m {command}")
        for name in ("litserve", "ray", "bentoml")
        if (command := f"benchmarks.peers.install {name}")
    ]
    assert "benchmarks.peers.install ray" in serving_peers.table(report)


def test_throughputs_are_medians_beside_ours() -> None:
    ours = Measured(loads={"8 clients": [load(100, 10), load(120, 8)]})
    peer = Measured(loads={"8 clients": [load(50, 30), load(60, 20)]})
    rows = {row.server: row for row in rows_of(MODEL, {OURS: ours, PEER: peer})}
    assert rows["triptych"].per_s == 110
    assert rows["litserve"].ours_over_it == 2.0
    assert (rows["litserve"].lowest_per_s, rows["litserve"].highest_per_s) == (50, 60)


def test_a_server_that_ended_keeps_what_was_measured_before() -> None:
    peer = Measured(loads={"1 client": [load(50, 20)]}, unavailable="ServerError: it ended")
    first, last = rows_of(MODEL, {PEER: peer})
    assert first.per_s == 50
    assert last.unavailable == "ServerError: it ended"


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: str(server.name))
def test_a_request_says_how_long_its_body_is(server: serving_peers.Server) -> None:
    head, _, body = server.request(MODEL.images[0]).partition(b"\r\n\r\n")
    assert head.endswith(f"content-length: {len(body)}".encode())
