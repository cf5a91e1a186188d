#!/usr/bin/env python3
"""Whether every evidence table of the user can be used, told before any work: all that is wrong in one message.

Reads what TEST_SURVIVAL, FIT_DOSE_RESPONSE and COMPARE_STAINING will read, with their own code, and writes evidence_inputs.tsv.

Example: check_evidence.py --sheet survival.csv --clinical acrg clinical.tsv --expression acrg expression.tsv.gz
    --plates plates.tsv --fields staining.tsv --phases phases.tsv --samples samples.tsv
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from scresist import cli, dose_response, io, keys, long_table, provenance, staining, status, survival, survival_tables
from scresist.design import plural

STEP = "check_evidence"
COLUMNS = [
    "kind", "dataset", "name", "rows", "n_patients", "n_events", "n_genes", "n_sets", "n_curves", "n_fields", "remarks",
]  # fmt: skip
COUNTS = [name for name in COLUMNS if name == "rows" or name.startswith("n_")]
SHEET, CLINICAL, EXPRESSION, SIGNATURES, PLATES, FIELDS = (
    "survival_sheet", "clinical", "expression", "signatures", "dose_response", "staining",
)  # fmt: skip
KINDS = (SHEET, CLINICAL, EXPRESSION, SIGNATURES, PLATES, FIELDS)
# Modules of the tumour stage do not exist yet: a cut may be declared for one of them.
A_MODULE = re.compile(r"M[1-9][0-9]*\Z")
# Options of the steps that have another name as parameters of the run.
AN_OPTION = re.compile(rf"--({'|'.join(['signatures', 'control', *survival_tables.OF_DATASET])})\b")


def of_the_run(option: re.Match[str]) -> str:
    """The parameter of the run that stands behind an option of a step."""
    return f"--{'dose' if option[1] == 'control' else 'survival'}_{option[1]}"


@dataclass
class Findings:
    """Rows of evidence_inputs.tsv and, in their order, the problems of all tables; a text may hold several lines.

    n_problems: how many were found; of those of one table's kind the first stand in `problems`, with the number of the others.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    n_problems: int = 0

    def refuse(self, *lines: str) -> None:
        """Problems of one kind of table."""
        self.n_problems += len(lines)
        self.problems += [AN_OPTION.sub(of_the_run, line) for line in long_table.shortened(lines)]

    def add(self, kind: str, name: str, **facts: Any) -> None:
        """A table that can be used."""
        self.rows.append({"kind": kind, "name": name, **facts})


def typed(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """argparse type of a converter that says by ValueError what is wrong."""

    def checked(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked


def plateau(text: str) -> float | None:
    """argparse type: a number, or nothing for a plateau that is estimated."""
    return None if not text.strip() else cli.number(-1e9, 1e9)(text)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--sheet", type=Path, help="table of cohorts: dataset, clinical, expression and options of single cohorts")
    pair = {"nargs": 2, "action": "append", "type": Path, "default": [], "metavar": ("DATASET", "FILE")}
    add("--clinical", **pair, help="clinical table of a dataset of the sheet; once per dataset")
    add("--expression", **pair, help="expression table of a dataset of the sheet, where it has one")
    add("--plates", nargs="*", default=[], type=Path, help="long tables of wells under rising doses")
    add("--fields", nargs="*", default=[], type=Path, help="long tables of stained fields")
    add("--phases", required=True, type=Path, help="phases.tsv of CHECK_DESIGN")
    add("--samples", required=True, type=Path, help="samples.tsv of CHECK_DESIGN, with which stained samples must agree")
    survival_tables.add_options(add, typed)
    add("--dose_unit", default="", help="unit of doses in rows that name none (default: every row must name one)")
    add("--dose_scale", choices=dose_response.SCALES, default=dose_response.PERCENT, help="of the response (default percent)")
    add("--top_fixed", type=plateau, default=None, help="response without effect, where it is known (default: estimated)")
    add("--bottom_fixed", type=plateau, default=None, help="response at full effect, where it is known (default: estimated)")
    add("--control", default="", help="treatments or lines, comma list: the reference of every pair (default: the first by name)")
    return parser.parse_args(argv)


# --- cohorts with outcome -------------------------------------------------------------------------------------------


def sheet_problems(table: pd.DataFrame, clinical: dict[str, Path], expression: dict[str, Path]) -> list[str]:
    """Faults of the rows of the sheet apart from the cells of options: names, files."""
    problems = []
    for column in ("dataset", "clinical"):
        if column not in table:
            problems.append(f"no column {column}; expected a row per dataset with dataset and clinical. Add it.")
    if problems:
        return problems
    problems += survival_tables.unknown_columns(table)
    if table.empty:
        problems.append("no row below the header; expected a row per dataset. Add the datasets, or leave the sheet out.")
    seen: dict[str, int] = {}
    for at, (row, name) in enumerate(zip(survival.row_numbers(table), table["dataset"], strict=True)):
        where = f"row {row}, column dataset: {name!r}"
        if not keys.ID_PATTERN.match(name):
            pattern = "letters, digits, `_`, `.`, `-`, starting with a letter or digit"
            problems.append(f"{where}; expected a name of {pattern}. Rename the dataset.")
        elif name in seen:
            problems.append(f"{where} stands in row {seen[name]} too; expected each dataset once. Rename or remove one.")
        else:
            seen[name] = row
            for column, given in (("clinical", clinical), ("expression", expression)):
                cell = table[column].iloc[at] if column in table else ""
                if not cell and column == "clinical":
                    problems.append(f"row {row}, column clinical: empty; expected a file. Name the clinical table.")
                elif cell and name not in given:
                    problems.append(f"row {row}, column {column}: {cell!r}; expected a file that exists. Correct the path.")
    return problems


def absent_genes(options: argparse.Namespace, made: survival_tables.Dataset) -> list[str]:
    """The remark on markers that neither table holds."""
    known = {*made.expression.genes, *made.clinical.numbers}
    absent = [name for name in options.markers if name not in known]
    return [f"gene_absent: {status.few(absent, 10)}"] if absent else []


def may_be_module(marker: str) -> bool:
    """Whether a cut may be meant for a module, which only the tumour stage will name."""
    return bool(A_MODULE.match(marker))


def check_cohorts(args: argparse.Namespace, found: Findings) -> None:
    """The sheet, and of each of its datasets the clinical and the expression table; the gene sets once."""
    sets, wrong = survival_tables.read_signatures(args.signatures)
    found.refuse(*wrong)
    if not wrong:
        labels = long_table.labels(args.signatures)
        for path, name in sorted(zip(args.signatures, labels, strict=True), key=lambda pair: pair[1]):
            mine = [genes for _, source, _, genes in sets if source == path.name.removesuffix(".gz").removesuffix(".gmt")]
            found.add(SIGNATURES, name, rows=len(mine), n_sets=len(mine), n_genes=len({g for genes in mine for g in genes}))
    if args.sheet is None:
        if args.clinical or args.expression:
            found.refuse("--clinical and --expression belong to datasets of --sheet. Give the sheet.")
        return
    clinical = {str(name): path for name, path in args.clinical}
    expression = {str(name): path for name, path in args.expression}
    try:
        sheet = survival_tables.read_table(args.sheet)
    except io.InputError as error:
        found.refuse(str(error))
        return
    twice = sorted({str(name) for name in sheet.columns if list(sheet.columns).count(name) > 1})
    if twice:
        found.refuse(f"{args.sheet.name}: column {', '.join(twice)} stands twice in the header. Rename or remove one.")
        return
    wrong = sheet_problems(sheet, clinical, expression)
    found.add(SHEET, args.sheet.name, rows=len(sheet))
    by_line: dict[str, list[str]] = {}  # an option of the run may be wrong for many datasets: told once
    names = sheet["dataset"].tolist() if "dataset" in sheet else []
    for place, name in enumerate(names):
        filled, lines = survival_tables.row_options(sheet, place)
        wrong += lines
        if names.index(name) != place or name not in clinical:
            continue
        options = argparse.Namespace(**{**vars(args), **filled})
        bulk = expression.get(name)
        try:
            # as the workflow does: without an expression table no gene set is asked for
            used = sets if bulk else []
            made, lines = survival_tables.read_dataset(options, clinical[name], bulk, used, may_be_module)
        except io.InputError as error:
            made, lines = None, [str(error)]
        for line in lines:
            by_line.setdefault(line, []).append(name)
        if made is not None:
            add_cohort(found, name, clinical[name], bulk, made, absent_genes(options, made))
    found.refuse(*(f"{args.sheet.name}: {line}" for line in wrong))
    found.refuse(*(f"{'dataset' if len(who) == 1 else 'datasets'} {status.few(who)}, {line}" for line, who in by_line.items()))


def add_cohort(
    found: Findings, name: str, clinical: Path, bulk: Path | None, made: survival_tables.Dataset, more: list[str]
) -> None:
    """The rows of one cohort."""
    remarks = {CLINICAL: [r for r in made.remarks if r.startswith("time_unit")]}
    remarks[EXPRESSION] = [r for r in made.remarks if r not in remarks[CLINICAL]]
    remarks[EXPRESSION if bulk else CLINICAL] += more
    found.add(
        CLINICAL, clinical.name, dataset=name, rows=made.n_clinical, n_patients=len(made.clinical.patients),
        n_events=int(made.clinical.event.sum()), remarks="; ".join(remarks[CLINICAL]),
    )  # fmt: skip
    if bulk:
        found.add(
            EXPRESSION, bulk.name, dataset=name, rows=made.expression.n_rows, n_patients=len(made.expression.patients),
            n_genes=made.expression.n_genes, remarks="; ".join(remarks[EXPRESSION]),
        )  # fmt: skip


# --- plates and fields ----------------------------------------------------------------------------------------------


def check_plates(args: argparse.Namespace, found: Findings) -> None:
    """Tables of wells and the options that name something in them."""
    _, wrong = dose_response.fixed_plateaus(args.bottom_fixed, args.top_fixed)
    found.refuse(*([wrong] if wrong else []))
    wells, table, problems = dose_response.read_wells(args.plates, args.dose_unit.strip(), args.dose_scale)
    found.refuse(*long_table.lines_of(problems))
    if problems or table.empty:
        return
    _, wrong = dose_response.references(args.control, wells)
    found.refuse(*([wrong] if wrong else []))
    for name, part in table.groupby(long_table.FILE, sort=True):
        own, _ = dose_response.wells(part.dropna(axis=1, how="all"), args.dose_unit.strip(), args.dose_scale)
        curves = own.groupby(list(dose_response.CURVE), sort=True)
        found.add(PLATES, str(name), rows=len(part), n_curves=curves.ngroups, remarks="; ".join(plate_remarks(own)))


def plate_remarks(wells: pd.DataFrame) -> list[str]:
    """What the wells of one table will not allow, in the words of its remarks."""
    curves = [part for _, part in wells.groupby(list(dose_response.CURVE), sort=True)]
    few = sum(part.loc[part["dose"] > 0, "dose"].nunique() < dose_response.MIN_DOSES for part in curves)
    single = sum(part["replicate"].nunique() < 2 for part in curves)
    untreated = int((wells["dose"] == 0).sum())
    remarks = []
    if few:
        needed = f"{dose_response.MIN_DOSES} doses above 0"
        remarks.append(f"few_doses: {few} of {plural(len(curves), 'curve')} with fewer than {needed}")
    if single:
        remarks.append(f"one_replicate: {single} of {plural(len(curves), 'curve')}")
    if untreated:
        remarks.append(f"untreated: {plural(untreated, 'well')} at dose 0")
    return remarks


def check_fields(args: argparse.Namespace, found: Findings) -> None:
    """Tables of stained fields against phases and samples of the design."""
    phases = io.read_tsv(args.phases, dtype={"phase": str})
    samples = io.read_tsv(args.samples, dtype=str)
    fields, table, problems = staining.read_fields(args.fields, phases, samples)
    found.refuse(*long_table.lines_of(problems))
    if problems or fields.empty:
        return
    known = set(samples[keys.SAMPLE])
    for name, part in table.groupby(long_table.FILE, sort=True):
        unsequenced = sorted(set(part[keys.SAMPLE]) - known)
        remark = f"not_in_samplesheet: {status.few(unsequenced)}" if unsequenced else ""
        own, _ = staining.fields(part.dropna(axis=1, how="all"), sorted(set(part[keys.PHASE])))
        n_fields = len(own[[keys.SAMPLE, "section", "field"]].drop_duplicates())
        n_patients = own[keys.PATIENT].nunique()
        found.add(FIELDS, str(name), rows=len(part), n_patients=n_patients, n_fields=n_fields, remarks=remark)


def told(found: Findings) -> io.InputError:
    """One error with every problem; the lines of a file that cannot be read are set below its name."""
    lines = [f"  - {text}".replace("\n", "\n  ") for text in found.problems]
    head = f"{plural(found.n_problems, 'problem')} with the evidence tables; nothing was computed:\n"
    return io.InputError(head + "\n".join(lines))


def summary(rows: pd.DataFrame) -> status.StatusRow:
    """The status row: what can be used."""
    if rows.empty:
        return status.StatusRow(STEP, "cohort", "cohort", keys.SKIPPED_NO_INPUT, "no evidence table was given")
    words = {CLINICAL: "clinical table", EXPRESSION: "expression table", SIGNATURES: "file", PLATES: "table", FIELDS: "table"}
    after = {SIGNATURES: " of gene sets", PLATES: " of wells", FIELDS: " of stained fields"}
    n = rows["kind"].value_counts()
    parts = [plural(int(n[kind]), word) + after.get(kind, "") for kind, word in words.items() if n.get(kind, 0)]
    sentence = f"{status.SENTENCES[keys.OK]} All evidence tables can be used: {', '.join(parts)}."
    return status.StatusRow(STEP, "cohort", "cohort", keys.OK, sentence=sentence)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    found = Findings()
    check_cohorts(args, found)
    check_plates(args, found)
    check_fields(args, found)
    if found.problems:
        raise told(found)
    rows = pd.DataFrame(found.rows, columns=COLUMNS)
    rows["kind"] = pd.Categorical(rows["kind"], categories=KINDS, ordered=True)
    rows = rows.sort_values(["kind", "dataset", "name"], kind="stable", ignore_index=True)
    rows[COUNTS] = rows[COUNTS].astype("Int64")
    io.write_tsv(rows, Path("evidence_inputs.tsv"))
    status.write([summary(rows)], STEP, "cohort")
    provenance.write(provenance.record(STEP, "cohort", args, ["numpy", "pandas"]))
    return 0


if __name__ == "__main__":
    cli.run(main)
