"""The process from the operator's view: options, health, shutdown, restart, losses."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from leadline.v1.job_pb2 import JOB_STATE_FAILED, JOB_STATE_SUCCEEDED, JobEvent
from leadline.v1.training_service_pb2 import (
    GetJobRequest,
    PauseJobRequest,
    ResumeJobRequest,
    TrainJobRequest,
    WatchJobRequest,
)
from support.datasets import specs_of
from support.servers import LiveServer, ServerFactory, start_server
from support.wire import Stubs, connect, kind_and_sequence, reason

pytestmark = pytest.mark.system

tiny_spec = specs_of(__file__)

# Long enough to be interrupted after its second epoch.
INTERRUPTED = tiny_spec(epochs=30, blocks=2, seed=3)

COMMAND = [sys.executable, "-m", "leadline.server.main"]


def serve(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a server that must exit by itself."""
    return subprocess.run(
        [*COMMAND, *flags],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def health(stubs: Stubs, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(stubs.channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status)


def without_times(events: list[JobEvent]) -> list[JobEvent]:
    """Returns the events without the fields that differ between any two runs."""
    bare = []
    for event in events:
        if not event.sequence:  # sent on a slow machine during silence
            continue
        copy = JobEvent()
        copy.CopyFrom(event)
        copy.ClearField("create_time")
        copy.job = "jobs/one"
        copy.epoch.ClearField("seconds")
        copy.epoch.ClearField("images_per_second")
        copy.epoch.ClearField("model")
        copy.finished.ClearField("model")
        bare.append(copy)
    return bare


def worker_of(server: LiveServer, job: str) -> psutil.Process:
    """Returns the process that trains."""
    busy = [
        child
        for child in psutil.Process(server.process.pid).children()
        if child.cpu_times().user > 0 and "leadline.server.workers.process" in child.cmdline()
    ]
    assert busy, f"no worker for {job}"
    return max(busy, key=lambda child: child.cpu_times().user)


def test_health_and_reflection_tell_of_every_service(stubs: Stubs) -> None:
    services = set(ProtoReflectionDescriptorDatabase(stubs.channel).get_services())

    assert services == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "leadline.v1.TrainingService",
        "leadline.v1.InferenceService",
        "leadline.v1.InspectionService",
        "inference.GRPCInferenceService",
    }
    for service in ("", *(name for name in services if not name.startswith("grpc."))):
        assert health(stubs, service) == health_pb2.HealthCheckResponse.SERVING


def test_a_server_that_can_take_no_connection_ends_and_says_so(
    server_factory: ServerFactory,
) -> None:
    # grpcio waits for a descriptor instead; see below.
    server = server_factory("--transport=h2corn", "--spare-workers=0")
    host, port = server.target.split(":")
    process = psutil.Process(server.process.pid)
    few = process.num_fds() + 5
    process.rlimit(psutil.RLIMIT_NOFILE, (few, few))

    with contextlib.ExitStack() as stack:
        for _ in range(20):
            with contextlib.suppress(ConnectionRefusedError):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
        status = server.process.wait(timeout=30)

    assert status == 1
    assert "gRPC can no longer be served" in server.log.read_text()


def test_more_connections_than_there_are_descriptors_for_wait_until_others_go(
    tmp_path: Path,
) -> None:
    limited = ["bash", "-c", 'ulimit -n 500 && exec "$@"', "bash"]
    server = start_server(tmp_path, "--spare-workers", "0", wrapper=limited)
    host, port = server.target.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(600):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=10))

    stubs = connect(server.target)
    assert health(stubs) == health_pb2.HealthCheckResponse.SERVING
    assert server.stop() == 0


def test_addresses_of_ipv6_are_told_as_clients_take_them(server_factory: ServerFactory) -> None:
    server = server_factory("--host", "[::1]", "--spare-workers", "0")

    assert server.target.startswith("[::1]:")
    assert health(connect(server.target)) == health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(scope="module")
def uninterrupted(stubs: Stubs) -> list[JobEvent]:
    """All events of an uninterrupted run of the job that other tests interrupt."""
    return list(stubs.training.TrainJob(TrainJobRequest(spec=INTERRUPTED), timeout=60))


def test_sigterm_ends_streams_with_where_to_go_on_and_a_restart_goes_on(
    server_factory: ServerFactory, uninterrupted: list[JobEvent]
) -> None:
    server = server_factory()
    stubs = connect(server.target)
    stream = stubs.training.TrainJob(TrainJobRequest(spec=INTERRUPTED), timeout=60)
    events = [next(iter(stream)) for _ in range(4)]
    stopping = threading.Thread(target=server.stop)
    stopping.start()

    with pytest.raises(grpc.RpcError) as caught:
        events.extend(stream)
    stopping.join()
    restarted = connect(server_factory().target)
    request = WatchJobRequest(name=events[0].job, after_sequence=events[-1].sequence)
    events.extend(restarted.training.WatchJob(request, timeout=60))
    job = restarted.training.GetJob(GetJobRequest(name=events[0].job), timeout=10)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason(caught.value) == "SHUTTING_DOWN"
    assert server.process.returncode == 0
    assert [event.sequence for event in events] == list(range(1, 34))
    assert job.state == JOB_STATE_SUCCEEDED
    assert job.attempts == 2
    assert without_times(events) == without_times(uninterrupted)


def test_a_killed_server_loses_no_event_and_its_workers_leave_with_it(
    server_factory: ServerFactory,
) -> None:
    server = server_factory()
    stubs = connect(server.target)
    stream = stubs.training.TrainJob(TrainJobRequest(spec=INTERRUPTED), timeout=60)
    events = [next(iter(stream)) for _ in range(4)]
    workers = psutil.Process(server.process.pid).children()

    server.stop(signal.SIGKILL)
    gone, alive = psutil.wait_procs(workers, timeout=20)
    restarted = connect(server_factory().target)
    request = WatchJobRequest(name=events[0].job, after_sequence=4)
    events.extend(restarted.training.WatchJob(request, timeout=60))

    assert workers
    assert (len(gone), alive) == (len(workers), [])
    assert [event.sequence for event in events] == list(range(1, 34))
    assert events[-1].finished.state == JOB_STATE_SUCCEEDED


def test_a_killed_worker_is_replaced_and_the_result_is_the_same(
    server_factory: ServerFactory, uninterrupted: list[JobEvent]
) -> None:
    server = server_factory()
    stubs = connect(server.target)
    stream = stubs.training.TrainJob(TrainJobRequest(spec=INTERRUPTED), timeout=60)
    events = [next(iter(stream)) for _ in range(4)]

    worker_of(server, events[0].job).kill()
    events.extend(stream)
    job = stubs.training.GetJob(GetJobRequest(name=events[0].job), timeout=10)

    assert job.attempts == 2
    assert without_times(events) == without_times(uninterrupted)


def test_a_job_whose_workers_are_lost_again_and_again_fails_with_the_reason(
    server_factory: ServerFactory,
) -> None:
    server = server_factory("--max-attempts=2", "--spare-workers=0")
    stubs = connect(server.target)
    spec = tiny_spec(epochs=1, blocks=64, batch_size=1)
    stream = stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=90)
    events = [next(iter(stream)) for _ in range(2)]
    first = worker_of(server, events[0].job)
    first.kill()
    first.wait(timeout=10)
    while not (again := psutil.Process(server.process.pid).children()):
        pass
    again[0].kill()
    events.extend(stream)

    assert kind_and_sequence(events) == [("queued", 1), ("started", 2), ("finished", 3)]
    assert events[-1].finished.state == JOB_STATE_FAILED
    assert events[-1].finished.failure.reason == "WORKER_LOST"
    assert "signal 9" in events[-1].finished.failure.message


def test_a_second_server_on_the_same_data_is_refused(server_factory: ServerFactory) -> None:
    server = server_factory()

    second = serve("--port=0", "--metrics-port=0", f"--data-dir={server.data_dir}")

    assert second.returncode == 1
    assert "another server uses the data directory" in second.stderr


@pytest.mark.parametrize("flag", ["port", "metrics-port"])
def test_a_port_in_use_is_refused_clearly(
    live_server: LiveServer, tmp_path: Path, flag: str
) -> None:
    address = live_server.target if flag == "port" else live_server.metrics_url.split("/")[2]
    ports = {"port": "0", "metrics-port": "0", flag: address.split(":")[1]}

    second = serve(f"--data-dir={tmp_path}", *(f"--{name}={port}" for name, port in ports.items()))

    assert second.returncode == 1
    assert f"--{flag}" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--port", "99999"], "--port (or LEADLINE_PORT"),
        (["--port", "x"], "--port"),
        (["--jobs-per-device", "0"], "--jobs-per-device"),
        (["--dataset", "nonsense"], "NAME=SOURCE"),
        (["--dataset", "UPPER=/x"], "UPPER"),
        (["--dataset", "a=/x", "--dataset", "a=/y"], "twice"),
        (["--devices", "tpu"], "tpu"),
        (["--live-page", "yes"], "--live-page (or LEADLINE_LIVE_PAGE"),
        (["--live-page-hosts", "http://x"], "--live-page-hosts"),
        (["--config", "/does/not/exist.toml"], "/does/not/exist.toml"),
        (["--invented"], "--invented"),
    ],
)
def test_a_wrong_option_is_named(flags: list[str], says: str) -> None:
    ended = serve(*flags)

    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_dataset_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.tar").write_bytes(b"no tar")
    for source in ("missing", "empty", "broken.tar"):
        ended = serve(f"--data-dir={tmp_path / 'data'}", f"--dataset=pets={tmp_path / source}")

        assert ended.returncode == 1
        assert "dataset pets" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    ended = serve(f"--data-dir={tmp_path / 'file' / 'data'}")

    assert ended.returncode == 1
    assert "--data-dir" in ended.stderr


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "leadline.db").write_bytes(b"this is no database" * 100)

    ended = serve(f"--data-dir={tmp_path}", "--port=0", "--metrics-port=0")

    assert ended.returncode == 1
    assert "leadline.db" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_names_every_option_in_all_its_forms() -> None:
    ended = serve("--help")

    assert ended.returncode == 0
    for flag in ("--data-dir", "--dataset", "--no-reflection", "--max-queued-jobs", "--config"):
        assert flag in ended.stdout
    assert "LEADLINE_" in ended.stdout


def test_logs_are_json_lines_where_no_one_watches(live_server: LiveServer) -> None:
    deadline = time.monotonic() + 60  # the server says that it serves after its ready file
    while '"serving"' not in live_server.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    lines = [json.loads(line) for line in live_server.log.read_text().splitlines()]

    assert {"event", "level", "timestamp", "logger"} <= set(lines[0])
    assert "serving" in [line["event"] for line in lines]


def test_a_lost_database_costs_no_checkpoint(server_factory: ServerFactory) -> None:
    server = server_factory()
    stubs = connect(server.target)
    list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=1)), timeout=60))
    server.stop()
    before = sorted(server.data_dir.joinpath("models").rglob("*"))
    for path in server.data_dir.glob("leadline.db*"):
        path.unlink()

    server_factory().stop()

    assert sorted(server.data_dir.joinpath("models").rglob("*")) == before
    assert len(before) > 3


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("LEADLINE_SIMD_ISA", "avx1024", "it may be one of baseline, avx2, avx512"),
        ("LEADLINE_ENGINE", "numpy", "it must be auto or torch"),
        ("LEADLINE_SIMD_DUMP", "/dev/full", "it must name a folder"),
    ],
)
def test_a_variable_that_names_what_does_not_exist_is_refused(
    variable: str, value: str, message: str, tmp_path: Path
) -> None:
    ended = serve(f"--data-dir={tmp_path}", "--port=0", **{variable: value})

    assert ended.returncode == 2
    assert f"{variable} is {value!r}: {message}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "leadline.db")) as database:
        database.execute("CREATE TABLE jobs (number INTEGER)")
        database.execute("PRAGMA user_version=99")
        database.commit()

    ended = serve(f"--data-dir={tmp_path}", "--port=0", "--metrics-port=0")

    assert ended.returncode == 1
    assert "schema 99" in ended.stderr


def test_an_epoch_that_comes_out_otherwise_fails_the_job(server_factory: ServerFactory) -> None:
    server = server_factory()
    stubs = connect(server.target)
    stream = stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=9_000)), timeout=60)
    queued, *_ = [next(iter(stream)) for _ in range(3)]
    name = queued.job
    stubs.training.PauseJob(PauseJobRequest(name=name), timeout=10)
    server.stop()
    for path in server.data_dir.rglob("epoch-*.checkpoint"):
        path.write_bytes(b"damaged")
    # Simulates another result of the machine: the reported hash differs.
    with contextlib.closing(sqlite3.connect(server.data_dir / "leadline.db")) as database:
        database.execute(
            "UPDATE events SET body = json_set(body, '$.weights_sha256', 'other') "
            "WHERE kind = 'epoch'"
        )
        database.commit()

    stubs = connect(server_factory().target)
    stubs.training.ResumeJob(ResumeJobRequest(name=name), timeout=10)
    *_, last = stubs.training.WatchJob(WatchJobRequest(name=name), timeout=60)

    assert last.finished.state == JOB_STATE_FAILED
    assert last.finished.failure.reason == "NOT_REPEATABLE"


def test_a_ready_file_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    ended = serve(f"--data-dir={tmp_path}", "--ready-file=/does/not/exist/ready.json")

    assert ended.returncode == 1
    assert "--ready-file" in ended.stderr
    assert "Traceback" not in ended.stderr
