"""Images of every kind become requests within the size limits."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from leadline.client import Example, Images, InvalidArgumentError
from leadline.client._batches import CALL_LIMITS, batches, load_all, request
from leadline.v1.inference_service_pb2 import (
    DATA_TYPE_FLOAT32,
    DATA_TYPE_UINT8,
    PredictRequest,
)


def requests(images: Images) -> list[PredictRequest]:
    return [request(load_all(batch), PredictRequest(model="models/a")) for batch in batches(images)]


def only_request(images: Images) -> PredictRequest:
    (only,) = requests(images)
    return only


def png(colour: int = 0) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (32, 32), (colour, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    return path


def test_files_are_sent_as_they_are(file: Path) -> None:
    for images in (file, str(file), file.read_bytes(), bytearray(file.read_bytes())):
        assert list(only_request(images).encoded.images) == [file.read_bytes()]


def test_examples_are_sent_by_their_names() -> None:
    names = [f"datasets/{'a' * 64}/{split}/7" for split in ("train", "test")]
    for images in (names, [Example(name=name) for name in names], (Example(name=n) for n in names)):
        assert list(only_request(images).examples.names) == names
    assert list(only_request(Example(name=names[0])).examples.names) == names[:1]
    assert [len(one.examples.names) for one in requests([names[0], png(), names[1]])] == [1, 0, 1]


def test_what_only_resembles_a_name_is_a_path() -> None:
    with pytest.raises(FileNotFoundError):
        requests("datasets/tiny/test/7")


def test_files_paths_and_pictures_are_one_kind_and_keep_their_order(file: Path) -> None:
    picture = Pillow.new("RGB", (32, 32), (9, 0, 0))
    sent = only_request([png(1), file, picture]).encoded.images
    assert sent[0] == png(1)
    assert sent[1] == file.read_bytes()
    assert np.asarray(Pillow.open(io.BytesIO(sent[2])))[0, 0, 0] == 9


def test_a_generator_is_taken_too() -> None:
    assert len(only_request(png(i) for i in range(5)).encoded.images) == 5


def test_pixels_are_sent_row_by_row() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    for images in (pixels, list(pixels), [pixels[:2], pixels[2]], np.asfortranarray(pixels)):
        tensor = only_request(images).tensor
        assert tensor.data_type == DATA_TYPE_UINT8
        assert list(tensor.shape) == [3, 32, 32, 3]
        assert tensor.data == pixels.tobytes()


def test_floats_are_sent_little_endian() -> None:
    values = np.linspace(-1, 1, 2 * 3 * 32 * 32, dtype=np.float32).reshape(2, 3, 32, 32)
    for images in (values, values.astype(">f4"), values[::-1][::-1]):
        tensor = only_request(images).tensor
        assert tensor.data_type == DATA_TYPE_FLOAT32
        assert list(tensor.shape) == [2, 3, 32, 32]
        assert tensor.data == values.astype("<f4").tobytes()


def test_arrays_of_other_libraries_are_taken() -> None:
    class Foreign:
        def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
            del dtype, copy
            return np.zeros((32, 32, 3), np.uint8)

    assert list(only_request(Foreign()).tensor.shape) == [1, 32, 32, 3]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((32, 32), np.uint8),
        np.zeros((3, 32, 32), np.uint8),
        np.zeros((31, 32, 3), np.uint8),
        np.zeros((1, 1, 32, 32, 3), np.uint8),
        np.zeros((32, 32, 3), np.float32),
        np.zeros((3, 32, 32), np.float64),
        np.zeros((32, 32, 3), np.int64),
        np.zeros((32, 32, 3), bool),
    ],
)
def test_an_array_of_another_shape_or_type_is_refused(array: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="expected uint8") as caught:
        requests([np.zeros((32, 32, 3), np.uint8), array])
    assert caught.value.violations[0].field == "images[1]"


def test_kinds_may_be_mixed_and_each_has_requests_of_its_own() -> None:
    pixels = np.full((32, 32, 3), 7, np.uint8)
    floats = np.full((3, 32, 32), 0.5, np.float32)
    sent = requests([png(1), png(2), pixels, pixels, floats, png(3)])
    assert [one.WhichOneof("input") for one in sent] == ["encoded", "tensor", "tensor", "encoded"]
    assert list(sent[0].encoded.images) == [png(1), png(2)]
    assert sent[1].tensor.data == pixels.tobytes() * 2
    assert sent[2].tensor.data == floats.tobytes()
    assert list(sent[3].encoded.images) == [png(3)]


def test_a_float_that_is_no_number_is_refused_by_its_image() -> None:
    values = np.zeros((3, 3, 32, 32), np.float32)
    values[1, 2, 3, 4] = np.nan
    with pytest.raises(InvalidArgumentError, match="not finite") as caught:
        requests([png(), values])
    assert caught.value.violations[0].field == "images[2]"


@pytest.mark.parametrize("images", [[], (), np.zeros((0, 32, 32, 3), np.uint8)])
def test_no_images_are_refused(images: Images) -> None:
    with pytest.raises(InvalidArgumentError, match="there are none"):
        requests(images)


@pytest.mark.parametrize("images", [7, [7], [None], [["a.png"]]])
def test_what_is_no_image_is_refused(images: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        requests(images)


def test_a_missing_file_is_noticed_before_anything_is_sent(file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        batches([file, file.with_name("missing.png")])
    with pytest.raises(IsADirectoryError):
        batches([file.parent])


def test_what_is_no_regular_file_is_refused_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        batches([pipe])


def test_a_picture_that_png_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="convert it to RGB"):
        requests([Pillow.new("CMYK", (32, 32))])


def test_an_image_that_fits_no_request_is_refused_at_once(tmp_path: Path) -> None:
    enormous = tmp_path / "enormous.png"
    with enormous.open("wb") as stream:
        stream.truncate(65 * 1024 * 1024)
    with pytest.raises(InvalidArgumentError, match="more than a request holds"):
        batches([png(), enormous])


def test_many_images_make_several_requests() -> None:
    images = [png(i % 256) for i in range(2 * CALL_LIMITS.images + 1)]
    sent = requests(images)
    assert [len(one.encoded.images) for one in sent] == [CALL_LIMITS.images, CALL_LIMITS.images, 1]
    assert [image for one in sent for image in one.encoded.images] == images


def test_an_array_is_divided_between_requests() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 32, 32, 3), dtype=np.uint8)
    sent = requests([pixels[:700], pixels[700:]])
    assert [one.tensor.shape[0] for one in sent] == [1024, 476]
    assert b"".join(one.tensor.data for one in sent) == pixels.tobytes()


def test_large_images_make_several_requests() -> None:
    large = bytes(3 * 1024 * 1024)
    sent = requests([large, large, large, bytes(20 * 1024 * 1024), large])
    assert [len(one.encoded.images) for one in sent] == [2, 1, 1, 1]
    assert sum(one.ByteSize() > CALL_LIMITS.bytes for one in sent) == 1
