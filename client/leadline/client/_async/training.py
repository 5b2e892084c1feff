"""The training calls: submit, follow, list, pause, resume, cancel, delete."""

import uuid
from collections.abc import AsyncIterator, Iterable

from leadline.client._async.connection import AsyncConnection
from leadline.client._async.job import AsyncTrainingJob
from leadline.client._async.submit import submit
from leadline.client._job_options import RetentionLike, TimeLimit, job_options
from leadline.client._names import job_name, sweep_name
from leadline.client._requests import (
    AugmentationLike,
    InitializationLike,
    JobStateLike,
    OptimizerLike,
    PrecisionLike,
    ScheduleLike,
    build,
    duration,
    job_states,
    training_spec,
)
from leadline.v1.job_pb2 import Job
from leadline.v1.training_service_pb2 import ListJobsRequest, TrainJobRequest
from leadline.v1.training_spec_pb2 import TrainingSpec


class AsyncTrainingCalls:
    """The part of the client that trains."""

    _connection: AsyncConnection

    async def train(
        self,
        spec: TrainingSpec | None = None,
        *,
        dataset: str | None = None,
        blocks: int | None = None,
        block_convolutions: int | None = None,
        batch_norm: bool | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        optimizer: OptimizerLike | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
        seed: int | None = None,
        residual: bool | None = None,
        initialization: InitializationLike | None = None,
        schedule: ScheduleLike | None = None,
        nesterov: bool | None = None,
        augmentation: AugmentationLike | None = None,
        patience: int | None = None,
        precision: PrecisionLike | None = None,
        diagnostics: bool | None = None,
        priority: int | None = None,
        time_limit: TimeLimit | None = None,
        retention: RetentionLike | None = None,
        request_id: str | None = None,
        progress_interval: float | None = None,
    ) -> AsyncTrainingJob:
        """Submits a job and returns its handle as soon as it is accepted.

        Safe to repeat: a request id is always sent, so that trying again
        after a broken connection never makes a second job.

        Args:
            spec: what to train; what is unset takes the server's defaults.
            dataset: this and the following, where given, over the spec's.
            blocks: the depth, 0 to 64.
            block_convolutions: the 3x3 convolutions of each block, in sequence: 1
                or 2.
            batch_norm: whether a batch norm follows each convolution in a block.
            epochs: passes over the training set.
            batch_size: images per step.
            learning_rate: the optimiser's step size.
            optimizer: "sgd", "adam" or "adamw".
            momentum: of SGD.
            weight_decay: the coefficient of weight decay.
            seed: of the weights, of the images' order and of how they are varied.
            residual: whether an identity connection goes around each block.
            initialization: "default" or "kaiming".
            schedule: of the step size: "constant", "cosine" or "one_cycle".
            nesterov: whether SGD's momentum is Nesterov's.
            augmentation: of the training images: "none", "flip" or "flip_crop".
            patience: epochs without a better test accuracy after which the job
                ends; 0: never.
            precision: of the steps: "float32" or "bfloat16".
            diagnostics: whether the events tell how activations and gradients
                pass each block.
            priority: of waiting jobs the one of the highest starts first; -100
                to 100.
            time_limit: seconds, or a timedelta, after which the job fails
                unless it is complete, counted from its acceptance.
            retention: which checkpoints are kept beside the best and the last:
                "all", "best_and_last" for no others, or a number n for those
                of every nth epoch.
            request_id: a UUID that stands for this very job, also for a call
                of another process; None: one is made.
            progress_interval: where set, the handle's events include
                transient progress, at most one in so many seconds.

        Raises:
            InvalidArgumentError: a field is wrong; see its `violations`.
            AlreadyExistsError: `request_id` was used with another spec, or with other
                options.
            ResourceExhaustedError: the server's queue is full.
            UnavailableError: the server cannot be reached.
        """
        request = TrainJobRequest(
            spec=training_spec(
                spec,
                dataset=dataset,
                blocks=blocks,
                block_convolutions=block_convolutions,
                batch_norm=batch_norm,
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                optimizer=optimizer,
                momentum=momentum,
                weight_decay=weight_decay,
                seed=seed,
                residual=residual,
                initialization=initialization,
                schedule=schedule,
                nesterov=nesterov,
                augmentation=augmentation,
                patience=patience,
                precision=precision,
                diagnostics=diagnostics,
            ),
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
        """The handle of a job by its name or bare ID; asks the server nothing."""
        return AsyncTrainingJob(self._connection, job_name(name))

    async def jobs(
        self,
        *,
        states: Iterable[JobStateLike] = (),
        sweep: str | None = None,
        page_size: int = 0,
    ) -> AsyncIterator[Job]:
        """Every job, the newest first, or those in some states only: "running", "failed".

        Or those of a sweep only, by its name or bare ID.

        Raises:
            NotFoundError: there is no such sweep.
        """
        request = build(
            ListJobsRequest(),
            states=job_states(states),
            sweep=None if sweep is None else sweep_name(sweep),
            page_size=page_size,
        )
        while True:
            page = await self._connection.call(self._connection.stubs.training.ListJobs, request)
            for job in page.jobs:
                yield job
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def get_job(self, name: str) -> Job:
        """A job as it stands, by its name or bare ID.

        Raises:
            NotFoundError: there is no such job.
        """
        return await self.job(name).refresh()

    async def pause_job(self, name: str) -> Job:
        """Sets a job aside and returns it: see `AsyncTrainingJob.pause`.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: it has already ended.
        """
        return await self.job(name).pause()

    async def resume_job(self, name: str) -> Job:
        """Queues a paused job again and returns it: see `AsyncTrainingJob.resume`.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: it has already ended.
        """
        return await self.job(name).resume()

    async def cancel_job(self, name: str) -> Job:
        """Cancels a job and returns it; its completed epochs stay usable.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: it has already succeeded or failed.
        """
        return await self.job(name).cancel()

    async def delete_job(self, name: str) -> None:
        """Deletes a job that has ended, with its model: see `AsyncTrainingJob.delete`.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: it has not ended: cancel it first.
        """
        await self.job(name).delete()
