"""Ten classes of drawn images, for use without a network or an archive.

Each image shows one shape of a random size, place, rotation, stretch and
colour, shaded or striped, over a background with clutter and noise. NumPy draws
it by operations that round exactly, from the raw bits of a generator, which
NumPy guarantees across versions. So the dataset is the same, bit for bit, on
every machine.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from leadline.models.datasets.contents import SPLITS, Contents, Item, SplitName
from leadline.models.datasets.shapes import SHAPES, Field
from leadline.models.images import IMAGE_SIZE

TRAIN_IMAGES = 10_000
TEST_IMAGES = 2_000

_VERSION = 1  # to be changed whenever a pixel changes
_COUNTS: dict[SplitName, int] = {"train": TRAIN_IMAGES, "test": TEST_IMAGES}
_SEEDS: dict[SplitName, int] = {"train": 1, "test": 2}
_DRAWN_AT_ONCE = 500  # images, the same number of each class

_STROKES = 3
_DOTS = 2


class Synthetic:
    """The drawn dataset: 10,000 images to train on, 2,000 to test on."""

    def key(self) -> str:
        """Returns a name that changes with the version of the drawing."""
        return f"synthetic-{_VERSION}"

    def read(self) -> Contents:
        """Returns the contents; iterating over the images draws them."""
        labels = {split: _labels(_COUNTS[split]) for split in SPLITS}
        return Contents(tuple(SHAPES), labels, _items())


class _Chance:
    """Random numbers from raw bits, which alone NumPy guarantees across versions."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))

    def between(self, least: float, most: float, *shape: int) -> Field:
        """Returns numbers that are uniform in [least, most)."""
        raw = self._bits.random_raw(int(np.prod(shape))) >> np.uint64(11)
        return least + (most - least) * (raw.astype(np.float64) * 2.0**-53).reshape(shape)

    def one_of(self, count: int, *shape: int) -> npt.NDArray[np.int64]:
        """Returns integers that are uniform in [0, count)."""
        return self.between(0, count, *shape).astype(np.int64)


def _labels(count: int) -> npt.NDArray[np.int64]:
    return np.arange(count, dtype=np.int64) % len(SHAPES)


def _items() -> Iterator[Item]:
    for split in SPLITS:
        for start in range(0, _COUNTS[split], _DRAWN_AT_ONCE):
            chance = _Chance(_SEEDS[split], start)
            pixels = _draw(_labels(_DRAWN_AT_ONCE), chance)
            for offset, image in enumerate(pixels):
                yield Item(split, start + offset, image)


def _draw(labels: npt.NDArray[np.int64], chance: _Chance) -> npt.NDArray[np.uint8]:
    """Draws images, uint8 [N, 32, 32, 3], of these classes."""
    count = len(labels)
    back, front = _colours(count, chance)
    canvas = _background(back, chance)
    canvas = _clutter(canvas, chance)
    distance, x, y = _shape(labels, chance)
    canvas = _paint(canvas, distance, _fill(front, x, y, chance))
    # The sum of three uniform numbers is nearly Gaussian, and its arithmetic is exact.
    noise = sum(chance.between(-1, 1, *canvas.shape) for _ in range(3))
    canvas = canvas + noise * chance.between(0.01, 0.07, count, 1, 1, 1)
    return np.floor(np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)


def _colours(count: int, chance: _Chance) -> tuple[Field, Field]:
    """Returns two distinguishable colours for each image, [N, 3] in [0, 1]."""
    hue = chance.between(0, 1, count)
    back = _rgb(hue, chance.between(0.2, 0.8, count), chance.between(0.15, 0.55, count))
    apart = hue + chance.between(0.25, 0.75, count)
    front = _rgb(apart, chance.between(0.2, 0.75, count), chance.between(0.75, 1.0, count))
    return back, front


def _rgb(hue: Field, saturation: Field, value: Field) -> Field:
    """Returns colours [N, 3] of hue (in turns), saturation and value."""
    turns = hue[:, np.newaxis] + np.array([0.0, 2 / 3, 1 / 3])
    pure = np.clip(np.abs((turns - np.floor(turns)) * 6 - 3) - 1, 0, 1)
    shades: Field = value[:, np.newaxis] * (1 - saturation[:, np.newaxis] * (1 - pure))
    return shades


def _background(colour: Field, chance: _Chance) -> Field:
    """Returns canvases [N, 32, 32, 3]: a gradient of brightness, and faint waves."""
    count = len(colour)
    x, y = _grid(count)
    slope = _across(x, y, chance) * chance.between(0.0, 0.02, count, 1, 1)
    waves = _waves(_across(x, y, chance), chance) * chance.between(0.0, 0.2, count, 1, 1)
    canvas: Field = colour[:, np.newaxis, np.newaxis] * (1 + slope + waves)[..., np.newaxis]
    return canvas


def _clutter(canvas: Field, chance: _Chance) -> Field:
    """Paints strokes and dots that belong to no class."""
    count = len(canvas)
    x, y = _grid(count)
    for number in range(_STROKES + _DOTS):
        left, top = chance.between(-15, 15, 2, count, 1, 1)
        along, across = _turned(x - left, y - top, chance)
        length = chance.between(3, 9, count, 1, 1) if number < _STROKES else 0.0
        width = chance.between(0.5, 1.2, count, 1, 1)
        size = width if number < _STROKES else width * 2
        outside = np.maximum(np.abs(along) - length, 0)
        distance = np.sqrt(outside * outside + across * across) - size
        hue, saturation = chance.between(0, 1, 2, count)
        colour = _rgb(hue, saturation, chance.between(0.1, 0.75, count))
        canvas = _paint(canvas, distance, colour[:, np.newaxis, np.newaxis])
    return canvas


def _shape(labels: npt.NDArray[np.int64], chance: _Chance) -> tuple[Field, Field, Field]:
    """Returns the distance to the shapes in pixels, and their own coordinates, [N, 32, 32]."""
    count = len(labels)
    left, top = chance.between(-4.0, 4.0, 2, count, 1, 1)
    radius = chance.between(7.0, 12.0, count, 1, 1)
    stretch = chance.between(0.8, 1.25, count, 1, 1)
    grid_x, grid_y = _grid(count)
    x, y = _turned(grid_x - left, grid_y - top, chance)
    x, y = x / (radius * stretch), y / radius
    distance = np.empty_like(x)
    for label, outline in enumerate(SHAPES.values()):
        chosen = labels == label
        distance[chosen] = outline(x[chosen], y[chosen])
    return distance * radius, x, y


def _fill(colour: Field, x: Field, y: Field, chance: _Chance) -> Field:
    """Returns the fill of shapes, [N, 32, 32, 3]: shaded, and partly striped."""
    count = len(colour)
    striped = chance.one_of(3, count, 1, 1) == 0
    stripes = _waves(_across(x, y, chance) * 8, chance) * chance.between(0.1, 0.35, count, 1, 1)
    light = 1 + _across(x, y, chance) * 0.15 + np.where(striped, stripes, 0)
    fill: Field = colour[:, np.newaxis, np.newaxis] * light[..., np.newaxis]
    return fill


def _paint(canvas: Field, distance: Field, colour: Field) -> Field:
    """Paints a colour where the distance, in pixels, is negative; edges are smooth."""
    cover = np.clip(0.5 - distance, 0, 1)[..., np.newaxis]
    painted: Field = canvas + (colour - canvas) * cover
    return painted


def _waves(position: Field, chance: _Chance) -> Field:
    """Returns triangle waves in [-1, 1], of a wavelength of 4 to 12 pixels."""
    count = len(position)
    phase = position / chance.between(4, 12, count, 1, 1) + chance.between(0, 1, count, 1, 1)
    return np.abs((phase - np.floor(phase)) * 4 - 2) - 1


def _across(x: Field, y: Field, chance: _Chance) -> Field:
    return _turned(x, y, chance)[0]


def _turned(x: Field, y: Field, chance: _Chance) -> tuple[Field, Field]:
    """Rotates the coordinates of each image by a random angle."""
    # Uses the tangent of half the angle, because sines and cosines differ between machines.
    half = chance.between(-1, 1, len(x), 1, 1)
    facing = chance.one_of(2, len(x), 1, 1) * 2.0 - 1
    cosine = (1 - half * half) / (1 + half * half) * facing
    sine = 2 * half / (1 + half * half) * facing
    return x * cosine + y * sine, y * cosine - x * sine


def _grid(count: int) -> tuple[Field, Field]:
    """Returns the pixels' coordinates from the image's centre, two [N, 32, 32]."""
    axis = np.arange(IMAGE_SIZE, dtype=np.float64) - (IMAGE_SIZE - 1) / 2
    shape = (count, IMAGE_SIZE, IMAGE_SIZE)
    return np.broadcast_to(axis, shape), np.broadcast_to(axis[:, np.newaxis], shape)
