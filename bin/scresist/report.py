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
from scresist.keys import natural

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
# Evidence beside the cells: each step runs where its input was given, and then owes its tables.
EVIDENCE_STEPS = ("fit_dose_response", "compare_staining", "score_routes")
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
    "fit_dose_response": ("dose_fits", "dose_points", "dose_tests"),
    "compare_staining": ("staining_values", "staining_tests", "staining_concordance"),
    "score_routes": ("route_items", "route_card", "decomposition", "target_clones", "target_sets"),
    "assemble_cohort": ("columns",),
    "check_recovery": ("recovery",),
}
STEP_NAMES = {
    "simulate_cohort": "simulate cohort",
    "load_annotated": "read annotated object",
    "check_design": "check design",
    "check_evidence": "check evidence tables",
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
    "test_survival": "survival",
    "fit_dose_response": "dose-response",
    "compare_staining": "staining",
    "score_routes": "resistance card",
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
    problems += _table_problems(tables, word, [step for step in EVIDENCE_STEPS if (step, "cohort") in word])
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
    return problems + _table_problems(tables, word, MICROENVIRONMENT_STEPS)


def _table_problems(tables: Tables, word: Mapping[tuple[str, str], Any], steps: Sequence[str]) -> list[str]:
    """Tables that cohort steps did not write although they say that they worked."""
    problems = []
    for step in steps:
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
