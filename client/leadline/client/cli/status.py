"""`leadline health` and `leadline version`."""

import json
from importlib.metadata import version as installed_version

import click
from grpc_health.v1 import health_pb2

from leadline.client import HealthStatus
from leadline.client.cli.commands import command
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.options import Session, session_options


@command(
    "leadline health",
    "until leadline health --timeout 1 2>/dev/null; do sleep 1; done",
)
@click.option(
    "--service", default="", help="Only this service, such as leadline.v1.TrainingService."
)
@session_options
def health(session: Session, *, service: str) -> ExitCode:
    """Check that a server accepts calls; the exit code is 0 only if it does.

    For a container's health check, and for scripts that wait for a server.
    """
    with session.client() as client:
        status = client.health(service)
    session.output.show(health_pb2.HealthCheckResponse(status=status.value), status.name)
    return ExitCode.SUCCESS if status is HealthStatus.SERVING else ExitCode.UNAVAILABLE


@command("leadline version")
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON line.")
def version(*, as_json: bool) -> None:
    """Print the version."""
    number = installed_version("leadline")
    click.echo(json.dumps({"version": number}) if as_json else f"leadline {number}")
