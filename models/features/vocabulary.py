"""A space's vocabulary as the features read it; `spaces.operations` makes and checks it."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Description = Mapping[str, Any]  # what an operation computes; its kind stands under "is"
Vocabulary = Mapping[str, Description]  # {name: description}; a vertex's operation id is an index into it
