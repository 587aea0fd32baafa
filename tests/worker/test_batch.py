"""Which rows share a forward."""

from worker.batch import BatchKey, Row, next_forward


def row(job_id: str, index: int = 0, model: str = "m", length: int = 4) -> Row[str]:
    return Row(BatchKey(model, (length,)), f"{job_id}{index}")


def groups(rows: list[Row[str]], max_rows: int = 32) -> list[list[str]]:
    """Take one forward after another."""
    forwards: list[list[str]] = []
    while rows:
        group, rows = next_forward(rows, max_rows)
        forwards.append([row.prepared for row in group])
    return forwards


def test_rows_of_one_model_and_shape_go_together() -> None:
    assert groups([row("a"), row("b"), row("c")]) == [["a0", "b0", "c0"]]


def test_another_shape_or_model_is_another_forward() -> None:
    rows = [row("a"), row("b", length=8), row("c", model="n"), row("d")]
    assert groups(rows) == [["a0", "d0"], ["b0"], ["c0"]]


def test_a_forward_has_at_most_so_many_rows() -> None:
    rows = [row("a", index) for index in range(5)]
    assert groups(rows, max_rows=2) == [["a0", "a1"], ["a2", "a3"], ["a4"]]
