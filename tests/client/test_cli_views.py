"""How a job is shown, on a terminal and elsewhere."""

import io

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from leadline.client import EpochResult, JobEvent, JobPhase, JobProgress, JobState, UnavailableError
from leadline.client.cli import describe
from leadline.client.cli.output import Output
from leadline.client.cli.views import JsonView, LineView, LiveView, event_line, make_view
from leadline.v1.job_pb2 import JobFailure, JobFinished, JobPaused, JobQueued, JobResumed


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
        view.reconnecting(UnavailableError("away"), 0.5)
        view.show(JobEvent(progress=training))
    text = terminal.getvalue()
    for shown in (
        "2 jobs start before it",
        "epoch 1/3   train  50.00 %   test  40.00 %",
        "epoch 2/3",
        "1,024/50,000 images; train 50.0%, test 40.0%, loss 0.000; 1:02:05 left",
        "the stream broke (away): reconnecting in 0.5 s",
    ):
        assert shown in text


def test_reconnecting_is_told_on_stderr_where_stdout_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for as_json in (False, True):
        make_view(Output(as_json=as_json)).reconnecting(UnavailableError("away"), 1.0)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "reconnecting in 1.0 s" in captured.err


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
    assert event_line(event, 5) == line


def test_a_state_that_is_not_known_is_shown_by_its_number() -> None:
    assert describe.state(JobState.ValueType(99)) == "state 99"
    assert describe.state(JobState.JOB_STATE_RUNNING) == "running"
