"""A server with TLS: both of its ports and all of its processes follow the certificates."""

import http.client
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from support.certificates import Authority, Pair, channel_credentials
from support.identities import Tokens
from support.servers import LiveServer, start_server

pytestmark = pytest.mark.system

AUTHORITY = Authority()


@dataclass
class Secure:
    """A server that has TLS and requires clients' certificates."""

    server: LiveServer
    folder: Path
    client: Pair
    token: str

    def context(self) -> ssl.SSLContext:
        """A client's context, with its certificate."""
        context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
        context.load_cert_chain(*self.client.write(self.folder, "client"))
        return context

    def certificate_at(self, port: int) -> bytes:
        with connect(self.context(), port) as connection:
            der = connection.getpeercert(binary_form=True)
            assert der is not None
            return ssl.DER_cert_to_PEM_cert(der).encode()

    @property
    def ports(self) -> list[int]:
        return [port_of(self.server.target), port_of(self.server.metrics_url.split("/")[2])]

    def metric(self, name: str, **labels: str) -> float:
        connection = http.client.HTTPSConnection("localhost", self.ports[1], context=self.context())
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {self.token}"})
        response = connection.getresponse()
        assert response.status == 200
        families = text_string_to_metric_families(response.read().decode())
        connection.close()
        samples = [sample for family in families for sample in family.samples]
        (value,) = [s.value for s in samples if s.name == name and s.labels == labels]
        return value

    def is_serving(self) -> bool:
        credentials = channel_credentials(AUTHORITY, self.client)
        target = f"localhost:{self.ports[0]}"
        with grpc.secure_channel(target, credentials) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def connect(
    context: ssl.SSLContext, port: int, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    return context.wrap_socket(plain, server_hostname="localhost", session=session)


@pytest.fixture(scope="module", params=["h2corn", "grpcio"])
def secure(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp(request.param)
    certificate, key = AUTHORITY.server().write(folder)
    token = Tokens(folder / "tokens.json").create("prometheus", "viewer")
    server = start_server(
        folder / "server",
        *(f"--transport={request.param}", "--serving-processes=2", "--spare-workers=0"),
        *(f"--tls-cert={certificate}", f"--tls-key={key}", "--tls-client-auth=required"),
        *(f"--tls-client-ca={AUTHORITY.write(folder)}", "--inference-device=cpu"),
        f"--tokens-file={folder / 'tokens.json'}",
    )
    yield Secure(server, folder, AUTHORITY.client("ci"), token)
    assert server.stop() == 0, server.log.read_text()


def test_both_ports_of_all_processes_follow_the_files(secure: Secure) -> None:
    assert secure.is_serving()
    assert secure.server.metrics_url.startswith("https://")
    left = secure.metric("leadline_tls_certificate_expires_seconds", certificate="server")
    assert 29 * 86_400 < left < 31 * 86_400

    pair = AUTHORITY.server(days=(-1, 60))
    pair.write(secure.folder)

    # Each connection goes to one of the processes.
    until(lambda: {secure.certificate_at(p) for p in secure.ports * 10} == {pair.certificate})
    left = secure.metric("leadline_tls_certificate_expires_seconds", certificate="server")
    assert left > 59 * 86_400
    assert secure.is_serving()


def test_a_broken_pair_is_refused_and_counted_at_sighup(secure: Secure) -> None:
    before = secure.certificate_at(secure.ports[0])
    (secure.folder / "server.key").write_bytes(AUTHORITY.server().key)
    os.kill(secure.server.process.pid, signal.SIGHUP)

    until(lambda: secure.metric("leadline_tls_reloads_total", result="refused") >= 1)
    log = secure.server.log.read_text()
    assert "new certificates are refused, and the old ones stay in force" in log
    assert "is not the key of the first certificate" in log
    assert "PRIVATE KEY" not in log
    assert {secure.certificate_at(port) for port in secure.ports} == {before}
    assert secure.is_serving()


def test_a_client_whose_authority_is_removed_cannot_resume_a_session(secure: Secure) -> None:
    context, port = secure.context(), secure.ports[1]
    with connect(context, port) as connection:
        assert ask(connection).startswith(b"HTTP/1.1 401")  # it has no token
        session = connection.session
    with connect(context, port, session) as connection:
        assert ask(connection).startswith(b"HTTP/1.1 401")
        assert connection.session_reused

    Authority("another").write(secure.folder)
    pair = AUTHORITY.server()
    pair.write(secure.folder)
    until(lambda: is_refused(context, port, session))

    AUTHORITY.write(secure.folder)
    until(lambda: not is_refused(context, port) and secure.is_serving())


def ask(connection: ssl.SSLSocket) -> bytes:
    connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection.recv(1_024)


def is_refused(context: ssl.SSLContext, port: int, session: ssl.SSLSession | None = None) -> bool:
    # With TLS 1.3, a client learns of it after its own handshake.
    try:
        with connect(context, port, session) as connection:
            return not ask(connection)
    except OSError:
        return True


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
