"""Draws the cells discovered by GMAE-NAS (AE) and GMAE-NAS (BO), as published by Jing, Xu and Li (2022).

    python -m figs.discovered --out figs

draws GMAENAS_AE_normal.png, GMAENAS_AE_reduction.png, GMAENAS_BO_normal.png and GMAENAS_BO_reduction.png.
"""
from __future__ import annotations

from dataclasses import dataclass

import spaces
from figs.draw_cell import darts_panels, matplotlib_figure
from figs.style import save
from runtime.errors import main_guard
from runtime.files import path_of
from runtime.log import output
from runtime.settings import parse, setting

NAMES = ("GMAENAS_AE", "GMAENAS_BO")
CELLS = ("normal", "reduction")


@dataclass
class Config:
    out: str = setting("figs", "folder of the four pictures", role="output")


def main(argv: list[str] | None = None) -> None:
    folder = path_of(parse(Config, argv, __doc__).out)
    space = spaces.get("darts")
    for name in NAMES:
        for cell, panel in zip(CELLS, darts_panels(space, space.parse(name))):
            path = folder / f"{name}_{cell}.png"
            save(matplotlib_figure([panel]), path)  # not Graphviz: the same picture on every machine
            output.print(f"written: {path}", highlight=False)


if __name__ == "__main__":
    main_guard(main)
