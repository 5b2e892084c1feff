"""The result of a check, and a time limit for checks."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """The severity of a result."""

    OK = "ok"

    WARNING = "warning"
    """A server works, but with less speed or capacity than expected."""

    FAILED = "failed"
    """A server would not start, or its jobs or predictions would fail."""

    SKIPPED = "skipped"
    """There is nothing to check, or an earlier check failed that this one needs."""


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: the name of the check; the same in every version.
        status: its severity.
        value: the result in a few words.
        detail: machine-readable values; may be empty.
        advice: what to do about it; shown only for warnings and failures.
    """

    name: str
    status: Status
    value: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as a JSON object."""
        is_wrong = self.status in {Status.WARNING, Status.FAILED}
        advice = self.advice if is_wrong else ""
        return {**asdict(self), "detail": dict(self.detail), "advice": advice}


def within(seconds: float, name: str, run: Callable[[], Check]) -> Check:
    """Runs a check; returns its result, or a failure if it exceeds the time limit.

    A thread that hangs, such as in a call to a dead file system, is abandoned. An unexpected
    exception of the check is also a failure.
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
        advice="the device or its file system hangs: see the kernel log",
    )
