"""MERGE_COHORT through its command line: join, normalisation, what is left out, refusals, equal bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
import cohorts
import real_cohorts

from scresist import cli, io

OUTPUTS = {"merged.h5ad", "hvg.tsv", "merge.tsv", "merge_cohort.cohort.status.tsv", "merge_cohort.cohort.provenance.json"}


@pytest.fixture(scope="module")
def merge(run_script, root):
    def call(cwd: Path, paths: list[Path], *more: object, check: bool = True):
        cwd.mkdir(parents=True, exist_ok=True)
        return run_script(
            "merge_cohort", "--inputs", *paths, "--markers", root / "assets" / "markers.tsv", *more, cwd=cwd, check=check
        )

    return call


@pytest.fixture
def script(monkeypatch):
    """The script as a module: a refusal need not pay for a process each time; one does, below."""
    import merge_cohort

    # the thread pools of this process are those of all tests
    monkeypatch.setattr(cli, "limit_threads", lambda threads: None)
    monkeypatch.setattr(cli, "prepare_caches", lambda: None)
    return merge_cohort


def state(folder: Path) -> pd.Series:
    return io.read_tsv(folder / "merge_cohort.cohort.status.tsv", dtype=str).fillna("").iloc[0]


def outputs(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def samples() -> list[anndata.AnnData]:
    # A lacks a marker, the gene ids stand in B only, C is left out, D holds 20 cells
    made = [
        cohorts.sample("A", 60, 1, patient="P1", without=("CD3E", "GENE0001")),
        cohorts.sample("B", 75, 2, patient="P1", phase="POST"),
        cohorts.sample("C", 0, 3, verdict="skipped_too_few_cells", reason="30 of 60 cells pass, needed 50"),
        cohorts.sample("D", 20, 4, patient="P2", batch="run2"),
    ]
    made[1].var["gene_id"] = [f"ENSG{i:011d}" for i in range(made[1].n_vars)]
    made[1].layers["counts_raw"] = made[1].layers["counts"].copy()  # before ambient correction: stays behind
    return made


@pytest.fixture(scope="module")
def merged(merge, samples, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("merge")
    paths = cohorts.write_samples(folder / "in", samples, list("ABCD"))
    merge(folder / "out", paths, "--n_hvg", 100)
    return folder / "out"


def test_outputs(merged):
    assert outputs(merged) == OUTPUTS


def test_matrix(merged, samples):
    found = anndata.read_h5ad(merged / "merged.h5ad")
    assert list(found.layers) == ["counts"]
    assert list(found.obs) == ["sample", "patient", "phase", "batch"]
    assert list(found.obs_names) == [name for made in (samples[0], samples[1], samples[3]) for name in made.obs_names]
    assert list(found.var_names) == sorted(found.var_names)
    parts = [samples[i].to_df("counts") for i in (0, 1, 3)]
    expected = pd.concat([part[found.var_names] for part in parts])  # all shared genes, joined by pandas
    np.testing.assert_array_equal(found.layers["counts"].toarray(), expected.to_numpy())
    assert found.layers["counts"].dtype == np.int32
    total = np.expm1(found.X.toarray().astype(float)).sum(axis=1)
    np.testing.assert_allclose(total, 1e4, atol=1e-1)  # float32 logs
    assert found.X.dtype == np.float32
    shared = set.intersection(*(set(part) for part in parts))
    often = {gene for gene in shared if sum((part[gene] > 0).sum() for part in parts) >= 3}
    assert set(found.var_names) == often


def test_gene_ids_of_any_sample(merged, samples):
    found = anndata.read_h5ad(merged / "merged.h5ad")
    expected = samples[1].var["gene_id"].reindex(found.var_names)
    assert found.var["gene_id"].astype(str).tolist() == expected.tolist()


def test_highly_variable(merged):
    table = io.read_tsv(merged / "hvg.tsv", dtype={"gene": str})
    assert list(table) == ["gene", "mean", "dispersion_norm", "n_samples", "highly_variable"]
    chosen = set(table.loc[table["highly_variable"].astype(str).str.lower() == "true", "gene"])
    found = anndata.read_h5ad(merged / "merged.h5ad").var["highly_variable"]
    assert set(found.index[found]) == chosen
    assert len(chosen) == 100
    assert not chosen & set(cohorts.EXCLUDED)
    assert table["n_samples"].max() == 2  # D has fewer than 50 cells: no vote


def test_summary_and_status(merged):
    table = io.read_tsv(merged / "merge.tsv", dtype=str).fillna("").iloc[0]
    n_genes = len(cohorts.genes(300))
    assert (table["n_samples"], table["n_cells"]) == ("3", "155")
    assert (table["n_genes_union"], table["n_genes_shared"]) == (str(n_genes), str(n_genes - 2))
    assert table["panel_genes_lost"] == "CD3E"
    assert table["samples_left_out"] == "C: skipped_too_few_cells (30 of 60 cells pass, needed 50)"
    row = state(merged)
    assert row["status"] == "warning"
    assert "1 of 4 samples left out: C: skipped_too_few_cells" in row["reason"]
    assert "lost because a sample lacks them: CD3E" in row["reason"]
    assert (row["n_cells"], row["n_samples"], row["n_patients"]) == ("155", "3", "2")


def test_same_bytes_in_any_order(merge, merged, samples, tmp_path):
    paths = cohorts.write_samples(tmp_path / "in", samples, list("ABCD"))
    merge(tmp_path / "out", paths[::-1], "--n_hvg", 100, "--threads", 2)
    for name in OUTPUTS - {"merge_cohort.cohort.provenance.json"}:  # it records the threads
        assert (tmp_path / "out" / name).read_bytes() == (merged / name).read_bytes(), name


def test_one_sample_with_an_empty_cell(merge, tmp_path):
    """A cell may lose all its counts with the genes that another sample lacks: it stays, with zeros."""
    made = cohorts.sample("A", 60, 1)
    matrix = made.layers["counts"].toarray()
    matrix[3] = 0
    made.layers["counts"] = sparse.csr_matrix(matrix)
    merge(tmp_path / "out", cohorts.write_samples(tmp_path, [made], ["A"]))
    assert state(tmp_path / "out")["status"] == "ok"
    found = anndata.read_h5ad(tmp_path / "out" / "merged.h5ad")
    assert found.n_obs == 60
    assert found.X[3].nnz == 0


def test_panels_and_different_gene_sets(merge, tmp_path):
    half = tuple(gene for gene in cohorts.genes(300) if gene.startswith("GENE") and int(gene[4:]) < 150)
    made = [cohorts.sample("A", 60, 1), cohorts.sample("B", 60, 2, without=half)]
    (tmp_path / "panel.tsv").write_text("gene\tset\nGENE0003\tmine\nGENE0200\tmine\nABSENT\tmine\n")
    paths = cohorts.write_samples(tmp_path / "in", made, ["A", "B"])
    merge(tmp_path / "out", paths, "--panels", tmp_path / "panel.tsv")
    reason = state(tmp_path / "out")["reason"]
    assert "the samples share 171 of 321 genes; B lacks most (150)" in reason
    assert "lost because a sample lacks them: GENE0003" in reason
    assert "ABSENT" not in reason  # measured nowhere: the join did not lose it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("verdict", r"no sample is left for the cohort:\n  - A: failed_no_cells \(0 of 60 cells pass\)\n  - B: skipped_sample"),
        ("names", r"the 2 samples share 0 of 642 genes \(A: .*B: X_.*different references"),
        ("broken", r"A\.filtered\.h5ad: obs\['patient'\] is missing(.|\n)*B\.filtered\.h5ad: layers\['counts'\] is missing"),
        ("twice", r"obs\['sample'\] holds A, expected B"),
        ("excluded", r"all 7 shared genes are mitochondrial, ribosomal"),
        ("empty", r"0 of 321 genes are found in 3 cells or more"),
    ],
)
def test_refusals(script, root, tmp_path, monkeypatch, change, message):
    made = [cohorts.sample("A", 60, 1), cohorts.sample("B", 60, 2)]
    if change == "verdict":
        made = [
            cohorts.sample("A", 0, 1, verdict="failed_no_cells", reason="0 of 60 cells pass"),
            cohorts.sample("B", 60, 2, verdict="skipped_sample_criteria", reason="crit_genes"),
        ]
    elif change == "names":
        made[1].var_names = [f"X_{gene}" for gene in made[1].var_names]
    elif change == "broken":
        del made[0].obs["patient"]
        del made[1].layers["counts"]
    elif change == "twice":
        made[1] = made[0].copy()
    elif change == "excluded":
        made = [one[:, sorted(cohorts.EXCLUDED)].copy() for one in made]
    elif change == "empty":
        for one in made:
            one.layers["counts"] = one.layers["counts"] * 0
    paths = cohorts.write_samples(tmp_path / "in", made, ["A", "B"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(io.InputError, match=message):
        script.main(["--inputs", *map(str, paths), "--markers", str(root / "assets" / "markers.tsv")])
    assert outputs(tmp_path) == set()


def test_table_without_genes(merge, tmp_path):
    (tmp_path / "panel.tsv").write_text("symbol\nEPCAM\n")
    paths = cohorts.write_samples(tmp_path / "in", [cohorts.sample("A", 60, 1)], ["A"])
    done = merge(tmp_path / "out", paths, "--panels", tmp_path / "panel.tsv", check=False)
    assert done.returncode == 65
    assert done.stderr.startswith("ERROR merge_cohort: panel.tsv has the columns symbol; expected one named `gene`")
    assert outputs(tmp_path / "out") == set()


@pytest.mark.real
def test_ctcl(merge, shared_data, tmp_path):
    """Published means of all 300 barcodes of each sample (shared/data/README.md); before filtering, over all genes."""
    names = ["CTCL-5", "CTCL-6", "CTCL-8", "HC-1", "HC-2", "HC-3"]
    made = [real_cohorts.read_10x(shared_data / "ctcl_gse128531" / "10x" / name, name) for name in names]
    for one in made:
        one.uns["scresist"] = {"filter": {"verdict": "ok", "reason": ""}}
    merge(tmp_path / "out", cohorts.write_samples(tmp_path / "in", made, names))
    found = anndata.read_h5ad(tmp_path / "out" / "merged.h5ad")
    assert found.n_obs == 1800
    table = pd.DataFrame(found[:, ["CD3E", "MKI67"]].X.toarray(), columns=["CD3E", "MKI67"])
    means = table.groupby(found.obs["sample"].astype(str).to_numpy()).mean().loc[names].round(2)
    assert means["CD3E"].tolist() == pytest.approx([0.61, 0.36, 0.05, 0.01, 0.03, 0.00], abs=0.0051)
    assert means["MKI67"].tolist() == pytest.approx([0.16, 0.11, 0.09, 0.02, 0.00, 0.01], abs=0.0051)
