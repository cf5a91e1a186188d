"""CHECK_EVIDENCE through its command line: good tables counted, every kind of fault, several tables wrong in one message."""

from __future__ import annotations

import gzip
import json
import re

import pandas as pd
import pytest

from scresist import io, keys

CLINICAL = "patient,time,event,stage\nP1,5,1,II\nP2,7.5,0,III\nP3,9,1,II\nP4,3,1,III\n"
BULK = "gene\tP1\tP2\tP3\tQ9\nMUC3A\t1\t2\t3\t9\nFABP1\t2\t2\t4\t9\nOTHER\tx\t\t\t\n"
SHEET = "dataset,clinical,expression,markers\nacrg,a/clinical.csv,bulk.tsv.gz,\nihc,b/clinical.csv,,ERBB2\n"
STAINED = "patient,time,event,ERBB2\nR1,5,1,2.5\nR2,7,0,1\n"
# dose 0 is an untreated well; six doses above it, two replicates of one curve and a single one of another
PLATES = "line,compound,replicate,dose,unit,response\n" + "".join(
    f"L,{compound},{replicate},{dose},nM,{100 - 10 * at}\n"
    for compound, replicates in (("A", "12"), ("B", "1"))
    for replicate in replicates
    for at, dose in enumerate((0, 1, 2, 4, 8, 16, 32) if compound == "A" else (1, 2, 4))
)
FIELDS = (
    "patient,sample,phase,field,marker,value\n"
    "P1,S1,PRE,1,HER2,0.5\nP1,S1,PRE,1,CD8,0.1\nP1,S1,PRE,2,HER2,0.4\nP7,X1,POST,1,HER2,0.2\n"
)


@pytest.fixture
def tables(tmp_path):
    """All kinds of tables without a fault, two clinical tables of one name; returns how they are given."""
    for name, text in {
        "a/clinical.csv": CLINICAL, "b/clinical.csv": STAINED, "survival.csv": SHEET, "plates.csv": PLATES, "fields.csv": FIELDS,
        "sets.gmt": "lipid\tx\tFABP1\tMUC3A\nother\tx\tNOPE\n",
        "phases.tsv": "phase\tname\trole\torder\ttime\tcolour\nPRE\ta\tbaseline\t1\t0\t\nPOST\tb\tacquired\t2\t1\t\n",
        "samples.tsv": "sample\tpatient\tphase\nS1\tP1\tPRE\nS2\tP1\tPOST\n",
    }.items():  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "bulk.tsv.gz").write_bytes(gzip.compress(BULK.encode()))
    return [
        "--sheet", "survival.csv", "--clinical", "acrg", "a/clinical.csv", "--clinical", "ihc", "b/clinical.csv",
        "--expression", "acrg", "bulk.tsv.gz", "--signatures", "sets.gmt", "--plates", "plates.csv", "--fields", "fields.csv",
        *DESIGN, "--markers", "MUC3A,CST3",
    ]  # fmt: skip


DESIGN = ["--phases", "phases.tsv", "--samples", "samples.tsv"]


@pytest.fixture
def refused(script_main, tmp_path):
    """Run it on tables that cannot be used; returns the lines of the message. Nothing may be written."""

    def run(*options):
        with pytest.raises(io.InputError) as caught:
            script_main("check_evidence")(*options)
        assert not (tmp_path / "evidence_inputs.tsv").exists()
        head, *lines = str(caught.value).splitlines()
        more = re.search(r"  - and (\d+) more", str(caught.value))
        n = sum(line.startswith("  - ") for line in lines) + (int(more[1]) - 1 if more else 0)
        assert head == f"{n} problem{'s' * (n != 1)} with the evidence tables; nothing was computed:"
        return lines

    return run


def read(folder):
    return io.read_tsv(folder / "evidence_inputs.tsv", dtype=str).fillna("")


def test_good_tables(tables, run_script, tmp_path):
    run_script("check_evidence", *tables, cwd=tmp_path)
    made = read(tmp_path)
    rows = {(row["kind"], row["dataset"], row["name"]): row for row in made.to_dict("records")}
    assert list(rows) == [
        ("survival_sheet", "", "survival.csv"), ("clinical", "acrg", "clinical.csv"), ("clinical", "ihc", "clinical.csv"),
        ("expression", "acrg", "bulk.tsv.gz"), ("signatures", "", "sets.gmt"), ("dose_response", "", "plates.csv"),
        ("staining", "", "fields.csv"),
    ]  # fmt: skip
    counts = {
        kind: tuple(made.loc[made["kind"] == kind, column].iloc[0] for column in columns)
        for kind, columns in {
            "survival_sheet": ["rows"], "clinical": ["rows", "n_patients", "n_events"],
            "signatures": ["rows", "n_sets", "n_genes"], "expression": ["rows", "n_patients", "n_genes"],
            "dose_response": ["rows", "n_curves"],
            "staining": ["rows", "n_patients", "n_fields"],
        }.items()
    }  # fmt: skip
    assert counts == {
        "survival_sheet": ("2",), "clinical": ("4", "4", "3"), "expression": ("3", "3", "3"), "signatures": ("2", "2", "3"),
        "dose_response": ("17", "2"), "staining": ("4", "2", "3"),
    }  # fmt: skip
    remarks = {kind: made.loc[made["kind"] == kind, "remarks"].iloc[0] for kind in counts}
    assert remarks["expression"].startswith("unmatched: 1 of 4 patients without expression, 1 of 4 measured samples")
    assert remarks["expression"].endswith("gene_absent: CST3")
    assert remarks["dose_response"] == (
        "few_doses: 1 of 2 curves with fewer than 5 doses above 0; one_replicate: 1 of 2 curves; untreated: 2 wells at dose 0"
    )
    assert remarks["staining"] == "not_in_samplesheet: X1"
    assert remarks["clinical"] == ""
    row = io.read_tsv(tmp_path / "check_evidence.cohort.status.tsv", dtype=str).fillna("").iloc[0]
    assert (row["status"], row["reason"]) == (keys.OK, "")
    assert row["sentence"] == (
        "Done. All evidence tables can be used: 2 clinical tables, 1 expression table, 1 file of gene sets, 1 table of wells,"
        " 1 table of stained fields."
    )
    given = json.loads((tmp_path / "check_evidence.cohort.provenance.json").read_text())["parameters"]
    assert given["clinical"] == [["acrg", "clinical.csv"], ["ihc", "clinical.csv"]]  # no path of the machine
    first = {path.name: path.read_bytes() for path in tmp_path.glob("*.tsv")}
    run_script("check_evidence", *tables, "--threads", 2, cwd=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.tsv")} == first


def test_faults_of_all_tables_in_one_message(tables, run_script, tmp_path):
    (tmp_path / "a/clinical.csv").write_text(CLINICAL.replace("P1,5", "P1,-5"))
    (tmp_path / "bulk.tsv.gz").write_bytes(gzip.compress(BULK.replace("\tP", "\tN").encode()))
    (tmp_path / "b/clinical.csv").write_text(STAINED.replace("R2,7,0", "R2,7,2"))
    (tmp_path / "survival.csv").write_text(SHEET.replace("markers", "markers,time_unit").replace(",\n", ",,fortnights\n")
        .replace("ERBB2", "ERBB2,"))  # fmt: skip
    (tmp_path / "sets.gmt").write_text("alone\n")
    (tmp_path / "plates.csv").write_text(PLATES.replace("L,A,1,4,", "L,A,1,-4,"))
    (tmp_path / "fields.csv").write_text(FIELDS.replace("X1,POST", "X1,PSOT"))
    done = run_script("check_evidence", *tables, "--control", "shCtrl", cwd=tmp_path, check=False)
    assert done.returncode == 65
    for part in (
        "7 problems with the evidence tables; nothing was computed:",
        "  - survival.csv: row 2, column time_unit: 'fortnights' is not one of days, weeks, months, years. Correct the cell.",
        "  - sets.gmt is no gene set collection (GMT):\n    - line 1: 'alone' has 1 field(s)",
        "  - dataset acrg, clinical.csv: row 2, column time: '-5' (patient P1); expected a time above 0. A time cannot",
        "  - dataset acrg, bulk.tsv.gz: none of its columns (N1, N2, N3, ...) and none of its rows",
        "  - dataset ihc, clinical.csv: row 3, column event: '2' (patient R2); expected 0 or 1. Recode: 1 (censored) becomes 0",
        "  - plates.csv, row 5, column dose: -4; expected 0 or above. Give doses, not their logarithms.",
        "  - fields.csv, row 5, column phase: 'PSOT' in 1 rows; expected PRE, POST. Write POST.",
    ):
        assert part in done.stderr, done.stderr
    assert done.stderr.count("\n  - ") == 7  # the reference cannot be judged before its wells
    assert not list(tmp_path.glob("*.status.tsv"))


def test_reference_that_no_well_has(tables, refused):
    lines = refused(*tables, "--control", "shCtrl", "--top_fixed", 1, "--bottom_fixed", 2)
    assert lines[0] == "  - --top_fixed 1 is not above --bottom_fixed 2; give a higher top"
    assert lines[1].startswith("  - --dose_control shCtrl: no such treatment or line; found the treatments none and the lines L.")
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("sheet", "parts"),
    [
        ("name,clinical\nacrg,a/clinical.csv\n", ["no column dataset; expected a row per dataset"]),
        ("dataset\nacrg\n", ["no column clinical; expected a row per dataset"]),
        ("dataset,clinical\n", ["no row below the header"]),
        ("dataset,clinical,colour\nacrg,a/clinical.csv,red\n", ["column colour: unknown; expected clinical, covariates"]),
        (
            "dataset,clinical,expression\n-x,a,\nacrg,a/clinical.csv,\nacrg,a/clinical.csv,\nfar,far.csv,e.tsv\nihc,,\n,a,\n",
            [
                "row 2, column dataset: '-x'; expected a name of letters",
                "row 4, column dataset: 'acrg' stands in row 3 too; expected each dataset once",
                "row 5, column clinical: 'far.csv'; expected a file that exists. Correct the path.",
                "row 5, column expression: 'e.tsv'; expected a file that exists. Correct the path.",
                "row 6, column clinical: empty; expected a file",
                "row 7, column dataset: ''; expected a name",
            ],
        ),
        ("dataset,clinical,clinical\nacrg,a,b\n", ["column clinical stands twice in the header"]),
        ("dataset,clinical\nacrg\n", ["row 2: 1 cells; expected 2 as in the header"]),
    ],
)
def test_sheets(tables, refused, tmp_path, sheet, parts):
    (tmp_path / "survival.csv").write_text(sheet)
    lines = refused("--sheet", "survival.csv", "--clinical", "acrg", "a/clinical.csv", *DESIGN)
    assert len(lines) == len(parts)
    for line, part in zip(lines, parts, strict=True):
        assert line.startswith("  - survival.csv: ")
        assert part in line


def test_options_of_cohorts(tables, refused, script_main, tmp_path):
    """An option of the run that is wrong everywhere is told once; a column that one table lacks by its dataset."""
    lines = refused(*tables, "--cuts", "mean,MUC3A:>=2", "--groups", "stage")
    assert len(lines) == 3
    assert lines[0].startswith("  - datasets acrg, ihc, --survival_cuts: 'mean' is no cut")
    # the sheet gives ihc markers of its own
    assert lines[1].startswith("  - dataset ihc, clinical.csv: column stage: no such column; expected one of patient, time")
    assert lines[2] == (
        "  - dataset ihc, --survival_cuts: MUC3A:>=2 names no marker; name it in --survival_markers or --survival_scores."
    )
    # modules are not known yet
    (tmp_path / "survival.csv").write_text(SHEET.replace("markers", "markers,cuts").replace(",\n", ",,M3:>0;lipid:0\n")
        .replace("ERBB2", "ERBB2,median"))  # fmt: skip
    assert script_main("check_evidence")(*tables) == 0


def test_values_of_the_needed_genes_are_read(tables, refused, tmp_path):
    """A word in a marker's row is a fault; the word in the row of OTHER, which no step reads, is none."""
    text = BULK.replace("MUC3A\t1", "MUC3A\tlow")
    (tmp_path / "bulk.tsv.gz").write_bytes(gzip.compress(text.encode()))
    (line,) = refused(*tables)
    assert line.startswith("  - dataset acrg, bulk.tsv.gz, row 2, column P1: 'low' (MUC3A); expected a number.")


def test_files_that_cannot_be_read(tables, refused, tmp_path):
    for name in ("a/clinical.csv", "plates.csv", "fields.csv", "sets.gmt"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    (tmp_path / "more.csv").write_text("line,compound,dose\nL,A\n")
    (tmp_path / "none.csv").write_text("")
    lines = refused(*tables, "--plates", "plates.csv", "more.csv", "none.csv")
    text = "\n".join(lines)
    for part in (
        "  - sets.gmt: cannot be read as text",
        "  - dataset acrg, clinical.csv: cannot be read as text",
        "  - plates.csv: cannot be read as UTF-8 text (UnicodeDecodeError). Save it as csv or tsv.",
        "  - more.csv cannot be read:\n    - row 2: 2 cells, the header has 3. Give one cell per column.",
        "  - none.csv: the first row is empty; expected the names of the columns. Write them.",
        "  - fields.csv: cannot be read as UTF-8 text",
    ):
        assert part in text, text


def test_files_of_one_name_stay_apart(tables, refused, script_main, tmp_path):
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plates.csv").write_text(PLATES)
    options = ["--plates", "1/plates.csv", "2/plates.csv", *DESIGN]
    assert script_main("check_evidence")(*options) == 0
    assert read(tmp_path)["name"].tolist() == ["plates.csv (file 1 of that name)", "plates.csv (file 2 of that name)"]
    (tmp_path / "evidence_inputs.tsv").unlink()
    (tmp_path / "2/plates.csv").write_text(PLATES.replace("dose", "dsoe"))
    (line,) = refused(*options)
    assert line.startswith("  - plates.csv (file 2 of that name), row 1, column dose: no such column")
    lines = refused("--signatures", "sets.gmt", "a/sets.gmt", *DESIGN)
    assert "  - --survival_signatures: the name sets stands for several files; expected one. Rename all but one." in lines


def test_long_lists_are_cut_per_kind(refused, tables, tmp_path):
    wells = pd.DataFrame({"line": "L", "compound": "A", "dose": -1, "unit": "nM", "response": 50}, index=range(100))
    wells.to_csv(tmp_path / "plates.csv", index=False)
    lines = refused("--plates", "plates.csv", *DESIGN)
    assert len(lines) == 41
    assert lines[-1] == "  - and 60 more"


def test_nothing_given(script_main, tmp_path, tables, refused):
    assert script_main("check_evidence")(*DESIGN) == 0
    assert read(tmp_path).empty
    row = io.read_tsv(tmp_path / "check_evidence.cohort.status.tsv", dtype=str).iloc[0]
    assert (row["status"], row["reason"]) == (keys.SKIPPED_NO_INPUT, "no evidence table was given")
    (tmp_path / "evidence_inputs.tsv").unlink()
    (line,) = refused("--clinical", "acrg", "a/clinical.csv", *DESIGN)
    assert "belong to datasets of --sheet" in line
