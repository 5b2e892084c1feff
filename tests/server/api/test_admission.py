"""Admission, in process: every role and every method, and calls in flight."""

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from leadline.server.access.control import AccessControl
from leadline.server.access.roles import ROLES
from leadline.server.api.admission import CallAdmission
from leadline.server.identity import ANONYMOUS, UNAUTHENTICATED, Identity, Role
from leadline.server.settings import Settings
from leadline.server.transport.application import AsgiCall
from leadline.server.transport.call import Call
from leadline.server.transport.calls import Calls
from leadline.server.transport.response import AsgiResponse
from support.identities import ROLE_NAMES, tokens_of_all_roles

Event = dict[str, Any]

FUTURE = "/leadline.v1.TrainingService/MethodWithoutRole"


class Recorder:
    """Answers with its caller, and records which methods were called."""

    is_unary = True

    def __init__(self) -> None:
        self.called: list[str] = []
        self.callers: list[Identity] = []

    async def answer(self, call: Call) -> bytes:
        self.called.append(call.path)
        self.callers.append(call.identity)
        return b""


class Waiting:
    """Never answers."""

    is_unary = False

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def answer(self, call: Call) -> None:
        self.calls.append(call)
        await asyncio.Event().wait()


class NoMessages:
    """A request that must not be read."""

    async def read(self) -> None:
        raise AssertionError

    async def read_single(self) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


class Server:
    """Calls with an admission, over ASGI."""

    def __init__(self, folder: Path, methods: dict[str, Any], **options: Any) -> None:
        self.control = AccessControl(Settings(data_dir=folder, **options))
        self.control.load()
        self.denied: Counter[str] = Counter()
        self.admission = CallAdmission(self.control, methods, self.denied)
        self.calls = Calls(methods, self.admission)

    async def call(self, path: str, *authorization: str) -> tuple[grpc.StatusCode, str]:
        """Makes a call; returns its status code and message."""
        events: list[Event] = []

        async def send(event: Event) -> None:
            events.append(event)

        headers = [(b"authorization", value.encode()) for value in authorization]
        scope: Event = {"raw_path": path.encode(), "headers": headers, "client": ("10.0.0.1", 1)}
        scope["extensions"] = {}
        call = AsgiCall(scope, NoMessages(), AsgiResponse(send))
        await self.calls.answer(call)
        assert events[-1]["type"] == "http.response.trailers"
        return call.response.code, call.response.message


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def server(tmp_path: Path, recorder: Recorder) -> Server:
    return Server(tmp_path, dict.fromkeys([*ROLES, FUTURE], recorder))


async def test_each_role_may_call_the_methods_of_its_role_and_of_those_before_it(
    tmp_path: Path, recorder: Recorder
) -> None:
    tokens = tokens_of_all_roles(tmp_path / "tokens.json")
    server = Server(tmp_path, dict.fromkeys(ROLES, recorder))

    for name in ROLE_NAMES:
        role = Role[name.upper()]
        for path, needed in ROLES.items():
            recorder.called.clear()
            code, _ = await server.call(path, f"Bearer {tokens.secrets[name]}")
            is_allowed = role >= needed
            assert recorder.called == ([path] if is_allowed else []), (name, path)
            expected = grpc.StatusCode.OK if is_allowed else grpc.StatusCode.PERMISSION_DENIED
            assert code is expected, (name, path)


@pytest.mark.parametrize("authorization", [[], ["Bearer ll_wrong"], ["Basic YTpi"]])
async def test_without_credentials_only_probes_are_answered(
    tmp_path: Path, recorder: Recorder, authorization: list[str]
) -> None:
    tokens_of_all_roles(tmp_path / "tokens.json")
    server = Server(tmp_path, dict.fromkeys(ROLES, recorder))

    messages = set()
    for path, needed in ROLES.items():
        code, message = await server.call(path, *authorization)
        is_open = needed is Role.ANYONE
        assert code is (grpc.StatusCode.OK if is_open else grpc.StatusCode.UNAUTHENTICATED), path
        messages.add(message)

    assert set(recorder.called) == {path for path in ROLES if ROLES[path] is Role.ANYONE}
    assert set(recorder.callers) == {ANONYMOUS}
    assert len(messages - {""}) == 1
    assert server.denied == {"UNAUTHENTICATED": len(ROLES) - len(recorder.called)}


@pytest.mark.parametrize(
    "path", ["", "/", "/x", "/leadline.v1.TrainingService/Nothing", "/leadline.v1.Training"]
)
async def test_strangers_do_not_learn_which_methods_exist(
    tmp_path: Path, recorder: Recorder, path: str
) -> None:
    tokens = tokens_of_all_roles(tmp_path / "tokens.json")
    server = Server(tmp_path, dict.fromkeys(ROLES, recorder))

    assert (await server.call(path))[0] is grpc.StatusCode.UNAUTHENTICATED
    code, _ = await server.call(path, f"Bearer {tokens.secrets['predictor']}")
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_method_without_a_declared_role_is_for_admins(
    tmp_path: Path, recorder: Recorder
) -> None:
    tokens = tokens_of_all_roles(tmp_path / "tokens.json")
    server = Server(tmp_path, {FUTURE: recorder})

    codes = [await server.call(FUTURE, f"Bearer {tokens.secrets[role]}") for role in ROLE_NAMES]

    assert [code for code, _ in codes] == [
        *[grpc.StatusCode.PERMISSION_DENIED] * 3,
        grpc.StatusCode.OK,
    ]


async def test_without_identities_everybody_may_do_everything(
    server: Server, recorder: Recorder
) -> None:
    for path in ROLES:
        assert await server.call(path, "Bearer ll_wrong") == (grpc.StatusCode.OK, "")

    assert set(recorder.callers) == {UNAUTHENTICATED}


async def test_only_calls_that_would_not_be_admitted_any_more_are_ended(tmp_path: Path) -> None:
    tokens = tokens_of_all_roles(tmp_path / "tokens.json")
    tokens.create("other", "trainer")
    watch, health = "/leadline.v1.TrainingService/WatchJob", "/grpc.health.v1.Health/Watch"
    watches = Waiting()
    server = Server(tmp_path, {watch: watches, health: Waiting()})
    credentials = [f"Bearer {tokens.secrets[name]}" for name in ("trainer", "other")]
    ended, kept = (
        [asyncio.create_task(server.call(watch, value)) for _ in range(300)]
        for value in credentials
    )
    kept.append(asyncio.create_task(server.call(health)))
    await asyncio.sleep(0)
    await server.admission.recheck(server.calls)
    assert server.calls.in_flight == 601

    tokens.revoke("trainer")
    server.control.load()
    await server.admission.recheck(server.calls)
    await server.admission.recheck(server.calls)
    results = await asyncio.gather(*ended)

    assert {code for code, _ in results} == {grpc.StatusCode.UNAUTHENTICATED}
    assert server.denied == {"UNAUTHENTICATED": 300}
    assert {call.identity.name for call in watches.calls if call.is_done} == {"trainer"}
    assert server.calls.in_flight == 301
    assert not any(call.done() for call in kept)
    for call in kept:
        call.cancel()
    await asyncio.gather(*kept, return_exceptions=True)


async def test_a_lower_role_ends_the_calls_that_need_the_higher_one(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    tokens = tokens_of_all_roles(path)
    watch = "/leadline.v1.TrainingService/WatchJob"
    server = Server(tmp_path, {watch: Waiting()})
    call = asyncio.create_task(server.call(watch, f"Bearer {tokens.secrets['viewer']}"))
    await asyncio.sleep(0)

    path.write_text(path.read_text().replace('"role": "viewer"', '"role": "predictor"'))
    server.control.load()
    await server.admission.recheck(server.calls)

    assert (await call)[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_a_token_that_has_expired_is_refused(tmp_path: Path, recorder: Recorder) -> None:
    tokens = tokens_of_all_roles(tmp_path / "tokens.json")
    token = tokens.create("short", "admin", timedelta(seconds=1))
    server = Server(tmp_path, dict.fromkeys(ROLES, recorder))
    path = "/leadline.v1.TrainingService/GetJob"

    assert (await server.call(path, f"Bearer {token}"))[0] is grpc.StatusCode.OK
    await asyncio.sleep(1.1)
    assert (await server.call(path, f"Bearer {token}"))[0] is grpc.StatusCode.UNAUTHENTICATED
