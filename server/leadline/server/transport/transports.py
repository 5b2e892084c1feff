"""Selects a transport by name."""

import os

import structlog

from leadline.server.transport.calls import Calls
from leadline.server.transport.grpcio import GrpcioListener
from leadline.server.transport.listener import Listener, ListenerOptions

_LOG = structlog.get_logger(__name__)

# How many milliseconds h2corn's allocator (mimalloc) keeps freed memory. By default it is 1,000,
# in which hostile peers free tens of MiB; 0 takes a quarter more CPU time for large messages.
_ALLOCATOR_VARIABLE, _KEPT_MILLISECONDS = "MIMALLOC_PURGE_DELAY", "10"


def make_listener(transport: str, calls: Calls, options: ListenerOptions) -> Listener:
    """Makes a listener of the transport "h2corn" or "grpcio".

    `h2corn` has wheels only for some platforms; grpcio replaces it on others.
    """
    if transport == "grpcio":
        return GrpcioListener(calls, options)
    os.environ.setdefault(_ALLOCATOR_VARIABLE, _KEPT_MILLISECONDS)  # read once, at the import
    try:
        from leadline.server.transport.h2corn import H2cornListener  # noqa: PLC0415 - see above
    except ImportError as error:
        _LOG.warning("h2corn cannot be imported, so grpcio serves", error=str(error))
        return GrpcioListener(calls, options)
    return H2cornListener(calls, options)
