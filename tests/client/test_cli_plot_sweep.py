"""`leadline plot sweep`: test accuracy against depth."""

from pathlib import Path

import pytest

from client.cli_outcome import Leadline
from leadline.client import Client, Sweep, TrainingSpec
from leadline.client.cli.depth_lines import depth_lines
from leadline.client.cli.exit_codes import ExitCode
from support.datasets import dataset_of
from support.servers import LiveServer

DATASET = dataset_of(__file__)


def test_the_lines_are_those_of_the_jobs(depth_sweep: Sweep) -> None:
    lines = depth_lines(depth_sweep)

    assert [line.label for line in lines] == ["without batch norm", "with batch norm"]
    for line, norm in zip(lines, (False, True), strict=True):
        assert (line.batch_norm, line.blocks) == (norm, [0, 1])
        for place, blocks in enumerate(line.blocks):
            accuracies = [
                100 * job.best_test_accuracy
                for job in depth_sweep.jobs
                if job.values["blocks"] == blocks and job.values["batch_norm"] == norm
            ]
            assert line.mean[place] == pytest.approx(sum(accuracies) / 2)
            assert (line.lowest[place], line.highest[place]) == (min(accuracies), max(accuracies))


def test_other_axes_make_lines_of_their_own(depth_sweep: Sweep) -> None:
    sweep = Sweep()
    sweep.CopyFrom(depth_sweep)
    for variant in sweep.table.variants:
        del variant.values["batch_norm"]
        variant.values["learning_rate"] = 0.05
    sweep.table.variants[0].values["learning_rate"] = 0.5

    labels = [line.label for line in depth_lines(sweep)]

    assert labels == [f"without batch norm, learning_rate={rate}" for rate in ("0.5", "0.05")]


def test_blocks_of_two_convolutions_have_lines_that_say_so(depth_sweep: Sweep) -> None:
    sweep = Sweep()
    sweep.CopyFrom(depth_sweep)
    for variant in sweep.table.variants:
        variant.values["block_convolutions"] = 2 if variant.values["batch_norm"] else 1
        del variant.values["batch_norm"]
    of_two = Sweep()
    of_two.CopyFrom(depth_sweep)
    of_two.spec.block_convolutions = 2

    assert [line.label for line in depth_lines(sweep)] == [
        "without batch norm",
        "blocks of 2 convolutions without batch norm",
    ]
    assert [line.label for line in depth_lines(of_two)] == [
        "blocks of 2 convolutions without batch norm",
        "blocks of 2 convolutions with batch norm",
    ]


def test_a_sweep_without_an_axis_of_batch_norms_says_what_all_its_jobs_have(
    depth_sweep: Sweep,
) -> None:
    sweep = Sweep()
    sweep.CopyFrom(depth_sweep)
    sweep.spec.batch_norm = True
    for variant in sweep.table.variants:
        del variant.values["batch_norm"]

    assert {line.label for line in depth_lines(sweep)} == {"with batch norm"}
    assert {line.batch_norm for line in depth_lines(sweep)} == {True}


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_sweep_is_drawn(
    leadline: Leadline, depth_sweep: Sweep, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"sweep.{suffix}"
    outcome = leadline("plot", "sweep", depth_sweep.name, "--out", str(out), "--json")

    assert outcome.code == ExitCode.SUCCESS, outcome.err
    assert [message["name"] for message in outcome.messages] == [depth_sweep.name]
    assert out.stat().st_size > 1000
    if suffix == "svg":
        drawn = out.read_text()
        words = ("with batch norm", "without batch norm", "depth (blocks)")
        assert all(f"<!-- {word} -->" in drawn for word in words)


def test_a_sweep_without_depths_or_results_is_refused(
    leadline: Leadline, busy_leadline: Leadline, live_server: LiveServer, tmp_path: Path
) -> None:
    out = tmp_path / "sweep.png"
    spec = TrainingSpec(dataset=DATASET, blocks=0, epochs=1, batch_size=200)
    with Client(live_server.target) as client:
        flat = client.train_sweep({"seed": [0]}, spec).result()
    waiting = busy_leadline(
        *("sweep", "--dataset", "tiny", "--blocks", "0,1", "--epochs", "1", "--detach")
    ).out.strip()

    refused = leadline("plot", "sweep", flat.name, "--out", str(out))
    early = busy_leadline("plot", "sweep", waiting, "--out", str(out))
    busy_leadline("cancel", waiting)

    assert (refused.code, early.code) == (ExitCode.USAGE, ExitCode.USAGE)
    assert "has no axis blocks, only seed" in refused.err
    assert f"no job of {waiting} has completed an epoch" in early.err
    assert not out.exists()
    assert leadline("plot", "sweep", "nobody", "--out", str(out)).code == ExitCode.NOT_FOUND
