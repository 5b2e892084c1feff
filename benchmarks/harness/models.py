"""The models to serve: trained once by Leadline, then cached."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from harness.cache import cache_folder
from harness.infer import Images, Logits
from harness.processes import ServerProcess, free_port
from harness.tables import say
from leadline.client import Client, HealthStatus, UnavailableError
from leadline.models.batches import normalize
from leadline.models.checkpoints import Checkpoint, load_checkpoint
from leadline.models.export import load_onnx

BLOCK_CONVOLUTIONS = 2
"""Convolutions per block, of the served networks and of the one that trains beside them."""

_TRAINING_SECONDS = 1_800


@dataclass(frozen=True)
class Trained:
    """A model in a data directory of Leadline, with the files that the peers load."""

    data_dir: Path
    """The server's data directory."""

    job_id: str
    """The job that trained it."""

    epoch: int
    """Its best epoch, which answers by default."""

    folder: Path
    """The folder of that epoch's checkpoint."""

    onnx: Path
    """The same network for ONNX Runtime."""

    classes: int
    """The number of classes."""

    @property
    def model(self) -> str:
        """The name in requests; the peers' models have the same name."""
        return self.job_id

    def checkpoint(self) -> Checkpoint:
        """Loads the checkpoint.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        return load_checkpoint(self.folder, self.epoch)

    @torch.inference_mode()
    def logits(self, images: Images) -> Logits:
        """Returns the network's logits in torch, float32 [images, classes].

        Args:
            images: normalized float32 [images, 3, 32, 32], or uint8 [images, 32, 32, 3].
        """
        given = torch.from_numpy(images)
        normalised = normalize(given) if given.dtype == torch.uint8 else given
        logits: Logits = self.checkpoint().network()(normalised).numpy()
        return logits


def draw_images(count: int, *, seed: int = 1, as_bytes: bool = False) -> Images:
    """Returns noise in the range of normalized images, float32 [count, 3, 32, 32].

    Args:
        count: the number of images.
        seed: the seed of the noise.
        as_bytes: returns uint8 pixels, [count, 32, 32, 3], instead.
    """
    random = np.random.default_rng(seed)
    if as_bytes:
        return random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return (random.integers(0, 256, (count, 3, 32, 32)) / 127.5 - 1).astype(np.float32)


def trained_model(*, blocks: int, epochs: int = 2, residual: bool = False) -> Trained:
    """Returns a cached network with batch norm, and trains it if the cache has none.

    Its blocks have two convolutions, like those of the earliest serving measurements.

    Args:
        blocks: the depth.
        epochs: the epochs to train. The benchmarks need its predictions, not its accuracy.
        residual: whether it has residual connections; a deep one diverges without them.

    Raises:
        ServerError: Leadline did not start.
        JobFailedError: the training failed.
    """
    folder = cache_folder() / f"trained-{blocks}-blocks"
    record = folder / "trained.json"
    if not record.exists():
        say(f"training a model of {blocks} blocks of 2 convolutions, once: {folder}")
        record.write_text(json.dumps(_train(folder, blocks, epochs, residual)))
    job_id, epoch = json.loads(record.read_text()).values()
    (attempt,) = (folder / "data" / "models" / job_id).iterdir()
    checkpoint = load_checkpoint(attempt, epoch)
    onnx = folder / "model.onnx"
    onnx.write_bytes(load_onnx(attempt, epoch))
    return Trained(
        data_dir=folder / "data",
        job_id=job_id,
        epoch=epoch,
        folder=attempt,
        onnx=onnx,
        classes=checkpoint.info.architecture.classes,
    )


def _train(folder: Path, blocks: int, epochs: int, residual: bool) -> dict[str, str | int]:
    """Trains a model in `folder`, and returns its job's id and its best epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    server = ServerProcess(
        [
            *(sys.executable, "-m", "leadline.server.main", "--spare-workers", "0"),
            *("--data-dir", str(folder / "data"), "--log-level", "warning"),
            *("--port", str(port), "--metrics-port", "0"),
        ],
        log=folder / "training.log",
        core=None,
    )
    try:
        with Client(f"127.0.0.1:{port}") as client:
            server.wait_until(lambda: serves(client))
            job = client.train(
                dataset="synthetic",
                blocks=blocks,
                block_convolutions=BLOCK_CONVOLUTIONS,
                batch_norm=True,
                epochs=epochs,
                residual=residual,
                initialization="kaiming" if residual else "default",
                learning_rate=0.002 if residual else 0.05,
                momentum=0.9,
            )
            best = job.result(timeout=_TRAINING_SECONDS).best_epoch
            return {"job_id": job.id, "epoch": best}
    finally:
        server.stop()


def serves(client: Client) -> bool:
    """Whether the server responds and is ready."""
    try:
        return client.health() is HealthStatus.SERVING
    except UnavailableError:
        return False
