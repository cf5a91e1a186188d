"""Chapter of the report: stained fields over the phases, tested by patient or by field, against transcripts."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from scresist import keys, report
from scresist.layout import Box, Chapter, Context, Section, empty, items, picture
from scresist.report import Col, count, to_number

FOLDER = "05_evidence/staining"
STEP = "compare_staining"
ALPHA = 0.05
MAX_PICTURES = 12
CLAIMS = (keys.REPLICATED, keys.LIMITED)
BETWEEN = ("rank_sum", "signed_rank")  # how the names of the tests between patients begin
LABELS = {"share": "share of positive cells (0 to 1)", "percent": "positive cells (%)", "intensity": "value of the field"}


def staining(context: Context) -> Chapter:
    """Values per sample, pictures of fields, tests, concordance with transcripts."""
    values = context.tables.get("staining_values")
    title = "Staining"
    head = (
        "<p>Stained tissue shows the protein itself, cell by cell, in fields of view chosen under the microscope. Fields of one"
        " section resemble each other: many fields of one patient say much about that section and nothing about other patients."
        " Each test therefore names its unit, patient or field.</p>"
    )
    if values.empty:
        why = empty("No stained fields: " + context.why(STEP))
        return Chapter("sc_staining", title, head, [Section("sc_staining_values", "Values", "Not available.", why)])
    tests = context.tables.get("staining_tests")
    matches = context.tables.get("staining_concordance")
    sections = [_values(context, values), _pictures(context), _tests(context, tests), _matches(context, matches)]
    return Chapter("sc_staining", title, head + items(_lines(values, tests, matches)), sections)


def _between(tests: pd.DataFrame) -> pd.DataFrame:
    return tests[(tests["unit"] == "patient") & tests["test"].str.startswith(BETWEEN)] if len(tests) else tests


def _lines(values: pd.DataFrame, tests: pd.DataFrame, matches: pd.DataFrame) -> list[str]:
    """What was tested with which unit, and what came out."""
    said = [
        f"{count(values['marker'].nunique(), 'marker')} in {count(values[keys.SAMPLE].nunique(), 'sample')} of"
        f" {count(values[keys.PATIENT].nunique(), 'patient')}."
    ]
    if len(tests):
        mine = _between(tests).assign(p=lambda f: pd.to_numeric(f["p_adjusted"], errors="coerce"))
        n = int(mine["p"].notna().sum())
        low = mine[(mine["p"] < ALPHA) & mine["evidence"].isin(CLAIMS)].sort_values(["p", "marker"], kind="stable")
        said.append(f"Unit patient: {len(low)} of {count(n, 'comparison')} with an adjusted p below {ALPHA}.")
        for row in low.head(6).to_dict("records"):
            effect = to_number(row["effect"]) or 0.0
            word = "higher" if effect > 0 else "lower"
            said.append(f"{row['marker']}, {row['contrast']}: {word} by {report.number(abs(effect))}.")
        fields = tests[(tests["unit"] == "field") & (tests["test"] == "anova")]
        fields = fields.assign(p=pd.to_numeric(fields["p_adjusted"], errors="coerce"))
        for patient, part in fields[fields["p"].notna()].groupby(keys.PATIENT, sort=True):
            low = part.loc[part["p"] < ALPHA, "marker"].tolist()
            text = f"{len(low)} of {count(len(part), 'marker')} differ between phases"
            named = f" ({report.listing(low)})" if low else ""
            said.append(f"Unit field, patient {patient} alone (exploratory): {text}{named}.")
    if len(matches):
        known = matches[(matches["unit"] == "patient") & matches["agree"].isin([keys.YES, keys.NO])]
        agree = int((known["agree"] == keys.YES).sum())
        if len(known):
            said.append(f"Protein and transcript change in the same direction in {agree} of {count(len(known), 'comparison')}.")
    return said


def _stats(row: Mapping[str, object]) -> dict[str, float] | None:
    """Numbers of one box."""
    names = ("min", "q1", "median", "q3", "max")
    found = {name: to_number(row[name]) for name in names}
    found["mean"] = to_number(row["value"])
    return {name: value for name, value in found.items() if value is not None} if None not in found.values() else None


def _values(context: Context, values: pd.DataFrame) -> Section:
    order = context.phases()
    place = {phase: at for at, phase in enumerate([*order, *sorted(set(values[keys.PHASE]) - set(order))])}
    data: dict[str, dict[str, dict[str, float]]] = {}
    units: dict[str, str] = {}
    for marker, part in values.groupby("marker", sort=True):
        rows = sorted(part.to_dict("records"), key=lambda r: (place[r[keys.PHASE]], report.natural(r[keys.SAMPLE])))
        boxes = {f"{row[keys.SAMPLE]} ({row[keys.PHASE]}, n = {row['n_fields']})": _stats(row) for row in rows}
        data[str(marker)] = {name: box for name, box in boxes.items() if box}
        units[str(marker)] = LABELS.get(str(part["kind"].iloc[0]), "value")
    columns = [
        Col("marker", "marker"),
        Col("gene", "gene"),
        Col(keys.PATIENT, "patient"),
        Col(keys.SAMPLE, "sample"),
        Col(keys.PHASE, "phase"),
        Col("value", "value", "num", "mean of the means of sections"),
        Col("sd", "sd of fields", "num"),
        Col("n_sections", "sections", "int"),
        Col("n_fields", "fields", "int"),
        Col("n_cells", "cells", "int"),
        Col("status", "status", "status"),
    ]
    return Section(
        "sc_staining_values",
        "Values of fields by sample",
        "One box per sample: the fields of view (n = fields). Samples stand in the order of phases. A wide box means that the"
        " tissue is uneven or that fields were chosen differently.",
        plot=Box(data, units, "Stained fields by sample and phase"),
        after=report.table(values, columns, f"{FOLDER}/staining_values.tsv", context.max_rows, context.why(STEP)),
    )


def _pictures(context: Context) -> Section:
    pictures = context.tables.pictures("staining")
    shown = list(pictures.items())[:MAX_PICTURES]
    body = "".join(picture(content, f"Fields of {name} by sample and phase") for name, content in shown)
    if len(pictures) > len(shown):
        body += empty(f"{len(shown)} of {len(pictures)} markers are shown; all pictures lie in {FOLDER}.")
    return Section(
        "sc_staining_pictures",
        "Every field",
        "Points: single fields; boxes: quartiles of a sample. Below the title: the unit that was tested and its result.",
        body or empty("No picture was drawn: " + context.why(STEP)),
    )


def _tests(context: Context, tests: pd.DataFrame) -> Section:
    columns = [
        Col("marker", "marker"),
        Col("contrast", "contrast"),
        Col("unit", "unit", help="patient: one value per patient; field: fields of one patient, exploratory"),
        Col(keys.PATIENT, "patient", help="of a test over fields"),
        Col("test", "test"),
        Col("df1", "df 1", "int"),
        Col("df2", "df 2", "int"),
        Col("mean_a", "mean A", "num"),
        Col("mean_b", "mean B", "num"),
        Col("effect", "effect", "num", "side A minus side B; on the arcsine scale for shares where the test says so"),
        Col("ci_low", "95 % from", "num"),
        Col("ci_high", "to", "num"),
        Col("statistic", "statistic", "num"),
        Col("p_value", "p", "p"),
        Col("p_adjusted", "adjusted p", "p"),
        Col("p_min_attainable", "least possible p", "p", "the smallest p that so many patients can give"),
        Col("evidence", "evidence"),
        Col("status", "status", "status"),
        Col("reason", "note"),
    ]
    if len(tests):
        # what stands behind patients first, then the strongest
        order = tests.assign(
            rank=(tests["unit"] != "patient").astype(int), p=pd.to_numeric(tests["p_value"], errors="coerce")
        ).sort_values(["rank", "p", "marker", "contrast"], kind="stable", na_position="last")
        tests = tests.loc[order.index].assign(test=lambda f: f["test"].str.replace("_", " "))
    return Section(
        "sc_staining_tests",
        "Tests",
        "Rows with unit patient compare one value per patient and support a statement about phases; a mixed model over all fields"
        " with a level for each patient stands beside the rank test. Rows with unit field compare the fields of one patient:"
        " their p values are exploratory. Ask how the fields were chosen.",
        report.table(tests, columns, f"{FOLDER}/staining_tests.tsv", context.max_rows, context.why(STEP)),
    )


def _matches(context: Context, matches: pd.DataFrame) -> Section:
    columns = [
        Col("marker", "marker"),
        Col("gene", "gene"),
        Col("contrast", "contrast"),
        Col("unit", "unit"),
        Col(keys.PATIENT, "patient"),
        Col("sign_protein", "protein"),
        Col("sign_rna", "transcript"),
        Col("cell_type", "cells of the transcript"),
        Col("agree", "same direction"),
        Col("evidence_protein", "evidence, protein"),
        Col("evidence_rna", "evidence, transcript"),
        Col("reason", "note"),
    ]
    return Section(
        "sc_staining_concordance",
        "Protein against transcript",
        "Does the protein move as its transcript does (chapter on panels)? Only directions are compared; two changes near zero"
        " agree by chance in half of the cases. Protein without transcript, or the reverse, is common and no error by itself.",
        report.table(matches, columns, f"{FOLDER}/staining_concordance.tsv", context.max_rows, "no transcript was compared"),
    )
