"""Which job runs where and when, and the notifications of watchers."""
