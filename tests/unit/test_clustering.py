"""Clusters against hand-worked cases, scipy and published figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from scresist import clustering


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """90 + 60 + 30 points in three groups far apart, shuffled."""
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat([0, 1, 2], [90, 60, 30]))
    return rng.normal(size=(180, 5)) + 20 * np.eye(3, 5)[truth], truth


def test_names_by_size_then_first_member():
    # b has three members; a and c two each, and c comes first
    assert clustering.ordered(np.array(["c", "b", "a", "b", "a", "b", "c"])).tolist() == ["1", "0", "2", "0", "2", "0", "1"]


def test_names_do_not_depend_on_the_old_ones():
    labels = np.array([3, 1, 1, 2, 2, 3, 3])
    renamed = np.array([0, 7, 7, 5, 5, 0, 0])
    assert clustering.ordered(labels).tolist() == clustering.ordered(renamed).tolist()


def test_groups_far_apart_are_found_whole(blobs):
    values, truth = blobs
    labels = clustering.leiden(clustering.neighbour_graph(values, 15, 1), 0.05, 1)
    assert [int((labels == name).sum()) for name in ("0", "1", "2")] == [90, 60, 30]
    assert all(len(set(truth[labels == name])) == 1 for name in ("0", "1", "2"))


def test_neighbours_are_exact(blobs):
    values, _ = blobs
    graph = clustering.neighbour_graph(values, 4, 1)
    distance = np.linalg.norm(values[:, None] - values[None], axis=2)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, 1:4]  # k counts the cell itself
    expected = np.zeros(distance.shape, dtype=bool)
    np.put_along_axis(expected, nearest, True, axis=1)
    assert np.array_equal(graph.toarray() > 0, expected | expected.T)


def test_one_seed_repeats_and_cells_in_another_order_keep_their_groups(blobs):
    values, _ = blobs
    graph = clustering.neighbour_graph(values, 15, 1)
    first, second = clustering.leiden(graph, 1.0, 3), clustering.leiden(graph, 1.0, 3)
    assert first.tolist() == second.tolist()
    order = np.random.default_rng(1).permutation(len(values))
    moved = clustering.leiden(clustering.neighbour_graph(values[order], 15, 1), 0.05, 1)
    here = clustering.leiden(graph, 0.05, 1)[order]
    assert (pd.crosstab(moved, here).to_numpy() > 0).sum() == 3


def test_jaccard_by_hand():
    full = np.array(["0", "0", "0", "0", "1", "1", "2"])
    rows = np.array([0, 1, 2, 4, 5])
    part = np.array(["0", "0", "1", "1", "1"])
    # cluster 0: {0,1,2} against {0,1} = 2/3; cluster 1: {4,5} against {2,4,5} = 2/3; cluster 2 was not drawn
    found = clustering.jaccard_stability(full, part, rows)
    assert found["0"] == pytest.approx(2 / 3)
    assert found["1"] == pytest.approx(2 / 3)
    assert np.isnan(found["2"])


def test_stability_tells_groups_from_noise(blobs):
    values, _ = blobs
    graph = clustering.neighbour_graph(values, 15, 1)
    ari, jaccard = clustering.stability(graph, clustering.leiden(graph, 0.05, 1), 0.05, 1)
    assert ari == pytest.approx(1.0)
    assert jaccard == pytest.approx({"0": 1.0, "1": 1.0, "2": 1.0})
    noise = clustering.neighbour_graph(np.random.default_rng(2).normal(size=(180, 5)), 15, 1)
    ari, jaccard = clustering.stability(noise, clustering.leiden(noise, 1.5, 1), 1.5, 1)
    assert ari < 0.7
    assert min(jaccard.values()) < 0.7


def test_markers_against_scipy():
    rng = np.random.default_rng(4)
    counts = rng.poisson(1.0, size=(70, 6)).astype(float)
    cluster = np.array(["0"] * 40 + ["1"] * 30)
    counts[cluster == "0", 2] += 2
    counts[:, 5] = 0  # never expressed
    x = np.log1p(counts)
    genes = pd.Index([f"G{i}" for i in range(6)])
    table = clustering.cluster_markers(sparse.csr_matrix(x.astype(np.float32)), genes, cluster, 50, 1)
    assert table.loc[table["cluster"] == "0", "gene"].iloc[0] == "G2"
    assert "G5" not in set(table["gene"])
    assert set(table["evidence"]) == {"cell_level"}
    for row in table.itertuples():
        column, inside = genes.get_loc(row.gene), cluster == row.cluster
        expected = stats.mannwhitneyu(x[inside, column], x[~inside, column], method="asymptotic", use_continuity=True)
        assert row.p_value == pytest.approx(expected.pvalue, rel=1e-4)
        mean_in, mean_out = counts[inside, column].mean(), counts[~inside, column].mean()
        assert row.log2_fc == pytest.approx(np.log2((mean_in + 1) / (mean_out + 1)), rel=1e-4)
        assert row.pct_in == pytest.approx(100 * (counts[inside, column] > 0).mean())
        assert row.pct_out == pytest.approx(100 * (counts[~inside, column] > 0).mean())
    # BH over all six genes of a cluster, not over the rows that are kept
    own = table[table["cluster"] == "0"].set_index("gene")
    p = [stats.mannwhitneyu(x[:40, i], x[40:, i], method="asymptotic").pvalue if i < 5 else 1.0 for i in range(6)]
    assert own.loc["G2", "p_adjusted"] == pytest.approx(stats.false_discovery_control(p)[2], rel=1e-3)


def test_one_cluster_has_no_markers():
    assert clustering.cluster_markers(sparse.csr_matrix((5, 2)), pd.Index(["A", "B"]), np.repeat("0", 5), 50, 1).empty


def test_markers_keep_the_best():
    rng = np.random.default_rng(5)
    x = sparse.csr_matrix(np.log1p(rng.poisson(1.0, size=(60, 80))).astype(np.float32))
    cluster = np.array(["0"] * 30 + ["1"] * 30)
    genes = pd.Index([f"G{i:02d}" for i in range(80)])
    every, few = (clustering.cluster_markers(x, genes, cluster, n, 1) for n in (80, 3))
    assert few.groupby("cluster").size().tolist() == [3, 3]
    best = every.groupby("cluster")["p_value"].nsmallest(3).groupby("cluster").max()
    assert (few.groupby("cluster")["p_value"].max() == best).all()


@pytest.mark.real
def test_pbmc3k_clusters(shared_data, tmp_path):
    """7 clusters at 0.4 to 0.5, 9 at 0.8 to 0.9, one of 345 B cells in each (methods.md, section 8)."""
    from scresist import io
    from tests.data import real_cohorts

    merged = real_cohorts.prepare(real_cohorts.pbmc3k(shared_data), tmp_path)
    assert merged.n_obs == 2638
    values = io.read_fragment(tmp_path / "embedding.parquet").loc[merged.obs_names].to_numpy(dtype=np.float32)
    graph = clustering.neighbour_graph(values, 15, 1)
    cd79a = np.asarray(merged[:, "CD79A"].X.todense()).ravel() > 0
    for resolution, n_clusters in ((0.4, 7), (0.5, 7), (0.8, 9), (0.9, 9)):
        found = [clustering.leiden(graph, resolution, seed) for seed in (1, 2, 3)]
        assert np.median([len(set(labels)) for labels in found]) == n_clusters, resolution
        for labels in found:
            b_cluster = pd.Series(cd79a).groupby(labels).mean().idxmax()
            assert abs((labels == b_cluster).sum() - 345) <= 8  # seen: 342 to 351 over eight seeds
