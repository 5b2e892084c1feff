from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.server.access.meter import UsageMeter
from leadline.server.access.quotas import UNLIMITED
from leadline.server.api.dispatcher import RpcDispatcher
from leadline.server.api.oip.service import add_open_inference
from leadline.server.api.oip.servicer import OpenInferenceServicer
from leadline.server.api.ordered_pipeline import PipelineGroup
from leadline.server.services.large_reads import ReadLane
from leadline.server.services.models import ModelService
from leadline.server.services.predictions import PredictionService
from leadline.server.serving.catalog import Catalog
from leadline.server.serving.decoding import DecoderPool
from leadline.server.serving.inputs import InputLimits
from leadline.server.serving.predictor import Predictor
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store
from leadline.server.telemetry.metrics import Metrics
from leadline.server.thread_pool import ThreadPool
from leadline.server.transport.calls import Calls
from leadline.server.transport.listener import ListenerOptions
from leadline.server.transport.transports import make_listener


@pytest.fixture
def streams() -> PipelineGroup:
    return PipelineGroup(max_in_flight=1)


@pytest.fixture
async def servicer(tmp_path: Path, streams: PipelineGroup) -> AsyncIterator[OpenInferenceServicer]:
    engine = open_database(tmp_path / "jobs.db")
    store, threads, lane = Store(engine), ThreadPool("store", 1), ReadLane("reads", 1)
    metrics = Metrics()
    predictor = Predictor(
        device="cpu",
        threads=1,
        max_pending=1,
        max_loaded_bytes=1 << 20,
        decoders=DecoderPool(max_large_work=1 << 20, observer=metrics),
        observer=metrics,
    )
    catalog = Catalog(store=store, threads=threads, artifacts=Artifacts(tmp_path))
    yield OpenInferenceServicer(
        models=ModelService(store=store, threads=threads, large_reads=lane, catalog=catalog),
        predictions=PredictionService(
            predictor=predictor,
            threads=threads,
            limits=InputLimits(images=1, image_bytes=1 << 20, image_pixels=1 << 20, pixels=1 << 20),
            dataset_cache=tmp_path,
            meter=UsageMeter(lambda: UNLIMITED),
        ),
        streams=streams,
    )
    predictor.close()
    threads.close()
    lane.close()
    engine.dispose()


async def test_an_unhealthy_or_stopping_server_is_live_but_not_ready(
    servicer: OpenInferenceServicer, streams: PipelineGroup, transport: str
) -> None:
    dispatcher: Any = RpcDispatcher(Metrics().grpc)
    add_open_inference(servicer, dispatcher)
    listener = make_listener(
        transport, Calls(dispatcher.methods), ListenerOptions(max_message_bytes=1 << 20)
    )
    port = await listener.start("127.0.0.1", 0)

    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def is_so(what: str) -> bool:
            call: Any = channel.unary_unary(
                f"/inference.GRPCInferenceService/Server{what}",
                response_deserializer=oip.ServerReadyResponse.FromString,
            )
            answer = await call(b"", timeout=10)
            return bool(answer.ready)

        before = [await is_so("Live"), await is_so("Ready")]
        servicer.report_health(is_serving=False)
        unhealthy = [await is_so("Live"), await is_so("Ready")]
        servicer.report_health(is_serving=True)
        assert await is_so("Ready")
        streams.stop()
        after = [await is_so("Live"), await is_so("Ready")]
    await listener.stop()

    assert before == [True, True]
    assert unhealthy == after == [True, False]
