"""BUILD_REPORT through its command line, on drawn tables of eleven samples."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
import report_tables

from scresist import chapters, io, page, report
from scresist.layout import Chapter, Section

NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def made(tmp_path_factory, run_script) -> Path:
    """One report for the tests that only read it; a response with HTML in it stands in for any text of a user."""
    folder = tmp_path_factory.mktemp("report")
    report_tables.write(folder / "in")
    path = folder / "in" / "tables" / "samples.tsv"
    io.write_tsv(io.read_tsv(path, dtype=str).assign(trait_note=NASTY), path)
    call(run_script, folder, "--title", NASTY)
    return folder


def call(run_script, folder: Path, *more: str, check: bool = True):
    inputs = folder / "in"
    return run_script(
        "build_report",
        "--tables",
        inputs / "tables",
        "--status",
        *sorted((inputs / "status").iterdir()),
        "--provenance",
        *sorted((inputs / "provenance").iterdir()),
        "--cells",
        inputs / "cells.parquet",
        *more,
        cwd=folder,
        check=check,
    )


def test_page_is_small_and_outputs_are_complete(made):
    assert (made / "report.html").stat().st_size < 10e6
    names = {path.name for path in made.iterdir() if path.is_file()}
    assert {"report.html", "status.tsv", "findings.tsv", "software_versions.tsv", "methods.md"} <= names
    assert not [name for name in names if "multiqc" in name]
    # no picture stands in the page twice (MultiQC repeats all sections for features that are switched off)
    pictures = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", (made / "report.html").read_text(encoding="utf-8"))
    metadata = re.findall(r'aiReportMetadataBase64 = "([A-Za-z0-9+/=]*)"', (made / "report.html").read_text(encoding="utf-8"))
    assert pictures and json.loads(base64.b64decode(metadata[0])) == {"tools": {}, "sections": {}}


def test_chapters_stand_in_the_order_in_which_they_are_told(made):
    text = (made / "report.html").read_text(encoding="utf-8")
    headings = re.findall(r'<h[23][^>]* id="([a-z_]+)"', text)
    order = ["overview", "overview_status", "overview_remarks", "overview_cohort", "overview_findings", "overview_caveats"]
    assert headings[: len(order)] == order
    chapters = ["overview", "design", "quality", "doublets", "integration", "maps", "annotation", "composition"]
    assert [name for name in headings if name in chapters] == chapters
    assert [name for name in headings if name in ("methods", "versions")] == ["methods", "versions"]
    wrapped = re.findall(r'id="mqc-section-wrapper-([a-z_]+)"', text)
    assert set(wrapped) <= set(headings)


def test_every_id_has_a_place_of_its_own():
    section = lambda name: Section(name, name, "")  # noqa: E731
    made = [Chapter("b", "B", "", [section("b_2"), section("b_1")]), Chapter("a", "A", "", [section("a_1")])]
    order = {name: place["order"] for name, place in page.section_order(made).items()}
    assert order["b"] > order["a"]  # the higher chapter stands first
    assert (order["b_2"], order["b_1"], order["a_1"]) == (1, 2, 1)  # the lower section stands first


def test_text_from_outside_stays_text(made):
    text = (made / "report.html").read_text(encoding="utf-8")
    assert NASTY not in text and text.count("&lt;img src=x onerror=alert(1)&gt;") >= 11


def test_page_tells_the_skipped_sample_first(made):
    text = (made / "report.html").read_text(encoding="utf-8")
    matrix = text[text.index('id="overview_status"') : text.index('id="overview_remarks"')]
    samples = re.findall(r"<tr><th>([^<]+)</th><td>", matrix)
    assert samples[0] == "RES-1" and len(samples) == 11
    assert "Not done: too few cells for this step to mean anything. 20 cells, 50 needed" in matrix
    assert text.index('id="overview"') < text.index('id="design"') < text.index('id="quality"')


def test_numbers_in_the_text_are_those_of_the_tables(made):
    tables = report.Tables(made / "in" / "tables").of_samples("filter")
    n_in, n_out = (pd.to_numeric(tables[name]).sum() for name in ("n_in", "n_out"))
    text = (made / "report.html").read_text(encoding="utf-8")
    assert f"{n_out:,} of {n_in:,} cells kept" in text
    first = io.read_tsv(made / "findings.tsv", dtype=str)["statement"].iloc[0]
    assert first.startswith("11 samples of 9 patients; 10 usable (not usable: RES-1)")


def test_nothing_of_the_machine_and_no_host(made):
    text = (made / "report.html").read_text(encoding="utf-8")
    assert str(made) not in text and str(Path.home()) not in text
    # scripts, styles, images and fonts stand in the page itself; links for a reader to follow are no requests
    text = re.sub(r"(?s)(<script[^>]*>).*?</script>", r"\1", text)
    assert re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?!data:)[^"#]', text) == []
    assert "url(http" not in text


def test_same_input_gives_the_same_page(made, run_script, tmp_path):
    shutil.copytree(made / "in", tmp_path / "in")
    call(run_script, tmp_path, "--title", NASTY)
    for name in ("report.html", "status.tsv", "findings.tsv", "software_versions.tsv", "methods.md"):
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes(), name


def test_status_of_all_steps_is_joined(made):
    table = io.read_tsv(made / "status.tsv", dtype=str)
    assert len(table) == 11 * len(report.SAMPLE_STEPS) + len(report.COHORT_STEPS) + 2  # + recovery + the report itself
    assert table["step"].iloc[-1] == "build_report"


def test_methods_name_versions_options_and_references(made):
    text = (made / "methods.md").read_text(encoding="utf-8")
    assert "scvi-tools 1.4.2" in text and "varied: 200 (10), 300 (1)" in text and "10.1038/s41592-018-0229-2" in text
    assert "harmonypy" not in text and "(not recorded)" not in text


def test_a_missing_status_row_ends_the_run(run_script, tmp_path):
    report_tables.write(tmp_path / "in")
    (tmp_path / "in" / "status" / "detect_doublets.PRE-1.status.tsv").unlink()
    done = call(run_script, tmp_path, check=False)
    assert done.returncode == 65 and "detect_doublets of PRE-1: no status row" in done.stderr
    assert not (tmp_path / "report.html").exists()


def test_a_missing_table_ends_the_run(run_script, tmp_path):
    report_tables.write(tmp_path / "in")
    (tmp_path / "in" / "tables" / "types.tsv").unlink()
    done = call(run_script, tmp_path, check=False)
    assert done.returncode == 65 and "annotate_cells of cohort: says warning, but types.tsv is missing" in done.stderr


def test_cohort_steps_that_were_skipped_leave_their_sentence(run_script, tmp_path):
    """No cell is left: there is neither map nor type, and the page says why instead of showing empty plots."""
    report_tables.write(tmp_path / "in", n_samples=2, n_cells=30)
    inputs = tmp_path / "in"
    frame = pd.read_parquet(inputs / "cells.parquet").assign(kept=False)
    frame["drop_reason"] = frame["drop_reason"].replace("", "sample_skipped")
    io.write_fragment(
        frame.drop(columns=["main_type", "subtype", "lineage", "umap_1", "umap_2", "cluster"]), inputs / "cells.parquet"
    )
    for path in (inputs / "tables").glob("*.filter.tsv"):
        io.write_tsv(io.read_tsv(path, dtype=str).assign(n_out="0"), path)
    for step in ("integrate_cohort", "cluster_cohort", "annotate_cells"):
        path = inputs / "status" / f"{step}.cohort.status.tsv"
        sentence = "Not done: too few cells for this step to mean anything."
        table = io.read_tsv(path, dtype=str).assign(
            status="skipped_too_few_cells", reason="0 cells, 20 needed", sentence=sentence
        )
        io.write_tsv(table, path)
    for name in ("recovery", "clusters", "markers", "types", "marker_check", "annotation", "training", "integration_quality"):
        (inputs / "tables" / f"{name}.tsv").unlink()
    call(run_script, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No map: Not done: too few cells for this step to mean anything. 0 cells, 20 needed" in text
    assert 'id="recovery"' not in text and "0 usable" in text


def test_assets_that_lack_a_file_are_named(run_script, tmp_path):
    report_tables.write(tmp_path / "in", n_samples=2)
    done = call(run_script, tmp_path, "--assets", str(tmp_path), check=False)
    assert done.returncode == 65 and "lacks multiqc_config.yml, report.css" in done.stderr


def test_a_page_above_the_limit_is_said_to_be_too_large(run_script, tmp_path):
    report_tables.write(tmp_path / "in", n_samples=2)
    call(run_script, tmp_path, "--max_mb", "1")
    assert "more than 1 MB" in io.read_tsv(tmp_path / "status.tsv", dtype=str)["reason"].iloc[-1]


@pytest.mark.slow
def test_fifty_samples_fit_into_a_mail(run_script, tmp_path):
    report_tables.write(tmp_path / "in", n_samples=50, n_cells=2000)
    call(run_script, tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 25e6


def test_citations_and_methods_agree(root):
    texts = yaml.safe_load((root / "assets" / "methods_text.yml").read_text(encoding="utf-8"))
    known = set(io.read_tsv(root / "assets" / "citations.tsv", dtype=str)["key"])
    variants = [v for block in texts["steps"].values() for k, v in block.get("variants", {}).items() if k != "by"]
    used = {key for block in [*texts["steps"].values(), *variants] for key in block.get("cite", [])}
    assert used <= known and set(texts["steps"]) == set(report.STEP_ORDER)


def test_plot_labels_are_escaped():
    """Plotly reads a few HTML tags in labels."""
    assert page.label("<b>x</b> & y") == "&lt;b&gt;x&lt;/b&gt; &amp; y"
    assert page.prose("`a<b`") == "<code>a&lt;b</code>"


def test_box_values_by_hand():
    values = chapters.box_values(pd.Series(range(101)))
    assert values == {"min": 1.0, "q1": 25.0, "median": 50.0, "q3": 75.0, "max": 99.0, "mean": 50.0}
    assert chapters.box_values(pd.Series([None, None])) is None
