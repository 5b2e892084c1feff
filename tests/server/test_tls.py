"""The certificates in force: what is refused at the start, and how files are followed."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from leadline.server import tls
from leadline.server.settings import Settings
from leadline.server.tls import Certificates, TlsCertificates, TlsError, load_certificates
from support.certificates import Authority

AUTHORITY = Authority()
PAIR, OTHER = AUTHORITY.server(), AUTHORITY.server()


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """The options of TLS with clients' certificates, all of whose files are right."""
    certificate, key = PAIR.write(tmp_path)
    return {
        "tls_cert": certificate,
        "tls_key": key,
        "tls_client_ca": AUTHORITY.write(tmp_path),
        "tls_client_auth": "required",
    }


def load(options: dict[str, Any]) -> TlsCertificates:
    certificates = load_certificates(Settings(**options))
    assert certificates is not None
    return certificates


def encrypted(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def test_right_files_are_accepted(options: dict[str, Any]) -> None:
    certificates = load(options)

    assert certificates.current.chain == PAIR.certificate
    left = certificates.current.seconds_left()
    assert left["server"] == pytest.approx(30 * 86_400, abs=86_400)  # issued at the import
    assert left["client_ca"] == pytest.approx(365 * 86_400, abs=86_400)


def test_there_is_no_tls_without_options() -> None:
    assert load_certificates(Settings()) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tls_cert": None}, "--tls-key needs both --tls-cert and --tls-key"),
        ({"tls_key": None}, "--tls-cert needs both --tls-cert and --tls-key"),
        ({"tls_cert": None, "tls_key": None}, "--tls-client-ca needs both"),
        (
            {"tls_cert": None, "tls_key": None, "tls_client_ca": None},
            "--tls-client-auth needs both",
        ),
        ({"tls_client_auth": "none"}, "--tls-client-auth is none: give it with --tls-client-ca"),
        ({"tls_client_ca": None}, "--tls-client-auth is required: give it with --tls-client-ca"),
    ],
)
def test_options_that_do_not_go_together_are_named(
    options: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(TlsError) as caught:
        load(options | change)

    assert message in str(caught.value)


@pytest.mark.parametrize("option", ["tls_cert", "tls_key", "tls_client_ca"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file or directory"), (b"nothing", "in PEM form")],
)
def test_a_file_that_cannot_be_used_is_named(
    options: dict[str, Any], option: str, content: bytes | None, message: str
) -> None:
    path = options[option]
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(TlsError) as caught:
        load(options)

    assert f"--{option.replace('_', '-')} {path}" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("tls_key", OTHER.key, "is not the key of the first certificate in --tls-cert"),
        ("tls_key", encrypted(PAIR.key), "is encrypted: store it without a passphrase"),
        ("tls_cert", AUTHORITY.server(days=(-2, -1)).certificate, "is not the key"),
        ("tls_client_ca", AUTHORITY.client(days=(-2, -1)).certificate, "CN=client has expired"),
    ],
)
def test_files_that_are_wrong_are_named(
    options: dict[str, Any], option: str, content: bytes, message: str
) -> None:
    options[option].write_bytes(content)

    with pytest.raises(TlsError) as caught:
        load(options)

    assert f"--{option.replace('_', '-')}" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("days", "message"), [((-2, -1), "has expired at"), ((1, 2), "is not valid before")]
)
def test_certificates_outside_their_time_are_refused(
    options: dict[str, Any], tmp_path: Path, days: tuple[float, float], message: str
) -> None:
    AUTHORITY.server(days=days).write(tmp_path)

    with pytest.raises(TlsError, match=f"CN=server {message}"):
        load(options)


def test_an_expired_authority_beside_a_valid_one_does_not_count(options: dict[str, Any]) -> None:
    expired = AUTHORITY.client(days=(-2, -1)).certificate
    options["tls_client_ca"].write_bytes(expired + AUTHORITY.pem)

    assert load(options).current.seconds_left()["client_ca"] > 86_400


def test_the_key_is_not_in_its_description(options: dict[str, Any]) -> None:
    assert "PRIVATE" not in repr(load(options).current)


def test_old_versions_of_tls_are_not_spoken(options: dict[str, Any]) -> None:
    context = load(options).current.make_context()

    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    ciphers = {cipher["name"] for cipher in context.get_ciphers()}
    assert all("GCM" in name or "POLY1305" in name for name in ciphers), ciphers


class Followed:
    """Certificates that are followed, and what was told of them."""

    def __init__(self, certificates: TlsCertificates) -> None:
        self.certificates = certificates
        self.told: list[str | None] = []
        certificates.on_reload.append(self.told.append)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.01)


@asynccontextmanager
async def following(options: dict[str, Any]) -> AsyncIterator[Followed]:
    followed = Followed(load(options))
    task = asyncio.create_task(followed.certificates.follow())
    try:
        yield followed
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_POLL_SECONDS", 0.02)


@pytest.mark.usefixtures("quick")
async def test_files_that_are_written_in_place_come_in_force(
    options: dict[str, Any], tmp_path: Path
) -> None:
    async with following(options) as followed:
        OTHER.write(tmp_path)

        await followed.until(lambda: followed.certificates.current.chain == OTHER.certificate)
        assert followed.told == [None]


@pytest.mark.usefixtures("quick")
async def test_files_behind_a_link_that_moves_come_in_force(tmp_path: Path) -> None:
    # As Kubernetes swaps a secret: files link into ..data, which links to a folder.
    PAIR.write(tmp_path / "..1")
    OTHER.write(tmp_path / "..2")
    (tmp_path / "..data").symlink_to("..1")
    for name in ("server.pem", "server.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    options = {"tls_cert": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    async with following(options) as followed:
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").replace(tmp_path / "..data")

        await followed.until(lambda: followed.certificates.current.chain == OTHER.certificate)
        assert followed.told == [None]


@pytest.mark.usefixtures("quick")
async def test_a_certificate_waits_for_its_key(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_PATIENCE", 1_000)
    async with following(options) as followed:
        options["tls_cert"].write_bytes(OTHER.certificate)
        await asyncio.sleep(0.2)
        assert followed.certificates.current.chain == PAIR.certificate

        OTHER.write(tmp_path)

        await followed.until(lambda: followed.certificates.current.chain == OTHER.certificate)
        assert followed.told == [None]


@pytest.mark.usefixtures("quick")
async def test_a_broken_pair_is_refused_once_and_the_next_is_accepted(
    options: dict[str, Any], tmp_path: Path
) -> None:
    async with following(options) as followed:
        options["tls_cert"].write_bytes(OTHER.certificate)
        await followed.until(lambda: bool(followed.told))
        await asyncio.sleep(0.3)

        assert followed.certificates.current.chain == PAIR.certificate
        (why,) = followed.told
        assert why is not None
        assert "--tls-key" in why

        OTHER.write(tmp_path)
        await followed.until(lambda: followed.certificates.current.chain == OTHER.certificate)


async def test_a_reload_refuses_at_once_and_accepts_at_once(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_POLL_SECONDS", 3_600)
    async with following(options) as followed:
        options["tls_cert"].write_bytes(OTHER.certificate)
        followed.certificates.reload()
        await followed.until(lambda: len(followed.told) == 1)
        assert followed.certificates.current.chain == PAIR.certificate

        OTHER.write(tmp_path)
        followed.certificates.reload()
        await followed.until(lambda: len(followed.told) == 2)

        assert followed.certificates.current.chain == OTHER.certificate


@pytest.mark.usefixtures("quick")
async def test_certificates_that_a_port_refuses_do_not_come_in_force(
    options: dict[str, Any], tmp_path: Path
) -> None:
    async def refuse(_: Certificates) -> None:
        raise TlsError("the port does not like it")

    async with following(options) as followed:
        followed.certificates.apply_with(refuse)
        OTHER.write(tmp_path)

        await followed.until(lambda: followed.told == ["the port does not like it"])
        assert followed.certificates.current.chain == PAIR.certificate


@pytest.mark.usefixtures("quick")
async def test_touching_files_changes_nothing(options: dict[str, Any]) -> None:
    async with following(options) as followed:
        options["tls_cert"].touch()
        await asyncio.sleep(0.3)

        assert followed.told == []
