"""Pictures of many points for the report (matplotlib, small PNG), and the colours of phases and cell types.

Colours: Okabe and Ito (2008) and Paul Tol's muted scheme (2021), told apart with the common colour-vision deficiencies.
Interactive plots of 100,000 points freeze browsers, so clouds of cells are flat pictures (MultiQC/MultiQC#3413).
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")  # no display on a compute node
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

GREY = "#BBBBBB"
PALE = "#E4E4E4"
TEXT = "#222222"
PHASE_COLOURS = {"PRE": "#0072B2", "RES": "#009E73", "POST": "#D55E00", "PRE-R": "#CC79A7"}
TYPE_COLOURS = {
    "B": "#332288",
    "CD4_T": "#88CCEE",
    "CD8_T": "#0072B2",
    "NK": "#44AA99",
    "Macrophage": "#117733",
    "Monocyte": "#AA4499",
    "DC": "#882255",
    "Mast": "#E69F00",
    "Fibroblast": "#DDCC77",
    "Endothelial": "#999933",
    "Epithelial": "#CC6677",
    "unresolved": GREY,
}
# For patients, clusters and names that have no fixed colour, in this order.
CYCLE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#117733", "#882255",
    "#999933", "#44AA99", "#CC6677",
)  # fmt: skip
MAX_COLOURS = len(CYCLE)
PNG_COLOURS = 255  # of the indexed PNG: a third of the size of full colour, no visible difference in such pictures
DPI = 110


def plain(text: str) -> str:
    """A user's text for matplotlib, which reads `$` as the beginning of a formula."""
    return text.replace("$", r"\$")


def colours(names: Sequence[str], fixed: Mapping[str, str] | None = None) -> dict[str, str]:
    """One colour per name: the fixed one where there is one, else the next unused one of the cycle."""
    fixed = dict(fixed or {})
    free = [c for c in CYCLE if c not in {fixed[n] for n in names if n in fixed}] or list(CYCLE)
    made, taken = {}, 0
    for name in names:
        if name in fixed:
            made[name] = fixed[name]
        else:
            made[name] = free[taken % len(free)]
            taken += 1
    return made


def png(figure: plt.Figure) -> bytes:
    """A figure as an indexed, optimised PNG without a date or a software tag; the figure is closed."""
    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    plt.close(figure)
    raw.seek(0)
    small = io.BytesIO()
    with Image.open(raw) as image:
        image.convert("RGB").quantize(PNG_COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            small, format="PNG", optimize=True
        )
    return small.getvalue()


def data_uri(content: bytes) -> str:
    """PNG bytes as an address that needs no other file."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def drawing_order(n: int) -> np.ndarray:
    """A fixed mixing of n points, so that no group is painted over another."""
    seed = int.from_bytes(hashlib.sha256(b"drawing order").digest()[:4], "big")
    return np.random.default_rng(seed).permutation(n)


def point_size(n: int) -> float:
    """Marker area in points squared: clouds of 500 to 100,000 cells stay readable."""
    return float(np.clip(30_000 / max(n, 1), 0.6, 14.0))


def _plain_axes(axes: plt.Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#888888")


def cloud(
    xy: np.ndarray,
    labels: Sequence[str],
    palette: Mapping[str, str],
    title: str,
    names_on_cloud: bool = False,
) -> bytes:
    """A UMAP coloured by one label.

    Parameters
    ----------
    xy
        cells x 2.
    labels
        one per cell; those absent from `palette` are not drawn.
    palette
        label -> colour, in the order of the legend.
    names_on_cloud
        write each label at its median too, so that the picture can be read without colours.
    """
    labels = np.asarray(labels, dtype=object)
    figure, axes = plt.subplots(figsize=(8.2, 5.2), layout="constrained")
    order = drawing_order(len(xy))
    point = np.array([palette.get(label, GREY) for label in labels], dtype=object)
    axes.scatter(xy[order, 0], xy[order, 1], c=list(point[order]), s=point_size(len(xy)), linewidths=0, rasterized=True)
    counts = {name: int((labels == name).sum()) for name in palette}
    for name, colour in palette.items():
        if not counts[name]:
            continue
        axes.scatter([], [], c=colour, s=36, label=f"{name} (n = {counts[name]:,})")
    if names_on_cloud:
        for name in palette:
            if counts[name]:
                x, y = np.median(xy[labels == name], axis=0)
                axes.text(
                    x, y, name, ha="center", va="center", fontsize=8, color=TEXT,
                    bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
                )  # fmt: skip
    axes.set_xlabel("UMAP 1 (no unit)", color=TEXT)
    axes.set_ylabel("UMAP 2 (no unit)", color=TEXT)
    axes.set_title(f"{title}, n = {len(xy):,} cells", fontsize=11, loc="left", color=TEXT)
    _plain_axes(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8.5, ncols=1 if len(palette) <= 24 else 2)
    return png(figure)


def small_multiples(xy: np.ndarray, labels: Sequence[str], names: Sequence[str], palette: Mapping[str, str], title: str) -> bytes:
    """One small UMAP per label, its cells coloured over all others in grey: any number of labels stays readable."""
    labels = np.asarray(labels, dtype=object)
    n_columns = min(6, max(len(names), 1))
    n_rows = -(-max(len(names), 1) // n_columns)
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(1.75 * n_columns, 1.75 * n_rows + 0.5),
        squeeze=False,
        layout="constrained",
        sharex=True,
        sharey=True,
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names, strict=False):
        axes.set_axis_on()
        mine = labels == name
        axes.scatter(xy[~mine, 0], xy[~mine, 1], c=PALE, s=point_size(len(xy)) / 3, linewidths=0, rasterized=True)
        axes.scatter(
            xy[mine, 0], xy[mine, 1], c=palette.get(name, "#0072B2"), s=point_size(len(xy)) / 2, linewidths=0, rasterized=True
        )
        axes.set_title(f"{name} (n = {int(mine.sum()):,})", fontsize=8, color=TEXT)
        _plain_axes(axes)
    figure.supxlabel("UMAP 1 (no unit)", fontsize=9, color=TEXT)
    figure.supylabel("UMAP 2 (no unit)", fontsize=9, color=TEXT)
    figure.suptitle(title, fontsize=11, color=TEXT, x=0.01, ha="left")
    return png(figure)


def dot_plot(types: Sequence[str], genes: Sequence[tuple[str, str]], percent: np.ndarray, mean: np.ndarray, title: str) -> bytes:
    """Markers against cell types: dot area = % of cells positive, colour = mean log expression.

    Parameters
    ----------
    types
        rows, in order.
    genes
        columns: (type that the gene marks, gene).
    percent, mean
        types x genes; NaN where the gene was not measured (drawn as a small cross).
    """
    percent, mean = np.asarray(percent, dtype=float), np.asarray(mean, dtype=float)
    figure, axes = plt.subplots(figsize=(max(6.5, 0.235 * len(genes) + 2.6), 0.34 * len(types) + 1.9), layout="constrained")
    columns, rows = np.meshgrid(np.arange(len(genes)), np.arange(len(types)))
    known = ~np.isnan(percent)
    top = max(float(np.nanmax(mean)) if known.any() else 1.0, 1e-9)
    dots = axes.scatter(
        columns[known], rows[known], s=1.15 * percent[known] + 0.5, c=mean[known], cmap="cividis_r", vmin=0, vmax=top,
        linewidths=0.3, edgecolors="#555555",
    )  # fmt: skip
    axes.scatter(columns[~known], rows[~known], marker="x", s=8, c="#999999", linewidths=0.7)
    axes.set_xticks(np.arange(len(genes)), [gene for _, gene in genes], rotation=90, fontsize=7.5, style="italic")
    axes.set_yticks(np.arange(len(types)), list(types), fontsize=8.5)
    axes.set_ylim(len(types) - 0.4, -0.6)
    axes.set_xlim(-0.7, len(genes) - 0.3)
    for at in range(1, len(genes)):
        if genes[at][0] != genes[at - 1][0]:
            axes.axvline(at - 0.5, color="#CCCCCC", linewidth=0.7, zorder=0)
    axes.set_xlabel("marker gene, grouped by the type it marks", fontsize=9, color=TEXT)
    axes.set_ylabel("annotated cell type", fontsize=9, color=TEXT)
    axes.set_title(title, fontsize=11, loc="left", color=TEXT)
    bar = figure.colorbar(dots, ax=axes, shrink=0.8, pad=0.01)
    bar.set_label("mean ln(1 + counts per 10,000)", fontsize=8)
    bar.ax.tick_params(labelsize=7.5)
    handles = [axes.scatter([], [], s=1.15 * p + 0.5, c="#777777", label=f"{p} %") for p in (10, 50, 100)]
    figure.legend(
        handles=handles, title="cells positive (dot area)", loc="outside lower left", fontsize=7.5, title_fontsize=7.5,
        frameon=False, ncols=3,
    )  # fmt: skip
    return png(figure)
