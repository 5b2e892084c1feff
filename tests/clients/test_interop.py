"""gRPC's interoperability tests, with the client of gRPC for Ruby and, for its missing cases,
others.

`docs/clients.md` lists the cases.
"""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import pytest

from clients.conftest import TRANSPORTS
from clients.interop import TEST_SERVICE, interop_server
from clients.tools import buf, grpcurl, ruby
from docs.pages import DOCS, rows, section

# The cases of gRPC's own client, without those for encryption and credentials.
CASES = (
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "custom_metadata",
    "status_code_and_message",
    "unimplemented_method",
    "unimplemented_service",
)

# The cases for which the test service must see the compressed flag of a message.
COMPRESSED_CASES = ("client_compressed_unary", "client_compressed_streaming")

# The status message of special_status_message, a case that gRPC's client for Ruby lacks.
SPECIAL_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"


@cache
def official_client() -> tuple[str, str]:
    """The command of the client that gRPC for Ruby includes."""
    interpreter = ruby()
    find = "print Gem::Specification.find_by_name('grpc').gem_dir"
    folder = subprocess.run(
        [interpreter, "-e", find], check=True, capture_output=True, text=True
    ).stdout
    return interpreter, f"{folder}/src/ruby/pb/test/client.rb"


@pytest.fixture
async def port(transport: str) -> AsyncIterator[int]:
    """The port of a server of the test service."""
    async with interop_server(transport) as port:
        yield port


async def output_of(*command: str | Path) -> tuple[int | None, str]:
    """Runs a program, and returns its exit status and its output."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), timeout=60)
    return process.returncode, output.decode()


async def run_case(case: str, port: int) -> None:
    status, output = await output_of(
        *official_client(),
        "--server_host=127.0.0.1",
        f"--server_port={port}",
        f"--test_case={case}",
    )

    assert status == 0, output
    assert f'"OK: {case}"' in output


@pytest.mark.parametrize("case", CASES)
async def test_the_client_of_grpc_passes(port: int, case: str) -> None:
    await run_case(case, port)


@pytest.mark.parametrize("transport", ["h2corn"], indirect=True)
@pytest.mark.parametrize("case", COMPRESSED_CASES)
async def test_the_client_of_grpc_passes_with_compression(port: int, case: str) -> None:
    await run_case(case, port)


def test_the_page_lists_the_cases() -> None:
    table = rows(section(DOCS / "clients.md", "Interoperability tests of gRPC"))

    assert table == [
        ["case", *(f"`{transport}`" for transport in TRANSPORTS)],
        *([f"`{case}`", "passes", "passes"] for case in CASES),
        *([f"`{case}`", "passes", "not run"] for case in COMPRESSED_CASES),
    ]


ECHO_STATUS = json.dumps({"response_status": {"code": 2, "message": SPECIAL_MESSAGE}})


async def test_a_special_status_message_reaches_grpcurl(port: int) -> None:
    target, method = f"127.0.0.1:{port}", f"{TEST_SERVICE}/UnaryCall"

    status, output = await output_of(
        grpcurl(), "-plaintext", "-format-error", "-d", ECHO_STATUS, target, method
    )

    assert status == 64 + 2, output
    assert json.loads(output)["message"] == SPECIAL_MESSAGE


async def test_a_special_status_message_reaches_buf(port: int) -> None:
    url = f"http://127.0.0.1:{port}/{TEST_SERVICE}/UnaryCall"

    status, output = await output_of(buf(), "curl", "--protocol", "grpc", "-d", ECHO_STATUS, url)

    assert status == 2 << 3, output
    assert json.loads(output)["message"] == SPECIAL_MESSAGE


async def test_half_a_duplex_answers_after_the_last_request(port: int) -> None:
    url = f"http://127.0.0.1:{port}/{TEST_SERVICE}/HalfDuplexCall"
    requests = "".join(json.dumps({"response_parameters": [{"size": size}]}) for size in (3, 1))

    status, output = await output_of(buf(), "curl", "--protocol", "grpc", "-d", requests, url)

    assert status == 0, output
    assert output.count('"body"') == 2
