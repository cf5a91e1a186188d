"""Named genes and gene sets followed over the phases of therapy, per sample, per patient, per cell and per clone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, stats

from scresist import comparison, keys
from scresist.io import InputError

ALL_TYPES = "all"  # compartment: the tumour cells and every main type, each by itself
# Groups of cells that a panel may name instead of a main type; each is also tracked as one pooled cell type.
POOLED = (keys.TUMOUR, "epithelial", "immune", "stromal", "t_cell", "myeloid")
COMPARTMENTS = (*POOLED, ALL_TYPES)
PANEL_COLUMNS = ("panel", "gene", "compartment")
OPTIONAL_COLUMNS = ("expected_direction", "source", "locus")
DIRECTIONS = re.compile(r"^((up|down)(-(up|down))*)?$")
# Immune labels that mean T cells: T_cell, CD4_T, CD8 T cells, Treg; a name in which T stands alone between separators.
T_CELL = re.compile(r"(?i:t[ _.-]?cells?)|(?:^|[ _.+-])T(?:$|[ _.+-])|(?i:treg)")
# Immune labels of the myeloid cells that present antigen or carry PD-L1; mast cells are left out.
MYELOID = re.compile(r"(?i:macroph|monocyt|dendritic|myeloid|neutroph|granuloc|mdsc)|(?:^|[ _.+-])[cp]?DC\d?(?:$|[ _.+-])")
SET_SCORE, SET_MEAN = "set_score", "set_mean"  # stand in the column `gene` for the genes of a panel together
MIN_SET = 2  # genes of a set
MIN_GENES_SCORE = 500  # measured genes below which score_genes runs out of controls (methods.md, TRACK_PANELS)
CTRL_SIZE, N_BINS = 50, 25  # scanpy's and Seurat's defaults
MIN_PHASES_RANK = 3  # Kruskal-Wallis over patients; two phases are a contrast
MIN_TREND = 3  # ordered phases of a patient
ALL_PHASES = "phases"  # the contrast of a test over all phases at once
GENE_ABSENT = "gene_absent"
GAIN, LOSS, NEUTRAL = "gain", "loss", "neutral"
VALUE_COLUMNS = (
    "panel", "gene", "cell_type", keys.SAMPLE, keys.PATIENT, keys.PHASE, "n_cells", "pct", "mean", "cp10k", "status", "reason",
)  # fmt: skip
TEST_COLUMNS = (
    "panel", "gene", "cell_type", "measure", *comparison.TEST_COLUMNS, "groups", "rank_biserial", "p_equal_cells",
    "n_equal_cells", "reason",
)  # fmt: skip
TREND_COLUMNS = ("panel", "gene", "cell_type", keys.PATIENT, "phases", "values", "pattern", "expected_direction", "as_expected")
CLONE_COLUMNS = (keys.PATIENT, "clone", "gene", "locus_z", "locus_call", "n_cells", "pct", "mean")


# --- the panel table and the cells it names


def check_panels(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The panel table with all its columns as text, sorted by panel and gene.

    Parameters
    ----------
    table
        read as text: `panel, gene, compartment` and, where given, `expected_direction, source, locus`. A compartment is one or,
        joined by commas, several of COMPARTMENTS or main types.
    name
        file, for the message.

    Raises
    ------
    InputError
        with everything that is wrong.
    """
    absent = [column for column in PANEL_COLUMNS if column not in table]
    if absent:
        raise InputError(f"{name}: no column {', '.join(absent)}; expected {', '.join(PANEL_COLUMNS)}, found {', '.join(table)}")
    made = table.reindex(columns=[*PANEL_COLUMNS, *OPTIONAL_COLUMNS]).fillna("").astype(str)
    made = made.apply(lambda column: column.str.strip())
    problems = []
    for line, row in enumerate(made.to_dict("records"), start=2):
        for column in PANEL_COLUMNS:
            if not row[column]:
                problems.append(f"row {line}: {column} is empty; write one")
        if row["panel"] and not keys.ID_PATTERN.match(row["panel"]):
            problems.append(f"row {line}: panel {row['panel']!r}, expected letters, digits, _ . -; rename it")
        if row["gene"] in (SET_SCORE, SET_MEAN):
            problems.append(f"row {line}: gene {row['gene']!r} is the name of a set's own row; use a gene symbol")
        if not DIRECTIONS.match(row["expected_direction"]):
            problems.append(
                f"row {line}: expected_direction {row['expected_direction']!r}, expected up, down, down-up, ... or nothing"
            )
        if row["locus"] not in (keys.YES, keys.NO, ""):
            problems.append(f"row {line}: locus {row['locus']!r}, expected yes, no or nothing")
    for (panel, gene), n in made.value_counts(["panel", "gene"], sort=False).items():
        if n > 1:
            problems.append(f"{panel} {gene} stands {n} times; join its compartments by commas in one row")
    if problems:
        raise InputError(f"{name}:\n  - " + "\n  - ".join(problems))
    return made.sort_values(["panel", "gene"], ignore_index=True)


def type_masks(main_type: Sequence[str], lineage: Sequence[str], tumour: np.ndarray) -> dict[str, np.ndarray]:
    """Cell type -> which cells it holds: the pooled compartments, then every main type but `unresolved`, by name.

    Parameters
    ----------
    main_type, lineage
        one per cell ("" or missing = none).
    tumour
        boolean, one per cell.
    """
    types = pd.Series(main_type, dtype=object).fillna("").astype(str).to_numpy()
    lines = pd.Series(lineage, dtype=object).fillna("").astype(str).to_numpy()
    names = sorted(set(types) - {"", keys.UNRESOLVED})
    immune = lines == "immune"
    masks = {
        keys.TUMOUR: np.asarray(tumour, dtype=bool),
        "epithelial": lines == "epithelial",
        "immune": immune,
        "stromal": lines == "stromal",
        "t_cell": immune & np.isin(types, [n for n in names if T_CELL.search(n)]),
        "myeloid": immune & np.isin(types, [n for n in names if MYELOID.search(n)]),
    }
    masks.update({name: types == name for name in names if name not in COMPARTMENTS})
    return masks


def types_of(compartment: str, masks: Mapping[str, np.ndarray]) -> list[str]:
    """Cell types in which a panel's compartment is tracked, in the order of `masks`; words without cells are left out.

    A pooled compartment is tracked as a whole and, where it holds several main types, in each of them; `all` is the tumour
    cells and every main type.
    """
    main = [name for name in masks if name not in COMPARTMENTS]
    found: set[str] = set()
    for word in compartment.split(","):
        word = word.strip()
        if word == ALL_TYPES:
            found |= {keys.TUMOUR, *main}
        elif word == keys.TUMOUR:
            found.add(word)
        elif word in POOLED:
            inside = [name for name in main if masks[name].any() and (masks[name] & masks[word]).sum() * 2 > masks[name].sum()]
            found |= {word, *(inside if len(inside) > 1 else [])}
        elif word in masks:
            found.add(word)
    return [name for name in masks if name in found]


def unknown_compartments(panels: pd.DataFrame, masks: Mapping[str, np.ndarray]) -> list[str]:
    """Words in the column compartment that are neither a compartment nor a main type of these cells."""
    words = {word.strip() for text in panels["compartment"] for word in text.split(",")}
    return sorted(words - set(COMPARTMENTS) - set(masks))


def plan(panels: pd.DataFrame, masks: Mapping[str, np.ndarray]) -> list[tuple[str, str, str]]:
    """What is tracked: (panel, gene, cell type) in the order of the table, each type once per gene."""
    return [
        (row["panel"], row["gene"], name)
        for row in panels.to_dict("records")
        for name in types_of(row["compartment"], masks)
    ]  # fmt: skip


# --- scores


def score_genes(
    x: sparse.csr_matrix, genes: Sequence[str], chosen: Sequence[str], seed: int, ctrl_size: int = CTRL_SIZE
) -> np.ndarray:
    """Mean of a gene set minus the mean of control genes of like expression, per cell (Tirosh 2016, Satija 2015).

    As scanpy's `score_genes`: all genes are ranked by their mean and cut into N_BINS - 1 bins of equal size; from each bin that
    holds a gene of the set, `ctrl_size` genes are drawn, less those of the set. The draw is numpy's own, so that scores
    equal scanpy's up to the choice of controls.

    Parameters
    ----------
    x
        cells x genes, log1p of counts per 10,000.
    genes
        symbols of the columns.
    chosen
        the set; genes that are not among `genes` are passed over.

    Returns
    -------
    float64, one per cell; NaN when no gene of the set was measured or no control is left.
    """
    at = {gene: i for i, gene in enumerate(genes)}
    rows = np.array(sorted({at[gene] for gene in chosen if gene in at}), dtype=int)
    empty = np.full(x.shape[0], np.nan)
    if not len(rows) or not x.shape[0]:
        return empty
    # rounded, so that the order of cells in a sum cannot part genes of equal mean
    mean = np.round(np.asarray(x.sum(axis=0, dtype=np.float64)).ravel() / x.shape[0], 12)
    per_bin = max(int(np.round(len(mean) / (N_BINS - 1))), 1)
    bins = (stats.rankdata(mean, method="min") // per_bin).astype(int)
    rng = np.random.default_rng(seed)
    controls: set[int] = set()
    for at_bin in np.unique(bins[rows]):
        pool = np.flatnonzero(bins == at_bin)
        if len(pool) > ctrl_size:
            pool = rng.choice(pool, ctrl_size, replace=False)
        controls |= set(pool.tolist())
    left = np.array(sorted(controls - set(rows.tolist())), dtype=int)
    if not len(left):
        return empty
    weight = np.zeros(len(mean))
    weight[rows] += 1 / len(rows)
    weight[left] -= 1 / len(left)
    return np.asarray(x @ weight).ravel()


# --- values per sample


def sample_values(
    x: sparse.csc_matrix,
    counts: sparse.csc_matrix,
    totals: np.ndarray,
    samples: np.ndarray,
    names: Sequence[str],
    mask: np.ndarray,
) -> dict[str, np.ndarray]:
    """Expression of some genes in the cells of one type, sample by sample.

    Parameters
    ----------
    x, counts
        cells x genes: log1p of counts per 10,000, and counts.
    totals
        counts of each cell over all genes.
    samples
        sample of each cell.
    names
        samples, in the order of the result.
    mask
        cells of the type.

    Returns
    -------
    `n_cells` (samples) and `pct` (0 to 100, cells with a count above 0), `mean` (of x), `cp10k` (summed counts per 10,000 summed
    counts of all genes), each samples x genes with NaN where there is no cell or no count.
    """
    order = {name: i for i, name in enumerate(names)}
    rows = np.flatnonzero(mask)
    code = np.array([order[s] for s in samples[rows]], dtype=int)
    pick = sparse.csr_matrix((np.ones(len(rows)), (code, rows)), shape=(len(names), len(samples)))
    n = np.asarray(pick.sum(axis=1)).ravel()
    depth = pick @ totals
    positive = counts.copy()
    positive.data = (positive.data > 0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        pct = 100 * (pick @ positive).toarray() / n[:, None]
        mean = (pick @ x.astype(np.float64)).toarray() / n[:, None]
        cp10k = keys.TARGET_SUM * (pick @ counts.astype(np.float64)).toarray() / depth[:, None]
    cp10k[depth == 0] = np.nan
    return {"n_cells": n.astype(int), "pct": pct, "mean": mean, "cp10k": cp10k}


# --- tests


def rank_table(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kruskal-Wallis and Dunn from a table of counts, for many draws at once.

    Parameters
    ----------
    table
        draws x groups x values: how many members of a group have each value, values ascending.

    Returns
    -------
    H (draws), z of every pair of groups i < j (draws x pairs; above 0 when j ranks higher) and n (draws). With mean ranks r, N
    values, ties t and s2 = N(N+1)/12 - sum(t^3 - t)/(12(N-1)): H = sum n_g (r_g - (N+1)/2)^2 / s2 and z = (r_j - r_i) /
    sqrt(s2 (1/n_i + 1/n_j)) (Kruskal and Wallis 1952; Dunn 1964). NaN for constant values.
    """
    table = np.asarray(table, dtype=np.float64)
    size, ties = table.sum(axis=2), table.sum(axis=1)
    n = ties.sum(axis=1)
    middle = np.cumsum(ties, axis=1) - ties + (ties + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.einsum("dgk,dk->dg", table, middle) / size
        spread = n * (n + 1) / 12 - (ties**3 - ties).sum(axis=1) / (12 * (n - 1))
        spread[~(spread > 1e-9 * n)] = np.nan
        h = (size * (mean - (n[:, None] + 1) / 2) ** 2).sum(axis=1) / spread
        pairs = [(i, j) for i in range(table.shape[1]) for j in range(i + 1, table.shape[1])]
        z = [(mean[:, j] - mean[:, i]) / np.sqrt(spread * (1 / size[:, i] + 1 / size[:, j])) for i, j in pairs]
    return h, np.array(z).reshape(len(pairs), len(n)).T, n


def equal_draws(group: np.ndarray, n_groups: int, n_draws: int, seed: int) -> np.ndarray:
    """Indices of `n_draws` draws with as many members of every group as the smallest has: draws x (groups * smallest)."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(group == g) for g in range(n_groups)]
    least = min(len(r) for r in rows)
    made = np.empty((n_draws, n_groups * least), dtype=np.int64)
    for draw in range(n_draws):
        made[draw] = np.concatenate([rng.choice(r, least, replace=False) for r in rows])
    return made


def cell_tests(values: np.ndarray, group: np.ndarray, names: Sequence[str], draws: np.ndarray) -> dict[str, Any]:
    """Kruskal-Wallis and Dunn over cells, on all of them and on draws of equal numbers per phase.

    Parameters
    ----------
    values
        one per cell.
    group
        index of the cell's phase in `names`.
    draws
        from `equal_draws`.

    Returns
    -------
    `h`, `p`, `epsilon_squared` = H/(n - 1), `p_equal` (median over the draws), `pairs`: list of (phase i, phase j, z, p, p_equal,
    mean of j minus mean of i). NaN for constant values; draws in which all values are equal count as p = 1.
    """
    n_groups = len(names)
    _, code = np.unique(values, return_inverse=True)
    n_values = int(code.max()) + 1
    full = np.zeros((1, n_groups, n_values))
    np.add.at(full[0], (group, code), 1)
    h, z, n = rank_table(full)
    p = float(stats.chi2.sf(h[0], n_groups - 1))
    p_pairs = 2 * stats.norm.sf(np.abs(z[0]))
    p_equal, p_pairs_equal = np.nan, np.full(len(p_pairs), np.nan)
    if len(draws) and np.isfinite(p):
        drawn_h, drawn_z = [], []
        # in blocks, so that the tables stay below some 100 MB
        block = max(1, int(1e7 // (n_groups * n_values)))
        per_group = draws.shape[1] // n_groups
        offset = np.repeat(np.arange(n_groups), per_group) * n_values
        for start in range(0, len(draws), block):
            part = draws[start : start + block]
            flat = code[part] + offset + (np.arange(len(part)) * n_groups * n_values)[:, None]
            table = np.bincount(flat.ravel(), minlength=len(part) * n_groups * n_values).reshape(len(part), n_groups, n_values)
            found_h, found_z, _ = rank_table(table)
            drawn_h.append(found_h)
            drawn_z.append(found_z)
        p_equal = float(np.median(np.nan_to_num(stats.chi2.sf(np.concatenate(drawn_h), n_groups - 1), nan=1.0)))
        p_pairs_equal = np.median(np.nan_to_num(2 * stats.norm.sf(np.abs(np.concatenate(drawn_z))), nan=1.0), axis=0)
    mean = np.bincount(group, values, n_groups) / np.bincount(group, minlength=n_groups)
    pairs = [(i, j) for i in range(n_groups) for j in range(i + 1, n_groups)]
    return {
        "h": float(h[0]),
        "p": p,
        "epsilon_squared": float(h[0] / (n[0] - 1)),
        "p_equal": p_equal,
        "pairs": [
            (names[i], names[j], float(z[0][at]), float(p_pairs[at]), float(p_pairs_equal[at]), float(mean[j] - mean[i]))
            for at, (i, j) in enumerate(pairs)
        ],
    }


def blank(contrast: str, unit: str, test: str) -> dict[str, Any]:
    """A row of TEST_COLUMNS without values."""
    row: dict[str, Any] = dict.fromkeys(TEST_COLUMNS[4:], np.nan)  # what is tested is named by the caller
    row.update(contrast=contrast, unit=unit, test=test, adjust_method="", groups="", reason="", effect_name="", evidence="")
    return row


def patient_phase_values(
    values: pd.Series, cells: pd.Series, samples: pd.DataFrame, phases: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """Phase -> one value per patient (comparison.by_patient), for the phases that have any.

    Parameters
    ----------
    values, cells
        by sample.
    samples
        with the columns sample, patient, phase.
    """
    patient_of = dict(zip(samples[keys.SAMPLE], samples[keys.PATIENT], strict=True))
    found = {
        phase: comparison.by_patient(values, cells, samples.loc[samples[keys.PHASE] == phase, keys.SAMPLE].tolist(), patient_of)
        for phase in phases
    }
    return {phase: frame for phase, frame in found.items() if len(frame)}


def patient_kruskal(by_phase: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """Kruskal-Wallis over the phases with one value per patient, then Dunn: rows of TEST_COLUMNS, [] below three phases.

    Phases with one patient are left out. A patient with several phases stands in each of them, which the test does not know:
    such rows are `warning`.
    """
    if len(by_phase) < MIN_PHASES_RANK:
        return []
    row = blank(ALL_PHASES, comparison.UNIT_PATIENT, "kruskal_wallis")
    row["groups"] = ";".join(f"{phase}={len(frame)}" for phase, frame in by_phase.items())
    row["effect_name"] = "epsilon_squared"
    usable = {phase: frame for phase, frame in by_phase.items() if len(frame) >= comparison.LIMITED_FROM}
    second = sorted((len(frame) for frame in by_phase.values()), reverse=True)[1]
    row["evidence"] = comparison.evidence(second, second)
    if len(usable) < MIN_PHASES_RANK:
        row["status"] = keys.NO_REPLICATES
        row["reason"] = f"{len(usable)} phases with 2 patients or more, {MIN_PHASES_RANK} needed"
        return [row]
    patients = [p for frame in usable.values() for p in frame.index]
    repeated = len(patients) != len(set(patients))
    word = keys.WARNING if repeated else keys.OK
    reason = "patients repeat over phases; the test takes them as independent" if repeated else ""
    groups = {phase: frame["value"].to_numpy(dtype=float) for phase, frame in usable.items()}
    row["statistic"], row["p_value"], row["effect"] = comparison.kruskal(list(groups.values()))
    constant = not np.isfinite(row["p_value"])
    row["status"], row["reason"] = (keys.NOT_ESTIMABLE, "all values are equal") if constant else (word, reason)
    rows = [row]
    if constant:
        return rows
    for found in comparison.dunn(groups).to_dict("records"):
        a, b = found["group_b"], found["group_a"]  # the later phase is side A, as in the contrasts
        pair = blank(f"{a}_vs_{b}", comparison.UNIT_PATIENT, "dunn")
        effect, _, _ = comparison.mean_difference(groups[a], groups[b], False)
        n_a, n_b = len(groups[a]), len(groups[b])
        pair.update(
            n_a=int(usable[a]["n_samples"].sum()), n_b=int(usable[b]["n_samples"].sum()), n_patients_a=n_a, n_patients_b=n_b,
            n_cells_a=int(usable[a]["weight"].sum()), n_cells_b=int(usable[b]["weight"].sum()), effect=effect,
            effect_name="mean_difference", statistic=found["z"], p_value=found["p_value"], p_adjusted=found["p_adjusted"],
            adjust_method="BH:pairs", evidence=comparison.evidence(n_a, n_b), status=word, reason=reason,
        )  # fmt: skip
        rows.append(pair)
    return rows


def cell_rows(
    values: np.ndarray, group: np.ndarray, names: Sequence[str], draws: np.ndarray, patients: np.ndarray, samples: np.ndarray
) -> list[dict[str, Any]]:
    """`cell_tests` as rows of TEST_COLUMNS, evidence `cell_level`: one of Kruskal-Wallis, then one per pair of phases."""
    found = cell_tests(values, group, names, draws)
    n_equal = draws.shape[1] // len(names) if len(draws) else np.nan
    size = {name: int((group == g).sum()) for g, name in enumerate(names)}
    people = {name: len(set(patients[group == g])) for g, name in enumerate(names)}
    taken = {name: len(set(samples[group == g])) for g, name in enumerate(names)}
    row = blank(ALL_PHASES, comparison.UNIT_CELL, "kruskal_wallis")
    constant = not np.isfinite(found["p"])
    row.update(
        groups=";".join(f"{name}={size[name]}" for name in names), effect_name="epsilon_squared", evidence=keys.CELL_LEVEL,
        status=keys.NOT_ESTIMABLE if constant else keys.OK, reason="all values are equal" if constant else "",
    )  # fmt: skip
    if constant:
        return [row]
    row.update(
        effect=found["epsilon_squared"], statistic=found["h"], p_value=found["p"], p_equal_cells=found["p_equal"],
        n_equal_cells=n_equal,
    )  # fmt: skip
    rows = [row]
    adjusted = comparison.adjust([pair[3] for pair in found["pairs"]])
    for (b, a, z, p, p_equal, difference), p_adjusted in zip(found["pairs"], adjusted, strict=True):
        pair_row = blank(f"{a}_vs_{b}", comparison.UNIT_CELL, "dunn")
        pair_row.update(
            n_a=taken[a], n_b=taken[b], n_patients_a=people[a], n_patients_b=people[b], n_cells_a=size[a], n_cells_b=size[b],
            effect=difference, effect_name="mean_difference", statistic=z, p_value=p, p_adjusted=p_adjusted,
            adjust_method="BH:pairs", evidence=keys.CELL_LEVEL, status=keys.OK, p_equal_cells=p_equal, n_equal_cells=n_equal,
        )  # fmt: skip
        rows.append(pair_row)
    return rows


def adjust_tests(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table of TEST_COLUMNS; BH over the genes and cell types of a panel, within contrast, unit, test and measure.

    Dunn's rows come adjusted over their pairs and stay as they are.
    """
    frame = pd.DataFrame(list(rows), columns=list(TEST_COLUMNS))
    whole = ("n_a", "n_b", "n_patients_a", "n_patients_b", "n_cells_a", "n_cells_b", "n_equal_cells")
    real = ("effect", "ci_low", "ci_high", "statistic", "p_value", "p_adjusted", "p_min_attainable", "rank_biserial")
    frame = frame.astype({**dict.fromkeys(whole, "Int64"), **dict.fromkeys((*real, "p_equal_cells"), float)})
    mine = frame["test"] != "dunn"
    frame.loc[mine, "adjust_method"] = "BH:genes x cell types of the panel"
    # exact or normal null of one rank test are one family
    kind = frame["test"].str.replace(r"_(exact|normal)$", "", regex=True)
    for _, part in frame[mine].groupby(["panel", "measure", "unit", "contrast", kind[mine]], sort=False):
        frame.loc[part.index, "p_adjusted"] = comparison.adjust(part["p_value"])
    return frame


# --- trend and clones


def pattern(values: Sequence[float]) -> str:
    """Signs of successive differences, equal neighbours joined: up, down, down-up, ...; flat when nothing moves."""
    signs: list[str] = []
    for before, after in pairwise(values):
        word = "up" if after > before else "down" if after < before else ""
        if word and (not signs or signs[-1] != word):
            signs.append(word)
    return "-".join(signs) or "flat"


def patient_trends(
    values: pd.Series, cells: pd.Series, samples: pd.DataFrame, times: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Pattern over the ordered phases of each patient with three or more of them: patient, phases, values, pattern.

    Phases without a time (beside the axis) take no part; phases at one time are joined to their mean over cells.
    """
    timed = samples[samples[keys.PHASE].isin(list(times))]
    rows = []
    for patient, mine in timed.groupby(keys.PATIENT, sort=True):
        at: dict[float, list[tuple[str, float, float]]] = {}
        for sample, phase in zip(mine[keys.SAMPLE], mine[keys.PHASE], strict=True):
            value, weight = values.get(sample, np.nan), cells.get(sample, 0)
            if np.isfinite(value) and weight > 0:
                at.setdefault(float(times[phase]), []).append((phase, float(value), float(weight)))
        if len(at) < MIN_TREND:
            continue
        moments = sorted(at)
        means = [sum(v * w for _, v, w in at[t]) / sum(w for _, _, w in at[t]) for t in moments]
        names = ["+".join(sorted({phase for phase, _, _ in at[t]})) for t in moments]
        rows.append(
            {
                keys.PATIENT: patient,
                "phases": ",".join(names),
                "values": ",".join(f"{value:.4g}" for value in means),
                "pattern": pattern(means),
            }
        )
    return rows


def clone_rows(
    tables: pd.DataFrame, clone: pd.Series, x: pd.DataFrame, positive: pd.DataFrame, genes: Sequence[str], cut: float
) -> pd.DataFrame:
    """Copy number of a gene's locus beside its expression, per clone (CLONE_COLUMNS).

    Parameters
    ----------
    tables
        clones.tsv of all patients: patient, clone, locus_<gene> (mean profile value, log2 ratio, around the gene).
    clone
        clone of each tumour cell, indexed by cell.
    x, positive
        cells x genes: log1p of counts per 10,000, and count above 0; genes that were not measured are absent.
    cut
        distance of locus_z from 0 from which the locus is called gained or lost.
    """
    rows = []
    order = tables.sort_values([keys.PATIENT, "clone"], kind="stable") if len(tables) else tables
    cells_of = {name: part.index for name, part in clone.groupby(clone)}
    for record in order.to_dict("records"):
        cells = cells_of.get(record["clone"], pd.Index([]))
        for gene in genes:
            z = record.get(f"locus_{gene}", np.nan)
            z = float(z) if z not in ("", None) else np.nan
            known = gene in x and len(cells)
            rows.append(
                {
                    keys.PATIENT: record[keys.PATIENT],
                    "clone": record["clone"],
                    "gene": gene,
                    "locus_z": z,
                    "locus_call": "" if not np.isfinite(z) else GAIN if z >= cut else LOSS if z <= -cut else NEUTRAL,
                    "n_cells": len(cells),
                    "pct": float(100 * positive.loc[cells, gene].mean()) if known else np.nan,
                    "mean": float(x.loc[cells, gene].mean()) if known else np.nan,
                }
            )
    return pd.DataFrame(rows, columns=list(CLONE_COLUMNS))
