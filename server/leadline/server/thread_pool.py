"""Runs blocking calls in threads, so that the event loop never waits for them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class ThreadPool:
    """A fixed number of threads that run coroutines' blocking calls.

    A call that is cancelled while it is queued is never made; one that has started
    runs to its end.
    """

    def __init__(
        self, name: str, count: int, *, initializer: Callable[[], None] | None = None
    ) -> None:
        self._executor = ThreadPoolExecutor(
            count, thread_name_prefix=f"leadline-{name}", initializer=initializer
        )

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Returns what `call(*args, **kwargs)` returns, or raises what it raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(call, *args, **kwargs))

    def close(self) -> None:
        """Stops the threads after the calls that have started."""
        self._executor.shutdown(wait=True, cancel_futures=True)
