"""Seeds and torch's own generators: repeatable inside, without a trace outside; and the device."""
from __future__ import annotations

import pytest
import torch

from runtime.errors import InputError
from runtime.seeding import choose_device, mix, rng_state, seeded, set_rng_state


def test_seeded_is_repeatable_and_leaves_no_trace():
    before = torch.get_rng_state()
    draws = []
    for numbers in ((1, 2), (1, 2), (2, 1), (1, 3)):
        with seeded(*numbers):
            draws.append(torch.rand(4).tolist())
    assert torch.equal(torch.get_rng_state(), before)
    assert draws[0] == draws[1] and len({tuple(draw) for draw in draws}) == 3


def test_seeds_of_all_small_pairs_differ():
    seeds = {mix(a, b) for a in range(40) for b in range(40)}
    assert len(seeds) == 1600 and all(0 <= seed < 2**63 for seed in seeds)


def test_a_generator_goes_on_where_it_was():
    with seeded(0):
        state = rng_state()
        expected = torch.rand(3)
    with seeded(1):
        set_rng_state(state)
        assert torch.equal(torch.rand(3), expected)


def test_device():
    assert choose_device("cpu", 0) == torch.device("cpu")
    with pytest.raises(InputError, match="--device abacus"):
        choose_device("abacus", 0)
