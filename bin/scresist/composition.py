"""Shares of cell types per sample and their comparison between patients: rank tests, propeller, centred log ratios."""

from __future__ import annotations

import contextlib
import io as text_io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from scresist import comparison, diversity, keys, panels

ALL, BY_LINEAGE, LABELLED = "all", "lineage", "labelled"
LEVELS = (keys.MAIN_TYPE, keys.SUBTYPE, keys.EPI_CLUSTER, keys.CLONE)
LOGIT, ARCSIN = "logit", "arcsin"
RANK, CLR, KRUSKAL, DIVERSITY = "rank", "clr", "kruskal", "diversity"
PROPELLER = "propeller_"  # propeller_logit, propeller_arcsin
CLR_PSEUDOCOUNT = 0.5  # half a cell, so that an absent type has a logarithm (methods.md, TEST_COMPOSITION)
TESTED_INDICES = ("hill_q0", "hill_q1", "hill_q2")  # Shannon and Simpson order samples as q1 and q2 do
TINY = 1e-24  # variance of rounding errors
MIN_ROBUST = 3  # types below which scanpro's robust variance prior is not used
PROPORTION_COLUMNS = (
    keys.SAMPLE, keys.PATIENT, keys.PHASE, "response", "level", "denominator", keys.LINEAGE, keys.MAIN_TYPE, "cell_type",
    "n_cells", "n_total", "share", "wilson_low", "wilson_high", "clr", "status",
)  # fmt: skip
TEST_HEAD = ("level", "denominator", "cell_type", "method")
TEST_COLUMNS = (
    *TEST_HEAD, *comparison.TEST_COLUMNS, "mean_a", "mean_b", "rank_biserial", "groups", "left_out", "reason",
)  # fmt: skip
DIVERSITY_COLUMNS = (
    keys.SAMPLE, keys.PATIENT, keys.PHASE, "level", "denominator", "index", "value", "ci_low", "ci_high", "n_cells",
    "n_cells_rarefied", "status", "reason",
)  # fmt: skip
BETA_COLUMNS = (
    "level", "denominator", "index", "sample_a", "sample_b", "patient_a", "patient_b", "phase_a", "phase_b", "relation", "value",
    "ci_low", "ci_high", "n_cells_rarefied",
)  # fmt: skip
MONOCLONAL = "monoclonal"
# Words of response, better first: side A of a comparison is the worse one, as the later phase is between phases.
RESPONSE_ORDER = (
    ("cr", "complete", "complete response"), ("r", "responder", "response", "yes"), ("pr", "partial", "partial response"),
    ("sd", "stable", "stable disease"), ("nr", "non-responder", "non_responder", "nonresponder", "no"),
    ("pd", "progression", "progressive disease"),
)  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """Cells per type in every sample, for one level of labels and one denominator."""

    level: str
    denominator: str
    counts: pd.DataFrame  # samples x types, int
    parents: Mapping[str, tuple[str, str]]  # type -> (lineage, main type) of most of its cells

    @property
    def total(self) -> pd.Series:
        """Cells of the denominator by sample."""
        return self.counts.sum(axis=1)

    @property
    def types(self) -> list[str]:
        """Types that are tested: all but `unresolved`, which counts in the denominator only."""
        return [name for name in self.counts.columns if name != keys.UNRESOLVED]


def count_table(sample: Iterable[str], label: Iterable[str], samples: Sequence[str]) -> pd.DataFrame:
    """Cells per sample (rows, in the order of `samples`) and label (columns, sorted), 0 where there are none."""
    made = pd.crosstab(pd.Series(list(sample), dtype=object), pd.Series(list(label), dtype=object))
    made = made.reindex(index=list(samples), columns=sorted(made.columns), fill_value=0)
    made.index.name, made.columns.name = keys.SAMPLE, "cell_type"
    return made.astype(np.int64)


def _parents(cells: pd.DataFrame, level: str) -> dict[str, tuple[str, str]]:
    """Type -> lineage and main type of most of its cells (the first by name among equals)."""
    most: dict[str, tuple[int, str, str]] = {}
    size = zip(cells[level], cells[keys.LINEAGE], cells[keys.MAIN_TYPE], strict=True)
    for (name, lineage, main_type), n in sorted(Counter(size).items()):
        if n > most.get(name, (0,))[0]:
            most[name] = n, lineage, main_type
    return {name: found[1:] for name, found in most.items()}


def parts_of(cells: pd.DataFrame, levels: Sequence[str], denominators: Sequence[str], samples: Sequence[str]) -> list[Parts]:
    """The compositions to look at, in the order of `levels`.

    Parameters
    ----------
    cells
        one row per cell: sample, patient, main_type, lineage and a column per further level; text, "" = none.
    denominators
        `all` (all cells of a sample) and `lineage` (the cells of each lineage by itself).
    samples
        samples of the cohort, in the order of the rows.

    A cell without a subtype counts as its main type. Levels that only some cells have (clusters of tumour cells, clones) have
    one denominator, `labelled`: the cells that carry a label. Clones belong to a patient, so that each patient is a composition
    of its own, over its own samples.
    """
    made = []
    for level in levels:
        if level not in cells:
            continue
        mine = cells
        if level == keys.SUBTYPE:
            mine = cells.assign(**{level: cells[level].where(cells[level] != "", cells[keys.MAIN_TYPE])})
        mine = mine[mine[level] != ""]
        if mine.empty:
            continue
        parents = _parents(mine, level)
        if level == keys.CLONE:
            for _, own in mine.groupby(keys.PATIENT, sort=True):
                here = set(cells.loc[cells[keys.PATIENT] == own[keys.PATIENT].iloc[0], keys.SAMPLE])
                table = count_table(own[keys.SAMPLE], own[level], [s for s in samples if s in here])
                made.append(Parts(level, LABELLED, table, parents))
        elif level in (keys.MAIN_TYPE, keys.SUBTYPE):
            if ALL in denominators:
                made.append(Parts(level, ALL, count_table(mine[keys.SAMPLE], mine[level], samples), parents))
            if BY_LINEAGE in denominators:
                for lineage, own in mine[mine[keys.LINEAGE] != ""].groupby(keys.LINEAGE, sort=True):
                    made.append(Parts(level, str(lineage), count_table(own[keys.SAMPLE], own[level], samples), parents))
        else:
            made.append(Parts(level, LABELLED, count_table(mine[keys.SAMPLE], mine[level], samples), parents))
    return made


# --- quantities per sample


def centred_log_ratio(counts: pd.DataFrame, pseudocount: float = CLR_PSEUDOCOUNT) -> pd.DataFrame:
    """ln(x + pseudocount) minus its mean over the types of a sample (Aitchison 1982, J R Stat Soc B 44:139)."""
    log = np.log(counts + pseudocount)
    return log.sub(log.mean(axis=1), axis=0)


def transformed(counts: pd.DataFrame, transform: str, pseudocount: float) -> pd.DataFrame:
    """Shares p = (x + pseudocount) / sum(x + pseudocount) as ln(p / (1 - p)) or asin(sqrt(p)), samples x types.

    scanpro adds 0.01 for both; R's speckle adds 0.5 for the logit and nothing for the arcsine (Phipson 2022, Bioinformatics
    38:4720). A share of 1 with pseudocount 0 has no logit: inf.
    """
    x = counts + pseudocount
    p = x.div(x.sum(axis=1), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(p / (1 - p)) if transform == LOGIT else np.arcsin(np.sqrt(p))


def proportions(parts: Parts, samples: pd.DataFrame, min_cells: int) -> pd.DataFrame:
    """PROPORTION_COLUMNS: one row per sample and type; intervals count cells (Wilson), not patients."""
    facts = samples.set_index(keys.SAMPLE)
    ratio = centred_log_ratio(parts.counts)
    rows = []
    for sample, counts in parts.counts.iterrows():
        total = int(counts.sum())
        word = keys.OK if total >= min_cells else keys.SKIPPED_TOO_FEW_CELLS if total else keys.NOT_ESTIMABLE
        fact = facts.loc[sample]
        for name, n in counts.items():
            low, high = comparison.wilson(int(n), total)
            lineage, main_type = parts.parents.get(name, ("", ""))
            rows.append(
                (
                    sample, fact[keys.PATIENT], fact[keys.PHASE], fact.get("response", ""), parts.level, parts.denominator,
                    lineage, main_type, name, int(n), total, n / total if total else np.nan, low, high,
                    ratio.loc[sample, name] if total and parts.counts.shape[1] > 1 else np.nan, word,
                )
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(PROPORTION_COLUMNS))


# --- contrasts


def response_contrasts(samples: pd.DataFrame, phases: pd.DataFrame) -> list[comparison.Contrast]:
    """Every two levels of the samplesheet's response among the samples of the baseline phase: `response:<A>_vs_<B>`.

    Parameters
    ----------
    samples
        sample, phase and, where given, response (text, "" = none).
    phases
        phase and role; the baseline is where the role says so.

    Side A is the worse response where all words are known (RESPONSE_ORDER), else the later one by name.
    """
    if "response" not in samples or "role" not in phases:
        return []
    baseline = set(phases.loc[phases["role"] == keys.ROLE_BASELINE, "phase"])
    mine = samples[samples[keys.PHASE].isin(baseline) & (samples["response"] != "")]
    place = {word: at for at, words in enumerate(RESPONSE_ORDER) for word in words}
    found = sorted(set(mine["response"]))
    if all(word.lower() in place for word in found):
        found.sort(key=lambda word: (place[word.lower()], word))
    made = []
    for better, worse in combinations(found, 2):
        sides = [tuple(sorted(mine.loc[mine["response"] == word, keys.SAMPLE])) for word in (worse, better)]
        made.append(
            comparison.Contrast(f"response:{worse}_vs_{better}", *sides, False, keys.OK, "", "response", worse, better)
        )
    return made


@dataclass(frozen=True)
class Sides:
    """Who stands on the sides of a contrast: patients (pairs where paired) and the samples that each is the mean of."""

    contrast: comparison.Contrast  # with the samples that could be measured
    left_out: tuple[str, ...]
    patient_of: Mapping[str, str]
    weight_a: np.ndarray  # patients x samples, rows summing to 1
    weight_b: np.ndarray
    n_cells: tuple[int, int]

    @property
    def used(self) -> list[str]:
        """Samples of both sides."""
        return [*self.contrast.samples_a, *self.contrast.samples_b]

    @property
    def several(self) -> bool:
        """Whether a patient has several samples on one side."""
        return any(
            len({self.patient_of[s] for s in side}) < len(side) for side in (self.contrast.samples_a, self.contrast.samples_b)
        )

    def values(self, quantity: pd.Series | pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """The quantity (samples, or samples x types) per patient: the mean of the patient's samples, each weighing the same."""
        known = quantity.to_numpy(dtype=float)
        known = np.where(np.isfinite(known), known, 0.0)  # only samples with weight 0
        return self.weight_a @ known, self.weight_b @ known


def sides_of(
    contrast: comparison.Contrast, measured: pd.Series, cells: pd.Series, patient_of: Mapping[str, str]
) -> Sides:  # fmt: skip
    """The sides of a contrast.

    Parameters
    ----------
    measured
        by sample: whether its quantity could be measured. Samples that are not in the index have no part in it at all.
    cells
        by sample: cells of the denominator.
    """
    samples = list(measured.index)
    given = [[s for s in side if s in measured.index] for side in (contrast.samples_a, contrast.samples_b)]
    left_out = tuple(s for side in given for s in side if not measured[s])
    known = [[s for s in side if measured[s]] for side in given]
    names = [sorted({patient_of[s] for s in side}) for side in known]
    if contrast.paired:  # a patient whose other side could not be measured is no pair
        names = [[p for p in names[0] if p in names[1]]] * 2
        known = [[s for s in side if patient_of[s] in names[0]] for side in known]
    weights = []
    for people, side in zip(names, known, strict=True):
        weight = np.zeros((len(people), len(samples)))
        for s in side:
            weight[people.index(patient_of[s]), samples.index(s)] = 1
        weights.append(weight / np.maximum(weight.sum(axis=1, keepdims=True), 1))
    n_cells = tuple(int(cells.loc[side].sum()) for side in known)
    mine = replace(contrast, samples_a=tuple(known[0]), samples_b=tuple(known[1]))
    return Sides(mine, left_out, patient_of, weights[0], weights[1], (n_cells[0], n_cells[1]))


def base_row(values: pd.Series, sides: Sides) -> dict[str, Any]:
    """`comparison.compare` with samples of a patient weighing the same, the means of both sides, and reasons.

    Parameters
    ----------
    values
        by sample.
    """
    row = comparison.compare(values, pd.Series(1.0, index=values.index), sides.contrast, sides.patient_of)
    row["n_cells_a"], row["n_cells_b"] = sides.n_cells
    for side, known in zip("ab", sides.values(values), strict=True):
        row[f"mean_{side}"] = float(known.mean()) if len(known) else np.nan
    row["groups"] = row["reason"] = ""
    row["left_out"] = ",".join(sides.left_out)
    n_a, n_b = row["n_patients_a"], row["n_patients_b"]
    if row["status"] == keys.NO_REPLICATES:
        told = not sides.contrast.testable and sides.contrast.reason
        row["reason"] = told or f"{n_a} against {n_b} patients, 2 a side needed"
    elif row["status"] == keys.NOT_ESTIMABLE:
        row["reason"] = "the same in all samples" if min(n_a, n_b) else f"{n_a} against {n_b} patients, 1 a side needed"
        row["effect"] = row["ci_low"] = row["ci_high"] = np.nan
    return row


def _limits(values: np.ndarray, n_cells: float) -> tuple[float, float]:
    """95 % limits of the mean of shares: by t over patients, for one patient Wilson's over its cells."""
    mean = float(values.mean())
    if len(values) == 1:
        return comparison.wilson(mean * n_cells, n_cells)
    half = float(stats.t.ppf(0.5 + comparison.LEVEL / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return max(0.0, mean - half), min(1.0, mean + half)


def square_and_add(a: np.ndarray, cells_a: float, b: np.ndarray, cells_b: float) -> tuple[float, float]:
    """95 % limits of mean(a) - mean(b) for shares, where a side may be one patient.

    The limits of the sides are joined by squaring and adding (Newcombe 1998, Stat Med 17:873, method 10; Zou and Donner 2008,
    Stat Med 27:1693): with one patient a side, Newcombe's interval.
    """
    p, q = float(a.mean()), float(b.mean())
    (low_a, high_a), (low_b, high_b) = _limits(a, cells_a), _limits(b, cells_b)
    return (
        p - q - float(np.sqrt((p - low_a) ** 2 + (high_b - q) ** 2)),
        p - q + float(np.sqrt((high_a - p) ** 2 + (q - low_b) ** 2)),
    )


def rank_row(base: Mapping[str, Any], a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """`base_row` of shares; where a side is one patient with an interval that takes its cells as independent."""
    row = dict(base)
    if row["status"] == keys.NO_REPLICATES and min(len(a), len(b)) == 1:
        row["ci_low"], row["ci_high"] = square_and_add(a, row["n_cells_a"], b, row["n_cells_b"])
        row["reason"] += "; the interval takes the cells of a single patient as independent"
    return row


def welch_row(base: Mapping[str, Any], a: np.ndarray, b: np.ndarray, paired: bool) -> dict[str, Any]:
    """Difference of centred log ratios of patients: Welch's t, or the paired t; counts and status from the row of the shares."""
    row = {**base, "test": "t_paired" if paired else "t_welch", "effect_name": "clr_difference"}
    row.update(dict.fromkeys(("statistic", "p_value", "p_min_attainable", "rank_biserial"), np.nan))
    row["effect"], row["ci_low"], row["ci_high"] = comparison.mean_difference(a, b, paired)
    if row["status"] == keys.OK:
        spread = np.std(a - b) if paired else max(np.std(a), np.std(b))
        if spread > 1e-12:  # without spread t is a division of rounding errors
            found = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=False)
            row["statistic"], row["p_value"] = float(found.statistic), float(found.pvalue)
        else:
            row["status"], row["reason"] = keys.NOT_ESTIMABLE, "no spread between patients"
    if row["status"] == keys.NOT_ESTIMABLE:
        row["effect"] = row["ci_low"] = row["ci_high"] = np.nan
    return row


def moderated(y: np.ndarray, x: np.ndarray, contrast: np.ndarray, robust: bool = True) -> pd.DataFrame | None:
    """Moderated t of one contrast of the coefficients of y = x b, types sharing a variance prior (Smyth 2004).

    Parameters
    ----------
    y
        observations x types.
    x
        observations x coefficients, of full rank.
    contrast
        one weight per coefficient.
    robust
        the prior is estimated without outlying variances (Phipson 2016); only from MIN_ROBUST types on.

    Returns
    -------
    One row per type: effect, se, t, df, p_value. None where there are no residual degrees of freedom, no type varies, or the
    prior cannot be estimated. The prior is estimated by scanpro; the variances are joined with it here, because scanpro's own
    `squeeze_var` does so for the first type only unless robust.
    """
    from scanpro.fitFDist import fit_f_dist, fit_f_dist_robust  # imported late: its package takes seconds

    n, k = y.shape
    df = float(n - np.linalg.matrix_rank(x))
    if df < 1 or not k:
        return None
    beta, *_ = np.linalg.lstsq(x, y, rcond=None)
    variance = ((y - x @ beta) ** 2).sum(axis=0) / df
    unscaled = float(np.sqrt(contrast @ np.linalg.inv(x.T @ x) @ contrast))
    if not (variance > TINY).any():
        return None
    found: Mapping[str, Any] | None = None
    with contextlib.redirect_stdout(text_io.StringIO()), np.errstate(all="ignore"):  # scanpro prints its doubts
        if robust and k >= MIN_ROBUST:
            # ValueError: the root that the robust estimate looks for does not exist; take the plain one
            with contextlib.suppress(ValueError):
                found = fit_f_dist_robust(variance.copy(), np.full(k, df))
        if found is None:
            found = fit_f_dist(variance.copy(), np.full(k, df))
    scale = np.broadcast_to(np.asarray(found["scale"], dtype=float), k)
    prior_df = np.broadcast_to(np.asarray(found.get("df2_shrunk", found["df2"]), dtype=float), k)
    known = np.where(np.isfinite(prior_df), prior_df, 0.0)
    posterior = np.where(np.isinf(prior_df), scale, (df * variance + known * scale) / (df + known))
    total = np.minimum(df + prior_df, df * k)
    se = unscaled * np.sqrt(posterior)
    effect = contrast @ beta
    with np.errstate(divide="ignore", invalid="ignore"):
        t = effect / se
    return pd.DataFrame({"effect": effect, "se": se, "t": t, "df": total, "p_value": 2 * stats.t.sf(np.abs(t), total)})


def propeller_rows(
    parts: Parts, bases: Mapping[str, Mapping[str, Any]], sides: Sides, transform: str, pseudocount: float
) -> dict[str, dict[str, Any]]:
    """Propeller (Phipson 2022): a linear model of the transformed shares with a variance prior over types; type -> row.

    Parameters
    ----------
    bases
        type -> `base_row` of its shares.

    Unpaired: a mean per side over patients; paired: the sides beside an effect of each patient. Types without a cell on either
    side leave the fit, as in scanpro. Effects are on the transformed scale.
    """
    values = transformed(parts.counts, transform, pseudocount)
    present = [t for t in parts.counts.columns if parts.counts.loc[sides.used, t].any()]
    a, b = sides.values(values[present])
    fitted = None
    if len(present) > 1 and any(row["status"] == keys.OK for row in bases.values()):
        is_a = np.repeat([1.0, 0.0], [len(a), len(b)])
        x = np.column_stack([is_a, 1 - is_a])
        if sides.contrast.paired:
            x = np.column_stack([x, np.tile(np.eye(len(a)), (2, 1))[:, 1:]])
        weight = np.zeros(x.shape[1])
        weight[:2] = 1, -1
        found = moderated(np.vstack([a, b]), x, weight)
        fitted = found.set_axis(present) if found is not None else None
    rows = {}
    for name, base in bases.items():
        row = {**base, "test": "moderated_t", "effect_name": f"{transform}_difference"}
        empty = ("effect", "ci_low", "ci_high", "statistic", "p_value", "p_min_attainable", "rank_biserial")
        row.update(dict.fromkeys(empty, np.nan))
        if row["status"] == keys.OK:
            if fitted is None or name not in fitted.index or not np.isfinite(fitted.loc[name, "p_value"]):
                row.update(status=keys.NOT_ESTIMABLE, reason="the variance between patients could not be estimated")
            else:
                one = fitted.loc[name]
                half = float(stats.t.ppf(0.5 + comparison.LEVEL / 2, one["df"]) * one["se"])
                row.update(
                    effect=float(one["effect"]), ci_low=float(one["effect"] - half), ci_high=float(one["effect"] + half),
                    statistic=float(one["t"]), p_value=float(one["p_value"]),
                )  # fmt: skip
        elif row["status"] == keys.NO_REPLICATES and name in present and len(a) and len(b):
            at = present.index(name)
            row["effect"] = float(a[:, at].mean() - b[:, at].mean())
        rows[name] = row
    return rows


def kruskal_rows(
    values: pd.Series, cells: pd.Series, samples: pd.DataFrame, phases: Sequence[str]
) -> list[dict[str, Any]]:
    """Kruskal-Wallis over all phases with two patients or more and Dunn's pairs after it (panels.patient_kruskal).

    Samples of a patient in a phase weigh the same. Effects of Dunn's pairs are differences of means with Welch's interval.
    """
    by_phase = panels.patient_phase_values(values, pd.Series(1.0, index=values.index), samples, phases)
    phase_of = dict(zip(samples[keys.SAMPLE], samples[keys.PHASE], strict=True))
    size = cells[values.notna()].groupby(phase_of).sum().astype(int)
    rows = panels.patient_kruskal(by_phase)
    pairs = {f"{later}_vs_{earlier}": (later, earlier) for earlier, later in combinations(by_phase, 2)}
    for row in rows:
        row.update(mean_a=np.nan, mean_b=np.nan, left_out="", rank_biserial=np.nan)
        if row["test"] == "dunn":
            later, earlier = pairs[row["contrast"]]
            a, b = (by_phase[phase]["value"].to_numpy(dtype=float) for phase in (later, earlier))
            _, row["ci_low"], row["ci_high"] = comparison.mean_difference(a, b, False)
            row.update(mean_a=float(a.mean()), mean_b=float(b.mean()), n_cells_a=size[later], n_cells_b=size[earlier])
    return rows


def as_samples(row: dict[str, Any], sides: Sides | None, patient_of: Mapping[str, str]) -> dict[str, Any]:
    """A row in which samples stood for patients, labelled so: unit sample, exploratory, a warning."""
    row["unit"], row["evidence"] = comparison.UNIT_SAMPLE, keys.EXPLORATORY
    if sides is not None:
        row["n_patients_a"] = len({patient_of[s] for s in sides.contrast.samples_a})
        row["n_patients_b"] = len({patient_of[s] for s in sides.contrast.samples_b})
    if row["status"] == keys.OK:
        row["status"], row["reason"] = keys.WARNING, "samples of one patient are taken as independent"
    return row


def test_parts(
    parts: Parts,
    contrasts: Sequence[comparison.Contrast],
    samples: pd.DataFrame,
    phases: Sequence[str],
    min_cells: int,
    transforms: Sequence[str],
    pseudocount: float,
) -> list[dict[str, Any]]:
    """Every type of one composition in every contrast by every method, then over all phases: rows of TEST_COLUMNS.

    Samples with fewer than `min_cells` cells in the denominator are left out and named. Where a patient has several samples on a
    side, the tests are repeated with samples in the place of patients (`as_samples`). A composition of one type has no rows. Of
    a patient's clones only contrasts with samples on both sides have rows, and there is no test over phases.
    """
    if parts.counts.shape[1] < 2:
        return []
    total = parts.total
    enough = total >= min_cells
    shares = parts.counts.div(total.where(enough), axis=0)
    ratios = centred_log_ratio(parts.counts)
    patient_of = dict(zip(samples[keys.SAMPLE], samples[keys.PATIENT], strict=True))
    itself = {sample: sample for sample in patient_of}
    rows: list[dict[str, Any]] = []

    def add(name: str, method: str, row: Mapping[str, Any]) -> None:
        rows.append({"level": parts.level, "denominator": parts.denominator, "cell_type": name, "method": method, **row})

    for contrast in contrasts:
        people = sides_of(contrast, enough, total, patient_of)
        if parts.level == keys.CLONE and not (people.contrast.samples_a and people.contrast.samples_b):
            continue
        units = [people]
        if people.several:
            units.append(sides_of(replace(contrast, paired=False), enough, total, itself))
        for sides in units:
            bases = {name: base_row(shares[name], sides) for name in parts.types}
            for name, base in bases.items():
                if not parts.counts.loc[sides.used, name].any() and min(base["n_patients_a"], base["n_patients_b"]):
                    empty = ("effect", "ci_low", "ci_high", "statistic", "p_value", "rank_biserial")
                    base.update(dict.fromkeys(empty, np.nan))
                    base.update(status=keys.NOT_ESTIMABLE, reason="no cell of the type on either side")
            fits = {t: propeller_rows(parts, bases, sides, t, pseudocount) for t in transforms}
            for name, base in bases.items():
                made = {RANK: rank_row(base, *sides.values(shares[name]))}
                made |= {PROPELLER + t: fits[t][name] for t in transforms}
                made[CLR] = welch_row(base, *sides.values(ratios[name]), sides.contrast.paired)
                for method, row in made.items():
                    add(name, method, row if sides is people else as_samples(row, sides, patient_of))
    if parts.level != keys.CLONE:
        here = samples[samples[keys.SAMPLE].isin(parts.counts.index)]
        many = here[here[keys.SAMPLE].map(enough)].duplicated([keys.PATIENT, keys.PHASE]).any()
        for name in parts.types:
            for row in kruskal_rows(shares[name], total, here, phases):
                add(name, KRUSKAL, row)
            if many:
                for row in kruskal_rows(shares[name], total, here.assign(**{keys.PATIENT: here[keys.SAMPLE]}), phases):
                    add(name, KRUSKAL, as_samples(row, None, patient_of))
    return rows


def test_diversity(
    found: pd.DataFrame, contrasts: Sequence[comparison.Contrast], samples: pd.DataFrame, phases: Sequence[str]
) -> list[dict[str, Any]]:
    """Rank tests of rarefied diversity (TESTED_INDICES) per contrast and over phases: rows of TEST_COLUMNS, cell_type = index.

    Parameters
    ----------
    found
        DIVERSITY_COLUMNS. Clones are left out: their number is a matter of one patient.
    """
    patient_of = dict(zip(samples[keys.SAMPLE], samples[keys.PATIENT], strict=True))
    rows = []
    mine = found[found["index"].isin(TESTED_INDICES) & (found["level"] != keys.CLONE)]
    for (level, denominator, index), part in mine.groupby(["level", "denominator", "index"], sort=False):
        values = part.set_index(keys.SAMPLE)["value"].astype(float)
        if not values.notna().any():
            continue
        cells = part.set_index(keys.SAMPLE)["n_cells_rarefied"].astype(float).fillna(0)
        here = samples[samples[keys.SAMPLE].isin(values.index)]
        made = [base_row(values, sides_of(c, values.notna(), cells, patient_of)) for c in contrasts]
        made += kruskal_rows(values, cells, here, phases)
        rows += [{"level": level, "denominator": denominator, "cell_type": index, "method": DIVERSITY, **row} for row in made]
    return rows


def adjusted(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as TEST_COLUMNS; BH over the types (indices) of a contrast, denominator, level, method and unit.

    Dunn's rows come adjusted over their pairs and stay as they are.
    """
    frame = pd.DataFrame(list(rows), columns=list(TEST_COLUMNS))
    whole = ("n_a", "n_b", "n_patients_a", "n_patients_b", "n_cells_a", "n_cells_b")
    real = (
        "effect", "ci_low", "ci_high", "statistic", "p_value", "p_adjusted", "p_min_attainable", "rank_biserial", "mean_a",
        "mean_b",
    )  # fmt: skip
    frame = frame.astype({**dict.fromkeys(whole, "Int64"), **dict.fromkeys(real, float)})
    mine = frame["test"] != "dunn"
    frame.loc[mine, "adjust_method"] = np.where(frame.loc[mine, "method"] == DIVERSITY, "BH:indices", "BH:types")
    for _, part in frame[mine].groupby(["level", "denominator", "method", "unit", "contrast"], sort=False):
        frame.loc[part.index, "p_adjusted"] = comparison.adjust(part["p_value"])
    return frame


# --- diversity


def diversity_rows(
    parts: Parts, samples: pd.DataFrame, rarefy_min: int, seed_of: Callable[[str], int], n_draws: int = diversity.DRAWS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """DIVERSITY_COLUMNS and BETA_COLUMNS of one composition, all samples at the cells of the smallest that has enough.

    Parameters
    ----------
    rarefy_min
        cells a sample needs; smaller ones have no value.
    seed_of
        seed of a sample by its name.

    `unresolved` cells are no type and are left out.
    """
    counts = parts.counts[parts.types]
    size = counts.sum(axis=1)
    large = size[size >= rarefy_min]
    depth = int(large.min()) if len(large) else 0
    facts = samples.set_index(keys.SAMPLE)
    rows, drawn = [], {}
    for sample, n in counts.iterrows():
        fact, total = facts.loc[sample], int(size[sample])
        enough = total >= rarefy_min
        seed = seed_of(str(sample))
        found = diversity.rarefied(n.to_numpy(), depth if enough else 0, np.random.default_rng(seed), n_draws)
        if enough:
            drawn[sample] = diversity.draw(n.to_numpy(), depth, n_draws, np.random.default_rng(seed))
        for index, (value, low, high) in found.items():
            word, reason = keys.OK, ""
            if not enough:
                word, reason = keys.SKIPPED_TOO_FEW_CELLS, f"{total} cells, {rarefy_min} needed"
            elif not np.isfinite(value):
                word, reason = keys.NOT_ESTIMABLE, MONOCLONAL
            rows.append(
                (sample, fact[keys.PATIENT], fact[keys.PHASE], parts.level, parts.denominator, index, value, low, high, total,
                 depth if enough else pd.NA, word, reason)
            )  # fmt: skip
    made = pd.DataFrame(rows, columns=list(DIVERSITY_COLUMNS)).astype({"n_cells": "Int64", "n_cells_rarefied": "Int64"})
    pairs = []
    for a, b in combinations(drawn, 2):
        one, other = facts.loc[a], facts.loc[b]
        relation = (
            "same_patient" if one[keys.PATIENT] == other[keys.PATIENT]
            else "same_phase" if one[keys.PHASE] == other[keys.PHASE] else "other"
        )  # fmt: skip
        for index, limits in diversity.between(drawn[a], drawn[b], depth).items():
            pairs.append(
                (parts.level, parts.denominator, index, a, b, one[keys.PATIENT], other[keys.PATIENT], one[keys.PHASE],
                 other[keys.PHASE], relation, *limits, depth)
            )  # fmt: skip
    return made, pd.DataFrame(pairs, columns=list(BETA_COLUMNS))
