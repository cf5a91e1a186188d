"""States of the tumour epithelium: cell cycle, marker genes and names of clusters, where each cluster occurs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from scresist import comparison, keys, normalise, panels
from scresist.io import InputError

CYCLE_COLUMNS = ("gene", "phase")
CYCLE_S, CYCLE_G2M, CYCLE_G1 = "S", "G2M", "G1"
MIN_CYCLE_GENES = 5  # measured genes of each list, below which a score is a few genes' noise
NULL_SETS = 20  # pairs of random gene sets that dividing cells are told from
NULL_REACH = 50  # genes up or down in the order of mean expression
NULL_QUANTILE = 0.95
CYCLING_SHARE = 0.5  # of a cluster's cells that divide: the cluster is called cycling (methods.md, SUBCLUSTER_EPITHELIUM)
PRIVATE_SHARE = 0.95  # of a cluster's cells from one patient: private; from one phase: exclusive (same place)
PRESENT_SHARE = 0.05  # of a sample's cells in the cluster: the cluster is present in the sample (same place)
MIN_CELLS_SHARE = 20  # cells of a sample, below which its shares are not counted for presence
# A marker gene of a ranking: the study's limits (log2 fold change 0.5, adjusted p 0.05), in a tenth of the cells
LFC, PADJ, MIN_PCT = 0.5, 0.05, 10.0
PRIVATE, EXCLUSIVE, SHARED = "private", "exclusive", "shared"
MARKER_COLUMNS = ("cluster", "gene", "log2_fc", "pct_in", "pct_out", "p_value", "p_adjusted", "evidence")
RANKING_COLUMNS = ("source", "group", "contrast", "evidence", "gene", "score", "direction")
CLUSTER_COLUMNS = (
    "cluster", "name", "n_cells", "n_samples", "n_patients", "top_patient", "top_patient_share", "n_samples_present",
    "top_phase", "top_phase_share", "top_phase_share_all", "occurrence", "exclusive_phase", "cycling_share", "stability",
)  # fmt: skip
COMPOSITION_COLUMNS = (
    "level", keys.SAMPLE, keys.PATIENT, keys.PHASE, "cluster", "n_cells", "n_total", "share", "ci_low", "ci_high", "n_samples",
    "n_patients",
)  # fmt: skip
RESOLUTION_COLUMNS = ("resolution", "n_clusters", "ari_stability", "ari_to_primary", "n_private", "primary")


# --- cell cycle


def check_cycle(table: pd.DataFrame, name: str) -> dict[str, list[str]]:
    """Phase (S, G2M) -> its genes, sorted.

    Raises
    ------
    InputError
        when a column is missing, a phase is another word, or a gene stands twice.
    """
    absent = [column for column in CYCLE_COLUMNS if column not in table]
    if absent:
        raise InputError(f"{name}: no column {', '.join(absent)}; expected {', '.join(CYCLE_COLUMNS)}, found {', '.join(table)}")
    problems = [
        f"row {line}: phase {row['phase']!r} of gene {row['gene']!r}, expected {CYCLE_S} or {CYCLE_G2M}"
        for line, row in enumerate(table.to_dict("records"), start=2)
        if row["phase"] not in (CYCLE_S, CYCLE_G2M)
    ]
    twice = table.loc[table["gene"].duplicated(), "gene"].astype(str).tolist()
    problems += [f"gene {gene} stands twice; remove one row" for gene in twice]
    if problems:
        raise InputError(f"{name}:\n  - " + "\n  - ".join(problems))
    return {phase: sorted(table.loc[table["phase"] == phase, "gene"].astype(str)) for phase in (CYCLE_S, CYCLE_G2M)}


def cell_cycle(x: sparse.csr_matrix, genes: Sequence[str], lists: Mapping[str, Sequence[str]], seed: int) -> pd.DataFrame:
    """Scores of S and G2/M and the phase of each cell (Tirosh 2016; as scanpy's `score_genes_cell_cycle`).

    Scores by `panels.score_genes` with as many controls per bin as the shorter list has genes. G1 when both are below 0, else
    G2M when its score is the larger, else S.

    Parameters
    ----------
    x
        cells x genes, log1p of counts per 10,000.

    Returns
    -------
    `s_score, g2m_score` (NaN when fewer than MIN_CYCLE_GENES of a list were measured or no control is left) and `cycle_phase`
    (missing there), one row per cell.
    """
    measured = {phase: sorted(set(listed) & set(genes)) for phase, listed in lists.items()}
    frame = pd.DataFrame({keys.S_SCORE: np.nan, keys.G2M_SCORE: np.nan}, index=range(x.shape[0]))
    frame[keys.CYCLE_PHASE] = pd.Series(None, index=frame.index, dtype=object)
    if min(len(listed) for listed in measured.values()) < MIN_CYCLE_GENES:
        return frame
    size = min(len(listed) for listed in measured.values())
    for column, phase in ((keys.S_SCORE, CYCLE_S), (keys.G2M_SCORE, CYCLE_G2M)):
        frame[column] = panels.score_genes(x, genes, measured[phase], seed, ctrl_size=size)
    known = frame[[keys.S_SCORE, keys.G2M_SCORE]].notna().all(axis=1)
    s, g2m = frame[keys.S_SCORE], frame[keys.G2M_SCORE]
    called = np.where((s < 0) & (g2m < 0), CYCLE_G1, np.where(g2m > s, CYCLE_G2M, CYCLE_S))
    frame[keys.CYCLE_PHASE] = pd.Series(called, index=frame.index, dtype=object).where(known, None)
    return frame


def dividing(
    x: sparse.csr_matrix, genes: Sequence[str], lists: Mapping[str, Sequence[str]], cycle: pd.DataFrame, seed: int
) -> np.ndarray:
    """Whether a cell divides: its larger cycle score lies above what random genes of like expression give.

    "A score above 0", as `cell_cycle` calls phases, holds for three of four cells without any cycle, because two scores of noise
    are each positive in half of them. Here the larger of both scores must exceed the NULL_QUANTILE of the larger of two scores
    of random sets, NULL_SETS times, each gene of the lists replaced by one of its neighbours in the order of mean expression.

    Parameters
    ----------
    cycle
        of `cell_cycle`.

    Returns
    -------
    bool, one per cell; all False without scores.
    """
    larger = cycle[[keys.S_SCORE, keys.G2M_SCORE]].max(axis=1, skipna=False).to_numpy(dtype=float)
    if not np.isfinite(larger).all():
        return np.zeros(len(cycle), dtype=bool)
    names = np.asarray(genes, dtype=object)
    mean = np.round(np.asarray(x.sum(axis=0, dtype=np.float64)).ravel() / x.shape[0], 12)
    listed = {gene for part in lists.values() for gene in part}
    order = np.array([i for i in np.lexsort((names.astype(str), mean)) if names[i] not in listed], dtype=int)
    sets = {phase: [i for i, gene in enumerate(names) if gene in set(part)] for phase, part in sorted(lists.items())}
    size = min(len(part) for part in sets.values())
    rng = np.random.default_rng(seed)
    null = []
    for _ in range(NULL_SETS):
        scores = []
        for part in sets.values():
            place = np.searchsorted(mean[order], mean[part]) + rng.integers(-NULL_REACH, NULL_REACH + 1, len(part))
            drawn = names[order[np.clip(place, 0, len(order) - 1)]]
            scores.append(panels.score_genes(x, genes, list(drawn), seed, ctrl_size=size))
        null.append(np.maximum(*scores))
    cut = np.nanquantile(np.concatenate(null), NULL_QUANTILE)
    return larger > cut


# --- genes of clusters


def one_versus_rest(x: sparse.csr_matrix, genes: pd.Index, cluster: np.ndarray, threads: int) -> pd.DataFrame:
    """Every expressed gene in each cluster against all other cells; the cell is the unit, so p values are cell-level.

    Wilcoxon rank-sum with tie and continuity correction (illico); log2 fold change as Seurat's FindMarkers,
    log2((mean of expm1 inside + 1) / (outside + 1)); p adjusted by Benjamini-Hochberg over the genes of a cluster.

    Parameters
    ----------
    x
        cells x genes, log1p of counts per 10,000.
    cluster
        "0", "1", ... per cell.

    Returns
    -------
    `cluster, gene, z, log2_fc, pct_in, pct_out, p_value, p_adjusted, evidence`, by cluster and gene; z above 0 is higher inside.
    Genes without a count in these cells are left out; empty with fewer than two clusters.
    """
    columns = ["cluster", "gene", "z", *MARKER_COLUMNS[2:]]
    names = sorted(set(cluster), key=int)
    if len(names) < 2:
        return pd.DataFrame(columns=columns)
    import anndata
    from illico import asymptotic_wilcoxon
    from loguru import logger

    logger.disable("illico")  # its log would fill stderr, where errors must be seen
    hits = np.asarray((x > 0).sum(axis=0)).ravel()
    here = np.flatnonzero(hits)
    x, genes, hits = sparse.csr_matrix(x[:, here]), genes[here], hits[here]
    x.sort_indices()
    view = anndata.AnnData(x, obs=pd.DataFrame({"cluster": pd.Categorical(cluster)}, index=[str(i) for i in range(len(cluster))]))
    view.var_names = genes
    tested = asymptotic_wilcoxon(
        view, is_log1p=True, group_keys="cluster", n_threads=threads, tie_correct=True, use_continuity=True
    )
    member = sparse.csr_matrix((np.ones(len(cluster)), ([names.index(c) for c in cluster], np.arange(len(cluster)))))
    linear = sparse.csr_matrix((np.expm1(x.data.astype(np.float64)), x.indices, x.indptr), shape=x.shape)
    positive = sparse.csr_matrix((x.data > 0, x.indices, x.indptr), shape=x.shape)
    sums, counts = (member @ linear).toarray(), (member @ positive).toarray()
    n_in = np.asarray(member.sum(axis=1)).ravel()
    tables = []
    for at, name in enumerate(names):
        n_out = len(cluster) - n_in[at]
        found = tested.xs(name, level=0).reindex(genes)
        p = found["p_value"].astype(float).fillna(1.0).clip(1e-300, 1.0).to_numpy()
        tables.append(
            pd.DataFrame(
                {
                    "cluster": name,
                    "gene": genes,
                    "z": found["z_score"].to_numpy(dtype=float),
                    "log2_fc": np.log2((sums[at] / n_in[at] + 1) / ((sums.sum(axis=0) - sums[at]) / n_out + 1)),
                    "pct_in": 100 * counts[at] / n_in[at],
                    "pct_out": 100 * (hits - counts[at]) / n_out,
                    "p_value": p,
                    "p_adjusted": comparison.adjust(p),
                    "evidence": keys.CELL_LEVEL,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)[columns]


def top_markers(tested: pd.DataFrame, n_top: int) -> pd.DataFrame:
    """The `n_top` genes of each cluster with a positive fold change and the smallest p, ties by fold change, then name."""
    up = tested[tested["log2_fc"] > 0] if len(tested) else tested
    if up.empty:
        return pd.DataFrame(columns=list(MARKER_COLUMNS))
    up = up.assign(order=up["cluster"].astype(int))
    up = up.sort_values(["order", "p_value", "log2_fc", "gene"], ascending=[True, True, False, True])
    return up.groupby("order", sort=False).head(n_top)[list(MARKER_COLUMNS)].reset_index(drop=True)


def rankings(tested: pd.DataFrame) -> pd.DataFrame:
    """Every tested gene of every cluster as the enrichment step reads it: score = z, direction `up` for marker genes."""
    if tested.empty:
        return pd.DataFrame(columns=list(RANKING_COLUMNS))
    marker = (tested["log2_fc"] >= LFC) & (tested["p_adjusted"] < PADJ) & (tested["pct_in"] >= MIN_PCT)
    frame = pd.DataFrame(
        {
            "source": "epi_clusters",
            "group": tested["cluster"],
            "contrast": "cluster_vs_rest",
            "evidence": keys.CELL_LEVEL,
            "gene": tested["gene"],
            "score": tested["z"],
            "direction": np.where(marker, "up", ""),
        }
    )
    return frame[list(RANKING_COLUMNS)]


def cluster_names(markers: pd.DataFrame, cycling: Mapping[str, float]) -> dict[str, str]:
    """Cluster -> name: its first marker gene, and `cycling` where most of its cells divide.

    Genes that never become highly variable (mitochondrial, ribosomal, ...) name no cluster. Where two clusters would carry one
    name, both take their second gene too, and where that is not enough, their number.
    """
    listed: dict[str, list[str]] = {name: [] for name in cycling}
    if len(markers):
        fit = markers[~normalise.excluded_genes(pd.Index(markers["gene"]))]
        for name, part in fit.groupby("cluster", sort=False):
            listed[str(name)] = part["gene"].tolist()

    def made(name: str, n_genes: int) -> str:
        stem = "/".join(listed[name][:n_genes]) or f"cluster {name}"
        return f"{stem} cycling" if cycling[name] > CYCLING_SHARE else stem

    names = {name: made(name, 1) for name in cycling}
    for again in (lambda name: made(name, 2), lambda name: f"{made(name, 2)} {name}"):
        held = list(names.values())
        names = {name: again(name) if held.count(text) > 1 else text for name, text in names.items()}
    return names


# --- where clusters occur


def occurrence(cluster: np.ndarray, obs: pd.DataFrame) -> pd.DataFrame:
    """One row per cluster: size, samples, patients, phases, and whether it belongs to one patient or one phase.

    Parameters
    ----------
    cluster
        "0", "1", ... per cell.
    obs
        sample, patient, phase of each cell.

    `private`: one patient holds 95 % of the cells, so nothing can be said of phases. `exclusive`: else, one phase holds 95 %.
    `n_samples_present`: samples with 20 cells or more of which 5 % lie in the cluster. `top_phase_share_all` is the share of the
    same phase among all cells: what chance would give.
    """
    frame = pd.DataFrame({c: obs[c].astype(str).to_numpy() for c in (keys.SAMPLE, keys.PATIENT, keys.PHASE)})
    frame["cluster"] = cluster
    totals = frame[keys.SAMPLE].value_counts()
    overall = frame[keys.PHASE].value_counts(normalize=True)
    rows = []
    for name in sorted(set(cluster), key=int):
        mine = frame[frame["cluster"] == name]
        patient, patient_share = _largest(mine[keys.PATIENT])
        phase, phase_share = _largest(mine[keys.PHASE])
        here = mine[keys.SAMPLE].value_counts()
        big = here.index[totals[here.index] >= MIN_CELLS_SHARE]
        kind = PRIVATE if patient_share >= PRIVATE_SHARE else EXCLUSIVE if phase_share >= PRIVATE_SHARE else SHARED
        rows.append(
            {
                "cluster": name, "n_cells": len(mine), "n_samples": mine[keys.SAMPLE].nunique(),
                "n_patients": mine[keys.PATIENT].nunique(), "top_patient": patient, "top_patient_share": patient_share,
                "n_samples_present": int((here[big] / totals[big] >= PRESENT_SHARE).sum()), "top_phase": phase,
                "top_phase_share": phase_share, "top_phase_share_all": float(overall[phase]), "occurrence": kind,
                "exclusive_phase": phase if kind == EXCLUSIVE else "",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _largest(values: pd.Series) -> tuple[str, float]:
    """The most frequent value (ties: the first by name) and its share."""
    counts = values.value_counts()
    name = min(counts.index[counts == counts.max()])
    return str(name), float(counts[name] / len(values))


def composition(cluster: np.ndarray, obs: pd.DataFrame) -> pd.DataFrame:
    """Share of each cluster in each sample (Wilson interval over its cells) and in each phase (mean over patients).

    Rows of level `sample` and `phase`, clusters of every unit that has cells; a patient with several samples in a phase counts
    once, weighted by cells. No interval is given for a phase: its few patients are in `n_patients`.
    """
    frame = pd.DataFrame({c: obs[c].astype(str).to_numpy() for c in (keys.SAMPLE, keys.PATIENT, keys.PHASE)})
    frame["cluster"] = cluster
    names = sorted(set(cluster), key=int)
    rows = []
    for (sample, patient, phase), part in frame.groupby([keys.SAMPLE, keys.PATIENT, keys.PHASE], sort=True):
        held = part["cluster"].value_counts()
        for name in names:
            n = int(held.get(name, 0))
            low, high = comparison.wilson(n, len(part))
            rows.append(("sample", sample, patient, phase, name, n, len(part), n / len(part), low, high, 1, 1))
    for phase, part in frame.groupby(keys.PHASE, sort=True):
        table = pd.crosstab(part[keys.PATIENT], part["cluster"]).reindex(columns=names, fill_value=0)
        shares = table.div(table.sum(axis=1), axis=0).mean(axis=0)
        for name in names:
            rows.append(
                ("phase", "", "", phase, name, int(table[name].sum()), len(part), float(shares[name]), np.nan, np.nan,
                 part[keys.SAMPLE].nunique(), len(table))
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COMPOSITION_COLUMNS))
