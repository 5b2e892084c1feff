"""The asynchronous client.

`client/generate_sync.py` generates the synchronous client from it.
"""
