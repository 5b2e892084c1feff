"""Each check of a node."""

import errno
import io
import json
import os
import socket
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leadline.models.datasets import open_dataset
from leadline.server.devices import NVIDIA_DRIVER
from leadline.server.doctor import child, datasets, gpu, ports, storage, system
from leadline.server.doctor.access import check_access
from leadline.server.doctor.agreement_check import TOLERANCES, check_agreement, compute_on
from leadline.server.doctor.check import Check, Status, within
from leadline.server.doctor.child import Outcome
from leadline.server.memory import in_bytes
from leadline.server.settings import Settings
from support.identities import Tokens
from support.servers import LiveServer, ServerFactory

PIXELS = Settings().max_image_pixels


def outcome_of(*lines: dict[str, Any], error: str | None = None) -> Outcome:
    return Outcome(output="".join(json.dumps(line) + "\n" for line in lines), error=error)


@pytest.mark.parametrize(
    "check",
    [system.check_versions, system.check_processor, system.check_memory, system.check_sqlite],
)
def test_the_machine_that_runs_the_tests_can_run_a_server(check: Callable[[], Check]) -> None:
    found = check()

    assert found.status in {Status.OK, Status.WARNING}
    assert found.value
    json.dumps(found.to_dict())


def test_an_instruction_set_that_the_processor_lacks_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LEADLINE_SIMD_ISA", "avx1024")

    found = system.check_processor()

    assert found.status is Status.FAILED
    assert "avx1024" in found.value


def test_a_limit_on_descriptors_is_shown_as_it_is() -> None:
    import resource  # noqa: PLC0415 - of this test alone

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    assert system.check_descriptors().detail["hard"] == hard


@pytest.mark.parametrize(
    ("count", "shown"),
    [(10, "10 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")],
)
def test_bytes_are_shown_in_binary_units(count: int, shown: str) -> None:
    assert in_bytes(count) == shown


def test_a_check_that_hangs_fails_in_time() -> None:
    never = threading.Event()

    def hang() -> Check:
        never.wait()
        return Check(name="slow", status=Status.OK, value="")

    found = within(0.05, "slow", hang)

    assert (found.name, found.status) == ("slow", Status.FAILED)
    assert found.value == "no result within 0.05 s"
    never.set()


def test_a_check_that_breaks_spoils_no_other() -> None:
    def broken() -> Check:
        raise ZeroDivisionError("by nought")

    found = within(10, "broken", broken)

    assert (found.status, found.value) == (Status.FAILED, "ZeroDivisionError: by nought")


def test_a_data_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"

    found = [
        storage.check_data_dir(folder),
        storage.check_space(folder, "auto"),
        storage.check_file_system(folder),
        storage.check_fsync(folder),
    ]

    assert found[0].status is Status.OK
    assert "can be created" in found[0].value
    assert found[0].detail["exists"] is False
    assert found[2].status is Status.OK
    assert found[3].detail["median_seconds"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_disk_below_its_floor_fails(tmp_path: Path) -> None:
    found = storage.check_space(tmp_path, 10**15)

    assert found.status is Status.FAILED
    assert found.value.endswith("jobs start at 909.5 TiB or more")
    assert found.detail["floor_bytes"] == 10**15


def test_a_file_system_without_hard_links_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_args: object, **_options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as on FAT

    monkeypatch.setattr(os, "link", link)

    result = storage.check_file_system(tmp_path)

    assert result.status is Status.FAILED
    assert "hard links do not work: Operation not permitted" in result.value


def test_the_limit_on_workers_is_shown_with_its_means() -> None:
    settings = Settings(devices="cpu,cuda:0", worker_threads=2, worker_memory_bytes=2 << 30)

    found = system.check_worker_memory(settings)

    assert found.value.startswith(
        "2.0 GiB for a job on cpu, 2.0 GiB for a sweep's job, by rlimit and watchdog; "
        "2.0 GiB for a job on cuda:0"
    )
    assert found.detail["devices"]["cpu"] == {
        "job_bytes": 2 << 30,
        "sweep_job_bytes": 2 << 30,
        "means": ["rlimit", "watchdog"],
    }
    assert found.detail["devices"]["cuda:0"]["means"] == ["watchdog"]


@pytest.mark.parametrize(
    ("limit", "advice"), [(0, "one job can use all memory"), (1 << 50, "all workers together may")]
)
def test_workers_that_may_take_all_memory_are_a_warning(limit: int, advice: str) -> None:
    found = system.check_worker_memory(Settings(devices="cpu", worker_memory_bytes=limit))

    assert found.status is Status.WARNING
    assert advice in found.advice


def test_a_data_directory_below_a_file_fails_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "data"

    checks = (storage.check_data_dir, storage.check_file_system, storage.check_fsync)
    found = [check(folder) for check in checks]

    assert [one.status for one in found] == [Status.FAILED, Status.SKIPPED, Status.SKIPPED]
    assert "is not a folder" in found[0].value
    assert "--data-dir" in found[0].advice


def test_a_server_that_uses_the_data_directory_and_the_ports_is_known(
    live_server: LiveServer,
) -> None:
    host, port = live_server.target.split(":")
    metrics_port = int(live_server.metrics_url.split(":")[-1].split("/")[0])

    folder = storage.check_data_dir(live_server.data_dir)
    grpc_port = ports.check_grpc_port(host, int(port))
    http_port = ports.check_http_port(host, metrics_port)

    assert folder.detail["in_use"] is True
    assert grpc_port.status is http_port.status is Status.OK
    assert grpc_port.value.endswith("is in use by a Leadline server, which is serving")
    assert http_port.value.endswith("is in use by a Leadline server")


def test_what_others_could_reach_in_the_open_is_found(tmp_path: Path) -> None:
    def found(**options: Any) -> tuple[Status, str]:
        check = check_access(Settings(data_dir=tmp_path, **options))
        return check.status, check.value

    beyond = {"host": "0.0.0.0"}  # noqa: S104 - nothing binds it
    assert found() == (Status.OK, "every local caller is an admin")
    status, value = found(**beyond)
    assert status is Status.FAILED
    assert "without TLS" in value
    assert found(**beyond, insecure=True) == (Status.WARNING, value)
    Tokens(tmp_path / "tokens.json").create("ci", "trainer")
    assert found() == (Status.OK, "callers need an identity")
    (tmp_path / "tokens.json").write_text("{")
    assert found()[0] is Status.FAILED


def test_a_server_with_identities_is_known_by_its_port(server_factory: ServerFactory) -> None:
    server = server_factory("--spare-workers=0")
    Tokens(server.data_dir / "tokens.json").create("ci", "trainer")
    time.sleep(1.1)  # it notices the file within a second
    port = int(server.metrics_url.split(":")[-1].split("/")[0])

    assert ports.check_http_port("127.0.0.1", port).value.endswith("by a Leadline server")


@pytest.mark.parametrize("check", [ports.check_grpc_port, ports.check_http_port])
def test_a_port_of_another_program_fails(
    check: Callable[[str, int], Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_ANSWER_SECONDS", 0.2)  # it never answers
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = check("127.0.0.1", port)

    assert found.status is Status.FAILED
    assert found.detail["in_use_by"] == "another program"
    assert check("127.0.0.1", port).status is Status.OK


@pytest.mark.parametrize(
    ("host", "status", "loopback"),
    [
        ("127.0.0.1", Status.OK, True),
        ("localhost", Status.OK, True),
        ("0.0.0.0", Status.OK, False),  # noqa: S104 - it is bound for an instant
        ("192.0.2.1", Status.FAILED, False),
        ("no-such-host.invalid", Status.FAILED, False),
    ],
)
def test_an_address_must_be_one_of_this_machine(host: str, status: Status, loopback: bool) -> None:
    found = ports.check_grpc_port(host, 0)

    assert (found.status, found.detail["loopback"]) == (status, loopback)


def test_a_dataset_is_described_and_nothing_is_written(tmp_path: Path, tiny_dataset: Path) -> None:
    cache = tmp_path / "cache"

    found = datasets.check_dataset("tiny", str(tiny_dataset), cache, max_pixels=PIXELS)

    assert found.value == "10 classes, 400 training and 200 test images, not yet decoded"
    assert found.detail["classes"] == 10
    assert datasets.check_cache(cache).detail == {"whole": [], "damaged": []}
    assert not cache.exists()


def test_a_decoded_dataset_is_known_until_it_is_damaged(tmp_path: Path, tiny_dataset: Path) -> None:
    opened = open_dataset(str(tiny_dataset), tmp_path)

    found = datasets.check_dataset("tiny", str(tiny_dataset), tmp_path, max_pixels=PIXELS)
    whole = datasets.check_cache(tmp_path)
    (tmp_path / opened.fingerprint / "test-labels.npy").write_bytes(b"short")
    damaged = datasets.check_cache(tmp_path)

    assert found.detail["decoded"] is True
    assert (whole.status, whole.detail["whole"]) == (Status.OK, [opened.fingerprint])
    assert (damaged.status, damaged.detail["damaged"]) == (Status.WARNING, [opened.fingerprint])


def test_cifar10_is_not_downloaded(tmp_path: Path) -> None:
    found = datasets.check_dataset("cifar10", "torchvision:cifar10", tmp_path, max_pixels=PIXELS)

    assert found.status is Status.OK
    assert "the first job that needs it downloads it" in found.value
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_dataset_that_cannot_be_read_fails(
    tmp_path: Path, tiny_dataset: Path, damage: str
) -> None:
    path = tmp_path / "tiny.tar"
    if damage == "cut":
        with tarfile.open(path, "w") as tar:
            tar.add(tiny_dataset, arcname=".")
        path.write_bytes(path.read_bytes()[:-20_000])

    found = datasets.check_dataset("tiny", str(path), tmp_path / "cache", max_pixels=PIXELS)

    assert found.status is Status.FAILED
    assert str(path) in found.value
    assert "--dataset tiny=SOURCE" in found.advice


def test_a_damaged_image_among_the_first_fails(tmp_path: Path, tiny_dataset: Path) -> None:
    path = tmp_path / "tiny.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("train/ant/aaa.png")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"none"))
        for split in ("train", "test"):
            tar.add(tiny_dataset / split, arcname=split)

    found = datasets.check_dataset("tiny", str(path), tmp_path / "cache", max_pixels=PIXELS)

    assert found.status is Status.FAILED
    assert "aaa.png" in found.value


@pytest.mark.system
@pytest.mark.timeout(400)
def test_all_ways_to_compute_on_the_cpu_agree() -> None:
    outcome = compute_on("cpu")

    found = check_agreement("cpu", outcome)

    assert found.status is Status.OK, found.value
    assert {(one["way"], one["quantity"]) for one in found.detail["differences"]} == {
        ("torch", "gradients"),
        ("torch", "logits"),
        ("vector units", "gradients"),
        ("vector units", "logits"),
        ("served", "logits"),
    }
    assert len(found.detail["differences"]) == 10


@pytest.mark.parametrize("value", [2e-4, float("nan")])
def test_a_result_beyond_its_tolerance_fails(value: float) -> None:
    line = {"way": "torch", "network": "with batch norm", "quantity": "gradients"}

    good = check_agreement("cpu", outcome_of({**line, "difference": 1e-6}, _logits()))
    wrong = check_agreement("cpu", outcome_of({**line, "difference": value}, _logits()))

    assert good.status is Status.OK
    assert wrong.status is Status.FAILED
    assert wrong.detail["tolerances"] == TOLERANCES
    assert "torch with batch norm: gradients off by" in wrong.value


def _logits() -> dict[str, Any]:
    return {"way": "torch", "network": "with batch norm", "quantity": "logits", "difference": 1e-7}


def test_a_device_that_fails_or_hangs_in_between_fails() -> None:
    outcome = outcome_of(_logits(), error="no result within 180 s")

    assert check_agreement("cuda:0", outcome).status is Status.FAILED
    assert gpu.check_capture("cuda:0", outcome).value == "no result within 180 s"
    assert gpu.check_capture("cuda:0", outcome).status is Status.FAILED


def test_a_gpu_without_captures_is_a_warning() -> None:
    works = gpu.check_capture("cuda:0", outcome_of({"capture_failure": None}))
    fails = gpu.check_capture("cuda:0", outcome_of({"capture_failure": "RuntimeError: no"}))

    assert (works.status, fails.status) == (Status.OK, Status.WARNING)
    assert fails.value == "RuntimeError: no"


@pytest.mark.parametrize(
    ("architectures", "capability", "supported"),
    [
        (["sm_75", "sm_80"], [8, 0], True),
        (["sm_75", "sm_80"], [8, 9], True),
        (["sm_86"], [8, 0], False),
        (["sm_80"], [9, 0], False),
        (["sm_80", "compute_80"], [9, 0], True),
        (["sm_90", "compute_90"], [7, 0], False),
        (["sm_100", "sm_120"], [12, 1], True),
        (["sm_90a"], [9, 0], True),
        ([], [9, 0], False),
    ],
)
def test_torch_must_have_code_for_the_gpu(
    architectures: list[str], capability: list[int], supported: bool
) -> None:
    described = {
        "device": "cuda:0",
        "name": "A GPU",
        "capability": capability,
        "total_bytes": 80 << 30,
        "free_bytes": 79 << 30,
    }

    found = gpu.judge_gpu(described, architectures)

    assert gpu.supports(architectures, capability) is supported
    assert found.status is (Status.OK if supported else Status.FAILED)


def test_a_gpu_whose_memory_is_taken_is_a_warning() -> None:
    described = {"device": "cuda:0", "name": "A GPU", "capability": [9, 0]}
    memory = {"total_bytes": 80 << 30, "free_bytes": 1 << 30}

    assert gpu.judge_gpu({**described, **memory}, ["sm_90"]).status is Status.WARNING


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script of the test first in PATH as nvidia-smi."""

    def install(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


no_gpu = pytest.mark.skipif(
    any(path.exists() for path in NVIDIA_DRIVER), reason="this machine has the driver"
)


@no_gpu
@pytest.mark.parametrize(
    ("devices", "status"), [("auto", Status.SKIPPED), ("cuda:0", Status.FAILED)]
)
def test_a_machine_without_a_gpu_is_as_it_should_be_unless_one_is_named(
    devices: str, status: Status
) -> None:
    found = gpu.find_gpus(devices, "auto")

    assert [one.status for one in found.checks] == [status]
    assert found.usable == ()


def test_a_server_of_the_cpu_alone_looks_for_no_gpu(nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi("exit 9")

    assert [one.status for one in gpu.find_gpus("cpu", "cpu").checks] == [Status.SKIPPED]


@no_gpu
def test_a_gpu_that_torch_cannot_use_fails(nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi("echo '0, NVIDIA H100, 570.1, Default, 81559, 12'")

    driver, torch = gpu.find_gpus("auto", "auto").checks

    assert (driver.status, driver.value) == (Status.OK, "570.1, NVIDIA H100")
    assert torch.status is Status.FAILED
    assert torch.value


@pytest.mark.parametrize(
    ("script", "status", "shown"),
    [
        ("echo 'No devices were found'; exit 6", Status.SKIPPED, "without a GPU"),
        ("echo 'Failed to initialize NVML' >&2; exit 18", Status.FAILED, "initialize NVML"),
        ("echo '0, A, 1, Exclusive_Process, 1, 1'", Status.FAILED, "1, A"),
    ],
)
def test_what_the_driver_says_is_judged(
    nvidia_smi: Callable[[str], None], script: str, status: Status, shown: str
) -> None:
    nvidia_smi(script)

    driver = gpu.find_gpus("auto", "auto").checks[0]

    assert driver.status is status
    assert shown in driver.value


def test_a_program_that_hangs_is_ended_and_what_it_has_written_is_kept() -> None:
    found = child.run(["sh", "-c", 'echo "{\\"a\\": 1}"; exec sleep 600'], seconds=1)

    assert found.error == "no result within 1 s"
    assert found.lines == [{"a": 1}]


def test_a_program_that_fails_is_told_by_its_last_line() -> None:
    failed = child.run(["sh", "-c", "echo first >&2; echo last >&2; exit 3"], seconds=30)
    killed = child.run(["sh", "-c", "kill -9 $$"], seconds=30)
    missing = child.run(["/no/such/program"], seconds=30)

    assert failed.error == "status 3: last"
    assert killed.error == "killed by signal 9: it says nothing"
    assert missing.error == "/no/such/program cannot be run: No such file or directory"
