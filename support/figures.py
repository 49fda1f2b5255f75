"""The figures of every report: one style, as PNG files and as SVG for the page.

A panel is a function that draws on one pair of axes. `png` sets panels side by side
for a file; `svg` makes one for the page, with its colors as CSS variables so that it
follows the reader's color scheme. Neither holds a date: same data, same bytes.

Needs matplotlib, which the base installation does not have.
"""

import io
import re
from collections.abc import Callable, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Panel = Callable[[Axes], None]

# Blue and orange of Okabe and Ito's palette, darkened: safe for color-blind readers.
PRIMARY, SECONDARY = "#0a66a8", "#c2570c"
INK, MUTED, GRID, PAPER = "#1a1d21", "#5c656d", "#e3e7ea", "#ffffff"
_CSS_NAMES = {
    PRIMARY: "--primary",
    SECONDARY: "--secondary",
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--chart-grid",
    PAPER: "--paper",
}
_SIZE = (4.6, 3.5)  # inches; text keeps 10 points or more on a phone
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "font.size": 10,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "lines.linewidth": 2,
    "lines.markersize": 4,
    "svg.fonttype": "none",
    "svg.hashsalt": "celeba",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


def png(panels: Sequence[Panel], size: tuple[float, float] = _SIZE) -> bytes:
    """The panels side by side on white, as a PNG of 160 dots per inch.

    Args:
      panels: what to draw.
      size: (width, height) of each panel, inches.
    """
    return _draw(panels, size, format="png", dpi=160, metadata={"Software": None})


def svg(panel: Panel, name: str, size: tuple[float, float] = _SIZE) -> str:
    """One panel as an `<svg>` element.

    Args:
      panel: what to draw.
      name: unique in the page; it keeps the ids of two figures apart.
      size: (width, height), inches.
    """
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    data = _draw([panel], size, format="svg", transparent=True, metadata=metadata)
    text = data.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = text.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)
    for prefix in (' id="', 'href="#', "url(#"):
        text = text.replace(prefix, f"{prefix}{name}-")
    for color, variable in _CSS_NAMES.items():
        text = text.replace(color, f"var({variable})")
    return text


def _draw(panels: Sequence[Panel], size: tuple[float, float], **options) -> bytes:
    with matplotlib.rc_context(_STYLE):
        figure = Figure((size[0] * len(panels), size[1]), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for draw, pair in zip(panels, axes, strict=True):
            draw(pair)
        buffer = io.BytesIO()
        figure.savefig(buffer, **options)
    return buffer.getvalue()
