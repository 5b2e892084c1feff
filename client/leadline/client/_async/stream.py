"""Events of a job or a sweep, across broken streams and restarts of the server."""

from collections.abc import AsyncIterator
from typing import Generic

from leadline.client._async.connection import AsyncConnection
from leadline.client._async.followed import AnyEvent, AsyncFollowed
from leadline.client._cursor import EventCursor
from leadline.client._deadline import Deadline
from leadline.client._errors import RpcError, UnavailableError
from leadline.client._grpc_errors import sdk_errors
from leadline.client._requests import duration
from leadline.client._retry import OnReconnect, Reconnection
from leadline.client._runtime import AsyncEventCall, async_sleep


class AsyncEventStream(Generic[AnyEvent]):
    """Follows one job or sweep until it has finished, over as many streams as that takes."""

    def __init__(
        self,
        connection: AsyncConnection,
        followed: AsyncFollowed[AnyEvent],
        *,
        after_sequence: int,
        progress_interval: float | None,
        on_reconnect: OnReconnect | None,
        deadline: Deadline,
    ) -> None:
        self._connection = connection
        self._followed = followed
        self._progress_interval = duration(progress_interval)
        self._cursor = EventCursor(
            followed.name, after_sequence, with_progress=progress_interval is not None
        )
        self._reconnection = Reconnection(connection.reconnect_timeout, on_reconnect=on_reconnect)
        self._deadline = deadline

    async def events(self, call: AsyncEventCall[AnyEvent] | None = None) -> AsyncIterator[AnyEvent]:
        """The events in order, each durable one exactly once, the last of which is `finished`.

        Starts with `call` where a stream is open already.
        """
        while not self._cursor.finished:
            call = call or self._attach()
            try:
                with sdk_errors(self._connection):
                    async for event in call:
                        self._reconnection.heard()
                        if self._cursor.accept(event):
                            yield event
                await self._check_end()
            except RpcError as error:
                await self._recover(error)
            finally:
                call.cancel()
            call = None

    def _attach(self) -> AsyncEventCall[AnyEvent]:
        self._connection.check_open()
        self._reconnection.began()
        return self._followed.watch(
            self._cursor.sequence, self._progress_interval, self._deadline.remaining()
        )

    async def _check_end(self) -> None:
        """Tells a stream that ended well from one that was cut without an error.

        Raises:
            UnavailableError: there is more to say than the stream said.
        """
        if self._cursor.finished:
            return
        if await self._followed.ended_with(self._cursor.sequence, self._deadline):
            self._cursor.finished = True
            return
        raise UnavailableError(f"the stream of {self._followed.name} ended before its last event")

    async def _recover(self, error: RpcError) -> None:
        if self._cursor.finished:
            return
        self._connection.check_open()
        self._deadline.check()
        await async_sleep(self._deadline.at_most(self._reconnection.delay(error)))
        self._deadline.check()
