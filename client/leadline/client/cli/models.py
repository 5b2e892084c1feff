"""`leadline models`."""

from typing import Any

import click

from leadline.client import Model, ModelEpoch, Variant
from leadline.client.cli import describe
from leadline.client.cli.commands import command
from leadline.client.cli.options import (
    Session,
    field_options,
    option_group,
    owner_option,
    session_options,
)

_FILTERS = {
    "dataset": "Only models trained on this dataset.",
    "blocks": "Only models of this depth.",
    "block_convolutions": "Only models with this many convolutions in each block.",
    "batch_norm": "Only models with, or without, batch norm.",
    "residual": "Only models with, or without, residual connections.",
}


@command(
    "leadline models --dataset synthetic --batch-norm",
    "leadline models models/phgcrktpjf",
)
@click.argument("model", required=False)
@option_group("filters", list(_FILTERS), *field_options(Variant.DESCRIPTOR, _FILTERS))
@owner_option("models")
@session_options
def models(
    session: Session, *, model: str | None, filters: dict[str, Any], owner: str | None
) -> None:
    """List trained models, the newest first, or the epochs of one MODEL."""
    with session.client() as client:
        if model is None:
            _show_models(session, list(client.models(**filters, owner=owner)))
        else:
            _show_epochs(session, client.get_model(model))


def _show_models(session: Session, listed: list[Model]) -> None:
    if session.output.as_json:
        for model in listed:
            session.output.message(model)
    else:
        session.output.table(*describe.table(describe.MODEL_COLUMNS, listed))


def _show_epochs(session: Session, model: Model) -> None:
    if session.output.as_json:
        session.output.message(model)
        return
    session.output.text(f"{model.name}: {describe.spec(model.spec)}")
    rows = [
        [
            epoch.name,
            describe.percent(epoch.train_accuracy),
            describe.percent(epoch.test_accuracy),
            _remarks(model, epoch),
        ]
        for epoch in model.epochs
    ]
    session.output.table(("epoch", "#train", "#test", ""), rows)


def _remarks(model: Model, epoch: ModelEpoch) -> str:
    best = ["best"] if epoch.epoch == model.best_epoch else []
    kept = [] if epoch.kept else ["not kept"]
    return ", ".join(best + kept)
