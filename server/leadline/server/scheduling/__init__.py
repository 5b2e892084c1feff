"""Decides which job runs where and when, and notifies watchers."""
