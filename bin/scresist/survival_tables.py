"""Tables of users: separators, quotes, gzip and orientation told by the content, faults named by row and column.

The options of a dataset stand here too (`add_options`, `row_options`): the step that tests survival and the check before all
work read the same files under the same options, and so find the same faults.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scresist import survival
from scresist.io import InputError
from scresist.survival import Clinical, Cut, as_numbers

GENES_BY_PATIENTS, PATIENTS_BY_GENES = "genes x patients", "patients x genes"
TEXT_ERRORS = (OSError, EOFError, UnicodeDecodeError, zlib.error)
MOST_PROBLEMS = 10  # of one kind that are written out
LONGEST_MONTHS = 600.0  # a longer observation speaks for another unit
LOG_SCALE_MOST = 50.0  # larger values are no logarithms of expression
UNITS = tuple(survival.MONTHS)
SHEET_FILES = ("dataset", "clinical", "expression")  # columns of a sheet that are no options

Convert = Callable[[str], Any]
GeneSet = tuple[str, str, str, list[str]]  # kind, source, name, genes


# --- options of a dataset -------------------------------------------------------------------------------------------


def names(text: str) -> list[str]:
    """Names separated by commas or semicolons, each once; empty for none."""
    return list(dict.fromkeys(part.strip() for part in re.split("[,;]", text) if part.strip()))


def label(text: str) -> str:
    """Words for axes and tables; ValueError where they are none or long."""
    found = " ".join(text.split())
    if not 0 < len(found) <= 40:
        raise ValueError(f"{text!r}: give 1 to 40 characters")
    return found


def one_of(*words: str) -> Convert:
    """A converter that takes one of some words and raises ValueError for others."""

    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not one of {', '.join(words)}")
        return text

    return convert


def within(low: float, high: float, kind: type = float) -> Convert:
    """A converter to a number of `kind` within [low, high] that raises ValueError for anything else."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is not {'a whole' if kind is int else 'a'} number") from None
        if not low <= value <= high:
            raise ValueError(f"{value} is outside {low} to {high}")
        return value

    return convert


# What a row of the sheet may say for its dataset, with the converter of the option of that name.
OF_DATASET: dict[str, Convert] = {
    "patient_column": str,
    "time_column": str,
    "event_column": str,
    "time_unit": one_of(*UNITS),
    "endpoint": label,
    "markers": names,
    "scores": names,
    "groups": names,
    "covariates": names,
    "strata": str,
    "cuts": names,
    "cut_operator": one_of(*survival.OPERATORS),
    "split_months": within(0, 10_000),
}


def add_options(add: Callable[..., Any], typed: Callable[[Convert], Convert]) -> None:
    """The options by which a cohort is read and tested, for a parser.

    Parameters
    ----------
    add
        `add_argument` of the parser.
    typed
        makes a type of the parser from a converter that raises ValueError with a sentence.
    """
    of = {name: typed(convert) for name, convert in OF_DATASET.items()}
    add("--patient_column", default="patient", help="column of the ids (default patient)")
    add("--time_column", default="time", help="column of the time to the event or the last follow-up (default time)")
    add("--event_column", default="event", help="column that is 1 for the event, 0 for censored (default event)")
    add("--time_unit", type=of["time_unit"], default="months", help="unit of the times: days, weeks, months, years (months)")
    add("--endpoint", type=of["endpoint"], default="survival", help="what the event ends, for example PFS (default survival)")
    add("--markers", type=names, default=[], help="genes, or number columns of the clinical table where a gene is not measured")
    add("--scores", type=names, default=[], help="number columns of the clinical table to test, for example staining scores")
    add("--groups", type=names, default=[], help="word columns of the clinical table whose levels are compared")
    add("--signatures", type=Path, nargs="*", default=[], help="gene sets (GMT, may be gzipped): mean z of their genes")
    add("--covariates", type=names, default=[], help="columns that the second Cox model adjusts for")
    add("--strata", default="", help="word column: stratified log-rank, own baseline hazards in the adjusted model")
    add("--cuts", type=names, default=["median"], help="declared cuts: median, tertiles, a number; `MUC3A:>=2` for one marker")
    add("--cut_operator", type=of["cut_operator"], default=">", help="which values are high where a cut does not say (default >)")
    add("--split_months", type=of["split_months"], default=12.0, help="event before this against later; 0 = no (default 12)")
    whole = typed(within(2, 10_000, int))
    add("--min_events", type=whole, default=10, help="events below which Cox carries a warning (default 10)")
    add("--min_group", type=whole, default=5, help="patients a group needs for a log-rank (default 5)")
    add("--scan", action="store_true", help="also the best cut of each marker, with a p corrected for the search; exploratory")
    add("--permutations", type=typed(within(99, 10**6, int)), default=1000, help="of the scanned cut's p (default 1000)")


def unknown_columns(table: pd.DataFrame) -> list[str]:
    """A line for each column of a sheet that says nothing to the step."""
    known = {*SHEET_FILES, *OF_DATASET}
    return [
        f"column {name}: unknown; expected {', '.join(sorted(known))}. Rename or remove it."
        for name in table.columns
        if name not in known
    ]


def row_options(table: pd.DataFrame, place: int) -> tuple[dict[str, Any], list[str]]:
    """The options that the row at `place` of a sheet fills in, by name, and a line for each cell that is wrong."""
    found: dict[str, Any] = {}
    problems = []
    for name, convert in OF_DATASET.items():
        text = str(table[name].iloc[place]) if name in table else ""
        if not text:
            continue
        try:
            found[name] = convert(text)
        except ValueError as error:
            problems.append(f"row {survival.row_numbers(table)[place]}, column {name}: {error}. Correct the cell.")
    return found, problems


# --- text -----------------------------------------------------------------------------------------------------------


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a text file one by one with their numbers from 1, unpacked where it is gzipped (told by its first bytes).

    Blank lines are left out and counted.

    Raises
    ------
    InputError
        where the file cannot be read as text.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if packed else raw, encoding="utf-8-sig") as text:
                for number, line in enumerate(text, start=1):
                    if line.strip():
                        yield number, line.rstrip("\n")
    except TEXT_ERRORS as error:
        raise InputError(f"{path.name}: cannot be read as text ({error}); expected csv or tsv, plain or gzipped") from error


def read_lines(path: Path) -> list[str]:
    """All lines of a text file, as `text_lines` gives them, without their numbers."""
    return [line for _, line in text_lines(path)]


def delimiter(header: str) -> str:
    """The separator that stands most often in the header."""
    return max("\t,;", key=header.count)


def fields(line: str, sep: str) -> list[str]:
    """The cells of one line, without quotes and blanks around them."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter=sep), [])]


def read_table(path: Path) -> pd.DataFrame:
    """A table of text with its header; the index holds the lines of the file (`survival.row_numbers`).

    Rows without any cell filled, as spreadsheets leave them below a table, are left out.

    Raises
    ------
    InputError
        when the file is empty or rows have another number of cells than the header.
    """
    lines = [(number, line) for number, line in text_lines(path) if line.strip(" \t,;")]
    if not lines:
        raise InputError(f"{path.name}: the file is empty; expected a header and one row per patient. Give the table.")
    sep = delimiter(lines[0][1])
    header = fields(lines[0][1], sep)
    rows = [fields(line, sep) for _, line in lines[1:]]
    index = pd.Index([number for number, _ in lines[1:]], name=survival.ROW, dtype=int)
    odd = [i for i, row in enumerate(rows) if len(row) != len(header)]
    if odd:
        told = "; ".join(f"row {index[i]}: {len(rows[i])} cells" for i in odd[:MOST_PROBLEMS])
        more = f" and {len(odd) - MOST_PROBLEMS} more rows" if len(odd) > MOST_PROBLEMS else ""
        raise InputError(f"{path.name}: {told}{more}; expected {len(header)} as in the header. Check quotes and separators.")
    return pd.DataFrame(rows, columns=header, dtype=object, index=index)


@dataclass
class Expression:
    """Expression of the genes that are needed in the patients that have a clinical row.

    values: genes x patients, NaN = missing; n_table: patients or samples in the file; n_genes: genes in the file; n_rows: rows
    below the header.
    """

    genes: list[str] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    values: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    n_table: int = 0
    n_genes: int = 0
    n_rows: int = 0
    orientation: str = ""
    repeated: list[str] = field(default_factory=list)


def read_expression(path: Path, patients: Sequence[str], needed: set[str]) -> tuple[Expression, list[str]]:
    """The part of an expression table that is needed; genes in rows or in columns, told by where the patients stand.

    A gene that stands more than once becomes the mean of its rows. Returns the problems as lines beside it. The file is read
    twice, line by line, so that a large table never stands in memory: for the names first, then for the rows that are needed.
    """
    opening: list[str] = []
    first: list[str] = []  # the first cell alone: most rows of a large table are not needed
    line_of: list[int] = []  # in the file, for messages
    sep = ""
    for number, line in text_lines(path):
        if len(opening) < 2:
            opening.append(line)
            sep = sep or delimiter(line)
        if len(opening) == 2:
            first.append(line.split(sep, 1)[0].strip().strip('"').strip())
            line_of.append(number)
    if len(opening) < 2:
        return Expression(), [f"{path.name}: {len(opening)} rows; expected a header and genes or patients below. Give the table."]
    header, second = fields(opening[0], sep), fields(opening[1], sep)
    columns = header if len(second) == len(header) + 1 else header[1:]  # R writes no corner above row names
    width = len(columns) + 1
    known = set(patients)
    in_columns, in_rows = [name in known for name in columns], [name in known for name in first]
    if not any(in_columns) and not any(in_rows):
        return Expression(), [
            f"{path.name}: none of its columns ({', '.join(columns[:3])}, ...) and none of its rows ({', '.join(first[:3])}, ...)"
            f" is a patient of the clinical table ({', '.join(list(patients)[:3])}, ...); expected the same ids in both. Rename"
            " the patients in one of them, or name the column of the ids with --patient_column."
        ]
    by_columns = sum(in_columns) >= sum(in_rows)
    people, genes = (columns, first) if by_columns else (first, columns)
    place = {name: i for i, name in enumerate(people) if name in known}
    problems = [
        f"{path.name}, patient {name}: stands {n} times; expected once. Keep one measurement per patient, or average them."
        for name, n in pd.Series([name for name in people if name in known]).value_counts().sort_index().items()
        if n > 1
    ]
    made = Expression(
        n_table=len(set(people)), n_genes=len({g for g in genes if g}), n_rows=len(first),
        orientation=GENES_BY_PATIENTS if by_columns else PATIENTS_BY_GENES,
    )  # fmt: skip
    made.patients = sorted(place)
    wanted = [i for i, gene in enumerate(genes) if gene in needed]
    made.genes = sorted({genes[i] for i in wanted})
    row_of = {gene: i for i, gene in enumerate(made.genes)}
    total, count = np.zeros((len(made.genes), len(made.patients))), np.zeros((len(made.genes), len(made.patients)))
    odd: list[str] = []

    def numbers(cells: list[str], place: int, columns_of: list[int]) -> np.ndarray:
        """Cells of the row at `place` as numbers; those that are none are written to `odd`."""
        try:
            values = np.array([cells[i] for i in columns_of], dtype=float)
            if not np.isinf(values).any():
                return values
        except ValueError:
            pass
        values, wrong = as_numbers(cells[i] for i in columns_of)
        for i in wrong:
            at = columns_of[int(i)]
            odd.append(
                f"{path.name}, row {line_of[place]}, column {columns[at - 1]}: {cells[at]!r} ({first[place]}); expected a number."
                " Write a number, or leave the cell empty."
            )
        return values

    if by_columns:
        rows, columns_of = wanted, [place[name] + 1 for name in made.patients]
    else:
        rows, columns_of = sorted(place.values()), [i + 1 for i in wanted]
    column_of = {name: i for i, name in enumerate(made.patients)}
    ragged: list[str] = []
    needed_rows = set(rows)
    for i, (number, line) in enumerate(text_lines(path), start=-1):  # the header is -1
        if i not in needed_rows:
            continue
        cells = fields(line, sep)
        if len(cells) != width:
            ragged.append(f"{path.name}, row {number}: {len(cells)} cells; expected {width}. Check quotes and separators.")
            continue
        values = numbers(cells, i, columns_of)
        found = np.isfinite(values)
        if by_columns:
            total[row_of[first[i]], found] += values[found]
            count[row_of[first[i]], found] += 1
        else:
            at = column_of[first[i]]
            for gene, value in zip((genes[k] for k in wanted), values, strict=True):
                if np.isfinite(value):
                    total[row_of[gene], at] += value
                    count[row_of[gene], at] += 1
    for found_problems in (ragged, odd):
        problems += found_problems[:MOST_PROBLEMS]
        if len(found_problems) > MOST_PROBLEMS:
            problems.append(f"{path.name}: the same in {len(found_problems) - MOST_PROBLEMS} more places")
    with np.errstate(invalid="ignore"):
        made.values = np.where(count > 0, total / count, np.nan)
    times = pd.Series([genes[i] for i in wanted], dtype=object).value_counts()
    made.repeated = sorted(times.index[times > 1])
    return made, problems


# --- one cohort -----------------------------------------------------------------------------------------------------


@dataclass
class Dataset:
    """What the tables of one cohort hold: patients with outcome; expression of some of them; declared cuts.

    n_clinical: patients of the clinical table; remarks: for the status.
    """

    clinical: Clinical
    expression: Expression
    cuts: list[Cut]
    n_clinical: int
    remarks: list[str]


def read_signatures(paths: Sequence[Path]) -> tuple[list[GeneSet], list[str]]:
    """Gene sets of GMT files as (kind, source, name, genes), sorted by file and name; problems as lines."""
    if not paths:
        return [], []
    from scresist import enrichment  # compiles: imported where there is something to read

    found: list[GeneSet] = []
    problems = []
    stems = [path.name.removesuffix(".gz").removesuffix(".gmt") for path in paths]
    for name in sorted({name for name in stems if stems.count(name) > 1}):
        problems.append(f"--signatures: the name {name} stands for several files; expected one. Rename all but one.")
    for name, path in sorted(zip(stems, paths, strict=True), key=lambda pair: pair[0]):
        try:
            sets = enrichment.parse_gmt("\n".join(read_lines(path)), path.name)
            found += [(survival.SIGNATURE, name, title, genes) for title, genes in sorted(sets.items())]
        except InputError as error:
            problems.append(str(error))
    return found, problems


def read_dataset(
    options: Any,
    clinical_path: Path,
    expression_path: Path | None,
    sets: Sequence[GeneSet],
    may_name: Callable[[str], bool] = lambda _name: False,
) -> tuple[Dataset | None, list[str]]:
    """The tables of one cohort under its options, with everything that is wrong with them as lines.

    Parameters
    ----------
    options
        attributes as `add_options` names them.
    sets
        signatures and modules whose genes are needed.
    may_name
        whether a cut may be for a marker that is not known yet.

    Returns
    -------
    dataset
        None where there is a problem.
    problems
        one line each.
    """
    problems: list[str] = []
    cuts = []
    for text in options.cuts:
        try:
            cuts.append(survival.parse_cut(text, options.cut_operator))
        except ValueError as error:
            problems.append(f"--cuts: {error}")
    table = read_table(clinical_path)
    # markers that may stand in the clinical table: all of them where there is no expression
    in_table = [name for name in options.markers if name in table.columns and name not in options.scores]
    outcome = (options.patient_column, options.time_column, options.event_column)
    beside = (options.groups, options.covariates, options.strata)
    clinical, faults = survival.read_clinical(table, *outcome, options.scores, *beside)
    problems += [f"{clinical_path.name}: {fault.line()}" for fault in faults]
    expression = Expression()
    if expression_path is not None and options.patient_column in table:
        column = table.columns.get_loc(options.patient_column)
        if isinstance(column, int):
            ids = [str(name).strip() for name in table.iloc[:, column]]
            needed = set(options.markers).union(*(genes for _, _, _, genes in sets))
            expression, wrong = read_expression(expression_path, ids, needed)
            problems += wrong
    elif sets:
        problems.append("--signatures and --modules need --expression: their genes are measured there. Give the table.")
    scored = [name for name in in_table if name not in expression.genes]
    if scored and not faults:
        clinical, faults = survival.read_clinical(table, *outcome, [*options.scores, *scored], *beside)
        problems += [f"{clinical_path.name}: {fault.line()}" for fault in faults]
    used = {*options.markers, *options.scores, *(name for _, _, name, _ in sets)}
    for cut in cuts:
        if cut.marker and cut.marker not in used and not may_name(cut.marker):
            problems.append(f"--cuts: {cut.marker}:{cut.operator}{cut.what} names no marker; name it in --markers or --scores.")
    if problems:
        return None, problems

    remarks = []
    n_clinical = len(clinical.patients)
    longest = float(clinical.time.max())
    if longest * survival.MONTHS[options.time_unit] > LONGEST_MONTHS:
        remarks.append(f"time_unit: the longest time is {longest:.6g} {options.time_unit}; is --time_unit right?")
    if expression_path is not None:
        lost, extra = n_clinical - len(expression.patients), expression.n_table - len(expression.patients)
        if lost or extra:
            remarks.append(
                f"unmatched: {lost} of {n_clinical} patients without expression, {extra} of {expression.n_table} measured samples"
                " without a clinical row: no gene is tested in them"
            )
        if expression.repeated:
            n, shown = len(expression.repeated), ", ".join(expression.repeated[:3])
            remarks.append(f"repeated_genes: {n} stand more than once ({shown}), their mean is used")
        top = float(np.nanmax(expression.values)) if np.isfinite(expression.values).any() else 0.0
        if top > LOG_SCALE_MOST:
            remarks.append(f"no_log_scale: expression up to {top:.6g}; a ratio per SD needs logarithms, else few patients decide")
    return Dataset(clinical, expression, cuts, n_clinical, remarks), []
