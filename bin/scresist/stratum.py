"""Cells with and without a marker, compared at equal depth.

Deeper cells show more of everything, so cells in which a marker was counted are deeper cells. Each positive cell is therefore
paired with a negative cell of the same sample and the same decile of total counts before genes or scores are compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scresist import comparison, keys

N_BINS = 10  # deciles of total counts within a sample (methods.md, STRATIFY_MARKER)
RULE = re.compile(r"^(?:count>(\d{1,6})|quantile:(0?\.\d+|0|1(?:\.0+)?))\Z")
SHARE_COLUMNS = (
    "marker", keys.SAMPLE, keys.PATIENT, keys.PHASE, "n", "n_positive", "share", "ci_low", "ci_high", "n_matched", "used",
)  # fmt: skip
SCORE_COLUMNS = ("marker", "score", keys.SAMPLE, "mean_pos", "mean_neg", "r", *comparison.TEST_COLUMNS)
GROUP_COLUMNS = (
    "marker", "grouping", "group", "n_cells", "n_positive", "share", "ci_low", "ci_high", "mean_expression", "n_samples",
    "n_patients", "mean_patient_share", "effect", "effect_name", "statistic", "test", "p_value", "status",
)  # fmt: skip
ALL_SAMPLES = "all"


def parse_rule(text: str) -> tuple[str, float]:
    """`count>N` or `quantile:Q` as ("count", N) or ("quantile", Q).

    Raises
    ------
    ValueError
        for any other text.
    """
    match = RULE.match(text)
    if not match:
        raise ValueError(f"{text!r} is not a rule: count>N (count>0) or quantile:Q with Q from 0 to 1 (quantile:0.75)")
    return ("count", float(match.group(1))) if match.group(1) is not None else ("quantile", float(match.group(2)))


def positive_cells(counts: np.ndarray, x: np.ndarray, rule: str) -> np.ndarray:
    """Boolean per cell: the marker's count exceeds N, or its normalised expression exceeds its own quantile Q.

    Parameters
    ----------
    counts, x
        counts and log1p(counts per 10,000) of the marker in the cells that are split.
    """
    kind, value = parse_rule(rule)
    if kind == "count":
        return np.asarray(counts) > value
    return np.asarray(x) > (np.quantile(x, value) if len(x) else 0.0)


def depth_bins(total: np.ndarray, sample: np.ndarray, n_bins: int = N_BINS) -> np.ndarray:
    """Decile (0 to 9) of each cell's total within its sample; equal totals share a decile."""
    rank = pd.Series(total).groupby(np.asarray(sample)).rank(method="average")
    size = pd.Series(total).groupby(np.asarray(sample)).transform("size")
    return np.minimum(np.floor((rank - 0.5) / size * n_bins), n_bins - 1).to_numpy(dtype=int)


def match_cells(positive: np.ndarray, sample: np.ndarray, bins: np.ndarray, seed: int) -> np.ndarray:
    """Indices of matched cells (sorted): in every sample and bin as many negative as positive cells, drawn without return.

    Where a bin holds fewer negative than positive cells, as many positive ones are drawn. Each sample draws from a generator of
    its own, so that another sample does not change the draw. The order of the cells matters: sort them by name first.
    """
    chosen: list[np.ndarray] = []
    for name in sorted(set(sample)):
        rng = np.random.default_rng([seed, *str(name).encode()])
        for bin_ in sorted(set(bins[sample == name])):
            mine = (sample == name) & (bins == bin_)
            with_, without = np.flatnonzero(mine & positive), np.flatnonzero(mine & ~positive)
            n = min(len(with_), len(without))
            for cells in (with_, without):
                chosen.append(cells if len(cells) == n else rng.choice(cells, n, replace=False))
    return np.sort(np.concatenate(chosen)).astype(int) if chosen else np.array([], dtype=int)


def shares(marker: str, obs: pd.DataFrame, positive: np.ndarray, matched: np.ndarray, used: Sequence[str]) -> pd.DataFrame:
    """marker_share.tsv: positive cells of each sample with Wilson's 95 % interval.

    Parameters
    ----------
    obs
        sample, patient, phase of each cell.
    matched
        indices of `match_cells`; `n_matched` counts its positive cells.
    used
        phases whose samples enter the comparison of positive with negative cells.
    """
    is_matched = np.zeros(len(obs), dtype=bool)
    is_matched[matched] = True
    frame = obs[[keys.SAMPLE, keys.PATIENT, keys.PHASE]].astype(str)
    frame = frame.assign(positive=positive, n_matched=is_matched & positive)
    table = (
        frame.groupby([keys.SAMPLE, keys.PATIENT, keys.PHASE], sort=True)
        .agg(n=("positive", "size"), n_positive=("positive", "sum"), n_matched=("n_matched", "sum"))
        .reset_index()
    )
    limits = [comparison.wilson(k, n) for k, n in zip(table["n_positive"], table["n"], strict=True)]
    table = table.assign(
        marker=marker,
        share=table["n_positive"] / table["n"],
        ci_low=[low for low, _ in limits],
        ci_high=[high for _, high in limits],
        used=table[keys.PHASE].isin(list(used)),
    )
    return table[list(SHARE_COLUMNS)]


def groups(marker: str, obs: pd.DataFrame, labels: Mapping[str, np.ndarray], positive: np.ndarray, x: np.ndarray) -> pd.DataFrame:
    """marker_groups.tsv: share of positive cells and mean expression per phase and per cluster or clone.

    For phases the shares of the patients (cells of one patient and phase together) are compared by Kruskal-Wallis, where at least
    two phases have two patients; other groupings are described only, because a clone lies within one patient.

    Parameters
    ----------
    labels
        grouping -> label of each cell, "" for cells without one; the grouping `phase` is added.
    x
        log1p(counts per 10,000) of the marker.
    """
    rows = []
    everything = {keys.PHASE: obs[keys.PHASE].astype(str).to_numpy(), **labels}
    sample, patient = obs[keys.SAMPLE].astype(str).to_numpy(), obs[keys.PATIENT].astype(str).to_numpy()
    for grouping, label in everything.items():
        label = np.asarray(label, dtype=object).astype(str)
        by_patient = {}
        for name in sorted(set(label) - {""}):
            mine = label == name
            n, k = int(mine.sum()), int(positive[mine].sum())
            by_patient[name] = pd.Series(positive[mine]).groupby(patient[mine]).mean().to_numpy()
            low, high = comparison.wilson(k, n)
            rows.append(
                {
                    "marker": marker, "grouping": grouping, "group": name, "n_cells": n, "n_positive": k, "share": k / n,
                    "ci_low": low, "ci_high": high, "mean_expression": float(np.mean(x[mine], dtype=np.float64)),
                    "n_samples": len(set(sample[mine])), "n_patients": len(set(patient[mine])),
                    "mean_patient_share": float(by_patient[name].mean()), "effect": np.nan, "effect_name": "",
                    "statistic": np.nan, "test": "", "p_value": np.nan, "status": keys.OK,
                }
            )  # fmt: skip
        if grouping == keys.PHASE:
            replicated = [values for values in by_patient.values() if len(values) >= comparison.LIMITED_FROM]
            h, p, effect = comparison.kruskal(replicated) if len(replicated) > 1 else (np.nan,) * 3
            for row in rows:
                row |= {"effect": effect, "effect_name": "epsilon_squared", "statistic": h, "test": "kruskal", "p_value": p}
                row["status"] = keys.NO_REPLICATES if len(replicated) < 2 else keys.OK if np.isfinite(p) else keys.NOT_ESTIMABLE
    return pd.DataFrame(rows, columns=list(GROUP_COLUMNS))


def score_differences(
    marker: str, scores: pd.DataFrame, positive: np.ndarray, sample: np.ndarray, patient_of: Mapping[str, str], min_cells: int
) -> pd.DataFrame:
    """marker_scores.tsv: scores of matched positive against negative cells, within each sample and across patients.

    Within a sample the cell is the unit (rank-sum, exploratory); the row `all` has one difference per patient (samples weighted
    by their matched cells) and the signed-rank test of these. BH over the samples of a score, and over the scores of the rows
    `all`.

    Parameters
    ----------
    scores
        matched cells x scores.
    positive, sample
        of the matched cells.
    min_cells
        matched positive cells that a sample needs to be compared.
    """
    contrast = f"{marker}_pos_vs_neg"
    rows = []
    for name in scores:
        values = scores[name].to_numpy(dtype=float)
        known = np.isfinite(values)
        differences, weights = {}, {}
        first = len(rows)
        for one in sorted(set(sample)):
            with_ = values[(sample == one) & positive & known]
            without = values[(sample == one) & ~positive & known]
            row = _score_row(marker, name, one, contrast, with_, without)
            row |= {"n_a": 1, "n_b": 1, "n_patients_a": 1, "n_patients_b": 1, "evidence": keys.CELL_LEVEL}
            if min(len(with_), len(without)) < min_cells:
                row["status"] = keys.SKIPPED_TOO_FEW_CELLS
            else:
                differences[one], weights[one] = row["effect"], float(len(with_) + len(without))
                row["statistic"], row["p_value"], row["test"] = comparison.rank_sum(with_, without)
                row["r"] = comparison.rank_biserial(with_, without)
                row["status"] = keys.OK if np.isfinite(row["p_value"]) else keys.NOT_ESTIMABLE
            rows.append(row)
        p = comparison.adjust([row["p_value"] for row in rows[first:]])
        for row, adjusted in zip(rows[first:], p, strict=True):
            row |= {"p_adjusted": adjusted, "adjust_method": "BH:samples"}
        rows.append(_across(marker, name, contrast, values, positive & known, known, differences, weights, patient_of))
    frame = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    whole = frame[keys.SAMPLE] == ALL_SAMPLES
    frame.loc[whole, "p_adjusted"] = comparison.adjust(frame.loc[whole, "p_value"])
    return frame


def _score_row(marker: str, score: str, sample: str, contrast: str, with_: np.ndarray, without: np.ndarray) -> dict[str, object]:
    mean_pos, mean_neg = (float(v.mean()) if len(v) else np.nan for v in (with_, without))
    return {
        "marker": marker, "score": score, keys.SAMPLE: sample, "mean_pos": mean_pos, "mean_neg": mean_neg, "r": np.nan,
        "contrast": contrast, "unit": comparison.UNIT_CELL, "n_cells_a": len(with_), "n_cells_b": len(without),
        "effect": mean_pos - mean_neg, "effect_name": "mean_difference", "ci_low": np.nan, "ci_high": np.nan,
        "statistic": np.nan, "test": "rank_sum", "p_value": np.nan, "p_adjusted": np.nan, "p_min_attainable": np.nan,
    }  # fmt: skip


def _across(
    marker: str,
    score: str,
    contrast: str,
    values: np.ndarray,
    positive: np.ndarray,
    known: np.ndarray,
    differences: Mapping[str, float],
    weights: Mapping[str, float],
    patient_of: Mapping[str, str],
) -> dict[str, object]:
    row = _score_row(marker, score, ALL_SAMPLES, contrast, values[positive], values[known & ~positive])
    used = sorted(differences)
    found = comparison.by_patient(pd.Series(differences, dtype=float), pd.Series(weights, dtype=float), used, patient_of)
    d, n = found["value"].to_numpy(dtype=float), len(found)
    effect, low, high = comparison.mean_difference(d, np.zeros(n), paired=True)
    row |= {
        "unit": comparison.UNIT_PATIENT, "n_a": len(used), "n_b": len(used), "n_patients_a": n, "n_patients_b": n,
        "effect": effect, "effect_name": "mean_difference_paired", "ci_low": low, "ci_high": high, "test": "signed_rank",
        "evidence": comparison.evidence(n, n), "adjust_method": "BH:scores",
        "status": keys.NOT_ESTIMABLE if n == 0 else keys.NO_REPLICATES,
    }  # fmt: skip
    if n >= comparison.LIMITED_FROM:
        row["statistic"], row["p_value"], row["test"] = comparison.signed_rank(d)
        row["p_min_attainable"] = min(1.0, 2 / 2**n)
        row["status"] = keys.OK if np.isfinite(row["p_value"]) else keys.NOT_ESTIMABLE
    return row
