"""The copy-number kernel against a plain, slow implementation of the method, and its parts by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import cnv
from tests.data import cnv_patients
from tests.data.cnv_patients import GAIN, LOSS, Clone

ARMS = pd.DataFrame(
    [(str(at), arm, *span) for at in range(1, 23) for arm, span in (("p", (0, 4999)), ("q", (5000, 10**9)))],
    columns=["chromosome", "arm", "start", "end"],
)


def data(n_cells=37, seed=0):
    """Counts of three chromosomes (one shorter than the window, one below 10 genes), an X gene and unplaced genes."""
    rng = np.random.default_rng(seed)
    sizes = {"1": 150, "2": 30, "10": 120, "3": 8, "X": 20, "": 10}
    chromosome = np.repeat(list(sizes), list(sizes.values()))
    start = np.concatenate([rng.permutation(size) * 100 for size in sizes.values()])
    start[chromosome == ""] = -1
    start[5] = start[6]  # a tie, to be broken by symbol
    order = rng.permutation(len(chromosome))
    genes = np.array([f"G{at:04d}" for at in range(len(chromosome))])
    mean = np.exp(rng.normal(-0.5, 1.3, len(genes)))
    counts = rng.poisson(mean * rng.gamma(2, 0.5, (n_cells, 1)) * 2)
    counts[3] = 0  # a cell without counts
    return counts, chromosome[order], start[order], genes


def slow(counts, chromosome, start, genes, groups, window, clip, min_mean=0.1):
    """methods.md, INFER_CNV, steps 1 to 9 as written, on dense arrays, gene by gene."""
    rank = [int(name) if name.isdigit() else 99 for name in chromosome]
    mean = counts.mean(axis=0)
    keep = [at for at in range(len(genes)) if 1 <= rank[at] <= 22 and start[at] >= 0 and mean[at] >= min_mean]
    keep = [at for at in keep if sum(rank[other] == rank[at] for other in keep) >= 10]
    keep.sort(key=lambda at: (rank[at], start[at], genes[at]))
    x = counts[:, keep].astype(float)
    total = x.sum(axis=1)
    scaled = np.array([row / depth * np.median(total) if depth else row for row, depth in zip(x, total)])
    y = np.log2(scaled + 1)

    def bounded(values):
        means = np.array([values[rows].mean(axis=0) for rows in groups])
        low, high = means.min(axis=0), means.max(axis=0)
        return np.where(values > high, values - high, np.where(values < low, values - low, 0.0))

    y = np.clip(bounded(y), -clip, clip)
    half = window // 2
    s = np.empty_like(y)
    for gene, at in enumerate(keep):
        near = [other for other in range(len(keep)) if rank[keep[other]] == rank[at] and abs(other - gene) <= half]
        weights = np.array([half + 1 - abs(other - gene) for other in near], dtype=float)
        s[:, gene] = y[:, near] @ weights / weights.sum()
    middle = np.median(s, axis=1, keepdims=True)
    return keep, bounded(s - middle), y - middle


def prepared(counts, chromosome, start, genes, panel=None, step=1, **options):
    matrix = sparse.csr_matrix(counts.astype(np.int32))
    genome = cnv.choose_genes(cnv.sums(matrix)[1] / len(counts), chromosome, start, genes, 0.1)
    return genome, cnv.regions(genome, ARMS, step, panel), cnv.Kernel(matrix, genome, **options)


@pytest.mark.parametrize(("window", "clip"), [(101, 3.0), (11, 0.5), (3, 3.0)])
@pytest.mark.parametrize("sizes", [(20,), (8, 9, 5)])
def test_equal_to_the_slow_implementation(window, clip, sizes):
    counts, chromosome, start, genes = data()
    edges = np.cumsum([0, *sizes])
    groups = [np.arange(a, b) for a, b in pairwise(edges)]
    keep, z, y = slow(counts, chromosome, start, genes, groups, window, clip)
    genome, parts, kernel = prepared(counts, chromosome, start, genes, window=window, clip=clip)
    assert genome.columns.tolist() == keep
    assert genome.names == ("1", "2", "10")  # 3 has too few genes
    made = kernel.profiles(np.arange(len(counts)), kernel.bounds(groups), parts, np.float64)
    assert np.abs(made.profile - z).max() < 1e-9
    assert np.abs(made.score_sum - (z**2).sum(axis=1)).max() < 1e-9
    assert np.abs(made.score_mean - (z**2).mean(axis=1)).max() < 1e-9
    assert parts.arms == ("1p", "1q", "2p", "10p", "10q")  # of 20 genes or more
    for arm, name in enumerate(parts.arms):
        inside = (genome.chromosome == name[:-1]) & ((genome.start < 5000) == (name[-1] == "p"))
        at = np.flatnonzero(inside)
        assert parts.arm_genes[arm] == len(at)
        assert np.abs(made.arms[:, arm] - z[:, at].mean(axis=1)).max() < 1e-9
        cuts = [0, len(at) // 3, 2 * len(at) // 3, len(at)]
        for third in range(3):
            mine = at[cuts[third] : cuts[third + 1]]
            assert np.abs(made.thirds[:, 3 * arm + third] - y[:, mine].mean(axis=1)).max() < 1e-9


@pytest.mark.parametrize(("block", "threads"), [(1, 1), (5, 2), (16, 1), (4096, 2)])
def test_block_size_and_threads_change_nothing(block, threads):
    given = data()
    groups = [np.arange(10), np.arange(10, 22)]
    _, parts, kernel = prepared(*given)
    expected = kernel.profiles(np.arange(37), kernel.bounds(groups), parts, np.float64)
    _, _, other = prepared(*given, block=block, threads=threads)
    made = other.profiles(np.arange(37), other.bounds(groups), parts, np.float64)
    for name in ("profile", "arms", "thirds", "score_sum"):
        assert np.abs(getattr(made, name) - getattr(expected, name)).max() < 1e-9


def test_order_of_cells_and_genes_changes_nothing():
    counts, chromosome, start, genes = data()
    _, parts, kernel = prepared(counts, chromosome, start, genes)
    groups = [np.arange(10), np.arange(10, 22)]
    expected = kernel.profiles(np.arange(37), kernel.bounds(groups), parts, np.float64)
    rng = np.random.default_rng(9)
    cells, columns = rng.permutation(37), rng.permutation(len(genes))
    genome, parts, kernel = prepared(counts[cells][:, columns], chromosome[columns], start[columns], genes[columns])
    place = np.argsort(cells)
    made = kernel.profiles(place, kernel.bounds([place[rows] for rows in groups]), parts, np.float64)
    assert np.abs(made.profile - expected.profile).max() < 1e-9
    assert genome.genes[np.flatnonzero(np.diff(genome.start) == 0)].tolist() == sorted(
        genome.genes[np.flatnonzero(np.diff(genome.start) == 0)]
    )


def test_seven_genes_by_hand():
    # 51 for the gene itself, 50 for its neighbours, and so on: 51+50+49+48+47+46+45 at the end, 51 + 2 (50+49+48) in the middle
    assert cnv.pyramid_weight(7, 101).tolist() == [336.0, 341.0, 344.0, 345.0, 344.0, 341.0, 336.0]
    assert cnv.pyramid_weight(7, 3).tolist() == [3, 4, 4, 4, 4, 4, 3]
    assert cnv.pyramid_weight(500, 101)[250] == 51**2
    with pytest.raises(ValueError, match="must be odd"):
        cnv.pyramid_weight(7, 100)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 101, 1000, 1001])
def test_median_is_exact(n):
    rng = np.random.default_rng(n)
    for values in (rng.normal(0, 0.1, n), rng.choice([-3.0, 0.0, 3.0], n), np.zeros(n), rng.uniform(-3, 3, n)):
        found = cnv._median(np.ascontiguousarray(values), 3.0, np.empty(cnv.MEDIAN_BINS, np.int64), np.empty(n))
        assert found == np.median(values)


def test_loci_and_stored_genes():
    counts, chromosome, start, genes = data()
    listed = [("G0000", "1", 0), ("ABSENT", "10", 5001), ("ON_X", "X", 5), ("UNPLACED", "", -1)]
    panel = pd.DataFrame(listed, columns=["gene", "chromosome", "start"])
    genome, parts, kernel = prepared(counts, chromosome, start, genes, panel, step=10)
    bounds = kernel.bounds([np.arange(20)])
    made = kernel.profiles(np.arange(37), bounds, parts, np.float64)
    every = kernel.profiles(np.arange(37), bounds, cnv.regions(genome, ARMS, 1), np.float64)
    stored = np.concatenate([np.arange(a, b, 10) for a, b in pairwise(genome.edges)])
    assert parts.profile.tolist() == stored.tolist()
    assert np.array_equal(made.profile, every.profile[:, stored])
    assert parts.loci == ("G0000", "ABSENT")
    ten = np.flatnonzero(genome.chromosome == "10")
    left, right = ten[genome.start[ten] < 5001][-50:], ten[genome.start[ten] >= 5001][:50]
    assert np.abs(made.loci[:, 1] - every.profile[:, np.concatenate([left, right])].mean(axis=1)).max() < 1e-9
    # a gene that is kept stands in the middle of 101 genes, fewer at the end of its chromosome
    kept = pd.DataFrame([(genome.genes[2], "1", genome.start[2])], columns=["gene", "chromosome", "start"])
    window = cnv.regions(genome, ARMS, 10, kept).windows[0]
    assert window.tolist() == [0, 53]


def test_reference_groups():
    types = ["T"] * 40 + ["B"] * 12 + ["Mast"] * 9 + ["DC"] * 20
    groups = cnv.reference_groups(types)
    assert pd.Series(groups).value_counts().to_dict() == {"T": 40, "other": 21, "DC": 20}
    # a handful of cells does not become a group, whose mean would be noise: it joins the largest
    assert set(cnv.reference_groups(["T"] * 40 + ["B"] * 12)) == {"T"}
    assert set(cnv.reference_groups(["T"] * 12 + ["B"] * 12)) == {"other"}


def test_shifted_needs_all_thirds_on_one_side():
    n_genes = np.array([60, 60, 60, 60, 39])
    arm = np.array([1.6, -1.6, 1.6, 1.4, 3.0])
    third = np.array([[0.8, 2, 2], [-1, -1, -0.75], [0.1, 0.1, 4.6], [1.4, 1.4, 1.4], [3, 3, 3]], dtype=float)
    assert cnv.shifted(arm, third.ravel(), n_genes).tolist() == [[1, -1, 0, 0, 0]]
    assert cnv.shifted(arm, third.ravel(), n_genes, 1.0, 0.0).tolist() == [[1, -1, 1, 1, 0]]
    assert cnv.events(("1p", "1q", "2p"), np.array([1, 0, -1])) == "+1p,-2p"


def test_z_scores():
    mean, sd = cnv.mean_sd(np.array([[1.0, 2.0], [3.0, 2.0]]))
    assert mean.tolist() == [2, 2]
    assert sd.tolist() == [pytest.approx(np.sqrt(2)), 0]
    assert cnv.against(np.array([[4.0, 9.0]]), mean, sd).tolist() == [[pytest.approx(np.sqrt(2)), 0]]  # no spread: no score
    assert cnv.mean_sd(np.array([[1.0]]))[1].tolist() == [0]


def checked(clones, seed=1):
    merged, annotation, table = cnv_patients.patient(clones, seed)
    counts = merged.layers["counts"]
    genome = cnv.choose_genes(
        cnv.sums(counts)[1] / merged.n_obs, merged.var["chromosome"], merged.var["start"], merged.var_names, 0.1
    )
    parts, kernel = cnv.regions(genome, table, 10), cnv.Kernel(counts, genome)
    types = annotation["main_type"].to_numpy()
    groups = {name: np.flatnonzero(types == name) for name in sorted(set(types) - {"Epithelial"})}
    table, suspect = cnv.check_references(kernel, groups, parts)
    return table.set_index("group"), {name: merged.obs["clone"].iloc[rows].tolist() for name, rows in suspect.items()}


def test_a_tumour_among_the_references_is_seen():
    events = {"1q": GAIN, "8q": GAIN, "5q": LOSS}
    normal = cnv_patients.normal("A", {"T": 50, "Macrophage": 30, "B": 30})
    found, suspect = checked([*normal, Clone("A", "Fibroblast", 40, events, "tumour")])
    assert found["arms_shifted"].to_dict() == {"B": 0, "Fibroblast": 3, "Macrophage": 0, "T": 0}
    assert found.loc["Fibroblast", "arms"] == "+1q,-5q,+8q"
    assert found["n_cells"].to_dict() == {"B": 30, "Fibroblast": 40, "Macrophage": 30, "T": 50}
    assert suspect == {"Fibroblast": ["tumour"] * 40}


@pytest.mark.parametrize("n_tumour", [12, 30])
def test_tumour_cells_hidden_in_a_group_are_seen(n_tumour):
    events = {"1q": GAIN, "8q": GAIN, "5q": LOSS}
    normal = cnv_patients.normal("A", {"T": 50, "Macrophage": 30, "B": 30, "Fibroblast": 40})
    found, suspect = checked([*normal, Clone("A", "Fibroblast", n_tumour, events, "tumour")])
    assert list(suspect) == ["Fibroblast"]
    assert found.loc["Fibroblast", "arms"] == "+1q,-5q,+8q"
    assert suspect["Fibroblast"].count("tumour") == n_tumour
    assert len(suspect["Fibroblast"]) <= n_tumour + 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_normal_references_are_not_suspect(seed):
    found, suspect = checked(
        cnv_patients.normal("A", {"T": 60, "Macrophage": 30, "B": 30, "Fibroblast": 40, "Endothelial": 25}), seed
    )
    assert not suspect
    assert (found["n_suspect"] == 0).all()


def test_two_parts_by_hand():
    values = np.array([[0.0, 1], [0.2, 1], [0.1, 1], [5, 1], [5.1, 1]])
    upper = cnv.two_parts(values)
    assert set(map(frozenset, (np.flatnonzero(upper), np.flatnonzero(~upper)))) == {frozenset({0, 1, 2}), frozenset({3, 4})}


def test_one_group_cannot_be_checked():
    found, suspect = checked(cnv_patients.normal("A", {"T": 50}))
    assert found["arms_shifted"].isna().all()
    assert not suspect


def test_signs_follow_the_planted_arms():
    events = {"1q": GAIN, "8q": GAIN, "5q": LOSS}
    merged, annotation, table = cnv_patients.patient(
        [*cnv_patients.normal("A", {"T": 60, "Fibroblast": 30}), Clone("A", "Epithelial", 40, events)]
    )
    counts, types = merged.layers["counts"], annotation["main_type"].to_numpy()
    genome = cnv.choose_genes(
        cnv.sums(counts)[1] / merged.n_obs, merged.var["chromosome"], merged.var["start"], merged.var_names, 0.1
    )
    parts, kernel = cnv.regions(genome, table, 10), cnv.Kernel(counts, genome)
    rows = [np.flatnonzero(types == name) for name in ("Fibroblast", "T")]
    made = kernel.profiles(np.flatnonzero(types == "Epithelial"), kernel.bounds(rows), parts)
    mean = pd.Series(made.arms.mean(axis=0), index=parts.arms).sort_values()
    assert mean.index[0] == "5q"
    assert set(mean.index[-2:]) == {"1q", "8q"}
    # reference cells as tumour and the other way round: the signs turn
    swapped = kernel.profiles(rows[1], kernel.bounds([np.flatnonzero(types == "Epithelial")]), parts)
    turned = pd.Series(swapped.arms.mean(axis=0), index=parts.arms)
    assert turned["5q"] > 0.05 > -0.05 > max(turned["1q"], turned["8q"])


def test_infercnvpy_agrees_in_rank():
    """The other engine on the same genes: its scores rank the cells of a patient alike (window 101, full windows only)."""
    pytest.importorskip("infercnvpy")
    from scipy.stats import spearmanr

    from scresist.normalise import log1p_cp10k

    tumour = Clone("A", "Epithelial", 40, {"1q": GAIN, "8q": GAIN, "5q": LOSS})
    merged, annotation, table = cnv_patients.patient([*cnv_patients.normal("A", {"T": 40, "Fibroblast": 30}), tumour])
    counts, types = merged.layers["counts"], annotation["main_type"].to_numpy()
    genome = cnv.choose_genes(
        cnv.sums(counts)[1] / merged.n_obs, merged.var["chromosome"], merged.var["start"], merged.var_names, 0.1
    )
    parts, kernel = cnv.regions(genome, table, 10), cnv.Kernel(counts, genome)
    group = np.where(types == "Epithelial", "", types)
    made, centre = cnv.infercnvpy_profiles(log1p_cp10k(counts), genome, parts, group, 101, 3.0, 10, 1)
    bounds = kernel.bounds([np.flatnonzero(types == name) for name in ("Fibroblast", "T")])
    own = kernel.profiles(np.arange(merged.n_obs), bounds, parts)
    assert made.profile.shape == (merged.n_obs, len(centre))
    assert (np.diff(centre) > 0).all()
    assert spearmanr(made.score_mean, own.score_mean).statistic > 0.6
    tumour = types == "Epithelial"
    for arm in ("1q", "8q", "5q"):
        at = parts.arms.index(arm)
        assert np.sign(made.arms[tumour, at].mean()) == np.sign(own.arms[tumour, at].mean())
