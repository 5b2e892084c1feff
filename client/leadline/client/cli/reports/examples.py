"""The images of a report: behind the cells of confusion matrices, in grids, in comparisons."""

from collections.abc import Sequence

from leadline.client import ComparedExample, ConfusionMatrix, Example
from leadline.client.cli import describe
from leadline.client.cli.reports.contents import CELL_IMAGES, Cells, Subject
from leadline.client.cli.reports.markup import picture, text

# Characters that images may take in a page, those of all models together: with the rest, which is
# half a million and less, a page stays below 8 MB.
_BUDGET = 6_800_000

# Around the image data of a picture, and four characters for three bytes of it.
_MARKUP = 260
_BASE64 = 4 / 3

_GRID_PER_CLASS = 2


def images_a_cell(subjects: Sequence[Subject]) -> int:
    """How many images there is room for behind each cell, the same for all models."""
    cells = [cell for subject in subjects for cell in subject.cells.values()]
    grids = [row for subject in subjects for row in _grid_rows(subject.matrix, subject.cells)]
    for number in range(CELL_IMAGES, 0, -1):
        shown = [example for row in (*grids, *(cell[:number] for cell in cells)) for example in row]
        if sum(_MARKUP + _BASE64 * len(example.png) for example in shown) <= _BUDGET:
            return number
    return 0


def confusion_table(matrix: ConfusionMatrix, cells: Cells, *, prefix: str, most: int) -> str:
    """A confusion matrix as a table whose cells open up to `most` of their images.

    Args:
        matrix: the counts.
        cells: the images.
        prefix: what the ids of the cells begin with.
        most: images a cell; 0: cells open nothing.
    """
    names = [one.class_name for one in matrix.classes]
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in names)
    rows, popovers = [], []
    for true, row in enumerate(matrix.rows):
        line = [f'<th scope="row">{text(names[true])}</th>']
        for taken, count in enumerate(row.counts):
            share = count / max(sum(row.counts), 1)
            shown = cells.get((true, taken), [])[:most]
            name = f"{prefix}-{true}-{taken}"
            line.append(_cell(count, share, name if shown else "", names[true], names[taken]))
            if shown:
                popovers.append(_popover(name, names[true], names[taken], count, shown))
        rows.append(f"<tr>{''.join(line)}</tr>\n")
    return (
        '<div class="wide"><table class="confusion"><thead><tr>'
        f'<th scope="col">is, taken for</th>{head}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>\n{''.join(popovers)}"
    )


def _cell(count: int, share: float, opens: str, true: str, taken: str) -> str:
    if not opens:
        return f"<td>{count or '·'}</td>"
    said = f"{count} of {true} taken for {taken}: show images"
    return (
        f'<td style="--share:{100 * share:.0f}%"><button type="button" '
        f'popovertarget="{text(opens)}" aria-label="{text(said)}">{count}</button></td>'
    )


def _popover(name: str, true: str, taken: str, count: int, shown: Sequence[Example]) -> str:
    heading = f"{true} taken for {taken}: {len(shown)} of {count}, the most probable first"
    images = "".join(
        picture(
            example.png,
            shows=f"test image {example.index}, {true} taken for {taken}",
            caption=f"{example.index}: {describe.percent(example.probability)}",
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
    """A row for each class: wrong images that are taken for it, then right ones."""
    names = [one.class_name for one in matrix.classes]
    rows = "".join(
        f'<h4>{text(name)}</h4>\n<div class="row">{"".join(map(_in_grid, shown))}</div>\n'
        for name, shown in zip(names, _grid_rows(matrix, cells), strict=True)
    )
    return f'<div class="grid">{rows}</div>\n'


def _grid_rows(matrix: ConfusionMatrix, cells: Cells) -> list[list[Example]]:
    rows = []
    for one in matrix.classes:
        column = [cell for (_, taken), cell in cells.items() if taken == one.class_index]
        taken_for_it = sorted(
            (example for cell in column for example in cell),
            key=lambda example: (-example.probability, example.index),
        )
        wrong = [each for each in taken_for_it if each.true_class_index != one.class_index]
        right = [each for each in taken_for_it if each.true_class_index == one.class_index]
        rows.append([*wrong[:_GRID_PER_CLASS], *right[:_GRID_PER_CLASS]])
    return rows


def _in_grid(example: Example) -> str:
    wrong = example.true_class_index != example.predicted_class_index
    says = f"taken for {example.predicted_class_name}" if wrong else "right"
    caption = f"{example.true_class_name}: {says}"
    return picture(example.png, shows=f"test image {example.index}, {caption}", caption=caption)


def compared(examples: Sequence[ComparedExample]) -> str:
    """Images of one outcome of a comparison."""
    images = "".join(
        picture(
            one.png,
            shows=f"test image {one.index}, {one.true_class_name}",
            caption=f"{one.true_class_name}: {one.baseline.class_name}, then "
            f"{one.candidate.class_name}",
        )
        for one in examples
    )
    return f'<div class="row">{images}</div>\n'
