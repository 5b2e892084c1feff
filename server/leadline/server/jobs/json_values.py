"""Values that are stored as JSON."""

from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class JsonValues:
    """A value whose fields are JSON values; subclasses with other fields override `from_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """The value as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The value that `to_dict` wrote."""
        return cls(**values)
