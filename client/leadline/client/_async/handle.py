"""The base class of the handles for jobs and sweeps."""

from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import ClassVar, Generic

from leadline.client._async.connection import AsyncConnection
from leadline.client._async.stream import AnyResource, AsyncCalls, AsyncEventStream
from leadline.client._cursor import AnyEvent
from leadline.client._deadline import Deadline
from leadline.client._errors import NotFoundError, RpcError
from leadline.client._messages import is_final
from leadline.client._retry import Attempts, OnReconnect
from leadline.client._runtime import AsyncStreamCall, async_sleep


class AsyncHandle(Generic[AnyResource, AnyEvent]):
    """A job or a sweep on the server: follow it, wait for it, pause, resume, cancel or delete it.

    The job or sweep continues without the handle. It ends when it succeeds, fails or is
    cancelled. A pause ends neither the job or sweep nor the streams that follow it.

    Attributes:
        name: the resource name, "jobs/{id}" or "sweeps/{id}".
    """

    _kind: ClassVar[str]

    def __init__(
        self,
        connection: AsyncConnection,
        name: str,
        *,
        call: AsyncStreamCall[AnyEvent] | None = None,
        progress_interval: float | None = None,
    ) -> None:
        """Use the methods of `AsyncClient` instead."""
        self.name = name
        self._connection = connection
        self._calls = AsyncCalls[AnyResource, AnyEvent](connection, self._kind, name)
        self._call = call
        self._progress_interval = progress_interval

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def id(self) -> str:
        """The ID without "jobs/" or "sweeps/"."""
        return self.name.partition("/")[2]

    async def events(
        self,
        after_sequence: int = 0,
        progress_interval: float | None = None,
        *,
        on_reconnect: OnReconnect | None = None,
    ) -> AsyncIterator[AnyEvent]:
        """Yields every event after a sequence, in order and exactly once, up to `finished`.

        A sweep's events include those of its jobs. If the stream breaks, for example because the
        server restarts, it resumes at the next event, within the client's `reconnect_timeout`.

        Args:
            after_sequence: the sequence of the last event to skip; 0 to skip none.
            progress_interval: if set, include transient progress events (sequence 0), at most one
                per this many seconds, 0.05 to 3,600. None for the interval of the submission.
            on_reconnect: called before each attempt to reconnect, with the error and the seconds
                until the attempt.

        Raises:
            NotFoundError: the job or sweep does not exist, or was deleted meanwhile.
            UnavailableError: the server was unavailable for too long.
            EventGapError: an event is missing.
        """
        if progress_interval is None:
            progress_interval = self._progress_interval
        # Uses the stream of the submission once, if it has the requested events.
        call = None
        if after_sequence == 0 and progress_interval == self._progress_interval:
            call, self._call = self._call, None
        stream = self._stream(after_sequence, progress_interval, on_reconnect, self._deadline(None))
        async for event in stream.events(call):
            yield event

    async def result(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - bounds what several calls take, not one await
        *,
        on_reconnect: OnReconnect | None = None,
    ) -> AnyResource:
        """Waits until the job or sweep has succeeded, and returns it.

        Args:
            timeout: seconds to wait, including the time that the server is unavailable; None for
                no limit. The job or sweep continues after a timeout.
            on_reconnect: as for `events`.

        Raises:
            JobFailedError: the job failed.
            JobCancelledError: the job was cancelled.
            SweepFailedError: a job of the sweep failed; the others continued.
            SweepCancelledError: the sweep was cancelled.
            DeadlineExceededError: the job or sweep has not ended within `timeout`.
            NotFoundError: the job or sweep does not exist, or was deleted meanwhile.
            UnavailableError: the server was unavailable for too long.
        """
        deadline = self._deadline(timeout)
        resource = await self._wait_for_server(deadline, on_reconnect)
        if not is_final(resource):
            stream = self._stream(resource.latest_sequence, None, on_reconnect, deadline)
            async for _event in stream.events():
                pass
            resource = await self._wait_for_server(deadline, on_reconnect)
        self._check_success(resource)
        return resource

    async def refresh(self) -> AnyResource:
        """Fetches the current state.

        Raises:
            NotFoundError: the job or sweep does not exist.
        """
        return await self._calls.call("Get")

    async def pause(self) -> AnyResource:
        """Pauses the job, or all jobs of the sweep, even within an epoch, and returns it.

        Complete epochs are kept. Does nothing if it is already paused.

        Raises:
            NotFoundError: the job or sweep does not exist.
            FailedPreconditionError: the job or sweep has already ended.
        """
        return await self._calls.call("Pause")

    async def resume(self) -> AnyResource:
        """Queues the paused job, or all paused jobs of the sweep, again, and returns it.

        A job continues after its last complete epoch. Does nothing if no job is paused.

        Raises:
            NotFoundError: the job or sweep does not exist.
            FailedPreconditionError: the job or sweep has already ended.
        """
        return await self._calls.call("Resume")

    async def cancel(self) -> AnyResource:
        """Cancels the job, or all unfinished jobs of the sweep, even within an epoch.

        Returns the job or sweep. Completed epochs stay usable.

        Raises:
            NotFoundError: the job or sweep does not exist.
            FailedPreconditionError: the job or sweep has already succeeded or failed.
        """
        return await self._calls.call("Cancel")

    async def delete(self) -> None:
        """Deletes the job or sweep, which must have ended, with its events, models and checkpoints.

        Raises:
            NotFoundError: the job or sweep does not exist.
            FailedPreconditionError: the job or sweep has not ended: cancel it first.
        """
        attempts = Attempts(self._connection.timeout)
        try:
            await self._calls.call("Delete", attempts)
        except NotFoundError:
            # An earlier attempt may have deleted it, although its response was lost.
            if attempts.failures == 1:
                raise

    def detach(self) -> None:
        """Closes the stream that the submission opened; the job or sweep continues.

        Call it after many submissions that you do not follow.
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    @abstractmethod
    def _check_success(self, resource: AnyResource) -> None:
        """Raises the error of a job or a sweep that ended without success."""

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(timeout, f"{self.name} has not ended")

    def _stream(
        self,
        after_sequence: int,
        progress_interval: float | None,
        on_reconnect: OnReconnect | None,
        deadline: Deadline,
    ) -> AsyncEventStream[AnyResource, AnyEvent]:
        return AsyncEventStream(
            self._connection,
            self.name,
            self._calls,
            after_sequence=after_sequence,
            progress_interval=progress_interval,
            on_reconnect=on_reconnect,
            deadline=deadline,
        )

    async def _wait_for_server(
        self, deadline: Deadline, on_reconnect: OnReconnect | None
    ) -> AnyResource:
        """The current state; waits for an unavailable server as streams do."""
        reconnection = self._connection.reconnection(on_reconnect)
        while True:
            reconnection.began()
            attempts = Attempts(deadline.at_most(self._connection.timeout))
            try:
                return await self._calls.call("Get", attempts)
            except RpcError as error:
                deadline.check()
                await async_sleep(deadline.at_most(reconnection.delay(error)))
