"""Our kernels against stock tools on the same data in the same run, as ratios: `make bench`.

Seconds depend on the machine, ratios hardly do; nothing here passes or fails.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))
warnings.simplefilter("ignore")

import anndata  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from scipy import sparse  # noqa: E402

from scresist import clustering, normalise  # noqa: E402

N_CELLS, N_GENES, N_CLUSTERS = 10_000, 6_000, 10
REPEATS = 3


def seconds(call: Callable[[], object]) -> float:
    """Shortest of three runs after one that is not counted."""
    call()
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


def cohort() -> tuple[sparse.csr_matrix, np.ndarray]:
    """Poisson counts with ten groups of cells, about 8 % of values above zero."""
    rng = np.random.default_rng(1)
    group = rng.integers(0, N_CLUSTERS, N_CELLS)
    rate = rng.gamma(0.15, 0.6, (N_CLUSTERS, N_GENES))
    blocks = [sparse.csr_matrix(rng.poisson(rate[group[i : i + 1000]]).astype(np.float32)) for i in range(0, N_CELLS, 1000)]
    return sparse.vstack(blocks, format="csr"), group.astype(str)


def main() -> int:
    """Print one line per kernel: seconds of both and their ratio."""
    import scanpy as sc

    counts, group = cohort()
    genes = pd.Index([f"G{i:05d}" for i in range(N_GENES)])
    x = normalise.log1p_cp10k(counts)
    view = anndata.AnnData(x.copy(), obs=pd.DataFrame({"g": pd.Categorical(group)}, index=[str(i) for i in range(N_CELLS)]))
    view.var_names = genes
    view.uns["log1p"] = {"base": None}
    raw = anndata.AnnData(counts.copy())
    raw.var["mt"] = False

    def stock_normalise() -> None:
        copy = raw.copy()
        sc.pp.normalize_total(copy, target_sum=1e4)
        sc.pp.log1p(copy)

    pairs = {
        "cluster markers (Wilcoxon, tie-corrected), against scanpy": (
            lambda: clustering.cluster_markers(x, genes, group, 50, 1),
            lambda: sc.tl.rank_genes_groups(view, "g", method="wilcoxon", tie_correct=True),
        ),
        "log1p CP10k, against scanpy": (lambda: normalise.log1p_cp10k(counts), stock_normalise),
    }
    print(f"{N_CELLS} cells x {N_GENES} genes, {counts.nnz / counts.shape[0] / counts.shape[1]:.1%} non-zero, one thread")
    for title, (ours, stock) in pairs.items():
        own, other = seconds(ours), seconds(stock)
        print(f"{title}: {own:.2f} s against {other:.2f} s, {other / own:.1f} times as fast")
    return 0


if __name__ == "__main__":
    sys.exit(main())
