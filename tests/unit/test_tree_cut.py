"""Dynamic hybrid tree cut: dendrograms worked by hand, and partitions of the package dynamicTreeCut where it is installed."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from scresist import tree_cut


def blocks(sizes, inside, between, alone=0):
    """Distance of blocks: `inside` within, `between` else; `alone` objects at distance 1 of everything."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    d = np.where(labels[:, None] == labels[None], np.array(inside)[labels][:, None], between)
    n = len(d)
    full = np.ones((n + alone, n + alone))
    full[:n, :n] = d
    np.fill_diagonal(full, 0)
    return full


def cut(d, min_size, deep_split=1, height=0.995):
    return tree_cut.hybrid_cut(linkage(squareform(d), "average"), d, min_size, deep_split, height).tolist()


def test_two_tight_blocks_and_loners():
    # heights: 9 merges at 0.2 a block, blocks join at 0.8, loners at 1. ref = 0.2 (rank 1 of 22), H = 0.995, deep split 1:
    # scatter_max = 0.2 + 0.73 * 0.795 = 0.780, gap_min = 0.75 * 0.27 * 0.795 = 0.161. Both blocks: scatter 0.2, gap 0.6
    assert cut(blocks([10, 10], [0.2, 0.2], 0.8, 3), 5) == [1] * 10 + [2] * 10 + [0] * 3


def test_a_branch_without_gap_is_dissolved_into_the_other():
    # blocks at 0.2 join at 0.3: gap 0.1 < 0.161, so they are one branch of 20, closed at H
    labels = cut(blocks([10, 10], [0.2, 0.2], 0.3, 3), 5)
    assert labels == [1] * 20 + [0] * 3


def test_a_small_branch_joins_the_basic_one_it_meets():
    assert cut(blocks([10, 4], [0.2, 0.2], 0.6, 3), 5) == [1] * 14 + [0] * 3


def test_a_small_branch_that_meets_a_composite_stays_alone():
    d = blocks([10, 10, 4], [0.2, 0.2, 0.2], 0.8)
    d[20:, :20] = d[:20, 20:] = 0.9  # joins after the two large ones have closed
    full = np.ones((26, 26))
    full[:24, :24] = d
    np.fill_diagonal(full, 0)
    assert cut(full, 5) == [1] * 10 + [2] * 10 + [0] * 6


def test_a_diffuse_branch_is_no_module():
    # heights 0.2 (10 objects) and 0.9 (10 others); H = 0.995, ref 0.2: scatter_max 0.780 at deep split 1, 0.955 at 4
    d = blocks([10, 10], [0.2, 0.9], 0.97, 3)
    assert cut(d, 5, 1)[:20] == [1] * 20  # the diffuse one fails at the junction and joins the tight one
    assert cut(d, 5, 4)[:20] == [1] * 10 + [2] * 10  # gap_min = 0.75 * 0.05 * 0.795 = 0.030 < 0.07


def test_merges_above_the_height_are_not_looked_at():
    d = blocks([10, 10], [0.2, 0.2], 0.3, 3)
    assert cut(d, 5, 1, 0.25) == [1] * 10 + [2] * 10 + [0] * 3


def test_too_few_merges_below_the_height():
    assert cut(blocks([4], [0.2], 1, 4), 5) == [0] * 8
    assert cut(blocks([10, 10], [0.5, 0.5], 0.8), 5, 1, 0.3) == [0] * 20


@pytest.mark.parametrize(
    ("n", "min_size", "expected"), [(5, 10, 5), (6, 10, 6), (7, 10, 7), (10, 10, 8), (22, 10, 10), (2, 3, 2)]
)
def test_core_size(n, min_size, expected):
    # m0 = minSize / 2 + 1: 6 for 10; 7 -> int(6 + 1), 10 -> int(6 + 2), 22 -> int(6 + 4)
    assert tree_cut.core_size(n, min_size) == expected


def test_partitions_equal_the_published_package():
    package = pytest.importorskip("dynamicTreeCut.dynamicTreeCut", reason="dynamicTreeCut (GPL) is no dependency")
    n_modules = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        n, groups = int(rng.integers(80, 250)), int(rng.integers(1, 6))
        label = rng.integers(0, groups + 1, n)
        x = rng.normal(size=(40, n)) + rng.normal(size=(40, groups + 1))[:, label] * (label > 0) * rng.uniform(0.5, 1.5)
        d = 1 - ((1 + np.corrcoef(x.T)) / 2) ** 4
        d = np.round((d + d.T) / 2, 12)
        np.fill_diagonal(d, 0)
        tree = linkage(squareform(d), "average")
        for deep_split in range(5):
            size = int(rng.integers(4, 30))
            with contextlib.redirect_stdout(io.StringIO()):
                found = package.cutreeHybrid(
                    tree, d, cutHeight=0.995, minClusterSize=size, deepSplit=deep_split, pamStage=False, verbose=0
                )
            theirs = np.asarray(found["labels"] if isinstance(found, dict) else found)
            mine = tree_cut.hybrid_cut(tree, d, size, deep_split, 0.995)
            pairs = set(zip(mine.tolist(), theirs.tolist(), strict=True))
            assert len(pairs) == len(set(mine)) == len(set(theirs)), (seed, deep_split, size)
            assert ((mine == 0) == (theirs == 0)).all()
            n_modules += mine.max()
    assert n_modules > 30
