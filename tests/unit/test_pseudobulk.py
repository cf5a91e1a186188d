"""Sums, filter and DESeq2's model against PyDESeq2's own loops, statsmodels and hand-worked numbers."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.optimize import minimize_scalar

from scresist import pseudobulk


def negative_binomial(n_units: int, n_genes: int, seed: int) -> np.ndarray:
    """Counts around means of 1 to 2,000 with size factors 0.5 to 2; every fifth gene is doubled in odd units."""
    rng = np.random.default_rng(seed)
    mean = rng.gamma(0.5, 200, n_genes) + 1
    spread = 0.02 + rng.uniform(0.2, 2, n_genes) / mean
    mu = mean * rng.uniform(0.5, 2, (n_units, 1))
    mu = np.where((np.arange(n_units)[:, None] % 2 == 1) & (np.arange(n_genes) % 5 == 0), 2 * mu, mu)
    return rng.poisson(rng.gamma(1 / spread, spread * mu))


def stock(counts: np.ndarray, is_a: np.ndarray, patient: np.ndarray | None) -> pd.DataFrame:
    """PyDESeq2 as it is delivered."""
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.ds import DeseqStats

    design = pseudobulk.design_matrix(is_a, patient)
    design.index = pd.Index([f"u{i}" for i in range(len(design))])
    frame = pd.DataFrame(counts, index=design.index, columns=[f"g{i}" for i in range(counts.shape[1])])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = DeseqDataSet(counts=frame, metadata=design.copy(), design=design, quiet=True, n_cpus=1)
        fitted.deseq2()
        tested = DeseqStats(fitted, contrast=np.eye(design.shape[1])[-1], alpha=0.05, quiet=True, n_cpus=1)
        tested.summary()
    return tested.results_df


def test_sum_rows_leaves_out_unit_minus_one():
    counts = sparse.csr_matrix(np.array([[1, 0, 2], [3, 4, 0], [5, 0, 0], [7, 7, 7]], dtype=np.int32))
    summed = pseudobulk.sum_rows(counts, np.array([1, 0, 1, -1]), 2)
    assert summed.tolist() == [[3, 4, 0], [6, 0, 2]] and summed.dtype == np.int64


def test_filter_by_expr_by_hand():
    """Libraries of one million: 10 counts are the cutoff of 10 per million; two samples a group must reach it, 15 in all."""
    genes = np.array([[10, 9, 10, 0, 1], [10, 9, 0, 0, 1], [0, 9, 0, 40, 1], [0, 9, 4, 0, 1]])
    rest = 1_000_000 - genes.sum(axis=1, keepdims=True)
    kept = pseudobulk.filter_by_expr(np.hstack([genes, rest]), np.array(["a", "a", "b", "b"]))
    assert kept.tolist() == [True, False, False, False, False, True]
    many = np.tile(genes[:1], (30, 1))
    many[:13, 0] = 0
    # groups of 15: 10 + 0.7 x 5 = 13.5 samples must reach the cutoff
    assert pseudobulk.filter_by_expr(np.hstack([many, np.full((30, 1), 999_970)]), np.arange(30) % 2)[0]
    many[:17, 0] = 0
    assert not pseudobulk.filter_by_expr(np.hstack([many, np.full((30, 1), 999_970)]), np.arange(30) % 2)[0]


def test_design_matrix():
    plain = pseudobulk.design_matrix(np.array([True, False]), None)
    assert plain.to_dict("list") == {"intercept": [1.0, 1.0], "side_a": [1.0, 0.0]}
    paired = pseudobulk.design_matrix(np.array([1, 1, 0, 0]), np.array(["Q", "P", "Q", "P"]))
    assert paired["patient_Q"].tolist() == [1, 0, 1, 0] and list(paired) == ["intercept", "patient_Q", "side_a"]


@pytest.mark.parametrize(("n_units", "paired"), [(8, False), (10, True)])
def test_equal_to_pydeseq2(n_units, paired):
    counts = negative_binomial(n_units, 220, 3)
    counts[0, 7] = 100_000  # an outlier
    is_a = np.arange(n_units) % 2 == 1
    counts = counts[:, pseudobulk.filter_by_expr(counts, is_a)]
    patient = np.array([f"P{i // 2}" for i in range(n_units)]) if paired else None
    genes = pd.Index([f"g{i}" for i in range(counts.shape[1])])
    ours, theirs = pseudobulk.deseq2(counts, genes, is_a, patient, 0.05), stock(counts, is_a, patient)
    assert ours["base_mean"].to_numpy() == pytest.approx(theirs["baseMean"].to_numpy())
    assert (ours["p_value"].isna().to_numpy() == theirs["pvalue"].isna().to_numpy()).all()
    assert (ours["p_adjusted"].isna().to_numpy() == theirs["padj"].isna().to_numpy()).all()
    assert np.abs(ours["log2fc"].to_numpy() - theirs["log2FoldChange"].to_numpy()).max() < 5e-3
    known = ours["p_value"].notna().to_numpy()
    decades = np.abs(np.log10(ours["p_value"].to_numpy()[known]) - np.log10(theirs["pvalue"].to_numpy()[known]))
    assert np.median(decades) < 5e-3 and decades.max() < 0.1
    assert (ours["p_adjusted"] < 0.05).sum() == pytest.approx((theirs["padj"] < 0.05).sum(), abs=1)
    assert set(ours["remark"]) <= {"", pseudobulk.COOKS_OUTLIER, pseudobulk.LOW_MEAN}
    if not paired:
        assert (ours["remark"] == pseudobulk.COOKS_OUTLIER).sum() == 1


def test_slope_is_the_derivative_of_the_loss():
    counts = negative_binomial(6, 20, 1)
    mu = np.full(counts.shape, counts.mean(axis=0)) + 0.5
    design = pseudobulk.design_matrix(np.arange(6) % 2 == 1, None).to_numpy()
    at, h = np.linspace(-5, 1, 20), 1e-5
    for prior in ((None, None), (np.full(20, -2.0), 0.7)):
        forward = pseudobulk.dispersion_loss(at + h, counts, mu, design, *prior)
        backward = pseudobulk.dispersion_loss(at - h, counts, mu, design, *prior)
        slope = pseudobulk.dispersion_slope(at, counts, mu, design, *prior)
        assert slope == pytest.approx((forward - backward) / (2 * h), abs=1e-4)


def test_dispersions_are_minima():
    counts = negative_binomial(10, 60, 2)
    design = pseudobulk.design_matrix(np.arange(10) % 2 == 1, None).to_numpy()
    mu = pseudobulk.linear_means(counts, np.ones(10), design, 0.5)
    start = np.full(60, 0.3)
    found, converged = pseudobulk.dispersions(counts, design, mu, start, 1e-8, 10.0)
    assert converged.all()
    prior, _ = pseudobulk.dispersions(counts, design, mu, start, 1e-8, 10.0, prior_disp_var=0.5, prior_reg=True)
    for gene in range(60):
        one = slice(gene, gene + 1)

        def loss(at, one=one, mean=None, var=None):
            return float(pseudobulk.dispersion_loss(np.array([at]), counts[:, one], mu[:, one], design, mean, var)[0])

        best = minimize_scalar(loss, bounds=(np.log(1e-8), np.log(10.0)), method="bounded", options={"xatol": 1e-9})
        # towards 0 the likelihood is flat: equal in height is what counts
        assert loss(np.log(found[gene])) <= best.fun + 1e-4
        shrunken = minimize_scalar(
            lambda at, loss=loss: loss(at, mean=np.log(np.array([0.3])), var=0.5), bounds=(-18.4, 2.3), method="bounded"
        )
        assert np.log(prior[gene]) == pytest.approx(shrunken.x, abs=1e-3)


def test_gene_without_overdispersion_stays_at_the_bound():
    counts = np.tile(np.array([[1000], [1001], [999], [1000]]), (1, 2))
    design = pseudobulk.design_matrix(np.array([1, 1, 0, 0]), None).to_numpy()
    found, _ = pseudobulk.dispersions(counts, design, np.full((4, 2), 1000.0), np.full(2, 1e-8), 1e-8, 10.0)
    assert found == pytest.approx([1e-8, 1e-8], rel=1e-3)


def test_coefficients_and_wald_equal_statsmodels():
    import statsmodels.api as sm

    counts = negative_binomial(12, 8, 5)
    design = pseudobulk.design_matrix(np.arange(12) % 2 == 1, None).to_numpy()
    factors, alpha = np.linspace(0.7, 1.4, 12), np.linspace(0.05, 0.4, 8)
    beta, mu, hat, converged = pseudobulk.coefficients(counts, factors, design, alpha, 1e-12, 1e-12)
    p, z, error = pseudobulk.wald(design, alpha, beta, mu, 1e-6 * np.eye(2), np.array([0.0, 1.0]), 0.0)
    assert converged.all() and hat.sum(axis=0) == pytest.approx(np.full(8, 2.0), rel=1e-3)
    for gene in range(8):
        family = sm.families.NegativeBinomial(alpha=alpha[gene])
        model = sm.GLM(counts[:, gene], design, family=family, offset=np.log(factors)).fit(tol=1e-12)
        assert beta[gene] == pytest.approx(model.params, rel=1e-4, abs=1e-5)
        assert error[gene] == pytest.approx(model.bse[1], rel=1e-4)
        assert p[gene] == pytest.approx(model.pvalues[1], rel=1e-3) and z[gene] == pytest.approx(model.tvalues[1], rel=1e-3)
    with pytest.raises(ValueError, match="two-sided"):
        pseudobulk.wald(design, alpha, beta, mu, np.eye(2), np.eye(2)[1], 0.0, "greater")


def test_genes_that_diverge_go_to_the_stock_solver():
    counts = np.array([[0], [0], [0], [300], [280], [310]])
    design = pseudobulk.design_matrix(np.array([0, 0, 0, 1, 1, 1]), None).to_numpy()
    beta, mu, _, _ = pseudobulk.coefficients(counts, np.ones(6), design, np.array([0.1]), 0.5, 1e-8, max_beta=3.0)
    assert np.isfinite(beta).all() and mu.shape == (6, 1)


def test_zero_genes_and_no_genes():
    counts = np.hstack([negative_binomial(6, 60, 9), np.zeros((6, 1), dtype=int)])
    genes = pd.Index([f"g{i}" for i in range(61)])
    table = pseudobulk.deseq2(counts, genes, np.arange(6) % 2 == 1, None, 0.05)
    assert len(table) == 61 and np.isnan(table["p_value"].iloc[-1])
    empty = pseudobulk.deseq2(counts[:, :0], genes[:0], np.arange(6) % 2 == 1, None, 0.05)
    assert list(empty) == list(pseudobulk.RESULT_COLUMNS) and empty.empty
    with pytest.raises(ValueError, match="2 units cannot carry a design of 2 coefficients"):
        pseudobulk.deseq2(counts[:2], genes, np.array([True, False]), None, 0.05)


@pytest.mark.real
def test_glioblastoma_pairs(shared_data):
    """Published: MT1X +3.0, NEAT1 +1.7, MT2A +1.7; 68 genes below 0.05 in five pairs, 8 without the pairing."""
    cells = anndata.read_h5ad(shared_data / "gbm_panobinostat" / "lemur_gbm_300g.h5ad")
    samples = cells.obs.groupby("sample_id", observed=True)[["patient_id", "condition"]].first()
    code = samples.index.get_indexer(cells.obs["sample_id"])
    counts = pseudobulk.sum_rows(sparse.csr_matrix(cells.X), code, len(samples))
    is_a, patient = (samples["condition"] != "ctrl").to_numpy(), samples["patient_id"].astype(str).to_numpy()
    genes = pd.Index(cells.var["symbol"].astype(str))
    paired = pseudobulk.deseq2(counts, genes, is_a, patient, 0.05).set_index("gene")
    unpaired = pseudobulk.deseq2(counts, genes, is_a, None, 0.05)
    assert paired.loc[["MT1X", "NEAT1", "MT2A"], "log2fc"].tolist() == pytest.approx([3.0, 1.7, 1.7], abs=0.05)
    assert (paired["p_adjusted"] < 0.05).sum() == 68 and (unpaired["p_adjusted"] < 0.05).sum() == 8
