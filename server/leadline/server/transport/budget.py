"""Limits the memory of large requests, in total and for each connection."""

from collections import Counter, deque

from leadline.server.errors import ResourceExhaustedError

_RETRY_SECONDS = 1.0


class MessageBudget:
    """Bytes of messages that are held, in total and for each connection.

    A message is charged as it arrives or is decompressed, not by its declared length,
    which costs a caller nothing. A connection may use half of the total, so a single one
    cannot keep others from sending large messages.
    """

    def __init__(self, total: int, what: str = "messages that are not yet answered") -> None:
        """Makes an empty budget of this many bytes; errors name `what` it is for."""
        self._total = total
        self._what = what
        self._share = total // 2
        self._held = 0
        self._held_by: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """The bytes that are currently charged."""
        return self._held

    def add(self, connection: str, size: int) -> None:
        """Charges bytes to a connection.

        Raises:
            ResourceExhaustedError: the charges exceed the connection's share or the total.
        """
        if self._held_by[connection] + size > self._share:
            raise self._full("this connection's", self._share)
        if self._held + size > self._total:
            raise self._full("all", self._total)
        self._held += size
        self._held_by[connection] += size

    def remove(self, connection: str, size: int) -> None:
        """Releases bytes that were charged."""
        self._held -= size
        self._held_by[connection] -= size
        if not self._held_by[connection]:
            del self._held_by[connection]

    def _full(self, whose: str, limit: int) -> ResourceExhaustedError:
        return ResourceExhaustedError(
            f"{whose} {self._what} would take over {limit} bytes: try again later, or send less "
            "at a time",
            reason="MESSAGE_MEMORY_FULL",
            retry_after=_RETRY_SECONDS,
        )


class Charge:
    """The charge of a message."""

    __slots__ = ("_budget", "_connection", "_size")

    def __init__(self, budget: MessageBudget, connection: str) -> None:
        self._budget = budget
        self._connection = connection
        self._size = 0

    def resize(self, size: int) -> None:
        """Changes the charge to this many bytes.

        Raises:
            ResourceExhaustedError: the budget has no room for these bytes.
        """
        if size > self._size:
            self._budget.add(self._connection, size - self._size)
        elif size < self._size:
            self._budget.remove(self._connection, self._size - size)
        self._size = size


class Charges:
    """The charges of a call's messages that are not answered yet."""

    __slots__ = ("_budget", "_charges", "_connection", "_pending")

    def __init__(self, budget: MessageBudget, connection: str, pending: int) -> None:
        """Makes the charges of a call that processes `pending` messages at a time."""
        self._budget = budget
        self._connection = connection
        self._pending = pending
        self._charges = deque([Charge(budget, connection)])

    @property
    def last(self) -> Charge:
        """The charge of the message that is being read."""
        return self._charges[-1]

    def begin(self) -> None:
        """Begins the charge of the next message; releases the charge of the oldest one."""
        if len(self._charges) >= self._pending:
            self._charges.popleft().resize(0)
        self._charges.append(Charge(self._budget, self._connection))

    def close(self) -> None:
        """Releases all charges when the call has ended."""
        while self._charges:
            self._charges.popleft().resize(0)
