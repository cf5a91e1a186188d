"""Real cohorts through the whole pipeline, one command each; skipped, visibly, where the data are absent."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

pytestmark = pytest.mark.real

CTCL = {"CTCL-5": "tumour", "CTCL-6": "tumour", "CTCL-8": "tumour", "HC-1": "healthy", "HC-2": "healthy", "HC-3": "healthy"}
# mean log1p(CP10k) over all 300 barcodes of a sample, measured from the files (README of the data)
CD3E = {"CTCL-5": 0.61, "CTCL-6": 0.36, "CTCL-8": 0.05, "HC-1": 0.01, "HC-2": 0.03, "HC-3": 0.00}
MKI67 = {"CTCL-5": 0.16, "CTCL-6": 0.11, "CTCL-8": 0.09, "HC-1": 0.02, "HC-2": 0.00, "HC-3": 0.01}
# samples of a few hundred cells: signals between main types; LIANA's ranks by magnitude do not depend on its permutations
SIGNALS = ("--comm_groupby", "main_type", "--n_perms_liana", 100)


def rows(path):
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="module")
def ctcl(nextflow, tmp_path_factory, shared_data):
    """Three skin lymphomas and three healthy skins as two phases, one command, default methods."""
    folder = tmp_path_factory.mktemp("ctcl")
    data = shared_data / "ctcl_gse128531" / "10x"
    lines = [f"{sample},{sample},{phase},{data / sample}" for sample, phase in CTCL.items()]
    (folder / "samplesheet.csv").write_text("\n".join(["sample,patient,phase,path", *lines]) + "\n")
    run = nextflow(
        folder, "--input", folder / "samplesheet.csv", "--phases", "healthy,tumour", "--scvi_max_epochs", 100,
        "--publish_intermediates", *SIGNALS,
    )  # fmt: skip
    assert run.code == 0, run.text
    return run


@pytest.mark.parametrize(("gene", "expected"), [("CD3E", CD3E), ("MKI67", MKI67)])
def test_ctcl_expression_before_filtering(ctcl, gene, expected):
    import anndata

    for sample, value in expected.items():
        loaded = anndata.read_h5ad(ctcl.outdir / "01_samples" / sample / f"{sample}.h5ad")
        assert loaded.n_obs == 300
        counts = sparse.csr_matrix(loaded.layers["counts"], dtype=np.float64)
        scale = 1e4 / np.asarray(counts.sum(axis=1)).ravel()
        column = counts[:, loaded.var_names.get_loc(gene)].toarray().ravel()
        assert np.log1p(column * scale).mean() == pytest.approx(value, abs=0.0051), sample


def test_ctcl_microenvironment(ctcl):
    """T cells stand where CD3E does; three patients a side are tested; nobody was biopsied twice, so nobody has fates."""
    shares = pd.read_csv(ctcl.outdir / "04_microenvironment" / "composition" / "proportions.tsv", sep="\t")
    shares = shares[(shares["level"] == "main_type") & (shares["denominator"] == "all")]
    t_cells = shares[shares["cell_type"].isin(["CD4_T", "CD8_T"])].groupby("sample")["share"].sum()
    # the order of CD3E above: 0.61, 0.36, at most 0.03 in healthy skin
    assert t_cells["CTCL-5"] > t_cells["CTCL-6"] > t_cells[["HC-1", "HC-2", "HC-3"]].max()
    tests = pd.read_csv(ctcl.outdir / "04_microenvironment" / "composition" / "composition_tests.tsv", sep="\t", low_memory=False)
    own = tests[(tests["contrast"] == "tumour_vs_healthy") & (tests["method"] == "propeller_logit")]
    assert own.loc[own["evidence"] == "replicated", "p_value"].notna().any()
    ranks = pd.read_csv(ctcl.outdir / "04_microenvironment" / "communication" / "ranknet.tsv", sep="\t")
    absent = pd.read_csv(ctcl.outdir / "04_microenvironment" / "communication" / "comm_absent.tsv", sep="\t")
    status = {(row["step"], row["unit"]): row["status"] for row in rows(ctcl.outdir / "report" / "status.tsv")}
    # signals of six skins of 300 cells: each scored; compared only over types that all six hold, and what that costs is listed
    assert {status["score_communication", name] for name in CTCL} == {"ok"}
    assert set(absent["sample"]) <= set(CTCL) and set(absent["status"]) == {"not_estimable"}
    nothing = ranks.loc[ranks["contrast"] == "tumour_vs_healthy", "rank"].isna().all()
    assert (status["compare_communication", "tumour_vs_healthy"] == "not_estimable") == nothing
    assert all(status["map_fates", name].startswith("skipped_") for name in CTCL)


def test_ctcl_types(ctcl):
    cells = pd.read_parquet(ctcl.outdir / "cells.parquet")
    assert len(cells) == 1800
    kept = cells[cells["kept"].astype(bool)]
    found = kept["main_type"].astype(str).value_counts()
    assert found.get("CD4_T", 0) + found.get("CD8_T", 0) >= 100
    for main_type in ("Epithelial", "Fibroblast", "Endothelial"):
        assert found.get(main_type, 0) >= 20, found
    assert (kept["subtype"].astype(str) == "Keratinocyte").sum() >= 100
    # CTCL-8 is keratinocyte-rich (about 150 of the 276 cells with 200 genes), the lymphomas with CD3E hold the T cells
    sample = kept["sample"].astype(str)
    epithelial = (kept["main_type"].astype(str) == "Epithelial").groupby(sample).mean()
    assert epithelial["CTCL-8"] >= 0.40
    assert epithelial["CTCL-8"] > 2 * epithelial[["CTCL-5", "CTCL-6"]].max()
    t_share = kept["main_type"].astype(str).isin(["CD4_T", "CD8_T"]).groupby(sample).mean()
    assert t_share["CTCL-5"] > 0.3
    assert t_share[["HC-1", "HC-2", "HC-3"]].max() < 0.15


def test_ctcl_healthy_skin_has_no_malignant_cell(ctcl):
    status = {(row["step"], row["unit"]): row["status"] for row in rows(ctcl.outdir / "report" / "status.tsv")}
    cells = pd.read_parquet(ctcl.outdir / "cells.parquet")
    for sample in ("HC-1", "HC-2", "HC-3"):
        assert (cells.loc[cells["sample"].astype(str) == sample, "malignant"].astype(str) == "malignant").sum() == 0
        word = status["call_malignant", sample]
        assert word == "cnv_quiet" or word.startswith("skipped_"), word
    # as many samples as patients a side: genes are tested by patient
    summary = rows(ctcl.outdir / "03_tumour" / "expression" / "tumour_vs_healthy.de_summary.tsv")
    assert any(row["status"] == "ok" and row["design"] for row in summary)


def test_ctcl_report_and_object(ctcl):
    import anndata

    assert (ctcl.outdir / "report" / "report.html").stat().st_size < 10e6
    cohort = anndata.read_h5ad(ctcl.outdir / "cohort.h5ad")
    assert cohort.obs["sample"].nunique() == 6
    assert "X_umap" in cohort.obsm
    assert [row["contrast"] for row in rows(ctcl.outdir / "00_design" / "contrasts.tsv")] == ["tumour_vs_healthy"]
    assert [row["step"] for row in rows(ctcl.outdir / "report" / "status.tsv") if row["status"].startswith("failed")] == []


def test_pbmc3k_b_cells_by_model_and_markers(nextflow, tmp_path, shared_data):
    (tmp_path / "sheet.csv").write_text(f"sample,patient,phase,path\npbmc3k,donor,PRE,{shared_data / 'pbmc3k_raw' / '10x'}\n")
    # the filter of the published figures: 200-2,500 genes and less than 5 % mitochondrial counts, no doublet search
    run = nextflow(
        tmp_path, "--input", tmp_path / "sheet.csv", "--celltypist_models", shared_data / "celltypist" / "Immune_All_High.pkl",
        "--max_mt_pct", 5, "--min_counts", 0, "--mad_k", 0, "--mad_k_mt", 0, "--doublet_remove", "none",
        *SIGNALS,
    )  # fmt: skip
    assert run.code == 0, run.text
    (loaded,) = rows(run.outdir / "01_samples" / "pbmc3k" / "pbmc3k.load.tsv")
    assert (int(loaded["n_barcodes"]), int(loaded["total_umi"])) == (2700, 6390631)
    cells = pd.read_parquet(run.outdir / "cells.parquet")
    assert len(cells) == 2700
    b_cells = (cells["main_type"].astype(str) == "B").sum()
    assert abs(b_cells - 344) <= 15, b_cells
    # blood holds no epithelium: a status, and the run finishes
    (word,) = [row["status"] for row in rows(run.outdir / "report" / "status.tsv") if row["step"] == "infer_cnv"]
    assert word == "skipped_no_input"
