"""The training calls: submit, follow, list, pause, resume, cancel, delete."""

import uuid
from collections.abc import AsyncIterator, Iterable
from typing import Unpack

from leadline.client._async.connection import AsyncConnection
from leadline.client._async.job import AsyncTrainingJob
from leadline.client._async.submit import submit
from leadline.client._job_options import RetentionLike, TimeLimit, job_options
from leadline.client._names import job_name, sweep_name
from leadline.client._requests import JobStateLike, build, duration
from leadline.client._training_spec import SpecFields, SpecLike, training_spec
from leadline.v1.job_pb2 import Job
from leadline.v1.training_service_pb2 import (
    GetQuotaRequest,
    ListDiskUsageRequest,
    ListDiskUsageResponse,
    ListJobsRequest,
    Quota,
    TrainJobRequest,
)


class AsyncTrainingCalls:
    """The part of the client that trains jobs."""

    _connection: AsyncConnection

    async def train(
        self,
        spec: SpecLike | None = None,
        *,
        priority: int | None = None,
        time_limit: TimeLimit | None = None,
        retention: RetentionLike | None = None,
        request_id: str | None = None,
        progress_interval: float | None = None,
        **fields: Unpack[SpecFields],
    ) -> AsyncTrainingJob:
        """Submits a job and returns its handle as soon as it is accepted.

        Safe to repeat: it always sends a request id, so a retry after a broken
        connection never creates a second job.

        Args:
            spec: what to train, a `TrainingSpec` or a dict of the fields below;
                fields that are not set take the server's defaults.
            priority: -100 to 100; jobs of higher priority start first.
            time_limit: seconds or a timedelta, counted from acceptance, after
                which an unfinished job fails.
            retention: the checkpoints to keep in addition to the best and the
                last: "all", "best_and_last" for no others, or a number n for
                those of every nth epoch.
            request_id: a UUID that identifies this job, even in a call of
                another process; None for a new one.
            progress_interval: if set, the handle's events include transient
                progress, at most one per this many seconds.
            **fields: fields of the spec, which override those of `spec`:
                dataset: the name of a dataset that the server knows.
                blocks: the depth, 0 to 64.
                block_convolutions: the 3x3 convolutions of each block, in
                sequence: 1 or 2.
                batch_norm: whether a batch norm follows each convolution in a
                block.
                epochs: passes over the training set.
                batch_size: images per step.
                learning_rate: the optimizer's step size.
                optimizer: "sgd", "adam" or "adamw".
                momentum: the momentum of SGD.
                weight_decay: the coefficient of weight decay.
                seed: the seed of weights, order of images and augmentation.
                residual: whether each block has an identity connection.
                initialization: "default" or "kaiming".
                schedule: how the learning rate changes: "constant", "cosine" or
                "one_cycle".
                nesterov: whether SGD uses Nesterov momentum.
                augmentation: how to vary training images: "none", "flip" or
                "flip_crop".
                patience: end after this many epochs without a better test
                accuracy; 0 for never.
                precision: the number format of steps: "float32" or "bfloat16".
                diagnostics: whether events report activations and gradients of
                each block.

        Raises:
            InvalidArgumentError: a field is invalid; see its `violations`.
            AlreadyExistsError: `request_id` was used with another spec, or with
                other options.
            ResourceExhaustedError: the server's queue is full, or a quota is used up.
            UnavailableError: the server is unreachable.
        """
        request = TrainJobRequest(
            spec=training_spec(spec, **fields),
            request_id=str(uuid.uuid4()) if request_id is None else request_id,
            progress_interval=duration(progress_interval),
            options=job_options(priority=priority, time_limit=time_limit, retention=retention),
        )
        call = await submit(
            self._connection, lambda: self._connection.stubs.training.TrainJob(request)
        )
        return AsyncTrainingJob(
            self._connection,
            call.queued.job,
            call=call,
            progress_interval=progress_interval,
        )

    def job(self, name: str) -> AsyncTrainingJob:
        """A handle for a job, by its name or ID, without a call to the server."""
        return AsyncTrainingJob(self._connection, job_name(name))

    async def jobs(
        self,
        *,
        states: Iterable[JobStateLike] = (),
        sweep: str | None = None,
        owner: str | None = None,
        page_size: int = 0,
    ) -> AsyncIterator[Job]:
        """Yields every job, the newest first.

        Args:
            states: only jobs in these states, such as "running" or "failed".
            sweep: only jobs of this sweep, by its name or ID.
            owner: only jobs of this identity; "me" for your own.
            page_size: jobs per call; 0 for the server's default.

        Raises:
            NotFoundError: the sweep does not exist.
        """
        request = build(
            ListJobsRequest(),
            states=states,
            sweep=None if sweep is None else sweep_name(sweep),
            owner=owner,
            page_size=page_size,
        )
        async for page in self._connection.pages(self._connection.stubs.training.ListJobs, request):
            for job in page.jobs:
                yield job

    async def disk_usage(self, *, page_size: int = 0) -> ListDiskUsageResponse:
        """What takes the space of the server's disk: each job, newest first, and what they share.

        Args:
            page_size: jobs per call; 0: the server's choice.
        """
        usage = ListDiskUsageResponse()
        request = build(ListDiskUsageRequest(), page_size=page_size)
        stub = self._connection.stubs.training.ListDiskUsage
        async for page in self._connection.pages(stub, request):
            usage.MergeFrom(page)
        usage.ClearField("next_page_token")
        return usage

    async def quota(self, identity: str = "") -> Quota:
        """What an identity may use, and what it uses.

        Args:
            identity: its name; "" for your own. Only admins may see others.

        Raises:
            PermissionDeniedError: the quota is another's.
        """
        request = GetQuotaRequest(identity=identity)
        return await self._connection.call(self._connection.stubs.training.GetQuota, request)

    async def get_job(self, name: str) -> Job:
        """The current state of a job, by its name or ID.

        Raises:
            NotFoundError: the job does not exist.
        """
        return await self.job(name).refresh()

    async def pause_job(self, name: str) -> Job:
        """Pauses a job and returns it; see `AsyncTrainingJob.pause`."""
        return await self.job(name).pause()

    async def resume_job(self, name: str) -> Job:
        """Queues a paused job again and returns it; see `AsyncTrainingJob.resume`."""
        return await self.job(name).resume()

    async def cancel_job(self, name: str) -> Job:
        """Cancels a job and returns it; see `AsyncTrainingJob.cancel`."""
        return await self.job(name).cancel()

    async def delete_job(self, name: str) -> None:
        """Deletes a job that has ended, with its model; see `AsyncTrainingJob.delete`."""
        await self.job(name).delete()
