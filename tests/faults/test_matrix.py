"""A worker or an API that is killed at any moment costs no job, and leaves nothing.

A small part of the matrix: one point for each script and file operation of a scene; `python -m
tests.faults.matrix` kills at all of them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.faults.kill_points import KillPoint
from tests.faults.matrix import Matrix, Outcome, one_of_each, open_matrix, proves_it
from tests.faults.scenes import SCENES


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    with open_matrix(tmp_path_factory.mktemp("matrix")) as opened:
        yield opened


def one_of_each_change(points: Sequence[KillPoint]) -> list[KillPoint]:
    """Of the scripts and file operations; not of greetings and RQ's books of its workers."""
    return one_of_each(
        [each for each in points if each.operation.startswith("script:") or not each.is_of_redis]
    )


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("images-alone", {"script:CLAIM", "script:REPORT", "script:FINISH", "read", "replace"}),
        ("classify-batch", {"script:CLAIM", "script:FINISH"}),
        ("embeddings-alone", {"script:CLAIM", "script:FINISH"}),
        ("api-stores-a-start", {"script:SUBMIT", "fsync", "replace"}),
    ],
)
def test_a_kill_at_any_script_or_file_operation_costs_no_job_and_leaves_nothing(
    matrix: Matrix, name: str, operations: set[str]
) -> None:
    outcomes = [*matrix.kill_each([SCENES[name]], one_of_each_change)]
    assert [(str(each.point), each.faults) for each in outcomes if each.faults] == []
    assert operations <= {each.point.operation for each in outcomes if each.is_reached}


def outcome(is_reached: bool = True, faults: Sequence[str] = ()) -> Outcome:
    point = KillPoint("MainThread", "fsync", 1, "after")
    return Outcome("a scene", point, is_reached, 1, 0.5, faults, Path("log"))


@pytest.mark.parametrize(
    ("outcomes", "is_proof"),
    [
        ([outcome()], True),
        ([outcome()] * 19 + [outcome(is_reached=False)], True),
        ([outcome()] * 9 + [outcome(is_reached=False)], False),
        ([outcome()] * 19 + [outcome(faults=["a job is lost"])], False),
        ([], False),
    ],
    ids=["all_good", "few_missed", "too_many_missed", "a_fault", "none"],
)
def test_a_matrix_proves_something_where_enough_points_were_reached(
    outcomes: Sequence[Outcome], is_proof: bool
) -> None:
    assert proves_it(outcomes) is is_proof
