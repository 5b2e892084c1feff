"""The optimizers compute the same as torch's, and do not import its compiler."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from leadline.models import optimizers

_STEPS = 5

# Takes a step of every optimizer, transfers a state to another, and prints the imports.
_PROGRAM = """
import sys
import torch
from leadline.models import optimizers

for name in ("SGD", "Adam", "AdamW"):
    first, second = (
        getattr(optimizers, name)([torch.nn.Parameter(torch.ones(3))], lr=0.1, fused=True)
        for _ in range(2)
    )
    first.zero_grad()
    first.param_groups[0]["params"][0].grad = torch.ones(3)
    first.step()
    second.load_state_dict(first.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""


def _trained(kind: Any, **options: float | bool) -> list[torch.Tensor]:
    """Returns the parameters after some steps, float32 [8, 3] and [8]."""
    generator = torch.Generator().manual_seed(1)
    parameters = [
        torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((8, 3), (8,))
    ]
    optimizer = kind(parameters, lr=0.01, weight_decay=0.1, fused=True, **options)
    for _ in range(_STEPS):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("Adam", {}),
        ("AdamW", {}),
    ],
)
def test_parameters_are_those_of_torchs_own_optimizer_bit_for_bit(
    kind: str, options: dict[str, float | bool]
) -> None:
    own = _trained(getattr(optimizers, kind), **options)
    torchs = _trained(getattr(torch.optim, kind), **options)

    assert all(torch.equal(one, other) for one, other in zip(own, torchs, strict=True))


def test_a_process_that_only_optimizes_does_not_import_torchs_compiler() -> None:
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], check=False)

    assert ended.returncode == 0


def test_gradients_are_recorded_again_after_a_step() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)

    optimizers.SGD([parameter], lr=0.1).step()

    assert (parameter * 2).requires_grad
