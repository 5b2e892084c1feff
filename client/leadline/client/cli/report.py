"""`leadline report`."""

from pathlib import Path

import click

from leadline.client.cli.commands import Command
from leadline.client.cli.control import find
from leadline.client.cli.figures.files import require_plot
from leadline.client.cli.files import appearing
from leadline.client.cli.options import Session, session_options
from leadline.client.cli.reports.contents import collect

_SUFFIXES = (".html", ".htm")
_PAIR = 2


def _subjects(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    del context, parameter
    is_pair = len(value) == _PAIR and not any(name.startswith("sweeps/") for name in value)
    if len(value) != 1 and not is_pair:
        raise click.BadParameter("give one job, one sweep, or two models to compare")
    return value


def _html_path(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    del context, parameter
    if value.suffix.lower() not in _SUFFIXES:
        raise click.BadParameter(f"{value} ends with none of {', '.join(_SUFFIXES)}")
    return value


@click.command(
    cls=Command,
    examples=(
        "leadline report sweeps/phgcrktpjf --out report.html",
        "leadline report jobs/tqzx81mmva --out job.html",
        "leadline report models/phgcrktpjf models/tqzx81mmva/epochs/3 --out compared.html",
    ),
)
@click.argument("subjects", nargs=-1, required=True, metavar="SUBJECT...", callback=_subjects)
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_html_path,
    help="The file to write: html.",
)
@session_options
def report(session: Session, *, subjects: tuple[str, ...], out: Path) -> None:
    """Write a job, a sweep or a comparison as one HTML page.

    SUBJECT is jobs/ID, sweeps/ID, the bare ID, or two models or epochs to compare. The page needs
    no network. It has the models, curves, tables, confusion matrices whose cells open images, wrong
    images, and a comparison. For a sweep, it compares two jobs that differ in one axis only, such
    as batch norm. A running job is shown up to its latest epoch. Needs the extra `plot`. --json
    prints an object with `out` and the `models` that are shown.
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
