"""Neighbour graph and communities: against the words of the paper, umap itself and cliques."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import brentq
from scipy.spatial.distance import cdist

from scresist import neighbours


def plain_weights(values: np.ndarray, k: int) -> np.ndarray:
    """UMAP's connectivities by the words of the paper: one root search per cell, dense matrices."""
    d = cdist(values, values)
    n = len(values)
    one_way = np.zeros((n, n))
    for i in range(n):
        near = np.argsort(d[i])[:k]
        others = near[1:]
        rho = d[i, others].min()

        def excess(sigma, i=i, others=others, rho=rho):
            return np.exp(-np.maximum(d[i, others] - rho, 0) / sigma).sum() - np.log2(k)

        sigma = brentq(excess, 1e-6, 1e6, xtol=1e-14)
        one_way[i, others] = np.exp(-np.maximum(d[i, others] - rho, 0) / sigma)
    return one_way + one_way.T - one_way * one_way.T


def test_neighbour_weights_are_those_of_the_paper():
    values = np.random.default_rng(0).normal(size=(60, 5))
    graph = neighbours.neighbour_weights(values, 15)
    assert np.abs(graph.toarray() - plain_weights(values, 15)).max() < 1e-6
    assert (graph != graph.T).nnz == 0
    assert graph.diagonal().max() == 0


@pytest.mark.slow
def test_neighbour_weights_are_those_of_umap():
    from scresist import clustering

    values = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float32)
    ours, theirs = neighbours.neighbour_weights(values, 15), clustering.neighbour_graph(values, 15, 0)
    assert np.abs(ours - theirs).max() < 1e-3  # umap stops its bisection at 1e-5 and computes in float32


def test_neighbour_weights_of_equal_cells():
    graph = neighbours.neighbour_weights(np.zeros((25, 3)), 15)
    assert np.isfinite(graph.data).all()
    assert graph.data.min() > 0


def test_communities_of_two_cliques_and_their_names():
    block = np.ones((8, 8)) - np.eye(8)
    graph = sparse.csr_matrix(sparse.block_diag([block[:5, :5], block]))
    labels = neighbours.communities(graph, 1.0, 3)
    assert labels.tolist() == [1] * 5 + [0] * 8  # the larger one is 0
    assert neighbours.communities(graph, 1.0, 3).tolist() == labels.tolist()


def test_by_size():
    assert neighbours.by_size(np.array([7, 3, 3, 7, 1])).tolist() == [0, 1, 1, 0, 2]  # equal sizes: the first cell decides
