"""Resource names (AIP-122).

Every function raises InvalidArgumentError, about `field`, if `name` is malformed.
"""

import re

from leadline.server.errors import InvalidArgumentError
from leadline.server.serving.catalog import ByName
from leadline.server.serving.examples import ExampleRef

_ID = r"[a-z0-9]{1,32}"
_JOB = re.compile(rf"jobs/({_ID})")
_SWEEP = re.compile(rf"sweeps/({_ID})")
_MODEL = re.compile(rf"models/({_ID})")
_CHECKPOINT = re.compile(rf"models/({_ID})(?:/epochs/([1-9][0-9]{{0,8}}))?")
_EXAMPLE = re.compile(r"datasets/([0-9a-f]{64})/(train|test)/(0|[1-9][0-9]{0,8})")

# The most characters of a malformed name that an error quotes.
_SHOWN = 80


def parse_job(name: str, *, field: str = "name") -> str:
    """The job's id in "jobs/{job_id}"."""
    return _match(_JOB, name, field, "jobs/{job_id}")[1]


def parse_sweep(name: str, *, field: str = "name") -> str:
    """The sweep's id in "sweeps/{sweep_id}"."""
    return _match(_SWEEP, name, field, "sweeps/{sweep_id}")[1]


def parse_model(name: str, *, field: str = "name") -> str:
    """The job's id in "models/{job_id}"."""
    return _match(_MODEL, name, field, "models/{job_id}")[1]


def parse_checkpoint(name: str, *, field: str = "model") -> ByName:
    """The model and the optional epoch in a checkpoint's name."""
    match = _match(_CHECKPOINT, name, field, "models/{job_id} or models/{job_id}/epochs/{epoch}")
    return ByName(job_id=match[1], epoch=int(match[2]) if match[2] else None)


def parse_example(name: str, *, field: str) -> ExampleRef:
    """The image of a dataset in "datasets/{fingerprint}/{split}/{index}"."""
    match = _match(_EXAMPLE, name, field, "datasets/{dataset fingerprint}/{train or test}/{index}")
    return ExampleRef(
        fingerprint=match[1],
        split="train" if match[2] == "train" else "test",
        index=int(match[3]),
    )


def _match(pattern: re.Pattern[str], name: str, field: str, form: str) -> re.Match[str]:
    match = pattern.fullmatch(name)
    if match is None:
        shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "..."
        raise InvalidArgumentError.of(field, f"must have the form {form}, not {shown!r}")
    return match
