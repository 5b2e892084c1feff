import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leadline.models.batches import normalize
from leadline.models.images import (
    DecodingStoppedError,
    ImageError,
    decode_image,
    encode_png,
    open_image,
)
from support.hostile_images import (
    one_bit_png,
    progressive_jpeg,
    progressive_jpeg_of_bytes,
    rgba_png,
)

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)


def file_of(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)


PNG = file_of(Image.fromarray(PIXELS), "PNG")
JPEG = file_of(Image.fromarray(PIXELS), "JPEG", quality=95)
PROGRESSIVE = file_of(Image.fromarray(PIXELS), "JPEG", progressive=True)
PALETTE = file_of(Image.fromarray(PIXELS).quantize(16), "PNG", transparency=bytes(range(16)))


def only_colour(image: npt.NDArray[np.uint8]) -> tuple[int, ...]:
    colours = np.unique(image.reshape(-1, 3), axis=0)
    assert len(colours) == 1
    return tuple(int(value) for value in colours[0])


def test_png_is_lossless_both_ways() -> None:
    assert np.array_equal(decode_image(PNG), PIXELS)
    assert np.array_equal(decode_image(encode_png(PIXELS)), PIXELS)


def test_jpeg_is_decoded_as_pillow_does() -> None:
    expected = np.asarray(Image.open(io.BytesIO(JPEG)).convert("RGB"))
    assert np.array_equal(decode_image(JPEG), expected)


@pytest.mark.parametrize("size", [(1, 1), (33, 32), (500, 20), (64, 64)])
def test_other_sizes_are_resized(size: tuple[int, int]) -> None:
    image = decode_image(file_of(Image.new("RGB", size, (200, 100, 50)), "PNG"))
    assert image.shape == (32, 32, 3)
    assert only_colour(image) == (200, 100, 50)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 0), (255, 255, 255)),
        ("P", 0, (0, 0, 0)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("I;16", 0x4DFF, (0x4D, 0x4D, 0x4D)),
    ],
)
@pytest.mark.parametrize("size", [(32, 32), (40, 20)])
def test_every_kind_of_png_becomes_rgb(
    mode: str, colour: Any, expected: tuple[int, int, int], size: tuple[int, int]
) -> None:
    assert only_colour(decode_image(file_of(Image.new(mode, size, colour), "PNG"))) == expected


def test_16_bit_colours_lose_their_lower_byte() -> None:
    row = b"\0" + struct.pack(">HHH", 0x1122, 0x3344, 0x5566) * 32
    data = png_header(32, 32, depth=16)
    data += png_chunk(b"IDAT", zlib.compress(row * 32)) + png_chunk(b"IEND", b"")
    assert only_colour(decode_image(data)) == (0x11, 0x33, 0x55)


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_colour_that_stands_for_transparent_is_laid_over_white(mode: str) -> None:
    transparent = (0, 0, 0) if mode == "RGB" else 0
    data = file_of(Image.new(mode, (32, 32), 0), "PNG", transparency=transparent)
    assert only_colour(decode_image(data)) == (255, 255, 255)


def test_cmyk_becomes_rgb() -> None:
    data = file_of(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = decode_image(data)[16, 16]
    assert red > 250
    assert green < 5
    assert blue < 5


def test_greyscale_jpeg_becomes_rgb() -> None:
    assert only_colour(decode_image(file_of(Image.new("L", (32, 32), 90), "JPEG"))) == (90, 90, 90)


def test_an_animation_is_its_still_image() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    data = file_of(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert b"acTL" in data
    assert only_colour(decode_image(data)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_is_applied(orientation: int, image_format: str, order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010E] = "a description before it"
    exif[0x0112] = orientation
    quarters = Image.fromarray(np.kron(np.array([[0, 90], [180, 250]]), np.ones((16, 16))))
    data = file_of(quarters.convert("RGB"), image_format, exif=exif.tobytes())
    upright = {
        1: [[0, 90], [180, 250]],
        2: [[90, 0], [250, 180]],
        3: [[250, 180], [90, 0]],
        4: [[180, 250], [0, 90]],
        5: [[0, 180], [90, 250]],
        6: [[180, 0], [250, 90]],
        7: [[250, 90], [180, 0]],
        8: [[90, 250], [0, 180]],
    }[orientation]
    seen = decode_image(data)[8::16, 8::16, 0].astype(int)
    assert np.abs(seen - upright).max() <= 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"GIF89a" + bytes(100), "neither PNG nor JPEG"),
        (b"hello", "neither PNG nor JPEG"),
        (PNG[:8], "truncated"),
        (PNG[:-13], "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (PNG[:100] + b"\0\0\0\0" + PNG[104:], "corrupt"),
        (PNG[:33] + PNG[-12:], "decoded"),
        (JPEG[:3], "truncated"),
        (JPEG[:200], "truncated"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (b"\xff\xd8\xff\xd9", "no pixels|truncated"),
        (b"\xff\xd8\xff\xff", "truncated"),
    ],
)
def test_bytes_that_are_no_image_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        decode_image(data)


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    # The file has only a header, so the message proves that nothing was decoded.
    bomb = png_header(60_000, 60_000) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="60000x60000 are 3,600,000,000 pixels"):
        decode_image(bomb)


@pytest.mark.parametrize("size", [(16_385, 1), (1, 16_385)])
def test_an_image_that_is_endless_in_one_direction_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="a side may have at most 16,384 pixels"):
        decode_image(file_of(Image.new("L", size), "PNG"))


def test_the_limit_on_pixels_is_the_callers() -> None:
    assert decode_image(PNG, max_pixels=1024).shape == (32, 32, 3)
    for data in (PNG, JPEG):
        with pytest.raises(ImageError, match="at most 1,023 are allowed"):
            decode_image(data, max_pixels=1023)


def test_what_is_not_pixels_never_reaches_the_decoder() -> None:
    # Pillow alone warns or fails when it opens each of these files.
    odd = [png_chunk(b"acTL", b"\0"), png_chunk(b"zTXt", b"a\0\0x"), png_chunk(b"eXIf", b"MM\0*")]
    data = PNG[:33] + b"".join(odd) + PNG[33:]
    assert np.array_equal(decode_image(data), PIXELS)
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0"
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    comment = b"\xff\xff\xff\xfe\0\x05abc"
    assert np.array_equal(decode_image(JPEG[:2] + segment + comment + JPEG[2:]), decode_image(JPEG))


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_grey_images_are_resized_as_colours_are(mode: str, image_format: str) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (100, 70, 3), dtype=np.uint8)).convert(mode)
    data = file_of(image, image_format)
    colours = Image.open(io.BytesIO(data)).convert("RGB")
    expected = np.asarray(colours.resize((32, 32), Image.Resampling.LANCZOS))
    assert np.array_equal(decode_image(data), expected)


def test_the_work_of_an_image_is_known_before_it_is_decoded() -> None:
    assert open_image(one_bit_png(2048)).work == 2048**2
    assert open_image(JPEG).work == 1024
    assert open_image(PROGRESSIVE).work == 2 * 1024  # of ten scans
    assert open_image(progressive_jpeg(80, side=256)).work == 11 * 256**2


@pytest.mark.parametrize("size", [1 << 17, 1 << 24])
def test_a_jpeg_of_too_many_scans_is_refused_undecoded(size: int) -> None:
    data = progressive_jpeg_of_bytes(size)
    with pytest.raises(ImageError, match="more than 100 scans: save it as a baseline JPEG"):
        open_image(data)


def test_a_large_jpeg_may_have_fewer_scans_than_a_small_one() -> None:
    assert open_image(progressive_jpeg(16, side=256), max_pixels=1 << 16).work == 3 << 16
    with pytest.raises(ImageError, match="has 17 scans, but with 256x256 pixels it may have 16"):
        open_image(progressive_jpeg(17, side=256), max_pixels=1 << 16)
    assert open_image(progressive_jpeg(64, side=128), max_pixels=1 << 16).work == 9 << 14


def test_what_follows_the_end_of_a_jpeg_is_no_part_of_it() -> None:
    scans = b"\xff\xda" * 10_000
    assert np.array_equal(decode_image(PROGRESSIVE + scans), decode_image(PROGRESSIVE))


@pytest.mark.parametrize(
    "data",
    [
        PNG[:33] + png_chunk(b"IDAT", b"") * 1_000 + PNG[33:],
        PNG[:33] + png_chunk(b"tEXt", b"") * 1_000 + PNG[33:],
        JPEG[:2] + b"\xff\xfe\0\2" * 1_000 + JPEG[2:],
        JPEG[:-2] + b"\xff\xfe\0\2" * 1_000 + JPEG[-2:],
        JPEG[:-2] + b"\xff\x02" * 1_000 + JPEG[-2:],
    ],
)
def test_a_file_of_many_empty_parts_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="too many small parts"):
        open_image(data)


def test_a_second_header_is_refused() -> None:
    data = PNG[:33] + png_header(20_000, 20_000)[8:] + PNG[33:]
    with pytest.raises(ImageError, match="too large"):
        open_image(data)
    second = progressive_jpeg(12, side=64)
    frame = second[second.index(b"\xff\xc2") :][:13]
    with pytest.raises(ImageError, match="broken data stream"):
        decode_image(JPEG.replace(b"\xff\xda", frame + b"\xff\xda", 1))


@pytest.mark.parametrize("data", [one_bit_png(512), rgba_png(512), progressive_jpeg(12, side=512)])
def test_decoding_stops_when_it_is_not_wanted_any_more(data: bytes) -> None:
    reads = iter([True] * 5)
    with pytest.raises(DecodingStoppedError):
        open_image(data).decode(lambda: next(reads, False))


def gives_an_array_or_an_image_error(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image = decode_image(data, max_pixels=1 << 16)
        except ImageError as error:
            assert str(error)  # noqa: PT017 - either outcome is right
        else:
            assert image.shape == (32, 32, 3)
            assert image.dtype == np.uint8


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.sampled_from([b"", PNG[:8], PNG[:33], JPEG[:3], JPEG[:20]]))
def test_any_bytes_give_an_array_or_an_image_error(data: bytes, start: bytes) -> None:
    gives_an_array_or_an_image_error(start + data)


@settings(deadline=None, derandomize=True)
@given(st.sampled_from([PNG, JPEG, PROGRESSIVE, PALETTE]), st.data())
def test_any_damage_gives_an_array_or_an_image_error(data: bytes, draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, len(data) - 1))
    # Most errors are in the headers.
    start = draw.draw(st.sampled_from([start, min(start, start % 200)]))
    stop = draw.draw(st.integers(start, min(start + 20, len(data))))
    gives_an_array_or_an_image_error(data[:start] + draw.draw(st.binary(max_size=20)) + data[stop:])


MARKERS = [
    b"\xff\xda",
    b"\xff\xd9",
    b"\xff\xff",
    b"\xff\x02",
    b"\xff\xd3",
    b"\xff\xfe\0\x08",
    b"\xff\0",
]
RESTARTED = file_of(Image.fromarray(PIXELS), "JPEG", progressive=True, restart_marker_blocks=2)


@settings(deadline=None, derandomize=True)
@given(
    st.sampled_from([JPEG, PROGRESSIVE, RESTARTED]),
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from(MARKERS)), min_size=1, max_size=4),
)
def test_a_jpeg_ends_where_its_decoder_finds_its_end(
    data: bytes, inserted: list[tuple[float, bytes]]
) -> None:
    start = data.index(b"\xff\xda") + len(b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0")
    for where, marker in inserted:
        position = start + int(where * (len(data) - start))
        data = data[:position] + marker + data[position:]
    try:
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except OSError:
        return  # damaged: a cut only damages it differently
    assert np.array_equal(decode_image(data), expected)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from([b"IHDR", b"PLTE", b"tRNS", b"IDAT"]), st.binary())))
def test_any_chunks_give_an_array_or_an_image_error(chunks: list[tuple[bytes, bytes]]) -> None:
    body = b"".join(png_chunk(kind, content) for kind, content in chunks)
    for depth, colour in ((8, 2), (1, 0), (8, 3), (16, 0), (16, 6)):
        pixels = png_chunk(b"IDAT", zlib.compress(bytes(32 * 300)))
        header = png_header(32, 32, depth, colour)
        gives_an_array_or_an_image_error(header + body + pixels + png_chunk(b"IEND", b""))


@pytest.mark.parametrize(
    "image", [np.zeros((32, 32), np.uint8), np.zeros((32, 32, 4), np.uint8), np.zeros((32, 32, 3))]
)
def test_only_rgb_bytes_are_encoded(image: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[height, width, 3\]"):
        encode_png(image)


def test_normalize_scales_every_value_as_the_protocol_does() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    batch = values.reshape(256, 1, 1, 1).expand(256, 32, 32, 3)
    scaled = normalize(batch)
    assert scaled.shape == (256, 3, 32, 32)
    assert scaled.dtype == torch.float32
    assert scaled.is_contiguous(memory_format=torch.channels_last)
    expected = (values.double() / 255 - 0.5) / 0.5
    assert torch.allclose(scaled[:, 0, 0, 0].double(), expected, atol=1e-7, rtol=0)
    assert scaled.min() == -1
    assert scaled.max() == 1


def test_normalize_puts_channels_first() -> None:
    scaled = normalize(torch.from_numpy(PIXELS).unsqueeze(0))
    assert scaled[0, 2, 5, 7] == torch.tensor(PIXELS[5, 7, 2] / 127.5 - 1, dtype=torch.float32)
