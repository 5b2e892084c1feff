import asyncio
import gc
import weakref

import pytest

from leadline.models.spec import Violation
from leadline.server.api.errors import to_status
from leadline.server.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ServiceError,
    shorten,
)
from leadline.server.transport.headers import trailers_of

_LONG = "\N{BLACK STAR}b" * 500_000

_ERRORS = [
    InvalidArgumentError([Violation(field=_LONG, description=_LONG)] * 30),
    NotFoundError("model", _LONG, _LONG),
    AlreadyExistsError(_LONG, reason="TAKEN", resource_name=_LONG),
    FailedPreconditionError(_LONG, reason="STATE", metadata={"job": _LONG, "state": _LONG}),
]


@pytest.mark.parametrize("error", _ERRORS)
def test_a_status_fits_into_trailers_whatever_callers_sent(error: ServiceError) -> None:
    code, status = to_status(error)

    trailers = trailers_of(code, str(error), [("x-bin", status.SerializeToString())])

    assert sum(len(name) + len(value) + 32 for name, value in trailers) < 8_192
    assert len(status.details) >= 1


def test_texts_are_cut_between_characters() -> None:
    assert shorten("\N{BLACK STAR}" * 3, 9) == "\N{BLACK STAR}" * 3
    assert shorten("\N{BLACK STAR}" * 3, 8) == "\N{BLACK STAR}" * 2 + "..."


class _Request:
    """A request, to which a weak reference is possible."""


async def test_an_answered_error_does_not_keep_the_request() -> None:
    kept: list[weakref.ref[_Request]] = []

    async def answer() -> None:
        request = _Request()
        kept.append(weakref.ref(request))
        result = asyncio.get_running_loop().create_future()
        result.set_exception(InvalidArgumentError.of("images", "are wrong"))
        await result  # this frame refers to the future, and the future to the error

    gc.disable()  # a cycle would stay until a collection
    try:
        try:
            await answer()
        except ServiceError as error:
            to_status(error)
        assert kept[0]() is None
    finally:
        gc.enable()
