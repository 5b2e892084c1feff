"""A model for Triton's Python backend: ONNX Runtime on one thread, one run per batch.

Triton's dynamic batcher passes the queued requests as a list. The model merges them, runs once and
splits the results, like Triton's own examples.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The class that the backend requires."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Opens the network beside this file.

        Args:
            args: the backend's arguments: the configuration as JSON, the folder, the version.
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
        """Answers the requests in order.

        Args:
            requests: each with images, float32 [images, 3, 32, 32].

        Returns:
            One response per request, with logits, float32 [images, classes].
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
