"""What our pictures share: ink, colours, labels of the operations of every space, boxes, words, arrows, saving."""
from __future__ import annotations

from functools import cache
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.textpath import TextPath

from spaces import InputError
from spaces.cache import atomic_write

FORMATS = (".png", ".svg", ".pdf")
INK, FAINT, PAPER = "#24292f", "#8b949e", "#ffffff"
BLUE, TEAL, GREEN, AMBER = "#4c78c8", "#2a9d9d", "#4f9e5a", "#d98f2b"
ROSE, VIOLET, GREY = "#c9566b", "#7f62b5", "#848d97"

OPERATIONS = {  # operation of any space: (label, colour); a name that is not here is drawn as it is, in grey
    "conv3x3-bn-relu": ("conv 3×3", BLUE), "nor_conv_3x3": ("conv 3×3", BLUE),
    "conv1x1-bn-relu": ("conv 1×1", TEAL), "nor_conv_1x1": ("conv 1×1", TEAL),
    "sep_conv_3x3": ("sep 3×3", BLUE), "sep_conv_5x5": ("sep 5×5", VIOLET),
    "dil_conv_3x3": ("dil 3×3", TEAL), "dil_conv_5x5": ("dil 5×5", GREEN),
    "maxpool3x3": ("max pool", AMBER), "max_pool_3x3": ("max pool", AMBER), "avg_pool_3x3": ("avg pool", ROSE),
    "skip_connect": ("skip", GREY),
}


def tint(colour: str, strength: float) -> str:
    """The colour mixed with white: strength 1 is the colour, 0 is white."""
    parts = (round(255 + strength * (int(colour[i:i + 2], 16) - 255)) for i in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in parts)


@cache
def text_width(text: str, points: float) -> float:
    """Inches that a line of text takes."""
    return TextPath((0, 0), text, size=points, prop=FontProperties("DejaVu Sans")).get_extents().width / 72


def canvas(width: float, height: float) -> tuple:
    """A figure and its axes, which fill it and measure in inches."""
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def box(axes, center, size, fill: str, outline: str, radius: float = 0.08) -> None:
    """A rounded box of size (width, height) around the centre."""
    corner = (center[0] - size[0] / 2, center[1] - size[1] / 2)
    axes.add_patch(FancyBboxPatch(corner, *size, boxstyle=f"round,pad=0,rounding_size={radius}", facecolor=fill,
                                  edgecolor=outline, lw=1.2, zorder=2))


def words(axes, x: float, y: float, text: str, points: float, **look) -> None:
    """Centred text; `look` are further properties of a matplotlib Text."""
    usual = {"size": points, "color": INK, "ha": "center", "va": "center_baseline", "zorder": 3}
    axes.text(x, y, text, **usual | look)


def arrow(axes, colour: str = INK, scale: float = 1.0, zorder: float = 1, **course) -> None:
    """An arrow along `path=`, or straight from `posA=` to `posB=`."""
    axes.add_patch(FancyArrowPatch(**course, arrowstyle="-|>", mutation_scale=12 * scale, lw=1.5 * scale, color=colour,
                                   shrinkA=0, shrinkB=0, joinstyle="miter", zorder=zorder))


def format_of(path: Path) -> str:
    """The picture format that the name asks for. InputError where it is none of FORMATS."""
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: the name of a picture must end in {', '.join(FORMATS)}")
    return path.suffix[1:]


def save(figure: Figure, path: str | Path, dpi: int = 200) -> None:
    """Atomically, in the format that the name asks for."""
    path = Path(path).expanduser()
    kind = format_of(path)
    atomic_write(path, lambda file: figure.savefig(file, format=kind, dpi=dpi))
