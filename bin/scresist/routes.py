"""Evidence for the routes of resistance, patient by patient and for the cohort: items by rule, votes, one word per route.

The rules are a table (assets/route_rules.tsv); a row names a quantity, where it comes from, and which direction of it supports or
speaks against its route. Nothing here adds up p values: an item votes by its interval and by a least size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from scresist import comparison, keys
from scresist.io import InputError
from scresist.route_measures import LEVEL, MEASURES, UP, Effect, Evidence, Program, as_number, expanded, parts_of

RULE_COLUMNS = (
    "route", "item", "question", "source_table", "measure", "feature", "supports_when", "against_when", "threshold", "source",
)  # fmt: skip
ITEM_COLUMNS = (
    keys.PATIENT, "contrast", "route", "item", "question", "step", "value", "ci_low", "ci_high", "scale", "measured",
    "unit", "n_cells", "n_samples", "n_patients", "vote", "evidence", "status", "reason", "source_table",
)  # fmt: skip
CARD_COLUMNS = (
    keys.PATIENT, "contrast", "route", "kind", "n_supports", "n_against", "n_neutral", "n_not_estimable", "word", "evidence",
    "n_samples",
)  # fmt: skip
COHORT = "cohort"  # stands in the column patient
ROUTES = ("pre_existing_clone", "reprogramming", "microenvironment")
SUPPORTED, MIXED, NOT_SUPPORTED, NOT_ASSESSABLE = "supported", "mixed", "not supported", "not assessable"
WORDS = (SUPPORTED, MIXED, NOT_SUPPORTED, NOT_ASSESSABLE)
MIN_SUPPORTS, MIN_ESTIMABLE = 2, 2  # items behind `supported` and behind `not supported` (methods.md, SCORE_ROUTES)
DOWN, FLAT = "down", "flat"
STABLE, NEVER = "stable", "never"
PATTERN = re.compile(r"^(up|down|up-down|down-up|stable|never)( or (up|down|up-down|down-up))*$")
TRAITS = ("acquired_resistance", "phase_time", "primary_resistance", "treated")  # which trait names the program, best first


# --- rules ------------------------------------------------------------------------------------------------------------


def check_rules(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rules as text with `threshold` as number, in their order.

    Raises
    ------
    InputError
        with everything that is wrong: absent columns, empty cells, unknown measures, unreadable conditions, rows that stand
        twice.
    """
    absent = [column for column in RULE_COLUMNS if column not in table]
    if absent:
        raise InputError(f"{name}: no column {', '.join(absent)}; expected {', '.join(RULE_COLUMNS)}, found {', '.join(table)}")
    made = table[list(RULE_COLUMNS)].fillna("").astype(str).apply(lambda column: column.str.strip())
    problems = []
    for line, row in enumerate(made.to_dict("records"), start=2):
        for column in ("route", "item"):
            if not keys.ID_PATTERN.match(row[column]):
                problems.append(f"row {line}: {column} {row[column]!r}, expected letters, digits, _ . -; rename it")
        problems += [f"row {line}: {column} is empty; write one" for column in ("question", "source_table") if not row[column]]
        if row["measure"] not in MEASURES:
            problems.append(f"row {line}: measure {row['measure']!r} is not one of {', '.join(MEASURES)}")
        elif MEASURES[row["measure"]].feature and not row["feature"]:
            problems.append(f"row {line}: {row['measure']} needs a feature; write {MEASURES[row['measure']].feature}")
        for column in ("supports_when", "against_when"):
            if not PATTERN.match(row[column]):
                problems.append(
                    f"row {line}: {column} {row[column]!r}, expected up, down, up-down, down-up (joined by ` or `), stable or"
                    " never"
                )
        try:
            if not float(row["threshold"]) >= 0:
                raise ValueError
        except ValueError:
            problems.append(f"row {line}: threshold {row['threshold']!r}, expected a number of 0 or more")
    for (route, item), n in made.value_counts(["route", "item"], sort=False).items():
        if n > 1:
            problems.append(f"{route} {item} stands {n} times; keep one row")
    if problems:
        raise InputError(f"{name}:\n  - " + "\n  - ".join(problems))
    made["threshold"] = made["threshold"].astype(float)
    return made


def genes_of(rules: pd.DataFrame, panels: Mapping[str, Sequence[str]]) -> list[str]:
    """Genes whose expression in cells the rules ask for, sorted; `panel:<name>` stands for the genes of that panel."""
    names = {
        name
        for feature in rules.loc[rules["measure"].isin(["expression", "gene_share"]), "feature"]
        for part, _ in parts_of(feature)
        for name in part
    }
    return sorted({gene for name in names for gene in expanded(name, panels)})


# --- who is compared -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """Who is compared with what: a patient or the cohort, its later phase, its baseline, and the phase of response between."""

    unit: str
    later: str
    base: str
    response: str = ""

    @property
    def contrast(self) -> str:
        return f"{self.later}_vs_{self.base}"

    @property
    def steps(self) -> dict[str, tuple[str, str]]:
        """Pairs (later, earlier): `total`, and where there is a biopsy during response `first` and `second`."""
        made = {"total": (self.later, self.base)}
        if self.response == self.later:
            made["first"] = made["total"]
        elif self.response:
            made |= {"first": (self.response, self.base), "second": (self.later, self.response)}
        return made


def courses(samples: pd.DataFrame, phases: pd.DataFrame) -> tuple[list[Course], list[Course], list[str]]:
    """Courses of patients, courses of the cohort, and patients without one (a single phase, or no baseline).

    A patient's later phase is acquired resistance, else response. Primary resistance is a branch beside the baseline and is
    compared for the cohort only.

    Parameters
    ----------
    samples
        sample, patient, phase.
    phases
        phase, role, order.
    """
    ordered = phases.sort_values("order", kind="stable")
    of_role = {role: ordered.loc[ordered["role"] == role, "phase"].astype(str).tolist() for role in keys.ROLES}
    made, without = [], []

    def found(here: set[str], role: str) -> list[str]:
        return [phase for phase in of_role[role] if phase in here]

    for patient, part in samples.groupby(keys.PATIENT, sort=True):
        here = set(part[keys.PHASE])
        base, acquired, response = (
            found(here, role) for role in (keys.ROLE_BASELINE, keys.ROLE_ACQUIRED, keys.ROLE_RESPONSE)
        )
        later = (acquired or response)[-1:]
        if base and later:
            made.append(Course(str(patient), later[0], base[0], response[-1] if response else ""))
        else:
            without.append(str(patient))
    here = set(samples[keys.PHASE])
    base, response = found(here, keys.ROLE_BASELINE), found(here, keys.ROLE_RESPONSE)
    cohort = []
    if base:
        for phase in found(here, keys.ROLE_ACQUIRED):
            cohort.append(Course(COHORT, phase, base[0], response[-1] if response else ""))
        cohort += [Course(COHORT, phase, base[0]) for phase in found(here, keys.ROLE_PRIMARY)]
        if not cohort and response:
            cohort.append(Course(COHORT, response[-1], base[0], response[-1]))
    return made, cohort, without


def choose_program(
    traits: pd.DataFrame | None, module_samples: pd.DataFrame | None, phases: pd.DataFrame, asked: str
) -> Program | None:
    """The co-expression module that stands for resistance, turned so that high means resistant.

    `asked` = auto: the module with the largest |rho| between samples and the first trait of TRAITS that could be tested (equal
    ones: larger difference, then name). Without tests: the largest difference of later against baseline sample means in
    units of the spread within samples. A module that is chosen because it changes will show a change; how the change is
    divided between clones is not decided by the choice.

    Parameters
    ----------
    traits, module_samples
        module_traits.tsv and module_samples.tsv of FIND_PROGRAMS, or None.
    asked
        auto, or a module.
    """
    found: list[tuple[float, float, str, int, str]] = []
    if traits is not None:
        part = traits[(traits["level"] == "sample") & pd.to_numeric(traits["rho"], errors="coerce").notna()]
        for trait in TRAITS:
            own = part[part["trait"] == trait]
            found = [
                (-abs(float(row["rho"])), -abs(as_number(row["difference"], 0.0)), str(row["module"]),
                 1 if float(row["rho"]) >= 0 else -1, f"Spearman {float(row['rho']):.2f} with {trait}")
                for row in own.to_dict("records")
            ]  # fmt: skip
            if found:
                break
    if not found and module_samples is not None:
        role = dict(zip(phases["phase"].astype(str), phases["role"], strict=True))
        kind = module_samples[keys.PHASE].astype(str).map(role)
        for module, part in module_samples.groupby("module", sort=True):
            late = part[kind[part.index].isin([keys.ROLE_ACQUIRED, keys.ROLE_RESPONSE, keys.ROLE_PRIMARY])]
            early = part[kind[part.index] == keys.ROLE_BASELINE]
            if len(late) and len(early):
                gap = float(late["mean"].mean() - early["mean"].mean())
                scale = float(part["sd"].mean())
                size = abs(gap) / scale if scale > 0 else 0.0
                word = f"difference of {size:.2f} sd between later and baseline samples"
                found.append((-size, 0.0, str(module), 1 if gap >= 0 else -1, word))
    if asked != "auto":
        own = [one for one in found if one[2] == asked]
        known = module_samples is not None and asked in set(module_samples["module"].astype(str))
        if not own and not known:
            return None
        sign, why = (own[0][3], own[0][4]) if own else (1, "direction unknown")
        return Program(keys.MODULE_PREFIX + asked, sign, f"named by the parameter; {why}")
    if not found:
        return None
    _, _, module, sign, why = min(found)
    return Program(keys.MODULE_PREFIX + module, sign, why)


# --- votes ------------------------------------------------------------------------------------------------------------


def direction(effect: Effect, threshold: float) -> str | None:
    """up, down or flat: the interval lies on one side of no effect and the value is at least `threshold` away from it."""
    if not effect.estimable:
        return None
    if effect.low > effect.null and effect.value - effect.null >= threshold:
        return UP
    if effect.high < effect.null and effect.null - effect.value >= threshold:
        return DOWN
    return FLAT


def holds(option: str, effects: Mapping[str, Effect], threshold: float) -> bool | None:
    """Whether one condition of a rule holds; None where the biopsies or values for it are missing.

    A single direction is that of the whole change. `down-up` is down from baseline to response and up from there to the later
    biopsy; where the biopsy during response is the last one, its first step alone.
    """
    if option == NEVER:
        return False
    if "-" in option:
        wanted = dict(zip(("first", "second"), option.split("-"), strict=True))
        seen = {step: direction(effects[step], threshold) for step in wanted if step in effects}
        if "first" not in seen or None in seen.values():
            return None
        return all(seen[step] == wanted[step] for step in seen)
    total = effects.get("total", Effect())
    way = direction(total, threshold)
    if way is None:
        return None
    if option == STABLE:
        # what an interval merely does not show is not stable: without a largest change, the interval itself must lie within
        if total.spread is not None:
            return total.spread <= threshold
        return -threshold < total.low - total.null and total.high - total.null < threshold
    return way == option


def vote(rule: Mapping[str, Any], effects: Mapping[str, Effect]) -> tuple[int | None, str]:
    """+1 supports, -1 speaks against, 0 neither, None not estimable; and the condition that decided.

    Of alternatives joined by ` or ` one that holds is enough.
    """
    threshold = float(rule["threshold"])
    supports = {option: holds(option, effects, threshold) for option in rule["supports_when"].split(" or ")}
    if all(found is None for found in supports.values()):
        return None, ""
    for option, found in supports.items():
        if found:
            return 1, option
    for option in rule["against_when"].split(" or "):
        if holds(option, effects, threshold):
            return -1, option
    return 0, ""


def word(votes: Sequence[int | None]) -> str:
    """The word for a route (methods.md, SCORE_ROUTES).

    supported: two items or more support and at most half as many speak against; not supported: two items or more could be
    judged and none supports; mixed: two items or more could be judged, some support, but not enough or against others; else
    not assessable.
    """
    supports, against = sum(v == 1 for v in votes), sum(v == -1 for v in votes)
    estimable = sum(v is not None for v in votes)
    if supports >= MIN_SUPPORTS and against <= supports / 2:
        return SUPPORTED
    if estimable < MIN_ESTIMABLE:
        return NOT_ASSESSABLE
    return MIXED if supports else NOT_SUPPORTED


# --- items, card ------------------------------------------------------------------------------------------------------


def score(
    ev: Evidence, rules: pd.DataFrame, patients: Sequence[Course], cohort: Sequence[Course], without: Mapping[str, str]
) -> pd.DataFrame:
    """ITEM_COLUMNS: every rule for every patient (sorted), then for the cohort.

    Parameters
    ----------
    rules
        result of `check_rules`.
    patients, cohort
        results of `courses`.
    without
        patient -> why it has no course; its items are not estimable.
    """
    made: list[dict[str, Any]] = []
    records = rules.to_dict("records")
    within: dict[tuple[str, str], dict[str, dict[str, Effect]]] = {}
    for course in patients:
        for rule in records:
            measure = MEASURES[rule["measure"]]
            found = [
                {step: measure.within(ev, course.unit, pair, feature) for step, pair in _steps(course, rule).items()}
                for feature in features(rule)
            ]
            within.setdefault((rule["route"], rule["item"]), {})[course.unit] = found[0]
            made.append(_item(course, rule, found))
    for patient in sorted(without):
        blank = {"total": Effect(reason=without[patient])}
        made += [_item(Course(patient, "", ""), rule, [blank]) for rule in records]
    made.sort(key=lambda row: row[keys.PATIENT])
    of_patient = {course.unit: course for course in patients}
    for course in cohort:
        for rule in records:
            measure = MEASURES[rule["measure"]]
            if measure.between is not None:
                found = [
                    {step: measure.between(ev, pair, feature) for step, pair in _steps(course, rule).items()}
                    for feature in features(rule)
                ]
            else:
                mine = {
                    name: effects
                    for name, effects in within.get((rule["route"], rule["item"]), {}).items()
                    if of_patient[name].contrast == course.contrast
                }
                found = [{"total": _mean_of([one["total"] for one in mine.values()], course)}]
            made.append(_item(course, rule, found))
    frame = pd.DataFrame(made, columns=list(ITEM_COLUMNS))
    return frame.astype({"n_cells": "Int64", "n_samples": "Int64", "n_patients": "Int64", "vote": "Int64"})


def _mean_of(effects: Sequence[Effect], course: Course) -> Effect:
    """Mean of the patients' values with a t interval over patients; below two patients the value alone."""
    known = [effect for effect in effects if effect.estimable]
    if not known:
        return Effect(reason=f"no patient with biopsies of {course.base} and {course.later} gives this item", n_patients=0)
    values = np.array([effect.value for effect in known])
    n, null = len(values), known[0].null
    cells, samples = sum(e.n_cells for e in known), sum(e.n_samples for e in known)
    shared = {
        "unit": comparison.UNIT_PATIENT, "n_cells": cells, "n_samples": samples, "n_patients": n, "null": null,
        "measured": "mean over patients", "evidence": comparison.evidence(n, n),
    }  # fmt: skip
    largest = [effect.spread for effect in known if effect.spread is not None]
    shared["spread"] = max(largest) if len(largest) == n else None  # stable when it is so in every patient
    spread = values.std(ddof=1) if n > 1 else 0.0
    if not spread > 0:
        why = f"{n} patient with both biopsies, 2 needed for an interval" if n == 1 else "all patients have the same value"
        return Effect(float(values.mean()), reason=why, status=keys.NO_REPLICATES, **shared)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * spread / np.sqrt(n))
    return Effect(float(values.mean()), float(values.mean() - half), float(values.mean() + half), **shared)


def _steps(course: Course, rule: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The pairs that a rule asks for: the steps of the course only where a condition such as down-up reads them."""
    if any("-" in option for column in ("supports_when", "against_when") for option in rule[column].split(" or ")):
        return course.steps
    return {"total": course.steps["total"]}


def features(rule: Mapping[str, Any]) -> list[str]:
    """The alternatives among the features of a rule, for measures that know any."""
    feature = str(rule["feature"])
    return [part.strip() for part in feature.split(";")] if MEASURES[rule["measure"]].alternatives else [feature]


def _item(course: Course, rule: Mapping[str, Any], found: Sequence[Mapping[str, Effect]]) -> dict[str, Any]:
    """One row. Of several features the first that supports, else speaks against, else could be judged.

    Shown is the step that decided: the last one of a course such as down-up, whose earlier step is told in `reason`; else the
    whole change, or the first step where the rule asks for courses only.
    """
    votes = [vote(rule, effects) for effects in found]
    order = {1: 0, -1: 1, 0: 2, None: 3}
    at = min(range(len(found)), key=lambda i: (order[votes[i][0]], i))
    effects, (given, decided) = found[at], votes[at]
    options = rule["supports_when"].split(" or ")
    step, note = "total", ""
    if "-" in decided:
        step = "second" if "second" in effects else "first"
        if step == "second":
            one = effects["first"]
            note = f"after {one.value:+.3g} ({one.low:.3g} to {one.high:.3g}) in {'_vs_'.join(course.steps['first'])}"
    elif all("-" in option for option in options) and "first" in effects:
        step = "first"
    shown = effects[step]
    status, reason = shown.word, shown.reason
    if given is None and course.base and all("-" in option for option in options) and "first" not in effects:
        status, reason, shown = keys.NOT_ESTIMABLE, "no biopsy during response", Effect(measured=shown.measured)
    elif given is None and shown.estimable:
        status, reason = keys.NOT_ESTIMABLE, "a biopsy on the way has too few cells or no value"
    elif shown.estimable:
        reason = note
    return {
        keys.PATIENT: course.unit, "contrast": course.contrast if course.base else "", "route": rule["route"],
        "item": rule["item"], "question": rule["question"], "step": "_vs_".join(course.steps[step]) if course.base else "",
        "value": shown.value, "ci_low": shown.low, "ci_high": shown.high,
        "scale": MEASURES[rule["measure"]].scale, "measured": shown.measured, "unit": shown.unit,
        "n_cells": shown.n_cells or pd.NA, "n_samples": shown.n_samples or pd.NA, "n_patients": shown.n_patients or pd.NA,
        "vote": pd.NA if given is None else given, "evidence": shown.evidence, "status": status, "reason": reason,
        "source_table": rule["source_table"].replace("<patient>", course.unit if course.unit != COHORT else "<patient>"),
    }  # fmt: skip


def card(items: pd.DataFrame) -> pd.DataFrame:
    """CARD_COLUMNS: one row per patient (for the cohort: per contrast) and route or line, in the order of the items."""
    rows = []
    weight = (keys.SINGLE_PATIENT, keys.LIMITED, keys.REPLICATED)
    for (patient, contrast, route), part in items.groupby([keys.PATIENT, "contrast", "route"], sort=False):
        votes = [None if pd.isna(v) else int(v) for v in part["vote"]]
        behind = [weight.index(e) for e, v in zip(part["evidence"], votes, strict=True) if v is not None and e in weight]
        rows.append(
            {
                keys.PATIENT: patient, "contrast": contrast, "route": route, "kind": "route" if route in ROUTES else "line",
                "n_supports": sum(v == 1 for v in votes), "n_against": sum(v == -1 for v in votes),
                "n_neutral": sum(v == 0 for v in votes), "n_not_estimable": sum(v is None for v in votes), "word": word(votes),
                "evidence": weight[min(behind)] if behind else keys.SINGLE_PATIENT, "n_samples": part["n_samples"].max(),
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(CARD_COLUMNS)).astype({"n_samples": "Int64"})
