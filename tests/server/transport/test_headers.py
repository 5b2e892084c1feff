from urllib.parse import unquote

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.server.transport.headers import (
    fields_of,
    metadata_of,
    seconds_of_timeout,
    trailers_of,
)

_KEYS = st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True).filter(
    lambda key: not key.endswith("-bin") and key not in {"te", "host"}
)
_TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3_600.0),
        (b"2M", 120.0),
        (b"3S", 3.0),
        (b"250m", 0.25),
        (b"5u", 5e-6),
        (b"99999999n", 0.099999999),
        (b"0S", 0.0),
    ],
)
def test_timeouts_are_read_in_every_unit(value: bytes, seconds: float) -> None:
    assert seconds_of_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"S", b"1", b"1s", b"-1S", b"1.5S", b"123456789S", b"1 S"])
def test_malformed_timeouts_are_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        seconds_of_timeout(value)


@given(
    st.lists(
        st.one_of(
            st.tuples(_KEYS, _TEXTS),
            st.tuples(_KEYS.map(lambda key: f"{key}-bin"), st.binary(max_size=40)),
        ),
        max_size=5,
    )
)
def test_metadata_comes_back_as_it_was(metadata: list[tuple[str, str | bytes]]) -> None:
    assert metadata_of(fields_of(metadata)) == tuple(metadata)


def test_binary_values_may_be_joined_and_padded() -> None:
    assert metadata_of([(b"a-bin", b"AAE=,AgM")]) == (("a-bin", b"\0\1"), ("a-bin", b"\2\3"))


def test_fields_of_the_call_itself_are_no_metadata() -> None:
    fields = [(b"te", b"trailers"), (b"content-type", b"application/grpc"), (b"a", b"b")]

    assert metadata_of(fields) == (("a", "b"),)


def test_a_binary_value_that_is_no_base64_is_refused() -> None:
    with pytest.raises(ValueError, match="a-bin is not base64"):
        metadata_of([(b"a-bin", b"*")])


@given(st.text())
def test_any_message_is_sent_as_visible_ascii_and_comes_back(message: str) -> None:
    trailers = dict(trailers_of(grpc.StatusCode.NOT_FOUND, message))

    sent = trailers.get(b"grpc-message", b"")
    assert trailers[b"grpc-status"] == b"5"
    assert all(32 <= byte < 127 for byte in sent)
    assert unquote(sent.decode(), errors="replace") == message.encode("utf-8", "replace").decode()
