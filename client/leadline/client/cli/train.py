"""`leadline train`."""

from typing import Any

from leadline.client.cli.commands import command
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.following import finish_submission
from leadline.client.cli.job_options import job_options, submission_options
from leadline.client.cli.options import Session, session_options, spec_options
from leadline.client.cli.views import make_view


@command(
    "leadline train --dataset synthetic --blocks 2 --batch-norm --epochs 5",
    "leadline train --dataset cifar10 --blocks 10 --batch-norm --learning-rate 0.05",
    "leadline train --dataset cifar10 --priority 5 --time-limit 2h --retention best-and-last",
    "job=$(leadline train --dataset synthetic --detach)",
)
@spec_options
@job_options
@submission_options("job")
@session_options
def train(
    session: Session,
    *,
    fields: dict[str, Any],
    options: dict[str, Any],
    detach: bool,
    request_id: str | None,
) -> ExitCode:
    """Train a model and watch it learn.

    Options that are not given take the server's defaults. Ctrl-C does not stop the job: `leadline
    watch` follows it again. The exit code is 1 if the job fails and 5 if it is cancelled.
    """
    view = make_view(session.output)
    with session.client() as client:
        job = client.train(
            **fields, **options, request_id=request_id, progress_interval=view.progress_interval
        )
        return finish_submission(session, job, view, detach=detach)
