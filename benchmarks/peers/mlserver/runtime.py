"""A custom runtime for MLServer: the checkpoint's network in torch, on one thread."""

from pathlib import Path

import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from leadline.models.checkpoints import load_checkpoint


class CheckpointRuntime(MLModel):  # type: ignore[misc]  # MLServer is not installed here
    """Predicts with one epoch of one model.

    The extra parameters `folder` and `epoch` of the settings select it.
    """

    async def load(self) -> bool:
        """Loads the network.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        torch.set_num_threads(1)
        extra = self.settings.parameters.extra
        self._network = load_checkpoint(Path(extra["folder"]), extra["epoch"]).network()
        self._output = extra["output"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Predicts on the event loop, because on one core a thread only adds a hop.

        Args:
            payload: one input, float32 [images, 3, 32, 32].

        Returns:
            One output, float32 [images, classes].
        """
        images = NumpyCodec.decode_input(payload.inputs[0])
        with torch.inference_mode():
            logits = self._network(torch.from_numpy(images)).numpy()
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output(self._output, logits)]
        )
