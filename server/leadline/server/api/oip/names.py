"""What models and versions are called in the Open Inference Protocol.

A model is named by its job's id, by "models/{job_id}", or by its variant:
"{dataset}-{blocks}-blocks", followed by "-of-2" where a block has two
convolutions, "-batch-norm" where it has batch norms, and "-residual" where it has
residual connections. A variant's name is stable: it means the best trained model
of its kind. Ids have no dashes, so the names cannot be confused. A version is an
epoch's number.
"""

import functools
import re

from leadline.models.spec import TrainingSpec
from leadline.server.errors import InvalidArgumentError, NotFoundError, shorten
from leadline.server.jobs.variants import VariantFilter
from leadline.server.serving.catalog import ByName, Catalog, CheckpointRef, Selector

_JOB = re.compile(r"(?:models/)?([a-z0-9]{1,32})")
_VARIANT = re.compile(
    r"([a-z0-9][a-z0-9._-]{0,63})-(0|[1-9][0-9]?)-blocks(-of-2)?(-batch-norm)?(-residual)?"
)
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


def variant_name(spec: TrainingSpec) -> str:
    """The stable name of the best model that is trained like this one."""
    form = f"-of-{spec.block_convolutions}" if spec.block_convolutions > 1 else ""
    norm = "-batch-norm" if spec.batch_norm else ""
    residual = "-residual" if spec.residual else ""
    return f"{spec.dataset}-{spec.blocks}-blocks{form}{norm}{residual}"


class Models:
    """Finds checkpoints by the protocol's names."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def find(
        self, name: str, version: str, *, version_field: str = "version"
    ) -> CheckpointRef:
        """The checkpoint that a name and a version mean at this moment.

        Args:
            name: a model's name.
            version: an epoch's number; empty for the best.
            version_field: what the request calls it.

        Raises:
            InvalidArgumentError: the version is no number.
            NotFoundError: there is no such model, or no such epoch of it.
        """
        selector = _model(name)
        if version:
            epoch = _epoch(version, version_field)
            selector = ByName(job_id=await self._job_id(selector), epoch=epoch)
        return await self._catalog.resolve(selector)

    async def _job_id(self, selector: Selector) -> str:
        if isinstance(selector, ByName):
            return selector.job_id
        return (await self._catalog.resolve(selector)).model.job.job_id


@functools.lru_cache(maxsize=1_024)
def _model(name: str) -> Selector:
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
