"""Checks who requests the page, and sets the security headers of every response."""

import ipaddress
import secrets
from collections.abc import Collection
from urllib.parse import urlsplit

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from leadline.server.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ServiceError,
    StorageError,
    UnavailableError,
)
from leadline.server.live.errors import TooBusyError

_LOG = structlog.get_logger(__name__)

_HEADERS = {
    # Allows only resources and forms of this origin; no inline script or style, no frame.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # With "no-referrer", browsers would hide the origin of the page's own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_STATUS_OF: dict[type[ServiceError], type[web.HTTPException]] = {
    InvalidArgumentError: web.HTTPBadRequest,
    NotFoundError: web.HTTPNotFound,
    FailedPreconditionError: web.HTTPConflict,
    StorageError: web.HTTPServiceUnavailable,
    UnavailableError: web.HTTPServiceUnavailable,
}

# The allowed values of Sec-Fetch-Site: pages of this origin, and typed addresses.
_OWN_SITES = {"same-origin", "none"}

# Links on other sites may lead here.
_ENTRIES = {"/", "/login"}

_RETRY_SECONDS = "5"


class SecurityMiddleware:
    """Checks requests, converts errors to status, and sets headers."""

    def __init__(self, hosts: Collection[str]) -> None:
        """Serves the page under these names, under IP addresses and under localhost.

        Rejects requests with another Host header, because a site may point its name at
        this server (DNS rebinding).
        """
        self._hosts = {host.lower() for host in hosts}

    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Checks a request, runs its handler, and converts errors to status."""
        self._check(request)
        try:
            return await handler(request)
        except TooBusyError as error:
            raise web.HTTPServiceUnavailable(
                text=f"{error}\n", headers={hdrs.RETRY_AFTER: _RETRY_SECONDS}
            ) from error
        except ServiceError as error:
            status = _STATUS_OF.get(type(error), web.HTTPInternalServerError)
            raise status(text=f"{error}\n") from error
        except web.HTTPException:
            raise
        except ConnectionError:  # the client disconnected before the response began
            return web.Response()
        except Exception as error:
            incident = secrets.token_hex(8)
            _LOG.exception("a request for the live page failed", incident=incident)
            raise web.HTTPInternalServerError(
                text=f"an internal error: see incident {incident} in the server's log\n"
            ) from error

    async def set_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Sets the security headers of a response."""
        del request
        response.headers.update(_HEADERS)
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")

    def _check(self, request: web.Request) -> None:
        host = host_of(request.headers.get(hdrs.HOST, ""))
        if not (is_local_name(host) or host in self._hosts):
            raise web.HTTPMisdirectedRequest(
                text=f"this page is not served as {host[:100]!r}: use its IP address, "
                "or add the host to --live-page-hosts\n"
            )
        is_entry = request.method in {hdrs.METH_GET, hdrs.METH_HEAD} and request.path in _ENTRIES
        if not (is_entry or _is_of_own_page(request)):
            raise web.HTTPForbidden(text="only the page itself may request its parts\n")


def _is_of_own_page(request: web.Request) -> bool:
    """Whether a page of this server sends the request, or no page at all."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in _OWN_SITES
    # Browsers do not send it to other machines over plain HTTP.
    origin = request.headers.get(hdrs.ORIGIN)
    return origin is None or urlsplit(origin).netloc == request.headers.get(hdrs.HOST)


def host_of(header: str) -> str:
    """The host in a Host header, without the port, in lower case."""
    host, bracket, _ = header.lower().partition("]")
    return host.removeprefix("[") if bracket else host.partition(":")[0]


def is_local_name(host: str) -> bool:
    """Whether a host is safe from DNS rebinding: an IP address, or localhost."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
