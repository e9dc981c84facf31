"""Counts the broken inputs of the tables; and each command as a user starts it, in a process of its own."""
from __future__ import annotations

import pytest

from faults.faults import FAULTS, FULL, HTML, PAIRS
from faults.kinds import KINDS, TABLES


def test_there_are_at_least_a_thousand_broken_inputs():
    assert sum(fault.few for _, fault in PAIRS) >= 1000


def test_every_kind_and_fault_has_a_name_of_its_own():
    for table in (KINDS, FAULTS):
        assert len({row.name for row in table}) == len(table)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS if FULL else TABLES[:1], ids=lambda kind: kind.name)
def test_in_a_process_of_its_own(bench, kind):
    foreign = next(fault for fault in FAULTS if fault.name == "foreign")
    page = ("web page", lambda path: path.write_bytes(HTML))
    assert not bench.judged(kind, foreign, page, bench.run_fresh)
