"""The exit codes of `leadline`, which scripts can rely on."""

import enum

from leadline.client import (
    DeadlineExceededError,
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
    NotFoundError,
    UnavailableError,
)


class ExitCode(enum.IntEnum):
    """The result of a command."""

    SUCCESS = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    JOB_CANCELLED = 5
    DEADLINE_EXCEEDED = 6
    SERVER_ERROR = 7
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS = {
    ExitCode.SUCCESS: "success",
    ExitCode.FAILED: "the job failed, an image could not be classified, or a check failed",
    ExitCode.USAGE: "wrong usage: an invalid argument, a file that cannot be read or written",
    ExitCode.NOT_FOUND: "no such job, model, epoch or variant",
    ExitCode.UNAVAILABLE: "the server cannot be reached, or does not serve",
    ExitCode.JOB_CANCELLED: "the job was cancelled",
    ExitCode.DEADLINE_EXCEEDED: "no answer within --timeout",
    ExitCode.SERVER_ERROR: "any other error of the server",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C, or not confirmed; a followed job goes on",
    ExitCode.BROKEN_PIPE: "the reader of the output went away",
}
"""Every code and what it means, as the help shows it."""

_ERRORS: tuple[tuple[type[Exception], ExitCode], ...] = (
    (JobFailedError, ExitCode.FAILED),
    (JobCancelledError, ExitCode.JOB_CANCELLED),
    (InvalidArgumentError, ExitCode.USAGE),
    (NotFoundError, ExitCode.NOT_FOUND),
    (UnavailableError, ExitCode.UNAVAILABLE),
    (DeadlineExceededError, ExitCode.DEADLINE_EXCEEDED),
    (OSError, ExitCode.USAGE),
)


def exit_code(error: Exception) -> ExitCode:
    """The exit code of a command that ends with this error."""
    for kind, code in _ERRORS:
        if isinstance(error, kind):
            return code
    return ExitCode.SERVER_ERROR
