"""Quotas of jobs that really train, and of several serving processes."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from client.cli_outcome import SCRIPT
from leadline.server.access.audit import path_of_process
from leadline.server.access.audit_reader import read_entries
from leadline.v1.job_pb2 import JOB_STATE_PAUSED, JOB_STATE_QUEUED, JOB_STATE_RUNNING, Job
from leadline.v1.training_service_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    GetQuotaRequest,
    ListJobsRequest,
    ResumeJobRequest,
    TrainJobRequest,
    WatchJobRequest,
)
from support.identities import Tokens, bearer, code_of
from support.servers import LiveServer, start_server
from support.wire import Stubs, connect, reason, tiny_spec

pytestmark = pytest.mark.system

SECONDS = 60

ACCESS = """
[quotas.default]
running_jobs = 1
calls_in_flight = 5
[quotas.identity.cat]
stored_bytes = 1
"""


class Site:
    """A server on which three trainers have quotas."""

    def __init__(self, folder: Path, dataset: Path, *flags: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "access.toml").write_text(ACCESS)
        self.tokens = Tokens(folder / "tokens.json")
        for name in ("ann", "bob", "cat"):
            self.tokens.create(name, "trainer")
        self.server: LiveServer = start_server(
            folder,
            *("--dataset", f"tiny={dataset}", "--devices", "cpu", "--spare-workers", "0"),
            *("--tokens-file", str(self.tokens.path), "--access-file", f"{folder}/access.toml"),
            *flags,
        )
        self.stubs: Stubs = connect(self.server.target)

    def by(self, name: str) -> dict[str, Any]:
        """The options of a call by an identity."""
        return {"timeout": 20, "metadata": bearer(self.tokens.secrets[name])}

    def submit(self, name: str, epochs: int) -> str:
        """Submits a job, and returns its name."""
        request = TrainJobRequest(spec=tiny_spec(epochs=epochs))
        stream = self.stubs.training.TrainJob(request, **self.by(name))
        job = str(next(stream).job)
        stream.cancel()
        return job

    def job(self, name: str) -> Job:
        """The state of a job."""
        return self.stubs.training.GetJob(GetJobRequest(name=name), **self.by("ann"))

    def wait_for(self, name: str, state: int) -> Job:
        """Waits until a job is in a state."""
        wait(lambda: self.job(name).state == state)
        return self.job(name)

    def close(self) -> None:
        """Stops the server."""
        self.stubs.channel.close()
        assert self.server.stop() == 0


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("jobs"), tiny_dataset, "--jobs-per-device", "3")
    yield site
    site.close()


def test_jobs_beyond_the_quota_wait_while_those_of_others_start(site: Site) -> None:
    first, second = site.submit("ann", 10_000), site.submit("ann", 10_000)
    third = site.submit("bob", 10_000)
    site.wait_for(first, JOB_STATE_RUNNING)
    site.wait_for(third, JOB_STATE_RUNNING)

    assert site.job(second).state == JOB_STATE_QUEUED
    site.stubs.training.CancelJob(CancelJobRequest(name=first), **site.by("ann"))
    site.wait_for(second, JOB_STATE_RUNNING)
    for name, owner in ((second, "ann"), (third, "bob")):
        site.stubs.training.CancelJob(CancelJobRequest(name=name), **site.by(owner))


def test_a_job_is_paused_when_its_owner_stores_too_much(site: Site) -> None:
    training, by = site.stubs.training, site.by("cat")
    name = site.submit("cat", 10_000)
    paused = site.wait_for(name, JOB_STATE_PAUSED)

    assert paused.pause.reason == "QUOTA_EXCEEDED"
    assert "stored_bytes of cat is 1" in paused.pause.message
    assert paused.completed_epochs == 1
    with pytest.raises(grpc.RpcError) as refused:
        training.ResumeJob(ResumeJobRequest(name=name), **by)
    assert reason(refused.value) == "QUOTA_EXCEEDED"
    stored = {limit.quota: limit.used for limit in quota_of(site, "cat")}["stored_bytes"]
    assert stored > 1
    training.CancelJob(CancelJobRequest(name=name), **by)
    training.DeleteJob(DeleteJobRequest(name=name), **by)
    wait(lambda: {limit.quota: limit.used for limit in quota_of(site, "cat")}["stored_bytes"] == 0)
    again = site.submit("cat", 1)
    training.CancelJob(CancelJobRequest(name=again), **by)


def quota_of(site: Site, name: str) -> Any:
    return site.stubs.training.GetQuota(GetQuotaRequest(), **site.by(name)).limits


def test_the_command_line_shows_quotas(site: Site, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(site.tokens.secrets["cat"])
    token.chmod(0o600)
    command = [*SCRIPT, "quota", "--target", site.server.target, "--token-file", str(token)]
    shown, as_json = (
        subprocess.run([*command, *more], capture_output=True, text=True, check=True, timeout=60)
        for more in ([], ["--json"])
    )

    assert any(row.split()[:3] == ["running_jobs", "0", "1"] for row in shown.stdout.splitlines())
    assert json.loads(as_json.stdout)["identity"] == "cat"


def test_serving_processes_share_a_quota_and_each_has_an_audit_log(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    site = Site(
        tmp_path / "several", tiny_dataset, "--serving-processes", "2", "--inference-device", "cpu"
    )
    name = site.submit("bob", 10_000)
    streams, codes = [], []
    watch = WatchJobRequest(name=name)
    for _ in range(24):  # each over its own connection, to either process
        stubs = Stubs(
            grpc.insecure_channel(site.server.target, [("grpc.use_local_subchannel_pool", 1)])
        )
        stream = stubs.training.WatchJob(watch, **{**site.by("ann"), "timeout": SECONDS})
        try:
            next(stream)
            streams.append(stream)
        except grpc.RpcError as error:
            codes.append(reason(error))
    denied = code_of(lambda: site.stubs.training.ListJobs(ListJobsRequest(), timeout=20))

    assert denied is grpc.StatusCode.UNAUTHENTICATED
    assert 0 < len(streams) <= 5
    assert set(codes) == {"QUOTA_EXCEEDED"}
    for stream in streams:
        stream.cancel()
    site.stubs.training.CancelJob(CancelJobRequest(name=name), **site.by("bob"))
    site.close()
    audit = site.server.data_dir / "audit" / "audit.jsonl"
    entries = list(read_entries(audit))
    changes = [entry["method"].rpartition("/")[2] for entry in entries if "resources" in entry]
    assert changes == ["TrainJob", "CancelJob"]
    assert sum(entry.get("code") == "UNAUTHENTICATED" for entry in entries) == 1
    assert path_of_process(audit, 1).name == "audit.process1.jsonl"
