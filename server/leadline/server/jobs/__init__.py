"""The domain of training jobs: values, states and options, as pure code."""
