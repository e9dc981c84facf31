"""benchmarks.speed: its references compute what our encoders compute, and it reports ratios."""
from __future__ import annotations

import json
import mmap
import time

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch as SparseBatch

import spaces
from benchmarks import speed
from benchmarks import speed_references as references
from models.batch import Batch
from models.encoders import build_encoder
from runtime.errors import InputError

SPACE = spaces.get("nasbench201")
TABLE = Batch.of(SPACE.table(20, np.random.default_rng(0)))


def encoder(base_model: str) -> torch.nn.Module:
    torch.manual_seed(0)
    made = build_encoder({"base_model": base_model, **speed.SIZES[base_model]}, len(SPACE.ops)).eval()
    torch.nn.init.zeros_(made.embed_mark.weight)  # the references know one cell
    return made


def test_the_sparse_gat_is_ours():
    ours = encoder("gat")
    reference = references.SparseGAT(len(SPACE.ops), **speed.SIZES["gat"]).eval()
    weights = {name.replace("embed_op", "embed"): value.squeeze(0) if "att_" in name else value
               for name, value in ours.state_dict().items() if name != "embed_mark.weight"}
    missing = reference.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys and all("decoder" in name for name in missing.missing_keys)
    graphs = SparseBatch.from_data_list(references.sparse_graphs(TABLE, len(SPACE.ops)))
    assert torch.allclose(reference.embed_graphs(graphs), ours.embed(TABLE), atol=1e-5)


def test_the_plain_transformer_is_ours():
    ours, width = encoder("transformer"), speed.SIZES["transformer"]["width"]
    for layer in ours.layers:
        torch.nn.init.normal_(layer.gate)
    plain = references.PlainTransformer(len(SPACE.ops), **speed.SIZES["transformer"]).eval()
    plain.embed_op.weight.data = ours.embed_op.weight.data.T
    plain.norm.load_state_dict(ours.norm.state_dict())
    for mine, theirs in zip(ours.layers, plain.layers):
        for name in ("norm_attention", "norm_message", "update"):
            getattr(theirs, name).load_state_dict(getattr(mine, name).state_dict())
        theirs.attention.in_proj_weight.data = mine.query_key_value.weight.data
        theirs.attention.in_proj_bias.data = mine.query_key_value.bias.data
        theirs.attention.out_proj.load_state_dict(mine.merge.state_dict())
        theirs.relation.weight.data = mine.relation_bias.weight.data.T
        parts = zip((theirs.own, theirs.down, theirs.up), mine.message.weight.data.split(width),
                    mine.message.bias.data.split(width))
        for linear, weight, bias in parts:
            linear.weight.data, linear.bias.data = weight, bias
        theirs.gate_down.weight.data, theirs.gate_up.weight.data = mine.gate.data.split(width, 1)
    assert torch.allclose(plain(TABLE), ours(TABLE), atol=1e-5)


def test_the_plain_search_finds_the_best_of_a_smooth_table():
    points = np.random.default_rng(0).normal(size=(300, 3))
    value = -(points**2).sum(1)
    assert references.plain_search(points, value, 60, 10, 5) == value.max()


def test_it_reports_ratios_and_rates(tmp_path):
    chosen = "pretrain_gat,pretrain_transformer,finetune,mutate,mutate_darts"
    small = ["--turns", "2", "--steps", "1", "--batch_size", "16", "--epochs", "1", "--mutants", "50"]
    path = tmp_path / "speed.json"
    report = speed.main(["--only", chosen, "--threads", "1", "--device", "cpu", "--json", str(path), *small])
    record = json.loads(path.read_text())
    assert set(report) == set(chosen.split(",")) <= set(record) and record["threads"] == 1
    for name in chosen.split(","):
        row = record[name]
        ratios = [run["reference"] / run["ours"] for run in row["runs"]]
        assert len(ratios) == 2 and row["ratio_median"] == pytest.approx(np.median(ratios))
        assert row["ratio_min"] <= row["ratio_median"] <= row["ratio_max"]
        assert row["ours"] > 0 < row["reference"] and set(row["peak_mib"]) == {"ours", "reference"}


def test_memory_is_what_a_call_holds_at_most():
    def hold() -> None:
        with mmap.mmap(-1, 64 * 2**20) as fresh:  # torch may be given memory that the process has already
            fresh.write(b"1" * 64 * 2**20)
            time.sleep(0.1)

    held = speed.peak_memory(hold, torch.device("cpu"))
    assert 60 < held < 200 or not speed.resident()


def test_an_unknown_stage_is_named():
    with pytest.raises(InputError, match="no stage sprint: choose of pretrain_gat"):
        speed.main(["--only", "score,sprint"])
