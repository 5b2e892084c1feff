# ruff: noqa: I001 - each name beside its own alias, which exports it for type checkers
"""The client of Leadline: train image classifiers, follow them, predict, inspect mistakes.

Example::

    from leadline.client import Client

    with Client("127.0.0.1:50051") as client:
        job = client.train(dataset="synthetic", blocks=2, batch_norm=True, epochs=5)
        for epoch in job.epochs():
            print(f"{epoch.epoch}: {epoch.test_accuracy:.1%}")
        print(client.predict(["a.png", "b.png"], model=job.model).class_names)
        for example in client.misclassified(model=job.model):
            print(example.index, example.true_class_name, example.predicted_class_name)

`AsyncClient` has the same methods as coroutines. Methods return messages of `leadline.v1`, most of
which this package exports too; `to_dict` converts a message to plain values. Jobs and sweeps live
on the server, and a handle refers to one. The module of `LeadlineError` shows the tree of errors.
"""

from leadline.client._async.client import AsyncClient as AsyncClient
from leadline.client._async.job import AsyncTrainingJob as AsyncTrainingJob
from leadline.client._async.predict_stream import AsyncPredictionStream as AsyncPredictionStream
from leadline.client._async.sweep import AsyncTrainingSweep as AsyncTrainingSweep
from leadline.client._error_details import (
    ErrorDetails as ErrorDetails,
    Violation as Violation,
)
from leadline.client._errors import (
    AbortedError as AbortedError,
    AlreadyExistsError as AlreadyExistsError,
    CancelledError as CancelledError,
    ClientClosedError as ClientClosedError,
    DataLossError as DataLossError,
    DeadlineExceededError as DeadlineExceededError,
    EventGapError as EventGapError,
    FailedPreconditionError as FailedPreconditionError,
    InternalError as InternalError,
    InvalidArgumentError as InvalidArgumentError,
    JobCancelledError as JobCancelledError,
    JobError as JobError,
    JobFailedError as JobFailedError,
    LeadlineError as LeadlineError,
    NotFoundError as NotFoundError,
    OutOfRangeError as OutOfRangeError,
    PermissionDeniedError as PermissionDeniedError,
    ResourceExhaustedError as ResourceExhaustedError,
    RpcError as RpcError,
    SweepCancelledError as SweepCancelledError,
    SweepError as SweepError,
    SweepFailedError as SweepFailedError,
    TlsError as TlsError,
    UnauthenticatedError as UnauthenticatedError,
    UnavailableError as UnavailableError,
    UnimplementedError as UnimplementedError,
    UnknownError as UnknownError,
    UsageError as UsageError,
)
from leadline.client._health import HealthStatus as HealthStatus
from leadline.client._images import (
    Image as Image,
    Images as Images,
)
from leadline.client._messages import (
    state_name as state_name,
    to_dict as to_dict,
)
from leadline.client._predictions import (
    ImageFailure as ImageFailure,
    Predictions as Predictions,
)
from leadline.client._security import (
    Credentials as Credentials,
    Token as Token,
)
from leadline.client._sync.client import Client as Client
from leadline.client._sync.job import TrainingJob as TrainingJob
from leadline.client._sync.predict_stream import PredictionStream as PredictionStream
from leadline.client._sync.sweep import TrainingSweep as TrainingSweep
from leadline.v1.inference_service_pb2 import (
    ClassScore as ClassScore,
    ExportModelResponse as ExportModelResponse,
    Prediction as Prediction,
)
from leadline.v1.inspection_service_pb2 import (
    ClassCount as ClassCount,
    ClassGuess as ClassGuess,
    ClassMetrics as ClassMetrics,
    ComparedExample as ComparedExample,
    CompareModelsResponse as CompareModelsResponse,
    ConfusionMatrix as ConfusionMatrix,
    Example as Example,
    ExampleOrder as ExampleOrder,
    Grouping as Grouping,
    ImageFormat as ImageFormat,
    LikelyLabelError as LikelyLabelError,
    ListLikelyLabelErrorsResponse as ListLikelyLabelErrorsResponse,
    ListMisclassifiedResponse as ListMisclassifiedResponse,
    McNemarTest as McNemarTest,
    Outcome as Outcome,
    Split as Split,
)
from leadline.v1.job_pb2 import (
    BlockDiagnosis as BlockDiagnosis,
    EpochResult as EpochResult,
    Job as Job,
    JobEvent as JobEvent,
    JobFailure as JobFailure,
    JobOptions as JobOptions,
    JobPaused as JobPaused,
    JobPhase as JobPhase,
    JobProgress as JobProgress,
    JobState as JobState,
    Retention as Retention,
    RetentionPolicy as RetentionPolicy,
)
from leadline.v1.model_pb2 import (
    Model as Model,
    ModelEpoch as ModelEpoch,
    Variant as Variant,
)
from leadline.v1.sweep_pb2 import (
    MedianStoppingRule as MedianStoppingRule,
    Sweep as Sweep,
    SweepAxis as SweepAxis,
    SweepEvent as SweepEvent,
    SweepState as SweepState,
    SweepTable as SweepTable,
    SweepVariant as SweepVariant,
)
from leadline.v1.training_service_pb2 import (
    JobDiskUsage as JobDiskUsage,
    ListDiskUsageResponse as ListDiskUsageResponse,
    Quota as Quota,
    QuotaLimit as QuotaLimit,
)
from leadline.v1.training_spec_pb2 import (
    Augmentation as Augmentation,
    Initialization as Initialization,
    Optimizer as Optimizer,
    Precision as Precision,
    Schedule as Schedule,
    TrainingSpec as TrainingSpec,
)

__all__ = [name for name in sorted(globals()) if not name.startswith("_")]
