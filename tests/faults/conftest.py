"""The bench that all broken inputs of a process share."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.bench import Bench


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()
