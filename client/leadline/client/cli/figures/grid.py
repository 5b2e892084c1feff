"""The picture grid: a row for each class, wrong images on the left and right ones beside."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib import image
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leadline.client import Example
from leadline.client.cli.figures.files import appearing

_WRONG = "#D55E00"
_RIGHT = "#0072B2"

# Inches. Every row is as high as any other, whether its captions need two lines or none.
_IMAGE = 1.0
_CAPTION = 0.38
_GAP = 0.35
_NAMES = 1.1
_TITLE = 0.6


def draw_grid(
    examples: Sequence[Example],
    classes: Sequence[str],
    path: Path,
    *,
    by_true_class: bool,
    per_class: int,
    title: str,
) -> None:
    """Writes the grid to a file, in the format that its suffix says.

    Args:
        examples: what to show.
        classes: the names of the classes, a row each.
        path: the file.
        by_true_class: whether a row holds the images of a class, or those
            that were taken for it.
        per_class: wrong images a row, and as many right ones. A place stays
            empty where there are fewer.
        title: what stands above.
    """
    figure = _figure(rows=len(classes), columns=2 * per_class)
    figure.suptitle(title.replace(": ", "\n", 1), y=_title_place(figure), va="top", fontsize=11)
    axes = figure.subplots(len(classes), 2 * per_class, squeeze=False)
    for row, name in enumerate(classes):
        wrong, right = _of_class(examples, row, by_true_class=by_true_class)
        for column in range(per_class):
            _draw_cell(axes[row, column], wrong, column, "no more wrong")
            _draw_cell(axes[row, per_class + column], right, column, "no more right")
        axes[row, 0].set_ylabel(name, fontsize=11, rotation=0, ha="right", va="center")
    with appearing(path) as temporary:
        figure.savefig(temporary)


def _figure(*, rows: int, columns: int) -> Figure:
    width = _NAMES + columns * (_IMAGE + _GAP)
    height = _TITLE + rows * (_CAPTION + _IMAGE) + _GAP / 2
    figure = Figure(figsize=(width, height), dpi=130)
    figure.subplots_adjust(
        left=_NAMES / width,
        right=1 - _GAP / width,
        top=1 - (_TITLE + _CAPTION) / height,
        bottom=_GAP / 2 / height,
        wspace=_GAP / _IMAGE,
        hspace=_CAPTION / _IMAGE,
    )
    return figure


def _title_place(figure: Figure) -> float:
    return 1 - 0.1 / float(figure.get_figheight())


def _of_class(
    examples: Sequence[Example], row: int, *, by_true_class: bool
) -> tuple[list[Example], list[Example]]:
    of_class = [
        example
        for example in examples
        if row == (example.true_class_index if by_true_class else example.predicted_class_index)
    ]
    return (
        [example for example in of_class if not _is_right(example)],
        [example for example in of_class if _is_right(example)],
    )


def _is_right(example: Example) -> bool:
    return example.true_class_index == example.predicted_class_index


def _draw_cell(axes: Axes, examples: Sequence[Example], column: int, missing: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if column >= len(examples):
        axes.text(0.5, 0.5, missing, ha="center", va="center", fontsize=8, color="#777777")
        return
    example = examples[column]
    axes.imshow(image.imread(io.BytesIO(example.png), format="png"))
    # The words say what the colour says, for those who see none.
    if _is_right(example):
        axes.set_title(f"{example.true_class_name}: right", fontsize=9, color=_RIGHT)
    else:
        axes.set_title(
            f"{example.true_class_name} taken for\n{example.predicted_class_name}",
            fontsize=9,
            color=_WRONG,
        )
