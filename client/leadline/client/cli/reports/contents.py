"""The contents of a report, fetched from the server."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

import click
from google.protobuf.struct_pb2 import Struct

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
from leadline.client.cli import describe_sweep
from leadline.v1.sweep_pb2 import SweepJob

# The most images of a cell of the confusion matrix, and of an outcome of a comparison.
CELL_IMAGES = 8
_OUTCOMES = ("fixed", "broken", "still_wrong")

Cells = dict[tuple[int, int], list[Example]]
"""The images of highest probability, by the indices of the true and the predicted class."""


class Subject(NamedTuple):
    """A model, and the predictions of one of its epochs on the test images."""

    job: Job
    model: Model
    epoch: ModelEpoch
    matrix: ConfusionMatrix
    cells: Cells


class Comparison(NamedTuple):
    """The comparison of two models.

    Attributes:
        counts: how many images have each outcome.
        examples: the first images of each outcome.
        difference: a sentence about the difference of the models; empty if the user chose them.
    """

    counts: CompareModelsResponse
    examples: list[ComparedExample]
    difference: str = ""


class Contents(NamedTuple):
    """Everything that a report shows.

    Attributes:
        title: the names of its subjects.
        written: when its contents were fetched, in local time.
        sweep: the sweep, if the report is about one.
        subjects: the models, at least one.
        comparison: the comparison of two models, if there are two to compare.
    """

    title: str
    written: datetime
    sweep: Sweep | None
    subjects: list[Subject]
    comparison: Comparison | None


def collect(client: Client, names: Sequence[str]) -> Contents:
    """Fetches the contents for "jobs/{id}", "sweeps/{id}", or two models or epochs.

    Raises:
        click.ClickException: no job of the sweep has completed an epoch.
        LeadlineError: the server refused a call.
    """
    written = datetime.now().astimezone()
    first, *others = names
    if others:
        subjects = [_subject(client, name) for name in names]
        comparison = _comparison(client, *(subject.matrix.model for subject in subjects))
        return Contents(" and ".join(names), written, None, subjects, comparison)
    if first.startswith("sweeps/"):
        return _of_sweep(client, client.get_sweep(first), written)
    return Contents(first, written, None, [_subject(client, _model(first))], None)


def _of_sweep(client: Client, sweep: Sweep, written: datetime) -> Contents:
    best = [variant.best_job for variant in sweep.table.variants if variant.best_job]
    if not best:
        raise click.ClickException(f"no job of {sweep.name} has completed an epoch")
    subjects = [_subject(client, _model(job)) for job in best]
    pair = fair_pair(sweep)
    comparison = None
    if pair is not None:
        comparison = _comparison(client, _model(pair.baseline.job), _model(pair.candidate.job))
        comparison = comparison._replace(difference=pair.difference)
    return Contents(sweep.name, written, sweep, subjects, comparison)


class Pair(NamedTuple):
    """Two jobs of a sweep that differ only in the value of one axis."""

    field: str
    baseline: SweepJob
    candidate: SweepJob

    @property
    def difference(self) -> str:
        """A sentence about what the jobs share and how they differ."""
        common = Struct()
        common.update(
            {name: value for name, value in self.baseline.values.items() if name != self.field}
        )
        before, after = (
            describe_sweep.plain(job.values[self.field]) for job in (self.baseline, self.candidate)
        )
        shared = f"Both have {describe_sweep.values(common)}. " if common.fields else ""
        return f"{shared}Only {self.field.replace('_', ' ')} differs: {before}, then {after}."


def fair_pair(sweep: Sweep) -> Pair | None:
    """The two jobs to compare: the most accurate pair that differs only in one axis.

    The axis is batch norm if the sweep has it, and depth only if there is no other. It is
    never the seed or the dataset: models on different images cannot be compared.

    Returns:
        The pair, the earlier value of the axis first; None if there is no pair.
    """
    fields = [axis.field for axis in sweep.axes if axis.field not in {"seed", "dataset"}]
    for field in sorted(fields, key=lambda field: (field != "batch_norm", field == "blocks")):
        groups: dict[str, list[SweepJob]] = defaultdict(list)
        for job in sweep.jobs:
            if job.completed_epochs:
                others = {name: value for name, value in job.values.items() if name != field}
                groups[repr(sorted(others.items()))].append(job)
        pairs = [
            sorted(group, key=attrgetter("best_test_accuracy"), reverse=True)[:2]
            for group in groups.values()
            if len(group) > 1
        ]
        if pairs:
            best = max(pairs, key=lambda pair: [job.best_test_accuracy for job in pair])
            baseline, candidate = (job for job in sweep.jobs if job in best)
            return Pair(field, baseline, candidate)
    return None


def _model(job: str) -> str:
    return job.replace("jobs/", "models/", 1)


def _subject(client: Client, name: str) -> Subject:
    matrix = client.confusion_matrix(model=name)
    # Pins this epoch, because a better one may complete meanwhile.
    model_name, _, number = matrix.model.partition("/epochs/")
    model = client.get_model(model_name)
    epoch = next(epoch for epoch in model.epochs if epoch.epoch == int(number))
    return Subject(client.job(model.job).refresh(), model, epoch, matrix, _cells(client, matrix))


def _cells(client: Client, matrix: ConfusionMatrix) -> Cells:
    cells: Cells = defaultdict(list)
    for metrics in matrix.classes:
        # One call for each true class: its groups are the cells of the row.
        row = client.misclassified(
            model=matrix.model,
            true_class=metrics.class_name,
            grouping="predicted_class",
            per_class=CELL_IMAGES,
            include_correct=True,
        )
        for example in row:
            cells[example.true_class_index, example.predicted_class_index].append(example)
    return dict(cells)


def _comparison(client: Client, baseline: str, candidate: str) -> Comparison:
    pages: list[CompareModelsResponse] = []
    for outcome in _OUTCOMES:
        page = client.compare_models(baseline, candidate, outcome=outcome, page_size=CELL_IMAGES)
        # Pins these epochs for the other pages, because better ones may complete meanwhile.
        baseline, candidate = page.baseline, page.candidate
        pages.append(page)
    return Comparison(pages[0], [example for page in pages for example in page.examples])
