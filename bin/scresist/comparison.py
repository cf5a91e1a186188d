"""Two groups of samples, one number each: who stands behind a comparison, its effect, its test, what it may claim.

The patient is the unit of replication: samples of one patient on the same side become one value. Every table of comparisons
carries TEST_COLUMNS, so that a reader finds n, effect, interval and evidence in the same place everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from scresist import keys

TEST_COLUMNS = (
    "contrast",
    "unit",
    "n_a",
    "n_b",
    "n_patients_a",
    "n_patients_b",
    "n_cells_a",
    "n_cells_b",
    "effect",
    "effect_name",
    "ci_low",
    "ci_high",
    "statistic",
    "test",
    "p_value",
    "p_adjusted",
    "adjust_method",
    "p_min_attainable",
    "evidence",
    "status",
)
UNIT_CELL, UNIT_SAMPLE, UNIT_PATIENT = "cell", "sample", "patient"
REPLICATED_FROM = 3  # patients a side for `replicated`; 2 is `limited`
LIMITED_FROM = 2
EXACT_BELOW = 50  # values a side up to which the exact null of a rank test is used, as R's wilcox.test does
LEVEL = 0.95


def evidence(n_patients_a: int, n_patients_b: int) -> str:
    """What a comparison of so many patients can carry: replicated, limited or single_patient."""
    least = min(n_patients_a, n_patients_b)
    if least >= REPLICATED_FROM:
        return keys.REPLICATED
    return keys.LIMITED if least >= LIMITED_FROM else keys.SINGLE_PATIENT


def adjust(p: Any) -> np.ndarray:
    """Benjamini-Hochberg with the monotone step (R's `p.adjust(method = "BH")`); NaN stays NaN and counts for nothing."""
    values = np.asarray(p, dtype=float)
    out = np.full(values.shape, np.nan)
    known = np.flatnonzero(np.isfinite(values))
    if known.size:
        order = known[np.argsort(values[known], kind="stable")]
        scaled = values[order] * known.size / np.arange(1, known.size + 1)
        out[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return out


@dataclass(frozen=True)
class Contrast:
    """One row of contrasts.tsv: two groups of samples; effects are side A minus side B."""

    name: str
    samples_a: tuple[str, ...]
    samples_b: tuple[str, ...]
    paired: bool
    status: str
    reason: str
    kind: str
    side_a: str = ""
    side_b: str = ""

    @property
    def testable(self) -> bool:
        """Whether the design allows a test at all (enough patients on each side)."""
        return self.status != keys.NO_REPLICATES


def contrasts(table: pd.DataFrame) -> list[Contrast]:
    """The rows of contrasts.tsv (read as text or with its own types), in their order."""

    def names(text: object) -> tuple[str, ...]:
        return tuple(part for part in str(text).split(",") if part) if not _missing(text) else ()

    made = []
    for row in table.to_dict("records"):
        made.append(
            Contrast(
                str(row["contrast"]),
                names(row["samples_a"]),
                names(row["samples_b"]),
                str(row["paired"]).lower() == "true",
                str(row["status"]),
                "" if _missing(row.get("reason")) else str(row["reason"]),
                "" if _missing(row.get("kind")) else str(row["kind"]),
                "" if _missing(row.get("side_a")) else str(row["side_a"]),
                "" if _missing(row.get("side_b")) else str(row["side_b"]),
            )
        )
    return made


def _missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and np.isnan(value))


def by_patient(values: pd.Series, weights: pd.Series, samples: Sequence[str], patient_of: Mapping[str, str]) -> pd.DataFrame:
    """One value per patient from the samples of one side: their mean weighted by cells.

    Parameters
    ----------
    values, weights
        by sample; samples without a value (NaN, absent) or without cells are left out.

    Returns
    -------
    Frame indexed by patient (sorted) with the columns value, weight (sum) and n_samples.
    """
    # plain sums: steps that follow many genes call this thousands of times
    sums: dict[str, list[float]] = {}
    for sample in samples:
        value, weight = float(values.get(sample, np.nan)), float(weights.get(sample, 0))
        if np.isfinite(value) and weight > 0:
            entry = sums.setdefault(patient_of[sample], [0.0, 0.0, 0.0])
            entry[0] += value * weight
            entry[1] += weight
            entry[2] += 1
    names = sorted(sums)
    found = np.array([sums[name] for name in names], dtype=float).reshape(-1, 3)
    return pd.DataFrame(
        {"value": found[:, 0] / found[:, 1], "weight": found[:, 1], "n_samples": found[:, 2]},
        index=pd.Index(names, name=keys.PATIENT, dtype=object),
    )


def rank_sum(a: np.ndarray, b: np.ndarray) -> tuple[float, float, str]:
    """Wilcoxon rank-sum: U of side A, two-sided p, name of the test. NaN where a side is empty or all values are equal.

    Exact without ties and below 50 values a side, else the normal approximation with tie and continuity correction: what R's
    `wilcox.test` does.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    both = np.concatenate([a, b])
    if not len(a) or not len(b) or np.all(both == both[0]):
        return np.nan, np.nan, "rank_sum"
    exact = max(len(a), len(b)) < EXACT_BELOW and len(np.unique(both)) == len(both)
    found = stats.mannwhitneyu(a, b, alternative="two-sided", method="exact" if exact else "asymptotic", use_continuity=True)
    return float(found.statistic), float(found.pvalue), "rank_sum_exact" if exact else "rank_sum_normal"


def signed_rank(differences: np.ndarray) -> tuple[float, float, str]:
    """Wilcoxon signed-rank: V (sum of positive ranks), two-sided p, name of the test; zero differences leave, as in R."""
    d = np.asarray(differences, dtype=float)
    d = d[d != 0]
    if not len(d):
        return np.nan, np.nan, "signed_rank"
    exact = len(d) < EXACT_BELOW and len(np.unique(np.abs(d))) == len(d)
    ranks = stats.rankdata(np.abs(d))
    found = stats.wilcoxon(d, alternative="two-sided", method="exact" if exact else "approx", correction=not exact)
    return float(ranks[d > 0].sum()), float(found.pvalue), "signed_rank_exact" if exact else "signed_rank_normal"


def rank_biserial(a: np.ndarray, b: np.ndarray) -> float:
    """2 U / (n_a n_b) - 1: +1 when every value of side A lies above every value of side B; NaN for an empty side."""
    if not len(a) or not len(b):
        return np.nan
    u = stats.mannwhitneyu(a, b, method="asymptotic").statistic
    return float(2 * u / (len(a) * len(b)) - 1)


def mean_difference(a: np.ndarray, b: np.ndarray, paired: bool) -> tuple[float, float, float]:
    """Mean of A minus mean of B with its 95 % t interval (Welch, or over the pairs); limits NaN below two values a side."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if not len(a) or not len(b):
        return np.nan, np.nan, np.nan
    difference = float(a.mean() - b.mean())
    if paired:
        d = a - b
        if len(d) < 2:
            return difference, np.nan, np.nan
        se, df = d.std(ddof=1) / np.sqrt(len(d)), len(d) - 1.0
    else:
        if min(len(a), len(b)) < 2:
            return difference, np.nan, np.nan
        va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
        se = np.sqrt(va + vb)
        df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1)) if se > 0 else np.nan
    if not se > 0:
        return difference, np.nan, np.nan  # no spread: an interval of width zero would claim certainty
    half = float(stats.t.ppf(0.5 + LEVEL / 2, df) * se)
    return difference, difference - half, difference + half


def wilson(k: float, n: float, alpha: float = 1 - LEVEL) -> tuple[float, float]:
    """Wilson's score interval of the share k / n (1927, J Am Stat Assoc 22:209), no continuity correction; NaN for n = 0."""
    if n <= 0:
        return np.nan, np.nan
    z2 = float(stats.norm.ppf(1 - alpha / 2)) ** 2
    share, middle = k / n, (k + z2 / 2) / (n + z2)
    half = float(np.sqrt(z2 * (k * (n - k) / n + z2 / 4))) / (n + z2)
    # the share itself lies within, also where rounding says otherwise
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def kruskal(groups: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Kruskal-Wallis H, p and epsilon squared H/(n - 1); NaN for fewer than two groups or constant values."""
    filled = [np.asarray(group, dtype=float) for group in groups if len(group)]
    both = np.concatenate(filled) if filled else np.array([])
    if len(filled) < 2 or np.all(both == both[0]) or len(both) < 3:
        return np.nan, np.nan, np.nan
    found = stats.kruskal(*filled)
    return float(found.statistic), float(found.pvalue), float(found.statistic / (len(both) - 1))


def dunn(groups: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Dunn's test of every pair of groups after Kruskal-Wallis, tie-corrected, BH over the pairs.

    z = (mean rank B - mean rank A) / sqrt(s2 (1/n_a + 1/n_b)), s2 = N(N+1)/12 - sum(t^3 - t)/(12(N-1)) (Dunn 1964,
    Technometrics 6:241). Columns group_a, group_b, z, p_value, p_adjusted; empty groups are left out.
    """
    filled = {name: np.asarray(values, dtype=float) for name, values in groups.items() if len(values)}
    columns = ["group_a", "group_b", "z", "p_value", "p_adjusted"]
    if len(filled) < 2:
        return pd.DataFrame(columns=columns)
    everything = np.concatenate(list(filled.values()))
    n = len(everything)
    ranks = stats.rankdata(everything)
    _, ties = np.unique(everything, return_counts=True)
    spread = n * (n + 1) / 12 - (ties.astype(float) ** 3 - ties).sum() / (12 * (n - 1))
    ends = np.cumsum([len(values) for values in filled.values()])
    mean = {name: ranks[end - len(filled[name]) : end].mean() for name, end in zip(filled, ends, strict=True)}
    rows = []
    names = list(filled)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            scale = np.sqrt(spread * (1 / len(filled[a]) + 1 / len(filled[b])))
            z = (mean[b] - mean[a]) / scale if scale > 0 else np.nan
            rows.append((a, b, z, 2 * stats.norm.sf(abs(z))))
    frame = pd.DataFrame(rows, columns=columns[:-1])
    frame["p_adjusted"] = adjust(frame["p_value"])
    return frame


def compare(values: pd.Series, cells: pd.Series, contrast: Contrast, patient_of: Mapping[str, str]) -> dict[str, Any]:
    """One contrast of one quantity at patient level: a dict of TEST_COLUMNS (p_adjusted left NaN) plus `rank_biserial`.

    Parameters
    ----------
    values, cells
        by sample: the quantity (NaN where it could not be measured) and the cells behind it.

    The test is the rank-sum over patients, or the signed-rank over pairs in a paired contrast; below two patients a side the
    effect alone is given (`no_replicates`), and without any patient on a side the row is `not_estimable`.
    """
    a = by_patient(values, cells, contrast.samples_a, patient_of)
    b = by_patient(values, cells, contrast.samples_b, patient_of)
    n_samples_a, n_samples_b = int(a["n_samples"].sum()), int(b["n_samples"].sum())
    paired = contrast.paired
    if paired:  # a patient whose other side could not be measured is no pair
        pairs = a.index.intersection(b.index)
        a, b = a.loc[pairs], b.loc[pairs]
        n_samples_a, n_samples_b = int(a["n_samples"].sum()), int(b["n_samples"].sum())
    va, vb = a["value"].to_numpy(dtype=float), b["value"].to_numpy(dtype=float)
    n_a, n_b = len(va), len(vb)
    effect, low, high = mean_difference(va, vb, paired)
    statistic = p = p_min = np.nan
    test = "signed_rank" if paired else "rank_sum"
    if min(n_a, n_b) == 0:
        word = keys.NOT_ESTIMABLE
    elif min(n_a, n_b) < LIMITED_FROM or not contrast.testable:
        word = keys.NO_REPLICATES
    else:
        statistic, p, test = signed_rank(va - vb) if paired else rank_sum(va, vb)
        p_min = min(1.0, 2 / 2**n_a) if paired else _least_p(n_a, n_b)
        word = keys.OK if np.isfinite(p) else keys.NOT_ESTIMABLE
    return {
        "contrast": contrast.name,
        "unit": UNIT_PATIENT,
        "n_a": n_samples_a,
        "n_b": n_samples_b,
        "n_patients_a": n_a,
        "n_patients_b": n_b,
        "n_cells_a": int(a["weight"].sum()),
        "n_cells_b": int(b["weight"].sum()),
        "effect": effect,
        "effect_name": "mean_difference_paired" if paired else "mean_difference",
        "ci_low": low,
        "ci_high": high,
        "statistic": statistic,
        "test": test,
        "p_value": p,
        "p_adjusted": np.nan,
        "adjust_method": "",
        "p_min_attainable": p_min,
        "evidence": evidence(n_a, n_b),
        "status": word,
        "rank_biserial": np.nan if paired else rank_biserial(va, vb),
    }


def _least_p(n_a: int, n_b: int) -> float:
    """Smallest two-sided p of the exact rank-sum, 2 / C(n_a + n_b, n_a)."""
    return min(1.0, 2 / comb(n_a + n_b, n_a))


def adjusted(rows: Sequence[Mapping[str, Any]], family: str, extra: Sequence[str] = ()) -> pd.DataFrame:
    """Rows of `compare` as a table: columns `extra`, then TEST_COLUMNS; BH within each contrast, named `BH:<family>`."""
    frame = pd.DataFrame(list(rows), columns=[*extra, *TEST_COLUMNS])
    for column in ("p_value", "p_adjusted"):
        frame[column] = frame[column].astype(float)
    frame["adjust_method"] = f"BH:{family}"
    for _, part in frame.groupby("contrast", sort=False):
        frame.loc[part.index, "p_adjusted"] = adjust(part["p_value"])
    return frame
