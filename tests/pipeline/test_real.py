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


def write_studies(folder, shared_data):
    """Bulk cohorts and curves that others published, as a user would hand them in: a sheet with its tables, and wells."""
    lung = pd.read_csv(shared_data / "surv_classic" / "lung.csv")
    lung.insert(0, "patient", [f"L{i:03d}" for i in range(len(lung))])
    lung.assign(event=(lung["status"] - 1).astype(int)).drop(columns="status").to_csv(folder / "lung.csv", index=False)
    ihc = pd.read_csv(shared_data / "metabric" / "metabric_IHC4.tsv", sep="\t", dtype=str)
    ihc.insert(0, "patient", [f"MB{i:04d}" for i in range(len(ihc))])
    ihc[ihc["time_months"].astype(float) > 0].to_csv(folder / "ihc4.tsv", sep="\t", index=False)
    names = "GSE62254_ACRG_survival_subtype.tsv", "GSE62254_ACRG_expr_1055x300.tsv.gz"
    bulk = [shared_data / "bulk_gastric" / name for name in names]
    sheet = [
        "dataset,clinical,expression,patient_column,time_column,event_column,time_unit,endpoint,markers,groups,covariates",
        "lung,lung.csv,,,,,days,OS,,sex,age",
        f"acrg,{bulk[0]},{bulk[1]},GEO_ID,t,e,months,OS,MKI67;ZEB1;SPARC;MUC3A,ACRG.sub,",
        "metabric,ihc4.tsv,,,time_months,,months,OS,PGR;ERBB2;MKI67,,age",
    ]
    (folder / "survival.csv").write_text("\n".join(sheet) + "\n")
    wells = pd.read_csv(shared_data / "dose_response" / "GDSC_dev_raw.tsv.gz", sep="\t")
    # some lines met a compound twice: each experiment keeps its own curve
    names = {"cellid": "line", "drugid": "compound", "dose_uM": "dose", "viability_pct": "response", "experiment": "treatment"}
    wells.rename(columns=names).to_csv(folder / "gdsc.tsv", sep="\t", index=False)
    return "--survival", folder / "survival.csv", "--dose_response", folder / "gdsc.tsv", "--dose_unit", "uM"


@pytest.fixture(scope="module")
def ctcl(nextflow, tmp_path_factory, shared_data):
    """Three skin lymphomas and three healthy skins as two phases, one command, default methods."""
    folder = tmp_path_factory.mktemp("ctcl")
    data = shared_data / "ctcl_gse128531" / "10x"
    lines = [f"{sample},{sample},{phase},{data / sample}" for sample, phase in CTCL.items()]
    (folder / "samplesheet.csv").write_text("\n".join(["sample,patient,phase,path", *lines]) + "\n")
    run = nextflow(
        folder, "--input", folder / "samplesheet.csv", "--phases", "healthy,tumour", "--scvi_max_epochs", 100,
        "--publish_intermediates", *SIGNALS, *write_studies(folder, shared_data),
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


def test_published_cohorts_beside_the_cells(ctcl):
    """Figures that R's survival gives for the same patients; a gene that was not measured is said to be so."""
    folder = ctcl.outdir / "05_evidence" / "survival"
    cox = {name: pd.read_csv(folder / f"{name}.cox.tsv", sep="\t") for name in ("lung", "acrg", "metabric")}
    lung = cox["lung"][(cox["lung"]["marker"] == "sex") & (cox["lung"]["model"] == "univariate")].iloc[0]
    assert (lung["hr"], lung["p"]) == (pytest.approx(0.588, abs=5e-4), pytest.approx(0.00149, abs=5e-6))
    logrank = {name: pd.read_csv(folder / f"{name}.logrank.tsv", sep="\t").set_index("marker") for name in ("lung", "acrg")}
    assert logrank["lung"].loc["sex", "chi2"] == pytest.approx(10.3, abs=0.05)
    assert logrank["acrg"].loc["ACRG.sub", "chi2"] == pytest.approx(18.97, abs=0.005)
    assert logrank["acrg"].loc["ACRG.sub", "p"] == pytest.approx(2.8e-4, abs=5e-6)
    ratios = {"acrg": {"MKI67": 0.76, "ZEB1": 1.48, "SPARC": 1.34}, "metabric": {"PGR": 0.86, "ERBB2": 1.12, "MKI67": 1.12}}
    for name, expected in ratios.items():
        found = cox[name][cox[name]["model"] == "univariate"].set_index("marker")
        for gene, ratio in expected.items():
            assert found.loc[gene, "hr"] == pytest.approx(ratio, abs=0.005), (name, gene)
    assert cox["acrg"].set_index("marker").loc["MUC3A", "reason"].startswith("gene_absent")
    status = {(row["step"], row["unit"]): row for row in rows(ctcl.outdir / "report" / "status.tsv")}
    assert {("test_survival", name) for name in ratios} <= set(status)
    # healthy and diseased skin of different people: nobody was followed, so there is no route to weigh, and the run says so
    assert status["score_routes", "cohort"]["status"] == "not_estimable"
    assert "before therapy and a later one" in status["score_routes", "cohort"]["reason"]


def test_published_curves_beside_the_cells(ctcl, shared_data):
    fits = pd.read_csv(ctcl.outdir / "05_evidence" / "dose_response" / "dose_fits.tsv", sep="\t", low_memory=False)
    fits = fits[fits["replicate"] == "all"].set_index("treatment")
    published = pd.read_csv(shared_data / "dose_response" / "GDSC_dev_published.tsv", sep="\t", index_col=0)
    raw = pd.read_csv(shared_data / "dose_response" / "GDSC_dev_raw.tsv.gz", sep="\t").sort_values(["experiment", "dose_uM"])
    ends = raw.groupby("experiment")["viability_pct"].agg(["first", "last"])
    assert sorted(fits.index) == sorted(ends.index)
    crossing = published.loc[ends.index[(ends["first"] > 50) & (ends["last"] < 50)]]
    known = fits["ic50"].notna()
    both = crossing[crossing.index.isin(fits.index[known])]
    assert len(both) >= 0.95 * len(crossing) > 200
    found = np.log10(fits.loc[both.index, "ic50"].astype(float))
    assert np.corrcoef(found, np.log10(both["ic50_recomputed"]))[0, 1] >= 0.99
    assert np.corrcoef(found, np.log10(both["ic50_published"]))[0, 1] >= 0.95
    # no number outside the doses, and what does not reach half effect is flagged
    assert fits[known].eval("dose_min <= ic50 <= dose_max").all()
    assert fits.loc[~known, "status"].isin(["out_of_range", "not_estimable"]).all()


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
