"""gRPC over HTTP/2 by two transports, which share the handling of calls.

`h2corn` serves the ASGI application of this package, which adds gRPC to HTTP/2: header
fields, framed messages, deadlines and status. `grpcio` is gRPC's own server.
"""
