"""Every command with a real server: its output and its exit code."""

import json
import os
import signal
import subprocess
import uuid
from pathlib import Path

import pytest
from PIL import Image as Pillow

from client.cli_outcome import INTERRUPTIBLE_SCRIPT, QUICK, SCRIPT, Leadline
from leadline.client import Client, Model, Variant
from leadline.client.cli import describe, main
from leadline.client.cli.exit_codes import ExitCode
from support.datasets import dataset_of
from support.servers import LiveServer

DATASET = dataset_of(__file__)

# train and watch


# The first test that needs the job trains it; the other one watches it again.
SHARED = (
    *("train", *QUICK, "--dataset", DATASET, "--seed", "3"),
    *("--request-id", str(uuid.uuid4())),
)


def test_train_prints_a_line_for_each_epoch(leadline: Leadline) -> None:
    outcome = leadline(*SHARED)
    lines = outcome.out.splitlines()
    assert outcome.code == ExitCode.SUCCESS
    assert f"0 blocks without batch norm on {DATASET}, 2 epochs in batches of 200" in lines[0]
    assert lines[1].startswith("started on ")
    assert lines[2].startswith("epoch 1/2   train ")
    assert lines[3].startswith("epoch 2/2   train ")
    assert lines[4].startswith("succeeded: best epoch ")
    assert len(lines) == 5


def test_train_as_json_prints_the_events(leadline: Leadline) -> None:
    outcome = leadline(*SHARED, "--json")
    assert outcome.code == ExitCode.SUCCESS
    assert [event["sequence"] for event in outcome.messages] == [1, 2, 3, 4, 5]
    assert outcome.messages[0]["queued"]["queue_position"] == 0
    assert outcome.messages[0]["queued"]["spec"]["seed"] == 3
    assert outcome.messages[2]["epoch"]["test_accuracy"] >= 0
    assert outcome.messages[4]["finished"]["state"] == "JOB_STATE_SUCCEEDED"
    assert outcome.err == ""


def test_train_sends_what_is_given_and_nothing_else(busy_leadline: Leadline) -> None:
    outcome = busy_leadline(
        *("train", "--dataset", "tiny", "--blocks", "3", "--batch-norm", "--epochs", "4"),
        *("--block-convolutions", "2"),
        *("--batch-size", "5", "--learning-rate", "0.5", "--optimizer", "adamw"),
        *("--weight-decay", "0.25", "--seed", "6", "--residual", "--patience", "7"),
        *("--initialization", "kaiming", "--schedule", "one_cycle", "--no-nesterov"),
        *("--augmentation", "flip_crop", "--precision", "bfloat16", "--diagnostics"),
        *("--detach", "--json"),
    )
    (job,) = outcome.messages
    assert job["spec"] == {
        "dataset": "tiny",
        "blocks": 3,
        "batch_norm": True,
        "epochs": 4,
        "batch_size": 5,
        "learning_rate": 0.5,
        "optimizer": "OPTIMIZER_ADAMW",
        "momentum": 0.0,
        "weight_decay": 0.25,
        "seed": 6,
        "residual": True,
        "initialization": "INITIALIZATION_KAIMING",
        "schedule": "SCHEDULE_ONE_CYCLE",
        "nesterov": False,
        "augmentation": "AUGMENTATION_FLIP_CROP",
        "patience": 7,
        "precision": "PRECISION_BFLOAT16",
        "diagnostics": True,
        "block_convolutions": 2,
    }
    assert job["state"] == "JOB_STATE_QUEUED"


def test_a_diagnosis_is_shown_block_by_block(leadline: Leadline, client: Client) -> None:
    job = client.train(
        dataset=DATASET, blocks=2, epochs=1, batch_size=200, diagnostics=True, seed=8
    )
    (epoch,) = list(job.epochs())

    outcome = leadline("jobs", job.name, "--diagnosis")

    spread, gradients = outcome.out.split("the gradient")
    for text in (spread, gradients):
        heading = next(line for line in text.splitlines() if "epoch" in line)
        assert heading.split() == ["epoch", "head", "block", "1", "block", "2"]
    rows = [line.split() for line in outcome.out.splitlines() if line.strip()[:1] in {"0", "1"}]
    assert [row[0] for row in rows] == ["0", "1", "0", "1"]
    assert rows[1][1:] == [f"{block.activation_std:.2e}" for block in epoch.diagnosis]
    assert rows[3][1:] == [f"{block.gradient_norm:.2e}" for block in epoch.diagnosis]
    events = leadline("jobs", job.name, "--diagnosis", "--json").messages
    assert [
        len(event[kind]["diagnosis"])
        for event, kind in zip(events, ("started", "epoch"), strict=True)
    ] == [3, 3]


def test_a_job_without_a_diagnosis_says_how_to_get_one(leadline: Leadline, model: Model) -> None:
    outcome = leadline("jobs", model.job, "--diagnosis")
    assert outcome.out == ""
    assert "--diagnostics" in outcome.err
    assert leadline("jobs", "--diagnosis").code == ExitCode.USAGE


def test_a_detached_train_prints_the_name_and_nothing_else(busy_leadline: Leadline) -> None:
    outcome = busy_leadline("train", *QUICK, "--detach")
    assert outcome.code == ExitCode.SUCCESS
    assert outcome.out.startswith("jobs/")
    assert len(outcome.out.splitlines()) == 1
    assert f"`leadline watch {outcome.out.strip()} --target 127.0.0.1:" in outcome.err


def test_train_is_safe_to_repeat_with_a_request_id(busy_leadline: Leadline) -> None:
    request_id = str(uuid.uuid4())
    names = {
        busy_leadline("train", *QUICK, "--request-id", request_id, "--detach").out for _ in range(2)
    }
    assert len(names) == 1


def test_what_is_wrong_with_a_spec_is_told_by_flag(leadline: Leadline) -> None:
    outcome = leadline(
        *("train", "--dataset", "tiny", "--blocks", "-1"),
        *("--learning-rate", "nan", "--batch-size", "0", "--epochs", "1000000000"),
    )
    assert outcome.code == ExitCode.USAGE
    assert outcome.out == ""
    for flag in ("--blocks", "--learning-rate", "--batch-size", "--epochs"):
        assert f"\n  {flag}: " in outcome.err


def test_what_is_wrong_with_a_spec_is_told_as_json(leadline: Leadline) -> None:
    outcome = leadline("train", "--dataset", "nowhere", "--json")
    assert (outcome.code, outcome.out) == (ExitCode.USAGE, "")
    assert outcome.error["code"] == "INVALID_ARGUMENT"
    assert outcome.error["exit_code"] == ExitCode.USAGE
    assert [violation["field"] for violation in outcome.error["violations"]] == ["spec.dataset"]


def test_watch_replays_a_job(leadline: Leadline, model: Model) -> None:
    bare = model.job.removeprefix("jobs/")
    outcome = leadline("watch", bare)
    assert outcome.code == ExitCode.SUCCESS
    assert sum(line.startswith("epoch ") for line in outcome.out.splitlines()) == 3


def test_watch_begins_where_it_is_told(leadline: Leadline, model: Model) -> None:
    outcome = leadline("watch", model.job, "--after-sequence", "3", "--json")
    assert [event["sequence"] for event in outcome.messages] == [4, 5, 6]
    assert leadline("watch", model.job, "--after-sequence", "6").code == ExitCode.SUCCESS
    assert leadline("watch", model.job, "--after-sequence", "7").code == ExitCode.USAGE
    assert leadline("watch", model.job, "--after-sequence", "-1").code == ExitCode.USAGE


def test_watching_a_cancelled_job_ends_as_it_did(busy_leadline: Leadline) -> None:
    job = busy_leadline("train", *QUICK, "--detach").out.strip()
    assert busy_leadline("cancel", job).code == ExitCode.SUCCESS
    outcome = busy_leadline("watch", job)
    assert outcome.code == ExitCode.JOB_CANCELLED
    assert outcome.out.splitlines()[-1] == "cancelled"
    assert busy_leadline("watch", job, "--after-sequence", "2").code == ExitCode.JOB_CANCELLED


def test_ctrl_c_leaves_the_job_alone(busy_server: LiveServer) -> None:
    process = start("train", *QUICK, "--target", busy_server.target)
    assert process.stdout is not None
    job = process.stdout.readline().split(":")[0]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED
    assert f"{job} continues. Watch it with `leadline watch {job} --target" in err
    with Client(busy_server.target) as client:
        assert client.cancel_job(job).name == job


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*INTERRUPTIBLE_SCRIPT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# jobs, cancel, models


def test_jobs_are_listed(leadline: Leadline, model: Model) -> None:
    outcome = leadline("jobs")
    (line,) = [line for line in outcome.out.splitlines() if f" {model.job} " in line]
    assert outcome.code == ExitCode.SUCCESS
    words = line.split()
    assert words[1] == "succeeded"
    # A priority precedes it if another module on the same server has set one.
    assert words[words.index("tiny") :][:4] == ["tiny", "1", "yes", "3/3"]


def test_jobs_are_listed_as_json_by_state(leadline: Leadline, model: Model) -> None:
    succeeded = leadline("jobs", "--state", "succeeded", "--json").messages
    cancelled = leadline("jobs", "--state", "cancelled", "--json").messages
    assert model.job in [job["name"] for job in succeeded]
    assert {job["state"] for job in succeeded} == {"JOB_STATE_SUCCEEDED"}
    # Other modules on the same server may have cancelled some of theirs.
    assert {job["state"] for job in cancelled} <= {"JOB_STATE_CANCELLED"}
    assert model.job not in [job["name"] for job in cancelled]


def test_one_job_is_shown(leadline: Leadline, model: Model) -> None:
    (job,) = leadline("jobs", model.job, "--json").messages
    assert (job["name"], job["completed_epochs"]) == (model.job, 3)


def test_defaults_are_printed_too(busy_leadline: Leadline) -> None:
    job = busy_leadline("train", *QUICK, "--detach").out.strip()
    (message,) = busy_leadline("jobs", job, "--json").messages
    assert message["completed_epochs"] == 0
    assert message["model"] == ""


def test_a_job_is_cancelled(busy_leadline: Leadline) -> None:
    job = busy_leadline("train", *QUICK, "--detach").out.strip()
    outcome = busy_leadline("cancel", job)
    assert outcome.out == f"{job} is cancelled, 0 of 2 epochs complete\n"
    (message,) = busy_leadline("cancel", job, "--json").messages
    assert message["state"] == "JOB_STATE_CANCELLED"


def test_models_are_listed(leadline: Leadline, model: Model) -> None:
    outcome = leadline("models", "--dataset", "tiny", "--blocks", "1", "--batch-norm")
    assert f" {model.name} " in outcome.out
    assert model.name in [
        one["name"] for one in leadline("models", "--batch-norm", "--json").messages
    ]
    assert leadline("models", "--dataset", "nowhere", "--json").messages == []


def test_one_model_is_shown_with_its_epochs(leadline: Leadline, model: Model) -> None:
    outcome = leadline("models", model.name)
    assert all(epoch.name in outcome.out for epoch in model.epochs)
    (message,) = leadline("models", model.name, "--json").messages
    assert len(message["epochs"]) == 3


# misclassified, plot


def test_wrong_images_are_listed(leadline: Leadline, model: Model) -> None:
    outcome = leadline("misclassified", "--model", model.name)
    (*_, last) = outcome.out.splitlines()
    wrong = 200 - round(model.best_test_accuracy * 200)
    assert f"{wrong} of 200 test images wrong" in last
    assert sum(line.strip()[:1].isdigit() for line in outcome.out.splitlines()) == wrong


def test_wrong_images_are_listed_as_json_page_by_page(leadline: Leadline, model: Model) -> None:
    pages = leadline("misclassified", "--model", model.name, "--json").messages
    examples = [example for page in pages for example in page["examples"]]
    assert len(examples) == pages[0]["total_size"]
    assert pages[-1]["next_page_token"] == ""


def test_wrong_images_are_listed_by_cell_and_in_order(leadline: Leadline, model: Model) -> None:
    arguments = ("--model", model.epochs[0].name, "--split", "train", "--grouping", "none")
    pages = leadline("misclassified", *arguments, "--limit", "12", "--json").messages
    probabilities = [example["probability"] for example in pages[0]["examples"]]
    assert len(probabilities) == 12
    assert probabilities == sorted(probabilities, reverse=True)
    example = pages[0]["examples"][0]
    true_class = ("--true-class", example["true_class_name"])
    taken_for = ("--predicted-class", example["predicted_class_name"])
    outcome = leadline("misclassified", *arguments, *true_class, *taken_for, "--limit", "1")
    assert f" {example['index']} " in outcome.out
    assert "of 400 training images wrong" in outcome.out


@pytest.mark.parametrize("arguments", [("--grouping", "none"), ("--limit", "5")])
def test_a_grid_of_what_makes_none_is_refused(
    leadline: Leadline, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    out = tmp_path / "grid.png"
    outcome = leadline("misclassified", "--model", "a", "--out", str(out), *arguments)
    assert outcome.code == ExitCode.USAGE
    assert f"leave out {' '.join(arguments)}" in outcome.err or "leave out --limit" in outcome.err


def test_the_grid_is_written(leadline: Leadline, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "grids" / "grid.png"
    outcome = leadline("misclassified", "--model", model.name, "--out", str(out))
    assert outcome.code == ExitCode.SUCCESS
    assert outcome.out.endswith(f"wrote {out}\n")
    with Pillow.open(out) as picture:
        assert picture.height > picture.width > 1_000
    assert out.stat().st_size < 600_000
    assert [path.name for path in out.parent.iterdir()] == ["grid.png"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--per-class", "0"),
        ("--per-class", "1000000"),
        ("--true-class", "nobody"),
        ("--predicted-class", "nobody"),
        ("--min-probability", "2"),
        ("--seed", "1"),
    ],
)
def test_what_is_wrong_with_a_listing_is_told_by_flag(
    leadline: Leadline, model: Model, arguments: tuple[str, ...]
) -> None:
    outcome = leadline("misclassified", "--model", model.name, *arguments)
    assert outcome.code == ExitCode.USAGE
    assert f"\n  {arguments[0]}: " in outcome.err


# confusion, compare, label-errors


def test_a_confusion_matrix_is_shown(leadline: Leadline, model: Model) -> None:
    outcome = leadline("confusion", "--model", model.name)
    assert f"{model.best_test_accuracy * 100:.2f} % of 200 test images right" in outcome.out
    assert "calibration error" in outcome.out
    rows = [line.split() for line in outcome.out.splitlines() if line.startswith(" bee")]
    assert (len(rows[0]), rows[1][:2]) == (11, ["bee", "20"])
    (message,) = leadline("confusion", "--model", model.name, "--split", "train", "--json").messages
    assert message["images"] == 400
    assert len(message["calibration"]["bins"]) == 15


def test_two_epochs_are_compared(leadline: Leadline, model: Model) -> None:
    pair = (model.epochs[0].name, model.epochs[-1].name)
    (message,) = leadline("compare", *pair, "--outcome", "fixed", "--json").messages
    outcome = leadline("compare", *pair, "--limit", "7")
    assert f"{message['fixed']} fixed, {message['broken']} broken, " in outcome.out
    assert sum(" fixed " in line for line in outcome.out.splitlines()) == min(7, message["fixed"])
    assert {one["outcome"] for one in message["examples"]} == {"OUTCOME_FIXED"}


def test_labels_that_models_contradict_are_shown(leadline: Leadline, model: Model) -> None:
    epochs = [epoch.name for epoch in model.epochs]
    outcome = leadline("label-errors", *epochs, "--min-models", "1", "--limit", "3")
    assert "of test images contradicted by at least 1 of " in outcome.out
    assert sum(line.strip()[:1].isdigit() for line in outcome.out.splitlines()) == 4
    refused = leadline("label-errors", *epochs, "--min-models", "9")
    assert "\n  --min-models: " in refused.err
    assert leadline("label-errors").code == ExitCode.USAGE


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_curves_are_drawn(leadline: Leadline, model: Model, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"curves.{suffix}"
    outcome = leadline("plot", "curves", model.job, "--out", str(out), "--json")
    assert outcome.code == ExitCode.SUCCESS
    assert [message["name"] for message in outcome.messages] == [model.name]
    assert out.stat().st_size > 1000


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_confusion_matrix_is_drawn(
    leadline: Leadline, model: Model, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"confusion.{suffix}"
    outcome = leadline("plot", "confusion", "--model", model.name, "--out", str(out), "--json")
    assert outcome.code == ExitCode.SUCCESS
    assert [message["images"] for message in outcome.messages] == [200]
    assert out.stat().st_size > 1000
    if suffix == "svg":
        # A figure draws its text as shapes, each with its words in a comment.
        drawn = out.read_text()
        assert all(f"<!-- {name} -->" in drawn for name in ("bee", "predicted class"))


def test_a_picture_of_a_kind_that_is_not_known_is_refused_first(
    leadline: Leadline, tmp_path: Path
) -> None:
    out = tmp_path / "curves.bmp"
    assert leadline("plot", "curves", "nobody", "--out", str(out)).code == ExitCode.USAGE
    assert leadline("misclassified", "--model", "a", "--out", str(out)).code == ExitCode.USAGE


# health and exit codes


def test_a_server_that_serves_is_healthy(leadline: Leadline) -> None:
    outcome = leadline("health")
    assert (outcome.code, outcome.out) == (ExitCode.SUCCESS, "SERVING\n")
    assert leadline("health", "--json").messages == [{"status": "SERVING"}]
    unknown = leadline("health", "--service", "no.such.Service")
    assert unknown.code == ExitCode.NOT_FOUND
    assert unknown.err == "Error: not found: the server has no service 'no.such.Service'\n"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("cancel", ("nobody",)),
        ("delete", ("nobody", "--yes")),
        ("jobs", ("nobody",)),
        ("pause", ("nobody",)),
        ("resume", ("nobody",)),
        ("models", ("nobody",)),
        ("watch", ("nobody",)),
        ("misclassified", ("--model", "nobody")),
        ("confusion", ("--model", "nobody")),
        ("compare", ("nobody", "noone")),
        ("label-errors", ("nobody", "noone")),
        ("plot", ("curves", "nobody", "--out", "never.png")),
    ],
)
def test_what_is_not_there_ends_with_3(
    leadline: Leadline, command: str, arguments: tuple[str, ...]
) -> None:
    outcome = leadline(command, *arguments, "--json")
    assert outcome.code == ExitCode.NOT_FOUND
    assert outcome.error["code"] == "NOT_FOUND"


@pytest.mark.parametrize("command", ["cancel", "pause", "resume"])
def test_what_a_job_that_has_ended_does_not_do_ends_with_7(
    leadline: Leadline, model: Model, command: str
) -> None:
    outcome = leadline(command, model.job, "--json")
    assert outcome.code == ExitCode.SERVER_ERROR
    assert outcome.error["code"] == "FAILED_PRECONDITION"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("cancel", ("a",)),
        ("health", ()),
        ("jobs", ()),
        ("misclassified", ("--model", "a")),
        ("models", ()),
        ("train", ()),
        ("watch", ("a",)),
    ],
)
def test_a_server_that_is_not_there_ends_with_4(
    run: Leadline, tmp_path: Path, command: str, arguments: tuple[str, ...]
) -> None:
    outcome = run(f"unix:{tmp_path}/nobody.sock", command, *arguments)
    assert outcome.code == ExitCode.UNAVAILABLE
    assert "Start one with: leadline serve" in outcome.err


def test_a_timeout_ends_with_6(leadline: Leadline) -> None:
    outcome = leadline("jobs", "--timeout", "0.000001", "--json")
    assert outcome.code == ExitCode.DEADLINE_EXCEEDED
    assert outcome.error["code"] == "DEADLINE_EXCEEDED"


def test_the_target_may_come_from_the_environment(
    live_server: LiveServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEADLINE_TARGET", live_server.target)
    assert main(["health"]) == ExitCode.SUCCESS
    assert capsys.readouterr().out == "SERVING\n"


def test_a_reader_that_goes_away_is_no_error(live_server: LiveServer, model: Model) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ("misclassified", "--model", model.name, "--json", "--target", live_server.target)
    done = subprocess.run(
        [*SCRIPT, *arguments], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (ExitCode.BROKEN_PIPE, b"")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == ExitCode.SUCCESS
    text = capsys.readouterr().out
    assert main(["--version"]) == ExitCode.SUCCESS
    assert capsys.readouterr().out.split()[-1] == text.split()[-1]
    assert main(["version", "--json"]) == ExitCode.SUCCESS
    assert json.loads(capsys.readouterr().out) == {"version": text.split()[-1]}


def test_blocks_of_two_convolutions_are_told_apart_and_filtered(
    leadline: Leadline, client: Client
) -> None:
    for number in (1, 2):
        job = client.train(
            dataset=DATASET, blocks=5, block_convolutions=number, epochs=1, batch_size=200
        )
        job.result()
        listed = leadline(
            *("models", "--dataset", DATASET, "--blocks", "5"),
            *("--block-convolutions", str(number), "--json"),
        )
        # The job of this test with the other client may also be listed.
        assert listed.messages[0]["job"] == job.name
        assert {one["variant"]["block_convolutions"] for one in listed.messages} == {number}
        (shown,) = leadline("jobs", job.name, "--json").messages
        assert shown["spec"]["block_convolutions"] == number

    rows = leadline("models", "--dataset", DATASET, "--blocks", "5").out.split("\n")
    assert [row.split()[2] for row in rows if row.strip().startswith("models/")][:2] == [
        "5x2",
        "5",
    ]
    answered = leadline(
        *("misclassified", "--dataset", DATASET, "--blocks", "5", "--block-convolutions", "2"),
        "--json",
    )
    assert answered.messages[0]["model"].startswith(job.model)


def test_a_variant_that_there_is_not_is_named_in_the_words_of_the_listings(
    leadline: Leadline,
) -> None:
    variant = ("--dataset", "tiny", "--blocks", "1", "--residual", "--block-convolutions")
    missing = leadline("misclassified", *variant, "2")
    assert missing.code == ExitCode.NOT_FOUND
    network = Variant(blocks=1, block_convolutions=2, residual=True)
    assert describe.network(network) == "1 residual block of 2 convolutions without batch norm"
    assert f"no variant of {describe.network(network)} on tiny" in missing.err

    refused = leadline("misclassified", *variant, "3")
    assert refused.code == ExitCode.USAGE
    assert "--block-convolutions: must be 1 or 2, but is 3" in refused.err
