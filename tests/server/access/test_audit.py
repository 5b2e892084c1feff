"""The audit log: rotation, full disks, and what a killed process leaves."""

import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.server.access import audit
from leadline.server.access.audit import AuditLog, RotatingFile, path_of_process
from leadline.server.access.audit_reader import read_entries


def open_log(path: Path, *, max_bytes: int = 1 << 20, max_files: int = 3) -> AuditLog:
    return AuditLog(path, max_bytes=max_bytes, max_files=max_files)


def files_of(path: Path) -> list[Path]:
    """The files of a log, the oldest first."""
    older = sorted(path.parent.glob(f"{path.name}.*"), key=lambda file: -int(file.suffix[1:]))
    return [*older, path]


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    batches=st.randoms(use_true_random=False),
    max_bytes=st.integers(1, 60),
    max_files=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_files_keep_their_size_and_hold_the_newest_lines_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    batches: random.Random,
    max_bytes: int,
    max_files: int,
) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    lines = [
        f"{number:02}".ljust(length, "x").encode() + b"\n" for number, length in enumerate(lengths)
    ]
    file = RotatingFile(path, max_bytes=max_bytes, max_files=max_files)
    left = list(lines)
    while left:
        batch = left[: batches.randint(1, 5)]
        left = left[file.write(batch) :]
        if batches.random() < 0.2:  # as after a restart
            file.close()
    file.close()

    parts = [each.read_bytes().splitlines(keepends=True) for each in files_of(path)]
    kept = [line for part in parts for line in part]
    assert len(parts) <= max_files + 1
    assert kept == lines[-len(kept) :]
    for part in parts:
        assert part
        assert sum(map(len, part)) <= max_bytes or len(part) == 1
    for part, later in itertools.pairwise(parts):
        assert sum(map(len, part)) + len(later[0]) > max_bytes


def test_entries_are_read_back_in_order_across_files(tmp_path: Path) -> None:
    path = tmp_path / "audit" / "audit.jsonl"
    log = open_log(path, max_bytes=500)
    for number in range(10):
        log.record("call", who="ann", number=number, owner="", resources=[])
    log.close()

    entries = list(read_entries(path))
    assert [entry["number"] for entry in entries] == list(range(10))
    assert len(files_of(path)) > 1
    assert set(entries[0]) == {"time", "event", "who", "number"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert (log.written, log.lost) == (10, 0)


def test_half_a_line_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"time":"1","event":"call"}\n{"time":"2","ev')
    log = open_log(path)
    log.record("call", who="ann")
    log.close()

    assert [entry.get("who") for entry in read_entries(path)] == [None, "ann"]


def test_a_damaged_line_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"time":"1"}\n\x00\xff\n[]\n{"time":"2"}\n')

    assert [(entry["time"], entry.get("event")) for entry in read_entries(path)] == [
        *(("1", None), ("1", "damaged"), ("1", "damaged"), ("2", None))
    ]


def test_logs_of_serving_processes_are_merged_by_time(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for number, times in enumerate([("1", "4"), ("2", "5"), ("3",)]):
        text = "".join(f'{{"time":"{moment}"}}\n' for moment in times)
        path_of_process(path, number).write_text(text)

    assert [entry["time"] for entry in read_entries(path)] == ["1", "2", "3", "4", "5"]


def test_a_follower_misses_nothing_of_a_log_that_rotates(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = open_log(path, max_bytes=2_000, max_files=40)
    log.record("call", number=0)
    while not path.exists():
        time.sleep(0.01)

    def write() -> None:
        for number in range(1, 600):
            log.record("call", number=number)
            if number % 50 == 0:
                time.sleep(0.05)
        log.close()

    writer = threading.Thread(target=write)
    writer.start()
    followed = read_entries(path, follow=True)
    numbers = [next(followed)["number"] for _ in range(600)]
    writer.join()

    assert numbers == list(range(600))


class FullDisk:
    """Makes writes fail half-way, as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = True
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file: int, data: bytes) -> int:
        if not self.is_full:
            return self._write(file, data)
        if len(data) < 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(file, data[: len(data) - 9])


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    monkeypatch.setattr(audit, "_RETRY_SECONDS", 0.02)
    return FullDisk(monkeypatch)


def test_a_full_disk_delays_lines_and_loses_only_those_beyond_the_queue(
    tmp_path: Path,
    disk: FullDisk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(audit, "_MAX_WAITING", 20)
    path = tmp_path / "audit.jsonl"
    log = open_log(path)
    log.record("call", number=0)
    time.sleep(0.3)  # the thread has it
    for number in range(1, 31):
        log.record("call", number=number)
    assert log.lost == 10
    assert path.read_bytes() == b""
    disk.is_full = False
    log.close()

    assert [entry["number"] for entry in read_entries(path)] == list(range(21))
    assert capsys.readouterr().out.count("cannot be written") == 1


def test_a_server_stops_although_the_disk_is_full(tmp_path: Path, disk: FullDisk) -> None:
    log = open_log(tmp_path / "audit.jsonl")
    log.record("call")
    began = time.monotonic()
    log.close()

    assert time.monotonic() - began < 5
    assert log.lost == 1
    assert disk.is_full


WRITER = """
import sys
from pathlib import Path
from leadline.server.access.audit import AuditLog
log = AuditLog(Path(sys.argv[1]), max_bytes=40_000, max_files=50)
number = 0
while True:
    log.record("call", who="ann", resources=["jobs/" + "b" * (number % 300)], number=number)
    number += log.lost == 0
    if number % 100 == 1:
        print(number, flush=True)
"""


@pytest.mark.system
@pytest.mark.parametrize("attempt", range(4))
def test_each_complete_line_of_a_killed_process_is_valid(tmp_path: Path, attempt: int) -> None:
    path = tmp_path / "audit.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.07 * attempt)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    entries: list[dict[str, Any]] = []
    for file in files_of(path):
        *lines, _ = file.read_bytes().split(b"\n")
        entries += [json.loads(line) for line in lines]
    numbers = [entry["number"] for entry in entries]
    assert numbers
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_strangers_do_not_fill_the_log(tmp_path: Path) -> None:
    log = open_log(tmp_path / "audit.jsonl")
    for _ in range(5_000):
        log.record("call", code="UNAUTHENTICATED", denied=True)
        log.record("call", who="ann", denied=True)
    time.sleep(1.1)
    log.record("call", code="UNAUTHENTICATED", denied=True)
    log.close()

    entries = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    strangers = [entry for entry in entries if "who" not in entry]
    assert len(strangers) < 1_000  # 100 in each second
    assert sum(entry.get("suppressed", 0) for entry in strangers) == 5_001 - len(strangers)
    assert len(entries) - len(strangers) + log.lost >= 5_000
