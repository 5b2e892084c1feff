"""Deletions that race with each other, with readers, with workers and with a kill."""

import signal
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store
from leadline.v1 import inference_service_pb2 as inference
from leadline.v1 import training_service_pb2 as training
from support.servers import ServerFactory
from support.stores import fill_database
from support.wire import Stubs, connect, tiny_spec

ROUNDS = 200


def make_folders(models: Path, job_ids: Iterable[str]) -> None:
    """Creates files like those of checkpoints for each job."""
    for job_id in job_ids:
        folder = models / job_id / "attempt-001"
        folder.mkdir(parents=True)
        for name in ("epoch-1.checkpoint", "epoch-1.optimizer.safetensors"):
            (folder / name).write_bytes(b"x" * 100)


def code_of(call: Callable[..., Any], *arguments: Any) -> str:
    try:
        call(*arguments, timeout=60)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code.name
    return "OK"


def test_of_three_deletions_at_once_one_succeeds_and_nothing_is_left(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    data = tmp_path / "server" / "data"
    job_ids = fill_database(data / "leadline.db", ROUNDS)
    make_folders(data / "models", job_ids)
    server = server_factory()
    clients = [connect(server.target) for _ in range(4)]

    def read(stubs: Stubs, job_id: str) -> str:
        request = inference.GetModelRequest(name=f"models/{job_id}")
        return code_of(stubs.inference.GetModel, request)

    def delete(stubs: Stubs, job_id: str) -> str:
        request = training.DeleteJobRequest(name=f"jobs/{job_id}")
        return code_of(stubs.training.DeleteJob, request)

    rounds: Counter[tuple[str, ...]] = Counter()
    reads: Counter[str] = Counter()
    with ThreadPoolExecutor(4) as threads:
        for job_id in job_ids:
            deletions = [threads.submit(delete, stubs, job_id) for stubs in clients[:3]]
            reads[threads.submit(read, clients[3], job_id).result()] += 1
            rounds[tuple(sorted(deletion.result() for deletion in deletions))] += 1

    assert rounds == {("NOT_FOUND", "NOT_FOUND", "OK"): ROUNDS}
    assert set(reads) <= {"OK", "NOT_FOUND"}
    assert list((data / "models").iterdir()) == []
    assert not connect(server.target).training.ListJobs(training.ListJobsRequest()).jobs


def test_deletions_of_a_sweep_and_of_its_jobs_at_once_leave_nothing(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    data = tmp_path / "server" / "data"
    ids = fill_database(data / "leadline.db", 50, sweep_id="s", prefix="s")
    make_folders(data / "models", ids)
    server = server_factory()
    clients = [connect(server.target) for _ in range(4)]

    def sweep(stubs: Stubs) -> str:
        return code_of(stubs.training.DeleteSweep, training.DeleteSweepRequest(name="sweeps/s"))

    def job(stubs: Stubs) -> set[str]:
        requests = [training.DeleteJobRequest(name=f"jobs/{job_id}") for job_id in ids]
        return {code_of(stubs.training.DeleteJob, request) for request in requests}

    with ThreadPoolExecutor(4) as threads:
        sweeps = [threads.submit(sweep, stubs) for stubs in clients[:3]]
        jobs = threads.submit(job, clients[3])
        assert sorted(call.result() for call in sweeps) == ["NOT_FOUND", "NOT_FOUND", "OK"]
        assert jobs.result() <= {"FAILED_PRECONDITION", "NOT_FOUND"}

    assert list((data / "models").iterdir()) == []


def test_a_job_that_is_cancelled_and_deleted_as_it_runs_leaves_nothing(
    server_factory: ServerFactory,
) -> None:
    server = server_factory()
    stubs = connect(server.target)
    for epochs in (1, 2):
        spec = tiny_spec(epochs=10_000)
        events = stubs.training.TrainJob(training.TrainJobRequest(spec=spec))
        job = next(event.job for event in events if event.epoch.epoch == epochs)
        deletion = training.DeleteJobRequest(name=job)

        cancel = stubs.training.CancelJob.future(training.CancelJobRequest(name=job), timeout=60)
        codes: list[str] = []
        while not codes or codes[-1] == "FAILED_PRECONDITION":
            codes.append(code_of(stubs.training.DeleteJob, deletion))

        assert codes[-1] == "OK"
        assert cancel.code() in {grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND}
        assert list((server.data_dir / "models").iterdir()) == []


def test_a_server_killed_amid_deletions_leaves_no_folder_without_a_job(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    data = tmp_path / "server" / "data"
    job_ids = fill_database(data / "leadline.db", 300, sweep_id="s", prefix="s")
    make_folders(data / "models", job_ids)
    server = server_factory()
    request = training.DeleteSweepRequest(name="sweeps/s")
    call = connect(server.target).training.DeleteSweep.future(request, timeout=60)
    while len(list((data / "models").iterdir())) == len(job_ids):
        assert not call.done()
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()

    again = server_factory()

    listed = connect(again.target).training.ListJobs(training.ListJobsRequest(page_size=1_000))
    assert not listed.jobs
    assert list((data / "models").iterdir()) == []


def test_the_start_finishes_deletions_whose_rows_are_gone(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    data = tmp_path / "server" / "data"
    make_folders(data / "models", fill_database(data / "leadline.db", 60))
    engine = open_database(data / "leadline.db")
    store = Store(engine)
    deleted = [job_id for number in range(40) for job_id in store.jobs.delete(f"f{number}")]
    (data / "models" / "f0").rename(data / "models" / "f0.deleted")  # its files were being removed
    assert sorted(store.jobs.deleted_ids()) == sorted(deleted)

    server_factory()

    assert {folder.name for folder in (data / "models").iterdir()} == store.jobs.ids()
    assert len(store.jobs.ids()) == 20
    assert store.jobs.deleted_ids() == []
    with engine.connect() as connection:
        owners = connection.exec_driver_sql("SELECT DISTINCT job_number FROM events").all()
    assert len(owners) == 20
    engine.dispose()
