"""gRPC over HTTP/2: an ASGI application, and the listener that serves it.

`h2corn` implements HTTP/2 in threads that do not hold the GIL. This package adds
gRPC: header fields, framed messages, deadlines, cancellation and status.
"""
