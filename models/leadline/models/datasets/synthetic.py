"""Placeholder."""

from leadline.models.datasets.contents import Contents, DatasetError


class Synthetic:
    """Ten classes of drawn images."""

    def key(self) -> str:
        """Returns a name."""
        return "synthetic-1"

    def read(self) -> Contents:
        """Draws."""
        raise DatasetError("not drawn yet")
