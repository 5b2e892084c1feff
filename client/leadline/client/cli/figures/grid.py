"""Draws the picture grid: a row for each class, wrong images on the left, correct ones right."""

import io
import textwrap
from collections.abc import Sequence

from matplotlib import image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leadline.client import Example
from leadline.client.cli.figures.style import QUIET, TITLE, wrapped

# The colours of the live page; captions say the same in words.
_WRONG = "#B33A00"
_CORRECT = "#00735A"

# Sizes in inches. At this resolution all are whole pixels, and a pixel of a 32x32 image is 6x6.
_DPI = 128
_IMAGE = 1.5
_CAPTION = 0.625
_ROW_GAP = 0.25
_GAP = 0.375
_NAMES = 1.375
_HEADING = 0.375
_LINE = 0.25

# How many characters of a class name fit on a line beside a row, and in a caption.
_NAME_WIDTH = 14
_CAPTION_WIDTH = 26

_NOTE = "Rows are {} classes. The network sees each image resized to 32 x 32 pixels."


def grid_figure(
    examples: Sequence[Example],
    classes: Sequence[str],
    *,
    by_true_class: bool,
    per_class: int,
    title: str,
) -> Figure:
    """Draws a row of images of each true class, or of each predicted class.

    A row has `per_class` wrong images, and as many correct ones. If there are fewer, cells
    stay empty.
    """
    columns = 2 * per_class
    width = _NAMES + columns * (_IMAGE + _GAP)
    lines = [
        wrapped(title, inches=width),
        wrapped(_NOTE.format("true" if by_true_class else "predicted"), inches=1.4 * width),
    ]
    above, below = (_LINE * (1 + len(text.splitlines())) for text in lines)
    figure = _figure(len(classes), width, above=above + _HEADING, below=below)
    _write_around(figure, *lines)
    axes = figure.subplots(len(classes), columns, squeeze=False)
    for row, name in enumerate(classes):
        wrong, correct = _of_class(examples, row, by_true_class=by_true_class)
        for column in range(per_class):
            _draw_cell(axes[row, column], wrong, column, "no more wrong")
            _draw_cell(axes[row, per_class + column], correct, column, "no more correct")
        axes[row, 0].set_ylabel(
            textwrap.fill(name, _NAME_WIDTH), fontsize=11, rotation=0, ha="right", va="center"
        )
        if row:
            _draw_line_above(figure, axes[row, 0])
    _write_heading(figure, axes[0, 0], "wrong", _WRONG)
    _write_heading(figure, axes[0, per_class], "correct", _CORRECT)
    return figure


def _figure(rows: int, width: float, *, above: float, below: float) -> Figure:
    height = above + rows * (_CAPTION + _IMAGE + _ROW_GAP) + below
    figure = Figure(figsize=(width, height), dpi=_DPI)
    figure.subplots_adjust(
        left=_NAMES / width,
        right=1 - _GAP / width,
        top=1 - (above + _CAPTION) / height,
        bottom=(_ROW_GAP + below) / height,
        wspace=_GAP / _IMAGE,
        hspace=(_CAPTION + _ROW_GAP) / _IMAGE,
    )
    return figure


def _write_around(figure: Figure, title: str, note: str) -> None:
    height = float(figure.get_figheight())
    figure.suptitle(title, y=1 - 0.15 / height, va="top", fontsize=TITLE - 1)
    figure.text(0.5, 0.1 / height, note, ha="center", va="bottom", fontsize=9, color=QUIET)


def _write_heading(figure: Figure, axes: Axes, words: str, colour: str) -> None:
    box = axes.get_position()
    above = (_CAPTION + 0.05) / float(figure.get_figheight())
    figure.text(box.x0, box.y1 + above, words, va="bottom", fontsize=12, color=colour)


def _draw_line_above(figure: Figure, axes: Axes) -> None:
    # The line is between an image and the captions below it, which belong to the row below.
    above = (_CAPTION + _ROW_GAP / 2) / float(figure.get_figheight())
    line = Line2D(
        [0.02, 0.98],
        [axes.get_position().y1 + above] * 2,
        transform=figure.transFigure,
        color="#BBBBBB",
        linewidth=0.8,
    )
    figure.add_artist(line)


def _of_class(
    examples: Sequence[Example], row: int, *, by_true_class: bool
) -> tuple[list[Example], list[Example]]:
    of_class = [
        example
        for example in examples
        if row == (example.true_class_index if by_true_class else example.predicted_class_index)
    ]
    return (
        [example for example in of_class if not _is_correct(example)],
        [example for example in of_class if _is_correct(example)],
    )


def _is_correct(example: Example) -> bool:
    return example.true_class_index == example.predicted_class_index


def _draw_cell(axes: Axes, examples: Sequence[Example], column: int, missing: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if column >= len(examples):
        axes.text(0.5, 0.5, missing, ha="center", va="center", fontsize=9, color=QUIET)
        return
    example = examples[column]
    axes.imshow(
        image.imread(io.BytesIO(example.png), format="png"),
        interpolation="nearest",
        aspect=1 / (example.aspect_ratio or 1.0),
    )
    axes.set_anchor("SW")
    colour = _CORRECT if _is_correct(example) else _WRONG
    axes.set_title(_caption(example), fontsize=9, color=colour, pad=4)


def _caption(example: Example) -> str:
    lines = [f"true {example.true_class_name}"]
    if _is_correct(example):
        lines = [f"{example.true_class_name}, correct"]
    else:
        lines.append(f"predicted {example.predicted_class_name}")
    lines.append(f"{100 * example.probability:.1f} %, image {example.index}")
    return "\n".join(
        line if len(line) <= _CAPTION_WIDTH else f"{line[: _CAPTION_WIDTH - 1]}…" for line in lines
    )
