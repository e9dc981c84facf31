"""The encoder for all spaces: it reads operations by what they compute, and any space can start from it."""
from __future__ import annotations

import numpy as np
import pytest
import torch

import pretrain
import spaces
from models.batch import Batch
from models.checkpoint import load_encoder, load_networks
from models.encoders import build_encoder
from models.encoders.described import bare_weights, describe, for_vocabulary
from models.features.operations import FEATURES, classes, described
from models.pretext.regression import PORTABLE, target_tables
from models.pretext.tasks import TASKS
from runtime.errors import InputError
from runtime.files import ROOT
from spaces.universal import Universal

CONFIG = {"base_model": "transformer", "width": 16, "layers": 2, "heads": 2, "dropout": 0.0}
TINY = ["--space", "universal", "--width", "16", "--layers", "1", "--heads", "2", "--batch_size", "16",
        "--archs", "60", "--no-tensorboard", "--threads", "1", "--device", "cpu", "--tasks",
        "mask,properties,contrast"]


@pytest.fixture(scope="module")
def universal() -> Universal:
    return Universal()


@pytest.fixture(scope="module")
def tables(universal) -> list[Batch]:
    return [Batch.of(graphs) for graphs in universal.tables(300, np.random.default_rng(0))]


# Operations and spaces --------------------------------------------------------------------------------------

def test_an_operation_has_the_same_numbers_in_every_space():
    here, there = (described(spaces.get(name).vocabulary) for name in ("nasbench201", "darts"))
    names = [list(spaces.get(name).ops) for name in ("nasbench201", "darts")]
    for name in ("skip_connect", "output"):
        assert torch.equal(here[names[0].index(name)], there[names[1].index(name)])
    assert here.unique(dim=0).shape == here.shape and here.isfinite().all() and here.abs().max() < 3


def test_the_universal_tables_hold_the_graphs_of_the_spaces(universal, tables):
    """Under one vocabulary; the graphs of generated spaces are cells, too."""
    vocabulary = list(universal.vocabulary.values())
    macro = spaces.get("nasbench_macro")
    table = tables[[*universal.known].index(macro.name)]
    ours = {tuple(universal.ops[op] for op in row) for row in table.ops}
    assert ours <= {tuple(macro.ops[op] for op in row) for row in macro.table().ops}
    for table in tables:
        assert (table.adj == table.adj.triu(1)).all() and len(universal.ops) < 256
        kinds = np.array([does["is"] for does in vocabulary])[table.ops.numpy()]
        assert (kinds[table.is_output.numpy()] == "output").all()
        assert (table.ops[~table.node_mask] == 0).all()


def test_a_space_can_be_left_out(universal):
    without = Universal("nasbench_macro")
    assert "nasbench_macro" not in without.known and sum(without.shares) == pytest.approx(1)
    assert len(without.tables(100, np.random.default_rng(0))) == len(universal.shares) - 1
    assert "mb3_k3" not in without.ops
    with pytest.raises(InputError, match="--without"):
        Universal("nothing")


def test_portable_targets_have_the_same_columns_for_all_tables(universal, tables):
    targets, sizes = target_tables(tables, TASKS, universal.vocabulary)
    assert {target.shape[2] for target in targets} == {sum(sizes.values())}
    assert sizes.keys() == PORTABLE.keys()
    everything = torch.cat([target[table.node_mask].float() for target, table in zip(targets, tables)])
    std, mean = torch.std_mean(everything, dim=0)
    assert mean.abs().max() < 0.02 and (std - 1).abs().max() < 0.02
    assert classes(universal.vocabulary).max() <= 10


# The encoder ------------------------------------------------------------------------------------------------

def test_a_described_encoder_is_the_plain_one_of_each_vocabulary(tables, universal):
    """Its embedding, and a loss's gradient reaches the weights of the descriptions."""
    encoder = describe(build_encoder(CONFIG, len(FEATURES)), universal.vocabulary)
    plain = build_encoder(CONFIG, len(universal.ops))
    plain.load_state_dict(for_vocabulary(bare_weights(encoder), universal.vocabulary))
    masked = torch.rand(tables[0].ops.shape) < 0.3
    assert torch.allclose(encoder(tables[0], masked), plain(tables[0], masked), atol=1e-5)
    encoder.embed(tables[0]).square().mean().backward()
    assert all(p.grad is not None for name, p in encoder.named_parameters() if "relation" not in name)
    fresh = build_encoder(CONFIG, len(FEATURES))
    fresh.load_state_dict(bare_weights(encoder))  # the stored form


def test_pre_training_goes_on_after_a_kill_and_any_space_starts_from_it(tmp_path):
    def weights(folder, *flags):
        pretrain.main([*TINY, "--save", str(tmp_path / folder), *flags])
        return torch.load(tmp_path / folder / "last.pt", weights_only=True)["weights"]

    whole = weights("a", "--iterations", "12")
    weights("b", "--iterations", "6")
    again = weights("c", "--iterations", "12")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert weights("b", "--iterations", "12", "--resume").keys() == whole.keys()
    for name in ("nasbench101", "nasbench_macro"):
        space = spaces.get(name)
        content = load_encoder(str(tmp_path / "a" / "last.pt"), space)
        encoder = build_encoder(content["encoder"], len(space.ops))
        encoder.load_state_dict(content["weights"])
        assert encoder.embed(Batch.of(space.table(3, np.random.default_rng(0)))).isfinite().all()


@pytest.mark.parametrize("flags", [("--labels", "x.csv"), ("--data", "x"), ("--base_model", "gat"),
                                   ("--no-cell_marks",), ("--without", "nothing")])
def test_what_the_universal_encoder_cannot_do_is_refused(tmp_path, flags):
    with pytest.raises(InputError, match=flags[0] if "without" in flags[0] else "leave these out"):
        pretrain.main([*TINY, "--save", str(tmp_path), *flags])
    with pytest.raises(InputError, match="--without"):
        pretrain.main([*TINY, "--space", "darts", "--without", "darts", "--save", str(tmp_path)])


def test_default_is_the_own_encoder_else_the_shipped_universal_one():
    macro = spaces.get("nasbench_macro")
    content = load_networks(ROOT / "checkpoints" / "universal.pt")
    baked = for_vocabulary(content["weights"], macro.vocabulary)
    found = load_encoder("default", macro)
    assert content["ops"] == list(FEATURES) and found["ops"] == list(macro.ops)
    assert all(torch.equal(found["weights"][name], value) for name, value in baked.items())
    assert load_encoder("default", spaces.get("nasbench201"))["space"] == "nasbench201"
