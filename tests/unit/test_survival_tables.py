"""Users' tables: separators, gzip, orientation and faults."""

from __future__ import annotations

import argparse
import gzip

import numpy as np
import pandas as pd
import pytest

from scresist import survival
from scresist.io import InputError
from scresist.survival_tables import (
    GENES_BY_PATIENTS,
    PATIENTS_BY_GENES,
    add_options,
    read_dataset,
    read_expression,
    read_lines,
    read_signatures,
    read_table,
    row_options,
    unknown_columns,
)


@pytest.fixture
def write(tmp_path):
    def make(name, text):
        path = tmp_path / name
        data = text.encode("utf-8")
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return make


PATIENTS = ["P1", "P2", "P3"]


@pytest.mark.parametrize("sep", [",", "\t", ";"])
@pytest.mark.parametrize("name", ["t.txt", "t.gz"])
def test_separators_and_gzip(write, sep, name):
    rows = [["patient", "time", "note"], ["P1", "1", f'"a{sep}b"'], ["P2", "2", ""]]
    table = read_table(write(name, "\ufeff" + "\r\n".join(sep.join(row) for row in rows) + "\n\n"))
    assert list(table) == ["patient", "time", "note"]
    assert table["note"].tolist() == [f"a{sep}b", ""]
    assert table["time"].tolist() == ["1", "2"]


def test_faults_of_text(write, tmp_path):
    with pytest.raises(InputError, match="the file is empty"):
        read_table(write("a.tsv", "\n"))
    with pytest.raises(InputError, match=r"row 2: 1 cells; row 4: 3 cells; expected 2 as in the header"):
        read_table(write("a.csv", "a,b\n1\n1,2\n1,2,3\n"))
    path = tmp_path / "x.gz"
    path.write_bytes(b"\x1f\x8bno")
    with pytest.raises(InputError, match=r"x\.gz: cannot be read as text"):
        read_lines(path)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="expected csv or tsv"):
        read_lines(path)


def test_blank_lines_are_counted(write):
    table = read_table(write("c.csv", "\npatient,time,event\n\nA,5,1\n,,\nB,-6,0\n\n"))
    assert table["patient"].tolist() == ["A", "B"]
    assert table.index.tolist() == [4, 6]
    _, problems = survival.read_clinical(table, "patient", "time", "event")
    assert problems[0].line().startswith("row 6, column time: '-6' (patient B)")
    assert row_options(table.assign(time_unit=["days", "x"]), 1)[1][0].startswith("row 6, column time_unit: 'x'")
    with pytest.raises(InputError, match=r"row 4: 1 cells; expected 2"):
        read_table(write("d.csv", "a,b\n\n1,2\n1\n"))
    _, problems = read_expression(write("e.csv", "\ng,P1,P2\n\nA,1,2\n\nB,1,x\nB,1\n"), PATIENTS, {"A", "B"})
    assert "row 6, column P2: 'x' (B)" in problems[1]
    assert "row 7: 2 cells; expected 3" in problems[0]


EXPECTED = [[1.0, 2.0, np.nan], [4.0, 5.0, 6.0]]


@pytest.mark.parametrize(
    ("text", "orientation"),
    [
        ("gene\tP3\tX\tP1\tP2\nB\t6\t0\t4\t5\nA\tNA\t0\t1\t2\nC\t7\t7\t7\tword\n", GENES_BY_PATIENTS),
        # R leaves the corner out
        ('"P3"\t"X"\t"P1"\t"P2"\n"B"\t6\t0\t4\t5\n"A"\tNA\t0\t1\t2\n', GENES_BY_PATIENTS),
        ("id,B,A,C\nP3,6,,x\nX,0,0,0\nP1,4,1,0\nP2,5,2,0\n", PATIENTS_BY_GENES),
        # columns that are no patients (a second id, say) are left out
        ("gene\tentrez\tP1\tP2\tP3\nA\tx9\t1\t2\t\nB\tx1\t4\t5\t6\n", GENES_BY_PATIENTS),
    ],
)
def test_orientation_is_told_by_the_patients(write, text, orientation):
    made, problems = read_expression(write("e.tsv", text), PATIENTS, {"A", "B", "Z"})
    assert problems == []
    assert made.orientation == orientation
    assert made.genes == ["A", "B"]
    assert made.patients == PATIENTS
    np.testing.assert_array_equal(made.values, EXPECTED)


@pytest.mark.parametrize("flip", [False, True])
def test_repeated_genes_become_their_mean(write, flip):
    rows = [["g", "P1", "P2"], ["A", "1", "2"], ["B", "0", "0"], ["A", "3", ""]]
    rows = list(map(list, zip(*rows, strict=True))) if flip else rows
    made, problems = read_expression(write("e.csv", "\n".join(map(",".join, rows))), PATIENTS, {"A", "B"})
    assert problems == []
    assert made.repeated == ["A"]
    np.testing.assert_array_equal(made.values[0], [2, 2])
    assert made.n_genes == 2


def test_faults_of_expression_are_all_named(write):
    path = write("e.csv", "g,P1,P2,P1\nA,x,2,inf\nB,1,2\nC,1,2,3\n")
    _, problems = read_expression(path, PATIENTS, {"A", "B"})
    text = "\n".join(problems)
    assert "patient P1: stands 2 times; expected once. Keep one measurement per patient" in text
    assert "row 2, column P1: 'inf' (A); expected a number" in text
    assert "row 3: 3 cells; expected 4" in text
    _, problems = read_expression(write("f.csv", "g,P1\n" + "A,x\n" * 15), PATIENTS, {"A"})
    assert problems[-1] == "f.csv: the same in 5 more places"
    _, problems = read_expression(write("g.csv", "g,Q1,Q2\nA,1,2\n"), PATIENTS, {"A"})
    assert "none of its columns (Q1, Q2, ...) and none of its rows (A, ...) is a patient of the clinical" in problems[0]
    assert "--patient_column" in problems[0]
    _, problems = read_expression(write("h.csv", "g,P1\n"), PATIENTS, {"A"})
    assert "1 rows; expected a header" in problems[0]


# --- options and one cohort


def test_cells_of_the_sheet_become_options():
    header = ["dataset", "time_unit", "markers", "split_months", "endpoint", "strata"]
    rows = [["a", "weeks", "A; B,A", "6", "", ""], ["b", "days", "", "x", "e" * 41, ""], ["c", "hours", "", "-1", "", "site"]]
    sheet = pd.DataFrame(rows, columns=header, dtype=object)
    assert row_options(sheet, 0) == ({"time_unit": "weeks", "markers": ["A", "B"], "split_months": 6.0}, [])
    found, problems = row_options(sheet, 1)
    assert found == {"time_unit": "days"}
    assert problems[0] == f"row 3, column endpoint: {'e' * 41!r}: give 1 to 40 characters. Correct the cell."
    assert problems[1] == "row 3, column split_months: 'x' is not a number. Correct the cell."
    found, problems = row_options(sheet, 2)
    assert found == {"strata": "site"}
    assert [line.split(": ", 1)[1] for line in problems] == [
        "'hours' is not one of days, weeks, months, years. Correct the cell.",
        "-1.0 is outside 0 to 10000. Correct the cell.",
    ]
    assert [line.split(":")[0] for line in unknown_columns(sheet.assign(colour="red"))] == ["column colour"]


@pytest.fixture
def options():
    """Defaults of the options, as a parser of a step has them."""
    parser = argparse.ArgumentParser()
    add_options(parser.add_argument, lambda convert: convert)
    return parser.parse_args([])


def test_one_cohort(write, options):
    clinical = write("c.csv", "patient,time,event,s\nP1,700,1,1\nP2,5,0,2\nP3,6,1,\nP4,1,1,3\n")
    bulk = write("e.tsv.gz", "g\tP3\tP1\tP2\tX\nA\t100\t1\t2\t3\nA\t100\t1\t2\t3\nB\t1\t1\t1\t1\nC\tbad\t\t\t\n")
    options.markers, options.cuts = ["A", "s"], ["median", "M2:>1"]
    sets = [("signature", "f", "one", ["B"])]
    made, problems = read_dataset(options, clinical, bulk, sets)
    assert made is None
    assert problems == ["--cuts: M2:>1 names no marker; name it in --markers or --scores."]
    made, problems = read_dataset(options, clinical, bulk, sets, lambda name: name == "M2")
    assert problems == []
    assert (made.n_clinical, made.clinical.patients.tolist()) == (4, ["P1", "P2", "P3", "P4"])  # P4 keeps its score
    assert made.expression.genes == ["A", "B"]
    assert made.expression.n_rows == 4
    assert made.expression.values.tolist() == [[1, 2, 100], [1, 1, 1]]
    np.testing.assert_array_equal(made.clinical.numbers["s"], [1, 2, np.nan, 3])  # a marker that is a column
    assert [cut.what for cut in made.cuts] == ["median", "1"]
    assert [remark.split(":")[0] for remark in made.remarks] == ["time_unit", "unmatched", "repeated_genes", "no_log_scale"]
    made, problems = read_dataset(options, clinical, None, sets)
    assert made is None
    assert any("need --expression" in line for line in problems)


def test_signatures(write):
    first, twin = write("b.gmt", "s2\tx\tA\ns1\tx\tB\tC\n"), write("a.gmt.gz", "t\tx\tA\n")
    sets, problems = read_signatures([first, twin])
    assert problems == []
    assert sets == [("signature", "a", "t", ["A"]), ("signature", "b", "s1", ["B", "C"]), ("signature", "b", "s2", ["A"])]
    _, problems = read_signatures([first, first, write("c.gmt", "x\n")])
    assert problems[0].startswith("--signatures: the name b stands for several files")
    assert "c.gmt is no gene set collection" in problems[1]
    assert read_signatures([]) == ([], [])
