"""Several processes serve one port: as one server, and each by itself."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.server.application import StartupError, run_server
from leadline.server.processes import supervisor
from leadline.server.settings import Settings
from leadline.v1.inference_service_pb2 import DATA_TYPE_UINT8, PredictRequest, Tensor
from leadline.v1.job_pb2 import JOB_STATE_CANCELLED, JobEvent
from leadline.v1.training_service_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    TrainJobRequest,
    WatchJobRequest,
)
from support.open_inference import OpenInference, raw_request
from support.servers import LiveServer, ServerFactory, start_server
from support.wire import Stubs, kind_and_sequence, reason, tiny_spec

pytestmark = pytest.mark.system

_FLAGS = ("--serving-processes=2", "--spare-workers=1")
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
_TENSOR = Tensor(data_type=DATA_TYPE_UINT8, shape=[1, 32, 32, 3], data=bytes(3072))


@dataclass
class Processes:
    """A server of two processes, and a connection to each of them."""

    server: LiveServer
    model: str
    by_process: dict[str, Stubs] = field(default_factory=dict)

    def connect(self) -> None:
        """Opens connections until each process has one.

        The kernel chooses the process of a connection by a hash of its ports.
        """
        for _ in range(60):
            before = self.predictions()
            stubs = Stubs(grpc.insecure_channel(self.server.target, options=_OWN_CONNECTION))
            predict(stubs, self.model)
            after = self.wait_for(partial(grown, before))
            (process,) = [name for name in after if after[name] > before.get(name, 0)]
            if process in self.by_process:
                stubs.channel.close()
            self.by_process.setdefault(process, stubs)
            if len(self.by_process) == 2:
                return
        raise AssertionError("one process gets no connections")

    def predictions(self) -> dict[str, float]:
        """How many predictions each process has answered."""
        return {
            labels["process"]: value
            for labels, value in samples(self.server, "leadline_predictions_total")
        }

    def wait_for(self, is_right: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        """The predictions once they are right: a scrape does not wait for a process for long."""
        deadline = time.monotonic() + 60
        while not is_right(answered := self.predictions()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return answered

    def close(self) -> None:
        for stubs in self.by_process.values():
            stubs.channel.close()


def grown(before: dict[str, float], after: dict[str, float]) -> bool:
    return sum(after.values()) > sum(before.values())


def samples(server: LiveServer, name: str) -> list[tuple[dict[str, str], float]]:
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:  # noqa: S310
        families = text_string_to_metric_families(response.read().decode())
    return [
        (sample.labels, sample.value)
        for family in families
        for sample in family.samples
        if sample.name == name
    ]


def predict(stubs: Stubs, model: str) -> str:
    """The checkpoint that answers for a model."""
    request = PredictRequest(model=model, tensor=_TENSOR)
    return str(stubs.inference.Predict(request, timeout=10).model)


def code_of_prediction(stubs: Stubs, model: str) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        predict(stubs, model)
    return caught.value.code()


def children(server: LiveServer, module: str) -> list[psutil.Process]:
    return children_of(server.process.pid, module)


def children_of(pid: int, module: str) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if runs(child, module)]


def runs(process: psutil.Process, module: str) -> bool:
    try:
        return f"leadline.server.{module}" in process.cmdline()
    except psutil.NoSuchProcess:  # a zombie, too
        return False


def ports_to(server: LiveServer) -> set[int]:
    """The ports of this process's connections to a server."""
    port = int(server.target.rpartition(":")[2])
    return {
        known.laddr[1]
        for known in psutil.Process().net_connections(kind="tcp")
        if known.raddr[1:] == (port,)
    }


def train(target: str, **changes: int) -> list[JobEvent]:
    with grpc.insecure_channel(target) as channel:
        request = TrainJobRequest(spec=tiny_spec(**changes))
        return list(Stubs(channel).training.TrainJob(request, timeout=60))


@pytest.fixture(scope="module", params=["h2corn", "grpcio"])
def processes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path
) -> Iterator[Processes]:
    flags = (*_FLAGS, f"--transport={request.param}", f"--dataset=tiny={tiny_dataset}")
    server = start_server(tmp_path_factory.mktemp(request.param), *flags)
    trained = train(server.target)
    both = Processes(server, trained[-1].finished.model)
    both.connect()
    yield both
    both.close()
    serving = children(server, "serving_process")
    assert server.stop() == 0, server.log.read_text()
    assert not any(process.is_running() for process in serving)


def test_each_process_predicts_and_the_metrics_are_those_of_one_server(
    processes: Processes,
) -> None:
    before = processes.predictions()
    total = dict(before)

    for process, stubs in processes.by_process.items():
        for _ in range(3):
            predict(stubs, processes.model)
        total[process] += 3

    assert processes.wait_for(lambda answered: answered == total) == total
    counted = samples(processes.server, "leadline_prediction_seconds_count")
    assert counted == [({}, sum(total.values()))]
    handled = [
        value
        for labels, value in samples(processes.server, "grpc_server_handled_total")
        if labels["grpc_method"] == "Predict" and labels["grpc_code"] == "OK"
    ]
    assert handled == [sum(total.values())]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine's GPU predicts")
def test_no_process_that_predicts_has_loaded_torch(processes: Processes) -> None:
    (other,) = children(processes.server, "serving_process")

    mapped = Path(f"/proc/{other.pid}/maps").read_text()

    assert "llvmlite" in mapped
    assert "libtorch" not in mapped


def test_a_forwarded_call_is_counted_once(processes: Processes) -> None:
    def started() -> float:
        return sum(
            value
            for labels, value in samples(processes.server, "grpc_server_started_total")
            if labels["grpc_method"] == "GetJob"
        )

    before = started()
    for stubs in processes.by_process.values():
        stubs.training.GetJob(GetJobRequest(name=processes.model.replace("models", "jobs")))

    assert started() == before + 2


def test_an_epoch_is_there_in_every_process_as_soon_as_its_event_is(processes: Processes) -> None:
    other = processes.by_process["1"]
    names = []

    for event in other.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=6)), timeout=60):
        if event.HasField("epoch"):
            name = f"models/{event.job.removeprefix('jobs/')}/epochs/{event.epoch.epoch}"
            answers = {predict(stubs, name) for stubs in processes.by_process.values()}
            assert answers == {name}
            names.append(name)

    assert len(names) == 6
    model = event.finished.model
    best = {predict(stubs, model) for stubs in processes.by_process.values()}
    assert len(best) == 1
    other.training.DeleteJob(DeleteJobRequest(name=event.job), timeout=10)
    for stubs in processes.by_process.values():
        assert code_of_prediction(stubs, model) is grpc.StatusCode.NOT_FOUND


def test_watchers_of_every_process_get_the_same_events_and_any_may_cancel(
    processes: Processes,
) -> None:
    main, other = processes.by_process["0"], processes.by_process["1"]
    stream = other.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=10_000)), timeout=60)
    events = [next(stream)]
    watched = main.training.WatchJob(WatchJobRequest(name=events[0].job), timeout=60)
    while not any(event.HasField("epoch") for event in events):
        events.append(next(stream))
    worker = max(
        children(processes.server, "workers.process"), key=lambda child: child.cpu_times().user
    )

    with pytest.raises(grpc.RpcError) as caught:
        list(other.training.WatchJob(WatchJobRequest(name=events[0].job), timeout=0.5))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    cancelled = other.training.CancelJob(CancelJobRequest(name=events[0].job), timeout=10)

    assert cancelled.state == JOB_STATE_CANCELLED
    events.extend(stream)
    assert kind_and_sequence(events) == kind_and_sequence(list(watched))
    worker.wait(timeout=10)


def test_errors_of_forwarded_calls_have_their_details(processes: Processes) -> None:
    for stubs in processes.by_process.values():
        with pytest.raises(grpc.RpcError) as caught:
            stubs.training.GetJob(GetJobRequest(name="jobs/bcdfghjkmn"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert reason(caught.value) == "JOB_NOT_FOUND"


def test_health_is_reported_by_every_process(processes: Processes) -> None:
    for stubs in processes.by_process.values():
        health = health_pb2_grpc.HealthStub(stubs.channel)
        for service in ("", "leadline.v1.TrainingService", "leadline.v1.InferenceService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_statistics_and_unloading_are_those_of_all_processes(processes: Processes) -> None:
    job_id = processes.model.removeprefix("models/")
    clients = [OpenInference(stubs.channel) for stubs in processes.by_process.values()]

    def statistics(client: OpenInference, name: str) -> Any:
        return client.call("ModelStatistics", oip.ModelStatisticsRequest(name=name)).model_stats

    def counts() -> list[int]:
        return [
            sum(entry.inference_count for entry in statistics(client, job_id)) for client in clients
        ]

    before = counts()
    for client in clients:
        client.infer(raw_request(job_id, "UINT8", np.zeros((1, 32, 32, 3), np.uint8)))

    assert counts() == [before[0] + 2, before[0] + 2]
    for client in clients:
        client.call("RepositoryModelUnload", oip.RepositoryModelUnloadRequest(model_name=job_id))
        client.call("RepositoryModelLoad", oip.RepositoryModelLoadRequest(model_name=job_id))


def test_a_killed_process_costs_its_own_calls_and_is_replaced(
    server_factory: ServerFactory, transport: str
) -> None:
    server = server_factory(*_FLAGS, f"--transport={transport}")
    both = Processes(server, train(server.target)[-1].finished.model)
    both.connect()
    main, other = both.by_process["0"], both.by_process["1"]
    request = TrainJobRequest(spec=tiny_spec(epochs=10_000))
    lost = other.training.TrainJob(request, timeout=60)
    job = next(lost).job
    kept = main.training.WatchJob(WatchJobRequest(name=job), timeout=60)
    before = sum(value for _, value in samples(server, "leadline_prediction_seconds_count"))
    (process,) = children(server, "serving_process")

    process.kill()

    with pytest.raises(grpc.RpcError) as caught:
        list(lost)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    for _ in range(20):
        predict(main, both.model)
    deadline = time.monotonic() + 60
    while not samples(server, "leadline_serving_process_restarts_total")[0][1]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    main.training.CancelJob(CancelJobRequest(name=job), timeout=10)
    events = kind_and_sequence(list(kept))
    assert [sequence for _, sequence in events] == list(range(1, len(events) + 1))
    again = Processes(server, both.model)
    again.connect()
    after = sum(value for _, value in samples(server, "leadline_prediction_seconds_count"))
    assert after > before + 20  # nothing that was counted is lost
    again.close()
    both.close()
    assert server.stop() == 0, server.log.read_text()


async def test_a_process_that_does_not_answer_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_PATIENCE", 2)
    settings = Settings(
        data_dir=tmp_path, port=0, metrics_port=0, spare_workers=0, serving_processes=2
    )
    before = children_of(os.getpid(), "serving_process")
    async with run_server(settings):
        (process,) = set(children_of(os.getpid(), "serving_process")) - set(before)

        process.suspend()

        async with asyncio.timeout(60):
            while not set(children_of(os.getpid(), "serving_process")) - {*before, process}:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def test_a_process_that_cannot_start_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    settings = Settings(
        data_dir=tmp_path, port=0, metrics_port=0, spare_workers=0, serving_processes=3
    )

    with pytest.raises(StartupError, match="ended with status 1 before it served"):
        async with run_server(settings):
            pass


def test_no_process_outlives_a_main_process_that_is_killed(server_factory: ServerFactory) -> None:
    server = server_factory("--serving-processes=3", "--spare-workers=0")
    serving = children(server, "serving_process")
    assert len(serving) == 2

    server.process.kill()

    _, alive = psutil.wait_procs(serving, timeout=10)
    assert alive == []


def test_a_stop_ends_the_streams_of_every_process_and_says_where_to_continue(
    server_factory: ServerFactory,
) -> None:
    server = server_factory(*_FLAGS)
    both = Processes(server, train(server.target)[-1].finished.model)
    both.connect()
    request = TrainJobRequest(spec=tiny_spec(epochs=10_000))
    streams = [stubs.training.TrainJob(request, timeout=60) for stubs in both.by_process.values()]
    for stream in streams:
        next(stream)

    server.process.send_signal(signal.SIGTERM)

    for stream in streams:
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason(caught.value) == "SHUTTING_DOWN"
    assert server.process.wait(timeout=30) == 0, server.log.read_text()


@pytest.mark.parametrize("transport", ["h2corn", "grpcio"])
def test_calls_continue_while_connections_reach_their_age(
    server_factory: ServerFactory, transport: str
) -> None:
    server = server_factory(
        *_FLAGS,
        f"--transport={transport}",
        "--max-connection-age-seconds=1",
        "--max-connection-age-grace-seconds=5",
    )
    events = train(server.target)
    job, model = events[0].job, events[-1].finished.model
    # With gRPC's own retries, which repeat a call that crosses the server's GOAWAY.
    options = [("grpc.use_local_subchannel_pool", 1)]
    callers = [Stubs(grpc.insecure_channel(server.target, options=options)) for _ in range(4)]

    used, ended = set(), time.monotonic() + 4
    while time.monotonic() < ended:
        for stubs in callers:
            predict(stubs, model)
            assert stubs.training.GetJob(GetJobRequest(name=job), timeout=10).name == job
        used |= ports_to(server)
    assert len(used) >= 3 * len(callers)
    for stubs in callers:
        stubs.channel.close()

    assert server.stop() == 0, server.log.read_text()


def test_another_server_cannot_take_a_share_of_the_port(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    server = server_factory(*_FLAGS)
    port = server.target.rpartition(":")[2]

    other = serve("--serving-processes=2", f"--port={port}", f"--data-dir={tmp_path / 'other'}")

    assert other.returncode == 1
    assert "name another address with --host" in other.stderr
    assert server.stop() == 0


def test_what_cannot_be_served_by_several_processes_is_refused(tmp_path: Path) -> None:
    none = serve("--serving-processes=0", f"--data-dir={tmp_path}")
    on_gpu = serve("--serving-processes=2", "--inference-device=cuda:0", f"--data-dir={tmp_path}")

    assert none.returncode == 2
    assert "greater than or equal to 1" in none.stderr
    assert on_gpu.returncode == 1
    assert "predictions on cuda:0 have one process" in on_gpu.stderr


def serve(*flags: str) -> "subprocess.CompletedProcess[str]":
    """Runs a server that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "leadline.server.main", "--metrics-port=0", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
