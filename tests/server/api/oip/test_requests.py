"""The parser of requests gives the same result as protobuf."""

from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from leadline.oip.v2.open_inference_pb2 import InferParameter, ModelInferRequest
from leadline.server.api.oip.requests import InferRequest, parse

_LARGE = bytes(range(256)) * 300
_IMAGE = bytes(range(256)) * 12  # 3,072 bytes, like an image of UINT8

_REQUESTS = st.builds(
    ModelInferRequest,
    model_name=st.text(max_size=5),
    model_version=st.text(max_size=5),
    id=st.text(max_size=5),
    parameters=st.dictionaries(
        st.text(max_size=3), st.builds(InferParameter, int64_param=st.integers(-9, 9)), max_size=2
    ),
    inputs=st.lists(
        st.builds(
            ModelInferRequest.InferInputTensor,
            name=st.text(max_size=5),
            shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
        ),
        max_size=2,
    ),
    raw_input_contents=st.lists(
        st.one_of(st.just(_LARGE), st.just(_IMAGE), st.just(_IMAGE * 4), st.binary(max_size=9)),
        max_size=3,
    ),
)


def whole(request: InferRequest) -> ModelInferRequest:
    together = ModelInferRequest()
    together.CopyFrom(request.header.message)
    del together.raw_input_contents[:]
    together.raw_input_contents.extend(bytes(data) for data in request.raw)
    return together


@pytest.mark.parametrize("kind", [bytes, memoryview])
@given(request=_REQUESTS)
def test_a_request_is_the_same_in_two_parts(
    request: ModelInferRequest, kind: Callable[[bytes], bytes | memoryview]
) -> None:
    data = request.SerializeToString()

    assert whole(parse(kind(data))) == request


def test_large_contents_are_not_in_the_message() -> None:
    parsed = parse(ModelInferRequest(raw_input_contents=[_LARGE]).SerializeToString())

    assert isinstance(parsed.raw[0], memoryview)
    assert not parsed.header.message.raw_input_contents


@given(st.integers(1, len(_LARGE)), st.binary(max_size=12))
def test_malformed_large_requests_raise_what_protobuf_raises(cut: int, more: bytes) -> None:
    data = ModelInferRequest(raw_input_contents=[_LARGE]).SerializeToString()
    for broken in (data[:-cut], data + more):
        try:
            expected = ModelInferRequest.FromString(broken)
        except DecodeError:
            with pytest.raises(DecodeError):
                parse(broken)
        else:
            assert whole(parse(broken)) == expected


@given(_REQUESTS, st.sampled_from([1, 4, 8]), st.binary(max_size=9))
@example(ModelInferRequest(), 1, b"\x8a")
def test_what_precedes_images_is_read_as_protobuf_reads_it(
    request: ModelInferRequest, images: int, more: bytes
) -> None:
    data = (
        request.SerializeToString()
        + more
        + ModelInferRequest(raw_input_contents=[_IMAGE * images]).SerializeToString()
    )
    try:
        expected = ModelInferRequest.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            parse(data)
    else:
        assert whole(parse(data)) == expected


def test_requests_with_equal_headers_share_one() -> None:
    data = ModelInferRequest(model_name="a", raw_input_contents=[_IMAGE]).SerializeToString()
    other = ModelInferRequest(model_name="b", raw_input_contents=[_IMAGE]).SerializeToString()

    assert parse(data).header is parse(data[:-1] + b"x").header
    assert parse(data).header is not parse(other).header


def test_protobuf_parses_a_request_of_many_fields() -> None:
    many = ModelInferRequest(raw_input_contents=[b""] * 200_000)

    parsed = parse(many.SerializeToString())

    assert not isinstance(parsed.raw, list)
    assert len(parsed.raw) == 200_000
