"""Errors about one image of many, told in the caller's count."""

import re
from dataclasses import replace

from leadline.client._error_details import Violation
from leadline.client._errors import InvalidArgumentError

_IMAGE = re.compile(r"^(?:encoded\.)?images\[(\d+)\]")


def image_index(violation: Violation) -> int | None:
    """The index of the image that a violation is about; None where it is about none."""
    match = _IMAGE.match(violation.field)
    return int(match.group(1)) if match else None


def shifted(error: InvalidArgumentError, offset: int) -> InvalidArgumentError:
    """The error with the indices of images counted over all requests of a call.

    The server counts them from the first of a request, and knows of no other.
    """
    violations = tuple(_shifted(violation, offset) for violation in error.violations)
    if violations == error.violations:
        return error
    summary = "; ".join(f"{one.field}: {one.description}" for one in violations)
    return InvalidArgumentError(summary, replace(error.details, violations=violations))


def _shifted(violation: Violation, offset: int) -> Violation:
    index = image_index(violation)
    if index is None:
        return violation
    return violation._replace(field=_IMAGE.sub(f"images[{index + offset}]", violation.field))
