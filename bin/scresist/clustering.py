"""Neighbour graphs, UMAP, Leiden clusters and their stability."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

MIN_CELLS_CLUSTER = 20  # below, there is one cluster (methods.md, CLUSTER_COHORT)
N_SUBSAMPLES = 10  # of the stability
SUBSAMPLE_SHARE = 0.8


def neighbour_graph(values: np.ndarray, k: int, seed: int) -> sparse.csr_matrix:
    """UMAP connectivities of the exact k nearest neighbours (Euclidean), cells x cells, symmetric.

    Exact, because approximate neighbours depend on threads and, with some versions, fail on real data only.
    """
    import anndata
    import scanpy as sc

    holder = anndata.AnnData(np.zeros((len(values), 1), dtype=np.float32))
    holder.obsm["latent"] = np.ascontiguousarray(values)
    k = min(k, len(values) - 1)
    sc.pp.neighbors(holder, n_neighbors=k, use_rep="latent", transformer="sklearn", metric="euclidean", random_state=seed)
    return sparse.csr_matrix(holder.obsp["connectivities"])


def leiden(graph: sparse.csr_matrix, resolution: float, seed: int) -> np.ndarray:
    """Leiden communities (Traag 2019, igraph's implementation, two iterations), numbered by size, then by smallest member.

    Returns strings "0", "1", ...; the numbers are names within one result and never leave it as keys.
    """
    import anndata
    import scanpy as sc

    holder = anndata.AnnData(np.zeros((graph.shape[0], 1), dtype=np.float32))
    sc.tl.leiden(
        holder, resolution=resolution, adjacency=graph, flavor="igraph", n_iterations=2, directed=False, random_state=seed
    )
    return ordered(holder.obs["leiden"].astype(str).to_numpy())


def ordered(labels: np.ndarray) -> np.ndarray:
    """Labels renamed "0", "1", ... by falling size, ties by the first cell that carries them."""
    frame = pd.DataFrame({"label": labels, "at": np.arange(len(labels))})
    table = frame.groupby("label")["at"].agg(["size", "min"])
    order = table.sort_values(["size", "min"], ascending=[False, True]).index
    names = {label: str(number) for number, label in enumerate(order)}
    return np.array([names[label] for label in labels], dtype=object).astype(str)


def umap(graph: sparse.csr_matrix, values: np.ndarray, k: int, min_dist: float, seed: int) -> np.ndarray:
    """UMAP coordinates (McInnes 2018) of a neighbour graph, cells x 2, float32; one thread, because it is seeded."""
    import anndata
    import scanpy as sc

    holder = anndata.AnnData(np.zeros((len(values), 1), dtype=np.float32))
    holder.obsm["latent"] = np.ascontiguousarray(values)
    holder.obsp["connectivities"] = graph
    holder.uns["neighbors"] = {
        "connectivities_key": "connectivities",
        "params": {"n_neighbors": k, "method": "umap", "use_rep": "latent", "metric": "euclidean"},
    }
    sc.tl.umap(holder, min_dist=min_dist, random_state=seed)
    return np.asarray(holder.obsm["X_umap"], dtype=np.float32)


def jaccard_stability(full: np.ndarray, part: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """For each cluster of `full`, the best Jaccard index with a cluster of a subsample (Hennig 2007).

    Parameters
    ----------
    full
        labels of all cells.
    part
        labels of the subsample, in the order of `rows`.
    rows
        indices of the subsample's cells.
    """
    table = pd.crosstab(full[rows], part)
    inter = table.to_numpy()
    union = inter.sum(axis=1, keepdims=True) + inter.sum(axis=0, keepdims=True) - inter
    best = (inter / union).max(axis=1)
    found = dict(zip(table.index, best, strict=True))
    return {name: float(found.get(name, np.nan)) for name in sorted(set(full))}


def stability(graph: sparse.csr_matrix, full: np.ndarray, resolution: float, seed: int) -> tuple[float, dict[str, float]]:
    """Mean adjusted Rand index, and mean best Jaccard index per cluster, of ten 80 % subsamples against all cells.

    A subsample keeps the graph's edges among its cells: what is tested is the partition, not the neighbour search.
    """
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(seed)
    n = len(full)
    aris, jaccards = [], []
    for _ in range(N_SUBSAMPLES):
        rows = np.sort(rng.choice(n, max(2, round(SUBSAMPLE_SHARE * n)), replace=False))
        part = leiden(graph[rows][:, rows], resolution, seed)
        aris.append(adjusted_rand_score(full[rows], part))
        jaccards.append(jaccard_stability(full, part, rows))
    table = pd.DataFrame(jaccards)
    return float(np.mean(aris)), {str(name): float(table[name].mean()) for name in table}


def cluster_markers(x: sparse.csr_matrix, genes: pd.Index, cluster: np.ndarray, n_top: int, threads: int) -> pd.DataFrame:
    """Genes that tell each cluster from all other cells; the cell is the unit here, so p values are cell-level.

    Wilcoxon rank-sum with tie and continuity correction (illico); log2 fold change as Seurat's FindMarkers:
    log2((mean of expm1 inside + 1) / (mean of expm1 outside + 1)); p adjusted by Benjamini-Hochberg within a cluster.

    Parameters
    ----------
    x
        cells x genes, log1p of counts per 10,000.
    n_top
        genes kept per cluster: those with a positive log2 fold change and the smallest p, ties by fold change, then name.

    Returns
    -------
    `cluster, gene, log2_fc, pct_in, pct_out, p_value, p_adjusted, evidence`; empty with fewer than two clusters.
    """
    columns = ["cluster", "gene", "log2_fc", "pct_in", "pct_out", "p_value", "p_adjusted", "evidence"]
    names = sorted(set(cluster), key=int)
    if len(names) < 2:
        return pd.DataFrame(columns=columns)
    import anndata
    from illico import asymptotic_wilcoxon
    from loguru import logger
    from scipy.stats import false_discovery_control

    logger.disable("illico")  # its log would fill stderr, where errors must be seen
    view = anndata.AnnData(x, obs=pd.DataFrame({"cluster": pd.Categorical(cluster)}, index=[str(i) for i in range(len(cluster))]))
    view.var_names = genes
    tested = asymptotic_wilcoxon(
        view, is_log1p=True, group_keys="cluster", n_threads=threads, tie_correct=True, use_continuity=True
    )
    linear = x.copy()
    linear.data = np.expm1(linear.data.astype(np.float64))
    positive = x.copy()
    positive.data = np.ones_like(positive.data, dtype=np.float64)
    total, hits = np.asarray(linear.sum(axis=0)).ravel(), np.asarray(positive.sum(axis=0)).ravel()
    tables = []
    for name in names:
        rows = np.flatnonzero(cluster == name)
        n_in, n_out = len(rows), len(cluster) - len(rows)
        inside, hits_in = np.asarray(linear[rows].sum(axis=0)).ravel(), np.asarray(positive[rows].sum(axis=0)).ravel()
        p = tested.xs(name, level=0)["p_value"].reindex(genes).astype(float).fillna(1.0).clip(1e-300, 1.0).to_numpy()
        table = pd.DataFrame(
            {
                "cluster": name,
                "gene": genes,
                "log2_fc": np.log2((inside / n_in + 1) / ((total - inside) / n_out + 1)),
                "pct_in": 100 * hits_in / n_in,
                "pct_out": 100 * (hits - hits_in) / n_out,
                "p_value": p,
                "p_adjusted": false_discovery_control(p, method="bh"),
                "evidence": "cell_level",
            }
        )
        table = table[table["log2_fc"] > 0]
        tables.append(table.sort_values(["p_value", "log2_fc", "gene"], ascending=[True, False, True]).head(n_top))
    return pd.concat(tables, ignore_index=True)[columns]
