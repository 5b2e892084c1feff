import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.server.api.ordered_pipeline import OrderedPipeline
from leadline.server.errors import NotFoundError, ServiceError, UnavailableError


class Work:
    """Answers each number with itself when the test completes it."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self._gates: dict[int, asyncio.Event] = {}

    def finish(self, *numbers: int) -> None:
        for number in numbers:
            self._gates.setdefault(number, asyncio.Event()).set()

    async def answer(self, number: int) -> int:
        self.begun.append(number)
        try:
            await self._gates.setdefault(number, asyncio.Event()).wait()
        finally:
            self.ended.append(number)
        return number


async def requests(numbers: Iterable[int], read: list[int]) -> AsyncIterator[int]:
    for number in numbers:
        read.append(number)
        yield number


async def endless() -> AsyncIterator[int]:
    yield 0
    await asyncio.Event().wait()


async def collected(answers: AsyncIterator[int]) -> tuple[list[int], Exception | None]:
    """Returns the answers and the final error."""
    responses: list[int] = []
    while True:
        try:
            responses.append(await anext(answers))
        except StopAsyncIteration:
            return responses, None
        except ServiceError as error:
            return responses, error


async def settle() -> None:
    """Runs all tasks that are ready."""
    for _ in range(50):
        await asyncio.sleep(0)


@given(order=st.permutations(range(12)), max_in_flight=st.integers(1, 13))
def test_answers_come_in_the_order_of_the_requests_however_the_work_ends(
    order: list[int], max_in_flight: int
) -> None:
    async def run() -> list[int]:
        work = Work()

        async def finish() -> None:
            for number in order:
                await asyncio.sleep(0)
                work.finish(number)

        answers = OrderedPipeline(work.answer, max_in_flight=max_in_flight)
        finishing = asyncio.create_task(finish())
        found = [answer async for answer in answers.responses(requests(range(12), []))]
        await finishing
        return found

    assert asyncio.run(run()) == list(range(12))


async def test_a_caller_that_reads_no_responses_is_read_no_further() -> None:
    work, read = Work(), list[int]()
    work.finish(*range(100))
    answers = OrderedPipeline(work.answer, max_in_flight=3).responses(requests(range(100), read))

    assert await anext(answers) == 0
    await settle()

    # The first answer is ready, but is not sent before the next request.
    assert read == [0, 1, 2]
    assert [await anext(answers), await anext(answers)] == [1, 2]
    await settle()
    assert read == [0, 1, 2, 3, 4]
    await answers.aclose()


async def test_an_answer_does_not_wait_for_the_next_request() -> None:
    work = Work()
    work.finish(0)
    answers = OrderedPipeline(work.answer, max_in_flight=4).responses(endless())

    assert await anext(answers) == 0
    await answers.aclose()


async def test_closing_the_generator_cancels_all_tasks() -> None:
    work = Work()
    answers = OrderedPipeline(work.answer, max_in_flight=4).responses(requests(range(10), []))
    waiting = asyncio.create_task(anext(answers))
    await settle()
    assert work.begun == [0, 1, 2, 3]

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert sorted(work.ended) == [0, 1, 2, 3]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_comes_after_the_answers_before_it_and_ends_the_rest() -> None:
    work = Work()
    work.finish(0, 1)

    async def answer(number: int) -> int:
        if number == 2:
            raise NotFoundError("model", "models/a", "train one")
        return await work.answer(number)

    responses, error = await collected(
        OrderedPipeline(answer, max_in_flight=4).responses(requests(range(10), []))
    )

    assert responses == [0, 1]
    assert isinstance(error, NotFoundError)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_reading_raises_comes_after_the_answers() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 0
        raise NotFoundError("model", "models/a", "train one")

    work = Work()
    work.finish(0)
    responses, error = await collected(
        OrderedPipeline(work.answer, max_in_flight=4).responses(broken())
    )

    assert responses == [0]
    assert isinstance(error, NotFoundError)


@pytest.mark.parametrize("when", ["before", "at once", "later"])
async def test_a_stopped_stream_answers_what_it_has_read(when: str) -> None:
    work = Work()
    stream = OrderedPipeline(work.answer, max_in_flight=4)
    if when == "before":
        stream.stop()
    reading = asyncio.create_task(collected(stream.responses(endless())))
    if when == "later":
        await settle()
    stream.stop()
    work.finish(0)

    responses, error = await reading

    assert isinstance(error, UnavailableError)
    assert responses == ([0] if when == "later" else [])
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stream_that_fails_keeps_nothing_of_its_last_message() -> None:
    class Message:
        """A message of up to 64 MiB."""

    kept: list[weakref.ref[Message]] = []

    async def requests() -> AsyncIterator[Message]:
        message = Message()
        kept.append(weakref.ref(message))
        if kept:
            raise ValueError("malformed")
        yield message

    async def respond(message: Message) -> Message:
        return message

    gc.disable()  # a cycle would stay until a collection
    try:
        pipeline = OrderedPipeline(respond, max_in_flight=1)
        with contextlib.suppress(ValueError):
            async for _ in pipeline.responses(requests()):
                pass
        await asyncio.sleep(0)
        assert kept[0]() is None
    finally:
        gc.enable()
