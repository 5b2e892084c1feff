"""The one check that a caller may change a resource: trainers change only their own."""

from contextvars import ContextVar

from leadline.server.errors import PermissionDeniedError
from leadline.server.identity import Identity, Role

owner_in_call: ContextVar[str] = ContextVar("owner_in_call", default="")
"""The owner of what the current call changes, for the audit log."""


def may_change(identity: Identity, owner: str) -> bool:
    """Whether an identity may change what belongs to `owner`; only admins what has no owner."""
    if identity.role is Role.ADMIN:
        return True
    return identity.role is Role.TRAINER and owner == identity.name != ""


def check_owner(identity: Identity, owner: str, name: str) -> None:
    """Checks that an identity may change the resource `name`, which belongs to `owner`.

    Raises:
        PermissionDeniedError: it may not.
    """
    owner_in_call.set(owner)
    if not may_change(identity, owner):
        whose = f"belongs to {owner}" if owner else "has no owner"
        raise PermissionDeniedError(
            f"{name} {whose}, and only its owner or an admin may change it",
            reason="NOT_OWNER",
            metadata={"resource": name, "owner": owner},
        )
