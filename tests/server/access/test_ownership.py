"""Owners, quotas and the audit log over real channels, on both transports."""

import contextlib
import json
import sqlite3
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2

from leadline.client import Client
from leadline.models.spec import TrainingSpec
from leadline.server.access.audit_reader import read_entries
from leadline.server.access.quotas import Limits, Owner, SharedLimits
from leadline.server.access.roles import ROLES
from leadline.server.api.auditing import is_read
from leadline.server.jobs.job import Paused
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState
from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store
from leadline.server.sweeps.grid import Grid, SweepAxis
from leadline.server.sweeps.sweep import SweepRequest
from leadline.v1 import (
    training_service_pb2,
)
from leadline.v1.inference_service_pb2 import EncodedImages, ListModelsRequest, PredictRequest
from leadline.v1.job_pb2 import JobOptions as Options
from leadline.v1.training_service_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    GetQuotaRequest,
    GetSweepRequest,
    ListJobsRequest,
    ListSweepsRequest,
    ResumeJobRequest,
    TrainJobRequest,
    WatchJobRequest,
)
from support.hostile_messages import MODULES
from support.identities import Tokens, bearer, code_of
from support.servers import LiveServer, start_server
from support.stores import fill
from support.wire import Stubs, connect, details, reason, tiny_spec

pytestmark = pytest.mark.system

OK, DENIED = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

REQUEST_ID = "6f0f7c7e-3f6a-4a37-9d8d-111111111111"
PAUSE = Paused(reason="REQUESTED", message="a caller paused it")

# Everything of ann's, as `prepare` makes it: ids in the form that the server gives.
JOBS = ["jobs/qqqqqqqq00", "jobs/pppppppp00", "jobs/ffffffff00", "jobs/ffffffff01"]
SWEEPS = ["sweeps/tttttttt00", "sweeps/ssssssss00"]
MODELS = ["models/ffffffff00", "models/ffffffff00/epochs/1"]

QUOTAS = """
[quotas.default]
queued_jobs = 8
priority = 5
job_work = 1e12
upload_bytes = 100_000

[quotas.identity.cat]
calls_in_flight = 2
predictions_per_second = 10

[quotas.total]
queued_jobs = 40
"""


def prepare(path: Path) -> None:
    """Writes ann's jobs and sweeps in all kinds of states."""
    path.parent.mkdir(parents=True)
    engine = open_database(path)
    fill(engine, 2, prefix="ffffffff0")
    fill(engine, 2, prefix="ssssssss1", sweep_id="ssssssss00")
    with engine.begin() as connection:
        for table in ("jobs", "sweeps"):
            connection.exec_driver_sql(f"UPDATE {table} SET owner = 'ann'")  # noqa: S608
    store = Store(engine)
    ann = Owner("ann", Limits(), SharedLimits())
    spec = TrainingSpec(dataset="synthetic", epochs=2)
    for job_id, request_id in (("qqqqqqqq00", REQUEST_ID), ("pppppppp00", None)):
        store.jobs.create(
            spec, JobOptions(), job_id=job_id, request_id=request_id, max_queued=99, owner=ann
        )
    store.jobs.pause("pppppppp00", PAUSE)
    store.sweeps.create(
        SweepRequest(
            grid=Grid(spec=spec, axes=(SweepAxis(field="seed", values=(1, 2)),)),
            options=JobOptions(),
        ),
        sweep_id="tttttttt00",
        job_ids=["tttttttt10", "tttttttt11"],
        request_id=None,
        max_queued=99,
        owner=ann,
    )
    engine.dispose()


@dataclass
class Site:
    """A server with identities, quotas and ann's jobs; no job starts."""

    server: LiveServer
    stubs: Stubs
    tokens: Tokens

    @property
    def audit(self) -> Path:
        """The audit log."""
        return self.server.data_dir / "audit" / "audit.jsonl"

    def by(self, name: str) -> tuple[tuple[str, str | bytes], ...]:
        """The metadata of a call by an identity."""
        return bearer(self.tokens.secrets[name])

    def entries(self, until: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """The entries of the audit log, up to the first that `until` accepts."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = list(read_entries(self.audit)) if self.audit.exists() else []
            if any(map(until, found)):
                return found
            time.sleep(0.05)
        raise AssertionError(found)


@pytest.fixture(scope="module", params=["h2corn", "grpcio"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("owners")
    prepare(folder / "data" / "leadline.db")
    (folder / "access.toml").write_text(QUOTAS)
    tokens = Tokens(folder / "tokens.json")
    for name in ("ann", "bob", "cat", "dan"):
        tokens.create(name, "trainer")
    tokens.create("root", "admin")
    tokens.create("vic", "viewer")
    server = start_server(
        folder,
        *("--transport", request.param, "--devices", "cpu", "--spare-workers", "0"),
        *("--min-free-disk-bytes", str(1 << 60)),
        *("--tokens-file", str(tokens.path), "--access-file", str(folder / "access.toml")),
    )
    stubs = connect(server.target)
    yield Site(server, stubs, tokens)
    stubs.channel.close()
    assert server.stop() == 0


# Every method

# The names on the wire of services that have another name in the descriptors, or two.
ON_THE_WIRE = {
    "leadline.oip.v2.GRPCInferenceService": ["inference.GRPCInferenceService"],
    "grpc.reflection.v1alpha.ServerReflection": [
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ],
}

METHODS: dict[str, MethodDescriptor] = {
    f"/{name}/{method.name}": method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for name in ON_THE_WIRE.get(service.full_name, [service.full_name])
    for method in service.methods
}


def requests_about(message: type[Message], names: list[str]) -> Iterator[Message]:
    """Requests that name each resource in each field that takes a text."""
    for field in message.DESCRIPTOR.fields:
        if field.type != FieldDescriptor.TYPE_STRING or field.is_repeated:
            continue
        for name in names:
            for text in (name, name.rpartition("/")[2]):
                request = message()
                setattr(request, field.name, text)
                yield request


def send(site: Site, path: str, request: Message, name: str) -> grpc.StatusCode:
    """Calls a method of any kind; returns its status."""
    method: Any = site.stubs.channel.stream_stream(path)
    sent = iter([request.SerializeToString()])
    return code_of(lambda: method(sent, timeout=20, metadata=site.by(name)))


def everything_of_ann(site: Site) -> list[Any]:
    """All of it, without what depends on the jobs of others."""
    by = site.by("root")
    training, inference = site.stubs.training, site.stubs.inference
    sweeps = [GetSweepRequest(name=name) for name in SWEEPS]
    listed = training.ListJobs(ListJobsRequest(owner="ann"), timeout=20, metadata=by)
    for job in listed.jobs:
        job.ClearField("queue_position")
        job.ClearField("hold")
    return [
        listed,
        *(training.GetSweep(request, timeout=20, metadata=by) for request in sweeps),
        inference.ListModels(ListModelsRequest(owner="ann"), timeout=20, metadata=by),
    ]


def test_every_method_is_known() -> None:
    assert set(METHODS) == set(ROLES)


def test_a_trainer_changes_nothing_of_another_by_any_method(site: Site) -> None:
    before = everything_of_ann(site)
    outcomes: Counter[grpc.StatusCode] = Counter()
    for path, method in METHODS.items():
        if is_read(path):
            continue
        for request in requests_about(GetMessageClass(method.input_type), JOBS + SWEEPS + MODELS):
            outcomes[send(site, path, request, "bob")] += 1

    assert outcomes[OK] == 0
    assert outcomes[DENIED] >= 3 * len(JOBS) + 4 * len(SWEEPS)
    assert everything_of_ann(site) == before
    assert {job.name for job in before[0].jobs} >= set(JOBS)


@pytest.mark.parametrize("verb", ["CancelJob", "PauseJob", "ResumeJob", "DeleteJob"])
def test_the_denial_names_the_reason(site: Site, verb: str) -> None:
    request = getattr(training_service_pb2, f"{verb}Request")(name=JOBS[0])
    with pytest.raises(grpc.RpcError) as denied:
        getattr(site.stubs.training, verb)(request, timeout=20, metadata=site.by("bob"))

    assert denied.value.code() is DENIED
    assert reason(denied.value) == "NOT_OWNER"


def test_a_request_id_of_another_makes_a_job_of_ones_own(site: Site) -> None:
    request = TrainJobRequest(spec=tiny_spec(dataset="synthetic", epochs=2), request_id=REQUEST_ID)
    stream = site.stubs.training.TrainJob(request, timeout=20, metadata=site.by("bob"))
    name = next(stream).job
    again = site.stubs.training.TrainJob(request, timeout=20, metadata=site.by("bob"))

    assert next(again).job == name
    assert name not in JOBS
    job = site.stubs.training.GetJob(GetJobRequest(name=name), timeout=20, metadata=site.by("vic"))
    assert job.owner == "bob"
    for opened in (stream, again):
        opened.cancel()
    site.stubs.training.CancelJob(CancelJobRequest(name=name), timeout=20, metadata=site.by("bob"))


def test_an_owner_and_an_admin_may_change_it_and_listings_filter(site: Site) -> None:
    training, by = site.stubs.training, site.by("dan")
    spec = tiny_spec(dataset="synthetic", epochs=2)
    streams = [training.TrainJob(TrainJobRequest(spec=spec), timeout=20, metadata=by) for _ in "ab"]
    names = [next(stream).job for stream in streams]
    mine = training.ListJobs(ListJobsRequest(owner="me"), timeout=20, metadata=by)
    sweeps = training.ListSweeps(ListSweepsRequest(owner="me"), timeout=20, metadata=by)

    assert {job.name for job in mine.jobs} == set(names)
    assert {job.owner for job in mine.jobs} == {"dan"}
    assert not sweeps.sweeps
    for name, who in zip(names, ("dan", "root"), strict=True):
        training.CancelJob(CancelJobRequest(name=name), timeout=20, metadata=site.by(who))
        training.DeleteJob(DeleteJobRequest(name=name), timeout=20, metadata=site.by(who))
    for stream in streams:
        stream.cancel()


# Quotas


def quota_error(error: grpc.RpcError) -> dict[str, str]:
    """The metadata of an exceeded quota, which must come with a delay."""
    assert error.code() is EXHAUSTED
    assert reason(error) == "QUOTA_EXCEEDED"
    delays = [each for each in details(error) if isinstance(each, error_details_pb2.RetryInfo)]
    assert delays[0].retry_delay.ToNanoseconds() > 0
    (info,) = (each for each in details(error) if isinstance(each, error_details_pb2.ErrorInfo))
    return dict(info.metadata)


def refused(call: Callable[[], Any]) -> dict[str, str]:
    with pytest.raises(grpc.RpcError) as error:
        list(call())
    return quota_error(error.value)


def test_two_hundred_racing_submissions_fill_a_quota_exactly(site: Site) -> None:
    spec = tiny_spec(dataset="synthetic", epochs=2)

    def submit(_number: int) -> str:
        stream = site.stubs.training.TrainJob(
            TrainJobRequest(spec=spec), timeout=60, metadata=site.by("dan")
        )
        try:
            name = str(next(stream).job)
            stream.cancel()
        except grpc.RpcError as error:
            return quota_error(error)["quota"]
        return name

    with ThreadPoolExecutor(32) as pool:
        outcomes = Counter(pool.map(submit, range(200)))

    assert outcomes.pop("queued_jobs") == 192
    quota = site.stubs.training.GetQuota(GetQuotaRequest(), timeout=20, metadata=site.by("dan"))
    used = {limit.quota: (limit.used, limit.limit) for limit in quota.limits}
    assert list(used["queued_jobs"]) == [8, 8]
    for name in outcomes:
        site.stubs.training.CancelJob(
            CancelJobRequest(name=name), timeout=20, metadata=site.by("dan")
        )


def test_a_request_beyond_the_limits_of_single_jobs_is_refused(site: Site) -> None:
    training = site.stubs.training

    def submit(name: str, **values: Any) -> Any:
        spec = tiny_spec(dataset="synthetic", epochs=values.get("epochs", 1))
        options = Options(priority=values.get("priority", 0))
        request = TrainJobRequest(spec=spec, options=options, request_id=str(uuid.uuid4()))
        return training.TrainJob(request, timeout=20, metadata=site.by(name))

    assert refused(lambda: submit("dan", priority=6))["quota"] == "priority"
    assert refused(lambda: submit("dan", epochs=1_000))["quota"] == "job_work"
    admins = submit("root", priority=6, epochs=1_000)
    name = next(admins).job
    admins.cancel()
    training.CancelJob(CancelJobRequest(name=name), timeout=20, metadata=site.by("root"))


def test_calls_in_flight_are_bounded_and_counted_down(site: Site) -> None:
    training, by = site.stubs.training, site.by("cat")
    watch = WatchJobRequest(name=JOBS[0])
    streams = [training.WatchJob(watch, timeout=60, metadata=by) for _ in range(2)]
    for stream in streams:
        next(stream)

    metadata = refused(lambda: training.WatchJob(watch, timeout=20, metadata=by))
    assert metadata == {
        "quota": "calls_in_flight",
        "limit": "2",
        "used": "2",
        "identity": "cat",
    }
    streams[0].cancel()
    deadline = time.monotonic() + 20
    code = None
    while code is not OK and time.monotonic() < deadline:
        code = code_of(lambda: training.GetQuota(GetQuotaRequest(), timeout=20, metadata=by))
    assert code is OK
    streams[1].cancel()


def test_uploads_and_predictions_have_quotas(site: Site) -> None:
    predict = site.stubs.inference.Predict

    def request(images: int, size: int) -> PredictRequest:
        return PredictRequest(model=MODELS[0], encoded=EncodedImages(images=[b"x" * size] * images))

    def call(images: int, size: int, name: str) -> Any:
        return [predict(request(images, size), timeout=20, metadata=site.by(name))]

    assert refused(lambda: call(1, 200_000, "dan"))["quota"] == "upload_bytes"
    assert refused(lambda: call(11, 10, "cat"))["quota"] == "predictions_per_second"
    codes = [code_of(lambda: call(5, 10, "cat")) for _ in range(6)]
    assert codes[:2] != [EXHAUSTED, EXHAUSTED]
    assert EXHAUSTED in codes


def test_only_admins_see_the_quotas_of_others(site: Site) -> None:
    training = site.stubs.training
    request = GetQuotaRequest(identity="cat")
    found = training.GetQuota(request, timeout=20, metadata=site.by("root"))

    assert found.identity == "cat"
    limits = {limit.quota: limit.limit for limit in found.limits if limit.HasField("limit")}
    assert limits["calls_in_flight"] == 2
    assert limits["queued_jobs"] == 8
    assert {limit.quota: limit.limit for limit in found.total if limit.HasField("limit")} == {
        "queued_jobs": 40
    }
    assert (
        code_of(lambda: training.GetQuota(request, timeout=20, metadata=site.by("dan"))) is DENIED
    )


def test_a_paused_job_is_resumed_by_its_owner_only(site: Site) -> None:
    resume = ResumeJobRequest(name=JOBS[1])
    training = site.stubs.training

    assert (
        code_of(lambda: training.ResumeJob(resume, timeout=20, metadata=site.by("bob"))) is DENIED
    )
    job = training.ResumeJob(resume, timeout=20, metadata=site.by("ann"))
    assert job.owner == "ann"
    pause = training_service_pb2.PauseJobRequest(name=JOBS[1])
    training.PauseJob(pause, timeout=20, metadata=site.by("ann"))


# The audit log


def test_changes_and_denied_calls_are_in_the_audit_log(site: Site) -> None:
    training = site.stubs.training
    stream = training.TrainJob(
        TrainJobRequest(spec=tiny_spec(dataset="synthetic", epochs=2)),
        timeout=20,
        metadata=site.by("dan"),
    )
    name = next(stream).job
    cancel = CancelJobRequest(name=name)
    code_of(lambda: training.CancelJob(cancel, timeout=20, metadata=site.by("bob")))
    code_of(lambda: training.CancelJob(cancel, timeout=20, metadata=site.by("vic")))
    code_of(lambda: training.CancelJob(cancel, timeout=20, metadata=bearer("ll_" + "x" * 43)))
    training.GetJob(GetJobRequest(name=name), timeout=20, metadata=site.by("vic"))
    training.CancelJob(cancel, timeout=20, metadata=site.by("root"))
    stream.cancel()

    def is_last(entry: dict[str, Any]) -> bool:
        return entry.get("who") == "root" and entry.get("resources") == [name]

    *_, created, not_owner, no_role, unknown, cancelled = site.entries(is_last)
    path = "/leadline.v1.TrainingService"
    assert created["peer"].startswith(("ipv4:", "ipv6:"))
    for entry in (created, not_owner, no_role, unknown, cancelled):
        del entry["time"], entry["peer"]
    train, change = f"{path}/TrainJob", f"{path}/CancelJob"
    dan, bob = ({"who": who, "role": "trainer"} for who in ("dan", "bob"))
    assert created == {"event": "call", **dan, "method": train, "resources": [name], "code": "OK"}
    assert not_owner == {
        "event": "call",
        **bob,
        "method": change,
        "resources": [name],
        "owner": "dan",
        "code": "PERMISSION_DENIED",
        "reason": "NOT_OWNER",
        "denied": True,
    }
    assert no_role == {
        "event": "call",
        "who": "vic",
        "role": "viewer",
        "method": change,
        "code": "PERMISSION_DENIED",
        "reason": "ROLE_NEEDED",
        "denied": True,
    }
    assert unknown == {
        "event": "call",
        "method": change,
        "code": "UNAUTHENTICATED",
        "reason": "UNAUTHENTICATED",
        "denied": True,
    }
    assert cancelled == {
        "event": "call",
        "who": "root",
        "role": "admin",
        "method": change,
        "resources": [name],
        "owner": "dan",
        "code": "OK",
    }


PLANTED = "plantedsecret0000000000000000"


def plant(message: Message) -> None:
    """Writes the secret into every field that takes text or bytes."""
    for field in message.DESCRIPTOR.fields:
        value: Any = {
            FieldDescriptor.TYPE_STRING: PLANTED,
            FieldDescriptor.TYPE_BYTES: PLANTED.encode(),
        }.get(field.type)
        if value is None or field.containing_oneof is not None:
            continue
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)


def test_nothing_that_a_caller_sends_gets_into_the_audit_log(site: Site) -> None:
    metadata = (("x-planted", PLANTED), ("planted-bin", PLANTED.encode()))
    paths = [*METHODS, f"/planted/{PLANTED}"]
    for path in paths:
        requests = []
        if path in METHODS:
            message = GetMessageClass(METHODS[path].input_type)
            requests = [message(), *requests_about(message, [f"jobs/{PLANTED}", PLANTED])]
            plant(requests[0])
        for request in [each.SerializeToString() for each in requests] or [PLANTED.encode()]:
            for credentials in (site.by("root"), site.by("vic"), bearer(PLANTED)):
                method: Any = site.stubs.channel.stream_stream(path)
                call = method(iter([request]), timeout=5, metadata=(*credentials, *metadata))
                with contextlib.suppress(grpc.RpcError):
                    next(call, None)
                call.cancel()
    with Client(site.server.target) as client:
        client.health()
    training = site.stubs.training
    training.CancelJob(CancelJobRequest(name=JOBS[0]), timeout=20, metadata=site.by("ann"))

    site.entries(lambda entry: entry.get("who") == "ann" and JOBS[0] in entry.get("resources", ()))
    log = b"".join(path.read_bytes() for path in site.audit.parent.iterdir())
    assert b"planted" not in log.lower()
    for secret in site.tokens.secrets.values():
        assert secret.encode() not in log
    for line in log.splitlines():
        assert isinstance(json.loads(line), dict)


def test_logins_reloads_and_refused_requests_are_in_the_audit_log(site: Site) -> None:
    metrics = site.server.metrics_url
    form = urllib.parse.urlencode({"token": PLANTED}).encode()
    for request in (metrics, f"{metrics.removesuffix('/metrics')}/login"):
        data = form if request.endswith("login") else None
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request, data, timeout=20)  # noqa: S310
    site.tokens.create(f"new-{len(site.tokens.secrets)}", "viewer")

    entries = site.entries(lambda entry: entry["event"] == "reload")
    for entry in entries:
        assert PLANTED not in str(entry)
    assert {(entry["event"], entry["code"]) for entry in entries if entry["event"] != "call"} == {
        ("http", "UNAUTHENTICATED"),
        ("login", "UNAUTHENTICATED"),
        ("reload", "OK"),
    }


def test_the_files_of_old_jobs_are_listed_without_owner(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        folder = Path(__file__).parents[1] / "storage"
        database.executescript((folder / "schema_5.sql").read_text())
    engine = open_database(path)
    store = Store(engine)

    assert {job.owner for job in store.jobs.find()} == {""}
    assert {sweep.owner for sweep in store.sweeps.find()} == {""}
    assert store.jobs.find(owner="ann", states=[JobState.SUCCEEDED]) == []
    engine.dispose()
