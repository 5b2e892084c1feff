"""A report of `leadline report`, in Chromium: no network, mouse and keyboard, screen and paper."""

import pytest
from playwright.sync_api import Locator, Page, expect

from browser.conftest import ODD_CLASS, Cell, Scheme, Visit, largest_wrong_cell
from leadline.client import Client, Model
from leadline.client.cli import main
from support.servers import LiveServer


@pytest.fixture(scope="module")
def report(server: LiveServer, trained: Model, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report of two epochs, with every part that a report can have."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    epochs = (trained.epochs[0].name, trained.epochs[-1].name)
    assert main(["report", *epochs, "--out", str(out), "--target", server.target]) == 0
    return out.as_uri()


@pytest.fixture
def cell(server: LiveServer, trained: Model) -> Cell:
    """An open cell of the matrix."""
    with Client(server.target) as client:
        return largest_wrong_cell(client.confusion_matrix(model=trained.epochs[0].name))


def button(page: Page, cell: Cell) -> Locator:
    """The button of the cell in the table."""
    return page.locator(f'td button[popovertarget="cell-0-{cell.true}-{cell.taken}"]')


def images(page: Page, cell: Cell) -> Locator:
    """The images that the cell opens."""
    return page.locator(f"#cell-0-{cell.true}-{cell.taken}")


def colour(page: Page, selector: str, name: str) -> tuple[int, ...]:
    """Returns a colour of the first element: red, green, blue, and alpha if it is not opaque."""
    found = page.locator(selector).first.evaluate(f"one => getComputedStyle(one).{name}")
    return tuple(int(part) for part in found.strip("rgba()").split(","))


def test_a_click_on_a_cell_shows_the_images_behind_it(
    visit: Visit, report: str, scheme: Scheme, cell: Cell
) -> None:
    visited = visit(report, scheme=scheme)
    shown = images(visited.page, cell)
    expect(shown).to_be_hidden()

    button(visited.page, cell).click()

    expect(shown).to_be_visible()
    pictures = shown.locator("img")
    expect(pictures).to_have_count(min(cell.images, 8))
    assert pictures.evaluate_all("all => all.every(one => one.naturalWidth === 32)")
    shown.get_by_role("button", name="Close").click()
    expect(shown).to_be_hidden()
    assert visited.asked == [report]


def test_the_keyboard_does_the_same(visit: Visit, report: str, scheme: Scheme, cell: Cell) -> None:
    page = visit(report, scheme=scheme).page
    shown = images(page, cell)
    page.locator("#confusion summary").first.focus()
    while not button(page, cell).evaluate("one => one === document.activeElement"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('#confusion') !== null")
    outline = button(page, cell).evaluate("one => getComputedStyle(one).outlineStyle")

    page.keyboard.press("Enter")

    assert outline == "solid"
    expect(shown).to_be_visible()
    expect(shown.locator("img")).to_have_count(min(cell.images, 8))
    page.keyboard.press("Escape")
    expect(shown).to_be_hidden()
    expect(button(page, cell)).to_be_focused()


def test_figures_are_as_light_or_dark_as_the_page(
    visit: Visit, report: str, scheme: Scheme
) -> None:
    page = visit(report, scheme=scheme).page

    paper = colour(page, "body", "backgroundColor")
    figure = colour(page, ".figure", "backgroundColor")
    words = colour(page, ".figure text", "fill")

    assert (sum(paper) > 3 * 128) == (scheme == "light")
    assert (sum(words) > 3 * 128) == (scheme == "dark")
    assert figure == (0, 0, 0, 0)  # transparent
    assert page.locator(".figure [style*='#ffffff'], .figure [style*='#000000']").count() == 0


def test_a_name_that_looks_like_html_is_text(visit: Visit, report: str) -> None:
    page = visit(report).page

    expect(page.get_by_role("columnheader", name=ODD_CLASS, exact=True).first).to_be_visible()
    assert page.locator("img[src=x]").count() == 0


def test_on_paper_everything_is_open_and_dark_on_white(
    visit: Visit, report: str, scheme: Scheme, cell: Cell
) -> None:
    page = visit(report, scheme=scheme).page
    page.emulate_media(media="print")

    expect(page.locator("nav")).to_be_hidden()
    expect(images(page, cell)).to_be_hidden()
    assert colour(page, "body", "backgroundColor") == (255, 255, 255)
    assert colour(page, ".figure text", "fill") == (0, 0, 0)
    closed = page.locator("details:not([open]) table")
    assert closed.count() > 2
    assert closed.evaluate_all("all => all.every(one => one.checkVisibility())")
    assert page.pdf().startswith(b"%PDF")
