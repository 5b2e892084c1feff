from collections import Counter

import grpc
import numpy as np
import pytest

from leadline.models.datasets import find_dataset
from leadline.models.images import decode_image
from leadline.v1.inference_service_pb2 import EncodedImages, PredictRequest
from leadline.v1.inspection_service_pb2 import (
    GROUPING_PREDICTED_CLASS,
    GROUPING_TRUE_CLASS,
    Example,
    ListMisclassifiedRequest,
    ListMisclassifiedResponse,
)
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.model_pb2 import Variant
from support.servers import CLASSES, LiveServer
from support.wire import Stubs, violations


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
def test_the_wrong_ones_are_exactly_those_that_predict_gets_wrong(
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
            model=result.model, encoded=EncodedImages(images=[one.png for one in everything])
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
    assert {one.index for one in wrong} == {
        one.index for one in everything if one.true_class_index != one.predicted_class_index
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

        keys = [(group(one), is_right(one), one.index) for one in examples]
        assert keys == sorted(keys)
        shown = Counter(key[:2] for key in keys)
        for count in page.class_counts:
            assert shown[count.class_index, False] == min(2, count.wrong)
            assert shown[count.class_index, True] == min(2, count.correct)


def test_the_counts_are_of_the_whole_test_set(stubs: Stubs, trained: list[JobEvent]) -> None:
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


def test_a_token_goes_on_with_its_own_request_only(stubs: Stubs, trained: list[JobEvent]) -> None:
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
