"""Two pictures of the clones of one patient: copy-number heat map (cells x genome) and the shares of clones over phases."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from scresist import figures, keys

MAX_BYTES = 240_000  # of one picture: a report of many patients stays small
ROWS = (400, 200, 100, 50)  # rows of malignant cells in the heat map, fewer until the picture is small enough
REFERENCE_SHARE = 0.15  # of these rows, for reference cells
LEVELS = 25  # colour steps: more would only make the file larger
MAX_LEGEND = 14  # clones named in a legend


def groups_of_rows(labels: Sequence[tuple[str, str]], most: int) -> list[np.ndarray]:
    """Neighbouring rows with the same label in groups of equal size, at most about `most` groups; one row each where they fit."""
    n = len(labels)
    if n <= most:
        return [np.array([row]) for row in range(n)]
    ends = [at for at in range(1, n) if labels[at] != labels[at - 1]]
    parts = []
    for block in np.split(np.arange(n), ends):
        parts += np.array_split(block, max(1, round(len(block) * most / n)))
    return [part for part in parts if len(part)]


def heat_map(
    profile: np.ndarray,
    clone: Sequence[str],
    phase: Sequence[str],
    reference: np.ndarray,
    chromosome: Sequence[str],
    phases: Sequence[str],
    palette: Mapping[str, str],
    title: str,
) -> bytes:
    """Copy-number signal of single cells, sorted by clone, then phase; normal cells of the patient as a block above.

    With more cells than rows, neighbouring cells of one clone and phase are averaged; the title says how many stand in a row.

    Parameters
    ----------
    profile, reference
        malignant and reference cells x stored genes.
    clone, phase
        of each malignant cell, in a fixed order within a clone and phase.
    chromosome
        of each stored gene, in genome order.
    phases
        phases in order; `palette` has their colours.
    """
    for most in ROWS:
        content = _heat_map(profile, clone, phase, reference, chromosome, phases, palette, title, most)
        if len(content) <= MAX_BYTES:
            break
    return content


def _heat_map(profile, clone, phase, reference, chromosome, phases, palette, title, most):
    clone, phase, chromosome = (np.asarray(values, dtype=object) for values in (clone, phase, chromosome))
    names = list(dict.fromkeys(sorted(clone, key=keys.natural)))
    place = {name: at for at, name in enumerate(names)}
    time = {name: at for at, name in enumerate(phases)}
    order = np.array(sorted(range(len(clone)), key=lambda i: (place[clone[i]], time[phase[i]], i)), dtype=int)
    label = [(clone[i], phase[i]) for i in order]
    parts = groups_of_rows(label, most)
    shown = np.vstack([profile[order[part]].mean(axis=0, dtype=np.float64) for part in parts])
    row_clone = [label[part[0]][0] for part in parts]
    row_phase = [label[part[0]][1] for part in parts]
    n_above = max(3, round(REFERENCE_SHARE * len(parts)))
    above = reference[np.linspace(0, len(reference) - 1, min(n_above, len(reference))).round().astype(int)]
    bound = max(float(np.quantile(np.abs(shown), 0.98)), 1e-6)
    of_clone = clone_colours(names, palette)

    figure, grid = plt.subplots(
        2, 3, figsize=(9.6, 5.6), layout="constrained", width_ratios=[0.018, 0.018, 1],
        height_ratios=[max(0.1, min(0.3, len(above) / max(len(parts), 1))), 1],
    )  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.02, wspace=0.005, hspace=0.01)
    cmap = ListedColormap(colormaps["RdBu_r"](np.linspace(0.02, 0.98, LEVELS)))
    for axes in (grid[0, 0], grid[0, 1]):
        axes.set_axis_off()
    top, body = grid[0, 2], grid[1, 2]
    image = None
    for axes, values in ((top, above), (body, shown)):
        image = axes.imshow(values, aspect="auto", cmap=cmap, vmin=-bound, vmax=bound, interpolation="nearest", rasterized=True)
        axes.set_yticks([])
    edges = [0, *(np.flatnonzero(chromosome[1:] != chromosome[:-1]) + 1), len(chromosome)]
    for axes in (top, body):
        for edge in edges[1:-1]:
            axes.axvline(edge - 0.5, color="#444444", linewidth=0.5)
    middle = [(a + b - 1) / 2 for a, b in itertools.pairwise(edges)]
    ticks = [chromosome[a] for a in edges[:-1]]
    # neighbouring short chromosomes on two levels, so that their numbers do not touch
    narrow = [False] * len(ticks)
    for at in range(1, len(ticks)):
        narrow[at] = not narrow[at - 1] and middle[at] - middle[at - 1] < 0.025 * len(chromosome)
    top.set_xticks([])
    body.set_xticks(middle, [f"\n{name}" if low else name for name, low in zip(ticks, narrow, strict=True)], fontsize=7.5)
    body.tick_params(axis="x", length=0)
    body.set_xlabel("place in the genome: chromosomes in order, genes evenly spaced", fontsize=8.5, color=figures.TEXT)
    top.set_ylabel("normal", fontsize=8, color=figures.TEXT)
    for column, (labels, colours_) in enumerate(((row_clone, of_clone), (row_phase, palette))):
        axes = grid[1, column]
        rgb = np.array([[_rgb(colours_[name])] for name in labels])
        axes.imshow(rgb, aspect="auto", interpolation="nearest")
        axes.set_xticks([0], [("clone", "phase")[column]], rotation=90, fontsize=7.5)
        axes.tick_params(axis="x", length=0)
        axes.set_yticks([])
    at = 0
    for name in names[:-1]:
        at += row_clone.count(name)
        body.axhline(at - 0.5, color="black", linewidth=0.9)
    bar = figure.colorbar(image, ax=grid[:, 2], shrink=0.7, pad=0.01, aspect=30)
    bar.set_label("copy-number signal (log2 expression against normal cells)", fontsize=7.5)
    bar.ax.tick_params(labelsize=7)
    per_row = "" if len(parts) == len(clone) else f"; each row: mean of about {len(clone) / len(parts):.0f} cells"
    figure.suptitle(
        f"{title}\nn = {len(clone):,} malignant cells{per_row}; above: {len(above):,} of {len(reference):,} normal cells",
        fontsize=10, x=0.01, ha="left", color=figures.TEXT,
    )  # fmt: skip
    handles = [Patch(color=of_clone[n], label=f"{n} (n = {int((clone == n).sum()):,})") for n in names[:MAX_LEGEND]]
    handles += [Patch(color=palette[p], label=f"{p} (n = {int((phase == p).sum()):,})") for p in phases if (phase == p).any()]
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 6), fontsize=7.5, frameon=False)
    return figures.png(figure)


def clone_colours(names: Sequence[str], phases: Mapping[str, str]) -> dict[str, str]:
    """A colour for each clone that no phase has, so that one picture can show both."""
    taken = {colour.upper() for colour in phases.values()}
    free = [colour for colour in figures.CYCLE if colour.upper() not in taken] or list(figures.CYCLE)
    return {name: free[at % len(free)] for at, name in enumerate(names)}


def _rgb(colour: str) -> tuple[float, float, float]:
    return tuple(int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))


def smooth_step(x: np.ndarray) -> np.ndarray:
    """0 to 1 with level ends, for streams between two phases."""
    return (1 - np.cos(np.pi * x)) / 2


def flow(shares: pd.DataFrame, timed: Sequence[str], beside: Sequence[str], palette: Mapping[str, str], title: str) -> bytes:
    """Shares of the clones: streams over the phases in time, bars for phases beside the time axis, and their intervals.

    The streams join what was measured at the phases; nothing was measured in between.

    Parameters
    ----------
    shares
        rows of `clones.shares`: clone, phase, n, N, share, ci_low, ci_high, detection_limit.
    timed, beside
        the patient's phases on the time axis, in order, and those without a place on it.
    palette
        colours of the phases, which the clones do without.
    """
    names = list(dict.fromkeys(shares["clone"]))
    colour = clone_colours(names, palette)
    value = shares.set_index(["phase", "clone"])
    total = shares.drop_duplicates("phase").set_index("phase")["N"]
    timed, beside = [p for p in timed if total.get(p, 0)], [p for p in beside if total.get(p, 0)]
    phases = [*timed, *beside]
    streams = len(phases) > 1
    figure, grid = plt.subplots(
        1, 1 + streams, figsize=(9.4 if streams else 5.6, 3.9), squeeze=False, layout="constrained", sharey=False
    )
    label = {p: f"{p}\nn = {int(total[p]):,}" for p in phases}
    if streams:
        axes = grid[0, 0]
        share = np.array([[float(value.loc[(p, name), "share"]) for p in phases] for name in names])
        upper = np.cumsum(share, axis=0)
        lower = upper - share
        x = np.linspace(0, 1, 41)
        for at, name in enumerate(names):
            for i in range(len(timed) - 1):
                low = lower[at, i] + (lower[at, i + 1] - lower[at, i]) * smooth_step(x)
                high = upper[at, i] + (upper[at, i + 1] - upper[at, i]) * smooth_step(x)
                axes.fill_between(i + x, 100 * low, 100 * high, color=colour[name], linewidth=0, alpha=0.75)
            axes.bar(np.arange(len(phases)), 100 * share[at], 0.16, 100 * lower[at], color=colour[name], edgecolor="white")
        axes.set_xticks(range(len(phases)), [label[p] for p in phases], fontsize=8)
        told = "phase of therapy, n = malignant cells" if not beside else "phase; bars apart have no place on the time axis"
        axes.set_xlabel(told, fontsize=8.5)
        axes.set_ylabel("share of malignant cells (%)", fontsize=8.5)
        axes.set_ylim(0, 100)
        axes.set_xlim(-0.3, len(phases) - 0.7)
    axes = grid[0, -1]
    step = min(0.8 / max(len(names), 1), 0.18)
    for at, name in enumerate(names):
        rows = value.xs(name, level="clone").loc[phases]
        x = np.arange(len(phases)) + (at - (len(names) - 1) / 2) * step
        share = 100 * rows["share"].to_numpy(dtype=float)
        low, high = 100 * rows["ci_low"].to_numpy(dtype=float), 100 * rows["ci_high"].to_numpy(dtype=float)
        axes.errorbar(
            x, share, yerr=[np.maximum(share - low, 0), np.maximum(high - share, 0)], fmt="o", markersize=4, capsize=2,
            color=colour[name], label=name, linewidth=1.2,
        )  # fmt: skip
        absent = rows["n"].to_numpy(dtype=int) == 0
        limit = 100 * rows["detection_limit"].to_numpy(dtype=float)
        axes.scatter(x[absent], limit[absent], marker="v", s=24, facecolors="white", edgecolors=colour[name], zorder=3)
    if (shares.loc[shares["phase"].isin(phases), "n"] == 0).any():
        axes.scatter([], [], marker="v", s=24, facecolors="white", edgecolors="#555555", label="detection limit where n = 0")
    axes.set_xticks(range(len(phases)), [label[p] for p in phases], fontsize=8)
    axes.set_xlim(-0.5, len(phases) - 0.5)
    axes.set_ylim(-2, 102)
    axes.set_xlabel("phase of therapy, n = malignant cells", fontsize=8.5)
    axes.set_ylabel("share with 95 % interval (%)", fontsize=8.5)
    for panel in grid.flat:
        panel.tick_params(labelsize=8)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda at: labels[at] not in names)
    shown = [handles[at] for at in order], [labels[at] for at in order]
    figure.legend(*shown, loc="outside right upper", fontsize=7.5, frameon=False)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left", color=figures.TEXT)
    return figures.png(figure)


def note(text: str) -> bytes:
    """A small picture that says why there is no other."""
    figure = plt.figure(figsize=(6.0, 0.7))
    figure.text(0.02, 0.5, text, fontsize=9, va="center", color=figures.TEXT, wrap=True)
    return figures.png(figure)
