import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.models.spec import (
    Augmentation,
    Initialization,
    Optimizer,
    Precision,
    Schedule,
    TrainingSpec,
    Violation,
)


def test_the_defaults_are_the_notebooks_protocol() -> None:
    assert TrainingSpec().to_dict() == {
        "dataset": "cifar10",
        "blocks": 2,
        "block_convolutions": 1,
        "batch_norm": False,
        "epochs": 51,
        "batch_size": 128,
        "learning_rate": 0.01,
        "optimizer": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "seed": 0,
        "residual": False,
        "initialization": "default",
        "schedule": "constant",
        "nesterov": False,
        "augmentation": "none",
        "patience": 0,
        "precision": "float32",
        "diagnostics": False,
    }
    assert TrainingSpec().violations() == []


@pytest.mark.parametrize(
    ("field", "allowed", "refused"),
    [
        ("dataset", ["a", "0", "a" * 64, "my-data_1.2"], ["", "a" * 65, "A", "-a", "a/b", "a\n"]),
        ("blocks", [0, 64], [-1, 65]),
        ("block_convolutions", [1, 2], [0, 3, -1]),
        ("epochs", [1, 10_000], [0, 10_001, 10**9]),
        ("batch_size", [1, 65_536], [0, -1, 65_537]),
        ("learning_rate", [5e-324, 1_000.0], [0.0, -1.0, 1_000.1, math.nan, math.inf, -math.inf]),
        ("momentum", [0.0, 0.999], [1.0, -0.1, math.nan, math.inf]),
        ("weight_decay", [0.0, 1.0], [-0.1, 1.1, math.nan, math.inf]),
        ("seed", [0, 2**31 - 1], [-1, 2**31]),
        ("patience", [0, 10_000], [-1, 10_001]),
    ],
)
def test_each_limit_holds_at_both_of_its_ends(
    field: str, allowed: list[Any], refused: list[Any]
) -> None:
    for value in allowed:
        assert TrainingSpec(**{field: value}).violations() == []
    for value in refused:
        assert [violation.field for violation in TrainingSpec(**{field: value}).violations()] == [
            field
        ]


def test_a_violation_says_what_is_allowed_and_what_was_given() -> None:
    assert TrainingSpec(blocks=65).violations() == [
        Violation("blocks", "must be 0 to 64, but is 65")
    ]


def test_every_violation_is_reported_at_once() -> None:
    spec = TrainingSpec(blocks=-1, epochs=0, learning_rate=math.nan)
    assert [violation.field for violation in spec.violations()] == [
        "blocks",
        "epochs",
        "learning_rate",
    ]


@pytest.mark.parametrize("optimizer", [Optimizer.ADAM, Optimizer.ADAMW])
def test_momentum_is_sgds_alone(optimizer: Optimizer) -> None:
    (violation,) = TrainingSpec(optimizer=optimizer, momentum=0.9).violations()
    assert violation.field == "momentum"
    assert str(optimizer) in violation.description


@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": Optimizer.ADAM}, {"optimizer": Optimizer.ADAMW}],
)
def test_nesterov_needs_sgd_with_momentum(options: dict[str, Any]) -> None:
    (violation,) = TrainingSpec(nesterov=True, **options).violations()
    assert violation.field == "nesterov"
    assert str(options.get("optimizer", "sgd")) in violation.description
    assert TrainingSpec(nesterov=True, momentum=0.9).violations() == []


@settings(deadline=None, derandomize=True)
@given(
    spec=st.builds(
        TrainingSpec,
        blocks=st.integers(),
        batch_norm=st.booleans(),
        learning_rate=st.floats(allow_nan=False),
        optimizer=st.sampled_from(Optimizer),
        initialization=st.sampled_from(Initialization),
        schedule=st.sampled_from(Schedule),
        augmentation=st.sampled_from(Augmentation),
        precision=st.sampled_from(Precision),
        residual=st.booleans(),
        block_convolutions=st.integers(),
        patience=st.integers(),
        seed=st.integers(),
    )
)
def test_a_spec_survives_json(spec: TrainingSpec) -> None:
    assert TrainingSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_field_left_out_takes_its_default() -> None:
    assert TrainingSpec.from_dict({"blocks": 4}) == TrainingSpec(blocks=4)


@pytest.mark.parametrize(
    "values",
    [
        {"colour": "red"},
        {"blocks": "2"},
        {"blocks": 2.0},
        {"blocks": True},
        {"batch_norm": 1},
        {"learning_rate": "fast"},
        {"optimizer": "lion"},
        {"optimizer": 1},
        {"schedule": "cyclic"},
        {"precision": True},
        {"residual": "yes"},
        {"block_convolutions": "2"},
        {"block_convolutions": True},
        {"dataset": None},
    ],
)
def test_unknown_fields_and_wrong_types_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values)) + "|lion|cyclic"):
        TrainingSpec.from_dict(values)


def test_a_whole_number_will_do_for_a_fraction() -> None:
    rate = TrainingSpec.from_dict({"learning_rate": 1}).learning_rate
    assert isinstance(rate, float)


def test_specs_need_no_torch() -> None:
    program = "import sys, leadline.models.spec; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("value", [10**18, -(10**18)])
def test_every_number_has_a_lower_and_an_upper_bound(value: int) -> None:
    numbers = [
        field.name for field in dataclasses.fields(TrainingSpec) if field.type in (int, float)
    ]
    for name in numbers:
        spec = TrainingSpec.from_dict({name: value})
        assert name in {violation.field for violation in spec.violations()}
