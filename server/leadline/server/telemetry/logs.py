"""Structured logs, on standard error."""

import logging
import sys
from typing import Any

import structlog


def configure_logs(*, level: str, style: str) -> None:
    """Configures logging, including that of libraries.

    Args:
        level: the lowest level to write, such as "info".
        style: "json", "console", or "auto": console on a terminal, else JSON.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(style),
            ],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def logs_are_json(style: str) -> bool:
    """Whether `configure_logs` writes JSON for a style."""
    return style == "json" or (style == "auto" and not sys.stderr.isatty())


def _renderers(style: str) -> list[Any]:
    if not logs_are_json(style):
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
