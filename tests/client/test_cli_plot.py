"""The figures of the command line: their text, their colours and their layout."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image as Pillow

from leadline.client import ConfusionMatrix, Example, Model, ModelEpoch, Variant
from leadline.client.cli.depth_lines import DepthLine
from leadline.client.cli.figures.confusion import confusion_figure
from leadline.client.cli.figures.curves import Curve, curves_figure
from leadline.client.cli.figures.grid import grid_figure
from leadline.client.cli.figures.style import COOL, WARM
from leadline.client.cli.figures.sweep import sweep_figure
from leadline.client.cli.plot import curves_title, epoch_title, model_curves
from leadline.v1.inspection_service_pb2 import Calibration, ClassMetrics, ConfusionRow

LONG = "10 residual blocks of 2 convolutions with batch norm on a dataset of a long name"


def curve(label: str, *, batch_norm: bool) -> Curve:
    return Curve(label, batch_norm, [1, 2], [50.0, 60.0], [40.0, 45.0])


def depth_line(label: str, *, batch_norm: bool) -> DepthLine:
    return DepthLine(label, batch_norm, [1, 2], [50.0, 60.0], [40.0, 45.0], [55.0, 65.0])


def assert_within(figure: Figure, artists: Sequence[Artist]) -> None:
    figure.draw_without_rendering()
    for artist in artists:
        box = artist.get_window_extent()
        assert box.x0 >= 0, artist
        assert box.x1 <= figure.bbox.x1, artist
        assert box.y0 >= 0, artist
        assert box.y1 <= figure.bbox.y1, artist


def model(dataset: str, job: str = "a", *, fingerprint: str = "0" * 64) -> Model:
    return Model(
        name=f"models/{job}",
        job=f"jobs/{job}",
        variant=Variant(dataset=dataset, blocks=2, batch_norm=True, block_convolutions=1),
        epochs=[ModelEpoch(epoch=1, train_accuracy=0.5, test_accuracy=0.25)],
        dataset_fingerprint=fingerprint,
    )


@pytest.mark.parametrize(
    ("label", "count"),
    [("without batch norm", 1), ("without batch norm", 14), (f"{LONG}, jobs/", 2), (LONG * 3, 8)],
)
def test_a_legend_lies_within_its_figure(label: str, count: int) -> None:
    labels = [f"{label}{number}" for number in range(count)]
    curves = curves_figure([curve(label, batch_norm=True) for label in labels], title=LONG * 2)
    sweep = sweep_figure([depth_line(label, batch_norm=True) for label in labels], title=LONG * 2)

    for figure in (curves, sweep):
        assert_within(figure, [*figure.legends, figure.axes[0].title])
        # The figure grows with the legend, so the axes keep their size.
        assert figure.axes[0].get_window_extent().height > 3 * figure.dpi
    # A single curve has a title with the text of its label.
    words = [text.get_text().replace("\n", " ") for text in curves.legends[0].get_texts()]
    expected = [" ".join(label.split()) for label in labels] if count > 1 else []
    assert words == [*expected, "test set", "training set"]


@pytest.mark.parametrize("kinds", [(True,), (False,), (True, False), (False, True, True, False)])
def test_colours_tell_batch_norm_whatever_the_order(kinds: tuple[bool, ...]) -> None:
    curves = curves_figure(
        [curve(f"{number}", batch_norm=norm) for number, norm in enumerate(kinds)], title=""
    )
    sweep = sweep_figure(
        [depth_line(f"{number}", batch_norm=norm) for number, norm in enumerate(kinds)], title=""
    )

    drawn = [to_hex(line.get_color()).upper() for line in sweep.axes[0].lines]
    # Each curve has a line for the training set and one for the test set.
    assert [to_hex(line.get_color()).upper() for line in curves.axes[0].lines[1::2]] == drawn
    assert [to_hex(line.get_color()).upper() for line in curves.axes[0].lines[::2]] == drawn
    assert len(set(drawn)) == len(kinds)
    for norm, family in ((False, COOL), (True, WARM)):
        of_kind = [colour for colour, kind in zip(drawn, kinds, strict=True) if kind == norm]
        assert of_kind == list(family[: len(of_kind)])


@pytest.mark.parametrize(("aspect_ratio", "shown"), [(4 / 3, 4 / 3), (0.75, 0.75), (1, 1), (0, 1)])
def test_a_grid_shows_images_in_their_aspect_ratio_and_says_what_each_is(
    aspect_ratio: float, shown: float
) -> None:
    png = io.BytesIO()
    Pillow.new("RGB", (32, 32)).save(png, "png")
    wrong = Example(
        index=1234,
        png=png.getvalue(),
        aspect_ratio=aspect_ratio,
        true_class_index=1,
        true_class_name="dog",
        predicted_class_index=0,
        predicted_class_name="$cat$ & co",
        probability=0.987,
    )

    figure = grid_figure(
        [wrong], ["$cat$ & co", "dog"], by_true_class=False, per_class=1, title=LONG * 3
    )

    cell = figure.axes[0]
    assert_within(figure, [*figure.texts, cell.title, cell.yaxis.label])
    box = cell.images[0].get_window_extent()
    assert box.width / box.height == pytest.approx(shown, rel=0.02)
    assert max(box.width, box.height) >= 150
    assert cell.get_title() == "true dog\npredicted $cat$ & co\n98.7 %, image 1234"


@pytest.mark.parametrize("classes", [2, 10, 30])
def test_the_bar_of_a_confusion_matrix_is_as_tall_as_the_matrix(classes: int) -> None:
    calibration = Calibration()
    for number in range(15):
        bin_ = calibration.bins.add(lower=number / 15, upper=(number + 1) / 15, images=number)
        if number:
            bin_.accuracy = 0.01
    matrix = ConfusionMatrix(
        rows=[ConfusionRow(counts=np.eye(classes, dtype=int)[row]) for row in range(classes)],
        classes=[ClassMetrics(class_name=f"class {row}") for row in range(classes)],
        calibration=calibration,
    )

    figure = confusion_figure(matrix, title=f"{LONG}\n{LONG}")

    left, right = figure.axes
    (bar,) = left.child_axes
    legend = right.get_legend()
    assert legend is not None
    assert_within(figure, [legend, right.title, *figure.texts])
    matrix_box, bar_box = left.get_window_extent(), bar.get_window_extent()
    assert bar_box.y0 == pytest.approx(matrix_box.y0, abs=1)
    assert bar_box.y1 == pytest.approx(matrix_box.y1, abs=1)
    assert [text.get_text() for text in right.texts] == [str(number) for number in range(1, 15)]


def test_titles_say_network_dataset_and_epoch() -> None:
    assert epoch_title(model("pets"), "models/a/epochs/3") == (
        "2 blocks with batch norm on pets, epoch 3\nmodels/a/epochs/3"
    )
    assert curves_title([model("pets")]) == (
        "2 blocks with batch norm on pets: accuracy by epoch\njobs/a"
    )
    seeds = [model("pets"), model("pets", "b")]
    assert curves_title(seeds) == "Accuracy by epoch on pets"
    assert [drawn.label for drawn in model_curves(seeds)] == [
        "2 blocks with batch norm, jobs/a",
        "2 blocks with batch norm, jobs/b",
    ]
    seeds[1].spec.seed = 1
    assert model_curves(seeds)[1].label == "2 blocks with batch norm, seed 1"
    seeds[1].spec.learning_rate = 0.05
    assert model_curves(seeds)[0].label == "2 blocks with batch norm, learning rate 0, seed 0"


def test_two_datasets_are_told_apart_also_where_they_share_a_name() -> None:
    named = [model("pets"), model("cars", "b", fingerprint="1" * 64)]
    assert curves_title(named) == "Accuracy by epoch on cars, pets"
    assert [drawn.label for drawn in model_curves(named)] == [
        "2 blocks with batch norm on pets",
        "2 blocks with batch norm on cars",
    ]
    changed = [model("pets"), model("pets", "b", fingerprint="1" * 64)]
    assert curves_title(changed) == "Accuracy by epoch on pets (00000000), pets (11111111)"
    assert model_curves(changed)[1].label == "2 blocks with batch norm on pets (11111111)"
