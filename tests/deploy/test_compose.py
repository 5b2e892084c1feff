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
    mount, _ = service["volumes"]
    name, path = mount.split(":")
    assert path == image.one("VOLUME")
    assert name in compose["volumes"]


def value(service: dict[str, Any], variable: str, **environment: str) -> str:
    """The value that Compose gives a variable of the container, in this environment."""
    written = service["environment"][variable]
    name, sign, default = re.fullmatch(r"\$\{(\w+)(:?-)(.*)\}", written).groups()  # type: ignore[union-attr]
    given = environment.get(name)
    return default if given is None or (sign == ":-" and not given) else given


OPTIONS = ("LEADLINE_INSECURE", "LEADLINE_TLS_CERT", "LEADLINE_TLS_KEY")


def settings_of(
    service: dict[str, Any], image: Stage, monkeypatch: pytest.MonkeyPatch, **environment: str
) -> Settings:
    """The server's settings in this environment of Compose."""
    for variable, content in image.environment.items():
        monkeypatch.setenv(variable, content)
    for variable in OPTIONS:
        monkeypatch.setenv(variable, value(service, variable, **environment))
    return Settings()


def test_the_server_is_protected_by_default(
    service: dict[str, Any], image: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(service, image, monkeypatch)

    assert not settings.insecure
    _, mount = service["volumes"]
    folder = Path(mount.split(":")[-2])
    assert {settings.tls_cert, settings.tls_key} == {folder / "server.pem", folder / "server.key"}
    assert mount.endswith(":ro")
    assert value(service, "LEADLINE_TARGET").startswith("https://localhost:")
    assert Path(value(service, "LEADLINE_CA")).parent == folder


def test_trials_are_open_and_say_so(
    service: dict[str, Any], image: Stage, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (repository / "deploy" / "insecure.env").read_text().splitlines()
    environment = dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    settings = settings_of(service, image, monkeypatch, **environment)

    assert settings.insecure
    assert settings.tls_cert is settings.tls_key is None
    assert not value(service, "LEADLINE_TARGET", **environment).startswith("https")
    assert set(environment) <= set(service["environment"])


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
