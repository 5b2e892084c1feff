"""`leadline predict` with a real server: its inputs, its outputs and its files."""

import csv
import io
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from client.cli_outcome import INTERRUPTIBLE_SCRIPT, SCRIPT, Leadline
from leadline.client import Client, Model
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.image_files import ImageFiles
from support.datasets import dataset_of
from support.servers import LiveServer, ServerFactory

DATASET = dataset_of(__file__)


@pytest.fixture
def photos(tmp_path: Path, test_images: list[Path]) -> Path:
    """A folder of 5 images, a corrupt one, and a file that is not an image."""
    folder = tmp_path / "photos"
    for name, image in zip(
        ("a/1.png", "a/2.PNG", "a.png", "b/deep/er/3.png", "z.jpg"), test_images, strict=False
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / name)
    (folder / "b" / "corrupt.jpeg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("none")
    (folder / "b" / "list.csv").write_text("none")
    os.mkfifo(folder / "pipe.png")
    (folder / "circle").symlink_to(folder)
    return folder


# In the order of their paths: a folder's files are sorted by the folder's name.
FOUND = ["a/1.png", "a/2.PNG", "a.png", "b/corrupt.jpeg", "b/deep/er/3.png", "z.jpg"]


def test_images_are_predicted(leadline: Leadline, model: Model, test_images: list[Path]) -> None:
    outcome = leadline("predict", *map(str, test_images[:3]), "--model", model.name)
    assert outcome.code == ExitCode.SUCCESS
    assert [line.split()[0] for line in outcome.out.splitlines() if ".png" in line] == [
        str(path) for path in test_images[:3]
    ]
    assert outcome.out.splitlines()[-1] == f"by {model.name}/epochs/{model.best_epoch}"


def test_a_folder_of_images_is_predicted(
    leadline: Leadline, model: Model, tiny_dataset: Path, test_images: list[Path]
) -> None:
    folder = str(tiny_dataset / "test")
    (response,) = leadline(
        *("predict", folder, "--model", model.name, "--top-k", "2", "--json")
    ).messages
    right = sum(
        prediction["class_name"] == path.parent.name
        for prediction, path in zip(response["predictions"], test_images, strict=True)
    )
    assert right == round(model.best_test_accuracy * len(test_images))
    assert {len(one["top_k"]) for one in response["predictions"]} == {2}
    assert response["weights_sha256"]


def test_the_best_of_a_variant_predicts(leadline: Leadline, test_images: list[Path]) -> None:
    variant = ("--dataset", "tiny", "--blocks", "1", "--batch-norm")
    assert leadline("predict", str(test_images[0]), *variant).code == ExitCode.SUCCESS
    other = ("--dataset", "tiny", "--blocks", "63")
    assert leadline("predict", str(test_images[0]), *other).code == ExitCode.NOT_FOUND


def test_what_cannot_be_classified_is_told_by_its_name_and_all_else_is_classified(
    leadline: Leadline, model: Model, test_images: list[Path], tmp_path: Path
) -> None:
    corrupt, empty = tmp_path / "corrupt.png", tmp_path / "empty.png"
    corrupt.write_bytes(b"no image")
    empty.touch()
    images = (str(corrupt), str(test_images[0]), str(empty), str(test_images[1]))
    outcome = leadline("predict", *images, "--model", model.name)
    assert outcome.code == ExitCode.FAILED
    assert [line.split()[0] for line in outcome.out.splitlines() if ".png" in line] == [
        str(path) for path in test_images[:2]
    ]
    told = outcome.err.splitlines()
    assert [line.partition(": ")[0] for line in told[:2]] == [str(corrupt), str(empty)]
    assert told[2:] == ["2 failures, see above"]


def test_as_json_there_is_an_answer_for_all_images_or_for_none(
    leadline: Leadline, model: Model, test_images: list[Path], tmp_path: Path
) -> None:
    corrupt = tmp_path / "corrupt.png"
    corrupt.write_bytes(b"no image")
    outcome = leadline(
        *("predict", str(test_images[0]), str(corrupt), "--model", model.name, "--json")
    )
    assert (outcome.code, outcome.out) == (ExitCode.USAGE, "")
    assert [violation["field"] for violation in outcome.error["violations"]] == [str(corrupt)]
    assert outcome.error["message"].startswith(f"{corrupt}: ")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--dataset", "tiny"),
        ("--model", "a", "--dataset", "tiny", "--blocks", "2"),
        ("--model", "a", "--no-batch-norm"),
    ],
)
def test_what_answers_must_be_named_once(
    leadline: Leadline, test_images: list[Path], arguments: tuple[str, ...]
) -> None:
    assert leadline("predict", str(test_images[0]), *arguments).code == ExitCode.USAGE


def test_a_folder_without_images_and_a_missing_file_are_told(
    leadline: Leadline, tmp_path: Path
) -> None:
    for path in (tmp_path, tmp_path / "missing.png"):
        outcome = leadline("predict", str(path), "--model", "a", "--json")
        assert (outcome.code, outcome.error["code"]) == (ExitCode.USAGE, "USAGE")


def test_json_lines_have_an_object_an_image(leadline: Leadline, model: Model, photos: Path) -> None:
    outcome = leadline(
        *("predict", str(photos), "--model", model.name, "--format", "jsonl", "--top-k", "2"),
        "--logits",
    )
    assert outcome.code == ExitCode.FAILED
    assert [one["image"] for one in outcome.messages] == [str(photos / name) for name in FOUND]
    (failed,) = [one for one in outcome.messages if "error" in one]
    assert failed == {
        "image": str(photos / "b/corrupt.jpeg"),
        "error": "the image is neither PNG nor JPEG",
    }
    for one in outcome.messages:
        if one is not failed and "error" not in one:
            assert one["model"] == f"{model.name}/epochs/{model.best_epoch}"
            assert one["top_k"][0]["class_name"] == one["class_name"]
            assert (len(one["top_k"]), len(one["logits"])) == (2, 10)
            assert max(one["logits"]) == one["logits"][one["class_index"]]
    assert f"{photos / 'b/corrupt.jpeg'}: " in outcome.err
    # Text, a list, a pipe, and a circular link.
    assert "skipped 4 files not named .png or .jpg" in outcome.err


def test_csv_has_a_row_an_image(leadline: Leadline, model: Model, photos: Path) -> None:
    outcome = leadline(
        *("predict", str(photos / "b"), str(photos / "z.jpg"), "--model", model.name),
        *("--format", "csv", "--top-k", "3", "--logits"),
    )
    assert outcome.code == ExitCode.FAILED
    heading, *rows = csv.reader(io.StringIO(outcome.out))
    assert heading == [
        *("image", "class", "probability", "class_2", "probability_2", "class_3", "probability_3"),
        *(f"logit_{index}" for index in range(10)),
        *("model", "error"),
    ]
    found = [dict(zip(heading, row, strict=True)) for row in rows]
    names = [photos / "b/corrupt.jpeg", photos / "b/deep/er/3.png", photos / "z.jpg"]
    assert [row["image"] for row in found] == [str(name) for name in names]
    # It came before the number of columns was known.
    assert found[0]["error"] == "the image is neither PNG nor JPEG"
    assert set(found[0].values()) == {found[0]["image"], found[0]["error"], ""}
    for row in found[1:]:
        assert float(row["probability"]) >= float(row["probability_2"])
        assert row["model"] == f"{model.name}/epochs/{model.best_epoch}"
        assert row["error"] == ""


def test_a_file_is_written_in_the_format_of_its_name(
    leadline: Leadline, model: Model, test_images: list[Path], tmp_path: Path
) -> None:
    folder = str(test_images[0].parent)
    for name in ("answers.csv", "new/answers.jsonl", "answers.csv"):
        out = tmp_path / name
        outcome = leadline("predict", folder, "--model", model.name, "--out", str(out))
        assert outcome.code == ExitCode.SUCCESS
        assert outcome.out == (
            f"wrote {out}: 20 predictions by {model.name}/epochs/{model.best_epoch}\n"
        )
        assert outcome.err == ""
        assert len(out.read_text().splitlines()) == 20 + (out.suffix == ".csv")
        assert [path.name for path in out.parent.glob("*answers*")] == [out.name]
    named = tmp_path / "answers"
    leadline("predict", folder, "--model", model.name, "--out", str(named), "--format", "jsonl")
    assert json.loads(named.read_text().splitlines()[0])["image"] == str(test_images[0])


def test_a_run_of_nothing_but_junk_is_told_and_written(
    leadline: Leadline, model: Model, tmp_path: Path
) -> None:
    junk = tmp_path / "junk.png"
    junk.write_bytes(b"junk")
    out = tmp_path / "out.csv"
    assert leadline("predict", str(junk), "--model", model.name).code == ExitCode.FAILED
    outcome = leadline("predict", str(junk), "--model", model.name, "--out", str(out))
    assert outcome.code == ExitCode.FAILED
    assert out.read_text().splitlines() == [
        "image,class,probability,model,error",
        f"{junk},,,,the image is neither PNG nor JPEG",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--json", "--out", "a.csv"), "--format jsonl"),
        (("--json", "--format", "csv"), "--format jsonl"),
        (("--out", "a.txt"), "neither .csv nor .jsonl"),
        (("--out", "a.csv", "--format", "table"), "for the screen"),
        (("--logits",), "no room for logits"),
        (("--out", "/dev/null", "--format", "csv"), "not a regular file"),
    ],
)
def test_options_that_contradict_are_refused(
    leadline: Leadline, test_images: list[Path], arguments: tuple[str, ...], says: str
) -> None:
    outcome = leadline("predict", str(test_images[0]), "--model", "a", *arguments)
    assert outcome.code == ExitCode.USAGE
    assert says in outcome.err


def test_what_would_be_waited_for_is_refused(
    leadline: Leadline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    os.mkfifo("pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        for name, kind in (
            *(("pipe.png", "a FIFO"), ("socket.png", "a socket")),
            ("/dev/zero", "a device"),
        ):
            outcome = leadline("predict", name, "--model", "a")
            assert outcome.code == ExitCode.USAGE
            assert f"{name} is {kind}" in outcome.err


def test_a_folder_that_cannot_be_read_is_told_and_the_others_are_read(photos: Path) -> None:
    told: list[Path] = []
    files = iter(ImageFiles([photos], on_unreadable=lambda path, _error: told.append(path)))
    found = [next(files)]
    shutil.rmtree(photos / "b")
    found += files
    assert [str(path.relative_to(photos)) for path in found] == [
        name for name in FOUND if not name.startswith("b")
    ]
    assert told == [photos / "b"]


@pytest.fixture
def bottomless(photos: Path) -> Path:
    """The folder with a subfolder whose path is too long to be read."""
    folder = os.open(photos, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=folder)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    return photos


def test_a_folder_below_that_cannot_be_read_is_a_failure(
    leadline: Leadline, model: Model, bottomless: Path
) -> None:
    arguments = ("predict", str(bottomless), "--model", model.name)
    outcome = leadline(*arguments, "--format", "jsonl")
    assert outcome.code == ExitCode.FAILED
    assert len(outcome.messages) == len(FOUND)
    assert "File name too long" in outcome.err
    outcome = leadline(*arguments, "--json")
    assert (outcome.code, outcome.out) == (ExitCode.USAGE, "")
    assert "File name too long" in outcome.error["message"]


def test_a_name_that_is_no_text_is_no_obstacle(
    leadline: Leadline, model: Model, test_images: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    shutil.copy(test_images[0], folder / os.fsdecode(b"\xff.png"))
    for form in ("table", "csv", "jsonl"):
        out = ("--out", str(tmp_path / f"a.{form}")) if form != "table" else ()
        outcome = leadline("predict", str(folder), "--model", model.name, "--format", form, *out)
        assert outcome.code == ExitCode.SUCCESS
    (line,) = (tmp_path / "a.jsonl").read_text().splitlines()
    assert os.fsencode(json.loads(line)["image"]).endswith(b"/\xff.png")


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited for {what} in vain")
        time.sleep(0.02)


def test_an_interrupted_run_leaves_no_file(
    server_factory: ServerFactory, test_images: list[Path], tmp_path: Path
) -> None:
    server = server_factory("--spare-workers", "0")
    with Client(server.target) as client:
        job = client.train(dataset=DATASET, blocks=0, epochs=1, batch_size=200)
        job.result()
    folder = tmp_path / "answers"
    folder.mkdir()
    # A server stopped as with Ctrl-Z answers nothing; the run waits until its timeout.
    server.process.send_signal(signal.SIGSTOP)
    command = (*INTERRUPTIBLE_SCRIPT, "predict", str(test_images[0].parent), "--model", job.model)
    more = ("--out", str(folder / "out.csv"), "--target", server.target)
    with subprocess.Popen([*command, *more], stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: list(folder.iterdir()) or process.poll() is not None, "the file")
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    server.process.send_signal(signal.SIGCONT)
    assert process.returncode == ExitCode.INTERRUPTED, told
    assert list(folder.iterdir()) == []
    assert "Traceback" not in told


def test_a_server_that_is_not_there_is_told_and_leaves_no_file(
    run: Leadline, test_images: list[Path], tmp_path: Path
) -> None:
    outcome = run(
        f"unix:{tmp_path}/nobody",
        *("predict", str(test_images[0]), "--model", "a", "--out", str(tmp_path / "a.csv")),
    )
    assert outcome.code == ExitCode.UNAVAILABLE
    assert list(tmp_path.glob("*a.csv*")) == []


def test_a_terminal_shows_how_far_a_run_is(
    live_server: LiveServer, model: Model, tiny_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    ours, theirs = pty.openpty()
    command = (*SCRIPT, "predict", str(tiny_dataset / "test"), "--model", model.name)
    more = ("--out", str(out), "--target", live_server.target)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([*command, *more], stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65_536):
                shown += chunk
        except OSError:  # the other end was closed
            pass
    os.close(ours)
    assert process.returncode == ExitCode.SUCCESS
    assert b"/200" in shown
    assert b"images" in shown
    assert len(out.read_text().splitlines()) == 201


def test_a_reader_who_has_enough_is_no_error(
    live_server: LiveServer, model: Model, tiny_dataset: Path
) -> None:
    command = (*SCRIPT, "predict", str(tiny_dataset), "--model", model.name, "--format", "jsonl")
    with subprocess.Popen(
        [*command, "--logits", "--top-k", "10", "--target", live_server.target],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == ExitCode.BROKEN_PIPE
