"""Client certificates as identities, on both transports and on the HTTP port."""

import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from leadline.v1.training_service_pb2 import (
    ListJobsRequest,
    PauseJobRequest,
    TrainJobRequest,
    WatchJobRequest,
)
from support.certificates import Authority, Pair, channel_credentials
from support.identities import bearer, code_of
from support.servers import LiveServer, start_server
from support.wire import Stubs, tiny_spec

pytestmark = pytest.mark.system

ACCESS = """
[certificates]
"spiffe://example.org/ci" = { name = "ci", role = "trainer" }
"grace" = { name = "grace", role = "viewer" }
"gauge" = { name = "gauge", role = "predictor" }
"""

# Streams must end within two seconds; the rest is for a busy machine.
MOST_SECONDS = 4


@dataclass
class Guarded:
    """A server that requires certificates."""

    folder: Path
    authority: Authority
    server: LiveServer
    channels: list[grpc.Channel] = field(default_factory=list)

    @property
    def access_file(self) -> Path:
        return self.folder / "access.toml"

    def stubs(self, pair: Pair) -> Stubs:
        credentials = channel_credentials(self.authority, pair)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.secure_channel(self.server.target, credentials, options)
        self.channels.append(channel)
        return Stubs(channel)

    def metrics(self, pair: Pair) -> int:
        """The status of a scrape."""
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.load_cert_chain(*pair.write(self.folder, "client"))
        try:
            with urllib.request.urlopen(self.server.metrics_url, context=context) as response:  # noqa: S310
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code


@pytest.fixture(
    scope="module",
    params=[("h2corn", 1), ("grpcio", 1), ("h2corn", 2)],
    ids=["h2corn", "grpcio", "processes"],
)
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path
) -> Iterator[Guarded]:
    transport, processes = request.param
    folder, authority = tmp_path_factory.mktemp("guarded"), Authority()
    certificate, key = authority.server().write(folder)
    (folder / "access.toml").write_text(ACCESS)
    server = start_server(
        folder / "server",
        *(f"--dataset=tiny={tiny_dataset}", "--spare-workers=0", f"--transport={transport}"),
        *(f"--tls-cert={certificate}", f"--tls-key={key}", "--tls-client-auth=required"),
        *(f"--tls-client-ca={authority.write(folder)}", f"--access-file={folder / 'access.toml'}"),
        f"--serving-processes={processes}",
    )
    guarded = Guarded(folder, authority, server)
    yield guarded
    for channel in guarded.channels:
        channel.close()
    assert server.stop() == 0, server.log.read_text()


@pytest.mark.parametrize(
    ("name", "uri", "codes", "scrapes"),
    [
        ("anybody", "spiffe://example.org/ci", ("OK", "NOT_FOUND"), 200),
        ("grace", None, ("OK", "PERMISSION_DENIED"), 200),
        ("gauge", None, ("PERMISSION_DENIED", "PERMISSION_DENIED"), 403),
        ("stranger", None, ("UNAUTHENTICATED", "UNAUTHENTICATED"), 401),
        ("grace", "spiffe://example.org/other", ("UNAUTHENTICATED", "UNAUTHENTICATED"), 401),
        ("spiffe://example.org/ci", None, ("UNAUTHENTICATED", "UNAUTHENTICATED"), 401),
    ],
)
def test_a_certificate_has_the_role_of_its_name(
    guarded: Guarded, name: str, uri: str | None, codes: tuple[str, str], scrapes: int
) -> None:
    pair = guarded.authority.client(name, uri)
    training = guarded.stubs(pair).training
    pause = PauseJobRequest(name="jobs/absent")

    reads = code_of(lambda: training.ListJobs(ListJobsRequest(), timeout=10))
    changes = code_of(lambda: training.PauseJob(pause, timeout=10))

    assert (reads.name, changes.name) == codes
    assert guarded.metrics(pair) == scrapes


def test_a_wrong_token_is_not_saved_by_a_certificate(guarded: Guarded) -> None:
    training = guarded.stubs(guarded.authority.client("grace")).training
    call: Callable[[], object] = lambda: training.ListJobs(  # noqa: E731
        ListJobsRequest(), timeout=10, metadata=bearer("ll_wrong")
    )

    assert code_of(call) is grpc.StatusCode.UNAUTHENTICATED


def test_streams_end_when_the_access_file_forgets_a_certificate(guarded: Guarded) -> None:
    guarded.access_file.write_text(ACCESS + '"leaver" = { name = "leaver", role = "trainer" }\n')
    time.sleep(1.1)
    stubs = [guarded.stubs(guarded.authority.client(name)) for name in ("leaver", "grace")] * 3
    request = TrainJobRequest(spec=tiny_spec(epochs=1_000))
    stream = stubs[0].training.TrainJob(request, timeout=60)
    job = next(stream).job
    stubs[0].training.PauseJob(PauseJobRequest(name=job), timeout=10)
    watches = [each.training.WatchJob(WatchJobRequest(name=job), timeout=60) for each in stubs]
    for watch in watches:
        next(watch)

    guarded.access_file.write_text(ACCESS)
    began = time.monotonic()

    assert {code_of(lambda watch=watch: watch) for watch in watches[::2]} == {
        grpc.StatusCode.UNAUTHENTICATED
    }
    assert time.monotonic() - began < MOST_SECONDS
    assert all(watch.is_active() for watch in watches[1::2])
    for watch in watches[1::2]:
        watch.cancel()
