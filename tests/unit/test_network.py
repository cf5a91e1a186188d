"""Network: similarity, scale-free fit, topological overlap and tree against hand-worked and plain computations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.cluster.hierarchy import leaves_list, linkage

from scresist import network


@pytest.fixture
def values():
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(80, 3))
    return rng.normal(size=(80, 60)) + factor @ rng.normal(size=(3, 60))


def test_similarity_is_half_of_one_plus_pearson(values):
    s = network.similarity(values)
    assert s == pytest.approx((1 + np.corrcoef(values.T)) / 2, abs=1e-12)
    assert (s == s.T).all()
    assert (np.diag(s) == 1).all()


def test_constant_columns_are_refused(values):
    values[:, 4] = 7
    with pytest.raises(ValueError, match="1 columns are constant"):
        network.similarity(values)


def test_topological_overlap_of_four_genes_by_hand():
    a = np.array([[0, 0.5, 0.2, 0], [0.5, 0, 0.4, 0.1], [0.2, 0.4, 0, 0.3], [0, 0.1, 0.3, 0]])
    # k = 0.7, 1.0, 0.9, 0.4. Genes 1, 2: shared 0.2 * 0.4 = 0.08; (0.08 + 0.5) / (0.7 + 1 - 0.5)
    expected = np.array(
        [
            [1, 0.58 / 1.2, 0.40 / 1.5, 0.11 / 1.4],
            [0.58 / 1.2, 1, 0.53 / 1.5, 0.22 / 1.3],
            [0.40 / 1.5, 0.53 / 1.5, 1, 0.34 / 1.1],
            [0.11 / 1.4, 0.22 / 1.3, 0.34 / 1.1, 1],
        ]
    )
    assert network.topological_overlap(a) == pytest.approx(expected, abs=1e-12)


def test_topological_overlap_equals_the_plain_loop(values):
    a = network.adjacency(network.similarity(values), 4)
    n, k = len(a), a.sum(axis=1)
    plain = np.eye(n)
    for i in range(n):
        for j in range(n):
            if i != j:
                shared = sum(a[i, u] * a[u, j] for u in range(n))
                plain[i, j] = (shared + a[i, j]) / (min(k[i], k[j]) + 1 - a[i, j])
    assert network.topological_overlap(a) == pytest.approx(plain, abs=1e-12)


def plain_fit(k):
    """WGCNA's scaleFreeFitIndex with pandas' cut, which follows R's in closing bins on the right."""
    low, high = k.min(), k.max()
    edges = np.linspace(low, high, 11)
    middle = (edges[:-1] + edges[1:]) / 2
    edges[0] -= (high - low) / 1000
    edges[-1] += (high - low) / 1000
    groups = pd.Series(k).groupby(pd.cut(k, edges, right=True, labels=False))
    mean = groups.mean().reindex(range(10)).to_numpy()
    share = groups.size().reindex(range(10)).fillna(0).to_numpy() / len(k)
    mean = np.where(np.isnan(mean) | (mean == 0), middle, mean)
    line = stats.linregress(np.log10(mean), np.log10(share + 1e-9))
    return line.rvalue**2, line.slope


def test_soft_threshold_equals_a_plain_implementation(values):
    s = network.similarity(values)
    table = network.soft_threshold(s)
    assert table["power"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30]
    for row in table.itertuples():
        k = (s**row.power).sum(axis=1) - 1
        r2, slope = plain_fit(k)
        assert (row.r2, row.slope) == pytest.approx((r2, slope), rel=1e-8)
        assert row.signed_r2 == pytest.approx(-np.sign(slope) * r2)
        assert (row.mean_k, row.median_k) == pytest.approx((k.mean(), np.median(k)))


def test_soft_threshold_in_blocks(values):
    rng = np.random.default_rng(2)
    s = network.similarity(rng.normal(size=(30, 700)))  # more than one block
    table = network.soft_threshold(s, (3, 1))
    assert table["mean_k"].tolist() == pytest.approx([((s**p).sum(axis=1) - 1).mean() for p in (1, 3)])


def test_empty_bins_stand_at_their_middle():
    k = np.array([1.0, 1.1, 1.2, 1.3, 5.0])
    assert network.scale_free_fit(k) == pytest.approx(plain_fit(k))


def test_equal_connectivities_have_no_fit():
    assert np.isnan(network.scale_free_fit(np.ones(20))).all()


def fits(*signed):
    return pd.DataFrame({"power": [1, 2, 3, 4][: len(signed)], "signed_r2": signed})


@pytest.mark.parametrize(
    ("signed", "wanted", "expected"),
    [
        ((0.1, 0.85, 0.92, 0.99), 0.9, (3, 0.9)),
        ((0.1, 0.85, 0.82, 0.7), 0.9, (2, 0.8)),
        ((-0.95, 0.5, 0.7, np.nan), 0.9, (9, None)),  # a good fit with a positive slope is none
        ((0.1, 0.75, 0.78, 0.7), 0.7, (2, 0.7)),
    ],
)
def test_choice_of_the_power(signed, wanted, expected):
    power = network.choose_power(fits(*signed), wanted, 9)
    assert (power.value, power.fit) == expected


def test_tree_is_average_linkage(values):
    d = 1 - network.topological_overlap(network.adjacency(network.similarity(values), 3))
    np.fill_diagonal(d, 0)
    upper = d[np.triu_indices(len(d), 1)]
    assert network.tree(d) == pytest.approx(linkage(upper, "average"))


def test_leaves_and_lines_of_a_drawing():
    z = linkage(np.random.default_rng(3).normal(size=(30, 2)), "average")
    order, lines = network.leaf_positions(z)
    assert order.tolist() == leaves_list(z).tolist()
    assert lines[:, 4].tolist() == z[:, 2].tolist()
    assert (lines[:, 0] < lines[:, 1]).all()


def test_a_chain_of_many_leaves_needs_no_recursion():
    n = 4000
    nodes = np.r_[0, n + np.arange(n - 2)]
    z = np.column_stack([np.arange(1, n), nodes, np.arange(1, n), np.arange(2, n + 1)]).astype(float)
    order, _ = network.leaf_positions(z)
    assert sorted(order.tolist()) == list(range(n))
