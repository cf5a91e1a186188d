"""Planted against recovered: kernels of CHECK_RECOVERY.

Every function takes the joined cell table (one row per planted droplet; planted columns with the prefix `planted_`) and returns
`(value, n)`: the figure and the number of units behind it. A figure that does not exist is NaN, never 0.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from scresist import keys


def kept_singlets(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells that the pipeline kept and that were planted as single, healthy or not."""
    return cells[cells[keys.KEPT] & ~cells["planted_is_doublet"]]


def share(mask: pd.Series | np.ndarray) -> tuple[float, int]:
    """Share of true values; NaN for no value."""
    values = np.asarray(mask, dtype=bool)
    return (float(values.mean()) if len(values) else np.nan), len(values)


def main_type_accuracy(cells: pd.DataFrame) -> tuple[float, int]:
    """Share of kept singlets whose main type is the planted one; an unresolved cell counts as not recovered."""
    singlets = kept_singlets(cells)
    return share(singlets[keys.MAIN_TYPE] == singlets["planted_main_type"])


def resolved_accuracy(cells: pd.DataFrame) -> tuple[float, int]:
    """The same among the kept singlets that have a main type."""
    singlets = kept_singlets(cells)
    singlets = singlets[singlets[keys.MAIN_TYPE] != keys.UNRESOLVED]
    return share(singlets[keys.MAIN_TYPE] == singlets["planted_main_type"])


def unresolved_share(cells: pd.DataFrame) -> tuple[float, int]:
    """Share of kept singlets without a main type."""
    return share(kept_singlets(cells)[keys.MAIN_TYPE] == keys.UNRESOLVED)


def subtype_accuracy(cells: pd.DataFrame) -> tuple[float, int]:
    """Share of kept singlets with the planted subtype, among types of which several subtypes were planted."""
    singlets = kept_singlets(cells)
    several = cells.groupby("planted_main_type")["planted_subtype"].nunique()
    singlets = singlets[singlets["planted_main_type"].map(several) > 1]
    return share(singlets[keys.SUBTYPE] == singlets["planted_subtype"])


def weakest_type(cells: pd.DataFrame) -> tuple[str, float, int]:
    """Main type with the lowest recall among the kept singlets: name, recall, planted cells (ties: first by name)."""
    singlets = kept_singlets(cells)
    hit = (singlets[keys.MAIN_TYPE] == singlets["planted_main_type"]).groupby(singlets["planted_main_type"]).agg(["mean", "size"])
    if hit.empty:
        return "", np.nan, 0
    name = hit["mean"].sort_index().idxmin()
    return str(name), float(hit.loc[name, "mean"]), int(hit.loc[name, "size"])


def auroc(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve from ranks (ties count half): (R - p(p+1)/2) / (p q), as Mann and Whitney (1947)."""
    positive = np.asarray(positive, dtype=bool)
    p, q = int(positive.sum()), int((~positive).sum())
    if p == 0 or q == 0:
        return np.nan
    return float((rankdata(score)[positive].sum() - p * (p + 1) / 2) / (p * q))


def doublet_auroc(cells: pd.DataFrame) -> tuple[float, int, int]:
    """Mean over samples of the AUROC of heterotypic doublets against singlets, by doublet score; scored cells only.

    Scores are comparable within a sample only, so samples are not pooled; weights are the planted doublets.

    Returns
    -------
    value, doublets, samples
        weighted mean, the doublets and the samples behind it.
    """
    scored = cells[cells[keys.DOUBLET_SCORE].notna() & (cells["planted_doublet_kind"] != "homotypic")]
    values, weights = [], []
    for _, group in scored.groupby("planted_sample"):
        positive = (group["planted_doublet_kind"] == "heterotypic").to_numpy()
        value = auroc(positive, group[keys.DOUBLET_SCORE].to_numpy(dtype=float))
        if not np.isnan(value):
            values.append(value)
            weights.append(int(positive.sum()))
    if not values:
        return np.nan, 0, 0
    return float(np.average(values, weights=weights)), int(sum(weights)), len(values)


def poor_cell_recall(cells: pd.DataFrame) -> tuple[float, int]:
    """Share of planted poor cells that were removed, whatever the reason."""
    return share(~cells.loc[cells["planted_is_poor"], keys.KEPT])


def good_cell_retention(cells: pd.DataFrame) -> tuple[float, int]:
    """Share of planted good singlets kept, in the samples that are in the cohort."""
    in_cohort = cells.groupby("planted_sample")[keys.KEPT].transform("any")
    return share(cells.loc[in_cohort & ~cells["planted_is_doublet"] & ~cells["planted_is_poor"], keys.KEPT])


def sample_verdicts(cells: pd.DataFrame, expected: pd.Series) -> pd.Series:
    """Per sample (index of `expected`): does it stand where it should, in the cohort or out of it as `sample_skipped`?"""
    kept = cells.groupby("planted_sample")[keys.KEPT].any()
    skipped = cells.groupby("planted_sample")[keys.DROP_REASON].apply(lambda reason: (reason == "sample_skipped").any())
    verdict = pd.Series(index=expected.index, dtype=bool)
    for sample, word in expected.items():
        present = bool(kept.get(sample, False))
        verdict[sample] = present if word == keys.OK else (not present and bool(skipped.get(sample, False)))
    return verdict.astype(bool)


def proportion_agreement(cells: pd.DataFrame, planted: pd.DataFrame) -> tuple[float, float, int]:
    """Shares by sample x main type, planted (good singlets) against recovered (kept cells with a main type).

    Parameters
    ----------
    planted
        sample, main_type, n_cells.

    Returns
    -------
    correlation, largest, n
        Pearson correlation and largest absolute difference over `n` pairs of samples in the cohort.
    """
    found = cells[cells[keys.KEPT] & (cells[keys.MAIN_TYPE] != keys.UNRESOLVED)]
    n = pd.crosstab(found["planted_sample"], found[keys.MAIN_TYPE])
    n = n[n.sum(axis=1) > 0]
    truth = planted.pivot(index="sample", columns="main_type", values="n_cells").reindex(n.index).astype(float)
    truth = truth[truth.sum(axis=1) > 0]
    if truth.empty:
        return np.nan, np.nan, 0
    columns = sorted(set(truth.columns) | set(n.columns))
    a = truth.div(truth.sum(axis=1), axis=0).reindex(columns=columns, fill_value=0.0).to_numpy().ravel()
    n = n.loc[truth.index]
    b = n.div(n.sum(axis=1), axis=0).reindex(columns=columns, fill_value=0.0).to_numpy().ravel()
    correlation = float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else np.nan
    return correlation, float(np.abs(a - b).max()), len(a)


def entropy(n: np.ndarray) -> float:
    """Shannon entropy in nats of counts."""
    p = np.asarray(n, dtype=float)
    p = p[p > 0] / p.sum()
    return float(-(p * np.log(p)).sum())


def batch_mixing(cells: pd.DataFrame) -> tuple[float, int]:
    """Do batches share clusters? H(batch | cluster, subtype) / H(batch | subtype): 1 = mixed, 0 = every cluster one batch.

    Within the planted subtype, so that different cell composition of batches does not look like a batch effect; without the
    malignant cells, which are meant to differ between patients. A subtype seen in one batch only says nothing and is left out.
    """
    used = kept_singlets(cells)
    used = used[~used["planted_is_malignant"]]
    inside = total = 0.0
    n_used = 0
    for _, group in used.groupby("planted_subtype"):
        whole = entropy(group["planted_batch"].value_counts().to_numpy())
        if whole == 0:
            continue
        total += whole * len(group)
        n_used += len(group)
        for _, cluster in group.groupby(keys.CLUSTER, observed=True):
            inside += entropy(cluster["planted_batch"].value_counts().to_numpy()) * len(cluster)
    return (inside / total if total else np.nan), n_used
