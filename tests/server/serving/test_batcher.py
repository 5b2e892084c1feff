"""The batcher: each caller gets its own answers, without needless waits or starvation."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from leadline.server.errors import DeadlineExceededError, InvalidArgumentError
from leadline.server.serving.batcher import Batcher, Work, WorkQueue
from leadline.server.serving.classifier import MAX_BATCH, Scores
from leadline.server.serving.inputs import PREDICT_FIELDS, Pixels


class Echo:
    """A network whose logits identify its images and batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.senders: list[set[int]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.has_begun = threading.Event()

    def score(self, images: list[Pixels]) -> Scores:
        self.has_begun.set()
        assert self.may_go_on.wait(30)
        values = np.concatenate([pixels[:, 0, 0, :2] for pixels in images]).astype(np.float32)
        self.batches.append(len(values))
        self.senders.append({int(sender) for sender in values[:, 0]})
        return Scores(values, -values)


def pixels(*, sender: int, count: int) -> Pixels:
    """Returns images with the sender's number and their own number as their first values."""
    images = np.zeros((count, 1, 1, 2), np.float32)
    images[..., 0] = sender
    images[..., 1] = np.arange(count)[:, None, None]
    return images


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    batcher = Batcher()
    yield batcher
    batcher.close()


@pytest.fixture
async def held(batcher: Batcher) -> AsyncIterator[Echo]:
    """A network that blocks in a batch until the test releases it."""
    network = Echo()
    network.may_go_on.clear()
    first = asyncio.create_task(ask(batcher, network, sender=0, count=1))
    await asyncio.to_thread(network.has_begun.wait, 30)
    yield network
    network.may_go_on.set()
    await first


async def ask(
    batcher: Batcher,
    network: Echo,
    *,
    sender: int,
    count: int,
    caller: str = "",
    deadline: float | None = None,
) -> Scores:
    return await score(
        batcher,
        network,
        lambda: network,
        pixels(sender=sender, count=count),
        caller=caller,
        deadline=deadline,
    )


def score(batcher: Batcher, *arguments: Any, **options: Any) -> Coroutine[Any, Any, Scores]:
    return batcher.result(batcher.submit(*arguments, **options))


async def in_queue() -> None:
    """Waits until the thread has the requests, one pass of the event loop later."""
    for _ in range(2):
        await asyncio.sleep(0)


@pytest.mark.parametrize("networks", [1, 3])
async def test_answers_go_to_whom_they_belong_with_mixed_sizes_under_load(
    batcher: Batcher, networks: int
) -> None:
    there = [Echo() for _ in range(networks)]
    counts = [1 + (7 * sender) % 90 for sender in range(200)]

    answers = await asyncio.gather(
        *(
            ask(
                batcher,
                there[sender % networks],
                sender=sender,
                count=count,
                caller=str(sender % 5),
            )
            for sender, count in enumerate(counts)
        )
    )

    for sender, (count, scores) in enumerate(zip(counts, answers, strict=True)):
        expected = [[sender, number] for number in range(count)]
        assert scores.logits.tolist() == expected
        assert (-scores.probabilities).tolist() == expected
    assert max(size for network in there for size in network.batches) <= MAX_BATCH


async def test_a_request_by_itself_is_computed_at_once_and_alone(batcher: Batcher) -> None:
    network = Echo()

    await ask(batcher, network, sender=1, count=1)
    await ask(batcher, network, sender=1, count=3)

    assert network.batches == [1, 3]


async def test_what_comes_while_a_batch_is_computed_is_computed_together(
    batcher: Batcher, held: Echo
) -> None:
    calls = [
        asyncio.create_task(ask(batcher, held, sender=sender, count=2)) for sender in range(1, 6)
    ]
    await in_queue()

    held.may_go_on.set()
    await asyncio.gather(*calls)

    assert held.batches == [1, 10]


async def test_requests_of_one_iteration_of_the_loop_are_computed_together(
    batcher: Batcher,
) -> None:
    network = Echo()

    await asyncio.gather(*(ask(batcher, network, sender=sender, count=1) for sender in range(20)))

    assert network.batches == [20]


async def test_an_image_alone_is_computed_by_the_event_loop_where_that_is_quick(
    batcher: Batcher,
) -> None:
    networks: list[Echo] = [Echo(), Echo()]

    def quick(sender: int) -> Coroutine[Any, Any, Scores]:
        image = pixels(sender=sender, count=1)
        own, quick = networks
        return score(
            batcher, "key", lambda: own, image, caller="", deadline=None, quick=lambda: quick
        )

    alone = await quick(1)
    together = await asyncio.gather(quick(2), quick(3))

    assert [network.senders for network in networks] == [[{2, 3}], [{1}]]
    assert [scores.logits[0, 0] for scores in (alone, *together)] == [1, 2, 3]


async def test_an_image_that_follows_many_is_not_computed_by_the_event_loop(
    batcher: Batcher,
) -> None:
    thread, loop = Echo(), Echo()

    def quick(sender: int) -> Coroutine[Any, Any, Scores]:
        image = pixels(sender=sender, count=1)
        return score(
            batcher, "key", lambda: thread, image, caller="", deadline=None, quick=lambda: loop
        )

    await asyncio.gather(quick(0), quick(0), quick(0))
    for sender in range(1, 5):
        await quick(sender)

    assert thread.senders == [{0}, {1}]  # each request alone forgets one of the others
    assert loop.senders == [{2}, {3}, {4}]


async def test_numbers_that_are_not_finite_reach_no_network(batcher: Batcher, held: Echo) -> None:
    def unchecked(value: float, quick: Echo | None = None) -> Coroutine[Any, Any, Scores]:
        image = pixels(sender=1, count=70)
        image[-1] = value
        return score(
            batcher,
            held,
            lambda: held,
            image,
            caller=str(value),
            deadline=None,
            quick=None if quick is None else lambda: quick,
            unchecked=PREDICT_FIELDS,
        )

    calls = [asyncio.create_task(unchecked(value)) for value in (np.nan, 2.0, np.inf)]
    await in_queue()
    held.may_go_on.set()

    for call in (calls[0], calls[2]):
        with pytest.raises(InvalidArgumentError, match=r"tensor\.data: has values that are not"):
            await call
    assert (await calls[1]).logits[-1, 0] == 2
    assert sum(held.batches) == 1 + 70


async def test_probabilities_are_computed_only_for_those_who_ask(
    batcher: Batcher, held: Echo
) -> None:
    asked: list[bool] = []

    class Lazy(Scores):
        @property
        def probabilities(self) -> NDArray[np.float32]:
            asked.append(True)
            return -self.logits

    class Network:
        def score(self, images: list[Pixels]) -> Scores:
            return Lazy(np.concatenate([part[:, 0, 0, :2] for part in images]))

    async def scores(*logits_only: bool) -> list[Scores]:
        return await asyncio.gather(
            *(
                score(
                    batcher,
                    "lazy",
                    Network,
                    pixels(sender=sender, count=40),
                    caller="",
                    deadline=None,
                    logits_only=only,
                )
                for sender, only in enumerate(logits_only)
            )
        )

    held.may_go_on.set()
    await scores(True, True)
    assert not asked

    for sender, each in enumerate(await scores(True, False, True)):
        assert each.logits.tolist() == [[sender, number] for number in range(40)]
        if sender == 1:
            assert (each.probabilities == -each.logits).all()
    assert asked


async def test_an_image_is_not_computed_by_the_event_loop_beside_an_abandoned_batch(
    batcher: Batcher,
) -> None:
    network = Echo()
    network.may_go_on.clear()
    gone = asyncio.create_task(ask(batcher, network, sender=1, count=1))
    await asyncio.to_thread(network.has_begun.wait, 30)
    gone.cancel()
    await asyncio.wait([gone])

    image = pixels(sender=2, count=1)
    waiting = asyncio.create_task(
        score(
            batcher,
            network,
            lambda: network,
            image,
            caller="",
            deadline=None,
            quick=lambda: network,
        )
    )
    await in_queue()
    assert network.senders == []  # otherwise it would have computed, and waited for itself

    network.may_go_on.set()
    assert (await waiting).logits[0, 0] == 2


async def test_quick_networks_raise_their_errors_and_keep_deadlines(batcher: Batcher) -> None:
    class Broken:
        def score(self, images: list[Pixels]) -> Scores:
            raise OSError(f"it is damaged: {len(images)}")

    image, broken = pixels(sender=1, count=1), Broken()
    with pytest.raises(OSError, match="it is damaged"):
        await score(batcher, "key", Broken, image, caller="", deadline=None, quick=lambda: broken)
    with pytest.raises(DeadlineExceededError):
        await score(batcher, "key", Broken, image, caller="", deadline=0.0, quick=lambda: broken)


async def test_a_large_request_does_not_hold_up_a_small_one_of_another_caller(
    batcher: Batcher, held: Echo
) -> None:
    large = asyncio.create_task(ask(batcher, held, sender=1, count=1_000, caller="a"))
    await in_queue()
    small = asyncio.create_task(ask(batcher, held, sender=2, count=1, caller="b"))
    await in_queue()

    held.may_go_on.set()
    await asyncio.gather(large, small)

    assert held.senders[:3] == [{0}, {1, 2}, {1}]


async def test_work_of_a_caller_who_is_gone_is_not_done(batcher: Batcher, held: Echo) -> None:
    gone = asyncio.create_task(ask(batcher, held, sender=1, count=500))
    await in_queue()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone

    held.may_go_on.set()
    await ask(batcher, held, sender=2, count=1)

    assert held.batches == [1, 1]


async def test_work_whose_deadline_has_passed_is_not_done(batcher: Batcher, held: Echo) -> None:
    late = asyncio.create_task(ask(batcher, held, sender=1, count=500, deadline=time.monotonic()))
    await in_queue()

    held.may_go_on.set()
    with pytest.raises(DeadlineExceededError, match="deadline passed"):
        await late

    await ask(batcher, held, sender=2, count=1)
    assert held.batches == [1, 1]


async def test_an_error_of_a_network_reaches_all_who_asked_it_and_nobody_else(
    batcher: Batcher, held: Echo
) -> None:
    def break_down() -> Echo:
        raise OSError("it is damaged")

    broken = [
        asyncio.create_task(
            score(
                batcher,
                "broken",
                break_down,
                pixels(sender=1, count=40),
                caller=caller,
                deadline=None,
            )
        )
        for caller in "ab"
    ]
    await in_queue()
    sound = asyncio.create_task(ask(batcher, held, sender=2, count=40))
    await in_queue()

    held.may_go_on.set()

    for call in broken:
        with pytest.raises(OSError, match="it is damaged"):
            await call
    assert len((await sound).logits) == 40


arrivals = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sampled_from("abc"), st.integers(1, 100)), max_size=30
)


@given(arrivals)
def test_a_queue_hands_out_every_image_once_in_the_order_of_its_request(
    requests: list[tuple[str, str, int]],
) -> None:
    queue, loop = WorkQueue(), asyncio.new_event_loop()
    works = [
        Work(
            key=key,
            network=Echo,
            pixels=pixels(sender=sender, count=count),
            caller=caller,
            deadline=None,
            answer=loop.create_future(),
        )
        for sender, (key, caller, count) in enumerate(requests)
    ]
    for work in works:
        queue.add(work)
    taken: dict[int, list[float]] = {sender: [] for sender in range(len(works))}

    while queue:
        batch = queue.next_batch(lambda _: True)
        assert len({part.work.key for part in batch}) == 1
        assert 1 <= sum(len(part.images) for part in batch) <= MAX_BATCH
        for part in batch:
            for image in part.images[:, 0, 0]:
                taken[int(image[0])].append(float(image[1]))

    loop.close()
    assert taken == {sender: list(range(len(work.pixels))) for sender, work in enumerate(works)}


@given(st.integers(1, 6))
def test_callers_take_turns(callers: int) -> None:
    queue, loop = WorkQueue(), asyncio.new_event_loop()
    for caller in range(callers):
        for _ in range(100):
            queue.add(
                Work(
                    key="network",
                    network=Echo,
                    pixels=pixels(sender=caller, count=1),
                    caller=str(caller),
                    deadline=None,
                    answer=loop.create_future(),
                )
            )
    rounds = [queue.next_batch(lambda _: True) for _ in range(callers)]

    loop.close()
    shares = [
        sum(part.work.caller == str(caller) for batch in rounds for part in batch)
        for caller in range(callers)
    ]
    assert max(shares) - min(shares) <= MAX_BATCH
