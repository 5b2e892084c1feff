"""Logs a browser in with a token, and out again."""

import asyncio
import html
from collections.abc import Iterable

import structlog
from aiohttp import hdrs, web

from leadline.server.access.control import AccessControl
from leadline.server.access.sessions import SESSION_SECONDS, Sessions, TooManyAttemptsError
from leadline.server.errors import UnauthenticatedError
from leadline.server.identity import Role
from leadline.server.live.files import LOGIN, read_files
from leadline.server.telemetry.gate import LOGIN_PATH, session_cookie

_LOG = structlog.get_logger(__name__)

_LOGOUT_PATH, _SESSION_PATH = "/logout", "/live/v1/session"

PUBLIC_PATHS = (LOGIN_PATH, _LOGOUT_PATH, _SESSION_PATH, "/live/files/")
"""The beginnings of paths that need no identity: the login, and files that every server has."""

# Where `login.html` shows why a login failed.
_MESSAGE = "<!-- message -->"

_FORM = "application/x-www-form-urlencoded"
_FORM_BYTES = 4_096
_FORM_SECONDS = 5.0

_FAILED = "This token is not valid."
_NO_VIEWER = "The role of this token does not include the page: it needs viewer or a higher role."
_TOO_MANY = "Too many attempts: wait a minute."


class LoginRoutes:
    """The routes of the login."""

    def __init__(self, access: AccessControl, sessions: Sessions) -> None:
        self._access = access
        self._sessions = sessions
        self._page = read_files()[LOGIN].body.decode()

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """The handler of each path."""
        return (
            web.get(LOGIN_PATH, self._show),
            web.post(LOGIN_PATH, self._log_in),
            web.post(_LOGOUT_PATH, self._log_out),
            web.get(_SESSION_PATH, self._session),
        )

    async def _show(self, request: web.Request) -> web.Response:
        del request
        if not self._access.is_required:
            raise web.HTTPSeeOther("/")
        return self._form()

    async def _log_in(self, request: web.Request) -> web.Response:
        token = await _token(request)
        try:
            session, identity = self._sessions.log_in(token, address=request.remote or "")
        except TooManyAttemptsError:
            return self._form(_TOO_MANY, status=web.HTTPTooManyRequests.status_code)
        except UnauthenticatedError:
            _LOG.warning("a login failed", address=request.remote)
            return self._form(_FAILED, status=web.HTTPUnauthorized.status_code)
        if identity.role < Role.VIEWER:
            self._sessions.log_out(session)
            return self._form(_NO_VIEWER, status=web.HTTPForbidden.status_code)
        _LOG.info("a browser has logged in", identity=identity.name, address=request.remote)
        response = web.Response(status=303, headers={hdrs.LOCATION: "/"})
        response.set_cookie(
            session_cookie(request),
            session,
            path="/",
            max_age=round(SESSION_SECONDS),
            secure=request.secure,
            httponly=True,
            samesite="Strict",
        )
        return response

    async def _log_out(self, request: web.Request) -> web.Response:
        self._sessions.log_out(request.cookies.get(session_cookie(request), ""))
        response = web.Response(status=303, headers={hdrs.LOCATION: LOGIN_PATH})
        response.del_cookie(session_cookie(request), path="/", secure=request.secure)
        return response

    async def _session(self, request: web.Request) -> web.Response:
        """Who has logged in; not an error if nobody has, which browsers would log."""
        try:
            cookie = request.cookies.get(session_cookie(request), "")
            name = self._sessions.identity(cookie).name
        except UnauthenticatedError:
            name = ""
        return web.json_response({"name": name, "is_required": self._access.is_required})

    def _form(self, message: str = "", *, status: int = 200) -> web.Response:
        text = f'<p class="note" role="alert">{html.escape(message)}</p>' if message else ""
        page = self._page.replace(_MESSAGE, text)
        return web.Response(text=page, content_type="text/html", status=status)


async def _token(request: web.Request) -> str:
    """The token in the form of a request."""
    if request.content_type != _FORM or (request.charset or "utf-8").lower() != "utf-8":
        raise web.HTTPUnsupportedMediaType(text=f"send the form as {_FORM}\n")
    if request.content_length is None or request.content_length > _FORM_BYTES:
        raise web.HTTPRequestEntityTooLarge(_FORM_BYTES, request.content_length or 0)
    try:
        async with asyncio.timeout(_FORM_SECONDS):
            form = await request.post()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the form arrives too slowly\n") from None
    return str(form.get("token", "")).strip()
