"""Counts summed per patient and tested with DESeq2's model: sums, expression filter, fit.

The model, its size factors, dispersion trend, shrinkage, outlier rule, Wald test and independent filtering are PyDESeq2's. Only
its loops over genes are replaced: the same likelihoods are maximised for all genes at once, because one call of an optimiser per
gene takes about 4 ms and a cohort has hundreds of thousands of gene-by-type pairs.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import digamma, gammaln
from scipy.stats import norm

MIN_SAMPLE_COUNTS = 1_000  # counts of a sample and cell type below which it is not used (methods.md, TEST_EXPRESSION)
RESULT_COLUMNS = ("gene", "base_mean", "log2fc", "lfc_se", "stat", "p_value", "p_adjusted", "remark")
COOKS_OUTLIER = "outlier_count"  # no p: one sample dominates the gene (Cook's distance)
LOW_MEAN = "low_mean"  # p but no adjusted p: independent filtering
GRADIENT_TOLERANCE = 1e-5  # of the log dispersion: where L-BFGS-B, and so PyDESeq2, stops
SUFFICIENT_GAIN, CURVATURE = 1e-3, 0.9  # of a step, as L-BFGS-B asks
NO_GAIN = 1e-6  # relative gain of the posterior below which DESeq2 keeps its start
MAX_STEPS = 80  # of the search for a dispersion; bisection alone needs 45 for 1e-12 of the range
MAX_IRLS = 250  # PyDESeq2's own limit
MAX_BETA = 30.0
RIDGE = 1e-6  # PyDESeq2's ridge on the coefficients


def sum_rows(counts: sparse.csr_matrix, unit: np.ndarray, n_units: int) -> np.ndarray:
    """Counts of the cells of each unit summed: n_units x genes, int64; cells with unit -1 are left out."""
    kept = np.flatnonzero(unit >= 0)
    ones = np.ones(len(kept), dtype=np.int64)
    collect = sparse.csr_matrix((ones, (unit[kept], np.arange(len(kept)))), shape=(n_units, len(kept)))
    return np.asarray((collect @ counts[kept].astype(np.int64)).todense(), dtype=np.int64)


def filter_by_expr(
    counts: np.ndarray, group: np.ndarray, min_count: float = 10, min_total: float = 15, large_n: int = 10, min_prop: float = 0.7
) -> np.ndarray:
    """Genes with enough counts to be tested, a boolean each: edgeR's filterByExpr (Chen 2016, F1000Research 5:1438).

    A gene stays when its counts per million reach `min_count` / median library x 1e6 in at least as many samples as the smaller
    group has (beyond `large_n` only `min_prop` of the excess), and its counts sum to `min_total`.

    Parameters
    ----------
    counts
        samples x genes.
    group
        one label per sample.
    """
    library = counts.sum(axis=1).astype(float)
    needed = float(np.unique(group, return_counts=True)[1].min())
    if needed > large_n:
        needed = large_n + (needed - large_n) * min_prop
    cutoff = min_count / np.median(library) * 1e6
    per_million = counts / library[:, None] * 1e6
    tolerance = 1e-14
    return np.asarray(
        ((per_million >= cutoff).sum(axis=0) >= needed - tolerance) & (counts.sum(axis=0) >= min_total - tolerance), dtype=bool
    )


def design_matrix(is_a: np.ndarray, patient: np.ndarray | None) -> pd.DataFrame:
    """Intercept, patients (all but the first; only when given: the paired design), side A. The last column is tested."""
    columns: dict[str, np.ndarray] = {"intercept": np.ones(len(is_a))}
    if patient is not None:
        for name in sorted(set(patient))[1:]:
            columns[f"patient_{name}"] = (patient == name).astype(float)
    columns["side_a"] = np.asarray(is_a, dtype=float)
    return pd.DataFrame(columns)


def deseq2(counts: np.ndarray, genes: pd.Index, is_a: np.ndarray, patient: np.ndarray | None, alpha: float) -> pd.DataFrame:
    """Wald test of side A against side B per gene (Love, Huber, Anders 2014; PyDESeq2), log2 fold change not shrunken.

    Parameters
    ----------
    counts
        units x genes, integers; genes that pass `filter_by_expr`.
    is_a
        True for units of side A.
    patient
        patient of each unit for the paired design `~ patient + side`; None for `~ side`.
    alpha
        level that the independent filtering is optimised for.

    Returns
    -------
    RESULT_COLUMNS, one row per gene in the order given. `p_value` is missing for outliers, `p_adjusted` also for genes below the
    independent filter; `remark` says which.

    Raises
    ------
    ValueError
        when the design has no residual degree of freedom.
    """
    design = design_matrix(is_a, patient)
    if len(design) <= design.shape[1]:
        raise ValueError(f"{len(design)} units cannot carry a design of {design.shape[1]} coefficients")
    if not len(genes):
        return pd.DataFrame({name: pd.Series(dtype=object if name in ("gene", "remark") else float) for name in RESULT_COLUMNS})
    os.environ.setdefault("TQDM_DISABLE", "1")
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.ds import DeseqStats

    units = [f"u{i:04d}" for i in range(len(design))]
    design.index = pd.Index(units)
    inference = _inference()
    contrast = np.zeros(design.shape[1])
    contrast[-1] = 1.0
    with warnings.catch_warnings():
        # its remarks on zeros, trends and convergence are handled or harmless, and would fill the log
        warnings.simplefilter("ignore")
        with np.errstate(all="ignore"):
            frame = pd.DataFrame(counts, index=units, columns=[f"g{i:06d}" for i in range(len(genes))])
            fitted = DeseqDataSet(counts=frame, metadata=design.copy(), design=design, quiet=True, inference=inference)
            fitted.deseq2()
            tested = DeseqStats(fitted, contrast=contrast, alpha=alpha, quiet=True, inference=inference)
            tested.summary()
    result = tested.results_df
    out = pd.DataFrame(
        {
            "gene": np.asarray(genes),
            "base_mean": result["baseMean"].to_numpy(dtype=float),
            "log2fc": result["log2FoldChange"].to_numpy(dtype=float),
            "lfc_se": result["lfcSE"].to_numpy(dtype=float),
            "stat": result["stat"].to_numpy(dtype=float),
            "p_value": result["pvalue"].to_numpy(dtype=float).clip(1e-300, 1.0),
            "p_adjusted": result["padj"].to_numpy(dtype=float).clip(1e-300, 1.0),
        }
    )
    out["remark"] = np.where(out["p_value"].isna(), COOKS_OUTLIER, np.where(out["p_adjusted"].isna(), LOW_MEAN, ""))
    return out


def _inference() -> Any:
    """PyDESeq2's inference with its loops over genes replaced by the functions below."""
    from pydeseq2.default_inference import DefaultInference

    class Batched(DefaultInference):
        lin_reg_mu = staticmethod(linear_means)
        alpha_mle = staticmethod(dispersions)
        irls = staticmethod(coefficients)
        wald_test = staticmethod(wald)

    return Batched(n_cpus=1)


def linear_means(counts: np.ndarray, size_factors: np.ndarray, design_matrix: np.ndarray, min_mu: float) -> np.ndarray:
    """Means of a least-squares fit to normalised counts, at least `min_mu`: units x genes."""
    scaled = counts / size_factors[:, None]
    beta = np.linalg.lstsq(design_matrix, scaled, rcond=None)[0]
    return np.maximum(size_factors[:, None] * (design_matrix @ beta), min_mu)


def _information(design: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """X' W X per gene: genes x coefficients x coefficients, from weights (units x genes)."""
    n, k = design.shape
    pairs = (design[:, :, None] * design[:, None, :]).reshape(n, k * k)
    return (weight.T @ pairs).reshape(-1, k, k)


def dispersion_slope(
    log_alpha: np.ndarray,
    counts: np.ndarray,
    mu: np.ndarray,
    design: np.ndarray,
    prior_mean: np.ndarray | None = None,
    prior_var: float | None = None,
    cox_reid: bool = True,
) -> np.ndarray:
    """Derivative by log dispersion of the negative log posterior that DESeq2 minimises, per gene.

    -log NB(counts | mu, alpha) + 1/2 log det(X' W X) [Cox-Reid] + (log alpha - prior_mean)^2 / (2 prior_var) [prior],
    W = mu / (1 + mu alpha).
    """
    alpha = np.exp(log_alpha)
    inverse = 1.0 / alpha
    terms = digamma(inverse) - digamma(counts + inverse) + np.log1p(mu * alpha) + (counts - mu) / (mu + inverse)
    slope = -inverse * terms.sum(axis=0)
    if cox_reid:
        weight = mu / (1.0 + mu * alpha)
        information = _information(design, weight)
        slope = slope + 0.5 * alpha * (np.linalg.inv(information) * _information(design, -(weight**2))).sum(axis=(1, 2))
    if prior_var is not None and prior_mean is not None:
        slope = slope + (log_alpha - prior_mean) / prior_var
    return np.asarray(slope)


def dispersion_loss(
    log_alpha: np.ndarray,
    counts: np.ndarray,
    mu: np.ndarray,
    design: np.ndarray,
    prior_mean: np.ndarray | None = None,
    prior_var: float | None = None,
    cox_reid: bool = True,
) -> np.ndarray:
    """The negative log posterior per gene whose derivative `dispersion_slope` is."""
    alpha = np.exp(log_alpha)
    loss = _negative_log_likelihood(counts, mu, alpha)
    if cox_reid:
        loss = loss + 0.5 * np.linalg.slogdet(_information(design, mu / (1.0 + mu * alpha)))[1]
    if prior_var is not None and prior_mean is not None:
        loss = loss + (log_alpha - prior_mean) ** 2 / (2 * prior_var)
    return np.asarray(loss)


def dispersions(
    counts: np.ndarray,
    design_matrix: np.ndarray,
    mu: np.ndarray,
    alpha_hat: np.ndarray,
    min_disp: float,
    max_disp: float,
    prior_disp_var: float | None = None,
    cr_reg: bool = True,
    prior_reg: bool = False,
    optimizer: str = "",
) -> tuple[np.ndarray, np.ndarray]:
    """Dispersion per gene, and whether it was found.

    The posterior may have a minimum and, towards dispersion 0, a plain of the same height. Which of them DESeq2 reports follows
    from its first step, so that step is taken as L-BFGS-B takes it: along the whole slope, clipped to the bounds, kept when
    the posterior gains enough (More and Thuente 1994). From there steps that double are taken downhill until the slope changes
    its sign or a bound is reached; the sign change is then narrowed by regula falsi (Illinois). A slope below
    GRADIENT_TOLERANCE ends the search, as it ends L-BFGS-B.
    """
    low, high = np.log(min_disp), np.log(max_disp)
    start = np.log(np.clip(alpha_hat, min_disp, max_disp))
    prior_mean = np.log(alpha_hat) if prior_reg else None
    prior_var = prior_disp_var if prior_reg else None

    def at_genes(function: Callable[..., np.ndarray], at: np.ndarray, genes: np.ndarray) -> np.ndarray:
        mean = None if prior_mean is None else prior_mean[genes]
        return function(at, counts[:, genes], mu[:, genes], design_matrix, mean, prior_var, cr_reg)

    def slope(at: np.ndarray, genes: np.ndarray) -> np.ndarray:
        return at_genes(dispersion_slope, at, genes)

    everyone = np.arange(counts.shape[1])
    first = slope(start, everyone)
    moving = np.abs(first) >= GRADIENT_TOLERANCE
    trial = np.where(moving, np.clip(start - first, low, high), start)
    trial_slope = slope(trial, everyone)
    at_start = at_genes(dispersion_loss, start, everyone)
    gain = at_start - at_genes(dispersion_loss, trial, everyone)
    kept = moving & (gain >= SUFFICIENT_GAIN * first * (start - trial)) & (np.abs(trial_slope) <= CURVATURE * np.abs(first))
    # no overdispersion by moments and none worth a step: the gene stays at the bound, as in DESeq2 (its `noIncrease`)
    stays = (start == low) & (gain <= NO_GAIN * np.maximum(np.abs(at_start), 1.0))
    kept &= ~stays
    left, left_slope = np.where(kept, trial, start), np.where(kept, trial_slope, first)
    best, done = left.copy(), stays | (np.abs(left_slope) < GRADIENT_TOLERANCE)
    right, right_slope = left.copy(), left_slope.copy()
    direction = -np.sign(left_slope)
    step, searching = np.full(len(start), 0.5), ~done
    while searching.any():  # at most six doublings until a bound is met
        genes = np.flatnonzero(searching)
        left[genes], left_slope[genes] = right[genes], right_slope[genes]
        right[genes] = np.clip(left[genes] + direction[genes] * step[genes], low, high)
        right_slope[genes] = slope(right[genes], genes)
        step[genes] *= 2
        crossed = np.sign(right_slope[genes]) != np.sign(left_slope[genes])
        flat = np.abs(right_slope[genes]) < GRADIENT_TOLERANCE
        at_bound = (right[genes] == low) | (right[genes] == high)
        ended = genes[flat | (at_bound & ~crossed)]
        best[ended], done[ended] = right[ended], True
        searching[genes[crossed | flat | at_bound]] = False
    last = np.zeros(len(start))
    for _ in range(MAX_STEPS):
        genes = np.flatnonzero(~done)
        if not len(genes):
            break
        a, fa, b, fb = left[genes], left_slope[genes], right[genes], right_slope[genes]
        at = (a * fb - b * fa) / (fb - fa)
        inside = (at > np.minimum(a, b)) & (at < np.maximum(a, b))
        at = np.where(inside, at, (a + b) / 2)
        value = slope(at, genes)
        same = np.sign(value) == np.sign(fb)
        # Illinois: the end that stays twice in a row counts half, so that both ends move
        right[genes], right_slope[genes] = at, value
        left[genes] = np.where(same, a, b)
        left_slope[genes] = np.where(same, np.where(last[genes] == 1, fa / 2, fa), fb)
        last[genes] = np.where(same, 1, 0)
        best[genes] = at
        finished = (np.abs(value) < GRADIENT_TOLERANCE) | (np.abs(right[genes] - left[genes]) < 1e-10)
        done[genes[finished]] = True
    return np.exp(best), done


def _negative_log_likelihood(counts: np.ndarray, mu: np.ndarray, disp: np.ndarray) -> np.ndarray:
    """-log of the negative binomial likelihood per gene (sum over units)."""
    inverse = 1.0 / disp
    binomial = gammaln(counts + inverse) - gammaln(counts + 1) - gammaln(inverse)
    value = inverse * np.log(disp) - binomial + (counts + inverse) * np.log(mu + inverse) - counts * np.log(mu)
    return np.asarray(value.sum(axis=0))


def coefficients(
    counts: np.ndarray,
    size_factors: np.ndarray,
    design_matrix: np.ndarray,
    disp: np.ndarray,
    min_mu: float,
    beta_tol: float,
    min_beta: float = -MAX_BETA,
    max_beta: float = MAX_BETA,
    optimizer: str = "L-BFGS-B",
    maxiter: int = MAX_IRLS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients (genes x k, natural log), means (units x genes), hat diagonals (units x genes), converged.

    Iteratively reweighted least squares for all genes together with PyDESeq2's start, ridge and stopping rule; genes that
    diverge go to PyDESeq2's own solver.
    """
    from pydeseq2.utils import irls_solver

    x, k, factor = design_matrix, design_matrix.shape[1], size_factors[:, None]
    ridge = RIDGE * np.eye(k)
    q, r = np.linalg.qr(x)
    beta = np.linalg.solve(r, q.T @ np.log(counts / factor + 0.1)).T
    active, diverged = np.arange(counts.shape[1]), []
    deviance = np.full(counts.shape[1], 1000.0)
    for step in range(1, maxiter + 1):
        y, alpha = counts[:, active], disp[active]
        mu = np.maximum(factor * np.exp(x @ beta[active].T), min_mu)
        weight = mu / (1.0 + mu * alpha)
        z = np.log(mu / factor) + (y - mu) / mu
        new = np.linalg.solve(_information(x, weight) + ridge, ((weight * z).T @ x)[:, :, None])[:, :, 0]
        bad = (np.abs(new) > max_beta).any(axis=1) | ~np.isfinite(new).all(axis=1) | (step >= maxiter)
        diverged += active[bad].tolist()
        beta[active[~bad]] = new[~bad]
        mu = np.maximum(factor * np.exp(x @ new.T), min_mu)
        now = -2 * _negative_log_likelihood(y, mu, alpha)  # PyDESeq2's sign; only its change matters
        settled = np.abs(now - deviance[active]) / (np.abs(now) + 0.1) <= beta_tol
        deviance[active] = now
        active = active[~bad & ~settled]
        if not len(active):
            break
    mu = np.maximum(factor * np.exp(x @ beta.T), min_mu)
    weight = mu / (1.0 + mu * disp)
    inverse = np.linalg.inv(_information(x, weight) + ridge)
    hat = np.einsum("ij,gjk,ik->ig", x, inverse, x) * weight
    mu = factor * np.exp(x @ beta.T)
    converged = np.ones(counts.shape[1], dtype=bool)
    for gene in diverged:
        beta[gene], mu[:, gene], hat[:, gene], converged[gene] = irls_solver(
            counts[:, gene], size_factors, x, disp[gene], min_mu, beta_tol, min_beta, max_beta, optimizer, maxiter
        )
    return beta, mu, hat, converged


def wald(
    design_matrix: np.ndarray,
    disp: np.ndarray,
    lfc: np.ndarray,
    mu: np.ndarray,
    ridge_factor: np.ndarray,
    contrast: np.ndarray,
    lfc_null: float,
    alt_hypothesis: str | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two-sided Wald test of one linear combination of coefficients per gene: p, statistic, standard error (natural log)."""
    if alt_hypothesis is not None:
        raise ValueError("only the two-sided alternative is tested")
    weight = mu / (1.0 + mu * disp)
    information = _information(design_matrix, weight)
    usable = np.isfinite(information).all(axis=(1, 2))
    error = np.full(len(information), np.nan)
    along = np.linalg.inv(information[usable] + ridge_factor) @ contrast
    error[usable] = np.sqrt(np.einsum("gi,gij,gj->g", along, information[usable], along))
    statistic = ((lfc - lfc_null) @ contrast) / error
    return 2 * norm.sf(np.abs(statistic)), statistic, error
