"""TLS on a real port of each transport, and the rotation of its certificates."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from leadline.server import tls
from leadline.server.tls import ClientAuth, TlsCertificates, TlsError, TlsFiles
from leadline.server.transport import h2corn
from leadline.server.transport.call import Call
from leadline.server.transport.calls import Calls
from leadline.server.transport.context import CallContext
from leadline.server.transport.listener import Listener, ListenerOptions
from leadline.server.transport.transports import make_listener
from support.certificates import Authority, Pair, channel_credentials

AUTHORITY, STRANGER = Authority("one"), Authority("another")
PAIR = AUTHORITY.server()
CLIENTS = {
    "none": None,
    "right": AUTHORITY.client("ci", uri="spiffe://example.org/ci"),
    "of a stranger": STRANGER.client("ci"),
    "expired": AUTHORITY.client("ci", days=(-2, -1)),
    "a server's": AUTHORITY.server(),
}
OPTIONS = ListenerOptions(
    max_message_bytes=1 << 20, max_message_memory_bytes=1 << 28, grace_seconds=0
)

h2corn_only = pytest.mark.parametrize("transport", ["h2corn"], indirect=True)


class Certificate:
    """Answers with the caller's certificate."""

    is_unary = True

    async def answer(self, call: Call) -> bytes:
        certificate = (call.certificate or "").encode()
        identities = CallContext(call).peer_identities()
        assert identities == ([certificate] if certificate else None)
        return certificate


class Echo:
    """Sends back each message of a stream as it comes."""

    is_unary = False

    async def answer(self, call: Call) -> None:
        while (message := await call.messages.read()) is not None:
            await call.response.send(bytes(message))


class Flood:
    """Sends endlessly."""

    is_unary = False

    async def answer(self, call: Call) -> None:
        while True:
            await call.response.send(bytes(100_000))


@dataclass
class Served:
    """A listener with TLS, whose files are in `folder`."""

    port: int
    folder: Path
    listener: Listener
    certificates: TlsCertificates

    def channel(self, pair: Pair | None = None, authority: Authority = AUTHORITY) -> Any:
        options = [("grpc.use_local_subchannel_pool", 1)]
        credentials = channel_credentials(authority, pair)
        return aio.secure_channel(f"localhost:{self.port}", credentials, options)

    async def rotate(self, pair: Pair | None = None) -> None:
        """Replaces the server's pair, and waits until it is in force."""
        pair = pair or AUTHORITY.server()
        pair.write(self.folder)
        await until(lambda: self.certificates.current.chain == pair.certificate)

    def certificate_of_new_connections(self) -> bytes:
        """The server's certificate, PEM; blocks."""
        with socket.create_connection(("127.0.0.1", self.port)) as plain:
            context = client_context()
            context.load_verify_locations(cadata=STRANGER.pem.decode())
            with context.wrap_socket(plain, server_hostname="localhost") as secure:
                der = secure.getpeercert(binary_form=True)
                assert der is not None
                return ssl.DER_cert_to_PEM_cert(der).encode()


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    context.set_alpn_protocols(["h2"])
    return context


@asynccontextmanager
async def serving(
    transport: str,
    folder: Path,
    client_auth: ClientAuth = "none",
    options: ListenerOptions = OPTIONS,
) -> AsyncIterator[Served]:
    certificate, key = PAIR.write(folder)
    client_ca = None if client_auth == "none" else AUTHORITY.write(folder)
    files = TlsFiles(certificate=certificate, key=key, client_ca=client_ca, client_auth=client_auth)
    certificates = TlsCertificates(files)
    calls = Calls({"/t.T/Certificate": Certificate(), "/t.T/Echo": Echo(), "/t.T/Flood": Flood()})
    listener = make_listener(transport, calls, replace(options, tls=certificates))
    port = await listener.start("localhost", 0)
    following = asyncio.create_task(certificates.follow())
    try:
        yield Served(port, folder, listener, certificates)
    finally:
        following.cancel()
        await asyncio.wait({following})
        await listener.stop()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_POLL_SECONDS", 0.02)


async def ask(channel: Any, seconds: float = 10) -> str:
    """Returns the caller's certificate as the server sees it, or the name of the status."""
    try:
        answer: bytes = await channel.unary_unary("/t.T/Certificate")(b"", timeout=seconds)
    except aio.AioRpcError as error:
        return error.code().name
    return answer.decode()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("client_auth", ["none", "optional", "required"])
async def test_the_handshake_and_what_the_server_learns_of_the_client(
    transport: str, client_auth: ClientAuth, client: str, tmp_path: Path
) -> None:
    if (transport, client_auth) == ("grpcio", "optional"):
        return  # see below
    pair, expected = CLIENTS[client], "UNAVAILABLE"
    if client_auth == "none" or (client_auth, client) == ("optional", "none"):
        expected = ""
    elif client == "right":
        assert pair is not None
        expected = pair.certificate.decode()
    async with serving(transport, tmp_path, client_auth) as served, served.channel(pair) as channel:
        assert await ask(channel) == expected


async def test_grpcio_refuses_optional_certificates_and_names_the_other_transport(
    tmp_path: Path,
) -> None:
    with pytest.raises(TlsError, match="--transport h2corn"):
        async with serving("grpcio", tmp_path, "optional"):
            pass


async def test_a_client_refuses_a_server_of_another_authority(
    transport: str, tmp_path: Path
) -> None:
    async with serving(transport, tmp_path) as served:
        async with served.channel(authority=STRANGER) as channel:
            assert await ask(channel) == "UNAVAILABLE"
        async with served.channel() as channel:
            assert await ask(channel) == ""


async def test_a_client_of_plain_text_is_refused(transport: str, tmp_path: Path) -> None:
    async with (
        serving(transport, tmp_path) as served,
        aio.insecure_channel(f"localhost:{served.port}") as channel,
    ):
        assert await ask(channel) == "UNAVAILABLE"


async def test_a_client_of_tls_is_refused_by_plain_text(transport: str) -> None:
    listener = make_listener(transport, Calls({}), OPTIONS)
    port = await listener.start("localhost", 0)
    async with aio.secure_channel(f"localhost:{port}", channel_credentials(AUTHORITY)) as channel:
        assert await ask(channel) == "UNAVAILABLE"
    await listener.stop()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_the_version_is_at_least_1_2_and_the_protocol_is_http_2(
    transport: str, tmp_path: Path
) -> None:
    def shake(port: int, version: ssl.TLSVersion) -> tuple[str | None, str | None]:
        context = client_context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return secure.version(), secure.selected_alpn_protocol()

    async with serving(transport, tmp_path) as served:
        for version, name in (
            (ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
            (ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
        ):
            assert await asyncio.to_thread(shake, served.port, version) == (name, "h2")
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.to_thread(shake, served.port, ssl.TLSVersion.TLSv1_1)


async def test_clients_that_never_finish_the_handshake_hold_up_no_others(
    transport: str, tmp_path: Path
) -> None:
    async with serving(transport, tmp_path) as served:
        silent = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(200)]
        for number, sock in enumerate(silent):
            sock.sendall(b"\x16\x03\x01\x02\x00"[: number % 6])  # the beginning of a ClientHello
        async with served.channel() as channel:
            assert await ask(channel) == ""
            await served.rotate()
        async with served.channel() as channel:
            assert await ask(channel) == ""
        for sock in silent:
            sock.close()


async def test_rotations_fail_no_call_and_break_no_stream(transport: str, tmp_path: Path) -> None:
    async with serving(transport, tmp_path) as served:
        channels = [served.channel() for _ in range(5)]
        stop, answers = asyncio.Event(), []
        before: tuple[int, ...] = ()

        async def call(channel: Any) -> None:
            while not stop.is_set():
                answers.append(await ask(channel))
                await asyncio.sleep(0.01)

        calling = [asyncio.create_task(call(channel)) for channel in channels]
        streams = [channel.stream_stream("/t.T/Echo")() for channel in channels for _ in range(4)]
        for number in range(6):
            pair = AUTHORITY.server()
            await served.rotate(pair)
            seen = await asyncio.to_thread(served.certificate_of_new_connections)
            assert seen == pair.certificate
            for stream in streams:
                await stream.write(b"%d" % number)
                assert await stream.read() == b"%d" % number
            before = before or (count("fd"), count("task"))
        stop.set()
        await asyncio.gather(*calling)

        assert len(answers) > 20
        assert set(answers) == {""}
        # Servers without calls have ended; the first one has the streams.
        await until(lambda: count("fd") <= before[0] + 20 and count("task") <= before[1] + 5)
        for stream in streams:
            await stream.done_writing()
            assert await stream.read() is aio.EOF
        for channel in channels:
            await channel.close()


def count(kind: str) -> int:
    """The descriptors ("fd") or threads ("task") of this process."""
    return sum(1 for _ in Path(f"/proc/self/{kind}").iterdir())


async def test_a_removed_authority_counts_no_more(transport: str, tmp_path: Path) -> None:
    async with serving(transport, tmp_path, "required") as served:
        before = [CLIENTS["right"], STRANGER.client("ci")]
        async with served.channel(before[0]) as channel:
            assert "CERTIFICATE" in await ask(channel)

        STRANGER.write(tmp_path)
        await until(lambda: served.certificates.current.client_ca == STRANGER.pem)

        async with served.channel(before[0]) as old, served.channel(before[1]) as new:
            assert await ask(old) == "UNAVAILABLE"
            assert "CERTIFICATE" in await ask(new)


@h2corn_only
async def test_streams_that_outlive_many_rotations_are_told_to_move(
    transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h2corn, "_MOST_RETIRED", 2)
    async with serving(transport, tmp_path) as served:
        channels, streams = [], []
        for number in range(5):
            channels.append(served.channel())
            streams.append(channels[-1].stream_stream("/t.T/Echo")())
            await streams[-1].write(b"x")
            assert await streams[-1].read() == b"x"
            if number < 4:
                await served.rotate()

        for moved in streams[:2]:
            with pytest.raises(aio.AioRpcError, match="new certificates") as caught:
                await moved.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        for stream in streams[2:]:
            await stream.write(b"y")
            assert await stream.read() == b"y"
        for channel in channels:
            await channel.close()


async def test_a_replaced_server_whose_client_does_not_read_ends_with_the_listener(
    transport: str, tmp_path: Path
) -> None:
    async with serving(transport, tmp_path) as served:
        channel = served.channel()
        stream = channel.unary_stream("/t.T/Flood")(b"")
        assert await stream.read()
        await served.rotate()
        async with asyncio.timeout(10):
            await served.listener.stop()
        await channel.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.01)
