"""The tokens file: its contents, its writers, and what may go wrong with it."""

import json
import multiprocessing
import os
import signal
import stat
import string
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.server.access.tokens import (
    AccessFileError,
    Token,
    _Contents,
    check_name,
    create_token,
    digest_of,
    read_tokens,
    revoke_tokens,
)
from leadline.server.identity import Identity, Role

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", fullmatch=True).filter(
    lambda name: name != "me"
)
TIMES = st.integers(0, 2**36).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
TOKENS = st.builds(
    Token,
    id=st.text("0123456789abcdef", min_size=10, max_size=10),
    name=NAMES,
    role=st.sampled_from(["predictor", "viewer", "trainer", "admin"]),
    created=TIMES,
    expires=st.none() | TIMES,
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tokens.json"


def test_a_token_has_256_random_bits_and_only_its_hash_is_stored(path: Path) -> None:
    secret, token = create_token(path, name="ci", role="trainer", lifetime=timedelta(days=90))

    assert len(secret) == 46
    assert secret.startswith("ll_")
    assert set(secret[3:]) <= set(string.ascii_letters + string.digits + "-_")
    assert token.sha256 == digest_of(secret.encode()).hex()
    assert token.identity == Identity("ci", Role.TRAINER)
    assert token.expires == token.created + timedelta(days=90)
    assert read_tokens(path) == (token,)
    assert secret not in path.read_text()
    assert secret[3:20] not in path.read_text()


def test_only_the_owner_reads_the_file(path: Path) -> None:
    create_token(path, name="ci", role="viewer")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {file.name for file in path.parent.iterdir()} == {"tokens.json", "tokens.json.lock"}


def test_a_name_may_have_several_tokens_and_each_is_revoked_by_its_id(path: Path) -> None:
    tokens = [create_token(path, name="ci", role="viewer")[1] for _ in range(3)]

    assert revoke_tokens(path, [tokens[0].id, tokens[2].id]) == (tokens[0], tokens[2])

    assert read_tokens(path) == (tokens[1],)


def test_all_tokens_are_revoked_or_none(path: Path) -> None:
    _, token = create_token(path, name="ci", role="viewer")

    with pytest.raises(ValueError, match="there is no token 0123456789"):
        revoke_tokens(path, [token.id, "0123456789"])

    assert read_tokens(path) == (token,)


def test_a_file_without_tokens_stays(path: Path) -> None:
    _, token = create_token(path, name="ci", role="viewer")

    revoke_tokens(path, [token.id])

    assert read_tokens(path) == ()


@pytest.mark.parametrize("name", ["", "me", "a b", "-x", "ü", "x" * 65, "a\n", "../x", "a/b"])
def test_a_malformed_name_is_refused(path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not a name"):
        create_token(path, name=name, role="viewer")
    assert not path.exists()


@pytest.mark.parametrize("role", ["", "anyone", "Admin", "root"])
def test_an_unknown_role_is_refused(path: Path, role: str) -> None:
    with pytest.raises(ValueError, match="is not a role"):
        create_token(path, name="ci", role=role)


@pytest.mark.parametrize(
    ("lifetime", "says"), [(timedelta(0), "at once"), (timedelta(days=10**7), "after the year")]
)
def test_an_impossible_lifetime_is_refused(path: Path, lifetime: timedelta, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        create_token(path, name="ci", role="viewer", lifetime=lifetime)


@given(st.lists(TOKENS, max_size=5))
def test_what_is_written_is_what_is_read(tokens: list[Token]) -> None:
    contents = _Contents(tokens=tuple(tokens))

    assert _Contents.model_validate_json(contents.model_dump_json(indent=1)) == contents


@given(NAMES)
def test_a_valid_name_is_returned(name: str) -> None:
    assert check_name(name) == name


@given(data=st.data())
def test_a_damaged_file_is_an_error_that_quotes_nothing(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    tokens = data.draw(st.lists(TOKENS, min_size=1, max_size=2))
    whole = _Contents(tokens=tuple(tokens)).model_dump_json().encode()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])

    with pytest.raises(AccessFileError, match="is damaged") as error:
        read_tokens(path)

    assert not [token for token in tokens if token.sha256 in str(error.value)]


@given(contents=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    contents: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(contents)

    with pytest.raises(AccessFileError):
        read_tokens(path)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"role": "root"}, "tokens.0.role"),
        ({"secret": "x"}, "tokens.0.secret"),
        ({"sha256": "0"}, "tokens.0.sha256"),
        ({"created": "2026-01-01T00:00:00"}, "tokens.0.created"),
    ],
)
def test_the_error_of_a_damaged_file_names_the_key(
    path: Path, change: dict[str, str], key: str
) -> None:
    create_token(path, name="ci", role="viewer")
    contents = json.loads(path.read_text())
    contents["tokens"][0] |= change
    path.write_text(json.dumps(contents))

    with pytest.raises(AccessFileError, match=key):
        read_tokens(path)
    with pytest.raises(AccessFileError, match="restore it from a copy"):
        create_token(path, name="ci", role="viewer")
    assert json.loads(path.read_text()) == contents


def _create_many(path: Path, name: str, count: int) -> None:
    for _ in range(count):
        create_token(path, name=name, role="viewer")


def test_concurrent_writers_lose_no_token(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    names = [f"writer-{number}" for number in range(4)]
    writers = [context.Process(target=_create_many, args=(path, name, 10)) for name in names]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            read_tokens(path)  # a reader never sees half a file
        time.sleep(0.001)
    for writer in writers:
        writer.join()

    assert [writer.exitcode for writer in writers] == [0] * 4
    assert sorted(token.name for token in read_tokens(path)) == sorted(names * 10)


_WRITER = """
import sys
from pathlib import Path
from leadline.server.access.tokens import create_token
print("ready", flush=True)
while True:
    create_token(Path(sys.argv[1]), name="writer", role="viewer")
"""


def test_a_writer_that_is_killed_leaves_a_whole_file_and_no_lock(path: Path) -> None:
    create_token(path, name="first", role="admin")
    before = 1
    for round_ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE
        )
        with writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.05 + 0.013 * round_)
            writer.send_signal(signal.SIGKILL)
        tokens = read_tokens(path)
        assert tokens[0].name == "first"
        assert len(tokens) >= before
        before = len(tokens)

    create_token(path, name="last", role="admin")

    assert len(read_tokens(path)) == before + 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_gives_the_file_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)

    create_token(tmp_path / "tokens.json", name="ci", role="viewer")

    for name in ("tokens.json", "tokens.json.lock"):
        status = (tmp_path / name).stat()
        assert (status.st_uid, status.st_gid) == (12345, 12346)
