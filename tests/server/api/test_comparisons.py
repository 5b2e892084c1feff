"""Confusion matrices, comparisons and likely label errors, over the wire."""

from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from leadline.models.checkpoint_files import (
    load_predictions,
    open_checkpoint,
    remove_checkpoint,
    write_checkpoint,
)
from leadline.models.datasets import find_dataset
from leadline.models.predictions import encode_predictions
from leadline.v1.inspection_service_pb2 import (
    IMAGE_FORMAT_NONE,
    OUTCOME_BROKEN,
    OUTCOME_FIXED,
    OUTCOME_STILL_WRONG,
    SPLIT_TEST,
    SPLIT_TRAIN,
    ComparedExample,
    CompareModelsRequest,
    ConfusionMatrix,
    GetConfusionMatrixRequest,
    LikelyLabelError,
    ListLikelyLabelErrorsRequest,
    ListMisclassifiedRequest,
    ModelSelector,
    Split,
)
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.model_pb2 import Variant
from leadline.v1.training_service_pb2 import TrainJobRequest
from support.datasets import specs_of
from support.servers import CLASSES, LiveServer, ServerFactory
from support.wire import Stubs, connect, reason, violations

tiny_spec = specs_of(__file__)


@pytest.fixture(scope="module")
def other(stubs: Stubs) -> str:
    """The name of a model of another variant on the same images."""
    spec = tiny_spec(blocks=2, seed=1)
    events = list(stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60))
    return events[-1].finished.model


def selector(name: str) -> ModelSelector:
    return ModelSelector(model=name)


def refused(call: Any, request: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=10)
    return caught.value


# Confusion matrices


@pytest.mark.parametrize("split", [SPLIT_TEST, SPLIT_TRAIN])
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_the_matrix_counts_what_is_listed_and_reported_in_every_epoch(
    stubs: Stubs, trained: list[JobEvent], split: Split.ValueType, epoch: int
) -> None:
    result = trained[epoch + 1].epoch
    matrix = stubs.inspection.GetConfusionMatrix(
        GetConfusionMatrixRequest(model=result.model, split=split), timeout=10
    )
    listing = stubs.inspection.ListMisclassified(
        ListMisclassifiedRequest(
            model=result.model,
            split=split,
            include_correct=True,
            page_size=1000,
            image_format=IMAGE_FORMAT_NONE,
        ),
        timeout=10,
    )

    counts = np.zeros((10, 10), dtype=int)
    for example in listing.examples:
        counts[example.true_class_index, example.predicted_class_index] += 1
    assert [list(row.counts) for row in matrix.rows] == counts.tolist()
    reported = result.train_accuracy if split == SPLIT_TRAIN else result.test_accuracy
    assert matrix.accuracy == reported == counts.trace() / counts.sum()
    assert (matrix.model, matrix.split) == (result.model, split)
    assert matrix.images == counts.sum() == sum(bin_.images for bin_ in matrix.calibration.bins)


def test_the_metrics_of_a_class_are_those_of_its_row_and_column(
    stubs: Stubs, trained: list[JobEvent]
) -> None:
    matrix: ConfusionMatrix = stubs.inspection.GetConfusionMatrix(
        GetConfusionMatrixRequest(model=trained[2].epoch.model), timeout=10
    )

    counts = np.array([row.counts for row in matrix.rows])
    assert [metrics.class_name for metrics in matrix.classes] == list(CLASSES)
    for index, metrics in enumerate(matrix.classes):
        right, predicted = counts[index, index], counts[:, index].sum()
        assert (metrics.support, metrics.predicted) == (20, predicted)
        assert metrics.recall == right / 20
        assert metrics.HasField("precision") == (predicted > 0)
        if predicted:
            assert metrics.precision == right / predicted
        assert metrics.f1 == pytest.approx(2 * right / (20 + predicted))
    assert len(matrix.calibration.bins) == 15
    assert 0 <= matrix.calibration.expected_calibration_error <= 1


def test_the_matrix_of_a_variant_is_that_of_its_best(stubs: Stubs, trained: list[JobEvent]) -> None:
    variant = Variant(dataset="tiny", blocks=1, batch_norm=True)
    matrix = stubs.inspection.GetConfusionMatrix(
        GetConfusionMatrixRequest(variant=variant), timeout=10
    )
    assert matrix.accuracy >= trained[-1].finished.best_test_accuracy


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (GetConfusionMatrixRequest(), "selector"),
        (GetConfusionMatrixRequest(model="models/UPPER"), "model"),
        (GetConfusionMatrixRequest(model="models/a", split=9), "split"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_request_for_a_matrix_is_refused(
    stubs: Stubs, request_: GetConfusionMatrixRequest, field: str
) -> None:
    assert list(violations(refused(stubs.inspection.GetConfusionMatrix, request_))) == [field]


def test_a_matrix_of_a_missing_epoch_is_not_found(stubs: Stubs, trained: list[JobEvent]) -> None:
    request = GetConfusionMatrixRequest(model=f"{trained[-1].finished.model}/epochs/99")
    error = refused(stubs.inspection.GetConfusionMatrix, request)
    assert error.code() is grpc.StatusCode.NOT_FOUND


# Comparisons


def predicted_by(live_server: LiveServer, name: str) -> np.ndarray:
    _, job_id, _, epoch = name.split("/")
    (folder,) = (live_server.data_dir / "models" / job_id).iterdir()
    return load_predictions(folder, int(epoch)).predicted


def test_a_comparison_counts_every_image_once(
    stubs: Stubs, live_server: LiveServer, trained: list[JobEvent], other: str
) -> None:
    first = trained[2].epoch.model
    comparison = stubs.inspection.CompareModels(
        CompareModelsRequest(baseline=selector(first), candidate=selector(other)), timeout=10
    )

    fingerprint = trained[1].started.dataset_fingerprint
    labels = find_dataset(fingerprint, live_server.data_dir / "datasets").test.labels
    before = predicted_by(live_server, comparison.baseline) == labels
    after = predicted_by(live_server, comparison.candidate) == labels
    assert (comparison.both_right, comparison.fixed) == (
        (before & after).sum(),
        (~before & after).sum(),
    )
    assert (comparison.broken, comparison.still_wrong) == (
        (before & ~after).sum(),
        (~before & ~after).sum(),
    )
    assert comparison.baseline_accuracy == trained[2].epoch.test_accuracy == before.mean()
    assert comparison.candidate_accuracy == after.mean()
    assert comparison.images == 200
    assert comparison.mcnemar.discordant == comparison.fixed + comparison.broken
    assert comparison.mcnemar.exact == (comparison.mcnemar.discordant < 25)
    assert comparison.mcnemar.HasField("statistic") != comparison.mcnemar.exact


def test_the_examples_of_a_comparison_come_by_outcome_page_by_page(
    stubs: Stubs, trained: list[JobEvent], other: str
) -> None:
    request = CompareModelsRequest(
        baseline=selector(trained[2].epoch.model), candidate=selector(other), page_size=7
    )
    examples: list[ComparedExample] = []
    while True:
        page = stubs.inspection.CompareModels(request, timeout=10)
        examples += page.examples
        request.page_token = page.next_page_token
        if not request.page_token:
            break

    assert len(examples) == page.total_size == page.fixed + page.broken + page.still_wrong
    keys = []
    for example in examples:
        is_fixed = example.candidate.class_index == example.true_class_index
        is_broken = example.baseline.class_index == example.true_class_index
        outcomes = {(True, False): OUTCOME_FIXED, (False, True): OUTCOME_BROKEN}
        assert example.outcome == outcomes.get((is_fixed, is_broken), OUTCOME_STILL_WRONG)
        mistaken = example.baseline if is_fixed else example.candidate
        keys.append((example.outcome, -mistaken.probability, example.index))
        assert example.name.endswith(f"/test/{example.index}")
        assert example.png
    assert keys == sorted(keys)


def test_the_examples_of_an_outcome_and_a_class_are_shown_alone(
    stubs: Stubs, trained: list[JobEvent], other: str
) -> None:
    request = CompareModelsRequest(
        baseline=selector(trained[2].epoch.model), candidate=selector(other), page_size=1000
    )
    complete = stubs.inspection.CompareModels(request, timeout=10)
    request.outcome, request.true_class = OUTCOME_FIXED, "bee"
    some = stubs.inspection.CompareModels(request, timeout=10)

    assert list(some.examples) == [
        example
        for example in complete.examples
        if example.outcome == OUTCOME_FIXED and example.true_class_name == "bee"
    ]
    assert (some.fixed, some.broken) == (complete.fixed, complete.broken)


def test_a_model_is_no_better_than_itself(stubs: Stubs, trained: list[JobEvent]) -> None:
    same = selector(trained[2].epoch.model)
    comparison = stubs.inspection.CompareModels(
        CompareModelsRequest(baseline=same, candidate=same), timeout=10
    )
    assert (comparison.fixed, comparison.broken, comparison.mcnemar.p_value) == (0, 0, 1)


def test_models_of_other_images_are_not_compared(
    stubs: Stubs, trained: list[JobEvent], synthetic: str
) -> None:
    request = CompareModelsRequest(
        baseline=selector(trained[-1].finished.model), candidate=selector(synthetic)
    )
    assert list(violations(refused(stubs.inspection.CompareModels, request))) == ["candidate"]


@pytest.fixture(scope="module")
def synthetic(stubs: Stubs) -> str:
    """The name of a model of another dataset."""
    spec = tiny_spec(dataset="synthetic", blocks=0, epochs=1, batch_size=500)
    events = list(stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=100))
    return events[-1].finished.model


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"baseline": None}, "baseline.selector"),
        ({"candidate": ModelSelector()}, "candidate.selector"),
        ({"candidate": ModelSelector(model="nobody")}, "candidate.model"),
        ({"baseline": ModelSelector(variant=Variant(blocks=1))}, "baseline.variant.dataset"),
        ({"split": 9}, "split"),
        ({"outcome": 9}, "outcome"),
        ({"image_format": 9}, "image_format"),
        ({"true_class": "cat"}, "true_class"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "never"}, "page_token"),
    ],
)
def test_a_wrong_request_for_a_comparison_is_refused(
    stubs: Stubs, trained: list[JobEvent], changes: dict[str, Any], field: str
) -> None:
    same = selector(trained[-1].finished.model)
    request = CompareModelsRequest(**{"baseline": same, "candidate": same, **changes})
    assert list(violations(refused(stubs.inspection.CompareModels, request))) == [field]


# Likely label errors


def suspects(stubs: Stubs, **fields: Any) -> list[LikelyLabelError]:
    request = ListLikelyLabelErrorsRequest(**fields)
    found: list[LikelyLabelError] = []
    while True:
        page = stubs.inspection.ListLikelyLabelErrors(request, timeout=10)
        found += page.examples
        request.page_token = page.next_page_token
        if not request.page_token:
            assert page.total_size == len(found)
            return found


def test_a_label_that_models_contradict_is_found(stubs: Stubs, live_server: LiveServer) -> None:
    """Changes the kept predictions of two models for one image, so that they contradict its
    label."""
    models = []
    for seed in (1, 2):
        spec = tiny_spec(epochs=1, seed=seed)
        events = list(stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60))
        models.append(f"{events[-1].finished.model}/epochs/1")
        doubt(live_server, models[-1], index=25, predicted=7)  # a bee, predicted as a hen

    reported = suspects(stubs, models=models, page_size=3)

    first = reported[0]
    assert (first.index, first.true_class_name, first.suggested_class_name) == (25, "bee", "hen")
    assert first.contradicting_models == 2
    assert first.margin == pytest.approx(0.999, abs=2e-5)
    assert first.name.endswith("/test/25")
    assert first.png
    assert suspects(stubs, models=models, true_class="bee")[0] == first
    assert first not in suspects(stubs, models=models, true_class="ant")
    assert len(suspects(stubs, models=models, min_models=1)) > len(reported)


def doubt(live_server: LiveServer, name: str, *, index: int, predicted: int) -> None:
    _, job_id, _, epoch = name.split("/")
    (folder,) = (live_server.data_dir / "models" / job_id).iterdir()
    reader = open_checkpoint(folder, int(epoch))
    train, test = reader.read_predictions("train"), reader.read_predictions("test")
    test.predicted[index] = predicted
    test.probability[index] = 1.0
    assert test.true_probability is not None
    test.true_probability[index] = 0.001
    parts = {
        "weights": reader.read("weights"),
        "predictions": encode_predictions(train, test, classes=len(CLASSES)),
    }
    remove_checkpoint(folder, int(epoch))
    write_checkpoint(folder, replace(reader.info, files={}), parts)


def test_the_best_of_each_good_variant_of_a_dataset_votes(
    server_factory: ServerFactory,
) -> None:
    stubs = connect(server_factory().target)
    models = {}
    # Without blocks, batch norm has no effect: the first two are equally good.
    for blocks, batch_norm, rate in ((0, False, 0.05), (0, True, 0.05), (1, False, 1e-6)):
        spec = tiny_spec(blocks=blocks, batch_norm=batch_norm, learning_rate=rate)
        events = list(stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60))
        finished = events[-1].finished
        models[blocks, batch_norm] = f"{finished.model}/epochs/{finished.best_epoch}"
        accuracies = [event.epoch.test_accuracy for event in events if event.HasField("epoch")]
        assert (max(accuracies) < 0.2) == (rate < 0.01)

    page = stubs.inspection.ListLikelyLabelErrors(
        ListLikelyLabelErrorsRequest(dataset=spec.dataset), timeout=10
    )

    assert set(page.models) == {models[0, False], models[0, True]}
    assert page.min_models == 2
    assert all(example.contradicting_models == 2 for example in page.examples)
    assert page.total_size > 0
    stubs.channel.close()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"models": []}, "models"),
        ({"models": ["A"], "dataset": "tiny"}, "models"),
        ({"models": ["models/a"]}, "models"),
        ({"models": ["models/a"] * 21}, "models"),
        ({"models": ["models/a", "b"]}, "models[1]"),
        ({"min_models": 0}, "min_models"),
        ({"min_models": 1_000_000}, "min_models"),
        ({"split": 9}, "split"),
        ({"true_class": "cat"}, "true_class"),
        ({"image_format": 9}, "image_format"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "never"}, "page_token"),
    ],
)
def test_a_wrong_request_for_label_errors_is_refused(
    stubs: Stubs, trained: list[JobEvent], other: str, fields: dict[str, Any], field: str
) -> None:
    models = [] if "dataset" in fields else [trained[-1].finished.model, other]
    request = ListLikelyLabelErrorsRequest(**{"models": models, **fields})
    assert list(violations(refused(stubs.inspection.ListLikelyLabelErrors, request))) == [field]


def test_a_repeated_model_or_one_of_other_images_is_refused(
    stubs: Stubs, trained: list[JobEvent], synthetic: str
) -> None:
    model = trained[-1].finished.model
    for second in (model, synthetic):
        request = ListLikelyLabelErrorsRequest(models=[model, second])
        error = refused(stubs.inspection.ListLikelyLabelErrors, request)
        assert list(violations(error)) == ["models[1]"]


def test_a_dataset_without_enough_variants_says_so(stubs: Stubs) -> None:
    request = ListLikelyLabelErrorsRequest(dataset="nowhere")
    error = refused(stubs.inspection.ListLikelyLabelErrors, request)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason(error) == "TOO_FEW_MODELS"
