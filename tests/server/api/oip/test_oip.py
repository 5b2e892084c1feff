"""The Open Inference Protocol on the wire, with the project's own messages."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from leadline.models.images import encode_png
from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.v1.inference_service_pb2 import EncodedImages, PredictRequest
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.model_pb2 import Variant
from support.open_inference import (
    OpenInference,
    floats_in,
    normalised,
    raw_request,
    strings_in,
    typed_request,
)
from support.servers import CLASSES
from support.wire import Stubs, reason

VARIANT = "tiny-1-blocks-batch-norm"
Output = oip.ModelInferRequest.InferRequestedOutputTensor


def test_the_answer_is_that_of_predict(
    client: OpenInference, stubs: Stubs, job_id: str, noise: np.ndarray
) -> None:
    files = [encode_png(image) for image in noise]
    expected = stubs.inference.Predict(
        PredictRequest(
            model=f"models/{job_id}", encoded=EncodedImages(images=files), top_k=len(CLASSES)
        ),
        timeout=10,
    )

    answer = client.infer(raw_request(job_id, "BYTES", files, id="seven"))

    assert [output.name for output in answer.outputs] == ["probabilities", "logits"]
    probabilities, logits = floats_in(answer, "probabilities"), floats_in(answer, "logits")
    for row, prediction in zip(probabilities, expected.predictions, strict=True):
        scores = {score.class_index: score.probability for score in prediction.top_k}
        assert [scores[index] for index in range(len(CLASSES))] == pytest.approx(row, abs=1e-6)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert probabilities == pytest.approx(
        exponentials / exponentials.sum(axis=1, keepdims=True), abs=1e-5
    )
    assert answer.id == "seven"
    assert answer.model_name == job_id
    assert answer.parameters["model"].string_param == expected.model
    assert answer.model_version == expected.model.rpartition("/")[2]
    assert answer.parameters["weights_sha256"].string_param == expected.weights_sha256


def test_every_form_of_the_same_images_gives_the_same_answer(
    client: OpenInference, job_id: str, noise: np.ndarray
) -> None:
    files = [encode_png(image) for image in noise]
    floats = normalised(noise)
    requests = [
        raw_request(job_id, "FP32", floats),
        raw_request(job_id, "UINT8", noise),
        raw_request(job_id, "BYTES", files),
        typed_request(job_id, "FP32", floats.shape, fp32_contents=floats.ravel()),
        typed_request(job_id, "UINT8", noise.shape, uint_contents=noise.ravel()),
        typed_request(job_id, "BYTES", (5, 1), bytes_contents=files),
    ]

    answers = [floats_in(client.infer(request), "probabilities") for request in requests]

    assert len(answers) == 6
    for answer in answers[1:]:
        assert answer == pytest.approx(answers[0], abs=1e-5)


def test_a_model_goes_by_three_names_and_its_epochs_are_versions(
    client: OpenInference, stubs: Stubs, trained: list[JobEvent], job_id: str, noise: np.ndarray
) -> None:
    best = str(trained[-1].finished.best_epoch)

    def asked(name: str, version: str = "") -> str:
        answer = client.infer(raw_request(name, "UINT8", noise, model_version=version))
        return answer.parameters["model"].string_param

    assert asked(job_id) == asked(f"models/{job_id}") == f"models/{job_id}/epochs/{best}"
    assert [asked(job_id, version) for version in "123"] == [
        f"models/{job_id}/epochs/{version}" for version in "123"
    ]
    of_variant = stubs.inference.Predict(
        PredictRequest(
            variant=Variant(dataset="tiny", blocks=1, batch_norm=True),
            encoded=EncodedImages(images=[encode_png(noise[0])]),
        ),
        timeout=10,
    ).model
    assert asked(VARIANT) == of_variant
    assert asked(VARIANT, "1") == of_variant.rpartition("/")[0] + "/1"


def test_requested_outputs_come_in_their_order(
    client: OpenInference, job_id: str, noise: np.ndarray
) -> None:
    complete = client.infer(raw_request(job_id, "UINT8", noise))
    both = [Output(name="logits"), Output(name="probabilities")]

    answer = client.infer(raw_request(job_id, "UINT8", noise, outputs=both))
    single = client.infer(raw_request(job_id, "UINT8", noise, outputs=both[:1]))

    assert [output.name for output in answer.outputs] == ["logits", "probabilities"]
    for name in ("logits", "probabilities"):
        assert (floats_in(answer, name) == floats_in(complete, name)).all()
    assert [output.name for output in single.outputs] == ["logits"]
    assert len(single.raw_output_contents) == 1


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (3, 3), (99, 10)])
def test_classes_are_named_with_the_most_probable_first(
    client: OpenInference, job_id: str, noise: np.ndarray, asked: int, given: int
) -> None:
    top = {"classification": oip.InferParameter(int64_param=asked)}
    outputs = [Output(name="probabilities", parameters=top), Output(name="logits")]

    answer = client.infer(raw_request(job_id, "UINT8", noise, outputs=outputs))

    assert answer.outputs[0].datatype == "BYTES"
    assert list(answer.outputs[0].shape) == [5, given]
    named = strings_in(answer.raw_output_contents[0])
    logits = floats_in(answer, "logits")
    plain = floats_in(client.infer(raw_request(job_id, "UINT8", noise)), "probabilities")
    expected = [
        (plain[image, index], index, CLASSES[index])
        for image in range(5)
        for index in np.argsort(-logits[image], kind="stable")[:given]
    ]
    assert len(named) == 5 * given
    for string, (value, index, label) in zip(named, expected, strict=True):
        parts = string.decode().split(":", 2)
        assert np.float32(parts[0]) == value
        assert parts[1:] == [str(index), label]


def test_many_strings_of_classes_are_made_too(
    client: OpenInference, job_id: str, noise: np.ndarray
) -> None:
    top = {"classification": oip.InferParameter(int64_param=10)}
    many = np.concatenate([noise] * 50)

    answer = client.infer(
        raw_request(job_id, "UINT8", many, outputs=[Output(name="logits", parameters=top)])
    )

    named = strings_in(answer.raw_output_contents[0])
    assert len(named) == 2_500
    assert named[:50] == named[-50:]


def test_the_timeout_is_in_microseconds_and_the_earlier_limit_holds(
    client: OpenInference, job_id: str, noise: np.ndarray
) -> None:
    def request(microseconds: int) -> oip.ModelInferRequest:
        timeout = oip.InferParameter(int64_param=microseconds)
        return raw_request(job_id, "UINT8", noise, parameters={"timeout": timeout})

    error = client.refused(request(1))

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert reason(error) == "DEADLINE_EXCEEDED"
    assert client.infer(request(10_000_000)).outputs
    assert client.infer(request(0)).outputs


def test_concurrent_responses_of_mixed_sizes_go_to_their_callers(
    client: OpenInference, job_id: str
) -> None:
    random = np.random.default_rng(5)
    pool = random.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    expected = floats_in(client.infer(raw_request(job_id, "UINT8", pool)), "logits")
    choices = [random.integers(0, 200, random.choice([1, 1, 2, 7, 40])) for _ in range(160)]

    def ask(number: int) -> tuple[str, np.ndarray]:
        request = raw_request(job_id, "UINT8", pool[choices[number]], id=str(number))
        answer = client.infer(request, timeout=60)
        return answer.id, floats_in(answer, "logits")

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, range(160)))

    for number, (identifier, logits) in enumerate(answers):
        assert identifier == str(number)
        assert logits == pytest.approx(expected[choices[number]], abs=1e-4)
