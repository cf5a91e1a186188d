"""Cell-level tests of ten groups at the study's size: ours against scanpy, in one run on the same matrix.

`python tests/bench_expression.py` prints the rows; `rows()` is what the collection of benchmarks calls.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from scipy import sparse  # noqa: E402

from scresist import comparison, expression, pseudobulk  # noqa: E402

N_CELLS, N_GENES, N_GROUPS = 91_770, 18_774, 10
# scanpy ranks genes in blocks, one like the other: its time is taken on every 20th gene and multiplied
STOCK_EVERY = 20
FLOOR = 10.0


def matrix(n_cells: int, n_genes: int, seed: int = 1) -> sparse.csr_matrix:
    """log1p of counts per 10,000 with about 8 % of values above zero and a depth per cell (so that ties are as in real data)."""
    rng = np.random.default_rng(seed)
    scale = (1e4 / rng.lognormal(np.log(4000), 0.5, n_cells)).astype(np.float32)
    density = np.clip(rng.beta(0.25, 2.9, n_genes), 1e-4, 0.98)
    rows, values, ends = [], [], [0]
    for share in density:
        at = np.flatnonzero(rng.random(n_cells, dtype=np.float32) < share).astype(np.int32)
        count = rng.geometric(1 - 0.8 * share, len(at)).astype(np.float32)
        rows.append(at)
        values.append(np.log1p(count * scale[at]))
        ends.append(ends[-1] + len(at))
    by_gene = sparse.csc_matrix((np.concatenate(values), np.concatenate(rows), np.array(ends)), shape=(n_cells, n_genes))
    made = by_gene.tocsr()
    made.sort_indices()
    return made


def ours(x: sparse.csr_matrix, group: np.ndarray) -> dict[str, pd.DataFrame]:
    """p, z, BH, log2FC and shares of every gene in each group against all other cells."""
    tested = expression.rank_sum(x, group)
    n, sums, hits = expression.unit_sums(x, np.unique(group, return_inverse=True)[1], len(tested))
    for at, table in enumerate(tested.values()):
        inside, outside = sums[at] / n[at], (sums.sum(axis=0) - sums[at]) / (n.sum() - n[at])
        table["log2fc"] = expression.log2_fold_change(inside, outside)
        table["pct"] = 100 * hits[at] / n[at]
        table["p_adjusted"] = comparison.adjust(table["p_value"])
    return tested


def seconds(call, *args) -> tuple[float, object]:
    """Wall time of one call and its result."""
    start = time.perf_counter()
    made = call(*args)
    return time.perf_counter() - start, made


def wilcoxon(n_cells: int, n_genes: int, every: int) -> dict[str, object]:
    """One row: ten groups one against the rest."""
    import anndata
    import scanpy as sc

    x = matrix(n_cells, n_genes)
    group = np.random.default_rng(2).integers(0, N_GROUPS, n_cells).astype(str)
    ours(x[:500, :50], group[:500])  # imports and compilation are not counted
    own, tested = seconds(ours, x, group)
    part = x[:, ::every].copy()
    part.sort_indices()
    view = anndata.AnnData(part, obs=pd.DataFrame({"g": pd.Categorical(group)}, index=[str(i) for i in range(n_cells)]))
    view.uns["log1p"] = {"base": None}
    small = view[:500, :50].copy()

    def stock(data):
        sc.tl.rank_genes_groups(data, "g", method="wilcoxon", tie_correct=True)
        return data.uns["rank_genes_groups"]

    stock(small)
    other, found = seconds(stock, view)
    # the same statistic: scanpy has no continuity correction, so z differ by half a rank only
    names = pd.Index(found["names"]["0"]).astype(int)
    z = pd.Series(found["scores"]["0"], index=names).sort_index().to_numpy()
    gap = float(np.abs(z - tested["0"]["z"].to_numpy()[::every]).max())
    note = (
        f"{n_cells:,} x {n_genes:,}, {x.nnz / n_cells / n_genes:.1%} above zero, one thread; scanpy on every {every}th gene"
        f" ({part.shape[1]} genes, {other:.1f} s), scaled; largest difference of z {gap:.2g}"
    )
    scaled = other * n_genes / part.shape[1]
    return {
        "what": "Wilcoxon, 10 groups against the rest, ties corrected, against scanpy", "ours_s": round(own, 2),
        "stock_s": round(scaled, 2), "ratio": round(scaled / own, 1), "floor": FLOOR, "note": note,
    }  # fmt: skip


def deseq(n_genes: int = 2_000) -> dict[str, object]:
    """One row: the fit of one cell type, five pairs of patients."""
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.ds import DeseqStats

    rng = np.random.default_rng(3)
    mean = rng.gamma(0.5, 300, n_genes) + 5
    counts = rng.poisson(rng.gamma(8, 1 / 8, (10, n_genes)) * mean * rng.uniform(0.6, 1.6, (10, 1)))
    is_a, patient = np.arange(10) % 2 == 1, np.array([f"P{i // 2}" for i in range(10)])
    genes = pd.Index([f"g{i}" for i in range(n_genes)])

    def stock():
        design = pseudobulk.design_matrix(is_a, patient)
        design.index = pd.Index([f"u{i}" for i in range(10)])
        frame = pd.DataFrame(counts, index=design.index, columns=genes)
        fitted = DeseqDataSet(counts=frame, metadata=design.copy(), design=design, quiet=True, n_cpus=1)
        fitted.deseq2()
        tested = DeseqStats(fitted, contrast=np.eye(design.shape[1])[-1], quiet=True, n_cpus=1)
        tested.summary()
        return tested.results_df

    pseudobulk.deseq2(counts[:, :200], genes[:200], is_a, patient, 0.05)
    own, table = seconds(pseudobulk.deseq2, counts, genes, is_a, patient, 0.05)
    other, found = seconds(stock)
    gap = np.abs(np.log10(table["p_value"].to_numpy(dtype=float)) - np.log10(found["pvalue"].to_numpy(dtype=float)))
    note = f"{n_genes:,} genes, ~ patient + side, one process; p differs by {np.nanmedian(gap):.1e} decades (median), at most"
    return {
        "what": "pseudobulk of one cell type, five pairs, against PyDESeq2's own loops", "ours_s": round(own, 2),
        "stock_s": round(other, 2), "ratio": round(other / own, 1), "floor": None, "note": f"{note} {np.nanmax(gap):.2g}",
    }  # fmt: skip


def rows() -> list[dict]:
    """All rows: what, ours_s, stock_s, ratio, floor, note."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [wilcoxon(N_CELLS, N_GENES, STOCK_EVERY), deseq()]


if __name__ == "__main__":
    for row in rows():
        print(json.dumps(row))
