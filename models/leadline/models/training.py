"""The training loop."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from leadline.models.augmentation import Variations
from leadline.models.batches import DeviceSplit, normalize
from leadline.models.datasets import Dataset
from leadline.models.diagnosis import DIAGNOSED_IMAGES, diagnose
from leadline.models.engine import engine_for
from leadline.models.evaluation import Evaluation, evaluate
from leadline.models.initialization import initial_network
from leadline.models.metrics import BlockDiagnosis, EpochMetrics
from leadline.models.network import Architecture
from leadline.models.optimizers import make_optimizer
from leadline.models.schedule import learning_rate
from leadline.models.spec import Precision, TrainingSpec


class Phase(StrEnum):
    """The phases of an epoch."""

    TRAINING = "training"
    """The optimisation steps."""

    EVALUATING = "evaluating"
    """The evaluations over the whole training set and the whole test set."""


@dataclass(frozen=True)
class EpochOutcome:
    """The results of an epoch, and the network's predictions after it."""

    metrics: EpochMetrics
    train: Evaluation
    test: Evaluation

    diagnosis: tuple[BlockDiagnosis, ...] = ()
    """Activations and gradients by block after the epoch; empty unless the spec enables it."""


class DivergedError(ArithmeticError):
    """The loss is no longer finite, and further epochs would not change that."""

    def __init__(self, epoch: int, loss: float) -> None:
        super().__init__(epoch, loss)  # the constructor's arguments, for pickling
        self.epoch = epoch
        self.loss = loss

    def __str__(self) -> str:
        return (
            f"training diverged in epoch {self.epoch}: the loss is {self.loss}; "
            "a lower learning rate may help"
        )


class Trainer:
    """Trains one network on one dataset, one epoch for each call.

    The seed determines the initial weights. The seed and the epoch's number
    determine the order and the augmentation of the images. The spec and the step
    determine the learning rate. So the same spec on the same machine gives the same
    weights, bit for bit, and an interruption between epochs changes nothing.

    The caller applies `patience`: see `leadline.models.early_stopping`.

    On a GPU this disables TensorFloat-32 and selects cuDNN's deterministic
    algorithms, for the whole process.

    Args:
        spec: what to train; the caller has checked its violations.
        dataset: the training and test images.
        device: the device to compute on.
        threads: CPU threads; by default torch's number.
        on_progress: called after each batch with the phase, and with the number of
            images done and of all images in it. A GPU may lag behind. An exception
            from it ends the epoch, and `train_epoch` raises it.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        dataset: Dataset,
        *,
        device: torch.device,
        threads: int | None = None,
        on_progress: Callable[[Phase, int, int], None] | None = None,
    ) -> None:
        _make_repeatable(device)
        self.spec = spec
        self.dataset = dataset
        self.device = device
        self.architecture = Architecture(
            blocks=spec.blocks,
            block_convolutions=spec.block_convolutions,
            batch_norm=spec.batch_norm,
            residual=spec.residual,
            classes=len(dataset.class_names),
        )
        network = initial_network(self.architecture, spec.initialization, spec.seed)
        self.network = network.to(device)
        self.optimizer = make_optimizer(spec, self.network)
        self.threads = threads or torch.get_num_threads()
        self._engine = engine_for(
            self.network,
            device=device,
            in_bfloat16=spec.precision is Precision.BFLOAT16,
            largest_batch=min(spec.batch_size, len(dataset.train.labels)),
            threads=self.threads,
        )
        self.engine_name = self._engine.name
        self._train = DeviceSplit(dataset.train, device)
        self._test = DeviceSplit(dataset.test, device)
        self._epoch_steps = math.ceil(len(self._train) / spec.batch_size)
        self._on_progress = on_progress

    def train_epoch(self, epoch: int) -> EpochOutcome:
        """Trains for an epoch, 1 for the first, and evaluates the network.

        Raises:
            DivergedError: a loss is not finite. The network is then unusable.
        """
        started = time.perf_counter()
        train_loss = self._optimize(epoch)
        optimized = time.perf_counter()
        _require_finite(epoch, train_loss)
        train, test = self._evaluate()
        _require_finite(epoch, train.loss)
        _require_finite(epoch, test.loss)
        metrics = EpochMetrics(
            epoch=epoch,
            train_loss=train_loss,
            train_accuracy=train.accuracy,
            test_loss=test.loss,
            test_accuracy=test.accuracy,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            seconds=time.perf_counter() - started,
            images_per_second=len(self._train) / (optimized - started),
        )
        return EpochOutcome(metrics, train, test, self.diagnose())

    def diagnose(self) -> tuple[BlockDiagnosis, ...]:
        """Measures activations and gradients, block by block.

        Uses 512 training images at equal distances in the set, or all if there are
        fewer, without augmentation. Returns an empty tuple unless the spec enables
        diagnostics.
        """
        if not self.spec.diagnostics:
            return ()
        # Folders and tars are sorted by class, so their first images are of one class.
        count = min(DIAGNOSED_IMAGES, len(self._train))
        indices = torch.arange(count, device=self.device) * len(self._train) // count
        pixels, labels = self._train.take_pixels(indices)
        return diagnose(self.network, normalize(pixels), labels)

    def _optimize(self, epoch: int) -> float:
        """Takes all steps of an epoch, and returns the mean loss."""
        variations = Variations.draw(
            self.spec.augmentation,
            seed=self.spec.seed,
            epoch=epoch,
            images=len(self._train),
            device=self.device,
        )
        total_loss = torch.zeros((), dtype=torch.float64, device=self.device)
        done = 0
        for step, indices in enumerate(torch.split(self._order(epoch), self.spec.batch_size)):
            pixels, labels = self._batch(indices, variations, done)
            self._set_learning_rate((epoch - 1) * self._epoch_steps + step)
            total_loss += self._engine.gradients(pixels, labels) * len(indices)
            self.optimizer.step()
            done += len(indices)
            self._report(Phase.TRAINING, done, len(self._train))
        # Synchronises with the device only here: doing so in each step would idle it.
        return total_loss.item() / len(self._train)

    def _batch(
        self, indices: Tensor, variations: Variations | None, start: int
    ) -> tuple[Tensor, Tensor]:
        """Returns an augmented batch, uint8 [n, 32, 32, 3], and its labels.

        `start` is the index of the batch's first image within the epoch.
        """
        pixels, labels = self._train.take_pixels(indices)
        if variations is not None:
            pixels = variations.apply(pixels, start)
        return pixels, labels

    def _set_learning_rate(self, step: int) -> None:
        rate = learning_rate(self.spec, step, self.spec.epochs * self._epoch_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _evaluate(self) -> tuple[Evaluation, Evaluation]:
        """Evaluates on the training set and the test set."""
        trained, total = len(self._train), len(self._train) + len(self._test)
        train = evaluate(
            self._engine,
            self._train,
            device=self.device,
            on_batch=lambda done, _: self._report(Phase.EVALUATING, done, total),
        )
        test = evaluate(
            self._engine,
            self._test,
            device=self.device,
            on_batch=lambda done, _: self._report(Phase.EVALUATING, trained + done, total),
        )
        return train, test

    def _order(self, epoch: int) -> Tensor:
        """Returns a permutation of the training set, int64 [N] on the device."""
        # NumPy guarantees the raw bits of a generator across versions, not permutations.
        seeds = np.random.SeedSequence((self.spec.seed, epoch))
        keys = np.random.PCG64(seeds).random_raw(len(self._train))
        return torch.from_numpy(np.argsort(keys, kind="stable")).to(self.device)

    def _report(self, phase: Phase, done: int, total: int) -> None:
        if self._on_progress is not None:
            self._on_progress(phase, done, total)


def _make_repeatable(device: torch.device) -> None:
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True


def _require_finite(epoch: int, loss: float) -> None:
    if not math.isfinite(loss):
        raise DivergedError(epoch, loss)
