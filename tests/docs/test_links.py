"""All links are valid, and every page is linked."""

import re
from pathlib import Path

import pytest

from docs.pages import DOCS, PAGES, ROOT, anchors, prose

_LINK = re.compile(r'\]\(([^)\s]+)\)|src="([^"]+)"')
_IMAGE_BYTES = 200_000


def links(page: Path) -> list[str]:
    return [one or other for one, other in _LINK.findall(prose(page))]


def inside(page: Path) -> list[tuple[Path, str]]:
    """Returns the files and fragments that a page links to within the project."""
    found = [link.partition("#") for link in links(page) if "://" not in link]
    return [((page.parent / path).resolve() if path else page, part) for path, _, part in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target, fragment in inside(page):
        assert target.exists(), target
        assert not fragment or fragment in anchors(target), f"{target.name}#{fragment}"


def test_the_readme_leads_to_every_page() -> None:
    linked = {target for target, _ in inside(ROOT / "README.md")}

    assert {*PAGES} - {ROOT / "README.md"} <= linked


def test_the_pictures_are_shown_and_small() -> None:
    pictures = set((DOCS / "images").iterdir())
    shown = {target for page in PAGES for target, _ in inside(page)}

    assert pictures <= shown
    assert all(picture.stat().st_size < _IMAGE_BYTES for picture in pictures)
