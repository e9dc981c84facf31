"""Work on pieces by several threads."""
from __future__ import annotations

import pytest
import torch

from runtime.threads import on_pieces


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_pieces_keep_their_order(two_threads):
    x = torch.arange(1000.0, requires_grad=True)
    pieces = on_pieces(lambda rows: 2 * x[rows], torch.arange(1000).split(7))
    torch.testing.assert_close(torch.cat(pieces), 2 * x.detach(), rtol=0, atol=0)
    assert not any(piece.requires_grad for piece in pieces)


@pytest.mark.parametrize("together", [True, False])
def test_a_thread_of_its_own_per_piece_only_where_work_bears_it(two_threads, together):
    def work(rows):
        return torch.get_num_threads(), torch.is_grad_enabled()

    assert set(on_pieces(work, torch.arange(9).split(3), together)) == {(1 if together else 2, False)}
    assert set(on_pieces(work, torch.arange(3).split(3))) == {(2, False)}  # one piece: torch divides the work


def test_torch_has_as_many_threads_afterwards_as_before(two_threads):
    def work(rows):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        on_pieces(work, torch.arange(9).split(3))
    assert torch.get_num_threads() == 2
    assert on_pieces(lambda rows: on_pieces(lambda some: torch.get_num_threads(), rows.split(1)),
                     torch.arange(4).split(2)) == [[1, 1], [1, 1]]  # a piece of pieces
