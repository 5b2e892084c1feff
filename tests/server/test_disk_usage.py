"""What takes the space of the disk, and that older checkpoints can be made to take less."""

import json
import subprocess
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from client.cli_outcome import SCRIPT
from leadline.client import Client, JobDiskUsage
from leadline.client.cli.exit_codes import ExitCode
from leadline.models.checkpoint_files import list_epochs, load_info, load_predictions
from leadline.models.images import encode_png
from leadline.v1.training_service_pb2 import ListDiskUsageRequest
from support.checkpoints import make_older
from support.datasets import dataset_of
from support.servers import LiveServer, ServerFactory
from support.wire import connect, violations

DATASET = dataset_of(__file__)
IMAGE = encode_png(np.full((32, 32, 3), 99, dtype=np.uint8))
EPOCHS = 12

pytestmark = pytest.mark.system


def leadline(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def train(server: LiveServer, epochs: int = EPOCHS) -> tuple[str, Path]:
    """The model of a job whose optimizer has state, and the folder of its checkpoints."""
    with Client(server.target) as client:
        job = client.train(dataset=DATASET, blocks=1, epochs=epochs, batch_size=200, momentum=0.9)
        job.result()
    return job.model, server.data_dir / job.model / "attempt-001"


def total(usage: JobDiskUsage) -> int:
    return usage.weights_bytes + usage.predictions_bytes + usage.optimizer_bytes + usage.other_bytes


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_space_is_told_by_job_and_by_kind_page_by_page(server_factory: ServerFactory) -> None:
    server = server_factory()
    models = [train(server, epochs) for epochs in (4, 2, 1)]
    states = [sorted(folder.glob("*.optimizer.safetensors")) for _, folder in models]
    (models[2][1] / "unknown").write_bytes(bytes(77))

    with Client(server.target) as client:
        usage = client.disk_usage()
        assert client.disk_usage(page_size=1).jobs == usage.jobs

    newest_first = [f"jobs/{model.removeprefix('models/')}" for model, _ in reversed(models)]
    assert [job.job for job in usage.jobs] == newest_first
    assert [job.checkpoints for job in usage.jobs] == [1, 2, 4]
    for job, (_, folder), files in zip(reversed(usage.jobs), models, states, strict=True):
        assert total(job) == size_of(folder)
        assert job.optimizer_bytes == sum(path.stat().st_size for path in files)
        assert job.weights_bytes == job.checkpoints * load_info(folder, 1).files["weights"].size
    assert [job.other_bytes for job in usage.jobs] == [77, 0, 0]
    # An epoch from which no job resumes has no state.
    names = [path.name[:11] for path in states[0]]
    assert names == ["epoch-00003", "epoch-00004"]
    assert usage.database_bytes >= (server.data_dir / "leadline.db").stat().st_size
    assert usage.datasets_bytes == size_of(server.data_dir / "datasets")
    assert usage.free_bytes > usage.floor_bytes > 0

    printed = leadline("usage", "--jobs", "2", "--target", server.target)
    assert printed.returncode == ExitCode.SUCCESS, printed.stderr
    for word in ("weights", "predictions", "optimizer", "database", "datasets", newest_first[2]):
        assert word in printed.stdout
    assert newest_first[0] not in printed.stdout
    assert "Not shown: 1;" in printed.stdout
    as_json = leadline("usage", "--json", "--target", server.target)
    assert len(json.loads(as_json.stdout)["jobs"]) == 3


def test_a_wrong_request_for_the_space_is_refused(server_factory: ServerFactory) -> None:
    stubs = connect(server_factory().target)
    for request, field in (
        (ListDiskUsageRequest(page_size=-1), "page_size"),
        (ListDiskUsageRequest(page_token="never"), "page_token"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            stubs.training.ListDiskUsage(request, timeout=10)
        assert list(violations(refused.value)) == [field]
    stubs.channel.close()


def test_older_checkpoints_are_served_as_they_are_and_compacted_on_request(
    server_factory: ServerFactory,
) -> None:
    server = server_factory()
    model, folder = train(server)
    names = [f"{model}/epochs/{epoch}" for epoch in (1, EPOCHS)]

    def answers(target: str) -> list[object]:
        """Predictions of both epochs, and the classes of their wrong images."""
        with Client(target) as client:
            return [
                (
                    [score.probability for score in client.predict(IMAGE, model=name)],
                    sorted(
                        (example.index, example.predicted_class_index)
                        for example in client.misclassified(model=name)
                    ),
                )
                for name in names
            ]

    expected = answers(server.target)
    beside = leadline("compact", "--data-dir", str(server.data_dir))
    server.stop()
    for epoch in list_epochs(folder):
        make_older(folder, epoch)
        state = folder / f"epoch-{epoch:05}.optimizer.safetensors"
        state.write_bytes((folder / f"epoch-{EPOCHS:05}.optimizer.safetensors").read_bytes())
    older_size = size_of(folder)

    server = server_factory()
    assert answers(server.target) == expected
    server.stop()
    done = leadline("compact", "--data-dir", str(server.data_dir), "--json")
    again = leadline("compact", "--data-dir", str(server.data_dir))

    assert (beside.returncode, done.returncode) == (ExitCode.FAILED, ExitCode.SUCCESS)
    assert "another server uses the data directory" in beside.stderr
    assert json.loads(done.stdout) == {
        "model": model,
        "epochs": EPOCHS,
        "bytes_before": older_size,
        "bytes_after": size_of(folder),
        "damaged": [],
    }
    assert again.stdout.endswith("0 B are free again.\n")
    assert size_of(folder) < older_size / 2
    checkpoints = [f"epoch-{epoch:05}.checkpoint" for epoch in range(1, EPOCHS + 1)]
    states = [f"epoch-{epoch:05}.optimizer.safetensors" for epoch in (EPOCHS - 1, EPOCHS)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(checkpoints + states)
    assert answers(server_factory().target) == expected


def test_a_compaction_that_is_killed_loses_nothing(server_factory: ServerFactory) -> None:
    server = server_factory()
    _, folder = train(server)
    server.stop()
    hashes = [load_info(folder, epoch).weights_sha256 for epoch in range(1, EPOCHS + 1)]
    for epoch in range(1, EPOCHS + 1):
        make_older(folder, epoch)
    command = [*SCRIPT, "compact", "--data-dir", str(server.data_dir)]

    kills = 0
    while (process := subprocess.Popen(command, stdout=subprocess.DEVNULL)).poll() is None:
        before = len(list(folder.glob("*.checkpoint")))
        while process.poll() is None and len(list(folder.glob("*.checkpoint"))) < before + 2:
            time.sleep(0.0005)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
        assert list_epochs(folder) == list(range(1, EPOCHS + 1))
        for epoch, weights in enumerate(hashes, start=1):
            assert load_info(folder, epoch).weights_sha256 == weights
            load_predictions(folder, epoch)

    assert process.wait() == ExitCode.SUCCESS
    assert kills > 0
    assert not list(folder.glob("*.json"))
    assert len(list(folder.glob("*.checkpoint"))) == EPOCHS


def test_a_damaged_checkpoint_stays_as_it_is_and_is_named(server_factory: ServerFactory) -> None:
    server = server_factory()
    _, folder = train(server, epochs=2)
    server.stop()
    for epoch in (1, 2):
        make_older(folder, epoch)
    damaged = folder / "epoch-00001.safetensors"
    damaged.write_bytes(b"damaged")

    done = leadline("compact", "--data-dir", str(server.data_dir))

    assert done.returncode == ExitCode.FAILED
    assert f"{damaged} has 7 bytes" in done.stdout
    assert (folder / "epoch-00001.json").exists()
    assert (folder / "epoch-00002.checkpoint").exists()


def test_a_folder_that_is_no_data_directory_is_refused_and_stays_empty(tmp_path: Path) -> None:
    done = leadline("compact", "--data-dir", str(tmp_path))

    assert done.returncode == ExitCode.FAILED
    assert f"{tmp_path} is no data directory" in done.stderr
    assert not list(tmp_path.iterdir())
