"""The domain of training jobs: values, states and options, without I/O."""
