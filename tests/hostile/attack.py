"""An attack: a coroutine that runs until it is cancelled, and the limits on its cost for others."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from h2.exceptions import ProtocolError

_Choice = TypeVar("_Choice")

# The sweep in the history of a server.
SWEEP = "sweeps/hhhhhhhhhh"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """The limits on an attack's effect.

    Attributes:
        health_ms: p99 of health checks.
        encoded_seconds: p99 of predictions of image files.
        memory_mib: growth of the server and its processes, without training workers.
    """

    health_ms: float = 100
    encoded_seconds: float = 1.0
    memory_mib: int = 128


@dataclass(frozen=True, kw_only=True)
class Site:
    """The server under attack, for the processes of the attacker and the innocent caller.

    Attributes:
        folder: the folder of this attack.
        data_dir: the server's data directory, to check an attack's effects.
        model: a model that no attack changes.
        victim: a model that attacks may damage; its classes have hostile names.
        image: a PNG file.
        is_long: whether to attack at full size, for `make hostile`.
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
    """The arguments of an attack, and the record of its results.

    Attributes:
        site: the server.
        begin: signals that everything is prepared; returns when the attack may start.
        tally: outcomes of the attacker's calls.
        wrong: descriptions of what must not happen.
    """

    site: Site
    begin: Callable[[], Awaitable[None]]
    tally: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def scaled(self, short: _Choice, long: _Choice) -> _Choice:
        """Returns a size for the short or the long version."""
        return long if self.site.is_long else short

    async def repeat(self, times: int, act: Callable[[], Awaitable[object]]) -> None:
        """Repeats an action, `times` concurrently, until the attack is cancelled."""

        async def over_and_over() -> None:
            while True:
                try:
                    await act()
                except (OSError, ProtocolError) as error:  # closed by the server, or it is gone
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
        run: the attack; its docstring describes it.
        source: its origin, such as a CVE.
        bar: the limits on its effect.
        flags: options of the server that it needs.
        wrapper: a command in front of the server's command.
        history: the server's finished jobs at its start, in the short and the long version. As many
            of them as a sweep may have belong to `SWEEP`.
        is_finite: whether it ends by itself; the suite then waits for it.
        is_of_transport: whether its effect may depend on the transport. If not, the short version
            runs only over the default.
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
    """Turns a coroutine function into an attack; the arguments are those of `Attack`."""

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
