"""gen_json_301.py: what it writes, that kills cannot change it, that it never touches a foreign file."""
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT

import gen_json_301
import spaces
from runtime.errors import InputError
from spaces import darts
from spaces.labels.read import read_labels
from spaces.nasbench301 import Answers, Surrogate

SPACE = spaces.get("nasbench301")


class FakeSurrogate(Surrogate):
    """Accuracy and cost that depend on the cell alone."""

    name = "fake"

    def query_many(self, numbers):
        share = numbers / darts.SIZE
        return Answers((90 + share).astype(np.float32), (5000 + 1000 * share).astype(np.float32), None)


class FakeEnsemble(FakeSurrogate):
    """It also has a standard deviation, of 0 to 1 percent."""

    std_source = "its own deviation"

    def query_many(self, numbers):
        return super().query_many(numbers)._replace(std=numbers / darts.SIZE)


@pytest.fixture
def fake(monkeypatch):
    fakes = {"x.onnx": FakeSurrogate, "folder": FakeEnsemble}
    monkeypatch.setattr(gen_json_301, "open_surrogate", lambda path, space: fakes[path]())
    monkeypatch.setattr(gen_json_301, "CHUNK", 7)


def generate(path, *flags, n=40):
    gen_json_301.main(["--n", str(n), "--out", str(path), *flags])
    head, *rows = map(json.loads, path.read_text().splitlines())
    return head["header"], rows


def test_without_an_oracle_it_writes_architectures_only(tmp_path):
    header, rows = generate(tmp_path / "cells.jsonl")
    assert header == {"format": 1, "space": "nasbench301", "oracle": None, "noise": None, "seed": 0, "n": 40}
    assert all(set(row) == {"arch"} and SPACE.key(SPACE.parse(row["arch"])) == row["arch"] for row in rows)
    assert len({row["arch"] for row in rows}) == 40


def test_labels_carry_accuracy_cost_and_the_oracles_name(tmp_path, fake):
    header, rows = generate(tmp_path / "cells.jsonl", "--oracle", "x.onnx")
    val, cost, _ = FakeSurrogate().query_many(darts.numbers_of_keys([row["arch"] for row in rows]))
    assert header["oracle"] == "fake"
    assert np.allclose([row["val_accuracy"] for row in rows], val, atol=1e-5)
    assert np.allclose([row["cost"] for row in rows], cost, atol=0.05)


def test_labels_read_back_what_was_written(tmp_path, fake):
    _, rows = generate(tmp_path / "cells.jsonl", "--oracle", "x.onnx")
    table = read_labels(tmp_path / "cells.jsonl", SPACE)
    assert table.keys == [row["arch"] for row in rows]
    assert table.val.tolist() == [row["val_accuracy"] for row in rows]
    assert table.name.startswith("fake")


def test_seed_chooses_the_cells(tmp_path):
    _, rows = generate(tmp_path / "a", "--seed", "1")
    assert generate(tmp_path / "b", "--seed", "1")[1] == rows != generate(tmp_path / "c", "--seed", "2")[1]


def test_noise_is_seeded_normal_and_named(tmp_path, fake):
    _, clean = generate(tmp_path / "clean", "--oracle", "x.onnx", n=400)
    header, noisy = generate(tmp_path / "noisy", "--oracle", "x.onnx", "--noise", "0.5", n=400)
    difference = np.array([b["val_accuracy"] - a["val_accuracy"] for a, b in zip(clean, noisy)])
    assert [row["arch"] for row in clean] == [row["arch"] for row in noisy]
    assert abs(difference.mean()) < 0.1 and abs(difference.std() - 0.5) < 0.1
    assert header["noise"] == 0.5 and header["oracle"] == "fake with normal noise of 0.5 %"
    bare, _ = generate(tmp_path / "bare", "--oracle", "x.onnx", "--noise")
    assert bare["noise"] == gen_json_301.SEED_STD


def test_noise_of_no_size_is_the_oracles_own_if_it_has_one(tmp_path, fake):
    _, clean = generate(tmp_path / "clean", "--oracle", "folder", n=400)
    header, noisy = generate(tmp_path / "noisy", "--oracle", "folder", "--noise", n=400)
    std = darts.numbers_of_keys([row["arch"] for row in clean]) / darts.SIZE
    difference = np.array([b["val_accuracy"] - a["val_accuracy"] for a, b in zip(clean, noisy)]) / std
    assert abs(difference.mean()) < 0.1 and abs(difference.std() - 1) < 0.1
    assert header["noise"] == "its own deviation"
    assert header["oracle"] == "fake with normal noise of its own deviation"
    sized, _ = generate(tmp_path / "sized", "--oracle", "folder", "--noise", "0.5")
    assert sized["noise"] == 0.5 and sized["oracle"] == "fake with normal noise of 0.5 %"


@pytest.mark.parametrize("flags", [(), ("--oracle", "x.onnx", "--noise", "0.5"),
                                   ("--oracle", "folder", "--noise")])
def test_any_prefix_of_the_file_resumes_to_the_same_bytes(tmp_path, fake, flags):
    generate(tmp_path / "whole", *flags)
    whole = (tmp_path / "whole").read_bytes()
    head = whole.index(b"\n") + 1
    for kept in [0, 1, head - 1, head, head + 1, *range(head, len(whole), 331), len(whole) - 1, len(whole)]:
        (tmp_path / "killed").write_bytes(whole[:kept])
        generate(tmp_path / "killed", *flags)
        assert (tmp_path / "killed").read_bytes() == whole


def test_a_killed_process_resumes_to_the_same_bytes(tmp_path, shared_data):
    flags = ["--n", "9000", "--oracle", str(shared_data / "nasbench301_yahpo.onnx")]
    gen_json_301.main([*flags, "--out", str(tmp_path / "whole")])
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "gen_json_301.py", *flags, "--out", str(out)], cwd=ROOT,
                               stderr=subprocess.DEVNULL)
    while process.poll() is None and not (out.exists() and os.path.getsize(out) > 100_000):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert out.stat().st_size > 100_000
    gen_json_301.main([*flags, "--out", str(out)])
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_file_of_other_flags_or_content_stays_as_it_is(tmp_path):
    for content in (b"my notes", b"my notes\n", None):
        path = tmp_path / "out"
        if content is None:
            gen_json_301.main(["--n", "40", "--seed", "9", "--out", str(path)])
        else:
            path.write_bytes(content)
        before = path.read_bytes()
        complaint = "out:1: is not what these flags write: choose another or delete it"
        with pytest.raises(InputError, match=complaint):
            generate(path)
        assert path.read_bytes() == before
        path.unlink()


def test_a_damaged_row_or_a_row_too_many_is_found(tmp_path):
    path = tmp_path / "out"
    generate(path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5] + lines[6:]))
    with pytest.raises(InputError, match="out:6: is not what"):
        generate(path)
    path.write_bytes(whole + lines[1])
    with pytest.raises(InputError, match="has more than 41 lines"):
        generate(path)


@pytest.mark.parametrize("flags, complaint", [
    (["--n", "0"], "n is 1 to 100,000,000"),
    (["--n", "5", "--seed", "-1"], "a seed at least 0"),
    (["--n", "5", "--noise", "0.1"], "--noise without --oracle"),
    (["--n", "5", "--oracle", "x.onnx", "--noise", "-1"], "a standard deviation"),
    (["--n", "5", "--oracle", "x.onnx", "--noise", "inf"], "a standard deviation"),
])
def test_flags_that_make_no_sense_are_refused(tmp_path, fake, flags, complaint):
    with pytest.raises(InputError, match=complaint):
        gen_json_301.main([*flags, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_what_is_no_surrogate_is_refused(tmp_path):
    complaint = "--oracle labels.csv: give the .onnx file of the YAHPO surrogate or the folder"
    with pytest.raises(InputError, match=complaint):
        gen_json_301.main(["--n", "5", "--oracle", "labels.csv", "--out", str(tmp_path / "out")])


def test_a_missing_surrogate_or_an_unwritable_file_is_one_line_and_code_2(tmp_path):
    for flags in (["--out", str(tmp_path / "o"), "--oracle", str(tmp_path / "x.onnx")],
                  ["--out", str(tmp_path)]):
        command = [sys.executable, "gen_json_301.py", "--n", "5", *flags]
        run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        assert run.returncode == 2
        assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
