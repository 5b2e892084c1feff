"""Answers calls, over either transport, and ends those in flight when the server stops."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import grpc
import structlog
from grpc import aio

from leadline.server.errors import ResourceExhaustedError, shorten
from leadline.server.transport.call import Call

_LOG = structlog.get_logger(__name__)

_SHUTTING_DOWN = (grpc.StatusCode.UNAVAILABLE, "the server shuts down")


class Method(Protocol):
    """A method of a service.

    Attributes:
        is_unary: whether it responds with one message, which `answer` returns.
    """

    is_unary: bool

    async def answer(self, call: Call) -> bytes | None:
        """Answers a call; returns the response of a unary method, None for a stream.

        Raises:
            AbortError: the status is set.
        """


class Calls:
    """Finds the method of each call, and tracks the calls in flight.

    Attributes:
        methods: the methods by their paths.
    """

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self.methods = methods
        self._in_flight: dict[asyncio.Task[Any], Call] = {}
        self._is_stopping = False

    def __iter__(self) -> Iterator[Call]:
        """The calls that have not ended."""
        return iter(self._in_flight.values())

    @property
    def in_flight(self) -> int:
        """How many calls have not ended."""
        return len(self._in_flight)

    async def answer(self, call: Call, refusal: ResourceExhaustedError | None = None) -> None:
        """Answers a call in the current task, and sends its status.

        Args:
            call: the call.
            refusal: the reached limit because of which the call must not run, if any.
        """
        task = call.begin()
        self._in_flight[task] = call
        if refusal is not None:
            call.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, refusal)
        last = None
        try:
            try:
                method = None if self._is_stopping else self.methods.get(call.path)
                if method is None:
                    self._refuse(call)
                else:
                    last = await method.answer(call)
            except aio.AbortError:
                pass  # the status is set
            except asyncio.CancelledError:
                code, message = call.end_of_cancelled
                if code is grpc.StatusCode.CANCELLED:
                    raise  # nobody receives a status
                call.response.set_status(code, message)
                task.uncancel()
            except Exception as error:  # noqa: BLE001 - the boundary: methods translate their errors
                _LOG.error("a method failed", path=call.path, exc_info=error)
                call.response.set_status(
                    grpc.StatusCode.INTERNAL, "an internal error of the server"
                )
            await call.response.end(last)
        finally:
            del self._in_flight[task]
            call.close()

    async def stop(self, grace_seconds: float) -> None:
        """Refuses new calls, and cancels calls that outlast the grace period.

        Cancelled calls end with UNAVAILABLE, unless their status is already being written.
        """
        self._is_stopping = True
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=grace_seconds)
        for call in self._in_flight.values():
            call.cancel(_SHUTTING_DOWN)
        if self._in_flight:
            await asyncio.wait(self._in_flight)

    def _refuse(self, call: Call) -> None:
        """Sets the status of a call that cannot be answered."""
        if self._is_stopping:
            call.response.set_status(*_SHUTTING_DOWN)
        else:
            call.response.set_status(
                grpc.StatusCode.UNIMPLEMENTED,
                f"there is no method {shorten(call.path) or 'of this path'}",
            )
