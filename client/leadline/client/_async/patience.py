"""Calls that wait for a server that is away, as the streams do."""

from typing import TypeVar

from leadline.client._async.connection import AsyncConnection
from leadline.client._deadline import Deadline
from leadline.client._errors import RpcError
from leadline.client._retry import OnReconnect, Reconnection
from leadline.client._runtime import AsyncUnaryCall, async_sleep

Request = TypeVar("Request")
Response = TypeVar("Response")


async def call_patiently(
    connection: AsyncConnection,
    method: AsyncUnaryCall[Request, Response],
    request: Request,
    *,
    deadline: Deadline,
    on_reconnect: OnReconnect | None,
) -> Response:
    """The response to a unary call, however long the server is away.

    Raises:
        RpcError: it was away for longer than the client's `reconnect_timeout`
            or than the deadline allows, or answered with an error.
    """
    reconnection = Reconnection(connection.reconnect_timeout, on_reconnect=on_reconnect)
    while True:
        reconnection.began()
        try:
            return await connection.call(method, request, deadline)
        except RpcError as error:
            deadline.check()
            await async_sleep(deadline.at_most(reconnection.delay(error)))
