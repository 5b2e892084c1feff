"""The asynchronous client: the one that is written by hand.

The synchronous one is generated from it by `client/generate_sync.py`.
"""
