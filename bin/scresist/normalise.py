"""Normalisation and highly variable genes of a merged cohort."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
from scipy import sparse

from scresist import keys
from scresist.quality import HAEMOGLOBIN, RIBOSOMAL

# Samples with fewer cells do not vote on highly variable genes (methods.md, MERGE_COHORT).
MIN_CELLS_VOTE = 50

# Genes that vary for reasons other than type and state: mitochondrial, of mitochondrial ribosomes, pseudogenes of ribosomal
# proteins, and the variable segments of immunoglobulins and T-cell receptors, which mark clonotypes. Ribosomal proteins and
# haemoglobin are those of the quality metrics.
HVG_EXCLUDE = (
    r"^MT-",
    r"^MRP[SL]\d",
    r"^RP([SL]\d+[A-Z]*|LP\d|SA)P\d+$",
    RIBOSOMAL.pattern,
    rf"^({'|'.join(sorted(HAEMOGLOBIN))})$",
    r"^IG[HKL][VDJ](\d|I|\()",  # a digit or Roman number follows: IGHD, the constant region of delta, stays
    r"^TR[ABGD][VDJ]\d",  # likewise TRADD, a signalling gene
)


def log1p_cp10k(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """ln(1 + 10,000 x count / total of the cell) as float32.

    Parameters
    ----------
    counts
        cells x genes, non-negative; cells without counts stay zero.
    """
    total = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    scale = np.divide(keys.TARGET_SUM, total, out=np.zeros_like(total), where=total > 0)
    per_value = np.repeat(scale, np.diff(counts.indptr))
    data = np.log1p(counts.data * per_value).astype(np.float32)
    return sparse.csr_matrix((data, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)


def excluded_genes(genes: pd.Index, patterns: tuple[str, ...] = HVG_EXCLUDE) -> np.ndarray:
    """Boolean array over genes: those that never become highly variable."""
    joined = re.compile("|".join(patterns))
    return np.array([joined.search(gene) is not None for gene in genes], dtype=bool)


def voting_samples(samples: pd.Series, minimum: int = MIN_CELLS_VOTE) -> list[str]:
    """Samples with at least `minimum` cells; all of them when none has."""
    sizes = samples.astype(str).value_counts()
    large = sorted(sizes.index[sizes >= minimum])
    return large or sorted(sizes.index)


def highly_variable(x: sparse.csr_matrix, genes: pd.Index, samples: pd.Series, n_top: int) -> pd.DataFrame:
    """Highly variable genes by vote of the samples: scanpy's flavor `seurat` (Satija 2015) with `batch_key` = sample.

    Genes are ranked by the number of samples in which they are among the `n_top` most variable, then by mean normalised
    dispersion, then by name. Flavor `seurat_v3` is not used: its loess fails on small samples.

    The samples are taken one by one, because scanpy's own loop copies the whole cohort first; the result is the same
    (a test compares them).

    Parameters
    ----------
    x
        cells x genes, log1p of counts per 10,000.
    genes
        symbols, sorted.
    samples
        sample of each cell.
    n_top
        number of genes; fewer when fewer are expressed and allowed.

    Returns
    -------
    Frame over all genes (index) with `mean` (of x over all cells), `dispersion_norm` (mean over the voting samples; missing for
    genes that may not vote), `n_samples` (votes), `highly_variable`.

    Raises
    ------
    ValueError
        when the patterns leave no gene.
    """
    allowed = np.flatnonzero(~excluded_genes(genes))
    if not len(allowed):
        raise ValueError("no gene is left after the patterns that exclude genes from the highly variable ones")
    n_top = min(n_top, len(allowed))
    names = samples.astype(str).to_numpy()
    voters = voting_samples(samples)
    total, n_known, votes, expressed = (np.zeros(len(allowed)) for _ in range(4))
    for voter in voters:
        norm, chosen, seen = _dispersions(x[np.flatnonzero(names == voter)][:, allowed], n_top)
        known = ~np.isnan(norm)
        total += np.where(known, norm, 0)
        n_known += known
        votes += chosen
        expressed += seen
    dispersion = np.divide(total, n_known, out=np.full(len(allowed), np.nan), where=n_known > 0)
    # A gene that no voter expresses has a dispersion of 0, above that of quiet genes: it must not be chosen for that.
    order = np.lexsort((genes[allowed].to_numpy(dtype=str), -np.nan_to_num(dispersion, nan=-np.inf), -votes, expressed == 0))
    chosen = allowed[order[: min(n_top, int((expressed > 0).sum()))]]

    table = pd.DataFrame(index=genes)
    table["mean"] = np.asarray(x.sum(axis=0, dtype=np.float64)).ravel() / max(x.shape[0], 1)
    table["dispersion_norm"] = pd.Series(dispersion, index=genes[allowed]).reindex(genes)
    table["n_samples"] = pd.Series(votes.astype(int), index=genes[allowed]).reindex(genes, fill_value=0)
    table["highly_variable"] = np.isin(np.arange(len(genes)), chosen)
    return table


def _dispersions(x: sparse.csr_matrix, n_top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each gene in one sample: normalised dispersion (0 where not expressed), among the `n_top`, expressed."""
    import anndata  # scanpy takes nothing else
    import scanpy as sc

    norm, chosen = np.zeros(x.shape[1]), np.zeros(x.shape[1], dtype=bool)
    expressed = np.asarray((x > 0).sum(axis=0)).ravel() > 0
    if expressed.any():
        sample = anndata.AnnData(x[:, np.flatnonzero(expressed)])
        sample.uns["log1p"] = {"base": None}
        with warnings.catch_warnings():
            # in a sample with fewer varying genes than asked for, all of them vote
            warnings.filterwarnings("ignore", message=".*number of normalized dispersions")
            n_top = min(n_top, int(expressed.sum()))
            found = sc.pp.highly_variable_genes(sample, flavor="seurat", n_top_genes=n_top, inplace=False)
        norm[expressed] = found["dispersions_norm"].to_numpy(dtype=np.float64)
        chosen[expressed] = found["highly_variable"].to_numpy(dtype=bool)
    return norm, chosen, expressed
