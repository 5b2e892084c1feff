"""The training process: what it does, how it is started and spoken to."""
