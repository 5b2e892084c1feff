"""The Dockerfile agrees with the server that it packs, and stays cheap to rebuild."""

import re
from pathlib import Path

from deploy.dockerfile import Stage
from leadline.server.settings import ENVIRONMENT_PREFIX, Settings

SOURCES = {"protos", "models", "server", "client"}


def _default(option: str) -> object:
    return Settings.model_fields[option].default


def test_the_server_is_the_entry_point(image: Stage) -> None:
    assert image.command("ENTRYPOINT") == ["leadline", "serve"]
    assert image.one("STOPSIGNAL") == "SIGTERM"


def test_the_user_is_a_number_and_not_root(image: Stage) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.one("USER"))


def test_the_ports_are_those_that_the_server_listens_on(image: Stage) -> None:
    assert image.one("EXPOSE").split() == [
        str(_default("port")),
        str(_default("metrics_port")),
    ]


def test_every_variable_is_an_option_of_the_server(image: Stage) -> None:
    options = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower()
        for name in image.environment
        if name.startswith(ENVIRONMENT_PREFIX)
    }
    assert options == {"host", "metrics_host", "data_dir", "transport"}
    assert options <= set(Settings.model_fields)


def test_the_transport_is_the_one_that_a_gateway_cannot_wear_out(image: Stage) -> None:
    assert image.environment["LEADLINE_TRANSPORT"] == "grpcio"


def test_the_data_is_in_the_volume(image: Stage) -> None:
    assert image.environment["LEADLINE_DATA_DIR"] == image.one("VOLUME")


def test_the_health_check_asks_the_server(image: Stage) -> None:
    assert image.command("HEALTHCHECK")[:2] == ["leadline", "health"]


def test_a_change_of_the_sources_installs_no_dependency_again(stages: dict[str, Stage]) -> None:
    stage: Stage | None = stages["dependencies"]
    while stage is not None:
        assert stage.copied_from_context <= {"constraints.txt"}
        stage = stages.get(stage.base)
    assert stages["project"].copied_from_context >= SOURCES


def test_the_build_context_holds_what_is_copied_and_no_more(
    repository: Path, stages: dict[str, Stage]
) -> None:
    copied = set().union(*(stage.copied_from_context for stage in stages.values()))
    lines = (repository / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert "*" in lines
    assert all((repository / path).exists() for path in copied)
