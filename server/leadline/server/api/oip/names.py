"""Names of models and versions in the Open Inference Protocol.

A model is named by its job's id, by "models/{job_id}", or by its variant:
"{dataset}-{blocks}-blocks", with "-of-2" appended if a block has two convolutions,
"-batch-norm" if it has batch norms, and "-residual" if it has residual connections.
A variant's name is stable: it stands for the most accurate model of the variant.
Ids have no dashes, so the names are unambiguous. A version is an epoch's number.
"""

import functools
import re

from leadline.models.spec import TrainingSpec
from leadline.server.errors import InvalidArgumentError, NotFoundError, shorten
from leadline.server.jobs.variants import VariantFilter
from leadline.server.services.models import ModelService
from leadline.server.serving.catalog import ByName, CheckpointRef, Selector

_JOB = re.compile(r"(?:models/)?([a-z0-9]{1,32})")
_VARIANT = re.compile(
    r"([a-z0-9][a-z0-9._-]{0,63})-(0|[1-9][0-9]?)-blocks(-of-2)?(-batch-norm)?(-residual)?"
)
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


def variant_name(spec: TrainingSpec) -> str:
    """The stable name of a spec's variant."""
    form = f"-of-{spec.block_convolutions}" if spec.block_convolutions > 1 else ""
    norm = "-batch-norm" if spec.batch_norm else ""
    residual = "-residual" if spec.residual else ""
    return f"{spec.dataset}-{spec.blocks}-blocks{form}{norm}{residual}"


class NamedModels:
    """Resolves the protocol's names."""

    def __init__(self, models: ModelService) -> None:
        self._models = models

    async def resolve(
        self, name: str, version: str, *, version_field: str = "version"
    ) -> CheckpointRef:
        """The checkpoint that a name and a version currently stand for.

        Args:
            name: a model's name.
            version: an epoch's number; empty for the best.
            version_field: the version's field, for errors.

        Raises:
            InvalidArgumentError: the version is not a number.
            NotFoundError: there is no such model or epoch.
        """
        selector = _to_selector(name)
        if version:
            epoch = _epoch(version, version_field)
            selector = ByName(job_id=await self._job_id(selector), epoch=epoch)
        return await self._models.resolve(selector)

    async def _job_id(self, selector: Selector) -> str:
        if isinstance(selector, ByName):
            return selector.job_id
        return (await self._models.resolve(selector)).model.job.job_id


@functools.lru_cache(maxsize=1_024)
def _to_selector(name: str) -> Selector:
    if match := _JOB.fullmatch(name):
        return ByName(job_id=match[1])
    if match := _VARIANT.fullmatch(name):
        return VariantFilter(
            dataset=match[1],
            blocks=int(match[2]),
            block_convolutions=2 if match[3] else 1,
            batch_norm=match[4] is not None,
            residual=match[5] is not None,
        )
    raise NotFoundError(
        "model",
        repr(shorten(name)),
        "a model is named by its job's id, or as {dataset}-{blocks}-blocks with or without "
        "-of-2, -batch-norm and -residual, in this order; RepositoryIndex lists all models",
    )


def _epoch(version: str, field: str) -> int:
    if not _VERSION.fullmatch(version):
        raise InvalidArgumentError.of(
            field,
            f"is {shorten(version)!r}, but a version is an epoch's number, such as '1', "
            "or empty for the best",
        )
    return int(version)
