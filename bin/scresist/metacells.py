"""Metacells: groups of neighbouring cells of one sample, averaged, so that correlations of genes are not those of zeros.

After the ConstructMetacells of hdWGCNA (Morabito 2023, Cell Rep Methods 3:100498).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial.distance import cdist

from scresist import keys

BLOCK = 1024  # cells whose distances are held at once


@dataclass(frozen=True)
class Metacells:
    """Which cells make which metacell.

    Attributes
    ----------
    members
        metacells x k, row numbers of cells, the central cell first.
    sample
        sample of each metacell.
    """

    members: np.ndarray
    sample: np.ndarray

    def __len__(self) -> int:
        return len(self.members)


def nearest(points: np.ndarray, k: int) -> np.ndarray:
    """The k nearest points of each point by Euclidean distance, itself first; ties by row number.

    Parameters
    ----------
    points
        n x dimensions, k <= n.

    Returns
    -------
    n x k row numbers, nearest first.
    """
    points = np.asarray(points, dtype=np.float64)
    n = len(points)
    if not 1 <= k <= n:
        raise ValueError(f"{k} neighbours asked for among {n} points")
    found = np.empty((n, k), dtype=np.int64)
    for start in range(0, n, BLOCK):
        rows = np.arange(start, min(start + BLOCK, n))
        distance = cdist(points[rows], points)
        distance[np.arange(len(rows)), rows] = -1.0  # a point is its own nearest, also among equal points
        limit = np.partition(distance, k - 1, axis=1)[:, k - 1]
        for at, row in enumerate(rows):
            near = np.flatnonzero(distance[at] <= limit[at])  # ascending, so that a stable sort breaks ties by row number
            found[row] = near[np.argsort(distance[at, near], kind="stable")][:k]
    return found


def choose(neighbours: np.ndarray, target: int, max_shared: int, order: np.ndarray) -> np.ndarray:
    """Candidates kept: each shares at most `max_shared` cells with every one kept before it, up to `target` of them.

    Parameters
    ----------
    neighbours
        n x k row numbers, the candidate of row i being the cells `neighbours[i]`.
    order
        in which candidates are visited.

    Returns
    -------
    Rows kept, in the order of keeping.
    """
    kept_of: list[list[int]] = [[] for _ in range(int(neighbours.max(initial=0)) + 1)]  # kept candidates that hold each cell
    kept: list[int] = []
    for row in order:
        if len(kept) >= target:
            break
        holders = [holder for cell in neighbours[row] for holder in kept_of[cell]]
        if holders and np.bincount(holders).max() > max_shared:
            continue
        for cell in neighbours[row]:
            kept_of[cell].append(len(kept))
        kept.append(int(row))
    return np.array(kept, dtype=np.int64)


def build(points: np.ndarray, samples: np.ndarray, k: int, max_shared: int, target: int, min_cells: int, seed: int) -> Metacells:
    """Metacells within each sample of at least `min_cells` (and k) cells; never across samples.

    Parameters
    ----------
    points
        cells x dimensions of the integrated space; the cells sorted by id, so that the result does not depend on file order.
    samples
        sample of each cell.
    target
        most metacells of one sample.
    seed
        of the order of visiting; each sample has its own stream, so that one sample more does not move the others.
    """
    names = np.asarray(samples, dtype=str)
    members, of = [np.empty((0, k), dtype=np.int64)], [np.empty(0, dtype=str)]
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        if len(rows) < max(min_cells, k):
            continue
        near = nearest(points[rows], k)
        order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(len(rows))
        kept = np.sort(choose(near, target, max_shared, order))
        members.append(rows[near[kept]])
        of.append(np.repeat(name, len(kept)))
    return Metacells(np.concatenate(members), np.concatenate(of))


def expression(counts: sparse.csr_matrix, made: Metacells, genes: np.ndarray) -> np.ndarray:
    """ln(1 + 10,000 x mean count / mean total) of metacells over their cells.

    Parameters
    ----------
    counts
        cells x all genes; the totals are over all of them.
    genes
        columns wanted.

    Returns
    -------
    metacells x genes, float64.
    """
    n, k = made.members.shape
    average = sparse.csr_matrix(
        (np.full(n * k, 1.0 / k), made.members.ravel(), np.arange(0, n * k + 1, k)), shape=(n, counts.shape[0])
    )
    total = average @ np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    mean = (average @ counts[:, genes].astype(np.float64)).toarray()
    return np.log1p(np.divide(keys.TARGET_SUM * mean, total[:, None], out=np.zeros_like(mean), where=total[:, None] > 0))
