"""A reader of the live page's event stream, like a browser's."""

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Message:
    """One message of the stream."""

    id: str | None
    kind: str
    data: Any


class EventStream:
    """An open stream of messages."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[Message]:
        fields: dict[str, str] = {}
        while line := self._response.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "event" in fields:
                data = json.loads(fields["data"])
                yield Message(fields.get("id"), fields["event"], data)
                fields = {}

    def until(self, is_last: Callable[[Message], bool]) -> list[Message]:
        """Reads messages up to and including the first that `is_last` accepts."""
        messages = []
        for message in self:
            messages.append(message)
            if is_last(message):
                return messages
        raise AssertionError(f"the stream ended after {messages}")


@contextmanager
def open_stream(address: str, after: str | None = None) -> Iterator[EventStream]:
    """Opens the stream of the server at HOST:PORT, after the message with an id."""
    connection = http.client.HTTPConnection(address, timeout=60)
    headers = {} if after is None else {"Last-Event-ID": after}
    connection.request("GET", "/live/v1/events", headers=headers)
    with connection.getresponse() as response:
        assert response.status == http.client.OK, response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        yield EventStream(response)
    connection.close()
