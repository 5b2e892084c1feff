"""The command line, `leadline`."""

from leadline.client.cli.app import main

__all__ = ["main"]
