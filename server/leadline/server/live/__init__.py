"""The live page: the server's current activity, for people, read-only."""
