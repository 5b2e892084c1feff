"""Descriptors for reflection, with the Open Inference Protocol under its wire name."""

from collections.abc import Iterable

from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from leadline.oip.v2 import open_inference_pb2

WIRE_PACKAGE = "inference"

# Clients request v1 first. The package `grpcio-reflection` has only v1alpha.
REFLECTION_NAMES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)

_PACKAGES_MADE_HERE = (f"{WIRE_PACKAGE}.", "grpc.reflection.v1.")


def reflection_pool(service_names: Iterable[str]) -> descriptor_pool.DescriptorPool:
    """A pool with the services, the details of errors and the protocol's messages.

    A process can register a protobuf message name only once. So the protocol's
    names are not in the default pool: a client in the same process may load
    another definition of the package "inference".

    Args:
        service_names: full names; the pool always has the protocol's and reflection's.
    """
    pool = descriptor_pool.DescriptorPool()
    known = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    for name in service_names:
        if not name.startswith(_PACKAGES_MADE_HERE):
            _add(pool, known.FindFileContainingSymbol(name))
    for file in (error_details_pb2.DESCRIPTOR, *open_inference_pb2.DESCRIPTOR.dependencies):
        _add(pool, file)
    _add_renamed(pool, open_inference_pb2.DESCRIPTOR, WIRE_PACKAGE, "open_inference.proto")
    _add_renamed(pool, reflection_pb2.DESCRIPTOR, "grpc.reflection.v1", "reflection.proto")
    return pool


def _add(pool: descriptor_pool.DescriptorPool, file: FileDescriptor) -> None:
    for dependency in file.dependencies:
        _add(pool, dependency)
    pool.AddSerializedFile(file.serialized_pb)  # type: ignore[no-untyped-call]


def _add_renamed(
    pool: descriptor_pool.DescriptorPool, file: FileDescriptor, package: str, name: str
) -> None:
    copy = FileDescriptorProto()
    file.CopyToProto(copy)  # type: ignore[no-untyped-call]
    text = text_format.MessageToString(copy).replace(file.package, package)
    renamed = text_format.Parse(text, FileDescriptorProto())
    renamed.name = f"{package.replace('.', '/')}/{name}"
    pool.AddSerializedFile(renamed.SerializeToString())  # type: ignore[no-untyped-call]
