"""CHECK_DESIGN through its command line: tables, messages, exit codes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

HEADER = ["_path_found", "_row", "batch", "path", "patient", "phase", "sample"]
OUTPUTS = ["samples.tsv", "contrasts.tsv", "confounding.tsv", "questions.tsv", "phases.tsv", "design.json"]
PLACE = "/data/secret-place/cohort"


def study() -> list[dict[str, str]]:
    rows = [
        ("PRE-1", "001", "PRE"),
        ("RES-1", "001", "RES"),
        ("POST-1", "001", "POST"),
        ("PRE-2", "NA", "PRE"),
        ("PRE-3", "P3", "PRE"),
        ("PRE-4", "P4", "PRE"),
        ("PRE-R-1", "P5", "PRE-R"),
        ("PRE-R-2", "P6", "PRE-R"),
        ("POST-2", "P7", "POST"),
        ("POST-3", "P8", "POST"),
        ("POST-4", "P9", "POST"),
    ]
    return [
        {
            "sample": sample,
            "patient": patient,
            "phase": phase,
            "path": f"{PLACE}/{sample}",
            "batch": f"b{i % 2}",
            "_path_found": "directory",
            "_row": f"{i + 2:06d}",
        }
        for i, (sample, patient, phase) in enumerate(rows)
    ]


def write_sheet(rows: list[dict[str, str]], folder: Path, name: str = "samplesheet.tsv", header: list[str] | None = None) -> Path:
    header = header or sorted({key for row in rows for key in row})
    path = folder / name
    lines = ["\t".join(header), *("\t".join(row.get(key, "") for key in header) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / name, sep="\t", dtype=str, keep_default_na=False)


@pytest.fixture
def check(run_script, tmp_path):
    """Run on rows; returns the completed process. Outputs lie in tmp_path/out."""
    out = tmp_path / "out"
    out.mkdir()

    def call(rows, *options, fails=False, header=None):
        sheet = write_sheet(rows, tmp_path, header=header)
        done = run_script("check_design", "--samplesheet", sheet, *options, cwd=out, check=False)
        assert done.returncode == (65 if fails else 0), done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        if fails:
            assert list(out.iterdir()) == [], "an output was left behind"
        return done

    return call


def test_the_studys_sheet(check, tmp_path):
    done = check(study())
    out = tmp_path / "out"
    assert "Design: 11 samples of 9 patients in 4 phases (PRE 4, RES 1, POST 4, PRE-R 2)" in done.stdout
    assert "PRE-R_vs_PRE: 2 against 4 patients, 0 pairs, unpaired, smallest p 0.133" in done.stdout
    found = read(out, "contrasts.tsv").set_index("contrast")
    assert list(found.index) == ["PRE-R_vs_PRE", "POST_vs_PRE", "RES_vs_PRE", "POST_vs_RES"]
    assert found.loc["PRE-R_vs_PRE", "p_min_attainable"] == "0.133333"
    assert found.loc["POST_vs_PRE", ["p_min_attainable", "n_pairs", "paired", "status"]].tolist() == [
        "0.0285714",
        "1",
        "false",
        "warning",
    ]
    assert found.loc["RES_vs_PRE", ["p_min_attainable", "status"]].tolist() == ["", "no_replicates"]
    samples = read(out, "samples.tsv")
    assert samples["sample"].tolist() == sorted(row["sample"] for row in study())
    assert {"001", "NA"} <= set(samples["patient"])
    assert set(samples["min_genes"]) == {"200"} and set(samples["expected_doublet_rate"]) == {"0.06"}
    status = read(out, "check_design.cohort.status.tsv")
    assert set(status.loc[status["unit_type"] == "contrast", "unit"]) == set(found.index)
    cohort = status[status["unit_type"] == "cohort"]
    assert cohort["status"].tolist() == ["warning"] and "one patient in RES" in cohort["reason"].iloc[0]
    assert set(cohort["n_samples"]) == {"11"} and set(cohort["n_patients"]) == {"9"}
    design = json.loads((out / "design.json").read_text())
    assert [p["phase"] for p in design["phases"]] == ["PRE", "RES", "POST", "PRE-R"] and design["phases"][3]["time"] is None
    by_name = {c["contrast"]: c for c in design["contrasts"]}
    assert by_name["RES_vs_PRE"]["samples_a"] == ["RES-1"] and by_name["RES_vs_PRE"]["p_min_attainable"] is None
    assert {q["answer"] for q in design["questions"]} <= {"yes", "exploratory", "no"}


def test_no_folder_of_a_machine_in_any_output(check, tmp_path):
    rows = [row | {"raw_path": f"{PLACE}/raw/{row['sample']}.h5", "_raw_path_found": "file"} for row in study()]
    check(rows)
    for path in (tmp_path / "out").iterdir():
        text = path.read_text()
        assert "secret-place" not in text and str(tmp_path) not in text, path.name
    assert read(tmp_path / "out", "samples.tsv")["raw_file"][0] == "POST-1.h5"


def test_order_of_rows_changes_no_byte(check, tmp_path):
    check(study())
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(OUTPUTS) < set(first)
    order = np.random.default_rng(4).permutation(11)
    check([study()[i] for i in order])
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_five_faults_one_message(check):
    rows = study()
    rows[0]["_path_found"] = "missing"
    rows[1]["sample"] = "PRE-2"
    rows[4]["phase"] = "PER"
    rows = [row | {"min_genes": "", "response": "R"} for row in rows]
    rows[5]["min_genes"] = "many"
    rows[2]["response"] = "NR"
    text = check(rows, fails=True).stderr
    assert "5 problems with the design; nothing was computed" in text
    for words in (
        f"row 2, sample PRE-1, column path: '{PLACE}/PRE-1' is not there",
        "row 3, sample PRE-2, column sample: 'PRE-2' stands in rows 3, 5",
        "row 6, sample PRE-3, column phase: 'PER' given; expected one of PRE, RES, POST, PRE-R. Write PRE.",
        "row 7, sample PRE-4, column min_genes: 'many' given",
        "column response: patient 001 has R (row 2), R (row 3), NR (row 4)",
    ):
        assert words in text, text
    assert len([line for line in text.splitlines() if line.startswith("  - ")]) == 5


def test_faults_of_sheet_and_tables_come_together(check, tmp_path):
    rows = study()
    rows[0]["phase"] = "PER"
    contrasts = tmp_path / "c.tsv"
    contrasts.write_text("contrast\tside_a\tside_b\nx\tPSOT\tPRE\n")
    text = check(rows, "--contrast_table", contrasts, fails=True).stderr
    assert "2 problems" in text and "Write POST" in text and "Write PRE" in text


def test_faults_of_the_phase_table(check, tmp_path):
    table = tmp_path / "p.tsv"
    table.write_text("phase\trole\tcolour\nPRE\tbasline\t\nPOST\tother\tred\n")
    text = check(study(), "--phase_table", table, fails=True).stderr
    assert "2 problems" in text and "Write baseline" in text and "#0072B2" in text


def test_phases_as_a_list(check, tmp_path):
    rows = [row | {"phase": "tumour" if i % 2 else "healthy"} for i, row in enumerate(study())]
    check(rows, "--phases", "healthy,tumour")
    assert read(tmp_path / "out", "contrasts.tsv")["contrast"].tolist() == ["tumour_vs_healthy"]
    text = check_again(check, rows, tmp_path)
    assert "no such file" in text


def check_again(check, rows, tmp_path):
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    return check(rows, "--phases", "phasse.tsv", fails=True).stderr


def test_own_phase_and_contrast_tables(check, tmp_path):
    rows = [row | {"phase": "late" if i % 2 else "early", "response": "R" if i > 3 else "NR"} for i, row in enumerate(study())]
    phases, contrasts = tmp_path / "p.csv", tmp_path / "c.tsv"
    phases.write_text('phase,name,order\nlate,"later, on therapy",2\nearly,before,1\n')
    contrasts.write_text("contrast\tside_a\tside_b\nresponse\tresponse:R\tresponse:NR\n")
    for row in rows[:3]:
        row["response"] = "R"  # one patient, one response
    check(rows, "--phase_table", phases, "--contrast_table", contrasts)
    table = read(tmp_path / "out", "phases.tsv")
    assert table["phase"].tolist() == ["early", "late"] and table["name"][1] == "later, on therapy"
    found = read(tmp_path / "out", "contrasts.tsv")
    assert found[["contrast", "n_samples_a", "n_samples_b", "kind"]].values.tolist() == [["response", "10", "1", "declared"]]


def test_declared_contrast_without_samples_is_told_and_left_out(check, tmp_path):
    contrasts = tmp_path / "c.tsv"
    contrasts.write_text("contrast\tside_a\tside_b\nPOST_vs_PRE\tPOST\tPRE\nRES_vs_PRE\tRES\tPRE\n")
    check([row for row in study() if row["phase"] != "RES"], "--contrast_table", contrasts)
    status = read(tmp_path / "out", "check_design.cohort.status.tsv").set_index("unit")
    assert status.loc["RES_vs_PRE", "status"] == "not_estimable" and "no sample in RES" in status.loc["RES_vs_PRE", "reason"]
    assert read(tmp_path / "out", "contrasts.tsv")["contrast"].tolist() == ["POST_vs_PRE"]


def test_batch_equal_to_phase_is_a_warning_on_page_one(check, tmp_path):
    check([row | {"batch": row["phase"]} for row in study()])
    status = read(tmp_path / "out", "check_design.cohort.status.tsv")
    assert any(status["reason"].str.startswith("aliased: batch and phase") & (status["unit_type"] == "cohort"))
    confounding = read(tmp_path / "out", "confounding.tsv").set_index(["factor", "phase_factor"])
    assert confounding.loc[("batch", "phase"), ["cramers_v", "aliased"]].tolist() == ["1", "true"]


def test_one_sample_makes_valid_empty_tables(check, tmp_path):
    done = check([study()[0]])
    assert "Contrasts (A minus B; patients, not cells, are counted):\n  none" in done.stdout
    assert len(read(tmp_path / "out", "contrasts.tsv")) == 0
    assert read(tmp_path / "out", "samples.tsv")["sample"].tolist() == ["PRE-1"]


def test_own_values_go_before_defaults(check, tmp_path):
    rows = [row | {"min_genes": "300" if row["sample"] == "PRE-1" else "", "saturation_pct": "71.5"} for row in study()]
    check(rows, "--min_genes", 150, "--expected_doublet_rate", "auto")
    samples = read(tmp_path / "out", "samples.tsv").set_index("sample")
    assert samples.loc["PRE-1", "min_genes"] == "300" and samples.loc["PRE-2", "min_genes"] == "150"
    assert set(samples["expected_doublet_rate"]) == {"auto"} and set(samples["saturation_pct"]) == {"71.5"}


def test_a_users_own_csv_is_read_too(run_script, tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_bytes('\ufeffsample,patient,phase,path,site\r\nA,P1,PRE,a,"lung, left"\r\nB,P2,POST,b,liver\r\n\r\n'.encode())
    run_script("check_design", "--samplesheet", path, cwd=tmp_path)
    assert read(tmp_path, "samples.tsv")["site"].tolist() == ["lung, left", "liver"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"sample\tpatient\tphase\tpath\nA\tP\n", "row 2: 2 fields, the header has 4"),
        (b"sample\tpatient\tphase\tpath\n", "the samplesheet has no row"),
        (b"sample\tpatient\tphase\tpath\tpath\nA\tP\tPRE\ta\tb\n", "column path: named 2 times"),
        (b"sample\tpatient\tphase\tpath\n\xff\tP\tPRE\ta\n", "not UTF-8"),
    ],
)
def test_unreadable_sheets(run_script, tmp_path, content, words):
    path = tmp_path / "s.tsv"
    path.write_bytes(content)
    done = run_script("check_design", "--samplesheet", path, cwd=tmp_path, check=False)
    assert done.returncode == 65 and words in done.stderr and "Traceback" not in done.stderr


def test_absent_sheet_and_bad_options(run_script, tmp_path):
    done = run_script("check_design", "--samplesheet", tmp_path / "no.tsv", cwd=tmp_path, check=False)
    assert done.returncode == 65 and "no.tsv: no such file" in done.stderr
    for option in (("--min_replicates", "1"), ("--expected_doublet_rate", "6"), ("--pairing", "maybe")):
        done = run_script("check_design", "--samplesheet", "x", *option, cwd=tmp_path, check=False)
        assert done.returncode == 2 and option[0] in done.stderr


@pytest.mark.real
def test_maynard(run_script, shared_data, tmp_path):
    with (shared_data / "maynard_tables" / "sample_metadata.tsv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    assert len(rows) == 51
    sheet = [
        {
            "sample": row["sample_name"],
            "patient": row["patient_id"],
            "phase": row["biopsy_timing"],
            "path": row["sample_name"],
            "site": row["biopsy_site"],
            "trait_driver": row["driver_gene"],
        }
        for row in rows
    ]
    path = write_sheet(sheet, tmp_path)
    run_script("check_design", "--samplesheet", path, "--phases", "Baseline,Early,Late", cwd=tmp_path)
    # from the table by sets: patients per phase, and patients with several
    patients = {p: {r["patient_id"] for r in rows if r["biopsy_timing"] == p} for p in ("Baseline", "Early", "Late")}
    found = read(tmp_path, "contrasts.tsv").set_index("contrast")
    assert list(found.index) == ["Early_vs_Baseline", "Late_vs_Baseline", "Late_vs_Early"]
    for name, row in found.iterrows():
        a, _, b = name.partition("_vs_")
        assert int(row["n_pairs"]) == len(patients[a] & patients[b])
        assert (int(row["n_patients_a"]), int(row["n_patients_b"])) == (len(patients[a]), len(patients[b]))
        assert row["paired"] == "false"
    # read off the table: TH205, TH210, TH218, TH226, TH266 before and on therapy
    assert found.loc["Early_vs_Baseline", "n_pairs"] == "5"
    design = json.loads((tmp_path / "design.json").read_text())
    along = next(q for q in design["questions"] if "within one patient" in q["question"])
    assert along["answer"] == "yes" and "TH226: Baseline, Early, Late" in along["why"]
