"""finetune.py --score: a user's cells ranked on the screen and in a file, whole, and what is refused."""
from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

import finetune
import pretrain
import spaces
from models.batch import Batch
from models.predictor.file import load_predictor
from models.predictor.fit import score_cells
from runtime.errors import main_guard
from spaces import darts
from toys.finetune import PRETRAIN, darts_labels, refused, train
from toys.labels import KEYS, SPACE, write_labels

SCORE = ["--threads", "1", "--score"]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> str:
    """Of NAS-Bench-201."""
    folder = tmp_path_factory.mktemp("predictor")
    train(folder, write_labels(folder / "toy.csv"))
    return str(folder / "predictor.pt")


def ranking(out: str) -> list[tuple[int, float, int]]:
    """(rank, score, line) of each row of the printed table."""
    lines = (line for line in out.splitlines() if re.match(r"\W*\d+\W", line))
    rows = (re.findall(r"-?\d+\.?\d*", line)[:3] for line in lines)
    return [(int(rank), float(score), int(line)) for rank, score, line in rows]


def test_cells_of_ones_own_are_ranked(tmp_path, predictor, capsys):
    cells = {1: "013422", 3: "333333", 4: "000000", 6: KEYS[0]}
    (tmp_path / "cells.txt").write_text(f"{cells[1]}\n\n {cells[3]} \n{cells[4]}\n  \n{cells[6]}")
    assert finetune.main([*SCORE, str(tmp_path / "cells.txt"), "--predictor", predictor]) is None
    rows = ranking(capsys.readouterr().out)
    _, _, blend = load_predictor(predictor, spaces.stored)
    table = Batch.of(SPACE.encode([SPACE.parse(cell) for cell in cells.values()]))
    expected = score_cells(blend, table).mean(0)
    by_line = dict(zip(cells, expected))
    assert [line for _, _, line in rows] == sorted(cells, key=by_line.get, reverse=True)
    assert [rank for rank, _, _ in rows] == [1, 2, 3, 4]
    assert [score for _, score, _ in rows] == pytest.approx([by_line[line] for _, _, line in rows], abs=1e-4)


def test_a_ranking_is_printed_whole_if_there_is_no_terminal(tmp_path, predictor, capsys):
    (tmp_path / "cells.txt").write_text(KEYS[0])
    finetune.main([*SCORE, str(tmp_path / "cells.txt"), "--predictor", predictor])
    assert KEYS[0] in capsys.readouterr().out


@pytest.mark.parametrize("marks", ["--cell_marks", "--no-cell_marks"])
def test_a_predictor_remembers_the_cell_marks(tmp_path, capsys, marks):
    """A cell pair and the same pair swapped: one score without marks, two with them."""
    train(tmp_path, darts_labels(tmp_path / "l.csv", 20), "--space", "darts", "--finetune_train_samples",
          "10", marks, "--kernel_share", "0")  # of networks alone, as the process reads the places
    normal, _, reduction = spaces.get("darts").key(darts.NAMED["GMAENAS_BO"]).partition("//")
    (tmp_path / "cells.txt").write_text(f"{normal}//{reduction}\n{reduction}//{normal}\n")
    capsys.readouterr()
    finetune.main([*SCORE, str(tmp_path / "cells.txt"), "--predictor", str(tmp_path / "predictor.pt")])
    (_, first, _), (_, second, _) = ranking(capsys.readouterr().out)
    assert (first == pytest.approx(second, abs=1.5e-4)) == (marks == "--no-cell_marks")


# --out ------------------------------------------------------------------------------------------------------

FIELDS = ["rank", "score", "line", "cell", "given"]


def written(path: Path) -> list[dict]:
    """The rows of a file that --out wrote, numbers as numbers."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {"rank": int, "score": float, "line": int, "cell": str, "given": str}
    return [{name: kinds[name](value) for name, value in row.items()} for row in rows]


def scored(folder: Path, predictor: str, text: str, out: str) -> list[dict]:
    """The rows of the file `out` for the cells in this text."""
    (folder / "cells.txt").write_text(text)
    finetune.main([*SCORE, str(folder / "cells.txt"), "--predictor", predictor, "--out", str(folder / out)])
    return written(folder / out)


every_format = pytest.mark.parametrize("out", ["scores.csv", "scores.jsonl"])


@every_format
def test_every_cell_is_written_in_rank_order(tmp_path, predictor, out, capsys):
    """More cells than a screen holds, one of them twice; `given` is the user's text, `cell` what it means."""
    cells = [*KEYS[:150], "013422", KEYS[0]]
    rows = scored(tmp_path, predictor, "\n\n".join(f" {cell}\t" for cell in cells), out)
    assert all(list(row) == FIELDS for row in rows) and [row["rank"] for row in rows] == list(range(1, 153))
    assert sorted(row["line"] for row in rows) == list(range(1, 304, 2))
    for row in rows:
        given = cells[row["line"] // 2]
        assert row["given"] == given and row["cell"] == SPACE.text(SPACE.parse(given))
    table = Batch.of(SPACE.encode([SPACE.parse(cell) for cell in cells]))
    expected = score_cells(load_predictor(predictor, spaces.stored)[2], table).mean(0)
    found = [row["score"] for row in rows]
    assert found == sorted(found, reverse=True)
    assert found == pytest.approx([expected[row["line"] // 2] for row in rows], abs=1e-6)
    assert str(tmp_path / out) in capsys.readouterr().out


def test_both_formats_say_the_same_as_the_screen(tmp_path, predictor, capsys):
    text = "\n".join(KEYS[:20])
    rows = scored(tmp_path, predictor, text, "scores.csv")
    printed = ranking(capsys.readouterr().out)
    assert [(row["rank"], pytest.approx(row["score"], abs=1e-4), row["line"]) for row in rows] == printed
    assert scored(tmp_path, predictor, text, "scores.jsonl") == rows


@pytest.fixture(scope="module")
def of_darts(tmp_path_factory) -> str:
    """A predictor of DARTS cells, whose texts are longer than a screen is wide, with commas and quotes."""
    folder = tmp_path_factory.mktemp("darts")
    train(folder, darts_labels(folder / "l.csv", 20), "--space", "darts", "--finetune_train_samples", "10")
    return str(folder / "predictor.pt")


@every_format
def test_long_cells_are_written_whole(tmp_path, of_darts, out, rng):
    """By a genotype, a key and a name: each is understood, and `cell` is the genotype."""
    space = spaces.get("darts")
    first, second = space.sample(2, rng)
    given = [space.text(first), space.key(second), "GMAENAS_BO"]
    rows = scored(tmp_path, of_darts, "\n".join(given), out)
    assert {row["line"]: row["given"] for row in rows} == dict(enumerate(given, 1))
    understood = {row["line"]: row["cell"] for row in rows}
    archs = (first, second, darts.NAMED["GMAENAS_BO"])
    assert understood == {line: space.text(arch) for line, arch in enumerate(archs, 1)}
    assert min(map(len, understood.values())) > 300
    again = [space.key(space.parse(text)) for _, text in sorted(understood.items())]
    assert again == list(map(space.key, archs))


def test_a_narrow_screen_cuts_no_file(tmp_path, predictor, monkeypatch):
    monkeypatch.setattr(finetune, "output", Console(width=20, file=io.StringIO()))
    rows = scored(tmp_path, predictor, "\n".join(KEYS[:5]), "new/scores.csv")
    assert sorted(row["cell"] for row in rows) == sorted(row["given"] for row in rows) == sorted(KEYS[:5])
    assert KEYS[0] not in finetune.output.file.getvalue(), "the case that this test is about"


def test_without_out_nothing_is_written(tmp_path, predictor):
    (tmp_path / "cells.txt").write_text(KEYS[0])
    finetune.main([*SCORE, str(tmp_path / "cells.txt"), "--predictor", predictor])
    assert [path.name for path in tmp_path.iterdir()] == ["cells.txt"]


@pytest.mark.parametrize("name", ["scores.txt", "scores", "scores.json", "scores.csv.gz"])
def test_another_suffix_is_refused_before_anything_is_scored(tmp_path, predictor, name):
    (tmp_path / "cells.txt").write_text("nonsense")
    flags = ("--score", str(tmp_path / "cells.txt"), "--predictor", predictor, "--out", str(tmp_path / name))
    message = refused(*flags)
    assert message.startswith(f"--out {tmp_path / name}:") and ".csv or .jsonl" in message
    assert not (tmp_path / name).exists()


def test_a_folder_that_cannot_be_written_ends_in_one_line(tmp_path, predictor, capsys):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SystemExit) as end:
        main_guard(lambda: scored(tmp_path, predictor, KEYS[0], "file/scores.csv"))
    assert end.value.code == 2 and re.fullmatch("error: .*file.*\n", capsys.readouterr().err)


# What is refused --------------------------------------------------------------------------------------------

def test_a_bad_cell_is_named_by_file_and_line(tmp_path, predictor):
    (tmp_path / "cells.txt").write_text("333333\n\nnonsense\n")
    message = refused("--score", str(tmp_path / "cells.txt"), "--predictor", predictor)
    assert message.startswith(f"{tmp_path / 'cells.txt'}:3:") and "nonsense" in message


def test_what_cannot_be_scored(tmp_path, predictor):
    pretrain.main(["--save", str(tmp_path / "encoder"), *PRETRAIN])
    cells, empty, absent = (str(tmp_path / name) for name in ("cells.txt", "empty.txt", "absent"))
    Path(cells).write_text("333333")
    Path(empty).write_text("\n")
    assert "--predictor" in refused("--score", cells)
    assert absent in refused("--score", absent, "--predictor", predictor)
    assert "no cell" in refused("--score", empty, "--predictor", predictor)
    assert "holds an encoder" in refused("--score", cells, "--predictor",
                                         str(tmp_path / "encoder" / "last.pt"))
    assert "no checkpoint" in refused("--score", cells, "--predictor", absent)


def test_a_binary_file_of_cells(tmp_path, predictor):
    (tmp_path / "cells.bin").write_bytes(bytes([0xff, 0xfe, 0x00, 0x80]))
    assert "cells.bin" in refused("--score", str(tmp_path / "cells.bin"), "--predictor", predictor)
