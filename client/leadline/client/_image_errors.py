"""Errors about single images of a call, by index."""

import re
from collections.abc import Callable
from dataclasses import replace

from leadline.client._error_details import Violation
from leadline.client._errors import InvalidArgumentError, ResourceExhaustedError, RpcError

# The fields in errors about too many images in a request.
_COUNTED = frozenset({"encoded.images", "examples.names", "tensor.shape"})

_IMAGE = re.compile(r"^(?:(?:encoded\.)?images|examples\.names)\[(\d+)\]")


def image_index(violation: Violation) -> int | None:
    """The index of the image that a violation names; None if it names no image."""
    match = _IMAGE.match(violation.field)
    return int(match.group(1)) if match else None


def is_too_large(error: RpcError) -> bool:
    """Whether Leadline or gRPC refused a message because of its size.

    gRPC's error differs from that of an overloaded server only in its message.
    """
    if not isinstance(error, ResourceExhaustedError):
        return False
    if error.reason:
        return error.reason == "MESSAGE_TOO_LARGE"
    return "larger than max" in error.message


def is_too_much(error: RpcError) -> bool:
    """Whether a request with fewer images would help."""
    if isinstance(error, InvalidArgumentError):
        return any(violation.field in _COUNTED for violation in error.violations)
    return is_too_large(error)


def renamed(error: InvalidArgumentError, name: Callable[[int], str]) -> InvalidArgumentError:
    """Replaces the indices of images by names, in the violations and in the message."""
    violations = tuple(_renamed(violation, name) for violation in error.violations)
    if violations == error.violations:
        return error
    summary = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    return InvalidArgumentError(summary, replace(error.details, violations=violations))


def _renamed(violation: Violation, name: Callable[[int], str]) -> Violation:
    index = image_index(violation)
    if index is None:
        return violation
    return violation._replace(field=_IMAGE.sub(lambda _: name(index), violation.field))
