"""The checks of `leadline doctor`: whether a node can run the server."""
