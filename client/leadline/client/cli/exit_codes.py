"""The exit codes of `leadline`, which scripts can rely on."""

import enum
from typing import Self

from leadline.client import (
    DeadlineExceededError,
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
    NotFoundError,
    PermissionDeniedError,
    TlsError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
)


class ExitCode(enum.IntEnum):
    """The exit codes of commands, with the meanings that the help shows."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        """Makes a code."""
        member = int.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member

    SUCCESS = 0, "success"
    FAILED = 1, "the job failed, an image could not be classified, or a check failed"
    USAGE = 2, "wrong usage: an invalid argument, a file that cannot be read or written"
    NOT_FOUND = 3, "no such job, model, epoch or variant"
    UNAVAILABLE = 4, "the server cannot be reached, or does not serve"
    JOB_CANCELLED = 5, "the job was cancelled"
    DEADLINE_EXCEEDED = 6, "no answer within --timeout"
    SERVER_ERROR = 7, "any other error of the server"
    UNAUTHENTICATED = 8, "the server needs valid credentials: a token or a certificate"
    PERMISSION_DENIED = 9, "the credentials do not allow it"
    TLS_FAILED = 10, "no TLS connection: a certificate, an authority or a name is wrong"
    INTERRUPTED = 130, "interrupted with Ctrl-C, or not confirmed; a followed job continues"
    BROKEN_PIPE = 141, "the reader of the output went away"


_ERRORS: tuple[tuple[type[Exception], ExitCode], ...] = (
    (JobFailedError, ExitCode.FAILED),
    (JobCancelledError, ExitCode.JOB_CANCELLED),
    (InvalidArgumentError, ExitCode.USAGE),
    (NotFoundError, ExitCode.NOT_FOUND),
    (UnavailableError, ExitCode.UNAVAILABLE),
    (DeadlineExceededError, ExitCode.DEADLINE_EXCEEDED),
    (UnauthenticatedError, ExitCode.UNAUTHENTICATED),
    (PermissionDeniedError, ExitCode.PERMISSION_DENIED),
    (TlsError, ExitCode.TLS_FAILED),
    (UsageError, ExitCode.USAGE),
    (OSError, ExitCode.USAGE),
)


def exit_code(error: Exception) -> ExitCode:
    """The exit code of a command that ends with this error."""
    for kind, code in _ERRORS:
        if isinstance(error, kind):
            return code
    return ExitCode.SERVER_ERROR
