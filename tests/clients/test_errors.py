"""Errors, deadlines and cancellation in other clients."""

import base64
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from google.rpc.error_details_pb2 import BadRequest
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from clients.conftest import Workplace
from clients.tools import buf, grpcurl, node, ruby
from leadline.client import Client
from support.servers import TO_BE_OCCUPIED, LiveServer, occupied, start_server

HERE = Path(__file__).parent

INVALID_SPEC = json.dumps({"spec": {"dataset": "tiny", "blocks": 65, "epochs": -1}})
SPEC = json.dumps({"spec": {"dataset": "tiny"}})

FAILURES: dict[str, dict[str, Any]] = {
    "invalid": {
        "code": 3,
        "reason": "INVALID_TRAINING_SPEC",
        "fields": ["spec.blocks", "spec.epochs"],
    },
    "exhausted": {"code": 8, "reason": "JOB_QUEUE_FULL", "retry_seconds": 30},
    "deadline": {"code": 4},
    "cancelled": {"code": 1},
}


@dataclass
class FullServer:
    """A server with a full queue, and the job in it."""

    server: LiveServer
    waiting: str

    @property
    def target(self) -> str:
        return self.server.target

    def cancelled_watches(self) -> float:
        """Returns how many calls of WatchJob ended because their caller disconnected."""
        with urllib.request.urlopen(self.server.metrics_url, timeout=10) as response:  # noqa: S310
            families = text_string_to_metric_families(response.read().decode())
        expected = {"grpc_method": "WatchJob", "grpc_code": "Canceled"}
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "grpc_server_handled_total"
            and expected.items() <= sample.labels.items()
        )


@pytest.fixture(scope="module")
def full(
    transport: str, tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path
) -> Iterator[FullServer]:
    server = start_server(
        tmp_path_factory.mktemp("full"),
        f"--dataset=tiny={tiny_dataset}",
        *("--max-queued-jobs", "1"),
        *TO_BE_OCCUPIED,
        *("--transport", transport),
    )
    with occupied(server):
        with Client(server.target) as client:
            waiting = client.train(dataset="tiny")
            waiting.detach()
        yield FullServer(server, waiting.name)
    assert server.stop() == 0, server.log.read_text()


def run_node(workplace: Workplace, *arguments: str) -> str:
    program = workplace.folder / "errors.mjs"
    program.write_text((HERE / "errors.mjs").read_text())
    return workplace.run(node(), program.name, *arguments)


def run_ruby(workplace: Workplace, *arguments: str) -> str:
    interpreter = ruby()
    workplace.generate("Ruby")
    return workplace.run(interpreter, "-w", "-I", ".", str(HERE / "errors.rb"), *arguments)


@pytest.mark.parametrize("run", [run_node, run_ruby])
def test_a_program_sees_details_deadlines_and_cancellation(
    full: FullServer, workplace: Workplace, run: Callable[..., str]
) -> None:
    before = full.cancelled_watches()

    output = run(workplace, full.target, full.waiting)

    assert json.loads(output) == FAILURES
    wait_until(lambda: full.cancelled_watches() > before)


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for what a server does after its caller disconnected."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# The exit status of a program, its output and its errors.
Ended = tuple[int, str, str]


def call_grpcurl(
    workplace: Workplace, full: FullServer, method: str, data: str, *flags: str
) -> Ended:
    name = f"leadline.v1.TrainingService/{method}"
    options = ("-plaintext", "-format-error", *flags, "-d", data)
    return workplace.try_to_run(grpcurl(), *options, full.target, name)


def call_buf(workplace: Workplace, full: FullServer, method: str, data: str, *flags: str) -> Ended:
    url = f"http://{full.target}/leadline.v1.TrainingService/{method}"
    return workplace.try_to_run(buf(), "curl", "--protocol", "grpc", *flags, "-d", data, url)


def watch_to_a_deadline(call: Callable[[float], Ended]) -> Ended:
    """Watches a queued job, with a deadline after its first event."""
    for seconds in (0.5, 5):  # a busy machine may take longer to start the program
        ended = call(seconds)
        if ended[1]:
            return ended
    return call(12)


def test_grpcurl_prints_the_details(full: FullServer, workplace: Workplace) -> None:
    invalid, _, errors = call_grpcurl(workplace, full, "TrainJob", INVALID_SPEC)
    info, bad_request = json.loads(errors)["details"]
    exhausted, _, errors = call_grpcurl(workplace, full, "TrainJob", SPEC)
    retry = json.loads(errors)["details"][1]

    assert (invalid, exhausted) == (64 + 3, 64 + 8)
    assert info["reason"] == FAILURES["invalid"]["reason"]
    fields = [violation["field"] for violation in bad_request["field_violations"]]
    assert fields == FAILURES["invalid"]["fields"]
    assert retry["retry_delay"] == "30s"


def test_grpcurl_has_deadlines(full: FullServer, workplace: Workplace) -> None:
    data = json.dumps({"name": full.waiting})

    status, output, errors = watch_to_a_deadline(
        lambda seconds: call_grpcurl(workplace, full, "WatchJob", data, "-max-time", f"{seconds}")
    )

    assert status == 64 + 4
    assert json.loads(output)["queued"]
    assert json.loads(errors)["code"] == 4


def test_buf_prints_the_details_in_base64(full: FullServer, workplace: Workplace) -> None:
    invalid, _, errors = call_buf(workplace, full, "TrainJob", INVALID_SPEC)
    info, bad_request = json.loads(errors)["details"]
    packed = base64.b64decode(bad_request["value"] + "==")
    exhausted, _, errors = call_buf(workplace, full, "TrainJob", SPEC)
    retry = json.loads(errors)["details"][1]

    assert (invalid, exhausted) == (3 << 3, 8 << 3)
    assert info["type"] == "google.rpc.ErrorInfo"
    violations = BadRequest.FromString(packed).field_violations
    assert [violation.field for violation in violations] == FAILURES["invalid"]["fields"]
    assert retry["type"] == "google.rpc.RetryInfo"


def test_buf_has_deadlines(full: FullServer, workplace: Workplace) -> None:
    data = json.dumps({"name": full.waiting})

    status, output, errors = watch_to_a_deadline(
        lambda seconds: call_buf(workplace, full, "WatchJob", data, "--timeout", f"{seconds}s")
    )

    assert status == 4 << 3
    assert json.loads(output)["queued"]
    assert json.loads(errors)["code"] == "deadline_exceeded"


def test_tritonclient_shows_status_and_message(full: FullServer) -> None:
    with (
        triton.InferenceServerClient(full.target) as client,
        pytest.raises(InferenceServerException) as caught,
    ):
        client.get_model_metadata("nosuchmodel")

    assert caught.value.status() == "StatusCode.NOT_FOUND"
    assert "nosuchmodel" in caught.value.message()
