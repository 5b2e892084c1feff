"""Descriptions of models in the Open Inference Protocol: metadata, configuration, index."""

import json
from collections.abc import Iterable, Iterator, Sequence

from leadline.models.images import IMAGE_SIZE
from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.server.api.oip.inputs import DATATYPES, INPUT
from leadline.server.api.oip.names import variant_name
from leadline.server.api.oip.outputs import OUTPUTS
from leadline.server.jobs.job import Model
from leadline.server.serving.catalog import CheckpointRef

PLATFORM = "leadline"

_IMAGE_SHAPE = (3, IMAGE_SIZE, IMAGE_SIZE)
_ANY = -1

_TensorMetadata = oip.ModelMetadataResponse.TensorMetadata
_ModelIndex = oip.RepositoryIndexResponse.ModelIndex


def metadata(name: str, checkpoint: CheckpointRef) -> oip.ModelMetadataResponse:
    """A model's inputs, outputs and versions."""
    classes = len(checkpoint.model.started.class_names)
    return oip.ModelMetadataResponse(
        name=name,
        versions=[str(epoch.result.epoch) for epoch in checkpoint.model.epochs if epoch.is_kept],
        platform=PLATFORM,
        inputs=[_TensorMetadata(name=INPUT, datatype="FP32", shape=(_ANY, *_IMAGE_SHAPE))],
        outputs=[
            _TensorMetadata(name=output, datatype="FP32", shape=(_ANY, classes))
            for output in OUTPUTS
        ],
    )


def configuration(
    name: str, checkpoint: CheckpointRef, *, max_images: int
) -> oip.ModelConfigResponse:
    """A model's configuration."""
    classes = len(checkpoint.model.started.class_names)
    image = oip.ModelInput(
        name=INPUT,
        data_type=oip.DATA_TYPE_FP32,
        format=oip.ModelInput.FORMAT_NCHW,
        dims=_IMAGE_SHAPE,
    )
    return oip.ModelConfigResponse(
        config=oip.ModelConfig(
            name=name,
            platform=PLATFORM,
            backend=PLATFORM,
            max_batch_size=max_images,
            input=[image],
            output=[
                oip.ModelOutput(name=output, data_type=oip.DATA_TYPE_FP32, dims=[classes])
                for output in OUTPUTS
            ],
            parameters={
                key: oip.ModelParameter(string_value=value)
                for key, value in _parameters(checkpoint).items()
            },
        )
    )


def index(models: Sequence[Model], *, only_ready: bool) -> oip.RepositoryIndexResponse:
    """Every version of every model, and every variant's name; `models` are the newest first."""
    entries = [entry for model in models for entry in _versions(model, only_ready=only_ready)]
    return oip.RepositoryIndexResponse(models=[*entries, *_variants(models)])


def _parameters(checkpoint: CheckpointRef) -> dict[str, str]:
    spec = checkpoint.model.job.spec
    return {
        "class_names": json.dumps(checkpoint.model.started.class_names),
        "input_datatypes": json.dumps(DATATYPES),
        "model": checkpoint.name,
        "weights_sha256": checkpoint.epoch.weights_sha256,
        "dataset": spec.dataset,
        "blocks": str(spec.blocks),
        "block_convolutions": str(spec.block_convolutions),
        "batch_norm": json.dumps(spec.batch_norm),
        "residual": json.dumps(spec.residual),
        "test_accuracy": str(checkpoint.epoch.test_accuracy),
    }


def _versions(model: Model, *, only_ready: bool) -> Iterator[_ModelIndex]:
    for epoch in model.epochs:
        entry = _ModelIndex(name=model.job.job_id, version=str(epoch.result.epoch), state="READY")
        if not epoch.is_kept:
            entry.state = "UNAVAILABLE"
            entry.reason = "the job's retention has dropped its checkpoint"
        if epoch.is_kept or not only_ready:
            yield entry


def _variants(models: Iterable[Model]) -> Iterator[_ModelIndex]:
    best: dict[str, Model] = {}
    for model in models:  # the newest first, which wins among equals
        name = variant_name(model.job.spec)
        if model.job.best_test_accuracy > best.setdefault(name, model).job.best_test_accuracy:
            best[name] = model
    for name, model in sorted(best.items()):
        yield _ModelIndex(
            name=name,
            version=str(model.job.best_epoch),
            state="READY",
            reason=f"stands for {model.job.job_id}, the best of its variant",
        )
