"""An attack: a coroutine that does harm until it is cancelled, and what it may cost others."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from h2.exceptions import ProtocolError

_Choice = TypeVar("_Choice")

# The sweep of a server with a history.
SWEEP = "sweeps/hhhhhhhhhh"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What others may notice of an attack.

    Attributes:
        health_ms: p99 of health checks.
        encoded_seconds: p99 of predictions of image files.
        memory_mib: growth of the server and of its processes that do not train.
    """

    health_ms: float = 100
    encoded_seconds: float = 1.0
    memory_mib: int = 128


@dataclass(frozen=True, kw_only=True)
class Site:
    """The server under attack, as the processes of the attacker and of the innocent caller see it.

    Attributes:
        folder: of this attack alone.
        data_dir: of the server, for what an attacker causes there.
        model: a model that no attack touches.
        victim: another model, which attacks may damage; its classes have hostile names.
        image: a PNG file.
        is_long: whether to attack at full size, as `make hostile` does.
    """

    pid: int
    port: int
    metrics_url: str
    folder: Path
    data_dir: Path
    model: str
    victim: str
    image: bytes
    is_long: bool

    @property
    def target(self) -> str:
        """The server's address."""
        return f"127.0.0.1:{self.port}"


@dataclass
class Scene:
    """What an attack is given, and where it notes what it sees.

    Attributes:
        site: the server.
        begin: says that everything is prepared; returns when the attack may begin.
        tally: outcomes of the attacker's calls.
        wrong: what must not have happened, in words.
    """

    site: Site
    begin: Callable[[], Awaitable[None]]
    tally: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def scaled(self, short: _Choice, long: _Choice) -> _Choice:
        """The size of something in the short version, or in the long one."""
        return long if self.site.is_long else short

    async def repeat(self, times: int, act: Callable[[], Awaitable[object]]) -> None:
        """Does something over and over, `times` at a time, until the attack is cancelled."""

        async def over_and_over() -> None:
            while True:
                try:
                    await act()
                except (OSError, ProtocolError) as error:  # the server hung up, or is gone
                    self.tally[type(error).__name__] += 1
                    await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            for _ in range(times):
                group.create_task(over_and_over())


Run = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack with its bar.

    Attributes:
        name: its name on the command line.
        run: the attack itself; its docstring says what it does.
        source: where it is known from.
        bar: what others may notice.
        flags: options of the server that it needs.
        wrapper: a command that runs the server.
        history: finished jobs that the server has at its start, short and long; as many of them as
            a sweep may have are `SWEEP`.
        is_finite: whether it ends by itself, and must be waited for.
        is_of_transport: whether it may do another harm over another transport. If not, the short
            version runs over the default alone.
    """

    name: str
    run: Run
    source: str
    bar: Bar
    flags: tuple[str, ...]
    wrapper: tuple[str, ...]
    history: tuple[int, int]
    is_finite: bool
    is_of_transport: bool

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        return (self.run.__doc__ or "").split(".\n")[0].strip().rstrip(".")


def attack(
    *,
    source: str,
    bar: Bar | None = None,
    flags: tuple[str, ...] = (),
    wrapper: tuple[str, ...] = (),
    history: tuple[int, int] = (0, 0),
    is_finite: bool = False,
    is_of_transport: bool = False,
) -> Callable[[Run], Attack]:
    """Makes an attack of a coroutine function; the arguments are those of `Attack`."""

    def make(run: Run) -> Attack:
        return Attack(
            name=getattr(run, "__name__", "").replace("_", "-"),
            run=run,
            source=source,
            bar=bar or Bar(),
            flags=flags,
            wrapper=wrapper,
            history=history,
            is_finite=is_finite,
            is_of_transport=is_of_transport,
        )

    return make
