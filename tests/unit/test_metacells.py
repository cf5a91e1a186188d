"""Metacells: neighbours, greedy choice, samples kept apart, expression."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from scresist import metacells


def test_neighbours_on_a_line():
    points = np.array([[0.0], [1.0], [3.0], [3.5], [10.0]])
    assert metacells.nearest(points, 3).tolist() == [[0, 1, 2], [1, 0, 2], [2, 3, 1], [3, 2, 1], [4, 3, 2]]


def test_ties_go_to_the_smaller_row_and_a_point_is_its_own_nearest():
    points = np.zeros((5, 2))
    assert metacells.nearest(points, 3).tolist() == [[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 0, 1], [4, 0, 1]]


def test_neighbours_equal_a_full_sort_over_block_borders(monkeypatch):
    monkeypatch.setattr(metacells, "BLOCK", 7)
    points = np.random.default_rng(1).normal(size=(40, 3))
    distance = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2))
    assert metacells.nearest(points, 6).tolist() == np.argsort(distance, axis=1, kind="stable")[:, :6].tolist()


@pytest.mark.parametrize("k", [0, 4])
def test_impossible_number_of_neighbours(k):
    with pytest.raises(ValueError, match=f"{k} neighbours asked for among 3 points"):
        metacells.nearest(np.zeros((3, 1)), k)


def test_choice_by_hand():
    neighbours = np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [5, 6, 0]])
    order = np.arange(5)
    # at most one shared: 1 shares two with 0, 2 shares {2} with 0, 3 shares {3, 4} with 2, 4 shares {0} with 0
    assert metacells.choose(neighbours, 10, 1, order).tolist() == [0, 2, 4]
    assert metacells.choose(neighbours, 10, 0, order).tolist() == [0, 3]
    assert metacells.choose(neighbours, 2, 1, order).tolist() == [0, 2]
    assert metacells.choose(neighbours, 10, 0, np.array([1, 4, 0, 2, 3])).tolist() == [1, 4]


def test_choice_keeps_the_rule_against_every_kept_one():
    points = np.random.default_rng(2).normal(size=(200, 4))
    near = metacells.nearest(points, 20)
    kept = metacells.choose(near, 1000, 12, np.random.default_rng(3).permutation(200))
    shared = np.array([[len(set(near[i]) & set(near[j])) for j in kept] for i in kept])
    np.fill_diagonal(shared, 0)
    assert shared.max() <= 12
    left = [row for row in range(200) if row not in set(kept.tolist())]
    assert all(max(len(set(near[row]) & set(near[j])) for j in kept) > 12 for row in left)  # none was left out for nothing


def test_samples_never_mix_and_do_not_move_each_other():
    rng = np.random.default_rng(4)
    points = rng.normal(size=(350, 5))
    samples = np.repeat(["A", "B", "C"], [150, 150, 50])
    made = metacells.build(points, samples, 25, 15, 1000, 100, 1)
    assert set(made.sample) == {"A", "B"}  # C is too small
    assert all((samples[row] == name).all() for row, name in zip(made.members, made.sample, strict=True))
    assert made.members.shape[1] == 25
    assert len(made) == len(made.members)
    alone = metacells.build(points[150:300], samples[150:300], 25, 15, 1000, 100, 1)
    assert (alone.members + 150).tolist() == made.members[made.sample == "B"].tolist()
    assert (np.bincount(np.searchsorted(["A", "B"], made.sample)) <= 1000).all()
    few = metacells.build(points, samples, 25, 15, 4, 100, 1)
    assert np.unique(few.sample, return_counts=True)[1].tolist() == [4, 4]
    assert len(metacells.build(points, samples, 25, 15, 4, 500, 1)) == 0
    assert len(metacells.build(points[:10], samples[:10], 25, 15, 4, 2, 1)) == 0  # fewer cells than k


def test_expression_by_hand():
    counts = sparse.csr_matrix(np.array([[1, 0, 3], [0, 2, 2], [4, 0, 0], [0, 0, 0]]))
    made = metacells.Metacells(np.array([[0, 1], [2, 3]]), np.array(["A", "A"]))
    found = metacells.expression(counts, made, np.array([2, 0]))
    # means of counts: (0.5, 1, 2.5) of a mean total of 4; (2, 0, 0) of 2
    assert found == pytest.approx(np.log1p([[1e4 * 2.5 / 4, 1e4 * 0.5 / 4], [0, 1e4]]))


def test_expression_of_empty_cells_is_zero():
    made = metacells.Metacells(np.array([[0, 1]]), np.array(["A"]))
    assert metacells.expression(sparse.csr_matrix((2, 3)), made, np.arange(3)).tolist() == [[0, 0, 0]]
