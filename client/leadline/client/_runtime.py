"""The differences between the asynchronous and the synchronous client.

Each difference is a pair of names; `client/generate_sync.py` replaces the first
name by the second.
"""

import asyncio
import atexit
import queue
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

import grpc

from leadline.client._errors import DeadlineExceededError, UsageError
from leadline.client._images import Image, Images, listed

T = TypeVar("T")
Request_contra = TypeVar("Request_contra", contravariant=True)
Response_co = TypeVar("Response_co", covariant=True)


class Cancellable(Protocol):
    """A call that can be cancelled."""

    def cancel(self) -> object: ...


class UnaryCall(Protocol[Request_contra, Response_co]):
    """A unary call of the synchronous client."""

    def __call__(self, request: Request_contra, /, *, timeout: float | None) -> Response_co: ...


class AsyncUnaryCall(Protocol[Request_contra, Response_co]):
    """A unary call of the asynchronous client."""

    def __call__(
        self, request: Request_contra, /, *, timeout: float | None
    ) -> Awaitable[Response_co]: ...


class StreamCall(Cancellable, Protocol[Response_co]):
    """A stream of messages of the synchronous client."""

    def add_callback(self, callback: Callable[[], None], /) -> bool: ...

    def __iter__(self) -> Iterator[Response_co]: ...


class AsyncStreamCall(Cancellable, Protocol[Response_co]):
    """A stream of messages of the asynchronous client."""

    def add_done_callback(self, callback: Callable[[Any], None], /) -> object: ...

    def __aiter__(self) -> AsyncIterator[Response_co]: ...


ImageStream: TypeAlias = Images
"""Images for the synchronous client; may be a generator."""

AsyncImageStream: TypeAlias = Images | AsyncIterable[Image]
"""Images for the asynchronous client; may be a generator or an asynchronous one."""


class _Timer:
    """Cancels a call after a time, and records the cancellation."""

    expired = False

    def __init__(self, call: Cancellable, seconds: float) -> None:
        self._call = call
        self._seconds = seconds

    def expire(self) -> None:
        self.expired = True
        self._call.cancel()

    def error(self) -> DeadlineExceededError:
        return DeadlineExceededError(f"no answer within {self._seconds:g} s")


@contextmanager
def async_cancel_after(call: Cancellable, seconds: float) -> Iterator[None]:
    """Cancels the call unless the block ends within `seconds`.

    Gives the first message of a stream a deadline, which the stream itself lacks.

    Raises:
        DeadlineExceededError: the block took longer.
    """
    timer = _Timer(call, seconds)
    handle = asyncio.get_running_loop().call_later(seconds, timer.expire)
    try:
        yield
    except asyncio.CancelledError:
        if timer.expired:
            raise timer.error() from None
        raise
    finally:
        handle.cancel()


@contextmanager
def cancel_after(call: Cancellable, seconds: float) -> Iterator[None]:
    """Does the same for the synchronous client, with a thread."""
    timer = _Timer(call, seconds)
    thread = threading.Timer(seconds, timer.expire)
    thread.daemon = True
    thread.start()
    try:
        yield
    except grpc.RpcError:
        if timer.expired:
            raise timer.error() from None
        raise
    finally:
        thread.cancel()


# Far more than a cancelled call needs to end, because nothing waits for the server.
_END_SECONDS = 1.0

_idle_calls: set[StreamCall[Any]] = set()


def async_end_at_exit(call: Cancellable | None) -> AbstractContextManager[None]:
    """Does nothing, because `asyncio.run` closes every asynchronous generator."""
    del call
    return nullcontext()


@contextmanager
def end_at_exit(call: StreamCall[Any] | None) -> Iterator[None]:
    """Ends the call before the interpreter exits, if it exits within the block.

    A generator that nobody closes is closed late in the interpreter's exit. By then gRPC's
    threads have stopped, perhaps with the lock of the call, for which closing would wait forever.
    """
    if call is None:
        yield
        return
    _idle_calls.add(call)
    try:
        yield
    finally:
        _idle_calls.discard(call)


@atexit.register
def _end_calls() -> None:
    for call in _idle_calls.copy():
        ended = threading.Event()
        if call.add_callback(ended.set):  # it has not ended
            call.cancel()
            ended.wait(_END_SECONDS)


def async_own_loop(owner: object) -> object:
    """The running event loop, which must be `owner` unless that is None.

    Raises:
        UsageError: the loop is not the owner; a grpc.aio channel works only in its own loop.
    """
    loop = asyncio.get_running_loop()
    if owner is not None and owner is not loop:
        raise UsageError(
            "the client belongs to another event loop: make an AsyncClient in each asyncio.run"
        )
    return loop


def own_loop(owner: object) -> object:
    """Returns the owner, which is None, because synchronous channels need no event loop."""
    return owner


async_sleep, sleep = asyncio.sleep, time.sleep

async_run = asyncio.to_thread
"""Runs a function that reads files in a thread."""


def run(function: Callable[[], T]) -> T:
    """Runs a function that reads files."""
    return function()


async def async_each(images: AsyncImageStream) -> AsyncIterator[Image]:
    """Yields the images one by one.

    Raises:
        InvalidArgumentError: the argument is not an image or an iterable.
    """
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in listed(images):
            yield image


def each(images: ImageStream) -> Iterator[Image]:
    """Yields the images one by one, for the synchronous client."""
    yield from listed(images)


class _Outbox(Generic[T]):
    _messages: "asyncio.Queue[T | None] | queue.SimpleQueue[T | None]"

    def put(self, message: T) -> None:
        """Appends a message."""
        self._messages.put_nowait(message)

    def close(self) -> None:
        """Ends the queue."""
        self._messages.put_nowait(None)


class AsyncOutbox(_Outbox[T]):
    """A queue of messages to send, which grpc reads in a task."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[T | None] = asyncio.Queue()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next message to send."""
        message = await self._messages.get()
        if message is None:
            raise StopAsyncIteration
        return message


class Outbox(_Outbox[T]):
    """A queue of messages to send, which grpc reads in a thread.

    Close the queue, because the thread waits even after the call is cancelled.
    """

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[T | None] = queue.SimpleQueue()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """The next message to send."""
        message = self._messages.get()
        if message is None:
            raise StopIteration
        return message
