"""Audits calls: which are recorded, and which resources their messages name."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from leadline.server.access.audit import AuditLog
from leadline.server.errors import PermissionDeniedError, ServiceError
from leadline.server.services.ownership import owner_in_call
from leadline.server.transport.call import Call

# Methods that change nothing; others are changes, also those that are yet to come.
_READS = re.compile(
    r"/[\w.]+/(Get|List|Watch|Predict|Export|Compare|Check|Server|Model|Repository(?=Index)"
    r"|(System|Cuda)SharedMemory|TraceSetting|LogSettings)\w*"
)

# The exact form of the names that this server gives: nothing else that a caller has sent may
# reach the log, even if it looks like the name of a resource.
_NAME = re.compile(r"(jobs|sweeps|models)/[0-9bcdfghjkmnpqrstvwxyz]{10}(/epochs/[1-9][0-9]{0,8})?")
_MOST_NAMES = 20

_DENIED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)

# How deeply messages of a request may be nested to be read.
_MOST_DEPTH = 2


@cache
def is_read(path: str) -> bool:
    """Whether a method changes nothing."""
    return _READS.fullmatch(path) is not None


class CallAudit:
    """Records the calls of one process: each once, at its first response or else at its end."""

    def __init__(
        self, log: AuditLog, *, with_reads: bool, is_on: Callable[[], bool] = lambda: True
    ) -> None:
        """Makes an audit.

        Args:
            log: the log.
            with_reads: whether it has not only changes and denied calls.
            is_on: whether calls are recorded now.
        """
        self._log = log
        self._is_on = is_on
        self._with_reads = with_reads

    def start(self, call: Call, path: str) -> "CallRecord":
        """The record of a call of this method, which is yet to be made."""
        if not self._is_on():
            return NO_RECORD
        only_denied = not self._with_reads and is_read(path)
        return CallRecord(self, call, path, only_denied=only_denied)

    def record(
        self,
        call: Call,
        path: str,
        *,
        request: Any = None,
        response: Any = None,
        error: Exception | None = None,
    ) -> None:
        """Records a call.

        Args:
            call: the call.
            path: its method's path; "" if there is no such method, because callers choose paths.
            request: its request, if it has a single one.
            response: its first response, if there is one.
            error: the error that it ends with, if there is one.
        """
        if not call.peer or not self._is_on():  # another process of the server, for itself
            return
        code = call.end_of_cancelled[0] if call.is_cancelled else call.response.code
        is_denied = code in _DENIED
        self._log.record(
            "call",
            who=call.identity.name,
            role=call.identity.role.name.lower() if call.identity.name else None,
            peer=call.peer,
            method=path,
            resources=_names(request) or _names(response),
            owner=owner_in_call.get(),
            code=code.name,
            reason=error.reason if isinstance(error, ServiceError) else None,
            denied=is_denied or None,
        )


class CallRecord:
    """The record of a call in flight."""

    def __init__(self, audit: CallAudit, call: Call, path: str, *, only_denied: bool) -> None:
        self._audit = audit
        self._call = call
        self._path = path
        self._only_denied = only_denied
        self._request: Any = None
        self._is_made = False

    def take(self, request: Any) -> None:
        """Keeps the request until the record is made."""
        if not self._only_denied:
            self._request = request

    def make(self, response: Any = None, error: Exception | None = None) -> None:
        """Makes the record, unless it is made, or not wanted."""
        if self._is_made or (self._only_denied and not isinstance(error, PermissionDeniedError)):
            return
        self._is_made = True
        self._audit.record(
            self._call, self._path, request=self._request, response=response, error=error
        )
        self._request = None


class _NoRecord(CallRecord):
    """In place of a record where there is no audit log."""

    def __init__(self) -> None:
        pass

    def take(self, request: Any) -> None:
        pass

    def make(self, response: Any = None, error: Exception | None = None) -> None:
        pass


NO_RECORD = _NoRecord()


def _names(message: Any) -> list[str]:
    return list(islice(dict.fromkeys(names_in(message)), _MOST_NAMES))


def names_in(message: Any, depth: int = _MOST_DEPTH) -> Iterator[str]:
    """The names of resources in the fields of a message that hold one text."""
    if not isinstance(message, Message):
        return
    for field, value in message.ListFields():
        if field.is_repeated:
            continue
        if field.type == FieldDescriptor.TYPE_STRING and _NAME.fullmatch(value):
            yield value
        elif field.type == FieldDescriptor.TYPE_MESSAGE and depth > 1:
            yield from names_in(value, depth - 1)
