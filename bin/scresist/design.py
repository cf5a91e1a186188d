"""Study design: phases, contrasts, pairs, confounding, and what a cohort can and cannot answer.

Pure functions on data frames of text. The unit of every claim is the patient (methods.md, Unit of replication).
"""

from __future__ import annotations

import difflib
import math
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from scresist import keys
from scresist.io import format_float

REQUIRED = (keys.SAMPLE, keys.PATIENT, keys.PHASE, "path")
FILE_COLUMNS = ("path", "raw_path", "metrics")
ID_COLUMNS = (keys.SAMPLE, keys.PATIENT, keys.BATCH)
CATEGORY_COLUMNS = ("response", "treated", "site", "chemistry", "format")
TRAIT_PREFIX = "trait_"
# low, high, whole: limits of a threshold or measurement that a sample may bring along
NUMBER_COLUMNS = {
    "saturation_pct": (0.0, 100.0, False),
    "reads_in_cells_pct": (0.0, 100.0, False),
    "min_genes": (0.0, math.inf, True),
    "min_counts": (0.0, math.inf, True),
    "max_mt_pct": (0.0, 100.0, False),
    "mad_k": (0.0, math.inf, False),
    "mad_k_mt": (0.0, math.inf, False),
}
# A saturation or read share of 1 % or less is a fraction written where a percentage belongs.
MEASURED_PCT = ("saturation_pct", "reads_in_cells_pct")
DOUBLET_RATE = "expected_doublet_rate"
SETTINGS = ("min_genes", "min_counts", "max_mt_pct", "mad_k", "mad_k_mt", DOUBLET_RATE, *MEASURED_PCT)
KNOWN_COLUMNS = (*REQUIRED, keys.BATCH, *CATEGORY_COLUMNS, "raw_path", "metrics", DOUBLET_RATE, *NUMBER_COLUMNS)

PHASE_COLUMNS = ("phase", "name", "role", "order", "time", "colour")
# Okabe and Ito (2008), without black and yellow: told apart by colour-blind readers, dark enough on white.
PALETTE = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#E69F00")

TECHNICAL_FACTORS = (keys.BATCH, "site", "chemistry")
FACTORS = (*TECHNICAL_FACTORS, "treated")
MIN_PAIRS = 2  # a paired design needs two pairs that are at least half of the patients (methods.md)
PAIRED_SHARE = 0.5
REPLICATED_FROM = 3  # patients a side for `replicated`; 2 is `limited` (methods.md)
ALPHA = 0.05  # above this p_min_attainable, no rank test of the contrast can become significant
CONTRAST_COLUMNS = (
    "contrast",
    "side_a",
    "side_b",
    "samples_a",
    "samples_b",
    "n_patients_a",
    "n_patients_b",
    "n_pairs",
    "paired",
    "p_min_attainable",
    "status",
    "reason",
    "kind",
    "n_samples_a",
    "n_samples_b",
    "patients_a",
    "patients_b",
    "patients_dropped",
    "evidence",
)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the input, in the words of the person who has to mend it."""

    column: str
    value: str
    expected: str
    mend: str
    row: int | None = None
    sample: str = ""

    def line(self) -> str:
        """`row 5, sample S3, column phase: 'PSOT' given, expected PRE or POST. Write POST.`"""
        where = ([f"row {self.row}"] if self.row is not None else []) + ([f"sample {self.sample}"] if self.sample else [])
        where.append(f"column {self.column}" if self.column else "table")
        return f"{', '.join(where)}: {self.value}; expected {self.expected}. {self.mend}."


def nearest(text: str, known: Iterable[str]) -> str | None:
    """The known word most like `text`, or None when none is near."""
    by_fold = {word.casefold(): word for word in sorted(known, reverse=True)}
    found = difflib.get_close_matches(text.casefold(), sorted(by_fold), n=1, cutoff=0.6)
    return by_fold[found[0]] if found else None


def plural(n: int, noun: str) -> str:
    """`1 patient`, `2 patients`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


# --- phases


def phase_frame(rows: Sequence[dict[str, str]], header: Sequence[str], source: str) -> tuple[pd.DataFrame, list[Problem]]:
    """Phases from the rows of a phase table (text), with what is wrong with it.

    Returns
    -------
    phases
        columns phase, name, role, order (1..k), time (missing for a branch beside the time axis), colour; sorted by order.
    problems
        every fault found; `phases` is usable only when empty.
    """
    problems = []

    def fault(row: int | None, column: str, value: str, expected: str, mend: str) -> None:
        problems.append(Problem(column, f"{source}: {value}", expected, mend, row))

    for column in sorted({name for name in header if header.count(name) > 1}):
        fault(None, column, f"named {header.count(column)} times", "each column once", "Rename or remove one of them")
    if "phase" not in header:
        fault(
            None, "phase", f"columns are {_listed(header) or 'none'}", "a column phase", "Add it; the other columns are optional"
        )
        return pd.DataFrame(columns=list(PHASE_COLUMNS)), problems
    for column in sorted(set(header) - set(PHASE_COLUMNS)):
        near = nearest(column, PHASE_COLUMNS)
        fault(None, column, "unknown column", _listed(PHASE_COLUMNS), f"Rename it to {near}" if near else "Remove it")
    if not rows:
        fault(None, "phase", "no row", "one row per phase", "Add the phases")
    seen: dict[str, int] = {}
    made = []
    given_roles = any(row.get("role") for row in rows)
    for i, row in enumerate(rows):
        line = i + 2
        phase = row["phase"]
        if not keys.ID_PATTERN.match(phase):
            fault(line, "phase", f"{phase!r}", "letters, digits, _ . - starting with a letter or digit", "Rename the phase")
        if phase.casefold() in seen:
            fault(
                line,
                "phase",
                f"{phase!r} stands in row {seen[phase.casefold()]} too",
                "each phase once",
                "Remove one of the rows",
            )
        seen.setdefault(phase.casefold(), line)
        role = row.get("role") or (keys.ROLE_OTHER if given_roles or i else keys.ROLE_BASELINE)
        if role not in keys.ROLES:
            near = nearest(role, keys.ROLES)
            fault(
                line,
                "role",
                f"{role!r}",
                f"one of {_listed(keys.ROLES)}",
                f"Write {near}" if near else "Write one of these, or other",
            )
        numbers = {}
        for column in ("order", "time"):
            text = row.get(column, "")
            numbers[column] = _number(text)
            if text and numbers[column] is None:
                fault(
                    line,
                    column,
                    f"{text!r}",
                    "a number" + (" or nothing" if column == "time" else ""),
                    "Write a number with a point",
                )
        colour = row.get("colour", "")
        if colour and not re.fullmatch(r"#[0-9A-Fa-f]{6}", colour):
            fault(line, "colour", f"{colour!r}", "six hexadecimal digits such as #0072B2", "Write it so, or leave it empty")
        made.append(
            {
                "phase": phase,
                "name": row.get("name") or phase,
                "role": role,
                "order": numbers["order"] if numbers["order"] is not None else i + 1,
                "time": numbers["time"],
                "colour": colour,
            }
        )
    baselines = [row["phase"] for row in made if row["role"] == keys.ROLE_BASELINE]
    if len(baselines) > 1:
        fault(None, "role", f"{_listed(baselines)} are all baseline", "one baseline", "Give the others another role")
    frame = pd.DataFrame(made, columns=list(PHASE_COLUMNS))
    frame = frame.sort_values(["order", "phase"], kind="stable", ignore_index=True)
    if "time" not in header:
        # primary resistance is a branch beside the baseline, never a point between baseline and progression
        on_axis = frame["role"] != keys.ROLE_PRIMARY
        frame["time"] = np.where(on_axis, on_axis.cumsum() - 1, np.nan)
    frame["time"] = frame["time"].astype(float)
    return _numbered_and_coloured(frame), problems


def _numbered_and_coloured(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.copy()
    frame["order"] = np.arange(1, len(frame) + 1)
    free = [colour for colour in PALETTE if colour not in set(frame["colour"].str.upper())] or list(PALETTE)
    colours, used = [], 0
    for colour in frame["colour"]:
        if not colour:
            colour, used = free[used % len(free)], used + 1
        colours.append(colour)
    frame["colour"] = colours
    return frame


def phases_from_list(text: str, known: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    """Phases from an ordered comma list whose first is the baseline; a phase of `known` keeps its name, role and colour.

    A phase that `known` places beside the time axis stays beside it.
    """
    words = [word.strip() for word in text.split(",")]
    problems = []

    def fault(value: str, expected: str, mend: str) -> None:
        problems.append(Problem("phase", f"--phases {text}: {value}", expected, mend))

    if len(words) == 1 and (re.search(r"\.(tsv|csv|txt)$", words[0], re.IGNORECASE) or "/" in words[0]):
        fault("no such file", "a phase table, or phases separated by commas", "Check the spelling of the path")
        return known.iloc[:0], problems
    rows = []
    table = known.set_index("phase")
    seen: set[str] = set()
    for i, word in enumerate(words):
        if not keys.ID_PATTERN.match(word):
            fault(
                f"{word!r} is not a name",
                "letters, digits, _ . - starting with a letter or digit",
                "Write healthy,tumour for example",
            )
            continue
        if word.casefold() in seen:
            fault(f"{word!r} is named twice", "each phase once", "Remove one of them")
        seen.add(word.casefold())
        is_known = word in table.index
        role = table.at[word, "role"] if is_known else keys.ROLE_OTHER
        if i == 0:
            role = keys.ROLE_BASELINE
        elif role == keys.ROLE_BASELINE:
            role = keys.ROLE_OTHER
        beside = is_known and i > 0 and math.isnan(table.at[word, "time"])
        rows.append(
            {
                "phase": word,
                "name": table.at[word, "name"] if is_known else word,
                "role": role,
                "order": i + 1,
                "time": math.nan if beside else float(sum(not math.isnan(row["time"]) for row in rows)),
                "colour": table.at[word, "colour"] if is_known else "",
            }
        )
    frame = pd.DataFrame(rows, columns=list(PHASE_COLUMNS))
    return (_numbered_and_coloured(frame) if rows else frame), problems


# --- samplesheet


def _number(text: str) -> float | None:
    """The finite number that `text` is, or None."""
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def check_sheet(sheet: pd.DataFrame, header: Sequence[str], phases: Sequence[str]) -> list[Problem]:
    """Everything wrong with a samplesheet, in the order of its rows.

    Parameters
    ----------
    sheet
        one row per sample, all text, missing = empty; `_row` = row in the user's file, `_<file column>_found` = file,
        directory, missing or empty.
    header
        column names as written, repeated ones included.
    phases
        the phases that may occur.
    """
    problems = [
        Problem(name, f"named {header.count(name)} times in the header", "each column once", "Rename or remove one of them")
        for name in sorted({name for name in header if header.count(name) > 1})
    ]
    users = [name for name in dict.fromkeys(header) if name != "_row" and name not in {f"_{c}_found" for c in FILE_COLUMNS}]
    for name in REQUIRED:
        if name not in users:
            near = nearest(name, set(users) - set(KNOWN_COLUMNS))
            mend = f"Rename {near} to {name}" if near else "Add it"
            problems.append(Problem(name, f"missing; columns are {_listed(users)}", f"the columns {_listed(REQUIRED)}", mend))
    for name in users:
        if name not in KNOWN_COLUMNS and not re.fullmatch(TRAIT_PREFIX + r"[A-Za-z0-9_]+", name):
            near = nearest(name, KNOWN_COLUMNS)
            mend = f"Rename it to {near}" if near else "Remove it"
            own = "letters, digits and _ after trait_" if name.startswith(TRAIT_PREFIX) else f"one of {_listed(KNOWN_COLUMNS)}"
            mend += (
                "" if name.startswith(TRAIT_PREFIX) else f", or to trait_{re.sub('[^A-Za-z0-9_]', '_', name)} when it is yours"
            )
            problems.append(Problem(name, "unknown column", own, mend))
    if sheet.empty:
        problems.append(Problem("", "the samplesheet has no row", "one row per sample", "Add the samples"))
        return problems

    by_row = sheet.sort_values("_row", kind="stable")
    cell_problems = []
    for record in by_row.to_dict("records"):
        cell_problems += _row_problems(record, phases)
    cell_problems += _repeats(by_row)
    cell_problems += _patient_contradictions(by_row)
    cell_problems += _mixed_traits(by_row)
    return problems + sorted(cell_problems, key=lambda p: (p.row is None, p.row or 0))


def _row_problems(record: dict[str, str], phases: Sequence[str]) -> list[Problem]:
    found = []
    row, sample = int(record["_row"]), record.get(keys.SAMPLE, "")

    def fault(column: str, value: str, expected: str, mend: str) -> None:
        found.append(Problem(column, value, expected, mend, row, sample))

    for name in REQUIRED:
        if record.get(name) == "":
            fault(name, "empty", "a value", f"Fill in the {name}")
    for name in ID_COLUMNS:
        if record.get(name) and not keys.ID_PATTERN.match(record[name]):
            clean = re.sub(r"^[^A-Za-z0-9]+", "", re.sub(r"[^A-Za-z0-9_.-]+", "_", record[name]))
            mend = f"Rename it, to {clean} for example" if clean else "Rename it"
            fault(name, f"{record[name]!r} given", "letters, digits, _ . - starting with a letter or digit", mend)
    phase = record.get(keys.PHASE, "")
    if phase and phase not in phases:
        near = nearest(phase, phases)
        mend = f"Write {near}" if near else "Use one of these, or name your own with --phases"
        fault(keys.PHASE, f"{phase!r} given", f"one of {_listed(phases)}", mend)
    for name in FILE_COLUMNS:
        if record.get(f"_{name}_found") == "missing" and record.get(name):
            mend = "Check the spelling; a relative path starts at the folder of the samplesheet"
            fault(name, f"{record[name]!r} is not there", "a file or folder that exists", mend)
    if record.get("raw_path") and _same_place(record["raw_path"]) == _same_place(record.get("path", "")):
        fault("raw_path", "the same as path", "the unfiltered matrix", "Name the unfiltered matrix, or leave it empty")
    if record.get("treated", "") not in ("", "yes", "no"):
        near = {"y": "yes", "true": "yes", "1": "yes", "n": "no", "false": "no", "0": "no"}.get(
            record["treated"].lower(), record["treated"].lower()
        )
        mend = f"Write {near}" if near in ("yes", "no") else "Write yes when the biopsy was taken under or after therapy, else no"
        fault("treated", f"{record['treated']!r} given", "yes or no", mend)
    for name, (low, high, whole) in NUMBER_COLUMNS.items():
        text = record.get(name, "")
        if not text:
            continue
        value = _number(text)
        limits = f"{low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
        expected = f"a {'whole ' if whole else ''}number, {limits}"
        if value is None:
            comma = not whole and bool(re.fullmatch(r"[+-]?\d+,\d+", text))
            mend = f"Write {text.replace(',', '.')}" if comma else "Write a number, or leave it empty for the default"
            fault(name, f"{text!r} given", expected, mend)
        elif not low <= value <= high or (whole and value != int(value)):
            fault(name, f"{text} given", expected, "Correct it, or leave it empty for the default")
        elif name in MEASURED_PCT and 0 < value <= 1:
            fault(name, f"{text} given", "a percentage, 0 to 100", f"Write {100 * value:g} if this is a share")
    text = record.get(DOUBLET_RATE, "")
    if text and text != "auto":
        value = _number(text)
        if value is None or not 0 < value < 1:
            mend = f"Write {value / 100:g} if this is a percentage" if value and 1 <= value < 100 else "Write 0.06 for example"
            fault(DOUBLET_RATE, f"{text!r} given", "a share between 0 and 1, or auto", mend)
    return found


def _same_place(path: str) -> str:
    """A path in one spelling: `./a/`, `a` and `b/../a` are one place; a URL keeps its scheme."""
    scheme, mark, rest = path.rpartition("://")
    return scheme + mark + posixpath.normpath(rest) if rest else ""


def _repeats(sheet: pd.DataFrame) -> list[Problem]:
    """Samples and paths that occur twice; ids and words that differ only in case."""
    found = []
    samples = sheet.get(keys.SAMPLE, pd.Series("", index=sheet.index))
    rows = sheet["_row"].astype(int)

    def rows_of(mask: pd.Series) -> str:
        return _listed(str(row) for row in rows[mask])

    for column, place, what, mend in (
        (keys.SAMPLE, str, "each sample once", "Rename one of them, or remove the row"),
        ("path", _same_place, "a matrix of its own for each sample", "Correct the path, or remove the row"),
    ):
        if column not in sheet:
            continue
        places = sheet[column].map(place)
        for value in dict.fromkeys(places[(places != "") & places.duplicated(keep=False)]):
            mask = places == value
            first = mask.idxmax()
            text = f"{sheet.at[first, column]!r} stands in rows {rows_of(mask)}"
            found.append(Problem(column, text, what, mend, int(rows[first]), samples[first]))
    for column in (*ID_COLUMNS, "response", "site", "chemistry"):
        if column not in sheet:
            continue
        folds = sheet[column].str.casefold()
        for fold in dict.fromkeys(folds[folds != ""]):
            spellings = sorted(set(sheet[column][folds == fold]))
            if len(spellings) > 1:
                mask = folds == fold
                first = mask.idxmax()
                text = f"{_listed(spellings)} in rows {rows_of(mask)} differ only in upper and lower case"
                why = "one spelling, or ids that differ in more (some disks keep one file for both)"
                found.append(Problem(column, text, why, "Write them alike, or rename one", int(rows[first]), samples[first]))
    return found


def _patient_contradictions(sheet: pd.DataFrame) -> list[Problem]:
    if not {keys.PATIENT, "response"} <= set(sheet.columns):
        return []
    found = []
    given = sheet[(sheet[keys.PATIENT] != "") & (sheet["response"] != "")]
    for patient, group in given.groupby(keys.PATIENT, sort=True):
        if group["response"].nunique() > 1:
            words = _listed(f"{r} (row {int(n)})" for r, n in zip(group["response"], group["_row"], strict=True))
            mend = "Give all samples of the patient the same response"
            text = f"patient {patient} has {words}"
            first = group.iloc[0]
            found.append(
                Problem("response", text, "one response per patient", mend, int(first["_row"]), first.get(keys.SAMPLE, ""))
            )
    return found


def _mixed_traits(sheet: pd.DataFrame) -> list[Problem]:
    found = []
    for column in sorted(name for name in sheet.columns if name.startswith(TRAIT_PREFIX)):
        given = sheet[sheet[column] != ""]
        is_number = given[column].map(lambda text: _number(text) is not None).astype(bool)
        if is_number.any() and not is_number.all():
            odd = given[~is_number] if is_number.sum() * 2 >= len(given) else given[is_number]
            words = _listed(f"{v!r} (row {int(n)})" for v, n in zip(odd[column], odd["_row"], strict=True))
            text = f"{is_number.sum()} numbers and {(~is_number).sum()} words; the odd ones are {words}"
            mend = "Leave unknown values empty; write groups as words (grade_2)"
            found.append(Problem(column, text, "numbers only, or words only", mend))
    return found


def base_name(path: str) -> str:
    """The last part of a path or URL, so that no folder of a machine leaves it."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def sample_table(sheet: pd.DataFrame, defaults: dict[str, str]) -> pd.DataFrame:
    """One row per sample, sorted by id: identity, categories, traits, file names, thresholds in force; all text.

    Parameters
    ----------
    defaults
        text of each threshold's default; a sample's own value goes before it. Measurements have no default.
    """
    sheet = sheet.sort_values(keys.SAMPLE, kind="stable", ignore_index=True)
    out = sheet[[keys.SAMPLE, keys.PATIENT, keys.PHASE]].copy()
    given = sheet.get(keys.BATCH, pd.Series("", index=sheet.index))
    out[keys.BATCH] = given.where(given != "", keys.NO_BATCH)
    traits = sorted(name for name in sheet.columns if name.startswith(TRAIT_PREFIX))
    for column in (*CATEGORY_COLUMNS, *traits):
        if column in sheet:
            out[column] = sheet[column]
    for column in FILE_COLUMNS:
        if column in sheet:
            out["file" if column == "path" else column.replace("_path", "_file")] = sheet[column].map(base_name)
    for column in SETTINGS:
        own = sheet.get(column, pd.Series("", index=sheet.index))
        out[column] = [_plain_number(text or defaults.get(column, "")) for text in own]
    return out


def _plain_number(text: str) -> str:
    """`300.0` as `300`: a threshold of whole numbers must be readable as one."""
    value = _number(text)
    if value is None:
        return text
    return str(int(value)) if value == int(value) else format_float(value)


# --- contrasts


@dataclass(frozen=True)
class Contrast:
    """Two groups of samples; effects are side A minus side B."""

    name: str
    side_a: str
    side_b: str
    samples_a: tuple[str, ...]
    samples_b: tuple[str, ...]
    kind: str  # role of side A's phase, successive, treated or declared


def _samples_where(samples: pd.DataFrame, column: str, values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(samples.loc[samples[column].isin(list(values)), keys.SAMPLE]))


def _phase_pairs(phases: pd.DataFrame, observed: set[str] | None) -> list[tuple[str, str, str]]:
    """(phase A, phase B, kind): every phase against the baseline, then each against the one before it in time.

    `observed` limits the pairs to phases with samples; None gives the pairs of the whole table.
    """
    here = phases if observed is None else phases[phases["phase"].isin(observed)]
    rank = {keys.ROLE_PRIMARY: 0, keys.ROLE_ACQUIRED: 1, keys.ROLE_RESPONSE: 2}
    baseline = here.loc[here["role"] == keys.ROLE_BASELINE, "phase"].tolist()
    pairs = []
    if baseline:
        others = here[here["role"] != keys.ROLE_BASELINE]
        ordered = sorted(
            zip(others["role"], others["order"], others["phase"], strict=True), key=lambda o: (rank.get(o[0], 3), o[1])
        )
        pairs = [(phase, baseline[0], role) for role, _, phase in ordered]
    timed = here[here["time"].notna()].sort_values(["time", "order"])
    # phases at one time stand beside each other: none of them is before the other
    steps = [group["phase"].tolist() for _, group in timed.groupby("time", sort=True)]
    known = {(a, b) for a, b, _ in pairs}
    for before, after in pairwise(steps):
        pairs += [(a, b, "successive") for a in after for b in before if (a, b) not in known]
    return pairs


def default_contrasts(samples: pd.DataFrame, phases: pd.DataFrame) -> list[Contrast]:
    """Contrasts with at least one sample a side: phases against the baseline, successive phases, treated against untreated."""
    found = [
        Contrast(f"{a}_vs_{b}", a, b, _samples_where(samples, keys.PHASE, [a]), _samples_where(samples, keys.PHASE, [b]), kind)
        for a, b, kind in _phase_pairs(phases, set(samples[keys.PHASE]))
    ]
    if "treated" in samples:
        sides = _samples_where(samples, "treated", ["yes"]), _samples_where(samples, "treated", ["no"])
        if all(sides):
            found.append(Contrast("treated_vs_untreated", "treated:yes", "treated:no", *sides, "treated"))
    return found


def declared_contrasts(
    rows: Sequence[dict[str, str]], header: Sequence[str], samples: pd.DataFrame, phases: Sequence[str]
) -> tuple[list[Contrast], list[Problem]]:
    """Contrasts of a table with the columns contrast, side_a, side_b; a side is phases or `column:value`.

    A contrast may lack samples on a side (a phase that nobody has yet); the caller says so and leaves it out.
    """
    problems: list[Problem] = []
    expected_columns = ("contrast", "side_a", "side_b")
    for column in sorted({name for name in header if header.count(name) > 1}):
        text = f"contrast table: named {header.count(column)} times"
        problems.append(Problem(column, text, "each column once", "Rename or remove one of them"))
    for column in expected_columns:
        if column not in header:
            mend = "Add it; the table has the columns contrast, side_a, side_b"
            problems.append(Problem(column, f"contrast table: missing; columns are {_listed(header)}", "the column", mend))
    for column in sorted(set(header) - set(expected_columns)):
        near = nearest(column, expected_columns)
        mend = f"Rename it to {near}" if near else "Remove it"
        problems.append(Problem(column, "contrast table: unknown column", _listed(expected_columns), mend))
    if any(column not in header for column in expected_columns):
        return [], problems
    if not rows:
        problems.append(Problem("contrast", "contrast table: no row", "one row per contrast", "Add one, or give no table"))
    found: list[Contrast] = []
    seen: dict[str, int] = {}
    for i, row in enumerate(rows):
        line, name = i + 2, row["contrast"]
        n_before = len(problems)
        if not keys.ID_PATTERN.match(name):
            mend = "Name it POST_vs_PRE for example"
            expected = "letters, digits, _ . - starting with a letter or digit"
            problems.append(Problem("contrast", f"contrast table: {name!r}", expected, mend, line))
        if name.casefold() in seen:
            text = f"contrast table: {name!r} stands in row {seen[name.casefold()]} too"
            problems.append(Problem("contrast", text, "each contrast once", "Rename one of them", line))
        seen.setdefault(name.casefold(), line)
        sides = []
        for column in ("side_a", "side_b"):
            members, fault = _side(row[column], samples, phases)
            if fault:
                value, expected, mend = fault
                problems.append(Problem(column, f"contrast table, contrast {name}: {value}", expected, mend, line))
            sides.append(members)
        shared = sorted(set(sides[0]) & set(sides[1]))
        if shared and len(problems) == n_before:
            text = f"contrast table, contrast {name}: {_listed(shared)} on both sides"
            problems.append(Problem("side_b", text, "no sample on both sides", "Choose sides that exclude each other", line))
        found.append(Contrast(name, row["side_a"], row["side_b"], *sides, "declared"))
    return found, problems


def _side(text: str, samples: pd.DataFrame, phases: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, str, str] | None]:
    """Samples of one side, or what was found, what was expected, and the mend."""
    choices = [
        c for c in samples.columns if c in (keys.PATIENT, keys.PHASE, keys.BATCH, *CATEGORY_COLUMNS) or c.startswith(TRAIT_PREFIX)
    ]
    if not text:
        return (), ("empty", "phases, or column:value", "Write POST, or response:R for example")
    column, mark, values = text.partition(":")
    if not mark:
        column, values = keys.PHASE, text
    elif column not in choices:
        near = nearest(column, choices)
        return (), (
            f"column {column!r}",
            f"one of {_listed(choices)}",
            f"Write {near}:{values}" if near else "Add it to the samplesheet",
        )
    known = list(phases) if column == keys.PHASE else sorted(set(samples[column]) - {""})
    words = [word.strip() for word in values.split(",")]
    for word in words:
        if word not in known:
            near = nearest(word, known)
            mend = f"Write {near}" if near else "Use a value that occurs"
            return (), (f"{column} {word!r}", f"one of {_listed(known)}", mend)
    return _samples_where(samples, column, words), None


def p_min_attainable(n_a: int, n_b: int, paired: bool) -> float:
    """Smallest two-sided p of an exact rank test: rank-sum 2/C(n_a + n_b, n_a), signed-rank 2/2^n with n pairs.

    Returns NaN when a side is empty; never above 1.
    """
    if min(n_a, n_b) < 1:
        return math.nan
    return min(1.0, 2 / 2**n_a if paired else 2 / math.comb(n_a + n_b, n_a))


def assess(contrast: Contrast, samples: pd.DataFrame, pairing: str, min_replicates: int) -> dict[str, object]:
    """One row of contrasts.tsv: patients per side, pairs, what the contrast can carry.

    Parameters
    ----------
    pairing
        `auto`: paired when at least two pairs exist and they are at least half of the patients; `paired`, `unpaired`: always.
    min_replicates
        patients (or pairs) needed on each side for a test.
    """
    patient_of = dict(zip(samples[keys.SAMPLE], samples[keys.PATIENT], strict=True))
    patients_a = sorted({patient_of[s] for s in contrast.samples_a})
    patients_b = sorted({patient_of[s] for s in contrast.samples_b})
    everyone = set(patients_a) | set(patients_b)
    pairs = sorted(set(patients_a) & set(patients_b))
    paired = pairing == "paired" or (
        pairing == "auto" and len(pairs) >= max(MIN_PAIRS, min_replicates) and len(pairs) >= PAIRED_SHARE * len(everyone)
    )
    dropped = sorted(everyone - set(pairs)) if paired else []
    used_a = [s for s in contrast.samples_a if patient_of[s] not in dropped]
    used_b = [s for s in contrast.samples_b if patient_of[s] not in dropped]
    patients_a = [p for p in patients_a if p not in dropped]
    patients_b = [p for p in patients_b if p not in dropped]
    n_a, n_b = len(patients_a), len(patients_b)
    status, reasons, p_min = keys.OK, [], p_min_attainable(n_a, n_b, paired)
    if paired:
        reasons.append(f"paired: {plural(len(pairs), 'patient')} on both sides")
        if dropped:
            status = keys.WARNING
            reasons.append(f"left out, on one side only: {_listed(dropped)}")
    elif pairs:
        status = keys.WARNING
        reasons.append(f"partially_paired: {_listed(pairs)} on both sides, {plural(len(everyone), 'patient')} in all")
    if min(n_a, n_b) < min_replicates:
        status, p_min = keys.NO_REPLICATES, math.nan  # no test, hence no p
        found = f"{plural(n_a, 'patient')} in {contrast.side_a}, {n_b} in {contrast.side_b}"
        reasons.insert(0, f"{found}; {min_replicates} needed on each side")
    else:
        if pairs and not paired:
            reasons.append("tested as unpaired, which is the cautious side")
        if p_min > ALPHA:
            many = plural(n_a, "pair") if paired else f"{n_a} against {n_b} patients"
            reasons.append(f"no rank test of {many} can give p below {p_min:.3g}: read effects, not p")
    n_least = min(n_a, n_b)
    evidence = keys.REPLICATED if n_least >= REPLICATED_FROM else keys.LIMITED if n_least >= MIN_PAIRS else keys.SINGLE_PATIENT
    return {
        "contrast": contrast.name,
        "side_a": contrast.side_a,
        "side_b": contrast.side_b,
        "samples_a": ",".join(used_a),
        "samples_b": ",".join(used_b),
        "n_patients_a": n_a,
        "n_patients_b": n_b,
        "n_pairs": len(pairs),
        "paired": paired,
        "p_min_attainable": p_min,
        "status": status,
        "reason": "; ".join(reasons),
        "kind": contrast.kind,
        "n_samples_a": len(used_a),
        "n_samples_b": len(used_b),
        "patients_a": ",".join(patients_a),
        "patients_b": ",".join(patients_b),
        "patients_dropped": ",".join(dropped),
        "evidence": evidence,
    }


def contrast_table(contrasts: Sequence[Contrast], samples: pd.DataFrame, pairing: str, min_replicates: int) -> pd.DataFrame:
    """contrasts.tsv: one row per contrast, in the order given."""
    rows = [assess(contrast, samples, pairing, min_replicates) for contrast in contrasts]
    return pd.DataFrame(rows, columns=list(CONTRAST_COLUMNS)).astype({"paired": bool, "p_min_attainable": float})


# --- confounding


def cramers_v(a: Sequence[str], b: Sequence[str]) -> float:
    """Cramer's V of two categorical variables, sqrt(chi2 / (n min(r - 1, c - 1))) without correction; NaN for a constant."""
    table = pd.crosstab(np.asarray(a, dtype=object), np.asarray(b, dtype=object)).to_numpy(dtype=float)
    least = min(table.shape) - 1 if table.size else 0
    if least < 1:
        return math.nan
    n = table.sum()
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / n
    chi2 = ((table - expected) ** 2 / expected).sum()
    return float(min(1.0, math.sqrt(chi2 / (n * least))))


def is_aliased(factor: Sequence[str], phase: Sequence[str]) -> bool:
    """True when the model matrix of ~ factor + phase loses rank: some effect of phase cannot be told from the factor."""
    columns = [np.ones(len(factor))]
    for values in (np.asarray(factor, dtype=object), np.asarray(phase, dtype=object)):
        columns += [(values == level).astype(float) for level in sorted(set(values))[1:]]
    if len(set(phase)) < 2 or len(set(factor)) < 2:
        return False
    matrix = np.column_stack(columns)
    return bool(np.linalg.matrix_rank(matrix) < matrix.shape[1])


def confounding_table(samples: pd.DataFrame, contrasts: pd.DataFrame) -> pd.DataFrame:
    """confounding.tsv: each factor that was given against phase, and against the sides of each contrast.

    Samples without a value of the factor are left out of its rows (`n_samples`).
    """
    rows = []
    of_factor: dict[str, set[str]] = {}
    for row in contrasts.itertuples():
        of_factor.setdefault(row.side_a.partition(":")[0], set()).add(row.contrast)
    groupings = [("phase", dict(zip(samples[keys.SAMPLE], samples[keys.PHASE], strict=True)))]
    for row in contrasts.itertuples():
        sides = {s: "a" for s in row.samples_a.split(",") if s} | {s: "b" for s in row.samples_b.split(",") if s}
        groupings.append((row.contrast, sides))
    for factor in FACTORS:
        if factor not in samples:
            continue
        values = dict(zip(samples[keys.SAMPLE], samples[factor], strict=True))
        if not any(v and not (factor == keys.BATCH and v == keys.NO_BATCH) for v in values.values()):
            continue
        for name, group in groupings:
            if name in of_factor.get(factor, ()):
                continue  # the sides are the factor's own levels
            # a missing batch is a batch of its own (`none`), as integration will see it
            members = [s for s in sorted(group) if values[s]]
            a, b = [values[s] for s in members], [group[s] for s in members]
            rows.append(
                {
                    "factor": factor,
                    "phase_factor": name,
                    "cramers_v": cramers_v(a, b),
                    "aliased": is_aliased(a, b),
                    "n_levels": len(set(a)),
                    "n_samples": len(members),
                }
            )
    columns = ["factor", "phase_factor", "cramers_v", "aliased", "n_levels", "n_samples"]
    return pd.DataFrame(rows, columns=columns).astype({"aliased": bool, "cramers_v": float})


# --- what the design can answer


def _title(phase: str, phases: pd.DataFrame) -> str:
    name = phases.set_index("phase")["name"].get(phase, phase)
    return phase if name == phase else f"{name} ({phase})"


def timed_phases(samples: pd.DataFrame, phases: pd.DataFrame) -> list[str]:
    """The phases on the time axis that have samples, in the order of time."""
    timed = phases[phases["time"].notna() & phases["phase"].isin(set(samples[keys.PHASE]))]
    return timed.sort_values(["time", "order"])["phase"].tolist()


def longitudinal_patients(samples: pd.DataFrame, phases: pd.DataFrame) -> dict[str, list[str]]:
    """Patients with at least two phases on the time axis, and those phases in order."""
    order = timed_phases(samples, phases)
    found = {}
    for patient, group in samples.groupby(keys.PATIENT, sort=True):
        own = [phase for phase in order if phase in set(group[keys.PHASE])]
        if len(own) > 1:
            found[str(patient)] = own
    return found


def _contrast_answer(row: pd.Series, confounding: pd.DataFrame) -> tuple[str, str]:
    counts = f"{row['n_patients_a']} against {plural(row['n_patients_b'], 'patient')}"
    if row["paired"]:
        counts = plural(row["n_pairs"], "pair")
    mine = confounding[
        (confounding["phase_factor"] == row["contrast"]) & confounding["aliased"] & confounding["factor"].isin(TECHNICAL_FACTORS)
    ]
    if row["status"] == keys.NO_REPLICATES:
        return keys.EXPLORATORY, f"{counts}: too few for a test; what is seen describes these patients only"
    if len(mine):
        return keys.EXPLORATORY, f"{counts}, but {_listed(mine['factor'])} cannot be told apart from the sides"
    if row["p_min_attainable"] > ALPHA:
        return keys.EXPLORATORY, f"{counts}: no rank test can give p below {row['p_min_attainable']:.3g}; read effect sizes"
    return keys.YES, f"{counts}; smallest p of a rank test {row['p_min_attainable']:.3g}"


def question_table(
    samples: pd.DataFrame, phases: pd.DataFrame, contrasts: pd.DataFrame, confounding: pd.DataFrame, min_replicates: int
) -> pd.DataFrame:
    """questions.tsv: question, answer (yes, exploratory, no), why."""
    rows: list[tuple[str, str, str]] = []
    by_name = {row["contrast"]: row for _, row in contrasts.iterrows()}
    declared = set(contrasts.loc[contrasts["kind"] == "declared", "contrast"])
    asked = set()
    if not declared:
        observed = set(samples[keys.PHASE])
        whole = _phase_pairs(phases, None)
        pairs = whole + [pair for pair in _phase_pairs(phases, observed) if pair[:2] not in {p[:2] for p in whole}]
        for a, b, _kind in pairs:
            name = f"{a}_vs_{b}"
            question = f"How does {_title(a, phases)} differ from {_title(b, phases)}?"
            if name in by_name:
                rows.append((question, *_contrast_answer(by_name[name], confounding)))
                asked.add(name)
            else:
                absent = [phase for phase in (a, b) if phase not in observed]
                why = f"no sample of {' and '.join(absent)}" if absent else "the phases are not successive in this cohort"
                rows.append((question, keys.NO, why))
    for name, row in by_name.items():
        if name not in asked:
            side = {"treated:yes": "treated", "treated:no": "untreated"}
            question = f"How does {side.get(row['side_a'], row['side_a'])} differ from {side.get(row['side_b'], row['side_b'])}?"
            rows.append((question, *_contrast_answer(row, confounding)))

    along = longitudinal_patients(samples, phases)
    question = "How does a tumour change within one patient along the therapy (clones, states)?"
    words = "; ".join(f"{patient}: {', '.join(own)}" for patient, own in along.items())
    if len(along) >= min_replicates:
        rows.append((question, keys.YES, f"{plural(len(along), 'patient')} with several phases ({words})"))
    elif along:
        rows.append(
            (
                question,
                keys.EXPLORATORY,
                f"{plural(len(along), 'patient')} with several phases ({words}): a description, not a rule",
            )
        )
    else:
        rows.append((question, keys.NO, "no patient has samples of two phases on the time axis"))

    order = timed_phases(samples, phases)
    per_phase = samples.groupby(keys.PHASE)[keys.PATIENT].nunique()
    question = "Is there a trend over the phases of the therapy?"
    counts = _listed(f"{phase} {per_phase[phase]}" for phase in order)
    if len(order) < 3:
        have = f"has {plural(len(order), 'phase')} of the time axis ({counts})" if order else "has no phase of the time axis"
        rows.append((question, keys.NO, f"a trend needs three phases, the cohort {have}"))
    elif min(per_phase[phase] for phase in order) < min_replicates:
        rows.append((question, keys.EXPLORATORY, f"patients per phase: {counts}; {min_replicates} needed in each"))
    else:
        rows.append((question, keys.YES, f"patients per phase: {counts}"))

    for factor in TECHNICAL_FACTORS:
        mine = confounding[(confounding["factor"] == factor) & (confounding["phase_factor"] == "phase")]
        question = f"Can phase be told apart from {factor}?"
        if mine.empty:
            if factor == keys.BATCH:
                why = "the samplesheet gives no batch: a difference between runs would look like a difference between phases"
                rows.append((question, keys.NO, why))
            continue
        row = mine.iloc[0]
        if math.isnan(row["cramers_v"]):
            constant = factor if row["n_levels"] < 2 else "phase"
            rows.append((question, keys.YES if constant == factor else keys.NO, f"there is one {constant} only"))
        elif row["aliased"]:
            rows.append((question, keys.NO, f"aliased: ~ {factor} + phase loses rank (Cramer's V {row['cramers_v']:.2f})"))
        else:
            rows.append((question, keys.YES, f"Cramer's V {row['cramers_v']:.2f}; ~ {factor} + phase keeps its rank"))
    return pd.DataFrame(rows, columns=["question", "answer", "why"])


def cohort_warnings(samples: pd.DataFrame, phases: pd.DataFrame, contrasts: pd.DataFrame, confounding: pd.DataFrame) -> list[str]:
    """What a reader must know before using any result of this cohort, one sentence each."""
    found = []
    for factor in TECHNICAL_FACTORS:
        mine = confounding[(confounding["factor"] == factor) & confounding["aliased"]]
        if len(mine):
            row = mine.iloc[0]
            named = [name for name in mine["phase_factor"] if name != "phase"]
            of = f" (contrasts {_listed(named)})" if named else ""
            found.append(
                f"aliased: {factor} and phase cannot be told apart{of}, Cramer's V {row['cramers_v']:.2f}; a difference "
                f"between phases may be one between {factor} levels, and integrating over {factor} removes both"
            )
    for factor in FACTORS:
        if factor in samples:
            absent = samples[factor].isin(["", keys.NO_BATCH] if factor == keys.BATCH else [""])
            if absent.any() and not absent.all():
                then = (
                    f"they form one batch `{keys.NO_BATCH}`"
                    if factor == keys.BATCH
                    else "left out of its rows in confounding.tsv"
                )
                found.append(f"{factor} is missing for {_listed(samples.loc[absent, keys.SAMPLE])}: {then}")
    baseline = phases.loc[phases["role"] == keys.ROLE_BASELINE, "phase"].tolist()
    per_phase = samples.groupby(keys.PHASE)[keys.PATIENT].nunique()
    if not baseline:
        found.append("no phase has the role baseline: nothing is compared with a baseline")
    elif baseline[0] not in per_phase.index:
        found.append(f"no sample of the baseline {baseline[0]}: nothing can be compared with the time before therapy")
    if samples[keys.PATIENT].nunique() == 1:
        found.append(f"one patient ({samples[keys.PATIENT].iloc[0]}): every result describes this patient and no other")
    if len(per_phase) == 1:
        found.append(f"one phase ({per_phase.index[0]}): phases cannot be compared")
    else:
        single = [phase for phase in phases["phase"] if per_phase.get(phase, 0) == 1]
        if single:
            found.append(f"one patient in {_listed(single)}: what is seen there describes this patient and no other")
    if contrasts.empty:
        found.append("no contrast: no two groups of samples to compare")
    elif (contrasts["status"] == keys.NO_REPLICATES).all():
        found.append("no contrast has enough patients for a test: effect sizes only")
    return found


def contradictory_patients(samples: pd.DataFrame, phases: pd.DataFrame) -> dict[str, str]:
    """Patients with primary resistance and also response or acquired resistance, which exclude each other."""
    role = dict(zip(phases["phase"], phases["role"], strict=True))
    found = {}
    for patient, group in samples.groupby(keys.PATIENT, sort=True):
        own = sorted(set(group[keys.PHASE]))
        roles = {role[phase] for phase in own}
        if keys.ROLE_PRIMARY in roles and roles & {keys.ROLE_RESPONSE, keys.ROLE_ACQUIRED}:
            found[str(patient)] = f"has {_listed(own)}: primary resistance means that there was no response; check the phases"
    return found


def summary(samples: pd.DataFrame, phases: pd.DataFrame) -> str:
    """`11 samples of 9 patients in 4 phases (PRE 4, RES 1, POST 4, PRE-R 2)`."""
    per_phase = samples[keys.PHASE].value_counts()
    present = [phase for phase in phases["phase"] if phase in per_phase.index]
    counts = _listed(f"{phase} {per_phase[phase]}" for phase in present)
    patients = plural(samples[keys.PATIENT].nunique(), "patient")
    return f"{plural(len(samples), 'sample')} of {patients} in {plural(len(present), 'phase')} ({counts})"


def describe(
    samples: pd.DataFrame,
    phases: pd.DataFrame,
    contrasts: pd.DataFrame,
    confounding: pd.DataFrame,
    questions: pd.DataFrame,
    warnings: Sequence[str],
) -> list[str]:
    """The design in words, one line each, for the terminal and the log."""
    lines = [f"Design: {summary(samples, phases)}", "", "Contrasts (A minus B; patients, not cells, are counted):"]
    for _, row in contrasts.iterrows():
        p = "none" if math.isnan(row["p_min_attainable"]) else f"{row['p_min_attainable']:.3g}"
        how = "paired" if row["paired"] else "unpaired"
        lines.append(
            f"  {row['contrast']}: {row['n_patients_a']} against {plural(row['n_patients_b'], 'patient')}, "
            f"{plural(row['n_pairs'], 'pair')}, {how}, smallest p {p}, {row['status']}"
            + (f" ({row['reason']})" if row["reason"] else "")
        )
    if contrasts.empty:
        lines.append("  none")
    lines += ["", "Confounding with phase (Cramer's V: 0 none, 1 complete):"]
    mine = confounding[confounding["phase_factor"] == "phase"]
    for _, row in mine.iterrows():
        v = "not estimable (one level)" if math.isnan(row["cramers_v"]) else f"{row['cramers_v']:.2f}"
        lines.append(f"  {row['factor']}: {v}" + (", aliased" if row["aliased"] else ""))
    if mine.empty:
        lines.append("  unknown: the samplesheet gives none of " + _listed(FACTORS))
    for answer, title in ((keys.YES, "can answer"), (keys.EXPLORATORY, "can only explore"), (keys.NO, "cannot answer")):
        chosen = questions[questions["answer"] == answer]
        if len(chosen):
            lines += ["", f"This design {title}:"]
            lines += [f"  {row['question']} {row['why']}" for _, row in chosen.iterrows()]
    if warnings:
        lines += ["", "Read before using any result:", *(f"  {text}" for text in warnings)]
    return lines
