"""Copy-number profiles at the size of the study, against infercnvpy, in one run: `python tests/bench_cnv.py [cells] [genes]`.

Each engine runs in a process of its own on the same file, so that its peak of resident memory is its own. Seconds leave out
reading the file; ours include the compilation kept by numba where it has been kept before (one small call warms both up).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import bench_engines

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bin"))
N_CELLS, N_GENES = 91_770, 18_774  # of the study after quality control
REFERENCE_SHARE = 0.5
N_GROUPS = 4
THREADS = 2


def simulate(folder: Path, n_cells: int, n_genes: int) -> None:
    """Sparse counts with about 9 % of values above zero, four reference types and tumour cells with four shifted arms."""
    import numpy as np
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(1)
    rate = np.sort(rng.gamma(0.35, 0.5, n_genes))[::-1].copy()
    rng.shuffle(rate)
    chromosome = np.sort(rng.integers(1, 23, n_genes))
    group = np.where(rng.random(n_cells) < REFERENCE_SHARE, rng.integers(0, N_GROUPS, n_cells), N_GROUPS)
    programs = rate * np.exp(np.where(rng.random((N_GROUPS + 1, n_genes)) < 0.1, rng.normal(0, 1, (N_GROUPS + 1, n_genes)), 0))
    programs[N_GROUPS] *= np.exp(0.35 * np.isin(chromosome, [1, 8]) - 0.5 * np.isin(chromosome, [5, 14]))
    cumulative = np.cumsum(programs, axis=1) / programs.sum(axis=1, keepdims=True)
    depth = (2000 * np.exp(rng.normal(0, 0.4, n_cells))).astype(int)
    blocks = []
    for at in range(0, n_cells, 2000):
        part = slice(at, min(at + 2000, n_cells))
        rows = np.repeat(np.arange(part.stop - part.start), depth[part])
        columns = np.empty(len(rows), dtype=np.int64)
        draws = rng.random(len(rows))
        for which in range(N_GROUPS + 1):
            mine = group[part][rows] == which
            columns[mine] = np.searchsorted(cumulative[which], draws[mine])
        shape = (part.stop - part.start, n_genes)
        block = sparse.coo_matrix((np.ones(len(rows), dtype=np.int32), (rows, np.minimum(columns, n_genes - 1))), shape=shape)
        blocks.append(block.tocsr())
    counts = sparse.vstack(blocks, format="csr", dtype=np.int32)
    np.savez(folder / "counts.npz", data=counts.data, indices=counts.indices, indptr=counts.indptr, shape=counts.shape)
    pd.DataFrame({"chromosome": chromosome, "start": np.arange(n_genes) * 1000}).to_parquet(folder / "genes.parquet")
    np.save(folder / "group.npy", group)


def load(folder: Path):
    """Counts, genes and groups as simulated."""
    import numpy as np
    import pandas as pd
    from scipy import sparse

    with np.load(folder / "counts.npz") as given:
        counts = sparse.csr_matrix((given["data"], given["indices"], given["indptr"]), shape=tuple(given["shape"]))
    return counts, pd.read_parquet(folder / "genes.parquet"), np.load(folder / "group.npy")


def ours(folder: Path) -> float:
    """Seconds of the kernel, from counts to profiles and scores; the scores are kept for the comparison."""
    import numpy as np
    import pandas as pd

    from scresist import cnv

    counts, genes, group = load(folder)
    names = np.array([f"G{at:05d}" for at in range(len(genes))])
    halves = (("p", 0, 8_000_000), ("q", 8_000_001, 10**9))
    table = [(str(at), *half) for at in range(1, 23) for half in halves]
    arms = pd.DataFrame(table, columns=["chromosome", "arm", "start", "end"])

    def run(counts, group):
        mean = cnv.sums(counts)[1] / counts.shape[0]
        genome = cnv.choose_genes(mean, genes["chromosome"].astype(str), genes["start"], names, 0.1)
        kernel = cnv.Kernel(counts, genome, threads=THREADS)
        bounds = kernel.bounds([np.flatnonzero(group == which) for which in range(N_GROUPS)])
        return genome, kernel.profiles(np.arange(counts.shape[0]), bounds, cnv.regions(genome, arms, 10))

    run(counts[:2000], group[:2000])
    start = time.perf_counter()
    genome, made = run(counts, group)
    seconds = time.perf_counter() - start
    np.save(folder / "ours.npy", made.score_mean)
    filled = counts.nnz / counts.shape[0] / counts.shape[1]
    print(f"{genome.n} genes kept, {filled:.1%} of the values above zero", file=sys.stderr)
    return seconds


def stock(folder: Path) -> float:
    """Seconds of infercnvpy with its defaults (no noise filter, whose result depends on chunks) on ln CP10k of all genes."""
    import anndata
    import infercnvpy
    import numpy as np
    import pandas as pd

    from scresist.normalise import log1p_cp10k

    counts, genes, group = load(folder)
    x = log1p_cp10k(counts)
    del counts
    obs = pd.DataFrame({"group": group.astype(str)}, index=[str(at) for at in range(len(group))])
    var = genes.assign(chromosome="chr" + genes["chromosome"].astype(str), end=genes["start"] + 500)
    var.index = [f"G{at:05d}" for at in range(len(var))]
    holder = anndata.AnnData(x, obs=obs, var=var)
    start = time.perf_counter()
    normal = [str(which) for which in range(N_GROUPS)]
    infercnvpy.tl.infercnv(holder, reference_key="group", reference_cat=normal, dynamic_threshold=None, n_jobs=THREADS)
    seconds = time.perf_counter() - start
    values = holder.obsm["X_cnv"]
    np.save(folder / "stock.npy", np.asarray(values.multiply(values).mean(axis=1)).ravel())
    return seconds


def rows(n_cells: int = N_CELLS, n_genes: int = N_GENES) -> list[dict]:
    """The lines of the bench: `what, ours_s, stock_s, ratio, floor, note`."""
    import numpy as np
    from scipy.stats import spearmanr

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        simulate(folder, n_cells, n_genes)
        mine, other = (bench_engines.measure(__file__, engine, folder, THREADS) for engine in ("ours", "stock"))
        rho = float(spearmanr(np.load(folder / "ours.npy"), np.load(folder / "stock.npy")).statistic)
    note = (
        f"{n_cells:,} cells x {n_genes:,} genes, {THREADS} threads; peak memory {mine['gib']:.2f} against {other['gib']:.2f} GiB "
        f"(floor 4.00); rank correlation of scores {rho:.3f}"
    )
    return [
        {
            "what": "copy-number profiles, against infercnvpy",
            "ours_s": mine["seconds"],
            "stock_s": other["seconds"],
            "ratio": other["seconds"] / mine["seconds"],
            "floor": 10,
            "note": note,
        }
    ]


if __name__ == "__main__":
    sys.exit(bench_engines.main(rows, {"ours": ours, "stock": stock}))
