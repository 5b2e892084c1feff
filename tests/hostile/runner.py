"""Runs attacks one after another with progress, and prints the table of figures."""

import argparse
import math
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from hostile.attacks import ATTACKS
from hostile.rig import LONG, SHORT, TRANSPORTS, Outcome, prepare, run_attack
from support.machine import markdown_table, taken_on
from support.servers import make_dataset

_SCALES = {"short": SHORT, "long": LONG}
_HEADINGS = (
    "attack",
    "transport",
    "cheap calls p50/p99/max [ms]",
    "image files p99 [ms]",
    "health p99/max [ms]",
    "memory [MiB]",
    "shutdown [s]",
    "the attacker's calls",
    "verdict",
)


def main(arguments: Sequence[str]) -> int:
    """Runs the selected attacks; returns 0 if every bar is met, otherwise 1."""
    options = _parse(arguments)
    outcomes: list[Outcome] = []
    is_broken = False
    with tempfile.TemporaryDirectory(prefix="leadline-hostile-") as name:
        folder = Path(name)
        prepared = prepare(folder / "prepared", make_dataset(folder / "tiny"))
        for attack in options.only or ATTACKS:
            for transport in options.transport or TRANSPORTS:
                place = folder / f"{attack}-{transport}"
                try:
                    outcome = run_attack(
                        ATTACKS[attack], transport, _SCALES[options.scale], prepared, place
                    )
                except Exception:  # noqa: BLE001 - the other attacks still run
                    traceback.print_exc()
                    is_broken = True
                    continue
                outcomes.append(outcome)
                sys.stderr.write("; ".join(_row(outcome)) + "\n")
    sys.stdout.write(table(outcomes))
    sys.stdout.write(f"\n`python tests/hostile/run.py --scale {options.scale}`, {taken_on()}.\n")
    return 1 if is_broken or any(outcome.misses for outcome in outcomes) else 0


def table(outcomes: Iterable[Outcome]) -> str:
    """Returns the outcomes as a table in Markdown, ready for docs/security.md."""
    return markdown_table(_HEADINGS, map(_row, outcomes))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/hostile/run.py", description=__doc__)
    parser.add_argument("--scale", choices=list(_SCALES), default="long")
    parser.add_argument(
        "--transport", choices=TRANSPORTS, action="append", help="all of them by default"
    )
    parser.add_argument(
        "--only",
        choices=list(ATTACKS),
        action="append",
        metavar="NAME",
        help=f"an attack to run, again for more: {', '.join(ATTACKS)}",
    )
    return parser.parse_args(arguments)


def _row(outcome: Outcome) -> tuple[str, ...]:
    cheap, health = outcome.latency["cheap"], outcome.latency["health"]
    return (
        outcome.attack.name,
        outcome.transport,
        f"{_ms(cheap.p50)} / {_ms(cheap.p99)} / {_ms(cheap.max)}",
        _ms(outcome.latency["encoded"].p99),
        f"{_ms(health.p99)} / {_ms(health.max)}",
        f"{outcome.memory_mib:+.0f}",
        "killed" if math.isinf(outcome.exit_seconds) else f"{outcome.exit_seconds:.1f}",
        _calls(outcome.tally),
        "; ".join(outcome.misses[:3]) or "held",
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f}"


def _calls(tally: Counter[str]) -> str:
    # After the shutdown, an attacker cannot connect.
    said = [(what, count) for what, count in tally.most_common() if "Connection" not in what]
    return ", ".join(f"{count:,} {what}" for what, count in said[:3])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
