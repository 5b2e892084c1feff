"""A real browser, and checks on its console and its requests."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)

from leadline.client import Client, ConfusionMatrix, Model
from support.programs import program
from support.servers import LiveServer, start_server

# How long an assertion waits for the page, in ms; another test process may use the cores.
expect.set_options(timeout=30_000)

Scheme = Literal["light", "dark"]

# A function that opens a page from its address and options.
Visit = Callable[..., "Visited"]

ODD_CLASS = "<img src=x onerror=alert(1)>"

# Chromium's own messages while a server is away.
_AWAY = re.compile(
    r"net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING)"
)


class Visited:
    """An open page, its console messages, and the hosts of its requests."""

    def __init__(self, page: Page, *, may_be_away: bool) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        self._may_be_away = may_be_away
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", self._note)

    def _hear(self, message: ConsoleMessage) -> None:
        if not (self._may_be_away and _AWAY.search(message.text)):
            self.said.append(f"{message.type}: {message.text}")

    def _note(self, request: Request) -> None:
        # A data URL causes no request.
        if not request.url.startswith("data:"):
            self.asked.append(request.url)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window.

    It lives for one module, because its driver runs an event loop in this thread, and tests of
    other modules need their own.
    """
    path = program("chromium", "chromium")
    # Chromium's sandbox refuses to run as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> Scheme:
    """The user's preferred colour scheme."""
    scheme: Scheme = request.param
    return scheme


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens pages; at the end, checks that none logged a message or sent a request to another
    origin."""
    opened: list[tuple[Visited, str]] = []

    def open_page(
        address: str, *, scheme: Scheme = "light", width: int = 1280, may_be_away: bool = False
    ) -> Visited:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        visited = Visited(context.new_page(), may_be_away=may_be_away)
        opened.append((visited, address))
        visited.page.goto(address)
        return visited

    yield open_page
    for visited, address in opened:
        visited.page.context.close()
        assert not visited.said
        origin = address.partition("#")[0]
        assert not [url for url in visited.asked if not url.startswith(origin)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """The tiny dataset with one class name that looks like HTML."""
    folder = tmp_path_factory.mktemp("odd") / "odd"
    shutil.copytree(tiny_dataset, folder)
    for split in ("train", "test"):
        (folder / split / "ant").rename(folder / split / ODD_CLASS)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Iterator[LiveServer]:
    """A server for one module."""
    server = start_server(tmp_path_factory.mktemp("shown"), f"--dataset=odd={dataset}")
    yield server
    assert server.stop() == 0, server.log.read_text()


class Cell(NamedTuple):
    """A cell of a confusion matrix."""

    true: int
    taken: int
    images: int


def largest_wrong_cell(matrix: ConfusionMatrix) -> Cell:
    """The cell of the most frequent mistake."""
    return max(
        (
            Cell(true, taken, count)
            for true, row in enumerate(matrix.rows)
            for taken, count in enumerate(row.counts)
            if true != taken
        ),
        key=lambda cell: cell.images,
    )


@pytest.fixture(scope="module")
def trained(server: LiveServer) -> Model:
    """A model of three epochs."""
    with Client(server.target) as client:
        job = client.train(
            dataset="odd",
            blocks=1,
            batch_norm=True,
            epochs=3,
            batch_size=20,
            learning_rate=0.05,
            momentum=0.9,
        )
        job.result()
        return client.get_model(job.model)
