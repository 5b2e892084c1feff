"""Errors of inspection, in the SDK and on the command line."""

import pytest

from client.cli_outcome import Leadline
from leadline.client import (
    Client,
    FailedPreconditionError,
    InvalidArgumentError,
    Model,
    NotFoundError,
    Split,
)
from leadline.client.cli.exit_codes import ExitCode
from support.checkpoints import make_older
from support.datasets import dataset_of
from support.servers import LiveServer

DATASET = dataset_of(__file__)


@pytest.fixture(scope="session")
def unkept(live_server: LiveServer) -> str:
    """A model of an older version, without kept predictions."""
    with Client(live_server.target) as client:
        job = client.train(dataset=DATASET, blocks=0, epochs=1, batch_size=200)
        job.result()
    (folder,) = (live_server.data_dir / job.model).iterdir()
    make_older(folder, 1, lambda description: description["files"].pop("predictions"))
    return job.model


def test_an_epoch_that_there_is_not_is_an_error(client: Client, model: Model) -> None:
    name = f"{model.name}/epochs/99"
    for ask in (
        lambda: client.list_misclassified(model=name),
        lambda: client.confusion_matrix(model=name),
        lambda: client.compare_models(model.name, name),
        lambda: client.compare_models(name, model.name),
    ):
        with pytest.raises(NotFoundError, match=f"{name}: the model has the epochs 1 to 3"):
            ask()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"true_class": "nobody"}, "'nobody', but the model's classes are ant, bee, cow"),
        ({"predicted_class": "nobody"}, "'nobody', but the model's classes are ant, bee, cow"),
        ({"per_class": 0}, "must be from 1 to 10000, or unset for all, is 0"),
        ({"per_class": 1_000_000}, "must be from 1 to 10000, or unset for all, is 1000000"),
    ],
)
def test_a_class_or_a_number_that_there_is_not_is_an_error(
    client: Client, model: Model, asked: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.list_misclassified(model=model.name, **asked)  # type: ignore[arg-type]

    (violation,) = caught.value.violations
    assert [violation.field] == list(asked)
    assert says in violation.description


def test_a_model_without_predictions_is_an_error(client: Client, unkept: str) -> None:
    for split in (Split.SPLIT_TEST, Split.SPLIT_TRAIN):
        for ask in (
            lambda split=split: client.list_misclassified(model=unkept, split=split),
            lambda split=split: client.confusion_matrix(model=unkept, split=split),
            lambda split=split: client.compare_models(unkept, unkept, split=split),
        ):
            with pytest.raises(FailedPreconditionError) as caught:
                ask()
            assert caught.value.reason == "PREDICTIONS_NOT_KEPT"
            assert f"{unkept}/epochs/1" in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        ("misclassified", "--model", "{name}"),
        ("misclassified", "--model", "{name}", "--out", "{out}"),
        ("confusion", "--model", "{name}"),
        ("compare", "{name}", "{name}"),
        ("plot", "confusion", "--model", "{name}", "--out", "{out}"),
        ("report", "{name}", "{name}", "--out", "{page}"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("is_there", [False, True], ids=["no epoch", "no predictions"])
def test_every_command_says_so_and_writes_no_file(  # noqa: PLR0917 - a case and what it needs
    leadline: Leadline,
    model: Model,
    unkept: str,
    tmp_path_factory: pytest.TempPathFactory,
    command: tuple[str, ...],
    is_there: bool,
) -> None:
    folder = tmp_path_factory.mktemp("out")
    name = f"{unkept}/epochs/1" if is_there else f"{model.name}/epochs/99"
    values = {"name": name, "out": folder / "out.png", "page": folder / "out.html"}

    outcome = leadline(*(word.format(**values) for word in command))

    assert outcome.code == (ExitCode.SERVER_ERROR if is_there else ExitCode.NOT_FOUND)
    assert name in outcome.err
    assert "Traceback" not in outcome.err
    assert not list(folder.iterdir())
