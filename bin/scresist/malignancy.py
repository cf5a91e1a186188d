"""Which epithelial cells carry copy-number changes: shifted arms of clusters, confirmed cell by cell.

A score alone cannot tell, because it measures noise too and rises as the depth of a cell falls. Here a cluster must be shifted
on whole arms, and the cell itself must lie along the profile of such a cluster further than the reference cells do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scresist import cnv, keys
from scresist.neighbours import by_size, communities, neighbour_weights

N_PCS = 20
N_NEIGHBORS = 15
RESOLUTION = 1.0
MIN_CELLS_CLUSTER = 20  # below, there is one cluster, as in CLUSTER_COHORT
MIN_CLUSTER_CELLS = 10  # methods.md, CALL_MALIGNANT: smaller clusters are not judged
MIN_EPITHELIAL_CELLS = 20
# grid of the table of sensitivity; the other thresholds are moved one at a time
ARM_SHIFTS = (1.0, 1.5, 2.0, 2.5)
MIN_SHIFTED = (1, 2, 3, 4)
THIRD_SHIFTS = (0.5, 0.75, 1.0)
CELL_QUANTILES = (0.9, 0.95, 0.99)

BOTH, CLUSTER_ONLY, CELL_ONLY, NEITHER = "cluster_and_cell", "cluster_only", "cell_only", "neither"
SMALL_CLUSTER = "cluster_too_small"
NO_CNV = "no_profile"
TOO_FEW = "too_few_cells"


@dataclass(frozen=True)
class Rule:
    """Thresholds of the call; the sources of the defaults stand in docs/methods.md."""

    arm_shift: float = cnv.ARM_SHIFT
    third_shift: float = cnv.THIRD_SHIFT
    min_shifted_arms: int = cnv.MIN_SHIFTED_ARMS
    cell_quantile: float = 0.95
    quota: float = 0.10
    reference_sd: float = 2.0


@dataclass(frozen=True)
class Evidence:
    """Arm z-scores (cells x arms with at least 40 genes) and those of thirds, of epithelial and of reference cells."""

    arms: np.ndarray
    thirds: np.ndarray
    reference_arms: np.ndarray
    names: tuple[str, ...]
    n_genes: np.ndarray


@dataclass(frozen=True)
class Call:
    """Per cell: call, basis and projection (NaN without tumour-like cluster); `clusters`: one row per cluster."""

    malignant: np.ndarray
    basis: np.ndarray
    projection: np.ndarray
    cut: float
    clusters: pd.DataFrame

    @property
    def quiet(self) -> bool:
        """Whether no cluster looks like tumour."""
        return not self.clusters["tumour_like"].any()


def evidence(arms: np.ndarray, thirds: np.ndarray, is_reference: np.ndarray, names: list[str], n_genes: np.ndarray) -> Evidence:
    """z-scores of arms and thirds against the reference cells, for the arms that may be called.

    Parameters
    ----------
    arms, thirds
        cells x arms and cells x 3 arms, means of the profile.
    is_reference
        boolean, per cell; the others are the epithelial cells.
    """
    arms, thirds = np.asarray(arms, dtype=float), np.asarray(thirds, dtype=float)
    use = np.flatnonzero(np.asarray(n_genes) >= cnv.MIN_EVENT_GENES)
    arms, thirds = arms[:, use], thirds[:, (3 * use[:, None] + np.arange(3)).ravel()]
    z = cnv.against(arms, *cnv.mean_sd(arms[is_reference]))
    third_z = cnv.against(thirds, *cnv.mean_sd(thirds[is_reference]))
    return Evidence(
        z[~is_reference], third_z[~is_reference], z[is_reference], tuple(np.array(names)[use]), np.array(n_genes)[use]
    )


def pca(profile: np.ndarray, n: int = N_PCS) -> np.ndarray:
    """Principal components of the centred profiles (cells x at most `n`), through the smaller of the two cross products.

    Exact and without random start; the sign of each component makes its largest loading positive.
    """
    x = np.asarray(profile, dtype=np.float64)
    x = x - x.mean(axis=0)
    n = min(n, x.shape[0] - 1, x.shape[1])
    if x.shape[1] <= x.shape[0]:
        _, vectors = np.linalg.eigh(x.T @ x)
        loadings = vectors[:, ::-1][:, :n]
    else:
        values, vectors = np.linalg.eigh(x @ x.T)
        scale = np.sqrt(np.maximum(values[::-1][:n], np.finfo(float).tiny))
        loadings = (x.T @ vectors[:, ::-1][:, :n]) / scale
    signs = np.sign(loadings[np.abs(loadings).argmax(axis=0), np.arange(loadings.shape[1])])
    return x @ (loadings * np.where(signs == 0, 1, signs))


def cluster(profile: np.ndarray, seed: int) -> np.ndarray:
    """Leiden clusters (resolution 1.0) of profiles: 20 components, 15 neighbours; names "0", "1", ... by size.

    Clusters of fewer than 10 cells, which cannot be judged, join the nearest one.
    """
    if len(profile) < MIN_CELLS_CLUSTER:
        return np.repeat("0", len(profile))
    space = pca(profile)
    labels = communities(neighbour_weights(space, N_NEIGHBORS), RESOLUTION, seed).astype(str)
    return by_size(absorb(space, labels)).astype(str)


def absorb(space: np.ndarray, labels: np.ndarray, minimum: int = MIN_CLUSTER_CELLS) -> np.ndarray:
    """Labels in which each cluster of fewer than `minimum` cells, the smallest first, has joined the nearest mean."""
    labels = np.asarray(labels).copy()
    while True:
        sizes = pd.Series(labels).value_counts()
        if len(sizes) == 1 or sizes.min() >= minimum:
            return labels
        small = max(sizes.index[sizes == sizes.min()], key=int)
        others = sorted(set(labels) - {small}, key=int)
        means = np.array([space[labels == name].mean(axis=0) for name in others])
        distance = ((means - space[labels == small].mean(axis=0)) ** 2).sum(axis=1)
        labels[labels == small] = others[int(distance.argmin())]


def judge(found: Evidence, clusters: np.ndarray, rule: Rule) -> pd.DataFrame:
    """One row per cluster: n_cells, n_shifted, arms (signed), judged (at least 10 cells), tumour_like."""
    rows = []
    for name in sorted(set(clusters), key=int):
        mine = clusters == name
        signs = cnv.shifted(
            found.arms[mine].mean(axis=0), found.thirds[mine].mean(axis=0), found.n_genes, rule.arm_shift, rule.third_shift
        )[0]
        judged, n_shifted = mine.sum() >= MIN_CLUSTER_CELLS, int((signs != 0).sum())
        rows.append(
            (
                name,
                int(mine.sum()),
                n_shifted,
                cnv.events(found.names, signs),
                judged,
                judged and n_shifted >= rule.min_shifted_arms,
            )
        )
    return pd.DataFrame(rows, columns=["cluster", "n_cells", "n_shifted", "arms", "judged", "tumour_like"])


def project(arms: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    """Largest projection of each row of `arms` on the unit vectors along the rows of `profiles`."""
    length = np.linalg.norm(profiles, axis=1, keepdims=True)
    return (arms @ (profiles / np.where(length > 0, length, 1)).T).max(axis=1)


def call(found: Evidence, clusters: np.ndarray, rule: Rule) -> Call:
    """The consensus of cluster and cell.

    `malignant`: the cluster is tumour-like and the cell's projection on the mean arm profiles of the tumour-like clusters lies
    above the `cell_quantile` of the same figure in reference cells. `non_malignant`: neither. `unresolved`: one of the two, a
    cluster too small to be judged, or every cell where no cluster is tumour-like.
    """
    table = judge(found, clusters, rule)
    n = len(clusters)
    chosen = table.loc[table["tumour_like"], "cluster"].tolist()
    if not chosen:
        return Call(np.repeat(keys.UNRESOLVED, n), np.repeat(keys.CNV_QUIET, n), np.full(n, np.nan), np.nan, table)
    profiles = np.array([found.arms[clusters == name].mean(axis=0) for name in chosen])
    projection = project(found.arms, profiles)
    cut = float(np.quantile(project(found.reference_arms, profiles), rule.cell_quantile))
    by_cluster, by_cell = np.isin(clusters, chosen), projection > cut
    unjudged = np.isin(clusters, table.loc[~table["judged"], "cluster"].tolist())
    basis = np.select(
        [unjudged, by_cluster & by_cell, by_cluster, by_cell], [SMALL_CLUSTER, BOTH, CLUSTER_ONLY, CELL_ONLY], NEITHER
    )
    malignant = np.select([basis == BOTH, basis == NEITHER], [keys.MALIGNANT_YES, keys.MALIGNANT_NO], keys.UNRESOLVED)
    return Call(malignant, basis, projection, cut, table)


def above_quota(score: np.ndarray, quota: float) -> np.ndarray:
    """The study's rule: score above the 1 - quota quantile (type 7) of the patient's epithelial cells."""
    return score > np.quantile(score, 1 - quota)


def above_reference(score: np.ndarray, reference: np.ndarray, n_sd: float) -> np.ndarray:
    """Score above mean + `n_sd` sd (n - 1) of the reference cells."""
    return score > reference.mean() + n_sd * reference.std(ddof=1)


def correlation(profile: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Pearson correlation of each profile with the mean profile of the cells `top`; NaN where there is none."""
    if not top.any():
        return np.full(len(profile), np.nan)
    mean = np.asarray(profile[top], dtype=np.float64).mean(axis=0)
    mean = mean - mean.mean()
    out = np.empty(len(profile))
    for at in range(0, len(profile), 4096):
        part = np.asarray(profile[at : at + 4096], dtype=np.float64)
        part = part - part.mean(axis=1, keepdims=True)
        length = np.linalg.norm(part, axis=1) * np.linalg.norm(mean)
        out[at : at + 4096] = np.divide(part @ mean, length, out=np.full(len(part), np.nan), where=length > 0)
    return out


def sensitivity(found: Evidence, clusters: np.ndarray, rule: Rule) -> pd.DataFrame:
    """How the call moves: the grid of arm_shift and min_shifted_arms, then third_shift and cell_quantile one at a time.

    Returns
    -------
    `arm_shift, min_shifted_arms, third_shift, cell_quantile, is_default, n_tumour_like_clusters, n_malignant, jaccard_to_default`
    (missing where neither call has a malignant cell)
    """
    base = call(found, clusters, rule).malignant == keys.MALIGNANT_YES
    grid = [(a, m, rule.third_shift, rule.cell_quantile) for a in ARM_SHIFTS for m in MIN_SHIFTED]
    grid += [(rule.arm_shift, rule.min_shifted_arms, third, rule.cell_quantile) for third in THIRD_SHIFTS]
    grid += [(rule.arm_shift, rule.min_shifted_arms, rule.third_shift, quantile) for quantile in CELL_QUANTILES]
    own = (rule.arm_shift, rule.min_shifted_arms, rule.third_shift, rule.cell_quantile)
    rows = []
    for setting in dict.fromkeys([*grid, own]):
        made = call(found, clusters, Rule(setting[0], setting[2], setting[1], setting[3], rule.quota, rule.reference_sd))
        mine = made.malignant == keys.MALIGNANT_YES
        union = (mine | base).sum()
        jaccard = (mine & base).sum() / union if union else np.nan
        rows.append((*setting, setting == own, int(made.clusters["tumour_like"].sum()), int(mine.sum()), jaccard))
    columns = [
        "arm_shift",
        "min_shifted_arms",
        "third_shift",
        "cell_quantile",
        "is_default",
        "n_tumour_like_clusters",
        "n_malignant",
    ]
    return pd.DataFrame(rows, columns=[*columns, "jaccard_to_default"])


def agreement(call_of: np.ndarray, flag: np.ndarray) -> float:
    """Share of the resolved cells on which a flag and the call say the same; NaN without a resolved cell."""
    resolved = call_of != keys.UNRESOLVED
    if not resolved.any():
        return float("nan")
    return float(((call_of == keys.MALIGNANT_YES) == flag)[resolved].mean())
