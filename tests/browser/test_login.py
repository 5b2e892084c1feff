"""The login of the live page, in Chromium."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser.conftest import Scheme, Visit
from support.identities import Tokens, tokens_of_all_roles
from support.servers import LiveServer, ServerFactory


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return tokens_of_all_roles(tmp_path / "tokens.json")


@pytest.fixture
def guarded(server_factory: ServerFactory, tokens: Tokens) -> LiveServer:
    return server_factory(f"--tokens-file={tokens.path}", "--spare-workers=0")


# The browser is closed before the server is stopped, because its fixture comes later.


def root(server: LiveServer) -> str:
    return server.metrics_url.removesuffix("metrics")


def test_a_browser_logs_in_reads_the_page_and_logs_out(
    guarded: LiveServer, visit: Visit, tokens: Tokens, scheme: Scheme
) -> None:
    page = visit(root(guarded), scheme=scheme).page
    expect(page).to_have_title("Leadline: log in")

    page.get_by_label("Token").fill(tokens.secrets["viewer"])
    page.get_by_role("button", name="Log in").click()

    expect(page.locator("#connection")).to_have_text("connected")
    expect(page.locator("#who")).to_have_text("viewer")
    cookie = page.evaluate("document.cookie")
    assert cookie == ""  # scripts cannot read it

    page.goto(f"{root(guarded)}login")  # as from a link on another site
    expect(page.locator("#connection")).to_have_text("connected")

    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_title("Leadline: log in")
    page.goto(root(guarded))
    expect(page).to_have_title("Leadline: log in")


def test_without_identities_there_is_nothing_to_log_out_of(
    server_factory: ServerFactory, visit: Visit
) -> None:
    page = visit(root(server_factory("--spare-workers=0"))).page

    expect(page.locator("#connection")).to_have_text("connected")
    expect(page.locator("#logout")).to_be_hidden()


def test_a_page_whose_token_is_revoked_returns_to_the_login(
    guarded: LiveServer, visit: Visit, tokens: Tokens
) -> None:
    visited = visit(root(guarded), may_be_away=True)
    page = visited.page
    page.get_by_label("Token").fill(tokens.secrets["viewer"])
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#connection")).to_have_text("connected")

    tokens.revoke("viewer")

    expect(page).to_have_title("Leadline: log in")
    # Chromium reports the refusal of the stream itself.
    visited.said = [text for text in visited.said if "401 (Unauthorized)" not in text]


def test_a_wrong_token_is_refused_in_words(guarded: LiveServer, visit: Visit) -> None:
    visited = visit(root(guarded))
    visited.page.get_by_label("Token").fill("ll_wrong")
    visited.page.get_by_role("button", name="Log in").click()

    expect(visited.page.get_by_role("alert")).to_have_text("This token is not valid.")
    visited.said = [text for text in visited.said if "401 (Unauthorized)" not in text]
