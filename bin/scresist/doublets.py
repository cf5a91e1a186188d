"""Doublets: expected rate, call from scores, and the two rules on fine clusters. Scores come from Scrublet (the step)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse, stats

RATE_PER_CELL = 0.008 / 1000  # 10x Genomics' loading table: 0.8 % doublets per 1,000 cells recovered
RATE_MAXIMUM = 0.4  # chosen, not tuned: bounds `auto` for overloaded lanes
SHARE_CREDIBLE = (0.25, 4.0)  # methods.md, DETECT_DOUBLETS: called / expected outside means a threshold gone astray
MARKERS_NEEDED = 2  # methods.md, DETECT_DOUBLETS: markers of each of two groups; one may be ambient RNA
AMBIENT_P = 0.05
LINEAGE_SHARE_MAXIMUM = 0.25  # chosen, not tuned: of a sample's cells; above, the lineage rule is not applied
AUTOMATIC, EXPECTED_RATE = "automatic", "expected_rate"
RULES = ("call", "cluster", "lineage")


def expected_rate(given: str | float, n_cells: int) -> float:
    """The expected doublet rate in (0, 1): as given, or by `auto` from the number of cells recovered."""
    if given == "auto":
        return min(RATE_PER_CELL * max(n_cells, 1), RATE_MAXIMUM)
    return float(given)


def call(scores: np.ndarray, threshold: float | None, rate: float) -> tuple[np.ndarray, float, str]:
    """Which cells are doublets by their score.

    Above the automatic threshold, unless it is missing or calls less than a quarter or more than four times what is
    expected: then the round(rate x n) highest scores, ties in the order of the cells.

    Parameters
    ----------
    scores
        one per cell; missing for a cell without score, which is never called
    threshold
        of Scrublet (score must exceed it), None when it found none

    Returns
    -------
    calls (bool); the threshold, of the second rule the lowest score called, missing when nobody is called; the rule
    """
    scored = ~np.isnan(scores)
    n = int(scored.sum())
    if threshold is not None and not np.isnan(threshold) and n:
        calls = scored & (np.where(scored, scores, -np.inf) > threshold)
        low, high = (factor * rate for factor in SHARE_CREDIBLE)
        if low <= calls.sum() / n <= high:
            return calls, float(threshold), AUTOMATIC
    wanted = int(np.rint(rate * n))
    order = np.argsort(-np.where(scored, scores, -np.inf), kind="stable")[:wanted]
    calls = np.zeros(len(scores), dtype=bool)
    calls[order] = True
    return calls, float(scores[order].min()) if wanted else float("nan"), EXPECTED_RATE


def name_clusters(labels: np.ndarray) -> np.ndarray:
    """Cluster names `1`, `2`, .. by falling size, then by first member; independent of the numbers given."""
    labels = np.asarray(labels)
    found, first, inverse, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    names = np.empty(len(found), dtype=object)
    names[order] = [str(i + 1) for i in range(len(found))]
    return names[inverse]


def cluster_means(scores: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """For each cell the mean score of its cluster, in float64; missing scores are left out."""
    return pd.Series(np.asarray(scores, dtype=np.float64)).groupby(np.asarray(clusters)).transform("mean").to_numpy()


def above(means: np.ndarray, limit: float) -> np.ndarray:
    """Strictly above the limit: a mean of exactly 0.6 stays, also when summing floats made it 0.6000000000000001."""
    return np.nan_to_num(means, nan=-np.inf) - limit > 1e-9


def marker_groups(markers: pd.DataFrame, genes: pd.Index) -> dict[str, np.ndarray]:
    """Columns of the measured markers of each doublet group.

    Of the roles marker and required; a gene of two groups is evidence for neither and is left out, as is a group with
    fewer than two measured markers. Groups, not types: T with NK, and monocyte, macrophage and DC, are one group each.
    """
    own = markers[markers["role"].isin(["marker", "required"])]
    groups_of = own.groupby("gene")["doublet_group"].nunique()
    single = own[own["gene"].isin(groups_of.index[groups_of == 1])].drop_duplicates("gene")
    place = {gene: i for i, gene in enumerate(genes)}
    found = {}
    for group, rows in single.groupby("doublet_group", sort=True):
        columns = sorted(place[gene] for gene in rows["gene"] if gene in place)
        if len(columns) >= MARKERS_NEEDED:
            found[str(group)] = np.array(columns, dtype=np.int64)
    return found


def expressed(counts: sparse.csr_matrix, columns: np.ndarray, ambient_share: float) -> np.ndarray:
    """Which cells express which of the genes beyond what ambient RNA explains.

    A count x of gene g in a cell of N counts is evidence when P(X >= x) < 0.05 for X ~ Poisson(ambient_share x N x
    share of g in the sample's counts). With ambient_share 0 this is x > 0. Plain x > 0 does not survive real tissue:
    S100A8 and S100A9 of keratinocytes lie in 98-100 % of all cells of the CTCL samples, GNLY in 98 %, and the lineage
    rule then removed all 167 good cells of CTCL-5 and half of the monocytes of pbmc3k.

    Returns
    -------
    bool, cells x columns
    """
    totals = np.asarray(counts.sum(axis=1, dtype=np.int64)).ravel()
    part = counts[:, columns]
    values = part.toarray()
    pool = np.asarray(part.sum(axis=0, dtype=np.int64)).ravel() / max(int(totals.sum()), 1)
    ambient = ambient_share * totals[:, None] * pool[None, :]
    return (values > 0) & (stats.poisson.sf(values - 1, ambient) < AMBIENT_P)


def coexpression(counts: sparse.csr_matrix, groups: dict[str, np.ndarray], ambient_share: float) -> dict[str, np.ndarray]:
    """For each pair of groups (`A+B`, in alphabetical order) which cells express >= 2 markers of each."""
    positive = {
        group: expressed(counts, columns, ambient_share).sum(axis=1) >= MARKERS_NEEDED
        for group, columns in sorted(groups.items())
    }
    names = list(positive)
    return {f"{a}+{b}": positive[a] & positive[b] for i, a in enumerate(names) for b in names[i + 1 :]}


def pair_names(pairs: dict[str, np.ndarray], n_cells: int) -> np.ndarray:
    """The pairs that each cell co-expresses, joined by `;`; empty when there are none."""
    names = np.full(n_cells, "", dtype=object)
    for pair, cells in pairs.items():
        names[cells] = [f"{name};{pair}" if name else pair for name in names[cells]]
    return names


def lineage_clusters(pairs: dict[str, np.ndarray], clusters: np.ndarray, share: float) -> dict[str, tuple[str, float]]:
    """Clusters of which at least `share` of the cells co-express one and the same pair, with that pair and share.

    Of several such pairs the most frequent, then the first by name.
    """
    flagged: dict[str, tuple[str, float]] = {}
    clusters = np.asarray(clusters)
    for cluster in sorted(set(clusters)):
        members = clusters == cluster
        shares = {pair: float(cells[members].mean()) for pair, cells in pairs.items()}
        if not shares:
            continue
        best = min(shares, key=lambda pair: (-shares[pair], pair))
        if shares[best] >= share:
            flagged[str(cluster)] = (best, shares[best])
    return flagged


def rare_populations(calls: np.ndarray, clusters: np.ndarray, pairs: dict[str, np.ndarray], share: float) -> dict[str, float]:
    """Clusters that a quota of highest scores would empty although their cells show no second lineage; with the called share.

    Cells of a type with fewer members than Scrublet asks neighbours for lie among simulated doublets of that type with others,
    so the whole type scores high. Where only the order of the scores speaks (`EXPECTED_RATE`), and at least `share` of a cluster
    is called but less than `share` of its called cells express markers of two lineages, the call has no evidence.

    Parameters
    ----------
    calls, clusters
        one per cell; a cluster "" is none.
    pairs
        of `coexpression`.
    """
    clusters = np.asarray(clusters)
    either = np.logical_or.reduce([np.zeros(len(clusters), dtype=bool), *pairs.values()])
    found: dict[str, float] = {}
    for cluster in sorted(set(clusters) - {""}):
        members = clusters == cluster
        called = members & calls
        if called.sum() >= share * members.sum() > 0 and either[called].mean() < share:
            found[str(cluster)] = float(called.sum() / members.sum())
    return found


def lineage_credible(flagged: np.ndarray, rate: float) -> bool:
    """Whether the cells that the lineage rule flags can be doublets at all.

    More than four times the expected rate, and more than a quarter of the sample, is another thing: ambient RNA, or a
    tumour that expresses foreign markers. The upper end of `SHARE_CREDIBLE`, as for the call.
    """
    limit = max(SHARE_CREDIBLE[1] * rate, LINEAGE_SHARE_MAXIMUM)
    return not len(flagged) or float(np.mean(flagged)) <= limit


def histogram(observed: np.ndarray, simulated: np.ndarray, n_bins: int = 50) -> pd.DataFrame:
    """Scores of cells and simulated doublets in equal bins from 0 to 1 (Scrublet's scale), for the report."""
    edges = np.linspace(0, 1, n_bins + 1)
    inside = [np.clip(values[~np.isnan(values)], 0, 1) for values in (observed, simulated)]
    return pd.DataFrame(
        {
            "bin_low": edges[:-1],
            "bin_high": edges[1:],
            "n_observed": np.histogram(inside[0], edges)[0],
            "n_simulated": np.histogram(inside[1], edges)[0],
        }
    )
