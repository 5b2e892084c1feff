"""Calls between processes, over both ends of one socket in this process."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import pytest

from leadline.server.errors import ResourceExhaustedError, UnavailableError
from leadline.server.identity import UNAUTHENTICATED, Identity, Role
from leadline.server.transport.call import DEADLINE_EXCEEDED, Call
from leadline.server.transport.calls import Calls
from leadline.server.transport.links import _HEAD, _MESSAGE, Link, Reply, _framed

CALLER = Identity("ci", Role.TRAINER)


class Echo:
    """Answers with what it is sent, and with its caller."""

    is_unary = True

    async def answer(self, call: Call) -> bytes:
        message = await call.messages.read()
        assert message is not None
        assert await call.messages.read() is None
        return bytes(message) + call.peer.encode() + repr(call.identity).encode()


class Failing:
    """Ends with a status that has trailing metadata."""

    is_unary = True

    async def answer(self, call: Call) -> None:
        await call.response.start([("early", "1")])
        call.response.set_status(
            grpc.StatusCode.NOT_FOUND, "no ümlaut here", [("details-bin", b"\0\xff")]
        )


@dataclass
class Endless:
    """Sends messages until it is cancelled."""

    sent: int = 0
    began: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    end: tuple[grpc.StatusCode, str] | None = None
    is_unary: bool = False

    async def answer(self, call: Call) -> None:
        self.began.set()
        try:
            while True:
                await call.response.send(bytes(1 << 16))
                self.sent += 1
        except asyncio.CancelledError:
            self.end = call.end_of_cancelled
            self.ended.set()
            raise


@pytest.fixture
def endless() -> Endless:
    return Endless()


@pytest.fixture
async def links(endless: Endless) -> AsyncIterator[tuple[Link, Link]]:
    """The end of the caller, which allows 500 calls, and that of the answerer."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller, answerer = (Link(end, max_calls=500) for end in ends)
    caller.open(Calls({}))
    answerer.open(Calls({"/echo": Echo(), "/failing": Failing(), "/endless": endless}))
    yield caller, answerer
    caller.close()
    answerer.close()


async def test_many_calls_at_once_are_answered_each_with_its_own(links: tuple[Link, Link]) -> None:
    caller, _ = links

    answers = await asyncio.gather(*(caller.ask("/echo", b"%d" % n) for n in range(500)))

    assert answers == [b"%d" % n + repr(UNAUTHENTICATED).encode() for n in range(500)]


async def test_a_large_message_arrives_whole_in_both_directions(links: tuple[Link, Link]) -> None:
    caller, _ = links
    message = bytes(range(256)) * (1 << 16)

    async with caller.call(
        "/echo", message, reply=Reply(), identity=CALLER, peer="ipv4:1.2.3.4:5"
    ) as responses:
        answers = [response async for response in responses]

    assert answers == [message + b"ipv4:1.2.3.4:5" + repr(CALLER).encode()]


async def test_a_status_arrives_with_its_message_and_metadata(links: tuple[Link, Link]) -> None:
    caller, _ = links
    reply = Reply()

    async with caller.call("/failing", b"", reply=reply, identity=CALLER) as responses:
        assert [response async for response in responses] == []

    assert reply.code is grpc.StatusCode.NOT_FOUND
    assert reply.message == "no ümlaut here"
    assert reply.trailing == (("details-bin", b"\0\xff"),)
    with pytest.raises(UnavailableError, match="no ümlaut here"):
        await caller.ask("/failing")


async def test_a_call_ends_at_its_deadline_in_the_other_process(
    links: tuple[Link, Link], endless: Endless
) -> None:
    caller, _ = links
    reply = Reply()

    async with asyncio.timeout(10):
        async with caller.call(
            "/endless", b"", reply=reply, identity=UNAUTHENTICATED, seconds=0.05
        ) as responses:
            async for _ in responses:
                pass
        await endless.ended.wait()

    assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert endless.end == DEADLINE_EXCEEDED


async def test_a_request_is_read_whole_before_its_method_answers() -> None:
    shared, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    answerer = Link(ours, max_calls=1)
    answerer.open(Calls({"/failing": Failing()}))
    kept, passed = socket.socketpair()
    with passed:
        socket.send_fds(shared, [b"call"], [passed.fileno()])
    reader, writer = await asyncio.open_unix_connection(sock=kept)
    known = {"path": "/failing", "peer": "", "seconds": None, "identity": ["", Role.ADMIN]}
    head = json.dumps(known).encode()

    writer.write(_framed(_HEAD, head))
    answering = asyncio.create_task(reader.read())
    await asyncio.wait({answering}, timeout=0.2)
    assert not answering.done()
    writer.write(_framed(_MESSAGE, b"late"))

    assert b"no \\u00fcmlaut here" in await asyncio.wait_for(answering, 10)
    writer.close()
    answerer.close()
    shared.close()


async def test_a_method_waits_for_a_caller_who_does_not_read_and_ends_with_it(
    links: tuple[Link, Link], endless: Endless
) -> None:
    caller, _ = links
    async with asyncio.timeout(10):
        async with caller.call("/endless", b"", reply=Reply(), identity=CALLER) as responses:
            async for _ in responses:
                break
            await asyncio.sleep(0.1)
            sent = endless.sent
            await asyncio.sleep(0.1)
            assert endless.sent == sent < 100
        await endless.ended.wait()

    assert endless.end is not None
    assert endless.end[0] is grpc.StatusCode.CANCELLED


async def test_the_deadline_is_that_of_the_call(links: tuple[Link, Link], endless: Endless) -> None:
    caller, _ = links
    reply = Reply()

    async with (
        asyncio.timeout(10),
        caller.call("/endless", b"", reply=reply, identity=CALLER, seconds=0.1) as responses,
    ):
        async for _ in responses:
            pass

    assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert endless.end is not None
    assert endless.end[0] is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_call_beyond_the_limit_is_refused() -> None:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller, answerer = (Link(end, max_calls=1) for end in ends)
    answerer.open(Calls({"/echo": Echo()}))

    async with caller.call("/echo", b"", reply=Reply(), identity=CALLER):
        with pytest.raises(ResourceExhaustedError) as caught:
            await caller.ask("/echo")
    assert caught.value.reason == "TOO_MANY_CALLS"
    assert await caller.ask("/echo") == repr(UNAUTHENTICATED).encode()
    caller.close()
    answerer.close()


async def test_the_end_of_the_other_process_ends_the_calls_to_it(
    links: tuple[Link, Link], endless: Endless
) -> None:
    caller, answerer = links
    calling = asyncio.create_task(caller.ask("/endless"))
    await asyncio.wait_for(endless.began.wait(), 10)

    answerer.close()

    with pytest.raises(UnavailableError, match="has ended"):
        await asyncio.wait_for(calling, 10)
    await asyncio.wait_for(caller.closed.wait(), 10)
    with pytest.raises(UnavailableError):
        await caller.ask("/echo")
