"""-resume is exact: nothing re-runs without a reason, everything re-runs that has one; two fresh runs are byte-equal."""

from __future__ import annotations

import ast
import subprocess

import pytest

from tests.pipeline.conftest import ROOT, SMALL, beside, launch


def test_an_unchanged_run_is_all_cached(small, small_cohort):
    again = launch(small.launch, "--input", small_cohort / "samplesheet.csv", *SMALL, *beside(small_cohort), resume=True)
    assert again.code == 0, again.text
    assert again.executed() == []
    assert len(again.trace()) == len(small.trace())


def test_a_shuffled_samplesheet_is_all_cached(small, small_cohort):
    sheet = small_cohort / "samplesheet.csv"
    header, *lines = sheet.read_text().splitlines()
    other = small_cohort / "shuffled.csv"
    other.write_text("\n".join([header, *reversed(lines)]) + "\n")
    again = launch(small.launch, "--input", other, *SMALL, *beside(small_cohort), resume=True)
    assert again.code == 0, again.text
    assert again.executed() == []


@pytest.fixture(scope="module")
def edited(small_cohort, project_copy, tmp_path_factory):
    """A run of a copy of the project in another folder, on the rows in another order: arguments, folder, run, its tables.

    It is edited and resumed by one test after the other.
    """
    header, *lines = (small_cohort / "samplesheet.csv").read_text().splitlines()
    other = small_cohort / "rotated.csv"
    other.write_text("\n".join([header, *lines[2:], *lines[:2]]) + "\n")
    runs = tmp_path_factory.mktemp("runs")
    arguments = ("--input", other, *SMALL, *beside(small_cohort), "--cache_dir", ROOT / ".cache")  # compiled once for both
    first = launch(runs, *arguments, project=project_copy)
    assert first.code == 0, first.text
    return arguments, runs, first, first.tables()


def test_two_fresh_runs_are_byte_equal_whatever_the_order_of_rows_and_the_place_of_the_project(small, edited):
    _, _, _, second = edited
    first = small.tables()
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def importing_scripts(module: str) -> set[str]:
    """Scripts that import scresist.<module>, directly or through other modules; found here by another way than the digests.

    Each module's text is read for the names of its siblings after the word `import`, until nothing is added.
    """
    package = ROOT / "bin" / "scresist"
    siblings = {path.stem for path in package.glob("*.py")} - {"__init__"}

    def direct(path):
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "scresist":
                found |= {alias.name for alias in node.names} & siblings
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scresist."):
                found.add(node.module.split(".")[1])
            elif isinstance(node, ast.Import):
                found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("scresist.")}
        return found

    needs = {name: direct(package / f"{name}.py") for name in siblings}
    touched = {module}
    while True:
        more = {name for name, imports in needs.items() if imports & touched} - touched
        if not more:
            break
        touched |= more
    return {path.stem for path in (ROOT / "bin").glob("*.py") if direct(path) & touched}


@pytest.mark.parametrize("module", ["doublets", "annotation", "clones"])
def test_an_edited_kernel_reruns_exactly_the_steps_that_import_it(edited, project_copy, module):
    arguments, runs, first, _ = edited
    kernel = project_copy / "bin" / "scresist" / f"{module}.py"
    kernel.write_text(kernel.read_text() + "\n# an edit that changes no result\n")
    subprocess.run([ROOT / ".venv" / "bin" / "python", project_copy / "conf" / "build_code.py"], check=True, capture_output=True)

    second = launch(runs, *arguments, project=project_copy, resume=True)
    assert second.code == 0, second.text
    expected = {name.upper() for name in importing_scripts(module)} & {row["process"] for row in first.trace()}
    assert expected
    assert {name.split(" (")[0] for name in second.executed()} == expected


def test_an_edited_clinical_table_reruns_its_check_its_test_and_the_report(small, small_cohort):
    table = small_cohort.parent / "evidence" / "bulk_clinical.tsv"
    before = table.read_text()
    header, first, *rest = before.splitlines()
    cells = first.split("\t")
    at = header.split("\t").index("age")
    cells[at] = str(int(cells[at]) + 5)
    table.write_text("\n".join([header, "\t".join(cells), *rest]) + "\n")
    try:
        again = launch(small.launch, "--input", small_cohort / "samplesheet.csv", *SMALL, *beside(small_cohort), resume=True)
    finally:
        table.write_text(before)
    assert again.code == 0, again.text
    assert again.executed() == ["BUILD_REPORT (cohort)", "CHECK_EVIDENCE (cohort)", "TEST_SURVIVAL (bulk)"]


def test_a_new_threshold_reruns_its_step_and_not_the_loading(small, small_cohort):
    arguments = ("--input", small_cohort / "samplesheet.csv", *SMALL, *beside(small_cohort))
    again = launch(small.launch, *arguments, "--max_mt_pct", 19, resume=True)
    assert again.code == 0, again.text
    executed = {name.split(" (")[0] for name in again.executed()}
    assert "FLAG_CELLS" in executed
    # plates hang on no cell; the check of evidence reads samples.tsv, which names the threshold, and takes seconds
    assert not executed & {"LOAD_SAMPLE", "FIT_DOSE_RESPONSE"}
