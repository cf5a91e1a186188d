"""Text and tables of the report: escaping, dashes for missing values, sentences from statuses, the check of promises.

No plotting and no MultiQC here (figures.py, chapters.py, page.py): everything below is strings and data frames.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from scresist import io, keys, status

DASH = "–"
SHORT_TEXT = 24  # characters that a table cell keeps on one line
SAMPLE_STEPS = ("load_sample", "flag_cells", "detect_doublets", "filter_cells")
COHORT_STEPS = (
    "check_design",
    "merge_cohort",
    "integrate_cohort",
    "cluster_cohort",
    "annotate_cells",
    "assemble_cohort",
)
# A run that began with an annotated object (--from_annotated) has this step in place of those of the samples and of these.
ANNOTATED_STEP = "load_annotated"
REPLACED_STEPS = ("merge_cohort", "integrate_cohort", "cluster_cohort", "annotate_cells")
# Once the tumour stage ran, every patient and every contrast must have a row of these.
PATIENT_STEPS = ("infer_cnv", "call_malignant", "trace_clones")
CONTRAST_STEPS = ("test_expression",)
TUMOUR_STEPS = ("subcluster_epithelium", "find_programs", "track_panels", "score_activity")
# The same for the microenvironment: samples, patients (only beside the tumour stage, whose cells it follows), cohort.
SIGNAL_STEPS = ("score_communication",)
FATE_STEPS = ("map_fates",)
MICROENVIRONMENT_STEPS = ("test_composition", "score_tcells", "compare_communication")
# What a step must have written for its unit when its status is ok or warning.
SAMPLE_TABLES = {
    "load_sample": ("load",),
    "flag_cells": ("sample_qc",),
    "detect_doublets": ("doublets",),
    "filter_cells": ("filter",),
}
COHORT_TABLES = {
    "load_annotated": ("load_annotated", "types", "marker_check"),
    "check_design": ("samples", "contrasts", "confounding", "questions", "phases"),
    "merge_cohort": ("merge", "hvg"),
    "integrate_cohort": ("integration_quality", "training"),
    "cluster_cohort": ("clusters", "markers"),
    "annotate_cells": ("annotation", "marker_check", "types", "models"),
    "test_composition": ("proportions", "composition_tests", "diversity", "beta_diversity"),
    "score_tcells": ("tcell_values", "tcell_tests"),
    "compare_communication": ("flow", "ranknet", "pathway_drivers", "comm_phase", "comm_absent"),
    "assemble_cohort": ("columns",),
    "check_recovery": ("recovery",),
}
STEP_NAMES = {
    "simulate_cohort": "simulate cohort",
    "load_annotated": "read annotated object",
    "check_design": "check design",
    "load_sample": "read matrix",
    "correct_ambient": "ambient RNA",
    "flag_cells": "cell quality",
    "detect_doublets": "doublets",
    "filter_cells": "filter",
    "merge_cohort": "merge",
    "integrate_cohort": "integration",
    "cluster_cohort": "clusters",
    "annotate_cells": "cell types",
    "infer_cnv": "copy-number profile",
    "call_malignant": "malignant cells",
    "trace_clones": "clones",
    "subcluster_epithelium": "tumour states",
    "test_expression": "expression",
    "find_programs": "programs",
    "stratify_marker": "marker stratum",
    "track_panels": "panels",
    "score_activity": "pathway activity",
    "enrich_genes": "enrichment",
    "test_composition": "composition",
    "score_tcells": "T-cell states",
    "score_communication": "communication",
    "compare_communication": "communication over phases",
    "map_fates": "fates",
    "assemble_cohort": "final object",
    "check_recovery": "recovery of planted truth",
    "build_report": "report",
}
STEP_ORDER = tuple(STEP_NAMES)
# word group -> (rank for "worst first", short text in the cell, CSS class). The sign carries the meaning without colour.
LEVELS = {
    "failed": (0, "✗ failed", "sc-failed"),
    "missing": (1, "? no status", "sc-failed"),
    "skipped": (2, "– skipped", "sc-skipped"),
    "limited": (3, "~ limited", "sc-limited"),
    "warning": (4, "! read note", "sc-warning"),
    "ok": (5, "✓ done", "sc-ok"),
}
ADJUSTED_P = 0.05  # below: a relation is worded as a finding where patients stand behind it
EVIDENCE_CLAIMS = ("replicated", "limited")  # only these may be worded as a finding (methods.md, unit of replication)


# --- escaping and numbers -------------------------------------------------------------------------------------------


def esc(value: Any) -> str:
    """Text from outside for HTML; a missing value becomes a dash."""
    return DASH if is_missing(value) else html.escape(str(value), quote=True)


def is_missing(value: Any) -> bool:
    """None, NaN, NA or empty text."""
    return value is None or value is pd.NA or (isinstance(value, float) and value != value) or value == ""


def to_number(value: Any) -> float | None:
    """The number in a table's cell, or None."""
    if is_missing(value):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if number != number else number


def number(value: Any, digits: int | None = None) -> str:
    """A number for reading: 4,812; 0.134; 1.2e-05; dash when missing.

    Parameters
    ----------
    digits
        decimals; None = three significant digits, whole numbers with thousands separators.
    """
    given = to_number(value)
    if given is None:
        return DASH
    if given in (float("inf"), float("-inf")):
        return "∞" if given > 0 else "-∞"
    if digits is not None:
        return f"{given:,.{digits}f}"
    if given == int(given) and abs(given) < 1e15:
        return f"{int(given):,}"
    if abs(given) >= 1000:
        return f"{given:,.0f}"
    return f"{given:.3g}"


def percent(part: float, whole: float, digits: int = 0) -> str:
    """`part` of `whole` in %, dash when there is no whole."""
    return DASH if not whole else f"{100 * part / whole:.{digits}f} %"


def count(n: int, singular: str, plural: str | None = None) -> str:
    """'1 sample', '11 samples'."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def listing(names: Sequence[str], most: int = 6) -> str:
    """'A, B and C'; 'A, B, C and 9 more'."""
    names = list(names)
    if len(names) > most:
        return ", ".join(names[:most]) + f" and {len(names) - most} more"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}" if names else ""


def natural(text: Any) -> list[tuple[int, int, str]]:
    """Sort key under which PRE-2 stands before PRE-10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", str(text)) if part]


# --- reading ----------------------------------------------------------------------------------------------------------


class Tables:
    """The tables of a run, staged in one folder; every cell is read as text, so that ids such as `001` stay ids."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.files = {path.name: path for path in sorted(self.folder.iterdir()) if path.is_file()} if self.folder.is_dir() else {}

    def has(self, name: str) -> bool:
        return f"{name}.tsv" in self.files

    def get(self, name: str) -> pd.DataFrame:
        """The table `<name>.tsv`, or an empty frame."""
        path = self.files.get(f"{name}.tsv")
        return _read(path) if path else pd.DataFrame()

    def of_units(self, kind: str, column: str) -> pd.DataFrame:
        """All `<unit>.<kind>.tsv` (per patient, contrast ...) one below the other; `column` names the unit of each row."""
        frames = []
        for name, path in self.files.items():
            if name.endswith(f".{kind}.tsv"):
                frame = _read(path)
                if column not in frame.columns:
                    frame.insert(0, column, name.removesuffix(f".{kind}.tsv"))
                frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def of_samples(self, kind: str) -> pd.DataFrame:
        """All `<sample>.<kind>.tsv` one below the other, with the column `sample`."""
        return self.of_units(kind, keys.SAMPLE)

    def pictures(self, kind: str) -> dict[str, bytes]:
        """Unit -> content of `<unit>.<kind>.png`: figures drawn by the step that holds the data behind them."""
        found = {name.removesuffix(f".{kind}.png"): path for name, path in self.files.items() if name.endswith(f".{kind}.png")}
        return {unit: path.read_bytes() for unit, path in sorted(found.items(), key=lambda item: natural(item[0]))}


def _read(path: Path) -> pd.DataFrame:
    if path.stat().st_size == 0:
        return pd.DataFrame()
    return io.read_tsv(path, dtype=str)


def read_status(paths: Sequence[Path]) -> pd.DataFrame:
    """All status rows, sorted by step in the order of the pipeline, then unit; step names in lower case.

    Raises
    ------
    InputError
        naming every file without the columns of a status table and every unknown status word.
    """
    frames, problems = [], []
    for path in sorted(paths, key=lambda p: p.name):
        frame = _read(path)
        absent = [name for name in status.COLUMNS if name not in frame.columns]
        if absent:
            problems.append(f"{path.name}: columns {', '.join(absent)} are missing; expected {', '.join(status.COLUMNS)}")
            continue
        unknown = sorted(set(frame["status"].dropna()) - set(status.WORDS))
        if unknown:
            problems.append(f"{path.name}: unknown status {', '.join(unknown)}; known are {', '.join(status.WORDS)}")
        frames.append(frame[list(status.COLUMNS)])
    if problems:
        raise io.InputError("status rows cannot be read:\n  - " + "\n  - ".join(problems))
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(status.COLUMNS), dtype=str)
    rows["step"] = rows["step"].str.lower()
    place = {step: at for at, step in enumerate(STEP_ORDER)}
    rows["_place"] = rows["step"].map(place).fillna(len(place))
    rows = rows.sort_values(["_place", "step", "unit_type", "unit"], kind="stable", ignore_index=True)
    return rows.drop(columns="_place").drop_duplicates(ignore_index=True)


def level(word: Any) -> str:
    """The group of a status word: failed, skipped, limited, warning, ok; `missing` where no row was written."""
    if is_missing(word):
        return "missing"
    if word == keys.OK:
        return "ok"
    if word == keys.WARNING:
        return "warning"
    for group in ("failed", "skipped"):
        if str(word).startswith(group):
            return group
    return "limited"


# --- promise against delivery ---------------------------------------------------------------------------------------


def began_annotated(rows: pd.DataFrame) -> bool:
    """Whether the run began with an annotated object; then no sample was read, filtered, merged or annotated."""
    return bool((rows["step"] == ANNOTATED_STEP).any())


def has_tumour_stage(rows: pd.DataFrame) -> bool:
    """Whether any step of the tumour stage wrote a row: the stage is left out as a whole or not at all."""
    return bool(rows["step"].isin([*PATIENT_STEPS, *CONTRAST_STEPS, *TUMOUR_STEPS]).any())


def has_microenvironment_stage(rows: pd.DataFrame) -> bool:
    """The same of the microenvironment."""
    return bool(rows["step"].isin([*SIGNAL_STEPS, *FATE_STEPS, *MICROENVIRONMENT_STEPS]).any())


def promised_steps(rows: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The steps that every sample and the cohort must have a status row of, by the way in which the run began."""
    if not began_annotated(rows):
        return SAMPLE_STEPS, COHORT_STEPS
    return (), (ANNOTATED_STEP, *(step for step in COHORT_STEPS if step not in REPLACED_STEPS))


def check_delivery(tables: Tables, rows: pd.DataFrame, cells: pd.DataFrame) -> None:
    """Compare what the design promises with what is there.

    Every sample of samples.tsv needs a status row of every sample step, the cohort one of every cohort step (of those that
    belong to a run that began as this one did); a step that says ok or warning needs its tables; the numbers of cells in
    filter.tsv must be those of cells.parquet.

    Raises
    ------
    InputError
        listing everything that is missing or contradictory.
    """
    problems = []
    design = tables.get("samples")
    if design.empty:
        raise io.InputError("samples.tsv is missing among the tables: without the design nothing can be checked")
    samples = design[keys.SAMPLE].tolist()
    word = {(step, unit): state for step, unit, state in zip(rows["step"], rows["unit"], rows["status"], strict=True)}
    sample_steps, cohort_steps = promised_steps(rows)
    sampled = {(step, sample) for sample in samples for step in sample_steps}
    expected = sorted(sampled, key=lambda key: (key[1], sample_steps.index(key[0])))
    expected += [(step, "cohort") for step in cohort_steps]
    if tables.has("recovery"):
        expected.append(("check_recovery", "cohort"))
    for step, unit in expected:
        state = word.get((step, unit))
        if state is None:
            problems.append(f"{step} of {unit}: no status row")
        elif level(state) in ("ok", "warning"):
            kinds = SAMPLE_TABLES.get(step, ()) if (step, unit) in sampled else COHORT_TABLES.get(step, ())
            names = [f"{unit}.{kind}.tsv" if (step, unit) in sampled else f"{kind}.tsv" for kind in kinds]
            problems += [f"{step} of {unit}: says {state}, but {name} is missing" for name in names if name not in tables.files]
    if has_tumour_stage(rows):
        problems += _tumour_problems(tables, design, word)
    if has_microenvironment_stage(rows):
        problems += _microenvironment_problems(tables, design, word, has_tumour_stage(rows))
    foreign = sorted(set(cells[keys.SAMPLE].astype(str)) - set(samples))
    problems += [f"cells.parquet holds cells of {name}, which is not in samples.tsv" for name in foreign]
    problems += _count_problems(tables.of_samples("filter"), cells)
    if problems:
        raise io.InputError(
            f"{len(problems)} promised results are missing or contradict each other:\n  - "
            + "\n  - ".join(problems)
            + "\nLook at the log of the step named first; then start the run again with -resume."
        )


def _tumour_problems(tables: Tables, design: pd.DataFrame, word: Mapping[tuple[str, str], Any]) -> list[str]:
    """Patients, contrasts or the cohort without a row of a tumour step."""
    contrasts = tables.get("contrasts")
    expected = [(step, unit) for unit in sorted(set(design[keys.PATIENT]), key=natural) for step in PATIENT_STEPS]
    expected += [(step, unit) for unit in contrasts.get("contrast", []) for step in CONTRAST_STEPS]
    expected += [(step, "cohort") for step in TUMOUR_STEPS]
    return [f"{step} of {unit}: no status row" for step, unit in expected if (step, unit) not in word]


def _microenvironment_problems(
    tables: Tables, design: pd.DataFrame, word: Mapping[tuple[str, str], Any], tumour: bool
) -> list[str]:
    """Samples, patients or the cohort without a row of a step of the microenvironment, and tables that are missing."""
    expected = [(step, unit) for unit in sorted(set(design[keys.SAMPLE]), key=natural) for step in SIGNAL_STEPS]
    expected += [(step, unit) for unit in sorted(set(design[keys.PATIENT]), key=natural) for step in FATE_STEPS if tumour]
    expected += [(step, "cohort") for step in MICROENVIRONMENT_STEPS]
    problems = [f"{step} of {unit}: no status row" for step, unit in expected if (step, unit) not in word]
    for step in MICROENVIRONMENT_STEPS:
        state = word.get((step, "cohort"))
        if state is not None and level(state) in ("ok", "warning"):
            names = [f"{kind}.tsv" for kind in COHORT_TABLES[step]]
            problems += [f"{step} of cohort: says {state}, but {name} is missing" for name in names if name not in tables.files]
    return problems


def _count_problems(filtered: pd.DataFrame, cells: pd.DataFrame) -> list[str]:
    problems = []
    if filtered.empty:
        return problems
    seen = cells.groupby(cells[keys.SAMPLE].astype(str), observed=True)[keys.KEPT].agg(["size", "sum"])
    for row in filtered.to_dict("records"):
        sample = row[keys.SAMPLE]
        size, kept = (int(seen.loc[sample, "size"]), int(seen.loc[sample, "sum"])) if sample in seen.index else (0, 0)
        n_in, n_out = to_number(row.get("n_in")), to_number(row.get("n_out"))
        if n_in is not None and n_in != size:
            problems.append(f"{sample}: filter.tsv says {n_in:.0f} cells in, cells.parquet holds {size}")
        # a skipped sample leaves the cohort after its cells were counted
        if n_out is not None and n_out != kept and level(row.get("status")) in ("ok", "warning"):
            problems.append(f"{sample}: filter.tsv says {n_out:.0f} cells out, cells.parquet marks {kept} as kept")
    return problems


# --- tables in HTML ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Col:
    """A column to show: its name in the TSV, its heading, how to print it, what it means (shown on hover)."""

    name: str
    label: str
    kind: str = "text"  # text, int, num, pct (0 to 100), share (0 to 1, shown in %), bool, status, p
    help: str = ""
    digits: int | None = None


def cell(value: Any, col: Col, why: str = "") -> str:
    """One table cell; a missing value is a dash that says why on hover, never 0."""
    if is_missing(value):
        reason = why or "not available"
        return f'<td class="sc-missing" title="{esc(reason)}">{DASH}</td>'
    if col.kind == "status":
        _, short, css = LEVELS[level(value)]
        sentence = f"{value}: {status.SENTENCES.get(str(value), '')}"
        return f'<td class="{css}" title="{esc(sentence)}">{esc(short.split(" ", 1)[0])} {esc(str(value).replace("_", " "))}</td>'
    if col.kind == "bool":
        word = str(value).lower()
        return f"<td>{'yes' if word in ('true', 'yes', '1') else 'no' if word in ('false', 'no', '0') else esc(value)}</td>"
    if col.kind in ("int", "num", "pct", "share", "p"):
        given = to_number(value)
        if given is None:
            return f"<td>{esc(value)}</td>"  # a word such as not_given stands where a number could not
        if col.kind == "share":
            text = f"{100 * given:.{col.digits or 0}f} %"
        elif col.kind == "pct":
            text = f"{given:.{1 if col.digits is None else col.digits}f} %"
        elif col.kind == "int":
            text = number(given, 0)
        else:
            text = number(given, col.digits)
        return f'<td class="sc-number">{text}</td>'
    # contrast names and ids must not break at their hyphens
    short = ' class="sc-short"' if len(str(value)) <= SHORT_TEXT else ""
    return f"<td{short}>{esc(value)}</td>"


def table(
    frame: pd.DataFrame, cols: Sequence[Col], source: str, max_rows: int, caption: str = "", n_total: int | None = None
) -> str:
    """A table of at most `max_rows` rows, with the name of the whole file in the result folder below it.

    Columns that the frame lacks are left out; text from outside is escaped.
    """
    shown = [col for col in cols if col.name in frame.columns]
    if frame.empty or not shown:
        return f'<p class="sc-none">No rows: {esc(caption) if caption else "the step wrote an empty table"}.</p>'
    head = "".join(f'<th title="{esc(col.help)}">{esc(col.label)}</th>' for col in shown)
    body = []
    for row in frame.head(max_rows).to_dict("records"):
        word = row.get("status")
        why = "" if is_missing(word) or word == keys.OK else f"{word}: {status.SENTENCES.get(str(word), '')}"
        body.append("<tr>" + "".join(cell(row[col.name], col, why) for col in shown) + "</tr>")
    total = len(frame) if n_total is None else n_total
    cut = (
        f"The first {max_rows:,} of {total:,} rows; all of them: " if total > max_rows else f"{count(total, 'row')}; as a file: "
    )
    return (
        '<div class="sc-scroll"><table'
        f' class="sc-table"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div><p'
        f' class="sc-source">{cut}<code>{esc(source)}</code></p>'
    )


def worst_first(rows: pd.DataFrame, samples: Sequence[str]) -> list[str]:
    """Samples with the worst status first: by the worst level, then by the number of steps at it, then by name."""
    ranks = {sample: sorted(LEVELS[level(word)][0] for word in rows.loc[rows["unit"] == sample, "status"]) for sample in samples}
    return sorted(samples, key=lambda sample: (ranks[sample] or [LEVELS["missing"][0]], natural(sample)))


def status_matrix(rows: pd.DataFrame, design: pd.DataFrame, kept: Mapping[str, int], max_rows: int) -> str:
    """Sample x step as a table with coloured, signed cells; the sentence and the reason stand in each cell's hover text."""
    own = rows[rows["unit_type"] == "sample"]
    promised, _ = promised_steps(rows)
    steps = [step for step in STEP_ORDER if step in set(own["step"]) | set(promised)]
    steps += sorted(set(own["step"]) - set(steps))
    order = worst_first(own, design[keys.SAMPLE].tolist())
    facts = design.set_index(keys.SAMPLE)
    state = {(row["step"], row["unit"]): row for row in own.to_dict("records")}
    head = "".join(f"<th>{esc(STEP_NAMES.get(step, step))}</th>" for step in steps)
    body = []
    for sample in order[:max_rows]:
        cells_ = []
        for step in steps:
            row = state.get((step, sample))
            if row is None and step not in promised:
                cells_.append(f'<td class="sc-missing" title="not asked for">{DASH}</td>')
                continue
            word = row["status"] if row else None
            _, short, css = LEVELS[level(word)]
            hover = " ".join(part for part in (_text(row, "sentence"), _text(row, "reason")) if part) if row else "no status row"
            cells_.append(f'<td class="{css}" title="{esc(hover)}">{esc(short)}</td>')
        body.append(
            f"<tr><th>{esc(sample)}</th><td>{esc(facts.loc[sample].get(keys.PATIENT))}</td><td>{esc(facts.loc[sample].get(keys.PHASE))}</td>"
            f'{"".join(cells_)}<td class="sc-number">{number(kept.get(sample, 0))}</td></tr>'
        )
    cut = f"The {max_rows} worst of {len(order)} samples; all of them: " if len(order) > max_rows else "As a file: "
    return (
        '<div class="sc-scroll"><table class="sc-table sc-matrix"><thead><tr><th>sample</th><th>patient</th><th>phase</th>'
        f'{head}<th>cells kept</th></tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        f'<p class="sc-source">{cut}<code>status.tsv</code>. Signs: ✓ done, ! done but read the note, – skipped, ✗ failed.</p>'
    )


def unit_matrix(rows: pd.DataFrame, unit_type: str, max_rows: int) -> str:
    """Patients or contrasts x step as a table like `status_matrix`, units in natural order; empty where no step has such rows."""
    own = rows[rows["unit_type"] == unit_type]
    if own.empty:
        return ""
    steps = [step for step in STEP_ORDER if step in set(own["step"])] + sorted(set(own["step"]) - set(STEP_ORDER))
    units = sorted(set(own["unit"]), key=natural)
    state = {(row["step"], row["unit"]): row for row in own.to_dict("records")}
    head = "".join(f"<th>{esc(STEP_NAMES.get(step, step))}</th>" for step in steps)
    body = []
    for unit in units[:max_rows]:
        cells_ = []
        for step in steps:
            row = state.get((step, unit))
            if row is None:
                cells_.append(f'<td class="sc-missing" title="does not apply">{DASH}</td>')
                continue
            _, short, css = LEVELS[level(row["status"])]
            # a result of its own (cnv_quiet, no_replicates) is shown by its word
            shown = str(row["status"]).replace("_", " ") if level(row["status"]) == "limited" else short
            hover = " ".join(part for part in (_text(row, "sentence"), _text(row, "reason")) if part)
            cells_.append(f'<td class="{css}" title="{esc(hover)}">{esc(shown)}</td>')
        body.append(f"<tr><th>{esc(unit)}</th>{''.join(cells_)}</tr>")
    cut = f"The first {max_rows} of {len(units)}; all of them: " if len(units) > max_rows else "As a file: "
    return (
        f'<div class="sc-scroll"><table class="sc-table sc-matrix"><thead><tr><th>{esc(unit_type)}</th>{head}</tr></thead>'
        f'<tbody>{"".join(body)}</tbody></table></div><p class="sc-source">{cut}<code>status.tsv</code>.</p>'
    )


def _text(row: Mapping[str, Any] | None, name: str) -> str:
    return "" if row is None or is_missing(row.get(name)) else str(row[name])


def remarks(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that are not ok, worst first, units with the same step, status and reason joined into one line."""
    odd = rows[rows["status"] != keys.OK].copy()
    if odd.empty:
        return pd.DataFrame(columns=["step", "units", "status", "sentence", "reason"])
    odd["rank"] = [LEVELS[level(word)][0] for word in odd["status"]]
    place = {step: at for at, step in enumerate(STEP_ORDER)}
    odd["place"] = odd["step"].map(place).fillna(len(place))
    made = []
    for (_, _, step, word, sentence, reason), group in odd.fillna("").groupby(
        ["rank", "place", "step", "status", "sentence", "reason"], sort=True
    ):
        made.append((STEP_NAMES.get(step, step), listing(sorted(group["unit"])), word, sentence, reason))
    return pd.DataFrame(made, columns=["step", "units", "status", "sentence", "reason"])


# --- sentences --------------------------------------------------------------------------------------------------------


@dataclass
class Facts:
    """The numbers that the sentences and findings are made of, each taken from one table."""

    n_samples: int = 0
    n_patients: int = 0
    n_usable: int = 0
    not_usable: list[str] = field(default_factory=list)
    n_cells: int = 0
    n_kept: int = 0
    n_doublets: int | None = None
    n_types: int | None = None
    n_unresolved: int | None = None


def facts(design: pd.DataFrame, cells: pd.DataFrame) -> Facts:
    """Numbers of the first page; a sample is usable when at least one of its cells is in the cohort."""
    kept = cells[cells[keys.KEPT].astype(bool)]
    with_cells = set(kept[keys.SAMPLE].astype(str))
    made = Facts(
        n_samples=len(design),
        n_patients=design[keys.PATIENT].nunique(),
        n_usable=sum(sample in with_cells for sample in design[keys.SAMPLE]),
        not_usable=[sample for sample in design[keys.SAMPLE] if sample not in with_cells],
        n_cells=len(cells),
        n_kept=len(kept),
    )
    if keys.DROP_REASON in cells:
        made.n_doublets = int((cells[keys.DROP_REASON].astype(str) == "doublet").sum())
    if keys.MAIN_TYPE in kept:
        labels = kept[keys.MAIN_TYPE].dropna().astype(str)
        made.n_types = labels[labels != keys.UNRESOLVED].nunique()
        made.n_unresolved = int((labels == keys.UNRESOLVED).sum())
    return made


def key_sentences(made: Facts) -> list[str]:
    """The first page in sentences (plain text)."""
    lines = [
        f"{count(made.n_samples, 'sample')} of {count(made.n_patients, 'patient')}; {made.n_usable:,} usable"
        + (f" (not usable: {listing(made.not_usable)})" if made.not_usable else "")
        + f"; {made.n_kept:,} of {made.n_cells:,} cells kept ({percent(made.n_kept, made.n_cells)})."
    ]
    if made.n_doublets is not None:
        lines.append(
            f"{count(made.n_doublets, 'cell')} removed as doublets ({percent(made.n_doublets, made.n_cells, 1)} of all cells)."
        )
    if made.n_types is not None:
        lines.append(
            f"{count(made.n_types, 'cell type')} named; {percent(made.n_unresolved or 0, made.n_kept, 1)} of the kept cells stay "
            "unresolved."
        )
    return lines


def evidence(n_patients_a: int, n_patients_b: int) -> str:
    """How far a comparison carries, by patients a side (methods.md, unit of replication)."""
    least = min(n_patients_a, n_patients_b)
    return "replicated" if least >= 3 else "limited" if least == 2 else "single_patient"


def wording(kind: str, tested: bool) -> tuple[str, str]:
    """(opening, verb) for a statement: a claim needs patients as replicates and a test; else it is exploratory."""
    if tested and kind in EVIDENCE_CLAIMS:
        return "", "was"
    return "exploratory: ", "looked"


FINDING_COLUMNS = ["statement", "step", "contrast", "effect", "p_adjusted", "evidence", "table"]


def shares(cells: pd.DataFrame) -> pd.DataFrame:
    """Share of each main type, unresolved included, in each sample's kept cells.

    Returns columns sample, patient, phase, main_type, n_cells, share (0 to 1); a type without cells has the share 0.
    """
    kept = cells[cells[keys.KEPT].astype(bool) & cells[keys.MAIN_TYPE].notna()]
    if kept.empty:
        return pd.DataFrame(columns=[keys.SAMPLE, keys.PATIENT, keys.PHASE, keys.MAIN_TYPE, "n_cells", "share"])
    text = {name: kept[name].astype(str) for name in (keys.SAMPLE, keys.PATIENT, keys.PHASE, keys.MAIN_TYPE)}
    wide = pd.crosstab([text[keys.SAMPLE], text[keys.PATIENT], text[keys.PHASE]], text[keys.MAIN_TYPE])
    # a type that a sample lacks is a true zero here: its cells were counted and none was of that type
    long = wide.stack().rename("n_cells").reset_index()
    long["share"] = long["n_cells"] / long.groupby(keys.SAMPLE)["n_cells"].transform("sum")
    return long


def patient_shares(long: pd.DataFrame) -> pd.DataFrame:
    """Shares per patient and phase: the cells of several samples of a patient in one phase count together."""
    pooled = long.groupby([keys.PATIENT, keys.PHASE, keys.MAIN_TYPE], as_index=False)["n_cells"].sum()
    pooled["share"] = pooled["n_cells"] / pooled.groupby([keys.PATIENT, keys.PHASE])["n_cells"].transform("sum")
    return pooled


def findings(made: Facts, tables: Tables, cells: pd.DataFrame) -> pd.DataFrame:
    """Statements for findings.tsv and the first page; nothing without a test is worded as a claim."""
    rows: list[tuple[Any, ...]] = []
    sources = ["filter.tsv", *(["filter.tsv"] if made.n_doublets is not None else []), "types.tsv"]
    for line, source in zip(key_sentences(made), sources, strict=False):
        rows.append((line, "filter_cells" if source == "filter.tsv" else "annotate_cells", "", None, None, "descriptive", source))
    contrasts = tables.get("contrasts")
    if keys.MAIN_TYPE in cells and not contrasts.empty:
        pooled = patient_shares(shares(cells))
        pooled = pooled[pooled[keys.MAIN_TYPE] != keys.UNRESOLVED]
        for row in contrasts.to_dict("records"):
            statement = _largest_shift(pooled, row)
            if statement:
                rows.append(statement)
    rows += [*_share_findings(tables), *_gene_findings(tables), *_program_findings(tables), *_clone_findings(tables)]
    rows += [*_tcell_findings(tables), *_signal_findings(tables)]
    return pd.DataFrame(rows, columns=FINDING_COLUMNS)


def _share_findings(tables: Tables) -> list[tuple[Any, ...]]:
    """Main types whose share among all cells differs between patients of a contrast (propeller on log odds, adjusted)."""
    tests = tables.get("composition_tests")
    if tests.empty:
        return []
    chosen = (tests["level"] == keys.MAIN_TYPE) & (tests["denominator"] == "all") & (tests["method"] == keys.SHARE_METHOD)
    made = []
    for row in tests[chosen & tests["evidence"].isin(EVIDENCE_CLAIMS)].to_dict("records"):
        p, effect = to_number(row["p_adjusted"]), to_number(row["effect"])
        a, b = to_number(row["mean_a"]), to_number(row["mean_b"])
        if None in (p, effect, a, b) or p >= ADJUSTED_P:
            continue
        sides = row["contrast"].split(":")[-1].split("_vs_")
        text = (
            f"the share of {row['cell_type']} was {'higher' if effect > 0 else 'lower'} in {sides[0]} than in {sides[-1]} (mean"
            f" {100 * a:.1f} % of {row['n_patients_a']} patients, {100 * b:.1f} % of {row['n_patients_b']})"
        )
        made.append((text, "test_composition", row["contrast"], a - b, p, row["evidence"], "composition_tests.tsv"))
    return made


def _tcell_findings(tables: Tables) -> list[tuple[Any, ...]]:
    """States of T cells that differ between patients of a contrast after adjustment."""
    tests = tables.get("tcell_tests")
    if tests.empty:
        return []
    made = []
    for row in tests[tests["evidence"].isin(EVIDENCE_CLAIMS) & (tests["test"] != "dunn")].to_dict("records"):
        p, effect = to_number(row["p_adjusted"]), to_number(row["effect"])
        if None in (p, effect) or p >= ADJUSTED_P or "_vs_" not in row["contrast"]:
            continue
        sides = row["contrast"].split(":")[-1].split("_vs_")
        state = str(row["score"]).removesuffix("_score")
        text = (
            f"the {state} score of {str(row['cell_type']).replace('_', ' ')} was {'higher' if effect > 0 else 'lower'} in"
            f" {sides[0]} than in {sides[-1]} ({row['n_patients_a']} against {row['n_patients_b']} patients)"
        )
        made.append((text, "score_tcells", row["contrast"], effect, p, row["evidence"], "tcell_tests.tsv"))
    return made


def _signal_findings(tables: Tables) -> list[tuple[Any, ...]]:
    """Pathways whose information flow differs between patients; else the largest change of a contrast, said to be exploratory."""
    ranks = tables.get("ranknet")
    if ranks.empty:
        return []
    made = []
    named = ranks[ranks["contrast"].str.contains("_vs_", regex=False) & ~ranks["pathway"].str.startswith("other:")]
    for contrast, rows in named.groupby("contrast", sort=False):
        sides = contrast.split("_vs_")
        records = rows.to_dict("records")
        sure = [
            row
            for row in records
            if row["evidence"] in EVIDENCE_CLAIMS and (p := to_number(row["p_adjusted"])) is not None and p < ADJUSTED_P
        ]
        for row in sure:
            effect = to_number(row["effect"]) or 0.0
            text = (
                f"signalling by {row['pathway']} was {'stronger' if effect > 0 else 'weaker'} in {sides[0]} than in {sides[-1]}"
                f" (information flow, {row['n_patients_a']} against {row['n_patients_b']} patients)"
            )
            p = to_number(row["p_adjusted"])
            made.append((text, "compare_communication", contrast, effect, p, row["evidence"], "ranknet.tsv"))
        for row in [] if sure else [row for row in records if row["rank"] == "1"]:
            effect, p = to_number(row["cell_effect"]), to_number(row["cell_p_adjusted"])
            if effect is None or p is None or p >= ADJUSTED_P:
                continue
            text = (
                f"{wording(keys.CELL_LEVEL, tested=False)[0]}signalling by {row['pathway']} looked"
                f" {'stronger' if effect > 0 else 'weaker'} in {sides[0]} than in {sides[-1]}; the largest change of any pathway,"
                " tested over cells, not patients"
            )
            made.append((text, "compare_communication", contrast, effect, p, keys.CELL_LEVEL, "ranknet.tsv"))
    return made


def _gene_findings(tables: Tables) -> list[tuple[Any, ...]]:
    """One statement per contrast in which tumour cells could be compared between patients."""
    made = []
    summary = tables.of_units("de_summary", "contrast")
    if summary.empty:
        return made
    tested = summary[(summary["cell_type"] == keys.TUMOUR) & summary["evidence"].isin(EVIDENCE_CLAIMS)]
    for row in tested.to_dict("records"):
        up, down = to_number(row["n_up_pseudobulk"]), to_number(row["n_down_pseudobulk"])
        a, b = to_number(row["n_patients_used_a"]), to_number(row["n_patients_used_b"])
        if None in (up, down, a, b):
            continue
        sides = row["contrast"].replace("_vs_", " and ")
        text = (
            f"{number(up + down, 0)} genes differed in tumour cells between patients of {sides}: "
            f"{number(up, 0)} higher, {number(down, 0)} lower in the first ({number(a, 0)} against {number(b, 0)} patients)"
        )
        source = f"{row['contrast']}.de_pseudobulk.tsv.gz"
        made.append((text, "test_expression", row["contrast"], None, None, row["evidence"], source))
    return made


def _program_findings(tables: Tables) -> list[tuple[Any, ...]]:
    """Modules whose relation to a trait holds between patients after adjustment; none is a result that the chapter tells."""
    traits = tables.get("module_traits")
    if traits.empty:
        return []
    made = []
    for row in traits[(traits["level"] == "sample") & traits["evidence"].isin(EVIDENCE_CLAIMS)].to_dict("records"):
        p, rho = to_number(row["p_adjusted"]), to_number(row["rho"])
        if p is not None and rho is not None and p < ADJUSTED_P:
            text = (
                f"the co-expression module {row['module']} of tumour cells {'rose' if rho > 0 else 'fell'} with"
                f" {str(row['trait']).replace('_', ' ')} (Spearman's rho {rho:.2f} over {row['n']} patients)"
            )
            made.append((text, "find_programs", row["contrast"], rho, p, row["evidence"], "module_traits.tsv"))
    return made


def _clone_findings(tables: Tables) -> list[tuple[Any, ...]]:
    """Clones that grew, shrank, came or went within a patient: they count cells of single biopsies, so they are exploratory."""
    changes = tables.of_units("clone_changes", keys.PATIENT)
    if changes.empty:
        return []
    words = {"emerging": "appeared", "lost": "was no longer found", "expanding": "grew", "shrinking": "shrank"}
    made = []
    for row in changes[changes["class"].isin(words)].to_dict("records"):
        counts = [to_number(row[name]) for name in ("n_a", "N_a", "n_b", "N_b")]
        if None in counts or not counts[1] or not counts[3]:
            continue
        opening, sides = wording(row["evidence"], tested=False)[0], row["contrast"].replace("_vs_", " against ")
        text = (
            f"{opening}clone {row['clone']} {words[row['class']]}: {percent(counts[2], counts[3])} to"
            f" {percent(counts[0], counts[1])} of the malignant cells, {sides} (one patient)"
        )
        effect, p = to_number(row["diff"]), to_number(row["p_adjusted"])
        made.append((text, "trace_clones", row["contrast"], effect, p, row["evidence"], f"{row[keys.PATIENT]}.clone_changes.tsv"))
    return made


def _largest_shift(pooled: pd.DataFrame, contrast: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """The type whose mean share over patients differs most between two phases; None when a side is empty or no phase."""
    sides = [str(contrast.get("side_a")), str(contrast.get("side_b"))]
    parts = [pooled[pooled[keys.PHASE] == side] for side in sides]
    if any(part.empty for part in parts):
        return None
    n = [part[keys.PATIENT].nunique() for part in parts]
    # every patient of `pooled` has a row for every type, zeros included, so plain means are means over patients
    means = [part.groupby(keys.MAIN_TYPE)["share"].mean() for part in parts]
    shift = (means[0] - means[1]).sort_index()
    name = shift.abs().idxmax()
    opening, verb = wording(evidence(*n), tested=False)
    direction = "higher" if shift[name] > 0 else "lower"
    text = (
        f"{opening}the share of {name} {verb} {direction} in {sides[0]} than in {sides[1]} (mean {100 * means[0][name]:.0f} % of"
        f" {count(n[0], 'patient')}, {100 * means[1][name]:.0f} % of {count(n[1], 'patient')}); the largest difference of any"
        " type, not tested"
    )
    return (text, "annotate_cells", contrast.get("contrast"), float(shift[name]), None, evidence(*n), "types.tsv")


def caveats(rows: pd.DataFrame, tables: Tables, made: Facts) -> list[str]:
    """What a reader must know before using the results, most important first (plain text)."""
    notes = []
    confounding = tables.get("confounding")
    if "aliased" in confounding:
        for row in confounding[confounding["aliased"].str.lower() == "true"].to_dict("records"):
            notes.append(
                f"{row.get('factor')} and {row.get('phase_factor') or 'phase'} cannot be told apart in this design: "
                "a difference between phases may be a difference of that factor."
            )
    contrasts = tables.get("contrasts")
    if "status" in contrasts:
        weak = contrasts[contrasts["status"] == keys.NO_REPLICATES]
        if len(weak):
            notes.append(
                f"No test is possible for {listing(weak['contrast'].tolist())}: fewer than two patients on a side; read as"
                " exploratory."
            )
    questions = tables.get("questions")
    answer = next((name for name in ("answer", "answerable", "verdict") if name in questions), None)
    if answer:
        no = questions[questions[answer].str.lower() == "no"]
        if len(no):
            notes.append(f"This design cannot answer {count(len(no), 'question')}; see the chapter Design.")
    if made.not_usable:
        notes.append(
            f"{listing(made.not_usable)}: no cell in the cohort; nothing below speaks of"
            f" {'this sample' if len(made.not_usable) == 1 else 'these samples'}."
        )
    qc = tables.of_samples("sample_qc")
    if "verdict" in qc:
        poor = qc[qc["verdict"].fillna("").str.contains("fail")]
        if len(poor):
            notes.append(
                f"{listing(poor[keys.SAMPLE].tolist())} {'fails' if len(poor) == 1 else 'fail'} the criteria for samples; see the"
                " chapter Quality."
            )
    if made.n_unresolved and made.n_kept and made.n_unresolved > 0.05 * made.n_kept:
        notes.append(
            f"{percent(made.n_unresolved, made.n_kept, 1)} of the cells have no agreed type; shares of the other types are too"
            " small by as much."
        )
    failed = rows[[level(word) == "failed" for word in rows["status"]]]
    for row in failed.to_dict("records"):
        notes.append(
            f"{row['unit']}, {STEP_NAMES.get(row['step'], row['step'])}: {_text(row, 'sentence')} {_text(row, 'reason')}".strip()
        )
    notes.append("Cells are not replicates: every comparison of phases rests on the number of patients, which stands beside it.")
    return notes


# --- methods and versions ---------------------------------------------------------------------------------------------


def gather_parameters(entries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """step -> option -> value; where units differ, 'varied: 200 (9 units), 500 (2 units)'."""
    values: dict[str, dict[str, dict[str, int]]] = {}
    for entry in entries:
        step = str(entry["step"]).lower()
        facts_ = {**entry.get("parameters", {}), **{k: v for k, v in entry.items() if k not in ("parameters", "packages")}}
        for name, value in facts_.items():
            text = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
            seen = values.setdefault(step, {}).setdefault(name, {})
            seen[text] = seen.get(text, 0) + 1
    return {
        step: {
            name: (
                next(iter(seen))
                if len(seen) == 1
                else "varied: " + ", ".join(f"{text or DASH} ({n})" for text, n in sorted(seen.items()))
            )
            for name, seen in options.items()
        }
        for step, options in values.items()
    }


PLACEHOLDER = re.compile(r"\{([a-z_0-9.-]+)\}")


def fill(template: str, values: Mapping[str, Any], packages: Mapping[str, str]) -> str:
    """A paragraph with `{option}` and `{version.package}` filled in; what was not recorded is said to be so."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        found = packages.get(name.removeprefix("version.")) if name.startswith("version.") else values.get(name)
        return "(not recorded)" if is_missing(found) else str(found)

    return PLACEHOLDER.sub(value, " ".join(template.split()))


def software(entries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """software_versions.tsv: software, version, steps; one row per version, so that a mixture shows."""
    seen: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        step = str(entry["step"]).lower()
        found = {"scresist": entry.get("scresist"), "python": entry.get("python"), **entry.get("packages", {})}
        for name, version in found.items():
            if not is_missing(version):
                seen.setdefault((name, str(version)), set()).add(step)
    place = {step: at for at, step in enumerate(STEP_ORDER)}
    rows = [
        (name, version, ", ".join(sorted(steps, key=lambda step: (place.get(step, len(place)), step))))
        for (name, version), steps in sorted(seen.items(), key=lambda item: (item[0][0].lower(), item[0][1]))
    ]
    return pd.DataFrame(rows, columns=["software", "version", "steps"])


def methods_text(
    texts: Mapping[str, Any], citations: pd.DataFrame, entries: Sequence[Mapping[str, Any]], files: pd.DataFrame, title: str
) -> str:
    """methods.md: one paragraph per step that ran, with its options, versions and citations, then files and references.

    Parameters
    ----------
    texts
        `order`: steps; `steps`: step -> {text, cite}, as in assets/methods_text.yml.
    citations
        columns key, reference, doi.
    files
        columns file, what, sha256: models, gene sets and tables the run used.
    """
    options = gather_parameters(entries)
    packages: dict[str, dict[str, str]] = {}
    for entry in entries:
        packages.setdefault(str(entry["step"]).lower(), {}).update(entry.get("packages", {}))
    lines, cited = [f"# Methods: {title}", ""], []
    version = next((str(entry["scresist"]) for entry in entries if entry.get("scresist")), "")
    lines += [fill(texts["intro"], {"scresist": version}, {}), ""]
    for step, block in texts["steps"].items():
        if step not in options:
            continue
        values = options[step]
        variants = block.get("variants", {})
        # a step may fall back (one batch: no integration), and then says so beside the option that was asked for
        asked = variants.get("by", "")
        chosen = variants.get(str(values.get(f"{asked}_used") or values.get(asked, "")), {})
        keys_ = [*block.get("cite", []), *chosen.get("cite", [])]
        cited += [key for key in keys_ if key not in cited]
        marks = "".join(f" [{cited.index(key) + 1}]" for key in keys_)
        text = fill(" ".join([block["text"], chosen.get("text", "")]), values, packages.get(step, {}))
        lines += [f"**{block['title']}.** {text}{marks}", ""]
    if len(files):
        lines += ["## Models, gene sets and tables", "", "| file | what | SHA-256 |", "|---|---|---|"]
        lines += [f"| {r['file']} | {r['what']} | {r['sha256'] or DASH} |" for r in files.fillna("").to_dict("records")]
        lines.append("")
    known = citations.set_index("key")
    lines += ["## References", ""]
    lines += [f"{at}. {known.loc[key, 'reference']} doi:{known.loc[key, 'doi']}" for at, key in enumerate(cited, 1)]
    return "\n".join(lines) + "\n"


def methods_html(markdown: str) -> str:
    """The small Markdown of `methods_text` as HTML: paragraphs, bold, one table, a numbered list; all text escaped."""
    out: list[str] = []
    rows: list[str] = []
    for line in markdown.splitlines()[1:]:
        if line.startswith("|"):
            if not set(line) <= set("|-"):
                tag = "td" if rows else "th"
                cells_ = "".join(f"<{tag}>{esc(part.strip())}</{tag}>" for part in line.strip("|").split("|"))
                rows.append(f"<tr>{cells_}</tr>")
            continue
        if rows:
            out.append(f'<div class="sc-scroll"><table class="sc-table">{"".join(rows)}</table></div>')
            rows = []
        if line.startswith("## "):
            out.append(f"<h4>{esc(line[3:])}</h4>")
        elif line.strip():
            safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(line, quote=True))
            out.append(f'<p class="{"sc-reference" if re.match(r"^[0-9]+[.] ", line) else "sc-methods"}">{safe}</p>')
    return "\n".join(out)
