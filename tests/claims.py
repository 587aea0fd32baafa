"""Take jobs as a worker would, whatever their models."""

from worker.contract.jobs import Task
from worker.contract.records import Record, Records, Room

_ONE = Room(max_jobs=1, rows_of_new_group=1)


def claim_one(
    records: Records, task: Task, lease_s: float = 60.0, waited_for: str | None = None
) -> Record | None:
    """Start the first job that waits; None where none does."""
    models: list[str] = []
    while True:
        claim = records.claim(task, "test", lease_s, models, _ONE, waited_for)
        if claim.records:
            return claim.records[0]
        if not claim.others:
            return None
        models, waited_for = claim.others, None
