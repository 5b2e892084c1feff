"""`leadline quota`."""

import click

from leadline.client import QuotaLimit
from leadline.client.cli import describe
from leadline.client.cli.commands import command
from leadline.client.cli.options import Session, session_options


@command("leadline quota", "leadline quota ci", "leadline quota --json | jq .limits")
@click.argument("identity", required=False, default="")
@session_options
def quota(session: Session, *, identity: str) -> None:
    """Show what you may use, and what you use, or, as an admin, what an IDENTITY does.

    The calls in flight and the predictions a second are those of the server's main process.
    """
    with session.client() as client:
        found = client.quota(identity)
    if session.output.as_json:
        session.output.message(found)
        return
    total = {limit.quota: limit for limit in found.total}
    rows = [
        (limit.quota, *_cells(limit), *_cells(total.get(limit.quota, QuotaLimit())))
        for limit in found.limits
    ]
    whose = found.identity or "you"
    session.output.table(("quota", f"#{whose}", "#limit", "#all callers", "#limit of all"), rows)


def _cells(limit: QuotaLimit) -> tuple[str, str]:
    """The use and the limit; "-" where there is none."""
    shown = describe.size if limit.quota.endswith("_bytes") else _number
    return (
        shown(limit.used) if limit.HasField("used") else "-",
        shown(limit.limit) if limit.HasField("limit") else "-",
    )


def _number(number: float) -> str:
    return f"{number:,.10g}"
