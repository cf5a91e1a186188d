"""Small cohorts with known types for the cohort steps: three types with marker genes, samples with a shift of their own."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

# Three coarse types of assets/markers.tsv with markers of theirs, required ones first.
TYPE_GENES = {
    "Epithelial": ["EPCAM", "KRT8", "KRT18", "KRT19", "CDH1"],
    "T_NK": ["CD3D", "CD3E", "TRAC", "IL7R", "CD8A"],
    "B": ["CD79A", "MS4A1", "CD79B", "BANK1"],
}
TYPES = tuple(TYPE_GENES)
EXCLUDED = ("MT-CO1", "MT-ND1", "RPL3", "RPS6", "HBB", "IGHV1-2", "TRAV1-2")  # never highly variable


def genes(n_plain: int) -> list[str]:
    """Sorted symbols: markers, excluded genes and `n_plain` without meaning."""
    markers = [gene for listed in TYPE_GENES.values() for gene in listed]
    return sorted([*markers, *EXCLUDED, *(f"GENE{i:04d}" for i in range(n_plain))])


def counts(names: list[str], kinds: np.ndarray, rng: np.random.Generator, shift: float = 0.0, depth: float = 3.0) -> np.ndarray:
    """Cells x genes: Poisson around a mean by gene; markers x 8 in their type; every third plain gene x exp(+-shift)."""
    base = np.random.default_rng(0).gamma(1.0, 1.0, len(names))  # one transcriptome for all samples
    mean = np.tile(base, (len(kinds), 1))
    for kind, listed in TYPE_GENES.items():
        at = [i for i, name in enumerate(names) if name in listed]
        mean[np.ix_(kinds != kind, at)] = 0.02
        mean[np.ix_(kinds == kind, at)] = 8.0
        # each type also has plain genes of its own, a sixth of them
        own = [i for i, name in enumerate(names) if name.startswith("GENE") and int(name[4:]) % 6 == TYPES.index(kind)]
        mean[np.ix_(kinds == kind, own)] *= 5.0
    moved = [i for i, name in enumerate(names) if name.startswith("GENE") and int(name[4:]) % 3 == 0]
    mean[:, moved] *= np.exp(rng.normal(0, shift, len(moved)))
    return rng.poisson(mean * depth / 3)


def sample(
    name: str,
    n_cells: int,
    seed: int,
    *,
    patient: str | None = None,
    phase: str = "PRE",
    batch: str = "none",
    n_plain: int = 300,
    shift: float = 0.5,
    verdict: str = "ok",
    reason: str = "",
    without: tuple[str, ...] = (),
) -> anndata.AnnData:
    """A filtered sample as FILTER_CELLS writes it; `obs['kind']` is the truth."""
    rng = np.random.default_rng(seed)
    names = genes(n_plain)
    kinds = np.array(TYPES)[np.arange(n_cells) % len(TYPES)]
    matrix = counts(names, kinds, rng, shift)
    keep = [i for i, gene in enumerate(names) if gene not in without]
    cells = [f"{name}:C{i:05d}" for i in range(n_cells)]
    obs = pd.DataFrame({"sample": name, "patient": patient or name, "phase": phase, "batch": batch, "kind": kinds}, index=cells)
    var = pd.DataFrame(
        {"gene_id": "", "chromosome": "1", "start": 0, "end": 1, "mt": [names[i].startswith("MT-") for i in keep]},
        index=[names[i] for i in keep],
    )
    made = anndata.AnnData(obs=obs, var=var, layers={"counts": sparse.csr_matrix(matrix[:, keep].astype(np.int32))})
    made.uns["scresist"] = {"filter": {"verdict": verdict, "reason": reason}}
    return made


def write_samples(folder: Path, samples: list[anndata.AnnData], names: list[str]) -> list[Path]:
    """`<sample>.filtered.h5ad` of each sample; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.filtered.h5ad" for name in names]
    for path, made in zip(paths, samples, strict=True):
        made.write_h5ad(path)
    return paths


def merged(samples: list[anndata.AnnData], n_hvg: int = 150) -> anndata.AnnData:
    """A cohort as MERGE_COHORT writes it, made without its code: X by numpy, the most variable genes by variance."""
    joined = anndata.concat(samples, join="inner", merge="same")
    matrix = joined.layers["counts"].toarray().astype(float)
    total = matrix.sum(axis=1, keepdims=True)
    x = np.log1p(matrix / np.where(total > 0, total, 1) * 1e4)
    joined.X = sparse.csr_matrix(x.astype(np.float32))
    joined.layers["counts"] = sparse.csr_matrix(joined.layers["counts"])
    chosen = np.argsort(-x.var(axis=0), kind="stable")[:n_hvg]
    joined.var["highly_variable"] = np.isin(np.arange(joined.n_vars), chosen)
    for column in ("sample", "patient", "phase", "batch"):
        joined.obs[column] = pd.Categorical(joined.obs[column].astype(str))
    joined.uns["scresist"] = {"merge_cohort": {"version": "0", "parameters": "{}", "seed": "1"}}
    return joined


def two_samples(n_cells: int = 60, shift: float = 0.8) -> anndata.AnnData:
    """A merged cohort of two samples of two patients with a batch effect."""
    return merged([sample("A", n_cells, 1, shift=shift), sample("B", n_cells, 2, phase="POST", shift=shift)])
