"""Long tables that a laboratory writes (one well or field per row): from text to columns of text, every fault named by its row.

Used by the steps that read dose-response plates and staining fields; each step then checks its own columns.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from scresist.design import Problem, nearest, plural
from scresist.io import InputError

FILE, ROW = "_file", "_row"  # where a row came from, for messages
MOST_LINES = 40  # of a message; what lies beyond is counted
SEPARATORS = "\t,;"
Fault = tuple[str, Problem | str]  # file and what is wrong with it; a text names its file itself


def parse(text: str, name: str, aliases: Mapping[str, str] | None = None) -> pd.DataFrame:
    """A table as text, with the columns FILE and ROW (the line in the file, the header is 1).

    Parameters
    ----------
    text
        the file's content; its separator (tab, comma or semicolon) is the one that stands most often in the header.
    name
        of the file, for messages.
    aliases
        other words for a column -> its name. Headers are read without regard to case, blanks and hyphens.

    Raises
    ------
    InputError
        for an empty file, a column named twice, rows with more or fewer cells than the header.
    """
    lines = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not lines[0].strip():
        raise InputError(f"{name}: the first row is empty; expected the names of the columns. Write them.")
    separator = max(SEPARATORS, key=lines[0].count)
    header = [_plain(cell, aliases or {}) for cell in next(csv.reader([lines[0]], delimiter=separator))]
    problems = [
        f"row 1: {header.count(column)} columns are read as {column}; expected one. Rename or remove the others"
        for column in sorted({column for column in header if header.count(column) > 1})
    ]
    rows, numbers = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip(" \t,;"):
            continue
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]
        if len(cells) != len(header):
            problems.append(f"row {number}: {len(cells)} cells, the header has {len(header)}. Give one cell per column")
            continue
        rows.append(cells)
        numbers.append(number)
    if problems:
        raise InputError(f"{name} cannot be read:\n" + "\n".join(f"  - {problem}." for problem in shortened(problems)))
    frame = pd.DataFrame(rows, columns=header, dtype=object)
    frame[FILE], frame[ROW] = name, numbers
    return frame


def file_names(names: Sequence[str], default: str) -> dict[str, str]:
    """Name -> one that is safe in file names, no two alike; `default` where nothing of it is."""
    made: dict[str, str] = {}
    taken: set[str] = set()
    for given in names:
        base = re.sub(r"[^A-Za-z0-9_-]+", "_", given).strip("_-") or default
        name, n = base, 1
        while name.lower() in taken:  # some disks do not tell A from a
            n += 1
            name = f"{base}_{n}"
        taken.add(name.lower())
        made[given] = name
    return made


def _text(path: Path) -> str:
    """A file as text, unpacked where it is gzipped (told by its first bytes)."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    return content.decode("utf-8-sig")


def labels(paths: Sequence[Path]) -> list[str]:
    """A name for messages of each file: its own, with a number where several files are called so."""
    names = [path.name for path in paths]
    made = []
    for at, name in enumerate(names):
        before = names[:at].count(name)
        made.append(f"{name} (file {before + 1} of that name)" if names.count(name) > 1 else name)
    return made


def read(paths: Sequence[Path], aliases: Mapping[str, str], expected: str, mend: str) -> tuple[pd.DataFrame, list[Fault]]:
    """The rows of all files as `parse` reads them, sorted by file name, and every file that cannot be read or has no row.

    Parameters
    ----------
    expected, mend
        what a table without a row should hold, and what to do.
    """
    tables, problems = [], []
    ordered = sorted(paths, key=lambda path: path.name)
    for path, name in zip(ordered, labels(ordered), strict=True):
        try:
            table = parse(_text(path), name, aliases)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            problems.append((name, f"{name}: cannot be read as UTF-8 text ({type(error).__name__}). Save it as csv or tsv."))
        except InputError as error:
            problems.append((name, str(error)))
        else:
            if table.empty:
                problems.append((name, Problem("", "no row below the header", expected, mend, 1)))
            else:
                tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(), problems


def _plain(cell: str, aliases: Mapping[str, str]) -> str:
    word = re.sub(r"[\s-]+", "_", cell.strip().lower())
    return aliases.get(word, word)


def shortened(lines: Sequence[str]) -> list[str]:
    """At most MOST_LINES lines, with the number of those left out."""
    if len(lines) <= MOST_LINES:
        return list(lines)
    return [*lines[:MOST_LINES], f"and {len(lines) - MOST_LINES} more"]


def lines_of(problems: Sequence[Fault]) -> list[str]:
    """A line per problem."""
    return [
        problem if isinstance(problem, str) else f"{name}, {problem.line()}" if name else problem.line()
        for name, problem in problems
    ]


def told(problems: Sequence[Fault], what: str) -> InputError:
    """One error with a line per problem."""
    lines = [line.replace("\n", "\n  ") for line in lines_of(problems)]
    head = f"{plural(len(lines), 'problem')} with {what}; nothing was computed:\n"
    return InputError(head + "\n".join(f"  - {line}" for line in shortened(lines)))


def absent(frame: pd.DataFrame, name: str, needed: Sequence[str]) -> list[tuple[str, Problem]]:
    """A problem for each needed column that a table lacks."""
    given = [column for column in frame if column not in (FILE, ROW)]
    made = []
    for column in needed:
        if column not in frame:
            near = nearest(column, [g for g in given if g not in needed])
            mend = f"Rename {near} to {column}" if near else f"Add the column {column}"
            made.append((name, Problem(column, f"no such column among {', '.join(given)[:200]}", f"a column {column}", mend, 1)))
    return made


def numbers(frame: pd.DataFrame, column: str, problems: list[tuple[str, Problem]], low: float = -math.inf) -> pd.Series:
    """A column as floats; what is no finite number, or lies below `low`, is added to `problems`."""
    values = []
    for text, name, row in zip(frame[column].astype(str), frame[FILE], frame[ROW], strict=True):
        value = _float(text)
        fault = None
        if value is None:
            mend = "Write the decimal point as ." if re.fullmatch(r"-?\d+,\d+", text) else "Write a number or remove the row"
            fault = Problem(column, f"{text!r}" if text else "empty", "a number", mend, row)
        elif value < low:
            mend = "Give doses, not their logarithms" if column == "dose" else "Correct the value or remove the row"
            fault = Problem(column, text, f"{low:g} or above", mend, row)
        if fault:
            problems.append((name, fault))
        values.append(math.nan if value is None else value)
    return pd.Series(values, index=frame.index, dtype=float)


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def filled(frame: pd.DataFrame, column: str, problems: list[tuple[str, Problem]]) -> pd.Series:
    """A column as text; empty cells are added to `problems`."""
    values = frame[column].astype(str)
    for name, row in frame.loc[values == "", [FILE, ROW]].itertuples(index=False):
        problems.append((name, Problem(column, "empty", "a name", "Write it or remove the row", row)))
    return values
