"""Quality of cells and samples: metrics, fixed and adaptive thresholds, sample criteria, reasons for leaving a cell out."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from scipy import sparse

from scresist import keys

# Ribosomal proteins; the kinases RPS6KA1.. and pseudogenes (RPS17P5) share the prefix and are left out.
RIBOSOMAL = re.compile(r"^RP([SL]\d+(A|L|X|AL|L1|Y[12])?|LP[0-2]|SA)$")
HAEMOGLOBIN = frozenset({"HBA1", "HBA2", "HBB", "HBD", "HBE1", "HBG1", "HBG2", "HBM", "HBQ1", "HBZ"})
TOP_GENES = 20
NORMAL_MAD = 1.4826  # 1 / Phi^-1(3/4): the MAD of a normal distribution becomes its standard deviation
MIN_CELLS_MAD = 30  # methods.md, FLAG_CELLS: below, a median of deviations means nothing
PASS, FAIL, NOT_GIVEN = "pass", "fail", "not_given"


def _percent(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """100 * part / total; NaN where nothing was counted."""
    return np.divide(100.0 * part, total, out=np.full(len(total), np.nan), where=total > 0)


def top_sums(counts: sparse.csr_matrix, n: int) -> np.ndarray:
    """Counts in the `n` strongest genes of each cell."""
    sums = np.zeros(counts.shape[0], dtype=np.int64)
    for cell in range(counts.shape[0]):
        values = counts.data[counts.indptr[cell] : counts.indptr[cell + 1]]
        if len(values) > n:
            values = np.partition(values, len(values) - n)[len(values) - n :]
        sums[cell] = values.sum(dtype=np.int64)
    return sums


def metrics(counts: sparse.csr_matrix, genes: pd.Index, mitochondrial: np.ndarray) -> pd.DataFrame:
    """Metrics per cell, named as in `keys.QC_METRICS`.

    Parameters
    ----------
    counts
        cells x genes, integers, no stored zeros
    genes
        symbols of the columns
    mitochondrial
        one bool per column; without a single True, % MT is missing, not zero

    Returns
    -------
    one row per cell; percentages 0 to 100, missing for a cell without counts
    """
    symbols = genes.astype(str)
    total = np.asarray(counts.sum(axis=1, dtype=np.int64)).ravel()

    def share(columns: np.ndarray) -> np.ndarray:
        return _percent(np.asarray(counts[:, np.flatnonzero(columns)].sum(axis=1, dtype=np.int64)).ravel(), total)

    ribosomal = np.array([bool(RIBOSOMAL.match(symbol)) for symbol in symbols], dtype=bool)
    haemoglobin = np.array([symbol in HAEMOGLOBIN for symbol in symbols], dtype=bool)
    mt = np.asarray(mitochondrial, dtype=bool)
    return pd.DataFrame(
        {
            keys.N_COUNTS: total,
            keys.N_GENES: np.diff(counts.indptr).astype(np.int64),
            keys.PCT_MT: share(mt) if mt.any() else np.full(len(total), np.nan),
            keys.PCT_RIBO: share(ribosomal),
            keys.PCT_HB: share(haemoglobin),
            keys.PCT_TOP20: _percent(top_sums(counts, TOP_GENES), total),
        }
    )


def mad_bounds(values: np.ndarray, k: float) -> tuple[float, float] | None:
    """median -+ k x 1.4826 x median|x - median|, or None when the MAD is 0; missing values are left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    middle = float(np.median(values))
    mad = float(np.median(np.abs(values - middle)))
    if mad == 0:
        return None
    return middle - k * NORMAL_MAD * mad, middle + k * NORMAL_MAD * mad


def fixed_flags(table: pd.DataFrame, min_genes: float, min_counts: float, max_mt_pct: float) -> pd.DataFrame:
    """Flags of the fixed rule; a missing % MT is never flagged."""
    return pd.DataFrame(
        {
            keys.FLAG_LOW_GENES: table[keys.N_GENES] < min_genes,
            keys.FLAG_LOW_COUNTS: table[keys.N_COUNTS] < min_counts,
            keys.FLAG_HIGH_MT: table[keys.PCT_MT] > max_mt_pct,
        },
        index=table.index,
    )


def adaptive_flags(table: pd.DataFrame, k: float, k_mt: float, mt_floor: float) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Flags of the adaptive rule, computed over all cells of one sample.

    log1p counts, log1p genes and % top 20 are bounded on both sides, % MT above only and never below `mt_floor`: in a
    sample with 1 % MT a cell with 3 % is no poor cell.

    Returns
    -------
    flags, the bounds in units of the metric as text, and warnings (rule off: fewer than 30 cells or MAD 0)
    """
    rules = (
        (keys.FLAG_MAD_COUNTS, keys.N_COUNTS, k),
        (keys.FLAG_MAD_GENES, keys.N_GENES, k),
        (keys.FLAG_MAD_TOP20, keys.PCT_TOP20, k),
        (keys.FLAG_MAD_MT, keys.PCT_MT, k_mt),
    )
    flags = pd.DataFrame({flag: np.zeros(len(table), dtype=bool) for flag, _, _ in rules}, index=table.index)
    if len(table) < MIN_CELLS_MAD:
        return flags, {}, [f"{len(table)} cells, fewer than {MIN_CELLS_MAD}: adaptive (MAD) rule off"]
    bounds: dict[str, str] = {}
    flat = []
    for flag, metric, factor in rules:
        if factor == 0:  # switched off, not a bound of no width
            bounds[metric] = "off"
            continue
        values = table[metric].to_numpy(dtype=np.float64)
        if np.isnan(values).all():
            continue  # no mitochondrial genes: said elsewhere
        logged = metric in (keys.N_COUNTS, keys.N_GENES)
        found = mad_bounds(np.log1p(values) if logged else values, factor)
        if found is None:
            flat.append(metric)
            continue
        with np.errstate(over="ignore"):  # a huge k means: no bound
            low, high = np.expm1(found) if logged else found
        if metric == keys.PCT_MT:
            high = max(high, mt_floor)
            bounds[metric] = f"..{high:.4g}"
            outside = values > high
        else:
            bounds[metric] = f"{max(low, 0):.4g}..{high:.4g}"
            outside = (values < low) | (values > high)
        flags[flag] = outside  # comparisons with NaN are False: a cell without counts falls to the fixed rule
    return flags, bounds, [f"MAD of {', '.join(flat)} is 0: adaptive rule off for it"] if flat else []


def criterion(value: float, low: float | None, high: float | None, strict: bool = False) -> str:
    """`pass`, `fail`, or `not_given` for a missing value; `strict` asks for more than `low`."""
    if value is None or np.isnan(value):
        return NOT_GIVEN
    if low is not None and (value < low or (strict and value == low)):
        return FAIL
    if high is not None and value > high:
        return FAIL
    return PASS


def drop_reasons(flags: pd.DataFrame, doublet: np.ndarray, sample_skipped: bool) -> np.ndarray:
    """The first reason for leaving each cell out, in the order of `keys.DROP_REASONS`; empty for a kept cell."""
    mad = flags[[keys.FLAG_MAD_COUNTS, keys.FLAG_MAD_GENES, keys.FLAG_MAD_TOP20, keys.FLAG_MAD_MT]].to_numpy(dtype=bool)
    conditions = (
        flags[keys.FLAG_LOW_GENES].to_numpy(dtype=bool),
        flags[keys.FLAG_LOW_COUNTS].to_numpy(dtype=bool),
        flags[keys.FLAG_HIGH_MT].to_numpy(dtype=bool),
        mad.any(axis=1),
        np.asarray(doublet, dtype=bool),
        np.full(len(flags), sample_skipped, dtype=bool),
    )
    reason = np.full(len(flags), "", dtype=object)
    for word, hit in zip(keys.DROP_REASONS, conditions, strict=True):
        reason[(reason == "") & hit] = word
    return reason
