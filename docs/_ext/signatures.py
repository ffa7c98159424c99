"""How autodoc shows what the code says: signatures without bounds, and the docstrings of properties as they are."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util.inspect import stringify_signature


def plain(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, None] | None:
    """A class's signature, where the shown one has bounds (they are in the text) or is of a ``__new__`` that hands all on."""
    if what != "class" or not signature:
        return None
    if "<factory>" in signature:  # of a dataclass; Sphinx cannot break such a line
        return signature.replace("<factory>", "..."), None
    if not (signature.startswith("(*args") or "Annotated[" in signature):
        return None
    source = thing if issubclass(thing, BaseModel) else thing.__init__
    given = inspect.signature(source)
    hints = get_type_hints(source)
    parameters = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in given.parameters.values()]
    shown = given.replace(parameters=[p for p in parameters if p.name != "self"], return_annotation=given.empty)
    return stringify_signature(shown, unqualified_typehints=True), None


def whole(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from taking what stands before a colon, in the first line about a property, for its type."""
    if what in ("property", "attribute", "data") and lines:
        lines.insert(0, "\\ ")  # nothing, to docutils


def nameless(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of a named tuple, of which Python says their number; its signature has them."""
    return True if str(getattr(thing, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", plain)
    app.connect("autodoc-skip-member", nameless)
    app.connect("autodoc-process-docstring", whole, priority=400)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
