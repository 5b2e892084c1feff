"""What a training process does: it loads torch, says that it is ready, and trains one job.

It keeps no state but checkpoints, which appear atomically, so it can be killed
at any moment.
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
from pathlib import Path
from typing import BinaryIO

import torch

from leadline.models.checkpoints import (
    CheckpointError,
    restore,
    save_checkpoint,
)
from leadline.models.datasets import Dataset, DatasetError, find_dataset, open_dataset
from leadline.models.early_stopping import is_exhausted
from leadline.models.engine import engine_for
from leadline.models.images import IMAGE_SIZE
from leadline.models.network import Architecture, BlockNetwork, parameter_count
from leadline.models.optimizers import SGD
from leadline.models.simd.engine_choice import recorded_instruction_set
from leadline.models.training import DivergedError, EpochOutcome, Phase, Trainer
from leadline.server.jobs.job import Environment, EpochCompleted, Failure, Progress, Started
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

# Often enough for a smooth bar, seldom enough to cost nothing.
_PROGRESS_SECONDS = 0.1

_HEARTBEAT_SECONDS = 1.0


class Channel:
    """The worker's way to the server: its former standard output."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._last_progress = 0.0

    @classmethod
    def claim_stdout(cls) -> "Channel":
        """Takes standard output, and sends what libraries print to standard error."""
        stream = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        return cls(stream)

    def send(self, message: Message) -> None:
        """Sends a message at once."""
        with self._lock:
            self._stream.write(encode(message))
            self._stream.flush()

    def send_progress(self, progress: Progress) -> None:
        """Sends progress, unless some was sent a moment ago."""
        now = time.monotonic()
        if now - self._last_progress >= _PROGRESS_SECONDS:
            self._last_progress = now
            self.send(progress)

    def beat(self) -> None:
        """Says every while, for good, that the worker lives."""
        while True:
            time.sleep(_HEARTBEAT_SECONDS)
            self.send(Heartbeat())


def work(assignment: Assignment, channel: Channel) -> Iterator[Message]:
    """Trains the assigned epochs and yields what the server must keep.

    Raises:
        DatasetError: the dataset cannot be opened.
        DivergedError: the loss is no longer a finite number.
        OSError: a checkpoint cannot be written.
        torch.OutOfMemoryError: the device's memory is too small.
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
            assignment.spec,
            dataset,
            device=device,
            threads=assignment.threads,
            on_progress=report,
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
        # Known to be there: no need to read its source to find that out.
        with contextlib.suppress(DatasetError):
            return find_dataset(assignment.dataset_fingerprint, cache)
    return open_dataset(
        assignment.dataset_source,
        cache,
        progress=lambda done, total: channel.send_progress(
            Progress(phase="preparing_dataset", completed_images=done, total_images=total)
        ),
        max_pixels=assignment.max_image_pixels,
    )


def _resume(assignment: Assignment, make_trainer: Callable[[], Trainer]) -> tuple[Trainer, int]:
    """The trainer as the newest readable checkpoint left it, and that epoch.

    What was told of later epochs stays true: they are trained again, to the
    same weights, because all that decides them derives from the spec.
    """
    for epoch, folder in assignment.resume_from:
        trainer = make_trainer()
        try:
            restore(trainer, Path(folder), epoch)
        except CheckpointError as error:
            _LOG.warning("a checkpoint is damaged, going back to the one before: %s", error)
            continue
        return trainer, epoch
    return make_trainer(), 0


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
        # Of use where the job begins; what a later worker says of its start is not kept.
        diagnosis=trainer.diagnose(),
    )


def _completed(outcome: EpochOutcome, weights_sha256: str) -> EpochCompleted:
    metrics = outcome.metrics
    return EpochCompleted(
        epoch=metrics.epoch,
        train_loss=metrics.train_loss,
        train_accuracy=metrics.train_accuracy,
        test_loss=metrics.test_loss,
        test_accuracy=metrics.test_accuracy,
        learning_rate=metrics.learning_rate,
        seconds=metrics.seconds,
        images_per_second=metrics.images_per_second,
        weights_sha256=weights_sha256,
        diagnosis=outcome.diagnosis,
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


def _fault(error: Exception) -> Failure | DiskFault:
    match error:
        case OSError():
            advice = "free or mend the disk, then resume the job"
            return DiskFault(message=f"a checkpoint could not be written: {error}: {advice}")
        case DivergedError():
            return Failure(reason="DIVERGED", message=str(error))
        case DatasetError():
            return Failure(reason="DATASET_UNAVAILABLE", message=str(error))
        case torch.OutOfMemoryError() | MemoryError():
            advice = "try a smaller batch_size, or fewer jobs a device"
            return Failure(reason="OUT_OF_MEMORY", message=f"{error}: {advice}")
        case _:
            _LOG.exception("the worker failed")
            kind = type(error).__name__
            return Failure(
                reason="INTERNAL", message=f"{kind}: {error}: see the server's log for where"
            )


def _warm_up() -> None:
    """Takes one step of training for nothing.

    The first step makes or loads its machine code, and imports what makes it:
    time that no job should wait for.
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


def _leave_with_server() -> None:
    """Ends the process when the server's end of standard input closes."""
    sys.stdin.buffer.read()
    _LOG.warning("the server is gone: leaving")
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
    for task in (_leave_with_server, channel.beat):
        threading.Thread(target=task, daemon=True).start()
    try:
        for message in work(Assignment.from_line(line), channel):
            channel.send(message)
    except Exception as error:  # noqa: BLE001 - whatever it is, the server must hear of it
        channel.send(_fault(error))
