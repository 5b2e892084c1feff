"""`leadline export`."""

from pathlib import Path

from leadline.client.cli import describe
from leadline.client.cli.commands import command
from leadline.client.cli.files import appearing, out_option
from leadline.client.cli.options import Selector, Session, selector_options, session_options


@command(
    "leadline export --model models/phgcrktpjf --out model.onnx",
    "leadline export --dataset cifar10 --blocks 2 --batch-norm --out model.onnx",
)
@selector_options
@out_option(".onnx", text="Write the ONNX model to this file.")
@session_options
def export(session: Session, *, selector: Selector, out: Path) -> None:
    """Write a model as an ONNX file, for other inference engines.

    Its input, images, is float32 [N, 3, 32, 32], RGB, with pixels of value / 127.5 - 1. Its outputs
    are logits and probabilities. A checkpoint always gives the same bytes.
    """
    with session.client() as client:
        exported = client.export_model(**selector)
    with appearing(out) as path:
        path.write_bytes(exported.onnx)
    size = len(exported.onnx)
    if session.output.as_json:
        values = {"model": exported.model, "weights_sha256": exported.weights_sha256}
        session.output.json({**values, "file": str(out), "bytes": size})
    else:
        session.output.text(f"{exported.model} is in {out}, {describe.size(size)}.")
