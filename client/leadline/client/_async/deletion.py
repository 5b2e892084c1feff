"""Deleting a job, so that a lost answer is no error."""

from leadline.client._async.connection import AsyncConnection
from leadline.client._errors import NotFoundError, RpcError
from leadline.client._retry import Attempts
from leadline.client._runtime import async_sleep
from leadline.v1.training_service_pb2 import DeleteJobRequest


async def delete(connection: AsyncConnection, job: str) -> None:
    """Deletes a job that has ended.

    Raises:
        RpcError: the server refused, or could not be reached.
    """
    attempts = Attempts(connection.timeout)
    repeated = False
    while True:
        method = connection.stubs.training.DeleteJob
        try:
            await connection.call_once(method, DeleteJobRequest(name=job), attempts.remaining())
        except NotFoundError:
            if not repeated:
                raise
            # An attempt whose answer was lost has deleted it.
        except RpcError as error:
            await async_sleep(attempts.delay(error))
            repeated = True
            continue
        return
