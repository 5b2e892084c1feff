from pathlib import Path

import pytest
from pydantic import ValidationError

from leadline.server.settings import Settings, load_settings


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "leadline.toml"
    config.write_text('port = 1\nmetrics_port = 2\nhost = "::1"\n[datasets]\npets = "/pets"\n')
    monkeypatch.setenv("LEADLINE_PORT", "3")
    monkeypatch.setenv("LEADLINE_METRICS_PORT", "4")

    settings = load_settings({"port": "5"}, config)

    assert (settings.port, settings.metrics_port, settings.host) == (5, 4, "::1")
    assert settings.datasets == {"pets": "/pets"}


def test_datasets_from_everywhere_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "leadline.toml"
    config.write_text('[datasets]\npets = "/pets"\ncars = "/file"\n')
    monkeypatch.setenv("LEADLINE_DATASETS", '{"cars": "/environment", "cifar10": "/archive"}')

    settings = load_settings({"datasets": {"maps": "/maps"}}, config)

    assert settings.dataset_sources == {
        "synthetic": "synthetic",
        "cifar10": "/archive",
        "pets": "/pets",
        "cars": "/environment",
        "maps": "/maps",
    }


def test_an_unknown_key_in_the_file_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "leadline.toml"
    config.write_text("prot = 1\n")

    with pytest.raises(ValidationError, match="prot"):
        load_settings({}, config)


def test_every_option_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("max_connection_age_seconds", 0.5, "at least 1, or 0 for no limit"),
        ("max_connection_age_seconds", 1e9, "less than or equal to 1000000"),
        ("max_connection_age_grace_seconds", float("inf"), "finite"),
        ("shutdown_grace_seconds", float("inf"), "finite"),
        ("max_message_bytes", 1 << 31, "less than or equal to 2147483647"),
        ("max_message_memory_bytes", 5, "at least 134217728 bytes, which is twice"),
        ("worker_memory_bytes", 5, "at least 1073741824, or 0 for no limit"),
    ],
)
def test_a_value_that_no_transport_or_worker_can_take_is_refused(
    option: str, value: float, expected: str
) -> None:
    with pytest.raises(ValidationError, match=expected):
        load_settings({option: value}, None)
