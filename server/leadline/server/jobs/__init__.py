"""Training jobs: their states, their storage, their scheduling."""
