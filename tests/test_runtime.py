"""Settings and their precedence, seeds, device, logs, checkpoints, and how a user's mistake ends."""
import dataclasses
import importlib
import json
from dataclasses import dataclass
from types import SimpleNamespace

import nni
import pytest
import torch

import runtime
import spaces
from conftest import ROOT
from runtime import setting
from spaces import InputError


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
def parse(tmp_path):
    """Settings from flags and, where stored is given, a params file that holds it as JSON (or as the text it is)."""
    def run(*flags: str, stored=None) -> Config:
        if stored is not None:
            path = tmp_path / "p.json"
            path.write_text(stored if isinstance(stored, str) else json.dumps(stored))
            flags = ("--param", f"local:{path}", *flags)
        return runtime.parse(Config, list(flags), "about")
    return run


@pytest.fixture
def refused(parse):
    """The one-line message with which settings are refused."""
    def message(*flags: str, stored=None) -> str:
        with pytest.raises(InputError) as error:
            parse(*flags, stored=stored)
        assert "\n" not in str(error.value)
        return str(error.value)
    return message


# Precedence -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, default", [("frozen", False), ("marks", True)])
@pytest.mark.parametrize("stored", [True, False, None])
@pytest.mark.parametrize("flag", [True, False, None])
def test_a_switch_in_all_its_combinations(parse, name, default, stored, flag):
    """The flag wins where it is given, else the file where it says something, else the default."""
    flags = {True: [f"--{name}"], False: [f"--no-{name}"], None: []}[flag]
    expected = flag if flag is not None else stored if stored is not None else default
    assert getattr(parse(*flags, stored={} if stored is None else {name: stored}), name) is expected


def test_default_then_file_then_flag(parse):
    assert parse() == Config()
    stored = {"lr": 0.2, "epochs": 20}
    config = parse(stored=stored)
    assert (config.lr, config.epochs, config.loss) == (0.2, 20, "bpr")
    config = parse("--lr", "0.3", stored=stored)
    assert (config.lr, config.epochs, config.loss) == (0.3, 20, "bpr")


def test_a_flag_that_repeats_the_default_still_beats_the_file(parse):
    assert parse("--lr", "0.1", stored={"lr": 0.2}).lr == 0.1


def test_a_sweep_stands_where_a_file_stands(parse, monkeypatch):
    monkeypatch.setattr(nni, "get_next_parameter", lambda: {"lr": 0.2, "frozen": True, "epochs": 20})
    config = parse("--param", "nni", "--epochs", "30")
    assert (config.lr, config.frozen, config.epochs, config.loss) == (0.2, True, 30, "bpr")


@pytest.mark.parametrize("nothing", [{}, None])
def test_outside_a_sweep_nni_gives_the_defaults(parse, monkeypatch, nothing):
    monkeypatch.setattr(nni, "get_next_parameter", lambda: nothing)
    assert parse("--param", "nni") == Config(param="nni")


# Values ---------------------------------------------------------------------------------------------------------------

def test_values_arrive_in_their_type(parse):
    config = parse("--epochs", "5", "--loss", "mse", stored={"lr": 1, "save": "there"})
    assert (config.epochs, config.loss, config.lr, config.save) == (5, "mse", 1.0, "there")
    assert type(config.lr) is float and type(config.epochs) is int


@pytest.mark.parametrize("value", [1e3, "1e3", 1000])
def test_whole_numbers_may_be_written_as_floats(parse, value):
    assert parse(stored={"epochs": value}).epochs == 1000 and type(parse(stored={"epochs": value}).epochs) is int


@pytest.mark.parametrize("stored, words", [
    ({"epochs": 3.5}, "epochs int 3.5"), ({"epochs": "many"}, "epochs 'many'"), ({"epochs": True}, "epochs True"),
    ({"epochs": None}, "epochs None"), ({"epochs": [1]}, "epochs [1]"), ('{"epochs": NaN}', "epochs nan"),
    ('{"epochs": 1e999}', "epochs inf"), ({"lr": "fast"}, "lr float 'fast'"), ({"lr": False}, "lr False"),
    ({"lr": {}}, "lr {}"), ({"frozen": 1}, "frozen true false 1"), ({"frozen": "true"}, "frozen 'true'"),
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
    assert all(word in refused(stored={"epoch": 3}) for word in ("'epoch'", "did you mean 'epochs'", "p.json"))
    assert "did you mean" not in refused(stored={"zzz": 3})


def test_an_unknown_setting_of_a_sweep_is_refused(refused, monkeypatch):
    monkeypatch.setattr(nni, "get_next_parameter", lambda: {"lrr": 0.2})
    assert all(word in refused("--param", "nni") for word in ("nni", "'lrr'", "'lr'"))


@pytest.mark.parametrize("text, word", [("{", "not JSON"), ("", "not JSON"), ("[1]", "object"), ("3", "object")])
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
        runtime.main_guard(lambda: runtime.parse(Config, flags, "about"))
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and flags[0] in lines[-1]
    assert len(lines) == 1


def test_help_tells_every_setting_and_its_default(capsys):
    with pytest.raises(SystemExit) as end:
        runtime.parse(Config, ["--help"], "about")
    text = capsys.readouterr().out
    assert end.value.code == 0
    parts = ("about", "--lr", "(default: 0.1)", "100 % of the labels", "--no-frozen", "{bpr,mse}")
    assert all(part in text for part in parts)


# Seeds and randomness -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, seeds", [
    ("7", [7]), ("0,1,2", [0, 1, 2]), ("0-3", [0, 1, 2, 3]), ("5,0-2, 9", [5, 0, 1, 2, 9]), ("4-4", [4])])
def test_seeds(text, seeds):
    assert runtime.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1,", "-1", "1.5", "5-3", "0-", "1-2-3", "2,2", "3,0-5"])
def test_seeds_that_are_none(text):
    with pytest.raises(InputError, match="--seeds"):
        runtime.parse_seeds(text)


def test_seeded_is_repeatable_and_leaves_no_trace():
    before = torch.get_rng_state()
    draws = []
    for numbers in ((1, 2), (1, 2), (2, 1), (1, 3)):
        with runtime.seeded(*numbers):
            draws.append(torch.rand(4).tolist())
    assert torch.equal(torch.get_rng_state(), before)
    assert draws[0] == draws[1] and len({tuple(draw) for draw in draws}) == 3


def test_seeds_of_all_small_pairs_differ():
    seeds = {runtime.mix(a, b) for a in range(40) for b in range(40)}
    assert len(seeds) == 1600 and all(0 <= seed < 2**63 for seed in seeds)


def test_a_generator_goes_on_where_it_was():
    device = torch.device("cpu")
    with runtime.seeded(0):
        state = runtime.rng_state()
        expected = torch.rand(3)
    with runtime.seeded(1):
        runtime.set_rng_state(state)
        assert torch.equal(torch.rand(3), expected)


def test_device():
    assert runtime.choose_device("cpu", 0) == torch.device("cpu")
    with pytest.raises(InputError, match="--device abacus"):
        runtime.choose_device("abacus", 0)


# Files ----------------------------------------------------------------------------------------------------------------

class Refuses:
    """Neither JSON nor a pickle can hold it, so a writer fails half way."""

    def __reduce__(self):
        raise RuntimeError("disk full")


@pytest.mark.parametrize("write", [runtime.write_json, lambda path, value: runtime.save_checkpoint(path, **value)],
                         ids=["json", "checkpoint"])
def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, write):
    path = tmp_path / "folder" / "file"
    write(path, {"a": 1})
    before = path.read_bytes()
    with pytest.raises((RuntimeError, TypeError)):
        write(path, {"a": 2, "b": Refuses()})
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_json_comes_back(tmp_path):
    value = {"tau": [0.1, None], "name": "ä"}
    runtime.write_json(tmp_path / "new" / "f.json", value)
    assert json.loads((tmp_path / "new" / "f.json").read_text()) == value


SPACE = spaces.get("nasbench201")
ENCODER = {"space": "nasbench201", "ops": list(SPACE.ops), "encoder": {"width": 8}, "weights": {"w": torch.arange(3.0)}}


@pytest.fixture
def checkpoint(tmp_path):
    def write(**changes):
        runtime.save_checkpoint(tmp_path / "c.pt", **{**ENCODER, **changes})
        return tmp_path / "c.pt"
    return write


def test_a_checkpoint_comes_back(checkpoint):
    content = runtime.load_checkpoint(str(checkpoint()))
    assert torch.equal(content["weights"]["w"], torch.arange(3.0)) and content["encoder"] == {"width": 8}
    assert runtime.load_encoder(str(checkpoint()), SPACE)["ops"] == list(SPACE.ops)


def no_checkpoint(path, *words: str) -> None:
    with pytest.raises(InputError) as error:
        runtime.load_encoder(str(path), SPACE)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in (str(path), *words))


def test_no_file_is_no_checkpoint(tmp_path):
    no_checkpoint(tmp_path / "absent.pt", "no checkpoint at")
    no_checkpoint(tmp_path, "no checkpoint at")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint(checkpoint, share):
    path = checkpoint()
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    no_checkpoint(path, "damaged")


@pytest.mark.parametrize("content", [b"hello", b'{"space": "darts"}', bytes(range(256))], ids=["text", "json", "bytes"])
def test_a_file_of_another_kind(tmp_path, content):
    (tmp_path / "c.pt").write_bytes(content)
    no_checkpoint(tmp_path / "c.pt", "no checkpoint of this project")


@pytest.mark.parametrize("content", [torch.ones(3), [1], {"weights": {}, "ops": [], "encoder": {}}], ids=str)
def test_a_torch_file_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    no_checkpoint(tmp_path / "c.pt", "lacks space")


def test_a_checkpoint_that_would_run_code(tmp_path):
    torch.save({**ENCODER, "extra": SimpleNamespace()}, tmp_path / "c.pt")
    no_checkpoint(tmp_path / "c.pt", "damaged or no checkpoint")


def test_a_checkpoint_of_a_space_that_has_nothing_in_common(checkpoint):
    no_checkpoint(checkpoint(space="language", ops=["input", "lstm", "output"]), "language", "nasbench201")


def test_a_predictor_is_no_encoder(checkpoint):
    no_checkpoint(checkpoint(weights=[{"w": torch.ones(1)}]), "predictor", "last.pt")


def test_a_log_is_one_json_line_an_event_and_grows(tmp_path):
    for step in (1, 2):
        log = runtime.Log(tmp_path / "run")
        log.write(step, loss=0.5)
        log.close()
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(event["step"], event["loss"]) for event in events] == [(1, 0.5), (2, 0.5)]


# How a script ends ----------------------------------------------------------------------------------------------------

def fail(error: BaseException):
    raise error


@pytest.mark.parametrize("error, code, text", [
    (InputError("no such thing"), 2, "error: no such thing\n"), (KeyboardInterrupt(), 130, "interrupted\n")])
def test_a_mistake_ends_in_one_line(capsys, error, code, text):
    with pytest.raises(SystemExit) as end:
        runtime.main_guard(lambda: fail(error))
    assert end.value.code == code and capsys.readouterr() == ("", text)


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        runtime.main_guard(lambda: 1 / 0)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_shipped_transformer_settings_are_the_defaults(stage):
    config = importlib.import_module(stage).Config
    flags = ["--param", f"local:{ROOT / 'params' / f'transformer_{stage}.json'}"]
    loaded = dataclasses.asdict(runtime.parse(config, flags, "about"))
    assert loaded == dataclasses.asdict(config()) | {"param": flags[1]}


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.json")), ids=lambda path: path.stem)
def test_every_shipped_params_file_is_read(path):
    starts = {"search": "search", "train_cifar10": "train", "pretrain": "pretrain", "transformer_pretrain": "pretrain"}
    script = next((script for start, script in starts.items() if path.stem.startswith(start)), "finetune")
    runtime.parse(importlib.import_module(script).Config, ["--param", f"local:{path}"], "about")
