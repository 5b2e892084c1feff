"""Pages: their entries and bytes, and the start of the next page."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from leadline.server.api.inspection_messages import (
    NextToken,
    from_comparison,
    from_label_errors,
    from_listing,
)
from leadline.server.api.pages import MAX_PAGE_BYTES, PageTokens
from leadline.server.errors import InvalidArgumentError
from leadline.server.inspection.comparison import (
    ComparedExample,
    Comparison,
    ComparisonQuery,
    Guess,
    Outcome,
)
from leadline.server.inspection.examples import Example, Picture
from leadline.server.inspection.label_errors import LabelError, LabelErrorQuery, LabelErrors
from leadline.server.inspection.mcnemar import mcnemar
from leadline.server.inspection.misclassified import ClassCount, Listing, ListingQuery
from leadline.server.serving.catalog import CheckpointRef
from leadline.server.serving.examples import ExampleRef
from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store
from leadline.v1.job_pb2 import Job
from leadline.v1.training_service_pb2 import ListJobsRequest, ListJobsResponse
from support.stores import fill

TOKENS = PageTokens(b"k" * 32)
QUERY = ["numbers"]


def pages(size: int, count: int, *, device: str = "") -> Iterator[list[int]]:
    """Returns the numbers on each page of a list of jobs."""
    token = ""
    while True:
        page = TOKENS.page(ListJobsRequest(page_size=size, page_token=token), QUERY)

        def convert(number: int) -> Job:
            return Job(attempts=number, device=device)

        start = page.after or 0
        messages, token = page.fill(range(start + 1, count + 1), convert, cursor=int)
        response = ListJobsResponse(jobs=messages, next_page_token=token)
        assert response.ByteSize() <= 4 << 20
        yield [message.attempts for message in messages]
        if not token:
            return


@pytest.mark.parametrize(
    ("size", "count", "lengths"),
    [(3, 0, [0]), (3, 2, [2]), (3, 3, [3]), (3, 4, [3, 1]), (3, 7, [3, 3, 1])],
)
def test_pages_have_the_size_and_the_last_one_no_token(
    size: int, count: int, lengths: list[int]
) -> None:
    listed = list(pages(size, count))

    assert [len(page) for page in listed] == lengths
    assert [*chain(*listed)] == list(range(1, count + 1))


def test_a_page_ends_early_where_it_would_have_too_many_bytes() -> None:
    listed = list(pages(1_000, 40, device="x" * (MAX_PAGE_BYTES // 10)))

    assert [len(page) for page in listed] == [9, 9, 9, 9, 4]
    assert [*chain(*listed)] == list(range(1, 41))


def test_an_entry_larger_than_a_page_has_one_of_its_own() -> None:
    page = TOKENS.page(ListJobsRequest(), QUERY)
    large = [Job(device="x" * (MAX_PAGE_BYTES + size)) for size in (1, 2)]

    messages, token = page.fill(large, lambda job: job, cursor=lambda job: len(job.device))

    assert messages == large[:1]
    assert TOKENS.read(QUERY, token) == MAX_PAGE_BYTES + 1


def test_entries_beyond_the_page_are_not_read() -> None:
    read: list[int] = []

    def entries() -> Iterable[int]:
        for number in range(100):
            read.append(number)
            yield number

    page = TOKENS.page(ListJobsRequest(page_size=5), QUERY)
    page.fill(entries(), lambda number: Job(attempts=number), cursor=int)

    assert read == list(range(6))


# Examples of inspections, which have images

PICTURE = Picture(
    ref=ExampleRef(fingerprint="f" * 64, split="test", index=1),
    aspect_ratio=1.0,
    png=b"x" * 10_000,
    pixels=b"",
)
GUESS = Guess(predicted_class=0, probability=1.0)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[CheckpointRef]:
    engine = open_database(tmp_path / "jobs.db")
    fill(engine, 1)
    model = Store(engine).models.get("f0")
    yield CheckpointRef(model=model, epoch=model.epochs[0].result, folder=tmp_path)
    engine.dispose()


def a_listing(checkpoint: CheckpointRef, next_token: NextToken) -> Any:
    example = Example(picture=PICTURE, true_class=0, predicted_class=1, probability=1.0)
    count = ClassCount(wrong=500, correct=0)
    listing = Listing(
        examples=(example,) * 1_000, total=2_000, class_counts=(count, count), images=9, correct=1
    )
    return from_listing(checkpoint, ListingQuery(), next_token, listing)


def a_comparison(checkpoint: CheckpointRef, next_token: NextToken) -> Any:
    example = ComparedExample(
        picture=PICTURE, true_class=0, outcome=Outcome.FIXED, baseline=GUESS, candidate=GUESS
    )
    comparison = Comparison(
        images=9,
        counts=dict.fromkeys(Outcome, 3),
        mcnemar=mcnemar(3, 3),
        examples=(example,) * 1_000,
        total=2_000,
    )
    return from_comparison(checkpoint, checkpoint, ComparisonQuery(), next_token, comparison)


def label_errors(checkpoint: CheckpointRef, next_token: NextToken) -> Any:
    example = LabelError(picture=PICTURE, true_class=0, suggested_class=1, models=2, margin=0.5)
    errors = LabelErrors(examples=(example,) * 1_000, total=2_000)
    return from_label_errors([checkpoint] * 20, LabelErrorQuery(), next_token, errors)


@pytest.mark.parametrize("make", [a_listing, a_comparison, label_errors])
def test_a_page_of_examples_ends_early_and_the_next_one_begins_there(
    checkpoint: CheckpointRef, make: Callable[[CheckpointRef, NextToken], Any]
) -> None:
    page = make(checkpoint, lambda shown, total: f"{shown} of {total}")

    assert 300 < len(page.examples) < 400
    assert page.ByteSize() <= 4 << 20
    assert page.next_page_token == f"{len(page.examples)} of 2000"


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="page_size"):
        TOKENS.page(ListJobsRequest(page_size=-1), QUERY)
