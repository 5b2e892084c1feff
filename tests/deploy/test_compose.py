"""compose.yaml agrees with the image, and confines the container."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.dockerfile import Stage
from leadline.server.settings import Settings


@pytest.fixture(scope="module")
def compose(repository: Path) -> dict[str, Any]:
    loaded = yaml.safe_load((repository / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(params=["leadline", "leadline-cpu"])
def service(request: pytest.FixtureRequest, compose: dict[str, Any]) -> Any:
    return compose["services"][request.param]


def test_the_ports_of_the_image_are_published_on_loopback_alone(
    service: dict[str, Any], image: Stage
) -> None:
    assert service["ports"] == [f"127.0.0.1:{port}:{port}" for port in image.one("EXPOSE").split()]


def test_the_volume_of_the_image_has_a_name(
    compose: dict[str, Any], service: dict[str, Any], image: Stage
) -> None:
    (mount,) = service["volumes"]
    name, path = mount.split(":")
    assert path == image.one("VOLUME")
    assert name in compose["volumes"]


def test_the_container_is_confined(service: dict[str, Any], image: Stage) -> None:
    assert service["user"] == image.one("USER")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


def test_the_health_check_is_that_of_the_image(service: dict[str, Any], image: Stage) -> None:
    assert service["healthcheck"]["test"] == ["CMD", *image.command("HEALTHCHECK")]


def test_the_server_has_time_to_end(service: dict[str, Any]) -> None:
    seconds = re.fullmatch(r"(\d+)s", service["stop_grace_period"])
    assert seconds
    assert int(seconds[1]) >= 2 * Settings.model_fields["shutdown_grace_seconds"].default


def test_only_the_service_for_nodes_without_a_gpu_has_to_be_asked_for(
    compose: dict[str, Any],
) -> None:
    with_gpu, without_gpu = compose["services"]["leadline"], compose["services"]["leadline-cpu"]
    (device,) = with_gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert without_gpu["profiles"] == ["cpu"]
    assert {**with_gpu, "deploy": None, "profiles": None} == {
        **without_gpu,
        "deploy": None,
        "profiles": None,
    }
