#!/usr/bin/env python3
"""Refuse an impossible samplesheet before any work; derive contrasts, pairs, confounding, and what the cohort can answer.

Reads the canonical samplesheet (or a user's own CSV or TSV) and writes samples.tsv, contrasts.tsv, confounding.tsv,
questions.tsv, phases.tsv and design.json to the current folder. Every problem of the input is reported at once.

  check_design.py --samplesheet samplesheet.tsv --phases healthy,tumour --min_replicates 2
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import pandas as pd

from scresist import cli, design, io, keys, provenance, status
from scresist.io import InputError

STEP = "check_design"
BUNDLED_PHASES = Path(__file__).resolve().parents[1] / "assets" / "phases.tsv"


def doublet_rate(text: str) -> str:
    """argparse type: a share between 0 and 1, or auto."""
    if text != "auto":
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if not 0 < share < 1:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a share between 0 and 1 nor auto")
    return text


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--samplesheet", required=True, type=Path, help="canonical samplesheet (TSV; CSV by its ending)")
    add("--phases", default="", help="phases in order, separated by commas, the first is the baseline (default: the phase table)")
    add("--phase_table", type=Path, default=BUNDLED_PHASES, help="table: phase, optional name, role, order, time, colour")
    add("--contrast_table", type=Path, help="table: contrast, side_a, side_b (default: contrasts derived from the phases)")
    add("--min_replicates", type=cli.number(2, 100, int), default=2, help="patients needed on each side of a test (default 2)")
    add(
        "--pairing",
        choices=("auto", "paired", "unpaired"),
        default="auto",
        help="paired tests (default auto: by the pairs found)",
    )
    add(
        "--min_genes",
        type=cli.number(0, 1e9, int),
        default=200,
        help="default for samples without their own: least genes per cell",
    )
    add("--min_counts", type=cli.number(0, 1e9, int), default=500, help="default: least UMI counts per cell")
    add("--max_mt_pct", type=cli.number(0, 100), default=20.0, help="default: largest mitochondrial share of a cell, percent")
    add(
        "--mad_k", type=cli.number(0, 1e6), default=5.0, help="default: MADs allowed for counts, genes and top-20 share; 0 is off"
    )
    add("--mad_k_mt", type=cli.number(0, 1e6), default=3.0, help="default: MADs allowed for the mitochondrial share; 0 is off")
    add("--expected_doublet_rate", type=doublet_rate, default="0.06", help="default: expected share of doublets, or auto")
    return parser.parse_args(argv)


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a small text table; TSV without quoting, CSV (by its ending) with quotes; blank lines left out.

    Raises
    ------
    InputError
        when the file is absent, not UTF-8, empty, or a row has more or fewer fields than the header.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path.name}: no such file. Check the path.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: not UTF-8 at byte {error.start}. Save it as UTF-8 text.") from None
    comma = path.suffix.lower() == ".csv"
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    quoting = csv.QUOTE_MINIMAL if comma else csv.QUOTE_NONE
    parsed = list(csv.reader((line + "\n" for line in lines), delimiter="," if comma else "\t", quoting=quoting))
    records = [[field.strip() for field in row] for row in parsed]
    if not records or not any(records[0]):
        raise InputError(f"{path.name}: empty. Its first row must name the columns.")
    header, rows, ragged = records[0], [], []
    for number, record in enumerate(records[1:], start=2):
        if not any(record):
            continue
        if len(record) != len(header):
            ragged.append(f"  - row {number}: {len(record)} fields, the header has {len(header)}. Give it one field per column.")
            continue
        row: dict[str, str] = {"_row": f"{number:06d}"}
        for name, value in zip(header, record, strict=True):
            # of a column named twice the first counts; check_sheet reports the second
            if name == "_row" or name not in row:
                row[name] = value
        rows.append(row)
    if ragged:
        raise InputError(f"{path.name} cannot be read:\n" + "\n".join(ragged))
    return header, rows


def read_phases(args: argparse.Namespace) -> tuple[pd.DataFrame, list[design.Problem]]:
    """The phases: those of --phases in their order, with names and colours of the table; else the table."""
    header, rows = read_table(args.phase_table)
    phases, problems = design.phase_frame(rows, header, args.phase_table.name)
    if args.phases.strip() and not problems:
        phases, problems = design.phases_from_list(args.phases, phases)
    return phases, problems


def refuse(problems: list[design.Problem]) -> None:
    """Raise one InputError with a line per problem; nothing when there is none."""
    if problems:
        lines = "\n".join(f"  - {problem.line()}" for problem in problems)
        raise InputError(f"{design.plural(len(problems), 'problem')} with the design; nothing was computed:\n{lines}")


def records(frame: pd.DataFrame) -> list[dict]:
    """Rows of a frame for JSON; a missing value is null, a float has the digits that the table shows."""
    out = []
    for row in frame.to_dict("records"):
        out.append(
            {k: (None if pd.isna(v) else float(io.format_float(v))) if isinstance(v, float) else v for k, v in row.items()}
        )
    return out


def status_rows(
    samples: pd.DataFrame, phases: pd.DataFrame, contrasts: pd.DataFrame, empty: list[design.Contrast], warnings: list[str]
) -> list[status.StatusRow]:
    """Cohort rows (one per warning, or one ok), one row per contrast, one per patient whose phases exclude each other."""
    n = {"n_samples": len(samples), "n_patients": samples[keys.PATIENT].nunique()}
    rows = [status.StatusRow(STEP, "cohort", "cohort", keys.WARNING, text, **n) for text in warnings]
    if not rows:
        rows.append(status.StatusRow(STEP, "cohort", "cohort", keys.OK, design.summary(samples, phases), **n))
    for _, row in contrasts.iterrows():
        patients = {p for side in ("patients_a", "patients_b") for p in row[side].split(",") if p}
        n_samples = row["n_samples_a"] + row["n_samples_b"]
        rows.append(
            status.StatusRow(
                STEP, "contrast", row["contrast"], row["status"], row["reason"], n_samples=n_samples, n_patients=len(patients)
            )
        )
    for contrast in empty:
        sides = [
            s for s, members in ((contrast.side_a, contrast.samples_a), (contrast.side_b, contrast.samples_b)) if not members
        ]
        reason = f"no sample in {' and in '.join(sides)}; the contrast is left out"
        rows.append(status.StatusRow(STEP, "contrast", contrast.name, keys.NOT_ESTIMABLE, reason, n_samples=0, n_patients=0))
    for patient, reason in design.contradictory_patients(samples, phases).items():
        own = int((samples[keys.PATIENT] == patient).sum())
        rows.append(status.StatusRow(STEP, "patient", patient, keys.WARNING, reason, n_samples=own, n_patients=1))
    return rows


def main(argv: list[str] | None = None) -> int:
    """Read, check everything, derive, write."""
    args = parse_args(argv)
    header, rows = read_table(args.samplesheet)
    phases, problems = read_phases(args)
    columns = list(dict.fromkeys(["_row", *header]))
    sheet = pd.DataFrame(rows, columns=columns, dtype=object).astype(str)
    # without phases every row would be reported as an unknown phase: their own problems stand first and alone
    allowed = phases["phase"].tolist() if not problems else sorted(set(sheet.get(keys.PHASE, [])))
    problems = problems + design.check_sheet(sheet, header, allowed)

    contrast_rows: list[dict[str, str]] = []
    contrast_header: list[str] = []
    if args.contrast_table:
        contrast_header, contrast_rows = read_table(args.contrast_table)
    if problems:
        if args.contrast_table and all(name in sheet for name in design.REQUIRED):
            # sides are looked up as far as the sheet goes, so that the table's own faults are in the same message
            problems += design.declared_contrasts(contrast_rows, contrast_header, design.sample_table(sheet, {}), allowed)[1]
        refuse(problems)

    defaults = {name: str(getattr(args, name)) for name in design.SETTINGS if hasattr(args, name)}
    samples = design.sample_table(sheet, defaults)
    if args.contrast_table:
        declared, problems = design.declared_contrasts(contrast_rows, contrast_header, samples, allowed)
        refuse(problems)
    else:
        declared = design.default_contrasts(samples, phases)
    usable = [c for c in declared if c.samples_a and c.samples_b]
    empty = [c for c in declared if not (c.samples_a and c.samples_b)]
    contrasts = design.contrast_table(usable, samples, args.pairing, args.min_replicates)
    confounding = design.confounding_table(samples, contrasts)
    questions = design.question_table(samples, phases, contrasts, confounding, args.min_replicates)
    warnings = design.cohort_warnings(samples, phases, contrasts, confounding)

    for name, frame in (
        ("samples", samples),
        ("phases", phases),
        ("contrasts", contrasts),
        ("confounding", confounding),
        ("questions", questions),
    ):
        io.write_tsv(frame, Path(f"{name}.tsv"))
    whole = {
        "phases": records(phases),
        "samples": records(samples),
        "contrasts": [
            row | {side: [i for i in row[side].split(",") if i] for side in row if side.startswith(("samples_", "patients_"))}
            for row in records(contrasts)
        ],
        "confounding": records(confounding),
        "questions": records(questions),
        "warnings": warnings,
        "parameters": {"min_replicates": args.min_replicates, "pairing": args.pairing},
    }
    io.write_json(whole, Path("design.json"))
    status.write(status_rows(samples, phases, contrasts, empty, warnings), STEP, "cohort")
    provenance.write(provenance.record(STEP, "cohort", args, ["numpy", "pandas"]))
    sys.stdout.write("\n".join(design.describe(samples, phases, contrasts, confounding, questions, warnings)) + "\n")
    return 0


if __name__ == "__main__":
    cli.run(main)
