"""The grid of a sweep: its jobs, and its errors."""

from dataclasses import fields

import pytest

from leadline.models.spec import Optimizer, TrainingSpec
from leadline.server.sweeps.grid import Grid, SweepAxis, read_axes

DATASETS = {"tiny"}


def grid_of(*given: tuple[str, list[object]], **changes: object) -> Grid:
    axes, violations = read_axes(given)
    assert not violations
    return Grid(spec=TrainingSpec(**{"dataset": "tiny", **changes}), axes=axes)  # type: ignore[arg-type]


def problems(*given: tuple[str, list[object]], **changes: object) -> dict[str, str]:
    return {
        item.field: item.description for item in grid_of(*given, **changes).violations(DATASETS)
    }


def test_the_last_axis_changes_first() -> None:
    grid = grid_of(("blocks", [2.0, 4.0]), ("batch_norm", [False, True]))

    assert [
        (grid.spec_at(point).blocks, grid.spec_at(point).batch_norm) for point in grid.points()
    ] == [*((2, False), (2, True), (4, False), (4, True))]
    assert all(grid.point_of(grid.spec_at(point)) == point for point in grid.points())


def test_every_field_of_a_spec_can_be_an_axis() -> None:
    values = TrainingSpec().to_dict()

    for field in fields(TrainingSpec):
        axes, violations = read_axes([(field.name, [values[field.name]])])
        assert not violations
        assert axes == (SweepAxis(field=field.name, values=(values[field.name],)),)


def test_values_come_as_json_has_them() -> None:
    grid = grid_of(("optimizer", ["adam", "sgd"]), ("learning_rate", [1.0, 0.5]), ("seed", [3.0]))

    first = grid.spec_at(grid.points()[0])

    assert (first.optimizer, first.learning_rate, first.seed) == (Optimizer.ADAM, 1.0, 3)
    assert isinstance(first.learning_rate, float)
    assert isinstance(first.seed, int)
    assert Grid.from_dict(grid.to_dict()) == grid


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ([], "axes", "needs at least one"),
        ([("depth", [1.0])], "axes[0].field", "'depth' is not a field of a training spec"),
        ([("seed", [1.0]), ("seed", [2.0])], "axes[1].field", "an axis already"),
        ([("seed", [])], "axes[0].values", "at least one value"),
        ([("seed", [1.0, 2.0, 1.0])], "axes[0].values[2]", "1 stands there twice"),
        ([("blocks", [2.0, 2.5])], "axes[0].values[1]", "must be of type int, but is 2.5"),
        (
            [("block_convolutions", [1.0, 1.5])],
            "axes[0].values[1]",
            "must be of type int, but is 1.5",
        ),
        ([("blocks", [True])], "axes[0].values[0]", "must be of type int, but is True"),
        ([("batch_norm", [1.0])], "axes[0].values[0]", "must be of type bool, but is 1"),
        ([("seed", [None])], "axes[0].values[0]", "but is None"),
        ([("optimizer", ["adagrad"])], "axes[0].values[0]", "'adagrad' is not a valid Optimizer"),
        ([("learning_rate", [1e400])], None, ""),
        ([("seed", [float(n) for n in range(1001)])], "axes", "make 1,001 jobs"),
        ([("blocks", []), ("seed", [1.0] * 1001)], "axes", "make 1,001 jobs"),
        ([("seed", [1.0])] * 100, "axes", "are 100, and a training spec has"),
        (
            [("seed", [float(n) for n in range(500)]), ("blocks", [1.0, 2.0, 3.0])],
            "axes",
            "make 1,500 jobs, and a sweep may have 1,000",
        ),
    ],
)
def test_a_wrong_axis_is_named(
    given: list[tuple[str, list[object]]], field: str | None, words: str
) -> None:
    _, violations = read_axes(given)

    assert [item.field for item in violations] == ([] if field is None else [field])
    assert all(words in item.description for item in violations)


def test_a_wrong_spec_is_named_by_its_value_and_its_job() -> None:
    violations = problems(("blocks", [2.0, 65.0]), ("seed", [0.0, 1.0]))

    assert list(violations) == ["axes[0].values[1]"]
    assert "must be 0 to 64, but is 65" in violations["axes[0].values[1]"]
    assert "(of the job with blocks=65, seed=0 and 1 more)" in violations["axes[0].values[1]"]


def test_what_an_axis_makes_of_a_common_field_is_named_by_that_field() -> None:
    violations = problems(("optimizer", ["sgd", "adam"]), momentum=0.9)

    assert list(violations) == ["spec.momentum"]
    assert "(of the job with optimizer=adam)" in violations["spec.momentum"]


def test_a_dataset_that_the_server_does_not_know_is_named() -> None:
    violations = problems(("dataset", ["tiny", "huge"]))

    assert list(violations) == ["axes[0].values[1]"]
    assert "'huge' is not known to this server, which has tiny" in violations["axes[0].values[1]"]
