"""Search spaces by name: `spaces.get("nasbench201")`. This lookup is the only place that knows every space."""
from __future__ import annotations

from importlib import import_module

from spaces.base import Graphs, InputError, Space, concatenate

SPACES = {  # name: (module, class); a new space is one file and one line here
    "nasbench101": ("spaces.nasbench101", "NASBench101"),
    "nasbench201": ("spaces.nasbench201", "NASBench201"),
    "nasbench301": ("spaces.nasbench301", "NASBench301"),
    "darts": ("spaces.darts", "DARTS"),
}


def get(name: str, **options) -> Space:
    """The space of that name. Options are the space's own (nasbench301 and darts: cell_marks=False for the paper's graph)."""
    if name not in SPACES:
        raise InputError(f"unknown space {name!r}: choose one of {', '.join(SPACES)}")
    module, cls = SPACES[name]
    return getattr(import_module(module), cls)(**options)


__all__ = ["Graphs", "InputError", "SPACES", "Space", "concatenate", "get"]
