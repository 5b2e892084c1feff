"""Parses the pages of the documentation."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"[\w'-]+")
_SECTION = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """A command line in a page."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def blocks(page: Path, language: str) -> list[str]:
    """Returns the contents of a page's fenced blocks in a language."""
    return [text for name, text in _BLOCK.findall(page.read_text()) if name == language]


def blocks_under(page: Path, heading: str, language: str) -> list[str]:
    """Returns the contents of the fenced blocks in a language between a heading and the next."""
    return [text for name, text in _BLOCK.findall(section(page, heading)) if name == language]


def prose(page: Path) -> str:
    """Returns a page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text())


def words(page: Path) -> str:
    """Returns a page's prose in lower case, with single spaces and without punctuation."""
    return f" {' '.join(_WORD.findall(prose(page).lower()))} "


def rows(text: str) -> list[list[str]]:
    """Returns the cells of every row of the tables in a text."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|") and not set(line) <= set("|-: ")
    ]


def section(page: Path, heading: str) -> str:
    """Returns the text between a heading and the next."""
    parts = _SECTION.split(page.read_text())
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def anchors(page: Path) -> set[str]:
    """Returns the URL fragments of a page's headings."""
    headings = _SECTION.findall(prose(page))
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


def commands(page: Path) -> Iterator[Command]:
    """Returns each `leadline ...` command in a page's shell blocks, one per line."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "leadline" in words and words[0] != "docker":
                yield Command(page.name, tuple(words[words.index("leadline") + 1 :]))
