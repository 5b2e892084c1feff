"""The role that each method needs, in one table."""

from collections.abc import Iterator, Mapping

from leadline.server.identity import Role

_READS_MODELS = ("ListModels", "GetModel")
_REFLECTION = {"ServerReflectionInfo": Role.PREDICTOR}


def _methods(role: Role, *names: str) -> dict[str, Role]:
    return dict.fromkeys(names, role)


_BY_SERVICE: Mapping[str, Mapping[str, Role]] = {
    "grpc.health.v1.Health": _methods(Role.ANYONE, "Check", "Watch"),
    "grpc.reflection.v1.ServerReflection": _REFLECTION,
    "grpc.reflection.v1alpha.ServerReflection": _REFLECTION,
    "inference.GRPCInferenceService": {
        **_methods(Role.ANYONE, "ServerLive", "ServerReady"),
        **_methods(
            Role.PREDICTOR,
            *("ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "RepositoryIndex"),
            *("ModelInfer", "ModelStreamInfer"),
        ),
        **_methods(Role.VIEWER, "ModelStatistics"),
        # They change what the memory of the server holds, for all callers.
        **_methods(Role.ADMIN, "RepositoryModelLoad", "RepositoryModelUnload"),
        # The server supports none of these, and says so.
        **_methods(
            Role.PREDICTOR,
            *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister"),
            *("SystemSharedMemoryUnregister", "CudaSharedMemoryStatus"),
            *("CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
            *("TraceSetting", "LogSettings"),
        ),
    },
    "leadline.v1.InferenceService": _methods(
        Role.PREDICTOR, "Predict", "PredictStream", *_READS_MODELS, "ExportModel"
    ),
    "leadline.v1.InspectionService": _methods(
        Role.VIEWER,
        *("ListMisclassified", "GetConfusionMatrix", "CompareModels", "ListLikelyLabelErrors"),
    ),
    "leadline.v1.TrainingService": {
        # Of others' quotas it tells admins only.
        **_methods(Role.PREDICTOR, "GetQuota"),
        **_methods(
            Role.VIEWER,
            *("WatchJob", "GetJob", "ListJobs", "ListDiskUsage"),
            *("WatchSweep", "GetSweep", "ListSweeps"),
        ),
        **_methods(
            Role.TRAINER,
            *("TrainJob", "CancelJob", "PauseJob", "ResumeJob", "DeleteJob"),
            *("TrainSweep", "CancelSweep", "PauseSweep", "ResumeSweep", "DeleteSweep"),
        ),
    },
}


def _by_path() -> Iterator[tuple[str, Role]]:
    for service, methods in _BY_SERVICE.items():
        for name, role in methods.items():
            yield f"/{service}/{name}", role


ROLES: Mapping[str, Role] = dict(_by_path())
"""The least role of each method, by its path; a method that is not here needs an admin."""
