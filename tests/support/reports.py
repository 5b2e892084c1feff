"""Reports of workers, for tests without workers."""

from leadline.server.jobs.job import Environment, EpochCompleted, Started

STARTED = Started(
    device="cpu",
    device_name="a processor",
    train_images=400,
    test_images=200,
    class_names=("ant", "bee"),
    parameters=15_944,
    dataset_fingerprint="f" * 64,
    environment=Environment(
        threads=1, leadline_version="0.1.0", torch_version="2", python_version="3.11"
    ),
)


def an_epoch(number: int, accuracy: float = 0.5, weights: str | None = None) -> EpochCompleted:
    """Returns a completed epoch with an accuracy and a hash of weights, by default its number."""
    return EpochCompleted(
        epoch=number,
        train_loss=1.0,
        train_accuracy=accuracy,
        test_loss=1.0,
        test_accuracy=accuracy,
        learning_rate=0.01,
        seconds=1.0,
        images_per_second=400.0,
        weights_sha256=weights or f"{number:064}",
    )
