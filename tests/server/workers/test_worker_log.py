"""A worker's log lines keep their level in the server's log."""

import logging

import pytest

from leadline.server.workers.local import _level_of


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026-01-31 12:00:00,123 WARNING no graph could be captured", logging.WARNING),
        ("2026-01-31 12:00:00,123 ERROR the worker failed", logging.ERROR),
        ("2026-01-31 12:00:00,123 INFO all is well", logging.INFO),
        ("a library prints WARNING of its own", logging.INFO),
        ("", logging.INFO),
    ],
)
def test_a_line_has_the_level_that_the_worker_gave_it(line: str, level: int) -> None:
    assert _level_of(line) == level
