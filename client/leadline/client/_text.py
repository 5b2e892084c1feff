"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """A number of things: "1 epoch", "1,000 epochs"."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"
