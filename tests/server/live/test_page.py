"""The live page over HTTP: its answers, its access checks, and its shutdown."""

import http.client
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from leadline.server.live.broadcast import MAX_WATCHERS
from leadline.v1.inspection_service_pb2 import (
    GROUPING_NONE,
    GetConfusionMatrixRequest,
    ListMisclassifiedRequest,
)
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.training_service_pb2 import CancelJobRequest, TrainJobRequest
from support.datasets import specs_of
from support.events import Message, open_stream
from support.servers import LiveServer, ServerFactory
from support.wire import Stubs, connect

tiny_spec = specs_of(__file__)

Answer = tuple[int, dict[str, str], bytes]
Ask = Callable[..., Answer]


def address(server: LiveServer) -> str:
    return server.metrics_url.split("/")[2]


def ask_at(server: LiveServer, path: str, method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection(address(server), timeout=10)
    connection.request(
        method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    response = connection.getresponse()
    answer = response.status, dict(response.headers), response.read()
    connection.close()
    return answer


@pytest.fixture
def ask(live_server: LiveServer) -> Ask:
    return lambda path, *arguments, **headers: ask_at(live_server, path, *arguments, **headers)


@pytest.fixture
def get(ask: Ask) -> Callable[[str], Any]:
    """Returns the body of an existing path below the page's root."""

    def answer(path: str) -> Any:
        status, _, body = ask(f"/live/v1/{path}")
        assert status == 200, body
        return json.loads(body)

    return answer


def test_the_page_and_its_files_trust_no_other_origin(ask: Ask) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/live/files/main.js", "text/javascript"),
        ("/live/files/page.css", "text/css"),
        ("/live/files/icon.svg", "image/svg+xml"),
        ("/live/v1/jobs/nobody", "text/plain"),
        ("/nowhere", "text/plain"),
    ):
        _, headers, body = ask(path)
        assert headers["Content-Type"].startswith(kind), path
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert b"<script>" not in body
        assert b"style=" not in body


@pytest.mark.parametrize("path", ["/", "/live/files/main.js"])
def test_a_file_that_the_browser_has_is_not_sent_again(ask: Ask, path: str) -> None:
    status, headers, body = ask(path)
    again, _, nothing = ask(path, If_None_Match=headers["Etag"])

    assert (status, again) == (200, 304)
    assert body
    assert not nothing


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/live/v1/events", "/live/v1/jobs/nobody"])
def test_the_page_is_read_only(ask: Ask, path: str, method: str) -> None:
    status, headers, _ = ask(path, method)

    assert status == 405
    assert headers["Allow"] == "GET,HEAD"


@pytest.mark.parametrize("path", ["/", "/live/v1/events", "/metrics"])
def test_head_has_no_body(ask: Ask, path: str) -> None:
    status, _, body = ask(path, "HEAD")

    assert status == (405 if path == "/metrics" else 200)
    assert not body


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1", 200),
        ("LOCALHOST", 200),
        ("x.localhost", 200),
        ("127.0.0.1", 200),
        ("[::1]:9464", 200),
        ("10.1.2.3:80", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
    ],
)
def test_requests_under_a_foreign_host_name_are_refused(ask: Ask, host: str, status: int) -> None:
    for path in ("/", "/live/v1/events", "/live/v1/nonsense"):
        answered, _, body = ask(path, "HEAD" if "events" in path else "GET", Host=host)

        assert answered == (404 if status == 200 and "nonsense" in path else status)
        assert status == 200 or not body or b"--live-page-hosts" in body
    assert ask("/metrics", Host=host)[0] == 200


def test_pages_of_other_sites_are_refused(ask: Ask) -> None:
    assert ask("/live/v1/jobs/nobody", Sec_Fetch_Site="cross-site")[0] == 403
    assert ask("/live/v1/events", Sec_Fetch_Site="same-site")[0] == 403
    assert ask("/", Sec_Fetch_Site="cross-site")[0] == 200
    assert ask("/live/v1/jobs/nobody", Sec_Fetch_Site="same-origin")[0] == 404


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("jobs/nobody", 404, "there is no job jobs/nobody"),
        ("jobs/nobody/epochs/1/examples", 404, "there is no model models/nobody"),
        ("jobs/{job}/epochs/0/confusion", 404, "the model has the epochs 1 to 3"),
        ("jobs/{job}/epochs/999/examples", 404, "the model has the epochs 1 to 3"),
        ("jobs/{job}/epochs/1/examples?true=10", 400, "true: is 10, of classes 0 to 9"),
        ("jobs/{job}/epochs/1/examples?taken=-1", 400, "must be a whole number"),
        ("jobs/{job}/epochs/1/examples?offset=1e9", 400, "must be a whole number"),
        ("jobs/{job}/epochs/1/examples?k=5", 400, "k: is not a parameter"),
        ("jobs/{job}/epochs/x/examples", 404, "Not Found"),
        ("jobs/../../etc/passwd", 404, "Not Found"),
        (f"images/{'0' * 64}/test/0.png", 404, "this server has no dataset 0000"),
        ("images/{fingerprint}/test/200.png", 404, "the test images are 0 to 199"),
        ("images/{fingerprint}/other/0.png", 404, "Not Found"),
    ],
)
def test_what_is_missing_or_malformed_has_a_clear_error(
    ask: Ask, trained: list[JobEvent], path: str, status: int, says: str
) -> None:
    job = trained[0].job.removeprefix("jobs/")
    fingerprint = trained[1].started.dataset_fingerprint

    answered, _, body = ask("/live/v1/" + path.format(job=job, fingerprint=fingerprint))

    assert answered == status, body
    assert says in body.decode()


def test_a_job_is_shown_with_every_epoch(
    get: Callable[[str], Any], trained: list[JobEvent], job_id: str
) -> None:
    shown = get(f"jobs/{job_id}")

    epochs = [event.epoch for event in trained if event.HasField("epoch")]
    assert shown["curve"] == [
        [epoch.epoch, epoch.train_accuracy, epoch.test_accuracy, epoch.train_loss, epoch.test_loss]
        for epoch in epochs
    ]
    assert shown["job"]["state"] == "succeeded"
    assert shown["job"]["best_test"] == max(epoch.test_accuracy for epoch in epochs)
    assert shown["classes"] == list(trained[1].started.class_names)


def test_counts_and_images_are_those_of_the_service(
    get: Callable[[str], Any], ask: Ask, stubs: Stubs, job_id: str
) -> None:
    for epoch in (1, 2, 3):
        name = f"models/{job_id}/epochs/{epoch}"
        request = GetConfusionMatrixRequest(model=name)
        matrix = stubs.inspection.GetConfusionMatrix(request, timeout=10)
        wrong = stubs.inspection.ListMisclassified(
            ListMisclassifiedRequest(model=name, grouping=GROUPING_NONE), timeout=10
        )

        shown = get(f"jobs/{job_id}/epochs/{epoch}/confusion")
        listed = get(f"jobs/{job_id}/epochs/{epoch}/examples")

        assert shown["counts"] == [list(row.counts) for row in matrix.rows]
        assert shown["accuracy"] == matrix.accuracy
        assert listed["total"] == listed["wrong"] == wrong.total_size
        first = min(24, wrong.total_size)
        assert [example["index"] for example in listed["examples"]] == [
            example.index for example in wrong.examples[:first]
        ]
        assert [example["aspect"] for example in listed["examples"]] == [
            example.aspect_ratio for example in wrong.examples[:first]
        ]
    example = wrong.examples[0]
    path = f"/live/v1/images/{shown['fingerprint']}/test/{example.index}.png"
    status, headers, png = ask(path)
    assert (status, headers["Content-Type"], png) == (200, "image/png", example.png)
    assert "immutable" in headers["Cache-Control"]
    assert ask(path, If_None_Match=headers["Etag"])[0] == 304


def test_each_cell_lists_what_it_counts_page_by_page(
    get: Callable[[str], Any], job_id: str
) -> None:
    root = f"jobs/{job_id}/epochs/1"
    counts = get(f"{root}/confusion")["counts"]
    for true, row in enumerate(counts):
        for taken, count in enumerate(row):
            listed = get(f"{root}/examples?true={true}&taken={taken}")
            assert listed["total"] == count
            assert {(example["true"], example["taken"]) for example in listed["examples"]} <= {
                (true, taken)
            }
    wrong = get(f"{root}/examples")["total"]
    pages = [get(f"{root}/examples?offset={offset}") for offset in range(0, wrong, 24)]
    indices = [example["index"] for page in pages for example in page["examples"]]
    assert len(set(indices)) == len(indices) == wrong


def is_finished(job: str) -> Callable[[Message], bool]:
    def is_it(message: Message) -> bool:
        cards = message.data.get("jobs", [])
        return any(card["id"] == job and card["state"] == "succeeded" for card in cards)

    return is_it


def epochs_sent(messages: list[Message], job: str) -> list[int]:
    changes = [message.data for message in messages if message.kind == "change"]
    return [int(point[0]) for change in changes for point in change["curves"].get(job, [])]


def submit(stubs: Stubs, **changes: Any) -> Iterator[JobEvent]:
    stream = stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(**changes)), timeout=60)
    return iter(stream)


def test_a_page_receives_each_epoch_once_and_resumes_where_it_was(
    live_server: LiveServer, stubs: Stubs
) -> None:
    # A second open page keeps the broadcast running.
    with ExitStack() as stack:
        other = stack.enter_context(open_stream(address(live_server)))
        first = next(iter(other))
        assert first.kind == "snapshot"
        stream = submit(stubs, epochs=12)
        job = next(stream).job.removeprefix("jobs/")
        with open_stream(address(live_server)) as page:
            begun = page.until(lambda message: len(epochs_sent([message], job)) > 0)
        with open_stream(address(live_server), after=begun[-1].id) as page:
            rest = page.until(is_finished(job))
        list(stream)
        messages = other.until(is_finished(job))

    assert rest[0].kind != "snapshot"
    numbers = [int(str(message.id).partition("-")[2]) for message in rest]
    last = int(str(begun[-1].id).partition("-")[2])
    assert numbers == list(range(last + 1, last + 1 + len(rest)))
    cards = [
        card for message in begun for card in message.data.get("jobs", []) if card["id"] == job
    ]
    seen = epochs_sent([*begun, *rest], job)
    assert seen == list(range(cards[0]["completed"] + 1, 13))
    assert epochs_sent(messages, job)[-len(seen) :] == seen


@pytest.mark.parametrize("after", ["0badcafe-3", "nonsense", "-1"])
def test_a_page_from_before_a_restart_receives_a_snapshot(
    live_server: LiveServer, after: str
) -> None:
    with open_stream(address(live_server), after=after) as page:
        assert next(iter(page)).kind == "snapshot"


def test_a_page_receives_changes_of_the_queue(
    busy_server: LiveServer,
) -> None:
    stubs = connect(busy_server.target)

    def queue(message: Message) -> list[str]:
        return message.data.get("queue", []) if message.kind in {"snapshot", "change"} else []

    with open_stream(address(busy_server)) as page:
        first = next(submit(stubs))
        second = next(submit(stubs))
        ids = [event.job.removeprefix("jobs/") for event in (first, second)]
        page.until(lambda message: queue(message)[-2:] == ids)
        for event in (first, second):
            stubs.training.CancelJob(CancelJobRequest(name=event.job), timeout=10)
        page.until(lambda message: "queue" in message.data and not set(queue(message)) & set(ids))


def test_pages_that_do_not_read_keep_nobody_out(live_server: LiveServer, ask: Ask) -> None:
    with ExitStack() as stack:
        oldest, *_ = [
            stack.enter_context(open_stream(address(live_server))) for _ in range(MAX_WATCHERS)
        ]
        page = stack.enter_context(open_stream(address(live_server)))
        assert next(iter(page)).kind == "snapshot"
        assert {message.kind for message in oldest} <= {"snapshot", "change", "progress"}
        assert ask("/metrics")[0] == 200


def test_a_quiet_stream_sends_keepalives(server_factory: ServerFactory) -> None:
    server = server_factory("--stream-keepalive-seconds=0.2", "--spare-workers=0")

    with open_stream(address(server)) as page:
        messages = page.until(lambda message: message.kind == "keepalive")

    assert messages[0].data["quiet_seconds"] == 0.2
    assert messages[-1].id is None


def test_sigterm_ends_the_streams_and_the_server(server_factory: ServerFactory) -> None:
    server = server_factory("--spare-workers=0")
    with open_stream(address(server)) as page:
        next(iter(page))
        began = time.monotonic()
        assert server.stop() == 0
        seconds = time.monotonic() - began
        assert not [message for message in page if message.kind not in {"change", "progress"}]

    assert seconds < 5
    with pytest.raises(ConnectionRefusedError):
        ask_at(server, "/metrics")


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        (["--metrics-host=0.0.0.0", "--insecure"], 404, "0.0.0.0 is not on loopback"),
        (["--live-page=off"], 404, "as --live-page says"),
        (
            ["--metrics-host=0.0.0.0", "--insecure", "--live-page=on"],
            200,
            "<title>Leadline</title>",
        ),
    ],
)
def test_the_operator_chooses_who_may_reach_the_page(
    server_factory: ServerFactory, flags: list[str], status: int, says: str
) -> None:
    server = server_factory(*flags, "--spare-workers=0", "--live-page-hosts=gpu1.example, gpu2")

    answered, _, body = ask_at(server, "/")

    assert answered == status
    assert says in body.decode()
    assert status == 200 or "--live-page on" in body.decode()
    assert ask_at(server, "/", Host="gpu2:9464")[0] == status
    assert ask_at(server, "/", Host="gpu3")[0] == 421
    assert ask_at(server, "/live/v1/events", "HEAD")[0] == status
    assert ask_at(server, "/metrics")[0] == 200


def test_malformed_http_is_refused_and_logged_as_no_error(live_server: LiveServer) -> None:
    host, _, port = address(live_server).partition(":")
    for request in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(request)
            assert b" 400 " in connection.recv(100)

    lines = [json.loads(line) for line in live_server.log.read_text().splitlines()]
    assert not [line for line in lines if "aiohttp" in line.get("exception", "")]


def test_metrics_are_what_prometheus_takes(live_server: LiveServer, ask: Ask) -> None:
    status, headers, text = ask("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    _, opened, _ = ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert opened["Content-Type"].startswith("application/openmetrics-text")
    _, packed, _ = ask("/metrics", Accept_Encoding="gzip")
    assert packed["Content-Encoding"] == "gzip"
    _, _, chosen = ask("/metrics?name[]=leadline_queue_depth")
    assert chosen.decode().splitlines()[-1].startswith("leadline_queue_depth ")
    assert ask("/metrics", "POST")[0] == 405
    with urllib.request.urlopen(live_server.metrics_url, timeout=10) as response:  # noqa: S310
        assert b"leadline_epochs_total" in response.read()
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("the rest needs promtool, of Debian's package prometheus")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )
    # It rejects the names of some metrics of the interpreter.
    complaints = [line for line in checked.stderr.decode().splitlines() if "leadline_" in line]
    assert checked.returncode in {0, 3}, checked.stderr
    assert not complaints
