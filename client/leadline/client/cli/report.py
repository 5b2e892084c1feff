"""`leadline report`."""

from pathlib import Path

import click

from leadline.client.cli.commands import checked, command
from leadline.client.cli.control import find
from leadline.client.cli.figures.files import require_plot
from leadline.client.cli.files import appearing, out_option
from leadline.client.cli.options import Session, session_options
from leadline.client.cli.reports.contents import collect

_PAIR = 2


def _subjects(names: tuple[str, ...]) -> tuple[str, ...]:
    is_pair = len(names) == _PAIR and not any(name.startswith("sweeps/") for name in names)
    if len(names) != 1 and not is_pair:
        raise click.BadParameter("give one job, one sweep, or two models to compare")
    return names


@command(
    "leadline report sweeps/phgcrktpjf --out report.html",
    "leadline report jobs/tqzx81mmva --out job.html",
    "leadline report models/phgcrktpjf models/tqzx81mmva/epochs/3 --out compared.html",
)
@click.argument(
    "subjects", nargs=-1, required=True, metavar="SUBJECT...", callback=checked(_subjects)
)
@out_option(".html", ".htm", text="The file to write: html.")
@session_options
def report(session: Session, *, subjects: tuple[str, ...], out: Path) -> None:
    """Write a job, a sweep or a comparison as one HTML page.

    SUBJECT is jobs/ID, sweeps/ID, only the ID, or two models or epochs to compare. The page needs
    no network. It has the models, curves, tables, confusion matrices whose cells open images,
    misclassified images, and a comparison. For a sweep, it compares two jobs that differ only in
    one axis, such as batch norm. A running job is shown up to its latest epoch. Needs the extra
    `plot`. --json prints an object with `out` and the shown `models`.
    """
    require_plot()
    from leadline.client.cli.reports.page import page  # noqa: PLC0415 - needs matplotlib

    with session.client() as client:
        names = [find(client, subjects[0]).name] if len(subjects) == 1 else subjects
        contents = collect(client, names)
    with appearing(out) as temporary:
        temporary.write_text(page(contents), encoding="utf-8")
    if session.output.as_json:
        models = [subject.matrix.model for subject in contents.subjects]
        session.output.json({"out": str(out), "models": models})
    session.output.text(f"wrote {out}")
