"""Formats numbers and suggestions for messages."""

from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """A number of things: "1 epoch", "1,000 epochs"."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that suggests the most similar known name; empty if none is similar.

    Initials and words count as similar: "--lr" suggests "--learning-rate".
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only an error needs it

    known = list(known)
    short = name.strip("-_").lower()
    matches = [candidate for candidate in known if short in _short_forms(candidate)]
    matches += get_close_matches(name, known, 1)
    return f" Did you mean {matches[0]}?" if matches else ""


def _short_forms(name: str) -> list[str]:
    words = name.strip("-").replace("_", "-").split("-")
    return [*words, "".join(word[:1] for word in words)]
