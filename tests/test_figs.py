"""The pictures: layout without collisions, panels of each space, formats, Graphviz, curves, commands."""
import json
import os
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Affine2D

import spaces
from figs import architectures, curve, discovered, draw_cell, overview, predictors, style
from figs.draw_cell import Panel, alive, box_width, draw, smooth
from figs.layered import layered
from runtime.errors import InputError
from runtime.files import ROOT
from spaces import darts

NB101, NB201, DARTS = map(spaces.get, ("nasbench101", "nasbench201", "darts"))
BO = darts.NAMED["GMAENAS_BO"]


def panels_of_random_cells(count):
    """Of each space: small and large graphs, dead parts, isolated boxes."""
    rng = np.random.default_rng(0)
    archs = [(space, arch) for space in (NB101, NB201, DARTS) for arch in space.sample(count, rng)]
    archs += [(NB201, (0,) * 6), (NB201, (0, 2, 3, 3, 4, 0))]
    panels = draw_cell.PANELS.get
    return [p for space, arch in archs for p in panels(space.name, draw_cell.vertex_panels)(space, arch)]


@pytest.fixture(
    scope="module", params=panels_of_random_cells(4), ids=lambda panel: f"{len(panel.boxes)} boxes")
def laid_out(request):
    panel = request.param
    sizes = np.array([(box_width(box), draw_cell.HEIGHT) for box in panel.boxes])
    return panel, sizes, layered(sizes[:, 0], draw_cell.HEIGHT, panel.arrows)


def test_boxes_do_not_touch_and_stay_within_the_picture(laid_out):
    _, sizes, layout = laid_out
    low, high = layout.center - sizes / 2, layout.center + sizes / 2
    apart = ((low[:, None] > high[None]) | (high[:, None] < low[None])).any(-1)  # [n, n]
    assert (apart | np.eye(len(sizes), dtype=bool)).all()
    assert (low > -1e-6).all() and (high < np.array(layout.size) + 1e-6).all()


def test_arrows_run_downwards_from_box_to_box_and_cross_no_other(laid_out):
    panel, sizes, layout = laid_out
    low, high, dots = layout.center - sizes / 2, layout.center + sizes / 2, Affine2D().scale(200)
    for (u, v), route in zip(panel.arrows, layout.routes):
        curve = smooth(route).transformed(dots)
        points = curve.to_polygons(closed_only=False)[0] / 200  # the curve as short lines
        assert (np.diff(points[:, 1]) <= 1e-9).all()
        ends = (layout.center[u, 0], low[u, 1]), (layout.center[v, 0], high[v, 1])
        np.testing.assert_allclose(points[[0, -1]], ends, atol=1e-6)
        others = [w for w in range(len(sizes)) if w not in (u, v)]
        inside = (points[:, None] > low[others]) & (points[:, None] < high[others])  # [points, others, 2]
        assert not inside.all(-1).any()


def test_labels_fit_into_their_boxes():
    for operation in style.LOOKS:
        assert box_width(operation) > style.text_width(draw_cell.look(operation)[0], draw_cell.POINTS) + 0.1


def test_inputs_stand_on_top_in_order_and_the_output_alone_below(laid_out):
    panel, _, layout = laid_out
    y = layout.center[:, 1]
    assert np.argmin(y) == len(y) - 1 and (y[:-1] > y[-1] + 0.1).all()
    assert np.ptp(y[panel.inputs]) < 1e-9 and y[panel.inputs[0]] == y.max()


def test_a_layout_without_need_has_no_crossing():
    """Two chains that are numbered crosswise."""
    layout = layered([1.0] * 5, 1.0, [(0, 3), (1, 2), (2, 4), (3, 4)])
    x = layout.center[:, 0]
    assert (x[0] < x[1]) == (x[3] < x[2])


def test_nasbench201_shows_operations_between_nodes_and_no_none():
    (panel,) = draw_cell.nasbench201_panels(NB201, NB201.parse("301004"))
    operations = ("nor_conv_3x3", "skip_connect", "avg_pool_3x3")
    assert panel.boxes == ["input", operations[0], "node 1", operations[1], "node 2", operations[2], "output"]
    assert panel.arrows == [(i, i + 1) for i in range(6)]


def test_darts_shows_both_cells_by_name():
    normal, reduction = draw_cell.darts_panels(DARTS, BO)
    assert (normal.title, reduction.title) == ("normal cell", "reduction cell")
    for panel, cell in ((normal, BO.normal), (reduction, BO.reduce)):
        nodes = [panel.boxes.index(name) for name in ("c(k−2)", "c(k−1)", "2", "3", "4", "5")]
        drawn = [(panel.boxes[op], nodes.index(start), nodes.index(end)) for start, op in panel.arrows
                 for source, end in panel.arrows if source == op and op not in nodes]
        assert sorted(drawn) == sorted((op, start, 2 + i // 2) for i, (op, start) in enumerate(cell))
        assert [(node, len(panel.boxes) - 1) in panel.arrows for node in nodes] == [False] * 2 + [True] * 4


def test_any_other_space_is_drawn_by_its_vertices():
    cell = NB101.parse('{"matrix": [[0,1,1],[0,0,1],[0,0,0]], "ops": ["input", "maxpool3x3", "output"]}')
    expected = Panel("", ["input", "maxpool3x3", "output"], [(0, 1), (0, 2), (1, 2)], inputs=[0])
    assert draw_cell.vertex_panels(NB101, cell) == [expected]
    two_cells = draw_cell.vertex_panels(DARTS, BO)
    assert [len(panel.boxes) for panel in two_cells] == [11, 11]
    assert two_cells[0].boxes[:2] == ["input1", "input2"]


def test_a_cell_and_its_renumbering_are_both_drawn(tmp_path, without_dot):
    """Rows depend on the wiring alone."""
    wiring, rows = [[(0, 1), (1, 2), (2, 4), (0, 3), (3, 4)], [(0, 2), (2, 3), (3, 4), (0, 1), (1, 4)]], []
    for i, edges in enumerate(wiring):
        matrix = [[int((u, v) in edges) for v in range(5)] for u in range(5)]
        operations = ["input", *["maxpool3x3"] * 3, "output"]
        cell = NB101.parse(json.dumps({"matrix": matrix, "ops": operations}))
        draw(NB101, cell, tmp_path / f"{i}.png")
        (panel,) = draw_cell.vertex_panels(NB101, cell)
        rows.append(sorted(layered([1.0] * 5, 1.0, panel.arrows).center[:, 1]))
    assert rows[0] == rows[1] and len({path.name for path in tmp_path.iterdir()}) == 2


def test_what_the_output_does_not_depend_on_is_pale():
    (panel,) = draw_cell.nasbench201_panels(NB201, NB201.parse("013002"))
    dead = [box for v, box in enumerate(panel.boxes) if v not in alive(panel)]
    assert dead == ["node 1", "nor_conv_3x3"]
    assert draw_cell.look("nor_conv_3x3", False)[1:] != draw_cell.look("nor_conv_3x3", True)[1:]


@pytest.fixture
def without_dot(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize("suffix, start", [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_name_decides_the_format(tmp_path, without_dot, suffix, start):
    draw(DARTS, BO, tmp_path / f"cell{suffix}")
    assert (tmp_path / f"cell{suffix}").read_bytes().startswith(start)


def test_a_name_of_no_picture_is_refused(tmp_path):
    with pytest.raises(InputError, match="cell.txt: the name of a picture must end in .png"):
        draw(DARTS, BO, tmp_path / "cell.txt")


def install_dot(folder, script):
    folder.mkdir()
    (folder / "dot").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "dot").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_graphviz_draws_where_it_is_installed(tmp_path, monkeypatch):
    """A `dot` that gives back the source it is given."""
    monkeypatch.setenv("PATH", install_dot(tmp_path / "bin", "cat"))
    draw(DARTS, BO, tmp_path / "cell.svg")
    source = (tmp_path / "cell.svg").read_text()
    label, fill, outline, _ = draw_cell.look("sep_conv_5x5")
    assert source.startswith("digraph") and "reduction cell" in source
    assert f'"{label}"' in source and fill in source and outline in source
    assert source.count("->") == 2 * 20


def test_a_broken_graphviz_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", install_dot(tmp_path / "bin", "exit 1"))
    draw(NB201, (3,) * 6, tmp_path / "cell.png")
    assert (tmp_path / "cell.png").read_bytes().startswith(b"\x89PNG")


def test_draw_cell_from_the_shell(tmp_path, without_dot, capsys):
    draw_cell.main(["--space", "darts", "--arch", "DARTS_V2", "--out", str(tmp_path / "v2.svg")])
    assert (tmp_path / "v2.svg").exists() and "v2.svg" in capsys.readouterr().out
    with pytest.raises(InputError, match="cannot read 'DARTS_V9'"):
        draw_cell.main(["--space", "darts", "--arch", "DARTS_V9", "--out", str(tmp_path / "v9.svg")])


@pytest.fixture
def drawn(monkeypatch):
    """The axes of the curve that is drawn last."""
    figures = []
    monkeypatch.setattr(curve, "save", lambda figure, *_, **__: figures.append(figure))
    return lambda: figures[-1].axes[0]


def test_curve_is_mean_and_deviation_of_the_best_so_far(drawn):
    runs = {"r": [[90.0, 89.0, 93.0], [91.0, 92.0, 91.5]], "ae": [[90.0, 94.0, 80.0]]}
    curve.plot(runs, "c.png", "title", optimum=95.0)
    lines = {line.get_label(): line.get_ydata() for line in drawn().lines}
    assert lines["r: 92.50 ± 0.71 (2 runs)"].tolist() == [90.5, 91.0, 92.5]
    assert lines["ae: 94.00"].tolist() == [90.0, 94.0, 94.0]
    assert lines["best in the table: 95.00"][0] == 95.0
    assert len(drawn().collections) == 2  # the band of r, the single queries of ae


def test_curve_of_a_search_that_never_improves(drawn):
    curve.plot({"r": [[90.0] * 3]}, "c.png", "flat")
    low, high = drawn().get_ylim()
    assert low < 90.0 < high


# One command per picture ------------------------------------------------------------------------------------

@pytest.mark.parametrize("picture, limit", [(overview, 300_000), (architectures, 500_000)])
def test_a_picture_of_the_readme_has_one_command(tmp_path, capsys, picture, limit):
    picture.main(["--out", str(tmp_path / "a.png")])
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) < limit and "a.png" in capsys.readouterr().out


def test_every_lettered_edge_is_the_vertex_of_its_letter():
    for columns, cells in ((architectures.nasbench201_columns(), 1), (architectures.darts_columns(), 2)):
        for drawn, encoded in zip(columns[:cells], columns[cells:], strict=True):
            edges = [edge.operation for edge in drawn.drawing.edges if edge.letter]
            assert edges == [box for box in encoded.drawing.boxes if box not in architectures.ENDS]


def test_the_legend_has_every_operation_once():
    labels = [label for _, text in architectures.legend() for label in text.split(", ")]
    assert sorted(labels) == sorted({*(label for label, _ in style.LOOKS.values()), "none"})


def test_the_four_discovered_cells_have_one_command(tmp_path):
    discovered.main(["--out", str(tmp_path)])
    names = [f"GMAENAS_{algo}_{cell}.png" for algo in ("AE", "BO") for cell in ("normal", "reduction")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def record(methods):
    """A record of two sizes; the first method is the best."""
    records = [{"method": method, "n_labels": n, "tau": {"mean": 0.8 - 0.01 * i, "std": std}}
               for n, std in ((100, 0.01), (20, None)) for i, method in enumerate(methods)]
    return {"settings": {"space": "toys"}, "ranked": "toys.csv", "records": records}


def names_in(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("count", [1, 6, 7, 12])
def test_every_predictor_is_drawn_and_at_most_six_in_a_panel(count):
    methods = [f"method {i:02}" for i in range(count)]
    panels = predictors.figure(record(methods)).axes
    assert all(len(axes.containers) == len(names_in(axes)) <= 6 for axes in panels)
    assert sorted({name for axes in panels for name in names_in(axes)}) == methods
    assert all("method 00" in names_in(axes) for axes in panels)
    assert len({axes.get_ylim() for axes in panels}) == 1


def test_names_of_predictors_stand_in_the_order_of_their_curves_and_apart():
    picture = predictors.figure(record(["gat", "ours", "xgboost", "from_darts"]))
    picture.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in picture.axes[0].texts]
    assert names_in(picture.axes[0]) == ["from_darts", "xgboost", "ours", "gat"]  # upwards
    assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))
    assert [curve.method for curve in predictors.curves_of(record(["gat", "ours"]))] == ["ours", "gat"]


def test_the_pictures_of_all_records_have_one_command(tmp_path):
    for name in ("predictor_tnasp", "predictor_nasbench201_cifar10"):
        (tmp_path / f"{name}.json").write_bytes((ROOT / "results" / f"{name}.json").read_bytes())
    predictors.main(["--records", str(tmp_path / "predictor_*.json")])
    assert len(list(tmp_path.glob("predictor_*.png"))) == 2
    with pytest.raises(InputError, match="no such file"):
        predictors.main(["--records", str(tmp_path / "none.json")])
    (tmp_path / "other.json").write_text('{"records": 3}')
    with pytest.raises(InputError, match="other.json is no record"):
        predictors.main(["--records", str(tmp_path / "other.json")])
