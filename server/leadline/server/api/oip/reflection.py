"""Descriptors for reflection, with the Open Inference Protocol under its wire name."""

from collections.abc import Iterable

from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2

from leadline.oip.v2 import open_inference_pb2

_OURS = open_inference_pb2.DESCRIPTOR.package
WIRE_PACKAGE = "inference"


def reflection_pool(service_names: Iterable[str]) -> descriptor_pool.DescriptorPool:
    """A pool with the services, the details of errors and the protocol's messages.

    A process can register a protobuf message name only once. The protocol's
    names are therefore kept out of the default pool, for clients that load
    another definition of the package "inference".

    Args:
        service_names: full names; those of the protocol's package are in the
            pool in any case.
    """
    pool = descriptor_pool.DescriptorPool()
    known = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    for name in service_names:
        if not name.startswith(f"{WIRE_PACKAGE}."):
            _add(pool, known.FindFileContainingSymbol(name))
    for file in (error_details_pb2.DESCRIPTOR, *open_inference_pb2.DESCRIPTOR.dependencies):
        _add(pool, file)
    pool.AddSerializedFile(_as_on_the_wire().SerializeToString())  # type: ignore[no-untyped-call]
    return pool


def _add(pool: descriptor_pool.DescriptorPool, file: FileDescriptor) -> None:
    for dependency in file.dependencies:
        _add(pool, dependency)
    pool.AddSerializedFile(file.serialized_pb)  # type: ignore[no-untyped-call]


def _as_on_the_wire() -> FileDescriptorProto:
    ours = FileDescriptorProto()
    open_inference_pb2.DESCRIPTOR.CopyToProto(ours)  # type: ignore[no-untyped-call]
    text = text_format.MessageToString(ours).replace(_OURS, WIRE_PACKAGE)
    renamed = text_format.Parse(text, FileDescriptorProto())
    renamed.name = f"{WIRE_PACKAGE}/open_inference.proto"
    return renamed
