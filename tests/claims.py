"""Take jobs as a worker would, whatever their models."""

from worker.contract.jobs import Task
from worker.contract.record import Record
from worker.contract.records import Records, Room

_ONE = Room(max_jobs=1, rows_of_new_group=1)


def claim_one(
    records: Records, task: Task, lease_s: float = 60.0, worker: str = "test"
) -> Record | None:
    """Start the first job that waits; None where none does."""
    models = records.claim(task, worker, lease_s, [], _ONE).others
    claimed = records.claim(task, worker, lease_s, models, _ONE).records
    return claimed[0] if claimed else None
