"""Identities over real channels: who may call, what strangers learn, and when streams end."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from leadline.server.errors import UnauthenticatedError
from leadline.v1.inference_service_pb2 import (
    DATA_TYPE_UINT8,
    ListModelsRequest,
    PredictRequest,
    PredictStreamRequest,
    Tensor,
)
from leadline.v1.training_service_pb2 import (
    CancelJobRequest,
    ListJobsRequest,
    PauseJobRequest,
    TrainJobRequest,
    WatchJobRequest,
)
from support.identities import Tokens, bearer, code_of, tokens_of_all_roles
from support.servers import LiveServer, ServerFactory, start_server
from support.wire import Stubs, connect, details, reason, tiny_spec

pytestmark = pytest.mark.system

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED

# Streams must end within two seconds; the rest is for a busy machine.
MOST_SECONDS = 4


class Guarded:
    """A server with identities, a paused job and a model."""

    def __init__(self, server: LiveServer, tokens: Tokens) -> None:
        self.server = server
        self.tokens = tokens
        self.stubs = connect(server.target)
        trainer = bearer(tokens.secrets["trainer"])
        request = TrainJobRequest(spec=tiny_spec(epochs=1))
        events = list(self.stubs.training.TrainJob(request, timeout=60, metadata=trainer))
        self.model = events[-1].finished.model
        request = TrainJobRequest(spec=tiny_spec(epochs=1_000))
        stream = self.stubs.training.TrainJob(request, timeout=60, metadata=trainer)
        self.paused = next(stream).job
        stream.cancel()
        self.stubs.training.PauseJob(
            PauseJobRequest(name=self.paused), timeout=30, metadata=trainer
        )


@pytest.fixture(
    scope="module",
    params=[("h2corn", 1), ("grpcio", 1), ("h2corn", 3)],
    ids=["h2corn", "grpcio", "processes"],
)
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path
) -> Iterator[Guarded]:
    transport, processes = request.param
    folder = tmp_path_factory.mktemp("guarded")
    tokens = tokens_of_all_roles(folder / "server" / "data" / "tokens.json")
    server = start_server(
        folder / "server",
        f"--dataset=tiny={tiny_dataset}",
        *(f"--transport={transport}", f"--serving-processes={processes}", "--spare-workers=0"),
    )
    guarded = Guarded(server, tokens)
    yield guarded
    guarded.stubs.channel.close()
    log = server.log.read_text()
    assert server.stop() == 0, log
    assert not [secret for secret in tokens.secrets.values() if secret[3:30] in log]


def failed(call: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


def test_strangers_learn_the_same_whatever_they_send(guarded: Guarded) -> None:
    stubs, tokens = guarded.stubs, guarded.tokens
    revoked = tokens.create("gone", "admin")
    tokens.revoke("gone")
    expired = tokens.create("late", "admin", timedelta(seconds=1))
    time.sleep(1.6)
    nothing: Any = stubs.channel.unary_unary("/leadline.v1.TrainingService/Nothing")

    calls: tuple[Callable[[Any], Any], ...] = (
        lambda metadata: stubs.training.ListJobs(ListJobsRequest(), 10, metadata),
        lambda metadata: list(stubs.training.WatchJob(WatchJobRequest(), 10, metadata)),
        lambda metadata: nothing(b"", timeout=10, metadata=metadata),
    )
    credentials = (
        (),
        *(bearer(token) for token in ("ll_wrong", revoked, expired)),
        (("authorization", f"Basic {tokens.secrets['admin']}"),),
        bearer(tokens.secrets["admin"]) * 2,
    )

    learned = set()
    for call, metadata in product(calls, credentials):
        error = failed(partial(call, metadata))
        assert error.code() is UNAUTHENTICATED
        assert reason(error) == "UNAUTHENTICATED"
        learned.add(str(details(error)) + str(error.details()))

    assert len(learned) == 1
    assert str(UnauthenticatedError()) in learned.pop()


def test_probes_need_no_credentials_but_reflection_does(guarded: Guarded) -> None:
    channel = guarded.stubs.channel
    request = ServerReflectionRequest(list_services="")
    reflection = ServerReflectionStub(channel).ServerReflectionInfo

    assert HealthStub(channel).Check(HealthCheckRequest(), timeout=10).status == 1
    assert failed(lambda: list(reflection(iter([request]), timeout=10))).code() is UNAUTHENTICATED
    known = bearer(guarded.tokens.secrets["predictor"])
    assert list(reflection(iter([request]), timeout=10, metadata=known))


def test_a_role_that_is_too_low_is_named(guarded: Guarded) -> None:
    predictor = bearer(guarded.tokens.secrets["predictor"])
    training = guarded.stubs.training

    assert guarded.stubs.inference.ListModels(
        ListModelsRequest(), timeout=10, metadata=predictor
    ).models
    error = failed(lambda: training.CancelJob(CancelJobRequest(name="x"), 10, predictor))

    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason(error) == "ROLE_NEEDED"
    assert "the role trainer" in error.details()


class Streams:
    """Streams of one identity, over connections of their own."""

    def __init__(self, guarded: Guarded, name: str, stack: ExitStack) -> None:
        self._guarded = guarded
        self._metadata = bearer(guarded.tokens.secrets[name])
        self._stack = stack
        self._ends: queue.Queue[tuple[grpc.StatusCode, float]] = queue.Queue()
        self.count = 0

    def open(self, connections: int) -> None:
        """Opens a stream of each kind over each of several connections."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        for _ in range(connections):
            channel = grpc.insecure_channel(self._guarded.server.target, options)
            stubs = Stubs(self._stack.enter_context(channel))
            for begin in (self._watch, self._predict):
                self._follow(begin(stubs))

    def ends(self, count: int) -> list[tuple[grpc.StatusCode, float]]:
        """Waits for the ends of `count` streams: their codes, and when."""
        return [self._ends.get(timeout=30) for _ in range(count)]

    @property
    def has_ended(self) -> bool:
        return not self._ends.empty()

    def _watch(self, stubs: Stubs) -> Any:
        request = WatchJobRequest(name=self._guarded.paused)
        return stubs.training.WatchJob(request, metadata=self._metadata)

    def _predict(self, stubs: Stubs) -> Any:
        pixels = np.zeros((1, 32, 32, 3), np.uint8)
        tensor = Tensor(data_type=DATA_TYPE_UINT8, shape=pixels.shape, data=pixels.tobytes())
        request = PredictRequest(model=self._guarded.model, tensor=tensor)
        ended = threading.Event()
        self._stack.callback(ended.set)

        def messages() -> Iterator[PredictStreamRequest]:
            yield PredictStreamRequest(request=request)
            ended.wait()

        return stubs.inference.PredictStream(messages(), metadata=self._metadata)

    def _follow(self, stream: Any) -> None:
        next(stream)  # it is open
        self._stack.callback(stream.cancel)
        self.count += 1

        def read() -> None:
            code = code_of(lambda: stream)
            self._ends.put((code, time.monotonic()))

        threading.Thread(target=read, daemon=True).start()


@pytest.mark.parametrize("means", ["revoked", "expired"])
def test_open_streams_of_a_token_end_with_it_and_others_go_on(guarded: Guarded, means: str) -> None:
    tokens, lifetime = guarded.tokens, timedelta(seconds=6)
    tokens.create("leaver", "trainer", lifetime if means == "expired" else None)
    expiry = time.monotonic() + lifetime.total_seconds()
    tokens.create("stayer", "trainer")
    time.sleep(1.1)  # each process notices a change of the file within a second
    with ExitStack() as stack:
        leaver, stayer = (Streams(guarded, name, stack) for name in ("leaver", "stayer"))
        leaver.open(4)
        stayer.open(4)
        assert not leaver.has_ended
        if means == "revoked":
            tokens.revoke("leaver")
            expiry = time.monotonic()

        ends = leaver.ends(leaver.count)

        assert {code for code, _ in ends} == {UNAUTHENTICATED}
        assert max(when for _, when in ends) - expiry < MOST_SECONDS
        assert not stayer.has_ended


def test_what_a_token_is_appears_nowhere(guarded: Guarded) -> None:
    token = guarded.tokens.create("planted", "predictor")
    time.sleep(1.1)
    stubs = guarded.stubs
    nothing: Any = stubs.channel.unary_unary(f"/{token}/{token}")
    seen = []
    for call in (
        lambda: stubs.training.ListJobs(ListJobsRequest(), 10, bearer(token)),
        lambda: stubs.training.ListJobs(ListJobsRequest(), 10, bearer(token + "x")),
        lambda: stubs.training.ListJobs(ListJobsRequest(), 10, (("x-token-bin", token.encode()),)),
        lambda: stubs.inference.Predict(PredictRequest(model=token[:40]), 10, bearer(token)),
        lambda: stubs.inference.Predict(PredictRequest(), 10, bearer(token)),
        lambda: nothing(b"", 10, bearer(token)),
    ):
        error = failed(call)
        seen.append(f"{error.code()} {error.details()} {error.trailing_metadata()}")
    del seen[3], seen[-1]  # the caller itself named it as a model, and as a method
    seen.append(guarded.server.log.read_text())

    assert not [text for text in seen if token[3:30] in text]


def test_a_process_that_starts_again_after_the_file_is_lost_lets_nobody_in(
    server_factory: ServerFactory,
) -> None:
    server = server_factory("--serving-processes=2", "--spare-workers=0")
    tokens = Tokens(server.data_dir / "tokens.json")
    tokens.create("ci", "trainer")
    time.sleep(1.1)
    (child,) = psutil.Process(server.process.pid).children()
    tokens.path.unlink()
    child.kill()
    deadline = time.monotonic() + 60
    while server.log.read_text().count("a serving process serves") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)

    codes, known = set(), set()
    for _ in range(16):  # of which each process has some
        with grpc.insecure_channel(
            server.target, [("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            list_jobs = Stubs(channel).training.ListJobs
            metadata = bearer(tokens.secrets["ci"])
            codes.add(code_of(partial(list_jobs, ListJobsRequest(), timeout=10)))
            known.add(code_of(partial(list_jobs, ListJobsRequest(), timeout=10, metadata=metadata)))

    assert codes == {UNAUTHENTICATED}
    assert known <= {UNAUTHENTICATED, grpc.StatusCode.OK}
