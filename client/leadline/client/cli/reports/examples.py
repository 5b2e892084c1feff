"""The images of a report: in the cells of confusion matrices, in grids, in comparisons."""

from collections.abc import Sequence

from leadline.client import ComparedExample, ConfusionMatrix, Example
from leadline.client.cli.reports.contents import CELL_IMAGES, Cells, Subject
from leadline.client.cli.reports.markup import picture, text, wide

# The most characters for all images of a page. The rest takes at most half a million, so a page
# stays below 8 MB.
_BUDGET = 6_800_000

# The characters of markup around each image, and Base64's four characters for three bytes.
_MARKUP = 300
_BASE64 = 4 / 3

_GRID_PER_CLASS = 2
_NONE = "No test image is predicted as this class."


def images_a_cell(subjects: Sequence[Subject]) -> int:
    """How many images fit in each cell, the same for all models."""
    cells = [cell for subject in subjects for cell in subject.cells.values()]
    grids = [row for subject in subjects for row in _grid_rows(subject.matrix, subject.cells)]
    for number in range(CELL_IMAGES, 0, -1):
        shown = [example for row in (*grids, *(cell[:number] for cell in cells)) for example in row]
        if sum(_MARKUP + _BASE64 * len(example.png) for example in shown) <= _BUDGET:
            return number
    return 0


def confusion_table(matrix: ConfusionMatrix, cells: Cells, *, prefix: str, most: int) -> str:
    """A confusion matrix as a table whose cells open up to `most` of their images.

    The ids of the cells begin with `prefix`.
    """
    names = [metrics.class_name for metrics in matrix.classes]
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in names)
    rows, popovers = [], []
    for true, row in enumerate(matrix.rows):
        line = [f'<th scope="row">{text(names[true])}</th>']
        for predicted, count in enumerate(row.counts):
            share = count / max(sum(row.counts), 1)
            shown = cells.get((true, predicted), [])[:most]
            name = f"{prefix}-{true}-{predicted}"
            line.append(_cell(count, share, name if shown else "", names[true], names[predicted]))
            if shown:
                popovers.append(_popover(name, names[true], names[predicted], count, shown))
        rows.append(f"<tr>{''.join(line)}</tr>\n")
    return (
        f'{wide("Confusion matrix")}<table class="confusion"><thead><tr>'
        f'<th scope="col">true \\ predicted</th>{head}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>\n{''.join(popovers)}"
    )


def _cell(count: int, share: float, opens: str, true: str, predicted: str) -> str:
    if not opens:
        return f"<td>{count or '·'}</td>"
    label = f"{count} of true {true} predicted {predicted}: show images"
    return (
        f'<td style="--share:{100 * share:.0f}%"><button type="button" '
        f'popovertarget="{text(opens)}" aria-label="{text(label)}">{count}</button></td>'
    )


def _popover(name: str, true: str, predicted: str, count: int, shown: Sequence[Example]) -> str:
    kind = _kind(true, predicted)
    heading = f"{kind}: {len(shown)} of {count}, the highest probability first"
    images = "".join(
        picture(
            example.png,
            example.aspect_ratio,
            shows=f"test image {example.index}, {kind}",
            caption=_sure(example),
        )
        for example in shown
    )
    close = f'<button type="button" popovertarget="{text(name)}" popovertargetaction="hide">'
    return (
        f'<div popover class="images" id="{text(name)}" role="dialog" '
        f'aria-label="{text(heading)}"><h4>{text(heading)}</h4>\n'
        f'<div class="row">{images}</div>{close}Close</button></div>\n'
    )


def grid(matrix: ConfusionMatrix, cells: Cells) -> str:
    """A row for each class: images wrongly predicted as it, then correct ones."""
    names = [metrics.class_name for metrics in matrix.classes]
    rows = "".join(
        f'<h4>{text(name)}</h4>\n<div class="row">{"".join(map(_in_grid, shown)) or _NONE}</div>\n'
        for name, shown in zip(names, _grid_rows(matrix, cells), strict=True)
    )
    return f'<div class="grid">{rows}</div>\n'


def _grid_rows(matrix: ConfusionMatrix, cells: Cells) -> list[list[Example]]:
    rows = []
    for index in (metrics.class_index for metrics in matrix.classes):
        column = [cell for (_, predicted), cell in cells.items() if predicted == index]
        predicted_as_it = sorted(
            (example for cell in column for example in cell),
            key=lambda example: (-example.probability, example.index),
        )
        wrong = [example for example in predicted_as_it if example.true_class_index != index]
        correct = [example for example in predicted_as_it if example.true_class_index == index]
        rows.append([*wrong[:_GRID_PER_CLASS], *correct[:_GRID_PER_CLASS]])
    return rows


def _in_grid(example: Example) -> str:
    kind = _kind(example.true_class_name, example.predicted_class_name)
    return picture(
        example.png,
        example.aspect_ratio,
        shows=f"test image {example.index}, {kind}",
        caption=f"{kind}\n{_sure(example)}",
    )


def _kind(true: str, predicted: str) -> str:
    return f"{true}, correct" if true == predicted else f"true {true}, predicted {predicted}"


def _sure(example: Example) -> str:
    return f"{100 * example.probability:.1f} %, image {example.index}"


def compared(examples: Sequence[ComparedExample]) -> str:
    """The images of one outcome of a comparison."""
    images = "".join(
        picture(
            example.png,
            example.aspect_ratio,
            shows=f"test image {example.index}, true {example.true_class_name}",
            caption=f"true {example.true_class_name}\nbaseline {example.baseline.class_name}\n"
            f"candidate {example.candidate.class_name}",
        )
        for example in examples
    )
    return f'<div class="row">{images}</div>\n'
