"""The client of Leadline: train image classifiers, follow them, predict, see what is wrong.

Example::

    from leadline.client import Client

    with Client("127.0.0.1:50051") as client:
        job = client.train(dataset="synthetic", blocks=2, batch_norm=True, epochs=5)
        for epoch in job.epochs():
            print(f"{epoch.epoch}: {epoch.test_accuracy:.1%}")
        print(client.predict(["a.png", "b.png"], model=job.model).class_names)
        for example in client.misclassified(model=job.model):
            print(example.index, example.true_class_name, example.predicted_class_name)

`AsyncClient` has the same methods as coroutines. Data are messages of `leadline.v1`, most of
which are exported here too; `to_dict` turns one into plain values. A job or a sweep, which lives on
the server, is a handle. The module of `LeadlineError` shows the tree of errors.
"""

from leadline.client._async.client import AsyncClient
from leadline.client._async.job import AsyncTrainingJob
from leadline.client._async.predict_stream import AsyncPredictionStream
from leadline.client._async.sweep import AsyncTrainingSweep
from leadline.client._error_details import ErrorDetails, Violation
from leadline.client._errors import (
    AbortedError,
    AlreadyExistsError,
    CancelledError,
    ClientClosedError,
    DataLossError,
    DeadlineExceededError,
    EventGapError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    JobCancelledError,
    JobError,
    JobFailedError,
    LeadlineError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
    RpcError,
    SweepCancelledError,
    SweepError,
    SweepFailedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    UnknownError,
    UsageError,
)
from leadline.client._health import HealthStatus
from leadline.client._images import Image, Images
from leadline.client._messages import state_name, to_dict
from leadline.client._predictions import ImageFailure, Predictions
from leadline.client._sync.client import Client
from leadline.client._sync.job import TrainingJob
from leadline.client._sync.predict_stream import PredictionStream
from leadline.client._sync.sweep import TrainingSweep
from leadline.v1.inference_service_pb2 import ClassScore, Prediction
from leadline.v1.inspection_service_pb2 import (
    ClassCount,
    ClassGuess,
    ClassMetrics,
    ComparedExample,
    CompareModelsResponse,
    ConfusionMatrix,
    Example,
    ExampleOrder,
    Grouping,
    ImageFormat,
    LikelyLabelError,
    ListLikelyLabelErrorsResponse,
    ListMisclassifiedResponse,
    McNemarTest,
    Outcome,
    Split,
)
from leadline.v1.job_pb2 import (
    BlockDiagnosis,
    EpochResult,
    Job,
    JobEvent,
    JobFailure,
    JobOptions,
    JobPaused,
    JobPhase,
    JobProgress,
    JobState,
    Retention,
    RetentionPolicy,
)
from leadline.v1.model_pb2 import Model, ModelEpoch, Variant
from leadline.v1.sweep_pb2 import (
    MedianStoppingRule,
    Sweep,
    SweepAxis,
    SweepEvent,
    SweepState,
    SweepTable,
    SweepVariant,
)
from leadline.v1.training_spec_pb2 import (
    Augmentation,
    Initialization,
    Optimizer,
    Precision,
    Schedule,
    TrainingSpec,
)

__all__ = [
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
    "DataLossError",
    "DeadlineExceededError",
    "EpochResult",
    "ErrorDetails",
    "EventGapError",
    "Example",
    "ExampleOrder",
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
