"""Files that are not what the server, or a library that reads them for it, expects."""

import asyncio
import io
import itertools
import json
import random
import resource
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from hostile.attack import Bar, Scene, attack
from hostile.calls import send
from leadline.client import Client, LeadlineError
from leadline.v1.inference_service_pb2 import PredictRequest
from support.bare_http2 import Connection

_SEED = 20_240_501
_PREDICT = "/leadline.v1.InferenceService/Predict"


@attack(
    source="CWE-502, deserialization; CWE-354, integrity",
    flags=("--max-loaded-bytes=0",),  # so that each prediction reads its files
    is_finite=True,
)
async def mutated_checkpoints(scene: Scene) -> None:
    """Changes bytes of a model's files, cuts them, and swaps them, before each of 400 predictions.

    A prediction is as before or DATA_LOSS: never another one, and never a fault of the server.
    """
    chance = random.Random(_SEED)  # noqa: S311 - chance, not secrets
    folder = scene.site.data_dir / "models" / scene.site.victim.removeprefix("models/")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    request = PredictRequest(model=scene.site.victim, include_logits=True)
    request.encoded.images.append(scene.site.image)
    message = request.SerializeToString()
    await scene.begin()
    async with Connection(scene.site.port) as connection:
        expected = await _prediction(scene, connection, message)
        for number in range(scene.scaled(40, 400)):
            path = files[number % len(files)]
            data = path.read_bytes()
            path.write_bytes(_mutated(data, files, chance))
            answer = await _prediction(scene, connection, message)
            path.write_bytes(data)
            if answer not in (expected, b"DATA_LOSS"):
                scene.wrong.append(f"mutation {number} of {path.name}: {answer[:40]!r}")


async def _prediction(scene: Scene, connection: Connection, message: bytes) -> bytes:
    status, body = await send(scene, connection, _PREDICT, message), b""
    return connection.last_body if status == "OK" else status.encode()
