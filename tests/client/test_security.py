"""TLS, client certificates and tokens of the SDK, against servers of gRPC."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization

from client.conftest import ClientFactory
from leadline.client import (
    AsyncClient,
    Client,
    InvalidArgumentError,
    PermissionDeniedError,
    TlsError,
    UnauthenticatedError,
    UnavailableError,
)
from leadline.client._channel import is_loopback, normal_target
from leadline.client._security import Security
from support.certificates import Authority, Pair
from support.scripted import answering

SECRET = "ll_planted-token"


@dataclass
class Recorder:
    """Answers every call with a status, and records the tokens and certificates of callers."""

    status: grpc.StatusCode = grpc.StatusCode.OK
    tokens: list[str | bytes | None] = field(default_factory=list)
    certificates: list[Any] = field(default_factory=list)
    after: Callable[[], None] = lambda: None

    def __call__(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        self.tokens.append(dict(context.invocation_metadata()).get("authorization"))
        self.certificates.extend(context.auth_context().get("x509_pem_cert", []))
        self.after()
        if self.status is not grpc.StatusCode.OK:
            context.abort(self.status, "refused")
        return b""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Path:
    """A folder with ca.pem, and with client.pem and client.key."""
    folder = tmp_path_factory.mktemp("certificates")
    authority.write(folder)
    authority.client().write(folder, "client")
    return folder


@contextmanager
def tls_server(
    pair: Pair, recorder: Recorder | None = None, client_authority: Authority | None = None
) -> Iterator[str]:
    roots = client_authority.pem if client_authority else None
    credentials = grpc.ssl_server_credentials([(pair.key, pair.certificate)], roots, bool(roots))
    with answering(recorder or Recorder(), credentials) as target:
        yield target


@pytest.mark.parametrize(
    ("scheme", "options"),
    [("https://", {}), ("", {"tls": True}), ("", {}), ("https://", {"tls": True})],
)
def test_a_client_connects_over_tls(
    make_client: ClientFactory,
    authority: Authority,
    folder: Path,
    scheme: str,
    options: dict[str, Any],
) -> None:
    with tls_server(authority.server()) as target:
        client = make_client(f"{scheme}{target}", ca=folder / "ca.pem", **options)
        assert client.get_job("a").name == ""


FAILURES: dict[str, tuple[Callable[[Authority], Pair], str]] = {
    "unknown authority": (lambda _: Authority().server(), r"not signed by a known .*`ca`"),
    "expired": (lambda one: one.server(days=(-3, -1)), "has expired: its operator must renew it"),
    "not yet valid": (lambda one: one.server(days=(1, 3)), "not valid yet: check the clocks"),
    "other name": (lambda one: one.server("other.example"), "for another name .*server_name"),
    "no server": (lambda one: one.client(), "not valid: "),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_certificate_that_cannot_work_is_an_error_at_once(
    make_client: ClientFactory, authority: Authority, folder: Path, name: str
) -> None:
    make, message = FAILURES[name]
    with tls_server(make(authority)) as target:
        client = make_client(target, ca=folder / "ca.pem", reconnect_timeout=None)
        for call in (
            lambda: client.get_job("a"),
            client.train,
            lambda: list(client.job("a").events()),
            lambda: client.job("a").result(),
            lambda: list(client.predict_stream([b"an image"], model="a")),
        ):
            with pytest.raises(TlsError, match=message):
                call()


def test_a_server_without_tls_is_an_error_at_once(make_client: ClientFactory) -> None:
    with answering(Recorder()) as target:
        client = make_client(f"https://{target}", reconnect_timeout=None)
        with pytest.raises(TlsError, match="does not use TLS on this port"):
            list(client.job("a").events())


def test_a_client_without_tls_says_that_the_server_may_need_it(
    make_client: ClientFactory, authority: Authority
) -> None:
    with tls_server(authority.server()) as target:
        client = make_client(target)
        with pytest.raises(UnavailableError, match=r"may need TLS \(https://"):
            client.get_job("a")


def test_a_server_name_replaces_the_host_of_the_target(
    make_client: ClientFactory, authority: Authority, folder: Path
) -> None:
    with tls_server(authority.server("leadline.example")) as target:
        client = make_client(target, ca=folder / "ca.pem", server_name="leadline.example")
        assert client.get_job("a").name == ""


def test_a_client_certificate_reaches_the_server(
    make_client: ClientFactory, authority: Authority, folder: Path
) -> None:
    recorder = Recorder()
    with tls_server(authority.server(), recorder, client_authority=authority) as target:
        files: dict[str, Any] = {"cert": folder / "client.pem", "key": folder / "client.key"}
        make_client(target, ca=folder / "ca.pem", **files).get_job("a")
        assert recorder.certificates == [(folder / "client.pem").read_bytes()]

        without = make_client(target, ca=folder / "ca.pem")
        with pytest.raises(UnavailableError, match="or a client certificate that it trusts"):
            without.get_job("a")


def test_grpcs_own_credentials_work(
    make_client: ClientFactory, authority: Authority, folder: Path
) -> None:
    recorder = Recorder()
    channel = grpc.ssl_channel_credentials(authority.pem)
    call = grpc.access_token_call_credentials("of-grpc")
    with tls_server(authority.server(), recorder) as target:
        make_client(target, credentials=channel).get_job("a")
        make_client(target, credentials=channel, token=SECRET).get_job("a")
        composite = grpc.composite_channel_credentials(channel, call)
        make_client(target, credentials=composite).get_job("a")
        make_client(target, ca=folder / "ca.pem", credentials=call).get_job("a")
    assert recorder.tokens == [None, f"Bearer {SECRET}", "Bearer of-grpc", "Bearer of-grpc"]


def token_options(kind: str, folder: Path) -> dict[str, Any]:
    path = folder / "token"
    path.write_text(f"{SECRET}\n")
    options: dict[str, dict[str, Any]] = {
        "value": {"token": SECRET},
        "function": {"token": lambda: path.read_text().strip()},
        "file": {"token_file": path},
    }
    return options[kind]


@pytest.mark.parametrize("kind", ["value", "function", "file"])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, UnauthenticatedError),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDeniedError),
    ],
)
def test_every_call_carries_the_token_and_a_refusal_is_final(
    make_client: ClientFactory,
    tmp_path: Path,
    kind: str,
    status: grpc.StatusCode,
    error: type[Exception],
) -> None:
    recorder = Recorder(status)
    with answering(recorder) as target:
        client = make_client(target, reconnect_timeout=None, **token_options(kind, tmp_path))
        calls = (
            lambda: client.get_job("a"),
            client.health,
            lambda: list(client.jobs()),
            client.train,
            lambda: list(client.job("a").events()),
            lambda: client.job("a").result(),
            lambda: list(client.predict_stream([b"an image"], model="a")),
        )
        for call in calls:
            with pytest.raises(error, match="refused"):
                call()
    assert recorder.tokens == [f"Bearer {SECRET}"] * len(calls)


@pytest.mark.parametrize("kind", ["function", "file"])
def test_a_call_uses_the_new_token_of_a_changed_file(
    make_client: ClientFactory, tmp_path: Path, kind: str
) -> None:
    recorder = Recorder()
    with answering(recorder) as target:
        client = make_client(target, **token_options(kind, tmp_path))
        client.get_job("a")
        (tmp_path / "token").write_text("ll_replaced-token")
        client.get_job("a")
    assert recorder.tokens == [f"Bearer {SECRET}", "Bearer ll_replaced-token"]


def test_a_stream_tries_again_once_if_its_token_was_replaced(
    make_client: ClientFactory, tmp_path: Path
) -> None:
    def replace() -> None:
        path = tmp_path / "token"
        path.write_text(path.read_text().strip() + "x")

    recorder = Recorder(grpc.StatusCode.UNAUTHENTICATED, after=replace)
    with answering(recorder) as target:
        client = make_client(target, **token_options("file", tmp_path))
        with pytest.raises(UnauthenticatedError):
            list(client.job("a").events())
    assert recorder.tokens == [f"Bearer {SECRET}", f"Bearer {SECRET}x"]


@pytest.mark.parametrize("token", ["", " ", "two words", "Bearer abc", "ümlaut", "a\nb", "=a"])
def test_what_cannot_be_a_token_is_refused_and_not_quoted(
    make_client: ClientFactory, tmp_path: Path, token: str
) -> None:
    path = tmp_path / "token"
    path.write_text(token)
    choices: list[dict[str, Any]] = [
        {"token": token},
        {"token": lambda: token},
        {"token_file": path},
    ]
    for options in choices:
        with pytest.raises(InvalidArgumentError, match="no bearer token has") as caught:
            make_client("127.0.0.1:1", **options).get_job("a")
        assert not token.strip() or token not in str(caught.value)


def test_a_missing_file_of_a_token_is_an_os_error(make_client: ClientFactory) -> None:
    client = make_client("127.0.0.1:1", token_file="/nonexistent/token")
    with pytest.raises(FileNotFoundError, match="/nonexistent/token"):
        client.get_job("a")


@pytest.mark.parametrize(
    "target",
    [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.9.9.9:1",
        "[::1]",
        "ipv4:127.0.0.1:1",
        "ipv6:[::1]:1",
        "unix:/run/leadline.sock",
        "unix-abstract:leadline",
        "http://localhost",
    ],
)
def test_a_token_may_be_sent_unencrypted_within_the_machine(target: str) -> None:
    assert is_loopback(normal_target(target))
    with Client(target, token=SECRET) as client:
        assert SECRET not in repr(client)


@pytest.mark.parametrize(
    "target",
    [
        "192.0.2.7",
        "[2001:db8::1]",
        "leadline.example",
        "localhost.example",
        "unix-lab:1",
        "127.example",
        "dns:///leadline.example:1",
        "ipv4:127.0.0.1:1,192.0.2.7:1",
        "http://192.0.2.7",
    ],
)
def test_a_token_is_never_sent_unencrypted_to_another_machine(target: str) -> None:
    choices: list[dict[str, Any]] = [{"token": SECRET}, {"token_file": "/nonexistent"}]
    for kind in (Client, AsyncClient):
        for options in choices:
            with pytest.raises(InvalidArgumentError, match="network unencrypted") as caught:
                kind(target, **options)
            assert SECRET not in str(caught.value)
    Client(target, token=SECRET, insecure_token=True).close()


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("https://a", {"tls": False}, "the target's scheme says otherwise"),
        ("http://a", {"tls": True}, "the target's scheme says otherwise"),
        ("http://a", {"ca": "a"}, "are for TLS, which is off"),
        ("a", {"tls": False, "server_name": "b"}, "are for TLS, which is off"),
        ("a", {"cert": "a"}, "cert and key belong together"),
        ("a", {"key": "a"}, "cert and key belong together"),
        ("localhost", {"token": "a", "token_file": "b"}, "not both"),
        ("a", {"credentials": grpc.access_token_call_credentials("a")}, "need TLS"),
        ("a", {"credentials": grpc.ssl_channel_credentials(), "ca": "a"}, "replace tls, ca"),
    ],
)
def test_contradictions_are_refused(target: str, options: dict[str, Any], message: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidArgumentError, match=message):
            kind(target, **options)


def test_files_without_a_certificate_or_a_key_are_refused(
    authority: Authority, folder: Path
) -> None:
    garbage, encrypted = folder / "garbage", folder / "encrypted.key"
    garbage.write_bytes(b"\xffno certificate")
    key = serialization.load_pem_private_key((folder / "client.key").read_bytes(), None)
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a password"),
        )
    )
    _, other = authority.client().write(folder, "other")
    cert = folder / "client.pem"
    choices: list[tuple[dict[str, Any], str]] = [
        ({"ca": garbage}, "garbage has no certificate"),
        ({"cert": garbage, "key": garbage}, "are not a certificate and its private key"),
        ({"cert": cert, "key": other}, "are not a certificate and its private key"),
        ({"cert": cert, "key": encrypted}, "is encrypted"),
    ]
    for options, message in choices:
        with pytest.raises(InvalidArgumentError, match=message):
            Client("a", **options)
    with pytest.raises(InvalidArgumentError, match="ca: there is no file /nonexistent"):
        Client("a", ca="/nonexistent")


def test_the_settings_of_a_connection_do_not_print_the_token() -> None:
    assert SECRET not in repr(Security(token=SECRET))
