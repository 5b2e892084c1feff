"""The few things that the asynchronous and the synchronous client do differently.

Each comes as a pair; `client/generate_sync.py` puts the second of a pair
where the asynchronous code has the first.
"""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, Self, TypeAlias, TypeVar

import grpc

from leadline.client._errors import DeadlineExceededError
from leadline.client._images import Image, Images, listed
from leadline.v1.inference_service_pb2 import PredictStreamResponse

T = TypeVar("T")
Request_contra = TypeVar("Request_contra", contravariant=True)
Response_co = TypeVar("Response_co", covariant=True)


class Cancellable(Protocol):
    """A call that can be cut short."""

    def cancel(self) -> object: ...


class UnaryCall(Protocol[Request_contra, Response_co]):
    """A unary call of the synchronous client."""

    def __call__(self, request: Request_contra, /, *, timeout: float | None) -> Response_co: ...


class AsyncUnaryCall(Protocol[Request_contra, Response_co]):
    """A unary call of the asynchronous client."""

    def __call__(
        self, request: Request_contra, /, *, timeout: float | None
    ) -> Awaitable[Response_co]: ...


class EventCall(Cancellable, Protocol[Response_co]):
    """A stream of events of the synchronous client."""

    def __iter__(self) -> Iterator[Response_co]: ...


class AsyncEventCall(Cancellable, Protocol[Response_co]):
    """A stream of events of the asynchronous client."""

    def __aiter__(self) -> AsyncIterator[Response_co]: ...


class AnswerCall(Cancellable, Protocol):
    """A stream of answers of the synchronous client."""

    def __iter__(self) -> Iterator[PredictStreamResponse]: ...


class AsyncAnswerCall(Cancellable, Protocol):
    """A stream of answers of the asynchronous client."""

    def __aiter__(self) -> AsyncIterator[PredictStreamResponse]: ...


ImageStream: TypeAlias = Images
"""Images of a call of the synchronous client, which may be gone through as they come."""

AsyncImageStream: TypeAlias = Images | AsyncIterable[Image]
"""Images of a call of the asynchronous client, which may be gone through as they come."""


class _Timer:
    """Cuts a call short, and remembers that it did."""

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
    """Cancels the call, unless the block is left within `seconds`.

    A stream has no deadline of its own, but its first message has one.

    Raises:
        DeadlineExceededError: it was not.
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
    """Cancels the call, unless the block is left within `seconds`.

    Raises:
        DeadlineExceededError: it was not.
    """
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


async def async_sleep(seconds: float) -> None:
    """Waits."""
    await asyncio.sleep(seconds)


def sleep(seconds: float) -> None:
    """Waits."""
    time.sleep(seconds)


async def async_run(function: Callable[[], T]) -> T:
    """The result of a function that reads files, off the event loop."""
    return await asyncio.to_thread(function)


def run(function: Callable[[], T]) -> T:
    """The result of a function that reads files."""
    return function()


async def async_each(images: AsyncImageStream) -> AsyncIterator[Image]:
    """The images one by one.

    Raises:
        InvalidArgumentError: they can be no images.
    """
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in listed(images):
            yield image


def each(images: ImageStream) -> Iterator[Image]:
    """The images one by one.

    Raises:
        InvalidArgumentError: they can be no images.
    """
    yield from listed(images)


class AsyncOutbox(Generic[T]):
    """Messages on their way out: grpc takes them from here, in a task of its own."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[tuple[T] | None] = asyncio.Queue()

    def put(self, message: T) -> None:
        """Has a message sent after those before it."""
        self._messages.put_nowait((message,))

    def close(self) -> None:
        """Says that there are no more."""
        self._messages.put_nowait(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next message to send."""
        message = await self._messages.get()
        if message is None:
            raise StopAsyncIteration
        return message[0]


class Outbox(Generic[T]):
    """Messages on their way out: grpc takes them from here, in a thread of its own.

    The thread waits here, cancelled call or not: close what is no longer used.
    """

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[tuple[T] | None] = queue.SimpleQueue()

    def put(self, message: T) -> None:
        """Has a message sent after those before it."""
        self._messages.put((message,))

    def close(self) -> None:
        """Says that there are no more."""
        self._messages.put(None)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """The next message to send."""
        message = self._messages.get()
        if message is None:
            raise StopIteration
        return message[0]
