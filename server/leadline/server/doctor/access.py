"""Checks who could call a server."""

from leadline.server.access.control import AccessControl
from leadline.server.access.exposure import exposure
from leadline.server.access.tokens import AccessFileError
from leadline.server.doctor.check import Check, Status
from leadline.server.settings import Settings

_NAME = "access"


def check_access(settings: Settings) -> Check:
    """Checks the files of identities, and whether others could reach the server in the open."""
    access = AccessControl(settings)
    try:
        access.load()
    except AccessFileError as error:
        return Check(_NAME, Status.FAILED, str(error), advice="repair the file")
    detail = {"requires_identities": access.is_required, "insecure": settings.insecure}
    exposed = exposure(settings, requires_identities=access.is_required)
    if exposed:
        status = Status.WARNING if settings.insecure else Status.FAILED
        advice = "add what is missing, or serve on loopback"
        return Check(_NAME, status, exposed, detail, advice)
    who = "callers need an identity" if access.is_required else "every local caller is an admin"
    return Check(_NAME, Status.OK, who, detail)
