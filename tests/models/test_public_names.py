import importlib
import re
from types import ModuleType
from typing import Literal, get_origin

import pytest

import leadline.models

PUBLIC = {
    "architecture": {"Architecture"},
    "augmentation": {"Variations"},
    "batches": {"DeviceSplit", "normalize"},
    "checkpoint_files": {
        "CheckpointError",
        "CheckpointInfo",
        "CheckpointReader",
        "FileRecord",
        "NoPredictionsError",
        "SplitPredictions",
        "compact_checkpoint",
        "list_epochs",
        "load_info",
        "load_predictions",
        "open_checkpoint",
        "remove_checkpoint",
        "remove_optimizer_state",
        "stem_of",
        "write_checkpoint",
        "write_optimizer_state",
    },
    "checkpoints": {
        "Checkpoint",
        "CheckpointError",
        "load_checkpoint",
        "restore",
        "save_checkpoint",
    },
    "datasets": {
        "Dataset",
        "DatasetError",
        "SourceDescription",
        "Split",
        "SplitName",
        "check_source",
        "describe_cache",
        "describe_source",
        "find_dataset",
        "open_dataset",
    },
    "diagnosis": {"DIAGNOSED_IMAGES", "BlockDiagnosis", "diagnose"},
    "early_stopping": {"is_exhausted"},
    "evaluation": {"Evaluation", "classify", "evaluate"},
    "export": {"INPUT", "LOGITS", "PROBABILITIES", "load_onnx", "to_onnx"},
    "graphs": {"GraphedFunction", "Graphs", "capture_graph"},
    "images": {
        "DEFAULT_MAX_PIXELS",
        "IMAGE_SIZE",
        "ImageError",
        "decode_image",
        "open_image",
        "DecodingStoppedError",
        "EncodedImage",
        "encode_png",
    },
    "initialization": {"initial_network"},
    "metrics": {"BlockDiagnosis", "EpochMetrics"},
    "network": {"Architecture", "Block", "BlockNetwork", "ResidualBlock", "parameter_count"},
    "optimizers": {"SGD", "Adam", "AdamW", "make_optimizer"},
    "predictions": {
        "NoPredictionsError",
        "SplitPredictions",
        "decode_predictions",
        "encode_predictions",
    },
    "schedule": {"learning_rate"},
    "spec": {
        "Augmentation",
        "Initialization",
        "Optimizer",
        "Precision",
        "Schedule",
        "TrainingSpec",
        "Violation",
    },
    "training": {"DivergedError", "EpochMetrics", "EpochOutcome", "Phase", "Trainer"},
}


def module_of(name: str) -> ModuleType:
    return importlib.import_module(f"leadline.models.{name}")


def test_the_package_names_its_modules() -> None:
    assert set(re.findall(r"^- `(\w+)`:", leadline.models.__doc__ or "", re.MULTILINE)) == set(
        PUBLIC
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_each_module_defines_its_public_names_and_no_others(name: str) -> None:
    module = module_of(name)
    defined = {
        public
        for public, value in vars(module).items()
        if not public.startswith("_") and getattr(value, "__module__", "") == module.__name__
    }
    assert defined <= PUBLIC[name]


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_public_is_documented(name: str) -> None:
    module = module_of(name)
    assert module.__doc__
    for public in PUBLIC[name]:
        value = getattr(module, public)
        # A literal type lists its values, and cannot have a docstring.
        assert isinstance(value, int) or get_origin(value) is Literal or value.__doc__, public
