"""--from_annotated: a run that begins with an annotated object does what follows the cohort, and asks for nothing before it."""

from __future__ import annotations

import csv

import anndata
import pandas as pd
import pytest

from tests.pipeline.conftest import SMALL, launch

pytestmark = pytest.mark.slow  # four more runs of the pipeline: part of make test-all

SKIPPED = {
    "LOAD_SAMPLE", "FLAG_CELLS", "DETECT_DOUBLETS", "FILTER_CELLS", "MERGE_COHORT", "INTEGRATE_COHORT", "CLUSTER_COHORT",
    "ANNOTATE_CELLS", "SIMULATE_COHORT",
}  # fmt: skip


def rows(path):
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="module")
def entered(tmp_path_factory, small):
    """A run on the cohort.h5ad that the small run delivered."""
    run = launch(tmp_path_factory.mktemp("annotated"), "--from_annotated", small.outdir / "cohort.h5ad", *SMALL)
    assert run.code == 0, run.text
    return run


def test_an_object_and_a_samplesheet_contradict_each_other(nextflow, tmp_path):
    run = nextflow(tmp_path, "--from_annotated", tmp_path / "x.h5ad", "--input", tmp_path / "x.csv")
    assert run.code != 0
    assert "--from_annotated: takes the place of --input" in run.text
    assert "nothing was run" in run.text


def test_neither_is_refused_with_both_names(nextflow, tmp_path):
    run = nextflow(tmp_path)
    assert run.code != 0
    assert "--input: required" in run.text
    assert "--from_annotated" in run.text


def test_only_the_later_steps_run_and_nothing_warns(entered):
    ran = {row["process"] for row in entered.trace()}
    assert not ran & SKIPPED
    assert {"LOAD_ANNOTATED", "CHECK_DESIGN", "ASSEMBLE_COHORT", "BUILD_REPORT"} <= ran
    assert entered.warnings() == []
    assert not (entered.outdir / "01_samples").exists()


def test_the_cohort_is_that_of_the_first_run(entered, small):
    first, second = (anndata.read_h5ad(run.outdir / "cohort.h5ad") for run in (small, entered))
    assert second.obs_names.tolist() == first.obs_names.tolist()
    assert second.var_names.tolist() == first.var_names.tolist()
    assert (second.X != first.X).nnz == 0
    assert (second.layers["counts"] != first.layers["counts"]).nnz == 0
    for name in ("sample", "patient", "phase", "batch", "main_type", "subtype", "lineage", "cluster", "n_counts", "pct_mt"):
        assert second.obs[name].astype(str).tolist() == first.obs[name].astype(str).tolist(), name
    for name in ("chromosome", "start", "highly_variable"):
        assert second.var[name].tolist() == first.var[name].tolist(), name
    for name in ("X_latent", "X_umap"):
        assert (second.obsm[name] == first.obsm[name]).all(), name


def test_the_design_and_the_tumour_stage_say_the_same(entered, small):
    """Same cells, same types, same seeds: every table of the later steps has the same bytes."""
    first, second = small.tables(), entered.tables()
    tumour = [name for name in first if name.startswith("03_tumour/")]
    design = ["00_design/phases.tsv", "00_design/contrasts.tsv", "00_design/confounding.tsv"]
    assert tumour
    assert [name for name in [*design, *tumour] if first[name] != second.get(name)] == []


def test_cells_and_status_and_report(entered):
    cells = pd.read_parquet(entered.outdir / "cells.parquet")
    assert cells["kept"].astype(bool).all()
    status = rows(entered.outdir / "report" / "status.tsv")
    (row,) = [row for row in status if row["step"] == "load_annotated"]
    assert (row["unit_type"], row["status"]) == ("cohort", "warning")  # the tumour columns of the first run are not read
    assert "computed again" in row["reason"]
    text = (entered.outdir / "report" / "report.html").read_text(encoding="utf-8")
    assert "The run began with an annotated object cohort.h5ad: no doublet was looked for here." in text
    assert "no status row" not in text
    for name in ("load_annotated.tsv", "types.tsv", "marker_check.tsv"):
        assert (entered.outdir / "02_cohort" / name).stat().st_size > 0


def test_an_unchanged_run_is_all_cached(entered, small):
    again = launch(entered.launch, "--from_annotated", small.outdir / "cohort.h5ad", *SMALL, resume=True)
    assert again.code == 0, again.text
    assert again.executed() == []


def test_all_problems_of_an_object_come_at_once_and_stop_the_run(nextflow, tmp_path, small):
    given = anndata.read_h5ad(small.outdir / "cohort.h5ad")
    given.obs = given.obs.rename(columns={"phase": "timepoint"})
    given.obs["main_type"] = given.obs["main_type"].astype(str).replace("Epithelial", "Tumor cells")
    del given.obs["lineage"], given.layers["counts"]
    given.write_h5ad(tmp_path / "odd.h5ad")
    run = nextflow(tmp_path, "--from_annotated", tmp_path / "odd.h5ad")
    assert run.code != 0
    for text in ("--phase_column", "'Tumor cells'", "add an obs column lineage", "log-normalised", "obs columns found:"):
        assert text in run.text, run.text
    assert run.executed() == []


def test_the_object_of_others_with_their_own_names(nextflow, tmp_path, small):
    given = anndata.read_h5ad(small.outdir / "cohort.h5ad")
    renamed = {"sample": "orig.ident", "patient": "donor", "phase": "timepoint", "main_type": "celltype"}
    obs = given.obs[list(renamed)].rename(columns=renamed)
    obs["timepoint"] = obs["timepoint"].astype(str).replace({"PRE": "before", "POST": "after"})
    ids = given.var["gene_id"].astype(str)
    var = pd.DataFrame(index=ids.where(ids != "", given.var_names).to_numpy())
    other = anndata.AnnData(given.layers["counts"].astype("float32"), obs=obs, var=var)
    other.obsm["X_mine"] = given.obsm["X_latent"]
    other.write_h5ad(tmp_path / "other.h5ad")
    run = nextflow(
        tmp_path, "--from_annotated", tmp_path / "other.h5ad", "--sample_column", "orig.ident", "--patient_column", "donor",
        "--phase_column", "timepoint", "--type_column", "celltype", "--embedding_key", "X_mine", "--phases", "before,after",
        "--skip_tumour",
    )  # fmt: skip
    assert run.code == 0, run.text
    found = anndata.read_h5ad(run.outdir / "cohort.h5ad")
    assert set(found.obs["phase"]) == {"before", "after"}
    assert sorted(found.obs["main_type"].astype(str)) == sorted(given.obs["main_type"].astype(str))
    contrasts = rows(run.outdir / "00_design" / "contrasts.tsv")
    assert [row["contrast"] for row in contrasts] == ["after_vs_before"]


def test_stub_run_wires_every_step(nextflow, tmp_path):
    (tmp_path / "x.h5ad").write_bytes(b"")
    run = nextflow(tmp_path, "--from_annotated", tmp_path / "x.h5ad", "-stub")
    assert run.code == 0, run.text
    assert run.warnings() == []
    assert not {row["process"] for row in run.trace()} & SKIPPED
