"""An LRU cache of loaded networks, bounded in bytes."""

import threading
from collections import OrderedDict
from pathlib import Path

from leadline.models.export import load_onnx
from leadline.server.serving.catalog import CheckpointRef
from leadline.server.serving.classifier import Classifier, CpuClassifier


class LoadedNetworks:
    """Loads networks on demand and evicts the least recently used."""

    def __init__(self, *, device: str, threads: int, max_bytes: int) -> None:
        self._device = device
        self._threads = threads
        self._max_bytes = max_bytes
        self._classifiers: OrderedDict[tuple[str, str], Classifier] = OrderedDict()
        # Any thread may look up, load or evict a network, even while another thread computes.
        self._lock = threading.Lock()

    @property
    def memory_bytes(self) -> int:
        """The approximate memory of the loaded networks, in bytes."""
        with self._lock:
            return self._total_bytes()

    def get(self, checkpoint: CheckpointRef) -> Classifier:
        """The network of a checkpoint; loads it on a cache miss. Blocks.

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
            self._evict()
        return classifier

    def quick(self, checkpoint: CheckpointRef) -> Classifier | None:
        """The network of a checkpoint, if it is loaded and quick enough for the event loop."""
        with self._lock:
            classifier = self._classifiers.get(checkpoint.key)
        return classifier if classifier is not None and classifier.is_quick else None

    def drop(self, checkpoint: CheckpointRef) -> None:
        """Evicts a checkpoint's network."""
        with self._lock:
            self._classifiers.pop(checkpoint.key, None)

    def _evict(self) -> None:
        # Keeps the newest of any size, because it is about to be used.
        while len(self._classifiers) > 1 and self._total_bytes() > self._max_bytes:
            self._classifiers.popitem(last=False)

    def _total_bytes(self) -> int:
        return sum(classifier.memory_bytes for classifier in self._classifiers.values())


def load_classifier(folder: Path, epoch: int, *, device: str, threads: int) -> Classifier:
    """Loads the network of a checkpoint. Blocks.

    Args:
        folder: the checkpoint's folder.
        epoch: the checkpoint's epoch.
        device: "cpu", or torch's name of a GPU.
        threads: computing threads on the CPU.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    if device == "cpu":
        return CpuClassifier(load_onnx(folder, epoch), threads=threads)
    # A server without a GPU does not load torch, which takes seconds and half a gigabyte.
    from leadline.server.serving.cuda import CudaClassifier  # noqa: PLC0415

    return CudaClassifier(folder, epoch, device=device)
