"""The live page: what the server does at this moment, for people, read-only."""
