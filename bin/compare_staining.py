#!/usr/bin/env python3
"""Values of stained fields over the phases: per sample, tested between patients (or over fields of one patient), against RNA.

Writes staining_values.tsv, staining_tests.tsv, staining_concordance.tsv and one <marker>.staining.png per marker.

Example: compare_staining.py --tables fields.tsv --phases phases.tsv --samples samples.tsv --panel_tests panel_tests.tsv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from scresist import cli, comparison, io, keys, long_table, provenance, staining, status
from scresist.design import plural

STEP = "compare_staining"
MAX_PICTURES = 40  # markers that are drawn; the tables hold all
LABELS = {
    staining.SHARE: "share of positive cells (0 to 1)",
    staining.PERCENT: "positive cells (%)",
    staining.INTENSITY: "value of the field (as measured)",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--tables", nargs="*", default=[], type=Path, help="long tables: patient, sample, phase, field, marker, value ...")
    add("--phases", required=True, type=Path, help="phases.tsv of CHECK_DESIGN")
    add("--samples", type=Path, default=None, help="samples.tsv of CHECK_DESIGN, with which samples must agree")
    add("--panel_tests", nargs="*", default=[], type=Path, help="panel_tests.tsv of TRACK_PANELS for the signs of transcripts")
    add("--staining_unit", choices=staining.UNITS, default=staining.AUTO, help="auto, patient or field (default auto)")
    add("--staining_alpha", type=cli.number(1e-6, 0.5), default=0.05, help="1 - level of intervals (default 0.05)")
    return parser.parse_args(argv)


def read_fields(args: argparse.Namespace, phases: pd.DataFrame) -> pd.DataFrame:
    """The fields of all tables; every fault at once."""
    design = io.read_tsv(args.samples, dtype=str) if args.samples else None
    fields, _, problems = staining.read_fields(args.tables, phases, design)
    if problems:
        raise long_table.told(problems, "the staining tables")
    return fields


def result_words(tests: pd.DataFrame, marker: str) -> str:
    """The unit that was tested and its strongest result, for the line below a title."""
    mine = tests[(tests["marker"] == marker) & tests["p_value"].notna() & (tests["test"] != "dunn")]
    parts = []
    between = mine[(mine["unit"] == comparison.UNIT_PATIENT) & ~mine["test"].isin(["kruskal_wallis", staining.MIXED])]
    if len(between):
        best = between.sort_values(["p_value", "contrast"]).iloc[0]
        parts.append(f"unit patient: {best['contrast']} p {best['p_value']:.2g}")
    for row in mine[(mine["unit"] == staining.UNIT_FIELD) & (mine["test"] == "anova")].to_dict("records"):
        f = f"F({row['df1']:.0f},{row['df2']:.0f}) {row['statistic']:.3g}, p {row['p_value']:.2g}"
        parts.append(f"unit field, {row[keys.PATIENT]} only: {f}")
    return "; ".join(parts) or "no test was possible"


def draw(fields: pd.DataFrame, tests: pd.DataFrame, phases: pd.DataFrame) -> int:
    """One picture per marker; returns how many markers were left out."""
    from scresist import figures, wet_figures

    order = phases.sort_values("order", kind="stable")["phase"].astype(str).tolist()
    fixed = dict(figures.PHASE_COLOURS)
    if "colour" in phases:
        fixed.update({str(p): c for p, c in zip(phases["phase"], phases["colour"], strict=True) if isinstance(c, str) and c})
    palette = figures.colours(order, fixed)
    markers = sorted(set(fields["marker"]))
    names = long_table.file_names(markers, "marker")
    for marker in markers[:MAX_PICTURES]:
        mine = fields[fields["marker"] == marker]
        groups: dict[str, list[tuple[str, np.ndarray]]] = {}
        for phase in order:
            for sample, part in mine[mine[keys.PHASE] == phase].groupby(keys.SAMPLE, sort=True):
                groups.setdefault(phase, []).append((str(sample), part["value"].to_numpy(dtype=float)))
        label = LABELS[mine["kind"].iloc[0]]
        content = wet_figures.staining_boxes(groups, palette, marker, label, result_words(tests, marker))
        io.write_atomically(Path(f"{names[marker]}.staining.png"), lambda p, content=content: p.write_bytes(content))
    return max(0, len(markers) - MAX_PICTURES)


def summary(fields: pd.DataFrame, tests: pd.DataFrame, left_out: int) -> tuple[str, str, str]:
    """Status word, reason and sentence of the step: which unit carried the tests."""
    markers = fields["marker"].nunique()
    tested = tests[tests["p_value"].notna()]
    by_patient = tested.loc[tested["unit"] == comparison.UNIT_PATIENT, "marker"].nunique()
    by_field = tested.loc[tested["unit"] == staining.UNIT_FIELD]
    notes = []
    word = keys.OK
    if not len(tested):
        compared = tests["status"].eq(keys.NO_REPLICATES).any()
        word = keys.NO_REPLICATES if compared else keys.NOT_ESTIMABLE
        n_phases = plural(fields[keys.PHASE].nunique(), "phase")
        notes.append(f"{plural(fields[keys.PATIENT].nunique(), 'patient')} in {n_phases}: no test")
    elif not by_patient:
        word = keys.WARNING
        notes.append("fields of one patient carry the tests: they say nothing about other patients")
    if len(by_field) and by_patient:
        notes.append(f"also tested over fields of {', '.join(sorted(set(by_field[keys.PATIENT])))} alone (exploratory)")
    if left_out:
        notes.append(f"{plural(left_out, 'marker')} not drawn: {MAX_PICTURES} pictures at most")
    sentence = (
        f"{status.SENTENCES[word]} {plural(markers, 'marker')} in {plural(len(fields), 'field')}; tested between patients:"
        f" {by_patient}, over fields of one patient: {by_field['marker'].nunique()}."
    )
    return word, "; ".join(notes), sentence


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    phases = io.read_tsv(args.phases, dtype={"phase": str})
    fields = read_fields(args, phases)
    n_samples = n_patients = None
    if fields.empty:
        values = pd.DataFrame(columns=list(staining.VALUE_COLUMNS))
        tests = pd.DataFrame(columns=list(staining.TEST_COLUMNS))
        matches = staining.concordance(tests, pd.DataFrame())
        word, reason, sentence = keys.SKIPPED_NO_INPUT, "no staining table was given", ""
    else:
        values = staining.sample_values(fields)
        tests = staining.all_tests(fields, values, phases, args.staining_unit, args.staining_alpha)
        text = dict.fromkeys(("gene", "contrast", "unit", "measure", "test", "cell_type", "panel", "evidence"), str)
        given = [io.read_tsv(path, dtype=text) for path in sorted(args.panel_tests, key=lambda p: p.name) if path.stat().st_size]
        matches = staining.concordance(tests, pd.concat(given, ignore_index=True) if given else pd.DataFrame())
        word, reason, sentence = summary(fields, tests, draw(fields, tests, phases))
        n_samples, n_patients = fields[keys.SAMPLE].nunique(), fields[keys.PATIENT].nunique()
    io.write_tsv(values, Path("staining_values.tsv"))
    io.write_tsv(tests, Path("staining_tests.tsv"))
    io.write_tsv(matches, Path("staining_concordance.tsv"))
    entry = status.StatusRow(
        STEP, "cohort", "cohort", word, reason, n_samples=n_samples, n_patients=n_patients, sentence=sentence
    )
    status.write([entry], STEP, "cohort")
    provenance.write(provenance.record(STEP, "cohort", args, ["matplotlib", "numpy", "pandas", "scipy"]))
    return 0


if __name__ == "__main__":
    cli.run(main)
