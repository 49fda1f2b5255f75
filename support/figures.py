"""The figures of every report: one style, as PNG files and as SVG for the page.

A panel is a function that draws on one pair of axes. `png` sets panels side by side
for a file; `svg` makes one for the page, with its colors as CSS variables so that it
follows the reader's color scheme. Neither holds a date: same data, same bytes.

Needs matplotlib, which the base installation does not have.
"""

import dataclasses
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
_DEFAULTS = {
    name: value
    for name, value in matplotlib.rcParamsDefault.items()
    if name != "backend"  # what draws on a notebook's screen is the notebook's
}
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


@dataclasses.dataclass(frozen=True)
class Layout:
    """Size of one panel and the room around its axes, inches.

    Room that is given saves matplotlib the search for it, half the time of a figure.
    """

    width: float
    height: float
    left: float
    right: float
    bottom: float
    top: float

    def axes(self, figure: Figure, panel: int, panels: int) -> Axes:
        """Adds the axes of one of several panels side by side."""
        place = (
            (panel * self.width + self.left) / (panels * self.width),
            self.bottom / self.height,
            (self.width - self.left - self.right) / (panels * self.width),
            (self.height - self.bottom - self.top) / self.height,
        )
        return figure.add_axes(place)


def png(panels: Sequence[Panel], layout: Layout | None = None) -> bytes:
    """The panels side by side on white, as a PNG of 160 dots per inch.

    Args:
      panels: what to draw.
      layout: of each panel; None leaves the room to matplotlib.
    """
    return _draw(panels, layout, format="png", dpi=160, metadata={"Software": None})


def svg(panel: Panel, name: str, layout: Layout | None = None) -> str:
    """One panel as an `<svg>` element.

    Args:
      panel: what to draw.
      name: unique in the page; it keeps the ids of two figures apart.
      layout: of the panel; None leaves the room to matplotlib.
    """
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    data = _draw([panel], layout, format="svg", transparent=True, metadata=metadata)
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


def _draw(panels: Sequence[Panel], layout: Layout | None, **options) -> bytes:
    count = len(panels)
    with matplotlib.rc_context():
        # Not what the user's matplotlibrc says; `rcdefaults` would read the style files
        # in their home, too.
        matplotlib.rcParams.update(_DEFAULTS | _STYLE)
        if layout is None:
            figure = Figure((_SIZE[0] * count, _SIZE[1]), layout="constrained")
            axes = figure.subplots(1, count, squeeze=False)[0]
        else:
            figure = Figure((layout.width * count, layout.height))
            axes = [layout.axes(figure, panel, count) for panel in range(count)]
        for draw, pair in zip(panels, axes, strict=True):
            draw(pair)
        buffer = io.BytesIO()
        figure.savefig(buffer, **options)
    return buffer.getvalue()
