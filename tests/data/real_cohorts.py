"""Real public data as CLUSTER_COHORT and ANNOTATE_CELLS expect them: merged.h5ad, embedding.parquet (PCA) and an empty graph.

The cells are those of the published figures, not those that our own filters keep, so that a figure tests these steps alone.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import io as scipy_io
from scipy import sparse

N_HVG = 2000
N_PCS = 30


def read_10x(folder: Path, sample: str) -> anndata.AnnData:
    """A 10x folder: counts of all barcodes, duplicate symbols summed, symbols sorted."""
    with gzip.open(folder / "matrix.mtx.gz") as stream:
        counts = sparse.csr_matrix(scipy_io.mmread(stream).T)
    symbols = pd.read_csv(folder / "features.tsv.gz", sep="\t", header=None)[1].astype(str)
    barcodes = pd.read_csv(folder / "barcodes.tsv.gz", sep="\t", header=None)[0].astype(str)
    return made(counts, symbols, barcodes, sample)


def made(counts: sparse.csr_matrix, symbols: pd.Series, barcodes: pd.Series, sample: str) -> anndata.AnnData:
    """Counts with names as the contract asks for."""
    genes, codes = np.unique(symbols.to_numpy(dtype=str), return_inverse=True)
    add = sparse.csr_matrix((np.ones(len(codes)), (np.arange(len(codes)), codes)), shape=(len(codes), len(genes)))
    order = np.argsort(barcodes.to_numpy(dtype=str), kind="stable")
    summed = sparse.csr_matrix((counts @ add)[order]).astype(np.int32)
    names = [f"{sample}:{barcode}" for barcode in barcodes.to_numpy(dtype=str)[order]]
    obs = pd.DataFrame({"sample": sample, "patient": sample, "phase": "PRE", "batch": "none"}, index=names)
    return anndata.AnnData(obs=obs, var=pd.DataFrame(index=genes), layers={"counts": summed})


def prepare(samples: list[anndata.AnnData], folder: Path) -> anndata.AnnData:
    """Write merged.h5ad, embedding.parquet and graph.npz into `folder`; returns the merged object."""
    import scanpy as sc

    from scresist import io, normalise

    shared = sorted(set.intersection(*(set(sample.var_names) for sample in samples)))
    counts = sparse.csr_matrix(sparse.vstack([sample[:, shared].layers["counts"] for sample in samples]))
    obs = pd.concat([sample.obs for sample in samples])
    seen = np.flatnonzero(np.asarray((counts > 0).sum(axis=0)).ravel() >= 3)
    counts = counts[:, seen]
    counts.sort_indices()
    merged = anndata.AnnData(obs=obs, var=pd.DataFrame(index=np.array(shared)[seen]), layers={"counts": counts})
    merged.X = normalise.log1p_cp10k(counts)
    merged.uns["scresist"] = {}
    table = normalise.highly_variable(merged.X, merged.var_names, merged.obs["sample"], N_HVG)
    hvg = merged.X[:, np.flatnonzero(table["highly_variable"])].toarray()
    space = sc.pp.pca(hvg, n_comps=min(N_PCS, *(n - 1 for n in hvg.shape)), svd_solver="arpack", random_state=0)
    fragment = pd.DataFrame(space, columns=[f"latent_{i + 1}" for i in range(space.shape[1])])
    fragment.insert(0, "cell", merged.obs_names.to_numpy())
    folder.mkdir(parents=True, exist_ok=True)
    io.write_fragment(fragment, folder / "embedding.parquet")
    sparse.save_npz(folder / "graph.npz", sparse.csr_matrix((0, 0)))
    io.write_h5ad(merged, folder / "merged.h5ad")
    return merged


def metrics(sample: anndata.AnnData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Genes, counts and % mitochondrial counts of each cell."""
    counts = sample.layers["counts"]
    total = np.asarray(counts.sum(axis=1)).ravel()
    mt = np.asarray(counts[:, np.flatnonzero(sample.var_names.str.startswith("MT-"))].sum(axis=1)).ravel()
    return np.asarray((counts > 0).sum(axis=1)).ravel(), total, 100 * mt / np.maximum(total, 1)


def pbmc3k(data: Path) -> list[anndata.AnnData]:
    """The 2,638 cells of the published tutorials: 200 to 2,499 genes and less than 5 % mitochondrial counts."""
    sample = read_10x(data / "pbmc3k_raw" / "10x", "pbmc3k")
    n_genes, _total, pct_mt = metrics(sample)
    return [sample[(n_genes >= 200) & (n_genes < 2500) & (pct_mt < 5)].copy()]


def ctcl(data: Path, min_counts: int = 500) -> list[anndata.AnnData]:
    """Three skin lymphomas and three healthy skins (GSE128531): >= 200 genes, >= `min_counts` counts, <= 20 % mitochondrial."""
    samples = []
    for folder in sorted((data / "ctcl_gse128531" / "10x").iterdir()):
        sample = read_10x(folder, folder.name)
        n_genes, total, pct_mt = metrics(sample)
        samples.append(sample[(n_genes >= 200) & (total >= min_counts) & (pct_mt <= 20)].copy())
    return samples


def tnbc1(data: Path) -> tuple[list[anndata.AnnData], pd.Series]:
    """The triple-negative breast tumour of CopyKAT, and its call (aneuploid, diploid) by our cell names."""
    given = anndata.read_h5ad(data / "copykat_tnbc1" / "tnbc1_counts.h5ad")
    counts = sparse.csr_matrix(given.layers["counts"] if given.X is None else given.X)
    barcodes = pd.Series(given.obs_names)
    sample = made(counts, pd.Series(given.var_names), barcodes, "TNBC1")
    column = next(name for name in given.obs if set(given.obs[name].astype(str)) >= {"aneuploid", "diploid"})
    calls = pd.Series(given.obs[column].astype(str).to_numpy(), index="TNBC1:" + barcodes)
    return [sample], calls.loc[sample.obs_names]
