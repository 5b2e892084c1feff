"""The Open Inference Protocol, for clients of other inference servers."""
