"""Following a job until it ends, or until the user has seen enough."""

from leadline.client import JobState, TrainingJob
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.options import Session
from leadline.client.cli.views import View

_EXIT_CODES = {
    JobState.JOB_STATE_SUCCEEDED: ExitCode.SUCCESS,
    JobState.JOB_STATE_FAILED: ExitCode.FAILED,
    JobState.JOB_STATE_CANCELLED: ExitCode.JOB_CANCELLED,
}


def follow(session: Session, job: TrainingJob, view: View, *, after_sequence: int = 0) -> ExitCode:
    """Shows the job's events to its end and returns what it came to.

    Ctrl-C leaves the job alone and says how to come back to it.
    """
    try:
        return show_events(job, view, after_sequence=after_sequence)
    except KeyboardInterrupt:
        session.output.note(detached(session, job.name))
        return ExitCode.INTERRUPTED


def show_events(job: TrainingJob, view: View, *, after_sequence: int = 0) -> ExitCode:
    """Shows the job's events to its end and returns what it came to."""
    with view:
        for event in job.events(
            after_sequence, view.progress_interval, on_reconnect=view.reconnecting
        ):
            view.show(event)
            if event.HasField("finished"):
                return _EXIT_CODES[event.finished.state]
    # Nothing came after `after_sequence`: the job had ended with it.
    return _EXIT_CODES.get(job.refresh().state, ExitCode.SERVER_ERROR)


def detached(session: Session, job: str) -> str:
    """What to know about a job that goes on by itself."""
    return (
        f"{job} goes on. Watch it with `{session.command('watch', job)}`, "
        f"cancel it with `{session.command('cancel', job)}`."
    )
