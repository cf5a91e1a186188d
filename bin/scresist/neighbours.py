"""Exact nearest neighbours and communities of a few thousand cells, without the packages whose start takes longer than the work.

For profiles of one patient (copy number). The cohort, with many more cells, has clustering.py.
"""

from __future__ import annotations

import random

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

N_NEIGHBOURS = 15  # of the graph that Leiden divides; it is made of the same 20 components as CALL_MALIGNANT's


def neighbour_weights(values: np.ndarray, k: int = N_NEIGHBOURS) -> sparse.csr_matrix:
    """Fuzzy neighbour graph of the k exact nearest neighbours (the cell itself counts as one), cells x cells, symmetric.

    UMAP's connectivities (McInnes 2018, algorithms 2 and 3): weight exp(-(d - rho)/sigma), rho the distance of the nearest
    neighbour apart from the cell, sigma such that the weights of a cell sum to log2 k, then a + b - ab for both directions.
    Written out here because importing and compiling umap takes longer than the step.
    """
    n = len(values)
    k = min(k, n)
    distance, index = cKDTree(values).query(values, k=k)
    distance, index = distance.reshape(n, k), index.reshape(n, k)
    own = index == np.arange(n)[:, None]
    positive = np.where(distance > 0, distance, np.inf)
    rho = positive.min(axis=1)
    rho = np.where(np.isfinite(rho), rho, 0.0)
    beyond = np.maximum(distance - rho[:, None], 0.0)
    target = np.log2(k)
    low, high, sigma = np.zeros(n), np.full(n, np.inf), np.ones(n)
    for _ in range(64):
        total = np.exp(-beyond[:, 1:] / sigma[:, None]).sum(axis=1)
        above = total > target
        high = np.where(above, sigma, high)
        low = np.where(above, low, sigma)
        sigma = np.where(np.isinf(high), sigma * 2, (low + high) / 2)
    sigma = np.maximum(sigma, 1e-3 * np.where(rho > 0, distance.mean(axis=1), distance.mean()))
    sigma = np.where(sigma > 0, sigma, 1.0)
    weight = np.where(own, 0.0, np.exp(-beyond / sigma[:, None]))
    rows = np.repeat(np.arange(n), k)
    one_way = sparse.csr_matrix((weight.ravel(), (rows, index.ravel())), shape=(n, n))
    other = one_way.T.tocsr()
    graph = one_way + other - one_way.multiply(other)
    graph.eliminate_zeros()
    return sparse.csr_matrix(graph)


def communities(graph: sparse.csr_matrix, resolution: float, seed: int) -> np.ndarray:
    """Leiden communities by modularity (Traag 2019; igraph, two iterations), 0, 1, ... by size, then by their first cell."""
    import igraph  # only where communities are sought

    upper = sparse.triu(graph, k=1).tocoo()
    net = igraph.Graph(n=graph.shape[0], edges=np.column_stack([upper.row, upper.col]))
    igraph.set_random_number_generator(random.Random(seed))
    try:
        found = net.community_leiden(
            objective_function="modularity", weights=upper.data.tolist(), resolution=resolution, n_iterations=2
        )
    finally:
        igraph.set_random_number_generator(random)
    return by_size(np.asarray(found.membership))


def by_size(labels: np.ndarray) -> np.ndarray:
    """Labels as integers 0, 1, ... by falling size, ties by the first cell that carries them."""
    names, first, size = np.unique(labels, return_index=True, return_counts=True)
    place = {names[i]: rank for rank, i in enumerate(np.lexsort((first, -size)))}
    return np.array([place[label] for label in labels], dtype=int)
