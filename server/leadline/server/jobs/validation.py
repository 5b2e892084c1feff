"""What is wrong with a job that somebody submits."""

from collections.abc import Collection

from leadline.models.spec import TrainingSpec, Violation


def spec_violations(spec: TrainingSpec, datasets: Collection[str]) -> list[Violation]:
    """What is wrong with a spec, its dataset included, where the server knows `datasets`."""
    found = spec.violations()
    well_formed = not any(violation.field == "dataset" for violation in found)
    if well_formed and spec.dataset not in datasets:
        names = ", ".join(sorted(datasets))
        found.append(
            Violation(
                field="dataset",
                description=f"{spec.dataset!r} is not known to this server, which has {names}",
            )
        )
    return found
