"""The diagnosis of a job, block by block, for people."""

from collections.abc import Iterable, Iterator, Sequence

from leadline.client import BlockDiagnosis, Client, JobEvent
from leadline.client.cli.output import Output


def show_diagnosis(client: Client, name: str, output: Output) -> None:
    """Prints what a job's events tell of its blocks so far.

    For people: two tables, a row for the start, which is epoch 0, and for each
    epoch. With `--json`: the events.
    """
    events = list(_diagnosed(client, name))
    if output.as_json:
        for event in events:
            output.message(event)
        return
    if not events:
        output.note(f"{name} has no diagnosis: see `leadline train --diagnostics`")
        return
    rows = [(event.epoch.epoch, _diagnosis(event)) for event in events]
    output.text("how far apart images are after each block (standard deviation)")
    output.table(*_table((epoch, [one.activation_std for one in blocks]) for epoch, blocks in rows))
    output.text("the gradient that comes back to each block (L2 norm)")
    output.table(*_table((epoch, [one.gradient_norm for one in blocks]) for epoch, blocks in rows))


def _diagnosed(client: Client, name: str) -> Iterator[JobEvent]:
    job = client.job(name)
    newest = job.refresh().latest_sequence
    for event in job.events():
        if _diagnosis(event):
            yield event
        if event.sequence >= newest:  # what is still to come is not waited for
            return


def _diagnosis(event: JobEvent) -> Sequence[BlockDiagnosis]:
    return event.epoch.diagnosis or event.started.diagnosis


def _table(rows: Iterable[tuple[int, list[float]]]) -> tuple[list[str], list[list[str]]]:
    cells = [[str(epoch), *(f"{value:.2e}" for value in values)] for epoch, values in rows]
    blocks = range(1, len(cells[0]) - 1)
    return ["#epoch", "#head", *(f"#block {block}" for block in blocks)], cells
