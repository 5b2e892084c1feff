"""Answers calls, over either transport, and ends those in flight when the server stops."""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, Protocol

import grpc
import structlog
from grpc import aio

from leadline.server.errors import ResourceExhaustedError, shorten
from leadline.server.transport.budget import Charge, MessageBudget
from leadline.server.transport.call import Call

_LOG = structlog.get_logger(__name__)

# Metadata of up to this many bytes is not charged, so that callers with little metadata are
# never refused because of others.
_FREE_METADATA_BYTES = 2_048

# The most charged metadata of all calls in flight; one connection may use half of it.
_METADATA_BYTES = 4 << 20

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


class Admission(Protocol):
    """Decides which calls are answered."""

    def admit(self, call: Call) -> bool:
        """Sets the call's identity; or refuses the call, and sets its status.

        Called before the method is looked up.
        """


class Calls:
    """Finds the method of each call, and tracks the calls in flight.

    Attributes:
        methods: the methods by their paths.
    """

    def __init__(self, methods: Mapping[str, Method], admission: Admission | None = None) -> None:
        """Makes calls of these methods; without an admission every call is answered."""
        self.methods = methods
        self._admission = admission
        self._in_flight: dict[asyncio.Task[Any], Call] = {}
        self._is_stopping = False
        self._metadata = MessageBudget(_METADATA_BYTES, "metadata of calls in flight")

    def __iter__(self) -> Iterator[Call]:
        """The calls that have not ended."""
        return iter(self._in_flight.values())

    @property
    def in_flight(self) -> int:
        """How many calls have not ended."""
        return len(self._in_flight)

    def answer(self, call: Call, header_bytes: int = 0) -> Coroutine[Any, Any, None]:
        """Answers a call with headers of this size, and sends its status.

        Await it in the task of the call. A function, to save a coroutine for every call.
        """
        if header_bytes <= _FREE_METADATA_BYTES:
            return self._run(call)
        return self._run_charged(call, header_bytes)

    async def _run_charged(self, call: Call, header_bytes: int) -> None:
        charge = Charge(self._metadata, call.connection)
        refusal = None
        try:
            charge.resize(header_bytes)
        except ResourceExhaustedError as error:
            refusal = error
        try:
            await self._run(call, refusal)
        finally:
            charge.resize(0)

    async def _run(self, call: Call, refusal: ResourceExhaustedError | None = None) -> None:
        """Answers a call; `refusal` is the reached limit because of which it must not run."""
        task = call.begin()
        self._in_flight[task] = call
        if refusal is not None:
            call.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, refusal)
        last = None
        try:
            try:
                if self._is_stopping:
                    call.response.set_status(*_SHUTTING_DOWN)
                elif self._admission is None or self._admission.admit(call):
                    method = self.methods.get(call.path)
                    if method is None:
                        _refuse_unknown(call)
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


def _refuse_unknown(call: Call) -> None:
    call.response.set_status(
        grpc.StatusCode.UNIMPLEMENTED,
        f"there is no method {shorten(call.path) or 'of this path'}",
    )
