"""The work of a training process: load torch, report ready, and train one job.

Its only state is checkpoints, which it writes atomically, so it can be killed at
any time.
"""

import contextlib
import importlib.metadata
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import torch

from leadline.models.checkpoints import CheckpointError, restore, save_checkpoint
from leadline.models.datasets import Dataset, DatasetError, find_dataset, open_dataset
from leadline.models.early_stopping import is_exhausted
from leadline.models.engine import engine_for
from leadline.models.images import IMAGE_SIZE
from leadline.models.network import Architecture, BlockNetwork, parameter_count
from leadline.models.optimizers import SGD
from leadline.models.simd.engine_choice import recorded_instruction_set
from leadline.models.training import DivergedError, EpochOutcome, Phase, Trainer
from leadline.server.jobs.job import Environment, EpochCompleted, Failure, Progress, Started
from leadline.server.memory import process_memory
from leadline.server.workers.memory import (
    describe_exhaustion,
    is_exhaustion,
    limit_memory,
    release_reserve,
)
from leadline.server.workers.messages import (
    Assignment,
    DiskFault,
    Done,
    Heartbeat,
    Message,
    Ready,
    Usage,
    encode,
)

_LOG = logging.getLogger(__name__)

# Frequent enough for a smooth progress bar, at no measurable cost.
_PROGRESS_SECONDS = 0.1

_HEARTBEAT_SECONDS = 1.0


class Channel:
    """Sends messages to the server over the process's original standard output."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._last_progress = 0.0

    @classmethod
    def claim_stdout(cls) -> "Channel":
        """Takes over standard output, and redirects the output of libraries to standard error."""
        stream = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        return cls(stream)

    def send(self, message: Message) -> None:
        """Sends a message at once."""
        with self._lock:
            self._stream.write(encode(message))
            self._stream.flush()

    def send_progress(self, progress: Progress) -> None:
        """Sends progress, at most every 0.1 s."""
        now = time.monotonic()
        if now - self._last_progress >= _PROGRESS_SECONDS:
            self._last_progress = now
            self.send(progress)

    def beat(self) -> None:
        """Sends heartbeats; never returns."""
        while True:
            time.sleep(_HEARTBEAT_SECONDS)
            self.send(Heartbeat())


def work(assignment: Assignment, channel: Channel) -> Iterator[Message]:
    """Trains the assigned epochs and yields the messages that the server stores.

    Raises:
        DatasetError: the dataset cannot be opened.
        DivergedError: the loss is no longer a finite number.
        FileExistsError: another worker has written an epoch of this attempt.
        OSError: a checkpoint cannot be written.
        torch.OutOfMemoryError: the GPU has too little memory.
        MemoryError, RuntimeError: the worker has reached its memory limit.
    """
    dataset = _open_dataset(assignment, channel)
    device = torch.device(assignment.device)
    epoch = 0

    def report(phase: Phase, done: int, total: int) -> None:
        channel.send_progress(
            Progress(phase=phase, epoch=epoch, completed_images=done, total_images=total)
        )

    def make_trainer() -> Trainer:
        return Trainer(
            assignment.spec, dataset, device=device, threads=assignment.threads, on_progress=report
        )

    trainer, epoch = _resume(assignment, make_trainer)
    _LOG.info("training with the %s engine", trainer.engine_name)
    yield _started(device, dataset, trainer)
    folder, spec = Path(assignment.checkpoint_folder), assignment.spec
    accuracies = list(assignment.test_accuracies[:epoch])
    while epoch < spec.epochs and not is_exhausted(accuracies, spec.patience):
        epoch += 1
        outcome = trainer.train_epoch(epoch)
        accuracies.append(outcome.metrics.test_accuracy)
        info = save_checkpoint(folder, trainer, outcome)
        yield _usage(device)
        yield _completed(outcome, info.weights_sha256)
    yield Done()


def _open_dataset(assignment: Assignment, channel: Channel) -> Dataset:
    cache = Path(assignment.dataset_cache)
    if assignment.dataset_fingerprint:
        # A cached dataset does not need its source.
        with contextlib.suppress(DatasetError):
            return find_dataset(assignment.dataset_fingerprint, cache)
    dataset = open_dataset(
        assignment.dataset_source,
        cache,
        progress=lambda done, total: channel.send_progress(
            Progress(phase="preparing_dataset", completed_images=done, total_images=total)
        ),
        max_pixels=assignment.max_image_pixels,
    )
    if assignment.completed_epochs and dataset.fingerprint != assignment.dataset_fingerprint:
        raise DatasetError(
            f"the images of the dataset {assignment.spec.dataset!r} have changed since the job "
            "began, and the cache no longer has the old ones: restore them, or submit a new job"
        )
    return dataset


def _resume(assignment: Assignment, make_trainer: Callable[[], Trainer]) -> tuple[Trainer, int]:
    """Returns a trainer restored from the newest readable checkpoint, and its epoch.

    Later epochs that were reported are trained again, to the same weights, because
    the spec determines them.
    """
    trainer = make_trainer()
    for epoch, folder in assignment.resume_from:
        try:
            restore(trainer, Path(folder), epoch)
        except CheckpointError as error:
            _LOG.warning(
                "a checkpoint cannot be resumed from, going back to the one before: %s", error
            )
            continue
        return trainer, epoch
    return make_trainer() if assignment.resume_from else trainer, 0


def _started(device: torch.device, dataset: Dataset, trainer: Trainer) -> Started:
    return Started(
        device=str(device),
        device_name=_device_name(device),
        train_images=len(dataset.train.labels),
        test_images=len(dataset.test.labels),
        class_names=dataset.class_names,
        parameters=parameter_count(trainer.network),
        dataset_fingerprint=dataset.fingerprint,
        environment=Environment(
            threads=trainer.threads,
            leadline_version=importlib.metadata.version("leadline"),
            torch_version=torch.__version__,
            python_version=platform.python_version(),
            instruction_set=recorded_instruction_set(device.type),
        ),
        # The server stores it only for the first attempt of a job.
        diagnosis=trainer.diagnose(),
    )


def _completed(outcome: EpochOutcome, weights_sha256: str) -> EpochCompleted:
    return EpochCompleted(
        **asdict(outcome.metrics), weights_sha256=weights_sha256, diagnosis=outcome.diagnosis
    )


def _usage(device: torch.device) -> Usage:
    return Usage(gpu_memory=torch.cuda.memory_reserved(device) if device.type == "cuda" else 0)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return device.type


def _fault(error: Exception, assignment: Assignment) -> Failure | DiskFault:
    match error:
        case RuntimeError() if assignment.device != "cpu" and is_exhaustion(error):
            advice = "use a smaller batch_size or fewer blocks, or run fewer jobs per device"
            return Failure(reason="OUT_OF_MEMORY", message=f"{error}: {advice}")
        case _ if is_exhaustion(error):
            release_reserve()
            held = process_memory()["VmHWM"]
            message = describe_exhaustion(held, assignment.memory_bytes, str(error))
            return Failure(reason="OUT_OF_MEMORY", message=message)
        case OSError():
            advice = "free or repair the disk, then resume the job"
            if isinstance(error, FileExistsError):
                # Either this attempt is over, or the database is a copy older than the files.
                advice = "resume the job, which then writes into another folder"
            return DiskFault(message=f"a checkpoint could not be written: {error}: {advice}")
        case DivergedError():
            return Failure(reason="DIVERGED", message=str(error))
        case DatasetError():
            return Failure(reason="DATASET_UNAVAILABLE", message=str(error))
        case _:
            _LOG.exception("the worker failed")
            kind = type(error).__name__
            return Failure(
                reason="INTERNAL",
                message=f"{kind}: {error}: see the server's log for the traceback",
            )


def _warm_up() -> None:
    """Trains one step on zeros.

    The first step compiles or loads machine code, and imports the compiler, so that
    jobs do not wait for it.
    """
    pixels = torch.zeros(2, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
    for batch_norm in (False, True):
        with torch.random.fork_rng(devices=[]):
            network = BlockNetwork(Architecture(blocks=1, batch_norm=batch_norm))
        optimizer = SGD(network.parameters(), lr=0.1)
        engine = engine_for(
            network,
            device=torch.device("cpu"),
            in_bfloat16=False,
            largest_batch=len(pixels),
            threads=1,
        )
        engine.gradients(pixels, torch.tensor([0, 1]))
        optimizer.step()


def _exit_with_server() -> None:
    """Exits the process when the server closes standard input."""
    sys.stdin.buffer.read()
    _LOG.warning("the server is gone: exiting")
    os._exit(1)


def serve() -> None:
    """Serves one assignment."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    channel = Channel.claim_stdout()
    _warm_up()
    channel.send(Ready())
    line = sys.stdin.buffer.readline()
    if not line:
        return
    for task in (_exit_with_server, channel.beat):
        threading.Thread(target=task, daemon=True).start()
    assignment = Assignment.from_line(line)
    if assignment.memory_bytes and assignment.device == "cpu":
        limit_memory(assignment.memory_bytes)
    try:
        for message in work(assignment, channel):
            channel.send(message)
    except Exception as error:  # noqa: BLE001 - every error is reported to the server
        channel.send(_fault(error, assignment))
