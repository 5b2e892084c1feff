"""Reads of the store that callers share."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

from leadline.server.storage.store import Store

T = TypeVar("T")


class SharedReads:
    """Results of reads: each read is made once until the next write.

    A thousand watchers of one job then cost the store no more than one. When its last
    caller leaves, a read ends.
    """

    def __init__(self, store: Store, *, size: int) -> None:
        """Makes an empty cache of `size` results; the oldest are evicted."""
        self._store = store
        self._size = size
        self._revision = -1
        self._reads: OrderedDict[Hashable, _SharedRead] = OrderedDict()

    async def get(self, key: Hashable, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `read`, which callers with equal keys share."""
        if self._revision != self._store.revision:
            self._reads.clear()
            self._revision = self._store.revision
        shared = self._reads.get(key)
        if shared is None or shared.has_failed:
            shared = self._reads[key] = _SharedRead(read())
            if len(self._reads) > self._size:
                self._reads.popitem(last=False)
        result: T = await shared.result()
        return result


class _SharedRead:
    """A read, and how many callers wait for it."""

    def __init__(self, read: Coroutine[Any, Any, Any]) -> None:
        self._task = asyncio.create_task(read)
        self._waiting = 0

    @property
    def has_failed(self) -> bool:
        """Whether the read has ended without a result."""
        task = self._task
        return task.cancelling() > 0 or (task.done() and task.exception() is not None)

    async def result(self) -> Any:
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        finally:
            self._waiting -= 1
            if not self._waiting and not self._task.done():
                self._task.cancel()
