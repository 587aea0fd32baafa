"""What a task's work is to the loop that takes jobs for it (see `gpu_worker`).

One thread owns the device and calls everything here but `Settle`, which any thread may call.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeAlias

from worker.contract.record import Outcome, Record
from worker.contract.records import Room
from worker.pieces import Pieces

Ending: TypeAlias = tuple[Record, Outcome]
Settle: TypeAlias = Callable[[Sequence[Ending]], None]  # makes outcomes final, in one round trip


class Work(Protocol):
    """One task's way from records to outcomes."""

    def room(self) -> Room:
        """What it takes now beside what it has in hand."""

    def add(self, records: Sequence[Record]) -> None:
        """Take these in hand; every one is settled once, which changes nothing of a stale one."""

    def advance(self) -> None:
        """Do the next piece: a step or a forward, or wait a little for one that is being prepared.

        Raises DeviceLostError where the device failed; the process is to end then.
        """

    @property
    def is_idle(self) -> bool:
        """Whether nothing needs `advance`; results may still be on their way to be settled."""

    @property
    def models_in_use(self) -> Collection[str]:
        """The models that must stay on the device for what is in hand."""

    @property
    def pieces(self) -> Pieces:
        """What each thread is at, the loop's and those beside it."""

    def give_back(self) -> list[Record]:
        """Let go, between two pieces, of what needs another `advance`; others are to run it."""

    def finish(self) -> None:
        """Wait until all that was taken is settled; called once, at the end, when it is idle."""

    def salvage(self, timeout_s: float) -> None:
        """Settle what needs the lost device no more, as far as there is time; called at the end."""

    @property
    def wants_time(self) -> bool:
        """Whether there is something that `use_time` could do."""

    def use_time(self) -> None:
        """With no job in hand, do a small piece of what can wait; a signal may end it midway."""

    def warm_up(self, model: str) -> None:
        """Do one small piece of a resident model's work, so that its first job is fast."""
