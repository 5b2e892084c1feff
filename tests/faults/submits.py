"""The time from a submission to the first training step, on an idle server."""

import time

from google.protobuf.duration_pb2 import Duration

from faults.servers import wait_for_spares
from faults.setting import Figure, Setting, percentile
from leadline.v1.job_pb2 import JOB_PHASE_TRAINING
from leadline.v1.training_service_pb2 import CancelJobRequest, TrainJobRequest
from support.wire import Stubs, connect, tiny_spec

_BAR_SECONDS = 0.5
_INTERVAL = Duration(nanos=50_000_000)


def time_submits(setting: Setting) -> list[Figure]:
    """Submits jobs one after another, each when the server is idle."""
    count = setting.scale.submits
    seconds = []
    with setting.serving() as server:
        stubs = connect(server.target)
        for number in range(count):
            wait_for_spares(server, 1)
            seconds.append(_time_one(stubs))
            setting.say(f"{number + 1} of {count} submits, {seconds[-1]:.2f} s")
        stubs.channel.close()
    return [_figure(seconds)]


def _time_one(stubs: Stubs) -> float:
    began = time.monotonic()
    request = TrainJobRequest(
        spec=tiny_spec(epochs=10_000, learning_rate=0.001), progress_interval=_INTERVAL
    )
    stream = stubs.training.TrainJob(request)
    for event in stream:
        if event.progress.phase == JOB_PHASE_TRAINING:
            seconds = time.monotonic() - began
            stubs.training.CancelJob(CancelJobRequest(name=event.job), timeout=30)
            stream.cancel()
            return seconds
    raise RuntimeError("the job ended before it was seen in training")


def _figure(seconds: list[float]) -> Figure:
    middle = percentile(seconds, 0.5)
    return Figure(
        bar=f"submit -> first training step, warm ({len(seconds)} jobs)",
        required=f"median under {_BAR_SECONDS} s",
        measured=f"median {middle:.2f} s, p99 {percentile(seconds, 0.99):.2f} s",
        ok=middle < _BAR_SECONDS,
        is_timing=True,
    )
