"""Correct code passes the type checker and wrong code does not.

Nothing here runs: mypy is the test. Each wrong line ignores the error that it must cause. Mypy
warns about unused ignores, so it fails if a wrong line passes.
"""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import assert_type

from leadline.client import (
    AsyncClient,
    AsyncTrainingJob,
    Client,
    EpochResult,
    ImageFailure,
    Job,
    JobEvent,
    Prediction,
    Predictions,
    TrainingJob,
    TrainingSweep,
)


def right(client: Client) -> None:
    job = client.train(dataset="a", priority=1, time_limit=timedelta(hours=1), retention="all")
    assert_type(job, TrainingJob)
    assert_type(job.events(), Iterator[JobEvent])
    assert_type(job.epochs(), Iterator[EpochResult])
    assert_type(job.result(timeout=5), Job)
    assert_type(job.pause(), Job)
    client.train(time_limit=90, retention=5)
    client.train({"dataset": "a", "optimizer": "adam"}, schedule="one_cycle")
    assert_type(client.train_sweep({"seed": range(3)}, dataset="a"), TrainingSweep)
    assert_type(client.predict(["a.png", b"", "b.png"], model=client.get_model("a")), Predictions)
    assert_type(job.predict("a.png", epoch=1), Predictions)
    for result in client.predict_stream((name for name in ("a", "b")), model="a"):
        assert_type(result, Prediction | ImageFailure)


async def names() -> AsyncIterator[str]:
    yield "a.png"


async def right_too(client: AsyncClient) -> None:
    job = await client.train(dataset="a", blocks=2)
    assert_type(job, AsyncTrainingJob)
    assert_type(job.events(), AsyncIterator[JobEvent])
    assert_type(await job.result(), Job)
    async for result in client.predict_stream(names(), model="a"):
        assert_type(result, Prediction | ImageFailure)


def wrong(client: Client) -> None:
    client.train(epoch=5)  # type: ignore[call-arg]
    client.train(epochs="5")  # type: ignore[arg-type]
    client.train(priority="high")  # type: ignore[arg-type]
    client.train(time_limit="2h")  # type: ignore[arg-type]
    client.train(retention=0.5)  # type: ignore[arg-type]
    client.train("synthetic")  # type: ignore[arg-type]
    client.train({"epoch": 5})  # type: ignore[arg-type]
    client.train(optimizer="lion")  # type: ignore[arg-type]
    client.train_sweep({}, schedule="linear")  # type: ignore[arg-type]
    client.job("a").result("soon")  # type: ignore[arg-type]
    client.predict(5, model="a")  # type: ignore[arg-type]
    client.predict_stream(names(), model="a")  # type: ignore[arg-type]
    _ = next(client.predict_stream([], model="a")).class_name  # type: ignore[union-attr]
    client.misclassified(epoch=5)  # type: ignore[call-arg]
    client.jobs(state="running")  # type: ignore[call-arg]
    client.job("a").model = "models/b"  # type: ignore[misc]


async def wrong_too(client: AsyncClient) -> None:
    _ = client.train().name  # type: ignore[attr-defined]
    for _ in client.job("a").events():  # type: ignore[attr-defined]
        pass
    _ = (await client.get_job("a")).stat  # type: ignore[attr-defined]
