"""Dose-response curves: four-parameter log-logistic fits that admit when there is no IC50, and tests between curves.

    y = bottom + (top - bottom) / (1 + 10^(hill (log10 dose - log10 IC50)))

falls with a positive hill; dose 0 gives `top` and stays in the fit. The relative IC50 is the parameter (half way between top
and bottom); the absolute IC50 is the dose at 50 % and exists on a percent scale only. Doses carry one unit per compound;
logarithms of doses are to base 10 throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq, leastsq
from scipy.special import expit, gammaln, ndtr

from scresist import comparison, keys, long_table, shared_ic50
from scresist.design import Problem
from scresist.io import format_float

LN10 = float(np.log(10))
BOTTOM, TOP, LOG_IC50, HILL = range(4)
NAMES = ("bottom", "top", "log10_ic50", "hill")
X_SCALE = np.array([10.0, 10.0, 1.0, 1.0])  # expected size of a step of each parameter
N_STARTS_DOSE, START_HILLS = 7, (0.5, 1.0, 2.0)
TOLERANCE = 1e-14
SCREEN_STEPS, SCREEN_GAIN = 60, 1e-7  # of each start; the best is then carried on to TOLERANCE
CHUNK = 100  # curves that are searched at once: their arrays stay in the cache of a processor
TINY = 1e-200
POLISH_CALLS = 100
PROFILE_TOLERANCE, PROFILE_CALLS = 1e-8, 100
PROFILE_STEPS, PROFILE_CLOSE = 40, 1e-4
SAME_DOSE = 1e-9  # powers of ten
RANGE_NODES, RANGE_REACH = 96, 8.5  # of the integrals of the studentized range; beyond 8.5 a normal has 1e-17
PROFILE_REACH = 4.0  # powers of ten beyond the doses up to which the end of a profile interval is looked for
REJECTED = 1e9  # residual where a headline cannot exist: the search turns back
HALF = 50.0  # percent: what the absolute IC50 is read at
MIN_DOSES = 5  # distinct doses above 0
SPARE_POINTS = 2  # points beyond the number of parameters
MAX_HILL = 10.0
PERCENT_LOW, PERCENT_HIGH = -50.0, 150.0  # of bottom and top, in percent
MIN_R2 = 0.8
UNTREATED_LEAST = 75.0  # percent, half way between untreated and half effect: wells without drug below it were normalised wrongly
FLAT_P = 0.05  # a rise that a constant explains as well (F test) is called flat, not rising
OUT_OF_RANGE = keys.OUT_OF_RANGE
PERCENT, ARBITRARY = "percent", "arbitrary"
SCALES = (PERCENT, ARBITRARY)
ABSOLUTE, RELATIVE = "absolute", "relative"
OD_NEEDED = ("od_drug", "od_nodrug", "od_day0")
OD_COLUMNS = (*OD_NEEDED, "od_blank")
WELL_COLUMNS = ("compound", "line", "treatment", "replicate", "dose", "unit", "response")
ALIASES = {
    "cell_line": "line", "cellline": "line", "group": "treatment", "drug": "compound", "concentration": "dose",
    "dose_unit": "unit", "viability": "response", "viability_pct": "response", "rep": "replicate",
}  # fmt: skip
NO_TREATMENT = "none"
MOST_FRACTION = 1.5  # responses within it are shares of one written where percent is expected
TREATMENTS, LINES = "treatments", "lines"
POOLED = "all"  # the name, in the column replicate, of the fit over all replicates
UNIT_REPLICATE, UNIT_WELL = "replicate", "well"
IN_VITRO = "in_vitro"  # evidence of a comparison of cell lines: no patient stands behind it
MAX_PAIRED_GROUPS = 20  # more groups than that are compared as a whole only
CURVE = ("line", "treatment", "compound")
FIT_COLUMNS = (
    "curve", *CURVE, "replicate", "model", "n", "n_doses", "n_replicates", "top", "bottom", "hill", "log10_ic50_rel", "se_rel",
    "wald_low_rel", "wald_high_rel", "log10_ic50_abs", "ic50_kind", "se", "wald_low", "wald_high", "profile_low", "profile_high",
    "ic50", "ic50_se", "ic50_low", "ic50_high", "ic50_text", "unit", "auc", "auc_fitted", "r2", "rss", "dose_min", "dose_max",
    "status", "reason",
)  # fmt: skip
POINT_COLUMNS = ("curve", *CURVE, "replicate", "dose", "unit", "response", "fitted")
TEST_COLUMNS = (
    "comparison", *CURVE, *comparison.TEST_COLUMNS, "df1", "df2", "groups", "fold_change", "fold_low", "fold_high", "reason",
)  # fmt: skip


# --- the table of wells


def read_wells(paths: Sequence[Path], unit: str, scale: str) -> tuple[pd.DataFrame, pd.DataFrame, list[long_table.Fault]]:
    """The wells of all files (see `wells`), their rows as text (see `long_table.read`), and everything that is wrong."""
    table, problems = long_table.read(paths, ALIASES, "one row per well", "Add the wells")
    made = pd.DataFrame(columns=list(WELL_COLUMNS))
    if len(table):
        made, faults = wells(table, unit, scale)
        problems += faults
    return made, table, problems


def fixed_plateaus(bottom: float | None, top: float | None) -> tuple[dict[int, float], str]:
    """Plateaus that are known, by the place of their parameter, and what is wrong with them (empty: nothing)."""
    given = {at: float(value) for at, value in {BOTTOM: bottom, TOP: top}.items() if value is not None}
    if len(given) == 2 and given[TOP] <= given[BOTTOM]:
        return given, f"--top_fixed {top:g} is not above --bottom_fixed {bottom:g}; give a higher top"
    return given, ""


def references(control: str, table: pd.DataFrame) -> tuple[list[str], str]:
    """Names of a comma list of references, and what is wrong with them: those that no well has (empty: nothing)."""
    found = [name.strip() for name in control.split(",") if name.strip()]
    unknown = sorted(set(found) - set(table["treatment"]) - set(table["line"])) if len(table) else []
    if not unknown:
        return found, ""
    return found, (
        f"--control {', '.join(unknown)}: no such treatment or line; found the treatments"
        f" {', '.join(sorted(set(table['treatment'])))[:200]} and the lines {', '.join(sorted(set(table['line'])))[:200]}."
        " Write one of them."
    )


def wells(table: pd.DataFrame, unit: str, scale: str) -> tuple[pd.DataFrame, list[tuple[str, Problem]]]:
    """Wells with a response, from a long table of text (`long_table.parse`), and everything that is wrong with it.

    Parameters
    ----------
    table
        `line, compound, dose` and, where given, `treatment, replicate, unit`; either `response` or optical densities `od_drug,
        od_nodrug, od_day0` with, where given, `od_blank`.
    unit
        of doses in rows that name none; empty = every row must name one.
    scale
        `percent` or `arbitrary`.

    From optical densities: viability = 100 (drug - day 0) / (no drug - day 0), the blank taken off first; drug and no drug are
    read on the same day. Values below 0 or above 100 are kept.

    Returns
    -------
    wells
        line, treatment, compound, replicate, dose, unit, response; sorted, so that the order of rows has no effect.
    problems
        (file, problem); `wells` is usable only when empty.
    """
    problems: list[tuple[str, Problem]] = []
    for name, part in table.groupby(long_table.FILE, sort=True):
        part = part.dropna(axis=1, how="all")
        problems += long_table.absent(part, str(name), ("line", "compound", "dose"))
        if "response" in part and OD_NEEDED[0] in part:
            text = f"response and {OD_NEEDED[0]} in one table"
            problems.append((str(name), Problem("response", text, "one of them", "Remove the column that is not meant", 1)))
        elif "response" not in part:
            needed = OD_NEEDED if any(column in part for column in OD_COLUMNS) else ("response",)
            problems += long_table.absent(part, str(name), needed)
    if problems:
        return pd.DataFrame(columns=list(WELL_COLUMNS)), problems
    made = pd.DataFrame(index=table.index)
    for column in ("line", "compound"):
        made[column] = long_table.filled(table, column, problems)
    for column, default in (("treatment", NO_TREATMENT), ("replicate", "1")):
        given = table[column].fillna("").astype(str) if column in table else pd.Series("", index=table.index)
        made[column] = given.where(given != "", default)
    made["dose"] = long_table.numbers(table, "dose", problems, low=0.0)
    given = table["unit"].fillna("").astype(str) if "unit" in table else pd.Series("", index=table.index)
    made["unit"] = given.where(given != "", unit).str.replace("[\u00b5\u03bc]", "u", regex=True)
    problems += _unit_problems(made, table)
    made["response"] = np.nan
    direct = table["response"].notna() if "response" in table else pd.Series(False, index=table.index)
    if direct.any():
        made.loc[direct, "response"] = long_table.numbers(table[direct], "response", problems)
    if (~direct).any():
        made.loc[~direct, "response"] = _from_densities(table[~direct], problems)
    if scale == PERCENT and direct.any() and not problems:
        problems += _fraction_problems(made[direct], table[direct])
    return made[list(WELL_COLUMNS)].sort_values(list(WELL_COLUMNS), ignore_index=True), problems


def _unit_problems(made: pd.DataFrame, table: pd.DataFrame) -> list[tuple[str, Problem]]:
    """Doses without a unit, and compounds with several."""
    problems = []
    empty = made["unit"] == ""
    for name, part in table[empty].groupby(long_table.FILE, sort=True):
        rows = part[long_table.ROW].tolist()
        text = f"empty in {len(rows)} rows, the first is {rows[0]}" if len(rows) > 1 else "empty"
        mend = "Write the unit of the dose (nM) in the column unit, or give --dose_unit"
        problems.append((str(name), Problem("unit", text, "a unit such as nM", mend, rows[0])))
    for compound, part in made[~empty].groupby("compound", sort=True):
        counts = part["unit"].value_counts().sort_index()
        if len(counts) > 1:
            odd = part.index[part["unit"] != counts.idxmax()][0]
            told = ", ".join(f"{unit} ({n} rows)" for unit, n in counts.items())
            fault = Problem("unit", f"compound {compound} has doses in {told}", "one unit per compound",
                            "Convert all doses of the compound to one unit", int(table.at[odd, long_table.ROW]))  # fmt: skip
            problems.append((str(table.at[odd, long_table.FILE]), fault))
    return problems


def _from_densities(table: pd.DataFrame, problems: list[tuple[str, Problem]]) -> np.ndarray:
    """Viability in % from optical densities."""
    read = {column: long_table.numbers(table, column, problems).to_numpy() for column in OD_NEEDED}
    blank = np.zeros(len(table))
    if "od_blank" in table and table["od_blank"].notna().any():
        has = (table["od_blank"].fillna("") != "").to_numpy()
        blank[has] = long_table.numbers(table[has], "od_blank", problems).to_numpy()
    drug, none, start = (read[column] - blank for column in OD_NEEDED)
    growth = none - start
    for at in np.flatnonzero(growth <= 0):
        row = table.iloc[at]
        text = f"od_nodrug {row['od_nodrug']} with od_day0 {row['od_day0']}"
        fault = Problem("od_nodrug", text, "more than at day 0 (viability is measured against growth without drug)",
                        "Check the plate, or remove the row", int(row[long_table.ROW]))  # fmt: skip
        problems.append((str(row[long_table.FILE]), fault))
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * (drug - start) / growth


def _fraction_problems(made: pd.DataFrame, table: pd.DataFrame) -> list[tuple[str, Problem]]:
    """Files whose responses look like shares of one where percentages are expected."""
    problems = []
    for name, part in made.groupby(table[long_table.FILE], sort=True):
        top = float(part["response"].abs().max())
        if 0 < top <= MOST_FRACTION:
            fault = Problem("response", f"all values lie within {top:.3g}", "percent of untreated (0 to about 100)",
                            "Multiply by 100, or give --dose_scale arbitrary")  # fmt: skip
            problems.append((str(name), fault))
    return problems


def log_doses(doses: np.ndarray) -> np.ndarray:
    """log10, -inf for dose 0."""
    with np.errstate(divide="ignore"):
        return np.log10(np.asarray(doses, dtype=float))


def curve_name(line: str, treatment: str, compound: str) -> str:
    """A curve in words: line, treatment (where there is one), compound."""
    return " / ".join(part for part in (line, "" if treatment == NO_TREATMENT else treatment, compound) if part)


# --- the model


def response(log_dose: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """The curve at log10 doses (-inf for dose 0, where a falling curve is at `top`); values: bottom, top, log10 IC50, hill."""
    bottom, top, middle, hill = values
    return bottom + (top - bottom) * _fall(np.asarray(log_dose, dtype=float), middle, hill)


def _fall(log_dose: np.ndarray, middle: float, hill: float) -> np.ndarray:
    """1 / (1 + 10^(hill (log_dose - middle))); at dose 0 its limit, 1 for a positive hill."""
    zero = np.isneginf(log_dose)
    return np.where(zero, float(hill > 0), expit(-LN10 * hill * (np.where(zero, 0.0, log_dose) - middle)))


def gradient(log_dose: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """Derivatives of the curve to bottom, top, log10 IC50 and hill: points x 4."""
    bottom, top, middle, hill = values
    log_dose = np.asarray(log_dose, dtype=float)
    share = _fall(log_dose, middle, hill)
    slope = (top - bottom) * share * (1 - share) * LN10
    distance = np.where(np.isneginf(log_dose), 0.0, log_dose - middle)
    return np.stack([1 - share, share, slope * hill, -slope * distance], axis=1)


def log_absolute(values: Sequence[float]) -> float:
    """log10 of the dose at which the curve is 50; NaN unless bottom < 50 < top."""
    bottom, top, middle, hill = values
    if not bottom < HALF < top or hill == 0:
        return np.nan
    return float(middle + np.log10((top - HALF) / (HALF - bottom)) / hill)


def _absolute_gradient(values: Sequence[float]) -> np.ndarray:
    """Derivatives of `log_absolute` to bottom, top, log10 IC50 and hill."""
    bottom, top, _, hill = values
    ratio = np.log10((top - HALF) / (HALF - bottom))
    return np.array([1 / (hill * LN10 * (HALF - bottom)), 1 / (hill * LN10 * (top - HALF)), 1.0, -ratio / hill**2])


# --- one fit


@dataclass(frozen=True)
class Fit:
    """One least-squares fit: parameter values, which of them were free, their covariance (4 x 4, 0 for fixed ones)."""

    model: str
    values: np.ndarray
    free: tuple[int, ...]
    covariance: np.ndarray
    rss: float
    n: int

    @property
    def df(self) -> int:
        """Points minus estimated parameters."""
        return self.n - len(self.free)

    @property
    def falls(self) -> bool:
        """Whether the response falls with the dose."""
        return bool(self.values[HILL] * (self.values[TOP] - self.values[BOTTOM]) > 0)

    def se(self, which: int) -> float:
        """Standard error of a parameter; 0 where it was fixed, infinite where the data do not determine it."""
        return float(np.sqrt(self.covariance[which, which]))

    def band(self, log_dose: np.ndarray, alpha: float) -> np.ndarray:
        """Half width of the pointwise 1 - alpha band of the curve (delta method, t with n - p)."""
        steps = gradient(log_dose, self.values)
        if not np.isfinite(self.covariance).all():
            return np.full(len(steps), np.inf)
        variance = np.einsum("ij,jk,ik->i", steps, self.covariance, steps)
        return stats.t.ppf(1 - alpha / 2, self.df) * np.sqrt(np.maximum(variance, 0))


def model_name(fixed: Mapping[int, float]) -> str:
    """`free`, `top_100`, `top_100_bottom_0`: what was not estimated."""
    return "_".join(f"{NAMES[at]}_{format_float(fixed[at])}" for at in sorted(fixed, reverse=True)) or "free"


def fit_models(curves: Sequence[tuple[np.ndarray, np.ndarray]], fixed: Mapping[int, float]) -> list[Fit]:
    """The least-squares curve of each set of points, with some parameters fixed.

    Parameters
    ----------
    curves
        (log10 doses, -inf for dose 0; responses) of each.
    fixed
        BOTTOM or TOP -> value.

    Seven log10 IC50 over the doses times the hills 0.5, 1 and 2 are starts of Levenberg-Marquardt (all starts of all curves at
    once, `_screen`); the best is refined by scipy's `leastsq` (MINPACK) to a tolerance of 1e-14. Covariance s2 (J'J)^-1 with
    s2 = RSS / (n - p).
    """
    by_size: dict[int, list[int]] = {}
    for at, (_, y) in enumerate(curves):
        by_size.setdefault(len(y), []).append(at)
    made: dict[int, Fit] = {}
    for members in by_size.values():
        for first in range(0, len(members), CHUNK):
            part = members[first : first + CHUNK]
            starts = _screen(np.stack([curves[at][0] for at in part]), np.stack([curves[at][1] for at in part]), fixed)
            made.update((at, _polish(*curves[at], fixed, start)) for at, start in zip(part, starts, strict=True))
    return [made[at] for at in range(len(curves))]


def _polish(log_dose: np.ndarray, y: np.ndarray, fixed: Mapping[int, float], start: np.ndarray) -> Fit:
    """The fit that starts from `start` (bottom, top, log10 IC50, hill)."""
    columns = [at for at in range(4) if at not in fixed]

    def complete(p: np.ndarray) -> np.ndarray:
        values = start.copy()
        values[columns] = p
        return values

    def residual(p: np.ndarray) -> np.ndarray:
        return response(log_dose, complete(p)) - y

    def jacobian(p: np.ndarray) -> np.ndarray:
        return gradient(log_dose, complete(p))[:, columns]

    with np.errstate(all="ignore"):  # MINPACK's own covariance may overflow; it is not used
        found = leastsq(
            residual, start[columns], Dfun=jacobian, full_output=True, diag=1 / X_SCALE[columns], ftol=TOLERANCE,
            xtol=TOLERANCE, gtol=TOLERANCE, maxfev=POLISH_CALLS,
        )  # fmt: skip
    rest, refined = residual(start[columns]), found[2]["fvec"]
    values = complete(found[0]) if refined @ refined <= rest @ rest else start
    if not fixed and values[TOP] < values[BOTTOM]:  # the same curve in other words: top is the higher plateau
        values = np.array([values[TOP], values[BOTTOM], values[LOG_IC50], -values[HILL]])
    rest = response(log_dose, values) - y
    rss = float(rest @ rest)
    covariance = np.zeros((4, 4))
    variance = rss / max(len(y) - len(columns), 1)
    inverse = _inverse(gradient(log_dose, values)[:, columns])
    covariance[np.ix_(columns, columns)] = np.multiply(inverse, variance, out=inverse, where=np.isfinite(inverse))
    return Fit(model_name(fixed), values, tuple(columns), covariance, rss, len(y))


def _plateaus(share: np.ndarray, y: np.ndarray, fixed: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Bottom and top that fit best where the share of the fall is known (they enter linearly); rows are problems."""
    if BOTTOM in fixed and TOP in fixed:
        return np.full(len(y), fixed[BOTTOM]), np.full(len(y), fixed[TOP])
    if TOP in fixed or BOTTOM in fixed:
        known, basis = (TOP, 1 - share) if TOP in fixed else (BOTTOM, share)
        rest = y - fixed[known] * (1 - basis)
        size = (basis * basis).sum(axis=1)
        level = np.divide((basis * rest).sum(axis=1), size, out=np.full(len(y), fixed[known]), where=size > TINY)
        constant = np.full(len(y), fixed[known])
        return (level, constant) if known == TOP else (constant, level)
    mean, middle = y.mean(axis=1), share.mean(axis=1)
    apart = share - middle[:, None]
    size = (apart * apart).sum(axis=1)
    span = np.divide((apart * (y - mean[:, None])).sum(axis=1), size, out=np.zeros(len(y)), where=size > TINY)
    bottom = mean - span * middle
    return bottom, bottom + span


def _without_plateaus(steps: np.ndarray, share: np.ndarray, fixed: Mapping[int, float]) -> np.ndarray:
    """What of a derivative remains when top and bottom follow (projection beside the columns of the free plateaus)."""
    if BOTTOM in fixed and TOP in fixed:
        return steps
    if TOP in fixed or BOTTOM in fixed:
        basis = 1 - share if TOP in fixed else share
    else:
        steps = steps - steps.mean(axis=1, keepdims=True)
        basis = share - share.mean(axis=1, keepdims=True)
    size = (basis * basis).sum(axis=1, keepdims=True)
    along = (basis * steps).sum(axis=1, keepdims=True)
    return steps - basis * np.divide(along, size, out=np.zeros_like(size), where=size > TINY)


def _screen(log_dose: np.ndarray, y: np.ndarray, fixed: Mapping[int, float]) -> np.ndarray:
    """The best of all starts for each curve: curves x (bottom, top, log10 IC50, hill).

    log_dose and y are curves x points. Variable projection (Golub and Pereyra 1973, with Kaufman's derivative): only log10 IC50
    and hill are searched, in two dimensions, with Levenberg's damping.
    """
    n_curves = len(y)
    known = np.where(np.isfinite(log_dose), log_dose, np.nan)
    low, high = np.nanmin(known, axis=1), np.nanmax(known, axis=1)
    n_starts = N_STARTS_DOSE * len(START_HILLS)
    steps = np.repeat(np.linspace(0, 1, N_STARTS_DOSE), len(START_HILLS))
    middle = (low[:, None] + (high - low)[:, None] * steps).ravel()
    hill = np.tile(START_HILLS, n_curves * N_STARTS_DOSE)
    xs, ys = np.repeat(log_dose, n_starts, axis=0), np.repeat(y, n_starts, axis=0)
    zero = np.isneginf(xs)
    xs = np.where(zero, 0.0, xs)

    def cost_at(x, zero, y, middle, hill):
        with np.errstate(over="ignore"):  # a start that runs away to infinity loses against the others
            share = np.where(zero, hill[:, None] > 0, expit(-LN10 * hill[:, None] * (x - middle[:, None])))
        bottom, top = _plateaus(share, y, fixed)
        rest = bottom[:, None] + (top - bottom)[:, None] * share - y
        return share, bottom, top, rest, (rest * rest).sum(axis=1)

    share, bottom, top, rest, cost = cost_at(xs, zero, ys, middle, hill)
    damping, going = np.full(len(ys), 1e-2), np.arange(len(ys))
    for _ in range(SCREEN_STEPS):
        s, r, c = share[going], rest[going], cost[going]
        slope = (top - bottom)[going, None] * s * (1 - s) * LN10
        distance = np.where(zero[going], 0.0, xs[going] - middle[going, None])
        to_middle = _without_plateaus(slope * hill[going, None], s, fixed)
        to_hill = _without_plateaus(-slope * distance, s, fixed)
        a, b, d = (to_middle**2).sum(axis=1), (to_middle * to_hill).sum(axis=1), (to_hill**2).sum(axis=1)
        g, h = (to_middle * r).sum(axis=1), (to_hill * r).sum(axis=1)
        a, d = a * (1 + damping[going]) + TINY, d * (1 + damping[going]) + TINY
        bound = np.maximum(a * d - b * b, TINY)
        new_middle = middle[going] - (d * g - b * h) / bound
        new_hill = hill[going] - (a * h - b * g) / bound
        new = cost_at(xs[going], zero[going], ys[going], new_middle, new_hill)
        better = new[4] < c
        chosen = going[better]
        middle[chosen], hill[chosen] = new_middle[better], new_hill[better]
        share[chosen], bottom[chosen], top[chosen], rest[chosen], cost[chosen] = (part[better] for part in new)
        gain = np.where(better, c - new[4], 0)
        damping[going] = np.where(better, damping[going] / 5, damping[going] * 4)
        done = (better & (gain <= SCREEN_GAIN * c)) | (damping[going] > 1e8)
        going = going[~done]
        if not len(going):
            break
    cost = cost.reshape(n_curves, n_starts)
    # a later start must be better by more than rounding: equal fits keep the first one, on every machine
    close = cost <= cost.min(axis=1, keepdims=True) * (1 + 1e-7)
    chosen = np.arange(n_curves) * n_starts + close.argmax(axis=1)
    return np.stack([bottom[chosen], top[chosen], middle[chosen], hill[chosen]], axis=1)


def _inverse(jacobian: np.ndarray) -> np.ndarray:
    """(J'J)^-1 with columns scaled to one; infinite variances where the data do not determine every parameter."""
    size = np.sqrt((jacobian**2).sum(axis=0))
    nothing = np.diag(np.full(len(size), np.inf))
    if not np.isfinite(size).all() or (size == 0).any():
        return nothing
    scaled = jacobian / size
    product = scaled.T @ scaled
    if not np.linalg.cond(product) < 1e15:
        return nothing
    return np.linalg.inv(product) / np.outer(size, size)


def unreliable(fit: Fit, scale: str) -> str:
    """Why a fit may not be printed as it stands; empty when it may."""
    span = abs(fit.values[TOP] - fit.values[BOTTOM])
    for at in (BOTTOM, TOP):
        if at in fit.free and not fit.se(at) <= span:
            return f"{NAMES[at]} is not determined"
    if abs(fit.values[HILL]) > MAX_HILL:
        return f"|hill| above {MAX_HILL:g}"
    if scale == PERCENT and fit.values[BOTTOM] < PERCENT_LOW:
        return f"bottom below {PERCENT_LOW:g} %"
    if scale == PERCENT and fit.values[TOP] > PERCENT_HIGH:
        return f"top above {PERCENT_HIGH:g} %"
    return ""


def ladder(scale: str, fixed: Mapping[int, float]) -> list[dict[int, float]]:
    """What is fixed at each attempt: as asked; then, on the percent scale, top = 100; then bottom = 0 as well."""
    made = [dict(fixed)]
    if scale == PERCENT:
        for step in ({TOP: 100.0}, {BOTTOM: 0.0, TOP: 100.0}):
            wanted = {**step, **fixed}
            if wanted != made[-1]:
                made.append(wanted)
    return made


# --- one curve


@dataclass(frozen=True)
class Estimate:
    """What a set of points says about its IC50.

    fit: the fit that may be printed, None when there is none. kind: absolute or relative, what the headline is. log_ic50, se: the
    headline and its standard error, NaN when it does not exist within the doses. text: the IC50 in words (`> 12500`).
    """

    fit: Fit | None
    kind: str
    log_ic50: float
    se: float
    text: str
    status: str
    reason: str

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return bool(np.isfinite(self.log_ic50))


def estimate(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], scale: str = PERCENT, fixed: Mapping[int, float] | None = None
) -> list[Estimate]:
    """The IC50 of each curve, or why there is none; the guards of methods.md in their order.

    Parameters
    ----------
    curves
        (log10 doses, -inf for dose 0; responses) of each.
    scale
        `percent`: viability in % of untreated, the headline is the absolute IC50; `arbitrary`: the relative one.
    fixed
        BOTTOM or TOP -> value, for users who know a plateau.
    """
    fixed = dict(fixed or {})
    made: dict[int, Estimate] = {}
    left = []
    for at, (log_dose, y) in enumerate(curves):
        n_doses, needed = len(np.unique(log_dose[np.isfinite(log_dose)])), 4 - len(fixed) + SPARE_POINTS
        if n_doses < MIN_DOSES:
            made[at] = _nothing(scale, f"{n_doses} doses above 0, {MIN_DOSES} needed")
        elif len(y) < needed:
            made[at] = _nothing(scale, f"{len(y)} points, {needed} needed")
        elif np.ptp(y) == 0:
            made[at] = _flat(log_dose, y, scale, "flat: the same response at every dose")
        else:
            left.append(at)
    found: dict[int, tuple[Fit, str]] = {}
    steps = ladder(scale, fixed)
    for step in steps:
        for at, fit in zip(left, fit_models([curves[at] for at in left], step), strict=True):
            found[at] = fit, unreliable(fit, scale)
        left = [at for at in left if found[at][1]]
    for at, (fit, doubt) in found.items():
        made[at] = _judge(*curves[at], fit, doubt, scale, set(steps[-1]) >= {BOTTOM, TOP})
    return [made[at] for at in range(len(curves))]


def _nothing(scale: str, reason: str) -> Estimate:
    return Estimate(None, ABSOLUTE if scale == PERCENT else RELATIVE, np.nan, np.nan, "", keys.NOT_ESTIMABLE, reason)


def _limits(log_dose: np.ndarray) -> tuple[float, float]:
    known = log_dose[np.isfinite(log_dose)]
    return float(known.min()), float(known.max())


def _flat(log_dose: np.ndarray, y: np.ndarray, scale: str, reason: str) -> Estimate:
    """A response that no dose changes: beyond the doses on the percent scale, nothing to say on another."""
    level = float(y.mean())
    if scale != PERCENT or level == HALF:
        return _nothing(scale, reason)
    return _beyond(None, log_dose, y, above=level > HALF, kind=ABSOLUTE, reason=reason)


def _beyond(fit: Fit | None, log_dose: np.ndarray, y: np.ndarray, above: bool, kind: str, reason: str) -> Estimate:
    """The IC50 lies beyond the doses, unless the points do not even tell on which side."""
    quality = r_squared(y, fit) if fit else np.nan
    if kind == ABSOLUTE:
        doubt = _side_unknown(log_dose, y, above, quality)
        if doubt:
            return _nothing(PERCENT, f"{reason}; {doubt}")
    elif not quality >= MIN_R2:
        reason += f"; R2 {quality:.2f}, {MIN_R2} needed"
    low, high = _limits(log_dose)
    text = f"> {format_float(10**high)}" if above else f"< {format_float(10**low)}"
    return Estimate(fit, kind, np.nan, np.nan, text, OUT_OF_RANGE, reason)


def _side_unknown(log_dose: np.ndarray, y: np.ndarray, above: bool, quality: float) -> str:
    """Why it cannot be said that half effect lies above (or below) all doses, on the percent scale; empty when it can.

    A curve that the wells follow (R2) tells the side; without one their mean at doses above 0 must be away from 50 %.
    """
    treated, untreated = y[np.isfinite(log_dose)], y[np.isneginf(log_dose)]
    level = float(treated.mean())
    if len(untreated) and untreated.mean() < UNTREATED_LEAST and (not above or level < UNTREATED_LEAST):
        return f"wells at dose 0 are at {untreated.mean():.3g} % of untreated: check the normalisation"
    half = stats.t.ppf(1 - FLAT_P / 2, len(treated) - 1) * treated.std(ddof=1) / np.sqrt(len(treated))
    if quality >= MIN_R2 or abs(level - HALF) > half:
        return ""
    fitted = f"R2 {quality:.2f}, {MIN_R2} needed, and " if np.isfinite(quality) else ""
    return f"{fitted}the mean response of {level:.3g} % is not clearly above or below {HALF:g} %"


def _judge(log_dose: np.ndarray, y: np.ndarray, fit: Fit, doubt: str, scale: str, last_resort: bool) -> Estimate:
    """Status, headline and words of the fit that the ladder ended with."""
    kind = ABSOLUTE if scale == PERCENT else RELATIVE
    low, high = _limits(log_dose)
    # with both plateaus given a step tells between which doses the response falls, though not where between them
    is_step = last_resort and doubt.startswith("|hill|")
    if doubt and not is_step:
        return _nothing(scale, f"the fit is not reliable: {doubt}")
    if not fit.falls:
        return _not_falling(log_dose, y, fit, scale)
    bottom, top = sorted(fit.values[:2])
    where = log_absolute(fit.values) if kind == ABSOLUTE else float(fit.values[LOG_IC50])
    if kind == ABSOLUTE and bottom >= HALF:
        return _beyond(fit, log_dose, y, True, kind, f"the curve levels off at {bottom:.3g} %, 50 % is not reached")
    if kind == ABSOLUTE and top <= HALF:
        return _beyond(fit, log_dose, y, False, kind, f"the curve begins at {top:.3g} %, below 50 %")
    if not low <= where <= high:
        side = "above the highest" if where > high else "below the lowest"
        return _beyond(fit, log_dose, y, where > high, kind, f"the IC50 lies {side} tested dose")
    if kind == ABSOLUTE:
        steps = _absolute_gradient(fit.values)
        # a parameter that the points do not determine has an infinite variance, and so has what is made from it
        se = float(np.sqrt(steps @ fit.covariance @ steps)) if np.isfinite(fit.covariance).all() else np.inf
    else:
        se = fit.se(LOG_IC50)
    notes = []
    if is_step:
        notes.append("the response falls within one step of dose: where the IC50 lies between these two is not determined")
    quality = r_squared(y, fit)
    if not quality >= MIN_R2:
        notes.append(f"R2 {quality:.2f}, {MIN_R2} needed")
    word = keys.WARNING if notes else keys.OK
    return Estimate(fit, kind, where, se, format_float(10**where), word, "; ".join(notes))


def _not_falling(log_dose: np.ndarray, y: np.ndarray, fit: Fit, scale: str) -> Estimate:
    """A fit that rises: flat when a constant explains the points as well, else `not_estimable`."""
    total = float(((y - y.mean()) ** 2).sum())
    extra = max(len(fit.free) - 1, 1)
    f = (total - fit.rss) / extra / (fit.rss / fit.df) if fit.rss > 0 else np.inf
    if not stats.f.sf(max(f, 0.0), extra, fit.df) < FLAT_P:
        return _flat(log_dose, y, scale, "flat: no fall with the dose (a constant explains the points as well)")
    low, high = _limits(log_dose)
    first, last = (float(y[log_dose == at].mean()) for at in (low, high))
    reason = f"rising: the response goes up with the dose, {first:.3g} at the lowest and {last:.3g} at the highest"
    means = [y[log_dose == dose].mean() for dose in np.unique(log_dose)]
    text = f"> {format_float(10**high)}" if scale == PERCENT and min(means) > HALF else ""
    return Estimate(None, ABSOLUTE if scale == PERCENT else RELATIVE, np.nan, np.nan, text, keys.NOT_ESTIMABLE, reason)


def r_squared(y: np.ndarray, fit: Fit) -> float:
    """1 - RSS / total sum of squares; NaN for a constant response."""
    total = float(((y - y.mean()) ** 2).sum())
    return 1 - fit.rss / total if total > 0 else np.nan


# --- intervals


class _Pinned:
    """The curve with its headline IC50 as a parameter of its own: what profile intervals need.

    Called some hundred times per curve: the share of the fall is kept between the call for residuals and the one for derivatives.
    """

    def __init__(self, log_dose: np.ndarray, y: np.ndarray, fit: Fit, kind: str):
        self.y, self.fit, self.absolute = y, fit, kind == ABSOLUTE
        self.zero = np.isneginf(log_dose)
        self.log_dose = np.where(self.zero, 0.0, log_dose)
        self.columns = [at for at in fit.free if at != LOG_IC50]
        self._where: tuple[float, bytes] | None = None
        self._values: list[float] | None = None
        self._share = self._distance = y

    def _move(self, theta: float, others: np.ndarray) -> list[float] | None:
        """Parameters of the curve whose headline is `theta`; None where the headline does not exist."""
        where = (theta, others.tobytes())
        if where == self._where:
            return self._values
        self._where = where
        made = self.fit.values.tolist()
        for at, value in zip(self.columns, others.tolist(), strict=True):
            made[at] = value
        bottom, top, _, hill = made
        made[LOG_IC50] = theta
        if self.absolute:
            if not bottom < HALF < top or hill == 0:
                self._values = None
                return None
            made[LOG_IC50] = theta - log10((top - HALF) / (HALF - bottom)) / hill
        self._values = made
        self._distance = self.log_dose - made[LOG_IC50]
        self._share = expit((-LN10 * hill) * self._distance)
        self._share[self.zero] = float(hill > 0)
        return made

    def residual(self, theta: float, others: np.ndarray) -> np.ndarray:
        """The curve minus the points."""
        values = self._move(theta, others)
        if values is None:
            return np.full(len(self.y), REJECTED)
        return values[BOTTOM] + (values[TOP] - values[BOTTOM]) * self._share - self.y

    def jacobian(self, theta: float, others: np.ndarray) -> np.ndarray:
        """Derivatives to the other parameters: points x others."""
        values = self._move(theta, others)
        if values is None:
            return np.zeros((len(self.y), len(self.columns)))
        bottom, top, _, hill = values
        share = self._share
        slope = (top - bottom) * LN10 * share * (1 - share)
        steps = {BOTTOM: 1 - share, TOP: share, HILL: -slope * self._distance}
        if self.absolute:
            # the middle follows the plateaus and hill; no power of hill, which may run away where the data are silent
            steps[BOTTOM] = steps[BOTTOM] - slope / (LN10 * (HALF - bottom))
            steps[TOP] = steps[TOP] - slope / (LN10 * (top - HALF))
            steps[HILL] = steps[HILL] + slope * (log10((top - HALF) / (HALF - bottom)) / hill)
        made = np.empty((len(self.y), len(self.columns)))
        for i, at in enumerate(self.columns):
            made[:, i] = steps[at]
        return made

    def rss(self, theta: float, others: np.ndarray) -> tuple[float, np.ndarray]:
        """Least RSS with the headline at theta, and the other parameters there; `others` is where the search begins."""
        if not len(self.columns):
            rest = self.residual(theta, others)
            return float(rest @ rest), others
        with np.errstate(all="ignore"):  # MINPACK's covariance of a plateau that runs away overflows; it is not used
            found = leastsq(
                lambda p: self.residual(theta, p), others, Dfun=lambda p: self.jacobian(theta, p), full_output=True,
                ftol=PROFILE_TOLERANCE, xtol=PROFILE_TOLERANCE, maxfev=PROFILE_CALLS,
            )  # fmt: skip
        return float(found[2]["fvec"] @ found[2]["fvec"]), found[0]


def profile_interval(
    log_dose: np.ndarray, y: np.ndarray, made: Estimate, alpha: float
) -> tuple[float, float]:  # fmt: skip
    """Profile-likelihood interval of the headline: RSS(theta) <= RSS_min (1 + F(1 - alpha; 1, n - p) / (n - p)).

    A side on which RSS never rises so far within four powers of ten beyond the doses is open (infinite).
    """
    fit = made.fit
    if fit is None or not made.known or fit.df < 1:
        return np.nan, np.nan
    if fit.rss <= 1e-20 * float(y @ y):
        return made.log_ic50, made.log_ic50
    pinned = _Pinned(log_dose, y, fit, made.kind)
    limit = float(np.sqrt(fit.rss * stats.f.ppf(1 - alpha, 1, fit.df) / fit.df))
    low, high = _limits(log_dose)
    bounds = {-1: low - PROFILE_REACH, 1: high + PROFILE_REACH}
    step = made.se * float(stats.t.ppf(1 - alpha / 2, fit.df))
    step = min(max(step, 1e-6), 1.0) if np.isfinite(step) else 1.0
    ends = {side: _profile_end(pinned, made.log_ic50, side, side * step, bounds[side], limit) for side in (-1, 1)}
    return ends[-1], ends[1]


def headline_interval(log_dose: np.ndarray, y: np.ndarray, made: Estimate, alpha: float) -> tuple[float, float]:
    """The profile interval; for a fall within one step of dose at least the two doses of that step.

    Every IC50 between these two fits such points as well, and the search finds no slope between them.
    """
    near, far = profile_interval(log_dose, y, made, alpha)
    if made.fit and (not np.isfinite(made.se) or abs(made.fit.values[HILL]) > MAX_HILL):
        doses = np.unique(log_dose[np.isfinite(log_dose)])
        below, above = doses[doses < made.log_ic50 - SAME_DOSE], doses[doses > made.log_ic50 + SAME_DOSE]
        near = np.fmin(near, below[-1]) if len(below) else -np.inf
        far = np.fmax(far, above[0]) if len(above) else np.inf
    return float(near), float(far)


def _profile_end(pinned: _Pinned, best: float, side: int, step: float, bound: float, limit: float) -> float:
    """Where sqrt(RSS - RSS_min) reaches `limit` on one side of the best value; infinite when that lies beyond `bound`.

    This root is nearly a straight line in theta, so that false position (with the Illinois rule) needs few steps; each search
    begins from the parameters of the last point within the interval.
    """

    def excess(theta: float, start: np.ndarray) -> tuple[float, np.ndarray]:
        rss, others = pinned.rss(theta, start)
        return float(np.sqrt(max(rss - pinned.fit.rss, 0.0)) - limit), others

    inner, at_inner, others = best, -limit, pinned.fit.values[pinned.columns]
    outer = best + step
    while True:
        if side * outer > side * bound:
            return side * np.inf
        at_outer, found = excess(outer, others)
        if at_outer >= 0:
            break
        inner, at_inner, others = outer, at_outer, found
        # straight on to where the root would be reached, and a little beyond; at most four times as far
        reached = max(at_outer + limit, 1e-12 * limit)
        outer = best + (outer - best) * min(4.0, 1.05 * limit / reached)
    theta, last = outer, 0
    for _ in range(PROFILE_STEPS):
        theta = inner + (outer - inner) * at_inner / (at_inner - at_outer)
        value, found = excess(theta, others)
        if abs(value) < PROFILE_CLOSE * limit or abs(outer - inner) < 1e-9:
            break
        if value < 0:
            inner, at_inner, others = theta, value, found
            at_outer = at_outer / 2 if last < 0 else at_outer
        else:
            outer, at_outer = theta, value
            at_inner = at_inner / 2 if last > 0 else at_inner
        last = int(np.sign(value))
    return theta


def describe(log_dose: np.ndarray, y: np.ndarray, made: Estimate, scale: str, alpha: float) -> dict[str, Any]:
    """The columns of dose_fits.tsv that follow from the points and their estimate; empty (NaN) where nothing may be printed."""
    low, high = _limits(log_dose) if np.isfinite(log_dose).any() else (np.nan, np.nan)
    row: dict[str, Any] = dict.fromkeys(FIT_COLUMNS, np.nan)
    row.update(
        model="", n=len(y), n_doses=len(np.unique(log_dose[np.isfinite(log_dose)])), ic50_kind=made.kind, ic50_text=made.text,
        dose_min=10**low, dose_max=10**high, status=made.status, reason=made.reason, auc=auc(log_dose, y, scale),
    )  # fmt: skip
    fit = made.fit
    if fit is None:
        return row
    row.update(model=fit.model, r2=r_squared(y, fit), rss=fit.rss, auc_fitted=_auc_of(fit, low, high, scale))
    row.update({name: fit.values[at] for at, name in enumerate(NAMES) if at != LOG_IC50})
    quantile = float(stats.t.ppf(1 - alpha / 2, fit.df))
    if low <= fit.values[LOG_IC50] <= high:
        middle, se = float(fit.values[LOG_IC50]), fit.se(LOG_IC50)
        row.update(log10_ic50_rel=middle, se_rel=se, wald_low_rel=middle - quantile * se, wald_high_rel=middle + quantile * se)
    if made.known:
        near, far = headline_interval(log_dose, y, made, alpha)
        ic50 = 10**made.log_ic50
        row.update(
            se=made.se, wald_low=made.log_ic50 - quantile * made.se, wald_high=made.log_ic50 + quantile * made.se,
            profile_low=near, profile_high=far, ic50=ic50, ic50_se=ic50 * LN10 * made.se, ic50_low=10.0**near,
            ic50_high=10.0**far,
        )  # fmt: skip
        if made.kind == ABSOLUTE:
            row["log10_ic50_abs"] = made.log_ic50
    return row


def auc(log_dose: np.ndarray, y: np.ndarray, scale: str) -> float:
    """Mean height of the response over log10 dose (trapezoids between the means of doses above 0); 1 = untreated on percent."""
    doses = np.unique(log_dose[np.isfinite(log_dose)])
    if len(doses) < 2:
        return np.nan
    means = np.array([y[log_dose == dose].mean() for dose in doses])
    return float(np.trapezoid(means, doses) / (doses[-1] - doses[0])) / (100 if scale == PERCENT else 1)


def _auc_of(fit: Fit, low: float, high: float, scale: str) -> float:
    """The same from the fitted curve, in closed form."""
    bottom, top, middle, hill = fit.values
    over = np.diff(np.logaddexp(0, LN10 * hill * (np.array([low, high]) - middle)))[0] / (LN10 * hill)
    share = 1 - over / (high - low)
    return float(bottom + (top - bottom) * share) / (100 if scale == PERCENT else 1)


# --- tests between curves


@dataclass(frozen=True)
class Group:
    """One treatment (or line) of a comparison: its replicates' headlines, the points of all replicates and their fit."""

    replicates: tuple[float, ...]  # log10 IC50; NaN where a replicate has none
    log_dose: np.ndarray
    y: np.ndarray
    pooled: Estimate


def _row(contrast: str, unit: str, test: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(TEST_COLUMNS, np.nan)
    row.update(dict.fromkeys(("comparison", *CURVE, "adjust_method", "effect_name", "groups", "reason"), ""))
    row.update(contrast=contrast, unit=unit, test=test, evidence=IN_VITRO, status=keys.OK)
    return row


def _fold(row: dict[str, Any]) -> None:
    """The effect, a difference of logarithms, as a ratio of doses."""
    for name, source in (("fold_change", "effect"), ("fold_low", "ci_low"), ("fold_high", "ci_high")):
        row[name] = 10.0 ** row[source] if abs(row[source]) < 300 else np.nan


def compare_groups(groups: Mapping[str, Group], name: str, alpha: float) -> list[dict[str, Any]]:
    """Rows of TEST_COLUMNS: analysis of variance over replicates, Tukey's pairs, and the F test of one shared IC50 over wells.

    Parameters
    ----------
    groups
        in order; pairs are named later_vs_earlier, so that the reference comes first.
    name
        of the comparison as a whole (`treatments`, `lines`).
    """
    return compare_all([(groups, name)], alpha)[0]


def compare_all(given: Sequence[tuple[Mapping[str, Group], str]], alpha: float) -> list[list[dict[str, Any]]]:
    """The rows of several comparisons, each as `compare_groups` makes them; their shared IC50s are searched together."""
    sets = [_shared_sets(groups) for groups, _ in given]
    found = iter(shared_rss([[groups[key] for key in one] for (groups, _), own in zip(given, sets, strict=True) for one in own]))
    shared = [{one: float(next(found)) for one in own} for own in sets]
    return [_compare(groups, name, own, alpha) for (groups, name), own in zip(given, shared, strict=True)]


def _pairs(groups: Mapping[str, Group]) -> list[tuple[str, str]]:
    """(later, earlier) of each pair; none of more than MAX_PAIRED_GROUPS groups."""
    names = list(groups)
    return [(a, b) for i, b in enumerate(names) for a in names[i + 1 :]] if len(names) <= MAX_PAIRED_GROUPS else []


def _shared_sets(groups: Mapping[str, Group]) -> list[tuple[str, ...]]:
    """Groups for which one shared IC50 is tested: all that have one, and their pairs."""
    pooled = [key for key, group in groups.items() if group.pooled.known]
    sets = [tuple(pooled), *((b, a) for a, b in _pairs(groups) if {a, b} <= set(pooled))]
    return [one for one in dict.fromkeys(sets) if len(one) > 1]


def _compare(
    groups: Mapping[str, Group], name: str, shared: Mapping[tuple[str, ...], float], alpha: float
) -> list[dict[str, Any]]:
    """`compare_groups` with the RSS of shared IC50s at hand."""
    known = {key: np.array([v for v in group.replicates if np.isfinite(v)]) for key, group in groups.items()}
    usable = {key: values for key, values in known.items() if len(values) >= comparison.LIMITED_FROM}
    lost = [f"{key} {len(known[key])}" for key in groups if key not in usable]
    found = f"replicates with an IC50: {', '.join(lost)}; {comparison.LIMITED_FROM} needed" if lost else ""
    anova = _anova(usable, name, found)
    anova["groups"] = ";".join(f"{key}={len(known[key])} of {len(group.replicates)}" for key, group in groups.items())
    pairs = _pairs(groups)
    pooled = [key for key, group in groups.items() if group.pooled.known]
    whole = _shared_row(pooled, groups, name, shared, alpha)
    own = []
    if len(groups) > 2:
        own = [_shared_row((b, a), groups, f"{a}_vs_{b}", shared, alpha) for a, b in pairs if {a, b} <= set(pooled)]
        for row, p in zip(own, comparison.adjust([row["p_value"] for row in own]), strict=True):
            row.update(p_adjusted=p, adjust_method="BH:pairs")
    if len(groups) > MAX_PAIRED_GROUPS:
        for row in (anova, whole):
            told = f"{len(groups)} groups: compared as a whole only, pairs of {MAX_PAIRED_GROUPS} at most"
            row["reason"] = "; ".join(filter(None, [row["reason"], told]))
    return [anova, *_tukey(usable, known, groups, pairs, alpha), whole, *own]


def _anova(usable: Mapping[str, np.ndarray], name: str, found: str) -> dict[str, Any]:
    row = _row(name, UNIT_REPLICATE, "anova")
    row["effect_name"] = "eta_squared"
    if len(usable) < 2:
        row.update(status=keys.NO_REPLICATES, reason=found)
        return row
    values = list(usable.values())
    total = np.concatenate(values)
    within = sum(float(((v - v.mean()) ** 2).sum()) for v in values)
    row.update(df1=len(values) - 1, df2=len(total) - len(values))
    all_ = float(((total - total.mean()) ** 2).sum())
    if not within > 1e-24 * max(float(total @ total), 1.0):
        row.update(status=keys.NOT_ESTIMABLE, reason="the replicates of each group are equal: there is no spread to test against")
        return row
    test = stats.f_oneway(*values)
    row.update(statistic=float(test.statistic), p_value=float(test.pvalue), effect=1 - within / all_)
    if found:
        row.update(status=keys.WARNING, reason=f"left out; {found}")
    return row


@lru_cache(maxsize=64)
def _range_nodes(df: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Places and weights (Gauss-Legendre) of s = chi / sqrt(df) and of a standard normal z, and the normal distribution at z."""
    places, weights = np.polynomial.legendre.leggauss(RANGE_NODES)
    low, high = np.sqrt(stats.chi2.ppf(1e-17, df) / df), np.sqrt(stats.chi2.isf(1e-17, df) / df)
    s = low + (high - low) * (places + 1) / 2
    density = np.exp((df - 1) * np.log(s) - df * s * s / 2 + df / 2 * np.log(df) - gammaln(df / 2) - (df / 2 - 1) * np.log(2))
    z = RANGE_REACH * places
    return s, weights * density * (high - low) / 2, z, weights * stats.norm.pdf(z) * RANGE_REACH, ndtr(z)


def studentized_range_sf(q: Sequence[float], n_groups: int, df: int) -> np.ndarray:
    """P that the studentized range of n_groups with df degrees of freedom exceeds q (Tukey 1949; Lund and Lund 1983).

    The double integral on fixed nodes: scipy's adaptive one takes 10 ms for each pair.
    """
    s, weight_s, z, weight_z, below = _range_nodes(df)
    made = []
    for one in q:
        inner = np.clip(below - ndtr(z - one * s[:, None]), 0, 1) ** (n_groups - 1) @ weight_z
        made.append(float(np.clip((weight_s * (1 - n_groups * inner)).sum(), 0, 1)))
    return np.array(made)


@lru_cache(maxsize=256)
def _tukey_limit(alpha: float, n_groups: int, df: int) -> float:
    """Quantile of the studentized range."""
    return float(brentq(lambda q: studentized_range_sf([q], n_groups, df)[0] - alpha, 1e-6, 1e5, xtol=1e-10))


def _tukey(
    usable: Mapping[str, np.ndarray],
    known: Mapping[str, np.ndarray],
    groups: Mapping[str, Group],
    pairs: Sequence[tuple[str, str]],
    alpha: float,
) -> list[dict[str, Any]]:
    """One row per pair: Tukey's test (Tukey-Kramer for unequal n); without replicates the fits over all wells, without p."""
    spread = len(usable) > 1 and any(np.ptp(values) > 0 for values in usable.values())
    df = sum(len(values) - 1 for values in usable.values())
    within = sum(float(((values - values.mean()) ** 2).sum()) for values in usable.values())
    rows = []
    for a, b in pairs:
        row = _row(f"{a}_vs_{b}", UNIT_REPLICATE, "tukey_hsd")
        row.update(n_a=len(known[a]), n_b=len(known[b]), effect_name="difference_log10_ic50")
        if a in usable and b in usable:
            effect = float(usable[a].mean() - usable[b].mean())
            row["effect"] = effect
            if spread:
                se = float(np.sqrt(within / df / 2 * (1 / len(usable[a]) + 1 / len(usable[b]))))
                half = _tukey_limit(alpha, len(usable), df) * se
                p = float(studentized_range_sf([abs(effect) / se], len(usable), df)[0])
                row.update(ci_low=effect - half, ci_high=effect + half, p_value=p, p_adjusted=p, adjust_method="Tukey")
            else:
                row.update(status=keys.NOT_ESTIMABLE, reason="no spread")
        else:
            row["status"] = keys.NO_REPLICATES
            short = [f"{key} {len(known[key])}{_in_words(groups[key].pooled)}" for key in (a, b) if key not in usable]
            row["reason"] = f"replicates with an IC50: {', '.join(short)}; {comparison.LIMITED_FROM} needed"
            if groups[a].pooled.known and groups[b].pooled.known:
                # an interval over wells is none over replicates: the row says so
                row.update(unit=UNIT_WELL, test="wald_wells", n_a=len(groups[a].y), n_b=len(groups[b].y))
                _pooled_difference(row, groups[a].pooled, groups[b].pooled, alpha)
        _fold(row)
        rows.append(row)
    return rows


def _in_words(made: Estimate) -> str:
    """` (IC50 > 12500)` for a group whose IC50 lies beyond the doses."""
    return f" (IC50 {made.text})" if made.status == OUT_OF_RANGE else ""


def _pooled_difference(row: dict[str, Any], a: Estimate, b: Estimate, alpha: float) -> None:
    """Effect and interval from the fits over all wells (Wald, t with the sum of both degrees of freedom)."""
    row["effect_name"] = "difference_log10_ic50_of_wells"
    if a.known and b.known and a.fit and b.fit:
        half = float(stats.t.ppf(1 - alpha / 2, a.fit.df + b.fit.df) * np.hypot(a.se, b.se))
        row["effect"] = a.log_ic50 - b.log_ic50
        if np.isfinite(half):
            row.update(ci_low=row["effect"] - half, ci_high=row["effect"] + half)


def _shared_row(
    names: Sequence[str], groups: Mapping[str, Group], name: str, shared: Mapping[tuple[str, ...], float], alpha: float
) -> dict[str, Any]:
    """Extra-sum-of-squares F test of one IC50 for the groups `names` against one each, over wells."""
    pooled = {key: groups[key] for key in names}
    row = _row(name, UNIT_WELL, "extra_sum_of_squares_f")
    row["groups"] = ";".join(f"{key}={len(group.y)}" for key, group in pooled.items())
    if len(pooled) < 2:
        none = [f"{key}{_in_words(group.pooled)}" for key, group in groups.items() if key not in pooled]
        row.update(status=keys.NOT_ESTIMABLE, reason=f"no IC50 within the tested doses: {', '.join(none)}")
        return row
    separate = sum(group.pooled.fit.rss for group in pooled.values())
    df2 = sum(group.pooled.fit.df for group in pooled.values())
    df1 = len(pooled) - 1
    row.update(df1=df1, df2=df2)
    if len(pooled) == 2:
        b, a = pooled
        row.update(n_a=len(pooled[a].y), n_b=len(pooled[b].y))
        _pooled_difference(row, pooled[a].pooled, pooled[b].pooled, alpha)
        _fold(row)
    if not separate > 0:
        row.update(status=keys.NOT_ESTIMABLE, reason="the curves pass through every point: there is no spread to test against")
        return row
    statistic = max(shared[tuple(names)] - separate, 0.0) / df1 / (separate / df2)
    row.update(statistic=statistic, p_value=float(stats.f.sf(statistic, df1, df2)))
    if len(pooled) < len(groups) and "_vs_" not in name:
        row.update(status=keys.WARNING, reason=f"left out, no IC50: {', '.join(k for k in groups if k not in pooled)}")
    return row


def shared_rss(sets: Sequence[Sequence[Group]]) -> np.ndarray:
    """Least sum of squares of each set of curves that share their headline IC50 (`shared_ic50.least_rss`)."""
    return shared_ic50.least_rss([[_shareable(group) for group in groups] for groups in sets])


def _shareable(group: Group) -> shared_ic50.Curve:
    made = group.pooled
    if made.fit is None:
        raise ValueError("a curve without a fit has no IC50 to share")
    return shared_ic50.Curve(group.log_dose, group.y, made.fit.values, made.fit.free, made.log_ic50, made.kind == ABSOLUTE)


# --- all curves of a table


def fit_rows(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], scale: str, fixed: Mapping[int, float], alpha: float
) -> list[tuple[Estimate, dict[str, Any]]]:
    """Estimate and row of dose_fits.tsv of each curve; one process's share of the work."""
    made = estimate(curves, scale, fixed)
    return [(one, describe(*curve, one, scale, alpha)) for curve, one in zip(curves, made, strict=True)]


def comparisons(curves: Sequence[tuple[str, str, str]], control: Sequence[str]) -> list[tuple[str, dict[str, str], list[str]]]:
    """What is compared with what: (comparison, what is common to the groups, groups in order).

    Treatments of one line and compound; lines of one treatment and compound. Groups named in `control` come first, so that they
    are the reference of every pair; the others follow by name.

    Parameters
    ----------
    curves
        (line, treatment, compound).
    """
    place = {name: at for at, name in enumerate(control)}
    made = []
    for kind, within, at in ((TREATMENTS, ("line", "compound"), 1), (LINES, ("treatment", "compound"), 0)):
        sets: dict[tuple[str, ...], set[str]] = {}
        for curve in curves:
            common = tuple(curve[CURVE.index(name)] for name in within)
            sets.setdefault(common, set()).add(curve[at])
        for common in sorted(sets, key=lambda c: c[::-1]):
            names = sorted(sets[common], key=lambda name: (place.get(name, len(place)), name))
            if len(names) > 1:
                made.append((kind, dict(zip(within, common, strict=True)), names))
    return made


def comparison_groups(
    found: Mapping[tuple[str, str, str], tuple[Estimate, np.ndarray, np.ndarray]],
    replicates: Mapping[tuple[str, str, str], Sequence[float]],
    control: Sequence[str],
) -> list[tuple[str, dict[str, str], dict[str, Group]]]:
    """All comparisons of `comparisons` with their groups.

    Parameters
    ----------
    found
        curve -> estimate over all wells, their log10 doses and responses.
    replicates
        curve -> log10 IC50 of its replicates, NaN where one has none.
    """
    made = []
    for kind, common, names in comparisons(list(found), control):
        own = "treatment" if kind == TREATMENTS else "line"
        groups = {}
        for name in names:
            where = {**common, own: name}
            key = (where["line"], where["treatment"], where["compound"])
            estimated, log_dose, y = found[key]
            groups[name] = Group(tuple(replicates[key]), log_dose, y, estimated)
        made.append((kind, common, groups))
    return made


def comparison_rows(part: Sequence[tuple[str, dict[str, str], dict[str, Group]]], alpha: float) -> list[dict[str, Any]]:
    """Rows of dose_tests.tsv before `adjusted_tests`; one process's share of the work."""
    rows = compare_all([(groups, kind) for kind, _, groups in part], alpha)
    return [
        {**row, "comparison": kind, **common} for (kind, common, _), own in zip(part, rows, strict=True) for row in own
    ]  # fmt: skip


def adjusted_tests(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """dose_tests.tsv: the rows of all comparisons, adjusted over them.

    The tests of comparisons as a whole are adjusted by Benjamini and Hochberg over the comparisons of a kind. Tukey's p guards
    the pairs of one comparison only: adjusted, it is never below that of the comparison as a whole.
    """
    frame = pd.DataFrame(rows, columns=list(TEST_COLUMNS))
    for column in ("p_value", "p_adjusted"):
        frame[column] = frame[column].astype(float)
    for kind in (TREATMENTS, LINES):
        for test in ("anova", "extra_sum_of_squares_f"):
            mine = frame.index[(frame["comparison"] == kind) & (frame["test"] == test) & (frame["contrast"] == kind)]
            frame.loc[mine, "p_adjusted"] = comparison.adjust(frame.loc[mine, "p_value"])
            frame.loc[mine, "adjust_method"] = f"BH:comparisons of {kind}"
    whole = frame[frame["test"] == "anova"].set_index(["comparison", *CURVE])["p_adjusted"]
    pairs = frame.index[(frame["test"] == "tukey_hsd") & frame["p_value"].notna()]
    if len(pairs):
        own = whole.reindex(pd.MultiIndex.from_frame(frame.loc[pairs, ["comparison", *CURVE]])).to_numpy()
        frame.loc[pairs, "p_adjusted"] = np.fmax(frame.loc[pairs, "p_adjusted"].to_numpy(), own)
        frame.loc[pairs, "adjust_method"] = "Tukey, BH:comparisons of " + frame.loc[pairs, "comparison"]
    return frame
