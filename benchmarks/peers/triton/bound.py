"""Triton through pytriton: a function bound to a model, as in its documentation."""

import argparse

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def main() -> None:
    """Serves until it receives a signal to stop."""
    options = _options()
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = 1
    session_options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        options.network, session_options, providers=["CPUExecutionProvider"]
    )
    network_input = session.get_inputs()[0].name
    network_output = session.get_outputs()[0].name

    @batch  # type: ignore[untyped-decorator]  # pytriton has no types
    def infer(**inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        (images,) = inputs.values()
        (logits,) = session.run([network_output], {network_input: images})
        return [logits]

    with Triton(config=_config(options)) as triton:
        triton.bind(
            model_name=options.model,
            infer_func=infer,
            inputs=[Tensor(name=options.input, dtype=np.float32, shape=(3, 32, 32))],
            outputs=[Tensor(name=options.output, dtype=np.float32, shape=(options.classes,))],
            config=ModelConfig(max_batch_size=options.max_batch, batcher=DynamicBatcher()),
        )
        triton.serve()


def _config(options: argparse.Namespace) -> TritonConfig:
    return TritonConfig(
        allow_http=False,
        grpc_address="127.0.0.1",
        grpc_port=options.port,
        metrics_address="127.0.0.1",
        metrics_port=options.metrics_port,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("network", "model", "input", "output"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("classes", "max-batch", "port", "metrics-port"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
