"""The public names of the package, and the cost of its import."""

import inspect
import json
import re
import subprocess
import sys

import leadline.client
from leadline.client import (
    AsyncClient,
    AsyncPredictionStream,
    AsyncTrainingJob,
    AsyncTrainingSweep,
    Client,
    LeadlineError,
    PredictionStream,
    TrainingJob,
    TrainingSweep,
    _errors,
)

# Modules that are slow to import, or that need an extra.
HEAVY = {
    "PIL",
    "click",
    "leadline.models",
    "leadline.server",
    "matplotlib",
    "numpy",
    "prometheus_client",
    "pydantic",
    "rich",
    "torch",
    "torchvision",
}


def modules_after(statement: str) -> set[str]:
    code = f"{statement}; import json, sys; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return set(json.loads(done.stdout))


def test_the_exported_names_are_these_and_no_others() -> None:
    assert sorted(leadline.client.__all__) == [
        "AbortedError",
        "AlreadyExistsError",
        "AsyncClient",
        "AsyncPredictionStream",
        "AsyncTrainingJob",
        "AsyncTrainingSweep",
        "Augmentation",
        "BlockDiagnosis",
        "CancelledError",
        "ClassCount",
        "ClassGuess",
        "ClassMetrics",
        "ClassScore",
        "Client",
        "ClientClosedError",
        "CompareModelsResponse",
        "ComparedExample",
        "ConfusionMatrix",
        "Credentials",
        "DataLossError",
        "DeadlineExceededError",
        "EpochResult",
        "ErrorDetails",
        "EventGapError",
        "Example",
        "ExampleOrder",
        "ExportModelResponse",
        "FailedPreconditionError",
        "Grouping",
        "HealthStatus",
        "Image",
        "ImageFailure",
        "ImageFormat",
        "Images",
        "Initialization",
        "InternalError",
        "InvalidArgumentError",
        "Job",
        "JobCancelledError",
        "JobDiskUsage",
        "JobError",
        "JobEvent",
        "JobFailedError",
        "JobFailure",
        "JobOptions",
        "JobPaused",
        "JobPhase",
        "JobProgress",
        "JobState",
        "LeadlineError",
        "LikelyLabelError",
        "ListDiskUsageResponse",
        "ListLikelyLabelErrorsResponse",
        "ListMisclassifiedResponse",
        "McNemarTest",
        "MedianStoppingRule",
        "Model",
        "ModelEpoch",
        "NotFoundError",
        "Optimizer",
        "OutOfRangeError",
        "Outcome",
        "PermissionDeniedError",
        "Precision",
        "Prediction",
        "PredictionStream",
        "Predictions",
        "Quota",
        "QuotaLimit",
        "ResourceExhaustedError",
        "Retention",
        "RetentionPolicy",
        "RpcError",
        "Schedule",
        "Split",
        "Sweep",
        "SweepAxis",
        "SweepCancelledError",
        "SweepError",
        "SweepEvent",
        "SweepFailedError",
        "SweepState",
        "SweepTable",
        "SweepVariant",
        "TlsError",
        "Token",
        "TrainingJob",
        "TrainingSpec",
        "TrainingSweep",
        "UnauthenticatedError",
        "UnavailableError",
        "UnimplementedError",
        "UnknownError",
        "UsageError",
        "Variant",
        "Violation",
        "state_name",
        "to_dict",
    ]
    assert leadline.client.__all__ == sorted(leadline.client.__all__)
    assert all(hasattr(leadline.client, name) for name in leadline.client.__all__)


def test_the_sdk_loads_nothing_heavy() -> None:
    assert not modules_after("import leadline.client") & HEAVY


def test_the_help_loads_no_command_and_nothing_heavy() -> None:
    loaded = modules_after(
        "import contextlib, io; from leadline.client.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['--help'])\n"
        "pass"
    )
    assert not loaded & (HEAVY - {"click"})
    assert "leadline.client.cli.train" not in loaded


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    for asynchronous, synchronous in (
        (AsyncClient, Client),
        (AsyncTrainingJob, TrainingJob),
        (AsyncTrainingSweep, TrainingSweep),
    ):
        assert public_methods(asynchronous) == public_methods(synchronous)


def public_methods(kind: type) -> dict[str, list[str]]:
    return {
        name: list(inspect.signature(member).parameters)
        for name, member in inspect.getmembers(kind, callable)
        if not name.startswith("_")
    }


def test_every_public_method_says_what_it_does() -> None:
    for kind in (
        *(AsyncClient, AsyncTrainingJob, AsyncTrainingSweep, AsyncPredictionStream),
        *(Client, TrainingJob, TrainingSweep, PredictionStream),
    ):
        for name, member in inspect.getmembers(kind):
            assert name.startswith("_") or inspect.getdoc(member), f"{kind.__name__}.{name}"


def test_the_docstrings_of_the_synchronous_client_are_synchronous() -> None:
    members = [
        member
        for kind in (Client, TrainingJob, TrainingSweep, PredictionStream)
        for _, member in inspect.getmembers(kind, callable)
        if (getattr(member, "__module__", None) or "").startswith("leadline.")
    ]
    text = "\n".join(inspect.getdoc(one) or "" for one in (Client, PredictionStream, *members))
    assert "with Client(" in text
    assert not re.search(r"\b(await|async|aclose|Async\w+)\b", text)


def test_the_tree_of_errors_is_drawn_whole_and_true() -> None:
    drawn: dict[str, str] = {}
    lines = [
        (len(match.group(1)) // 4, match.group(2))
        for match in re.finditer(
            r"^    ([ │├└─]*)(\w+Error)\b", _errors.__doc__ or "", re.MULTILINE
        )
    ]
    parents: list[str] = []
    for depth, name in lines:
        parents[depth:] = [name]
        drawn[name] = parents[depth - 1] if depth else "Exception"
    errors: list[type[LeadlineError]] = [LeadlineError, *below(LeadlineError)]
    assert drawn == {
        error.__name__: error.__bases__[0].__name__
        for error in errors
        if error.__module__ == _errors.__name__
    }


def below(error: type[LeadlineError]) -> list[type[LeadlineError]]:
    return [found for direct in error.__subclasses__() for found in (direct, *below(direct))]
