"""What a user meets before anything heavy runs: help, misspelt parameters, bad samplesheets, wrong matrices."""

from __future__ import annotations

import re

import pytest


def test_help_prints_every_parameter_from_the_schema(nextflow, tmp_path, root):
    import json

    run = nextflow(tmp_path, "--help")
    assert run.code == 0, run.text
    schema = json.loads((root / "nextflow_schema.json").read_text())
    for group in schema["$defs"].values():
        assert group["title"] in run.text
        for name in group["properties"]:
            assert re.search(rf"--{name}\b", run.text), f"--{name} is missing from --help"


def test_all_wrong_parameters_are_named_at_once_with_the_nearest_right_name(nextflow, tmp_path):
    run = nextflow(
        tmp_path, "--inptu", "x.csv", "--min_genes", "many", "--integration", "scv", "--max_mt_pct", "300", "--min_counts", "2.5",
        "--scvi-max-epochs", "3",
    )  # fmt: skip
    assert run.code != 0
    for text in (
        "--inptu: there is no such parameter. Did you mean --input?",
        "--min_genes: 'many' given, expected a whole number",
        "--min_counts: '2.5' given, expected a whole number",
        "--integration: 'scv' given, expected one of scvi, harmony, bbknn, none. Did you mean scvi?",
        "--max_mt_pct: 300 given, the most is 100",
        "Did you mean --scvi_max_epochs?",
        "--input: required",
        "nothing was run",
    ):
        assert text in run.text, run.text
    assert not (tmp_path / "work").exists() or not any((tmp_path / "work").iterdir())


def test_params_file_is_read_and_checked(nextflow, tmp_path):
    (tmp_path / "params.yml").write_text("input: x.csv\nmin_gens: 3\n")
    run = nextflow(tmp_path, "-params-file", tmp_path / "params.yml")
    assert run.code != 0
    assert "--min_gens: there is no such parameter. Did you mean --min_genes?" in run.text


def test_a_samplesheet_with_five_faults_gives_one_message_with_all_five(nextflow, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "sheet.csv").write_text(
        "sample,patient,phase,path,min_genes,response\n"
        "S1,P1,PRE,there,,R\n"
        "S1,P2,PRE,missing_folder,,R\n"
        "S3,P3,PREE,there2,,R\n"
        "S4,P4,POST,there,many,R\n"
        "S5,P1,POST,there,,NR\n"
    )
    run = nextflow(tmp_path, "--input", tmp_path / "sheet.csv")
    assert run.code != 0
    for text in ("S1", "missing_folder", "PREE", "many", "P1", "response", "row 3", "row 4", "row 5"):
        assert text in run.text, f"{text!r} is not in:\n{run.text}"
    assert "LOAD_SAMPLE" not in run.text


def test_a_ragged_samplesheet_is_refused_with_its_rows(nextflow, tmp_path):
    (tmp_path / "sheet.csv").write_text("sample,patient,phase,path\nS1,P1,PRE\nS2,P2,PRE,a,b\n")
    run = nextflow(tmp_path, "--input", tmp_path / "sheet.csv")
    assert run.code != 0
    assert "row 2: 3 fields, the header has 4" in run.text
    assert "row 3: 5 fields, the header has 4" in run.text


@pytest.mark.real
def test_log_values_offered_as_counts_are_refused(nextflow, tmp_path, shared_data):
    file = shared_data / "sade_feldman_mel" / "sade_3523x550.h5ad"
    (tmp_path / "sheet.csv").write_text(f"sample,patient,phase,path\nmelanoma,M1,PRE,{file}\n")
    run = nextflow(tmp_path, "--input", tmp_path / "sheet.csv")
    assert run.code != 0
    assert "melanoma" in run.text
    assert "sade_3523x550.h5ad" in run.text
    assert re.search(r"log", run.text)
    assert "FLAG_CELLS" not in "".join(line for line in run.text.splitlines() if "Submitted" in line)


def test_a_sheet_of_cohorts_with_faults_gives_one_message_before_any_work(nextflow, tmp_path):
    (tmp_path / "samples.csv").write_text("sample,patient,phase,path\nS1,P1,PRE,there\n")
    (tmp_path / "there").mkdir()
    (tmp_path / "sheet.csv").write_text("dataset,clinical\nacrg,gone.csv\nacrg,gone.csv\n-x,\n")
    run = nextflow(tmp_path, "--input", tmp_path / "samples.csv", "--survival", tmp_path / "sheet.csv")
    assert run.code != 0
    for text in (
        "row 2, column clinical: 'gone.csv'; expected a file, nothing lies there",
        "row 3, column dataset: 'acrg' stands in row 2 too",
        "row 4, column dataset: '-x'; expected a name",
        "row 4, column clinical: empty",
    ):
        assert text in run.text, run.text
    assert "LOAD_SAMPLE" not in run.text


def test_faults_of_all_evidence_tables_are_told_together_and_at_once(nextflow, tmp_path, small_cohort):
    """Tables that would end a run after hours end it while the samples are still being read."""
    (tmp_path / "outcome.csv").write_text("patient,time,event\nA,-3,1\nB,4,2\nC,5,0\n")
    (tmp_path / "sheet.csv").write_text("dataset,clinical\nbulk,outcome.csv\n")
    (tmp_path / "wells.csv").write_text("line,compound,dose,unit,response\nL1,X,-1,nM,99\nL1,X,1,nM,50\n")
    (tmp_path / "fields.csv").write_text("patient,sample,phase,field,marker,value\nP1,S1,LATER,1,HER2,0.4\n")
    run = nextflow(
        tmp_path, "--input", small_cohort / "samplesheet.csv", "--survival", tmp_path / "sheet.csv", "--dose_response",
        tmp_path / "wells.csv", "--staining_tables", tmp_path / "fields.csv",
    )  # fmt: skip
    assert run.code != 0
    for text in ("outcome.csv", "'-3'", "'2'", "wells.csv", "-1", "fields.csv", "LATER"):
        assert text in run.text, (text, run.text)
    ran = {row["process"] for row in run.trace()}
    assert "CHECK_EVIDENCE" in ran and ran <= {"CHECK_DESIGN", "CHECK_EVIDENCE", "LOAD_SAMPLE", "FLAG_CELLS"}, ran
