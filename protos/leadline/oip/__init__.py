"""The Open Inference Protocol's messages, by its major version."""
