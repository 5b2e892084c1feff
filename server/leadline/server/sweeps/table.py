"""The results of a sweep: one row per variant, and the best depths."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from leadline.server.jobs.job import Job
from leadline.server.jobs.json_values import JsonValues
from leadline.server.sweeps.grid import SEED, AxisValue, Grid
from leadline.server.sweeps.student_t import student_t_cdf

_DEPTH = "blocks"

# A combination of axes' values, as a key.
_Key = tuple[tuple[str, AxisValue], ...]


@dataclass(frozen=True, kw_only=True)
class SeedStatistics:
    """Statistics of fractions in [0, 1], one per seed.

    Attributes:
        count: the number of seeds, at least 1.
        mean: the mean.
        deviation: the sample standard deviation; None for one seed.
        least: the lowest fraction.
        most: the highest fraction.
    """

    count: int
    mean: float
    deviation: float | None
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The statistics of at least one value."""
        return cls(
            count=len(values),
            mean=statistics.fmean(values),
            deviation=statistics.stdev(values) if len(values) > 1 else None,
            least=min(values),
            most=max(values),
        )


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Jobs that differ only in their seeds.

    Attributes:
        point: the value of each axis except the seed, by field.
        job_ids: its jobs, in the order of the grid.
        finished_jobs: how many jobs are in a final state.
        best: the highest test accuracy of each job; None before the first epoch.
        last: the test accuracy of each job's newest epoch; None before the first.
        best_job_id: the job with the highest test accuracy; None before the first epoch.
    """

    point: dict[str, AxisValue]
    job_ids: tuple[str, ...]
    finished_jobs: int
    best: SeedStatistics | None
    last: SeedStatistics | None
    best_job_id: str | None


@dataclass(frozen=True, kw_only=True)
class BestDepth:
    """The depth with the highest mean of the best test accuracies.

    Attributes:
        point: the values of the other axes except the seed.
        blocks: the depth; the smaller one among equals.
        mean: the mean accuracy at this depth, a fraction in [0, 1].
        confidence: the probability that the depth is the best; None if unknown.
        runner_up: the next best depth; None if no other has results.
        margin: how much higher its mean is than the runner-up's, a fraction.
    """

    point: dict[str, AxisValue]
    blocks: int
    mean: float
    confidence: float | None
    runner_up: int | None
    margin: float


@dataclass(frozen=True, kw_only=True)
class SweepTable(JsonValues):
    """The results of a sweep's jobs so far."""

    variants: tuple[Variant, ...]
    best_depths: tuple[BestDepth, ...]

    @classmethod
    def of(cls, grid: Grid, jobs: Iterable[Job]) -> Self:
        """The table of a sweep's jobs, which must be in the order of the grid."""
        rows: dict[_Key, list[Job]] = {}
        for job in jobs:
            rows.setdefault(_key(grid.point_of(job.spec), without={SEED}), []).append(job)
        variants = tuple(_variant(dict(key), group) for key, group in rows.items())
        return cls(variants=variants, best_depths=tuple(_best_depths(variants)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The table that `to_dict` wrote."""
        return cls(
            variants=tuple(_read_variant(row) for row in values["variants"]),
            best_depths=tuple(BestDepth(**row) for row in values["best_depths"]),
        )


def confidence_in_best(best: SeedStatistics, others: Sequence[SeedStatistics]) -> float | None:
    """The probability that the mean of `best` is truly the highest, given the seeds.

    For each other mean, divides the difference of the means by its standard error.
    Evaluates Student's t distribution there, with Welch's degrees of freedom. The
    product is a lower bound by Slepian's inequality. Branke, Chick and Schmidt,
    "Selecting a Selection Procedure", Management Science 53 (2007), PCS_Slep.

    Returns:
        The probability; None if there is no other depth, or a depth has a single seed.
    """
    if not others:
        return None
    product = 1.0
    for other in others:
        probability = _probability_above(best, other)
        if probability is None:
            return None
        product *= probability
    return product


def _probability_above(best: SeedStatistics, other: SeedStatistics) -> float | None:
    if best.deviation is None or other.deviation is None:
        return None
    difference = best.mean - other.mean
    variances = [group.deviation**2 / group.count for group in (best, other) if group.deviation]
    if not variances:  # all seeds agree, for example because nothing is learnt
        return 0.5 if difference == 0 else float(difference > 0)
    degrees = sum(variances) ** 2 / sum(
        (group.deviation**2 / group.count) ** 2 / (group.count - 1)
        for group in (best, other)
        if group.deviation
    )
    return student_t_cdf(difference / math.sqrt(sum(variances)), degrees)


def _variant(point: dict[str, AxisValue], jobs: Sequence[Job]) -> Variant:
    begun = [(job, job.latest_epoch) for job in jobs if job.latest_epoch is not None]
    bests = [job.best_test_accuracy for job, _ in begun]
    lasts = [epoch.test_accuracy for _, epoch in begun]
    return Variant(
        point=point,
        job_ids=tuple(job.job_id for job in jobs),
        finished_jobs=sum(job.state.is_final for job in jobs),
        best=SeedStatistics.of(bests) if begun else None,
        last=SeedStatistics.of(lasts) if begun else None,
        best_job_id=begun[bests.index(max(bests))][0].job_id if begun else None,
    )


def _best_depths(variants: Sequence[Variant]) -> Iterable[BestDepth]:
    groups: dict[_Key, list[tuple[int, SeedStatistics]]] = {}
    for variant in variants:
        depth = variant.point.get(_DEPTH)
        if isinstance(depth, int) and variant.best:
            key = _key(variant.point, without={_DEPTH})
            groups.setdefault(key, []).append((depth, variant.best))
    for key, depths in groups.items():
        (blocks, best), *others = sorted(depths, key=lambda depth: (-depth[1].mean, depth[0]))
        yield BestDepth(
            point=dict(key),
            blocks=blocks,
            mean=best.mean,
            confidence=confidence_in_best(best, [other for _, other in others]),
            runner_up=others[0][0] if others else None,
            margin=best.mean - others[0][1].mean if others else 0.0,
        )


def _key(point: dict[str, AxisValue], *, without: set[str]) -> _Key:
    return tuple((field, value) for field, value in point.items() if field not in without)


def _read_variant(values: dict[str, Any]) -> Variant:
    return Variant(
        **{
            **values,
            "job_ids": tuple(values["job_ids"]),
            "best": values["best"] and SeedStatistics(**values["best"]),
            "last": values["last"] and SeedStatistics(**values["last"]),
        }
    )
