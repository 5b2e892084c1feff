"""gRPC over HTTP/2: what a call is, who answers it, and two libraries that can carry it.

`h2corn` serves the ASGI application of this package, which adds gRPC to HTTP/2: header
fields, framed messages, deadlines and status. `grpcio` is gRPC's own server.
"""
