"""Work on what may be megabytes, of a request or of an answer, beside the event loop."""

from collections.abc import Callable
from typing import TypeVar

from anyio import to_thread

_QUICK_BYTES = 256 * 1024  # a millisecond's work, of which a hop to a thread would add a tenth

T = TypeVar("T")


async def work_through(num_bytes: int, work: Callable[[], T]) -> T:
    """Work on so many bytes, in a thread where other requests would notice.

    They are served meanwhile only where the work lets them, as hashing, base64 and many short steps
    do. One call that parses JSON does not: `request_bodies.parsed` bounds that.
    """
    return work() if num_bytes <= _QUICK_BYTES else await to_thread.run_sync(work)
