"""Datasets whose `--dataset` is missing at a later start."""

import contextlib
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from leadline.models.datasets import DatasetError
from leadline.server.datasets import prepare_datasets
from leadline.v1.job_pb2 import JOB_STATE_SUCCEEDED
from leadline.v1.training_service_pb2 import TrainJobRequest
from support.hostile_images import rgba_png
from support.servers import Launcher, LiveServer, start_server
from support.wire import Stubs, connect, tiny_spec, violations


@contextmanager
def restarted(folder: Path, *flags: str) -> Iterator[tuple[LiveServer, Stubs]]:
    server = start_server(folder, "--spare-workers", "0", *flags)
    stubs = connect(server.target)
    try:
        yield server, stubs
    finally:
        stubs.channel.close()
        with contextlib.suppress(ProcessLookupError):
            server.stop(signal.SIGTERM)


@pytest.mark.system
def test_a_dataset_of_an_earlier_start_is_served_from_the_cache_and_refused_without_it(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_dataset, source)
    named = [f"--dataset={name}={source}" for name in ("cifar10", "pets")]
    with restarted(tmp_path, *named) as (server, _):
        data = server.data_dir

    with restarted(tmp_path) as (_, stubs):
        for name in ("cifar10", "pets"):
            request = TrainJobRequest(spec=tiny_spec(dataset=name, epochs=1))
            *_, last = stubs.training.TrainJob(request, timeout=60)
            assert last.finished.state == JOB_STATE_SUCCEEDED, last
        with pytest.raises(grpc.RpcError) as refused:
            next(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(dataset="birds"))))
        assert "'birds' is not known" in violations(refused.value)["spec.dataset"]

    for cached in data.glob("datasets/*/dataset.json"):
        shutil.rmtree(cached.parent)
    source.rename(tmp_path / "away")
    with restarted(tmp_path) as (_, stubs), pytest.raises(grpc.RpcError) as refused:
        next(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(dataset="pets"))))

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'pets' is not known" in violations(refused.value)["spec.dataset"]

    (tmp_path / "away").rename(source)
    with restarted(tmp_path) as (_, stubs):
        *_, last = stubs.training.TrainJob(
            TrainJobRequest(spec=tiny_spec(dataset="pets", epochs=1)), timeout=60
        )
    assert last.finished.state == JOB_STATE_SUCCEEDED, last


@pytest.mark.system
def test_sigterm_ends_a_start_that_is_still_decoding(tmp_path: Path) -> None:
    source, image = tmp_path / "bombs", rgba_png()
    for folder in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (source / folder).mkdir(parents=True)
        for number in range(50):  # a minute of work
            (source / folder / f"{number}.png").write_bytes(image)
    launcher = Launcher(tmp_path, "--port", "0", f"--dataset=bombs={source}")
    process = launcher.spawn()
    building = tmp_path / "data" / "datasets"
    deadline = time.monotonic() + 60
    while not list(building.glob(".building-*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)

    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=20) == 0
    assert not list(building.glob(".building-*"))
    assert "stopped before it served" in launcher.last_words()


@pytest.mark.parametrize(
    "contents",
    [
        *("null", "[]", "3", "{", '{"x": "y"}', '{"x": {}}', "[" * 100_000),
        '{"x": {"source": 1, "fingerprint": "a"}}',
    ],
)
def test_a_damaged_file_of_names_ends_the_start_with_what_to_do(
    tmp_path: Path, contents: str
) -> None:
    (tmp_path / "names.json").write_text(contents)

    with pytest.raises(DatasetError, match=r"names\.json .* remove it"):
        prepare_datasets({}, tmp_path, max_pixels=1)
