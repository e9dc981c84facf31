"""What an encoder learnt about an operation goes with it to another space; what is new is said."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import spaces
from benchmarks import transfer as benchmark
from models.checkpoint import load_encoder, origins, transfer
from models.encoders import ENCODERS, build_encoder
from models.predictor.fit import Examples, encoder_of, fit_predictor
from models.predictor.self_training import TaughtRecipe
from runtime.errors import InputError
from runtime.seeding import seeded
from toys.cells import KEYS, SPACE, toy

TABLE, ROWS, LABEL, _ = toy()
NAMES_101, NAMES_201, NAMES_DARTS = (spaces.get(name).ops for name in ("nasbench101", "nasbench201", "darts"))


def checkpoint(names: tuple[str, ...], base: str = "transformer") -> dict:
    config = {"base_model": base, "width": 16, "layers": 2, "heads": 2, "dropout": 0.0}
    weights = build_encoder(config, len(names)).state_dict()
    return {"space": "somewhere", "ops": list(names), "encoder": config,
            "weights": {name: torch.randn_like(value) for name, value in weights.items()}}


def test_operations_are_found_by_name_and_by_what_they_do():
    found = dict(zip(NAMES_201, origins(NAMES_201, list(NAMES_101))))
    assert {name: NAMES_101[i] for name, i in found.items() if i is not None} == {
        "input": "input", "output": "output", "nor_conv_1x1": "conv1x1-bn-relu",
        "nor_conv_3x3": "conv3x3-bn-relu"}
    found = dict(zip(NAMES_DARTS, origins(NAMES_DARTS, list(NAMES_101))))
    assert {name: NAMES_101[i] for name, i in found.items() if i is not None} == {
        "input1": "input", "input2": "input", "output": "output", "max_pool_3x3": "maxpool3x3"}


def test_the_same_vocabulary_in_another_order_is_the_same_encoder():
    """Ids are exchanged, and the embedding of every graph stays."""
    stored, turned = checkpoint(NAMES_201), NAMES_201[::-1]
    content, new = transfer(stored, turned)
    one, other = build_encoder(stored["encoder"], 7).eval(), build_encoder(stored["encoder"], 7).eval()
    one.load_state_dict(stored["weights"])
    other.load_state_dict(content["weights"])
    table = TABLE.rows(torch.arange(20))
    renamed = table._replace(ops=(6 - table.ops.long()).to(torch.uint8))
    assert not new and torch.allclose(one.embed(table), other.embed(renamed), atol=1e-5)
    masked = torch.rand(table.node_mask.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.allclose(one(table, masked), other(renamed, masked), atol=1e-5), "the mask token goes along"


@pytest.mark.parametrize("base", ENCODERS)
@pytest.mark.parametrize("names", [NAMES_201, NAMES_DARTS], ids=["201", "darts"])
def test_every_encoder_goes_to_a_larger_vocabulary(base, names):
    stored = checkpoint(NAMES_101, base)
    content, new = transfer(stored, names)
    encoder = build_encoder(content["encoder"], len(names))
    encoder.load_state_dict(content["weights"])
    assert set(new) == {name for name, place in zip(names, origins(names, list(NAMES_101))) if place is None}
    column = names.index("output")
    assert torch.equal(content["weights"]["embed_op.weight"][:, column],
                       stored["weights"]["embed_op.weight"][:, 4])
    of_operations = {name for name in stored["weights"] if name.endswith(("embed_op.weight", "gate"))}
    assert all(torch.equal(content["weights"][name], value)
               for name, value in stored["weights"].items() if name not in of_operations)


def test_what_the_source_never_saw_is_initial():
    with seeded(3):
        stored = checkpoint(NAMES_101)
        content, _ = transfer(stored, NAMES_DARTS)
    sep = NAMES_DARTS.index("sep_conv_3x3")
    column = content["weights"]["embed_op.weight"][:, sep]
    assert not (column[:, None] == stored["weights"]["embed_op.weight"]).all(0).any()
    assert not content["weights"]["layers.0.gate"][sep].any()


def test_nothing_alike_is_refused(tmp_path):
    stored = checkpoint(("input", "lstm", "output"))
    with pytest.raises(ValueError):
        transfer(stored, NAMES_201)
    torch.save(stored, tmp_path / "last.pt")
    with pytest.raises(InputError, match="somewhere"):
        load_encoder(str(tmp_path / "last.pt"), SPACE)


def test_a_line_says_what_is_new(tmp_path, capsys):
    torch.save(checkpoint(NAMES_101), tmp_path / "last.pt")
    content = load_encoder(str(tmp_path / "last.pt"), SPACE)
    said = " ".join(capsys.readouterr().err.split())
    assert content["ops"] == list(SPACE.ops)
    assert said.endswith("new to it are none, skip_connect, avg_pool_3x3")


def test_a_predictor_goes_on_from_another(tmp_path):
    """Its members are the start, head and all: with no step worth the name they are the result too."""
    recipe = TaughtRecipe(width=16, layers=1, heads=2, epochs=2, members=2, kernel_share=0.0)
    examples = Examples(TABLE, ROWS, LABEL, [5, 6])
    ensemble = fit_predictor(recipe, SPACE.vocabulary, None, examples).ensemble
    stored = [ensemble.member(i) for i in range(4)]
    start = {"encoder": encoder_of(recipe, None), "ops": list(SPACE.ops), "weights": None, "members": stored}
    still = TaughtRecipe(members=2, epochs=1, lr_encoder=0.0, lr_predictor=0.0, kernel_share=0.5)
    blend = fit_predictor(still, SPACE.vocabulary, start, examples)
    assert blend.background.encoder is None and blend.process is not None
    for i in range(4):
        assert all(torch.equal(value, stored[i][name]) for name, value in blend.ensemble.member(i).items())


# The benchmark ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("targets", ["", "nasbench201", "nb=x.csv", "nasbench201=a.csv,darts"])
def test_targets_that_are_none(targets):
    with pytest.raises(InputError, match="SPACE"):
        benchmark.main(["--targets", targets])


def test_one_table_of_all_targets(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(TaughtRecipe, "__init__", short(TaughtRecipe.__init__))
    rng, path = np.random.default_rng(0), tmp_path / "toy.csv"
    lines = [f"{key},{a:.2f},{b:.2f}" for key, a, b in zip(KEYS[:60], *rng.uniform(50, 90, (2, 60)))]
    path.write_text("\n".join(["arch,cifar10_val_accuracy,cifar100_val_accuracy", *lines]))
    monkeypatch.setattr("benchmarks.baselines.SOURCE", 20)
    report = benchmark.main([
        "--targets", f"nasbench201={path},nasbench201/cifar100={path}", "--n_labels", "20", "--seeds", "0,1",
        "--threads", "1", "--device", "cpu", "--work", str(tmp_path / "work"), "--out",
        str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text()) == report
    one, other = report["targets"]
    assert [row["method"] for row in one["rows"]] == ["own", "from_nasbench101", "from_darts", "scratch"]
    assert [row["method"] for row in other["rows"]] == ["own", "from_nasbench101", "from_darts",
                                                        "from_cifar10", "scratch"]
    printed = capsys.readouterr().out
    assert all(f"{row['tau']['mean']:.4f}" in printed for target in report["targets"]
               for row in target["rows"])
    assert "benchmarks.transfer --targets" in report["command"]


def short(init):
    """A TaughtRecipe that trains for a moment."""
    def begin(self, *args, **settings):
        init(self, *args, **({"epochs": 1, "members": 1, "width": 16, "layers": 1} | settings))

    return begin
