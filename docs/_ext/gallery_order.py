"""In which order the gallery shows its scripts."""

from __future__ import annotations

ORDER = (
    "compare_two_methods.py",
    "data_from_a_frame.py",
    "a_method_in_20_lines.py",
    "missing_rate_curve.py",
    "a_model_kept_and_asked.py",
    "reading_the_store.py",
)


class Order:
    """A sort key, as sphinx-gallery takes one."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, name: str) -> int:
        """The place of a script; a ValueError for one without."""
        return ORDER.index(name)

    def __repr__(self) -> str:
        return "<Order>"  # without an address: sphinx keeps it, to see what has changed
