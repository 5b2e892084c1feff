"""Stubs of the shared server, a job trained once for all tests, and an empty database."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from leadline.server.storage.database import open_database
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.training_service_pb2 import TrainJobRequest
from support.open_inference import OpenInference
from support.servers import LiveServer
from support.wire import Stubs, connect, tiny_spec


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An empty database."""
    engine = open_database(tmp_path / "jobs.db")
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def stubs(live_server: LiveServer) -> Iterator[Stubs]:
    """Stubs of the shared server."""
    stubs = connect(live_server.target)
    yield stubs
    stubs.channel.close()


@pytest.fixture(scope="session")
def trained(stubs: Stubs) -> list[JobEvent]:
    """All events of a succeeded job."""
    return list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec()), timeout=60))


@pytest.fixture(scope="session")
def job_id(trained: list[JobEvent]) -> str:
    """The id of that job, which is its model's name in the Open Inference Protocol."""
    return trained[0].job.removeprefix("jobs/")


@pytest.fixture
def client(stubs: Stubs) -> OpenInference:
    """A client of the Open Inference Protocol for the shared server."""
    return OpenInference(stubs.channel)


@pytest.fixture(scope="session")
def noise() -> np.ndarray:
    """Five images of noise, uint8 [5, 32, 32, 3]."""
    return np.random.default_rng(3).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
