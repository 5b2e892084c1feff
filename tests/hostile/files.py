"""Files that the server, or a library that it uses, does not expect."""

import asyncio
import io
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from hostile.attack import Scene, attack
from hostile.calls import ask
from leadline.v1.inference_service_pb2 import PredictRequest
from support.bare_http2 import Connection

_SEED = 20_240_501
_PREDICT = "/leadline.v1.InferenceService/Predict"

# Reads an archive like `leadline serve --dataset`, and must refuse it.
_READ = """
import pathlib, sys
from leadline.models.datasets import DatasetError, open_dataset
try:
    open_dataset(sys.argv[1], pathlib.Path(sys.argv[2]))
except DatasetError:
    sys.exit(7)
"""
_REFUSED = 7
_MOST_MIB = 1_024


@attack(
    source="deserialization (CWE-502), integrity (CWE-354)",
    flags=("--max-loaded-bytes=0",),  # so that each prediction reads its files
    is_finite=True,
)
async def mutated_checkpoints(scene: Scene) -> None:
    """Changes, cuts and swaps files of a model before each of 400 predictions.

    A prediction must be unchanged or DATA_LOSS: never different, and never an internal error.
    """
    chance = random.Random(_SEED)  # noqa: S311 - chance, not secrets
    folder = scene.site.data_dir / "models" / scene.site.victim.removeprefix("models/")
    files = sorted(path for path in folder.rglob("epoch-*") if path.is_file())
    await scene.begin()
    async with Connection(scene.site.port) as connection:
        expected = {epoch: await _prediction(scene, connection, epoch) for epoch in (1, 2)}
        for number in range(scene.scaled(40, 400)):
            path = files[number % len(files)]
            epoch = 1 if path.name.startswith("epoch-00001") else 2
            data = path.read_bytes()
            path.write_bytes(_mutated(data, files, chance))
            await _prediction(scene, connection, 3 - epoch)  # the server evicts the first one
            answer = await _prediction(scene, connection, epoch)
            path.write_bytes(data)
            if answer not in (expected[epoch], b"DATA_LOSS"):
                scene.wrong.append(f"mutation {number} of {path.name}: {answer[:60]!r}")


async def _prediction(scene: Scene, connection: Connection, epoch: int) -> bytes:
    model = f"{scene.site.victim}/epochs/{epoch}"
    request = PredictRequest(model=model, include_logits=True)
    request.encoded.images.append(scene.site.image)
    status, answer = await ask(scene, connection, _PREDICT, request.SerializeToString())
    return answer.body if status == "OK" else status.encode()


def _mutated(data: bytes, files: list[Path], chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    match chance.randrange(5):
        case 0:
            return (
                data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
            )
        case 1:
            return data[:place]
        case 2:
            return data + chance.randbytes(100)
        case 3:
            return bytes(len(data))
        case _:
            return chance.choice(files).read_bytes()


@attack(source="Zip Slip (CVE-2018-1002200 and others), decompression bombs", is_finite=True)
async def hostile_archives(scene: Scene) -> None:
    """Reads tars with path traversal, links, devices, bombs, and a flood of members.

    No part of them may appear on disk, and a refusal may not need a gigabyte of memory.
    """
    folder = scene.site.folder / "archives"
    folder.mkdir()
    archives = dict(_archives(scene, folder))
    await scene.begin()
    for name, path in archives.items():
        status, mebibytes = await asyncio.to_thread(_read, path, folder / "cache")
        scene.tally["refused" if status == _REFUSED else f"status {status}"] += 1
        if status != _REFUSED:
            scene.wrong.append(f"{name}: status {status}")
        if mebibytes > _MOST_MIB:
            scene.wrong.append(f"{name}: it took {mebibytes} MiB")
    if (folder.parent / "escaped.png").exists():
        scene.wrong.append("a member was unpacked outside")


def _archives(scene: Scene, folder: Path) -> Iterator[tuple[str, Path]]:
    outside = str(folder.parent / "escaped.png")
    yield "absolute path", _tar(folder / "absolute.tar", [(outside, tarfile.REGTYPE, b"x")])
    up = "train/ant/../../../escaped.png"
    yield "path that leads up", _tar(folder / "up.tar", [(up, tarfile.REGTYPE, b"x")])
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        members = [("train/ant/0.png", kind, b""), ("test/ant/0.png", kind, b"")]
        yield f"member of type {kind!r}", _tar(folder / f"type{kind.decode()}.tar", members)
    count = scene.scaled(2_000, 200_000)
    flood = [(f"train/ant/{number}.txt", tarfile.REGTYPE, b"") for number in range(count)]
    yield "flood of members", _tar(folder / "flood.tar.gz", flood)
    long = [(f"train/{number}{'n' * 100_000}/0.png", tarfile.REGTYPE, b"") for number in range(500)]
    yield "long names", _tar(folder / "names.tar.gz", long)
    bomb = [("train/ant/0.png", tarfile.REGTYPE, bytes(scene.scaled(100, 1_000) << 20))]
    yield "bomb", _tar(folder / "bomb.tar.gz", bomb)


def _tar(path: Path, members: list[tuple[str, bytes, bytes]]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(content), "/etc/passwd"
            tar.addfile(member, io.BytesIO(content))
    return path


def _read(path: Path, cache: Path) -> tuple[int, int]:
    """Returns the exit status of a process that reads an archive, and its peak memory in MiB."""
    process = subprocess.Popen([sys.executable, "-c", _READ, str(path), str(cache)])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss // 1024
