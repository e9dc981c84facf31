"""finetune.py: seeds that know nothing of each other, and runs that are killed and go on."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import finetune
import pretrain
from runtime.errors import InputError
from toys.finetune import PRETRAIN, TINY, refused

GROUPS = "0-6"  # of two groups


@pytest.fixture(scope="module")
def labels(tmp_path_factory, random_labels) -> str:
    return random_labels(tmp_path_factory.mktemp("labels") / "labels.jsonl", "nasbench201", 120)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    pretrain.main([*PRETRAIN, "--save", str(folder)])
    return str(folder / "last.pt")


def run(folder, labels: str, *flags: str) -> dict:
    return finetune.main([*TINY, "--labels", labels, "--save", str(folder), "--members", "2", "--epochs", "3",
                          "--finetune_train_samples", "32", *flags])


def weights(folder) -> dict[str, torch.Tensor]:
    """All tensors of predictor.pt."""
    content = torch.load(folder / "predictor.pt", weights_only=True)
    found = {f"{i}.{name}": value for i, member in enumerate(content["weights"])
             for name, value in member.items()}
    kernel = content["kernel"] or {"state": {}, "level": torch.zeros(0)}
    return found | kernel["state"] | {"level": kernel["level"]}


def members(folder) -> list[torch.Tensor]:
    """The weights of each member, as one vector."""
    content = torch.load(folder / "predictor.pt", weights_only=True)
    return [torch.cat([value.flatten() for value in member.values()]) for member in content["weights"]]


def same(one, other) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def facts(folder) -> dict:
    result = json.loads((folder / "result.json").read_text())
    return {name: value for name, value in result.items() if name != "seconds"}


# Independent seeds ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("flags", [
    "", "--base_model gat --kernel_share 0", "--child_tuning_p 0.5",
    "--child_tuning_p 0.5 --child_tuning_mode D", "--finetune_fixed_encoder --predictor_dropout 0.3",
    "--base_model npnas --kernel_share 0 --members 1"], ids=lambda flags: flags.replace("--", "") or "ours")
def test_a_seed_gives_the_same_alone_and_in_company(tmp_path, labels, flags):
    """To rounding: weights of a member after training, in a batch of another size."""
    alone = run(tmp_path / "alone", labels, "--seeds", "3", *flags.split())
    among = run(tmp_path / "among", labels, "--seeds", "4,3,0", *flags.split())
    assert among["tau"][1] == pytest.approx(alone["tau"][0], abs=2e-3)
    one, others = members(tmp_path / "alone"), members(tmp_path / "among")
    m = len(one)
    difference = [[(mine - other).abs().median() for other in others] for mine in one]  # [m, 3 m]
    for i in range(m):
        assert difference[i][m + i] < 1e-5 and min(difference[i][:m] + difference[i][2 * m:]) > 1e-4


def test_seeds_and_members_differ(tmp_path, labels):
    run(tmp_path / "a", labels, "--seeds", "0,1")
    members = [value for name, value in weights(tmp_path / "a").items() if name.endswith("head.8.weight")]
    assert len(members) == 4 and len({value.numpy().tobytes() for value in members}) == 4


# Killed and resumed -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole(tmp_path_factory, labels, encoder):
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(folder, labels, "--seeds", GROUPS, "--model_state_dict", encoder)
    return folder


def test_what_is_finished_is_kept_and_the_rest_goes_on_to_the_same_bytes(tmp_path, labels, encoder, whole,
                                                                         monkeypatch):
    fitted, fit = [], finetune.fit_and_teach

    def one_only(*given):
        if len(fitted) == 1:
            raise KeyboardInterrupt
        fitted.append(given[3].seeds)
        return fit(*given)

    flags = "--seeds", GROUPS, "--model_state_dict", encoder
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune, "fit_and_teach", one_only)
        run(tmp_path / "run", labels, *flags)
    assert not (tmp_path / "run" / "result.json").exists()
    monkeypatch.setattr(
        finetune, "fit_and_teach", lambda *given: fitted.append(given[3].seeds) or fit(*given))
    run(tmp_path / "run", labels, *flags, "--resume")
    assert fitted == [[0, 1, 2, 3, 4], [5, 6]]
    assert facts(tmp_path / "run") == facts(whole) and same(tmp_path / "run", whole)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        ".lock", "config.json", "log.jsonl", "predictor.pt", "result.json"}


def test_a_finished_run_is_read_and_not_repeated(labels, encoder, whole, monkeypatch, capsys):
    monkeypatch.setattr(finetune, "fit_and_teach", None)
    before = (whole / "result.json").read_bytes()
    again = run(whole, labels, "--seeds", GROUPS, "--model_state_dict", encoder, "--resume")
    assert (whole / "result.json").read_bytes() == before and again == json.loads(before)
    assert f"{again['tau_mean']:.4f}" in capsys.readouterr().out


def test_a_run_that_lost_its_last_file_gets_it_without_a_repeated_line(tmp_path, labels, encoder, whole,
                                                                       monkeypatch):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    run(tmp_path / "run", labels, "--seeds", GROUPS, "--model_state_dict", encoder, "--resume")
    assert facts(tmp_path / "run") == facts(whole) and same(tmp_path / "run", whole)
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 7


def test_a_run_is_not_overwritten(labels, encoder, whole):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    flags = "--labels", labels, "--save", str(whole), "--seeds", GROUPS
    assert "holds a run already: go on with --resume" in refused(*flags)
    assert "was made with epochs = 3, not 1" in refused(*flags, "--resume", "--model_state_dict", encoder,
                                                        "--members", "2", "--finetune_train_samples", "32")
    assert before == {path.name: path.read_bytes() for path in whole.iterdir()}


def test_content_decides_and_not_its_name(tmp_path, labels, encoder, whole):
    flags = "--seeds", GROUPS, "--resume", "--model_state_dict"
    other_name = shutil.copy(labels, tmp_path / "other.jsonl")
    again = run(whole, str(other_name), *flags, str(shutil.copy(encoder, tmp_path / "e.pt")))
    assert again == json.loads((whole / "result.json").read_text())
    changed = [json.loads(line) for line in Path(labels).read_text().splitlines()]
    changed[7]["val_accuracy"] += 0.001
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
    with pytest.raises(InputError, match="config.json was made with another content of labels"):
        run(whole, str(other_name), *flags, encoder)
    content = torch.load(encoder, weights_only=True)
    content["weights"] = {name: value + 1e-3 for name, value in content["weights"].items()}
    torch.save(content, tmp_path / "e.pt")
    with pytest.raises(InputError, match="config.json was made with another content of model_state_dict"):
        run(whole, labels, *flags, str(tmp_path / "e.pt"))


def test_a_damaged_part_is_named(tmp_path, labels, encoder, whole):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "parts").mkdir()
    (tmp_path / "run" / "parts" / "0-1-2-3-4.pt").write_bytes(b"half")
    with pytest.raises(InputError, match="0-1-2-3-4.pt is damaged"):
        run(tmp_path / "run", labels, "--seeds", GROUPS, "--model_state_dict", encoder, "--resume")


def test_scores_that_are_no_numbers_are_no_result(tmp_path, labels, monkeypatch):
    monkeypatch.setattr(finetune, "score_cells", lambda blend, table, rows: np.full((1, len(rows)), np.nan))
    with pytest.raises(InputError, match="a score is not finite"):
        run(tmp_path / "run", labels)
    assert not (tmp_path / "run" / "result.json").exists()
