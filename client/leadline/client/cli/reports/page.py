"""Builds the page of a report."""

from itertools import groupby

from leadline.client import CompareModelsResponse, Outcome, Sweep, state_name
from leadline.client._text import counted
from leadline.client.cli import describe, describe_sweep
from leadline.client.cli.compare import outcome_name, p_value
from leadline.client.cli.confusion import metrics_table, summary
from leadline.client.cli.depth_lines import depth_lines
from leadline.client.cli.figures.curves import curves_figure
from leadline.client.cli.figures.sweep import sweep_figure
from leadline.client.cli.plot import curves_title, model_curves, sweep_title
from leadline.client.cli.reports.contents import Comparison, Contents, Subject
from leadline.client.cli.reports.examples import compared, confusion_table, grid, images_a_cell
from leadline.client.cli.reports.figures import inline
from leadline.client.cli.reports.markup import (
    facts,
    paragraph,
    section,
    table,
    text,
    unfolding,
)
from leadline.client.cli.reports.style import STYLE


def page(contents: Contents) -> str:
    """The report as one HTML document, which needs no other file."""
    sections = [("models", "Models", _models(contents))]
    if contents.sweep is not None:
        sections.append(("sweep", "Sweep", _sweep(contents.sweep)))
    sections.append(("curves", "Accuracy by epoch", _curves(contents)))
    if contents.comparison is not None:
        sections.append(("comparison", "Comparison", _comparison(contents.comparison)))
    sections.append(("confusion", "Confusion matrices", _confusion(contents)))
    sections.append(("wrong", "Wrong images", _grids(contents)))
    title = text(f"Leadline: {contents.title}")
    links = "".join(f'<a href="#{name}">{text(heading)}</a>' for name, heading, _ in sections)
    body = "".join(section(heading, parts, name=name) for name, heading, parts in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Without this line the browser would request an icon.
        f'<link rel="icon" href="data:,"><title>{title}</title>\n<style>{STYLE}</style></head>\n'
        f"<body><header><h1>{title}</h1>\n{facts(_header(contents))}</header>\n"
        f"<nav>{links}</nav>\n<main>{body}</main></body></html>\n"
    )


def _header(contents: Contents) -> list[tuple[str, str]]:
    """The facts of the page: datasets and dates."""
    models = [subject.model for subject in contents.subjects]
    jobs = [subject.job for subject in contents.subjects]
    by_fingerprint = {model.dataset_fingerprint: model for model in models}
    datasets = [
        f"{model.variant.dataset}, {len(model.class_names):,} classes "
        f"(fingerprint {fingerprint[:12]})"
        for fingerprint, model in by_fingerprint.items()
    ]
    begin = min((job.start_time for job in jobs), key=lambda time: time.seconds)
    end = "still running"
    if all(job.HasField("end_time") for job in jobs):
        end = describe.local_time(
            max((job.end_time for job in jobs), key=lambda time: time.seconds)
        )
    return [
        ("dataset", "; ".join(datasets)),
        ("trained", f"{describe.local_time(begin)} to {end}"),
        ("report written", f"{contents.written:%Y-%m-%d %H:%M:%S %Z}"),
    ]


def _models(contents: Contents) -> str:
    headings = ("model", "network", "#epochs", "#best epoch", "#best test", "#parameters")
    rows = [
        (
            subject.model.name,
            describe.network(subject.model.variant),
            f"{subject.job.completed_epochs}/{subject.job.spec.epochs}",
            str(subject.model.best_epoch),
            describe.percent(subject.model.best_test_accuracy),
            f"{subject.model.parameters:,}",
        )
        for subject in contents.subjects
    ]
    details = [unfolding(_label(subject), facts(_facts(subject))) for subject in contents.subjects]
    return table(headings, rows) + "".join(details)


def _label(subject: Subject) -> str:
    return f"{describe.network(subject.model.variant)}, {subject.matrix.model}"


def _facts(subject: Subject) -> list[tuple[str, str]]:
    job, model, environment = subject.job, subject.model, subject.job.environment
    return [
        ("job", f"{job.name}, {state_name(job)}"),
        ("submitted", describe.local_time(job.create_time)),
        ("spec", describe.spec(job.spec)),
        ("device", job.device or "-"),
        ("threads", str(environment.threads)),
        ("instruction set", environment.instruction_set or "-"),
        ("leadline", environment.leadline_version),
        ("torch", environment.torch_version),
        ("Python", environment.python_version),
        ("dataset", model.variant.dataset),
        ("dataset fingerprint", model.dataset_fingerprint),
        ("epoch shown", str(subject.epoch.epoch)),
        ("SHA-256 of its weights", subject.epoch.weights_sha256),
    ]


def _sweep(sweep: Sweep) -> str:
    parts = [paragraph(describe_sweep.standing(sweep))]
    if any(axis.field == "blocks" for axis in sweep.axes):
        title = sweep_title(sweep)
        figure = sweep_figure(depth_lines(sweep), title=title)
        parts.append(inline(figure, name="depths", shows=title))
    parts.append(table(*describe_sweep.variant_table(sweep.table)))
    parts += [paragraph(describe_sweep.best_depth(depth)) for depth in sweep.table.best_depths]
    return "".join(parts) + unfolding("Jobs", table(*describe_sweep.job_list(sweep)))


def _curves(contents: Contents) -> str:
    # Two epochs of one model have the same curves.
    models = list({subject.model.name: subject.model for subject in contents.subjects}.values())
    title = curves_title(models)
    figure = curves_figure(model_curves(models), title=title)
    drawn = inline(figure, name="curves", shows=title)
    rows = [
        (
            describe.network(model.variant),
            epoch.name,
            describe.percent(epoch.train_accuracy),
            describe.percent(epoch.test_accuracy),
        )
        for model in models
        for epoch in model.epochs
    ]
    return drawn + unfolding("Every epoch", table(("network", "epoch", "#train", "#test"), rows))


def _comparison(comparison: Comparison) -> str:
    counts = comparison.counts
    images = [
        f"<h3>{text(outcome_name(outcome).capitalize())}</h3>\n{compared(list(examples))}"
        for outcome, examples in groupby(comparison.examples, key=lambda example: example.outcome)
    ]
    difference = paragraph(comparison.difference) if comparison.difference else ""
    return difference + facts(_comparison_facts(counts)) + "".join(images)


def _comparison_facts(counts: CompareModelsResponse) -> list[tuple[str, str]]:
    test = counts.mcnemar
    kind = "exact" if test.exact else f"chi-squared {test.statistic:.2f}"
    return [
        ("baseline", f"{counts.baseline}, {describe.percent(counts.baseline_accuracy)} correct"),
        ("candidate", f"{counts.candidate}, {describe.percent(counts.candidate_accuracy)} correct"),
        ("images", f"{counts.images:,} test images"),
        (outcome_name(Outcome.OUTCOME_FIXED), f"{counts.fixed:,}"),
        (outcome_name(Outcome.OUTCOME_BROKEN), f"{counts.broken:,}"),
        (outcome_name(Outcome.OUTCOME_STILL_WRONG), f"{counts.still_wrong:,}"),
        ("correct in both", f"{counts.both_right:,}"),
        ("McNemar's test", f"{p_value(test.p_value)} ({kind})"),
    ]


def _confusion(contents: Contents) -> str:
    most = images_a_cell(contents.subjects)
    help_text = (
        f"Click a cell to see up to {counted(most, 'image')}, the highest probability first."
        if most
        else "The images behind the cells are left out, because they would make the page too large."
    )
    parts = [
        unfolding(
            f"{describe.network(subject.model.variant)}, {summary(subject.matrix)}",
            confusion_table(subject.matrix, subject.cells, prefix=f"cell-{place}", most=most),
            table(*metrics_table(subject.matrix)),
        )
        for place, subject in enumerate(contents.subjects)
    ]
    return paragraph(help_text) + _opened(parts)


def _grids(contents: Contents) -> str:
    explanation = (
        "For each class up to two images that are wrongly predicted as it, then up to two that are "
        "correctly predicted. The network sees each image resized to 32 x 32 pixels."
    )
    parts = [
        unfolding(_label(subject), grid(subject.matrix, subject.cells))
        for subject in contents.subjects
    ]
    return paragraph(explanation) + _opened(parts)


def _opened(parts: list[str]) -> str:
    """The parts, with the first one open."""
    return "".join(parts).replace("<details>", "<details open>", 1)
