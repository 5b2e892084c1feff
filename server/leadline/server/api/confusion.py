"""Confusion matrices as they are sent."""

from leadline.models.datasets import SplitName
from leadline.server.api.examples import SPLIT_VALUES
from leadline.server.inspection.calibration import Calibration
from leadline.server.inspection.confusion import Confusion
from leadline.server.serving.catalog import CheckpointRef
from leadline.v1 import inspection_service_pb2 as pb


def confusion_message(
    checkpoint: CheckpointRef, split: SplitName, confusion: Confusion
) -> pb.ConfusionMatrix:
    """A confusion matrix as it is sent."""
    names = checkpoint.model.started.class_names
    return pb.ConfusionMatrix(
        model=checkpoint.name,
        split=SPLIT_VALUES[split],
        images=confusion.images,
        accuracy=confusion.accuracy,
        rows=[pb.ConfusionRow(counts=row) for row in confusion.counts.tolist()],
        classes=[
            pb.ClassMetrics(
                class_index=index,
                class_name=name,
                support=one.support,
                predicted=one.predicted,
                precision=one.precision,
                recall=one.recall,
                f1=one.f1,
            )
            for index, (name, one) in enumerate(zip(names, confusion.classes, strict=True))
        ],
        calibration=_calibration(confusion.calibration),
    )


def _calibration(calibration: Calibration) -> pb.Calibration:
    return pb.Calibration(
        expected_calibration_error=calibration.expected_error,
        maximum_calibration_error=calibration.maximum_error,
        bins=[
            pb.ReliabilityBin(
                lower=one.lower,
                upper=one.upper,
                images=one.images,
                confidence=one.confidence,
                accuracy=one.accuracy,
            )
            for one in calibration.bins
        ],
    )
