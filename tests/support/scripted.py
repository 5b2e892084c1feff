"""A gRPC server that gives a test's answers to every method."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

Answer = Callable[[bytes, grpc.ServicerContext], bytes]


@contextmanager
def answering(answer: Answer, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """Serves on a socket within the context, over TLS with `credentials`; yields the address."""
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((_Everything(answer),))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


class _Everything(grpc.GenericRpcHandler):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        del handler_call_details
        return grpc.unary_unary_rpc_method_handler(self._answer)
