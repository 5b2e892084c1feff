"""Pages: their entries and bytes, and the start of the next page."""

from collections.abc import Iterable, Iterator
from itertools import chain

import pytest

from leadline.server.api.pages import MAX_PAGE_BYTES, PageTokens
from leadline.server.errors import InvalidArgumentError
from leadline.v1.job_pb2 import Job
from leadline.v1.training_service_pb2 import ListJobsRequest, ListJobsResponse

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


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="page_size"):
        TOKENS.page(ListJobsRequest(page_size=-1), QUERY)
