"""One call: its request, its deadline, its response, and how it is cancelled."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc

from leadline.server.transport.headers import Fields, seconds_of_timeout
from leadline.server.transport.messages import Event, MessageIntake, MessageReader, Receive
from leadline.server.transport.response import Response, Send

_CALLER_GONE = (grpc.StatusCode.CANCELLED, "the caller is gone")
_DEADLINE_EXCEEDED = (grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")


class Call:
    """A call in flight.

    Its task is cancelled when the caller is gone, the deadline has passed or the
    server shuts down; `end_of_cancelled` then says which.

    Attributes:
        messages: the request's messages.
        response: what the caller receives.
        end_of_cancelled: the status code and message of a call whose task is cancelled.
        is_done: whether the call has ended.
    """

    __slots__ = (
        "_deadline",
        "_done_callbacks",
        "_scope",
        "_task",
        "_timer",
        "end_of_cancelled",
        "is_done",
        "messages",
        "response",
    )

    def __init__(
        self,
        scope: Event,
        receive: Receive,
        send: Send,
        *,
        task: "asyncio.Task[Any]",
        intake: MessageIntake,
    ) -> None:
        """Makes a call of an HTTP request.

        Args:
            scope: ASGI's scope of the request.
            receive: ASGI's receive function.
            send: ASGI's send function.
            task: the task that answers the call; cancelled when the deadline has passed.
            intake: what its reader of messages shares with those of other calls.

        Raises:
            ValueError: one of gRPC's own header fields is malformed.
        """
        self._scope = scope
        self._task = task
        self._done_callbacks: list[Callable[[], None]] = []
        self.is_done = False
        self.end_of_cancelled = _CALLER_GONE
        seconds, encoding = _timeout_and_encoding(self.fields)
        self.messages = MessageReader(
            receive, intake, connection=scope.get("client"), encoding=encoding
        )
        self.response = Response(send)
        # Last: the timer keeps the call alive until it is cancelled.
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._timer = None if seconds is None else _call_later(seconds, self._expire)

    @property
    def path(self) -> str:
        """The method's path as it was sent, "/package.Service/Method"."""
        # Not "path", in which percent signs are resolved: gRPC gives them no meaning, and
        # a proxy that authorizes calls by path must see the same path as this server.
        raw: bytes = self._scope["raw_path"]
        return raw.decode("latin-1")

    @property
    def fields(self) -> Fields:
        """The request's header fields."""
        fields: Fields = self._scope["headers"]
        return fields

    @property
    def peer(self) -> str:
        """The caller's address in gRPC's form: "ipv4:127.0.0.1:12345"."""
        client = self._scope.get("client")
        if client is None:
            return "unknown"
        host, port = client
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    @property
    def is_cancelled(self) -> bool:
        """Whether the call's task is being cancelled."""
        return self._task.cancelling() > 0

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Has `callback` called when the call ends."""
        self._done_callbacks.append(callback)

    def cancel(self, end: tuple[grpc.StatusCode, str]) -> None:
        """Cancels the call's task; the call then ends with this status code and message."""
        self.end_of_cancelled = end
        self._task.cancel()

    def close(self) -> None:
        """Stops the timer and calls the callbacks, however the call has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self.is_done = True
        self.messages.close()
        for callback in self._done_callbacks:
            callback()

    def _expire(self) -> None:
        self.cancel(_DEADLINE_EXCEEDED)


def _timeout_and_encoding(fields: Fields) -> tuple[float | None, bytes]:
    """The call's timeout in seconds, and how its messages are compressed.

    Raises:
        ValueError: the timeout is malformed, or given twice.
    """
    seconds, encoding = None, b"identity"
    for name, value in fields:
        if name == b"grpc-timeout":
            if seconds is not None:
                raise ValueError("grpc-timeout is there twice")
            seconds = seconds_of_timeout(value)
        elif name == b"grpc-encoding":
            encoding = value
    return seconds, encoding


def _call_later(seconds: float, function: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(seconds, function)
