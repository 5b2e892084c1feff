"""Both clients, a trained model, and servers that misbehave on purpose."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from client.cli_outcome import Leadline, Outcome
from leadline.client import (
    AsyncClient,
    AsyncPredictionStream,
    AsyncTrainingJob,
    AsyncTrainingSweep,
    Client,
    Model,
    Sweep,
    TrainingSpec,
    _retry,
)
from leadline.client.cli import main
from support.servers import LiveServer


class Blocking:
    """The asynchronous client with the interface of the synchronous one.

    One suite of tests then covers both.
    """

    def __init__(self, subject: object, runner: asyncio.Runner) -> None:
        self._subject = subject
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._subject, name)
        if not callable(value):
            return value
        return lambda *arguments, **options: self._resolved(value(*arguments, **options))

    def _resolved(self, result: Any) -> Any:
        if inspect.iscoroutine(result):
            result = self._runner.run(result)
        if isinstance(result, AsyncPredictionStream):
            return BlockingStream(result, self._runner)
        if isinstance(result, AsyncIterator):
            return self._iterated(result)
        if isinstance(result, AsyncTrainingJob | AsyncTrainingSweep):
            return Blocking(result, self._runner)
        return result

    def _iterated(self, iterator: Any) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(iterator, None)

        try:
            while (item := self._runner.run(following())) is not None:
                yield item
        finally:
            self._runner.run(iterator.aclose())


class BlockingStream(Blocking):
    """A stream of predictions with the interface of the synchronous one."""

    def __iter__(self) -> "BlockingStream":
        return self

    def __next__(self) -> Any:
        async def following() -> Any:
            return await anext(self._subject, None)  # type: ignore[call-overload]

        item = self._runner.run(following())
        if item is None:
            raise StopIteration
        return item

    def close(self) -> None:
        self.aclose()


class ClientFactory:
    """Creates clients of one kind, and closes them."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._runner = asyncio.Runner()
        self._clients: list[Client] = []

    def __call__(self, target: str, **options: Any) -> Client:
        if self._kind == "sync":
            client = Client(target, **options)
        else:
            client = cast("Client", Blocking(AsyncClient(target, **options), self._runner))
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._runner.close()


@pytest.fixture(autouse=True)
def _no_profiles(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hides the profiles of whoever runs the tests."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "no-config"))


@pytest.fixture(params=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Iterator[ClientFactory]:
    factory = ClientFactory(request.param)
    yield factory
    factory.close()


@pytest.fixture
def client(make_client: ClientFactory, live_server: LiveServer) -> Client:
    return make_client(live_server.target)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Makes the SDK reconnect quickly after each cut; returns the gRPC options for that."""
    monkeypatch.setattr(_retry, "LAST_DELAY", 0.2)
    return [("grpc.max_reconnect_backoff_ms", 200)]


@pytest.fixture
def busy_client(make_client: ClientFactory, busy_server: LiveServer) -> Client:
    return make_client(busy_server.target)


@pytest.fixture(scope="session")
def model(live_server: LiveServer) -> Model:
    """A trained model of 3 epochs on `tiny`: 1 block with batch norm."""
    with Client(live_server.target) as client:
        job = client.train(
            dataset="tiny",
            blocks=1,
            batch_norm=True,
            epochs=3,
            batch_size=16,
            learning_rate=0.05,
            momentum=0.9,
        )
        job.result()
        return client.get_model(job.model)


@pytest.fixture(scope="session")
def depth_sweep(live_server: LiveServer) -> Sweep:
    """A sweep of 1 and 0 blocks, without and with batch norm, 2 seeds of each."""
    spec = TrainingSpec(dataset="depths", epochs=1, batch_size=100, learning_rate=0.05)
    with Client(live_server.target) as client:
        return client.train_sweep(
            {"blocks": [1, 0], "batch_norm": [False, True], "seed": [0, 1]}, spec
        ).result()


@pytest.fixture(scope="session")
def test_images(tiny_dataset: Path) -> list[Path]:
    """The test images in the order of their indices."""
    return sorted((tiny_dataset / "test").rglob("*.png"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Leadline:
    """Runs a command against a target."""
    monkeypatch.delenv("LEADLINE_TARGET", raising=False)

    def invoke(target: str, command: str, *arguments: str) -> Outcome:
        code = main([command, *arguments, "--target", target])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return invoke


@pytest.fixture
def leadline(run: Leadline, live_server: LiveServer, model: Model) -> Leadline:
    """Runs a command against the server, which has a trained model."""
    del model
    return lambda *arguments: run(live_server.target, *arguments)


@pytest.fixture
def busy_leadline(run: Leadline, busy_server: LiveServer) -> Leadline:
    """Runs a command against the server that starts no job."""
    return lambda *arguments: run(busy_server.target, *arguments)
