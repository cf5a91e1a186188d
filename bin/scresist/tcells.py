"""States of T and NK cells: scores of signatures per cell, per sample and type, compared between patients."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scresist import comparison, keys, panels
from scresist.io import InputError

STATE_COLUMNS = ("state", "gene", "source")
STATES = ("exhaustion", "cytotoxic", "naive", "regulatory")  # columns that every run has; further ones come from the table
SUFFIX = "_score"
POOLED = "t_cell"  # all T cells together, NK cells not
# Immune labels of NK cells: NK, NK cell, CD56dim_NK, natural killer; NKT is a T cell by its name.
NK_CELL = re.compile(r"(?:^|[ _.+-])NK(?:$|[ _.+-]|cells?)|(?i:natural killer)")
MIN_SET = 2  # measured genes of a signature
VALUE_COLUMNS = (
    "score", "cell_type", keys.SAMPLE, keys.PATIENT, keys.PHASE, "n_cells", "mean", "q1", "median", "q3", "n_genes", "status",
    "reason",
)  # fmt: skip
TEST_HEAD = ("score", "cell_type")
TEST_COLUMNS = (*TEST_HEAD, *comparison.TEST_COLUMNS, "rank_biserial", "groups", "reason")


def check_states(table: pd.DataFrame, name: str) -> dict[str, list[str]]:
    """State -> its genes, sorted; the states of STATES first.

    Parameters
    ----------
    table
        read as text: `state, gene` and, where given, `source`.
    name
        file, for the message.

    Raises
    ------
    InputError
        with everything that is wrong.
    """
    absent = [column for column in STATE_COLUMNS[:2] if column not in table]
    if absent:
        raise InputError(f"{name}: no column {', '.join(absent)}; expected state, gene, source, found {', '.join(table)}")
    made = table[list(STATE_COLUMNS[:2])].fillna("").astype(str).apply(lambda column: column.str.strip())
    problems = []
    for line, row in enumerate(made.to_dict("records"), start=2):
        if not row["gene"]:
            problems.append(f"row {line}: gene is empty; write a symbol")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", row["state"]):
            problems.append(f"row {line}: state {row['state']!r}, expected small letters, digits and _; rename it")
    twice = made[made.duplicated() & (made["gene"] != "")]
    problems += [f"{row['state']} {row['gene']} stands twice; keep one row" for row in twice.to_dict("records")]
    if problems:
        raise InputError(f"{name}:\n  - " + "\n  - ".join(problems))
    found = {state: sorted(part["gene"]) for state, part in made.groupby("state", sort=True)}
    order = [*STATES, *(state for state in found if state not in STATES)]
    return {state: found.get(state, []) for state in order}


def types_of(main_type: Sequence[str], lineage: Sequence[str], asked: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Cell type -> boolean array over cells: all T cells together (POOLED), then each T and NK type by name.

    Parameters
    ----------
    main_type, lineage
        one per cell ("" = none).
    asked
        types to use in place of those whose immune label says T or NK cell. POOLED then holds those that are no NK cells.

    POOLED is left out where it would be one type only.
    """
    types, lines = np.asarray(main_type, dtype=object), np.asarray(lineage, dtype=object)
    immune = sorted(set(types[lines == "immune"]) - {"", keys.UNRESOLVED})
    names = sorted(set(asked)) if len(asked) else [n for n in immune if panels.T_CELL.search(n) or NK_CELL.search(n)]
    chosen = {name: types == name if len(asked) else (types == name) & (lines == "immune") for name in names}
    tcells = [name for name in names if panels.T_CELL.search(name) or not NK_CELL.search(name)]
    if len(tcells) > 1:
        pooled = np.any([chosen[name] for name in tcells], axis=0)
        return {POOLED: pooled, **chosen}
    return chosen


def score_cells(
    x: sparse.csr_matrix, genes: Sequence[str], states: Mapping[str, Sequence[str]], seeds: Mapping[str, int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score of every state in every cell, and what each rests on.

    Parameters
    ----------
    x
        cells x genes, ln(1 + counts per 10,000): the T and NK cells only, so that control genes are of like expression in them.
    seeds
        state -> seed of its controls.

    Returns
    -------
    Frame cells x `<state>_score`: mean of the measured genes minus the mean of control genes of like expression
    (panels.score_genes); with fewer than panels.MIN_GENES_SCORE genes the plain mean; NaN below MIN_SET measured genes. And a
    frame by state: n_genes measured, absent (names), method (score, mean or none).
    """
    measured = set(genes)
    scores, basis = {}, []
    at = {gene: i for i, gene in enumerate(genes)}
    for state, wanted in states.items():
        here = [gene for gene in wanted if gene in measured]
        absent = [gene for gene in wanted if gene not in measured]
        if len(here) < MIN_SET or not x.shape[0]:
            values, method = np.full(x.shape[0], np.nan), "none"
        elif len(genes) >= panels.MIN_GENES_SCORE:
            values, method = panels.score_genes(x, genes, here, seeds[state]), "score"
        else:
            values, method = np.asarray(x[:, [at[gene] for gene in here]].mean(axis=1), dtype=np.float64).ravel(), "mean"
        scores[state + SUFFIX] = values
        basis.append((state, len(here), ",".join(absent), method))
    return pd.DataFrame(scores), pd.DataFrame(basis, columns=["state", "n_genes", "absent", "method"]).set_index("state")


def value_rows(
    scores: pd.DataFrame,
    masks: Mapping[str, np.ndarray],
    sample: np.ndarray,
    samples: pd.DataFrame,
    n_genes: Mapping[str, int],
    min_cells: int,
) -> pd.DataFrame:
    """VALUE_COLUMNS: mean and quartiles of each score per type and sample.

    Parameters
    ----------
    scores
        cells x scores.
    masks
        cell type -> cells.
    sample
        sample of each cell.
    samples
        sample, patient, phase: one row per sample of the cohort.
    n_genes
        score -> measured genes.

    Below `min_cells` cells the values are empty.
    """
    rows = []
    for score in scores:
        values = scores[score].to_numpy(dtype=float)
        for cell_type, mask in masks.items():
            for record in samples.to_dict("records"):
                own = values[mask & (sample == record[keys.SAMPLE])]
                word, reason, found = keys.OK, "", (np.nan,) * 4
                if len(own) < min_cells:
                    word, reason = keys.SKIPPED_TOO_FEW_CELLS, f"{len(own)} cells, {min_cells} needed"
                elif np.isnan(own).any():
                    word, reason = keys.NOT_ESTIMABLE, f"{n_genes[score]} measured genes, {MIN_SET} needed"
                else:
                    found = (float(own.mean()), *np.quantile(own, [0.25, 0.5, 0.75]))
                rows.append(
                    (score, cell_type, record[keys.SAMPLE], record[keys.PATIENT], record[keys.PHASE], len(own), *found,
                     n_genes[score], word, reason)
                )  # fmt: skip
    return pd.DataFrame(rows, columns=list(VALUE_COLUMNS))


def test_rows(
    values: pd.DataFrame, contrasts: Sequence[comparison.Contrast], samples: pd.DataFrame, phases: Sequence[str]
) -> pd.DataFrame:
    """TEST_COLUMNS: each score and type in each contrast and over all phases, one value per patient.

    Samples of a patient are averaged with the number of cells as weight. BH over scores and types within contrast; Dunn's pairs
    over the pairs.
    """
    patient_of = dict(zip(samples[keys.SAMPLE], samples[keys.PATIENT], strict=True))
    rows: list[dict[str, Any]] = []
    for (score, cell_type), part in values.groupby(["score", "cell_type"], sort=False):
        mean, cells = part.set_index(keys.SAMPLE)["mean"].astype(float), part.set_index(keys.SAMPLE)["n_cells"]
        made = []
        for contrast in contrasts:
            row = comparison.compare(mean, cells, contrast, patient_of)
            n_a, n_b = row["n_patients_a"], row["n_patients_b"]
            row["groups"] = row["reason"] = ""
            if row["status"] == keys.NO_REPLICATES:
                told = not contrast.testable and contrast.reason
                row["reason"] = told or f"{n_a} against {n_b} patients with values, 2 a side needed"
            elif row["status"] == keys.NOT_ESTIMABLE:
                some = min(n_a, n_b) > 0
                row["reason"] = "all values are equal" if some else f"{n_a} against {n_b} patients with values, 1 a side needed"
                row["effect"] = row["ci_low"] = row["ci_high"] = np.nan
            made.append(row)
        by_phase = panels.patient_phase_values(mean, cells, samples, phases)
        pairs = {f"{b}_vs_{a}": (b, a) for i, a in enumerate(by_phase) for b in list(by_phase)[i + 1 :]}
        for row in panels.patient_kruskal(by_phase):
            row["rank_biserial"] = np.nan
            if row["test"] == "dunn":
                a, b = (by_phase[phase]["value"].to_numpy(dtype=float) for phase in pairs[row["contrast"]])
                _, row["ci_low"], row["ci_high"] = comparison.mean_difference(a, b, False)
            made.append(row)
        rows += [{"score": score, "cell_type": cell_type, **row} for row in made]
    frame = pd.DataFrame(rows, columns=list(TEST_COLUMNS))
    whole = ("n_a", "n_b", "n_patients_a", "n_patients_b", "n_cells_a", "n_cells_b")
    real = ("effect", "ci_low", "ci_high", "statistic", "p_value", "p_adjusted", "p_min_attainable", "rank_biserial")
    frame = frame.astype({**dict.fromkeys(whole, "Int64"), **dict.fromkeys(real, float)})
    mine = frame["test"] != "dunn"
    frame.loc[mine, "adjust_method"] = "BH:scores x cell types"
    for _, part in frame[mine].groupby("contrast", sort=False):
        frame.loc[part.index, "p_adjusted"] = comparison.adjust(part["p_value"])
    return frame
