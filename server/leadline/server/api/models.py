"""Models and checkpoints: selector to value, filter to value, model to message."""

from typing import Literal, Protocol

from leadline.server.api.common_fields import from_datetime
from leadline.server.api.names import parse_checkpoint
from leadline.server.api.specs import from_spec
from leadline.server.errors import InvalidArgumentError
from leadline.server.jobs.job import Model
from leadline.server.jobs.variants import VariantFilter
from leadline.server.serving.catalog import Selector
from leadline.v1 import inference_service_pb2, model_pb2


class _HasSelector(Protocol):
    model: str

    @property
    def variant(self) -> model_pb2.Variant: ...

    def WhichOneof(self, oneof_group: Literal["selector"], /) -> str | None: ...


def to_selector(request: _HasSelector, *, within: str = "") -> Selector:
    """The checkpoint that a request selects.

    Args:
        request: has the oneof `selector`.
        within: prefixes the names of fields in errors, such as "baseline.".

    Raises:
        InvalidArgumentError: the selector is unset or malformed.
    """
    match request.WhichOneof("selector"):
        case "model":
            return parse_checkpoint(request.model, field=f"{within}model")
        case "variant":
            return _to_variant(request.variant, within)
        case _:
            raise InvalidArgumentError.of(f"{within}selector", "is unset: set model or variant")


def to_filter(request: inference_service_pb2.ListModelsRequest) -> VariantFilter:
    """The models to list."""
    return VariantFilter(
        dataset=request.dataset or None,
        blocks=request.blocks if request.HasField("blocks") else None,
        block_convolutions=(
            request.block_convolutions if request.HasField("block_convolutions") else None
        ),
        batch_norm=request.batch_norm if request.HasField("batch_norm") else None,
        residual=request.residual if request.HasField("residual") else None,
    )


def from_model(model: Model) -> model_pb2.Model:
    """The model that a job has trained."""
    job = model.job
    return model_pb2.Model(
        name=f"models/{job.job_id}",
        job=f"jobs/{job.job_id}",
        owner=job.owner,
        variant=model_pb2.Variant(
            dataset=job.spec.dataset,
            blocks=job.spec.blocks,
            block_convolutions=job.spec.block_convolutions,
            batch_norm=job.spec.batch_norm,
            residual=job.spec.residual,
        ),
        spec=from_spec(job.spec),
        class_names=model.started.class_names,
        epochs=[
            model_pb2.ModelEpoch(
                name=f"models/{job.job_id}/epochs/{epoch.result.epoch}",
                epoch=epoch.result.epoch,
                train_accuracy=epoch.result.train_accuracy,
                test_accuracy=epoch.result.test_accuracy,
                weights_sha256=epoch.result.weights_sha256,
                kept=epoch.is_kept,
            )
            for epoch in model.epochs
        ],
        best_epoch=job.best_epoch,
        best_test_accuracy=job.best_test_accuracy,
        parameters=model.started.parameters,
        create_time=from_datetime(model.create_time),
        dataset_fingerprint=model.started.dataset_fingerprint,
    )


def _to_variant(variant: model_pb2.Variant, within: str) -> VariantFilter:
    if not variant.dataset:
        raise InvalidArgumentError.of(f"{within}variant.dataset", "is empty: name the dataset")
    return VariantFilter(
        dataset=variant.dataset,
        blocks=variant.blocks,
        block_convolutions=_block_convolutions(variant, within),
        batch_norm=variant.batch_norm,
        residual=variant.residual,
    )


def _block_convolutions(variant: model_pb2.Variant, within: str) -> int:
    number = variant.block_convolutions or 1
    if number not in (1, 2):
        raise InvalidArgumentError.of(
            f"{within}variant.block_convolutions", f"must be 1 or 2, but is {number}"
        )
    return number
