"""The contract of both clients with a real server: training, listing, inspecting."""

import gc
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from leadline.client import (
    AlreadyExistsError,
    AsyncClient,
    Client,
    ClientClosedError,
    FailedPreconditionError,
    HealthStatus,
    ImageFailure,
    InvalidArgumentError,
    JobCancelledError,
    JobState,
    Model,
    NotFoundError,
    TrainingSpec,
    UnavailableError,
    Variant,
)
from support.datasets import dataset_of
from support.servers import LiveServer

DATASET = dataset_of(__file__)

MakeClient = Callable[..., Client]

SPEC = TrainingSpec(dataset=DATASET, blocks=0, epochs=2, batch_size=200)


def test_a_job_is_followed_and_waited_for_from_its_submission_to_its_end(client: Client) -> None:
    job = client.train(SPEC, seed=1, progress_interval=0.05)
    stream = job.events()
    events = [next(stream)]
    # Another handle waits for it while it runs and is watched.
    assert client.job(job.name).result(timeout=100).state == JobState.JOB_STATE_SUCCEEDED
    events += stream
    durable = [event for event in events if event.sequence]
    assert [event.sequence for event in durable] == [1, 2, 3, 4, 5]
    assert [event.WhichOneof("event") for event in durable] == [
        *("queued", "started", "epoch", "epoch", "finished")
    ]
    # A short job may end before its first progress.
    assert {event.WhichOneof("event") for event in events if not event.sequence} <= {"progress"}
    assert {event.job for event in events} == {job.name}
    assert events[0].queued.spec.seed == 1
    assert events[-1].finished.model == job.model
    assert job.name == f"jobs/{job.id}"


def test_the_events_of_a_job_can_be_asked_for_again(client: Client, model: Model) -> None:
    job = client.job(model.job)
    first = list(job.events())
    assert [event.sequence for event in first] == list(range(1, len(first) + 1))
    assert list(job.events()) == first
    assert list(client.job(job.id).events(after_sequence=3)) == first[3:]


def test_after_its_last_event_a_job_has_no_more(client: Client, model: Model) -> None:
    job = client.job(model.job)
    assert list(job.events(after_sequence=job.refresh().latest_sequence)) == []


def test_epochs_are_results_in_order(client: Client, model: Model) -> None:
    epochs = list(client.job(model.job).epochs())
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    assert [epoch.model for epoch in epochs] == [epoch.name for epoch in model.epochs]


def test_the_result_is_the_job_that_succeeded(client: Client, model: Model) -> None:
    job = client.job(model.job)
    result = job.result()
    assert result.state == JobState.JOB_STATE_SUCCEEDED
    assert result == job.refresh() == client.get_job(job.id)
    assert (result.completed_epochs, result.model) == (3, job.model)


def test_a_job_that_succeeded_cannot_be_cancelled(client: Client, model: Model) -> None:
    with pytest.raises(FailedPreconditionError):
        client.job(model.job).cancel()


def test_leaving_the_stream_leaves_the_job_alone(busy_client: Client) -> None:
    job = busy_client.train(SPEC)
    for event in job.events():
        assert event.HasField("queued")
        break
    assert job.refresh().state == JobState.JOB_STATE_QUEUED


def test_letting_go_of_the_stream_leaves_the_job_alone(busy_client: Client) -> None:
    job = busy_client.train(SPEC)
    job.detach()
    job.detach()
    assert next(iter(job.events())).sequence == 1
    assert job.refresh().state == JobState.JOB_STATE_QUEUED


def test_a_queued_job_tells_its_place(busy_client: Client) -> None:
    before = busy_client.train(SPEC).refresh().queue_position
    assert busy_client.train(SPEC).refresh().queue_position == before + 1


def test_cancelling_ends_a_job_and_its_stream(busy_client: Client) -> None:
    job = busy_client.train(SPEC)
    cancelled = job.cancel()
    assert cancelled.state == JobState.JOB_STATE_CANCELLED
    assert busy_client.cancel_job(job.id).state == JobState.JOB_STATE_CANCELLED
    events = list(job.events())
    assert events[-1].finished.state == JobState.JOB_STATE_CANCELLED
    with pytest.raises(JobCancelledError, match=f"{job.name} was cancelled") as caught:
        job.result()
    assert caught.value.job.name == job.name


def test_the_same_request_id_is_the_same_job(busy_client: Client) -> None:
    request_id = str(uuid.uuid4())
    first = busy_client.train(SPEC, request_id=request_id)
    again = busy_client.train(SPEC, request_id=request_id)
    assert again.name == first.name
    with pytest.raises(AlreadyExistsError):
        busy_client.train(SPEC, seed=5, request_id=request_id)


def test_without_a_request_id_each_call_is_a_job_of_its_own(busy_client: Client) -> None:
    assert busy_client.train(SPEC).name != busy_client.train(SPEC).name


def test_each_wrong_field_of_a_spec_is_named(client: Client) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.train(
            dataset="tiny", blocks=-1, learning_rate=float("nan"), batch_size=0, epochs=10**9
        )
    assert {violation.field for violation in caught.value.violations} == {
        *("spec.blocks", "spec.learning_rate", "spec.batch_size", "spec.epochs")
    }
    assert caught.value.reason


def test_a_dataset_that_the_server_does_not_know_is_refused(client: Client) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.train(dataset="nowhere")
    assert caught.value.violations[0].field == "spec.dataset"


@pytest.mark.parametrize("call", ["events", "epochs"])
def test_following_a_job_that_is_not_there_is_an_error(client: Client, call: str) -> None:
    with pytest.raises(NotFoundError):
        list(getattr(client.job("nobody"), call)())


def test_asking_for_what_is_not_there_is_an_error(client: Client) -> None:
    for ask in (
        lambda: client.get_job("nobody"),
        lambda: client.cancel_job("nobody"),
        lambda: client.get_model("nobody"),
        lambda: client.job("nobody").result(),
        lambda: client.list_misclassified(model="nobody"),
        lambda: list(client.misclassified(dataset="tiny", blocks=63)),
    ):
        with pytest.raises(NotFoundError):
            ask()


def test_jobs_are_listed_over_all_pages(client: Client, model: Model) -> None:
    whole = [job.name for job in client.jobs()]
    assert model.job in whole
    assert len(whole) == len(set(whole))
    assert [job.name for job in client.jobs(page_size=1)][-3:] == whole[-3:]


def test_jobs_are_listed_by_state(client: Client, model: Model) -> None:
    succeeded = {job.name: job.state for job in client.jobs(states=["succeeded"])}
    assert succeeded[model.job] == JobState.JOB_STATE_SUCCEEDED
    assert set(succeeded.values()) == {JobState.JOB_STATE_SUCCEEDED}


def test_models_are_listed_by_variant(client: Client, model: Model) -> None:
    found = list(client.models(dataset="tiny", blocks=1, batch_norm=True, page_size=1))
    assert model.name in [one.name for one in found]
    assert {(one.variant.blocks, one.variant.batch_norm) for one in found} == {(1, True)}
    assert list(client.models(dataset="nowhere")) == []


def test_a_model_has_its_epochs(client: Client, model: Model) -> None:
    assert client.get_model(model.name.removeprefix("models/")) == model
    assert [epoch.epoch for epoch in model.epochs] == [1, 2, 3]


def test_wrong_images_are_listed_over_all_pages(client: Client, model: Model) -> None:
    page = client.list_misclassified(model=model.name)
    examples = list(client.misclassified(model=model.name, page_size=7))
    wrong = page.test_images - round(page.test_accuracy * page.test_images)
    assert len(examples) == page.total_size == wrong
    assert len({example.index for example in examples}) == wrong
    assert all(one.true_class_index != one.predicted_class_index for one in examples)


def test_wrong_images_are_listed_as_asked(client: Client, model: Model) -> None:
    arguments = {"per_class": 1, "grouping": "true_class", "include_correct": True}
    examples = list(client.misclassified(model=model.name, **arguments))  # type: ignore[arg-type]
    for right in (False, True):
        of_class = [
            example.true_class_index
            for example in examples
            if (example.true_class_index == example.predicted_class_index) is right
        ]
        assert len(of_class) == len(set(of_class))


def test_wrong_images_are_filtered_and_ordered(client: Client, model: Model) -> None:
    whole = list(client.misclassified(model=model.name, split="train", grouping="none"))
    wanted = [one for one in whole if one.true_class_name == "bee" and one.probability >= 0.4]
    found = client.misclassified(
        model=model.name,
        split="train",
        grouping="none",
        order="least_probable",
        true_class="bee",
        min_probability=0.4,
        image_format="none",
    )
    assert [one.index for one in found] == [
        one.index for one in sorted(wanted, key=lambda one: (one.probability, one.index))
    ]


def test_a_confusion_matrix_counts_the_wrong_ones(client: Client, model: Model) -> None:
    for split in ("test", "train"):
        matrix = client.confusion_matrix(model=model.epochs[0], split=split)
        page = client.list_misclassified(model=model.epochs[0], split=split, page_size=1)
        assert matrix.accuracy == page.split_accuracy
        right = sum(row.counts[index] for index, row in enumerate(matrix.rows))
        assert matrix.images - right == page.total_size
    assert client.confusion_matrix(dataset="tiny", blocks=1, batch_norm=True).images == 200


def test_two_epochs_are_compared_over_all_pages(client: Client, model: Model) -> None:
    first, last = model.epochs[0], model.epochs[-1]
    page = client.compare_models(first, last.name, page_size=5)
    examples = list(client.compared_examples(first, last, page_size=5))
    assert list(page.examples) == examples[:5]
    assert len(examples) == page.total_size == page.fixed + page.broken + page.still_wrong
    broken = list(client.compared_examples(first, last, outcome="broken", image_format="raw"))
    assert len(broken) == page.broken
    assert all(len(one.pixels) == 32 * 32 * 3 for one in broken)
    variant = Variant(dataset="tiny", blocks=1, batch_norm=True)
    assert client.compare_models(variant, last).candidate == last.name
    following = client.compare_models(first, last, page_size=5, page_token=page.next_page_token)
    assert list(following.examples) == examples[5:10]
    assert client.predict(examples[:2], model=last).class_names == [
        one.candidate.class_name for one in examples[:2]
    ]


def test_labels_that_epochs_contradict_are_listed(client: Client, model: Model) -> None:
    page = client.list_likely_label_errors(models=model.epochs, min_models=1, page_size=4)
    found = list(client.likely_label_errors(models=model.epochs, min_models=1, page_size=4))
    assert list(page.models) == [epoch.name for epoch in model.epochs]
    assert list(page.examples) == found[:4]
    assert len(found) == page.total_size > 4
    for ask in ({}, {"models": model.epochs, "dataset": "tiny"}, {"models": [model]}):
        with pytest.raises(InvalidArgumentError, match="models"):
            client.list_likely_label_errors(**ask)


def test_examples_are_predicted_by_name(client: Client, model: Model) -> None:
    examples = list(client.misclassified(model=model.epochs[0].name, image_format="none"))
    predictions = client.predict(examples, model=model.epochs[0])
    assert predictions.class_names == [one.predicted_class_name for one in examples]
    by_name = client.predict(examples[0].name, model=model.epochs[0])
    assert by_name[0].class_index == predictions[0].class_index


def test_an_example_that_is_not_there_fails_by_itself_in_a_stream(
    client: Client, model: Model
) -> None:
    (example, *_) = client.misclassified(model=model.epochs[0].name)
    missing = example.name.rpartition("/")[0] + "/999"
    with pytest.raises(InvalidArgumentError, match=r"images\[1\]: the test images are 0 to 199"):
        client.predict([example, missing], model=model.name)
    first, second, third = client.predict_stream([example, missing, example], model=model.name)
    assert isinstance(second, ImageFailure)
    assert first == third


def test_wrong_images_of_the_best_of_a_variant(client: Client, model: Model) -> None:
    variant = Variant(dataset="tiny", blocks=1, batch_norm=True)
    page = client.list_misclassified(variant=variant, per_class=1)
    assert page.model.startswith("models/")
    assert page.test_accuracy >= model.best_test_accuracy


def test_a_page_token_that_was_never_given_is_refused(client: Client, model: Model) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.list_misclassified(model=model.name, page_token="never")
    assert caught.value.violations[0].field == "page_token"


def test_the_server_is_healthy(client: Client) -> None:
    assert client.health() is HealthStatus.SERVING
    assert client.health("leadline.v1.TrainingService") is HealthStatus.SERVING
    with pytest.raises(NotFoundError, match=r"the server has no service 'no\.such\.Service'"):
        client.health("no.such.Service")


def test_a_server_that_is_not_there_is_told_soon(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(f"unix:{tmp_path}/nobody.sock", timeout=20.0)
    for ask in (client.health, client.jobs().__next__, lambda: client.train(SPEC)):
        with pytest.raises(UnavailableError):
            ask()


def test_a_closed_client_says_so(make_client: MakeClient, busy_server: LiveServer) -> None:
    client = make_client(busy_server.target)
    job = client.train(SPEC)
    client.close()
    client.close()
    for ask in (
        client.health,
        job.refresh,
        lambda: client.train(SPEC),
        lambda: list(job.epochs()),
        lambda: list(client.job(job.id).events()),
    ):
        with pytest.raises(ClientClosedError):
            ask()


def test_a_client_left_open_is_warned_about(live_server: LiveServer) -> None:
    client = Client(live_server.target)
    client.health()
    with pytest.warns(ResourceWarning, match=f"a client of {live_server.target} was left open"):
        del client


def test_a_client_that_was_never_used_needs_no_closing() -> None:
    Client()
    AsyncClient()
    gc.collect()


def test_a_client_is_closed_by_its_block(live_server: LiveServer) -> None:
    with Client(live_server.target) as client:
        client.health()
    with pytest.raises(ClientClosedError), client:
        pass


async def test_an_asynchronous_client_is_closed_by_its_block(live_server: LiveServer) -> None:
    async with AsyncClient(live_server.target) as client:
        await client.health()
    with pytest.raises(ClientClosedError):
        await client.health()
