"""A real server behind a proxy that cuts connections at random points, and one that restarts."""

import random
import re
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from client.cli_outcome import SCRIPT
from leadline.client import Client, JobState, Model
from support.datasets import dataset_of
from support.proxy import Proxy
from support.servers import LiveServer, ServerFactory

DATASET = dataset_of(__file__)

MakeClient = Callable[..., Client]

CUTS = 20


@pytest.fixture(params=[1, 2])
def proxy(request: pytest.FixtureRequest, live_server: LiveServer) -> Iterator[Proxy]:
    # From before the first byte of an answer to after some events. The handshake has about 60
    # bytes, an event about 250.
    numbers = random.Random(request.param)  # noqa: S311 - repeatable on purpose
    with Proxy(live_server.target, [numbers.randint(1, 900) for _ in range(CUTS)]) as proxy:
        yield proxy


def test_every_event_comes_once_and_in_order_over_a_connection_that_is_cut(
    make_client: MakeClient,
    live_server: LiveServer,
    proxy: Proxy,
    model: Model,
    impatient: list[tuple[str, int]],
) -> None:
    expected = list(make_client(live_server.target).job(model.job).events())
    client = make_client(proxy.target, options=impatient)
    while proxy.cuts < CUTS:
        assert list(client.job(model.job).events()) == expected


def test_a_job_is_submitted_once_over_a_connection_that_is_cut(
    busy_server: LiveServer, make_client: MakeClient
) -> None:
    direct = make_client(busy_server.target)
    before = {job.name for job in direct.jobs()}
    for limit in (1, 40, 80, 120, 160, 200, 240):
        with Proxy(busy_server.target, [limit]) as proxy, Client(proxy.target) as client:
            job = client.train(dataset=DATASET, epochs=2)
        after = {job.name for job in direct.jobs()}
        assert after - before == {job.name}
        before = after


def test_a_job_is_followed_live_over_a_connection_that_is_cut(
    live_server: LiveServer, impatient: list[tuple[str, int]]
) -> None:
    numbers = random.Random(4)  # noqa: S311 - repeatable on purpose
    limits = [numbers.randint(60, 900) for _ in range(CUTS)]
    with (
        Proxy(live_server.target, limits) as proxy,
        Client(proxy.target, options=impatient) as client,
    ):
        job = client.train(dataset=DATASET, blocks=0, epochs=10, batch_size=200)
        assert [epoch.epoch for epoch in job.epochs()] == list(range(1, 11))
        assert job.result().state == JobState.JOB_STATE_SUCCEEDED
        assert proxy.cuts


def test_a_job_is_followed_across_a_restart_of_the_server(server_factory: ServerFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ("--port", str(port), "--spare-workers", "0")
    server = server_factory(*flags)
    told: list[float] = []
    with Client(server.target) as client:
        job = client.train(dataset=DATASET, blocks=0, epochs=8, batch_size=8)
        epochs = job.epochs(on_reconnect=lambda _error, delay: told.append(delay))
        watcher = subprocess.Popen(
            [*SCRIPT, "watch", job.name, "--target", server.target],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watcher.stdout is not None
        shown = [watcher.stdout.readline()]
        seen = [next(epochs).epoch for _ in range(2)]
        assert server.stop() == 0
        server_factory(*flags)
        seen += [epoch.epoch for epoch in epochs]
    assert seen == list(range(1, 9))
    assert told
    out, err = watcher.communicate(timeout=60)
    numbers = re.findall(r"^epoch (\d+)/8 ", "".join([*shown, out]), re.MULTILINE)
    assert numbers == [str(number) for number in seen]
    assert re.fullmatch(r"connection lost( \([^:]*\))?; reconnecting\n", err)
