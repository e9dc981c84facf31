"""The pictures: layout without collisions, what is drawn for each space, formats, Graphviz, curve, overview."""
import os

import numpy as np
import pytest
from matplotlib.transforms import Affine2D

import spaces
from figs import curve, draw_cell, overview, style
from figs.draw_cell import Panel, alive, box_width, draw, smooth
from figs.layout import crossings, layered
from spaces import InputError, darts

NB101, NB201, DARTS = map(spaces.get, ("nasbench101", "nasbench201", "darts"))
BO = darts.NAMED["GMAENAS_BO"]


def panels_of_random_cells(count):
    """Of each space: small and large graphs, dead parts, isolated boxes."""
    rng = np.random.default_rng(0)
    archs = [(space, arch) for space in (NB101, NB201, DARTS) for arch in space.sample(count, rng)]
    archs += [(NB201, (0,) * 6), (NB201, (0, 2, 3, 3, 4, 0))]
    return [p for space, arch in archs for p in draw_cell.PANELS.get(space.name, draw_cell.vertex_panels)(space, arch)]


@pytest.fixture(scope="module", params=panels_of_random_cells(4), ids=lambda panel: f"{len(panel.boxes)} boxes")
def laid_out(request):
    panel = request.param
    sizes = np.array([(box_width(box), draw_cell.HEIGHT) for box in panel.boxes])
    return panel, sizes, layered(sizes, panel.arrows)


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
        points = smooth(route).transformed(dots).to_polygons(closed_only=False)[0] / 200  # the curve as short lines
        assert (np.diff(points[:, 1]) <= 1e-9).all()
        ends = (layout.center[u, 0], low[u, 1]), (layout.center[v, 0], high[v, 1])
        np.testing.assert_allclose(points[[0, -1]], ends, atol=1e-6)
        others = [w for w in range(len(sizes)) if w not in (u, v)]
        inside = (points[:, None] > low[others]) & (points[:, None] < high[others])  # [points, others, 2]
        assert not inside.all(-1).any()


def test_labels_fit_into_their_boxes():
    for operation in style.OPERATIONS:
        assert box_width(operation) > style.text_width(draw_cell.look(operation)[0], draw_cell.POINTS) + 0.1


def test_inputs_stand_on_top_in_order_and_the_output_alone_below(laid_out):
    panel, _, layout = laid_out
    y = layout.center[:, 1]
    assert np.argmin(y) == len(y) - 1 and (y[:-1] > y[-1] + 0.1).all()
    assert np.ptp(y[panel.inputs]) < 1e-9 and y[panel.inputs[0]] == y.max()


def test_a_layout_without_need_has_no_crossing():
    """K(2,2) crosses once whatever the order; two chains that are numbered crosswise need not."""
    assert crossings([[0, 1], [2, 3]], [(0, 2), (0, 3), (1, 2), (1, 3)]) == 1
    layout = layered([(1, 1)] * 5, [(0, 3), (1, 2), (2, 4), (3, 4)])
    x = layout.center[:, 0]
    assert (x[0] < x[1]) == (x[3] < x[2])


def test_nasbench201_shows_operations_between_nodes_and_no_none():
    (panel,) = draw_cell.nasbench201_panels(NB201, NB201.parse("301004"))
    assert panel.boxes == ["input", "nor_conv_3x3", "node 1", "skip_connect", "node 2", "avg_pool_3x3", "output"]
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
    assert [len(panel.boxes) for panel in two_cells] == [11, 11] and two_cells[0].boxes[:2] == ["input1", "input2"]


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
    assert lines["best there is: 95.00"][0] == 95.0
    assert len(drawn().collections) == 2  # the band of r, the single queries of ae


def test_curve_of_a_search_that_never_improves(drawn):
    curve.plot({"r": [[90.0] * 3]}, "c.png", "flat")
    low, high = drawn().get_ylim()
    assert low < 90.0 < high


def test_overview_is_a_picture_for_the_readme(tmp_path, capsys):
    overview.main(["--out", str(tmp_path / "overview.png")])
    content = (tmp_path / "overview.png").read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) < 300_000
