"""What a report is about, as the server tells it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import click

from leadline.client import (
    Client,
    ComparedExample,
    CompareModelsResponse,
    ConfusionMatrix,
    Example,
    Job,
    Model,
    ModelEpoch,
    Sweep,
)

# Images of a cell of the confusion matrix, and of an outcome of a comparison.
CELL_IMAGES = 8
_OUTCOMES = ("fixed", "broken", "still_wrong")

Cells = dict[tuple[int, int], list[Example]]
"""By the index of the true class and that of the class taken: the most probable images."""


class Subject(NamedTuple):
    """A model and what one of its epochs makes of the test images."""

    job: Job
    model: Model
    epoch: ModelEpoch
    matrix: ConfusionMatrix
    cells: Cells


class Comparison(NamedTuple):
    """What comparing two models came to, and the first images of each outcome."""

    counts: CompareModelsResponse
    examples: list[ComparedExample]


class Contents(NamedTuple):
    """Everything that a report shows.

    Attributes:
        title: what it is about.
        sweep: the sweep, where it is about one.
        subjects: the models, one at least.
        comparison: of two of them, where there are two to compare.
    """

    title: str
    sweep: Sweep | None
    subjects: list[Subject]
    comparison: Comparison | None


def collect(client: Client, names: Sequence[str]) -> Contents:
    """Asks for all that a report shows.

    Args:
        client: whom to ask.
        names: "jobs/{id}", or "sweeps/{id}", or two models or epochs.

    Raises:
        click.ClickException: there is nothing to report of the sweep yet.
        LeadlineError: the server refused a call.
    """
    first, *others = names
    if others:
        subjects = [_subject(client, name) for name in names]
        return Contents(" and ".join(names), None, subjects, _comparison(client, subjects))
    if first.startswith("sweeps/"):
        return _of_sweep(client, client.get_sweep(first))
    return Contents(first, None, [_subject(client, first.replace("jobs/", "models/", 1))], None)


def _of_sweep(client: Client, sweep: Sweep) -> Contents:
    best = [variant.best_job for variant in sweep.table.variants if variant.best_job]
    if not best:
        raise click.ClickException(f"no job of {sweep.name} has completed an epoch")
    subjects = [_subject(client, job.replace("jobs/", "models/", 1)) for job in best]
    pair = [_best(subjects, batch_norm=norm) for norm in (False, True)]
    compared = [subject for subject in pair if subject is not None]
    comparison = _comparison(client, compared) if len(compared) == len(pair) else None
    return Contents(sweep.name, sweep, subjects, comparison)


def _best(subjects: Iterable[Subject], *, batch_norm: bool) -> Subject | None:
    """The most accurate with or without batch norm, the first of equals."""
    candidates = [one for one in subjects if one.model.variant.batch_norm == batch_norm]
    return max(candidates, key=lambda one: one.matrix.accuracy, default=None)


def _subject(client: Client, name: str) -> Subject:
    matrix = client.confusion_matrix(model=name)
    # From here on that epoch, whatever becomes the best one meanwhile.
    model_name, _, number = matrix.model.partition("/epochs/")
    model = client.get_model(model_name)
    epoch = next(one for one in model.epochs if one.epoch == int(number))
    return Subject(client.job(model.job).refresh(), model, epoch, matrix, _cells(client, matrix))


def _cells(client: Client, matrix: ConfusionMatrix) -> Cells:
    cells: Cells = defaultdict(list)
    for one in matrix.classes:
        # A call a class: within it the groups are the cells of its row.
        row = client.misclassified(
            model=matrix.model,
            true_class=one.class_name,
            grouping="predicted_class",
            per_class=CELL_IMAGES,
            include_correct=True,
        )
        for example in row:
            cells[example.true_class_index, example.predicted_class_index].append(example)
    return dict(cells)


def _comparison(client: Client, subjects: Sequence[Subject]) -> Comparison:
    baseline, candidate = (subject.matrix.model for subject in subjects)
    pages = [
        client.compare_models(baseline, candidate, outcome=outcome, page_size=CELL_IMAGES)
        for outcome in _OUTCOMES
    ]
    return Comparison(pages[0], [example for page in pages for example in page.examples])
