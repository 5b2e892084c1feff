"""During any call, other calls are answered, health is correct, and the server stops in time."""

import contextlib
import signal
import socket
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.settings
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.server.jobs.states import JobState
from leadline.v1 import inference_service_pb2 as inference
from leadline.v1 import inspection_service_pb2 as inspection
from leadline.v1 import training_service_pb2 as training
from support.open_inference import OpenInference
from support.servers import LiveServer, start_server
from support.stores import fill_database
from support.wire import Stubs, connect, details, tiny_spec

pytestmark = pytest.mark.system

JOBS, EPOCHS = 800, 30

# More seconds than a test takes on a busy machine.
GRACE = 8

# The time limit of any short call, even on a busy machine.
SHORT = 10

TRAINING, INFERENCE = "leadline.v1.TrainingService", "leadline.v1.InferenceService"
WATCH = b"/leadline.v1.TrainingService/WatchJob"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many finished jobs, a sweep, and a queued job."""
    path = tmp_path_factory.mktemp("endurance") / "leadline.db"
    fill_database(path, 300, epochs=2, sweep_id="s", prefix="s")
    fill_database(path, JOBS, epochs=EPOCHS)
    fill_database(path, 1, state=JobState.PAUSED, prefix="p")
    return path


Start = Callable[[Path], LiveServer]


@pytest.fixture(scope="module")
def start(database: Path, tiny_dataset: Path) -> Iterator[Start]:
    """Starts a server with a copy of the database."""
    servers: list[LiveServer] = []

    def start(folder: Path) -> LiveServer:
        data = folder / "server" / "data"
        data.mkdir(parents=True)
        (data / "leadline.db").write_bytes(database.read_bytes())
        flags = [f"--shutdown-grace-seconds={GRACE}", "--spare-workers=0"]
        flags.append(f"--dataset=tiny={tiny_dataset}")
        servers.append(start_server(folder / "server", *flags))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="module")
def server(start: Start, tmp_path_factory: pytest.TempPathFactory) -> LiveServer:
    """A server for all tests that do not stop it."""
    return start(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def stubs(server: LiveServer) -> Iterator[Stubs]:
    stubs = connect(server.target)
    yield stubs
    stubs.channel.close()


def health_of(server: LiveServer, service: str) -> bool:
    with grpc.insecure_channel(server.target) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=SHORT)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def all_models(stubs: Stubs, **options: Any) -> Any:
    request = inference.ListModelsRequest(page_size=1_000)
    return stubs.inference.ListModels.future(request, **options)


# Large reads


def test_large_reads_whose_callers_left_delay_no_other_call(
    server: LiveServer, stubs: Stubs
) -> None:
    others = connect(server.target)
    gone = [all_models(stubs, timeout=0.2) for _ in range(20)]
    codes = {call.code() for call in gone}

    others.training.GetJob(training.GetJobRequest(name="jobs/f0"), timeout=SHORT)
    others.training.PauseJob(training.PauseJobRequest(name="jobs/p0"), timeout=SHORT)

    assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert health_of(server, "")


def test_one_caller_with_many_large_reads_leaves_room_for_another(
    server: LiveServer, stubs: Stubs
) -> None:
    greedy = [all_models(stubs, timeout=60) for _ in range(100)]
    with grpc.insecure_channel(server.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        page = Stubs(channel).training.ListJobs(training.ListJobsRequest(), timeout=SHORT)
    refused = [call for call in greedy if call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED]

    assert len(page.jobs) == 50
    assert refused
    (retry,) = [detail for detail in details(refused[0]) if hasattr(detail, "retry_delay")]
    assert retry.retry_delay.seconds >= 1


def test_every_page_fits_into_a_message_and_all_pages_have_every_model(stubs: Stubs) -> None:
    names: list[str] = []
    token = ""
    pages = 0
    while token or not pages:
        request = inference.ListModelsRequest(page_size=1_000, page_token=token)
        page = stubs.inference.ListModels(request, timeout=60)
        names += [model.name for model in page.models]
        token = page.next_page_token
        pages += 1

    assert len(names) == len(set(names)) == JOBS + 300
    assert pages == 2


def test_the_repository_index_has_every_model_by_name(stubs: Stubs) -> None:
    index = OpenInference(stubs.channel).call("RepositoryIndex", oip.RepositoryIndexRequest())

    assert len(index.models) == JOBS + 300 + 4
    assert index.ByteSize() < 100 * len(index.models)


def test_a_sweep_that_many_ask_for_at_once_is_read_once_for_all(
    server: LiveServer, stubs: Stubs
) -> None:
    request = training.GetSweepRequest(name="sweeps/s")
    calls = [stubs.training.GetSweep.future(request, timeout=60) for _ in range(400)]

    assert {len(call.result().jobs) for call in calls} == {300}
    assert health_of(server, TRAINING)


# Watchers


def test_watchers_who_never_read_delay_no_other_watcher(server: LiveServer, stubs: Stubs) -> None:
    with contextlib.ExitStack() as stack:
        for connection in unread_watchers(server, 2_000):
            stack.enter_context(connection)
        events = stubs.training.WatchJob(training.WatchJobRequest(name="jobs/p0"), timeout=60)
        assert [next(events).sequence for _ in range(2)] == [1, 2]

        began = time.monotonic()
        stubs.training.CancelJob(training.CancelJobRequest(name="jobs/p0"), timeout=SHORT)
        last = next(events)
        seconds = time.monotonic() - began

        assert last.WhichOneof("event") == "finished"
        assert seconds < SHORT
        assert health_of(server, "")


# Health


def wait_for_health(server: LiveServer, service: str, *, serving: bool) -> None:
    deadline = time.monotonic() + 60
    while health_of(server, service) != serving:
        assert time.monotonic() < deadline, f"{service} serving: {not serving}"
        time.sleep(0.1)


def test_a_store_that_takes_no_writes_ends_the_health_of_training_alone(
    server: LiveServer,
) -> None:
    path = server.data_dir / "leadline.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        wait_for_health(server, TRAINING, serving=False)

        assert health_of(server, INFERENCE)
        assert health_of(server, "")
        assert "another program holds the database" in server.log.read_text()
        other.execute("ROLLBACK")
        wait_for_health(server, TRAINING, serving=True)


# The stop


def unread_watchers(server: LiveServer, count: int) -> Iterator[socket.socket]:
    """Opens connections with a hundred watchers each, which read no events."""
    host, _, port = server.target.rpartition(":")
    body = training.WatchJobRequest(name="jobs/p0").SerializeToString()
    message = b"\0" + struct.pack(">I", len(body)) + body
    for _ in range(count // 100):
        connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding=None)
        )
        connection.initiate_connection()
        connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        for stream in range(1, 200, 2):
            connection.send_headers(
                stream,
                [
                    *((b":method", b"POST"), (b":scheme", b"http"), (b":path", WATCH)),
                    *((b":authority", b"server"), (b"te", b"trailers")),
                    (b"content-type", b"application/grpc"),
                ],
            )
            connection.send_data(stream, message, end_stream=True)
        bound = socket.create_connection((host, int(port)))
        bound.sendall(connection.data_to_send())
        yield bound


def run_reads(_server: LiveServer, stubs: Stubs) -> Any:
    return [all_models(stubs) for _ in range(60)]


def run_unread_watchers(server: LiveServer, stubs: Stubs) -> Any:
    watchers = list(unread_watchers(server, 1_000))
    stubs.training.GetJob(training.GetJobRequest(name="jobs/p0"), timeout=60)
    return watchers


def run_label_errors(_server: LiveServer, stubs: Stubs) -> Any:
    request = inspection.ListLikelyLabelErrorsRequest(dataset="tiny", page_size=1_000)
    return [stubs.inspection.ListLikelyLabelErrors.future(request) for _ in range(100)]


def run_inspections(_server: LiveServer, stubs: Stubs) -> Any:
    events = list(stubs.training.TrainJob(training.TrainJobRequest(spec=tiny_spec()), timeout=60))
    first, last = (inspection.ModelSelector(model=event.epoch.model) for event in events[2:4])
    split = inspection.SPLIT_TRAIN
    calls: tuple[tuple[Any, Any], ...] = (
        (stubs.inspection.ListMisclassified, inspection.ListMisclassifiedRequest(model=last.model)),
        (
            stubs.inspection.GetConfusionMatrix,
            inspection.GetConfusionMatrixRequest(model=last.model),
        ),
        (
            stubs.inspection.CompareModels,
            inspection.CompareModelsRequest(baseline=first, candidate=last),
        ),
        (
            stubs.inspection.ListLikelyLabelErrors,
            inspection.ListLikelyLabelErrorsRequest(
                models=[first.model, last.model], min_models=1, split=split
            ),
        ),
    )
    running = [method.future(request) for method, request in calls for _ in range(50)]
    stubs.training.GetJob(training.GetJobRequest(name="jobs/p0"), timeout=SHORT)
    assert not all(call.done() for call in running)
    return running


def run_deletion(server: LiveServer, stubs: Stubs) -> Any:
    for number in range(300):
        (server.data_dir / "models" / f"s{number}" / "attempt-001").mkdir(parents=True)
    request = training.DeleteSweepRequest(name="sweeps/s")
    return stubs.training.DeleteSweep.future(request)


def run_worker(_server: LiveServer, stubs: Stubs) -> Any:
    request = training.ResumeJobRequest(name="jobs/p0")
    return stubs.training.ResumeJob(request, timeout=SHORT)


@pytest.mark.parametrize(
    "run",
    [
        run_reads,
        run_unread_watchers,
        run_label_errors,
        run_inspections,
        run_deletion,
        run_worker,
    ],
)
def test_the_server_stops_within_the_grace_period(
    start: Start, tmp_path: Path, run: Callable[[LiveServer, Stubs], Any]
) -> None:
    server = start(tmp_path)
    stubs = connect(server.target)
    running = run(server, stubs)

    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    status = server.process.wait(timeout=60)

    seconds = time.monotonic() - began
    assert (status, seconds <= GRACE) == (0, True), f"{seconds} s: {server.log.read_text()}"
    stubs.channel.close()
    for sent in running if isinstance(running, list) else [running]:
        if isinstance(sent, socket.socket):
            sent.close()
