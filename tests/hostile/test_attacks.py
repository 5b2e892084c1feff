"""The short version of each attack, with bars that hold on any machine."""

from pathlib import Path

import pytest

from hostile.attacks import ATTACKS
from hostile.innocent import Latency, Sample
from hostile.rig import SHORT, TRANSPORTS, Prepared, prepare, run_attack


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Prepared:
    return prepare(tmp_path_factory.mktemp("hostile"), tiny_dataset)


_CASES = [
    (name, transport)
    for name, attack in ATTACKS.items()
    for transport in (TRANSPORTS if attack.is_of_transport else TRANSPORTS[:1])
]


@pytest.mark.parametrize(("name", "transport"), _CASES)
def test_an_attack_leaves_others_unharmed(
    name: str, transport: str, prepared: Prepared, tmp_path: Path
) -> None:
    outcome = run_attack(ATTACKS[name], transport, SHORT, prepared, tmp_path / "server")

    assert outcome.misses == []


def test_each_attack_says_what_it_does_and_where_it_is_known_from() -> None:
    assert [
        name for name, attack in ATTACKS.items() if not (attack.summary and attack.source)
    ] == []


def test_a_call_without_an_answer_counts_as_long_as_it_was_waited_for() -> None:
    samples = [Sample("health", 0, seconds / 100, "OK") for seconds in range(99)]

    latency = Latency.of([*samples, Sample("health", 0, 60, "PENDING")])

    assert latency == Latency(p50=0.49, p99=0.98, max=60)
