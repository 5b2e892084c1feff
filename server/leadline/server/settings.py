"""The options of the server: flags, environment variables and keys of a settings file.

The option `max_queued_jobs`, say, is the flag `--max-queued-jobs`, the
variable `LEADLINE_MAX_QUEUED_JOBS` and the key `max_queued_jobs` of the TOML
file that `--config` or `LEADLINE_CONFIG` names. A flag wins over a variable, a
variable over the file, the file over the default.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from leadline.server.memory import LEAST_WORKER_MEMORY

ENVIRONMENT_PREFIX = "LEADLINE_"

# The datasets that every server knows, as `leadline.models.datasets` opens them.
BUILT_IN_DATASETS = {"synthetic": "synthetic", "cifar10": "torchvision:cifar10"}

_MEBIBYTE = 1 << 20

# The transports store milliseconds and message sizes in 32 bits.
_MOST_SECONDS = 1_000_000
_MOST_BYTES = (1 << 31) - 1


def _check_dataset_names(datasets: dict[str, str]) -> dict[str, str]:
    for name in datasets:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
            raise ValueError(
                f"{name!r} is not a valid dataset name: use up to 64 lower-case letters, digits, "
                "dots, dashes and underscores, the first a letter or digit"
            )
    return datasets


def _check_devices(devices: str) -> str:
    for device in devices.split(","):
        if not re.fullmatch(r"auto|cpu|cuda:\d+", device.strip()):
            raise ValueError(f"{device!r} is not a device: use auto, cpu, or cuda:0,cuda:1,...")
    return devices


def _check_hosts(hosts: str) -> str:
    for host in _split(hosts):
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host):
            raise ValueError(f"{host!r} is not a host name: use names such as gpu1.example.org")
    return hosts


def _check_worker_memory(limit: int | Literal["auto"]) -> int | Literal["auto"]:
    if isinstance(limit, int) and 0 < limit < LEAST_WORKER_MEMORY:
        raise ValueError(f"Input should be at least {LEAST_WORKER_MEMORY}, or 0 for no limit")
    return limit


def _check_message_memory(limit: int, info: ValidationInfo) -> int:
    least = 2 * info.data.get("max_message_bytes", 0)
    if 0 < limit < least:
        raise ValueError(
            f"one connection may use half of it, and its largest message must fit: use at least "
            f"{least} bytes, which is twice --max-message-bytes, or 0"
        )
    return limit


def _check_age(seconds: float) -> float:
    if 0 < seconds < 1:
        raise ValueError("Input should be at least 1, or 0 for no limit")
    return seconds


def _split(listed: str) -> list[str]:
    return [item.strip() for item in listed.split(",") if item.strip()]


Port = Annotated[int, Field(ge=0, le=65_535)]


class Settings(BaseSettings):
    """The server's options."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        extra="forbid",
        frozen=True,
        env_nested_delimiter=None,
        env_ignore_empty=True,  # an empty variable is the same as none
        allow_inf_nan=False,
    )

    data_dir: Path = Field(
        default=Path("leadline-data"),
        description="The folder of jobs, checkpoints and decoded datasets.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="The address to serve gRPC on; 0.0.0.0 for every interface.",
    )
    port: Port = Field(default=50_051, description="The port to serve gRPC on; 0 for a free one.")
    transport: Literal["h2corn", "grpcio"] = Field(
        default="h2corn",
        description="The HTTP/2 library: h2corn, the faster one, or grpcio, for gateways.",
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="The address to serve metrics and the page on."
    )
    metrics_port: Port = Field(
        default=9_464, description="The port to serve metrics and the page on; 0 for a free one."
    )
    live_page: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether the metrics port shows the live page; auto: if it is on loopback.",
    )
    live_page_hosts: Annotated[str, AfterValidator(_check_hosts)] = Field(
        default="",
        description="Host names that the live page accepts, such as gpu1.example.org, "
        "besides addresses and localhost.",
    )
    datasets: Annotated[dict[str, str], AfterValidator(_check_dataset_names)] = Field(
        default={},
        description="Datasets by name, besides the built-in ones: a folder or a tar of "
        "train/CLASS/* and test/CLASS/* images.",
    )
    devices: Annotated[str, AfterValidator(_check_devices)] = Field(
        default="auto",
        description="Devices to train on, such as cuda:0,cuda:1; auto: every GPU, else the CPU.",
    )
    jobs_per_device: int = Field(
        default=1, ge=1, le=64, description="Jobs that train on one device at a time."
    )
    sweep_jobs_per_gpu: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Jobs of sweeps that train on one GPU at a time; on the CPU, one per thread.",
    )
    max_queued_jobs: int = Field(
        default=1_000, ge=1, description="Jobs that may be queued; more are rejected."
    )
    max_attempts: int = Field(
        default=3,
        ge=1,
        description="Workers that may be lost in one epoch of a job before it fails.",
    )
    worker_silence_seconds: float = Field(
        default=30.0,
        ge=3,
        description="Seconds without a message after which a worker counts as lost.",
    )
    retention: Literal["all", "best_and_last"] = Field(
        default="all",
        description="Which checkpoints are kept of jobs that do not set it.",
    )
    stream_keepalive_seconds: float = Field(
        default=15.0,
        ge=0.1,
        description="Seconds without an event after which a stream sends progress.",
    )
    spare_workers: int = Field(
        default=1,
        ge=0,
        le=16,
        description="Workers kept ready, with torch loaded, so that jobs start at once.",
    )
    worker_threads: int = Field(
        default=0, ge=0, description="Computing threads of a worker on the CPU; 0: one per core."
    )
    worker_niceness: int = Field(
        default=5,
        ge=0,
        le=19,
        description="The nice value of workers, which yield the CPU to the server.",
    )
    worker_memory_bytes: Annotated[int | Literal["auto"], AfterValidator(_check_worker_memory)] = (
        Field(
            default="auto",
            description="Memory that a worker may hold, in bytes; auto: its share of four fifths "
            "of the memory of the machine or container; 0: no limit.",
        )
    )
    min_free_disk_bytes: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        default="auto",
        description="Free space on the disk of the data directory below which no job starts, in "
        "bytes; auto: 1 GiB, or 5 % of the disk if that is less; 0: none.",
    )
    serving_processes: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Processes that serve gRPC on the port, each on its own core.",
    )
    inference_device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda:\d+)$",
        description="The device that predicts; auto: the first GPU, else the CPU.",
    )
    inference_threads: int = Field(
        default=1, ge=1, le=256, description="Computing threads of a prediction on the CPU."
    )
    max_pending_predictions: int = Field(
        default=256, ge=1, description="Predict calls in flight at a time; more are rejected."
    )
    max_pending_per_stream: int = Field(
        default=4,
        ge=1,
        le=256,
        description="Messages of a predicting stream in flight; the next is read after a response.",
    )
    max_loaded_bytes: int = Field(
        default=256 * _MEBIBYTE,
        ge=0,
        description="Memory for loaded networks, in bytes; the least recently used are evicted.",
    )
    max_message_bytes: int = Field(
        default=64 * _MEBIBYTE,
        ge=_MEBIBYTE,
        le=_MOST_BYTES,
        description="The largest request, in bytes.",
    )
    max_message_memory_bytes: Annotated[int, AfterValidator(_check_message_memory)] = Field(
        default=0,
        ge=0,
        description="Memory for requests that are incomplete or unanswered, half of it for one "
        "connection, in bytes; 0: four times --max-message-bytes.",
    )
    max_image_bytes: int = Field(
        default=16 * _MEBIBYTE, ge=1, description="The largest encoded image, in bytes."
    )
    max_image_pixels: int = Field(
        default=1 << 24, ge=1024, description="The largest image to decode, in pixels."
    )
    max_images_per_request: int = Field(
        default=4_096, ge=1, description="The most images in one Predict call."
    )
    max_pixels_per_request: int = Field(
        default=1 << 28, ge=1024, description="The most pixels to decode for one Predict call."
    )
    shutdown_grace_seconds: float = Field(
        default=10.0,
        ge=0,
        le=_MOST_SECONDS,
        description="Seconds after SIGTERM within which the server stops.",
    )
    max_connection_age_seconds: Annotated[float, AfterValidator(_check_age)] = Field(
        default=0,
        ge=0,
        le=_MOST_SECONDS,
        description="Age in seconds at which the server sends GOAWAY on a connection, so that "
        "clients open another; 0: never.",
    )
    max_connection_age_grace_seconds: float = Field(
        default=60.0,
        ge=0,
        le=_MOST_SECONDS,
        description="Seconds after that in which the connection's calls may end.",
    )
    reflection: bool = Field(
        default=True, description="Whether gRPC reflection describes the services."
    )
    tokens_file: Path | None = Field(
        default=None,
        description="The file of bearer tokens, which `leadline tokens` changes; callers then "
        "need an identity. Without it, tokens.json in the data directory, if it exists.",
    )
    access_file: Path | None = Field(
        default=None,
        description="A TOML file that maps client certificates to names and roles, and sets "
        "quotas; callers then need an identity.",
    )
    insecure: bool = Field(
        default=False,
        description="Whether the server may serve other machines without TLS, or without "
        "identities.",
    )
    tls_cert: Path | None = Field(
        default=None,
        description="The server's certificate and its intermediates, PEM; both ports then use TLS.",
    )
    tls_key: Path | None = Field(
        default=None, description="The private key of that certificate, PEM, without a passphrase."
    )
    tls_client_ca: Path | None = Field(
        default=None, description="The authorities that clients' certificates come from, PEM."
    )
    tls_client_auth: Literal["none", "optional", "required"] = Field(
        default="none",
        description="Whether clients have to send a certificate; optional needs h2corn.",
    )
    audit_log: str = Field(
        default="auto",
        description="The file of the audit log; auto: audit/audit.jsonl in the data directory, if "
        "callers need an identity; off: none.",
    )
    audit_log_bytes: int = Field(
        default=64 * _MEBIBYTE,
        ge=64 * 1024,
        description="The size at which a file of the audit log is renamed to end in .1, in bytes.",
    )
    audit_log_files: int = Field(
        default=10, ge=1, le=1_000, description="Older files of the audit log that are kept."
    )
    audit_reads: bool = Field(
        default=False,
        description="Whether the audit log also has calls that change nothing, predictions too.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe log lines to write."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto",
        description="How to log; auto: for people on a terminal, JSON lines elsewhere.",
    )
    ready_file: Path | None = Field(
        default=None,
        description="A file to write the addresses to, as JSON, once the server serves.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Orders the sources: flags, then environment, then file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def tokens_path(self) -> Path:
        """The file of bearer tokens."""
        return self.tokens_file or self.data_dir / "tokens.json"

    @property
    def requires_identities(self) -> bool:
        """Whether the options require that callers have an identity."""
        has_files = self.tokens_file is not None or self.access_file is not None
        return has_files or self.tls_client_auth != "none"

    @property
    def audit_path(self) -> Path:
        """The file of the audit log, if there is one."""
        named = self.audit_log not in {"auto", "off"}
        return Path(self.audit_log) if named else self.data_dir / "audit" / "audit.jsonl"

    @property
    def dataset_sources(self) -> dict[str, str]:
        """The source of every dataset by name, including the built-in ones."""
        return {**BUILT_IN_DATASETS, **self.datasets}

    @property
    def live_page_host_names(self) -> list[str]:
        """The host names in `live_page_hosts`."""
        return _split(self.live_page_hosts)


def load_settings(flags: dict[str, Any], config: Path | None) -> Settings:
    """The settings from flags, the environment and, if given, the file `config`.

    Raises:
        pydantic.ValidationError: an option has an invalid value or is unknown.
        OSError: the file cannot be read.
        tomllib.TOMLDecodeError: the file is not valid TOML.
    """
    if config is None:
        return Settings(**flags)
    config.open("rb").close()  # pydantic-settings ignores a missing file

    class SettingsWithFile(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    return SettingsWithFile(**flags)
