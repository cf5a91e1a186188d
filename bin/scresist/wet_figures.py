"""Pictures of laboratory data: dose-response curves with their bands, stained fields by phase (matplotlib, small PNG)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")  # no display on a compute node
import matplotlib.pyplot as plt
import numpy as np

from scresist import figures
from scresist.dose_response import ABSOLUTE, HALF, Estimate, response

CURVE_POINTS = 160
MAX_PANELS = 9  # lines of one picture
MAX_CURVES = figures.MAX_COLOURS  # treatments of one panel
SHORT = 34  # characters of a name in a legend
# inches: head of the page; of a panel the margins beside it, title, axes, labels of the dose axis, a line of the legend
HEAD, LEFT, RIGHT, TITLE, AXES, BETWEEN, LINE = 0.35, 0.62, 0.12, 0.3, 2.75, 0.55, 0.19


@dataclass(frozen=True)
class Curve:
    """One curve to draw: its wells (dose, response), its estimate, the number of replicates, the words of its IC50."""

    name: str
    dose: np.ndarray
    y: np.ndarray
    made: Estimate
    n_replicates: int
    words: str


def short(text: str, most: int = SHORT) -> str:
    """A name that fits; what was cut is shown by dots."""
    return text if len(text) <= most else text[: most - 1] + "…"


def dose_curves(panels: Mapping[str, Sequence[Curve]], compound: str, unit: str, y_label: str, alpha: float) -> bytes:
    """One panel per line: wells as points, fitted curves with pointwise bands, a mark at each IC50, log dose axis.

    Parameters
    ----------
    panels
        line -> curves (one per treatment). Lines beyond MAX_PANELS are named in the title as left out.
    alpha
        of the bands (1 - alpha).
    """
    shown = list(panels)[:MAX_PANELS]
    names = list(dict.fromkeys(curve.name for line in shown for curve in panels[line]))
    palette = figures.colours(names)
    n_columns = min(3, len(shown))
    n_rows = -(-len(shown) // n_columns)
    panel = 6.4 if n_columns == 1 else 4.3
    legend = BETWEEN + LINE * min(MAX_CURVES, max(len(panels[line]) for line in shown))
    row = TITLE + AXES + legend
    width, height = panel * n_columns, HEAD + row * n_rows
    figure = plt.figure(figsize=(width, height))  # placed by hand: the automatic layout takes most of a picture's time
    for at, line in enumerate(shown):
        left, top = panel * (at % n_columns) + LEFT, height - HEAD - row * (at // n_columns) - TITLE
        axes = figure.add_axes((left / width, (top - AXES) / height, (panel - LEFT - RIGHT) / width, AXES / height))
        curves = list(panels[line])[:MAX_CURVES]
        doses = np.concatenate([curve.dose for curve in curves])
        above = doses[doses > 0]
        if not len(above):
            axes.text(0.5, 0.5, "no dose above 0", ha="center", transform=axes.transAxes, fontsize=8)
            continue
        low, high = np.log10(above.min()), np.log10(above.max())
        reach = max(high - low, 1.0)
        at_zero = low - 0.12 * reach  # dose 0 has no place on a log axis: it stands left of it
        for curve in curves:
            _draw(axes, curve, palette[curve.name], at_zero, alpha)
        if any(curve.made.kind == ABSOLUTE for curve in curves):
            axes.axhline(HALF, color="#999999", linewidth=0.7, linestyle=":", zorder=0)
        ticks = np.arange(np.ceil(low), np.floor(high) + 1)
        ticks = ticks[:: max(1, len(ticks) // 5)]
        labels = [f"{10.0**tick:g}" for tick in ticks]
        if (doses == 0).any():
            ticks, labels = np.concatenate([[at_zero], ticks]), ["0", *labels]
        axes.set_xticks(ticks, labels, fontsize=7.5)
        axes.tick_params(axis="y", labelsize=7.5)
        axes.set_xlim((at_zero if (doses == 0).any() else low) - 0.05 * reach, high + 0.05 * reach)
        axes.set_xlabel(f"dose ({figures.plain(unit)}, log axis)", fontsize=8.5, color=figures.TEXT)
        axes.set_ylabel(y_label, fontsize=8.5, color=figures.TEXT)
        left_out = f", first {MAX_CURVES} of {len(panels[line])}" if len(panels[line]) > MAX_CURVES else ""
        axes.set_title(figures.plain(short(line)) + left_out, fontsize=9.5, loc="left", color=figures.TEXT)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        below = (0.5, -BETWEEN / AXES)
        axes.legend(loc="upper center", bbox_to_anchor=below, fontsize=7, frameon=False, borderaxespad=0, labelspacing=0.4)
    left_out = f" (first {MAX_PANELS} of {len(panels)} lines)" if len(panels) > MAX_PANELS else ""
    head = {"x": 0.1 / width, "y": 1 - 0.08 / height, "ha": "left", "va": "top"}
    figure.suptitle(figures.plain(short(compound, 60)) + left_out, fontsize=11, color=figures.TEXT, **head)
    return figures.png(figure)


def _draw(axes: plt.Axes, curve: Curve, colour: str, at_zero: float, alpha: float) -> None:
    """One curve: wells, fit, band, mark."""
    with np.errstate(divide="ignore"):
        x = np.where(curve.dose > 0, np.log10(curve.dose), at_zero)
    n = f"n = {len(curve.y)} wells, {curve.n_replicates} replicate{'' if curve.n_replicates == 1 else 's'}"
    label = f"{figures.plain(short(curve.name))}: IC50 {figures.plain(curve.words)}; {n}"
    axes.scatter(x, curve.y, s=12, facecolors="none", edgecolors=colour, linewidths=0.8, alpha=0.8, label=label)
    fit = curve.made.fit
    if fit is None:
        return
    own = curve.dose[curve.dose > 0]
    along = np.linspace(np.log10(own.min()), np.log10(own.max()), CURVE_POINTS)
    height = response(along, fit.values)
    axes.plot(along, height, color=colour, linewidth=1.5)
    half = fit.band(along, alpha)
    if np.isfinite(half).all():
        axes.fill_between(along, height - half, height + half, color=colour, alpha=0.15, linewidth=0)
    if curve.made.known:
        at = np.array([curve.made.log_ic50])
        axes.scatter(at, response(at, fit.values), marker="D", s=34, color=colour, edgecolors="white", linewidths=0.8, zorder=4)


def staining_boxes(
    groups: Mapping[str, Sequence[tuple[str, np.ndarray]]], palette: Mapping[str, str], marker: str, y_label: str, words: str
) -> bytes:
    """Boxes and points of one marker.

    Parameters
    ----------
    groups
        phase -> (sample, values of its fields), in order; samples stand side by side within their phase.
    palette
        phase -> colour.
    words
        below the title: the unit that was tested and its result.
    """
    n = sum(len(samples) for samples in groups.values())
    width = float(np.clip(3.2 + 0.55 * n, 6.0, 11.0))
    figure, axes = plt.subplots(figsize=(width, 4.2), layout="constrained")
    place, ticks, labels = 0.0, [], []
    for phase, samples in groups.items():
        for sample, values in samples:
            colour = palette.get(phase, figures.GREY)
            if len(values) > 1:
                box = axes.boxplot(
                    values, positions=[place], widths=0.6, showfliers=False, patch_artist=True, manage_ticks=False,
                    medianprops={"color": figures.TEXT},
                )  # fmt: skip
                for patch in box["boxes"]:
                    patch.set(facecolor=colour, alpha=0.3, edgecolor=colour)
            # points side by side in their order: a fixed spread, so that equal data are an equal picture
            spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(1)
            axes.scatter(place + spread, np.sort(values), s=14, color=colour, linewidths=0, zorder=3)
            ticks.append(place)
            labels.append(f"{figures.plain(short(sample, 16))}\n{figures.plain(short(phase, 10))}, n = {len(values)}")
            place += 1.0
        place += 0.5
    axes.set_xticks(ticks, labels, fontsize=7, rotation=0 if n <= 6 else 60)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_ylabel(y_label, fontsize=9, color=figures.TEXT)
    axes.set_xlabel("sample and phase, n = fields", fontsize=9, color=figures.TEXT)
    told = textwrap.fill(short(words, 220), int(13 * width))
    axes.set_title(f"{figures.plain(short(marker, 40))}\n{figures.plain(told)}", fontsize=9, loc="left", color=figures.TEXT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figures.png(figure)
