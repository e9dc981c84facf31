"""The matrix that all tests of a process share."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from kills.matrix import MODULES, Matrix, write_inputs
from kills.runs import ForkServer


@pytest.fixture(scope="session")
def matrix(tmp_path_factory) -> Iterator[Matrix]:
    folder, server = tmp_path_factory.mktemp("kills"), ForkServer(MODULES)
    yield Matrix(server, folder, write_inputs(folder))
    server.close()
