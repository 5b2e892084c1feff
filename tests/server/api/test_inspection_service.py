from collections import Counter

import grpc
import numpy as np
import pytest
import torch

from leadline.models.batches import normalize
from leadline.models.checkpoints import load_checkpoint
from leadline.models.datasets import Dataset, find_dataset
from leadline.models.images import decode_image
from leadline.v1.inference_service_pb2 import EncodedImages, ExampleImages, PredictRequest
from leadline.v1.inspection_service_pb2 import (
    EXAMPLE_ORDER_INDEX,
    EXAMPLE_ORDER_LEAST_PROBABLE,
    EXAMPLE_ORDER_RANDOM,
    GROUPING_NONE,
    GROUPING_PREDICTED_CLASS,
    GROUPING_TRUE_CLASS,
    IMAGE_FORMAT_NONE,
    IMAGE_FORMAT_RAW,
    SPLIT_TEST,
    SPLIT_TRAIN,
    Example,
    ListMisclassifiedRequest,
    ListMisclassifiedResponse,
)
from leadline.v1.job_pb2 import JobEvent, JobState
from leadline.v1.model_pb2 import Variant
from leadline.v1.training_service_pb2 import CancelJobRequest, GetJobRequest, TrainJobRequest
from support.checkpoints import make_older
from support.datasets import specs_of
from support.servers import CLASSES, LiveServer
from support.wire import Stubs, reason, violations

tiny_spec = specs_of(__file__)


@pytest.fixture(scope="module")
def dataset(live_server: LiveServer, trained: list[JobEvent]) -> Dataset:
    fingerprint = trained[1].started.dataset_fingerprint
    return find_dataset(fingerprint, live_server.data_dir / "datasets")


def plain_torch(live_server: LiveServer, model: str, images: np.ndarray) -> np.ndarray:
    """Recomputes the predicted classes of a checkpoint's network, int64 [N]."""
    _, job_id, _, epoch = model.split("/")
    (folder,) = (live_server.data_dir / "models" / job_id).iterdir()
    network = load_checkpoint(folder, int(epoch)).network()
    with torch.no_grad():
        logits = network(normalize(torch.from_numpy(np.array(images))))
    return np.asarray(logits.argmax(1).numpy())


def listed(stubs: Stubs, **fields: object) -> list[Example]:
    return all_pages(stubs, ListMisclassifiedRequest(**fields))[0]  # type: ignore[arg-type]


def refusal(stubs: Stubs, **fields: object) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        stubs.inspection.ListMisclassified(
            ListMisclassifiedRequest(**fields),  # type: ignore[arg-type]
            timeout=10,
        )
    return caught.value


def all_pages(
    stubs: Stubs, request: ListMisclassifiedRequest
) -> tuple[list[Example], ListMisclassifiedResponse]:
    examples: list[Example] = []
    while True:
        page = stubs.inspection.ListMisclassified(request, timeout=10)
        assert len(page.examples) <= (request.page_size or 100)
        examples += page.examples
        request.page_token = page.next_page_token
        if not page.next_page_token:
            assert page.total_size == len(examples)
            return examples, page


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_wrong_examples_are_exactly_those_that_predict_gets_wrong(
    stubs: Stubs, live_server: LiveServer, trained: list[JobEvent], epoch: int
) -> None:
    result = trained[epoch + 1].epoch
    fingerprint = trained[1].started.dataset_fingerprint
    test = find_dataset(fingerprint, live_server.data_dir / "datasets").test

    wrong, last = all_pages(stubs, ListMisclassifiedRequest(model=result.model, page_size=7))
    everything, _ = all_pages(
        stubs, ListMisclassifiedRequest(model=result.model, include_correct=True)
    )
    everything.sort(key=lambda example: example.index)
    answer = stubs.inference.Predict(
        PredictRequest(
            model=result.model,
            encoded=EncodedImages(images=[example.png for example in everything]),
        ),
        timeout=10,
    )

    assert last.model == result.model
    assert last.test_accuracy == result.test_accuracy == (200 - len(wrong)) / 200
    assert [example.index for example in everything] == list(range(200))
    for example, prediction in zip(everything, answer.predictions, strict=True):
        assert example.true_class_index == test.labels[example.index]
        assert example.predicted_class_index == prediction.class_index
        assert example.probability == pytest.approx(prediction.probability, abs=1e-5)
        assert (decode_image(example.png) == test.images[example.index]).all()
        assert example.aspect_ratio == (2 if example.true_class_index == 1 else 1)
    assert {example.index for example in wrong} == {
        example.index
        for example in everything
        if example.true_class_index != example.predicted_class_index
    }


def test_examples_come_class_by_class_the_wrong_first(
    stubs: Stubs, trained: list[JobEvent]
) -> None:
    model = trained[2].epoch.model  # the first epoch has most mistakes
    for grouping in (GROUPING_PREDICTED_CLASS, GROUPING_TRUE_CLASS):
        request = ListMisclassifiedRequest(
            model=model, per_class=2, include_correct=True, grouping=grouping
        )
        examples, page = all_pages(stubs, request)

        def group(example: Example, grouping: int = grouping) -> int:
            by_truth = grouping == GROUPING_TRUE_CLASS
            return example.true_class_index if by_truth else example.predicted_class_index

        def is_right(example: Example) -> bool:
            return example.true_class_index == example.predicted_class_index

        keys = [
            (group(example), is_right(example), -example.probability, example.index)
            for example in examples
        ]
        assert keys == sorted(keys)
        shown = Counter(key[:2] for key in keys)
        for count in page.class_counts:
            assert shown[count.class_index, False] == min(2, count.wrong)
            assert shown[count.class_index, True] == min(2, count.correct)


def test_the_counts_cover_the_full_test_set(stubs: Stubs, trained: list[JobEvent]) -> None:
    model = trained[2].epoch.model

    by_truth = stubs.inspection.ListMisclassified(
        ListMisclassifiedRequest(model=model, per_class=1, grouping=GROUPING_TRUE_CLASS), timeout=10
    )
    by_prediction = stubs.inspection.ListMisclassified(
        ListMisclassifiedRequest(model=model, per_class=1), timeout=10
    )

    assert [count.class_name for count in by_truth.class_counts] == list(CLASSES)
    assert [count.wrong + count.correct for count in by_truth.class_counts] == [20] * 10
    for page in (by_truth, by_prediction):
        correct = sum(count.correct for count in page.class_counts)
        wrong = sum(count.wrong for count in page.class_counts)
        assert (correct + wrong, correct / 200) == (200, page.test_accuracy)
        assert page.test_images == 200


def test_a_model_and_a_variant_stand_for_their_best_epoch(
    stubs: Stubs, trained: list[JobEvent]
) -> None:
    finished = trained[-1].finished

    by_model = stubs.inspection.ListMisclassified(
        ListMisclassifiedRequest(model=finished.model, per_class=1), timeout=10
    )
    by_variant = stubs.inspection.ListMisclassified(
        ListMisclassifiedRequest(variant=Variant(dataset="tiny", blocks=1, batch_norm=True)),
        timeout=10,
    )

    assert by_model.model == f"{finished.model}/epochs/{finished.best_epoch}"
    assert by_variant.test_accuracy >= by_model.test_accuracy


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"per_class": 0}, "per_class"),
        ({"per_class": 1_000_000}, "per_class"),
        ({"grouping": 9}, "grouping"),
        ({"split": 7}, "split"),
        ({"order": 7}, "order"),
        ({"image_format": 7}, "image_format"),
        ({"true_class": "cat"}, "true_class"),
        ({"predicted_class": "0"}, "predicted_class"),
        ({"min_probability": -0.1}, "min_probability"),
        ({"max_probability": 1.5}, "max_probability"),
        ({"max_probability": float("nan")}, "max_probability"),
        ({"min_probability": 0.6, "max_probability": 0.5}, "max_probability"),
        ({"seed": 1}, "seed"),
        ({"seed": -1, "order": EXAMPLE_ORDER_RANDOM}, "seed"),
        ({"page_size": -5}, "page_size"),
        ({"page_token": "never"}, "page_token"),
        ({"model": "models/UPPER"}, "model"),
        ({"model": ""}, "model"),
    ],
)
def test_a_wrong_request_is_refused(
    stubs: Stubs, trained: list[JobEvent], changes: dict[str, object], field: str
) -> None:
    values = {"model": trained[-1].finished.model, **changes}
    request = ListMisclassifiedRequest(**values)  # type: ignore[arg-type]

    with pytest.raises(grpc.RpcError) as caught:
        stubs.inspection.ListMisclassified(request, timeout=10)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(violations(caught.value)) == [field]


def test_no_selector_is_refused(stubs: Stubs) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stubs.inspection.ListMisclassified(ListMisclassifiedRequest(), timeout=10)

    assert list(violations(caught.value)) == ["selector"]


def test_an_unknown_model_or_epoch_is_not_found(stubs: Stubs, trained: list[JobEvent]) -> None:
    for model in ("models/nosuchmodel", f"{trained[-1].finished.model}/epochs/99"):
        with pytest.raises(grpc.RpcError) as caught:
            stubs.inspection.ListMisclassified(ListMisclassifiedRequest(model=model), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_token_is_valid_for_its_own_request_only(stubs: Stubs, trained: list[JobEvent]) -> None:
    request = ListMisclassifiedRequest(model=trained[2].epoch.model, page_size=1)
    request.page_token = stubs.inspection.ListMisclassified(request, timeout=10).next_page_token
    assert request.page_token
    request.include_correct = True

    with pytest.raises(grpc.RpcError) as caught:
        stubs.inspection.ListMisclassified(request, timeout=10)

    assert list(violations(caught.value)) == ["page_token"]


def test_the_images_are_the_test_set_bit_for_bit(
    stubs: Stubs, live_server: LiveServer, trained: list[JobEvent]
) -> None:
    fingerprint = trained[1].started.dataset_fingerprint
    dataset = find_dataset(fingerprint, live_server.data_dir / "datasets")

    examples, _ = all_pages(
        stubs, ListMisclassifiedRequest(model=trained[2].epoch.model, per_class=1)
    )

    shown = np.stack([decode_image(example.png) for example in examples])
    assert (shown == dataset.test.images[[example.index for example in examples]]).all()


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_the_counts_of_every_epoch_are_those_of_plain_torch(
    stubs: Stubs, live_server: LiveServer, dataset: Dataset, trained: list[JobEvent], epoch: int
) -> None:
    result = trained[epoch + 1].epoch
    for split, images, reported in (
        (SPLIT_TEST, dataset.test, result.test_accuracy),
        (SPLIT_TRAIN, dataset.train, result.train_accuracy),
    ):
        request = ListMisclassifiedRequest(
            model=result.model, split=split, image_format=IMAGE_FORMAT_NONE, page_size=1000
        )
        wrong, page = all_pages(stubs, request)

        predicted = plain_torch(live_server, result.model, images.images)
        assert {example.index: example.predicted_class_index for example in wrong} == {
            int(index): predicted[index] for index in np.flatnonzero(predicted != images.labels)
        }
        assert page.split_accuracy == reported == (len(images) - page.total_size) / len(images)
        assert (page.split, page.split_images) == (split, len(images))
        assert (page.test_accuracy, page.test_images) == (result.test_accuracy, 200)


def test_a_cell_of_the_confusion_matrix_is_listed(stubs: Stubs, trained: list[JobEvent]) -> None:
    model = trained[2].epoch.model
    everything = listed(stubs, model=model, include_correct=True)

    for true_class, predicted_class in (("bee", ""), ("", "bee"), ("bee", "dog"), ("bee", "bee")):
        cell = listed(
            stubs,
            model=model,
            true_class=true_class,
            predicted_class=predicted_class,
            include_correct=True,
        )
        assert {example.index for example in cell} == {
            example.index
            for example in everything
            if true_class in ("", example.true_class_name)
            and predicted_class in ("", example.predicted_class_name)
        }


def test_a_range_of_probabilities_is_listed_bounds_included(
    stubs: Stubs, trained: list[JobEvent]
) -> None:
    model = trained[2].epoch.model
    wrong = listed(stubs, model=model, grouping=GROUPING_NONE)
    low, high = wrong[-5].probability, wrong[5].probability

    in_range = listed(
        stubs, model=model, grouping=GROUPING_NONE, min_probability=low, max_probability=high
    )

    assert in_range == [example for example in wrong if low <= example.probability <= high]
    assert len(in_range) >= len(wrong) - 10


def test_examples_come_in_the_requested_order(stubs: Stubs, trained: list[JobEvent]) -> None:
    ungrouped = {"model": trained[2].epoch.model, "grouping": GROUPING_NONE}
    most = listed(stubs, **ungrouped)
    least = listed(stubs, **ungrouped, order=EXAMPLE_ORDER_LEAST_PROBABLE)
    by_index = listed(stubs, **ungrouped, order=EXAMPLE_ORDER_INDEX)

    assert [(-example.probability, example.index) for example in most] == sorted(
        (-example.probability, example.index) for example in by_index
    )
    assert [(example.probability, example.index) for example in least] == sorted(
        (example.probability, example.index) for example in by_index
    )
    assert [example.index for example in by_index] == sorted(example.index for example in most)


def test_a_random_order_depends_on_the_seed_and_not_on_filters(
    stubs: Stubs, trained: list[JobEvent]
) -> None:
    ungrouped = {
        "model": trained[2].epoch.model,
        "grouping": GROUPING_NONE,
        "order": EXAMPLE_ORDER_RANDOM,
    }
    first = listed(stubs, **ungrouped, seed=1)
    again = listed(stubs, **ungrouped, seed=1, page_size=3)
    other = listed(stubs, **ungrouped, seed=2)
    of_a_class = listed(stubs, **ungrouped, seed=1, true_class="bee")

    assert first == again
    assert [example.index for example in first] != [example.index for example in other]
    assert {example.index for example in first} == {example.index for example in other}
    assert of_a_class == [example for example in first if example.true_class_name == "bee"]


def test_no_group_is_one_group(stubs: Stubs, trained: list[JobEvent]) -> None:
    examples = listed(
        stubs,
        model=trained[2].epoch.model,
        grouping=GROUPING_NONE,
        per_class=3,
        include_correct=True,
    )
    right = [example.true_class_index == example.predicted_class_index for example in examples]
    assert right == [False] * 3 + [True] * 3


def test_images_come_as_raw_bytes_or_not_at_all_on_request(
    stubs: Stubs, dataset: Dataset, trained: list[JobEvent]
) -> None:
    model = trained[2].epoch.model
    for split, images in ((SPLIT_TEST, dataset.test), (SPLIT_TRAIN, dataset.train)):
        raw = listed(stubs, model=model, split=split, per_class=1, image_format=IMAGE_FORMAT_RAW)
        for example in raw:
            assert example.pixels == images.images[example.index].tobytes()
            assert not example.png
    none = listed(stubs, model=model, per_class=1, image_format=IMAGE_FORMAT_NONE)
    assert not any(example.png or example.pixels for example in none)


@pytest.mark.parametrize("split", [SPLIT_TEST, SPLIT_TRAIN])
def test_predict_takes_examples_by_their_names(
    stubs: Stubs, trained: list[JobEvent], split: int
) -> None:
    model = trained[2].epoch.model
    examples = listed(stubs, model=model, split=split, per_class=2, include_correct=True)

    answer = stubs.inference.Predict(
        PredictRequest(
            model=model, examples=ExampleImages(names=[example.name for example in examples])
        ),
        timeout=10,
    )

    assert len(answer.predictions) == len(examples) > 10
    for example, prediction in zip(examples, answer.predictions, strict=True):
        assert prediction.class_index == example.predicted_class_index
        close = 0.002 if split == SPLIT_TRAIN else 2e-5
        assert prediction.probability == pytest.approx(example.probability, abs=close)


def test_a_malformed_example_name_is_refused_by_its_index(
    stubs: Stubs, trained: list[JobEvent]
) -> None:
    (example, *_) = listed(stubs, model=trained[2].epoch.model, per_class=1)
    for name in ("", "datasets/tiny/test/0", example.name + "x", example.name.replace("t/", "u/")):
        with pytest.raises(grpc.RpcError) as caught:
            stubs.inference.Predict(
                PredictRequest(
                    model=trained[2].epoch.model,
                    examples=ExampleImages(names=[example.name, name]),
                ),
                timeout=10,
            )
        assert list(violations(caught.value)) == ["examples.names[1]"]


def test_missing_examples_are_refused_by_their_indices(
    stubs: Stubs, trained: list[JobEvent]
) -> None:
    fingerprint = trained[1].started.dataset_fingerprint
    names = [f"datasets/{fingerprint}/test/{index}" for index in (199, 200)]
    names.append(f"datasets/{'0' * 64}/test/0")

    with pytest.raises(grpc.RpcError) as caught:
        stubs.inference.Predict(
            PredictRequest(model=trained[2].epoch.model, examples=ExampleImages(names=names)),
            timeout=10,
        )

    assert reason(caught.value) == "INVALID_IMAGE"
    assert violations(caught.value) == {
        "examples.names[1]": "the test images are 0 to 199, there is no 200",
        "examples.names[2]": f"this server has no dataset {'0' * 64}: send the image itself",
    }


def test_no_example_is_refused(stubs: Stubs, trained: list[JobEvent]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stubs.inference.Predict(
            PredictRequest(model=trained[2].epoch.model, examples=ExampleImages()), timeout=10
        )
    assert list(violations(caught.value)) == ["examples.names"]


def test_a_job_that_trains_is_listed_epoch_by_epoch(stubs: Stubs) -> None:
    spec = tiny_spec(epochs=200)
    watching = stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60)
    try:
        for event in watching:
            if event.WhichOneof("event") == "epoch":
                page = stubs.inspection.ListMisclassified(
                    ListMisclassifiedRequest(model=event.epoch.model, per_class=1), timeout=10
                )
                assert page.test_accuracy == event.epoch.test_accuracy
                if event.epoch.epoch == 3:
                    break
        job = stubs.training.GetJob(GetJobRequest(name=event.job), timeout=10)
        assert job.state == JobState.JOB_STATE_RUNNING
    finally:
        watching.cancel()
        stubs.training.CancelJob(CancelJobRequest(name=event.job), timeout=10)


def test_a_model_without_predictions_says_so(stubs: Stubs, live_server: LiveServer) -> None:
    """Models of older versions have no kept predictions."""
    finished = list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=1)), timeout=60))
    model = finished[-1].finished.model
    (folder,) = (live_server.data_dir / model).iterdir()
    make_older(folder, 1, lambda description: description["files"].pop("predictions"))

    for split in (SPLIT_TEST, SPLIT_TRAIN):
        error = refusal(stubs, model=model, split=split)
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert reason(error) == "PREDICTIONS_NOT_KEPT"
        assert f"{model}/epochs/1" in str(error.details())
