"""What an epoch came to."""

from dataclasses import dataclass


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
    """The optimiser's step size in the epoch's last step."""

    seconds: float
    """Wall-clock seconds of the steps and the evaluations."""

    images_per_second: float
    """Training images per second of optimisation, evaluations excluded."""


@dataclass(frozen=True, kw_only=True)
class BlockDiagnosis:
    """How activations and gradients pass a block; `leadline.models.diagnosis` measures it."""

    block: int
    """The block's number, 1 for the first; 0 stands for the head."""

    activation_std: float
    """How far images are apart in what comes out of the block: at each channel, row and
    column for itself the standard deviation over the images, and of these the root mean
    square."""

    gradient_norm: float
    """The L2 norm of the gradient of the mean cross-entropy with respect to that output."""
