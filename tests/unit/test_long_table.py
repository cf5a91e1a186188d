"""Long tables of a laboratory: separators, headers, faults by row."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from scresist import long_table
from scresist.design import Problem
from scresist.io import InputError


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_separator_is_told_by_the_header(separator):
    text = "\ufeffCell-Line;Dose (nM)\r\nA;1\r\n\r\nB;2\r\n".replace(";", separator)
    made = long_table.parse(text, "x.txt", {"cell_line": "line"})
    assert made["line"].tolist() == ["A", "B"]
    assert list(made)[1] == "dose_(nm)"
    assert made[long_table.ROW].tolist() == [2, 4]
    assert set(made[long_table.FILE]) == {"x.txt"}


def test_quotes_and_empty_cells():
    made = long_table.parse('line,note\n"A, B",""\n', "x.csv")
    assert made["line"].tolist() == ["A, B"]
    assert made["note"].tolist() == [""]


def test_unreadable_tables():
    with pytest.raises(InputError, match="x: the first row is empty"):
        long_table.parse("", "x")
    with pytest.raises(InputError, match="2 columns are read as line") as error:
        long_table.parse("line,Line\n1,2\n1\n1,2,3\n", "x")
    assert "row 3: 1 cells, the header has 2" in str(error.value)
    assert "row 4: 3 cells" in str(error.value)


def test_packed_tables_and_broken_packing(tmp_path):
    packed = gzip.compress("\ufeffline,dose\nA,1\n".encode())
    (tmp_path / "a.csv.gz").write_bytes(packed)
    (tmp_path / "b.csv").write_bytes(packed)  # told by the content, not by the name
    (tmp_path / "c.csv.gz").write_bytes(packed[:-9])
    table, problems = long_table.read(sorted(tmp_path.iterdir()), {}, "rows", "Add")
    assert table["line"].tolist() == ["A", "A"]
    assert table[long_table.ROW].tolist() == [2, 2]
    assert [name for name, _ in problems] == ["c.csv.gz"]
    assert "cannot be read as UTF-8 text" in problems[0][1]


def test_file_names_are_safe_and_differ():
    names = ["a", "A", "a/b", "a b", "../..", "\u03b1", "a_2"]
    made = long_table.file_names(names, "marker")
    assert made == {"a": "a", "A": "A_2", "a/b": "a_b", "a b": "a_b_2", "../..": "marker", "\u03b1": "marker_2", "a_2": "a_2_2"}


def test_long_lists_are_cut():
    problems = [("f", Problem("dose", "x", "a number", "Write one", i)) for i in range(60)]
    text = str(long_table.told(problems, "the tables"))
    assert text.startswith("60 problems with the tables; nothing was computed:\n  - f, row 0, column dose: x; expected a number.")
    assert text.endswith("  - and 20 more")
    assert len(text.splitlines()) == long_table.MOST_LINES + 2


def test_numbers_and_names():
    frame = long_table.parse("a,b\n1e-3,x\n,\nnan,y\n-2,z\n", "f")
    problems = []
    values = long_table.numbers(frame, "a", problems, low=0.0)
    assert values.iloc[0] == 0.001
    assert np.isnan(values.iloc[1])
    assert values.iloc[2] == -2
    assert [problem.row for _, problem in problems] == [4, 5]  # row 3 is blank and no row
    assert problems[1][1].expected == "0 or above"
    assert long_table.filled(frame, "b", problems).tolist() == ["x", "y", "z"]


def test_missing_columns_name_the_nearest():
    frame = long_table.parse("lien,dose\n1,2\n", "f")
    (found,) = long_table.absent(frame, "f", ["line", "dose"])
    assert found[1].mend == "Rename lien to line"


def test_files_are_read_together_and_faults_of_all_are_kept(tmp_path):
    for folder, name, text in (("1", "b.csv", "line\nB\n"), ("2", "b.csv", "line\nC\n"), ("1", "a.csv", "line\tx\nA\t1\n"),
                               ("1", "c.csv", "line\n"), ("1", "d.csv", "line,x\n1\n"), ("1", "e.csv", "")):  # fmt: skip
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(text)
    (tmp_path / "1/f.csv").write_bytes(b"\xff\xfe\x00")
    paths = [tmp_path / "1/b.csv", tmp_path / "2/b.csv", *(tmp_path / "1" / f"{name}.csv" for name in "facedx")]
    table, problems = long_table.read(paths, {}, "one row per well", "Add the wells")
    assert table["line"].tolist() == ["A", "B", "C"]
    assert table[long_table.FILE].tolist() == ["a.csv", "b.csv (file 1 of that name)", "b.csv (file 2 of that name)"]
    assert long_table.lines_of(problems) == [
        "c.csv, row 1, table: no row below the header; expected one row per well. Add the wells.",
        "d.csv cannot be read:\n  - row 2: 1 cells, the header has 2. Give one cell per column.",
        "e.csv: the first row is empty; expected the names of the columns. Write them.",
        "f.csv: cannot be read as UTF-8 text (UnicodeDecodeError). Save it as csv or tsv.",
        "x.csv: cannot be read as UTF-8 text (FileNotFoundError). Save it as csv or tsv.",
    ]
    text = str(long_table.told(problems, "the tables"))
    assert text.startswith("5 problems with the tables; nothing was computed:\n  - c.csv, row 1")
    assert "  - d.csv cannot be read:\n    - row 2" in text
    assert long_table.read([], {}, "", "")[0].empty
