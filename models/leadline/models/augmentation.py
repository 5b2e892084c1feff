"""How training images are varied from epoch to epoch.

Images are varied as bytes, a batch at a time, wherever they are. What is done
to an image derives from the seed, the epoch and the image's place in the epoch
alone: there is no state that an interruption could lose.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from leadline.models.spec import Augmentation

MAX_SHIFT = 4
"""Pixels by which an image is moved at most, up, down, left and right."""

# Beside the seed and the epoch, so that these numbers are not those of the images' order.
_STREAM = 1

# A pixel's three bytes as one item, so that NumPy moves them together.
_PIXEL = np.dtype("V3")


@dataclass(frozen=True)
class Variations:
    """What is done to each image of an epoch, in the order in which they are trained on."""

    mirrored: Tensor
    """bool [N]: whether left and right are exchanged."""

    top: Tensor
    """int64 [N]: which row of the image becomes its first, -4 to 4."""

    left: Tensor
    """int64 [N]: which column of the image, mirrored or not, becomes its first, -4 to 4."""

    moves: bool
    """Whether any image is moved: otherwise `top` and `left` are 0 throughout."""

    @classmethod
    def draw(
        cls, augmentation: Augmentation, *, seed: int, epoch: int, images: int, device: torch.device
    ) -> Self | None:
        """Draws what is done to an epoch's images; None where nothing is."""
        if augmentation is Augmentation.NONE:
            return None
        # NumPy guarantees the raw bits of a generator across versions, and nothing else.
        seeds = np.random.SeedSequence((seed, epoch, _STREAM))
        bits = np.random.PCG64(seeds).random_raw(images)
        moves = augmentation is Augmentation.FLIP_CROP
        largest = MAX_SHIFT if moves else 0
        # 16 bits each; that 9 does not divide 65,536 changes a chance by less than 1 in 7,000.
        top, left = (
            torch.from_numpy((bits >> shift & 0xFFFF).astype(np.int64) % (2 * largest + 1))
            for shift in (16, 32)
        )
        return cls(
            mirrored=torch.from_numpy(bits >> 63 == 1).to(device),
            top=(top - largest).to(device),
            left=(left - largest).to(device),
            moves=moves,
        )

    def apply(self, pixels: Tensor, start: int) -> Tensor:
        """Returns a batch as it is trained on: mirrored first, then moved.

        What lies beyond an edge is reflected at it, without repeating the edge:
        before a row abcd there is dcb.

        Args:
            pixels: uint8 [n, H, W, 3] on the device; not changed.
            start: the place of the first of them in the epoch, 0 for the first.

        Returns:
            uint8 [n, H, W, 3].
        """
        here = slice(start, start + len(pixels))
        mirrored, top, left = self.mirrored[here], self.top[here], self.left[here]
        if pixels.device.type != "cpu":
            return _gather(pixels, mirrored, top, left)
        # NumPy copies rows where torch, on a CPU, copies bytes: a fifth of the time.
        items = np.ascontiguousarray(pixels.numpy()).view(_PIXEL)[..., 0]
        flipped = mirrored.numpy()
        original, items = items, items.copy()
        items[flipped] = original[flipped][:, :, ::-1]
        if self.moves:
            items = _move(items, top.numpy(), left.numpy())
        return torch.from_numpy(items[..., np.newaxis].view(np.uint8))


def _gather(pixels: Tensor, mirrored: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Mirrors and moves images, uint8 [n, H, W, 3], on any device."""
    count, height, width, _ = pixels.shape
    rows, columns = _window(top, height), _window(left, width)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    images = torch.arange(count, device=pixels.device)[:, None, None]
    return pixels[images, rows[:, :, None], columns[:, None, :]]


def _window(first: Tensor, length: int) -> Tensor:
    """Which pixel of a line stands at each place, int64 [n, length], where it begins at `first`."""
    places = (first[:, None] + torch.arange(length, device=first.device)).abs()
    return torch.minimum(places, 2 * (length - 1) - places)


def _move(
    items: npt.NDArray[Any], top: npt.NDArray[np.int64], left: npt.NDArray[np.int64]
) -> npt.NDArray[Any]:
    """Images, one item a pixel, [n, H, W], moved within their reflected surroundings."""
    count, height, width = items.shape
    size = items.itemsize
    # As bytes: NumPy copies lines of those whole, but pixels one by one.
    lines = _pad(items).view(np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(lines, (height, width * size), axis=(1, 2))
    moved = windows[np.arange(count), top + MAX_SHIFT, (left + MAX_SHIFT) * size]
    return np.ascontiguousarray(moved).view(items.dtype)


def _pad(items: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What `numpy.pad` does in mode "reflect", in a third of the time."""
    count, height, width = items.shape
    edge = MAX_SHIFT
    padded = np.empty((count, height + 2 * edge, width + 2 * edge), items.dtype)
    middle = padded[:, edge:-edge]
    middle[:, :, edge:-edge] = items
    middle[:, :, :edge] = items[:, :, edge:0:-1]
    middle[:, :, -edge:] = items[:, :, -2 : -edge - 2 : -1]
    padded[:, :edge] = middle[:, edge:0:-1]
    padded[:, -edge:] = middle[:, -2 : -edge - 2 : -1]
    return padded
