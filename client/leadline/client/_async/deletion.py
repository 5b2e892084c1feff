"""Deleting a job or a sweep, so that a lost answer is no error."""

from typing import TypeVar

from google.protobuf.empty_pb2 import Empty

from leadline.client._async.connection import AsyncConnection
from leadline.client._errors import NotFoundError, RpcError
from leadline.client._retry import Attempts
from leadline.client._runtime import AsyncUnaryCall, async_sleep
from leadline.v1.training_service_pb2 import DeleteJobRequest, DeleteSweepRequest

Request = TypeVar("Request")


async def delete(connection: AsyncConnection, job: str) -> None:
    """Deletes a job that has ended.

    Raises:
        RpcError: the server refused, or could not be reached.
    """
    await _delete(connection, connection.stubs.training.DeleteJob, DeleteJobRequest(name=job))


async def delete_sweep(connection: AsyncConnection, sweep: str) -> None:
    """Deletes a sweep that has ended.

    Raises:
        RpcError: the server refused, or could not be reached.
    """
    method = connection.stubs.training.DeleteSweep
    await _delete(connection, method, DeleteSweepRequest(name=sweep))


async def _delete(
    connection: AsyncConnection, method: AsyncUnaryCall[Request, Empty], request: Request
) -> None:
    attempts = Attempts(connection.timeout)
    repeated = False
    while True:
        try:
            await connection.call_once(method, request, attempts.remaining())
        except NotFoundError:
            if not repeated:
                raise
            # An attempt whose answer was lost has deleted it.
        except RpcError as error:
            await async_sleep(attempts.delay(error))
            repeated = True
            continue
        return
