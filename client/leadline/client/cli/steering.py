"""Steering a job, or a sweep of jobs, by its name."""

from leadline.client import Job, Sweep
from leadline.client.cli import describe, describe_sweep
from leadline.client.cli.options import Session


def is_sweep(name: str) -> bool:
    """Whether the name is a sweep's; a bare ID is a job's."""
    return name.startswith("sweeps/")


def show_standing(session: Session, found: Job | Sweep) -> None:
    """Prints where a job or a sweep stands."""
    if session.output.as_json:
        session.output.message(found)
    elif isinstance(found, Sweep):
        session.output.text(describe_sweep.standing(found))
    else:
        session.output.text(describe.standing(found))
