"""The common style of our pictures: colours, the looks of every operation, boxes, words, arrows, saving."""
from __future__ import annotations

from functools import cache
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.textpath import TextPath

from runtime.errors import InputError
from runtime.files import atomic_write, path_of

FORMATS = (".png", ".svg", ".pdf")
INK, FAINT, PAPER = "#24292f", "#8b949e", "#ffffff"
BLUE, TEAL, GREEN, AMBER = "#4c78c8", "#2a9d9d", "#4f9e5a", "#d98f2b"
ROSE, VIOLET, GREY = "#c9566b", "#7f62b5", "#848d97"

LOOKS = {  # operation of any space: (label, colour); any other name is its own label, in grey
    "conv3x3-bn-relu": ("conv 3×3", BLUE), "nor_conv_3x3": ("conv 3×3", BLUE),
    "conv1x1-bn-relu": ("conv 1×1", TEAL), "nor_conv_1x1": ("conv 1×1", TEAL),
    "sep_conv_3x3": ("sep 3×3", BLUE), "sep_conv_5x5": ("sep 5×5", VIOLET),
    "dil_conv_3x3": ("dil 3×3", TEAL), "dil_conv_5x5": ("dil 5×5", GREEN),
    "maxpool3x3": ("max pool", AMBER), "max_pool_3x3": ("max pool", AMBER),
    "avg_pool_3x3": ("avg pool", ROSE),
    "skip_connect": ("skip", GREY),
}


def tint(colour: str, strength: float) -> str:
    """Returns the colour mixed with white: strength 1 is the colour, 0 is white."""
    parts = (round(255 + strength * (int(colour[i:i + 2], 16) - 255)) for i in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in parts)


@cache
def text_width(text: str, points: float) -> float:
    """Returns the width of a line of text in inches."""
    outline = TextPath((0, 0), text, size=points, prop=FontProperties("DejaVu Sans"))
    return outline.get_extents().width / 72


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Returns a figure and its axes, which fill it and have inches as their unit."""
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def box(axes, center, size, fill: str, outline: str, radius: float = 0.08) -> None:
    """Draws a rounded box of size (width, height) around the centre."""
    corner = (center[0] - size[0] / 2, center[1] - size[1] / 2)
    style = f"round,pad=0,rounding_size={radius}"
    axes.add_patch(FancyBboxPatch(corner, *size, style, facecolor=fill, edgecolor=outline, lw=1.2, zorder=2))


def circle(axes, center, radius: float, fill: str, outline: str, line: str | tuple = "-") -> None:
    axes.add_patch(Circle(center, radius, facecolor=fill, edgecolor=outline, lw=1.2, ls=line, zorder=3))


def words(axes, x: float, y: float, text: str, points: float, **look) -> None:
    """Writes centred text. look: further properties of a matplotlib Text."""
    usual = {"size": points, "color": INK, "ha": "center", "va": "center_baseline", "zorder": 3}
    axes.text(x, y, text, **usual | look)


def arrow(axes, colour: str = INK, scale: float = 1.0, zorder: float = 1, **route) -> None:
    """Draws an arrow along `path=`, or straight from `posA=` to `posB=`."""
    axes.add_patch(FancyArrowPatch(**route, arrowstyle="-|>", mutation_scale=12 * scale, lw=1.5 * scale,
                                   color=colour, shrinkA=0, shrinkB=0, joinstyle="miter", zorder=zorder))


def format_of(path: Path) -> str:
    """Returns the format that the suffix names. Raises InputError unless it is one of FORMATS."""
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: the name of a picture must end in {', '.join(FORMATS)}")
    return path.suffix[1:]


def save(figure: Figure, path: str | Path, dpi: int = 200) -> None:
    """Writes the picture atomically, in the format that its suffix names."""
    path = path_of(path)
    kind = format_of(path)
    atomic_write(path, lambda file: figure.savefig(file, format=kind, dpi=dpi))
