"""The page of a report, from its parts."""

from itertools import groupby

from leadline.client import CompareModelsResponse, Outcome, Sweep, state_name
from leadline.client._text import counted
from leadline.client.cli import describe, describe_sweep
from leadline.client.cli.compare import outcome_name, p_value
from leadline.client.cli.confusion import metrics_row, summary
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
    """The report as one HTML document, which refers to nothing outside of itself."""
    sections = [("run", "What was run", _run(contents))]
    if contents.sweep is not None:
        sections.append(("sweep", "The sweep", _sweep(contents.sweep)))
    sections.append(("curves", "Curves", _curves(contents)))
    if contents.comparison is not None:
        sections.append(("comparison", "Comparison", _comparison(contents.comparison)))
    sections.append(("confusion", "What is taken for what", _confusion(contents)))
    sections.append(("wrong", "Wrong images", _grids(contents)))
    title = text(f"Leadline: {contents.title}")
    links = "".join(f'<a href="#{name}">{text(heading)}</a>' for name, heading, _ in sections)
    body = "".join(section(heading, parts, name=name) for name, heading, parts in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # So that the browser asks nobody for an icon.
        f'<link rel="icon" href="data:,"><title>{title}</title>\n<style>{STYLE}</style></head>\n'
        f"<body><h1>{title}</h1>\n<nav>{links}</nav>\n<main>{body}</main></body></html>\n"
    )


def _run(contents: Contents) -> str:
    headings = ("model", "network", "#epochs", "#best epoch", "#best test", "#parameters")
    rows = [
        (
            one.model.name,
            describe.network(one.model.variant),
            f"{one.job.completed_epochs}/{one.job.spec.epochs}",
            str(one.model.best_epoch),
            describe.percent(one.model.best_test_accuracy),
            f"{one.model.parameters:,}",
        )
        for one in contents.subjects
    ]
    details = [unfolding(_label(one), facts(_facts(one))) for one in contents.subjects]
    return table(headings, rows) + "".join(details)


def _label(one: Subject) -> str:
    return f"{describe.network(one.model.variant)}, {one.matrix.model}"


def _facts(one: Subject) -> list[tuple[str, str]]:
    environment = one.job.environment
    return [
        ("job", f"{one.job.name}, {state_name(one.job)}"),
        ("submitted", describe.local_time(one.job.create_time)),
        ("spec", describe.spec(one.job.spec)),
        ("device", one.job.device or "-"),
        ("threads", str(environment.threads)),
        ("instruction set", environment.instruction_set or "-"),
        ("leadline", environment.leadline_version),
        ("torch", environment.torch_version),
        ("Python", environment.python_version),
        ("dataset", one.model.variant.dataset),
        ("dataset fingerprint", one.model.dataset_fingerprint),
        ("epoch shown", str(one.epoch.epoch)),
        ("SHA-256 of its weights", one.epoch.weights_sha256),
    ]


def _sweep(sweep: Sweep) -> str:
    parts = [paragraph(describe_sweep.standing(sweep))]
    if any(axis.field == "blocks" for axis in sweep.axes):
        title = sweep_title(sweep)
        figure = sweep_figure(depth_lines(sweep), title=title)
        parts.append(inline(figure, name="depths", shows=f"{title}, against depth"))
    parts.append(table(*describe_sweep.variant_table(sweep.table)))
    parts += [paragraph(describe_sweep.best_depth(one)) for one in sweep.table.best_depths]
    return "".join(parts) + unfolding("Its jobs", table(*describe_sweep.job_list(sweep)))


def _curves(contents: Contents) -> str:
    # Two epochs of one model have the same curves.
    models = list({one.model.name: one.model for one in contents.subjects}.values())
    title = curves_title(models)
    figure = curves_figure(model_curves(models), title=title)
    drawn = inline(figure, name="curves", shows=f"{title}, epoch by epoch")
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
        for outcome, examples in groupby(comparison.examples, key=lambda one: one.outcome)
    ]
    return facts(_comparison_facts(counts)) + "".join(images)


def _comparison_facts(counts: CompareModelsResponse) -> list[tuple[str, str]]:
    test = counts.mcnemar
    kind = "exact" if test.exact else f"chi-squared {test.statistic:.2f}"
    return [
        ("baseline", f"{counts.baseline}, {describe.percent(counts.baseline_accuracy)} right"),
        ("candidate", f"{counts.candidate}, {describe.percent(counts.candidate_accuracy)} right"),
        ("images", f"{counts.images:,} test images"),
        (outcome_name(Outcome.OUTCOME_FIXED), f"{counts.fixed:,}"),
        (outcome_name(Outcome.OUTCOME_BROKEN), f"{counts.broken:,}"),
        (outcome_name(Outcome.OUTCOME_STILL_WRONG), f"{counts.still_wrong:,}"),
        ("right in both", f"{counts.both_right:,}"),
        ("McNemar's test", f"{p_value(test.p_value)} ({kind})"),
    ]


def _confusion(contents: Contents) -> str:
    most = images_a_cell(contents.subjects)
    said = (
        f"A cell opens up to {counted(most, 'image')}, those of the highest probability."
        if most
        else "There are too many images to have those of the cells here."
    )
    parts = [
        unfolding(
            f"{describe.network(one.model.variant)}, {summary(one.matrix)}",
            confusion_table(one.matrix, one.cells, prefix=f"cell-{place}", most=most),
            table(
                ("class", "#images", "#taken for it", "#precision", "#recall", "#F1"),
                [metrics_row(each) for each in one.matrix.classes],
            ),
        )
        for place, one in enumerate(contents.subjects)
    ]
    return paragraph(said) + _opened(parts)


def _grids(contents: Contents) -> str:
    said = "For each class two images that were wrongly taken for it, and two of its own."
    parts = [unfolding(_label(one), grid(one.matrix, one.cells)) for one in contents.subjects]
    return paragraph(said) + _opened(parts)


def _opened(parts: list[str]) -> str:
    """The parts, of which the first is open."""
    return "".join(parts).replace("<details>", "<details open>", 1)
