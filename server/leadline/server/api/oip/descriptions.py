"""Descriptions of models in the Open Inference Protocol: metadata, configuration, index."""

import json
from collections.abc import Sequence

from leadline.models.images import IMAGE_SIZE
from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.server.api.oip.inputs import DATATYPES, INPUT
from leadline.server.api.oip.names import variant_name
from leadline.server.api.oip.outputs import OUTPUTS
from leadline.server.jobs.job import Job
from leadline.server.serving.catalog import CheckpointRef
from leadline.server.storage.models import ModelName

PLATFORM = "leadline"

# The protocol has no pages, and its clients accept responses of up to 4 MiB: about
# 35 bytes a model, and 200 a variant.
MAX_NAMES = 50_000
_MAX_VARIANTS = 5_000

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


def index(names: Sequence[ModelName], best: Sequence[Job]) -> oip.RepositoryIndexResponse:
    """Models by their jobs' ids, and the variants' names.

    Args:
        names: the models, the newest first, at most `MAX_NAMES`.
        best: the job with the best model of each variant.
    """
    models = [
        _ModelIndex(name=name.job_id, version=str(name.best_epoch), state="READY") for name in names
    ]
    variants = [
        _ModelIndex(
            name=variant_name(job.spec),
            version=str(job.best_epoch),
            state="READY",
            reason=f"stands for {job.job_id}, the best of its variant",
        )
        for job in best[:_MAX_VARIANTS]
    ]
    variants.sort(key=lambda entry: entry.name)
    return oip.RepositoryIndexResponse(models=[*models, *variants])


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
