"""Decoding without threads."""

from collections.abc import Generator

from leadline.server.serving.inputs import Pixels, Steps


def all_steps(pixels: Pixels | Steps) -> Pixels:
    """Runs all steps, and returns their result."""
    while isinstance(pixels, Generator):
        try:
            pixels.send(None)
        except StopIteration as end:
            pixels = end.value
    return pixels
