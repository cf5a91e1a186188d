"""Measures of integration by hand, in closed form, and on mixtures where the answer is known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
import cohorts

from scresist import integration_quality as quality


def blobs(gap_type: float, gap_batch: float, n: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two types and two batches, n cells each; distances between their centres in units of the spread."""
    rng = np.random.default_rng(0)
    label, batch = np.repeat(["t", "u"], 2 * n), np.tile(np.repeat(["a", "b"], n), 2)
    values = rng.normal(size=(4 * n, 3))
    values[:, 0] += gap_type * (label == "u")
    values[:, 1] += gap_batch * (batch == "b")
    return values, batch, label


def test_neighbours_by_hand():
    values = np.array([[0.0], [1.0], [3.0], [7.0]])
    np.testing.assert_array_equal(quality.neighbours(values, 2), [[1, 2], [0, 2], [1, 0], [2, 1]])
    assert quality.neighbours(values, 15).shape == (4, 3)


def test_neighbours_never_hold_the_cell_itself():
    values = np.zeros((6, 2))  # all twins: the search may leave a cell out of its own list
    found = quality.neighbours(values, 3)
    assert found.shape == (6, 3)
    assert (found != np.arange(6)[:, None]).all()


def test_knn_entropy_by_hand():
    batch = np.array(["a", "a", "b", "b"])
    index = np.array([[1, 2], [0, 1], [3, 3], [0, 3]])  # shares of b: 1/2, 0, 1, 1/2
    assert quality.knn_entropy(batch, index=index) == pytest.approx(0.5)  # ln 2 / ln 2 for two cells, 0 for two
    weights = sparse.csr_matrix(np.array([[0, 3, 1, 0], [1, 0, 0, 0], [0, 0, 0, 2], [1, 0, 1, 0.0]]))
    first = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(2)
    assert quality.knn_entropy(batch, graph=weights) == pytest.approx((first + 0 + 0 + 1) / 4)
    assert np.isnan(quality.knn_entropy(np.repeat("a", 4), index=index))


def test_silhouette_batch():
    values, batch, label = blobs(10, 8)
    apart = quality.silhouette_batch(values, batch, label)
    mixed = quality.silhouette_batch(*blobs(10, 0))
    assert set(apart) == {"t", "u"}
    assert min(apart.values()) > 0.6
    assert max(np.abs(list(mixed.values()))) < 0.05
    # all cells of a batch in one point: the silhouette is 1 by definition
    line = np.repeat([0.0, 10.0], 5)[:, None]
    assert quality.silhouette_batch(line, np.repeat(["a", "b"], 5), np.repeat("t", 10)) == {"t": 1.0}


def test_silhouette_leaves_out_what_has_no_answer():
    values, batch, label = blobs(10, 8)
    batch[label == "u"] = "a"  # one batch in this type
    assert set(quality.silhouette_batch(values, batch, label)) == {"t"}
    batch = np.repeat(["a", "b"], [196, 4])  # b: 4 cells
    assert quality.silhouette_batch(values, batch, np.repeat("t", 200)) == {}


def test_lisi_at_its_ends():
    ilisi, clisi = quality.lisi(*blobs(40, 40))
    assert ilisi == pytest.approx(0, abs=0.02)
    assert clisi == pytest.approx(1, abs=0.02)
    ilisi, clisi = quality.lisi(*blobs(0, 0))
    assert ilisi > 0.85
    assert clisi < 0.15
    values, batch, _ = blobs(0, 0)
    ilisi, clisi = quality.lisi(values, np.repeat("a", 200), batch)
    assert np.isnan(ilisi)
    assert np.isfinite(clisi)


def test_single_patient_share_by_hand():
    cluster = np.array(["0"] * 5 + ["1"] * 5)
    patient = np.array(["P", "P", "P", "P", "Q", "P", "P", "P", "Q", "Q"])  # 80 % of cluster 0, 60 % of cluster 1
    chosen = np.array([True, True, False, False, False, True, False, False, False, True])
    assert quality.single_patient_share(cluster, patient, chosen) == 0.5
    assert np.isnan(quality.single_patient_share(cluster, patient, np.zeros(10, dtype=bool)))


@pytest.fixture(scope="module")
def markers(root):
    return pd.read_csv(root / "assets" / "markers.tsv", sep="\t", dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def merged():
    return cohorts.two_samples(90)


def test_provisional_labels_find_planted_types(merged, markers):
    kind = merged.obs["kind"].to_numpy(dtype=str)
    cluster = pd.Series(kind).map({"B": "0", "Epithelial": "1", "T_NK": "2"}).to_numpy(dtype=str)
    np.testing.assert_array_equal(quality.provisional_labels(merged.X, merged.var_names, cluster, markers), kind)
    order = np.random.default_rng(0).permutation(len(kind))
    shuffled = quality.provisional_labels(merged.X[order], merged.var_names, cluster[order], markers)
    np.testing.assert_array_equal(shuffled, kind[order])


def test_provisional_labels_without_evidence(merged, markers):
    kind = merged.obs["kind"].to_numpy(dtype=str)
    plain = np.flatnonzero(~merged.var_names.isin(cohorts.TYPE_GENES["B"]))
    labels = quality.provisional_labels(merged.X[:, plain], merged.var_names[plain], kind, markers)
    # B cells show none of the markers that are left
    assert set(labels[kind == "B"]) == {quality.UNKNOWN}
    assert set(labels[kind == "T_NK"]) == {"T_NK"}
    none = merged.var_names.str.startswith("GENE")
    labels = quality.provisional_labels(merged.X[:, np.flatnonzero(none)], merged.var_names[none], kind, markers)
    assert set(labels) == {quality.UNKNOWN}
    one = quality.provisional_labels(merged.X, merged.var_names, np.repeat("0", len(kind)), markers)
    assert set(one) == {quality.UNKNOWN}  # one cluster has nothing to be compared with


def test_measure_columns_and_subsample(monkeypatch):
    values, batch, label = blobs(10, 3)
    arguments = {"batch": batch, "patient": batch, "label": label, "cluster": label, "seed": 1}
    table = quality.measure("none", values, **arguments)
    assert list(table) == ["method", "metric", "label", "value", "n_cells", "better"]
    whole = table[table["label"] == "all"].set_index("metric")
    assert list(whole.index) == list(quality.METRICS)
    assert whole.loc["nmi_label", "value"] == pytest.approx(1)
    assert np.isnan(whole.loc["single_patient_epithelium", "value"])  # no epithelial cell: no value, not 0
    assert (whole["n_cells"].drop("single_patient_epithelium") == 200).all()
    types = table[table["label"] != "all"]
    assert types["label"].tolist() == ["t", "u"]
    assert whole.loc["silhouette_batch", "value"] == pytest.approx(types["value"].mean())  # types of equal size
    monkeypatch.setattr(quality, "MAX_CELLS", 80)
    part = quality.measure("none", values, **arguments)
    assert part.loc[part["metric"] == "ilisi", "n_cells"].item() == 80
    pd.testing.assert_frame_equal(part, quality.measure("none", values, **arguments))


def test_measure_of_a_graph_leaves_distances_empty():
    values, batch, label = blobs(10, 3)
    index = quality.neighbours(values, 10)
    graph = sparse.csr_matrix((np.ones(index.size), (np.repeat(np.arange(200), 10), index.ravel())), shape=(200, 200))
    arguments = {"batch": batch, "patient": batch, "label": label, "cluster": label, "seed": 1, "k": 10}
    table = quality.measure("bbknn", values, graph=graph, **arguments).set_index("metric")
    assert table.loc[["silhouette_batch", "ilisi", "clisi"], "value"].isna().all()
    plain = quality.measure("none", values, **arguments)
    expected = plain.loc[plain["metric"] == "knn_entropy", "value"].item()
    assert table.loc["knn_entropy", "value"] == pytest.approx(expected)  # the same neighbours, given as a graph
