"""Strings that a careless program would execute, follow or store."""

import asyncio
import re
import urllib.request

from hostile.attack import Scene, attack
from hostile.calls import requests_of, send
from support.bare_http2 import Connection
from support.hostile_messages import methods

# Each is sent as a name, an id, a selector, a page token, a dataset, a class, ...
_STRINGS = (
    b"",
    b"/",
    b"..",
    b"../../../../etc/passwd",
    b"jobs/../../etc/passwd",
    b"models/%2e%2e%2f%2e%2e",
    b"models/..",
    b"models/../epochs/1",
    b"models/aaaaaaaaaa/epochs/-1",
    b"models/aaaaaaaaaa/epochs/99999999999999999999",
    b"jobs/aaaaaaaaaa\0",
    b"jobs/' OR 1=1; DROP TABLE jobs; --",
    b"datasets/" + b"0" * 64 + b"/test/18446744073709551616",
    b"datasets/../../x/test/0",
    b"file:///etc/passwd",
    b"torchvision:cifar10",
    b"${jndi:ldap://127.0.0.1/x}",
    b"{0.__class__.__mro__}",
    b"%s%s%s%n",
    b"\x1b[2J\x1b]0;title\x07",
    b"line\r\nx-injected: 1",
    "\u202e\ufeff\U0001f9e8\u0000".encode(),
    b"\xff\xfe\xed\xa0\x80",  # no UTF-8
    b"=" * 3_000,
    b"A" * 1_000_000,
    b"12345678-1234-4234-8234-123456789abc' --",
)

# The statuses allowed for a caller's error. INTERNAL and UNKNOWN are errors of the server, and
# UNAVAILABLE invites a retry.
_RIGHTFUL = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "UNIMPLEMENTED",
    "ALREADY_EXISTS",
    "RESOURCE_EXHAUSTED",
    "OUT_OF_RANGE",
}

_SERVICE = "/leadline.v1.TrainingService"
_TRAINS = re.compile(r"/Train(Job|Sweep)$")
_SERIES = re.compile(rb"^[a-z_]+(?:\{[^}]*\})? ", re.MULTILINE)


@attack(source="CWE-22, CWE-89, CWE-93, CWE-117, CWE-134", is_finite=True, is_of_transport=True)
async def hostile_strings(scene: Scene) -> None:
    """Sends paths, SQL, format strings, escapes and invalid text in each field of each RPC.

    The server must report a caller's error as one, and may write nothing outside the data
    directory.
    """
    cases = [
        (path, request)
        for path, method in methods().items()
        for string in _STRINGS[:: scene.scaled(4, 1)]
        for field, request in requests_of(method.input_type, string)
        # Strings in other fields, and empty strings, give a valid spec that trains.
        if not _TRAINS.search(path) or (string and field in ("dataset", "request_id"))
    ]
    await scene.begin()
    await _send_all(scene, cases, at_once=8)


@attack(source="unbounded labels of metrics (CWE-770)", is_finite=True, is_of_transport=True)
async def random_methods(scene: Scene) -> None:
    """Calls thousands of unknown methods: none may add a series to the metrics."""
    paths = [
        *(f"{_SERVICE}/Method{number}" for number in range(scene.scaled(500, 20_000))),
        *(f"/no.Service{number}/Method" for number in range(scene.scaled(100, 3_000))),
    ]
    await scene.begin()
    await _send_all(scene, [("/none.None/None", b"")], at_once=1)
    before = await asyncio.to_thread(_series, scene.site.metrics_url)
    await _send_all(scene, [(path, b"") for path in paths], at_once=8, expected={"UNIMPLEMENTED"})
    after = await asyncio.to_thread(_series, scene.site.metrics_url)
    if more := {series for series in after - before if b"None" in series or b"Method" in series}:
        scene.wrong.append(f"{len(more)} new series: {sorted(more)[:3]}")


def _series(url: str) -> set[bytes]:
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - our own
        return set(_SERIES.findall(response.read()))


async def _send_all(
    scene: Scene,
    cases: list[tuple[str, bytes]],
    *,
    at_once: int,
    expected: set[str] = _RIGHTFUL,
) -> None:
    rest = iter(cases)

    async def send_rest() -> None:
        for path, message in rest:
            # A connection for each, because an unreadable answer ends it.
            async with Connection(scene.site.port) as connection:
                try:
                    status = await send(scene, connection, path, message, seconds=30)
                except ConnectionError as error:
                    status = f"{error}: {error.__cause__}"
            if status not in expected and not path.endswith("/Watch"):  # which ends by its deadline
                scene.wrong.append(f"{path} {message[:40]!r}: {status}")

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(send_rest())
