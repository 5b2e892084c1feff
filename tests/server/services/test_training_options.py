"""Options beyond the notebook's protocol, from the request to the checkpoint and back."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from leadline.models.checkpoint_files import remove_optimizer_state
from leadline.models.datasets import DatasetError, open_dataset
from leadline.models.spec import TrainingSpec
from leadline.server.jobs.job import EpochCompleted, Started
from leadline.server.workers.messages import Assignment, DiskFault, Done, Message, decode, encode
from leadline.server.workers.worker import Channel, _fault, work
from leadline.v1.inference_service_pb2 import (
    DATA_TYPE_UINT8,
    GetModelRequest,
    ListModelsRequest,
    PredictRequest,
    Tensor,
)
from leadline.v1.inspection_service_pb2 import (
    CompareModelsRequest,
    GetConfusionMatrixRequest,
    ModelSelector,
)
from leadline.v1.job_pb2 import JOB_STATE_SUCCEEDED, EpochResult, JobEvent
from leadline.v1.model_pb2 import Variant
from leadline.v1.training_service_pb2 import GetJobRequest, TrainJobRequest, WatchJobRequest
from leadline.v1.training_spec_pb2 import (
    AUGMENTATION_FLIP_CROP,
    INITIALIZATION_KAIMING,
    PRECISION_BFLOAT16,
    SCHEDULE_ONE_CYCLE,
)
from support.datasets import dataset_of, specs_of
from support.wire import Stubs, violations

tiny_spec = specs_of(__file__)
DATASET = dataset_of(__file__)

# Such a small step changes no weight, so no epoch is better than the first.
STILL: dict[str, Any] = {"learning_rate": 1e-30, "momentum": 0.0}


def results(events: list[JobEvent]) -> list[EpochResult]:
    return [event.epoch for event in events if event.WhichOneof("event") == "epoch"]


def test_a_job_of_every_option_trains_and_answers(stubs: Stubs) -> None:
    spec = tiny_spec(
        epochs=1,
        # A tenth of the rate at which rounding decides whether bfloat16 diverges on a processor.
        learning_rate=0.005,
        residual=True,
        nesterov=True,
        initialization=INITIALIZATION_KAIMING,
        schedule=SCHEDULE_ONE_CYCLE,
        augmentation=AUGMENTATION_FLIP_CROP,
        precision=PRECISION_BFLOAT16,
        patience=1,
        block_convolutions=2,
        diagnostics=True,
    )
    events = list(stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60))

    assert events[-1].finished.state == JOB_STATE_SUCCEEDED
    assert not events[-1].finished.stopped_early
    job = stubs.training.GetJob(GetJobRequest(name=events[0].job), timeout=10)
    expected = tiny_spec()
    expected.CopyFrom(spec)
    expected.MergeFrom(type(spec)(optimizer=job.spec.optimizer, weight_decay=0.0, seed=0))
    assert job.spec == expected
    assert results(events)[0].learning_rate < 0.005


def test_a_diagnosis_is_reported_at_the_start_and_for_each_epoch(stubs: Stubs) -> None:
    spec = tiny_spec(epochs=2, blocks=2, diagnostics=True)
    stream = stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60)
    # On a slow machine, a silent stream has events without a sequence.
    events = [event for event in stream if event.sequence]

    reported = [events[1].started.diagnosis, *(result.diagnosis for result in results(events))]
    for diagnosis in reported:
        assert [block.block for block in diagnosis] == [0, 1, 2]
        assert all(block.activation_std > 0 for block in diagnosis)
        assert all(block.gradient_norm > 0 for block in diagnosis)
    assert len({block.gradient_norm for diagnosis in reported for block in diagnosis}) == 9
    again = stubs.training.WatchJob(WatchJobRequest(name=events[0].job), timeout=10)
    assert list(again) == events


def test_nothing_is_diagnosed_by_default(trained: list[JobEvent]) -> None:
    assert not trained[1].started.diagnosis
    assert not any(result.diagnosis for result in results(trained))


def test_a_job_that_no_longer_improves_succeeds_early(stubs: Stubs) -> None:
    spec = tiny_spec(epochs=50, patience=2, **STILL)
    events = list(stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60))

    finished = events[-1].finished
    assert [result.epoch for result in results(events)] == [1, 2, 3]
    assert finished.state == JOB_STATE_SUCCEEDED
    assert finished.stopped_early
    assert (finished.completed_epochs, finished.best_epoch) == (3, 1)


def test_a_job_of_all_its_epochs_did_not_stop_early(trained: list[JobEvent]) -> None:
    assert not trained[-1].finished.stopped_early


def test_a_variant_with_residuals_is_never_taken_for_one_without(stubs: Stubs, noise: Any) -> None:
    names = {}
    for residual in (False, True):
        spec = tiny_spec(epochs=1, blocks=3, batch_norm=False, residual=residual)
        events = list(stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60))
        names[residual] = events[-1].finished.model

    for residual, name in names.items():
        variant = Variant(dataset=DATASET, blocks=3, block_convolutions=1, residual=residual)
        pixels = Tensor(shape=noise.shape, data_type=DATA_TYPE_UINT8, data=noise.tobytes())
        request = PredictRequest(variant=variant, tensor=pixels)
        assert stubs.inference.Predict(request, timeout=30).model.startswith(name)
        model = stubs.inference.GetModel(GetModelRequest(name=name), timeout=10)
        assert model.variant == variant
        listing = ListModelsRequest(dataset=DATASET, blocks=3, residual=residual)
        listed = stubs.inference.ListModels(listing, timeout=10).models
        assert [model.name for model in listed] == [name]


def test_blocks_of_two_convolutions_are_never_taken_for_blocks_of_one(
    stubs: Stubs, noise: Any
) -> None:
    names = {}
    for number in (1, 2):
        spec = tiny_spec(epochs=1, blocks=4, batch_norm=False, block_convolutions=number)
        events = list(stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60))
        names[number] = events[-1].finished.model
    names[0] = names[1]
    pixels = Tensor(shape=noise.shape, data_type=DATA_TYPE_UINT8, data=noise.tobytes())

    for number, name in names.items():
        variant = Variant(dataset=DATASET, blocks=4, block_convolutions=number)
        request = PredictRequest(variant=variant, tensor=pixels)
        assert stubs.inference.Predict(request, timeout=30).model.startswith(name)
        matrix = GetConfusionMatrixRequest(variant=variant)
        confusion = stubs.inspection.GetConfusionMatrix(matrix, timeout=30)
        assert confusion.model.startswith(name)
        model = stubs.inference.GetModel(GetModelRequest(name=name), timeout=10)
        assert model.variant.block_convolutions == model.spec.block_convolutions == (number or 1)
    unset = PredictRequest(variant=Variant(dataset=DATASET, blocks=4), tensor=pixels)
    assert stubs.inference.Predict(unset, timeout=30).model.startswith(names[1])
    comparison = CompareModelsRequest(
        baseline=ModelSelector(variant=unset.variant),
        candidate=ModelSelector(variant=Variant(dataset=DATASET, blocks=4, block_convolutions=2)),
    )
    compared = stubs.inspection.CompareModels(comparison, timeout=30)
    assert compared.baseline.startswith(names[1])
    assert compared.candidate.startswith(names[2])

    def listed(block_convolutions: int | None = None) -> list[str]:
        request = ListModelsRequest(
            dataset=DATASET, blocks=4, block_convolutions=block_convolutions
        )
        return [model.name for model in stubs.inference.ListModels(request, timeout=10).models]

    assert listed() == [names[2], names[1]]
    assert listed(block_convolutions=1) == [names[1]]
    assert listed(block_convolutions=2) == [names[2]]


@pytest.mark.parametrize("number", [-1, 3])
def test_a_variant_has_blocks_of_one_convolution_or_two(
    stubs: Stubs, noise: Any, number: int
) -> None:
    variant = Variant(dataset=DATASET, blocks=0, block_convolutions=number)
    pixels = Tensor(shape=noise.shape, data_type=DATA_TYPE_UINT8, data=noise.tobytes())
    with pytest.raises(grpc.RpcError) as refused:
        stubs.inference.Predict(PredictRequest(variant=variant, tensor=pixels), timeout=10)

    assert violations(refused.value) == {
        "variant.block_convolutions": f"must be 1 or 2, but is {number}"
    }


@pytest.fixture
def assignment(tiny_dataset: Path, tmp_path: Path) -> Assignment:
    """Returns a job that stops early: its second epoch is not better than its first."""
    cache = tmp_path / "datasets"
    return Assignment(
        job_id="job",
        attempt=1,
        spec=TrainingSpec(
            dataset=DATASET, blocks=0, epochs=9, batch_size=200, patience=2, learning_rate=1e-30
        ),
        completed_epochs=0,
        resume_from=(),
        test_accuracies=(),
        device="cpu",
        threads=1,
        dataset_source=str(tiny_dataset),
        dataset_cache=str(cache),
        dataset_fingerprint=open_dataset(str(tiny_dataset), cache).fingerprint,
        checkpoint_folder=str(tmp_path / "attempt-1"),
        max_image_pixels=1 << 24,
        memory_bytes=0,
    )


def epochs_of(messages: list[Message]) -> list[int]:
    """Runs a worker to its end, and returns its reported epochs."""
    assert isinstance(messages[-1], Done)
    return [message.epoch for message in messages if isinstance(message, EpochCompleted)]


@pytest.mark.parametrize("completed", [0, 1, 2, 3])
def test_patience_resumes_where_an_interrupted_job_was(
    assignment: Assignment, tmp_path: Path, completed: int
) -> None:
    first = list(work(assignment, Channel(io.BytesIO())))
    assert epochs_of(first) == [1, 2, 3]
    reported = [message for message in first if isinstance(message, EpochCompleted)]

    resumed = replace(
        assignment,
        attempt=2,
        completed_epochs=completed,
        resume_from=((completed, assignment.checkpoint_folder),) if completed else (),
        test_accuracies=tuple(message.test_accuracy for message in reported[:completed]),
        checkpoint_folder=str(tmp_path / "attempt-2"),
    )

    resumed = Assignment.from_line(resumed.to_line())
    assert epochs_of(list(work(resumed, Channel(io.BytesIO())))) == list(range(completed + 1, 4))


def test_epochs_of_a_damaged_checkpoint_do_not_count_twice(
    assignment: Assignment, tmp_path: Path
) -> None:
    reported = [
        message
        for message in work(assignment, Channel(io.BytesIO()))
        if isinstance(message, EpochCompleted)
    ]
    back = replace(
        assignment,
        completed_epochs=3,
        resume_from=((3, str(tmp_path / "gone")), (1, assignment.checkpoint_folder)),
        test_accuracies=tuple(message.test_accuracy for message in reported),
        checkpoint_folder=str(tmp_path / "attempt-2"),
    )

    assert epochs_of(list(work(back, Channel(io.BytesIO())))) == [2, 3]


def test_a_second_worker_of_an_attempt_replaces_no_checkpoint(assignment: Assignment) -> None:
    assignment = replace(assignment, spec=replace(assignment.spec, momentum=0.9))
    list(work(assignment, Channel(io.BytesIO())))
    folder = Path(assignment.checkpoint_folder)
    for epoch in (1, 2, 3):  # as the server does while the job goes on
        remove_optimizer_state(folder, epoch)
    before = {path: path.stat().st_ino for path in folder.iterdir()}
    late = replace(assignment, completed_epochs=3, resume_from=((3, str(folder)), (1, str(folder))))

    with pytest.raises(FileExistsError) as refusal:
        list(work(late, Channel(io.BytesIO())))

    assert {path: path.stat().st_ino for path in folder.iterdir()} == before
    assert _fault(refusal.value, late) == DiskFault(
        message=f"a checkpoint could not be written: {folder} has a checkpoint of epoch 1 already: "
        "resume the job, which then writes into another folder"
    )


def test_a_diagnosis_survives_the_pipe_between_processes(assignment: Assignment) -> None:
    asked = replace(assignment, spec=replace(assignment.spec, diagnostics=True))
    for message in work(asked, Channel(io.BytesIO())):
        assert decode(encode(message)) == message
        if isinstance(message, Started | EpochCompleted):
            assert [block.block for block in message.diagnosis] == [0]


def test_a_job_does_not_go_on_with_other_images(assignment: Assignment) -> None:
    changed = replace(assignment, completed_epochs=1, dataset_fingerprint="0" * 64)

    with pytest.raises(DatasetError, match="have changed since the job began"):
        list(work(changed, Channel(io.BytesIO())))
