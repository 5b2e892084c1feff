"""The live page of `leadline serve`, in Chromium, while a job trains."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import ODD_CLASS, Scheme, Visit, largest_wrong_cell
from leadline.client import Client, Job, JobFailedError, Model, TrainingJob, TrainingSpec
from support.datasets import dataset_of
from support.servers import LiveServer, ServerFactory


def root(server: LiveServer) -> str:
    return server.metrics_url.removesuffix("metrics")


@pytest.fixture(scope="module")
def failed(server: LiveServer) -> Job:
    """A job that failed in its first epoch."""
    with Client(server.target) as client:
        job = client.train(dataset="odd", blocks=2, epochs=3, learning_rate=1_000)
        with pytest.raises(JobFailedError):
            job.result()
        return job.refresh()


@pytest.fixture(scope="module")
def running(server: LiveServer, trained: Model, failed: Job) -> Iterator[TrainingJob]:
    """A job that trains until the tests of this module end."""
    del trained, failed
    with Client(server.target) as client:
        job = client.train(
            dataset="odd", blocks=0, batch_norm=True, epochs=10_000, learning_rate=0.001
        )
        next(job.epochs())
        yield job
        job.cancel()


@pytest.fixture
def address(server: LiveServer, running: TrainingJob) -> str:
    """The address of the page, while the job trains."""
    del running
    return root(server)


def epoch(page: Page) -> int:
    """The epoch whose images the page shows."""
    match = re.search(r"of epoch (\d+)", page.locator("#images-heading").inner_text())
    assert match is not None
    return int(match[1])


def test_curves_and_wrong_images_of_a_running_job_keep_up(
    visit: Visit, address: str, running: TrainingJob, scheme: Scheme
) -> None:
    page = visit(address, scheme=scheme).page
    expect(page.locator("#connection")).to_have_text("connected")
    card = page.locator("#running li")
    expect(card).to_contain_text(running.name)
    expect(page.locator("#images img").first).to_be_visible()
    points = card.locator("polyline.test")
    drawn, shown = points.get_attribute("points"), epoch(page)

    expect(points).not_to_have_attribute("points", drawn or "")
    page.wait_for_function(
        "shown => !document.getElementById('images-heading').textContent"
        ".includes(`of epoch ${shown},`)",
        arg=shown,
    )

    assert epoch(page) > shown
    assert page.locator("#curve-plot").get_attribute("aria-label")


def test_a_click_on_a_cell_shows_the_images_behind_it(
    visit: Visit, address: str, trained: Model, scheme: Scheme, server: LiveServer
) -> None:
    page = visit(f"{address}#{trained.job}", scheme=scheme).page
    with Client(server.target) as client:
        matrix = client.confusion_matrix(model=trained.epochs[-1].name)
    rows = [list(row.counts) for row in matrix.rows]
    cells = page.locator("#confusion td button")
    expect(cells).to_have_count(100)
    assert cells.all_inner_texts() == [str(count or "·") for row in rows for count in row]

    cell = largest_wrong_cell(matrix)
    chosen = cells.nth(10 * cell.true + cell.taken)

    chosen.click()

    heading = page.locator("#images-heading")
    names = [metrics.class_name for metrics in matrix.classes]
    expect(heading).to_contain_text(f"true {names[cell.true]}, predicted {names[cell.taken]}")
    expect(chosen).to_have_attribute("aria-pressed", "true")
    images = page.locator("#images img")
    expect(images).to_have_count(min(24, cell.images))
    images.last.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#images img')].every(one => one.naturalWidth === 32)"
    )
    page.get_by_role("button", name="Show all wrong images").click()
    expect(heading).to_contain_text("wrong image")


def test_the_keyboard_does_the_same(visit: Visit, address: str, trained: Model) -> None:
    page = visit(f"{address}#{trained.job}").page
    cells = page.locator("#confusion td button")
    expect(cells).to_have_count(100)
    page.locator("#latest").focus()
    page.keyboard.press("Tab")
    expect(cells.first).to_be_focused()

    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")

    expect(cells.nth(11)).to_be_focused()
    expect(page.locator("#images-heading")).to_contain_text("bee, correct")
    assert cells.nth(11).evaluate("one => getComputedStyle(one).outlineStyle") == "solid"


def test_any_epoch_and_any_job_can_be_chosen(
    visit: Visit, address: str, trained: Model, running: TrainingJob
) -> None:
    page = visit(address).page
    expect(page.locator("#job-spec")).to_contain_text(running.name)

    page.locator("#jobs a").filter(has_text=trained.job).press("Enter")

    expect(page.locator("#job-heading")).to_be_focused()
    expect(page.locator("#job-spec")).to_contain_text("succeeded, 3 of 3 epochs")
    expect(page.locator("#images-heading")).to_contain_text("of epoch 3")
    page.locator("#epoch").fill("2")
    expect(page.locator("#images-heading")).to_contain_text("of epoch 2")
    expect(page.locator("#latest")).not_to_be_checked()
    page.locator("#curve-plot").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#curve-reading")).to_contain_text("epoch 2: train")
    # The axis ends with the job's last epoch.
    ticks = page.locator("#curve-plot text[text-anchor=middle]:not([transform])")
    assert ticks.all_text_contents() == ["1", "2", "3", "epochs completed"]


def test_a_name_that_looks_like_html_is_text(visit: Visit, address: str, trained: Model) -> None:
    page = visit(f"{address}#{trained.job}").page

    expect(page.get_by_role("rowheader", name=ODD_CLASS, exact=True)).to_be_visible()
    page.locator("#confusion td button").first.click()
    expect(page.locator("#images-heading")).to_contain_text(f"{ODD_CLASS}, correct")
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(
    visit: Visit, address: str, trained: Model, width: int
) -> None:
    page = visit(f"{address}#{trained.job}", width=width).page
    expect(page.locator("#images img").first).to_be_visible()

    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_an_empty_server_says_what_to_do_and_a_restart_is_noticed(
    visit: Visit, server_factory: ServerFactory
) -> None:
    server = server_factory("--spare-workers=0")
    port = root(server).rstrip("/").rpartition(":")[2]
    page = visit(root(server), may_be_away=True).page
    expect(page.locator("#jobs-empty code")).to_contain_text("leadline train")
    expect(page.locator("#sweeps-empty code")).to_contain_text("leadline sweep")
    expect(page.locator("#running-empty")).to_be_visible()

    server.stop()
    expect(page.locator("#connection")).to_have_text("disconnected: reconnecting")
    with Client(server_factory(f"--metrics-port={port}").target) as client:
        expect(page.locator("#connection")).to_have_text("connected", timeout=15_000)
        job = client.train(dataset="tiny", blocks=0, epochs=2, batch_size=200)
        job.result()

    expect(page.locator("#jobs tr")).to_contain_text("succeeded")
    expect(page.locator("#models tr.group")).to_have_text("tiny")
    expect(page.locator("#models tr:not(.group)")).to_contain_text(job.model)
    expect(page.locator("#jobs-empty")).to_be_hidden()


def test_the_queue_says_why_no_job_starts(visit: Visit, server_factory: ServerFactory) -> None:
    server = server_factory("--spare-workers=0", f"--min-free-disk-bytes={10**15}")
    page = visit(root(server), may_be_away=True).page
    expect(page.locator("#queue-empty")).to_be_visible()
    expect(page.locator("#queue-hold")).to_be_hidden()

    with Client(server.target) as client:
        job = client.train(dataset="tiny", epochs=1)
        expect(page.locator("#queue-hold")).to_contain_text("--min-free-disk-bytes")
        expect(page.locator("#queue li")).to_contain_text(job.name)
        job.cancel()
        expect(page.locator("#queue-hold")).to_be_hidden()


def test_a_failed_job_says_why(visit: Visit, address: str, failed: Job) -> None:
    page = visit(f"{address}#{failed.name}").page

    row = page.locator("#jobs tr").filter(has_text=failed.name)
    expect(row).to_contain_text(failed.failure.message)
    expect(page.locator("#job-note")).to_have_text(failed.failure.message)
    expect(page.locator("#job-empty")).to_contain_text("ended before its first epoch")


def test_rows_of_jobs_are_two_lines_high(visit: Visit, address: str, trained: Model) -> None:
    page = visit(address, width=1280).page

    row = page.locator("#jobs tr").filter(has_text=trained.job)
    expect(row).to_contain_text("seed 0")
    assert row.evaluate("row => row.clientHeight") < 60
    # The whole name stays visible, on a phone too.
    page.set_viewport_size({"width": 360, "height": 800})
    assert row.locator("small").first.evaluate("name => name.scrollWidth <= name.clientWidth")


def test_a_sweep_is_shown_live_and_models_by_dataset(
    server_factory: ServerFactory, visit: Visit
) -> None:
    # The page is closed before its server: fixtures end in reverse order.
    server, other = server_factory(), dataset_of(__file__)
    spec = TrainingSpec(dataset="tiny", epochs=1, batch_size=200)
    with Client(server.target) as client:
        sweep = client.train_sweep({"blocks": [0], "batch_norm": [False, True]}, spec)
        page = visit(f"{root(server)}#{sweep.name}").page
        expect(page.locator("#sweep-heading")).to_contain_text("Sweep of blocks 0")
        expect(page.locator("#sweep-state")).to_contain_text("on tiny: running")
        client.train(dataset=other, blocks=0, epochs=1, batch_size=200).result()
        table = sweep.result().table

    expect(page.locator("#sweep-state")).to_contain_text("succeeded, 2 of 2 jobs done")
    expect(page.locator("#sweep-plot .mark")).to_have_count(2)
    points = page.locator("#points tr")
    for place, variant in enumerate(table.variants):
        accuracy = f"{100 * variant.best_test_accuracy.mean:.2f} %"
        expect(points.nth(place)).to_contain_text(accuracy)
        assert accuracy in (page.locator("#sweep-plot").get_attribute("aria-label") or "")
    expect(page.locator("#sweep-key li.plain-0")).to_have_text("without batch norm")
    expect(page.locator("#sweep-key li.norm-0")).to_have_text("with batch norm")
    groups = page.locator("#models tr.group")
    expect(groups).to_have_count(2)
    assert sorted(groups.all_inner_texts()) == sorted([other, "tiny"])

    job = page.locator("#sweep-jobs a").first
    job.press("Enter")
    expect(page.locator("#job-heading")).to_be_focused()
    expect(page.locator("#sweep")).to_be_hidden()
    page.get_by_role("link", name=sweep.name).first.press("Enter")
    expect(page.locator("#sweep-heading")).to_be_focused()
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_page_that_nobody_sees_asks_nothing_and_catches_up(visit: Visit, address: str) -> None:
    page = visit(address).page
    points = page.locator("#running li polyline.test")
    expect(points).to_be_visible()
    page.evaluate(
        """Object.defineProperty(document, "hidden", { get: () => window.unseen });
        window.turn = (unseen) => {
          window.unseen = unseen;
          document.dispatchEvent(new Event("visibilitychange"));
        };
        window.turn(true);"""
    )
    page.wait_for_timeout(500)  # messages in flight arrive
    before = points.get_attribute("points") or ""
    page.wait_for_timeout(1_500)

    assert points.get_attribute("points") == before
    page.evaluate("window.turn(false)")
    expect(points).not_to_have_attribute("points", before)
    expect(page.locator("#connection")).to_have_text("connected")


def test_a_job_that_there_is_not_is_said(visit: Visit, server: LiveServer) -> None:
    visited = visit(f"{root(server)}#jobs/nobody")

    expect(visited.page.locator("#job-note")).to_contain_text("there is no job jobs/nobody")
    # Chromium itself reports that the resource does not exist.
    assert len(visited.said) == 1
    assert "404" in visited.said.pop()
