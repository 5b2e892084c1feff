"""The examples of `docs/clients.md` train, watch, list wrong images and predict."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from clients.conftest import Workplace
from clients.tools import buf, grpcurl, node, ruby
from docs.pages import DOCS, blocks_under
from leadline.client import Client
from leadline.models.images import encode_png
from support.datasets import dataset_of
from support.proxy import Proxy
from support.servers import LiveServer

PAGE = DOCS / "clients.md"
DATASET = dataset_of(__file__)

# Bytes from the server: cuts within the events, and then within the following calls.
CUTS = (500, 400)


def example(heading: str, language: str, target: str) -> str:
    """Returns an example for the server at `target`, with a dataset that trains faster."""
    (text,) = blocks_under(PAGE, heading, language)
    return text.replace("127.0.0.1:50051", target).replace("synthetic", DATASET)


def run_python(workplace: Workplace, target: str) -> str:
    workplace.generate("Python")
    return workplace.run_python("-c", example("Python", "python", target))


def run_node(workplace: Workplace, target: str) -> str:
    program = workplace.folder / "train.mjs"
    program.write_text(example("Node.js", "js", target))
    return workplace.run(node(), program.name)


def run_ruby(workplace: Workplace, target: str) -> str:
    interpreter = ruby()
    workplace.generate("Ruby")
    return workplace.run(interpreter, "-w", "-I", ".", "-e", example("Ruby", "ruby", target))


@pytest.mark.parametrize("run", [run_python, run_node, run_ruby])
def test_a_program_gets_each_event_once_through_cut_connections(
    server: LiveServer, workplace: Workplace, run: Callable[[Workplace, str], str]
) -> None:
    with Proxy(server.target, CUTS) as proxy:
        output = run(workplace, proxy.target).splitlines()
        assert proxy.cuts == len(CUTS)

    with Client(server.target) as client:
        job = next(iter(client.jobs()))
        wrong = client.misclassified(model=job.model, per_class=1)
        expected = [
            f"image {image.index}: {image.true_class_name}, "
            f"predicted as {image.predicted_class_name}"
            for image in wrong
        ]
    assert [line.partition(":")[0] for line in output[:3]] == ["epoch 1", "epoch 2", "epoch 3"]
    assert output[3:] == expected
    assert expected


@pytest.mark.parametrize(("heading", "find"), [("grpcurl", grpcurl), ("buf curl", buf)])
def test_the_commands_of_a_shell_train_and_predict(
    server: LiveServer, workplace: Workplace, heading: str, find: Callable[[], str]
) -> None:
    find()
    (workplace.folder / "photo.png").write_bytes(encode_png(np.zeros((32, 32, 3), np.uint8)))

    output = workplace.run("sh", "-ec", example(heading, "sh", server.target))

    documents = list(json_documents(output))
    events, (wrong, answer) = documents[:-2], documents[-2:]
    assert [event["sequence"] for event in events] == [1, 2, 3, 4, 5, 6, 3, 4, 5, 6]
    assert events[5]["finished"]["state"] == "JOB_STATE_SUCCEEDED"
    assert wrong["examples"]
    assert answer["predictions"][0]["probability"] > 0
    assert wrong["model"] == answer["model"]


def json_documents(text: str) -> Iterator[dict[str, Any]]:
    """Yields the JSON documents in a text."""
    decoder, end = json.JSONDecoder(), 0
    while rest := text[end:].lstrip():
        end = len(text) - len(rest)
        document, end = decoder.raw_decode(text, end)
        yield document


def test_tritonclient_predicts_and_reads_metadata(server: LiveServer, workplace: Workplace) -> None:
    with Client(server.target) as client:
        if not any(client.models(dataset=DATASET)):  # of another test
            client.train(dataset=DATASET, blocks=1, batch_norm=True, epochs=1).result()

    output = workplace.run_python("-c", example("tritonclient", "python", server.target))

    metadata, *classes = output.splitlines()
    assert re.fullmatch(r"leadline \['1'.*\]", metadata)
    assert len(classes) == 3
    assert all(re.fullmatch(r"0\.\d+:\d:\w+", line) for line in classes)
