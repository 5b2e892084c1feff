"""The networks that are kept in memory, within a bound."""

import threading
from collections import OrderedDict

from leadline.server.serving.catalog import CheckpointRef
from leadline.server.serving.engine import Engine, load_engine


class LoadedNetworks:
    """Loads networks when they are asked for; the least recently used make room."""

    def __init__(self, *, device: str, threads: int, max_bytes: int) -> None:
        self._device = device
        self._threads = threads
        self._max_bytes = max_bytes
        self._engines: OrderedDict[tuple[str, str], Engine] = OrderedDict()
        # Whoever asks to load or to drop one does not compute, but may ask at any time.
        self._lock = threading.Lock()

    @property
    def memory_bytes(self) -> int:
        """About what the loaded networks take up, in bytes."""
        with self._lock:
            return self._total_bytes()

    def get(self, checkpoint: CheckpointRef) -> Engine:
        """The network of a checkpoint, loaded where it is not yet. Blocks.

        Raises:
            DataLossError: the checkpoint's file is damaged.
        """
        with self._lock:
            if engine := self._engines.get(checkpoint.key):
                self._engines.move_to_end(checkpoint.key)
                return engine
        with checkpoint.reading():
            engine = load_engine(
                checkpoint.folder,
                checkpoint.epoch.epoch,
                device=self._device,
                threads=self._threads,
            )
        with self._lock:
            self._engines[checkpoint.key] = engine
            self._make_room()
        return engine

    def drop(self, checkpoint: CheckpointRef) -> None:
        """Lets go of a checkpoint's network; the next who asks for it has it loaded again."""
        with self._lock:
            self._engines.pop(checkpoint.key, None)

    def _make_room(self) -> None:
        # The newest stays, however large: it was asked for.
        while len(self._engines) > 1 and self._total_bytes() > self._max_bytes:
            self._engines.popitem(last=False)

    def _total_bytes(self) -> int:
        return sum(engine.memory_bytes for engine in self._engines.values())
