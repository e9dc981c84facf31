"""Search spaces by name, like `spaces.get("nasbench201")`; only this lookup knows every space."""
from __future__ import annotations

from importlib import import_module
from inspect import signature

from runtime.errors import InputError
from spaces.base import Space

SPACES = {  # name: (module, class); a new space is one file and one line here
    "nasbench101": ("spaces.nasbench101.space", "NASBench101"),
    "nasbench201": ("spaces.nasbench201", "NASBench201"),
    "nasbench301": ("spaces.nasbench301", "NASBench301"),
    "darts": ("spaces.darts", "DARTS"),
}


def get(name: str, cell_marks: bool = True) -> Space:
    """The space of that name.

    cell_marks=False gives DARTS architectures the paper's graph, in which the normal and the reduction cell
    look alike.
    """
    if name not in SPACES:
        raise InputError(f"unknown space {name!r}: choose one of {', '.join(SPACES)}")
    module, cls = SPACES[name]
    space = getattr(import_module(module), cls)
    if cell_marks:
        return space()
    if "cell_marks" not in signature(space).parameters:
        raise InputError(f"--no-cell_marks: {name} has one cell and no marks to leave out")
    return space(cell_marks=False)
