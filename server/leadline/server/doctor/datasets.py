"""Checks the sources of the datasets and the decoded datasets."""

from collections.abc import Mapping
from pathlib import Path

from leadline.models.datasets import DatasetError, describe_cache, describe_source
from leadline.server.doctor.check import Check, Status

# The number of sample images to decode. The server's start detects damage in the others.
_SAMPLES = 200


def dataset_name(name: str) -> str:
    """Returns the name of a dataset's check."""
    return f"dataset {name}"


def check_dataset(name: str, source: str, cache: Path, *, max_pixels: int) -> Check:
    """Checks that a source is readable and is a valid dataset.

    It decodes a few images, unless the dataset is already decoded.
    """
    try:
        facts = describe_source(source, cache, samples=_SAMPLES, max_pixels=max_pixels)
    except DatasetError as error:
        advice = f"repair it, or name another source with --dataset {name}=SOURCE"
        return Check(dataset_name(name), Status.FAILED, str(error), {"source": source}, advice)
    if facts is None:
        value = "the first job that needs it downloads it from the network"
        detail = {"source": source, "decoded": False}
        return Check(dataset_name(name), Status.OK, value, detail)
    return Check(
        dataset_name(name),
        Status.OK,
        f"{len(facts.class_names):,} classes, {facts.train_images:,} training and "
        f"{facts.test_images:,} test images, {'' if facts.decoded else 'not yet '}decoded",
        detail={
            "source": source,
            "classes": len(facts.class_names),
            "train_images": facts.train_images,
            "test_images": facts.test_images,
            "decoded": facts.decoded,
        },
    )


def check_cache(cache: Path) -> Check:
    """Checks the decoded datasets in the data directory for damage."""
    states: Mapping[str, str | None] = describe_cache(cache)
    damaged = {name: state for name, state in states.items() if state is not None}
    value = f"{len(states):,} in {cache}" if states else "none yet"
    return Check(
        "decoded datasets",
        Status.WARNING if damaged else Status.OK,
        f"{value}; damaged: {'; '.join(damaged.values())}" if damaged else value,
        detail={
            "whole": [name for name in states if name not in damaged],
            "damaged": list(damaged),
        },
        advice="the next job that needs it decodes it again",
    )
