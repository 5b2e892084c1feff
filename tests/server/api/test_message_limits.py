"""Elements of a message counted on the wire, compared with the parsed message."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.server.api.message_limits import MAX_FIELDS, limits_of, max_items
from leadline.server.errors import InvalidArgumentError
from leadline.v1 import job_pb2
from leadline.v1.training_service_pb2 import ListJobsRequest
from leadline.v1.training_service_pb2_grpc import TrainingServiceStub
from support.hostile_messages import (
    field,
    hostile_messages,
    methods,
    repeated_fields,
)
from support.servers import LiveServer, ServerFactory
from support.wire import details, reason, violations

_METHODS = methods()
# The depth of nested messages, including recursive types.
_DEPTH = 6
_PLACES: dict[str, list[tuple[FieldDescriptor, ...]]] = {}

_TEXTS = {
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=200),
    FieldDescriptor.TYPE_STRING: st.text(max_size=60),
}
_NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(0, 9),
}


def fields_in(
    message: Descriptor, way: tuple[FieldDescriptor, ...] = ()
) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Yields all fields of a message and its nested messages, with their paths."""
    for of in message.fields:
        yield (*way, of)
        if of.message_type is not None and len(way) < _DEPTH:
            yield from fields_in(of.message_type, (*way, of))


@st.composite
def serialised(draw: st.DrawFn, ways: list[tuple[FieldDescriptor, ...]]) -> bytes:
    """A strategy for any of the fields with any value, serialized."""
    *outer, of = draw(st.sampled_from(ways))
    if of.message_type is not None:
        wire = field(of.number, b"")
    else:
        holder = message_factory.GetMessageClass(of.containing_type)()
        value = draw(_TEXTS[of.type] if of.type in _TEXTS else _NUMBERS[of.cpp_type])
        if of.is_repeated:
            getattr(holder, of.name).extend([value] * draw(st.integers(1, 3)))
        else:
            setattr(holder, of.name, value)
        wire = holder.SerializeToString()
    for around in reversed(outer):
        wire = field(around.number, wire)
    return wire


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, Message]:
    """A strategy for a method and a request of it."""
    path = draw(st.sampled_from(sorted(_PLACES)))
    message = message_factory.GetMessageClass(_METHODS[path].input_type)()
    message.MergeFromString(b"".join(draw(st.lists(serialised(_PLACES[path]), max_size=12))))
    return path, message


def elements(
    message: Message, path: str = "", around: dict[str, str] | None = None
) -> Counter[str]:
    """Counts the elements of each repeated field of a parsed message, by its path."""
    name = message.DESCRIPTOR.full_name
    around = around or {}
    path = around.get(name, path)
    around = {**around, name: path}
    counts: Counter[str] = Counter()
    for of, value in message.ListFields():
        of_path = f"{path}{of.name}"
        held = value if of.is_repeated else [value]
        if of.message_type is not None and of.message_type.GetOptions().map_entry:
            held = [of.message_type._concrete_class(key=key, value=value[key]) for key in value]
        if of.is_repeated:
            counts[of_path] += len(held)
        if of.message_type is not None:
            for inner in held:
                counts += elements(inner, f"{of_path}.", around)
    return counts


_PLACES.update(
    {path: ways for path, of in _METHODS.items() if (ways := list(fields_in(of.input_type)))}
)


# Only distinct requests: most methods have no list, and the same unknown fields.
_HOSTILE = {(hostile.place, hostile.element): hostile for hostile in hostile_messages()}.values()


def limits(path: str) -> Any:
    service, _, method = path[1:].rpartition("/")
    return limits_of(service, method)


@settings(deadline=None)
@given(requests())
def test_what_is_counted_is_what_the_message_holds(request: tuple[str, Message]) -> None:
    path, message = request

    counted = limits(path).count(message.SerializeToString())

    assert {name: count for name, count in counted.items() if count} == elements(message)


@settings(deadline=None)
@given(requests(), st.data())
def test_damaged_messages_are_counted_or_refused_as_they_are_parsed(
    request: tuple[str, Message], data: st.DataObject
) -> None:
    path, message = request
    wire = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(0, 4)) if wire else 0):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(wire[: data.draw(st.integers(0, len(wire)))])

    try:
        counted = limits(path).count(memoryview(cut))
    except (DecodeError, InvalidArgumentError):
        return
    try:
        parsed = type(message).FromString(cut)
    except DecodeError:
        return
    held = elements(parsed)
    # Protobuf keeps one entry per key of a map, and one field of a oneof.
    assert {name: count for name, count in held.items() if count > counted[name]} == {}


def test_elements_without_an_end_are_refused_by_their_field() -> None:
    for hostile in _HOSTILE:
        # More than any limit, because packed numbers count as one field.
        count = 21_000 if hostile.tag is None else 3_200_000
        with pytest.raises(InvalidArgumentError, match="has at least") as caught:
            limits(hostile.path).count(hostile.body(count * len(hostile.element)))

        (violation,) = caught.value.violations
        assert violation.field in {hostile.place.removesuffix(": packed"), "request"} or (
            # With nested fields, either one may exceed its limit first.
            ":" in hostile.place
            and violation.field.startswith(hostile.place.partition(":")[0].partition(".")[0])
        )


def test_a_message_below_the_smallest_excess_is_within_the_limits() -> None:
    for hostile in _HOSTILE:
        of = limits(hostile.path)
        overhead = len(hostile.body(1_000_000)) - 1_000_000
        body = hostile.body(of.smallest_excess - max(overhead, 0) - 1)

        assert len(body) < of.smallest_excess
        of.count(body)


async def test_other_tasks_run_while_a_message_is_counted() -> None:
    of = limits("/leadline.v1.InferenceService/Predict")
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await of.check(b"\x78\0" * MAX_FIELDS)
    counting.cancel()

    assert turns >= 5


def test_every_repeated_field_of_a_request_has_a_limit() -> None:
    ways = {
        way[-1].full_name: max_items(way[-1])
        for method in _METHODS.values()
        for way in repeated_fields(method.input_type)
    }

    assert ways
    assert all(0 < limit <= 1_024 * 3_072 for limit in ways.values())


def test_a_field_without_a_limit_is_a_mistake() -> None:
    response = _METHODS["/leadline.v1.TrainingService/ListJobs"].output_type

    with pytest.raises(LookupError, match=r"ListJobsResponse\.jobs has no max_items"):
        max_items(response.fields_by_name["jobs"])


@pytest.mark.parametrize("fields", [MAX_FIELDS, MAX_FIELDS + 1])
def test_fields_count_whether_they_are_known_or_not(fields: int) -> None:
    of = limits("/leadline.v1.TrainingService/GetJob")
    body = b"\x78\0" * fields

    if fields == MAX_FIELDS:
        assert of.count(body) == {}
    else:
        with pytest.raises(InvalidArgumentError, match=r"20,001 fields in all"):
            of.count(body)


def sent(channel: grpc.Channel, path: str, body: bytes, *, compress: bool = False) -> Any:
    """Returns the error of a method for a request."""
    call: Any = channel.stream_stream(path)
    compression = grpc.Compression.Gzip if compress else None
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([body]), timeout=60, compression=compression))
    return caught.value


@pytest.fixture(scope="module")
def channel(live_server: LiveServer) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(live_server.target, options=options) as channel:
        yield channel


def test_every_method_refuses_elements_without_an_end(channel: grpc.Channel) -> None:
    places = [of for of in hostile_messages() if of.field or of.place == "unknown fields"]
    for hostile in places:
        count = 21_000 if hostile.tag is None else 3_200_000
        error = sent(channel, hostile.path, hostile.body(count * len(hostile.element)))

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, str(hostile)
        assert reason(error) == "INVALID_FIELD"
        assert "has at least" in error.details()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/leadline.v1.TrainingService/TrainSweep", "axes"),
        ("/inference.GRPCInferenceService/ModelStreamInfer", "inputs"),
    ],
)
def test_the_largest_message_of_elements_takes_little_time_and_memory(
    live_server: LiveServer, channel: grpc.Channel, path: str, place: str, *, compress: bool
) -> None:
    (hostile,) = [
        hostile for hostile in hostile_messages() if (hostile.path, hostile.place) == (path, place)
    ]
    process = psutil.Process(live_server.process.pid)
    before = process.memory_info().rss
    slowest = largest = 0.0

    with ThreadPoolExecutor() as pool:
        call = pool.submit(sent, channel, path, hostile.body(58 << 20), compress=compress)
        while not call.done():
            began = time.monotonic()
            HealthStub(channel).Check(HealthCheckRequest(), timeout=60)
            slowest = max(slowest, time.monotonic() - began)
            largest = max(largest, process.memory_info().rss - before)

    assert call.result().code() is grpc.StatusCode.INVALID_ARGUMENT
    # Bounds that distinguish milliseconds from seconds: parsing needed 26 s and 3.4 GB.
    assert slowest < 3
    assert largest < 256 << 20


@pytest.mark.parametrize(
    ("count", "code"), [(64, grpc.StatusCode.OK), (65, grpc.StatusCode.INVALID_ARGUMENT)]
)
def test_jobs_are_listed_by_a_limited_number_of_states(
    channel: grpc.Channel, count: int, code: grpc.StatusCode
) -> None:
    list_jobs = TrainingServiceStub(channel).ListJobs
    request = ListJobsRequest(states=[job_pb2.JOB_STATE_QUEUED] * count)

    if code is grpc.StatusCode.OK:
        list_jobs(request, timeout=60)
        return
    with pytest.raises(grpc.RpcError) as caught:
        list_jobs(request, timeout=60)
    assert violations(caught.value) == {
        "states": "has at least 65 elements, but a request may have 64"
    }


def test_messages_beyond_the_memory_for_them_are_refused_and_others_answered(
    server_factory: ServerFactory,
) -> None:
    size, large = 8 << 20, bytes(6 << 20)
    server = server_factory(f"--max-message-bytes={size}", f"--max-message-memory-bytes={2 * size}")
    path, is_over = "/leadline.v1.InferenceService/Predict", threading.Event()

    def unfinished() -> Iterator[bytes]:
        yield large
        is_over.wait(60)

    with grpc.insecure_channel(server.target) as channel:
        # One connection may use half of the memory.
        waiting: Any = channel.stream_unary(path)
        call = waiting.future(unfinished(), timeout=60)
        errors = [sent(channel, path, large)]
        is_over.set()
        errors.append(call.exception())
        (error,) = [each for each in errors if each.code() is grpc.StatusCode.RESOURCE_EXHAUSTED]

        assert reason(error) == "MESSAGE_MEMORY_FULL"
        (retry,) = [detail for detail in details(error) if isinstance(detail, RetryInfo)]
        assert retry.retry_delay.seconds == 1
        HealthStub(channel).Check(HealthCheckRequest(), timeout=60)
