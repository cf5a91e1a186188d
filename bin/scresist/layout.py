"""What a chapter of the report is made of: plot specifications, sections, the context that chapters draw from.

chapters.py and the chapter_<subject>.py files build chapters from these; page.py turns them into a MultiQC page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from scresist import figures, keys, report
from scresist.report import Col, esc


@dataclass(frozen=True)
class Bar:
    """Stacked bars, one per sample or group; `data`: group -> category -> number, `cats`: category -> (label, colour)."""

    data: Mapping[str, Mapping[str, float]]
    cats: Mapping[str, tuple[str, str]]
    title: str
    unit: str
    start_in_percent: bool = False


@dataclass(frozen=True)
class Box:
    """Boxes, one per sample and tab; `data`: tab -> sample -> {min, q1, median, q3, max, mean}; `units`: tab -> axis title."""

    data: Mapping[str, Mapping[str, Mapping[str, float]]]
    units: Mapping[str, str]
    title: str


@dataclass(frozen=True)
class Line:
    """Lines, one per series and tab; `data`: tab -> series -> x -> y."""

    data: Mapping[str, Mapping[str, Mapping[float, float]]]
    title: str
    x_unit: str
    y_unit: str
    colours: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Heat:
    """A heat map; rows x columns, None where there is no value."""

    values: Sequence[Sequence[float | None]]
    columns: Sequence[str]
    rows: Sequence[str]
    title: str
    x_unit: str
    y_unit: str
    z_unit: str


@dataclass
class Section:
    """One figure or table: id, heading, how to read it (plain text), HTML before and after the plot."""

    id: str
    title: str
    reading: str
    before: str = ""
    plot: Bar | Box | Line | Heat | None = None
    after: str = ""


@dataclass
class Chapter:
    """A chapter of the page; `intro` is HTML."""

    id: str
    title: str
    intro: str
    sections: list[Section]


@dataclass
class Context:
    """Everything the chapters draw from."""

    tables: report.Tables
    status: pd.DataFrame
    cells: pd.DataFrame
    design: pd.DataFrame
    made: report.Facts
    findings: pd.DataFrame
    methods: str
    versions: pd.DataFrame
    entries: Sequence[Mapping[str, Any]]
    max_rows: int = 50

    @property
    def kept(self) -> pd.DataFrame:
        return self.cells[self.cells[keys.KEPT].astype(bool)]

    def phases(self) -> list[str]:
        """Phases in the order of phases.tsv, those of the design only."""
        known = self.tables.get("phases")
        column = "phase" if "phase" in known else "code" if "code" in known else None
        present = list(dict.fromkeys(self.design[keys.PHASE]))
        listed = known[column].tolist() if column else []
        return [p for p in listed if p in present] + sorted(p for p in present if p not in listed)

    def phase_colours(self) -> dict[str, str]:
        known = self.tables.get("phases")
        column = "phase" if "phase" in known else "code" if "code" in known else None
        fixed = dict(figures.PHASE_COLOURS)
        if column and "colour" in known:
            fixed.update({p: c for p, c in zip(known[column], known["colour"], strict=True) if not report.is_missing(c)})
        return figures.colours(self.phases(), fixed)

    def samples(self) -> list[str]:
        """Samples by phase, then name: neighbours can be compared."""
        place = {phase: at for at, phase in enumerate(self.phases())}
        rows = sorted(self.design.to_dict("records"), key=lambda r: (place[r[keys.PHASE]], report.natural(r[keys.SAMPLE])))
        return [row[keys.SAMPLE] for row in rows]

    def types(self) -> list[str]:
        """Main types, the largest first within lineage, unresolved last."""
        if keys.MAIN_TYPE not in self.kept:
            return []
        kept = self.kept
        labels = kept[keys.MAIN_TYPE].dropna().astype(str)
        lineage = kept.loc[labels.index, keys.LINEAGE].astype(str) if keys.LINEAGE in kept else pd.Series("", index=labels.index)
        size = pd.DataFrame({"type": labels, "lineage": lineage}).value_counts().reset_index()
        size = size.sort_values(["lineage", "count", "type"], ascending=[True, False, True]).drop_duplicates("type")
        return [t for t in size["type"] if t != keys.UNRESOLVED] + [keys.UNRESOLVED] * (keys.UNRESOLVED in set(labels))

    def why(self, step: str) -> str:
        """Sentence and reason of a cohort step, for a place that stays empty."""
        row = self.status[(self.status["step"] == step) & (self.status["unit_type"] == "cohort")]
        if row.empty:
            return "no status row was written"
        first = row.iloc[0]
        return " ".join(str(first[name]) for name in ("sentence", "reason") if not report.is_missing(first[name]))


def picture(content: bytes, alt: str) -> str:
    """A PNG within the page."""
    return f'<img class="sc-picture" src="{figures.data_uri(content)}" alt="{esc(alt)}">'


def phase_legend(context: Context) -> str:
    """The colours of the phases in words, for plots whose lines are coloured by phase."""
    marks = (f'<span class="sc-swatch" style="background:{esc(c)}"></span>{esc(p)}' for p, c in context.phase_colours().items())
    return '<p class="sc-legend">' + " &nbsp; ".join(marks) + "</p>"


def items(lines: Sequence[str]) -> str:
    """Plain sentences as a list."""
    return '<ul class="sc-list">' + "".join(f"<li>{esc(line)}</li>" for line in lines) + "</ul>"


def plain_column(name: str) -> Col:
    """A column shown under its own name, its kind read from the name."""
    kind = (
        "status"
        if name == "status"
        else "int" if name.startswith("n_") else "share" if name.endswith(("overlap", "share")) else "text"
    )
    return Col(name, name.removeprefix("n_").replace("_", " "), kind)


def by_patient(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in the natural order of the patients, their own order kept."""
    if frame.empty or keys.PATIENT not in frame:
        return frame
    return frame.sort_values(keys.PATIENT, key=lambda column: column.map(report.natural), kind="stable", ignore_index=True)


def comparison_columns(effect: str = "side A minus side B, mean over patients") -> list[Col]:
    """The columns of a table of rank tests between patients; `effect` says what the effect is."""
    return [
        Col("contrast", "contrast"),
        Col("n_patients_a", "patients A", "int"),
        Col("n_patients_b", "patients B", "int"),
        Col("effect", "effect", "num", effect),
        Col("ci_low", "95 % from", "num"),
        Col("ci_high", "to", "num"),
        Col("p_value", "p", "p"),
        Col("p_adjusted", "adjusted p", "p"),
        Col("p_min_attainable", "least possible p", "p", "the smallest p that so many patients can give"),
        Col("evidence", "evidence"),
        Col("status", "status", "status"),
    ]


def patients_without(
    context: Context, step: str, ids: tuple[str, str], reading: str, rows: pd.DataFrame, cells: str, nothing: str
) -> Section:
    """Patients in whom a step could not work or left a remark, as a section.

    Parameters
    ----------
    ids
        id and title of the section.
    rows
        status rows of the step.
    cells, nothing
        what its cells are called; what is said where no patient has a remark.
    """
    odd = rows[rows["status"] != keys.OK].sort_values("unit", key=lambda column: column.map(report.natural))
    columns = [
        Col("unit", "patient"),
        Col("status", "status", "status"),
        Col("n_cells", cells, "int"),
        Col("sentence", "meaning"),
        Col("reason", "what was found"),
    ]
    why = nothing if len(rows) else context.why(step)
    return Section(*ids, reading, report.table(odd, columns, "report/status.tsv", context.max_rows, why))


def empty(text: str) -> str:
    """A paragraph in the place of a table or figure that has nothing to show."""
    return f'<p class="sc-none">{esc(text)}</p>'
