"""The transport on a real port, with gRPC's own client and with bare HTTP/2."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from itertools import repeat
from socket import SOCK_STREAM
from typing import Any

import grpc
import pytest
from grpc import aio

from leadline.server.errors import InvalidArgumentError
from leadline.server.transport.call import Call
from leadline.server.transport.calls import Calls, Method
from leadline.server.transport.context import CallContext
from leadline.server.transport.listener import Listener, ListenerOptions
from leadline.server.transport.transports import make_listener
from support import http2_frames as http2
from support.bare_http2 import BareConnection, answer_to

_LIMIT = 1 << 20
_OPTIONS = ListenerOptions(
    max_message_bytes=_LIMIT, max_message_memory_bytes=256 * _LIMIT, grace_seconds=0
)
GRPC = [(b"content-type", b"application/grpc")]

h2corn_only = pytest.mark.parametrize("transport", ["h2corn"], indirect=True)
grpcio_only = pytest.mark.parametrize("transport", ["grpcio"], indirect=True)


class Echo:
    """Answers with the request."""

    is_unary = True

    async def answer(self, call: Call) -> bytes:
        message = await call.messages.read()
        assert message is not None
        return bytes(message)


class EchoStream:
    """Sends back each message of a stream as it comes."""

    is_unary = False

    async def answer(self, call: Call) -> None:
        while (message := await call.messages.read()) is not None:
            await call.response.send(bytes(message))


@dataclass
class Sleeper:
    """Never answers, and records how it ended."""

    began: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    end: grpc.StatusCode | None = None
    is_unary: bool = True

    async def answer(self, call: Call) -> bytes:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.end = call.end_of_cancelled[0]
            self.ended.set()
            raise
        return b""


class Telling:
    """Sends data about its call in initial and trailing metadata."""

    is_unary = True

    async def answer(self, call: Call) -> bytes:
        context = CallContext(call)
        await context.send_initial_metadata((("first", "1"), ("raw-bin", b"\0\xff")))
        sent = dict(context.invocation_metadata())
        context.set_trailing_metadata((("last", str(sent["asked"])), ("peer", context.peer())))
        return b"" if context.time_remaining() is None else b"deadline"


class Aborting:
    """Ends with an error in the middle of the request stream."""

    is_unary = False

    async def answer(self, call: Call) -> None:
        await call.messages.read()
        await call.response.send(b"one")
        await CallContext(call).abort(
            grpc.StatusCode.DATA_LOSS, "50 % is lost: 数", (("why-bin", b"\1"),)
        )


class Flooding:
    """Sends endlessly, and counts."""

    is_unary = False

    def __init__(self) -> None:
        self.sent = 0

    async def answer(self, call: Call) -> None:
        while True:
            await call.response.send(bytes(100_000))
            self.sent += 1


@dataclass
class Sending:
    """Sends endlessly, and records what ended it."""

    ended: list[BaseException] = field(default_factory=list)
    is_unary: bool = False

    async def answer(self, call: Call) -> None:
        try:
            while True:
                await call.response.send(b"x")
                await asyncio.sleep(0)
        except BaseException as error:
            self.ended.append(error)
            raise


class Asking:
    """Returns what is wrong with its metadata."""

    is_unary = True

    async def answer(self, call: Call) -> bytes:
        try:
            return repr(CallContext(call).invocation_metadata()).encode()
        except InvalidArgumentError as error:
            return str(error).encode()


@dataclass
class Served:
    """A server and a channel to it."""

    port: int
    channel: Any
    calls: Calls
    listener: Listener
    sleeper: Sleeper
    flooding: Flooding
    sending: Sending

    async def unary(self, name: str, message: bytes = b"", **options: Any) -> bytes:
        answer: bytes = await self.channel.unary_unary(f"/t.T/{name}")(
            message, timeout=10, **options
        )
        return answer


@pytest.fixture
async def served(transport: str) -> AsyncIterator[Served]:
    sleeper, flooding, sending = Sleeper(), Flooding(), Sending()
    methods: dict[str, Method] = {
        "/t.T/Echo": Echo(),
        "/t.T/EchoStream": EchoStream(),
        "/t.T/Sleep": sleeper,
        "/t.T/Tell": Telling(),
        "/t.T/Abort": Aborting(),
        "/t.T/Flood": flooding,
        "/t.T/Send": sending,
        "/t.T/Ask": Asking(),
    }
    calls = Calls(methods)
    listener = make_listener(transport, calls, _OPTIONS)
    port = await listener.start("127.0.0.1", 0)
    options = [("grpc.max_receive_message_length", -1)]
    async with aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield Served(port, channel, calls, listener, sleeper, flooding, sending)
        await listener.stop()


@pytest.mark.parametrize("size", [0, 1, 16_384, 70_000, 500_000])
@pytest.mark.parametrize("compression", list(grpc.Compression))
async def test_messages_of_any_size_and_encoding_come_back(
    served: Served, size: int, compression: grpc.Compression
) -> None:
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)

    assert await served.unary("Echo", message, compression=compression) == message


async def test_many_calls_at_once_each_get_their_own_answer(served: Served) -> None:
    messages = [bytes([index % 256]) * (index * 37 % 9_000) for index in range(500)]

    answers = await asyncio.gather(*(served.unary("Echo", message) for message in messages))

    assert answers == messages


async def test_streams_go_both_ways_at_once(served: Served) -> None:
    call = served.channel.stream_stream("/t.T/EchoStream")(timeout=10)

    for index in range(50):
        await call.write(b"%d" % index)
        assert await call.read() == b"%d" % index
    await call.done_writing()

    assert await call.read() is aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_metadata_travels_both_ways(served: Served) -> None:
    call = served.channel.unary_unary("/t.T/Tell")(b"", metadata=(("asked", "so"),), timeout=10)

    assert await call == b"deadline"
    assert dict(await call.initial_metadata()) == {"first": "1", "raw-bin": b"\0\xff"}
    trailing = dict(await call.trailing_metadata())
    assert trailing["last"] == "so"
    assert str(trailing["peer"]).startswith("ipv4:127.0.0.1:")


async def test_an_error_in_the_middle_of_a_stream_reaches_its_caller_whole(served: Served) -> None:
    call = served.channel.stream_stream("/t.T/Abort")(timeout=10)
    await call.write(b"")

    assert await call.read() == b"one"
    with pytest.raises(aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    assert caught.value.details() == "50 % is lost: 数"
    assert dict(await call.trailing_metadata())["why-bin"] == b"\1"


async def test_a_stream_that_ends_while_it_is_written_to_keeps_its_status(served: Served) -> None:
    # With the synchronous client, because the asyncio client loses the status.
    def codes() -> set[grpc.StatusCode]:
        with grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            ask: Any = channel.stream_stream("/t.T/Abort")
            calls = [ask(repeat(bytes(200_000)), timeout=10) for _ in range(20)]
            for call in calls:
                with pytest.raises(grpc.RpcError):
                    list(call)
            return {call.code() for call in calls}

    assert await asyncio.to_thread(codes) == {grpc.StatusCode.DATA_LOSS}


async def test_a_passed_deadline_ends_the_method_and_says_so(served: Served) -> None:
    # With bare HTTP/2, because gRPC's own client ends the call itself.
    answer = await answer_to(served.port, "/t.T/Sleep", [(b"grpc-timeout", b"50m")])

    assert answer.trailers[b"grpc-status"] == b"4"
    await asyncio.wait_for(served.sleeper.ended.wait(), 10)
    assert served.sleeper.end is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_caller_who_goes_ends_the_method(served: Served) -> None:
    call = served.channel.unary_unary("/t.T/Sleep")(b"")
    await served.sleeper.began.wait()

    call.cancel()

    await asyncio.wait_for(served.sleeper.ended.wait(), 10)
    assert served.sleeper.end is grpc.StatusCode.CANCELLED
    await until(lambda: served.calls.in_flight == 0)


async def test_a_connection_that_breaks_ends_its_methods(served: Served) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(
        http2.PREFACE + http2.settings() + http2.headers(1, "/t.T/Sleep") + http2.message(1, b"")
    )
    await served.sleeper.began.wait()

    writer.transport.abort()

    await asyncio.wait_for(served.sleeper.ended.wait(), 10)


async def test_a_caller_who_does_not_read_is_not_written_to_without_end(served: Served) -> None:
    call = served.channel.unary_stream("/t.T/Flood")(b"")
    await call.read()
    await until_still(lambda: served.flooding.sent)
    # The bytes that fit into the windows of HTTP/2 and the buffers of the two sockets.
    assert served.flooding.sent < 500

    before = served.flooding.sent
    for _ in range(before):
        await call.read()
    await until(lambda: served.flooding.sent > before)
    call.cancel()


async def test_a_message_above_the_limit_is_refused_and_the_connection_lives(
    served: Served,
) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await served.unary("Echo", bytes(_LIMIT + 1))

    # Over h2corn, methods report it like all errors; this method does not.
    assert caught.value.code() in {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
    assert await served.unary("Echo", b"x") == b"x"


async def test_a_method_that_there_is_not_is_unimplemented(served: Served) -> None:
    with pytest.raises(aio.AioRpcError, match="there is no method") as caught:
        await served.unary("Other")

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("method", "fields", "status", "why"),
    [
        (b"GET", GRPC, b"405", b"POST"),
        (b"POST", [(b"content-type", b"text/plain")], b"415", b"application/grpc"),
        (b"POST", [(b"content-type", b"application/grpc-web")], b"415", b"application/grpc"),
        (b"POST", [], b"415", b"application/grpc"),
        (b"POST", [*GRPC, (b"grpc-timeout", b"soon")], b"400", b"malformed"),
        (b"POST", [*GRPC, (b"grpc-timeout", b"1S"), (b"grpc-timeout", b"2S")], b"400", b"twice"),
    ],
)
@h2corn_only
async def test_what_is_no_call_of_grpc_is_refused_as_http(
    served: Served, method: bytes, fields: list[tuple[bytes, bytes]], status: bytes, why: bytes
) -> None:
    answer = await answer_to(served.port, "/t.T/Echo", fields, method=method, content_type=None)

    assert answer.headers[b":status"] == status
    assert why in answer.body


@h2corn_only
async def test_a_call_that_takes_no_trailers_is_refused(served: Served) -> None:
    answer = await answer_to(served.port, "/t.T/Echo", [], takes_trailers=False)

    assert answer.headers[b":status"] == b"400"
    assert b"te: trailers" in answer.body


async def test_paths_are_taken_as_they_are(served: Served) -> None:
    answer = await answer_to(served.port, "/t.T/%45cho", [])

    assert answer.trailers[b"grpc-status"] == b"12"


async def test_paths_that_are_no_text_harm_nobody(served: Served) -> None:
    answer = await answer_to(served.port, b"/t.T/\xff", [])

    assert answer.reset or answer.trailers[b"grpc-status"] == b"12"
    assert await served.unary("Echo", b"x") == b"x"


async def test_callers_who_go_while_they_are_sent_to_are_no_errors(served: Served) -> None:
    for _ in range(100):
        call = served.channel.unary_stream("/t.T/Send")(b"")
        await call.read()
        call.cancel()

    await until(lambda: len(served.sending.ended) == 100)
    assert {type(error) for error in served.sending.ended} == {asyncio.CancelledError}


async def test_once_it_stops_no_connection_is_taken(served: Served, transport: str) -> None:
    options = ListenerOptions(max_message_bytes=_LIMIT, grace_seconds=1)
    listener = make_listener(transport, served.calls, options)
    port = await listener.start("127.0.0.1", 0)
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        sleep: Any = channel.unary_unary("/t.T/Sleep")
        call = sleep(b"")
        await served.sleeper.began.wait()

        stopping = asyncio.create_task(listener.stop())

        await asyncio.sleep(0.1)
        assert not stopping.done()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(aio.AioRpcError, match="shuts down"):
            await call
    await stopping


async def test_a_port_that_is_taken_is_an_error(served: Served, transport: str) -> None:
    with pytest.raises(OSError, match="in use"):
        await make_listener(transport, served.calls, _OPTIONS).start("127.0.0.1", served.port)


@pytest.mark.parametrize("transport", ["grpcio"], indirect=True)
def test_grpcio_serves_where_h2corn_cannot_be_imported(
    transport: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "h2corn", None)
    monkeypatch.delitem(sys.modules, "leadline.server.transport.h2corn", raising=False)

    listener = make_listener("h2corn", Calls({}), _OPTIONS)

    assert type(listener) is type(make_listener(transport, Calls({}), _OPTIONS))
    assert "h2corn cannot be imported" in capsys.readouterr().out


async def test_every_address_of_a_host_is_served(served: Served, transport: str) -> None:
    listener = make_listener(transport, served.calls, _OPTIONS)
    port = await listener.start("localhost", 0)
    found = await asyncio.get_running_loop().getaddrinfo("localhost", port, type=SOCK_STREAM)

    for address in {str(one[4][0]) for one in found}:
        _, writer = await asyncio.open_connection(address, port)
        writer.close()
        await writer.wait_closed()

    await listener.stop()


async def test_a_host_that_is_not_known_is_an_error(served: Served, transport: str) -> None:
    with pytest.raises(OSError, match=r"not known|resolution"):
        await make_listener(transport, served.calls, _OPTIONS).start("no-such-host.invalid", 0)


async def test_calls_in_flight_have_their_grace_and_then_end_as_unavailable(served: Served) -> None:
    call = served.channel.unary_unary("/t.T/Sleep")(b"")
    await served.sleeper.began.wait()

    await served.calls.stop(0.05)

    with pytest.raises(aio.AioRpcError, match="shuts down") as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert served.sleeper.end is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(aio.AioRpcError, match="shuts down"):
        await served.unary("Echo")


async def test_malformed_metadata_is_an_error_of_the_caller(served: Served, transport: str) -> None:
    answer = await answer_to(served.port, "/t.T/Ask", [(b"x-bin", b"*")])

    if transport == "grpcio":
        assert b"x-bin" in answer.trailers[b"grpc-message"]
    else:
        assert b"no base64" in answer.body


async def test_keepalive_pings_throw_nobody_out(served: Served) -> None:
    async with BareConnection(served.port) as connection:
        for _ in range(50):
            connection.send(http2.ping())
            await asyncio.sleep(0.002)
        connection.send(http2.headers(1, "/t.T/Echo") + http2.message(1, b"x"))

        await until(lambda: connection.frames[http2.DATA] > 0)

        assert connection.frames[http2.PING] >= 50
        assert not connection.frames[http2.GOAWAY]


@grpcio_only
async def test_cancelled_calls_end_no_other_call_of_their_connection(served: Served) -> None:
    stream = served.channel.stream_stream("/t.T/EchoStream")(timeout=60)
    await stream.write(b"before")
    assert await stream.read() == b"before"

    for _ in range(600):
        served.channel.unary_unary("/t.T/Sleep")(b"").cancel()
        await asyncio.sleep(0.001)

    await stream.write(b"after")
    assert await stream.read() == b"after"
    await until(lambda: served.calls.in_flight == 1)


@h2corn_only
async def test_a_flood_of_resets_ends_its_connection_and_no_other(served: Served) -> None:
    async with BareConnection(served.port) as connection:
        for stream in range(1, 1_001, 2):
            connection.send(
                http2.headers(stream, "/t.T/Sleep")
                + http2.message(stream, b"")
                + http2.reset(stream)
            )

        await until(lambda: connection.frames[http2.GOAWAY] > 0)

    await until(lambda: served.calls.in_flight == 0)
    assert await served.unary("Echo", b"x") == b"x"


async def test_resets_that_a_caller_provokes_leave_no_call_behind(served: Served) -> None:
    """MadeYouReset, CVE-2025-8671: the server itself resets a stream with invalid frames."""
    async with BareConnection(served.port) as connection:
        for stream in range(1, 2_001, 2):
            connection.send(http2.headers(stream, "/t.T/Sleep") + http2.message(stream, b""))
            if stream % 50 == 1:
                await asyncio.sleep(0.001)  # some methods begin, others do not
            connection.send(http2.window_update(stream, 0))

        # grpcio ends the connection at the first one, h2corn each stream.
        await until(lambda: connection.is_closed or connection.frames[http2.RST_STREAM] == 1_000)
        await until(lambda: served.calls.in_flight == 0)
        assert await served.unary("Echo", b"x") == b"x"


async def test_an_old_connection_is_closed_and_its_calls_have_a_grace(
    served: Served, transport: str
) -> None:
    options = replace(
        _OPTIONS, max_connection_age_seconds=0.5, max_connection_age_grace_seconds=1.0
    )
    listener = make_listener(transport, served.calls, options)
    port = await listener.start("127.0.0.1", 0)
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel, BareConnection(port) as old:
        old.send(http2.headers(1, "/t.T/Sleep"))
        echo: Any = channel.unary_unary("/t.T/Echo")
        broken = asyncio.create_task(listener.wait_broken())

        async with asyncio.timeout(20):
            while not old.is_closed:
                # Clients on another connection are not affected.
                assert await echo(b"x", timeout=10) == b"x"
                if not old.frames[http2.GOAWAY]:
                    assert not served.sleeper.ended.is_set()
        await asyncio.wait_for(served.sleeper.ended.wait(), 10)
        assert old.frames[http2.GOAWAY]
        assert not broken.done()
        broken.cancel()
    await listener.stop()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what it waits for is on the other side of a socket
            await asyncio.sleep(0.01)


async def until_still(value: Callable[[], int]) -> None:
    """Waits until a number is constant for half a second."""
    before = -1
    async with asyncio.timeout(20):
        while before != (before := value()):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.5)
