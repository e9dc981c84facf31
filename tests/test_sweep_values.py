"""A value reaches the weights: every setting that a sweep's table or a params file holds, given by file, by
NNI and by flag."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nni
import numpy as np
import pytest
import torch
from conftest import ROOT

import finetune
import nni4nasbench101
import nni4nasbench301
import pretrain
import spaces

MACHINE = ["--threads", "1", "--device", "cpu"]
TINY = {"width": 8, "layers": 1, "heads": 2}
PRETRAIN = TINY | {"tasks": "mask", "iterations": 2, "batch_size": 8, "archs": 24, "dropout": 0.1,
                   "tensorboard": False}
FINETUNE = TINY | {"members": 1, "kernel_share": 0.0, "epochs": 2, "finetune_train_samples": 16}
CONTRAST, HINGE, HALF = {"tasks": "mask,contrast"}, {"loss": "hinge"}, {"child_tuning_p": 0.5}

# setting: another value than the one above or the default, and settings without which it would have nothing
# to say
OF_ENCODER = {"base_model": ("gat", {}), "width": (16, {}), "layers": (2, {}), "heads": (4, {}),
              "dropout": (0.3, {})}
OF_PRETRAINING = OF_ENCODER | {
    "lr": (1e-2, {}), "weight_decay": (0.5, {}), "warmup": (0.6, {}), "batch_size": (12, {}),
    "iterations": (3, {}), "archs": (20, {}), "tasks": ("mask,properties", {}), "mask_ratio": (0.25, {}),
    "pretrain_target": ("all", {}), "view_ratio": (0.5, CONTRAST), "temperature": (1.0, CONTRAST)}
OF_FINETUNING = {
    "lr_encoder": (1e-2, {}), "lr_predictor": (1e-2, {}), "weight_decay": (0.5, {}), "gentle_below": (0, {}),
    "warmup": (0.5, {}), "epochs": (3, {}), "finetune_batch_size": (4, {}), "dropout": (0.4, {}),
    "predictor_dropout": (0.3, {}), "loss": ("bpr", {}),
    "hinge_margin": (5.0, HINGE), "child_tuning_mode": ("D", HALF), "child_tuning_p": (0.3, {}),
    "kernel_share": (0.3, {}), "members": (2, {}), "finetune_fixed_encoder": (True, {}), "prior": ("", {})}
OF_SCRATCH = OF_FINETUNING | OF_ENCODER
del OF_SCRATCH["gentle_below"]  # it speaks of pre-trained encoders alone
STAGES = {"pretrain": OF_PRETRAINING, "finetune": OF_FINETUNING, "train": OF_SCRATCH}
CASES = [(stage, name) for stage, settings in STAGES.items() for name in settings]


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a table of 40 labels and a pre-trained encoder."""
    folder, space = tmp_path_factory.mktemp("values"), spaces.get("nasbench201")
    rng = np.random.default_rng(0)
    keys = list(dict.fromkeys(space.key(arch) for arch in space.sample(60, rng)))[:40]
    (folder / "labels.csv").write_text("arch,val_accuracy\n"
                                       + "".join(f"{key},{90 + rng.random():.4f}\n" for key in keys))
    pretrain.main([*MACHINE, "--param", local(folder / "encoder.json", PRETRAIN),
                   "--save", str(folder / "encoder")])
    return folder


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    """What was trained with a stage's settings as they are, by stage and settings; filled as it is asked
    for."""
    return {}


def local(path: Path, settings: dict) -> str:
    path.write_text(json.dumps(settings))
    return f"local:{path}"


def weights(work: Path, save: Path, stage: str, *flags: str) -> str:
    """A digest of what the stage's script trains."""
    if stage == "pretrain":
        pretrain.main([*MACHINE, *flags, "--save", str(save)])
        trained = [torch.load(save / "last.pt", weights_only=True)["weights"]]
    else:
        start = ["--model_state_dict", str(work / "encoder" / "last.pt")] if stage == "finetune" else []
        finetune.main([*MACHINE, *start, *flags, "--labels", str(work / "labels.csv"), "--save", str(save)])
        predictor = torch.load(save / "predictor.pt", weights_only=True)
        trained = predictor["weights"] + ([predictor["kernel"]["state"]] if predictor["kernel"] else [])
    digest = hashlib.sha256()
    for name, value in (item for state in trained for item in state.items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("stage, name", CASES)
def test_a_value_reaches_the_weights_from_every_source(stage, name, work, before, tmp_path, monkeypatch):
    value, context = STAGES[stage][name]
    settings = (PRETRAIN if stage == "pretrain" else FINETUNE) | context
    base = local(tmp_path / "base.json", settings)
    situation = f"{stage} {settings}"
    if situation not in before:
        before[situation] = weights(work, tmp_path / "before", stage, "--param", base)
    monkeypatch.setattr(nni, "get_next_parameter", lambda: {name: value})
    sources = {
        "flag": ["--param", base, f"--{name}", *([] if value is True else [str(value)])],
        "file": ["--param", f"{base},{local(tmp_path / 'changed.json', {name: value})}"],
        "nni": ["--param", f"{base},nni"]}
    changed = {weights(work, tmp_path / source, stage, *flags) for source, flags in sources.items()}
    assert len(changed) == 1 and before[situation] not in changed


@pytest.mark.parametrize("stage, tried", STAGES.items())
def test_no_setting_of_a_table_is_left_out_above(stage, tried):
    assert {name for script in (nni4nasbench101, nni4nasbench301)
            for name in script.TABLES[stage]} <= tried.keys()


@pytest.mark.parametrize("pattern, tried", [
    ("pretrain_*", OF_PRETRAINING), ("transformer_pretrain", OF_PRETRAINING),
    ("*finetune*", OF_FINETUNING | OF_ENCODER), ("train_nasbench*", OF_FINETUNING | OF_ENCODER)])
def test_no_setting_of_a_params_file_is_left_out_above(pattern, tried):
    files = list((ROOT / "params").glob(f"{pattern}.json"))
    assert files and {name for file in files for name in json.loads(file.read_text())} <= tried.keys()
