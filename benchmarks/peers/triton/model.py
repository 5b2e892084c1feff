"""Triton's Python backend: ONNX Runtime on one thread, one run for a whole batch.

Triton's dynamic batcher hands over what is queued as a list of requests. They
are joined, run once and taken apart again, as Triton's own examples advise.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The interface that the backend looks for."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Opens the network beside this file.

        Args:
            args: the backend's: the configuration as JSON, the folder, the version.
        """
        config = json.loads(args["model_config"])
        self._input = config["input"][0]["name"]
        self._output = config["output"][0]["name"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        network = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(
            network, options, providers=["CPUExecutionProvider"]
        )
        self._network_input = self._session.get_inputs()[0].name
        self._network_output = self._session.get_outputs()[0].name

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers requests, in their order.

        Args:
            requests: each with images, float32 [images, 3, 32, 32].

        Returns:
            A response each, with logits, float32 [images, classes].
        """
        images = [
            pb_utils.get_input_tensor_by_name(request, self._input).as_numpy()
            for request in requests
        ]
        joined = images[0] if len(images) == 1 else np.concatenate(images)
        (logits,) = self._session.run([self._network_output], {self._network_input: joined})
        responses = []
        start = 0
        for one in images:
            part = logits[start : start + len(one)]
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor(self._output, part)]))
            start += len(one)
        return responses
