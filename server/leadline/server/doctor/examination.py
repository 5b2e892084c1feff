"""Runs all checks of a node, in order."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from leadline.server.command_line import settings_command
from leadline.server.doctor import datasets, ports, storage, system
from leadline.server.doctor.access import check_access
from leadline.server.doctor.agreement_check import check_agreement, compute_on
from leadline.server.doctor.check import Check, within
from leadline.server.doctor.gpu import check_capture, find_gpus
from leadline.server.settings import Settings

# The time limit of a check that only calls the kernel or reads a disk.
_SECONDS = 30.0

# The check reads a large tar to its end.
_DATASET_SECONDS = 300.0


def examine(arguments: Sequence[str]) -> Iterator[Check]:
    """Checks whether a server with these arguments would work here, and yields the results.

    It leaves no files on any disk.

    Raises:
        click.UsageError: an option is invalid.
    """
    command = settings_command("doctor", lambda settings: settings, help_text="")
    settings = command.main(list(arguments), prog_name="leadline doctor", standalone_mode=False)
    return _examine(settings)


def _examine(settings: Settings) -> Iterator[Check]:
    for seconds, name, check in _quick_checks(settings):
        yield within(seconds, name, check)
    cpu = compute_on("cpu")
    yield check_agreement("cpu", cpu)
    gpus = find_gpus(settings.devices, settings.inference_device)
    yield from gpus.checks
    for device in gpus.usable:
        outcome = compute_on(device)
        yield check_capture(device, outcome)
        yield check_agreement(device, outcome)


def _quick_checks(settings: Settings) -> Iterator[tuple[float, str, Callable[[], Check]]]:
    folder = settings.data_dir
    yield _SECONDS, "versions", system.check_versions
    yield _SECONDS, "processor", system.check_processor
    yield _SECONDS, "memory", system.check_memory
    yield _SECONDS, "worker memory", partial(system.check_worker_memory, settings)
    yield _SECONDS, "descriptors", system.check_descriptors
    yield _SECONDS, "sqlite", system.check_sqlite
    yield _SECONDS, "data directory", partial(storage.check_data_dir, folder)
    space = partial(storage.check_space, folder, settings.min_free_disk_bytes)
    yield _SECONDS, "disk space", space
    yield _SECONDS, "file system", partial(storage.check_file_system, folder)
    yield _SECONDS, "fsync", partial(storage.check_fsync, folder)
    yield _SECONDS, "access", partial(check_access, settings)
    yield _SECONDS, "grpc port", partial(ports.check_grpc_port, settings.host, settings.port)
    http = partial(ports.check_http_port, settings.metrics_host, settings.metrics_port)
    yield _SECONDS, "http port", http
    cache = folder / "datasets"
    for name, source in settings.dataset_sources.items():
        check = partial(
            datasets.check_dataset, name, source, cache, max_pixels=settings.max_image_pixels
        )
        yield _DATASET_SECONDS, datasets.dataset_name(name), check
    yield _SECONDS, "decoded datasets", partial(datasets.check_cache, cache)
