"""The server's memory over many jobs: it must not grow with them."""

from collections.abc import Iterable

import psutil

from faults.servers import Server
from faults.setting import Figure, Setting
from leadline.client import Client
from support.wire import tiny_spec

_BAR_BYTES = 32 << 20
_MEBIBYTE = 1 << 20


def watch_memory(setting: Setting) -> list[Figure]:
    """Runs, watches and predicts with one job after another, and reads the server's memory."""
    warm_up, count = setting.scale.warm_up_jobs, setting.scale.jobs
    image = next(setting.dataset.glob("test/*/*.png")).read_bytes()
    at_once = setting.scale.jobs_at_once
    flags = (f"--jobs-per-device={at_once}", f"--spare-workers={at_once}")
    before = after = 0
    with setting.serving(*flags) as server, Client(server.target) as client:
        for done in range(0, warm_up + count, at_once):
            if done <= warm_up:
                before = _resident(server)
            _run_jobs(client, image, range(done, done + at_once))
            after = _resident(server)
            setting.say(f"{done + at_once} of {warm_up + count} jobs, {after / _MEBIBYTE:.0f} MiB")
    return [_figure(before, after, count)]


def _run_jobs(client: Client, image: bytes, seeds: Iterable[int]) -> None:
    jobs = [
        client.train(tiny_spec(epochs=2, blocks=0, learning_rate=0.001, seed=seed))
        for seed in seeds
    ]
    for job in jobs:
        for _ in job.events():
            pass
        client.predict(image, model=job.model)


def _resident(server: Server) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


def _figure(before: int, after: int, count: int) -> Figure:
    grown = after - before
    return Figure(
        bar=f"server's memory growth over {count} jobs, each followed and asked to predict",
        required=f"under {_BAR_BYTES / _MEBIBYTE:.0f} MiB",
        measured=f"{grown / _MEBIBYTE:+.1f} MiB, from {before / _MEBIBYTE:.0f} MiB",
        ok=grown < _BAR_BYTES,
        is_timing=True,
    )
