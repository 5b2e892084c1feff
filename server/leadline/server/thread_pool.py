"""Runs blocking calls in threads, so that the event loop never waits for them.

A call whose caller has left is abandoned: it should end when it next checks
`is_abandoned`. The store checks while it reads, and other long calls check between
their steps. A call that never checks runs to its end.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class AbandonedError(Exception):
    """The current call is abandoned."""


class BlockingCall(Generic[R]):
    """A call that a thread makes or will make."""

    def __init__(self, call: Callable[[], R]) -> None:
        self._call = call
        self._is_abandoned = False
        self.future: Future[R] = Future()

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the result any more."""
        return self._is_abandoned

    def abandon(self) -> None:
        """Prevents the call, or asks it to end if it has started."""
        self._is_abandoned = True
        self.future.cancel()

    async def result(self) -> R:
        """Returns the result or raises the error; abandons the call if the caller is cancelled."""
        try:
            return await asyncio.wrap_future(self.future)
        except asyncio.CancelledError:
            self.abandon()
            raise
        finally:
            del self  # see `make`

    def make(self) -> None:
        """Makes the call in the current thread, unless it is abandoned."""
        if not self.future.set_running_or_notify_cancel():
            return
        _thread.call = self
        try:
            self.future.set_result(self._call())
        except BaseException as error:  # noqa: BLE001 - raised to whoever waits
            self.future.set_exception(error)
            # The error refers to this frame, so this frame must not refer to the error: a
            # reference cycle would keep the data that the call has read.
            del self
        finally:
            _thread.call = None


class ThreadPool:
    """A fixed number of threads that run coroutines' blocking calls.

    A call that is cancelled while it is queued is never made; one that has started
    is abandoned.
    """

    def __init__(
        self, name: str, count: int, *, initializer: Callable[[], None] | None = None
    ) -> None:
        self._executor = ThreadPoolExecutor(
            count, thread_name_prefix=f"leadline-{name}", initializer=initializer
        )
        self._calls: set[BlockingCall[Any]] = set()

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs `call(*args, **kwargs)` in a thread, and returns its result."""
        return await self.start(partial(call, *args, **kwargs)).result()

    def start(self, call: Callable[[], R]) -> BlockingCall[R]:
        """Makes a call in a thread as soon as one is free."""
        started = BlockingCall(call)
        self._calls.add(started)
        self._executor.submit(self._make, started)
        return started

    def close(self) -> None:
        """Abandons all calls, and stops the threads when the started calls end."""
        for call in list(self._calls):
            call.abandon()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _make(self, call: BlockingCall[Any]) -> None:
        call.make()
        self._calls.discard(call)


class _Thread(threading.local):
    call: BlockingCall[Any] | None = None


_thread = _Thread()


def is_abandoned() -> bool:
    """Whether the call of the current thread is abandoned; False outside a pool."""
    return _thread.call is not None and _thread.call.is_abandoned


def check_abandoned() -> None:
    """Ends the current call if it is abandoned.

    Raises:
        AbandonedError: the call is abandoned.
    """
    if is_abandoned():
        raise AbandonedError
