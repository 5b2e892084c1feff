"""Faulty streams: a server plays each fault of real servers and proxies."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from leadline.client import (
    Client,
    ClientClosedError,
    DeadlineExceededError,
    EventGapError,
    InternalError,
    Job,
    JobEvent,
    JobState,
    NotFoundError,
    ResourceExhaustedError,
    RpcError,
    UnavailableError,
)
from leadline.client._error_details import STATUS_KEY
from leadline.v1.job_pb2 import (
    EpochResult,
    JobFinished,
    JobPaused,
    JobProgress,
    JobQueued,
    JobResumed,
)
from leadline.v1.training_service_pb2 import (
    DeleteJobRequest,
    GetJobRequest,
    TrainJobRequest,
    WatchJobRequest,
)
from leadline.v1.training_service_pb2_grpc import (
    TrainingServiceServicer,
    add_TrainingServiceServicer_to_server,
)

MakeClient = Callable[..., Client]

# The script of one stream: the events to send, and the final status.
Step = int | JobEvent | grpc.StatusCode | threading.Event
Script = Sequence[Step]

LAST = 5


def event(sequence: int) -> JobEvent:
    """Returns the events of a job of three epochs."""
    result = JobEvent(job="jobs/a", sequence=sequence)
    if sequence == 1:
        result.queued.CopyFrom(JobQueued())
    elif sequence == LAST:
        result.finished.CopyFrom(JobFinished(state=JobState.JOB_STATE_SUCCEEDED))
    else:
        result.epoch.CopyFrom(EpochResult(epoch=sequence - 1))
    return result


class ScriptedServer(TrainingServiceServicer):
    """Plays one script per stream, and records the requests."""

    def __init__(self, scripts: Sequence[Script]) -> None:
        self._scripts = list(scripts)
        self.asked: list[int] = []
        self.deleted: list[str] = []
        self.request_ids: list[str] = []
        self.state = JobState.JOB_STATE_RUNNING
        self.get_job = self._job

    def TrainJob(self, request: TrainJobRequest, context: Any) -> Iterator[JobEvent]:  # noqa: N802
        self.request_ids.append(request.request_id)
        yield from self._play(context)

    def WatchJob(self, request: WatchJobRequest, context: Any) -> Iterator[JobEvent]:  # noqa: N802
        self.asked.append(request.after_sequence)
        yield from self._play(context)

    def GetJob(self, request: GetJobRequest, context: Any) -> Job:  # noqa: N802
        return self.get_job(request, context)

    def _job(self, request: GetJobRequest, context: Any) -> Job:
        del context
        return Job(name=request.name, state=self.state, latest_sequence=LAST)

    def DeleteJob(self, request: DeleteJobRequest, context: Any) -> Empty:  # noqa: N802
        self.deleted.append(request.name)
        for _ in self._play(context):
            pass
        return Empty()

    def ListJobs(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    def CancelJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    def _play(self, context: Any) -> Iterator[JobEvent]:
        for step in self._scripts.pop(0):
            match step:
                case int():
                    yield event(step)
                case JobEvent():
                    yield step
                case threading.Event():
                    step.wait(timeout=30)
                case _:
                    context.abort(step, "as the script says")


Play = Callable[..., tuple[ScriptedServer, str]]


@pytest.fixture
def play() -> Iterator[Play]:
    servers: list[grpc.Server] = []

    def start(*scripts: Script) -> tuple[ScriptedServer, str]:
        servicer = ScriptedServer(scripts)  # type: ignore[abstract]
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        add_TrainingServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return servicer, f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(grace=None).wait()


def sequences(events: Iterator[JobEvent]) -> list[int]:
    return [one.sequence for one in events]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ],
)
def test_a_stream_that_breaks_is_taken_up_where_it_broke(
    make_client: MakeClient, play: Play, code: grpc.StatusCode
) -> None:
    server, target = play([1, 2, code], [3, code], [code], [4, 5])
    told: list[tuple[RpcError, float]] = []
    job = make_client(target).job("a")
    events = job.events(on_reconnect=lambda *news: told.append(news))
    assert sequences(events) == [1, 2, 3, 4, 5]
    assert server.asked == [0, 2, 3, 3]
    assert {error.code for error, _ in told} == {code}
    assert len(told) == 3


def test_a_stream_that_ends_well_but_early_is_taken_up_again(
    make_client: MakeClient, play: Play
) -> None:
    server, target = play([1, 2], [], [3, 4, 5])
    assert sequences(make_client(target).job("a").events()) == [1, 2, 3, 4, 5]
    assert server.asked == [0, 2, 2]


def test_a_job_without_further_events_is_at_its_end(make_client: MakeClient, play: Play) -> None:
    server, target = play([])
    server.state = JobState.JOB_STATE_FAILED
    assert sequences(make_client(target).job("a").events(after_sequence=LAST)) == []


def test_events_that_come_twice_are_passed_once(make_client: MakeClient, play: Play) -> None:
    _, target = play([1, 2, 2, 1, grpc.StatusCode.UNAVAILABLE], [1, 2, 3, 4, 4, 5])
    assert sequences(make_client(target).job("a").events()) == [1, 2, 3, 4, 5]


def test_a_missing_event_is_never_passed_over(make_client: MakeClient, play: Play) -> None:
    _, target = play([1, 3])
    with pytest.raises(EventGapError, match="expected event 2, received 3"):
        list(make_client(target).job("a").events())


def test_an_event_of_a_kind_that_is_not_known_counts(make_client: MakeClient, play: Play) -> None:
    _, target = play([1, JobEvent(job="jobs/a", sequence=2), 3, 4, 5])
    assert [epoch.epoch for epoch in make_client(target).job("a").epochs()] == [2, 3]


def test_progress_is_passed_on_and_not_counted(make_client: MakeClient, play: Play) -> None:
    progress = JobEvent(job="jobs/a", progress=JobProgress(epoch=1))
    server, target = play([1, progress, grpc.StatusCode.UNAVAILABLE], [progress, 2, 3, 4, 5])
    events = make_client(target).job("a").events(progress_interval=1.0)
    assert sequences(events) == [1, 0, 0, 2, 3, 4, 5]
    assert server.asked == [0, 1]


def test_progress_that_nobody_asked_for_only_keeps_the_stream_alive(
    make_client: MakeClient, play: Play
) -> None:
    progress = JobEvent(job="jobs/a", progress=JobProgress(epoch=1))
    _, target = play([1, progress, 2, 3, progress, 4, 5])
    assert sequences(make_client(target).job("a").events()) == [1, 2, 3, 4, 5]


def test_an_error_after_the_last_event_is_of_no_matter(make_client: MakeClient, play: Play) -> None:
    _, target = play([1, 2, 3, 4, 5, grpc.StatusCode.UNAVAILABLE])
    assert sequences(make_client(target).job("a").events()) == [1, 2, 3, 4, 5]


def test_an_error_that_stays_ends_the_stream(make_client: MakeClient, play: Play) -> None:
    _, target = play([1, grpc.StatusCode.NOT_FOUND])
    with pytest.raises(NotFoundError):
        list(make_client(target).job("a").events())


def test_a_fault_that_stays_ends_the_stream(make_client: MakeClient, play: Play) -> None:
    _, target = play(*[[grpc.StatusCode.INTERNAL]] * 4)
    with pytest.raises(InternalError):
        list(make_client(target).job("a").events())


def test_a_server_that_stays_away_ends_the_stream(make_client: MakeClient, play: Play) -> None:
    _, target = play(*[[grpc.StatusCode.UNAVAILABLE]] * 50)
    with pytest.raises(UnavailableError):
        list(make_client(target, reconnect_timeout=0.5).job("a").events())


def test_the_stream_of_a_submission_is_the_one_that_is_followed(
    make_client: MakeClient, play: Play
) -> None:
    server, target = play([1, 2, 3, 4, 5])
    assert sequences(make_client(target).train().events()) == [1, 2, 3, 4, 5]
    assert server.asked == []


def test_the_stream_of_a_submission_is_taken_up_too(make_client: MakeClient, play: Play) -> None:
    server, target = play([1, 2, grpc.StatusCode.UNAVAILABLE], [3, 4, 5])
    assert sequences(make_client(target).train().events()) == [1, 2, 3, 4, 5]
    assert server.asked == [2]


def test_a_submission_is_repeated_under_the_same_id(make_client: MakeClient, play: Play) -> None:
    server, target = play([grpc.StatusCode.UNAVAILABLE], [], [1, 2, 3, 4, 5])
    assert sequences(make_client(target).train().events()) == [1, 2, 3, 4, 5]
    assert len(server.request_ids) == 3
    assert len(set(server.request_ids)) == 1


def test_a_submission_that_is_refused_is_not_repeated(make_client: MakeClient, play: Play) -> None:
    server, target = play([grpc.StatusCode.RESOURCE_EXHAUSTED])
    with pytest.raises(ResourceExhaustedError):
        make_client(target).train()
    assert len(server.request_ids) == 1


def test_a_submission_that_gets_no_answer_is_given_up(make_client: MakeClient, play: Play) -> None:
    never = threading.Event()
    _, target = play([never])
    with pytest.raises(DeadlineExceededError, match="no answer within"):
        make_client(target, timeout=0.3).train()
    never.set()


def test_closing_the_client_ends_its_streams(make_client: MakeClient, play: Play) -> None:
    never = threading.Event()
    _, target = play([1, never])
    client = make_client(target)
    events = client.job("a").events()
    next(events)
    client.close()
    with pytest.raises(ClientClosedError):
        next(events)
    never.set()


def test_the_result_is_waited_for_across_a_broken_stream(
    make_client: MakeClient, play: Play
) -> None:
    server, target = play([grpc.StatusCode.UNAVAILABLE], [])
    states = iter([JobState.JOB_STATE_RUNNING, JobState.JOB_STATE_SUCCEEDED])

    def get_job(request: GetJobRequest, context: Any) -> Job:
        del context
        state = next(states, JobState.JOB_STATE_SUCCEEDED)
        return Job(name=request.name, state=state, latest_sequence=LAST)

    server.get_job = get_job
    assert make_client(target).job("a").result().state == JobState.JOB_STATE_SUCCEEDED


def test_a_pause_is_an_event_and_no_end(make_client: MakeClient, play: Play) -> None:
    paused = JobEvent(job="jobs/a", sequence=2, paused=JobPaused(reason="REQUESTED"))
    resumed = JobEvent(job="jobs/a", sequence=3, resumed=JobResumed())
    scripts: tuple[Script, ...] = ([1, paused, grpc.StatusCode.UNAVAILABLE], [], [resumed, 4, 5])
    server, target = play(*scripts, *scripts)
    server.state = JobState.JOB_STATE_PAUSED
    job = make_client(target).job("a")
    assert [one.WhichOneof("event") for one in job.events()] == [
        *("queued", "paused", "resumed", "epoch", "finished")
    ]
    assert [epoch.epoch for epoch in job.epochs()] == [3]
    assert server.asked == [0, 2, 2] * 2


def test_a_job_that_is_deleted_while_it_is_waited_for_is_not_found(
    make_client: MakeClient, play: Play
) -> None:
    _, target = play([grpc.StatusCode.NOT_FOUND])
    with pytest.raises(NotFoundError):
        make_client(target).job("a").result()


@pytest.mark.parametrize("script", ["quiet", "away", "over"])
def test_a_result_is_waited_for_as_long_as_is_asked(
    make_client: MakeClient, play: Play, script: str
) -> None:
    never = threading.Event()
    step = {"quiet": never, "away": grpc.StatusCode.UNAVAILABLE, "over": LAST}[script]
    _, target = play(*[[step]] * 30)
    with pytest.raises(DeadlineExceededError, match=r"jobs/a has not ended within 0\.3 s"):
        make_client(target).job("a").result(timeout=0.3)
    never.set()


def test_a_deletion_whose_answer_was_lost_is_no_error(make_client: MakeClient, play: Play) -> None:
    server, target = play([grpc.StatusCode.UNAVAILABLE], [grpc.StatusCode.NOT_FOUND])
    make_client(target).delete_job("a")
    assert server.deleted == ["jobs/a", "jobs/a"]


def test_a_deletion_of_what_is_not_there_is_an_error(make_client: MakeClient, play: Play) -> None:
    _, target = play([grpc.StatusCode.NOT_FOUND])
    with pytest.raises(NotFoundError):
        make_client(target).delete_job("a")


def test_the_advice_of_a_full_server_reaches_the_caller(
    make_client: MakeClient, play: Play
) -> None:
    server, target = play([])
    status = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=Duration(seconds=2)))
    status.details.append(detail)

    def refuse(request: GetJobRequest, context: Any) -> Job:
        del request
        context.set_trailing_metadata(((STATUS_KEY, status.SerializeToString()),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        raise AssertionError

    server.get_job = refuse
    with pytest.raises(ResourceExhaustedError) as caught:
        make_client(target).get_job("a")
    assert caught.value.retry_delay == 2.0


# Its own handler runs after that of the SDK, and before the interpreter stops gRPC's threads.
LEFT_OPEN = """
import atexit, inspect, sys
atexit.register(lambda: print(inspect.getgeneratorlocals(events.gi_yieldfrom)["call"].done()))
from leadline.client import Client
events = Client(sys.argv[1]).job("a").events()
print(next(events).sequence)
"""


def test_a_stream_that_is_left_open_ends_before_the_interpreter_stops_threads(play: Play) -> None:
    stalls = threading.Event()
    _, target = play([1, stalls])
    try:
        done = subprocess.run(
            [sys.executable, "-c", LEFT_OPEN, target],
            check=False,
            capture_output=True,
            text=True,
            timeout=25,
        )
    finally:
        stalls.set()
    assert (done.stdout.split(), done.returncode) == (["1", "True"], 0), done.stderr
