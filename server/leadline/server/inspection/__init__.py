"""What trained checkpoints get wrong."""
