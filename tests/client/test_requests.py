"""Keyword arguments become requests."""

from typing import Any

import pytest

from leadline.client import (
    Augmentation,
    ExampleOrder,
    Grouping,
    Initialization,
    InvalidArgumentError,
    JobState,
    Optimizer,
    Precision,
    Schedule,
    Split,
    TrainingSpec,
    Variant,
)
from leadline.client._inspection_requests import listing_request
from leadline.client._names import job_name, model_name
from leadline.client._requests import (
    build,
    duration,
    select,
)
from leadline.client._training_spec import training_spec
from leadline.v1.inference_service_pb2 import PredictRequest
from leadline.v1.inspection_service_pb2 import ListMisclassifiedRequest
from leadline.v1.training_service_pb2 import ListJobsRequest


def test_only_what_is_given_is_set() -> None:
    spec = training_spec(None, schedule=None, dataset="tiny", blocks=0, batch_norm=None)
    assert spec == TrainingSpec(dataset="tiny", blocks=0)
    assert spec.HasField("blocks")
    assert not spec.HasField("batch_norm")


def test_keywords_go_over_a_copy_of_the_spec() -> None:
    given = TrainingSpec(dataset="tiny", blocks=3)
    spec = training_spec(given, optimizer="adamw", blocks=5)
    assert spec == TrainingSpec(dataset="tiny", blocks=5, optimizer=Optimizer.OPTIMIZER_ADAMW)
    assert given == TrainingSpec(dataset="tiny", blocks=3)


@pytest.mark.parametrize(
    ("field", "value"), [("blocks", 2**40), ("epochs", "three"), ("dataset", 7)]
)
def test_a_value_that_fits_no_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        training_spec(None, **{field: value})
    assert [violation.field for violation in caught.value.violations] == [f"spec.{field}"]


@pytest.mark.parametrize("name", ["adam", "ADAM", "OPTIMIZER_ADAM", Optimizer.OPTIMIZER_ADAM])
def test_an_enum_is_taken_by_value_or_name(name: Any) -> None:
    assert training_spec(None, optimizer=name).optimizer == Optimizer.OPTIMIZER_ADAM


@pytest.mark.parametrize("enum", [Initialization, Schedule, Augmentation, Precision])
def test_every_enum_of_a_spec_is_taken_by_each_of_its_names(enum: Any) -> None:
    field = enum.DESCRIPTOR.name.lower()
    for name, number in enum.items():
        if number:
            short: Any = name.removeprefix(f"{field.upper()}_").lower()
            assert getattr(training_spec(None, **{field: short}), field) == number
    wrong: dict[str, Any] = {field: "quick"}
    with pytest.raises(InvalidArgumentError, match="not one of") as caught:
        training_spec(None, **wrong)
    assert [violation.field for violation in caught.value.violations] == [f"spec.{field}"]


def test_an_enum_by_a_name_that_is_none_lists_those_there_are() -> None:
    with pytest.raises(InvalidArgumentError, match="not one of sgd, adam, adamw"):
        training_spec(None, optimizer="lion")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError):
        training_spec(None, optimizer="unspecified")  # type: ignore[arg-type]


def test_a_spec_may_be_a_dict() -> None:
    spec = training_spec({"dataset": "tiny", "optimizer": "adam", "seed": None}, blocks=2)
    assert spec == TrainingSpec(dataset="tiny", optimizer=Optimizer.OPTIMIZER_ADAM, blocks=2)
    assert training_spec({"blocks": 3}, blocks=None).blocks == 3
    with pytest.raises(InvalidArgumentError, match="must be a TrainingSpec or a dict, is a str"):
        training_spec("tiny")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "meant"),
    [("epoch", "epochs"), ("lr", "learning_rate"), ("decay", "weight_decay"), ("bn", "batch_norm")],
)
def test_a_field_that_there_is_not_is_named_with_the_one_that_is_meant(
    field: str, meant: str
) -> None:
    unknown: dict[str, Any] = {field: 1}
    for spec, fields in ((None, unknown), (unknown, {})):
        with pytest.raises(InvalidArgumentError, match=f"Did you mean {meant}") as caught:
            training_spec(spec, **fields)  # type: ignore[arg-type]
        assert [violation.field for violation in caught.value.violations] == [f"spec.{field}"]
    with pytest.raises(InvalidArgumentError, match="there is no such field"):
        listing_request(model="abc", **unknown)


def test_states_by_name() -> None:
    request = build(ListJobsRequest(), states=["running", "JOB_STATE_FAILED"])
    assert list(request.states) == [JobState.JOB_STATE_RUNNING, JobState.JOB_STATE_FAILED]
    request = build(ListJobsRequest(), states="queued")
    assert list(request.states) == [JobState.JOB_STATE_QUEUED]


def test_a_listing_takes_its_enums_by_name_and_leaves_out_what_is_not_given() -> None:
    request = listing_request(
        model="abc", split="train", grouping="true_class", order="random", seed=0, per_class=None
    )
    assert request == ListMisclassifiedRequest(
        model="models/abc",
        split=Split.SPLIT_TRAIN,
        grouping=Grouping.GROUPING_TRUE_CLASS,
        order=ExampleOrder.EXAMPLE_ORDER_RANDOM,
        seed=0,
    )
    assert request.HasField("seed")
    assert not request.HasField("per_class")
    with pytest.raises(InvalidArgumentError, match="'both' is not one of test, train"):
        listing_request(model="abc", split="both")


def test_a_model_is_selected_by_its_name_or_bare_id() -> None:
    assert selected(model="abc").model == "models/abc"
    assert selected(model="models/abc/epochs/3").model == "models/abc/epochs/3"


def test_a_variant_is_selected_whole_or_by_its_parts() -> None:
    variant = Variant(dataset="tiny", blocks=2, batch_norm=False)
    assert selected(variant=variant).variant == variant
    assert selected(dataset="tiny", blocks=2).variant == variant
    residual = Variant(dataset="tiny", blocks=2, residual=True)
    assert selected(dataset="tiny", blocks=2, residual=True).variant == residual
    of_two = Variant(dataset="tiny", blocks=2, block_convolutions=2)
    assert selected(dataset="tiny", blocks=2, block_convolutions=2).variant == of_two


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"model": "abc", "variant": Variant(dataset="tiny")},
        {"model": "abc", "dataset": "tiny", "blocks": 2},
        {"variant": Variant(dataset="tiny"), "blocks": 2},
        {"dataset": "tiny"},
        {"blocks": 2},
        {"batch_norm": True},
        {"residual": True},
        {"block_convolutions": 2},
        {"model": "abc", "block_convolutions": 1},
        {"variant": Variant(dataset="tiny"), "block_convolutions": 2},
    ],
)
def test_anything_but_one_model_or_variant_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        selected(**arguments)


def selected(**arguments: Any) -> PredictRequest:
    return select(PredictRequest(), **arguments)


def test_an_argument_of_no_selection_is_named_with_what_is_meant() -> None:
    with pytest.raises(InvalidArgumentError, match=r"blok: .* Did you mean blocks\?"):
        selected(dataset="tiny", blok=2)


def test_a_list_fills_a_repeated_field() -> None:
    request = build(ListJobsRequest(), states=[JobState.JOB_STATE_QUEUED], page_size=3)
    assert list(request.states) == [JobState.JOB_STATE_QUEUED]
    assert request.page_size == 3


def test_seconds_become_a_duration() -> None:
    assert duration(None) is None
    half = duration(1.5)
    assert half is not None
    assert (half.seconds, half.nanos) == (1, 500_000_000)
    with pytest.raises(InvalidArgumentError):
        duration(float("nan"))
    with pytest.raises(InvalidArgumentError):
        duration(float("inf"))


def test_bare_ids_become_names() -> None:
    assert job_name("abc") == job_name("jobs/abc") == "jobs/abc"
    assert model_name("abc/epochs/2") == "models/abc/epochs/2"
