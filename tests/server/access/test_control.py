"""Who a caller is, by header and certificate, as the files change."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from leadline.server.access.access_file import read_access_file
from leadline.server.access.certificates import parse_certificate
from leadline.server.access.control import AccessControl, _bearer
from leadline.server.access.tokens import AccessFileError
from leadline.server.errors import UnauthenticatedError
from leadline.server.identity import Identity, Role
from leadline.server.settings import Settings
from support.certificates import Authority
from support.identities import Tokens

CI = Identity("ci", Role.TRAINER)

ACCESS = """
[certificates]
"spiffe://example.org/ci" = { name = "ci", role = "trainer" }
"Grace" = { name = "grace", role = "viewer" }

[quotas.identity.ci]
queued_jobs = 7
"""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens.json")


def control_of(folder: Path, access: str = "", **options: Any) -> AccessControl:
    """Loads the identities of a data directory, and of an access file with this text."""
    if access:
        file = folder / "access.toml"
        file.write_text(access)
        options["access_file"] = file
    control = AccessControl(Settings(data_dir=folder, **options))
    control.load()
    return control


def header(token: str) -> list[bytes]:
    return [f"Bearer {token}".encode()]


def test_without_files_nobody_needs_an_identity(tmp_path: Path) -> None:
    assert not control_of(tmp_path).is_required


@pytest.mark.parametrize("option", ["tokens_file", "access_file"])
def test_an_option_for_identities_requires_them(tmp_path: Path, option: str) -> None:
    options: Any = {option: tmp_path / "f"}

    assert AccessControl(Settings(data_dir=tmp_path, **options)).is_required


def test_a_file_without_tokens_still_requires_identities(tmp_path: Path, tokens: Tokens) -> None:
    tokens.create("ci", "trainer")
    tokens.revoke("ci")

    assert control_of(tmp_path).is_required


def test_a_token_is_its_holders(tmp_path: Path, tokens: Tokens) -> None:
    token = tokens.create("ci", "trainer")
    control = control_of(tmp_path)

    assert control.authenticate(header(token), None) == CI
    assert control.authenticate([b"bearer  " + token.encode()], None) == CI


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [b"TOKEN"],
        [b"Basic TOKEN"],
        [b"Bearer"],
        [b"Bearer TOKENx"],
        [b"Bearer xTOKEN"],
        [b"Bearer TOKEN", b"Bearer TOKEN"],
        [b"Bearer wrong", b"Bearer TOKEN"],
        [b"Bearer TOKEN, Bearer TOKEN"],
        [b"Bearer\tTOKEN"],
        [b"Bearer " + b"x" * 60_000],
        [b"\xff\xfe"],
    ],
)
def test_other_credentials_are_refused_alike(
    tmp_path: Path, tokens: Tokens, values: list[bytes]
) -> None:
    token = tokens.create("ci", "trainer").encode()
    control = control_of(tmp_path)

    with pytest.raises(UnauthenticatedError) as error:
        control.authenticate([value.replace(b"TOKEN", token) for value in values], None)

    assert str(error.value) == str(UnauthenticatedError())


@given(st.binary(max_size=100))
def test_any_header_is_parsed(value: bytes) -> None:
    token = _bearer(value)

    assert token == b"" or value.lower().startswith(b"bearer ")


@given(st.sampled_from(["Bearer", "bearer", "BEARER"]), st.from_regex(rb"[!-~]+", fullmatch=True))
def test_the_token_in_a_header_is_kept_as_it_is(scheme: str, token: bytes) -> None:
    assert _bearer(scheme.encode() + b" " + token) == token


def test_a_certificate_is_its_holders_by_uri_or_else_by_common_name(
    tmp_path: Path, authority: Authority
) -> None:
    control = control_of(tmp_path, ACCESS)

    def caller(name: str, uri: str | None = None) -> Identity:
        return control.authenticate((), authority.client(name, uri).certificate.decode())

    assert caller("anybody", "spiffe://example.org/ci") == CI
    assert caller("Grace") == Identity("grace", Role.VIEWER)
    for stranger in (
        ("Grace", "spiffe://example.org/other"),  # the URI counts, not the common name
        ("spiffe://example.org/ci", None),  # a common name is no URI
        ("ci", None),
        ("grace", None),
    ):
        with pytest.raises(UnauthenticatedError):
            caller(*stranger)


def test_an_expired_certificate_is_refused_on_an_old_connection(
    tmp_path: Path, authority: Authority
) -> None:
    pem = authority.client("Grace", days=(-2, -1)).certificate.decode()

    with pytest.raises(UnauthenticatedError):
        control_of(tmp_path, ACCESS).authenticate((), pem)


def test_a_token_wins_over_a_certificate_and_a_wrong_one_too(
    tmp_path: Path, tokens: Tokens, authority: Authority
) -> None:
    token = tokens.create("ada", "predictor")
    pem = authority.client("Grace").certificate.decode()
    control = control_of(tmp_path, ACCESS)

    assert control.authenticate(header(token), pem).name == "ada"
    with pytest.raises(UnauthenticatedError):
        control.authenticate(header("ll_wrong"), pem)


@pytest.mark.parametrize("pem", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_no_certificate_has_no_holder(pem: str) -> None:
    assert parse_certificate(pem) is None


def test_the_quotas_are_those_of_the_file(tmp_path: Path) -> None:
    assert control_of(tmp_path, ACCESS).quotas.of(CI).queued_jobs == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[certificate]\n", "certificate: "),
        ('[certificates]\nx = { name = "x", roles = "viewer" }\n', r"certificates\.x\.role"),
        ('[certificates]\nx = { name = "x", role = "boss" }\n', r"certificates\.x\.role: 'boss'"),
        ('[certificates]\nx = { name = "a b", role = "viewer" }\n', r"certificates\.x\.name"),
        ("[quotas.default]\njobs = 1\n", r"quotas\.default\.jobs"),
        ("[quotas]\n[quotas]\n", "line 2"),
    ],
)
def test_the_error_of_an_access_file_names_the_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "access.toml"
    path.write_text(text)

    with pytest.raises(AccessFileError, match=says):
        read_access_file(path)


@asynccontextmanager
async def watching(control: AccessControl) -> AsyncIterator[asyncio.Queue[None]]:
    """Yields a queue that gets an item at each recheck."""
    rechecks: asyncio.Queue[None] = asyncio.Queue()

    async def recheck() -> None:
        rechecks.put_nowait(None)

    task = asyncio.create_task(control.watch(recheck))
    try:
        yield rechecks
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_revoked_token_is_noticed(tmp_path: Path, tokens: Tokens) -> None:
    token = tokens.create("ci", "trainer")
    control = control_of(tmp_path)
    async with watching(control) as rechecks:
        tokens.revoke("ci")
        await asyncio.wait_for(rechecks.get(), 10)

    with pytest.raises(UnauthenticatedError):
        control.authenticate(header(token), None)


async def test_a_token_that_expires_while_it_is_used_is_noticed(
    tmp_path: Path, tokens: Tokens
) -> None:
    token = tokens.create("ci", "trainer", timedelta(seconds=2))
    control = control_of(tmp_path)
    async with watching(control) as rechecks:
        control.authenticate(header(token), None)
        await asyncio.wait_for(rechecks.get(), 10)

    with pytest.raises(UnauthenticatedError):
        control.authenticate(header(token), None)


async def test_the_first_token_closes_a_server(tmp_path: Path, tokens: Tokens) -> None:
    control = control_of(tmp_path)
    async with watching(control) as rechecks:
        tokens.create("ci", "trainer")
        await asyncio.wait_for(rechecks.get(), 10)

    assert control.is_required


@pytest.mark.parametrize("damage", ["cut", "lose"])
async def test_a_lost_or_damaged_file_leaves_the_last_tokens_in_force_and_is_logged_once(
    tmp_path: Path, tokens: Tokens, damage: str
) -> None:
    token = tokens.create("ci", "trainer")
    control = control_of(tmp_path)
    whole = tokens.path.read_bytes()

    with capture_logs() as logs:
        async with watching(control) as rechecks:
            if damage == "cut":
                tokens.path.write_bytes(whole[:-10])
            else:
                tokens.path.unlink()
            await asyncio.sleep(1.3)
            assert rechecks.empty()
            assert control.is_required
            assert control.authenticate(header(token), None) == CI
            tokens.path.write_bytes(whole)
            await asyncio.wait_for(rechecks.get(), 10)

    errors = [line for line in logs if line["log_level"] == "error"]
    assert len(errors) == 1
    assert str(tokens.path) in errors[0]["why"]
    assert control.authenticate(header(token), None) == CI


async def test_a_broken_access_file_leaves_the_old_one_in_force(
    tmp_path: Path, authority: Authority
) -> None:
    control = control_of(tmp_path, ACCESS)
    pem = authority.client("Grace").certificate.decode()

    async with watching(control) as rechecks:
        (tmp_path / "access.toml").write_text(ACCESS + "[more]\n")
        await asyncio.sleep(1.3)
        assert control.authenticate((), pem).name == "grace"
        (tmp_path / "access.toml").write_text(ACCESS.replace('"grace"', '"hopper"'))
        await asyncio.wait_for(rechecks.get(), 10)

    assert control.authenticate((), pem).name == "hopper"


async def test_a_damaged_access_file_hides_no_revocation_and_a_lost_tokens_file_no_quota(
    tmp_path: Path, tokens: Tokens
) -> None:
    token = tokens.create("ci", "trainer")
    control = control_of(tmp_path, ACCESS)
    access = tmp_path / "access.toml"
    async with watching(control) as rechecks:
        access.write_text("[certificates")
        tokens.revoke("ci")
        await asyncio.wait_for(rechecks.get(), 10)
        with pytest.raises(UnauthenticatedError):
            control.authenticate(header(token), None)

        tokens.path.unlink()
        access.write_text("[quotas.default]\nqueued_jobs = 3\n")
        await asyncio.wait_for(rechecks.get(), 10)

    assert control.quotas.default.queued_jobs == 3
    assert control.is_required


@pytest.mark.parametrize("text", [f"x = {'9' * 5_000}", "x = " + "[" * 100_000])
def test_an_access_file_without_an_end_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "access.toml").write_text(text)

    with pytest.raises(AccessFileError, match="not valid TOML"):
        read_access_file(tmp_path / "access.toml")


def test_a_pipe_is_no_file_of_identities(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokens.json")

    with pytest.raises(AccessFileError, match="not a file"):
        control_of(tmp_path)


async def test_a_check_that_fails_is_made_again(tmp_path: Path, tokens: Tokens) -> None:
    control = control_of(tmp_path)
    made = asyncio.Event()
    failures = [ValueError("once"), ValueError("twice")]

    async def recheck() -> None:
        if failures:
            raise failures.pop()
        made.set()

    with capture_logs() as logs:
        watch = asyncio.create_task(control.watch(recheck))
        tokens.create("ci", "trainer")
        await asyncio.wait_for(made.wait(), 10)
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch

    assert [line["event"] for line in logs if line["log_level"] == "error"] == [
        "identities cannot be checked: trying again"
    ]


def test_long_headers_are_not_remembered(tmp_path: Path, tokens: Tokens) -> None:
    token = tokens.create("ci", "trainer").encode()
    control = control_of(tmp_path)

    for spaces in (1, 2, 60_000):
        assert control.authenticate([b"Bearer" + b" " * spaces + token], None) == CI

    assert len(control._tokens._by_header) == 2  # what it holds is in no interface


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_gives_no_file_away_that_a_link_names(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    folder = tmp_path / "data"
    folder.mkdir()
    os.chown(folder, 65_534, 65_534)
    (folder / "tokens.json.lock").symlink_to(victim)

    with pytest.raises(AccessFileError, match="cannot be changed"):
        Tokens(folder / "tokens.json").create("ci", "trainer")

    assert victim.stat().st_uid == 0
