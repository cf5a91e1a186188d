"""Normalisation by hand; highly variable genes against scanpy's own vote; patterns by name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
import cohorts

from scresist import normalise


def test_log1p_cp10k_by_hand():
    counts = sparse.csr_matrix(np.array([[1, 3, 0], [0, 0, 0], [0, 0, 5]]))
    x = normalise.log1p_cp10k(counts)
    # 1 of 4 counts is 2,500 per 10,000; a cell without counts stays zero
    expected = np.log1p([[2500, 7500, 0], [0, 0, 0], [0, 0, 10000]])
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.toarray(), expected, rtol=1e-6)


def test_log1p_cp10k_sums_and_depth():
    rng = np.random.default_rng(1)
    counts = sparse.csr_matrix(rng.poisson(0.3, (40, 500)))
    x = normalise.log1p_cp10k(counts)
    np.testing.assert_allclose(np.expm1(x.toarray().astype(float)).sum(axis=1), 1e4, atol=1e-2)
    np.testing.assert_array_equal(normalise.log1p_cp10k(counts * 7).toarray(), x.toarray())  # depth does not matter


@pytest.mark.parametrize(
    ("gene", "excluded"),
    [
        *((gene, True) for gene in ("MT-CO1", "RPL3", "RPLP0", "RPSA", "RPS4X", "MRPL12", "RPS17P5", "HBA1", "HBB")),
        *((gene, True) for gene in ("IGHV3-23", "IGKJ1", "IGLV2-14", "IGHD3-10", "TRAV1-2", "TRBV20-1", "TRDD2", "TRGJ1")),
        *((gene, False) for gene in ("RPS6KA1", "TRADD", "TRAC", "IGHD", "IGHG1", "IGKC", "HBEGF", "HBP1", "MTOR", "RPE")),
    ],
)
def test_excluded_genes(gene, excluded):
    assert normalise.excluded_genes(pd.Index([gene]))[0] == excluded


def three_samples(sizes: tuple[int, ...] = (60, 75, 90), n_plain: int = 400):
    made = [cohorts.sample(name, n, seed, n_plain=n_plain) for seed, (name, n) in enumerate(zip("ABC", sizes, strict=True))]
    merged = cohorts.merged(made)
    return normalise.log1p_cp10k(merged.layers["counts"]), merged.var_names, merged.obs["sample"]


def scanpy_vote(x, genes, samples, n_top):
    """scanpy's own batched selection over the genes that may vote."""
    import anndata
    import scanpy as sc

    allowed = np.flatnonzero(~normalise.excluded_genes(genes))
    view = anndata.AnnData(x[:, allowed], obs=pd.DataFrame({"s": pd.Categorical(samples.astype(str))}))
    view.var_names = genes[allowed]
    view.uns["log1p"] = {"base": None}
    return sc.pp.highly_variable_genes(view, flavor="seurat", n_top_genes=n_top, batch_key="s", inplace=False).set_axis(
        genes[allowed]
    )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_same_vote_as_scanpy():
    x, genes, samples = three_samples()
    ours = normalise.highly_variable(x, genes, samples, 120)
    theirs = scanpy_vote(x, genes, samples, 120)
    assert ours["highly_variable"].sum() == 120
    assert set(ours.index[ours["highly_variable"]]) == set(theirs.index[theirs["highly_variable"]])
    ours = ours.loc[theirs.index]
    np.testing.assert_array_equal(ours["n_samples"], theirs["highly_variable_nbatches"])
    np.testing.assert_allclose(ours["dispersion_norm"], theirs["dispersions_norm"].astype(float), atol=1e-5)


def test_excluded_never_vote_and_mean_is_over_all_cells():
    x, genes, samples = three_samples()
    table = normalise.highly_variable(x, genes, samples, 10_000)
    excluded = table.loc[list(cohorts.EXCLUDED)]
    assert not excluded["highly_variable"].any()
    assert excluded["dispersion_norm"].isna().all()
    assert (excluded["n_samples"] == 0).all()
    np.testing.assert_allclose(table["mean"], x.toarray().mean(axis=0), rtol=1e-5)


def test_markers_of_types_are_found():
    x, genes, samples = three_samples()
    table = normalise.highly_variable(x, genes, samples, 120)
    assert table.loc[["EPCAM", "CD3D", "CD79A"], "highly_variable"].all()


def test_order_of_cells_does_not_matter():
    x, genes, samples = three_samples()
    order = np.random.default_rng(5).permutation(x.shape[0])
    ours = normalise.highly_variable(x, genes, samples, 100)
    other = normalise.highly_variable(x[order], genes, samples.iloc[order], 100)
    pd.testing.assert_series_equal(ours["highly_variable"], other["highly_variable"])
    np.testing.assert_allclose(ours["dispersion_norm"], other["dispersion_norm"], atol=1e-5)


def test_small_samples_do_not_vote():
    x, genes, samples = three_samples((60, 75, 40))
    large = (samples != "C").to_numpy()
    all_ = normalise.highly_variable(x, genes, samples, 100)
    two = normalise.highly_variable(x[np.flatnonzero(large)], genes, samples[large], 100)
    pd.testing.assert_series_equal(all_["n_samples"], two["n_samples"])
    assert all_["n_samples"].max() == 2


def test_all_samples_small_all_vote():
    assert normalise.voting_samples(pd.Series(["B"] * 3 + ["A"] * 2)) == ["A", "B"]
    assert normalise.voting_samples(pd.Series(["B"] * 50 + ["A"] * 49)) == ["B"]
    x, genes, samples = three_samples((12, 15, 18))
    assert normalise.highly_variable(x, genes, samples, 50)["highly_variable"].sum() == 50


def test_one_sample_and_silent_genes():
    x, genes, samples = three_samples()
    one = np.flatnonzero((samples == "A").to_numpy())
    own = x[one].tolil()
    silent = genes.get_loc("GENE0007")
    own[:, silent] = 0
    table = normalise.highly_variable(sparse.csr_matrix(own), genes, samples.iloc[one], 10_000)
    assert not table.loc["GENE0007", "highly_variable"]  # dispersion 0 is above that of quiet genes
    expressed = np.asarray(own.sum(axis=0)).ravel() > 0
    assert table["highly_variable"].sum() == (expressed & ~genes.isin(cohorts.EXCLUDED)).sum()


def test_only_excluded_genes():
    x = sparse.csr_matrix(np.ones((3, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="no gene is left"):
        normalise.highly_variable(x, pd.Index(["MT-CO1", "RPL3"]), pd.Series(["A"] * 3), 5)
