"""The table of roles covers every method that there is, and no other."""

import re
import urllib.request
from collections.abc import Iterator

from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client.parser import text_string_to_metric_families

from docs.pages import DOCS, rows, section
from leadline.oip.v2 import open_inference_pb2
from leadline.server.access.roles import ROLES
from leadline.server.api.oip.reflection import REFLECTION_NAMES
from leadline.server.api.oip.service import SERVICE_NAME
from leadline.server.identity import Role
from leadline.v1 import inference_service_pb2, inspection_service_pb2, training_service_pb2
from support.servers import LiveServer

OWN_FILES = (
    inference_service_pb2.DESCRIPTOR,
    inspection_service_pb2.DESCRIPTOR,
    training_service_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
)


def paths_in(file: FileDescriptor, *names: str) -> Iterator[str]:
    """Yields the paths of the methods of a file, whose services are served under these names."""
    for service in file.services_by_name.values():
        for name in names or (service.full_name,):
            yield from (f"/{name}/{method.name}" for method in service.methods)


def test_every_method_of_every_descriptor_has_a_role_and_every_role_a_method() -> None:
    paths = {path for file in OWN_FILES for path in paths_in(file)}
    paths |= set(paths_in(open_inference_pb2.DESCRIPTOR, SERVICE_NAME))
    paths |= set(paths_in(reflection_pb2.DESCRIPTOR, *REFLECTION_NAMES))

    assert set(ROLES) == paths


def test_every_method_that_a_server_registers_has_a_role(live_server: LiveServer) -> None:
    with urllib.request.urlopen(live_server.metrics_url, timeout=10) as response:  # noqa: S310
        families = text_string_to_metric_families(response.read().decode())

    registered = {
        f"/{sample.labels['grpc_service']}/{sample.labels['grpc_method']}"
        for family in families
        if family.name == "grpc_server_started"
        for sample in family.samples
    }

    assert registered == set(ROLES)


def test_only_probes_need_no_credentials() -> None:
    assert {path for path, role in ROLES.items() if role is Role.ANYONE} == {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        f"/{SERVICE_NAME}/ServerLive",
        f"/{SERVICE_NAME}/ServerReady",
    }


def test_whoever_changes_jobs_or_sweeps_must_be_a_trainer() -> None:
    verbs = re.compile(r"/leadline\.v1\.\w+/(Train|Cancel|Pause|Resume|Delete)")

    assert {ROLES[path] for path in ROLES if verbs.match(path)} == {Role.TRAINER}


def test_the_security_page_has_the_table() -> None:
    table = rows(section(DOCS / "security.md", "What each role may call"))[1:]
    documented = {
        f"/{service.strip('`')}/{name}": role.strip("`")
        for service, role, names in table
        for name in re.findall(r"`(\w+)`", names)
    }

    assert documented == {path: role.name.lower() for path, role in ROLES.items()}
