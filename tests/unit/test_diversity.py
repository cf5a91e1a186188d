"""Diversity and distance against closed forms, hand-worked cases and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import distance
from scipy.special import comb

from scresist import clones, diversity


def test_equal_types():
    found = diversity.indices(np.array([10, 10, 10, 10]))
    assert found["shannon"] == pytest.approx(np.log(4))
    assert found["simpson"] == pytest.approx(0.75)
    for name in ("hill_q0", "hill_q1", "hill_q2", "chao1"):
        assert found[name] == pytest.approx(4)
    assert found["pielou"] == pytest.approx(1)
    assert found["clonality"] == pytest.approx(0)


def test_worked_by_hand():
    """Shares 1/2, 1/4, 1/4, and two types seen once and one twice."""
    found = diversity.indices(np.array([[2, 1, 1, 0]]))
    assert found["shannon"][0] == pytest.approx(1.5 * np.log(2))
    assert found["hill_q1"][0] == pytest.approx(2**1.5)
    assert found["hill_q2"][0] == pytest.approx(8 / 3)
    assert found["simpson"][0] == pytest.approx(0.625)
    assert found["pielou"][0] == pytest.approx(1.5 * np.log(2) / np.log(3))
    assert found["chao1"][0] == pytest.approx(3 + 2 * 1 / (2 * 2))


def test_one_type_and_no_cell():
    found = diversity.indices(np.array([[7, 0], [0, 0]]))
    assert found["hill_q0"][0] == 1
    assert found["shannon"][0] == 0
    assert np.isnan(found["pielou"][0])
    assert np.isnan(found["clonality"][0])  # not 0: nothing can be said about evenness
    assert all(np.isnan(values[1]) for values in found.values())


def test_equals_the_index_of_clones():
    counts = np.random.default_rng(0).integers(0, 9, (20, 6))
    found = diversity.indices(counts)
    for at, row in enumerate(counts):
        for name, value in clones.diversity(row).items():
            assert found[name][at] == pytest.approx(value, nan_ok=True)


def test_rarefied_has_the_expectation_of_the_hypergeometric():
    """Hurlbert 1971: E S_n = sum 1 - C(N - N_i, n) / C(N, n); of pairs without replacement the share of equal types is kept."""
    counts, depth = np.array([60, 25, 10, 4, 1]), 30
    found = diversity.rarefied(counts, depth, np.random.default_rng(0), 4000)
    total = counts.sum()
    richness = (1 - comb(total - counts, depth) / comb(total, depth)).sum()
    assert found["hill_q0"][0] == pytest.approx(richness, abs=0.03)
    pairs = (counts * (counts - 1)).sum() / (total * (total - 1))
    simpson = 1 - (pairs * (depth - 1) / depth + 1 / depth)
    assert found["simpson"][0] == pytest.approx(simpson, abs=0.003)


def test_whole_sample_is_its_own_value():
    counts = np.array([50, 30, 20])
    found = diversity.rarefied(counts, 100, np.random.default_rng(0))
    for name, value in diversity.indices(counts).items():
        assert found[name][0] == pytest.approx(value[0])
        assert found[name][1] <= found[name][0] <= found[name][2]
    assert found["shannon"][1] < found["shannon"][0] < found["shannon"][2]


def test_too_few_cells_have_no_value():
    assert np.isnan(diversity.rarefied([3, 4], 10, np.random.default_rng(0))["shannon"]).all()
    assert np.isnan(diversity.rarefied([30, 4], 0, np.random.default_rng(0))["shannon"]).all()


def test_one_type_has_no_evenness():
    found = diversity.rarefied([150, 0], 100, np.random.default_rng(0))
    assert found["hill_q0"] == (1, 1, 1)
    assert np.isnan(found["pielou"]).all()


def test_intervals_cover():
    """Samples of 150 cells of a known tissue: the interval holds the mean over samples in about 95 %."""
    rng = np.random.default_rng(3)
    shares = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.03, 0.01])
    drawn = rng.multinomial(150, shares, size=5000)
    truth = {name: diversity.indices(drawn)[name].mean() for name in ("shannon", "hill_q2", "simpson")}
    hits = dict.fromkeys(truth, 0)
    n = 200
    for counts in rng.multinomial(150, shares, size=n):
        found = diversity.rarefied(counts, 150, rng, 200)
        for name, value in truth.items():
            hits[name] += found[name][1] <= value <= found[name][2]
    for name, k in hits.items():
        assert 0.90 <= k / n <= 0.99, name


def test_distances_equal_scipy():
    rng = np.random.default_rng(1)
    p, q = rng.dirichlet(np.ones(5), 10), rng.dirichlet(np.ones(5), 10)
    p[0, 2:] = 0
    p[0] /= p[0].sum()
    for a, b, js, bc in zip(p, q, diversity.jensen_shannon(p, q), diversity.bray_curtis(p, q), strict=True):
        assert js == pytest.approx(distance.jensenshannon(a, b, base=2))
        assert bc == pytest.approx(distance.braycurtis(a, b))
    apart = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert diversity.jensen_shannon(*apart) == pytest.approx(1)
    assert diversity.bray_curtis(*apart) == pytest.approx(1)


def test_between_samples():
    rng = np.random.default_rng(0)
    a, b = diversity.draw([80, 20], 100, 300, rng), diversity.draw([300, 700], 100, 300, rng)
    found = diversity.between(a, b, 100)
    assert found["bray_curtis"][0] == pytest.approx(0.5, abs=0.01)
    assert found["bray_curtis"][1] < 0.5 < found["bray_curtis"][2]
    assert set(found) == set(diversity.DISTANCES)
