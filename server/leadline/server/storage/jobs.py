"""The repository of jobs: each method is one transaction, and blocks its thread."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from sqlalchemy import delete, func, insert, select, true, update

from leadline.models.spec import TrainingSpec
from leadline.server.access.quotas import NOBODY, Owner, nobody
from leadline.server.errors import FailedPreconditionError, ResourceExhaustedError
from leadline.server.jobs.job import (
    Cancellation,
    Event,
    Failure,
    Job,
    Paused,
    Queued,
    Started,
)
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState
from leadline.server.storage import event_log, preconditions, queries, records, transitions
from leadline.server.storage.database import Database
from leadline.server.storage.tables import deleted_jobs, events, job_counts, jobs, sweep_events

_REQUESTED = Cancellation(reason="REQUESTED", message="a caller cancelled it")


class JobRepository:
    """Jobs and their events.

    A method for one job raises NotFoundError if there is no such job.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # Queries

    def get(self, job_id: str) -> Job:
        """The current state of a job."""
        with self._database.read() as connection:
            return queries.get_job(connection, job_id)

    def find(
        self,
        *,
        states: Collection[JobState] = (),
        sweep_id: str | None = None,
        owner: str | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[Job]:
        """The newest jobs first, filtered.

        Args:
            states: only jobs in one of these states; empty for any.
            sweep_id: only jobs of this sweep; None for all.
            owner: only jobs of this owner; None for all.
            before: only jobs with a lower number; None for no bound.
            limit: the most jobs.
        """
        is_owned = jobs.c.owner == owner if owner is not None else true()
        if sweep_id is None and states:
            conditions = [is_owned & (jobs.c.state == state.value) for state in set(states)]
            query = queries.newest_of_any(conditions, before=before, limit=limit)
        else:
            query = queries.newest_first(jobs, before=before, limit=limit).where(is_owned)
        if sweep_id is not None:
            query = query.where(jobs.c.sweep_id == sweep_id)
            if states:
                query = query.where(jobs.c.state.in_([state.value for state in states]))
        with self._database.read() as connection:
            return records.read_jobs(connection, query)

    def owner(self, job_id: str) -> str:
        """The name of a job's owner."""
        with self._database.read() as connection:
            return queries.get_owner(connection, job_id)

    def ids(self) -> set[str]:
        """The ids of all jobs."""
        with self._database.read() as connection:
            return set(connection.execute(select(jobs.c.job_id)).scalars())

    def find_queued(self, *, in_sweep: bool | None = None, limit: int) -> list[Job]:
        """The first `limit` queued jobs in the order in which they start.

        Args:
            in_sweep: only jobs that are, or are not, part of a sweep; None for all.
            limit: the most jobs.
        """
        query = select(jobs).where(queries.IS_QUEUED).order_by(*queries.QUEUE_ORDER).limit(limit)
        if in_sweep is not None:
            query = query.where((jobs.c.sweep_id.is_not(None)) == in_sweep)
        with self._database.read() as connection:
            return records.read_jobs(connection, query)

    def next_queued(self, *, in_sweep: bool | None = None) -> Job | None:
        """The first job of `find_queued`."""
        return next(iter(self.find_queued(in_sweep=in_sweep, limit=1)), None)

    def next_allowed(
        self, may_run: Callable[[str, Mapping[str, int]], bool], *, in_sweep: bool | None = None
    ) -> Job | None:
        """The first queued job whose owner may run one more.

        Reads the first job of each owner, not the whole queue.

        Args:
            may_run: whether an owner may, given the numbers of running jobs by owner.
            in_sweep: only jobs that are, or are not, part of a sweep; None for all.
        """
        with self._database.read() as connection:
            running = queries.count_running(connection)
            heads = [
                head
                for owner in queries.owners_in_queue(connection)
                if may_run(owner, running)
                and (head := queries.first_in_queue(connection, owner, in_sweep=in_sweep))
            ]
            if not heads:
                return None
            number = min(heads, key=lambda head: (-head.priority, head.number)).number
            return queries.find_job(connection, jobs.c.number == number)

    def queue_positions(self, job_ids: Collection[str]) -> dict[str, int]:
        """How many jobs start before each of these jobs; omits jobs that are not queued."""
        with self._database.read() as connection:
            return queries.queue_positions(connection, job_ids)

    def find_overdue(self, now: datetime) -> list[Job]:
        """The unfinished jobs whose deadline has passed."""
        is_overdue = jobs.c.deadline <= records.to_timestamp(now)
        query = select(jobs).where(queries.IS_UNFINISHED, is_overdue)
        with self._database.read() as connection:
            return records.read_jobs(connection, query)

    def next_deadline(self) -> datetime | None:
        """The earliest deadline of an unfinished job."""
        has_deadline = jobs.c.deadline.is_not(None)
        query = select(func.min(jobs.c.deadline)).where(queries.IS_UNFINISHED, has_deadline)
        with self._database.read() as connection:
            earliest: int | None = connection.execute(query).scalar_one()
        return None if earliest is None else records.from_timestamp(earliest)

    def count_by_state(self) -> dict[JobState, int]:
        """How many jobs there are in each state, including zeros."""
        query = select(job_counts.c.state, job_counts.c.jobs).where(job_counts.c.sweep_id == "")
        with self._database.read() as connection:
            counts: dict[str, int] = dict(connection.execute(query).all())
        return {state: counts.get(state.value, 0) for state in JobState}

    def usage(self, owner: str | None) -> dict[str, int]:
        """What an owner's jobs use, by the keys of quotas; None: all jobs."""
        is_owned = jobs.c.owner == owner if owner is not None else true()
        with self._database.read() as connection:
            queued, running = (
                queries.count_jobs(connection, is_owned & (jobs.c.state == state.value))
                for state in (JobState.QUEUED, JobState.RUNNING)
            )
            stored = preconditions.stored_bytes(connection, owner)
        return {"queued_jobs": queued, "running_jobs": running, "stored_bytes": stored}

    def events(self, job_id: str, *, after: int, limit: int) -> list[Event]:
        """At most `limit` events after the sequence `after`, in order."""
        with self._database.read() as connection:
            return event_log.read_events(connection, job_id, after=after, limit=limit)

    def get_started(self, job_id: str) -> Started | None:
        """The report of the job's first worker; None before it has started."""
        with self._database.read() as connection:
            return records.read_started(connection, queries.get_job(connection, job_id))

    # Requests of callers

    def create(
        self,
        spec: TrainingSpec,
        options: JobOptions,
        *,
        job_id: str,
        request_id: str | None,
        max_queued: int,
        owner: Owner = NOBODY,
    ) -> tuple[Job, bool]:
        """Creates a job, or returns the owner's job that already has this `request_id`.

        Returns:
            The job, and whether it is new.

        Raises:
            AlreadyExistsError: `request_id` belongs to a job of another spec or
                other options.
            ResourceExhaustedError: `max_queued` jobs are already queued, or the owner's quotas
                are used up.
        """
        key = preconditions.request_key(request_id, owner.name)
        with self._database.write() as work:
            connection = work.connection
            same = queries.find_job(connection, jobs.c.request_id == key) if key else None
            if same:
                is_same = (same.spec, same.options) == (spec, options)
                preconditions.check_same_request(request_id, f"jobs/{same.job_id}", is_same=is_same)
                return same, False
            preconditions.check_queue_room(connection, 1, owner, max_queued=max_queued)
            row = transitions.new_job_row(work, job_id, spec, options, owner.name)
            row |= {"number": transitions.next_number(work), "request_id": key}
            connection.execute(insert(jobs).values(row))
            position = queries.queue_positions(connection, [job_id])[job_id]
            queued = Queued(spec=spec, queue_position=position)
            event_log.append_event(work, queries.get_job(connection, job_id), queued)
            return queries.get_job(connection, job_id), True

    def cancel(self, job_id: str) -> Job:
        """Cancels a job; does nothing if it is cancelled.

        Raises:
            FailedPreconditionError: the job has succeeded or failed.
        """
        with self._database.write() as work:
            job = queries.get_job(work.connection, job_id)
            if job.state is not JobState.CANCELLED:
                transitions.finish_jobs(work, [job], JobState.CANCELLED, cancellation=_REQUESTED)
                transitions.finish_sweep(work, job.sweep_id)
            return queries.get_job(work.connection, job_id)

    def pause(self, job_id: str, pause: Paused) -> Job:
        """Pauses a job; does nothing if it is paused.

        Raises:
            FailedPreconditionError: the job is in a final state.
        """
        with self._database.write() as work:
            job = queries.get_job(work.connection, job_id)
            if job.state is not JobState.PAUSED:
                transitions.pause_jobs(work, [job], pause)
            return queries.get_job(work.connection, job_id)

    def resume(self, job_id: str, owner_of: Callable[[str], Owner] = nobody) -> Job:
        """Queues a paused job again; does nothing if it is queued or running.

        Args:
            job_id: the job.
            owner_of: returns an owner by its name, with its limits.

        Raises:
            FailedPreconditionError: the job is in a final state.
            ResourceExhaustedError: the quotas of its owner are used up.
        """
        with self._database.write() as work:
            job = queries.get_job(work.connection, job_id)
            if job.state not in {JobState.QUEUED, JobState.RUNNING}:
                transitions.resume_jobs(work, [job])
                preconditions.check_quotas(work.connection, 0, owner_of(job.owner))
            return queries.get_job(work.connection, job_id)

    def finish(self, job_id: str, state: JobState, *, failure: Failure | None = None) -> Job:
        """Moves a job to a final state, whether a worker has it or not.

        Raises:
            FailedPreconditionError: the job is already in a final state.
        """
        with self._database.write() as work:
            job = queries.get_job(work.connection, job_id)
            transitions.finish_jobs(work, [job], state, failure=failure)
            transitions.finish_sweep(work, job.sweep_id)
            return queries.get_job(work.connection, job_id)

    def record_bytes(self, job_id: str, stored: int, owner: Owner = NOBODY) -> str:
        """Records the size of a job's files; does nothing if it was deleted.

        Returns:
            Why the owner's quotas do not allow more files; "" if they do.
        """
        with self._database.write() as work:
            change = update(jobs).where(jobs.c.job_id == job_id).values(stored_bytes=stored)
            work.connection.execute(change)
            try:
                preconditions.check_stored_bytes(work.connection, owner)
            except ResourceExhaustedError as error:
                return str(error)
            return ""

    def delete(self, job_id: str) -> list[str]:
        """Deletes a job in a final state; `purge` removes its events.

        Returns:
            The job's id.

        Raises:
            FailedPreconditionError: the job is not in a final state, or is part
                of a sweep.
        """
        with self._database.write(checks_references=False) as work:
            job = queries.get_job(work.connection, job_id)
            name = f"jobs/{job_id}"
            if job.sweep_id is not None:
                sweep = f"sweeps/{job.sweep_id}"
                raise FailedPreconditionError(
                    f"job {name} is part of {sweep}, whose events refer to it: delete the sweep",
                    reason="JOB_IN_SWEEP",
                    metadata={"job": name, "sweep": sweep},
                )
            preconditions.check_deletable("job", name, job.state, reason="JOB_NOT_FINISHED")
            return transitions.delete_jobs(work, jobs.c.number == job.number)

    def deleted_ids(self) -> list[str]:
        """The ids of deleted jobs that are not purged yet; their files may still exist."""
        with self._database.read() as connection:
            return list(connection.execute(select(deleted_jobs.c.job_id)).scalars())

    def purge(self, job_ids: Collection[str]) -> None:
        """Removes the events of deleted jobs whose files are removed.

        Call it with a few jobs at a time, because other writes wait for it.
        """
        with self._database.write() as work:
            query = select(deleted_jobs.c.number).where(deleted_jobs.c.job_id.in_(job_ids))
            numbers = work.connection.execute(query).scalars().all()
            for column in (events.c.job_number, sweep_events.c.job_number, deleted_jobs.c.number):
                work.connection.execute(delete(column.table).where(column.in_(numbers)))
