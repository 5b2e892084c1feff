"""The names in the pages exist, and the pages use the words of the glossary."""

import re
from pathlib import Path

import pytest

from docs.pages import DOCS, PAGES, ROOT, rows, section, words

ROOTS = ("protos", "models", "server", "client")
SERVER = ROOT / "server" / "leadline" / "server"
GLOSSARY = DOCS / "glossary.md"

# Words that the glossary replaces, and phrases that need a second reading.
AVOIDED = (
    "in work", "anew", "at hand", "for ever", "is told", "are told", "is asked of", "of its own",
    "whatever", "turnstile", "the way back", "such as have", "trainers",
)  # fmt: skip

# A path below one of the project's folders, or the name of a Python file.
_PATH = re.compile(
    r"(?:server|client|tests|benchmarks|deploy|docs|protos|models/leadline)/[\w./-]*\w|[\w/]+\.py"
)


def module_exists(name: str) -> bool:
    """Whether a file or a folder of one of the source roots is this module."""
    path = name.replace(".", "/")
    return any(
        (ROOT / root / f"{path}.py").exists() or (ROOT / root / path).is_dir() for root in ROOTS
    )


def file_exists(name: str) -> bool:
    """Whether a path exists from the project's root or, for a Python file, below any folder."""
    folders = [ROOT / folder for folder in (*ROOTS, "tests", "benchmarks", "deploy")]
    return (ROOT / name).exists() or (
        name.endswith(".py") and any(any(folder.glob(f"**/{name}")) for folder in folders)
    )


def test_every_room_and_root_file_of_the_server_stands_in_the_architecture() -> None:
    table = rows(section(DOCS / "architecture.md", "The rooms of the server"))[1:]
    named = re.findall(r"`([^`]+)`", " ".join(row[0] for row in table))

    folders = {f"{path.parent.name}/" for path in SERVER.glob("*/__init__.py")}
    files = {path.name for path in SERVER.glob("*.py")} - {"__init__.py"}

    assert sorted(named) == sorted(folders | files)


def test_every_folder_of_tests_stands_in_contributing() -> None:
    table = rows(section(ROOT / "CONTRIBUTING.md", "Tests"))[1:]

    folders = {f"`tests/{path.parent.name}`" for path in (ROOT / "tests").glob("*/*.py")}

    assert {row[0] for row in table} == folders


def test_every_make_target_stands_in_contributing() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    table = rows(section(ROOT / "CONTRIBUTING.md", "Set-up"))[1:]

    assert set(re.findall(r"`make ([a-z-]+)`", " ".join(row[0] for row in table))) == targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    code = re.findall(r"`([^`\s]+)`", page.read_text())
    paths = [path for path in code if _PATH.fullmatch(path.rstrip("/"))]

    assert [path for path in paths if not file_exists(path)] == []


def test_the_modules_that_the_glossary_names_exist() -> None:
    modules = {row[2].strip("`") for row in rows(GLOSSARY.read_text()) if row[0] != "term"}

    assert modules
    assert {module for module in modules if not module_exists(module)} == set()


def test_the_glossary_has_each_term_once_with_a_meaning() -> None:
    table = [row for row in rows(GLOSSARY.read_text()) if row[0] != "term"]
    terms = [row[0] for row in table]

    assert len(set(terms)) == len(terms)
    assert all(len(row) == 3 and all(row) for row in table)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "compose.yaml"], ids=lambda page: page.name)
def test_a_page_uses_the_words_of_the_glossary(page: Path) -> None:
    text = words(page)

    assert [phrase for phrase in AVOIDED if f" {phrase} " in text] == []
