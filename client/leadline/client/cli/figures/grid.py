"""The picture grid: a row for each class, wrong images on the left and right ones beside."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib import image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from leadline.client import Example
from leadline.client.cli.files import appearing

_WRONG = "#D55E00"
_RIGHT = "#0072B2"

# Inches. Every row is as high as any other, whether its captions need two lines or none. At this
# resolution all are whole pixels, and a pixel of an image is a square of 3: the file is small.
_IMAGE = 1.0
_CAPTION = 0.375
_ROW_GAP = 0.25
_GAP = 0.375
_NAMES = 1.125
_TITLE = 0.625
_DPI = 96


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
        if row:
            _draw_line_above(figure, axes[row, 0])
    with appearing(path) as temporary:
        figure.savefig(temporary)
        if path.suffix.lower() == ".png":
            _shrink(temporary)


def _figure(*, rows: int, columns: int) -> Figure:
    width = _NAMES + columns * (_IMAGE + _GAP)
    height = _TITLE + rows * (_CAPTION + _IMAGE + _ROW_GAP)
    figure = Figure(figsize=(width, height), dpi=_DPI)
    figure.subplots_adjust(
        left=_NAMES / width,
        right=1 - _GAP / width,
        top=1 - (_TITLE + _CAPTION) / height,
        bottom=_ROW_GAP / height,
        wspace=_GAP / _IMAGE,
        hspace=(_CAPTION + _ROW_GAP) / _IMAGE,
    )
    return figure


def _draw_line_above(figure: Figure, axes: Axes) -> None:
    # Between an image and the captions below it, so that they belong to what is below them.
    above = (_CAPTION + _ROW_GAP / 2) / float(figure.get_figheight())
    line = Line2D(
        [0.02, 0.98],
        [axes.get_position().y1 + above] * 2,
        transform=figure.transFigure,
        color="#BBBBBB",
        linewidth=0.8,
    )
    figure.add_artist(line)


def _shrink(png: Path) -> None:
    # 32 levels a channel are finer than a photograph's noise, and take a third off the file.
    levels = [round(round(value * 31 / 255) * 255 / 31) for value in range(256)]
    with Image.open(png) as picture:
        picture.convert("RGB").point(levels * 3).save(png, optimize=True)


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
    axes.imshow(image.imread(io.BytesIO(example.png), format="png"), interpolation="nearest")
    # The words say what the colour says, for those who see none.
    if _is_right(example):
        axes.set_title(f"{example.true_class_name}: right", fontsize=9, color=_RIGHT, pad=4)
    else:
        axes.set_title(
            f"{example.true_class_name} taken for\n{example.predicted_class_name}",
            fontsize=9,
            color=_WRONG,
            pad=4,
        )
