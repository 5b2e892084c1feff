"""What an epoch came to."""

from dataclasses import dataclass

__all__ = ["EpochMetrics"]


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """What an epoch came to. Accuracies are measured after its last step, in evaluation mode."""

    epoch: int
    """The epoch's number, 1 for the first."""

    train_loss: float
    """The mean cross-entropy, in nats, over the training images, each as it was trained on."""

    train_accuracy: float
    """The fraction of the training set that is classified rightly, in [0, 1]."""

    test_loss: float
    """The mean cross-entropy over the test set, in nats."""

    test_accuracy: float
    """The fraction of the test set that is classified rightly, in [0, 1]."""

    learning_rate: float
    """The optimiser's step size in this epoch."""

    seconds: float
    """Wall-clock seconds of the steps and the evaluations."""

    images_per_second: float
    """Training images per second of optimisation, evaluations excluded."""
