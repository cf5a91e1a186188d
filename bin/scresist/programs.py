"""Modules of a network: eigengenes, clean-up, names, scores of cells, relation to traits, preservation.

Eigengenes, memberships (kME), trimming, reassignment and merging follow WGCNA (Langfelder & Horvath 2008) with the settings of
hdWGCNA (Morabito 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd
from scipy import sparse, stats
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.linalg import eigh
from scipy.spatial.distance import squareform

from scresist import comparison, keys
from scresist.network import standardise

GREY = "grey"  # WGCNA's name of genes without module
CORE_KME = 0.5  # a module needs min_size / 3 genes of this membership (hdWGCNA)
REASSIGN = 1e-4  # ratio of p values at which a gene moves to another module (hdWGCNA)
N_HUBS = 25  # genes by kME on cells, as hdWGCNA's module scores take them
Z_MAX = 10.0  # standardised expression above is cut, as Seurat's ScaleData does
BLOCK = 2048  # cells made dense at once
MAX_ARRANGEMENTS = 100_000  # up to which all arrangements of a trait are tried
N_RANDOM = 10_000
MIN_CELLS_MEAN = 10  # chosen, not tuned: the mean score of fewer cells says little about a sample
MIN_CELLS_PHASE = 100
N_CONTROLS, N_CONTROL_BINS = 50, 25  # of the expression score: Tirosh 2016, as in Seurat and scanpy
CONSTANT = 1e-12  # share of the sum of squares below which a variance is rounding
ROUNDING = 1e-9  # rank correlations that differ by less are equal
SAMPLE_LEVEL = "sample"
ROLE_TRAITS = {"primary_resistance": keys.ROLE_PRIMARY, "acquired_resistance": keys.ROLE_ACQUIRED}
TREATED, PHASE_TIME = "treated", "phase_time"
TRAIT_PREFIX = "trait_"
TRAIT_COLUMNS = ("module", "trait", "level", "rho", "n", "difference", *comparison.TEST_COLUMNS)


# --- modules on metacells ---------------------------------------------------------------------------------------------


def eigengene(values: np.ndarray) -> tuple[np.ndarray, float]:
    """First left singular vector of the standardised columns, and the share of variance it explains.

    Parameters
    ----------
    values
        metacells x genes of one module, no constant column.

    Returns
    -------
    Vector of length 1 over metacells, positively correlated with the mean standardised expression; share in [0, 1].
    """
    z = standardise(values)
    n, g = z.shape
    gram = z.T @ z if g <= n else z @ z.T
    top, vector = eigh(gram, subset_by_index=[len(gram) - 1, len(gram) - 1])
    u = z @ vector[:, 0] if g <= n else vector[:, 0]
    u = u / np.linalg.norm(u)
    if u @ z.mean(axis=1) < 0:
        u = -u
    return u, float(top[0] / g)


def _eigengenes(values: np.ndarray, labels: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Labels above 0, ascending, and their eigengenes (metacells x modules)."""
    names = sorted(set(labels[labels > 0].tolist()))
    found = [eigengene(values[:, labels == name])[0] for name in names]
    return names, np.column_stack(found) if found else np.empty((len(values), 0))


def membership(values: np.ndarray, eigengenes: np.ndarray) -> np.ndarray:
    """kME: Pearson correlation of each gene with each eigengene, genes x modules."""
    if not eigengenes.shape[1]:
        return np.empty((values.shape[1], 0))
    return np.clip(standardise(values).T @ standardise(eigengenes), -1.0, 1.0)


def log_p(kme: np.ndarray, n: int) -> np.ndarray:
    """ln of the two-sided p of a correlation by Fisher's z = atanh(r) sqrt(n - 3)."""
    z = np.arctanh(np.clip(np.abs(kme), 0, 1 - 1e-15)) * np.sqrt(max(n - 3, 0))
    return np.log(2.0) + stats.norm.logsf(z)


def trim(values: np.ndarray, labels: np.ndarray, min_size: int, min_kme: float) -> np.ndarray:
    """Genes of low membership leave their module; modules without a core, or too small afterwards, are dissolved."""
    labels = labels.copy()
    for name in sorted(set(labels[labels > 0].tolist())):
        genes = np.flatnonzero(labels == name)
        own = membership(values[:, genes], eigengene(values[:, genes])[0][:, None])[:, 0]
        if (own > CORE_KME).sum() < min_size / 3:
            labels[genes] = 0
            continue
        labels[genes[own < min_kme]] = 0
        if (labels == name).sum() < min_size:
            labels[genes] = 0
    return labels


def reassign(values: np.ndarray, labels: np.ndarray, names: Sequence[int], eigengenes: np.ndarray, min_size: int) -> np.ndarray:
    """Genes move to the module of their highest membership when its p is less than 1e-4 of that of their own.

    Parameters
    ----------
    names, eigengenes
        the modules and their eigengenes, metacells x modules.
    """
    made = labels.copy()
    if len(names) < 2:
        return made
    kme = membership(values, eigengenes)
    p = log_p(kme, len(values))
    dissolved = []
    for at, name in enumerate(names):
        genes = np.flatnonzero(labels == name)
        best = kme[genes].argmax(axis=1)
        moves = (kme[genes, best] > kme[genes, at]) & (p[genes, best] - p[genes, at] < np.log(REASSIGN))
        made[genes[moves]] = np.array(names)[best[moves]]
        if moves.any() and len(genes) - moves.sum() < min_size:
            dissolved.append(name)
    made[np.isin(made, dissolved)] = 0
    return made


def merge_close(values: np.ndarray, labels: np.ndarray, height: float) -> np.ndarray:
    """Modules whose eigengenes lie within `height` = 1 - correlation (average linkage) become one, until none are left."""
    labels = labels.copy()
    while True:
        names, vectors = _eigengenes(values, labels)
        if len(names) < 2:
            return labels
        distance = 1.0 - np.corrcoef(vectors.T)
        np.fill_diagonal(distance, 0.0)
        groups = fcluster(linkage(squareform(distance, checks=False), method="average"), t=height, criterion="distance")
        if len(set(groups)) == len(names):
            return labels
        first: dict[int, int] = {}
        for name, group in zip(names, groups, strict=True):
            labels[labels == name] = first.setdefault(int(group), name)


def clean(values: np.ndarray, labels: np.ndarray, min_size: int, min_kme: float, merge_height: float) -> np.ndarray:
    """Trim, reassign and merge the modules of the tree cut.

    Parameters
    ----------
    values
        metacells x genes.
    labels
        module of each gene, 0 = none.

    Returns
    -------
    Labels over genes; numbers are those of the cut, a merged module keeps the smallest.
    """
    names, vectors = _eigengenes(values, labels)  # those of the untrimmed modules, as WGCNA reassigns with them
    trimmed = trim(values, labels, min_size, min_kme)
    stay = [at for at, name in enumerate(names) if (trimmed == name).any()]
    moved = reassign(values, trimmed, [names[at] for at in stay], vectors[:, stay], min_size)
    return merge_close(values, moved, merge_height)


def name_modules(labels: np.ndarray, genes: Sequence[str]) -> np.ndarray:
    """M1, M2, ... by falling size, ties by the first gene in order of names; `grey` for genes without module."""
    names = np.asarray(genes, dtype=str)
    order = sorted(set(labels[labels > 0].tolist()), key=lambda name: (-(labels == name).sum(), min(names[labels == name])))
    as_text = {0: GREY, **{name: f"M{at + 1}" for at, name in enumerate(order)}}
    return np.array([as_text[int(label)] for label in labels], dtype=object).astype(str)


def module_names(modules: np.ndarray) -> list[str]:
    """The modules present, M1 first, without grey."""
    return sorted({str(name) for name in modules} - {GREY}, key=lambda name: int(name[1:]))


# --- scores of single cells -------------------------------------------------------------------------------------------


def _moments(x: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (ddof 1) of each column."""
    n = x.shape[0]
    data = x.astype(np.float64)
    mean = np.asarray(data.sum(axis=0)).ravel() / n
    square = np.asarray(data.multiply(data).sum(axis=0)).ravel()
    spread = square - n * mean**2
    spread[spread <= CONSTANT * square] = 0.0
    return mean, np.sqrt(spread / max(n - 1, 1))


def _blocks(x: sparse.csr_matrix) -> list[slice]:
    return [slice(start, min(start + BLOCK, x.shape[0])) for start in range(0, x.shape[0], BLOCK)]


def cell_score(x: sparse.csr_matrix) -> np.ndarray:
    """Module score of each cell: first principal component (u x d) of the standardised genes, as hdWGCNA.

    Gene-wise z with ddof 1, values above 10 cut; not centred again. The sign is that of the correlation with the mean
    expression of the genes.

    Parameters
    ----------
    x
        cells x genes of the module, log1p of counts per 10,000.

    Returns
    -------
    Score per cell; zeros when no gene varies.
    """
    mean, sd = _moments(x)
    x = x[:, np.flatnonzero(sd > 0)]
    mean, sd = mean[sd > 0], sd[sd > 0]
    if not len(sd):
        return np.zeros(x.shape[0])

    def z_of(part: slice) -> np.ndarray:
        return np.minimum((x[part].toarray().astype(np.float64) - mean) / sd, Z_MAX)

    gram = np.zeros((len(sd), len(sd)))
    for part in _blocks(x):
        z = z_of(part)
        gram += z.T @ z
    _, vector = eigh(gram, subset_by_index=[len(gram) - 1, len(gram) - 1])
    score = np.concatenate([z_of(part) @ vector[:, 0] for part in _blocks(x)])
    average = np.asarray(x.mean(axis=1)).ravel()
    return -score if (score - score.mean()) @ (average - average.mean()) < 0 else score


def correlation_with(x: sparse.csr_matrix, scores: np.ndarray) -> np.ndarray:
    """Pearson correlation of each column of `x` with each column of `scores`; NaN for a constant one."""
    sd = _moments(x)[1]
    n = x.shape[0]
    centred = scores - scores.mean(axis=0)
    spread = np.sqrt((centred**2).sum(axis=0) / max(n - 1, 1))
    cross = np.asarray(x.T.astype(np.float64) @ centred) / max(n - 1, 1)
    scale = sd[:, None] * spread[None, :]
    return np.divide(cross, scale, out=np.full_like(cross, np.nan), where=scale > 0)


def expression_score(x: sparse.csr_matrix, genes: np.ndarray, seed: int) -> np.ndarray:
    """Mean of the genes minus the mean of control genes of like expression (Tirosh 2016, Science 352:189).

    Controls: all columns are cut into 25 bins of equal number by mean expression; from each bin that holds a gene of the set
    50 other columns are drawn, without the set. In units of X, above 0 = more than genes of like level.
    """
    mean = np.asarray(x.sum(axis=0, dtype=np.float64)).ravel() / max(x.shape[0], 1)
    rank = stats.rankdata(mean, method="ordinal") - 1
    bins = (rank * N_CONTROL_BINS // len(mean)).astype(int)
    rng = np.random.default_rng(seed)
    inside = np.zeros(len(mean), dtype=bool)
    inside[genes] = True
    controls = []
    for number in sorted(set(bins[genes].tolist())):
        candidates = np.flatnonzero((bins == number) & ~inside)
        controls.append(rng.choice(candidates, min(N_CONTROLS, len(candidates)), replace=False))
    control = np.sort(np.concatenate(controls)) if controls else np.empty(0, dtype=int)
    own = np.asarray(x[:, genes].sum(axis=1, dtype=np.float64)).ravel() / len(genes)
    if not len(control):
        return own
    return own - np.asarray(x[:, control].sum(axis=1, dtype=np.float64)).ravel() / len(control)


def hub_ranks(modules: np.ndarray, kme_cells: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Rank 1 .. 25 of each gene in its module by kME on cells, ties by name; 0 for all other genes."""
    rank = np.zeros(len(modules), dtype=np.int64)
    for name in module_names(modules):
        rows = np.flatnonzero(modules == name)
        order = rows[np.lexsort((genes[rows], -np.nan_to_num(kme_cells[rows], nan=-2.0)))][:N_HUBS]
        rank[order] = np.arange(1, len(order) + 1)
    return rank


def group_means(scores: pd.DataFrame, expressed: pd.DataFrame, groups: pd.Series, obs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation of each module's score in each group of cells.

    Parameters
    ----------
    scores, expressed
        cells x modules: module score; expression above controls.
    groups
        group of each cell, missing where the cell has none.
    obs
        sample and patient of each cell.

    Returns
    -------
    `group, module, mean, sd, mean_expression, n_cells, n_samples, n_patients`, sorted by group and module.
    """
    rows = []
    known = groups.notna() & (groups.astype(str) != "")
    for group in sorted(set(groups[known].astype(str))):
        mine = (known & (groups.astype(str) == group)).to_numpy()
        n_samples, n_patients = obs.loc[mine, keys.SAMPLE].nunique(), obs.loc[mine, keys.PATIENT].nunique()
        for module in scores:
            values = scores.loc[mine, module].to_numpy(dtype=float)
            sd = values.std(ddof=1) if len(values) > 1 else np.nan
            above = float(expressed.loc[mine, module].mean())
            rows.append((group, module, values.mean(), sd, above, len(values), n_samples, n_patients))
    return pd.DataFrame(rows, columns=["group", "module", "mean", "sd", "mean_expression", "n_cells", "n_samples", "n_patients"])


# --- traits -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trait:
    """A property of samples; `values` holds those samples that have it. Two-sided traits are 1 (side A) and 0 (side B)."""

    name: str
    values: Mapping[str, float]
    two_sided: bool
    contrast: str


def traits(samples: pd.DataFrame, phases: pd.DataFrame) -> list[Trait]:
    """Traits of the samples of a cohort.

    Primary and acquired resistance against the baseline (samples of other phases have no value), treated, the time of the
    phase (phases beside the time axis, such as primary resistance, have none), and every numeric `trait_` column.

    Parameters
    ----------
    samples
        text columns sample, phase and, optionally, treated and trait_*.
    phases
        columns phase, role, time (NaN beside the axis).
    """
    role = dict(zip(phases["phase"].astype(str), phases["role"].astype(str), strict=True))
    time = dict(zip(phases["phase"].astype(str), phases["time"].astype(float), strict=True))
    phase = dict(zip(samples[keys.SAMPLE].astype(str), samples[keys.PHASE].astype(str), strict=True))
    base = [p for p in role if role[p] == keys.ROLE_BASELINE]
    made = []
    for name, wanted in ROLE_TRAITS.items():
        side = [p for p in role if role[p] == wanted]
        values = {s: float(p in side) for s, p in phase.items() if p in side or p in base}
        contrast = f"{'+'.join(side)}_vs_{'+'.join(base)}" if side and base else name
        made.append(Trait(name, values, True, contrast))
    if "treated" in samples:
        words = dict(zip(phase, samples["treated"], strict=True))
        values = {s: float(w == keys.YES) for s, w in words.items() if w in (keys.YES, keys.NO)}
        if values:
            made.append(Trait(TREATED, values, True, TREATED))
    made.append(Trait(PHASE_TIME, {s: time[p] for s, p in phase.items() if np.isfinite(time.get(p, np.nan))}, False, PHASE_TIME))
    for column in sorted(name for name in samples if name.startswith(TRAIT_PREFIX)):
        numbers = pd.to_numeric(samples[column], errors="coerce")
        given = samples[column].notna() & (samples[column].astype(str) != "")
        if given.any() and numbers[given].notna().all():
            values = {s: float(v) for s, v in zip(phase, numbers, strict=True) if np.isfinite(v)}
            made.append(Trait(column, values, False, column))
    return made


def arrangements(values: np.ndarray) -> int:
    """Number of different orders of `values`: n! / product of the factorials of the ties."""
    _, ties = np.unique(values, return_counts=True)
    total = factorial(len(values))
    for n in ties:
        total //= factorial(int(n))
    return total


def _all_orders(values: np.ndarray) -> np.ndarray:
    """All different orders of `values`, arrangements x n."""
    levels, ties = np.unique(values, return_counts=True)
    orders = np.full((1, len(values)), np.nan)
    for level, n in zip(levels, ties, strict=True):
        free = int(np.isnan(orders[0]).sum())
        chosen = np.array(list(combinations(range(free), int(n))), dtype=np.int64)
        places = np.argsort(~np.isnan(orders), axis=1, kind="stable")[:, :free]  # free places of each order, ascending
        taken = places[:, chosen]  # orders x choices x n
        orders = np.repeat(orders, len(chosen), axis=0)
        np.put_along_axis(orders, taken.reshape(len(orders), int(n)), level, axis=1)
    return orders


def permutation_p(scores: np.ndarray, trait: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, str, float]:
    """Spearman correlation of each column of `scores` with `trait`, with two-sided p by permuting the trait.

    All orders are tried when there are at most 100,000 of them (p = share with |rho| at least the observed one), else 10,000
    random ones (p = (b + 1) / (B + 1)).

    Parameters
    ----------
    scores
        values x modules, no column constant; the trait is not constant.

    Returns
    -------
    rho and p per module, name of the test, smallest p that the design allows.
    """
    ranks = standardise(stats.rankdata(scores, axis=0))
    own = stats.rankdata(trait)
    centred = (own - own.mean()) / np.sqrt(((own - own.mean()) ** 2).sum())
    rho = np.round(np.clip(centred @ ranks, -1.0, 1.0), 12) + 0.0  # rounding must not write a zero as 1e-18 or -0
    n_orders = arrangements(own)
    if n_orders <= MAX_ARRANGEMENTS:
        null = np.abs(_all_orders(centred) @ ranks)
        p = (null >= np.abs(rho) - ROUNDING).mean(axis=0)
        return rho, p, "spearman_permutation_exact", 2.0 / n_orders
    rng = np.random.default_rng(seed)
    null = np.abs(rng.permuted(np.tile(centred, (N_RANDOM, 1)), axis=1) @ ranks)
    hits = (null >= np.abs(rho) - ROUNDING).sum(axis=0)
    return rho, (hits + 1) / (N_RANDOM + 1), "spearman_permutation_random", 1.0 / (N_RANDOM + 1)


def _sides(trait: Trait, table: pd.DataFrame) -> dict[str, object]:
    """Samples, patients and cells behind a trait; a numeric trait has one side."""
    parts = {"a": table[table["trait"] == 1], "b": table[table["trait"] == 0]} if trait.two_sided else {"a": table}
    made: dict[str, object] = {}
    for side in ("a", "b"):
        part = parts.get(side)
        made[f"n_{side}"] = pd.NA if part is None else len(part)
        made[f"n_patients_{side}"] = pd.NA if part is None else part[keys.PATIENT].nunique()
        made[f"n_cells_{side}"] = pd.NA if part is None else int(part["n_cells"].sum())
    return made


def _evidence(trait: Trait, sides: Mapping[str, object]) -> str:
    """Evidence by patients a side; a numeric trait counts half of its patients for a side."""
    if trait.two_sided:
        return comparison.evidence(int(sides["n_patients_a"]), int(sides["n_patients_b"]))  # type: ignore[call-overload]
    half = int(sides["n_patients_a"]) // 2  # type: ignore[call-overload]
    return comparison.evidence(half, half)


def sample_traits(
    means: pd.DataFrame, spread: Mapping[str, float], patient_of: Mapping[str, str], found: Sequence[Trait], seed: int
) -> pd.DataFrame:
    """Relation of mean module scores of patients to traits: the level that decides.

    Samples of one patient with the same value of a trait become one value (mean weighted by cells), because the patient is the
    unit of replication; a patient with different values of the trait keeps one value for each.

    Parameters
    ----------
    means
        `sample, module, mean, n_cells` of samples with at least 10 tumour cells.
    spread
        standard deviation of each module's score over all cells, the unit of `difference`.

    Returns
    -------
    Columns TRAIT_COLUMNS, one row per trait and module; `difference` = mean of side A minus mean of side B, for two-sided
    traits only; p missing below two patients a side (four in all for a numeric trait).
    """
    modules = list(dict.fromkeys(means["module"]))
    wide = means.pivot(index=keys.SAMPLE, columns="module", values="mean")[modules] if modules else pd.DataFrame()
    cells = means.drop_duplicates(keys.SAMPLE).set_index(keys.SAMPLE)["n_cells"] if modules else pd.Series(dtype=float)
    rows = []
    for at, trait in enumerate(found):
        use = [sample for sample in wide.index if sample in trait.values]
        table = pd.DataFrame({"sample": use, "trait": [trait.values[s] for s in use], "n_cells": [int(cells[s]) for s in use]})
        table[keys.PATIENT] = [patient_of[s] for s in use]
        scores = _by_patient(wide.loc[use].to_numpy(dtype=float), table)
        values = table.groupby([keys.PATIENT, "trait"], sort=True).size().reset_index()["trait"].to_numpy(dtype=float)
        sides = _sides(trait, table)
        evidence = _evidence(trait, sides)
        replicated = evidence != keys.SINGLE_PATIENT
        varies = len(values) > 1 and np.ptp(values) > 0
        moving = np.array([varies and np.ptp(column) > 0 for column in scores.T], dtype=bool)
        rho, p, test, least = np.full(len(modules), np.nan), np.full(len(modules), np.nan), "spearman", np.nan
        if moving.any():
            rho[moving], p[moving], test, least = permutation_p(scores[:, moving], values, seed + at)
        gap = _difference(trait, values, scores)
        for j, module in enumerate(modules):
            word = keys.OK if replicated else keys.NO_REPLICATES
            if len(values) > 1 and not moving[j]:
                word = keys.NOT_ESTIMABLE
            tested = word == keys.OK
            rows.append(
                {
                    "module": module, "trait": trait.name, "level": SAMPLE_LEVEL, "rho": rho[j], "n": len(values),
                    "difference": gap[j] / spread[module] if spread[module] > 0 else np.nan,
                    "contrast": trait.contrast, "unit": comparison.UNIT_PATIENT, **sides, "effect": rho[j],
                    "effect_name": "spearman_rho", "ci_low": np.nan, "ci_high": np.nan,
                    "statistic": rho[j], "test": test if tested else "spearman", "p_value": p[j] if tested else np.nan,
                    "p_min_attainable": least if tested else np.nan, "evidence": evidence, "status": word,
                }
            )  # fmt: skip
    return _adjusted(rows, "BH:modules x traits")


def _difference(trait: Trait, values: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Mean of side A minus mean of side B per column; NaN for numeric traits and for a side without values."""
    if not trait.two_sided or not (values == 1).any() or not (values == 0).any():
        return np.full(scores.shape[1], np.nan)
    return scores[values == 1].mean(axis=0) - scores[values == 0].mean(axis=0)


def _by_patient(values: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    """Rows of one patient and trait value averaged with the cells as weights, sorted by patient and value."""
    if not len(table):
        return np.empty((0, values.shape[1] if values.ndim == 2 else 0))
    weighted = pd.DataFrame(values * table["n_cells"].to_numpy(dtype=float)[:, None])
    weighted["weight"] = table["n_cells"].to_numpy(dtype=float)
    grouped = weighted.groupby([table[keys.PATIENT].to_numpy(), table["trait"].to_numpy()], sort=True).sum()
    return grouped.drop(columns="weight").to_numpy() / grouped["weight"].to_numpy()[:, None]


def cell_traits(
    eigengenes: pd.DataFrame, sample: np.ndarray, patient_of: Mapping[str, str], found: Sequence[Trait]
) -> pd.DataFrame:
    """Spearman of eigengenes with traits over metacells, as the study did; p counts metacells and is no evidence.

    Parameters
    ----------
    eigengenes
        metacells x modules.
    sample
        of each metacell.
    """
    rows = []
    for trait in found:
        use = np.array([name in trait.values for name in sample], dtype=bool)
        values = np.array([trait.values[name] for name in sample[use]], dtype=float)
        names = pd.Series(sample[use])
        table = names.value_counts().sort_index().rename_axis(keys.SAMPLE).reset_index(name="n_cells")
        table["trait"] = [trait.values[name] for name in table[keys.SAMPLE]]
        table[keys.PATIENT] = [patient_of[name] for name in table[keys.SAMPLE]]
        sides = _sides(trait, table)
        constant = len(values) < 3 or np.ptp(values) == 0
        gap = _difference(trait, values, eigengenes.loc[use].to_numpy(dtype=float))
        for at, module in enumerate(eigengenes):
            sd = float(eigengenes[module].std(ddof=1))
            rho, p = (np.nan, np.nan) if constant else stats.spearmanr(eigengenes.loc[use, module].to_numpy(), values)
            rows.append(
                {
                    "module": module, "trait": trait.name, "level": keys.CELL_LEVEL, "rho": float(rho), "n": len(values),
                    "difference": gap[at] / sd if sd > 0 else np.nan,
                    "contrast": trait.contrast, "unit": comparison.UNIT_CELL, **sides, "effect": float(rho),
                    "effect_name": "spearman_rho", "ci_low": np.nan, "ci_high": np.nan, "statistic": float(rho),
                    "test": "spearman_t", "p_value": max(float(p), 1e-300) if np.isfinite(p) else np.nan,
                    "p_min_attainable": np.nan, "evidence": keys.CELL_LEVEL,
                    "status": keys.OK if np.isfinite(rho) else keys.NOT_ESTIMABLE,
                }
            )  # fmt: skip
    return _adjusted(rows, "BH:modules x traits over metacells")


def _adjusted(rows: Sequence[Mapping[str, object]], method: str) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=list(TRAIT_COLUMNS))
    for name in ("rho", "difference", "effect", "statistic", "p_value", "p_min_attainable", "ci_low", "ci_high"):
        frame[name] = frame[name].astype(float)
    frame["p_adjusted"] = comparison.adjust(frame["p_value"])
    frame["adjust_method"] = method
    return frame


# --- preservation -----------------------------------------------------------------------------------------------------


def mean_correlation(x: sparse.csr_matrix) -> float:
    """Mean Pearson correlation of all pairs of columns that vary; NaN below two of them.

    The sum of all correlations is the variance of the row sums of standardised columns, so no matrix of pairs is made.
    """
    mean, sd = _moments(x)
    moving = np.flatnonzero(sd > 0)
    g, n = len(moving), x.shape[0]
    if g < 2:
        return np.nan
    scaled = x[:, moving].astype(np.float64) @ (1.0 / sd[moving])
    total = ((scaled - (mean[moving] / sd[moving]).sum()) ** 2).sum() / (n - 1)
    return float((total - g) / (g * (g - 1)))


def preservation(
    x: sparse.csr_matrix, modules: np.ndarray, scores: np.ndarray, kme_cells: np.ndarray, phase: np.ndarray, phases: Sequence[str]
) -> pd.DataFrame:
    """Whether the genes of a module belong together within each phase, too.

    Parameters
    ----------
    x
        cells x network genes, log1p of counts per 10,000.
    scores
        cells x modules (M1 first).
    kme_cells
        genes x modules over all cells.

    Returns
    -------
    `module, phase, n_cells, mean_correlation, background_correlation, kme_rank_correlation, status`: mean correlation of all
    pairs of the module's genes over the cells of the phase, the same of all network genes, and Spearman's rho between the
    memberships within the phase and over all cells. Below 100 cells `not_estimable`.
    """
    rows = []
    for name in phases:
        mine = np.flatnonzero(phase == name)
        part = x[mine]
        enough = len(mine) >= MIN_CELLS_PHASE
        background = mean_correlation(part) if enough else np.nan
        own = correlation_with(part, scores[mine]) if enough and scores.shape[1] else None
        for at, module in enumerate(module_names(modules)):
            genes = np.flatnonzero(modules == module)
            pairwise = ranks = np.nan
            if own is not None:
                pairwise = mean_correlation(part[:, genes])
                known = genes[np.isfinite(own[genes, at]) & np.isfinite(kme_cells[genes, at])]
                if len(known) > 2:
                    ranks = float(stats.spearmanr(own[known, at], kme_cells[known, at]).statistic)
            word = keys.OK if np.isfinite(pairwise) else keys.NOT_ESTIMABLE
            rows.append((module, name, len(mine), pairwise, background, ranks, word))
    columns = ["module", "phase", "n_cells", "mean_correlation", "background_correlation", "kme_rank_correlation", "status"]
    return pd.DataFrame(rows, columns=columns)
