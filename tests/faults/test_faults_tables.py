"""Broken tables, texts and files of others: each is read rightly, or refused in one line."""
from __future__ import annotations

import pytest

from faults.faults import PAIRS
from faults.kinds import TABLES

pytestmark = pytest.mark.slow
OURS = [(kind, fault) for kind, fault in PAIRS if kind in TABLES]


@pytest.mark.parametrize("kind, fault", OURS, ids=[f"{kind.name}-{fault.name}" for kind, fault in OURS])
def test_a_broken_file_is_refused_in_one_line(bench, kind, fault):
    assert not (wrong := [found for found in bench.faults(kind, fault) if found]), "\n".join(wrong)
