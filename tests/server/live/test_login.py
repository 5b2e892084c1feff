"""The HTTP port of a server with identities: who gets in, how a browser logs in, and how long."""

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from support.certificates import Authority
from support.identities import Tokens, tokens_of_all_roles
from support.servers import LiveServer, ServerFactory, start_server

pytestmark = pytest.mark.system

# Each is closed within two seconds; the rest is for a busy machine.
MOST_SECONDS = 4

PATHS = (
    "/metrics",
    "/live/v1/events",
    "/live/v1/jobs/abc",
    "/live/v1/sweeps/abc",
    "/live/v1/jobs/abc/epochs/1/confusion",
    "/live/v1/jobs/abc/epochs/1/examples",
    f"/live/v1/images/{'0' * 64}/test/0.png",
    "/",
    "/nothing",
    "/live/v1/../v1/events",
    "//metrics",
    "/metrics/",
    "/%6detrics",
)


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: str

    @property
    def cookie(self) -> str:
        """The name and value of the cookie that is set."""
        return str(self.headers["Set-Cookie"]).partition(";")[0]


@dataclass
class Guarded:
    """The HTTP port of a server with identities."""

    server: LiveServer
    tokens: Tokens

    @property
    def address(self) -> str:
        return self.server.metrics_url.split("/")[2]

    def ask(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection(self.address, timeout=10)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, "")
        if "event-stream" not in response.headers.get("Content-Type", ""):
            answer.body = response.read().decode(errors="replace")
        connection.close()
        return answer

    def bearer(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens.secrets[name]}"}

    def log_in(self, token: str, **headers: str) -> Answer:
        form = {"Content_Type": "application/x-www-form-urlencoded"} | headers
        return self.ask("/login", "POST", urlencode({"token": token}), **form)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    tokens = tokens_of_all_roles(folder / "tokens.json")
    server = start_server(folder / "server", f"--tokens-file={tokens.path}", "--spare-workers=0")
    yield Guarded(server, tokens)
    log = server.log.read_text()
    assert server.stop() == 0, log
    assert not [secret for secret in tokens.secrets.values() if secret[3:30] in log]


@pytest.fixture
def fresh(server_factory: ServerFactory, tmp_path: Path) -> Guarded:
    """A server on which nobody has tried to log in."""
    tokens = tokens_of_all_roles(tmp_path / "tokens.json")
    return Guarded(server_factory(f"--tokens-file={tokens.path}", "--spare-workers=0"), tokens)


@pytest.mark.parametrize("path", PATHS)
def test_no_path_is_open_by_accident(guarded: Guarded, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer ll_wrong"}, {"Cookie": "leadline-1=x"}):
        answer = guarded.ask(path, **headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="Leadline"'
        assert "leadline_jobs" not in answer.body
    assert guarded.ask(path, **guarded.bearer("predictor")).status == 403


def test_a_viewer_sees_metrics_and_page(guarded: Guarded) -> None:
    metrics = guarded.ask("/metrics", **guarded.bearer("viewer"))

    assert metrics.status == 200
    assert 'leadline_denied_calls_total{reason="UNAUTHENTICATED"}' in metrics.body
    assert guarded.ask("/", **guarded.bearer("viewer")).status == 200
    assert guarded.ask("/live/v1/events", **guarded.bearer("viewer")).status == 200


def test_a_browser_is_sent_to_the_login(guarded: Guarded) -> None:
    answer = guarded.ask("/", Accept="text/html,*/*", Sec_Fetch_Site="cross-site")

    assert (answer.status, answer.headers["Location"]) == (303, "/login")
    form = guarded.ask("/login", Sec_Fetch_Site="cross-site")
    assert form.status == 200
    assert '<form action="/login" method="post">' in form.body
    assert "form-action 'self'" in form.headers["Content-Security-Policy"]
    assert guarded.ask("/live/files/login.js").status == 200


def test_a_session_opens_what_its_token_opens_until_it_is_closed(guarded: Guarded) -> None:
    answer = guarded.log_in(guarded.tokens.secrets["viewer"])
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    attributes = {part.strip() for part in answer.headers["Set-Cookie"].split(";")[1:]}
    assert attributes == {"HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Strict"}
    assert guarded.tokens.secrets["viewer"] not in str(answer.headers)

    cookie = answer.cookie
    assert guarded.ask("/", Cookie=cookie).status == 200
    assert guarded.ask("/metrics", Cookie=cookie).status == 200
    assert guarded.ask("/live/v1/session", Cookie=cookie).body.startswith('{"name": "viewer"')
    assert guarded.ask("/metrics", Cookie=cookie[:-1]).status == 401

    assert guarded.ask("/logout", "POST", Cookie=cookie).status == 303
    assert guarded.ask("/metrics", Cookie=cookie).status == 401
    assert guarded.ask("/live/v1/session", Cookie=cookie).body.startswith('{"name": ""')


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # another port of this host
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Host": "evil.example"},
    ],
)
def test_other_sites_cannot_log_a_browser_in_or_out(
    guarded: Guarded, headers: dict[str, str]
) -> None:
    answer = guarded.log_in(guarded.tokens.secrets["viewer"], **headers)

    assert answer.status == (421 if "Host" in headers else 403)
    assert "Set-Cookie" not in answer.headers
    assert guarded.ask("/logout", "POST", **headers).status == answer.status


def test_the_own_page_logs_in(guarded: Guarded) -> None:
    origin = f"http://{guarded.address}"

    answer = guarded.log_in(
        guarded.tokens.secrets["admin"], Origin=origin, Sec_Fetch_Site="same-origin"
    )

    assert answer.status == 303


def test_a_token_that_is_wrong_or_may_not_see_the_page_does_not_log_in(fresh: Guarded) -> None:
    for token, status, says in (
        ("ll_wrong", 401, "This token is not valid."),
        ("", 401, "This token is not valid."),
        ("ü" * 40, 401, "This token is not valid."),
        (fresh.tokens.secrets["predictor"], 403, "does not include the page"),
    ):
        answer = fresh.log_in(token)
        assert answer.status == status
        assert says in answer.body
        assert "Set-Cookie" not in answer.headers


def test_attempts_are_limited_and_a_hostile_form_is_refused(fresh: Guarded) -> None:
    assert fresh.log_in("x" * 5_000).status == 413
    assert fresh.ask("/login", "POST", "{}", Content_Type="application/json").status == 415
    statuses = [fresh.log_in("ll_wrong").status for _ in range(12)]

    assert statuses == [401] * 10 + [429] * 2
    assert fresh.log_in(fresh.tokens.secrets["viewer"]).status == 429
    assert fresh.ask("/metrics", **fresh.bearer("viewer")).status == 200


def until_closed(guarded: Guarded, end: Callable[[], object], **headers: str) -> float:
    """Opens the page's stream, calls `end`, and returns the seconds until the stream ends."""
    connection = http.client.HTTPConnection(guarded.address, timeout=30)
    connection.request("GET", "/live/v1/events", headers=headers)
    with connection.getresponse() as response:
        assert response.status == 200
        response.readline()
        end()
        began = time.monotonic()
        try:
            while response.readline():
                pass
        except (ConnectionError, http.client.IncompleteRead):
            pass  # it was aborted
        seconds = time.monotonic() - began
    connection.close()
    return seconds


@pytest.mark.parametrize("by", ["token", "session"])
def test_the_stream_of_a_revoked_token_ends(guarded: Guarded, by: str) -> None:
    token = guarded.tokens.create("leaver", "viewer")
    time.sleep(1.1)
    headers = guarded.bearer("leaver")
    if by == "session":
        headers = {"Cookie": guarded.log_in(token).cookie}

    seconds = until_closed(guarded, lambda: guarded.tokens.revoke("leaver"), **headers)

    assert seconds < MOST_SECONDS
    assert guarded.ask("/metrics", **headers).status == 401


def test_a_session_that_is_closed_ends_no_other(guarded: Guarded) -> None:
    cookies = [guarded.log_in(guarded.tokens.secrets["trainer"]).cookie for _ in range(2)]

    guarded.ask("/logout", "POST", Cookie=cookies[0])

    assert guarded.ask("/metrics", Cookie=cookies[1]).status == 200


def test_without_the_page_there_is_no_login(server_factory: ServerFactory, tmp_path: Path) -> None:
    tokens = tokens_of_all_roles(tmp_path / "tokens.json")
    server = Guarded(
        server_factory(f"--tokens-file={tokens.path}", "--live-page=off", "--spare-workers=0"),
        tokens,
    )

    assert server.ask("/login").status == 401
    assert server.ask("/login", **server.bearer("viewer")).status == 404
    assert server.ask("/", Accept="text/html").status == 401
    assert server.ask("/metrics", **server.bearer("viewer")).status == 200


def test_under_tls_the_cookie_is_for_tls_alone(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    authority, tokens = Authority(), tokens_of_all_roles(tmp_path / "tokens.json")
    certificate, key = authority.server().write(tmp_path)
    server = server_factory(
        *(f"--tls-cert={certificate}", f"--tls-key={key}", f"--tokens-file={tokens.path}"),
        "--spare-workers=0",
    )
    context = ssl.create_default_context(cadata=authority.pem.decode())
    connection = http.client.HTTPSConnection(
        server.metrics_url.split("/")[2], timeout=10, context=context
    )
    form = urlencode({"token": tokens.secrets["viewer"]})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/login", form, headers)
    answer = connection.getresponse()
    answer.read()
    cookie = str(answer.headers["Set-Cookie"])
    connection.request("GET", "/metrics", headers={"Cookie": cookie.partition(";")[0]})

    assert connection.getresponse().status == 200
    assert cookie.startswith("__Host-leadline-")
    assert "; Secure" in cookie
    connection.close()


def test_the_first_token_closes_the_port(server_factory: ServerFactory) -> None:
    server = server_factory("--spare-workers=0")
    guarded = Guarded(server, Tokens(server.data_dir / "tokens.json"))
    assert guarded.ask("/metrics").status == 200

    seconds = until_closed(guarded, lambda: guarded.tokens.create("ada", "viewer"))

    assert seconds < MOST_SECONDS
    assert guarded.ask("/metrics").status == 401
    assert guarded.ask("/metrics", **guarded.bearer("ada")).status == 200


def test_the_first_token_also_ends_a_stream_with_a_malformed_host(
    server_factory: ServerFactory,
) -> None:
    server = server_factory("--spare-workers=0")
    guarded = Guarded(server, Tokens(server.data_dir / "tokens.json"))
    host = {"Host": "127.0.0.1:99999999"}

    seconds = until_closed(guarded, lambda: guarded.tokens.create("ada", "viewer"), **host)

    assert seconds < MOST_SECONDS
    assert guarded.ask("/metrics", **host).status in (400, 401)
    guarded.tokens.create("ben", "viewer")
    time.sleep(1.1)
    headers = guarded.bearer("ben")
    assert guarded.ask("/metrics", **headers).status == 200
    guarded.tokens.revoke("ben")
    time.sleep(1.1)
    assert guarded.ask("/metrics", **headers).status == 401


def test_idle_connections_leave_the_server_its_descriptors(server_factory: ServerFactory) -> None:
    server = server_factory("--spare-workers=0", wrapper=("prlimit", "--nofile=512"))
    port = urlsplit(server.metrics_url).port
    with ExitStack() as stack:
        for _ in range(600):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        time.sleep(1)

        assert server.process.poll() is None
        with grpc.insecure_channel(server.target) as channel:
            assert HealthStub(channel).Check(HealthCheckRequest(), timeout=30).status
