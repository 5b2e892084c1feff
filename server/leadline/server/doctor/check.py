"""The result of a check, and the time limit of checks."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """The severity of a finding."""

    OK = "ok"

    WARNING = "warning"
    """A server works, but is slow or short of resources."""

    FAILED = "failed"
    """A server would not start, or jobs or predictions would fail."""

    SKIPPED = "skipped"
    """There is nothing to check, or a precondition has failed."""


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: the check's name; the same in every version.
        status: the severity.
        value: the finding, in a few words.
        detail: the finding as numbers and names, for programs; may be empty.
        advice: what to do; hidden if the check is OK or skipped.
    """

    name: str
    status: Status
    value: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON values."""
        is_wrong = self.status in {Status.WARNING, Status.FAILED}
        advice = self.advice if is_wrong else ""
        return {**asdict(self), "detail": dict(self.detail), "advice": advice}


def within(seconds: float, name: str, run: Callable[[], Check]) -> Check:
    """Runs a check; returns a failure if it does not end in time.

    A thread that hangs, for example in a dead file system, keeps running. An
    unexpected exception is a failure, too.
    """
    results: list[Check] = []

    def work() -> None:
        try:
            results.append(run())
        except Exception as error:  # noqa: BLE001 - the other checks are still of use
            value = f"{type(error).__name__}: {error}"
            advice = "the check itself failed; report this as a bug"
            results.append(Check(name, Status.FAILED, value, advice=advice))

    thread = threading.Thread(target=work, daemon=True, name=f"doctor-{name}")
    thread.start()
    thread.join(seconds)
    if results:
        return results[0]
    return Check(
        name,
        Status.FAILED,
        f"no result within {seconds:g} s",
        detail={"limit_seconds": seconds},
        advice="the device or the file system behind it hangs: see the kernel's log",
    )
