"""Does a marker separate outcomes: Kaplan-Meier curves, log-rank tests, Cox models, cuts, a scanned cut with its honest p.

Times are in the user's unit, events are 1 (happened) or 0 (censored); patients stand in rows, one observation each. lifelines
computes the curves, the log-rank and the Cox models (Efron ties), statsmodels the stratified log-rank; both are imported where
they are used, because they take seconds.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from scresist import comparison, keys
from scresist.design import Problem, nearest

GENE, SCORE, GROUP, MODULE, SIGNATURE = "gene", "score", "group", "module", "signature"
MEDIAN, TERTILES, SCAN, LEVELS = "median", "tertiles", "scan", "levels"
ABOVE, AT_LEAST = ">", ">="
OPERATORS = (ABOVE, AT_LEAST)
LOW, MIDDLE, HIGH = "low", "middle", "high"
PER_SD = "sd"
UNIVARIATE, ADJUSTED = "univariate", "adjusted"
DECLARED = "declared"
CONTRAST = "early_vs_late"

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "."})  # words for "not known" in users' tables, in lower case
MIN_SHARE = 0.5  # of a signature's genes that must be measured
MIN_EVENTS = 10  # below: Cox with a warning; also per term of an adjusted model (Peduzzi et al. 1995, J Clin Epidemiol 48:1503)
LEAST_EVENTS = 2  # below: no Cox at all
# lifelines' own stopping rule leaves errors of 5e-4 in small cohorts
FIT = {"precision": 1e-12, "r_precision": 1e-14, "max_steps": 200}
PH_ALPHA = 0.05  # of the proportional-hazards check, below which the ratio carries a warning
MIN_GROUP = 5  # patients of a group below which no log-rank is made
SCAN_QUANTILES = (0.2, 0.8)
SCAN_PERMUTATIONS = 1000
NO_MAXIMUM_SE = 50.0  # standard error of a coefficient per SD or level: the likelihood rises without end
FOLLOWS = 1e-7  # share of a column's spread that others leave unexplained, below which it follows from them
NEARLY = 0.01  # the same where a standard error is out of bounds: a copy that was rounded, for example
MAX_LEVELS = 12  # a word column with more levels is no group: it is an id or free text
NUMBERS_SHARE = 0.8  # a column with so many numbers is meant as numbers
MONTHS = {"days": 12 / 365.25, "weeks": 12 * 7 / 365.25, "months": 1.0, "years": 12.0}  # one unit in months
WHOLE_UNITS = ("days", "weeks")  # times that are counted: 12 months end on day 365, in week 52
ROWS_NAMED = 10  # rows of one kind of fault that are written out
ROW = "row"  # name of an index that holds the lines of the file, the header being 1


# --- the clinical table ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clinical:
    """Patients sorted by id with their outcome; numbers: score and number covariates; words: groups, strata, word covariates."""

    patients: np.ndarray
    time: np.ndarray
    event: np.ndarray
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    words: dict[str, np.ndarray] = field(default_factory=dict)

    def take(self, keep: np.ndarray) -> Clinical:
        """The patients of a mask or of places."""
        return Clinical(
            self.patients[keep],
            self.time[keep],
            self.event[keep],
            {name: values[keep] for name, values in self.numbers.items()},
            {name: values[keep] for name, values in self.words.items()},
        )


def is_missing(text: str) -> bool:
    """Whether a cell of a user's table says that nothing is known."""
    return text.strip().lower() in MISSING


def as_numbers(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (NaN where missing) and the places of cells that are neither a finite number nor missing."""
    values, odd = [], []
    for place, text in enumerate(texts):
        if is_missing(text):
            values.append(np.nan)
            continue
        try:
            value = float(text)
        except ValueError:
            value = np.inf
        if not np.isfinite(value):
            odd.append(place)
            value = np.nan
        values.append(value)
    return np.array(values, dtype=float), np.array(odd, dtype=int)


def clean_word(text: str) -> str:
    """A level's name: blanks trimmed, `1.0` and `1` are one level, missing words are the empty text."""
    text = " ".join(text.split())
    if is_missing(text):
        return ""
    try:
        value = float(text)
    except ValueError:
        return text
    return f"{value:.12g}" if np.isfinite(value) else text


def row_numbers(table: pd.DataFrame) -> list[int]:
    """The line of the file in which each row stands: the index where it is named ROW, else counted below a header in line 1."""
    return [int(row) for row in table.index] if table.index.name == ROW else list(range(2, len(table) + 2))


def _limited(found: list[Problem]) -> list[Problem]:
    """The first problems of one kind and a last line that counts the others."""
    more = len(found) - ROWS_NAMED
    if more <= 0:
        return found
    last = found[ROWS_NAMED - 1]
    rest = Problem(last.column, f"the same in {more} more rows", last.expected, last.mend)
    return [*found[:ROWS_NAMED], rest]


def read_clinical(
    table: pd.DataFrame,
    patient: str,
    time: str,
    event: str,
    scores: Sequence[str] = (),
    groups: Sequence[str] = (),
    covariates: Sequence[str] = (),
    strata: str = "",
) -> tuple[Clinical, list[Problem]]:
    """Outcomes and named columns of a clinical table given as text, with everything that is wrong with it.

    Parameters
    ----------
    table
        text cells, one row per patient; rows in messages are those of `row_numbers`.
    scores, groups, covariates, strata
        names of columns: numbers, words, either (told by their content), words.

    Returns
    -------
    clinical
        sorted by patient; of use only when there is no problem.
    problems
        each with row, column, value and mend.
    """
    columns = [str(name) for name in table.columns]
    problems = []
    roles = [("patient_column", patient), ("time_column", time), ("event_column", event)]
    roles += [("scores", name) for name in scores] + [("groups", name) for name in groups]
    roles += [("covariates", name) for name in covariates] + ([("strata", strata)] if strata else [])
    for role, name in roles:
        if name not in columns:
            near = nearest(name, columns)
            mend = f"Write {near}" if near else f"Rename a column, or name yours with --{role}"
            problems.append(Problem(name, "no such column", f"one of {', '.join(columns[:20]) or 'none'}", f"{mend} (--{role})"))
        elif columns.count(name) > 1:
            found = f"named {columns.count(name)} times"
            problems.append(Problem(name, found, "each column once", "Rename or remove one of them"))
    usable = {name for _, name in roles if columns.count(name) == 1}
    if not {patient, time, event} <= usable:
        return Clinical(np.array([]), np.array([]), np.array([])), problems
    scores, groups = [n for n in scores if n in usable], [n for n in groups if n in usable]
    covariates, strata = [n for n in covariates if n in usable], strata if strata in usable else ""
    if table.empty:
        problems.append(Problem("", "no row below the header", "one row per patient", "Give a table with patients"))
        return Clinical(np.array([]), np.array([]), np.array([])), problems

    text = {name: [str(v).strip() for v in table[name]] for name in sorted(usable)}
    ids, lines = text[patient], row_numbers(table)

    def fault(column: str, place: int, expected: str, mend: str) -> Problem:
        value = text[column][place]
        who = ids[place] if column != patient else ""
        found = f"{value!r}" if value else "empty"
        return Problem(column, f"{found} (patient {who})" if who else found, expected, mend, lines[place])

    problems += _limited([fault(patient, i, "an id", "Name the patient or remove the row") for i, v in enumerate(ids) if not v])
    first: dict[str, int] = {}
    twice = []
    for i, name in enumerate(ids):
        if name and name in first:
            mend = "Keep one row per patient: the analysis takes one observation of each"
            twice.append(Problem(patient, f"{name!r} stands in row {first[name]} too", "each patient once", mend, lines[i]))
        first.setdefault(name, lines[i])
    problems += _limited(twice)

    times, odd = as_numbers(text[time])
    by_kind: dict[str, list[Problem]] = {}
    expected = "a time above 0"
    unreadable = set(odd.tolist())
    for i in range(len(times)):
        if i in unreadable:
            kind, mend = "odd", "Write the time as a number, without its unit"
        elif np.isnan(times[i]):
            kind, mend = "missing", "Give the time of the event or of the last follow-up, or remove the row"
        elif times[i] < 0:
            kind, mend = "negative", "A time cannot be negative: check which date was subtracted, or remove the row"
        elif times[i] == 0:
            kind, mend = "zero", "Nobody is observed for no time: give the true time (half a day, say), or remove the row"
        else:
            continue
        by_kind.setdefault(kind, []).append(fault(time, i, expected, mend))
    problems += [problem for found in by_kind.values() for problem in _limited(found)]

    codes, _ = as_numbers(text[event])
    wrong = [i for i, code in enumerate(codes) if code not in (0.0, 1.0)]
    seen = sorted({clean_word(value) for value in text[event]} - {""})
    if wrong:
        if set(seen) <= {"1", "2"} and "2" in seen:
            mend = "Recode: 1 (censored) becomes 0, 2 (event) becomes 1"
        elif len(seen) == 2 and not set(seen) & {"0", "1"}:
            mend = f"Recode: write 1 for the one of {seen[0]} and {seen[1]} that is the event, 0 for the other"
        else:
            mend = "Write 1 where the event happened and 0 where the patient was last seen without it, or remove the row"
        problems += _limited([fault(event, i, "0 or 1", mend) for i in wrong])

    numbers: dict[str, np.ndarray] = {}
    words: dict[str, np.ndarray] = {}
    for name in dict.fromkeys([*scores, *covariates]):
        values, odd = as_numbers(text[name])
        known = sum(not is_missing(v) for v in text[name])
        if name in scores or (known and (known - len(odd)) >= NUMBERS_SHARE * known):
            mend = "Write a number, or leave the cell empty"
            problems += _limited([fault(name, int(i), "a number", mend) for i in odd])
            numbers[name] = values
        else:
            words[name] = np.array([clean_word(v) for v in text[name]], dtype=object)
    for name in dict.fromkeys([*groups, *([strata] if strata else [])]):
        words[name] = np.array([clean_word(v) for v in text[name]], dtype=object)
    for name, values in words.items():
        levels = sorted(set(values.tolist()) - {""})
        if len(levels) > MAX_LEVELS and (name in groups or name in covariates):  # strata may be many: centres, for example
            shown = ", ".join(levels[:4])
            mend = "Name a column with few levels, or join levels; numbers belong to --scores or --covariates"
            problems.append(Problem(name, f"{len(levels)} levels ({shown}, ...)", f"at most {MAX_LEVELS} levels", mend))

    order = np.argsort(np.array(ids, dtype=object), kind="stable")
    made = Clinical(np.array(ids, dtype=object), times, codes, numbers, words)
    return made.take(order), problems


# --- markers and cuts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Marker:
    """One marker over the patients. values: numbers (NaN = missing) or, for a group, words; None where it cannot be measured.

    source: file that a signature or module came from. genes: (asked, measured) of a signature or module.
    """

    name: str
    kind: str
    values: np.ndarray | None
    source: str = ""
    genes: tuple[int, int] | None = None
    reason: str = ""


def signature(values: np.ndarray, measured: Sequence[str], genes: Sequence[str]) -> tuple[np.ndarray | None, int, str]:
    """Mean z over the genes that were measured.

    Parameters
    ----------
    values
        genes x patients, NaN = missing.
    measured
        names of the rows.
    genes
        of the signature, each once.

    Returns
    -------
    One score per patient (None when fewer than half of the genes vary), the number of genes used, and why it is None. A
    patient without any of the genes has NaN; constant genes carry nothing and count as not measured.
    """
    place = {name: i for i, name in enumerate(measured)}
    rows = [place[g] for g in sorted(set(genes)) if g in place]
    mine = values[rows] if rows else np.empty((0, values.shape[1]))
    z = np.array([standard(row) for row in mine if sd_of(row) > 0]).reshape(-1, values.shape[1])
    n = len(z)
    if n < max(1.0, MIN_SHARE * len(set(genes))):
        return None, n, f"few_genes: {n} of {len(set(genes))} genes measured, half of them needed"
    known = np.isfinite(z)
    count = known.sum(axis=0)
    total = np.where(known, z, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), n, ""


def sd_of(values: np.ndarray) -> float:
    """Standard deviation (n - 1) of the known values; 0 where they are equal up to rounding or fewer than two."""
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return 0.0
    sd = float(known.std(ddof=1))
    return sd if sd > 1e-10 * max(1.0, float(np.abs(known).max())) else 0.0


def standard(values: np.ndarray) -> np.ndarray:
    """z values; NaN stays."""
    return (values - values[np.isfinite(values)].mean()) / sd_of(values)


@dataclass(frozen=True)
class Cut:
    """A cut that was declared beforehand: median, tertiles or a number; operator says where tied values go."""

    what: str
    operator: str = ABOVE
    marker: str = ""  # for this marker only


_CUT = re.compile(r"(?:(?P<marker>.+):)?\s*(?P<operator>>=|>)?\s*(?P<what>[^<>=:]+)\Z")


def parse_cut(text: str, operator: str = ABOVE) -> Cut:
    """`median`, `tertiles`, `2`, `>=2`, or one of them for a single marker: `MUC3A:>=2`.

    Raises
    ------
    ValueError
        saying what a cut may be.
    """
    found = _CUT.match(text.strip())
    what = found["what"].strip() if found else ""
    if what not in (MEDIAN, TERTILES):
        try:
            number = float(what)
        except ValueError:
            number = np.nan
        if not np.isfinite(number):
            raise ValueError(
                f"{text!r} is no cut: write median, tertiles or a number, with > or >= before it if wanted, and MARKER: before"
                " it for one marker, for example MUC3A:>=2"
            )
        what = f"{number:.12g}"
    return Cut(what, found["operator"] or operator, (found["marker"] or "").strip())


def cuts_of(marker: Marker, cuts: Sequence[Cut]) -> list[Cut]:
    """The cuts of one marker: its own where there are any, else the common ones; groups have their levels."""
    if marker.kind == GROUP:
        return [Cut(LEVELS, "")]
    own = [cut for cut in cuts if cut.marker == marker.name]
    return list(dict.fromkeys(own or [cut for cut in cuts if not cut.marker]))


def split(values: np.ndarray, cut: Cut) -> tuple[np.ndarray, list[str], str]:
    """Group of each patient, the groups in order, the value of the cut as text.

    Parameters
    ----------
    values
        numbers without NaN (words for the cut LEVELS). Tertiles lie at the quantiles 1/3 and 2/3 (linear, R's type 7). With `>`
        a value equal to the cut is low, with `>=` it is high.
    """
    if cut.what == LEVELS:
        return values.astype(object), levels_of(values), ""

    def above(limit: float) -> np.ndarray:
        return values >= limit if cut.operator == AT_LEAST else values > limit

    if cut.what == TERTILES:
        low, high = np.quantile(values, [1 / 3, 2 / 3])
        labels = np.where(above(high), HIGH, np.where(above(low), MIDDLE, LOW)).astype(object)
        return labels, [LOW, MIDDLE, HIGH], f"{low:.6g};{high:.6g}"
    limit = float(np.median(values)) if cut.what == MEDIAN else float(cut.what)
    return np.where(above(limit), HIGH, LOW).astype(object), [LOW, HIGH], f"{limit:.6g}"


def levels_of(words: np.ndarray) -> list[str]:
    """The levels of a group in order: by value where all of them are numbers, else M2 before M10."""
    names = sorted(set(words.tolist()), key=keys.natural)
    numbers, odd = as_numbers(names)
    if len(odd) or np.isnan(numbers).any():
        return names
    return [names[i] for i in np.argsort(numbers, kind="stable")]


# --- curves and log-rank --------------------------------------------------------------------------------------------

CURVE_COLUMNS = ("time", "survival", "ci_low", "ci_high", "at_risk", "events", "censored")


def kaplan_meier(time: np.ndarray, event: np.ndarray) -> tuple[pd.DataFrame, tuple[float, float, float]]:
    """Kaplan-Meier curve with 95 % log-log limits, and the median with its limits (NaN where not reached).

    The first row is time 0; `at_risk` counts patients just before the time. Where nobody is left without the event the limits do
    not exist (R's `survfit` says NA too). The median is the first time at which survival is 0.5 or less.
    """
    from lifelines import KaplanMeierFitter

    fitted = KaplanMeierFitter().fit(time, event)
    limits, table = fitted.confidence_interval_, fitted.event_table
    survival = fitted.survival_function_.iloc[:, 0].to_numpy()
    none_left = survival <= 1e-12
    curve = pd.DataFrame(
        {
            "time": fitted.timeline,
            "survival": survival,
            "ci_low": np.where(none_left, np.nan, limits.iloc[:, 0]),
            "ci_high": np.where(none_left, np.nan, limits.iloc[:, 1]),
            "at_risk": table["at_risk"].to_numpy(dtype=int),
            "events": table["observed"].to_numpy(dtype=int),
            "censored": table["censored"].to_numpy(dtype=int),
        },
        columns=list(CURVE_COLUMNS),
    )
    return curve, (_half(curve, "survival"), _half(curve, "ci_low"), _half(curve, "ci_high"))


def _half(curve: pd.DataFrame, column: str) -> float:
    """First time at which a column is 0.5 or less; the limits at survival 0 count as below."""
    values = curve[column].to_numpy()
    reached = np.flatnonzero((values <= 0.5 + 1e-12) | (curve["survival"].to_numpy() <= 1e-12))
    if column == "ci_high":  # an upper limit that does not exist cannot have fallen to one half
        reached = np.flatnonzero(values <= 0.5 + 1e-12)
    return float(curve["time"].iloc[reached[0]]) if len(reached) else np.nan


def at_risk(time: np.ndarray, ticks: Sequence[float]) -> list[int]:
    """Patients under observation just before each tick."""
    return [int((time >= tick).sum()) for tick in ticks]


def log_rank(time: np.ndarray, event: np.ndarray, groups: np.ndarray) -> tuple[float, int, float]:
    """Log-rank chi-square of two or more groups, degrees of freedom, p; NaN without events."""
    from lifelines.statistics import multivariate_logrank_test

    df = len(set(groups.tolist())) - 1
    if df < 1 or not event.any():
        return np.nan, max(df, 0), np.nan
    found = multivariate_logrank_test(time, groups, event)
    return float(found.test_statistic), df, float(found.p_value)


def stratified_log_rank(time: np.ndarray, event: np.ndarray, groups: np.ndarray, strata: np.ndarray) -> tuple[float, float]:
    """Log-rank chi-square and p with observed minus expected summed over strata; NaN where it cannot be computed."""
    from statsmodels.duration.survfunc import survdiff

    codes = pd.factorize(groups, sort=True)[0]
    if not event.any() or len(set(codes.tolist())) < 2:
        return np.nan, np.nan
    try:
        chi2, p = survdiff(time, event.astype(int), codes, strata=pd.factorize(strata, sort=True)[0])
    except (np.linalg.LinAlgError, ValueError):  # no stratum holds two groups
        return np.nan, np.nan
    return (float(chi2), float(p)) if np.isfinite(p) else (np.nan, np.nan)


def log_rank_scores(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Event minus cumulative hazard (Nelson-Aalen) at each patient's time; sums over a group are observed minus expected."""
    order = np.argsort(time, kind="stable")
    sorted_time = time[order]
    times, start = np.unique(sorted_time, return_index=True)
    deaths = np.add.reduceat(event[order].astype(float), start)
    risk = len(time) - start
    hazard = np.cumsum(deaths / risk)
    return event.astype(float) - hazard[np.searchsorted(times, time)]


@dataclass(frozen=True)
class Scan:
    """The cut with the largest standardised log-rank statistic, and its p over permutations of the marker."""

    cut: float
    statistic: float
    p: float
    n_cuts: int


def scan(
    values: np.ndarray, time: np.ndarray, event: np.ndarray, rng: np.random.Generator, permutations: int = SCAN_PERMUTATIONS
) -> Scan | None:
    """Maximum of the standardised log-rank statistic over all cuts between the 20 % and 80 % quantiles of the marker.

    |S| / sd for S the sum of log-rank scores above the cut, with mean and variance of a random group of that size (Hothorn and
    Lausen 2003, Comput Stat Data Anal 43:121, as in R's maxstat). p = (b + 1) / (permutations + 1): the best cut of permuted
    markers is at least as good b times. None where no cut lies within the quantiles or no event happened.
    """
    n = len(values)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    low, high = np.quantile(values, SCAN_QUANTILES) if n else (0.0, 0.0)
    # last place of each value: a cut `>` at that value leaves the places up to it in the low group
    last = np.flatnonzero(np.append(ordered[1:] > ordered[:-1], False))
    last = last[(ordered[last] >= low) & (ordered[last] <= high)]
    scores = log_rank_scores(time, event)
    spread = float(((scores - scores.mean()) ** 2).sum())
    if not len(last) or not event.any() or spread <= 0:
        return None
    size = last + 1
    sd = np.sqrt(size * (n - size) / (n * (n - 1)) * spread)
    centred = scores - scores.mean()

    def best(arranged: np.ndarray) -> np.ndarray:
        return np.abs(np.cumsum(arranged, axis=-1)[..., last]) / sd

    seen = best(centred[order])
    at = int(np.argmax(seen))
    block = max(1, int(2_000_000 / n))
    beaten = 0
    for begin in range(0, permutations, block):
        many = np.tile(centred, (min(block, permutations - begin), 1))
        # a hair below: equal statistics must count whatever the order of the sum
        beaten += int((best(rng.permuted(many, axis=1)).max(axis=1) >= seen[at] * (1 - 1e-10)).sum())
    return Scan(float(ordered[last[at]]), float(seen[at]), (beaten + 1) / (permutations + 1), len(last))


# --- Cox ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """One term of a Cox model; numbers are NaN where they do not exist."""

    status: str
    reason: str = ""
    hr: float = np.nan
    ci_low: float = np.nan
    ci_high: float = np.nan
    p: float = np.nan
    concordance: float = np.nan
    ph_p: float = np.nan


def separates(values: np.ndarray, time: np.ndarray, event: np.ndarray) -> bool:
    """Whether the likelihood of one term rises without end: every event befalls the largest (or smallest) value at risk."""
    order = np.argsort(-time, kind="stable")
    up = down = True
    highest, lowest = -np.inf, np.inf
    times = time[order]
    for begin in np.flatnonzero(np.append(True, times[1:] != times[:-1])):
        now = order[begin : begin + int((times == times[begin]).sum())]
        highest, lowest = max(highest, values[now].max()), min(lowest, values[now].min())
        failed = values[now][event[now] > 0]
        if len(failed):
            up &= bool((failed >= highest).all())
            down &= bool((failed <= lowest).all())
    return up or down


def within_strata(values: np.ndarray, strata: np.ndarray | None) -> np.ndarray:
    """Columns minus their mean, within each stratum where there are strata."""
    if strata is None:
        return values - values.mean(axis=0)
    codes = pd.factorize(strata)[0]
    return values - pd.DataFrame(values).groupby(codes).transform("mean").to_numpy()


def that_follow(columns: np.ndarray, strata: np.ndarray | None = None, share: float = FOLLOWS) -> list[int]:
    """Places of columns that are sums of multiples of columns before them (within strata): a model cannot tell them apart.

    share: of a column's spread that may be left.
    """
    spread = np.linalg.norm(columns - columns.mean(axis=0), axis=0)
    centred = within_strata(columns, strata)
    basis = np.empty((len(columns), 0))
    found = []
    for i in range(columns.shape[1]):
        rest = centred[:, i]
        for _ in range(2):  # once leaves errors of rounding
            rest = rest - basis @ (basis.T @ rest)
        size = float(np.linalg.norm(rest))
        if size <= share * spread[i]:
            found.append(i)
        else:
            basis = np.column_stack([basis, rest / size])
    return found


def collinear(terms: pd.DataFrame, covariates: pd.DataFrame | None, strata: np.ndarray | None, share: float = FOLLOWS) -> str:
    """What the terms follow from, in words: the covariates that take part in the sum, or the strata; empty where from nothing."""
    mine = terms.to_numpy(dtype=float)
    if that_follow(mine, strata, share):
        return "collinear: the marker does not vary within the strata"
    if covariates is None:
        return ""
    beside = covariates.to_numpy(dtype=float)
    if all(i < beside.shape[1] for i in that_follow(np.hstack([beside, mine]), strata, share)):
        return ""
    matrix = within_strata(beside, strata)
    parts = np.linalg.lstsq(matrix / np.linalg.norm(matrix, axis=0), within_strata(mine, strata), rcond=None)[0]
    most = np.abs(parts).max(axis=1)
    used = [name for name, part in zip(covariates.columns, most, strict=True) if part > 10 * share * most.max()]
    return f"collinear: the marker follows from {', '.join(used)}"


def has_risk_sets(time: np.ndarray, event: np.ndarray, strata: np.ndarray) -> bool:
    """Whether in some stratum somebody else is still observed when an event happens: without it nothing is compared."""
    frame = pd.DataFrame({"time": time, "first": np.where(event > 0, time, np.inf), "stratum": strata})
    frame["first"] = frame.groupby("stratum")["first"].transform("min")
    # the first event of a stratum has the most patients at risk
    return bool((frame["time"] >= frame["first"]).groupby(frame["stratum"]).sum().max() > 1)


def cox(
    time: np.ndarray,
    event: np.ndarray,
    terms: pd.DataFrame,
    covariates: pd.DataFrame | None = None,
    strata: np.ndarray | None = None,
    min_events: int = MIN_EVENTS,
) -> dict[str, Fit]:
    """Cox proportional hazards with Efron ties; a result for each of `terms`.

    Parameters
    ----------
    terms
        patients x terms: one z-scaled marker, or indicators of a group's levels.
    covariates
        patients x columns that are adjusted for; without missing values. A column that follows from those before it is left out.
    strata
        a word per patient: each stratum has its own baseline hazard.

    Proportional hazards are checked by lifelines' approximation of the score test of Grambsch and Therneau (time by
    Kaplan-Meier): a small `ph_p` says that the ratio changes with time. Its p differ from those of R's survival >= 3.
    """
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError
    from lifelines.statistics import proportional_hazard_test

    names = list(terms.columns)
    n_events = int(event.sum())
    if n_events < LEAST_EVENTS:
        return dict.fromkeys(names, Fit(keys.NOT_ESTIMABLE, f"few_events: {n_events} found, {LEAST_EVENTS} needed"))
    if strata is not None and not has_risk_sets(time, event, strata):
        told = f"strata: in none of the {len(set(strata.tolist()))} strata is another patient observed when an event happens"
        return dict.fromkeys(names, Fit(keys.NOT_ESTIMABLE, told))
    left_out: list[str] = []
    if covariates is not None:
        again = that_follow(covariates.to_numpy(dtype=float), strata)
        left_out = [str(covariates.columns[i]) for i in again]
        covariates = covariates.drop(columns=covariates.columns[again])
        covariates = covariates if covariates.shape[1] else None
    if told := collinear(terms, covariates, strata):
        return dict.fromkeys(names, Fit(keys.NOT_ESTIMABLE, told))
    if len(names) == 1 and covariates is None and strata is None and separates(terms[names[0]].to_numpy(), time, event):
        return dict.fromkeys(names, Fit(keys.NOT_ESTIMABLE, "separation: each event befalls the most extreme patient at risk"))
    # plain names: a user's own column may be called like lifelines' columns
    frame = pd.DataFrame({f"term_{i}": terms[name].to_numpy(dtype=float) for i, name in enumerate(names)})
    n_terms = len(names)
    if covariates is not None:
        for i, name in enumerate(covariates):
            frame[f"covariate_{i}"] = covariates[name].to_numpy(dtype=float)
        n_terms += covariates.shape[1]
    frame["time"], frame["event"] = time, event
    options = {}
    if strata is not None:
        frame["stratum"] = pd.factorize(strata, sort=True)[0]
        options["strata"] = ["stratum"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what lifelines guesses about convergence is judged below by the standard errors
        try:
            fitted = CoxPHFitter().fit(frame, "time", "event", fit_options=FIT, **options)
            checked = proportional_hazard_test(fitted, frame, time_transform="km").summary["p"]
        except (ConvergenceError, np.linalg.LinAlgError, ValueError):
            return dict.fromkeys(names, Fit(keys.NOT_ESTIMABLE, "no_convergence: the likelihood has no maximum that was found"))
    summary = fitted.summary
    made = {}
    for i, name in enumerate(names):
        row = summary.loc[f"term_{i}"]
        if not np.isfinite(row["se(coef)"]) or row["se(coef)"] > NO_MAXIMUM_SE:
            nearly = collinear(terms[[name]], covariates, strata, NEARLY)
            told = nearly or "separation: the terms divide patients with and without event completely"
            made[name] = Fit(keys.NOT_ESTIMABLE, told)
            continue
        word, reason = keys.OK, ""
        if n_events < min_events:
            word, reason = keys.WARNING, f"few_events: {n_events} found, {min_events} advised"
        elif n_terms > 1 and n_events < min_events * n_terms:
            word = keys.WARNING
            reason = f"few_events: {n_events} for {n_terms} terms, {min_events} for each advised"
        if left_out:
            word = keys.WARNING
            told = f"redundant_covariate: {', '.join(left_out)} left out, which the other covariates or the strata determine"
            reason = f"{reason}; {told}" if reason else told
        ph_p = float(checked[f"term_{i}"])
        if ph_p < PH_ALPHA:
            word = keys.WARNING
            told = f"not_proportional: the ratio changes with time (p {ph_p:.2g}); it is an average"
            reason = f"{reason}; {told}" if reason else told
        made[name] = Fit(
            word, reason, float(row["exp(coef)"]), float(row["exp(coef) lower 95%"]), float(row["exp(coef) upper 95%"]),
            max(float(row["p"]), 1e-300), float(fitted.concordance_index_), ph_p,
        )  # fmt: skip
    return made


def levels_against_first(words: np.ndarray) -> pd.DataFrame:
    """Indicators of every level but the first, columns `<level> vs <first>`; words without missing values."""
    names = levels_of(words)
    return pd.DataFrame({f"{name} vs {names[0]}": (words == name).astype(float) for name in names[1:]})


def covariate_matrix(clinical: Clinical, names: Sequence[str], keep: np.ndarray) -> tuple[pd.DataFrame, np.ndarray, list[str]]:
    """Covariates as columns of numbers over the patients of `keep` that have all of them.

    Returns
    -------
    matrix
        numbers as they are, words as indicators against their first level; columns without variation are left out.
    rows
        mask over all patients: those of `keep` with every covariate known.
    constant
        covariates that are the same in all of them.
    """
    rows = keep.copy()
    for name in names:
        rows &= np.isfinite(clinical.numbers[name]) if name in clinical.numbers else clinical.words[name] != ""
    columns: dict[str, np.ndarray] = {}
    constant = []
    for name in names:
        if name in clinical.numbers:
            values = clinical.numbers[name][rows]
            made = {name: values} if sd_of(values) > 0 else {}
        else:
            levels = levels_against_first(clinical.words[name][rows]) if rows.any() else pd.DataFrame()
            made = {f"{name}: {level}": levels[level].to_numpy() for level in levels}
        if not made:
            constant.append(name)
        columns.update(made)
    return pd.DataFrame(columns, index=range(int(rows.sum()))), rows, constant


# --- early against late events --------------------------------------------------------------------------------------


def split_time(months: float, unit: str) -> float:
    """The split in the unit of the times; whole days or weeks, as studies count them (12 months are 365 days), at least one."""
    at = months / MONTHS[unit]
    return max(1.0, float(round(at))) if unit in WHOLE_UNITS else at


def early_or_late(time: np.ndarray, event: np.ndarray, at: float) -> np.ndarray:
    """`early` (event before `at`), `late` (under observation at `at` or longer), "" (censored before: nobody can know)."""
    return np.where(time >= at, "late", np.where(event > 0, "early", "")).astype(object)


def exact_rank_sum(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Wilcoxon rank-sum by its exact permutation distribution, ties kept: U of side A and the two-sided p.

    p = share of all choices of len(a) among the pooled values whose rank sum is at least as far from its mean as the one seen
    (the shift algorithm of Streitberg and Roehmel 1986, on doubled mid-ranks). Equals R's `wilcox.test(exact = TRUE)` without
    ties and `coin::wilcox_test(distribution = "exact")` with them. NaN where a side is empty or all values are equal.
    """
    from scipy.stats import rankdata

    both = np.concatenate([a, b])
    n_a, n_b = len(a), len(b)
    if not n_a or not n_b or np.all(both == both[0]):
        return np.nan, np.nan
    ranks = np.rint(2 * rankdata(both)).astype(int)
    seen, total = int(ranks[:n_a].sum()), int(ranks.sum())
    ways = np.zeros((n_a + 1, total + 1))
    ways[0, 0] = 1.0
    for i, rank in enumerate(ranks.tolist()):
        for k in range(min(i + 1, n_a), 0, -1):
            ways[k, rank:] += ways[k - 1, : total + 1 - rank]
    share = ways[n_a] / ways[n_a].sum()
    distance = np.abs(np.arange(total + 1) * (n_a + n_b) - n_a * total)
    p = float(share[distance >= abs(seen * (n_a + n_b) - n_a * total)].sum())
    return seen / 2 - n_a * (n_a + 1) / 2, min(1.0, p)


def compare_early_late(values: np.ndarray, side: np.ndarray, patients: np.ndarray) -> dict[str, object]:
    """Marker of patients with an early event minus that of late ones: a row of the test columns, rank-sum exact also with ties.

    Above 49 patients on a side the normal approximation with tie correction is used, as everywhere in the pipeline.
    """
    known = np.isfinite(values) & (side != "")
    names = [str(p) for p in patients[known]]
    sides = dict(zip(names, side[known], strict=True))
    contrast = comparison.Contrast(
        CONTRAST, tuple(n for n in names if sides[n] == "early"), tuple(n for n in names if sides[n] == "late"),
        False, keys.OK, "", "survival",
    )  # fmt: skip
    row = comparison.compare(
        pd.Series(values[known], index=names, dtype=float), pd.Series(1.0, index=names), contrast, {n: n for n in names}
    )
    row["n_cells_a"] = row["n_cells_b"] = None  # no cells behind a bulk measurement
    a, b = values[known & (side == "early")], values[known & (side == "late")]
    if row["test"] == "rank_sum_normal" and max(len(a), len(b)) < comparison.EXACT_BELOW:
        row["statistic"], row["p_value"] = exact_rank_sum(a, b)
        row["test"] = "rank_sum_exact"
    return row


def median_follow_up(time: np.ndarray, event: np.ndarray) -> float:
    """Median of the time to censoring (reverse Kaplan-Meier; Schemper and Smith 1996, Control Clin Trials 17:343)."""
    return kaplan_meier(time, 1 - event)[1][0]


def adjust_by(frame: pd.DataFrame, by: Sequence[str], p: str, families: Mapping[str, str]) -> pd.DataFrame:
    """Columns padj and adjust_method: Benjamini-Hochberg within each combination of `by`, the family named after the kind."""
    frame = frame.copy()
    frame["padj"] = np.nan
    frame["adjust_method"] = [f"BH:{families[kind]}" for kind in frame["kind"]]
    for _, part in frame.groupby(list(by), sort=False, dropna=False):
        frame.loc[part.index, "padj"] = comparison.adjust(part[p].to_numpy(dtype=float))
    return frame
