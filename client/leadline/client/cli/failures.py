"""Reports errors to people and scripts."""

import json
import re
from typing import Any

import click

from leadline.client import (
    InvalidArgumentError,
    JobError,
    RpcError,
    UnauthenticatedError,
    UnavailableError,
    Violation,
)
from leadline.client._config import SETTINGS
from leadline.client.cli.exit_codes import ExitCode, exit_code

_NESTED = re.compile(r"^(?:spec|variant|options)\.(\w+)(?:\.\w+)?$")

# Fields of requests that have a flag of the same name.
_FLAGS = frozenset(
    {
        "after_sequence",
        "grouping",
        "max_probability",
        "min_models",
        "min_probability",
        "order",
        "outcome",
        "page_size",
        "per_class",
        "predicted_class",
        "request_id",
        "seed",
        "split",
        "top_k",
        "true_class",
    }
).union(SETTINGS)


def report_error(error: Exception, *, as_json: bool) -> None:
    """Reports an error of the SDK or of a file on stderr."""
    if as_json:
        _write_json(_described(error))
        return
    click.echo(f"Error: {_headline(error)}", err=True)
    if isinstance(error, InvalidArgumentError):
        for violation in error.violations:
            click.echo(f"  {flag(violation)}: {violation.description}", err=True)


def report_usage(error: click.ClickException, *, as_json: bool) -> None:
    """Reports an invalid command line on stderr."""
    if as_json:
        _write_json(
            {"code": "USAGE", "message": error.format_message(), "exit_code": int(ExitCode.USAGE)}
        )
    else:
        error.show()


def flag(violation: Violation) -> str:
    """The flag that set the field; the field itself if no flag did."""
    nested = _NESTED.match(violation.field)
    if nested:
        return f"--{nested.group(1).replace('_', '-')}"
    if violation.field in _FLAGS:
        return f"--{violation.field.replace('_', '-')}"
    return violation.field


def _headline(error: Exception) -> str:
    if isinstance(error, InvalidArgumentError) and error.violations:
        return "invalid argument"
    if isinstance(error, UnavailableError):
        return f"the server is unavailable: {error}\nIs it running? Start one with: leadline serve"
    if isinstance(error, UnauthenticatedError):
        return (
            f"unauthenticated: {error}\nGive a valid token with --token-file, or a certificate "
            "with --cert and --key; `leadline config show` lists the settings in use."
        )
    if isinstance(error, RpcError):
        return f"{error.code.name.lower().replace('_', ' ')}: {error}"
    return str(error)


def _described(error: Exception) -> dict[str, Any]:
    described: dict[str, Any] = {
        "code": _code(error),
        "message": str(error),
        "exit_code": int(exit_code(error)),
    }
    if isinstance(error, RpcError):
        described["reason"] = error.reason
        described["metadata"] = error.metadata
        described["retry_delay_seconds"] = error.retry_delay
    if isinstance(error, InvalidArgumentError):
        described["violations"] = [violation._asdict() for violation in error.violations]
    return described


def _code(error: Exception) -> str:
    if isinstance(error, RpcError):
        return error.code.name
    return "JOB" if isinstance(error, JobError) else type(error).__name__


def _write_json(described: dict[str, Any]) -> None:
    click.echo(json.dumps({"error": described}), err=True)
