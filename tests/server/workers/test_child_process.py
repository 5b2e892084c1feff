"""A child process: its pipes, its end, and its cleanup."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from leadline.server.workers.child_process import ChildProcess


async def spawn(program: str) -> ChildProcess:
    return await ChildProcess.spawn(
        [sys.executable, "-c", program], environment=dict(os.environ), line_limit=1_000
    )


async def write_much(child: ChildProcess) -> None:
    for _ in range(100):
        child.stdin.write(b"x" * 100_000)
        await child.stdin.drain()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_what_is_written_is_read_and_what_is_printed_is_told() -> None:
    child = await spawn(
        "import sys; line = sys.stdin.readline(); print(line.upper(), end='', flush=True);"
        "print('logged', file=sys.stderr); sys.exit(7)"
    )

    child.stdin.write(b"hello\n")
    await child.stdin.drain()

    assert await child.stdout.readline() == b"HELLO\n"
    assert await child.stderr.read() == b"logged\n"
    assert await child.stdout.read() == b""
    assert await child.wait() == 7
    assert child.returncode == 7


async def test_a_killed_child_tells_its_signal_and_killing_it_again_is_no_error() -> None:
    child = await spawn("import time; time.sleep(600)")
    assert child.returncode is None

    child.kill()
    child.kill()

    assert await child.wait() == -signal.SIGKILL
    child.kill()


async def test_writing_to_a_child_that_is_gone_is_an_error() -> None:
    child = await spawn("")
    await child.wait()

    with pytest.raises(ConnectionError):
        await write_much(child)


async def test_a_child_leaves_no_file_open() -> None:
    first = await spawn("")
    await first.wait()
    first.close()
    await asyncio.sleep(0)
    before = open_files()

    for _ in range(5):
        child = await spawn("print('x')")
        await child.stdout.read()
        await child.wait()
        child.close()
    for _ in range(3):  # the transports close in this time
        await asyncio.sleep(0)

    assert open_files() == before


async def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        await ChildProcess.spawn(["/no/such/program"], environment={}, line_limit=1_000)
