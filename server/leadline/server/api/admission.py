"""Admits calls: authenticates the caller, and checks the role that the method needs."""

import asyncio
from collections.abc import Iterable, MutableMapping

import grpc

from leadline.server.access.control import AccessControl
from leadline.server.access.roles import ROLES
from leadline.server.api.auditing import CallAudit
from leadline.server.api.errors import status_to_send
from leadline.server.errors import PermissionDeniedError, ServiceError, UnauthenticatedError
from leadline.server.identity import ANONYMOUS, Role
from leadline.server.transport.call import Call
from leadline.server.transport.response import MetadataPairs

# Made once, so that refusing a flood is cheap.
_UNAUTHENTICATED = status_to_send(UnauthenticatedError())

# Calls that are checked again between two passes of the event loop.
_CALLS_AT_ONCE = 200


class CallAdmission:
    """Admits calls whose caller has the role that the method needs."""

    def __init__(
        self,
        control: AccessControl,
        paths: Iterable[str],
        denied: MutableMapping[str, int],
        audit: CallAudit | None = None,
    ) -> None:
        """Makes an admission.

        Args:
            control: authenticates the callers.
            paths: the server's methods.
            denied: counts the calls that are not admitted, by the reason of the error.
            audit: records them; None: there is no audit log.
        """
        self._control = control
        self._denied = denied
        self._audit = audit
        self._roles = {path: ROLES.get(path, Role.ADMIN) for path in paths}

    def admit(self, call: Call) -> bool:
        """Sets the call's identity; or refuses the call, and sets its status."""
        try:
            self._identify(call)
        except ServiceError as error:
            self._denied[error.reason] += 1
            call.response.set_status(*_status(error))
            if self._audit is not None:
                path = call.path if call.path in self._roles else ""
                self._audit.record(call, path, error=error)
            return False
        return True

    async def recheck(self, calls: Iterable[Call]) -> None:
        """Ends calls in flight that would not be admitted any more."""
        for number, call in enumerate(tuple(calls)):
            if number % _CALLS_AT_ONCE == _CALLS_AT_ONCE - 1:
                await asyncio.sleep(0)
            try:
                if not call.is_done:
                    self._identify(call)
            except ServiceError as error:
                self._denied[error.reason] += 1
                call.refuse(_status(error)[0], error)

    def _identify(self, call: Call) -> None:
        """Sets the call's identity.

        Raises:
            UnauthenticatedError: the caller has no valid credentials.
            PermissionDeniedError: the caller needs a higher role.
        """
        if not self._control.is_required:
            return
        needed = self._roles.get(call.path)
        call.identity = ANONYMOUS
        if needed is Role.ANYONE:
            return
        authorization = call.authorization
        certificate = None if authorization else call.certificate
        call.identity = self._control.authenticate(authorization, certificate)
        # Without a method there is nothing to protect: the call ends as UNIMPLEMENTED.
        if needed is not None and call.identity.role < needed:
            raise role_needed(needed)


def role_needed(role: Role) -> PermissionDeniedError:
    """The error of a caller whose role is too low."""
    name = role.name.lower()
    return PermissionDeniedError(
        f"this needs the role {name}: use credentials with that role or a higher one",
        reason="ROLE_NEEDED",
        metadata={"role": name},
    )


def _status(error: ServiceError) -> tuple[grpc.StatusCode, str, MetadataPairs]:
    return _UNAUTHENTICATED if isinstance(error, UnauthenticatedError) else status_to_send(error)
