"""The options that several commands share."""

import functools
import math
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypedDict, Unpack

import click
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from leadline.client import Client, InvalidArgumentError, TrainingSpec, Variant
from leadline.client._channel import normal_target
from leadline.client._config import DEFAULT_TARGET, FILES, SETTINGS, Settings, resolve
from leadline.client._messages import enum_numbers
from leadline.client.cli.commands import checked
from leadline.client.cli.output import Output

_LONGEST_TIMEOUT = 86_400.0

AnyCommand: TypeAlias = Callable[..., Any]
"""The function of a command, before or after options were added."""


def option_group(
    parameter: str,
    names: Sequence[str],
    *options: Callable[[AnyCommand], AnyCommand],
    build: Callable[..., Any] = dict,
) -> Callable[[AnyCommand], AnyCommand]:
    """A decorator that adds options to a command, which receives them as a single parameter.

    Args:
        parameter: the name of the command's parameter.
        names: the parameters of the options.
        options: the options, in the order in which the help shows them.
        build: builds the parameter's value from the values of the options, by name.
    """

    def decorate(function: AnyCommand) -> AnyCommand:
        @functools.wraps(function)
        def grouped(**given: Any) -> Any:
            values = {name: given.pop(name) for name in names}
            return function(**{parameter: build(**values)}, **given)

        command: AnyCommand = grouped
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@dataclass(frozen=True, kw_only=True)
class Session:
    """The connection and the output of a command.

    Attributes:
        settings: how to reach the server.
        timeout: seconds for each call.
        output: prints the results.
    """

    settings: Settings
    timeout: float
    output: Output

    def command(self, *words: str) -> str:
        """A command line for the same server, for users to copy."""
        flags = [
            word for name, value in self.settings.options.items() for word in _words(name, value)
        ]
        return shlex.join(["leadline", *words, *flags])

    def client(self) -> Client:
        """A new client of the server, which the caller must close."""
        return Client(**self.settings.arguments(), timeout=self.timeout)


def _words(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", value]


def owner_option(kind: str) -> Callable[[AnyCommand], AnyCommand]:
    """The option that filters a listing by owner; `kind` is a plural, such as "jobs"."""
    return click.option("--owner", metavar="NAME", help=f"Only {kind} of NAME; me: your own.")


def _refuse_nan(seconds: float) -> float:
    if math.isnan(seconds):
        raise click.BadParameter("nan is not a number of seconds")
    return seconds


def _check_target(target: str) -> str:
    try:
        normal_target(target)
    except InvalidArgumentError as error:
        raise click.BadParameter(error.violations[0].description) from None
    return target


_SETTINGS_HELP = {
    "target": (
        "[https://]HOST[:PORT]",
        f"The server's address.  [default: LEADLINE_TARGET, or {DEFAULT_TARGET}]",
    ),
    "tls": (None, "Encrypt the connection.  [default: if the target begins with https://]"),
    "ca": ("FILE", "The authorities that may have signed the server's certificate, PEM."),
    "cert": ("FILE", "The client's certificate, PEM."),
    "key": ("FILE", "The private key of --cert, PEM."),
    "server_name": ("NAME", "The name in the server's certificate, if it is not the target's."),
    "token_file": ("FILE", "A file with a bearer token."),
    "insecure_token": (None, "Allow a token on an unencrypted connection to another machine."),
}


def _setting_option(name: str) -> Callable[[AnyCommand], AnyCommand]:
    # Without click's variables: `resolve` reads the environment, between options and profiles.
    metavar, text = _SETTINGS_HELP[name]
    flag = f"--{name.replace('_', '-')}"
    if SETTINGS[name] is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", default=None, help=text)
    callback = checked(_check_target) if name == "target" else None
    kind = click.Path() if name in FILES else None  # shells then complete it
    return click.option(flag, metavar=metavar, type=kind, callback=callback, help=text)


setting_options = option_group("given", list(SETTINGS), *map(_setting_option, SETTINGS))
"""Adds an option for each setting of a profile; the command receives them as `given`."""

_profile_option = click.option(
    "--profile",
    metavar="NAME",
    help="Use these settings of `leadline config`, which also lists the variables.",
)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print each message as one JSON line."
)


def _session(*, profile: str | None, timeout: float, as_json: bool, **given: Any) -> Session:
    settings = resolve(given, profile)
    return Session(settings=settings, timeout=timeout, output=Output(as_json=as_json))


session_options = option_group(
    "session",
    (*SETTINGS, "profile", "timeout", "as_json"),
    _setting_option("target"),
    _profile_option,
    *(_setting_option(name) for name in SETTINGS if name != "target"),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True, max=_LONGEST_TIMEOUT),
        callback=checked(_refuse_nan),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="How long each call may take.",
    ),
    json_option,
    build=_session,
)
"""Adds the options of a connection, --timeout and --json, as the parameter `session`."""

split_option = click.option(
    "--split",
    type=click.Choice(["test", "train"]),
    default="test",
    show_default=True,
    help="Which images to use.",
)

limit_option = click.option(
    "--limit",
    type=click.IntRange(1, 1_000),
    default=20,
    show_default=True,
    help="The most images to show.",
)


_TYPES: Final = {
    FieldDescriptor.CPPTYPE_STRING: str,
    FieldDescriptor.CPPTYPE_INT32: int,
    FieldDescriptor.CPPTYPE_DOUBLE: float,
}


def field_options(
    message: Descriptor, texts: Mapping[str, str]
) -> list[Callable[[AnyCommand], AnyCommand]]:
    """An option for each field of a message; an option that is not given has no value."""
    return [_field_option(message.fields_by_name[name], text) for name, text in texts.items()]


def _field_option(field: FieldDescriptor, text: str) -> Callable[[AnyCommand], AnyCommand]:
    flag = f"--{field.name.replace('_', '-')}"
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return click.option(f"{flag}/--no-{flag[2:]}", default=None, help=text)
    if field.enum_type is not None:
        names = click.Choice(list(enum_numbers(field.enum_type)), case_sensitive=False)
        return click.option(flag, type=names, help=text)
    return click.option(flag, type=_TYPES[field.cpp_type], help=text)


class Selector(TypedDict, total=False):
    """Arguments of the client's methods that select a model or the best model of a variant."""

    model: str | None
    dataset: str | None
    blocks: int | None
    block_convolutions: int | None
    batch_norm: bool | None
    residual: bool | None


def _selector(**given: Unpack[Selector]) -> Selector:
    if given["model"] is None and (given["dataset"] is None or given["blocks"] is None):
        raise click.UsageError("choose a model: --model, or --dataset and --blocks")
    names = [name for name, value in given.items() if value is not None]
    if "model" in names and len(names) > 1:
        raise click.UsageError("--model alone chooses a model: leave out the variant's options")
    return given


selector_options = option_group(
    "selector",
    list(Selector.__annotations__),
    click.option("--model", help="A model, models/ID, or one of its epochs, models/ID/epochs/N."),
    *field_options(
        Variant.DESCRIPTOR,
        {
            "dataset": "Instead: the best model trained on this dataset, with",
            "blocks": "this depth in blocks,",
            "block_convolutions": "this many convolutions in each, 1 or 2  [1], and",
            "batch_norm": "with or without batch norm, and",
            "residual": "with or without residual connections.",
        },
    ),
    build=_selector,
)
"""Adds --model and the variant's options; the command receives them as `selector`."""


_SPEC_HELP = {
    "dataset": "A dataset that the server knows.  [server's: cifar10]",
    "blocks": "The depth in blocks, 0 to 64.  [server's: 2]",
    "block_convolutions": "The convolutions of each block, 1 or 2.  [server's: 1]",
    "batch_norm": "Whether a batch norm follows each convolution in a block.  [server's: no]",
    "epochs": "Passes over the training set.  [server's: 51]",
    "batch_size": "Images per step.  [server's: 128]",
    "learning_rate": "The learning rate.  [server's: 0.01]",
    "optimizer": "The optimizer.  [server's: sgd]",
    "momentum": "The momentum of SGD, 0 up to 1.  [server's: 0]",
    "weight_decay": "The coefficient of weight decay.  [server's: 0]",
    "seed": "The seed of weights, order and augmentation.  [server's: 0]",
    "residual": "Whether an identity connection goes around each block.  [server's: no]",
    "initialization": "How to initialise the weights.  [server's: default]",
    "schedule": "How the learning rate changes; --learning-rate is its maximum.  "
    "[server's: constant]",
    "nesterov": "Whether to use Nesterov momentum.  [server's: no]",
    "augmentation": "How to vary training images.  [server's: none]",
    "patience": "End after this many epochs without a better test accuracy.  [server's: 0, never]",
    "precision": "The number format of training steps.  [server's: float32]",
    "diagnostics": "Whether to measure each block, for `jobs --diagnosis`.  [server's: no]",
}


def _spec_options(*, left_out: Collection[str] = ()) -> Callable[[AnyCommand], AnyCommand]:
    # Sends given values unchecked, because the server knows which values are allowed.
    texts = {name: text for name, text in _SPEC_HELP.items() if name not in left_out}
    return option_group("fields", list(texts), *field_options(TrainingSpec.DESCRIPTOR, texts))


spec_options = _spec_options()
"""Adds an option for each field of a `TrainingSpec`; the command receives them as `fields`."""

common_spec_options = _spec_options(left_out={"blocks", "block_convolutions", "batch_norm", "seed"})
"""The options of `spec_options` without those that `leadline sweep` takes as axes."""
