"""Search spaces by name, like `spaces.get("nasbench201")`; only this lookup knows every space."""
from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from inspect import signature
from typing import Any

from runtime.errors import InputError
from runtime.files import path_of
from spaces.base import Space

SPACES = {  # name: (module, class); a new space in Python is one file and one line here
    "nasbench101": ("spaces.nasbench101.space", "NASBench101"),
    "nasbench201": ("spaces.nasbench201", "NASBench201"),
    "nasbench301": ("spaces.nasbench301", "NASBench301"),
    "darts": ("spaces.darts", "DARTS"),
}
HELP = (f"search space: {', '.join(SPACES)}, nasbench_macro, or the JSON file that declares one's own, "
        "MY_SPACE.json (docs/spaces.md)")


def get(name: str, cell_marks: bool = True) -> Space:
    """The space of that name: one of SPACES, one in spaces/declared/, or a user's declaration, MY_SPACE.json.

    cell_marks=False gives architectures of two cells, like those of DARTS, the paper's graph, in which both
    look alike.
    """
    if name not in SPACES:
        return from_json(name, cell_marks)
    module, cls = SPACES[name]
    space = getattr(import_module(module), cls)
    if cell_marks:
        return space()
    if "cell_marks" not in signature(space).parameters:
        raise InputError(f"--no-cell_marks: {name} has one cell and no marks to leave out")
    return space(cell_marks=False)


def from_json(name: str, cell_marks: bool = True) -> Space:
    """The space that a JSON file declares: its path, or the name of one that is shipped."""
    from spaces.declared.space import SHIPPED, read_space

    if name in SHIPPED:
        return read_space(SHIPPED[name], cell_marks)
    if not name.endswith(".json"):
        known = ", ".join(dict.fromkeys([*SPACES, *SHIPPED]))
        raise InputError(f"unknown space {name!r:.60}: choose one of {known}, or give the file of a space of "
                         "your own, MY_SPACE.json")
    return read_space(path_of(name), cell_marks)


def digests(**spaces: Space) -> dict[str, str]:
    """{setting: digest of its content} of the declared spaces among these, for `runtime.settings.by_content`.

    One in Python is known by its name.
    """
    return {name: space.identity for name, space in spaces.items() if hasattr(space, "identity")}


def stored(content: Mapping[str, Any]) -> Space:
    """The space of a file of networks, by its entries (`models.checkpoint.about_space`)."""
    marks = content.get("cell_marks", True)
    if "declared" in content:
        from spaces.declared.space import parse_space

        return parse_space(content["declared"], "the stored declaration of the space", marks)
    if content["space"] not in SPACES:
        raise InputError(f"it is of an unknown space, {content['space']!r:.40}: give another file")
    return get(content["space"], marks)
