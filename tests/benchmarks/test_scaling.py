"""The benchmark of what grows with what: its requests and its table."""

from itertools import islice

from benchmarks.constant_model import names
from benchmarks.load_client import Load
from benchmarks.scaling import Point, Report, bodies, table

LOAD = Load(num_clients=32, num_requests=100, per_s=50.0, median_ms=1.0, p95_ms=2.0, p99_ms=3.0)


def test_no_text_comes_twice_and_each_model_has_its_turn() -> None:
    requests = [*islice(bodies(names(2), num_texts=3, num_characters=50), 40)]
    texts = [text for body in requests for text in _texts(body)]
    assert len(set(texts)) == len(texts) == 120
    assert {len(text) for text in texts} == {50}
    assert [body["model"] for body in requests[:3]] == ["constant", "constant-1", "constant"]


def _texts(body: dict[str, object]) -> list[str]:
    texts = body["input"]
    assert isinstance(texts, list)
    return texts


def test_each_point_is_a_line() -> None:
    report = Report("a processor", 2, 0.1, [Point("models", 16, LOAD, LOAD)])
    header, line = table(report).splitlines()
    assert header.split()[:2] == ["what", "size"]
    assert line.split() == ["models", "16", "50.0", "3.0", "1.0", "3.0"]
