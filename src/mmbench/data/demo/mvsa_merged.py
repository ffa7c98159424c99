"""A tiny MVSA-Single, that of ``mvsa``."""

from mmbench.data.demo.mvsa import write

__all__ = ["write"]
