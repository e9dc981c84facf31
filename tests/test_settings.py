"""Settings: precedence, values, what --help says, and the contract of every --resume."""
from __future__ import annotations

import dataclasses
import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import nni
import pytest
from conftest import ROOT

import finetune
import pretrain
from models.predictor.fit import PredictorRecipe
from runtime.errors import InputError, main_guard
from runtime.settings import (
    DECIDES,
    ROLES,
    check_same,
    checked,
    fingerprint,
    headings,
    parse,
    parse_seeds,
    part,
    setting,
)


@dataclass
class Config:
    lr: float = setting(0.1, "learning rate")
    epochs: int = setting(10, "passes, 100 % of the labels each")
    loss: str = setting("bpr", "loss", ("bpr", "mse"))
    save: str = setting("runs", "folder")
    frozen: bool = setting(False, "freeze")
    marks: bool = setting(True, "mark")
    param: str = setting("default", "where settings come from")


@pytest.fixture
def read(tmp_path):
    """Settings from flags and, if `stored` is given, a params file of it: JSON, or a text as it is."""
    def run(*flags: str, stored=None) -> Config:
        if stored is not None:
            path = tmp_path / "p.json"
            path.write_text(stored if isinstance(stored, str) else json.dumps(stored))
            flags = ("--param", f"local:{path}", *flags)
        return parse(Config, list(flags), "about")
    return run


@pytest.fixture
def refused(read):
    """The one-line message with which settings are refused."""
    def message(*flags: str, stored=None) -> str:
        with pytest.raises(InputError) as error:
            read(*flags, stored=stored)
        assert "\n" not in str(error.value)
        return str(error.value)
    return message


# Precedence -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, default", [("frozen", False), ("marks", True)])
@pytest.mark.parametrize("stored", [True, False, None])
@pytest.mark.parametrize("flag", [True, False, None])
def test_a_switch_in_all_its_combinations(read, name, default, stored, flag):
    """The flag wins if it is given, else the file if it says something, else the default."""
    flags = {True: [f"--{name}"], False: [f"--no-{name}"], None: []}[flag]
    expected = flag if flag is not None else stored if stored is not None else default
    assert getattr(read(*flags, stored={} if stored is None else {name: stored}), name) is expected


def test_default_then_file_then_flag(read):
    assert read() == Config()
    stored = {"lr": 0.2, "epochs": 20}
    config = read(stored=stored)
    assert (config.lr, config.epochs, config.loss) == (0.2, 20, "bpr")
    config = read("--lr", "0.3", stored=stored)
    assert (config.lr, config.epochs, config.loss) == (0.3, 20, "bpr")


def test_a_flag_that_repeats_the_default_still_beats_the_file(read):
    assert read("--lr", "0.1", stored={"lr": 0.2}).lr == 0.1


def test_a_sweep_stands_where_a_file_stands(read, monkeypatch):
    monkeypatch.setattr(nni, "get_next_parameter", lambda: {"lr": 0.2, "frozen": True, "epochs": 20})
    config = read("--param", "nni", "--epochs", "30")
    assert (config.lr, config.frozen, config.epochs, config.loss) == (0.2, True, 30, "bpr")


@pytest.mark.parametrize("nothing", [{}, None])
def test_outside_a_sweep_nni_gives_the_defaults(read, monkeypatch, nothing):
    monkeypatch.setattr(nni, "get_next_parameter", lambda: nothing)
    assert read("--param", "nni") == Config(param="nni")


# Values -----------------------------------------------------------------------------------------------------

def test_values_arrive_in_their_type(read):
    config = read("--epochs", "5", "--loss", "mse", stored={"lr": 1, "save": "there"})
    assert (config.epochs, config.loss, config.lr, config.save) == (5, "mse", 1.0, "there")
    assert type(config.lr) is float and type(config.epochs) is int


@pytest.mark.parametrize("value", [1e3, "1e3", 1000])
def test_whole_numbers_may_be_written_as_floats(read, value):
    assert read(stored={"epochs": value}).epochs == 1000
    assert type(read(stored={"epochs": value}).epochs) is int


@pytest.mark.parametrize("stored, words", [
    ({"epochs": 3.5}, "epochs int 3.5"), ({"epochs": "many"}, "epochs 'many'"),
    ({"epochs": True}, "epochs True"), ({"epochs": None}, "epochs None"), ({"epochs": [1]}, "epochs [1]"),
    ('{"epochs": NaN}', "epochs nan"), ('{"epochs": 1e999}', "epochs inf"),
    ({"lr": "fast"}, "lr float 'fast'"), ({"lr": False}, "lr False"), ({"lr": {}}, "lr {}"),
    ({"frozen": 1}, "frozen true false 1"), ({"frozen": "true"}, "frozen 'true'"),
    ({"frozen": None}, "frozen None"), ({"loss": "mae"}, "loss bpr mse 'mae'"), ({"loss": True}, "loss True"),
    ({"save": None}, "save None"), ({"save": ["a"]}, "save ['a']"), ({"save": {}}, "save {}"),
], ids=str)
def test_a_value_of_the_wrong_type_is_refused(refused, stored, words):
    message = refused(stored=stored)
    assert all(word in message for word in (*words.split(), "p.json"))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_are_finite(refused, value):
    assert "lr" in refused(f"--lr={value}")


@pytest.mark.parametrize("flag, value", [("epochs", "3.5"), ("lr", "fast"), ("loss", "mae")])
def test_a_wrong_flag_value_is_refused(refused, flag, value):
    assert all(word in refused(f"--{flag}", value) for word in (flag, f"'{value}'", "command line"))


def test_an_unknown_setting_is_named_with_its_neighbour(refused):
    assert all(word in refused(stored={"epoch": 3})
               for word in ("'epoch'", "did you mean 'epochs'", "p.json"))
    assert "did you mean" not in refused(stored={"zzz": 3})


def test_an_unknown_setting_of_a_sweep_is_refused(refused, monkeypatch):
    monkeypatch.setattr(nni, "get_next_parameter", lambda: {"lrr": 0.2})
    assert all(word in refused("--param", "nni") for word in ("nni", "'lrr'", "'lr'"))


@pytest.mark.parametrize("text, word", [("{", "not JSON"), ("", "not JSON"), ("[1]", "object"),
                                        ("3", "object")])
def test_a_file_that_holds_no_settings(refused, text, word):
    assert all(part in refused(stored=text) for part in ("p.json", word))


def test_a_missing_file_and_an_unknown_source(refused, tmp_path):
    assert str(tmp_path / "absent.json") in refused("--param", f"local:{tmp_path / 'absent.json'}")
    assert str(tmp_path) in refused("--param", f"local:{tmp_path}")
    assert "local:FILE, nni or default" in refused("--param", "absent.json")


@pytest.mark.parametrize("flags", [["--lrr", "3"], ["--ep", "3"], ["--lr"], ["stray"], ["--no-lr"]], ids=str)
def test_an_unknown_flag_ends_with_code_2_and_one_line(capsys, flags):
    """Prefixes of a flag are unknown flags too."""
    with pytest.raises(SystemExit) as end:
        main_guard(lambda: parse(Config, flags, "about"))
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and flags[0] in lines[-1]
    assert len(lines) == 1


def test_help_tells_every_setting_and_its_default(capsys):
    with pytest.raises(SystemExit) as end:
        parse(Config, ["--help"], "about")
    text = capsys.readouterr().out
    assert end.value.code == 0
    parts = ("about", "--lr", "(default: 0.1)", "100 % of the labels", "--no-frozen", "{bpr,mse}")
    assert all(part in text for part in parts)


# Seeds ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, seeds", [
    ("7", [7]), ("0,1,2", [0, 1, 2]), ("0-3", [0, 1, 2, 3]), ("5,0-2, 9", [5, 0, 1, 2, 9]), ("4-4", [4])])
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1,", "-1", "1.5", "5-3", "0-", "1-2-3", "2,2", "3,0-5"])
def test_seeds_that_are_none(text):
    with pytest.raises(InputError, match="--seeds"):
        parse_seeds(text)


# The resume contract ----------------------------------------------------------------------------------------

@dataclass
class Recipe:
    """How a cake is baked, whoever bakes it.

    No part of the heading.
    """

    eggs: int = setting(3, "eggs")
    sugar: float = setting(0.5, "sugar", role="recipe")
    oven: str = setting("gas", "what heats", role="machine")


@dataclass
class Bakery(Recipe):
    guests: int = setting(8, "guests", role="data")
    icing: str = setting("lemon", "icing")
    plate: str = setting("plates/1", "where it ends up", role="output")
    hands: int = setting(2, "hands", role="machine")
    param: str = setting("default", "where settings come from", role="output")


def test_a_fingerprint_is_the_recipe_and_the_data():
    baked = Bakery(eggs=4, plate="plates/2", hands=1, oven="wood")
    assert fingerprint(baked) == {"eggs": 4, "sugar": 0.5, "guests": 8, "icing": "lemon"}
    assert fingerprint(baked, roles=("machine",)) == {"oven": "wood", "hands": 1}
    assert fingerprint(baked, roles=tuple(ROLES)) == dataclasses.asdict(baked) and set(DECIDES) < set(ROLES)


def test_a_fingerprint_of_a_part():
    """Of what several scripts share, whatever they add; the class itself has one too."""
    assert fingerprint(Bakery(eggs=4), of=Recipe) == {"eggs": 4, "sugar": 0.5} == fingerprint(Recipe(eggs=4))
    assert fingerprint(Bakery(eggs=4), Recipe, ("machine",)) == {"oven": "gas"}


def test_a_part_is_the_shared_recipe_alone():
    found = part(Bakery(eggs=4, icing="rose"), Recipe)
    assert type(found) is Recipe and found == Recipe(eggs=4)


def test_a_role_is_declared_and_known():
    with pytest.raises(ValueError, match="'taste' is none of data, recipe, output, machine"):
        setting(1, "how it tastes", role="taste")
    assert {field.name: field.metadata["role"] for field in dataclasses.fields(Recipe)} == {
        "eggs": "recipe", "sugar": "recipe", "oven": "machine"}


def test_what_was_made_with_the_same_goes_on():
    """What was stored beside the fingerprint does not matter."""
    check_same(dataclasses.asdict(Bakery(plate="plates/2")), fingerprint(Bakery()), Path("last.pt"))


@pytest.mark.parametrize("stored, old, name", [
    ({"eggs": 4}, "4", "eggs"), ({"icing": "rose"}, "'rose'", "icing"),
    ({"guests": 9, "sugar": 1.0}, "1.0", "sugar")])
def test_what_was_made_otherwise_is_refused(stored, old, name):
    """The first difference is named, with both values, and what to do."""
    now = fingerprint(Bakery())
    with pytest.raises(InputError) as error:
        check_same(now | stored, now, Path("runs/last.pt"))
    assert str(error.value) == (f"runs/last.pt was made with {name} = {old}, not {now[name]!r}: give the "
                                "same to go on, or name another folder")


def test_a_run_from_before_a_setting_is_another():
    now = fingerprint(Bakery())
    with pytest.raises(InputError, match="made with icing = None, not 'lemon'"):
        check_same({name: value for name, value in now.items() if name != "icing"}, now, Path("last.pt"))


@pytest.mark.parametrize("config", [pretrain.Config, finetune.Config], ids=["pretrain", "finetune"])
def test_what_changes_no_result_is_no_part_of_a_fingerprint(config):
    decides = fingerprint(config())
    assert not {"save", "param", "device", "threads", "resume", "out", "tensorboard"} & set(decides)
    assert {"space", "width", "layers", "dropout", "cell_marks"} <= set(decides)


# --help -----------------------------------------------------------------------------------------------------

def helped(config_class, capsys) -> dict[str, list[str]]:
    """The names of the flags under each heading of --help, in order."""
    with pytest.raises(SystemExit) as end:
        parse(config_class, ["--help"], "about")
    assert end.value.code == 0
    found, heading = {}, None
    for line in capsys.readouterr().out.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            heading = line[:-1]
        elif flag := re.match(r"  --(\w+)", line):
            found.setdefault(heading, []).append(flag[1])
    return found


def test_flags_stand_under_their_role(capsys):
    """What is shared stands under its own docstring, between the recipe and the output."""
    found = helped(Bakery, capsys)
    assert list(found) == headings(Bakery) == [
        ROLES["data"], ROLES["recipe"], "How a cake is baked, whoever bakes it", ROLES["output"],
        ROLES["machine"]]
    assert list(found.values()) == [["guests"], ["icing"], ["eggs", "sugar"], ["plate", "param"],
                                    ["oven", "hands"]]


def test_headings_without_a_flag_are_left_out():
    assert headings(Recipe) == [ROLES["recipe"], ROLES["machine"]]


def test_the_headings_of_finetune(capsys):
    found = helped(finetune.Config, capsys)
    shared = {field.name for field in dataclasses.fields(PredictorRecipe)}
    assert set(found["How a predictor is built and fitted"]) == shared
    assert found["Self-training"] == ["unlabelled"]
    assert found[ROLES["recipe"]] == ["cell_marks"]
    assert found[ROLES["machine"]] == ["device", "threads"] and "seeds" in found[ROLES["data"]]
    flags = [flag for group in found.values() for flag in group]
    assert sorted(flags) == sorted(field.name for field in dataclasses.fields(finetune.Config))


# One value --------------------------------------------------------------------------------------------------

def test_a_value_is_checked_by_itself():
    assert checked(Config, "epochs", "1e3", "here") == 1000
    assert checked(Config, "marks", False, "here") is False
    with pytest.raises(InputError, match="here: epochs must be of type int, not 3.5"):
        checked(Config, "epochs", 3.5, "here")
    with pytest.raises(InputError, match="there: unknown setting 'epoch'; did you mean 'epochs'"):
        checked(Config, "epoch", 3, "there")


# The shipped files ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_shipped_transformer_settings_are_the_defaults(stage):
    config = importlib.import_module(stage).Config
    flags = ["--param", f"local:{ROOT / 'params' / f'transformer_{stage}.json'}"]
    loaded = dataclasses.asdict(parse(config, flags, "about"))
    assert loaded == dataclasses.asdict(config()) | {"param": flags[1]}


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.json")), ids=lambda path: path.stem)
def test_every_shipped_params_file_is_read(path):
    starts = {"search": "search", "train_cifar10": "train", "pretrain": "pretrain",
              "transformer_pretrain": "pretrain"}
    script = next((script for start, script in starts.items() if path.stem.startswith(start)), "finetune")
    parse(importlib.import_module(script).Config, ["--param", f"local:{path}"], "about")
