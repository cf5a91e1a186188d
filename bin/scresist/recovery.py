"""Planted against recovered: kernels of CHECK_RECOVERY.

Every function takes the joined cell table (one row per planted droplet; planted columns with the prefix `planted_`) and returns
`(value, n)`: the figure and the number of units behind it. A figure that does not exist is NaN, never 0.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
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


# --- the tumour: malignant cells, clones, genes, modules, panels

MIN_MALIGNANT = 30  # kept planted malignant cells from which a patient is judged: TRACE_CLONES compares phases from 30 on
MIN_CHANGE = 0.2  # planted difference of clone shares that must be named rightly (methods.md, TRACE_CLONES)
MIN_LOG2FC = 1.0  # planted genes that count for recall
CALLED_P, CALLED_LOG2FC = 0.05, 0.5  # a gene is called as the pipeline's defaults call it
MATCH_CLASS = {"higher": "expanding", "lower": "shrinking"}  # words for phases that no time orders


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Adjusted Rand index of two partitions (Hubert and Arabie 1985); 1 when both are one cluster.

    That of clones.py, without the numba that module loads.
    """
    n = pd.crosstab(np.asarray(a), np.asarray(b)).to_numpy().astype(float)
    together, rows, columns, total = (float((x * (x - 1) / 2).sum()) for x in (n, n.sum(axis=1), n.sum(axis=0), n.sum()))
    expected = rows * columns / total if total else 0.0
    highest = (rows + columns) / 2
    return 1.0 if highest == expected else (together - expected) / (highest - expected)


def judged_patients(cells: pd.DataFrame, patients: list[str]) -> list[str]:
    """Those of `patients` with at least MIN_MALIGNANT kept single malignant cells, sorted."""
    singlets = kept_singlets(cells)
    n = singlets[singlets["planted_is_malignant"]].groupby("planted_patient").size()
    return sorted(name for name in patients if n.get(name, 0) >= MIN_MALIGNANT)


def malignant_f1(cells: pd.DataFrame, patients: list[str]) -> pd.DataFrame:
    """F1 of the call `malignant` per patient, over kept singlets of all types: 2 tp / (2 tp + fp + fn); index patient, f1, n."""
    singlets = kept_singlets(cells)
    rows = []
    for name in patients:
        own = singlets[singlets["planted_patient"] == name]
        truth, call = own["planted_is_malignant"].to_numpy(), (own[keys.MALIGNANT] == keys.MALIGNANT_YES).to_numpy()
        hit = int((truth & call).sum())
        rows.append((name, 2 * hit / max(int(truth.sum() + call.sum()), 1), int(truth.sum())))
    return pd.DataFrame(rows, columns=["patient", "f1", "n"]).set_index("patient")


def quiet_verdicts(cells: pd.DataFrame, patients: list[str], status: pd.Series | None) -> pd.Series:
    """Per patient without copy-number events: is no cell called malignant, every epithelial cell open, the status cnv_quiet?

    `status`: word per patient of CALL_MALIGNANT, None where its table is not at hand.
    """
    kept = cells[cells[keys.KEPT]]
    verdict = pd.Series(index=patients, dtype=bool)
    for name in patients:
        calls = kept.loc[(kept["planted_patient"] == name) & (kept[keys.MALIGNANT] != ""), keys.MALIGNANT]
        right = bool(len(calls)) and bool((calls == keys.UNRESOLVED).all())
        verdict[name] = right and (status is None or status.get(name) == keys.CNV_QUIET)
    return verdict.astype(bool)


def clone_agreement(cells: pd.DataFrame, patients: list[str]) -> pd.DataFrame:
    """Planted against found clones per patient: ari, n (cells with both), n_planted, n_found (clones); index patient.

    Over kept single malignant cells that have a clone; a patient without any has the index 0. `n_planted` counts clones with such
    cells, `n_found` the clones of all kept cells of the patient.
    """
    singlets = kept_singlets(cells)
    malignant = singlets[singlets["planted_is_malignant"]]
    rows = []
    for name in patients:
        own = malignant[(malignant["planted_patient"] == name) & (malignant[keys.CLONE] != "")]
        every = cells[cells[keys.KEPT] & (cells["planted_patient"] == name) & (cells[keys.CLONE] != "")]
        ari = adjusted_rand(own["planted_clone"].to_numpy(), own[keys.CLONE].to_numpy()) if len(own) else 0.0
        rows.append((name, ari, len(own), own["planted_clone"].nunique(), every[keys.CLONE].nunique()))
    return pd.DataFrame(rows, columns=["patient", "ari", "n", "n_planted", "n_found"]).set_index("patient")


def match_clones(cells: pd.DataFrame, patients: list[str]) -> dict[str, str]:
    """Planted clone -> found clone, one to one within each patient, so that the most cells agree (assignment problem)."""
    singlets = kept_singlets(cells)
    matched = {}
    for name in patients:
        own = singlets[(singlets["planted_patient"] == name) & (singlets["planted_clone"] != "") & (singlets[keys.CLONE] != "")]
        n = pd.crosstab(own["planted_clone"], own[keys.CLONE]).sort_index(axis=0).sort_index(axis=1)
        for row, column in zip(*linear_sum_assignment(-n.to_numpy()), strict=True):
            if n.iat[row, column]:
                matched[str(n.index[row])] = str(n.columns[column])
    return matched


def share_coverage(planted: pd.DataFrame, matched: dict[str, str], found: pd.DataFrame) -> tuple[float, int, list[str]]:
    """Share of planted (clone, phase) whose expected share lies in the interval of the matched clone.

    Parameters
    ----------
    planted
        patient, clone, phase, expected_share.
    found
        clone, phase, N, ci_low, ci_high; phases with fewer than MIN_MALIGNANT malignant cells are left out.

    Returns
    -------
    value, n, missed
        `missed`: `<clone> <phase>`. A planted clone without a partner is missed where its share is above 0.
    """
    index = found.drop_duplicates(["clone", "phase"]).set_index(["clone", "phase"])
    total = found.groupby(["patient", "phase"])["N"].max()
    hits, missed = 0, []
    cases = planted.drop_duplicates(["clone", "phase"]).sort_values(["clone", "phase"])
    for row in cases.itertuples():
        if not total.get((row.patient, row.phase), 0) >= MIN_MALIGNANT:
            continue
        key = (matched.get(row.clone, ""), row.phase)
        if key in index.index:
            inside = index.loc[key, "ci_low"] <= row.expected_share <= index.loc[key, "ci_high"]
        else:
            inside = row.expected_share == 0
        hits += bool(inside)
        missed += [] if inside else [f"{row.clone} {row.phase}"]
    n = hits + len(missed)
    return (hits / n if n else np.nan), n, missed


def change_verdicts(planted: pd.DataFrame, matched: dict[str, str], found: pd.DataFrame) -> tuple[float, int, list[str]]:
    """Share of planted changes of MIN_CHANGE or more that are named rightly, number, and the wrong ones.

    Parameters
    ----------
    planted
        patient, clone, contrast, difference, expected_class.
    found
        clone, contrast, class; contrasts that were not compared, or not estimable, are left out.
    """
    words = found.drop_duplicates(["clone", "contrast"]).set_index(["clone", "contrast"])["class"]
    compared = set(zip(found["patient"], found["contrast"], strict=True))
    hits, wrong = 0, []
    for row in planted[planted["difference"].abs() >= MIN_CHANGE].sort_values(["clone", "contrast"]).itertuples():
        if (row.patient, row.contrast) not in compared:
            continue
        word = words.get((matched.get(row.clone, ""), row.contrast), "not found")
        if word == keys.NOT_ESTIMABLE:
            continue
        right = MATCH_CLASS.get(word, word) == row.expected_class
        hits += right
        wrong += [] if right else [f"{row.clone} {row.contrast}: {word}, planted {row.expected_class}"]
    n = hits + len(wrong)
    return (hits / n if n else np.nan), n, wrong


def gene_recovery(planted: pd.DataFrame, found: pd.DataFrame) -> dict[str, float]:
    """Recall and observed false discovery rate of one contrast.

    Parameters
    ----------
    planted
        gene, log2fc of changed genes. Those of MIN_LOG2FC or more count for recall; a smaller change is neither right nor wrong.
    found
        gene, log2fc, p_adjusted of the tested genes. Called: p_adjusted < CALLED_P and |log2fc| > CALLED_LOG2FC.

    Returns
    -------
    recall (called with the right sign among tested planted genes), fdr (called without a planted change or with the wrong sign,
    among called), n_planted, n_called. NaN where there is nothing to divide by; fdr of no call is 0.
    """
    table = found.drop_duplicates("gene").set_index("gene")
    truth = planted.set_index("gene")["log2fc"].reindex(table.index).fillna(0.0)
    called = (table["p_adjusted"] < CALLED_P) & (table["log2fc"].abs() > CALLED_LOG2FC)
    right = called & (np.sign(table["log2fc"]) == np.sign(truth)) & (truth != 0)
    strong = truth.abs() >= MIN_LOG2FC
    n_planted, n_called = int(strong.sum()), int(called.sum())
    return {
        "recall": float(right[strong].mean()) if n_planted else np.nan,
        "fdr": 1 - int(right.sum()) / n_called if n_called else 0.0,
        "n_planted": n_planted,
        "n_called": n_called,
    }


def module_agreement(planted: pd.DataFrame, found: pd.DataFrame) -> tuple[float, int, int, dict[str, str]]:
    """Planted against found modules over the planted genes that are in a found module (not grey).

    Parameters
    ----------
    planted, found
        gene, module.

    Returns
    -------
    ari, n (such genes), n_looked_at (planted genes in the network), planted module -> found module that holds most of its genes
    """
    joined = planted.merge(found[["gene", "module"]], on="gene", suffixes=("", "_found"))
    inside = joined[~joined["module_found"].isin(["grey", ""]) & joined["module_found"].notna()]
    if inside.empty:
        return 0.0 if len(joined) else np.nan, 0, len(joined), {}
    n = pd.crosstab(inside["module"], inside["module_found"]).sort_index(axis=1)
    best = {str(name): str(n.columns[int(np.argmax(n.loc[name].to_numpy()))]) for name in n.index}
    ari = adjusted_rand(inside["module"].to_numpy(), inside["module_found"].to_numpy())
    return ari, len(inside), len(joined), best


def trait_verdicts(planted: pd.DataFrame, partner: dict[str, str], traits: pd.DataFrame) -> pd.Series:
    """Per planted module: has its partner the planted sign on its trait, and does no other module follow that trait more closely?

    Parameters
    ----------
    planted
        module, trait, sign.
    traits
        module, trait, rho, of samples (not cells).
    """
    rho = traits.drop_duplicates(["module", "trait"]).set_index(["module", "trait"])["rho"]
    truth = planted.drop_duplicates("module").sort_values("module")
    verdict = {}
    for row in truth.itertuples():
        own = float(rho.get((partner.get(row.module, ""), row.trait), np.nan))
        strongest = float(rho[rho.index.get_level_values("trait") == row.trait].abs().max())
        verdict[row.module] = bool(np.sign(own) == row.sign and abs(own) >= strongest)
    return pd.Series(verdict, dtype=bool)


def panel_verdicts(planted: pd.DataFrame, values: pd.DataFrame) -> pd.Series:
    """Per planted direction (index `<gene> <cell_type> <contrast>`): does the mean move that way?

    Within patients with both phases where there are such, else between the means of both phases. Each pair of phases once.

    Parameters
    ----------
    planted
        gene, cell_type, contrast (`A_vs_B`), direction (up, down).
    values
        gene, cell_type, patient, phase, mean (of one sample; missing = too few cells).
    """
    known = values[values["mean"].notna()]
    verdict, seen = {}, set()
    for row in planted.sort_values(["gene", "cell_type", "contrast"]).itertuples():
        a, b = row.contrast.split("_vs_")
        pair = (row.gene, row.cell_type, *sorted((a, b)))
        own = known[(known["gene"] == row.gene) & (known["cell_type"] == row.cell_type) & known["phase"].isin([a, b])]
        n = own.groupby(["patient", "phase"])["mean"].mean().unstack()
        if pair in seen or a not in n or b not in n:
            continue
        seen.add(pair)
        both = n.dropna(subset=[a, b])
        moved = float((both[a] - both[b]).mean()) if len(both) else float(n[a].mean() - n[b].mean())
        verdict[f"{row.gene} {row.cell_type} {row.contrast}"] = moved > 0 if row.direction == "up" else moved < 0
    return pd.Series(verdict, dtype=bool)


def marker_recall(planted: pd.DataFrame, found: pd.DataFrame) -> tuple[float, int]:
    """Share of a stratum's planted genes that are higher in positive cells, and how many were tested.

    Parameters
    ----------
    planted
        gene, log2fc (all above 0).
    found
        gene, log2fc of positive against negative cells.
    """
    joined = planted[["gene"]].merge(found[["gene", "log2fc"]].dropna(), on="gene")
    return share(joined["log2fc"] > 0)
