"""The display of a job, on a terminal and elsewhere."""

import io
import json
import re
from collections.abc import Callable

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from leadline.client import (
    EpochResult,
    ErrorDetails,
    Job,
    JobCancelledError,
    JobEvent,
    JobOptions,
    JobPhase,
    JobProgress,
    JobState,
    Model,
    Sweep,
    SweepState,
    TrainingSpec,
    UnavailableError,
    state_name,
)
from leadline.client._config import resolve
from leadline.client.cli import describe, describe_sweep, models
from leadline.client.cli.options import Session
from leadline.client.cli.output import Output
from leadline.client.cli.sweep_views import make_sweep_view
from leadline.client.cli.views import (
    JsonView,
    LineView,
    LiveView,
    Outage,
    View,
    make_view,
)
from leadline.v1.job_pb2 import (
    JobFailure,
    JobFinished,
    JobHold,
    JobPaused,
    JobQueued,
    JobResumed,
)
from leadline.v1.training_service_pb2 import ListJobsResponse

_HELD = JobEvent(
    progress=JobProgress(
        phase=JobPhase.JOB_PHASE_QUEUED,
        hold=JobHold(reason="LOW_DISK_SPACE", message="the disk is full"),
    )
)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, highlight=False)
    monkeypatch.setattr(Output, "console", console)
    monkeypatch.setenv("TERM", "xterm")
    return stream


@pytest.mark.usefixtures("terminal")
def test_a_terminal_is_shown_progress_and_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(make_view(Output(as_json=False)), LiveView)
    assert isinstance(make_view(Output(as_json=True)), JsonView)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_view(Output(as_json=False)), LineView)


def test_the_live_view_shows_every_stage(terminal: io.StringIO) -> None:
    with make_view(Output(as_json=False)) as view:
        queued = JobQueued(queue_position=2)
        queued.spec.epochs = 3
        view.show(JobEvent(job="jobs/a", sequence=1, queued=queued))
        for progress in (
            JobProgress(phase=JobPhase.JOB_PHASE_QUEUED, queue_position=1),
            JobProgress(phase=JobPhase.JOB_PHASE_STARTING),
            JobProgress(phase=JobPhase.JOB_PHASE_PREPARING_DATASET),
        ):
            view.show(JobEvent(job="jobs/a", progress=progress))
        view.show(
            JobEvent(sequence=2, epoch=EpochResult(epoch=1, train_accuracy=0.5, test_accuracy=0.4))
        )
        training = JobProgress(
            phase=JobPhase.JOB_PHASE_TRAINING,
            epoch=2,
            completed_images=1024,
            total_images=50_000,
            time_left=Duration(seconds=3725),
        )
        view.connection_lost("connection lost; reconnecting")
        view.show(JobEvent(progress=training))
    text = terminal.getvalue()
    for shown in (
        "2 jobs start before it",
        "epoch 1/3   train  50.00 %   test  40.00 %",
        "epoch 2/3",
        "1,024/50,000 images; train 50.0%, test 40.0%, loss 0.000; 1:02:05 left",
        "connection lost; reconnecting",
    ):
        assert shown in text


def test_the_live_view_says_what_a_job_waits_for(terminal: io.StringIO) -> None:
    shown = {
        "paused: somebody asked": JobEvent(paused=JobPaused(message="somebody asked")),
        "resumed after epoch 1; 1 job starts before it": JobEvent(
            resumed=JobResumed(completed_epochs=1, queue_position=1)
        ),
        "paused ": JobEvent(progress=JobProgress(phase=JobPhase.JOB_PHASE_PAUSED)),
        "starting ": JobEvent(progress=JobProgress(phase=JobPhase.JOB_PHASE_STARTING)),
        "queued ": JobEvent(progress=JobProgress(phase=JobPhase.JOB_PHASE_QUEUED)),
        "waiting ": JobEvent(progress=JobProgress(phase=JobPhase.ValueType(99))),
        "held: the disk is full\n": _HELD,
    }
    for text, event in shown.items():
        with make_view(Output(as_json=False)) as view:
            terminal.truncate(0)
            view.show(event)
        assert text in terminal.getvalue()


def test_lines_say_once_why_a_job_is_held(capsys: pytest.CaptureFixture[str]) -> None:
    view = make_view(Output(as_json=False))
    free = JobEvent(progress=JobProgress(phase=JobPhase.JOB_PHASE_QUEUED))
    for event in (_HELD, _HELD, free, free, _HELD):
        view.show(event)
    assert capsys.readouterr().out == 2 * "held: the disk is full\n"


@pytest.mark.parametrize("make", [make_view, make_sweep_view])
def test_a_lost_connection_is_reported_on_stderr_where_stdout_is_no_terminal(
    capsys: pytest.CaptureFixture[str], make: Callable[[Output], View[JobEvent]]
) -> None:
    for as_json in (False, True):
        make(Output(as_json=as_json)).connection_lost("connection lost; reconnecting")
        assert capsys.readouterr() == ("", "connection lost; reconnecting\n")


def test_an_outage_is_one_line_without_the_words_of_grpc() -> None:
    lines: list[str] = []
    outage = Outage(lines.append)
    for delay in (0.1, 0.2, 0.4):
        outage.begin(UnavailableError("ipv4:127.0.0.1:50051: connect: refused (111)"), delay)
    assert lines == ["connection lost; reconnecting"]
    outage.end()
    reason = ErrorDetails(reason="SHUTTING_DOWN")
    outage.begin(UnavailableError("the server shuts down: watch jobs/a again", reason), 0.1)
    assert lines[1:] == ["connection lost (the server shuts down); reconnecting"]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (JobEvent(paused=JobPaused(reason="STORAGE", message="the disk is full")),
         "paused: the disk is full"),
        (JobEvent(resumed=JobResumed(completed_epochs=3)),
         "resumed after epoch 3; next in the queue"),
        (JobEvent(finished=JobFinished(
            state=JobState.JOB_STATE_FAILED,
            failure=JobFailure(reason="DIVERGED", message="the loss is not finite"))),
         "failed: the loss is not finite (DIVERGED)"),
        (JobEvent(sequence=7), None),
        (JobEvent(progress=JobProgress()), None),
    ],
)  # fmt: skip
def test_an_event_is_a_line(event: JobEvent, line: str | None) -> None:
    assert describe.event_line(event, 5) == line


def test_a_state_that_is_not_known_is_shown_by_its_number() -> None:
    assert state_name(Job(state=JobState.ValueType(99))) == "state 99"
    assert state_name(Job(state=JobState.JOB_STATE_RUNNING)) == "running"
    assert state_name(Sweep(state=SweepState.SWEEP_STATE_FAILED)) == "failed"


def test_a_table_of_jobs_has_priorities_where_they_matter_and_reasons_of_pauses() -> None:
    plain = Job(name="jobs/a", state=JobState.JOB_STATE_QUEUED)
    paused = Job(
        name="jobs/b",
        state=JobState.JOB_STATE_PAUSED,
        pause=JobPaused(reason="STORAGE"),
        options=JobOptions(priority=-5),
    )
    headings, rows = describe.table(describe.JOB_COLUMNS, [plain])
    assert "#priority" not in headings
    headings, rows = describe.table(describe.JOB_COLUMNS, [plain, paused])
    assert headings[:3] == ["job", "state", "#priority"]
    assert [row[:3] for row in rows] == [
        ["jobs/a", "queued", "0"],
        ["jobs/b", "paused (storage)", "-5"],
    ]


def test_one_is_no_plural() -> None:
    job = Job(name="jobs/a", state=JobState.JOB_STATE_CANCELLED, completed_epochs=1)
    job.spec.epochs, job.spec.blocks = 1, 1
    assert "1 epoch in batches" in describe.spec(job.spec)
    assert describe.standing(job) == "jobs/a is cancelled, 1 of 1 epoch complete"
    assert str(JobCancelledError(job)) == "jobs/a was cancelled after 1 epoch"
    job.completed_epochs, job.spec.epochs = 0, 2
    assert describe.standing(job) == "jobs/a is cancelled, 0 of 2 epochs complete"
    assert str(JobCancelledError(job)) == "jobs/a was cancelled after 0 epochs"


def test_a_model_says_which_epochs_are_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    model = Model(name="models/a", best_epoch=2)
    model.epochs.add(name="models/a/epochs/1", epoch=1, kept=False)
    model.epochs.add(name="models/a/epochs/2", epoch=2, kept=True)
    model.epochs.add(name="models/a/epochs/3", epoch=3, kept=True)
    session = Session(settings=resolve({}), timeout=1.0, output=Output(as_json=False))
    models._show_epochs(session, model)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "/epochs/" in line]
    assert [row[5:] for row in rows] == [["not", "kept"], ["best"], []]


FAILED = Job(
    name="jobs/phgcrktpjf",
    state=JobState.JOB_STATE_FAILED,
    failure=JobFailure(reason="DIVERGED", message="the loss is not finite"),
    options=JobOptions(priority=3),
    device="cuda:0",
)


def test_a_failed_job_is_listed_with_its_reason() -> None:
    headings, (row,) = describe.table(describe.JOB_COLUMNS, [FAILED])
    assert row[headings.index("state")] == "failed (diverged)"
    assert describe.reason(FAILED) == "the loss is not finite (DIVERGED)"
    assert describe.standing(FAILED).endswith(": the loss is not finite (DIVERGED)")
    assert describe.reason(Job(state=JobState.JOB_STATE_RUNNING)) == ""


@pytest.mark.parametrize("width", [40, 80, 100])
def test_a_narrow_terminal_cuts_neither_names_nor_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    model = Model(name="models/phgcrktpjf", parameters=1_234_567, best_test_accuracy=0.5)
    model.variant.dataset = "a-dataset-whose-name-is-long"
    sweep = Sweep(name="sweeps/phgcrktpjf")
    sweep.axes.add(field="block_convolutions")
    sweep.jobs.add(job="jobs/phgcrktpjf").values.update({"block_convolutions": 2})
    stream = io.StringIO()
    monkeypatch.setattr(Output, "console", Console(file=stream, force_terminal=True, width=width))
    tables = {
        "models/phgcrktpjf": describe.table(describe.MODEL_COLUMNS, [model]),
        "jobs/phgcrktpjf": describe.table(describe.JOB_COLUMNS, [FAILED]),
        "sweeps/phgcrktpjf": describe_sweep.sweep_list([sweep]),
        " jobs/phgcrktpjf": describe_sweep.job_list(sweep),
    }
    for name, (headings, rows) in tables.items():
        stream.seek(stream.truncate(0))
        Output(as_json=False).table(headings, rows)
        shown = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
        assert max(map(len, shown.splitlines())) <= width
        assert f"{name} " in shown
        assert "…" not in shown
        left_out = capsys.readouterr().out.partition("width: ")[2].rstrip(".\n").split(", ")
        numbers = [
            cell
            for heading, cell in zip(headings, rows[0], strict=True)
            if heading.startswith("#") and heading[1:] not in left_out
        ]
        assert all(f" {number} " in shown for number in numbers)


def test_json_has_its_fields_in_the_order_of_the_contract(
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = Job(name="jobs/a", completed_epochs=0, attempts=2)
    job.spec.epochs, job.spec.seed = 3, 0
    job.create_time.FromSeconds(1)
    page = ListJobsResponse(jobs=[job])
    Output(as_json=True).message(page)
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["jobs", "next_page_token"]
    (one,) = printed["jobs"]
    for values, descriptor in ((one, Job.DESCRIPTOR), (one["spec"], TrainingSpec.DESCRIPTOR)):
        assert list(values) == [name for name in descriptor.fields_by_name if name in values]
    assert list(one)[:4] == ["name", "spec", "state", "create_time"]
    assert (one["state"], one["create_time"]) == ("JOB_STATE_UNSPECIFIED", "1970-01-01T00:00:01Z")
    assert (one["spec"]["epochs"], one["spec"]["seed"]) == (3, 0)
    assert json.dumps(one["spec"]).startswith('{"dataset": ""')


def test_a_command_to_copy_repeats_the_options_of_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LEADLINE_TARGET", "of-the-shell")
    output = Output(as_json=False)
    usual = Session(settings=resolve({"ca": None}), timeout=1.0, output=output)
    given = {"target": "unix:/tmp/a b", "tls": False, "insecure_token": True}
    other = Session(settings=resolve(given, None), timeout=1.0, output=output)
    assert usual.command("watch", "jobs/a") == "leadline watch jobs/a"
    assert other.command("watch", "jobs/a") == (
        "leadline watch jobs/a --target 'unix:/tmp/a b' --no-tls --insecure-token"
    )
