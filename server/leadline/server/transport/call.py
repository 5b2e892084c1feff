"""One call: its request, its deadline, its response, and its cancellation."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc

from leadline.server.errors import ServiceError
from leadline.server.identity import UNAUTHENTICATED, Identity
from leadline.server.transport.deadlines import DeadlineTimers
from leadline.server.transport.headers import Metadata
from leadline.server.transport.response import Response

CALLER_GONE = (grpc.StatusCode.CANCELLED, "the caller is gone")
DEADLINE_EXCEEDED = (grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")


class Messages(Protocol):
    """The messages of a request, in order."""

    async def read(self) -> bytes | memoryview | None:
        """The next message; None after the last.

        Raises:
            ServiceError: the message is malformed or too large.
        """

    async def read_single(self) -> bytes | memoryview | None:
        """The message of a request that has exactly one; None if it has none or several.

        Raises:
            ServiceError: the message is malformed or too large.
        """

    def close(self) -> None:
        """Releases the messages' memory when the call has ended."""


class Call(ABC):
    """A call in flight, over either transport.

    If the caller leaves, the deadline passes or the server shuts down, its task is
    cancelled; `end_of_cancelled` then returns the cause.

    Attributes:
        task: the task that answers the call.
        messages: the request's messages.
        response: the response to the caller.
        is_done: whether the call has ended.
        identity: the caller, once the call is admitted.
        refusal: the reached limit because of which the server has cancelled the call, if any.
    """

    __slots__ = (
        "_deadline",
        "_done_callbacks",
        "_end",
        "_period",
        "_request",
        "_timers",
        "identity",
        "is_done",
        "messages",
        "refusal",
        "response",
        "task",
    )

    def __init__(
        self,
        request: Any,
        messages: Messages,
        response: Response,
        seconds: float | None = None,
        timers: DeadlineTimers | None = None,
    ) -> None:
        """Makes a call, which a task must begin.

        Args:
            request: the transport's object for the call.
            messages: the request's messages.
            response: the response to the caller.
            seconds: when the timers cancel the task; None if the transport does so, or if
                there is no deadline.
            timers: the timers of the event loop.
        """
        self.messages = messages
        self.response = response
        self.is_done = False
        self.identity: Identity = UNAUTHENTICATED
        self.refusal: ServiceError | None = None
        self._request = request
        self._done_callbacks: list[Callable[[], None]] = []
        self._end = CALLER_GONE
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._timers = timers
        self._period: int | None = None

    def begin(self) -> asyncio.Task[Any]:
        """Begins the call in the current task, which it returns, and starts its deadline."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - each transport answers a call in its own task
        self.task: asyncio.Task[Any] = task
        if self._deadline is not None and self._timers is not None:
            # Not before, because the timers keep the call alive until it is closed.
            self._period = self._timers.add(self, self._deadline)
        return task

    @property
    @abstractmethod
    def path(self) -> str:
        """The method's path as it was sent, "/package.Service/Method"."""

    @property
    @abstractmethod
    def peer(self) -> str:
        """The caller's address in gRPC's form: "ipv4:127.0.0.1:12345"."""

    @property
    @abstractmethod
    def connection(self) -> str:
        """The name of the call's connection, for the budget of messages."""

    @property
    def authorization(self) -> Sequence[bytes]:
        """The values of the header `authorization`."""
        return ()

    @property
    def certificate(self) -> str | None:
        """The caller's verified certificate, PEM; None without one."""
        return None

    @abstractmethod
    def header_bytes(self) -> int:
        """The size of the call's headers as HTTP/2 defines it (RFC 9113, 10.5.1)."""

    @abstractmethod
    def metadata(self) -> Metadata:
        """The caller's metadata: pairs of a key and a text, or bytes.

        Raises:
            ValueError: a binary value is malformed.
        """

    @property
    def end_of_cancelled(self) -> tuple[grpc.StatusCode, str]:
        """The status code and message of a call whose task is cancelled."""
        return self._end

    @property
    def is_cancelled(self) -> bool:
        """Whether the call's task is being cancelled."""
        return self.task.cancelling() > 0

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Adds a function that is called when the call ends."""
        self._done_callbacks.append(callback)

    def cancel(self, end: tuple[grpc.StatusCode, str]) -> None:
        """Cancels the call's task; the call then ends with this status code and message."""
        self._end = end
        self.task.cancel()

    def expire(self) -> None:
        """Cancels the call's task because its deadline has passed."""
        self.cancel(DEADLINE_EXCEEDED)

    def refuse(self, code: grpc.StatusCode, refusal: ServiceError) -> None:
        """Cancels the call's task because a limit is reached."""
        if self.refusal is None:
            self.refusal = refusal
            self.cancel((code, str(refusal)))

    def close(self) -> None:
        """Discards the deadline and calls the callbacks, after any kind of end."""
        if self._period is not None and self._timers is not None:
            self._timers.discard(self, self._period)
        self.is_done = True
        self.messages.close()
        for callback in self._done_callbacks:
            callback()
