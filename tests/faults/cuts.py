"""Cuts of the client's connection at random moments: its stream of epochs must not be affected."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from faults.followers import faults_of
from faults.setting import Figure, Scale, Setting, all_of, none_of
from leadline.client import AsyncClient, Client, LeadlineError
from leadline.v1.job_pb2 import JobEvent
from support.proxy import Proxy
from support.wire import tiny_spec

_PROGRESS_SECONDS = 0.05
_SECONDS_BETWEEN_CUTS = 0.04


@dataclass
class _Follower:
    """A watcher of a job through the proxy, and the epochs that it received."""

    job: str
    epochs: int
    events: list[JobEvent] = field(default_factory=list)
    error: str = ""

    def follow(self, target: str, progress_interval: float | None) -> None:
        """Watches with the synchronous client."""
        with Client(target, reconnect_timeout=None) as client:
            for event in client.job(self.job).events(progress_interval=progress_interval):
                self.events.append(event)

    def follow_async(self, target: str, progress_interval: float | None) -> None:
        """Watches with the asynchronous client."""
        asyncio.run(self._follow_async(target, progress_interval))

    async def _follow_async(self, target: str, progress_interval: float | None) -> None:
        async with AsyncClient(target, reconnect_timeout=None) as client:
            async for event in client.job(self.job).events(progress_interval=progress_interval):
                self.events.append(event)

    @property
    def faults(self) -> list[str]:
        """Returns each epoch that was missed, repeated or out of order, and all other errors."""
        errors = [self.error] if self.error else []
        return errors + faults_of(self.job, self.epochs, self.events)


def cut_at_random(setting: Setting) -> list[Figure]:
    """Cuts connections while both clients watch jobs through a proxy, some with progress."""
    chance = setting.random()
    followers: list[_Follower] = []
    at_once = setting.scale.jobs_at_once
    flags = (f"--jobs-per-device={at_once}", f"--spare-workers={at_once}")
    with setting.serving(*flags) as server, Proxy(server.target) as proxy:
        threads: list[threading.Thread] = []
        while proxy.cuts < setting.scale.cuts and setting.has_time:
            if not any(thread.is_alive() for thread in threads):
                more = _new_followers(server.target, setting.scale, seed=len(followers))
                threads = [_start(proxy.target, index, spec) for index, spec in enumerate(more)]
                followers += more
            _cut_for_a_while(proxy, chance, setting)
        setting.say("waiting for the last followers")
        for thread in threads:
            thread.join(120)
    return _figures(followers, proxy.cuts)


def _cut_for_a_while(proxy: Proxy, chance: random.Random, setting: Setting) -> None:
    for _ in range(50):
        if proxy.cuts >= setting.scale.cuts:
            return
        time.sleep(chance.uniform(0, 2 * _SECONDS_BETWEEN_CUTS))
        proxy.cut_one(chance)
    setting.say(f"{proxy.cuts} of {setting.scale.cuts} cuts")


def _new_followers(target: str, scale: Scale, seed: int) -> list[_Follower]:
    followers = []
    with Client(target) as client:
        for number in range(scale.jobs_at_once):
            spec = tiny_spec(epochs=scale.epochs, learning_rate=0.005, seed=seed + number)
            job = client.train(spec)
            job.detach()
            followers += [_Follower(job.name, scale.epochs) for _ in range(scale.followers)]
    return followers


def _start(target: str, index: int, follower: _Follower) -> threading.Thread:
    follow: Callable[[str, float | None], None]
    follow = follower.follow_async if index % 2 else follower.follow
    interval = _PROGRESS_SECONDS if index % 4 < 2 else None

    def run() -> None:
        try:
            follow(target, interval)
        except LeadlineError as error:
            follower.error = f"{follower.job}: {type(error).__name__}: {error}"

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def _figures(followers: list[_Follower], cuts: int) -> list[Figure]:
    faults = [fault for follower in followers for fault in follower.faults]
    return [
        none_of(
            f"cuts of the client's TCP connection ({len(followers)} followers): "
            "epochs missed, repeated or out of order",
            faults,
            cuts,
        ),
        all_of(
            "the same: watchers who saw the job to its end",
            [follower.job for follower in followers if follower.faults],
            len(followers),
        ),
    ]
