"""Search spaces by name: `spaces.get("nasbench201")`. This lookup is the only place that knows every space."""
from __future__ import annotations

from importlib import import_module
from inspect import signature

from spaces.base import Graphs, InputError, Space

SPACES = {  # name: (module, class); a new space is one file and one line here
    "nasbench101": ("spaces.nasbench101", "NASBench101"),
    "nasbench201": ("spaces.nasbench201", "NASBench201"),
    "nasbench301": ("spaces.nasbench301", "NASBench301"),
    "darts": ("spaces.darts", "DARTS"),
}


def get(name: str, cell_marks: bool = True) -> Space:
    """The space of that name. cell_marks=False gives DARTS cells the paper's graph, which cannot tell one cell from the other."""
    if name not in SPACES:
        raise InputError(f"unknown space {name!r}: choose one of {', '.join(SPACES)}")
    module, cls = SPACES[name]
    space = getattr(import_module(module), cls)
    if cell_marks:
        return space()
    if "cell_marks" not in signature(space).parameters:
        raise InputError(f"--no-cell_marks: {name} has one cell and no marks to leave out")
    return space(cell_marks=False)


__all__ = ["Graphs", "InputError", "SPACES", "Space", "get"]
