"""Resource names, and the IDs that people type instead."""


def job_name(name: str) -> str:
    """The resource name of a job, "jobs/{id}", from the name or the ID."""
    return name if "/" in name else f"jobs/{name}"


def sweep_name(name: str) -> str:
    """The resource name of a sweep, "sweeps/{id}", from the name or the ID."""
    return name if "/" in name else f"sweeps/{name}"


def model_name(name: str) -> str:
    """The resource name of a model or an epoch: "models/{id}[/epochs/{n}]".

    A job's name stands for its model.
    """
    name = name.removeprefix("jobs/")
    return name if name.startswith("models/") else f"models/{name}"
