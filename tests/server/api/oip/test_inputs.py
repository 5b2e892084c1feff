"""Properties of the readers of requests, for any bytes."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from leadline.oip.v2.open_inference_pb2 import InferTensorContents, ModelInferRequest
from leadline.server.api.oip.inputs import _split, input_tensor, to_image_input
from leadline.server.errors import ServiceError
from leadline.server.serving.inputs import InputLimits
from support.decoding import all_steps
from support.open_inference import raw_strings

LIMITS = InputLimits(images=4, image_bytes=64, image_pixels=1 << 12, pixels=1 << 14)

tensors = st.builds(
    ModelInferRequest.InferInputTensor,
    name=st.just("images"),
    datatype=st.sampled_from(["FP32", "UINT8", "BYTES", "INT8", ""]),
    shape=st.one_of(
        st.sampled_from([[1, 32, 32, 3], [1, 3, 32, 32], [2], [2, 1]]),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6),
    ),
    contents=st.one_of(
        st.none(),
        st.builds(
            InferTensorContents,
            uint_contents=st.lists(st.integers(0, 2**32 - 1), max_size=4),
            fp32_contents=st.lists(st.floats(width=32), max_size=4),
            bytes_contents=st.lists(st.binary(max_size=80), max_size=6),
        ),
    ),
)


@given(
    inputs=st.lists(tensors, min_size=1, max_size=2),
    raw=st.lists(st.binary(max_size=200), max_size=2),
)
def test_whatever_comes_is_read_or_refused(
    inputs: list[ModelInferRequest.InferInputTensor], raw: list[bytes]
) -> None:
    request = ModelInferRequest(inputs=inputs, raw_input_contents=raw)

    with contextlib.suppress(ServiceError):
        images = to_image_input(input_tensor(request), request.raw_input_contents, LIMITS)
        pixels = all_steps(images.decode())
        assert len(pixels) == inputs[0].shape[0]


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_strings_come_out_of_raw_contents_as_they_went_in(strings: list[bytes]) -> None:
    assert _split(raw_strings(strings), len(strings)) == strings
