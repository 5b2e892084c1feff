"""The straight path of common requests: one raw tensor of pixels, numbers as outputs.

All that depends only on the header of a request is computed once and cached with the header.
An unusual request takes the general path, `Inference.infer_any`, which reports the errors of
requests, except numbers that are not finite.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from leadline.oip.v2.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from leadline.server.api import wire
from leadline.server.api.oip.inputs import INLINE_BYTES, RAW, InputTensor
from leadline.server.api.oip.outputs import RequestedOutput, response_head
from leadline.server.serving.catalog import CheckpointRef, Selector
from leadline.server.serving.classifier import Scores
from leadline.server.serving.inputs import Pixels, TensorLayout, tensor_layout

_RAW_CONTENTS = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER


class StraightPath:
    """The common part of requests with equal headers.

    Attributes:
        selector: selects the model.
        images: the number of images in each request.
        unchecked: the fields to name if a number of the pixels is not finite; None if every
            number is.
        logits_only: whether the outputs do not include the probabilities.
    """

    __slots__ = (
        "_key",
        "_layout",
        "_message",
        "_outputs",
        "_prefixes",
        "images",
        "logits_only",
        "selector",
        "unchecked",
    )

    def __init__(
        self,
        message: ModelInferRequest,
        layout: TensorLayout,
        outputs: tuple[RequestedOutput, ...],
        selector: Selector,
    ) -> None:
        self.selector = selector
        self.images = layout.shape[0]
        self.unchecked = RAW if layout.dtype.kind == "f" else None
        self.logits_only = all(output.name == "logits" for output in outputs)
        self._message = message
        self._layout = layout
        self._outputs = outputs
        self._key: Hashable = None  # of the checkpoint that `_prefixes` are for
        self._prefixes: tuple[bytes, ...] = ()

    def pixels(self, contents: Sequence[bytes | memoryview]) -> Pixels | None:
        """The pixels in the raw contents of a request; None if the size is wrong.

        The computing thread checks whether they are finite.
        """
        shape, dtype, size = self._layout
        if len(contents) != 1 or len(contents[0]) != size:
            return None
        return np.ndarray(shape, dtype, contents[0])

    def response(self, checkpoint: CheckpointRef, scores: Scores) -> bytes:
        """Serializes a ModelInferResponse."""
        if self._key != checkpoint.key:
            self._prefixes = self._prefixes_of(checkpoint, scores)
            self._key = checkpoint.key
        parts: list[bytes] = []
        for output, prefix in zip(self._outputs, self._prefixes, strict=True):
            values = scores.logits if output.name == "logits" else scores.probabilities
            parts += (prefix, values.tobytes())
        return b"".join(parts)

    def _prefixes_of(self, checkpoint: CheckpointRef, scores: Scores) -> tuple[bytes, ...]:
        """The bytes before the values of each output."""
        head = response_head(self._message, checkpoint, self._outputs, scores.logits.shape)
        field = wire.field_prefix(_RAW_CONTENTS, scores.logits.nbytes)
        return (head + field, *[field] * (len(self._outputs) - 1))


def straight_path(
    message: ModelInferRequest,
    tensor: InputTensor,
    outputs: tuple[RequestedOutput, ...],
    selector: Selector,
) -> StraightPath | None:
    """Makes the straight path of requests with one header; returns None if they are unusual.

    Args:
        message: the header.
        tensor: the header's only input.
        outputs: the requested outputs.
        selector: selects the model.

    Raises:
        InvalidArgumentError: the tensor's shape is wrong.
    """
    if tensor.pixel_type is None or tensor.has_typed_contents:
        return None
    layout = tensor_layout(tensor.pixel_type, tensor.shape)
    if not 0 < layout.size <= INLINE_BYTES or any(output.classes for output in outputs):
        return None
    return StraightPath(message, layout, outputs, selector)
