"""The options that several commands share."""

import functools
import math
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import click

from leadline.client import Client, TrainingSpec
from leadline.client.cli.output import Output

_TARGET = "127.0.0.1:50051"
_LONGEST_TIMEOUT = 86_400.0
_LAST_PORT = 65_535

_TARGET_VARIABLE = "LEADLINE_TARGET"


@dataclass(frozen=True, kw_only=True)
class Session:
    """Where a command connects, and how it prints.

    Attributes:
        target: the server's address.
        timeout: seconds for each call.
        output: where the command prints.
    """

    target: str
    timeout: float
    output: Output

    def command(self, *words: str) -> str:
        """A command for the same server, as one types it."""
        reached = os.environ.get(_TARGET_VARIABLE) or _TARGET
        target = [] if self.target == reached else ["--target", self.target]
        return shlex.join(["leadline", *words, *target])

    def client(self) -> Client:
        """A client of the server, to be closed."""
        return Client(self.target, timeout=self.timeout)


def _refuse_nan(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if math.isnan(value):
        raise click.BadParameter("nan is no number of seconds")
    return value


def _check_target(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not value.strip():
        raise click.BadParameter("the address is empty: give HOST:PORT")
    # gRPC takes a port beyond the last one for another port, without a word.
    port = re.search(r":(\d+)$", value)
    if port and not 1 <= int(port.group(1)) <= _LAST_PORT:
        raise click.BadParameter(f"{port.group(1)} is no port: give 1 to {_LAST_PORT}")
    return value


def session_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --target, --timeout and --json; the command receives them as `session`."""

    @click.option(
        "--target",
        envvar=_TARGET_VARIABLE,
        show_envvar=True,
        default=_TARGET,
        callback=_check_target,
        show_default=True,
        metavar="HOST:PORT",
        help="The server's address.",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True, max=_LONGEST_TIMEOUT),
        callback=_refuse_nan,
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="How long each call may take.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print each message as one JSON line.")
    @functools.wraps(function)
    def with_session(*, target: str, timeout: float, as_json: bool, **others: Any) -> Any:
        output = Output(as_json=as_json)
        return function(session=Session(target=target, timeout=timeout, output=output), **others)

    return with_session


class Selector(TypedDict):
    """What answers: a model, or the best one of a variant; arguments of the client's methods."""

    model: str | None
    dataset: str | None
    blocks: int | None
    block_convolutions: int | None
    batch_norm: bool | None
    residual: bool | None


def selector_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --model and the variant's options; the command receives them as `selector`."""

    @click.option("--model", help="A model, models/ID, or one of its epochs, models/ID/epochs/N.")
    @click.option("--dataset", help="Instead: the best model trained on this dataset, with")
    @click.option("--blocks", type=int, help="this depth in blocks,")
    @click.option(
        "--block-convolutions", type=int, help="this many convolutions in each, 1 or 2  [1], and"
    )
    @click.option(
        "--batch-norm/--no-batch-norm", default=None, help="with or without batch norm, and"
    )
    @click.option(
        "--residual/--no-residual", default=None, help="with or without residual connections."
    )
    @functools.wraps(function)
    def with_selector(
        *,
        model: str | None,
        dataset: str | None,
        blocks: int | None,
        block_convolutions: int | None,
        batch_norm: bool | None,
        residual: bool | None,
        **others: Any,
    ) -> Any:
        if model is None and (dataset is None or blocks is None):
            raise click.UsageError("name what answers: --model, or --dataset and --blocks")
        variant = (dataset, blocks, block_convolutions, batch_norm, residual)
        if model is not None and any(part is not None for part in variant):
            raise click.UsageError("--model already says it all: leave out the variant's options")
        selector = Selector(
            model=model,
            dataset=dataset,
            blocks=blocks,
            block_convolutions=block_convolutions,
            batch_norm=batch_norm,
            residual=residual,
        )
        return function(selector=selector, **others)

    return with_selector


_SPEC_OPTIONS = (
    click.option("--dataset", help="A dataset that the server knows.  [server's: cifar10]"),
    click.option("--blocks", type=int, help="The depth in blocks, 0 to 64.  [server's: 2]"),
    click.option(
        "--block-convolutions",
        type=int,
        help="The convolutions of each block, 1 or 2.  [server's: 1]",
    ),
    click.option(
        "--batch-norm/--no-batch-norm",
        default=None,
        help="Whether a batch norm follows each convolution in a block.  [server's: no]",
    ),
    click.option("--epochs", type=int, help="Passes over the training set.  [server's: 51]"),
    click.option("--batch-size", type=int, help="Images per step.  [server's: 128]"),
    click.option("--learning-rate", type=float, help="The step size.  [server's: 0.01]"),
    click.option(
        "--optimizer",
        type=click.Choice(["sgd", "adam", "adamw"], case_sensitive=False),
        help="The rule that turns gradients into steps.  [server's: sgd]",
    ),
    click.option("--momentum", type=float, help="Of SGD, 0 up to 1.  [server's: 0]"),
    click.option("--weight-decay", type=float, help="Its coefficient.  [server's: 0]"),
    click.option("--seed", type=int, help="Of weights and order.  [server's: 0]"),
    click.option(
        "--residual/--no-residual",
        default=None,
        help="Whether an identity connection goes around each block.  [server's: no]",
    ),
    click.option(
        "--initialization",
        type=click.Choice(["default", "kaiming"], case_sensitive=False),
        help="How the first weights are drawn.  [server's: default]",
    ),
    click.option(
        "--schedule",
        type=click.Choice(["constant", "cosine", "one_cycle"], case_sensitive=False),
        help="Of the step size; the learning rate is its highest.  [server's: constant]",
    ),
    click.option(
        "--nesterov/--no-nesterov",
        default=None,
        help="Whether the momentum is Nesterov's.  [server's: no]",
    ),
    click.option(
        "--augmentation",
        type=click.Choice(["none", "flip", "flip_crop"], case_sensitive=False),
        help="How training images are varied.  [server's: none]",
    ),
    click.option(
        "--patience",
        type=int,
        metavar="N",
        help="End after N epochs without a better test accuracy.  [server's: 0, never]",
    ),
    click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16"], case_sensitive=False),
        help="What steps compute in.  [server's: float32]",
    ),
    click.option(
        "--diagnostics/--no-diagnostics",
        default=None,
        help="Whether each block is measured, for `leadline jobs --diagnosis`.  [server's: no]",
    ),
)


def spec_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds an option for each field of a `TrainingSpec`; the command receives them as `fields`.

    The server knows what is allowed: only what was given is sent, as it is.
    """
    return _with_spec_options(function, left_out=frozenset())


def common_spec_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same without those that `leadline sweep` takes as axes."""
    axes = {"blocks", "block_convolutions", "batch_norm", "seed"}
    return _with_spec_options(function, left_out=frozenset(axes))


def _with_spec_options(
    function: Callable[..., Any], *, left_out: frozenset[str]
) -> Callable[..., Any]:
    names = [field.name for field in TrainingSpec.DESCRIPTOR.fields if field.name not in left_out]

    @functools.wraps(function)
    def with_fields(**given: Any) -> Any:
        fields = {name: given.pop(name) for name in names}
        return function(fields=fields, **given)

    for option in reversed(_SPEC_OPTIONS):
        added = option(with_fields)
        parameters = added.__click_params__  # type: ignore[attr-defined]
        if parameters[-1].name in left_out:
            parameters.pop()
    return with_fields
