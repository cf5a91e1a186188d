"""How well a space mixes batches and keeps types apart, before and after integration."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

PERPLEXITY = 30  # of LISI, as its authors (Korsunsky 2019)
MAX_CELLS = 20_000  # above, silhouette and LISI are taken on a seeded subsample: both grow with the square or with trees
MIN_CELLS_GROUP = 5  # a batch counts within a type from here on
SINGLE_PATIENT = 0.8  # a cluster is one patient's when this share of its cells is (methods.md, INTEGRATE_COHORT)
REQUIRED_SHARE = 0.1  # of a cluster's cells must show a required marker (methods.md, ANNOTATE_CELLS, veto)
UNKNOWN = "unknown"
EPITHELIAL = "Epithelial"  # its name among the coarse types of assets/markers.tsv

# metric -> what is better
METRICS = {
    "silhouette_batch": "nearest_0",
    "ilisi": "higher",
    "clisi": "higher",
    "knn_entropy": "higher",
    "nmi_label": "higher",
    "single_patient_epithelium": "context",
}


def neighbours(values: np.ndarray, k: int) -> np.ndarray:
    """Exact nearest neighbours of each cell, itself left out: cells x min(k, cells - 1), indices."""
    from sklearn.neighbors import NearestNeighbors

    k = min(k, len(values) - 1)
    found = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(values).kneighbors(values, return_distance=False)
    own = found == np.arange(len(values))[:, None]
    own[~own.any(axis=1), -1] = True  # a twin cell may push a cell out of its own list: then drop the farthest
    return found[~own].reshape(len(values), k)


def knn_entropy(batch: np.ndarray, index: np.ndarray | None = None, graph: sparse.csr_matrix | None = None) -> float:
    """Mean over cells of -sum p ln p / ln B, p the shares of the B batches among a cell's neighbours: 0 apart, 1 mixed evenly.

    Parameters
    ----------
    batch
        batch of each cell.
    index, graph
        neighbours as cells x k indices, or as a weighted graph; one of the two.
    """
    codes, names = pd.factorize(batch, sort=True)
    if len(names) < 2:
        return float("nan")
    if graph is not None:
        onehot = sparse.csr_matrix((np.ones(len(codes)), (np.arange(len(codes)), codes)), shape=(len(codes), len(names)))
        shares = np.asarray((sparse.csr_matrix(graph) @ onehot).todense(), dtype=np.float64)
    else:
        shares = np.stack([(codes[index] == code).mean(axis=1) for code in range(len(names))], axis=1)
    total = shares.sum(axis=1, keepdims=True)
    shares = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return float((-(shares * logs).sum(axis=1) / np.log(len(names))).mean())


def silhouette_batch(values: np.ndarray, batch: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Mean silhouette of the batches within each type (Luecken 2022: 0 = batches do not show, 1 = apart).

    Batches of fewer than 5 cells in a type and types with fewer than two batches are left out.
    """
    from sklearn.metrics import silhouette_score

    found = {}
    for name in sorted(set(label)):
        rows = np.flatnonzero(label == name)
        sizes = pd.Series(batch[rows]).value_counts()
        rows = rows[np.isin(batch[rows], sizes.index[sizes >= MIN_CELLS_GROUP])]
        if len(set(batch[rows])) >= 2:
            found[name] = float(silhouette_score(values[rows], batch[rows]))
    return found


def lisi(values: np.ndarray, batch: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """iLISI = (median - 1)/(B - 1) over batches, cLISI = (C - median)/(C - 1) over types; both 0 worst, 1 best.

    LISI of a cell is 1 / sum_b p_b^2 over its neighbours at perplexity 30 (Korsunsky 2019).
    """
    import harmonypy

    frame = pd.DataFrame({"batch": batch, "label": label})
    perplexity = min(PERPLEXITY, (len(values) - 1) // 3)
    median = np.median(harmonypy.compute_lisi(values.astype(np.float64), frame, ["batch", "label"], perplexity), axis=0)
    n_batches, n_labels = frame["batch"].nunique(), frame["label"].nunique()
    ilisi = (median[0] - 1) / (n_batches - 1) if n_batches > 1 else float("nan")
    clisi = (n_labels - median[1]) / (n_labels - 1) if n_labels > 1 else float("nan")
    return float(ilisi), float(clisi)


def single_patient_share(cluster: np.ndarray, patient: np.ndarray, chosen: np.ndarray) -> float:
    """Share of the chosen (epithelial) cells that lie in clusters of which one patient holds at least 80 %.

    Tumour cells differ between patients; where this share vanishes, integration has taken biology away.
    """
    if not chosen.any():
        return float("nan")
    frame = pd.DataFrame({"cluster": cluster, "patient": patient})
    top = frame.groupby("cluster")["patient"].agg(lambda values: values.value_counts(normalize=True).iloc[0])
    own = set(top.index[top >= SINGLE_PATIENT])
    return float(np.isin(cluster[chosen], list(own)).mean())


def provisional_labels(x: sparse.csr_matrix, genes: pd.Index, cluster: np.ndarray, markers: pd.DataFrame) -> np.ndarray:
    """A coarse type per cell, by cluster: the marker group with the highest mean z-score, for measuring only.

    A group can be chosen when one of its required genes (of its markers, where it has none or the data lack them) is found in
    >= 10 % of the cluster's cells; else noise would name a cluster of which the table holds no marker. Clusters without such a
    group are `unknown`.

    Parameters
    ----------
    x
        cells x genes, log1p of counts per 10,000.
    cluster
        cluster of each cell in the space before integration.
    markers
        columns `doublet_group` (the coarse type), `gene`, `role`.
    """
    names = sorted(set(cluster))
    use = markers[markers["role"].isin(["marker", "required"]) & markers["gene"].isin(genes)]
    listed = pd.Index(sorted(set(use["gene"])))
    if len(names) < 2 or listed.empty:
        return np.repeat(UNKNOWN, len(cluster))
    blocks = [x[np.flatnonzero(cluster == name)][:, genes.get_indexer(listed)] for name in names]
    means = np.stack([np.asarray(block.mean(axis=0, dtype=np.float64)).ravel() for block in blocks])
    shares = np.stack([np.asarray((block > 0).mean(axis=0)).ravel() for block in blocks])
    z = pd.DataFrame((means - means.mean(axis=0)) / np.maximum(means.std(axis=0), 1e-9), index=names, columns=listed)
    found = pd.DataFrame(shares >= REQUIRED_SHARE, index=names, columns=listed)
    scores = {}
    for group, rows in use.groupby("doublet_group", sort=True):
        own = sorted(set(rows["gene"]))
        required = sorted(set(rows.loc[rows["role"] == "required", "gene"])) or own
        scores[group] = z[own].mean(axis=1).where(found[required].any(axis=1), -np.inf)
    table = pd.DataFrame(scores, index=names)
    label = table.idxmax(axis=1).where(table.max(axis=1) > -np.inf, UNKNOWN)
    return label.reindex(cluster).to_numpy(dtype=str)


def measure(
    method: str,
    values: np.ndarray,
    *,
    batch: np.ndarray,
    patient: np.ndarray,
    label: np.ndarray,
    cluster: np.ndarray,
    seed: int,
    graph: sparse.csr_matrix | None = None,
    k: int = 15,
) -> pd.DataFrame:
    """All measures of one space: `method, metric, label, value, n_cells, better`.

    Measures that need distances have no value for a graph (bbknn): they are left empty, not computed on its components.
    NMI favours the space before integration a little, because the labels are named after its clusters.

    Parameters
    ----------
    values, graph
        cells x dimensions; the graph where the method makes one instead.
    batch, patient, label, cluster
        of each cell; `label` a coarse type (`provisional_labels`), `cluster` Leiden clusters in this space.
    """
    from sklearn.metrics import normalized_mutual_info_score

    rows = np.arange(len(values))
    if len(rows) > MAX_CELLS:
        rows = np.sort(np.random.default_rng(seed).choice(len(values), MAX_CELLS, replace=False))
    found = []

    def add(metric: str, value: float, name: str = "all", n: int = len(rows)) -> None:
        found.append({"method": method, "metric": metric, "label": name, "value": value, "n_cells": n, "better": METRICS[metric]})

    if graph is None:
        by_type = silhouette_batch(values[rows], batch[rows], label[rows])
        sizes = pd.Series(label[rows]).value_counts()
        weights = np.array([sizes[name] for name in by_type], dtype=float)
        mean = float(np.average(list(by_type.values()), weights=weights)) if by_type else float("nan")
        add("silhouette_batch", mean)
        for name, value in by_type.items():
            add("silhouette_batch", value, name, int(sizes[name]))
        ilisi, clisi = lisi(values[rows], batch[rows], label[rows])
        add("ilisi", ilisi)
        add("clisi", clisi)
        add("knn_entropy", knn_entropy(batch[rows], index=neighbours(values[rows], k)))
    else:
        for metric in ("silhouette_batch", "ilisi", "clisi"):
            add(metric, float("nan"))
        add("knn_entropy", knn_entropy(batch, graph=graph), n=len(batch))
    add("nmi_label", float(normalized_mutual_info_score(label, cluster)), n=len(batch))
    epithelial = label == EPITHELIAL
    add("single_patient_epithelium", single_patient_share(cluster, patient, epithelial), n=int(epithelial.sum()))
    return pd.DataFrame(found)
