"""Call rule and cluster rules by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import doublets


def test_expected_rate():
    assert doublets.expected_rate(0.06, 10) == 0.06
    assert doublets.expected_rate("auto", 5000) == pytest.approx(0.04)
    assert doublets.expected_rate("auto", 10**6) == 0.4
    assert 0 < doublets.expected_rate("auto", 0) < 1


def test_credible_threshold_is_used_strictly():
    scores = np.array([0.1] * 9 + [0.5, 0.3])
    calls, threshold, rule = doublets.call(scores, 0.3, 0.1)
    assert (np.flatnonzero(calls).tolist(), threshold, rule) == ([9], 0.3, "automatic")


@pytest.mark.parametrize("threshold", [None, float("nan"), 0.9, 0.05])
def test_missing_or_absurd_threshold_calls_the_expected_number(threshold):
    scores = np.array([0.1] * 18 + [0.4, 0.5])  # 0.9 calls nobody, 0.05 all: outside [0.25, 4] x 10 %
    calls, lowest, rule = doublets.call(scores, threshold, 0.1)
    assert (np.flatnonzero(calls).tolist(), lowest, rule) == ([18, 19], 0.4, "expected_rate")


def test_ties_follow_the_order_of_cells_and_missing_scores_are_never_called():
    calls, _, _ = doublets.call(np.array([0.2, np.nan, 0.2, 0.2]), None, 0.5)
    assert calls.tolist() == [True, False, True, False]
    calls, lowest, _ = doublets.call(np.full(3, np.nan), None, 0.5)
    assert not calls.any()
    assert np.isnan(lowest)
    assert not doublets.call(np.empty(0), 0.1, 0.5)[0].size


def test_cluster_mean_of_exactly_the_limit_stays():
    scores = np.array([0.7, 0.5, 0.6, 0.1 + 0.2 + 0.3, 0.61, 0.61])  # 0.1 + 0.2 + 0.3 is 0.6000000000000001
    means = doublets.cluster_means(scores, np.array(["1", "1", "2", "3", "4", "4"]))
    np.testing.assert_allclose(means, [0.6, 0.6, 0.6, 0.6, 0.61, 0.61])
    assert doublets.above(means, 0.6).tolist() == [False, False, False, False, True, True]
    assert doublets.above(np.array([np.nan]), 0.6).tolist() == [False]


def test_clusters_are_named_by_size_then_first_member():
    assert doublets.name_clusters(np.array(["7", "3", "3", "9", "9"])).tolist() == ["3", "1", "1", "2", "2"]


MARKERS = pd.DataFrame(
    [
        ("B", "B", "MS4A1", "marker"),
        ("B", "B", "CD79A", "required"),
        ("CD4_T", "T_NK", "CD3D", "required"),
        ("CD8_T", "T_NK", "CD3D", "required"),
        ("CD4_T", "T_NK", "CD3E", "marker"),
        ("CD4_T", "T_NK", "CD8A", "negative"),
        ("NK", "T_NK", "NKG7", "marker"),
        ("DC", "Myeloid", "LYZ", "marker"),
        ("DC", "Myeloid", "SHARED", "marker"),
        ("Mast", "Mast", "SHARED", "marker"),
        ("Mast", "Mast", "KIT", "marker"),
    ],
    columns=["main_type", "doublet_group", "gene", "role"],
)
GENES = pd.Index(["CD3D", "CD3E", "CD79A", "CD8A", "KIT", "LYZ", "MS4A1", "NKG7", "OTHER", "SHARED"])


def test_groups_keep_specific_measured_markers():
    found = {group: [GENES[i] for i in columns] for group, columns in doublets.marker_groups(MARKERS, GENES).items()}
    assert found == {"B": ["CD79A", "MS4A1"], "T_NK": ["CD3D", "CD3E", "NKG7"]}  # Mast and Myeloid have one each


def cells(*rows: dict[str, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.array([[row.get(gene, 0) for gene in GENES] for row in rows]))


def test_two_markers_of_each_group_are_needed():
    counts = cells(
        {"CD3D": 1, "CD3E": 1, "MS4A1": 2, "CD79A": 1},
        {"CD3D": 1, "CD3E": 0, "MS4A1": 2, "CD79A": 1},
        {"CD3D": 1, "NKG7": 5, "CD3E": 1},  # T with NK is no pair
        {"OTHER": 9},
    )
    pairs = doublets.coexpression(counts, doublets.marker_groups(MARKERS, GENES), ambient_share=0)
    assert {pair: found.tolist() for pair, found in pairs.items()} == {"B+T_NK": [True, False, False, False]}
    assert doublets.pair_names(pairs, 4).tolist() == ["B+T_NK", "", "", ""]


def test_a_marker_must_exceed_ambient_rna():
    # gene OTHER: 400 of 1,000 counts; 20 % ambient: 0.2 x 100 x 0.4 = 8 expected; P(X >= 14 | 8) = 0.034, P(X >= 13) = 0.064
    counts = np.zeros((10, len(GENES)), dtype=int)
    counts[:, GENES.get_loc("OTHER")] = [14, 13, 0, 53, 54, 53, 53, 53, 53, 54]
    counts[:, GENES.get_loc("LYZ")] = 100 - counts[:, GENES.get_loc("OTHER")]
    found = doublets.expressed(sparse.csr_matrix(counts), np.array([GENES.get_loc("OTHER")]), 0.2)[:3, 0]
    assert found.tolist() == [True, False, False]
    assert doublets.expressed(sparse.csr_matrix(counts), np.array([GENES.get_loc("OTHER")]), 0)[:3, 0].tolist() == [
        True,
        True,
        False,
    ]


def test_lineage_rule_needs_one_and_the_same_pair():
    pairs = {
        "A+B": np.array([True, False, False, False, True, False, False, False, False]),
        "A+C": np.array([False, False, False, False, False, True, False, False, False]),
    }
    clusters = np.array(["1"] * 4 + ["2"] * 5)
    # cluster 1: 25 % A+B; cluster 2: 20 % of each pair, 40 % together, is not flagged
    assert doublets.lineage_clusters(pairs, clusters, 0.25) == {"1": ("A+B", 0.25)}
    assert doublets.lineage_clusters({}, clusters, 0.25) == {}


def test_lineage_rule_is_not_believed_when_it_takes_too_much():
    assert doublets.lineage_credible(np.array([True] + [False] * 3), 0.01)
    assert not doublets.lineage_credible(np.array([True, True, False, False]), 0.06)
    assert doublets.lineage_credible(np.array([True, True, False, False]), 0.2)
    assert doublets.lineage_credible(np.empty(0, bool), 0.06)


def test_histogram_holds_every_score():
    table = doublets.histogram(np.array([0, 0.02, 0.999, 1.0, np.nan]), np.array([0.5]), n_bins=50)
    assert table["n_observed"].sum() == 4
    assert table.loc[table["n_simulated"] == 1, "bin_low"].tolist() == [0.5]
    assert doublets.histogram(np.empty(0), np.empty(0))["n_observed"].sum() == 0


def test_a_quota_empties_no_cluster_of_one_lineage():
    clusters = np.array(["1"] * 20 + ["2"] * 8 + ["3"] * 8 + [""])
    calls = np.zeros(37, dtype=bool)
    calls[:3] = True  # 3 of 20 cells: no population
    calls[20:26] = True  # 6 of 8, none with a second lineage: a rare type
    calls[28:34] = True  # 6 of 8, three of the called with two lineages: doublets
    pair = np.zeros(37, dtype=bool)
    pair[28:31] = True
    assert doublets.rare_populations(calls, clusters, {"B+T": pair}, 0.25) == {"2": 0.75}
    pair[20:22] = True  # two of six called cells: a third is evidence
    assert doublets.rare_populations(calls, clusters, {"B+T": pair}, 0.25) == {}
    assert doublets.rare_populations(np.zeros(37, dtype=bool), clusters, {}, 0.25) == {}
    # a quarter exactly is enough
    few = np.zeros(37, dtype=bool)
    few[20:22] = True
    assert doublets.rare_populations(few, clusters, {}, 0.25) == {"2": 0.25}
