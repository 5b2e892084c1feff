"""Quotas: their models, and what is measured on the event loop."""

import asyncio
from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pydantic import ValidationError

from leadline.server.access.meter import TokenBucket, UsageMeter
from leadline.server.access.quotas import NOBODY, Limits, Quotas, SharedLimits
from leadline.server.errors import ResourceExhaustedError
from leadline.server.identity import UNAUTHENTICATED, Identity, Role

ANN, BOB = Identity("ann", Role.TRAINER), Identity("bob", Role.PREDICTOR)
ROOT = Identity("root", Role.ADMIN)


def test_an_own_table_overrides_the_default_key_by_key() -> None:
    quotas = Quotas(
        default=Limits(queued_jobs=5, running_jobs=2), identity={"ann": Limits(queued_jobs=9)}
    )

    assert (quotas.of(ANN).queued_jobs, quotas.of(ANN).running_jobs) == (9, 2)
    assert quotas.of(BOB).queued_jobs == 5


def test_admins_may_exceed_what_concerns_single_jobs_and_nothing_else() -> None:
    limits = Quotas(default=Limits(queued_jobs=5, priority=1, job_work=7)).of(ROOT)

    assert (limits.queued_jobs, limits.priority, limits.job_work) == (5, None, None)


def test_a_job_of_a_year_needs_an_admin_by_default() -> None:
    assert Quotas().of(ANN).job_work is not None
    assert Quotas().of(ROOT).job_work is None
    assert Quotas().owner(UNAUTHENTICATED) is NOBODY


@pytest.mark.parametrize(
    "table",
    [
        {"default": {"queud_jobs": 1}},
        {"default": {"queued_jobs": -1}},
        {"default": {"predictions_per_second": float("inf")}},
        {"total": {"priority": 3}},
        {"identity": {"ann": {"priority": 101}}},
        {"defaults": {}},
    ],
)
def test_a_wrong_table_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Quotas.model_validate(table)


class CallLives(RuleBasedStateMachine):
    """In any order of calls and reloads, nobody has more calls in flight than its quota."""

    def __init__(self) -> None:
        super().__init__()
        self.quotas = Quotas(
            default=Limits(calls_in_flight=3),
            total=SharedLimits(calls_in_flight=5),
            identity={"bob": Limits(calls_in_flight=None)},
        )
        self.meter = UsageMeter(lambda: self.quotas)
        self.open: deque[tuple[Identity, object]] = deque()

    @rule(identity=st.sampled_from([ANN, BOB, ROOT]))
    def begin(self, identity: Identity) -> None:
        counts = Counter(one.name for one, _ in self.open)
        limit = self.quotas.of(identity).calls_in_flight
        is_allowed = len(self.open) < 5 and (limit is None or counts[identity.name] < limit)
        if is_allowed:
            self.open.append((identity, self.meter.begin(identity)))
            return
        with pytest.raises(ResourceExhaustedError) as refused:
            self.meter.begin(identity)
        assert refused.value.reason == "QUOTA_EXCEEDED"
        assert refused.value.metadata["quota"] == "calls_in_flight"
        assert int(refused.value.metadata["used"]) >= int(refused.value.metadata["limit"])

    @rule(newest=st.booleans())
    def end(self, newest: bool) -> None:
        if self.open:
            _, end = self.open.pop() if newest else self.open.popleft()
            assert callable(end)
            end()

    @rule(limit=st.integers(0, 4))
    def reload(self, limit: int) -> None:
        self.quotas = self.quotas.model_copy(
            update={"default": Limits(calls_in_flight=limit), "identity": {}}
        )

    @invariant()
    def counts_are_exact(self) -> None:
        counts = Counter(identity.name for identity, _ in self.open)
        assert {name: self.meter.calls(name) for name in ("ann", "bob", "root", "")} == {
            **{name: counts[name] for name in ("ann", "bob", "root")},
            "": len(self.open),
        }


TestCallLives = CallLives.TestCase


@given(limit=st.integers(0, 40), processes=st.integers(1, 9))
def test_the_shares_of_all_processes_add_up_to_the_limit(limit: int, processes: int) -> None:
    quotas = Quotas(default=Limits(calls_in_flight=limit))
    admitted = 0
    for number in range(processes):
        meter = UsageMeter(lambda: quotas, processes=processes, number=number)
        for _ in range(limit + 1):
            try:
                meter.begin(ANN)
            except ResourceExhaustedError:
                break
            admitted += 1

    assert admitted == limit


@given(
    rate=st.floats(0.5, 50),
    requests=st.lists(st.tuples(st.floats(0, 2), st.integers(-5, 60)), max_size=60),
)
def test_no_window_of_time_has_more_predictions_than_the_quota(
    rate: float, requests: list[tuple[float, int]]
) -> None:
    clock = [100.0]
    quotas = Quotas(default=Limits(predictions_per_second=rate))
    meter = UsageMeter(lambda: quotas, now=lambda: clock[0])
    allowed: list[tuple[float, int]] = []
    for pause, images in requests:
        clock[0] += pause
        try:
            meter.predict(ANN, images)
        except ResourceExhaustedError:
            assert images > 0
        else:
            allowed.append((clock[0], max(images, 0)))

    for index, (start, _) in enumerate(allowed):
        for end, _ in allowed[index:]:
            inside = sum(images for time, images in allowed if start <= time <= end)
            assert inside <= max(rate, 1) + rate * (end - start) + 1e-6


def test_a_bucket_takes_what_it_says_it_will_have() -> None:
    bucket = TokenBucket(4.0, now=0.0)
    bucket.take(4)

    assert bucket.seconds_until(2, now=0.0) == 0.5
    assert bucket.seconds_until(2, now=0.5) == 0.0


async def test_streams_wait_until_the_quota_allows_them() -> None:
    quotas = Quotas(total=SharedLimits(predictions_per_second=200))
    meter = UsageMeter(lambda: quotas)
    meter.predict(ANN, 200)
    began = asyncio.get_running_loop().time()

    await asyncio.gather(*(meter.predict_when_allowed(BOB, 20) for _ in range(3)))

    assert asyncio.get_running_loop().time() - began >= 60 / 200 - 0.01
    with pytest.raises(ResourceExhaustedError, match="fewer images"):
        await meter.predict_when_allowed(BOB, 201)


def test_callers_without_a_name_have_no_quota() -> None:
    quotas = Quotas(default=Limits(calls_in_flight=0, upload_bytes=0, predictions_per_second=1))
    meter = UsageMeter(lambda: quotas)

    assert meter.begin(UNAUTHENTICATED) is None
    meter.check_upload(UNAUTHENTICATED, 1 << 30)
    meter.predict(UNAUTHENTICATED, 1 << 20)
    with pytest.raises(ResourceExhaustedError, match="upload_bytes"):
        meter.check_upload(ANN, 1)
