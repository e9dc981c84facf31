"""What our pictures share: ink, colours, and how the operations of every space are labelled."""
from __future__ import annotations

from functools import cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

INK, FAINT, PAPER = "#24292f", "#8b949e", "#ffffff"
BLUE, TEAL, GREEN, AMBER, ROSE, VIOLET, GREY = "#4c78c8", "#2a9d9d", "#4f9e5a", "#d98f2b", "#c9566b", "#7f62b5", "#848d97"
LINES = (BLUE, AMBER, GREEN, ROSE, VIOLET, TEAL)  # one a strategy

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
