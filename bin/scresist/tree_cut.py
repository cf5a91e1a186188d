"""Modules from a tree: the dynamic hybrid cut without its second stage (PAM).

Langfelder, Zhang & Horvath 2008, Bioinformatics 24:719. A branch becomes a module when it is large, tight and well separated
from what it joins, whatever the height of the cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

CORE_SCATTER = (0.64, 0.73, 0.82, 0.91, 0.95)  # by deep_split 0 to 4
GAP_SHARE = 0.75
REFERENCE_QUANTILE = 0.05


@dataclass
class _Branch:
    """A branch on the way up; `members` in the order in which they joined, unused once composite."""

    members: list[int] = field(default_factory=list)
    basic: bool = True
    dissolved: bool = False
    closed_at: float | None = None


def core_size(n: int, min_size: int) -> int:
    """Number of members whose mutual distance is the scatter of a branch of n members."""
    base = min_size / 2 + 1
    return n if n <= base else int(base + np.sqrt(n - base))


def hybrid_cut(tree: np.ndarray, distance: np.ndarray, min_size: int, deep_split: int, cut_height: float) -> np.ndarray:
    """Modules of a tree.

    Parameters
    ----------
    tree
        linkage matrix (scipy), merges by ascending height.
    distance
        symmetric, diagonal 0, of the same objects.
    min_size
        smallest module.
    deep_split
        0 (few large modules) to 4 (many small ones).
    cut_height
        merges above it are not looked at; bounded by the largest height.

    Returns
    -------
    One label per object: 1, 2, ... in the order in which the branches began, 0 for objects without module.
    """
    height = tree[:, 2]
    n_merges = len(height)
    n = n_merges + 1
    labels = np.zeros(n, dtype=np.int64)
    reference = height[max(int(np.round(REFERENCE_QUANTILE * n_merges)), 1) - 1]
    cut = min(cut_height, float(height.max()))
    if int((height <= cut).sum()) < min_size:
        return labels
    c = CORE_SCATTER[deep_split]
    scatter_max = reference + c * (cut - reference)
    gap_min = GAP_SHARE * (1 - c) * (cut - reference)

    def scatter(branch: _Branch) -> float:
        core = np.array(branch.members[: core_size(len(branch.members), min_size)])
        return float(distance[np.ix_(core, core)].sum() / (len(core) * (len(core) - 1)))

    def fails(branch: _Branch, at: float) -> bool:
        if not branch.basic:
            return False
        if len(branch.members) < min_size:
            return True
        spread = scatter(branch)
        return spread > scatter_max or at - spread < gap_min

    branches: list[_Branch] = []
    branch_of: dict[int, _Branch] = {}  # node of the tree -> the branch that goes on there
    size_of: dict[int, int] = {}  # node -> leaves below it
    for at in range(n_merges):
        if height[at] > cut:
            break  # heights ascend
        nodes = (int(tree[at, 0]), int(tree[at, 1]))
        size_of[n + at] = sum(size_of.get(node, 1) for node in nodes)
        leaves = [node for node in nodes if node < n]
        if len(leaves) == 2:
            going_on = _Branch(members=leaves)
            branches.append(going_on)
        elif len(leaves) == 1:
            going_on = branch_of[max(nodes)]
            if going_on.basic:
                going_on.members.append(leaves[0])
        else:
            first, second = (nodes[0], nodes[1]) if size_of[nodes[0]] <= size_of[nodes[1]] else (nodes[1], nodes[0])
            small, large = branch_of[first], branch_of[second]
            failed = small if fails(small, height[at]) else large if fails(large, height[at]) else None
            if failed is not None:
                going_on = large if failed is small else small
                failed.dissolved = True
                if going_on.basic:
                    going_on.members += failed.members
            else:
                for branch in (small, large):
                    if branch.basic:
                        branch.closed_at = float(height[at])
                composite = [branch for branch in (large, small) if not branch.basic]
                going_on = composite[0] if composite else _Branch(basic=False)
        branch_of[n + at] = going_on

    found = 0
    for branch in branches:
        if branch.dissolved or len(branch.members) < min_size:
            continue
        spread = scatter(branch)
        closed_at = cut if branch.closed_at is None else branch.closed_at
        if spread < scatter_max and closed_at - spread > gap_min:
            found += 1
            labels[branch.members] = found
    return labels
