"""Inputs of the Open Inference Protocol: tensors of pixels, or image files."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leadline.oip.v2.open_inference_pb2 import InferParameter, ModelInferRequest
from leadline.server.errors import InvalidArgumentError, UnimplementedError
from leadline.server.services.predictions import ImageInput
from leadline.server.serving.inputs import (
    InputFields,
    InputLimits,
    Pixels,
    PixelType,
    Steps,
    check_count,
    check_files,
    decode_files,
    read_tensor,
    shown_shape,
)

INPUT = "images"
DATATYPES = ("FP32", "UINT8", "BYTES")

_PIXEL_TYPES = {"FP32": PixelType.FLOAT32, "UINT8": PixelType.UINT8}

_SHAPE = "inputs[0].shape"
_RAW_FIELD = "raw_input_contents[0]"
_RAW = InputFields(files=_RAW_FIELD, shape=_SHAPE, data=_RAW_FIELD)

# Checking raw pixels of up to this many bytes takes about 150 microseconds.
INLINE_BYTES = 4 << 20

# Typed numbers to convert at a time, in a few milliseconds.
_CHUNK = 1 << 16

# In raw contents a length of this many bytes precedes each element of BYTES.
_LENGTH_BYTES = 4

_Tensor = ModelInferRequest.InferInputTensor


class InputTensor(NamedTuple):
    """The input of a request.

    Attributes:
        shape: the tensor's shape.
        pixel_type: the layout of raw pixels; None for image files.
        message: the tensor's message.
        has_typed_contents: whether the message holds the values.
    """

    shape: tuple[int, ...]
    pixel_type: PixelType | None
    message: _Tensor
    has_typed_contents: bool


def input_tensor(request: ModelInferRequest) -> InputTensor:
    """The only input of a request.

    Raises:
        InvalidArgumentError: the input is not the models' only input.
        UnimplementedError: the input is in shared memory.
    """
    tensor = _only_input(request)
    pixel_type = _PIXEL_TYPES.get(tensor.datatype)
    if pixel_type is None and tensor.datatype != "BYTES":
        raise InvalidArgumentError.of(
            "inputs[0].datatype",
            f"is {tensor.datatype!r}, but {INPUT} may be {', '.join(DATATYPES)}",
        )
    return InputTensor(tuple(tensor.shape), pixel_type, tensor, tensor.HasField("contents"))


def to_image_input(
    tensor: InputTensor, contents: Sequence[bytes | memoryview], limits: InputLimits
) -> ImageInput:
    """The images of a request.

    Args:
        tensor: the request's input.
        contents: the request's raw contents.
        limits: the limits of a request.

    Raises:
        InvalidArgumentError: the contents are not those of one input.
    """
    shape, pixel_type, message, has_typed_contents = tensor
    count = shape[0] if shape else 0
    if not contents:
        return ImageInput(count, partial(_TYPED[message.datatype], message, limits))
    if len(contents) != 1 or has_typed_contents:
        raise _contents_error(len(contents))
    data = contents[0]
    if pixel_type is None:
        return ImageInput(count, partial(_decode_raw, shape, data, limits))
    decode = partial(read_tensor, pixel_type, shape, data, limits, _RAW)
    return ImageInput(count, decode, run_inline=len(data) <= INLINE_BYTES)


def refuse_shared_memory(field: str, parameters: Mapping[str, InferParameter]) -> None:
    """Checks that parameters do not refer to shared memory.

    Raises:
        UnimplementedError: a parameter refers to shared memory.
    """
    for name in parameters:
        if name.startswith("shared_memory_"):
            raise UnimplementedError(
                f"{field}.parameters has {name}, but this server has no shared memory: "
                "send tensors in the message"
            )


def _only_input(request: ModelInferRequest) -> _Tensor:
    inputs = request.inputs
    if len(inputs) != 1:
        raise InvalidArgumentError.of(
            "inputs", f"has {len(inputs)} tensors, but models have the one input {INPUT}"
        )
    tensor = inputs[0]
    if tensor.name != INPUT:
        raise InvalidArgumentError.of(
            "inputs[0].name", f"is {tensor.name!r}, but the input's name is {INPUT}"
        )
    if tensor.parameters:
        refuse_shared_memory("inputs[0]", tensor.parameters)
    return tensor


def _contents_error(raw: int) -> InvalidArgumentError:
    if raw != 1:
        return InvalidArgumentError.of(
            "raw_input_contents", f"has {raw} elements, but must have one for each of 1 inputs"
        )
    return InvalidArgumentError.of(
        "inputs[0].contents", "is set in addition to raw_input_contents: send only one"
    )


def _read_floats(tensor: _Tensor, limits: InputLimits) -> Pixels:
    values = tensor.contents.fp32_contents
    fields = _typed_fields("fp32_contents")
    data = _array(values, np.dtype("<f4")).tobytes()
    return read_tensor(PixelType.FLOAT32, tensor.shape, data, limits, fields)


def _read_bytes(tensor: _Tensor, limits: InputLimits) -> Pixels:
    values = tensor.contents.uint_contents
    fields = _typed_fields("uint_contents")
    numbers = _array(values, np.dtype(np.uint32))
    if (numbers > np.iinfo(np.uint8).max).any():
        raise InvalidArgumentError.of(fields.data, "has numbers above 255, the largest UINT8")
    data = numbers.astype(np.uint8).tobytes()
    return read_tensor(PixelType.UINT8, tensor.shape, data, limits, fields)


def _read_files(tensor: _Tensor, limits: InputLimits) -> Steps:
    fields = _typed_fields("bytes_contents")
    images = _files_in(tensor.shape, limits)
    files = tensor.contents.bytes_contents
    if len(files) != images:
        raise InvalidArgumentError.of(
            fields.files,
            f"has {len(files)} elements, but the shape {shown_shape(tensor.shape)} has {images}",
        )
    check_files(files, limits, fields)
    return decode_files(files, limits, fields)


def _array(values: Sequence[float], dtype: np.dtype[Any]) -> NDArray[Any]:
    array = np.empty(len(values), dtype)
    # In chunks: NumPy holds the GIL throughout each assignment.
    for start in range(0, len(values), _CHUNK):
        array[start : start + _CHUNK] = values[start : start + _CHUNK]
    return array


_TYPED: dict[str, Callable[[_Tensor, InputLimits], Pixels | Steps]] = {
    "FP32": _read_floats,
    "UINT8": _read_bytes,
    "BYTES": _read_files,
}


def _typed_fields(name: str) -> InputFields:
    field = f"inputs[0].contents.{name}"
    return InputFields(files=field, shape=_SHAPE, data=field)


def _decode_raw(shape: Sequence[int], data: bytes | memoryview, limits: InputLimits) -> Steps:
    files = _split(data, _files_in(shape, limits))
    check_files(files, limits, _RAW)
    return decode_files(files, limits, _RAW)


def _files_in(shape: Sequence[int], limits: InputLimits) -> int:
    if len(shape) not in {1, 2} or list(shape[1:]) not in ([], [1]):
        raise InvalidArgumentError.of(
            _SHAPE,
            f"is {shown_shape(shape)}, but image files have the shape [images] or [images, 1]",
        )
    check_count(_SHAPE, shape[0], limits)
    return shape[0]


def _split(data: bytes | memoryview, count: int) -> list[bytes]:
    files = []
    start = 0
    for index in range(count):
        length = int.from_bytes(data[start : start + _LENGTH_BYTES], "little")
        end = start + _LENGTH_BYTES + length
        if end > len(data):
            raise InvalidArgumentError.of(
                _RAW_FIELD,
                f"ends within element {index} of {count}: each must follow its length, four "
                "bytes in little-endian order",
            )
        files.append(bytes(data[start + _LENGTH_BYTES : end]))
        start = end
    if start != len(data):
        raise InvalidArgumentError.of(
            _RAW_FIELD, f"has {len(data) - start} bytes behind its {count} elements"
        )
    return files


def parameter_number(parameters: Mapping[str, InferParameter], name: str, field: str) -> int:
    """The integer value of a parameter.

    Raises:
        InvalidArgumentError: the value is not an integer of at least 0.
    """
    parameter = parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    number = {"int64_param": parameter.int64_param, "uint64_param": parameter.uint64_param}.get(
        kind or "", -1
    )
    if number < 0:
        raise InvalidArgumentError.of(f"{field}[{name}]", "must be an int64_param, 0 or more")
    return number
