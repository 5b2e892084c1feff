"""The training process: its work, its start, and its messages."""
