"""Torch's optimizers, without the compiler that they import.

Torch decorates their methods for `torch.compile`. The decorators import
`torch._dynamo` when a method is first called, which takes a second and 150 MB.
Training does not compile, so it calls the undecorated methods. Their results
are the same, to the bit.
"""

import inspect
from typing import Any, TypeVar

import torch

from leadline.models.network import BlockNetwork
from leadline.models.spec import Optimizer, TrainingSpec

_Kind = TypeVar("_Kind", bound=type[torch.optim.Optimizer])

# The methods that torch decorates with `torch._disable_dynamo`, in every optimizer.
_DISABLED_FOR_DYNAMO = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def _without_dynamo(kind: _Kind) -> _Kind:
    methods: dict[str, Any] = {
        name: inspect.unwrap(getattr(kind, name)) for name in _DISABLED_FOR_DYNAMO
    }
    # The decorator of `step` also disables gradients.
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    subclass: Any = type(kind.__name__, (kind,), {**methods, "__doc__": kind.__doc__})
    return subclass  # type: ignore[no-any-return]


SGD = _without_dynamo(torch.optim.SGD)
Adam = _without_dynamo(torch.optim.Adam)
AdamW = _without_dynamo(torch.optim.AdamW)


def make_optimizer(spec: TrainingSpec, network: BlockNetwork) -> torch.optim.Optimizer:
    """Returns the optimizer of the spec, over all parameters of the network.

    Uses torch's fused implementation, which updates all parameters at once.
    """
    common: Any = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay, "fused": True}
    parameters = network.parameters()
    match spec.optimizer:
        case Optimizer.SGD:
            return SGD(parameters, momentum=spec.momentum, nesterov=spec.nesterov, **common)
        case Optimizer.ADAM:
            return Adam(parameters, **common)
        case Optimizer.ADAMW:
            return AdamW(parameters, **common)
