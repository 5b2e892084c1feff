"""The Open Inference Protocol, so that clients of other servers work unmodified."""
