"""The results of an epoch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """The results of an epoch. Accuracies are measured after its last step, in evaluation mode."""

    epoch: int
    """The epoch's number, 1 for the first."""

    train_loss: float
    """The mean cross-entropy, in nats, over the training images during the epoch's steps."""

    train_accuracy: float
    """The fraction of the training set that is classified correctly, in [0, 1]."""

    test_loss: float
    """The mean cross-entropy over the test set, in nats."""

    test_accuracy: float
    """The fraction of the test set that is classified correctly, in [0, 1]."""

    learning_rate: float
    """The optimiser's step size in the epoch's last step."""

    seconds: float
    """Wall-clock seconds of the steps and the evaluations."""

    images_per_second: float
    """Training images per second, without the evaluations."""


@dataclass(frozen=True, kw_only=True)
class BlockDiagnosis:
    """Activations and gradients of a block; `leadline.models.diagnosis` measures them."""

    block: int
    """The block's number, 1 for the first; 0 stands for the head."""

    activation_std: float
    """How far apart images are in the block's output: the root mean square of the
    standard deviations over the images, one at each channel, row and column."""

    gradient_norm: float
    """The L2 norm of the gradient of the mean cross-entropy with respect to the block's output."""
