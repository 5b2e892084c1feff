"""The commands and examples of the pages run."""

import json
from pathlib import Path

import pytest
from google.protobuf import json_format, message_factory

from docs.command_line import flags_of, resolve
from docs.pages import DOCS, PAGES, ROOT, Command, blocks, commands
from leadline.client.cli.app import COMMANDS
from leadline.v1.training_service_pb2 import DESCRIPTOR
from support.datasets import dataset_of
from support.servers import LiveServer

SERVICE = DESCRIPTOR.services_by_name["TrainingService"]

COMMAND_LINES = [command for page in PAGES for command in commands(page)]


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "sdk.md"], ids=lambda page: page.name)
def test_the_python_of_a_page_runs_from_top_to_bottom(
    page: Path,
    live_server: LiveServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    snippets = blocks(page, "python")
    names: dict[str, object] = {"__name__": page.stem}

    for snippet in snippets:
        code = snippet.replace("127.0.0.1:50051", live_server.target)
        code = code.replace('"synthetic"', f'"{dataset_of(__file__)}"')  # the same, but faster
        exec(compile(code, page.name, "exec"), names)  # noqa: S102 - our own documentation

    assert snippets
    assert capsys.readouterr().out


@pytest.mark.parametrize("line", COMMAND_LINES, ids=str)
def test_a_command_has_the_options_that_a_page_gives_it(line: Command) -> None:
    command, words = resolve(line.words)

    given = {word.partition("=")[0] for word in words if word.startswith("--")}

    assert given <= flags_of(command)


def test_every_command_has_an_example() -> None:
    shown = {words.words[0] for words in commands(DOCS / "cli.md")}

    assert shown == set(COMMANDS)


def test_the_request_of_the_grpcurl_snippet_is_one_of_the_contract() -> None:
    (line,) = [block for block in blocks(ROOT / "README.md", "sh") if "grpcurl" in block]
    body, called = line.split("'")[1], line.split()[-1]
    service, _, method = called.partition("/")
    assert service == SERVICE.full_name
    found = SERVICE.methods_by_name[method]
    request = message_factory.GetMessageClass(found.input_type)()

    json_format.Parse(body, request)

    printed = json_format.MessageToDict(request, preserving_proto_field_name=True)
    assert printed == json.loads(body)
