import io
import struct
import zlib
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from PIL import Image

from leadline.models.checkpoints import load_checkpoint
from leadline.models.images import decode_image, encode_png
from leadline.v1.inference_service_pb2 import (
    DATA_TYPE_FLOAT32,
    DATA_TYPE_UINT8,
    EncodedImages,
    GetModelRequest,
    ListModelsRequest,
    PredictRequest,
    PredictResponse,
    Tensor,
)
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.model_pb2 import Variant
from support.servers import CLASSES, LiveServer
from support.wire import Stubs, reason, violations

TINY_VARIANT = Variant(dataset="tiny", blocks=1, batch_norm=True)


@pytest.fixture(scope="module")
def test_files(tiny_dataset: Path) -> list[bytes]:
    """The files of the test images, in the order of the dataset."""
    paths = [path for name in CLASSES for path in sorted((tiny_dataset / "test" / name).iterdir())]
    return [path.read_bytes() for path in paths]


@pytest.fixture(scope="module")
def pixels(test_files: list[bytes]) -> np.ndarray:
    return np.stack([decode_image(file) for file in test_files])


@pytest.fixture(scope="module")
def model(trained: list[JobEvent]) -> str:
    return trained[-1].finished.model


def predict(stubs: Stubs, request: PredictRequest) -> PredictResponse:
    return stubs.inference.Predict(request, timeout=10)


def uint8_tensor(pixels: np.ndarray) -> Tensor:
    return Tensor(data_type=DATA_TYPE_UINT8, shape=pixels.shape, data=pixels.tobytes())


def an_image(width: int = 32, height: int = 32, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(file, form)
    return file.getvalue()


def test_the_predictions_are_those_of_the_checkpoint_in_plain_torch(
    stubs: Stubs,
    live_server: LiveServer,
    trained: list[JobEvent],
    test_files: list[bytes],
    pixels: np.ndarray,
) -> None:
    epoch = trained[-2].epoch
    job_id = trained[0].job.removeprefix("jobs/")
    network = load_checkpoint(
        live_server.data_dir / "models" / job_id / "attempt-001", epoch.epoch
    ).network()
    inputs = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127.5) / 127.5
    with torch.no_grad():
        expected = network(inputs).softmax(1).numpy()

    answer = predict(
        stubs,
        PredictRequest(model=epoch.model, encoded=EncodedImages(images=test_files), top_k=10),
    )

    assert answer.model == epoch.model
    assert answer.weights_sha256 == epoch.weights_sha256
    for prediction, row in zip(answer.predictions, expected, strict=True):
        assert prediction.class_index == row.argmax()
        assert prediction.class_name == CLASSES[row.argmax()]
        assert prediction.probability == prediction.top_k[0].probability
        scores = {score.class_index: score.probability for score in prediction.top_k}
        assert [scores[index] for index in range(10)] == pytest.approx(row.tolist(), abs=1e-5)
        assert list(scores.values()) == sorted(scores.values(), reverse=True)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_the_share_of_right_predictions_is_the_reported_accuracy(
    stubs: Stubs, trained: list[JobEvent], test_files: list[bytes], epoch: int
) -> None:
    result = trained[epoch + 1].epoch
    truth = np.repeat(np.arange(10), 20)

    answer = predict(
        stubs, PredictRequest(model=result.model, encoded=EncodedImages(images=test_files))
    )

    predicted = np.array([prediction.class_index for prediction in answer.predictions])
    assert (predicted == truth).mean() == result.test_accuracy


def test_files_bytes_and_floats_give_the_same_answer(
    stubs: Stubs, model: str, test_files: list[bytes], pixels: np.ndarray
) -> None:
    floats = (pixels.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
    requests = [
        PredictRequest(model=model, encoded=EncodedImages(images=test_files)),
        PredictRequest(model=model, tensor=uint8_tensor(pixels)),
        PredictRequest(
            model=model,
            tensor=Tensor(data_type=DATA_TYPE_FLOAT32, shape=floats.shape, data=floats.tobytes()),
        ),
    ]

    answers = [
        [prediction.class_index for prediction in predict(stubs, request).predictions]
        for request in requests
    ]

    assert answers[0] == answers[1] == answers[2]


def test_a_model_means_its_best_epoch_and_a_variant_its_best_model(
    stubs: Stubs, trained: list[JobEvent]
) -> None:
    finished = trained[-1].finished
    image = EncodedImages(images=[an_image()])

    by_model = predict(stubs, PredictRequest(model=finished.model, encoded=image))
    by_variant = predict(stubs, PredictRequest(variant=TINY_VARIANT, encoded=image))

    assert by_model.model == f"{finished.model}/epochs/{finished.best_epoch}"
    models = stubs.inference.ListModels(
        ListModelsRequest(dataset="tiny", blocks=1, batch_norm=True), timeout=10
    ).models
    best = max(model.best_test_accuracy for model in models)
    assert any(
        by_variant.model == f"{model.name}/epochs/{model.best_epoch}"
        for model in models
        if model.best_test_accuracy == best
    )


def test_images_of_other_sizes_and_kinds_are_taken(stubs: Stubs, model: str) -> None:
    images = [an_image(640, 480), an_image(8, 8), an_image(300, 20, "JPEG")]

    answer = predict(stubs, PredictRequest(model=model, encoded=EncodedImages(images=images)))

    assert len(answer.predictions) == 3
    assert all(len(prediction.top_k) == 1 for prediction in answer.predictions)


def decompression_bomb() -> bytes:
    """A PNG of 50,000 x 50,000 pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (b"", "empty"),
        (b"not an image", "PNG"),
        (an_image()[:60], ""),
        (an_image(form="GIF"), "PNG"),
        (decompression_bomb(), "pixels"),
        (an_image(20_000, 1), "too long"),
        (an_image(5_000, 5_000), "too large"),
        (b"\0" * (17 << 20), "limit"),
    ],
    ids=["empty", "text", "truncated", "gif", "bomb", "long", "large", "too many bytes"],
)
def test_a_bad_image_is_refused_by_its_index(
    stubs: Stubs, model: str, image: bytes, says: str
) -> None:
    request = PredictRequest(
        model=model, encoded=EncodedImages(images=[an_image(), image, an_image()])
    )

    with pytest.raises(grpc.RpcError) as caught:
        predict(stubs, request)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    refused = violations(caught.value)
    assert list(refused) == ["encoded.images[1]"]
    assert says in refused["encoded.images[1]"]
    assert reason(caught.value) == "INVALID_IMAGE"


NOT_FINITE = np.full(3072, np.nan, np.float32).tobytes()


@pytest.mark.parametrize(
    ("tensor", "field"),
    [
        ((DATA_TYPE_UINT8, [1, 3, 32, 32], bytes(3072)), "tensor.shape"),
        ((DATA_TYPE_UINT8, [32, 32, 3], bytes(3072)), "tensor.shape"),
        ((DATA_TYPE_UINT8, [0, 32, 32, 3], b""), "tensor.shape"),
        ((DATA_TYPE_UINT8, [-1, 32, 32, 3], bytes(3072)), "tensor.shape"),
        ((DATA_TYPE_UINT8, [2**62, 32, 32, 3], b""), "tensor.shape"),
        ((DATA_TYPE_UINT8, [], b""), "tensor.shape"),
        ((DATA_TYPE_UINT8, [1, 32, 32, 3], bytes(3071)), "tensor.data"),
        ((DATA_TYPE_FLOAT32, [1, 32, 32, 3], bytes(12_288)), "tensor.shape"),
        ((DATA_TYPE_FLOAT32, [1, 3, 32, 32], NOT_FINITE), "tensor.data"),
        ((0, [1, 32, 32, 3], bytes(3072)), "tensor.data_type"),
        ((99, [1, 32, 32, 3], bytes(3072)), "tensor.data_type"),
    ],
)
def test_a_wrong_tensor_is_refused(
    stubs: Stubs, model: str, tensor: tuple[Any, list[int], bytes], field: str
) -> None:
    data_type, shape, data = tensor

    with pytest.raises(grpc.RpcError) as caught:
        predict(
            stubs,
            PredictRequest(model=model, tensor=Tensor(data_type=data_type, shape=shape, data=data)),
        )

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(violations(caught.value)) == [field]


def test_an_incomplete_or_invalid_request_is_refused(stubs: Stubs, model: str) -> None:
    images = EncodedImages(images=[an_image()])
    for request, field in (
        (PredictRequest(encoded=images), "selector"),
        (PredictRequest(model=model), "input"),
        (PredictRequest(model=model, encoded=EncodedImages()), "encoded.images"),
        (PredictRequest(model=model, encoded=EncodedImages(images=[b""] * 5000)), "encoded.images"),
        (PredictRequest(model=model, encoded=images, top_k=-1), "top_k"),
        (PredictRequest(model=model, encoded=images, top_k=10**6), "top_k"),
        (PredictRequest(model="jobs/x", encoded=images), "model"),
        (PredictRequest(model=model + "/epochs/0", encoded=images), "model"),
        (PredictRequest(model=model + "/epochs/x", encoded=images), "model"),
        (PredictRequest(variant=Variant(blocks=1), encoded=images), "variant.dataset"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            predict(stubs, request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert list(violations(caught.value)) == [field]


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        ({"model": "models/nosuchmodel"}, "MODEL_NOT_FOUND"),
        ({"variant": Variant(dataset="tiny", blocks=33)}, "VARIANT_NOT_FOUND"),
    ],
)
def test_an_unknown_model_is_not_found(
    stubs: Stubs, selector: dict[str, object], says: str
) -> None:
    request = PredictRequest(encoded=EncodedImages(images=[an_image()]), **selector)  # type: ignore[arg-type]

    with pytest.raises(grpc.RpcError) as caught:
        predict(stubs, request)

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason(caught.value) == says


def test_a_missing_epoch_is_not_found(stubs: Stubs, model: str) -> None:
    request = PredictRequest(model=f"{model}/epochs/4", encoded=EncodedImages(images=[an_image()]))

    with pytest.raises(grpc.RpcError) as caught:
        predict(stubs, request)

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason(caught.value) == "EPOCH_NOT_FOUND"
    assert "1 to 3" in (caught.value.details() or "")


def test_a_message_above_the_limit_is_refused_with_the_limit(stubs: Stubs, model: str) -> None:
    images = EncodedImages(images=[bytes(65 << 20)])

    with pytest.raises(grpc.RpcError) as caught:
        predict(stubs, PredictRequest(model=model, encoded=images))

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(64 << 20) in (caught.value.details() or "")


def test_a_model_is_described(stubs: Stubs, trained: list[JobEvent], model: str) -> None:
    described = stubs.inference.GetModel(GetModelRequest(name=model), timeout=10)
    listed = stubs.inference.ListModels(ListModelsRequest(dataset="tiny"), timeout=10).models

    assert described in listed
    assert described.job == trained[0].job
    assert described.variant == Variant(
        dataset="tiny", blocks=1, block_convolutions=1, batch_norm=True
    )
    assert tuple(described.class_names) == CLASSES
    assert [epoch.test_accuracy for epoch in described.epochs] == [
        event.epoch.test_accuracy for event in trained[2:5]
    ]
    # Head 2,216, one convolution of a block 584, batch norm 16, tail 292, classifier 11,100.
    assert described.parameters == 14_208
    assert described.best_epoch == trained[-1].finished.best_epoch


def test_models_are_listed_by_what_they_are(stubs: Stubs, model: str) -> None:
    for request, is_in in (
        (ListModelsRequest(), True),
        (ListModelsRequest(dataset="tiny", blocks=1, batch_norm=True), True),
        (ListModelsRequest(dataset="synthetic"), False),
        (ListModelsRequest(blocks=0), False),
        (ListModelsRequest(batch_norm=False), False),
    ):
        names = [model.name for model in stubs.inference.ListModels(request, timeout=10).models]
        assert (model in names) is is_in


def test_a_missing_or_malformed_model_name_is_refused(stubs: Stubs, model: str) -> None:
    for name, code in (
        ("models/nosuchmodel", grpc.StatusCode.NOT_FOUND),
        (f"{model}/epochs/1", grpc.StatusCode.INVALID_ARGUMENT),
        ("", grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stubs.inference.GetModel(GetModelRequest(name=name), timeout=10)
        assert caught.value.code() is code


def test_a_png_comes_through_unharmed() -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)

    assert (decode_image(encode_png(drawn)) == drawn).all()
