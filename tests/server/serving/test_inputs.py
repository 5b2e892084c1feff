"""The limits on the images of a request, and their decoding in steps."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.models.images import DecodingStoppedError, decode_image, encode_png
from leadline.server.errors import InvalidArgumentError
from leadline.server.serving.inputs import InputLimits, decode_files
from support.decoding import all_steps
from support.hostile_images import one_bit_png, progressive_jpeg

_PIXELS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
_FILES = [encode_png(pixels) for pixels in _PIXELS]

_LIMITS = InputLimits(images=4_096, image_bytes=1 << 24, image_pixels=1 << 24, pixels=1 << 26)


def test_a_small_request_is_one_step() -> None:
    with pytest.raises(StopIteration) as end:
        next(decode_files(_FILES, _LIMITS))
    assert np.array_equal(end.value.value, _PIXELS)


@settings(deadline=None, derandomize=True, max_examples=20)
@given(st.lists(st.sampled_from([*_FILES[:2], one_bit_png(512), one_bit_png(1100)]), max_size=6))
def test_steps_say_what_is_left_and_make_the_pixels_of_every_image(files: list[bytes]) -> None:
    steps = decode_files(files, _LIMITS)
    left: list[int] = []
    try:
        while True:
            left.append(steps.send(None))
    except StopIteration as end:
        pixels = end.value
    assert len(pixels) == len(files)
    assert all(
        (image == decode_image(file)).all() for image, file in zip(pixels, files, strict=True)
    )
    decoding = left[left.index(max(left)) :] if left else []
    assert all(later < earlier for earlier, later in itertools.pairwise(decoding))


def test_the_pixels_of_a_request_are_limited() -> None:
    limits = InputLimits(images=8, image_bytes=1 << 20, image_pixels=1 << 20, pixels=4 << 16)
    image = one_bit_png(256)
    assert len(all_steps(decode_files([image] * 4, limits))) == 4
    with pytest.raises(InvalidArgumentError) as error:
        all_steps(decode_files([image] * 5, limits))
    assert str(error.value) == (
        "encoded.images: have 327,680 pixels up to image 4, but the images of a request may have "
        "262,144: send image 4 and those after it in another request"
    )


def test_scans_count_as_pixels() -> None:
    limits = InputLimits(images=8, image_bytes=1 << 20, image_pixels=1 << 20, pixels=4 << 16)
    image = progressive_jpeg(12, side=256)
    assert len(all_steps(decode_files([image] * 2, limits))) == 2
    with pytest.raises(InvalidArgumentError, match="up to image 2"):
        all_steps(decode_files([image] * 3, limits))


def test_one_image_within_its_own_limit_is_always_decoded() -> None:
    limits = InputLimits(images=8, image_bytes=1 << 20, image_pixels=1 << 20, pixels=1_024)
    assert len(all_steps(decode_files([one_bit_png(512)], limits))) == 1


def test_every_wrong_image_is_named() -> None:
    broken = _FILES[0][:-13] + bytes(13)
    files = [b"hello", _FILES[0], broken, one_bit_png(4097)]
    with pytest.raises(InvalidArgumentError) as error:
        all_steps(decode_files(files, _LIMITS))
    named = [violation.field for violation in error.value.violations]
    assert named == ["encoded.images[0]", "encoded.images[2]", "encoded.images[3]"]


def test_a_large_image_stops_when_it_is_not_wanted_any_more() -> None:
    steps = decode_files([one_bit_png(2048)], _LIMITS)
    next(steps)
    with pytest.raises(DecodingStoppedError):
        steps.send(lambda: False)
