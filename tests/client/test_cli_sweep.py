"""`leadline sweep` and related commands, from the options to the table."""

import json
import re

import click
import pytest
from google.protobuf.json_format import Parse

from client.cli_outcome import Leadline, Outcome
from leadline.client import SweepEvent, SweepTable
from leadline.client.cli import describe_sweep
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.output import Output
from leadline.client.cli.sweep_options import sweep_options
from leadline.client.cli.sweep_views import LiveView
from leadline.v1.sweep_pb2 import SweepBestDepth
from support.datasets import dataset_of

DATASET = dataset_of(__file__)

SMALL = ("--dataset", DATASET, "--epochs", "1", "--batch-size", "200")


def axes_of(*arguments: str) -> dict[str, list[object]]:
    @click.command
    @sweep_options
    def command(axes: dict[str, list[object]], rule: object) -> dict[str, list[object]]:
        del rule
        return axes

    found: dict[str, list[object]] = command.main(list(arguments), standalone_mode=False)
    return found


def test_the_options_name_the_axes() -> None:
    assert axes_of("--blocks", "2,4", "--batch-norm", "both", "--seeds", "3") == {
        "blocks": [2.0, 4.0],
        "batch_norm": [False, True],
        "seed": [0, 1, 2],
    }
    assert axes_of("--axis", "learning-rate=0.01, 0.1", "--axis", "residual=no,yes") == {
        "learning_rate": [0.01, 0.1],
        "residual": [False, True],
    }
    assert axes_of("--block-convolutions", "1,2", "--blocks", "2", "--axis", "seed=1") == {
        "blocks": [2.0],
        "block_convolutions": [1.0, 2.0],
        "seed": [1.0],
    }
    assert axes_of("--axis", "optimizer=sgd,adam", "--axis", "seed=7,9") == {
        "optimizer": ["sgd", "adam"],
        "seed": [7.0, 9.0],
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--axis", "residual"), "is not an axis such as"),
        (("--axis", "seed=1", "--axis", "seed=2"), "given twice"),
        (("--axis", "seed=1", "--seeds", "2"), "given twice"),
        (
            ("--axis", "block-convolutions=1", "--block-convolutions", "2"),
            "block_convolutions is given twice",
        ),
        (("--grace-epochs", "2"), "need --early-stop"),
        (("--batch-norm", "perhaps"), "perhaps"),
    ],
)
def test_a_wrong_option_is_told(
    busy_leadline: Leadline, arguments: tuple[str, ...], words: str
) -> None:
    done = busy_leadline("sweep", *SMALL, *arguments)

    assert done.code == ExitCode.USAGE
    assert words in done.err


def test_what_the_server_finds_wrong_is_told(busy_leadline: Leadline) -> None:
    done = busy_leadline("sweep", *SMALL, "--blocks", "2,two", "--axis", "depth=1")

    assert done.code == ExitCode.USAGE
    assert "axes[0].values[1]: blocks must be of type int, but is 'two'" in done.err
    assert "axes[1].field: 'depth' is not a field of a training spec" in done.err


@pytest.fixture(scope="module")
def trained() -> dict[str, Outcome]:
    """The output of the command for the only sweep that this module trains."""
    return {}


@pytest.fixture
def done(leadline: Leadline, trained: dict[str, Outcome]) -> Outcome:
    """A sweep of two depths, watched to its end."""
    axes = ("--blocks", "0,1", "--seeds", "1", "--batch-norm", "yes")
    if not trained:
        trained["sweep"] = leadline("sweep", *SMALL, *axes)
    return trained["sweep"]


def test_a_sweep_is_followed_to_its_table(leadline: Leadline, done: Outcome) -> None:
    assert done.code == ExitCode.SUCCESS, done.err
    first, *_ = done.out.splitlines()
    assert re.fullmatch(r"sweeps/\w{10}: 2 jobs that differ in blocks, batch_norm, seed", first)
    assert "batch_norm=yes, blocks=0, seed=0: started on cpu" in done.out
    assert "succeeded: 2 succeeded" in done.out
    assert re.search(r"best depth with batch_norm=yes: \d blocks?, mean \d+\.\d\d %", done.out)
    assert "its likelihood needs two seeds of each depth" in done.out

    name = first.partition(":")[0]
    shown = leadline("sweeps", name)
    again = leadline("watch", name, "--after-sequence", "2", "--json")
    assert shown.out.count("jobs/") == 2
    rows = re.findall(r"^ yes +\d +1/1 +\S+ % +- .*$", done.out, re.MULTILINE)
    assert len(rows) == 2
    assert rows == re.findall(r"^ yes +\d +1/1 +\S+ % +- .*$", shown.out, re.MULTILINE)
    events = [json.loads(line) for line in again.out.splitlines()]
    assert [one["sequence"] for one in events] == list(range(3, len(events) + 3))
    assert events[-1]["finished"]["table"]["variants"][0]["values"] == {
        "blocks": 0.0,
        "batch_norm": True,
    }


def test_a_sweep_is_steered_by_its_name(busy_leadline: Leadline) -> None:
    submitted = busy_leadline("sweep", *SMALL, "--seeds", "2", "--early-stop", "--detach")
    name = submitted.out.strip()

    assert submitted.code == ExitCode.SUCCESS, submitted.err
    assert f"leadline watch {name}" in submitted.err
    assert busy_leadline("pause", name).out == f"{name} is paused: 2 paused\n"
    assert (
        busy_leadline("resume", name.removeprefix("sweeps/")).out == f"{name} is queued: 2 queued\n"
    )
    assert busy_leadline("delete", name, "--yes").code == ExitCode.SERVER_ERROR
    listed = [json.loads(line) for line in busy_leadline("sweeps", "--json").out.splitlines()]
    assert listed[0]["name"] == name
    assert listed[0]["median_stopping"] == {"grace_epochs": 5, "min_completed_jobs": 3}
    assert name in busy_leadline("sweeps").out
    assert busy_leadline("cancel", name).out == f"{name} is cancelled: 2 cancelled\n"
    assert busy_leadline("watch", name).code == ExitCode.JOB_CANCELLED
    assert busy_leadline("delete", name, "--yes").out == f"{name} is deleted\n"
    assert busy_leadline("sweeps", name).code == ExitCode.NOT_FOUND


def test_the_live_table_follows_the_variants(
    leadline: Leadline, done: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    name = done.out.partition(":")[0]
    lines = leadline("watch", name, "--json").out.splitlines()
    epochs = []
    with LiveView(Output(as_json=False)) as view:
        for line in lines:
            event = Parse(line, SweepEvent())
            view.show(event)
            if event.job.HasField("epoch"):
                epochs.append([list(column.cells) for column in view._table().columns][:3])

    variants = ["batch_norm=yes, blocks=0", "batch_norm=yes, blocks=1"]
    assert epochs == [
        [variants, ["1 running", "1 queued"], ["1", "-"]],
        [variants, ["1 succeeded", "1 running"], ["1", "1"]],
    ]
    assert "succeeded: 2 succeeded" in capsys.readouterr().out


def test_the_reason_of_a_failure_is_shown_in_every_view(
    leadline: Leadline, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = leadline("sweep", *SMALL, "--axis", "learning_rate=1000")
    assert failed.code == ExitCode.FAILED
    sweep = failed.out.partition(":")[0]
    shown = leadline("sweeps", sweep)
    (job,) = re.findall(r"^(jobs/\w+) is failed.*\(DIVERGED\)$", shown.out, re.MULTILINE)
    (line,) = [line for line in leadline("jobs").out.splitlines() if f" {job} " in line]
    assert " failed (diverged) " in line
    reason = leadline("jobs", job).out.splitlines()[-1]
    assert reason.endswith("(DIVERGED)")
    for name in (job, sweep):
        assert reason in leadline("watch", name).out
    events = leadline("watch", sweep, "--json").out.splitlines()
    with LiveView(Output(as_json=False)) as view:
        for event in events:
            view.show(Parse(event, SweepEvent()))
    assert f"{job} failed: {reason}" in capsys.readouterr().out


def test_a_best_depth_says_how_sure_it_is() -> None:
    one = SweepBestDepth(blocks=2, mean_test_accuracy=0.5)
    one.values.update({"batch_norm": True})
    assert describe_sweep.best_depth(one) == (
        "best depth with batch_norm=yes: 2 blocks, mean 50.00 %; no other depth to compare"
    )
    one.runner_up_blocks, one.margin = 4, 0.02
    assert describe_sweep.best_depth(one).endswith(
        "2.00 points above 4 blocks; its likelihood needs two seeds of each depth"
    )
    one.confidence = 0.987
    assert describe_sweep.best_depth(one).endswith("; 98.7 % likely the best depth tried")
    assert describe_sweep.variant_table(SweepTable())[1] == []
