"""CellChat's probabilities with permutations against liana's cellchat, in one run: `python tests/bench_communication.py [cells]`.

Each engine runs in a process of its own on the same file, so that its peak of resident memory is its own. Seconds leave out
reading the file; ours include the compilation kept by numba where it has been kept before (one small call warms it up).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import bench_engines

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bin"))
N_CELLS, N_TYPES, N_PAIRS, N_PERMS = 30_000, 30, 2_000, 100
N_GENES = 600  # ligands and receptors, half and half
COMPLEX_SHARE = 0.25  # receptors of two subunits, as in liana's consensus resource
ON_SHARE = 0.2  # types that express a gene
THREADS = 1
EXPR_PROP = 0.1  # liana's default; ours scores all pairs


def simulate(folder: Path, n_cells: int) -> None:
    """log1p of counts per 10,000, types and pairs: each gene is expressed by a fifth of the types and hardly by the others."""
    import numpy as np
    import pandas as pd
    from scipy import sparse

    from scresist.normalise import log1p_cp10k

    rng = np.random.default_rng(1)
    types = rng.integers(0, N_TYPES, n_cells)
    rate = rng.gamma(0.5, 0.1, (N_TYPES, N_GENES))
    rate = np.where(rng.random(rate.shape) < ON_SHARE, rng.gamma(2, 0.8, rate.shape), rate)
    rest = 2000  # counts of all other genes of a cell
    blocks = []
    for at in range(0, n_cells, 2000):
        depth = np.exp(rng.normal(0, 0.4, (min(2000, n_cells - at), 1)))
        counts = rng.poisson(rate[types[at : at + 2000]] * depth).astype(np.int32)
        blocks.append(sparse.csr_matrix(np.hstack([counts, rng.poisson(rest * depth)])))
    x = log1p_cp10k(sparse.vstack(blocks, format="csr"))[:, :N_GENES].tocsr()
    sparse.save_npz(folder / "x.npz", x)
    np.save(folder / "types.npy", types)
    names = [f"G{at:04d}" for at in range(N_GENES)]
    half, pairs = N_GENES // 2, {}
    while len(pairs) < N_PAIRS:
        two = 2 if rng.random() < COMPLEX_SHARE else 1
        receptor = "_".join(sorted(str(name) for name in rng.choice(names[half:], two, replace=False)))
        pairs[(names[rng.integers(half)], receptor)] = None
    pd.DataFrame(list(pairs), columns=["ligand", "receptor"]).to_csv(folder / "pairs.tsv", sep="\t", index=False)


def load(folder: Path):
    """Values, type of each cell and pairs as simulated."""
    import numpy as np
    import pandas as pd
    from scipy import sparse

    return sparse.load_npz(folder / "x.npz"), np.load(folder / "types.npy"), pd.read_csv(folder / "pairs.tsv", sep="\t")


def ours(folder: Path) -> float:
    """Seconds from values to p values of all pairs and types; single-subunit pairs are kept for the comparison."""
    import numpy as np

    from scresist import communication

    x, types, resource = load(folder)
    table = resource.assign(
        pair=resource["ligand"] + ":" + resource["receptor"],
        pathway="P",
        ligand_genes=resource["ligand"],
        receptor_genes=resource["receptor"].str.replace("_", ","),
    )
    pairs = communication.read_pairs(table, [f"G{at:04d}" for at in range(N_GENES)])
    columns = [int(name[1:]) for name in pairs.genes]

    def run(x, types, n_perms):
        ranked = communication.rank(communication.scale(x[:, columns]))
        prob = communication.probabilities(communication.trimean_by_group(ranked, types, N_TYPES), pairs)
        rng = np.random.default_rng(1)
        return prob, communication.permutation_pvalues(ranked, types, N_TYPES, pairs, prob, n_perms, rng, threads=THREADS)

    run(x[:1000], types[:1000], 2)
    start = time.perf_counter()
    prob, _ = run(x, types, N_PERMS)
    seconds = time.perf_counter() - start
    pair, source, target = np.nonzero(prob > 0)
    names = pairs.table["pair"].to_numpy(dtype=str)
    np.savez(folder / "ours.npz", pair=names[pair], source=source, target=target, prob=prob[pair, source, target])
    print(f"{x.nnz / x.shape[0] / x.shape[1]:.1%} of the values and {len(pair) / prob.size:.1%} of P above zero", file=sys.stderr)
    return seconds


def stock(folder: Path) -> float:
    """Seconds of liana's cellchat with its default share of expressing cells."""
    import warnings

    import anndata
    import liana
    import pandas as pd

    warnings.simplefilter("ignore")
    x, types, resource = load(folder)
    obs = pd.DataFrame({"type": pd.Categorical(types.astype(str))}, index=[str(at) for at in range(len(types))])
    holder = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"G{at:04d}" for at in range(N_GENES)]))
    start = time.perf_counter()
    found = liana.mt.cellchat(
        holder, groupby="type", resource=resource, expr_prop=EXPR_PROP, min_cells=5, use_raw=False, n_perms=N_PERMS, seed=1,
        n_jobs=THREADS, verbose=False, inplace=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    found.to_parquet(folder / "stock.parquet")
    return seconds


def agreement(folder: Path) -> tuple[int, float]:
    """Rows of single-subunit pairs that liana reports with P above zero, and the largest difference to ours."""
    import numpy as np
    import pandas as pd

    with np.load(folder / "ours.npz") as given:
        mine = pd.DataFrame({name: given[name] for name in given.files})
    other = pd.read_parquet(folder / "stock.parquet")
    other = other[~other["receptor_complex"].str.contains("_") & (other["lr_probs"] > 0)]
    other = pd.DataFrame(
        {
            "pair": other["ligand_complex"] + ":" + other["receptor_complex"],
            "source": other["source"].astype(int),
            "target": other["target"].astype(int),
            "lr_probs": other["lr_probs"].astype(float),
        }
    )
    both = other.merge(mine, on=["pair", "source", "target"], how="left")
    return len(both), float((both["prob"].fillna(0) - both["lr_probs"]).abs().max())


def rows(n_cells: int = N_CELLS) -> list[dict]:
    """The lines of the bench: `what, ours_s, stock_s, ratio, floor, note`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        simulate(folder, n_cells)
        mine, other = (bench_engines.measure(__file__, engine, folder, THREADS) for engine in ("ours", "stock"))
        n, difference = agreement(folder)
    note = (
        f"{n_cells:,} cells, {N_TYPES} types, {N_PAIRS:,} pairs, {N_PERMS} permutations, {THREADS} thread; peak memory "
        f"{mine['gib']:.2f} against {other['gib']:.2f} GiB; {n:,} values of pairs without complexes differ by {difference:.0e}"
    )
    return [
        {
            "what": "communication probabilities, against liana's cellchat",
            "ours_s": mine["seconds"],
            "stock_s": other["seconds"],
            "ratio": other["seconds"] / mine["seconds"],
            "floor": 5,
            "note": note,
        }
    ]


if __name__ == "__main__":
    sys.exit(bench_engines.main(rows, {"ours": ours, "stock": stock}))
