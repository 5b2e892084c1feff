"""gRPC over HTTP/2: calls as an ASGI application, and what listens for them.

HTTP/2 itself is `h2corn`'s, whose threads leave Python's lock alone. What gRPC
adds to it, which is little, stands here: header fields, the frames of messages,
deadlines, cancellation and status.
"""
