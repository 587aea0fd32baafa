"""Redis commands that share round trips: those of one turn of the event loop go out together.

Under load answers come in batches, and so do the requests that follow them; a command alone costs
redis-py more than it costs the server. Knows nothing of jobs.
"""

import asyncio
from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from typing import TypeAlias

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from service.background import end
from worker.contract.record import Scalar

Call: TypeAlias = tuple[Sequence[Scalar], asyncio.Future[object]]


class RoundTrips:
    """To be closed before its client is, which a round trip under way would open again."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[Call] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """End what is under way; who waits for it is canceled, and most have left."""
        while self._waiting or self._under_way:
            await asyncio.sleep(0)  # what was asked for in this turn goes out
            await end(self._under_way)

    async def execute(self, *command: Scalar) -> object:
        """Run one command; raises what it met, or what the whole round trip did."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._send)
        reply: asyncio.Future[object] = loop.create_future()
        self._waiting.append((command, reply))
        return await reply

    async def run_script(self, script: str, args: Sequence[Scalar]) -> object:
        """Run a Lua program without keys, by its digest wherever the server knows that."""
        try:
            return await self.execute("EVALSHA", _digest(script), 0, *args)
        except NoScriptError:
            return await self.execute("EVAL", script, 0, *args)

    def _send(self) -> None:
        calls, self._waiting = self._waiting, []
        task = asyncio.create_task(self._round_trip(calls))
        self._under_way.add(task)

        def forget(task: asyncio.Task[None]) -> None:
            self._under_way.discard(task)
            for _, reply in calls:
                reply.cancel()  # where the task was canceled; elsewhere each has its reply

        task.add_done_callback(forget)

    async def _round_trip(self, calls: Sequence[Call]) -> None:
        replies: Sequence[object]
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for command, _ in calls:
                    pipeline.execute_command(*command)
                replies = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # of Redis, of the network, or a reply that cannot be read
            replies = [error] * len(calls)
        for (_, future), reply in zip(calls, replies, strict=True):
            if future.done():  # its caller has left
                continue
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)


@cache
def _digest(script: str) -> str:
    return sha1(script.encode(), usedforsecurity=False).hexdigest()
