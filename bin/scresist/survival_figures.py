"""Pictures of TEST_SURVIVAL: Kaplan-Meier curves with bands, censor ticks and numbers at risk; hazard ratios with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")  # no display on a compute node
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from scresist import figures
from scresist.survival import HIGH, LOW, MIDDLE, at_risk

CUT_COLOURS = {LOW: "#0072B2", MIDDLE: "#009E73", HIGH: "#D55E00"}
STYLES = ("-", "--", "-.", ":")  # told apart without colour too
PANELS_PER_ROW = 2
MOST_PANELS = 12
MOST_GROUPS = 6  # of one panel
LABEL = 44  # characters of a name in a picture
FOREST_ROWS = 40
# inches: head of the page; of a panel its width, margins, title, curves, axis labels, a line of numbers at risk, gap below
HEAD, PANEL_WIDTH, LEFT, RIGHT, TITLE, CURVES, BETWEEN, LINE, BELOW = 0.35, 5.0, 1.25, 0.15, 0.45, 2.5, 0.72, 0.18, 0.2


@dataclass(frozen=True)
class Panel:
    """One Kaplan-Meier figure: curves as of `survival.kaplan_meier`, times of the patients of each group, a line of results."""

    title: str
    result: str
    groups: Sequence[str]
    curves: Sequence[pd.DataFrame]
    times: Sequence[np.ndarray]


def short(text: str, most: int = LABEL) -> str:
    """A name that fits: its middle is left out."""
    return text if len(text) <= most else f"{text[: most - 14]}…{text[-12:]}"


def nothing(title: str, why: str) -> bytes:
    """A picture that says why there is none."""
    figure, axes = plt.subplots(figsize=(7.5, 1.4), layout="constrained")
    axes.set_axis_off()
    axes.text(0, 0.7, figures.plain(title), fontsize=11, color=figures.TEXT, transform=axes.transAxes)
    axes.text(0, 0.2, figures.plain(why), fontsize=9, color=figures.TEXT, transform=axes.transAxes, wrap=True)
    return figures.png(figure)


def palette(groups: Sequence[str]) -> dict[str, str]:
    """Colours of the groups: fixed for low, middle and high."""
    return figures.colours(list(groups), CUT_COLOURS)


def kaplan_meier_page(panels: Sequence[Panel], title: str, time_label: str, endpoint: str) -> bytes:
    """Up to 12 panels in two columns."""
    if not panels:
        return nothing(title, "No curve: no declared cut gave two groups.")
    panels = panels[:MOST_PANELS]
    n_columns = min(PANELS_PER_ROW, len(panels))
    rows = [panels[i : i + n_columns] for i in range(0, len(panels), n_columns)]
    risk = [LINE * max(len(panel.groups) for panel in row) for row in rows]
    width, height = PANEL_WIDTH * n_columns, HEAD + sum(TITLE + CURVES + BETWEEN + part + BELOW for part in risk)
    figure = plt.figure(figsize=(width, height))  # placed by hand: the automatic layout takes seconds for 24 axes

    def axes_at(left: float, bottom: float, wide: float, high: float) -> plt.Axes:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    top = height - HEAD
    for row, part in zip(rows, risk, strict=True):
        for column, panel in enumerate(row):
            left, wide = column * PANEL_WIDTH + LEFT, PANEL_WIDTH - LEFT - RIGHT
            curves = axes_at(left, top - TITLE - CURVES, wide, CURVES)
            _curves(curves, panel, time_label, endpoint)
            own = LINE * len(panel.groups)
            _risk_table(axes_at(left, top - TITLE - CURVES - BETWEEN - own, wide, own), curves, panel)
        top -= TITLE + CURVES + BETWEEN + part + BELOW
    figure.text(0.1 / width, 1 - 0.3 / height, figures.plain(title), fontsize=11, color=figures.TEXT)
    return figures.png(figure)


def _curves(axes: plt.Axes, panel: Panel, time_label: str, endpoint: str) -> None:
    colour = palette(panel.groups)
    longest = 0.0
    for i, (name, curve) in enumerate(zip(panel.groups, panel.curves, strict=True)):
        time, survival = curve["time"].to_numpy(), curve["survival"].to_numpy()
        low, high = curve["ci_low"].to_numpy(), curve["ci_high"].to_numpy()
        axes.fill_between(time, low, high, step="post", color=colour[name], alpha=0.15, linewidth=0)
        style = STYLES[i % len(STYLES)]
        label = figures.plain(f"{short(name, 24)} (n = {len(panel.times[i]):,}, {int(curve['events'].sum()):,} events)")
        axes.step(time, survival, where="post", color=colour[name], linestyle=style, linewidth=1.5, label=label)
        out = curve["censored"].to_numpy() > 0
        axes.plot(time[out], survival[out], "|", color=colour[name], markersize=5, markeredgewidth=0.8)
        longest = max(longest, float(time[-1]))
    axes.set_ylim(0, 1.03)
    axes.set_xlim(0, longest * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(figures.plain(time_label), fontsize=8.5, color=figures.TEXT)
    axes.set_ylabel(figures.plain(f"{endpoint} (share without event)"), fontsize=8.5, color=figures.TEXT)
    axes.set_title(figures.plain(f"{panel.title}\n{panel.result}"), fontsize=9, loc="left", color=figures.TEXT)
    axes.tick_params(labelsize=8)
    axes.legend(frameon=False, fontsize=7.5, loc="best")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _risk_table(axes: plt.Axes, above: plt.Axes, panel: Panel) -> None:
    colour = palette(panel.groups)
    ticks = [t for t in above.get_xticks() if above.get_xlim()[0] <= t <= above.get_xlim()[1]]
    for i, name in enumerate(panel.groups):
        for tick, n in zip(ticks, at_risk(panel.times[i], ticks), strict=True):
            axes.text(tick, i, f"{n:,}", ha="center", va="center", fontsize=7.5, color=colour[name])
    axes.set_xlim(above.get_xlim())
    axes.set_ylim(len(panel.groups) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks(range(len(panel.groups)), [figures.plain(short(name, 16)) for name in panel.groups], fontsize=7.5)
    axes.tick_params(axis="y", length=0, pad=14)  # the numbers at time 0 stand across the axis
    axes.set_title("number at risk", fontsize=7.5, loc="left", color=figures.TEXT, pad=2)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)


def forest(rows: pd.DataFrame, title: str) -> bytes:
    """Hazard ratios with 95 % intervals on a logarithmic axis; columns name, model, hr, ci_low, ci_high, n, events, p."""
    rows = rows[np.isfinite(rows["hr"])].head(FOREST_ROWS) if len(rows) else rows
    if rows.empty:
        return nothing(title, "No hazard ratio could be estimated; the table says why for each marker.")
    figure, axes = plt.subplots(figsize=(8.6, 0.27 * len(rows) + 1.5), layout="constrained")
    place = np.arange(len(rows))
    for model, marker, colour in (("univariate", "o", "#0072B2"), ("adjusted", "s", "#D55E00")):
        mine = (rows["model"] == model).to_numpy()
        if not mine.any():
            continue
        part = rows[mine]
        axes.hlines(place[mine], part["ci_low"], part["ci_high"], color=colour, linewidth=1.4)
        axes.plot(part["hr"], place[mine], marker, color=colour, markersize=5, label=model, linestyle="none")
    axes.axvline(1, color="#888888", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    reach = max(1.25, float(np.exp(np.abs(np.log(rows[["ci_low", "ci_high"]].to_numpy(dtype=float))).max())))
    reach = min(reach, 20.0) * 1.05  # one hopeless interval must not flatten the others
    axes.set_xlim(1 / reach, reach)
    ticks = [t for t in (0.05, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 3, 5, 10, 20) if 1 / reach <= t <= reach]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks], fontsize=8)
    axes.minorticks_off()
    axes.set_yticks(place, [figures.plain(short(name)) for name in rows["name"]], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    right = axes.secondary_yaxis("right")
    said = [
        f"{hr:.2f} ({low:.2f} to {high:.2f}), n = {n:,}, {events:,} events"
        for hr, low, high, n, events in rows[["hr", "ci_low", "ci_high", "n", "events"]].itertuples(index=False)
    ]
    right.set_yticks(place, said, fontsize=7.5)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    axes.set_xlabel("hazard ratio with 95 % interval (per standard deviation, or level against level)", fontsize=8.5)
    axes.set_title(figures.plain(title), fontsize=11, loc="left", color=figures.TEXT)
    axes.legend(frameon=False, fontsize=8, loc="best")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figures.png(figure)
