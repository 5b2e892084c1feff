"""Images that need much time or memory to decode."""

import asyncio

from hostile.attack import Bar, Scene, attack
from hostile.calls import send
from leadline.v1.inference_service_pb2 import PredictRequest
from support.bare_http2 import Connection
from support.hostile_images import (
    one_bit_png,
    progressive_jpeg,
    progressive_jpeg_of_bytes,
    rgba_png,
)

_PREDICT = "/leadline.v1.InferenceService/Predict"

# The most scans that the server decodes for an image of 16 million pixels.
_ALLOWED_SCANS = 16

# Two threads or processes each hold two copies of an image of 16 million pixels.
_DECODING = Bar(memory_mib=512)


@attack(
    source="progressive JPEG: the LibJPEG-turbo report LJT-01-005",
    bar=_DECODING,
    is_of_transport=True,
)
async def progressive_jpegs(scene: Scene) -> None:
    """Sends JPEGs of thousands of scans, and disconnects after a second.

    Each scan makes a decoder visit every block of the image again. A decoder that cannot be stopped
    continues for minutes after its caller has left, and all other images wait for it.
    """
    largest = 15 << 20
    bulks = [
        [progressive_jpeg(scene.scaled(400, 1_300))],
        [progressive_jpeg(_ALLOWED_SCANS)] * scene.scaled(2, 16),
        *scene.scaled([], [[progressive_jpeg_of_bytes(largest)], [_noisy_jpeg(largest)]]),
    ]
    await _predict(scene, bulks, at_once=2, seconds=1)


def _noisy_jpeg(size: int) -> bytes:
    return progressive_jpeg_of_bytes(size, noise=True)


@attack(source="decompression bomb, within the limits of one image", bar=_DECODING)
async def bulk_of_pngs(scene: Scene) -> None:
    """Sends requests of 16 and 48 PNGs of 16 million pixels, 2 KB each.

    Each image is within the limits of one image. Together they exceed the limit of a request with
    800 million pixels, or are just within it.
    """
    bulks = [[one_bit_png()] * count for count in scene.scaled((16, 24), (16, 48))]
    await _predict(scene, bulks, at_once=2, seconds=60)


@attack(source="decompression bomb, within the limits of one image", bar=_DECODING)
async def large_rgba(scene: Scene) -> None:
    """Sends 64 images at once that each need 64 MiB decoded, and as much again for blending.

    All of them in memory would need 8 GiB.
    """
    await _predict(scene, [[rgba_png()]], at_once=scene.scaled(16, 64), seconds=10)


async def _predict(scene: Scene, bulks: list[list[bytes]], *, at_once: int, seconds: int) -> None:
    requests = []
    for images in bulks:
        request = PredictRequest(model=scene.site.model)
        request.encoded.images.extend(images)
        requests.append(request.SerializeToString())
    count = 0

    async def predict() -> None:
        nonlocal count
        count += 1
        async with Connection(scene.site.port) as connection, asyncio.timeout(seconds + 5):
            await send(
                scene, connection, _PREDICT, requests[count % len(requests)], seconds=seconds
            )

    await scene.begin()
    await scene.repeat(at_once, predict)
