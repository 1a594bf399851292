"""Curves as SVG that takes its colours from the page, light or dark."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib import rc_context
from matplotlib.figure import Figure

from videomac.utils.plots import draw_smoothed

# Colours that stand for the page's CSS variables, and are replaced by them.
INK, GRID, SERIES = "#010203", "#040506", ("#a10001", "#a20002", "#a30003", "#a40004", "#a50005", "#a60006")
FEW = 60
"""Points that are drawn as dots."""
VARIABLES = {INK: "--ink", GRID: "--line", **{colour: f"--c{number}" for number, colour in enumerate(SERIES)}}


@dataclass(frozen=True)
class Series:
    """One line of a chart; points that were not measured are left out."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


def chart(title: str, series: Sequence[Series], x_label: str, salt: str) -> str:
    """Draw lines: many noisy points faintly with their running mean, few points as dots, schedules as they are.

    Args:
        title: above the chart.
        series: the lines, `len(SERIES)` of them at most in different colours.
        x_label: below the chart.
        salt: distinguishes the identifiers of this chart from those of others on the page.

    Returns:
        An `<svg>` element without size, colours or scripts of its own.
    """
    # Names are shown as they are: "$" begins no formula.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "text.parse_math": False}):
        return _for_the_page(_draw(title, series, x_label), title)


def _draw(title: str, series: Sequence[Series], x_label: str) -> str:
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    figure.patch.set_alpha(0)
    axis = figure.subplots()
    axis.patch.set_alpha(0)
    many = [line for line in series if len(line.values) > FEW]
    for number, line in enumerate(series):
        colour = SERIES[number % len(SERIES)]
        if line in many and _is_noisy(line.values):
            draw_smoothed(axis, line.steps, line.values, color=colour, label=line.name)
        elif line in many:
            axis.plot(line.steps, line.values, color=colour, linewidth=2, label=line.name)
        else:
            axis.plot(line.steps, line.values, "o-", color=colour, linewidth=1.6, markersize=4, label=line.name)
    ranked = sorted(value for line in series for value in line.values)
    low, high = ranked[0], ranked[int(0.99 * (len(ranked) - 1))]
    if many and high > low:  # rare peaks would press everything else flat
        axis.set_ylim(low - 0.05 * (high - low), high + 0.08 * (high - low))
    axis.set_title(title, loc="left", color=INK, fontsize=13)
    axis.set_xlabel(x_label, color=INK, fontsize=11)
    axis.tick_params(colors=INK, labelsize=11)
    axis.grid(color=GRID, linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(GRID)
    if len(series) > 1:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=INK, fontsize=11)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _is_noisy(values: Sequence[float]) -> bool:
    """Whether a curve turns round more often than schedules do."""
    rises = [later > earlier for earlier, later in pairwise(values)]
    return sum(now != before for before, now in pairwise(rises)) > len(values) / 10


def _for_the_page(svg: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg))
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1; font-family: inherit", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)
