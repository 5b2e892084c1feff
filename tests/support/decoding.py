"""Decoding without threads."""

from collections.abc import Generator

from leadline.server.serving.inputs import Pixels, Steps


def all_steps(pixels: Pixels | Steps) -> Pixels:
    """What the steps return at their end."""
    while isinstance(pixels, Generator):
        try:
            pixels.send(None)
        except StopIteration as end:
            pixels = end.value
    return pixels
