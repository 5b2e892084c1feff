"""Serves the page over HTTP: each handler converts, calls, and converts back.

The routes below `/live/v1` are private to the page: they may change, and are no
contract for other clients.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from functools import partial

import structlog
from aiohttp import ETag, hdrs, web

from leadline.models.datasets import SplitName
from leadline.server.errors import InvalidArgumentError
from leadline.server.live.broadcast import KEEPALIVE, Broadcast, Message, Watcher
from leadline.server.live.details import Cell, Details
from leadline.server.live.files import PAGE, read_files
from leadline.server.serving.examples import ExampleRef

_LOG = structlog.get_logger(__name__)

_EPOCH = r"/live/v1/jobs/{job:[0-9a-z]{1,32}}/epochs/{epoch:[0-9]{1,9}}"
_IMAGE = r"/live/v1/images/{fingerprint:[0-9a-f]{64}}/{split:test|train}/{index:[0-9]{1,9}}.png"

# The URL of an image contains the hash of its dataset, so its content never changes.
_IMMUTABLE = "private, max-age=31536000, immutable"

# Browsers revalidate a file of the page each time, by its ETag.
_REVALIDATE = "no-cache"

# Tells browsers to reconnect this many milliseconds after the end of a stream.
_RETRY = b"retry: 1000\n\n"

# A stream ends if its page reads nothing for this long.
_STALL_SECONDS = 5.0

# The routes have the same limit.
_MAX_DIGITS = 9


class LiveRoutes:
    """The page's routes and their handlers."""

    def __init__(self, broadcast: Broadcast, details: Details) -> None:
        self._broadcast = broadcast
        self._details = details
        self._files = read_files()

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """The handler of each path."""
        return (
            web.get("/", self._page),
            web.get("/live/files/{name}", self._file),
            web.get("/live/v1/events", self._events),
            web.get("/live/v1/jobs/{job:[0-9a-z]{1,32}}", self._job),
            web.get(f"{_EPOCH}/confusion", self._confusion),
            web.get(f"{_EPOCH}/examples", self._examples),
            web.get(_IMAGE, self._image),
        )

    async def _page(self, request: web.Request) -> web.Response:
        return self._send_file(request, PAGE)

    async def _file(self, request: web.Request) -> web.Response:
        return self._send_file(request, request.match_info["name"])

    def _send_file(self, request: web.Request, name: str) -> web.Response:
        file = self._files.get(name)
        if file is None:
            raise web.HTTPNotFound(text=f"the page has no file {name[:100]}\n")
        if _matches(request, file.tag):
            return _not_modified(file.tag, _REVALIDATE)
        response = web.Response(body=file.body, content_type=file.content_type, charset="utf-8")
        return _tagged(response, file.tag, _REVALIDATE)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        watcher = Watcher(host=request.remote or "", disconnect=partial(_abort, request))
        messages = self._broadcast.watch(request.headers.get("Last-Event-ID"), watcher)
        async with aclosing(messages):
            # Before the response begins, so that an error can still set the status.
            first = await anext(messages, KEEPALIVE)
            response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
            await response.prepare(request)
            if request.method != hdrs.METH_HEAD:
                await _send(request, response, first, messages)
        return response

    async def _job(self, request: web.Request) -> web.Response:
        return _json(await self._details.job(request.match_info["job"]))

    async def _confusion(self, request: web.Request) -> web.Response:
        return _json(await self._details.confusion(*_checkpoint(request)))

    async def _examples(self, request: web.Request) -> web.Response:
        return _json(await self._details.examples(*_checkpoint(request), _cell(request)))

    async def _image(self, request: web.Request) -> web.Response:
        path = request.match_info
        split: SplitName = "train" if path["split"] == "train" else "test"
        example = ExampleRef(fingerprint=path["fingerprint"], split=split, index=int(path["index"]))
        tag = f"{example.fingerprint}-{split}-{example.index}"
        if _matches(request, tag):
            return _not_modified(tag, _IMMUTABLE)
        try:
            png = await self._details.image(example)
        except InvalidArgumentError as error:
            raise web.HTTPNotFound(text=f"{error}\n") from error
        return _tagged(web.Response(body=png, content_type="image/png"), tag, _IMMUTABLE)


def absent(reason: str) -> Iterable[web.AbstractRouteDef]:
    """The routes of a server that does not show the page, which return `reason`."""

    async def refuse(request: web.Request) -> web.Response:
        del request
        raise web.HTTPNotFound(text=f"{reason}\n")

    return (web.get("/", refuse),)


def _json(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")


def _checkpoint(request: web.Request) -> tuple[str, int]:
    return request.match_info["job"], int(request.match_info["epoch"])


def _cell(request: web.Request) -> Cell:
    numbers = {name: _number(name, value) for name, value in request.query.items()}
    if unknown := set(numbers) - {"true", "taken", "offset"}:
        raise InvalidArgumentError.of(min(unknown), "is not a parameter: use true, taken or offset")
    return Cell(**numbers)


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal()) or len(value) > _MAX_DIGITS:
        raise InvalidArgumentError.of(name, f"must be a whole number, is {value[:20]!r}")
    return int(value)


def _event(message: Message) -> bytes:
    offset = "" if message.id is None else f"id: {message.id}\n"
    return f"{offset}event: {message.kind}\ndata: {message.data}\n\n".encode()


def _abort(request: web.Request) -> None:
    """Closes a connection at once, even if it has bytes left to send."""
    if request.transport is not None:
        request.transport.abort()


async def _send(
    request: web.Request,
    response: web.StreamResponse,
    first: Message,
    messages: AsyncGenerator[Message, None],
) -> None:
    """Sends messages until they end, the page disconnects, or it stops reading."""
    try:
        await _write(response, _RETRY + _event(first))
        async for message in messages:
            await _write(response, _event(message))
    except ConnectionResetError:
        _LOG.debug("a live page is gone")
    except TimeoutError:
        _LOG.warning("a live page does not read", seconds=_STALL_SECONDS)
        _abort(request)


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_STALL_SECONDS):
        await response.write(data)


def _matches(request: web.Request, tag: str) -> bool:
    """Whether the browser has the content with this tag."""
    return any(etag.value in {tag, "*"} for etag in request.if_none_match or ())


def _not_modified(tag: str, cache: str) -> web.Response:
    return _tagged(web.Response(status=304), tag, cache)


def _tagged(response: web.Response, tag: str, cache: str) -> web.Response:
    response.headers[hdrs.CACHE_CONTROL] = cache
    response.etag = ETag(value=tag)
    return response
