"""Killed at seeded moments and resumed: others end in the files of a run that nobody killed."""
from __future__ import annotations

import pytest

from kills.matrix import OTHERS, cases

pytestmark = pytest.mark.slow


@cases(OTHERS)
def test_killed_and_resumed_it_ends_in_the_same_files(matrix, name, number):
    matrix.case(name, number)
