"""Jobs that resume with another instruction set."""

from dataclasses import replace
from pathlib import Path

import pytest

from leadline.models.checkpoint_files import list_epochs, load_info
from leadline.models.simd.instruction_set import VARIABLE, available_instruction_sets
from leadline.server.jobs.environments import advice, differences
from leadline.server.jobs.job import Environment, Started
from leadline.v1.job_pb2 import JOB_STATE_FAILED
from leadline.v1.training_service_pb2 import (
    CancelJobRequest,
    GetJobRequest,
    PauseJobRequest,
    ResumeJobRequest,
    TrainJobRequest,
    WatchJobRequest,
)
from support.servers import LiveServer, ServerFactory
from support.wire import Stubs, connect, tiny_spec

# Every processor with AVX2 has two: AVX2 and the baseline.
NARROW, WIDE = ([isa.value for isa in available_instruction_sets()] * 2)[-2:]
needs_two = pytest.mark.skipif(NARROW == WIDE, reason="the processor has one instruction set")

STARTED = Started(
    device="cpu",
    device_name="EPYC",
    train_images=400,
    test_images=200,
    class_names=("a", "b"),
    parameters=1000,
    dataset_fingerprint="f",
    environment=Environment(
        threads=2,
        leadline_version="0.1.0",
        torch_version="2",
        python_version="3.11",
        instruction_set="avx512",
    ),
)


@pytest.fixture
def paused(server_factory: ServerFactory) -> tuple[LiveServer, str]:
    """A stopped server with a paused job whose epoch used the wider set."""
    server = server_factory(environment={VARIABLE: WIDE})
    stubs = connect(server.target)
    stream = stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=9_000)), timeout=60)
    name = next(event.job for event in stream if event.HasField("epoch"))
    stubs.training.PauseJob(PauseJobRequest(name=name), timeout=10)
    server.stop()
    return server, name


def resume(server: LiveServer, name: str) -> Stubs:
    stubs = connect(server.target)
    stubs.training.ResumeJob(ResumeJobRequest(name=name), timeout=10)
    return stubs


def recorded(server: LiveServer) -> dict[str, set[str]]:
    """The instruction sets that the checkpoints of each attempt's folder record."""
    sets: dict[str, set[str]] = {}
    for folder in server.data_dir.glob("models/*/attempt-*"):
        environments = [load_info(folder, epoch).environment for epoch in list_epochs(folder)]
        sets[folder.name] = {environment["instruction_set"] for environment in environments}
    return sets


@needs_two
def test_a_job_goes_on_with_another_instruction_set_and_the_log_says_so(
    server_factory: ServerFactory, paused: tuple[LiveServer, str]
) -> None:
    _, name = paused
    server = server_factory(environment={VARIABLE: NARROW})
    stubs = resume(server, name)
    completed = stubs.training.GetJob(GetJobRequest(name=name), timeout=10).completed_epochs

    for event in stubs.training.WatchJob(WatchJobRequest(name=name), timeout=60):
        if event.HasField("epoch") and event.epoch.epoch > completed + 1:
            break
    job = stubs.training.CancelJob(CancelJobRequest(name=name), timeout=10)

    assert job.environment.instruction_set == WIDE
    assert recorded(server) == {"attempt-001": {WIDE}, "attempt-002": {NARROW}}
    assert f"the instruction set ({WIDE} -> {NARROW})" in server.log.read_text()


@needs_two
def test_an_epoch_is_not_repeated_with_another_instruction_set(
    server_factory: ServerFactory, paused: tuple[LiveServer, str]
) -> None:
    server, name = paused
    damage_weights(server.data_dir)

    stubs = resume(server_factory(environment={VARIABLE: NARROW}), name)
    *_, last = stubs.training.WatchJob(WatchJobRequest(name=name), timeout=60)

    assert last.finished.state == JOB_STATE_FAILED
    assert last.finished.failure.reason == "NOT_REPEATABLE"
    message = last.finished.failure.message
    assert message.startswith(f"epoch 1 of job {name} was repeated, but its weights are not")
    assert f"the instruction set ({WIDE} -> {NARROW}) changed; submit the job again" in message
    assert f"with {VARIABLE}={WIDE}" in message


def test_an_epoch_is_repeated_with_the_same_instruction_set(
    server_factory: ServerFactory, paused: tuple[LiveServer, str]
) -> None:
    server, name = paused
    damage_weights(server.data_dir)
    server = server_factory(environment={VARIABLE: WIDE})
    stubs = connect(server.target)
    completed = stubs.training.GetJob(GetJobRequest(name=name), timeout=10).completed_epochs

    resume(server, name)
    for event in stubs.training.WatchJob(WatchJobRequest(name=name), timeout=60):
        if event.HasField("epoch") and event.epoch.epoch > completed:
            break
    stubs.training.CancelJob(CancelJobRequest(name=name), timeout=10)

    assert event.HasField("epoch")
    assert "continues in another environment" not in server.log.read_text()


def damage_weights(data_dir: Path) -> None:
    weights = list(data_dir.rglob("epoch-*.checkpoint"))
    assert weights
    for path in weights:
        path.write_bytes(b"damaged")


def test_what_changed_is_named_with_both_values() -> None:
    environment = replace(STARTED.environment, torch_version="3", instruction_set="avx2")
    now = replace(STARTED, device_name="Xeon", environment=environment)

    changes = differences(STARTED, now)

    assert changes == [
        "the processor (EPYC -> Xeon)",
        "the instruction set (avx512 -> avx2)",
        "the version of torch (2 -> 3)",
    ]
    assert "LEADLINE_SIMD_ISA=avx512" in advice(changes, STARTED)


def test_a_job_that_recorded_no_instruction_set_is_not_said_to_have_changed() -> None:
    old = replace(STARTED, environment=replace(STARTED.environment, instruction_set=""))

    assert differences(old, STARTED) == []
    assert "LEADLINE_SIMD_ISA" not in advice(["the processor (EPYC -> Xeon)"], old)
    assert "nothing that is recorded has changed" in advice([], STARTED)
