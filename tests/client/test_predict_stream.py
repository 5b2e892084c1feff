"""`predict_stream` of both clients, with real servers and bad connections."""

import asyncio
import gc
import os
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from leadline.client import (
    AsyncClient,
    Client,
    ClientClosedError,
    ImageFailure,
    InvalidArgumentError,
    Model,
    NotFoundError,
    Prediction,
    UnavailableError,
    _batches,
)
from leadline.client._batches import BatchLimits
from support.datasets import dataset_of
from support.proxy import Proxy
from support.servers import LiveServer, ServerFactory, read_images

DATASET = dataset_of(__file__)

MakeClient = Callable[..., Client]


@dataclass
class Known:
    """A model, images, and their predictions."""

    model: Model
    files: list[Path]
    pixels: Any  # uint8 [200, 32, 32, 3]
    marks: list[float]


@pytest.fixture(scope="module")
def known(live_server: LiveServer, model: Model, test_images: list[Path]) -> Known:
    pixels = read_images(test_images)
    with Client(live_server.target) as client:
        predictions = client.predict(pixels, model=model)
    return Known(model, test_images, pixels, marks(predictions))


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits the messages of a stream to 3 images."""
    monkeypatch.setattr(_batches, "STREAM_LIMITS", limits(images=3))


def limits(*, images: int) -> BatchLimits:
    return BatchLimits(images=images, bytes=960 * 1024)


def marks(results: Any) -> list[float]:
    """Returns what distinguishes a prediction: its class and its probability."""
    return [result.class_index + result.probability for result in results]


def same(expected: list[float]) -> Any:
    # Images round differently in a batch than alone.
    return pytest.approx(expected, abs=1e-4)


def test_every_image_has_its_prediction_in_order(client: Client, known: Known) -> None:
    stream = client.predict_stream(iter(known.files), model=known.model)
    assert marks(stream) == same(known.marks)
    assert stream.model == f"{known.model.name}/epochs/{known.model.best_epoch}"
    assert stream.weights_sha256 == known.model.epochs[known.model.best_epoch - 1].weights_sha256
    assert marks(client.predict_stream(known.pixels, model=known.model.name)) == same(known.marks)
    assert marks(client.predict_stream(known.files[0], model=known.model)) == same(known.marks[:1])
    assert list(client.predict_stream([], model=known.model)) == []


@pytest.mark.usefixtures("small_batches")
def test_kinds_may_be_mixed(client: Client, known: Known) -> None:
    floats = (known.pixels.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)
    images = [
        *known.files[:2],
        known.pixels[2],
        known.pixels[3:9],
        known.files[9].read_bytes(),
        floats[10:12],
        Pillow.open(known.files[12]),
    ]
    assert marks(client.predict_stream(images, model=known.model)) == same(known.marks[:13])
    assert marks(client.predict(images, model=known.model)) == same(known.marks[:13])


@pytest.mark.parametrize("images_a_message", [1, 3, 256])
def test_an_image_that_cannot_be_classified_keeps_no_other_from_being(
    client: Client,
    known: Known,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images_a_message: int,
) -> None:
    monkeypatch.setattr(_batches, "STREAM_LIMITS", limits(images=images_a_message))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    nan = np.full((3, 32, 32), np.nan, np.float32)
    images: list[Any] = list(known.files[:40])
    bad: dict[int, Any] = {
        0: b"no image",
        3: tmp_path / "missing.png",
        4: tmp_path,
        5: pipe,
        11: b"",
        20: nan,
        **dict.fromkeys(range(21, 25), b"junk"),
        30: 7,
        31: np.zeros((5, 5), np.uint8),
        39: known.files[0].read_bytes()[:60],
    }
    for index, image in bad.items():
        images[index] = image

    results = list(client.predict_stream(images, model=known.model))

    failures = {one.index: one for one in results if isinstance(one, ImageFailure)}
    assert len(results) == 40
    assert sorted(failures) == sorted(bad)
    assert all(results[index] is failure for index, failure in failures.items())
    good = [index for index in range(40) if index not in bad]
    assert marks(results[index] for index in good) == same([known.marks[index] for index in good])
    assert isinstance(failures[3].error, FileNotFoundError)
    assert str(failures[3]) == "No such file or directory"
    assert isinstance(failures[4].error, IsADirectoryError)
    assert "not a regular file" in str(failures[5])
    for index in (0, 11, 20, 23, 30, 31, 39):
        error = failures[index].error
        assert isinstance(error, InvalidArgumentError)
        assert [one.field for one in error.violations] == [f"images[{index}]"]
        assert str(failures[index])


@pytest.mark.usefixtures("small_batches")
def test_a_stream_of_nothing_but_junk_ends_too(client: Client, known: Known) -> None:
    results = list(client.predict_stream([b"junk"] * 10, model=known.model))
    assert [one.index for one in results if isinstance(one, ImageFailure)] == list(range(10))


@pytest.mark.usefixtures("small_batches")
def test_images_are_taken_as_answers_are(client: Client, known: Known) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield known.files[taken % len(known.files)]

    stream = client.predict_stream(endless(), model=known.model)
    for answered in range(1, 60):
        assert isinstance(next(stream), Prediction)
        # Four messages of three images in flight, and the one that the caller reads.
        assert taken <= answered + 5 * 3
    stream.close()
    assert list(stream) == []


def test_a_batch_size_has_answers_come_sooner(client: Client, known: Known) -> None:
    taken = 0

    def slowly() -> Iterator[Path]:
        nonlocal taken
        for image in known.files:
            taken += 1
            yield image

    stream = client.predict_stream(slowly(), model=known.model, batch_size=1)
    seen = []
    for result in stream:
        seen.append(result)
        assert taken <= len(seen) + 4
    assert marks(seen) == same(known.marks)
    for batch_size in (0, 1025):
        with pytest.raises(InvalidArgumentError, match="must be from 1 to 1024"):
            client.predict_stream([], model=known.model, batch_size=batch_size)


def test_logits_and_more_classes_are_returned_where_they_are_asked_for(
    client: Client, known: Known
) -> None:
    plain = next(client.predict_stream(known.pixels[:2], model=known.model))
    assert isinstance(plain, Prediction)
    assert (len(plain.top_k), len(plain.logits)) == (1, 0)
    for one in (
        *client.predict(known.pixels[:2], model=known.model, top_k=3, include_logits=True),
        *client.predict_stream(known.pixels[:2], model=known.model, top_k=3, include_logits=True),
    ):
        assert isinstance(one, Prediction)
        assert (len(one.top_k), len(one.logits)) == (3, 10)
        assert max(one.logits) == one.logits[one.class_index]


def test_what_is_wrong_with_the_call_is_raised(client: Client, known: Known) -> None:
    with pytest.raises(InvalidArgumentError, match="either a model or a variant"):
        client.predict_stream(known.pixels)
    with pytest.raises(InvalidArgumentError) as caught:
        next(client.predict_stream(known.pixels, model=known.model, top_k=5000))
    assert [one.field for one in caught.value.violations] == ["top_k"]
    with pytest.raises(InvalidArgumentError, match="cannot be made from int"):
        next(client.predict_stream(7, model=known.model))  # type: ignore[arg-type]
    for selector in ({"model": "nobody"}, {"dataset": "tiny", "blocks": 63}):
        with pytest.raises(NotFoundError):
            next(client.predict_stream(known.pixels, **selector))


def test_a_generator_that_fails_is_told_to_the_caller(client: Client, known: Known) -> None:
    def failing() -> Iterator[bytes]:
        yield b"junk"
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(client.predict_stream(failing(), model=known.model))


def test_the_handle_of_a_job_predicts_by_its_model(client: Client, known: Known) -> None:
    job = client.job(known.model.job)
    assert marks(job.predict(known.pixels)) == same(known.marks)
    by_first = job.predict(known.pixels[:3], epoch=1, top_k=2, include_logits=True)
    assert by_first.model == known.model.epochs[0].name
    assert len(by_first[0].logits) == 10
    assert marks(job.predict_stream(known.pixels)) == same(known.marks)
    streamed = job.predict_stream(known.pixels[:3], epoch=1)
    assert marks(streamed) == same(marks(by_first))
    assert streamed.model == known.model.epochs[0].name
    by_message = client.predict(known.pixels[:3], model=known.model.epochs[0])
    assert marks(by_message) == same(marks(by_first))
    with pytest.raises(NotFoundError):
        job.predict(known.pixels[:1], epoch=4)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.usefixtures("small_batches")
def test_no_answer_is_lost_or_repeated_over_a_connection_that_is_cut(
    make_client: MakeClient,
    live_server: LiveServer,
    known: Known,
    impatient: list[tuple[str, int]],
    seed: int,
) -> None:
    numbers = random.Random(seed)  # noqa: S311 - repeatable on purpose
    # From the middle of the first answer to after many answers of about 300 bytes.
    told: list[float] = []
    with Proxy(live_server.target, [numbers.randint(200, 2500) for _ in range(12)]) as proxy:
        stream = make_client(proxy.target, options=impatient).predict_stream(
            known.files, model=known.model, on_reconnect=lambda _error, delay: told.append(delay)
        )
        assert marks(stream) == same(known.marks)
        assert proxy.cuts > 3
    assert told


@pytest.mark.usefixtures("small_batches")
def test_a_stream_goes_on_with_the_server_that_comes_after_a_killed_one(
    make_client: MakeClient,
    server_factory: ServerFactory,
    test_images: list[Path],
    impatient: list[tuple[str, int]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        flags = ("--port", str(free.getsockname()[1]), "--spare-workers", "0")
    server = server_factory(*flags)
    client = make_client(server.target, options=impatient)
    job = client.train(dataset=DATASET, blocks=0, epochs=1, batch_size=200)
    job.result()
    whole = marks(job.predict(test_images))

    stream = job.predict_stream(test_images)
    found = [next(stream) for _ in range(20)]
    server.process.kill()
    server.process.wait()
    server_factory(*flags)
    found += list(stream)

    assert marks(found) == same(whole)


def test_smaller_limits_of_a_server_are_kept_to(
    make_client: MakeClient, server_factory: ServerFactory, test_images: list[Path]
) -> None:
    server = server_factory(
        *("--max-images-per-request", "3", "--max-message-bytes", str(1 << 20)),
        *("--max-image-bytes", "1000000"),
    )
    client = make_client(server.target)
    job = client.train(dataset=DATASET, blocks=0, epochs=1, batch_size=200)
    job.result()
    whole = [marks(job.predict(path))[0] for path in test_images[:20]]
    # One image above the server's limit on images, and one above its limit on messages.
    images: list[Any] = [*test_images[:20]]
    images[7:7] = [bytes(1_001_000), bytes(2 << 20)]

    results = list(job.predict_stream(images))

    assert [one.index for one in results if isinstance(one, ImageFailure)] == [7, 8]
    assert marks(one for one in results if isinstance(one, Prediction)) == same(whole)
    assert marks(job.predict(test_images[:20])) == same(whole)


def test_a_server_that_is_not_there_is_told_soon(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(f"unix:{tmp_path}/nobody", timeout=5)
    with pytest.raises(UnavailableError):
        next(client.predict_stream([b"a"], model="a"))


@pytest.mark.usefixtures("small_batches")
def test_a_stream_of_a_closed_client_ends(
    make_client: MakeClient, live_server: LiveServer, known: Known
) -> None:
    client = make_client(live_server.target)
    stream = client.predict_stream(known.files, model=known.model)
    next(stream)
    client.close()
    with pytest.raises(ClientClosedError):
        list(stream)
    with pytest.raises(ClientClosedError):
        next(client.predict_stream(known.files, model=known.model))


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("way", ["closed", "dropped", "read to its end"])
def test_a_stream_that_is_done_leaves_no_thread_behind(
    live_server: LiveServer, known: Known, way: str
) -> None:
    with Client(live_server.target) as client:
        client.health()
        before = set(threading.enumerate())
        gc.disable()
        stream = client.predict_stream(known.files, model=known.model)
        next(stream)
        if way == "closed":
            stream.close()
        elif way == "read to its end":
            list(stream)
        del stream
        deadline = time.monotonic() + 20
        while left := set(threading.enumerate()) - before:
            assert time.monotonic() < deadline, left
            time.sleep(0.01)
        gc.enable()


@pytest.mark.usefixtures("small_batches")
async def test_asynchronous_streams_run_side_by_side_and_take_asynchronous_images(
    live_server: LiveServer, known: Known
) -> None:
    async def slowly(images: list[Path]) -> AsyncIterator[Path]:
        for image in images:
            await asyncio.sleep(0)
            yield image

    async with AsyncClient(live_server.target) as client:

        async def run(start: int) -> list[float]:
            stream = client.predict_stream(slowly(known.files[start:]), model=known.model)
            return marks([one async for one in stream])

        starts = range(0, 100, 20)
        found = await asyncio.gather(*(run(start) for start in starts))

    for start, answers in zip(starts, found, strict=True):
        assert answers == same(known.marks[start:])


@pytest.mark.usefixtures("small_batches")
async def test_a_cancelled_task_leaves_its_stream(live_server: LiveServer, known: Known) -> None:
    async with AsyncClient(live_server.target) as client:
        stream = client.predict_stream(known.files, model=known.model)
        await anext(stream)

        async def rest() -> None:
            async for _ in stream:
                pass

        task = asyncio.create_task(rest())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The client still works.
        assert (await client.predict(known.files[:2], model=known.model)).model
