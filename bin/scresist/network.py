"""Signed co-expression network: similarity, soft threshold, topological overlap, tree.

The conventions are those of WGCNA (Zhang & Horvath 2005, Stat Appl Genet Mol Biol 4:17; Langfelder & Horvath 2008, BMC
Bioinformatics 9:559): signed network, scale-free fit over ten bins, topological overlap with denominator "min".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import linkage
from scipy.linalg import blas
from scipy.spatial.distance import squareform

POWERS = (*range(1, 11), *range(12, 31, 2))  # as hdWGCNA tries them
N_BINS = 10
FALLBACK_R2 = 0.8  # second best fit that is still taken (hdWGCNA's own limit)
NO_LOG_OF_ZERO = 1e-9  # WGCNA's addition to the frequencies


def _gram(z: np.ndarray) -> np.ndarray:
    """z.T @ z, symmetric to the last bit; half the work of a general product."""
    upper = blas.dsyrk(1.0, np.asfortranarray(z), trans=1)
    out = upper + upper.T
    out[np.diag_indices_from(out)] *= 0.5
    return np.ascontiguousarray(out)


def standardise(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and sum of squares 1.

    Raises
    ------
    ValueError
        when a column is constant.
    """
    centred = np.asarray(values, dtype=np.float64) - np.mean(values, axis=0, dtype=np.float64)
    norm = np.sqrt(np.einsum("ij,ij->j", centred, centred))
    if not (norm > 0).all():
        raise ValueError(f"{int((norm <= 0).sum())} columns are constant: they have no correlation")
    return centred / norm


def similarity(values: np.ndarray) -> np.ndarray:
    """Signed similarity s = (1 + r) / 2 of the columns of `values`, r Pearson; genes x genes in [0, 1]."""
    s = _gram(standardise(values))
    np.clip(s, -1.0, 1.0, out=s)
    s += 1.0
    s *= 0.5
    np.fill_diagonal(s, 1.0)
    return s


def scale_free_fit(k: np.ndarray) -> tuple[float, float]:
    """R2 and slope of log10(frequency + 1e-9) on log10(mean connectivity) over ten bins of equal width.

    As WGCNA's scaleFreeFitIndex: bins as R's `cut` (right-closed, the outer ends moved out by 1/1000 of the range); a bin
    without genes, or with a mean of 0, stands at its middle. NaN when all connectivities are equal.
    """
    k = np.asarray(k, dtype=np.float64)
    low, high = float(k.min()), float(k.max())
    if not high > low:
        return np.nan, np.nan
    edges = np.linspace(low, high, N_BINS + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    widened = edges.copy()
    widened[[0, -1]] = low - (high - low) / 1000, high + (high - low) / 1000
    place = np.searchsorted(widened, k, side="left") - 1
    n = np.bincount(place, minlength=N_BINS)
    total = np.bincount(place, weights=k, minlength=N_BINS)
    mean = np.divide(total, n, out=middle.copy(), where=n > 0)
    x = np.log10(np.where(mean == 0, middle, mean))
    y = np.log10(n / len(k) + NO_LOG_OF_ZERO)
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    spread = float(dy @ dy)
    return (float((dx @ dy) ** 2 / ((dx @ dx) * spread)) if spread > 0 else np.nan), slope


def soft_threshold(s: np.ndarray, powers: tuple[int, ...] = POWERS) -> pd.DataFrame:
    """Fit of the network to a scale-free one at each power.

    Parameters
    ----------
    s
        signed similarity, genes x genes.

    Returns
    -------
    `power, r2, slope, signed_r2, mean_k, median_k`; signed_r2 = -sign(slope) x r2, because at low powers r2 is high with a
    positive slope, which is the contrary of scale-free.
    """
    powers = tuple(sorted(powers))
    k = np.empty((len(powers), len(s)))
    for start in range(0, len(s), 512):  # blocks keep one small power at a time in memory
        base = s[start : start + 512]
        current, reached = np.ones_like(base), 0
        for at, power in enumerate(powers):
            while reached < power:
                current *= base
                reached += 1
            k[at, start : start + 512] = current.sum(axis=1) - 1.0  # the gene itself has similarity 1
    rows = []
    for at, power in enumerate(powers):
        r2, slope = scale_free_fit(k[at])
        rows.append((power, r2, slope, -np.sign(slope) * r2, k[at].mean(), float(np.median(k[at]))))
    return pd.DataFrame(rows, columns=["power", "r2", "slope", "signed_r2", "mean_k", "median_k"])


@dataclass(frozen=True)
class Power:
    """The power used and why: `fit` is the signed R2 asked for, None when no power reached one."""

    value: float
    fit: float | None


def choose_power(table: pd.DataFrame, wanted: float, default: float) -> Power:
    """First power whose signed R2 reaches `wanted`, else 0.8, else `default` with fit None."""
    for limit in (wanted, FALLBACK_R2) if wanted > FALLBACK_R2 else (wanted,):
        reached = table.loc[table["signed_r2"] >= limit, "power"]
        if len(reached):
            return Power(float(reached.iloc[0]), limit)
    return Power(float(default), None)


def adjacency(s: np.ndarray, power: float) -> np.ndarray:
    """a = s^power with diagonal 0."""
    a = s**power
    np.fill_diagonal(a, 0.0)
    return a


def topological_overlap(a: np.ndarray) -> np.ndarray:
    """Topological overlap (L + a) / (min(k_i, k_j) + 1 - a), L = A A; diagonal 1.

    Parameters
    ----------
    a
        adjacency, genes x genes in [0, 1], symmetric, diagonal 0.
    """
    k = a.sum(axis=1)
    overlap = _gram(a)
    overlap += a
    for row in range(len(a)):
        overlap[row] /= np.minimum(k[row], k) + 1.0 - a[row]
    np.clip(overlap, 0.0, 1.0, out=overlap)
    np.fill_diagonal(overlap, 1.0)
    return overlap


def tree(distance: np.ndarray) -> np.ndarray:
    """Average-linkage tree of a symmetric distance matrix with diagonal 0, as scipy's linkage matrix."""
    return linkage(squareform(distance, checks=False), method="average")


def leaf_positions(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order of the leaves from left to right, and for drawing of each merge its x left, x right, y left, y right, y top.

    Written without recursion: a chained tree of 5,000 leaves is deeper than Python's stack.
    """
    n = len(z) + 1
    order, stack = [], [2 * n - 2]
    while stack:
        node = int(stack.pop())
        if node < n:
            order.append(node)
        else:
            stack += [z[node - n, 1], z[node - n, 0]]
    x, y = np.empty(2 * n - 1), np.zeros(2 * n - 1)
    x[order] = np.arange(n)
    lines = np.empty((n - 1, 5))
    for at, (left, right, height, _) in enumerate(z):
        i, j = int(left), int(right)
        lines[at] = x[i], x[j], y[i], y[j], height
        x[n + at], y[n + at] = (x[i] + x[j]) / 2, height
    return np.array(order), lines
