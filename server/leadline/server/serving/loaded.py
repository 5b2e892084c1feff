"""The networks that are kept in memory, within a bound."""

import threading
from collections import OrderedDict
from pathlib import Path

from leadline.models.checkpoint_files import load_onnx
from leadline.server.serving.catalog import CheckpointRef
from leadline.server.serving.classifier import Classifier, CpuClassifier


class LoadedNetworks:
    """Loads networks when they are asked for; the least recently used make room."""

    def __init__(self, *, device: str, threads: int, max_bytes: int) -> None:
        self._device = device
        self._threads = threads
        self._max_bytes = max_bytes
        self._classifiers: OrderedDict[tuple[str, str], Classifier] = OrderedDict()
        # Whoever asks to load or to drop one does not compute, but may ask at any time.
        self._lock = threading.Lock()

    @property
    def memory_bytes(self) -> int:
        """About what the loaded networks take up, in bytes."""
        with self._lock:
            return self._total_bytes()

    def get(self, checkpoint: CheckpointRef) -> Classifier:
        """The network of a checkpoint, loaded where it is not yet. Blocks.

        Raises:
            DataLossError: the checkpoint's file is damaged.
        """
        with self._lock:
            if classifier := self._classifiers.get(checkpoint.key):
                self._classifiers.move_to_end(checkpoint.key)
                return classifier
        with checkpoint.reading():
            classifier = load_classifier(
                checkpoint.folder,
                checkpoint.epoch.epoch,
                device=self._device,
                threads=self._threads,
            )
        with self._lock:
            self._classifiers[checkpoint.key] = classifier
            self._make_room()
        return classifier

    def drop(self, checkpoint: CheckpointRef) -> None:
        """Lets go of a checkpoint's network; the next who asks for it has it loaded again."""
        with self._lock:
            self._classifiers.pop(checkpoint.key, None)

    def _make_room(self) -> None:
        # The newest stays, however large: it was asked for.
        while len(self._classifiers) > 1 and self._total_bytes() > self._max_bytes:
            self._classifiers.popitem(last=False)

    def _total_bytes(self) -> int:
        return sum(classifier.memory_bytes for classifier in self._classifiers.values())


def load_classifier(folder: Path, epoch: int, *, device: str, threads: int) -> Classifier:
    """Loads the network of a checkpoint. Blocks.

    Args:
        folder: where the checkpoint is.
        epoch: its epoch.
        device: "cpu" or torch's name of a GPU.
        threads: that compute, where it is the CPU.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    if device == "cpu":
        return CpuClassifier(load_onnx(folder, epoch), threads=threads)
    # Where there is no GPU the server does without torch, which takes seconds
    # to load and half a gigabyte.
    from leadline.server.serving.cuda import CudaClassifier  # noqa: PLC0415

    return CudaClassifier(folder, epoch, device=device)
