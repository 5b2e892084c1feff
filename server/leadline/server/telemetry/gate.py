"""Admits HTTP requests: by a bearer token, a client certificate, or the session of a browser."""

import ssl

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from leadline.server.access.audit import AuditLog
from leadline.server.access.control import AccessControl
from leadline.server.access.sessions import Sessions
from leadline.server.errors import ServiceError, UnauthenticatedError
from leadline.server.identity import UNAUTHENTICATED, Identity, Role

LOGIN_PATH = "/login"

_NEEDED = Role.VIEWER


class HttpGate:
    """Lets those in who may see everything."""

    def __init__(
        self,
        access: AccessControl,
        sessions: Sessions,
        public: tuple[str, ...],
        audit: AuditLog | None = None,
    ) -> None:
        """Makes a gate.

        Args:
            access: authenticates the callers.
            sessions: the sessions of browsers.
            public: the beginnings of paths that need no identity.
            audit: records who is not let in; None: there is no audit log.
        """
        self._audit = audit
        self._access = access
        self._sessions = sessions
        self._public = public
        self._open: dict[int, web.Request] = {}  # requests cannot be hashed

    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Checks a request and runs its handler; see `recheck`."""
        if request.path.startswith(self._public):
            return await handler(request)
        try:
            identity = self._identity(request)
        except ServiceError as error:
            raise self._refusal(request, error) from error
        if identity.role < _NEEDED:
            self._record_denied(request, identity.name, "PERMISSION_DENIED")
            raise web.HTTPForbidden(text=f"this needs the role {_NEEDED.name.lower()}\n")
        self._open[id(request)] = request
        try:
            return await handler(request)
        finally:
            del self._open[id(request)]

    async def recheck(self) -> None:
        """Closes the connections of open requests that would not be admitted any more."""
        for request in tuple(self._open.values()):
            try:
                is_admitted = self._identity(request).role >= _NEEDED
            except Exception:  # noqa: BLE001 - whatever is wrong with it, it must not stay open
                is_admitted = False
            if not is_admitted and request.transport is not None:
                request.transport.abort()

    def _identity(self, request: web.Request) -> Identity:
        if not self._access.is_required:
            return UNAUTHENTICATED
        authorization = [
            value.encode(errors="surrogateescape")
            for value in request.headers.getall(hdrs.AUTHORIZATION, ())
        ]
        if not authorization and (session := request.cookies.get(session_cookie(request))):
            try:
                return self._sessions.identity(session)
            except UnauthenticatedError:
                pass  # an old cookie must not hide a certificate
        return self._access.authenticate(authorization, _certificate(request))

    def _record_denied(self, request: web.Request, name: str, code: str) -> None:
        if self._audit is not None:
            self._audit.record("http", who=name, peer=request.remote, code=code, denied=True)

    def _refusal(self, request: web.Request, error: ServiceError) -> web.HTTPException:
        """Sends a browser to the login, if there is one; others learn what to send."""
        self._record_denied(request, "", "UNAUTHENTICATED")
        if LOGIN_PATH in self._public and "text/html" in request.headers.get(hdrs.ACCEPT, ""):
            return web.HTTPSeeOther(LOGIN_PATH)
        return web.HTTPUnauthorized(
            text=f"{error}\n", headers={hdrs.WWW_AUTHENTICATE: 'Bearer realm="Leadline"'}
        )


def session_cookie(request: web.Request) -> str:
    """The name of the session's cookie; the ports of a host share their cookies."""
    prefix = "__Host-" if request.secure else ""
    try:
        return f"{prefix}leadline-{request.url.port}"
    except ValueError as error:
        raise web.HTTPBadRequest(text="the Host header is malformed\n") from error


def _certificate(request: web.Request) -> str | None:
    """The verified certificate of a request's connection, PEM; None without one."""
    tls = request.get_extra_info("ssl_object")
    certificate = None if tls is None else tls.getpeercert(binary_form=True)
    return None if certificate is None else ssl.DER_cert_to_PEM_cert(certificate)
