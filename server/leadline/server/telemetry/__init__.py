"""What operators see: metrics, logs."""
