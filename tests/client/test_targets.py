"""The target of a client, and unsupported uses of clients and handles."""

import asyncio
import copy
import pickle
import re

import pytest

from leadline.client import AsyncClient, Client, InvalidArgumentError, UsageError
from leadline.client._channel import normal_target
from leadline.client._names import model_name
from support.servers import LiveServer


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("localhost", "localhost:50051"),
        ("gpu-1.example", "gpu-1.example:50051"),
        ("192.0.2.7", "192.0.2.7:50051"),
        ("[::1]", "[::1]:50051"),
        ("::1", "[::1]:50051"),
        ("fe80::1%eth0", "[fe80::1%eth0]:50051"),
        ("http://[::1]/", "[::1]:50051"),
        ("http://localhost", "localhost:50051"),
        ("HTTP://localhost:8080/", "localhost:8080"),
        ("https://leadline.example", "leadline.example:50051"),
        ("HTTPS://[::1]:443/", "[::1]:443"),
        (" localhost:8080 ", "localhost:8080"),
        ("dns:///leadline.example:443", "dns:///leadline.example:443"),
        ("unix:/run/leadline.sock", "unix:/run/leadline.sock"),
    ],
)
def test_a_target_may_lack_its_port_or_have_the_scheme_of_a_url(target: str, address: str) -> None:
    assert normal_target(target) == normal_target(address) == address
    with Client(target) as client:
        assert repr(client) == f"Client({address!r})"


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("", "empty"),
        ("http://", "empty"),
        ("https://", "empty"),
        ("localhost:0", "0 is not a port"),
        ("localhost:65536", "65536 is not a port"),
        ("ipv4:127.0.0.1:65536", "65536 is not a port"),
        ("localhost:", "'' is not a port: give 1 to 65535"),
        ("localhost:http", "'http' is not a port"),
        ("[::1", "'[::1' is not an address: give HOST:PORT or [IPV6]:PORT"),
        ("[localhost]:50051", "'[localhost]:50051' is not an address"),
        ("::1:50051", "'::1:50051' is not an address"),
        ("user@localhost", "'user@localhost' is not an address"),
        ("localhost:50051/jobs", "'localhost:50051/jobs' is not an address"),
        ("local host", "'local host' is not an address"),
    ],
)
def test_a_target_that_can_be_none_is_refused(target: str, why: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidArgumentError, match=re.escape(why)) as caught:
            kind(target)
        assert [violation.field for violation in caught.value.violations] == ["target"]


def test_a_url_reaches_a_server(live_server: LiveServer) -> None:
    with Client(f"http://{live_server.target}") as client:
        assert client.health().name == "SERVING"


def test_an_asynchronous_client_says_that_it_belongs_to_another_event_loop(
    live_server: LiveServer,
) -> None:
    client = AsyncClient(live_server.target)
    job = client.job("nobody")
    asyncio.run(client.health())

    async def first_event() -> None:
        await anext(job.events())

    for call in (client.health, job.refresh, first_event):
        with pytest.raises(UsageError, match=r"another event loop.* in each asyncio\.run"):
            asyncio.run(call())
    asyncio.run(client.close())


def test_clients_and_handles_say_that_they_cannot_be_pickled() -> None:
    with Client("localhost") as client:
        for subject in (client, client.job("a"), client.sweep("a")):
            with pytest.raises(UsageError, match=r"pass the name, and use `client\.job\(name\)`"):
                pickle.dumps(subject)
        assert copy.copy(client.job("a")).name == "jobs/a"


def test_a_job_stands_for_its_model() -> None:
    assert model_name("jobs/abc") == "models/abc"
    assert model_name("jobs/abc/epochs/2") == "models/abc/epochs/2"
