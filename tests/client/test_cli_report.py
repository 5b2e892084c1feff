"""`leadline report`: a self-contained page with the results of the service."""

import base64
import io
import itertools
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from client.cli_outcome import Leadline
from leadline.client import Client, ConfusionMatrix, Example, Job, Model, ModelEpoch, Sweep
from leadline.client.cli import describe, describe_sweep
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.reports.contents import Subject, fair_pair
from leadline.client.cli.reports.examples import confusion_table, images_a_cell
from leadline.v1.inspection_service_pb2 import ClassMetrics, ConfusionRow
from support.servers import LiveServer

# Elements that make a browser send requests.
REFERRING = {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}


class Page(HTMLParser):
    """The parts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words += f"{data} "

    def values(self, attribute: str) -> list[str]:
        return [found[attribute] for _, found in self.tags if attribute in found]

    def counts(self, prefix: str) -> dict[tuple[int, int], int]:
        """Returns the counts on the buttons of a confusion matrix."""
        found = {}
        for tag, attributes in self.tags:
            target = attributes.get("popovertarget", "")
            if tag == "button" and target.startswith(prefix) and "aria-label" in attributes:
                row, column = target.removeprefix(prefix).split("-")
                count = attributes["aria-label"].partition(" of ")[0]
                found[int(row), int(column)] = int(count)
        return found


def written(leadline: Leadline, out: Path, *subjects: str) -> Page:
    outcome = leadline("report", *subjects, "--out", str(out))
    assert outcome.code == ExitCode.SUCCESS, outcome.err
    assert outcome.out == f"wrote {out}\n"
    page = Page(out.read_text())
    ids = Counter(page.values("id"))
    assert max(ids.values()) == 1
    assert set(page.values("popovertarget")) <= set(ids)
    for _, attributes in page.tags:
        for name in REFERRING & set(attributes):
            target = attributes[name]
            assert target.startswith("data:") or target.removeprefix("#") in ids, target
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", out.read_text()))
    return page


def nonzero(matrix: ConfusionMatrix) -> dict[tuple[int, int], int]:
    rows = [list(row.counts) for row in matrix.rows]
    return {(i, j): count for i, row in enumerate(rows) for j, count in enumerate(row) if count}


def test_a_sweep_is_reported_with_the_numbers_of_the_service(
    leadline: Leadline, live_server: LiveServer, depth_sweep: Sweep, tmp_path: Path
) -> None:
    out = tmp_path / "reports" / "report.html"
    page = written(leadline, out, depth_sweep.name)

    assert out.stat().st_size < 8_000_000
    for row in describe_sweep.variant_table(depth_sweep.table)[1]:
        assert all(cell in page.words for cell in row)
    with Client(live_server.target) as client:
        for place, variant in enumerate(depth_sweep.table.variants):
            model = client.get_model(variant.best_job.replace("jobs/", "models/"))
            matrix = client.confusion_matrix(model=model)
            assert page.counts(f"cell-{place}-") == nonzero(matrix)
            assert model.dataset_fingerprint in page.words
            assert model.epochs[model.best_epoch - 1].weights_sha256 in page.words
        pair = fair_pair(depth_sweep)
        assert pair is not None
        compared = client.compare_models(
            *(job.job.replace("jobs/", "models/") for job in (pair.baseline, pair.candidate))
        )
    words = " ".join(page.words.split())
    assert pair.difference in words
    assert "dataset depths, 10 classes (fingerprint" in words
    assert re.search(r"trained \d{4}-\d\d-\d\d \d\d:\d\d:\d\d to \d{4}-", words)
    for label, number in (
        ("fixed", compared.fixed),
        ("broken", compared.broken),
        ("still wrong", compared.still_wrong),
        ("correct in both", compared.both_right),
    ):
        assert re.search(rf"{label}\s+{number}\b", page.words), label
    assert compared.baseline in page.words
    assert compared.candidate in page.words


def test_a_job_is_reported_with_the_images_behind_each_cell(
    leadline: Leadline, live_server: LiveServer, model: Model, tmp_path: Path
) -> None:
    page = written(leadline, tmp_path / "job.html", model.job)
    with Client(live_server.target) as client:
        matrix = client.confusion_matrix(model=model)
        environment = client.job(model.job).refresh().environment
        wrong = list(client.misclassified(model=model, grouping="none", per_class=1))

    assert page.counts("cell-0-") == nonzero(matrix)
    assert describe.percent(model.best_test_accuracy) in page.words
    assert f"torch {environment.torch_version}" in " ".join(page.words.split())
    images = [value.partition(",")[2] for value in page.values("src")]
    assert len(images) >= sum(min(count, 8) for count in nonzero(matrix).values())
    pictures = {base64.b64decode(image) for image in images}
    assert wrong[0].png in pictures
    with Pillow.open(io.BytesIO(next(iter(pictures)))) as picture:
        assert picture.size == (32, 32)
    assert "McNemar" not in page.words


def test_two_epochs_are_reported_side_by_side(
    leadline: Leadline, live_server: LiveServer, model: Model, tmp_path: Path
) -> None:
    pair = (model.epochs[0].name, model.epochs[-1].name)
    page = written(leadline, tmp_path / "pair.html", *pair)
    with Client(live_server.target) as client:
        for place, name in enumerate(pair):
            matrix = client.confusion_matrix(model=name)
            assert page.counts(f"cell-{place}-") == nonzero(matrix)
        compared = client.compare_models(*pair)

    assert re.search(rf"fixed\s+{compared.fixed}\b", page.words)
    assert "McNemar's test" in page.words


def test_a_bare_id_is_enough(leadline: Leadline, model: Model, tmp_path: Path) -> None:
    page = written(leadline, tmp_path / "report.html", model.job.removeprefix("jobs/"))
    assert model.job in page.words


@pytest.mark.parametrize(
    ("subjects", "out", "code"),
    [
        (("nobody",), "report.html", ExitCode.NOT_FOUND),
        (("jobs/a", "sweeps/b"), "report.html", ExitCode.USAGE),
        (("jobs/a", "jobs/b"), "report.html", ExitCode.NOT_FOUND),
        (("a", "b", "c"), "report.html", ExitCode.USAGE),
        (("jobs/a",), "report.pdf", ExitCode.USAGE),
        (("jobs/nobody",), "report.html", ExitCode.NOT_FOUND),
        (("sweeps/nobody",), "report.html", ExitCode.NOT_FOUND),
        (("nobody", "noone"), "report.html", ExitCode.NOT_FOUND),
    ],
)
def test_what_cannot_be_reported_leaves_no_file(
    leadline: Leadline, tmp_path: Path, subjects: tuple[str, ...], out: str, code: ExitCode
) -> None:
    assert leadline("report", *subjects, "--out", str(tmp_path / out)).code == code
    assert not list(tmp_path.iterdir())


def test_there_is_no_report_before_the_first_epoch(busy_leadline: Leadline, tmp_path: Path) -> None:
    sweep = busy_leadline("sweep", "--dataset", "tiny", "--blocks", "0", "--detach").out.strip()
    outcome = busy_leadline("report", sweep, "--out", str(tmp_path / "report.html"))
    busy_leadline("cancel", sweep)

    assert outcome.code == ExitCode.USAGE
    assert f"no job of {sweep} has completed an epoch" in outcome.err


def test_names_of_classes_are_text_whatever_they_look_like() -> None:
    name = '"><script>alert(1)</script>'
    matrix = ConfusionMatrix(
        rows=[ConfusionRow(counts=[1])], classes=[ClassMetrics(class_name=name, support=1)]
    )
    cells = {(0, 0): [Example(png=b"png", true_class_name=name, predicted_class_name=name)]}

    page = Page(confusion_table(matrix, cells, prefix="cell", most=8))

    assert "script" not in {tag for tag, _ in page.tags}
    assert f"1 of true {name} predicted {name}: show images" in page.values("aria-label")


def sweep_of(axes: dict[str, list[Any]], accuracies: list[float]) -> Sweep:
    """Returns a sweep of succeeded jobs with these accuracies, in the order of the grid."""
    sweep = Sweep(name="sweeps/a")
    for field in axes:
        sweep.axes.add(field=field)
    for place, values in enumerate(itertools.product(*axes.values())):
        job = sweep.jobs.add(job=f"jobs/{place}", completed_epochs=1)
        job.values.update(dict(zip(axes, values, strict=True)))
        job.best_test_accuracy = accuracies[place]
    return sweep


def pair_of(axes: dict[str, list[Any]], accuracies: list[float]) -> tuple[str, str, str] | None:
    pair = fair_pair(sweep_of(axes, accuracies))
    return pair and (pair.field, pair.baseline.job, pair.candidate.job)


def test_a_sweep_compares_jobs_that_differ_in_one_thing_only() -> None:
    # The best without batch norm has 2 blocks, and the best with it 4: the pair has 4 blocks.
    axes: dict[str, list[Any]] = {"blocks": [2, 4], "batch_norm": [False, True]}
    assert pair_of(axes, [0.6, 0.1, 0.2, 0.9]) == ("batch_norm", "jobs/2", "jobs/3")
    # Seeds are compared separately, and the baseline comes first even if it is better.
    seeds: dict[str, list[Any]] = {"batch_norm": [False, True], "seed": [0, 1]}
    assert pair_of(seeds, [0.3, 0.9, 0.8, 0.2]) == ("batch_norm", "jobs/1", "jobs/3")
    # Without batch norm: the best depth, with the two best values of the other axis.
    rates: dict[str, list[Any]] = {"blocks": [2, 4], "learning_rate": [0.1, 0.2, 0.3]}
    accuracies = [0.1, 0.2, 0.3, 0.9, 0.1, 0.8]
    assert pair_of(rates, accuracies) == ("learning_rate", "jobs/3", "jobs/5")
    assert pair_of({"blocks": [2, 4, 6]}, [0.5, 0.9, 0.7]) == ("blocks", "jobs/1", "jobs/2")
    assert pair_of({"dataset": ["a", "b"], "seed": [0, 1]}, [0.1, 0.2, 0.3, 0.4]) is None

    pair = fair_pair(sweep_of(axes, [0.6, 0.1, 0.2, 0.9]))
    assert pair is not None
    assert pair.difference == "Both have blocks=4. Only batch norm differs: no, then yes."


def test_a_comparison_leaves_out_jobs_without_an_epoch() -> None:
    sweep = sweep_of({"blocks": [2, 4], "batch_norm": [False, True]}, [0.6, 0.1, 0.0, 0.9])
    sweep.jobs[2].completed_epochs = 0

    pair = fair_pair(sweep)

    assert pair is not None
    assert (pair.baseline.job, pair.candidate.job) == ("jobs/0", "jobs/1")


@pytest.mark.parametrize(("models", "room"), [(1, 8), (6, 3), (60, 0)])
def test_cells_open_as_many_images_as_there_is_room_for(models: int, room: int) -> None:
    example = Example(png=bytes(2_000))
    cells = {(true, taken): [example] * 9 for true in range(10) for taken in range(10)}
    subject = Subject(Job(), Model(), ModelEpoch(), ConfusionMatrix(), cells)

    assert images_a_cell([subject] * models) == room
