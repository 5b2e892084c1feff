"""Validates the specs of submitted jobs."""

from collections.abc import Collection

from leadline.models.spec import TrainingSpec, Violation


def spec_violations(spec: TrainingSpec, datasets: Collection[str]) -> list[Violation]:
    """The violations of a spec; its dataset must be one of `datasets`."""
    violations = spec.violations()
    well_formed = not any(violation.field == "dataset" for violation in violations)
    if well_formed and spec.dataset not in datasets:
        names = ", ".join(sorted(datasets))
        violations.append(
            Violation(
                field="dataset",
                description=f"{spec.dataset!r} is not known to this server, which has {names}; "
                "a server knows others if it is started with --dataset NAME=SOURCE",
            )
        )
    return violations
