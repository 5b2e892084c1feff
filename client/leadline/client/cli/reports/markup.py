"""Builds the elements of pages in HTML, and escapes all text."""

import base64
import html
from collections.abc import Iterable, Sequence

# The length of an image's longer side in pixels.
_SIDE = 128


def text(value: object) -> str:
    """Escapes a value as text, for an element or an attribute."""
    return html.escape(str(value), quote=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; columns whose heading begins with "#" hold numbers."""
    kinds = [' class="number"' if heading.startswith("#") else "" for heading in headings]
    head = "".join(
        f'<th scope="col"{kind}>{text(heading.removeprefix("#"))}</th>'
        for kind, heading in zip(kinds, headings, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{text(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>\n"
        for row in rows
    )
    name = ", ".join(heading.removeprefix("#") for heading in headings)
    return (
        f"{wide(name)}<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def wide(name: str) -> str:
    """The start of a box that scrolls sideways, also by keyboard, if its table is too wide."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{text(name)}">'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and their values."""
    body = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>\n" for name, value in pairs)
    return f"<dl>{body}</dl>\n"


def picture(png: bytes, aspect_ratio: float, *, shows: str, caption: str) -> str:
    """An image within the page, with a description for screen readers.

    Args:
        png: the image, of any shape.
        aspect_ratio: the displayed width divided by the height; 0 for square.
        shows: the description.
        caption: the text below the image.
    """
    data = base64.b64encode(png).decode("ascii")
    ratio = aspect_ratio or 1.0
    width, height = (max(1, round(_SIDE * min(1.0, by))) for by in (ratio, 1 / ratio))
    return (
        f'<figure class="example"><img alt="{text(shows)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}"><figcaption>{text(caption)}</figcaption></figure>\n'
    )


def section(heading: str, *parts: str, name: str) -> str:
    """A section of the page, whose heading links can refer to."""
    body = "".join(parts)
    return f'<section id="{text(name)}"><h2>{text(heading)}</h2>\n{body}</section>\n'


def unfolding(summary: str, *parts: str) -> str:
    """A part that opens when its summary is clicked."""
    body = "".join(parts)
    return f"<details><summary>{text(summary)}</summary>\n{body}</details>\n"


def paragraph(value: str) -> str:
    """A paragraph."""
    return f"<p>{text(value)}</p>\n"
