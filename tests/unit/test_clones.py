"""Clones: graph, merging, second opinions, events, shares, changes, tree, diversity."""

from __future__ import annotations

from itertools import combinations
from math import comb, exp, log

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from scipy.cluster import hierarchy
from scipy.spatial.distance import cdist

from scresist import clones, cnv, keys
from scresist.neighbours import by_size
from tests.data import clone_profiles


def arms_of(made) -> clones.Arms:
    given = made.uns["arms"]
    return clones.Arms(tuple(given["name"]), *(np.asarray(given[k], dtype=float) for k in list(given)[1:]))


def found(made, planted, seed=1, limit=2.0):
    """Clones of planted profiles, and the planted labels in the same order."""
    cells = sorted(planted.index)
    rows = made.obs_names.get_indexer(cells)
    scaled = arms_of(made).scaled(np.asarray(made.obsm["arms"], dtype=float)[rows])
    labels, n_raw = clones.find_clones(made.obsm["X_cnv"][rows], scaled, 1.0, limit, 10, seed)
    return labels, planted[cells].to_numpy(), n_raw


# --- clusters


def test_no_cut_of_one_normal_population_is_a_separation():
    """The constant: two halves of a normal differ by 2 sqrt(2/pi) and keep a variance of 1 - 2/pi."""
    assert 2 * np.sqrt(2 / np.pi) / np.sqrt(1 - 2 / np.pi) == pytest.approx(clones.SEPARATION, abs=0.005)
    x = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)[:, None]
    apart = []
    for share in (0.02, 0.1, 0.25, 0.4, 0.5):
        labels = by_size((x[:, 0] > stats.norm.ppf(share)).astype(int))
        apart.append(clones.separation(labels, 10 * x, 2.0)[0, 1])
    assert max(apart) < 1
    assert max(apart) == apart[-1]  # the half is the worst case
    # two populations 4 sd apart are separated at the same distance of means
    two = np.concatenate([x, x + 4])
    assert clones.separation(np.repeat([0, 1], 100_000), two, 2.0)[0, 1] == pytest.approx(4 / clones.SEPARATION, rel=1e-3)


def test_separation_by_hand():
    values = np.array([[0.0, 5.0], [2.0, 5.0], [10.0, 5.0], [12.0, 5.0]])
    # first arm: difference 10, pooled sd sqrt((2 + 2) / 2); second arm: no difference
    apart = clones.separation(np.array([0, 0, 1, 1]), values, 2.0)
    assert apart[0, 1] == apart[1, 0] == pytest.approx(min(10 / 2, 10 / (clones.SEPARATION * np.sqrt(2))))
    assert apart[0, 0] == 0
    assert clones.separation(np.array([0, 0, 1, 1]), values[:, 1:], 2.0)[0, 1] == 0


def test_merging_joins_what_no_arm_tells_apart():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(90, 6))
    values[60:, 2] += 6.0
    labels = np.repeat([0, 1, 2], 30)
    merged = clones.merge_close(labels, values, 2.0)
    assert merged.tolist() == [0] * 60 + [1] * 30
    assert clones.merge_close(labels, values, 20.0).tolist() == [0] * 90
    assert clones.merge_close(labels, np.empty((90, 0)), 2.0).tolist() == [0] * 90  # no arm can tell


def test_small_clusters_join_the_nearest():
    values = np.array([[0.0]] * 12 + [[9.0]] * 12 + [[7.0]] * 3)
    labels = np.repeat([0, 1, 2], [12, 12, 3])
    assert clones.absorb_small(labels, values, 10).tolist() == [1] * 12 + [0] * 15
    assert clones.absorb_small(labels, values, 3).tolist() == labels.tolist()
    assert clones.absorb_small(np.zeros(4, dtype=int), values[:4], 10).tolist() == [0] * 4  # one cluster has nowhere to go


THREE = [{"8q": 4, "3p": -4, "1q": 5, "5q": -4}, {"8q": 4, "3p": -4, "17q": 6, "11q": -4}, {"8q": 4, "3p": -4, "12q": 6}]


@pytest.mark.parametrize(
    ("events", "cells"),
    [
        (THREE, {"PRE": [25, 45, 0], "RES": [40, 20, 0], "POST": [60, 0, 40]}),
        (THREE[:2], {"PRE": [40, 25]}),
        (THREE[:1], {"PRE": [90]}),
        (THREE[:1], {"PRE": [60], "RES": [25], "POST": [120]}),
        ([{"8q": 9, "3p": -9}], {"PRE": [200]}),
    ],
)
def test_planted_clones_are_found(events, cells):
    for seed in range(4):
        made, _, planted = clone_profiles.patient("P1", events, cells, seed)
        labels, truth, n_raw = found(made, planted)
        assert labels.max() + 1 == len(events)
        assert n_raw > len(events) or len(events) > 1  # Leiden alone divides one clone
        assert clones.adjusted_rand(labels, truth) >= 0.95


def test_fewer_than_twenty_cells_are_one_clone():
    made, _, planted = clone_profiles.patient("P1", THREE[:2], {"PRE": [9, 10]})
    labels, _, n_raw = found(made, planted)
    assert labels.tolist() == [0] * 19
    assert n_raw == 1


def count_profiles(seed: int, tumour: str, phases: list[str]):
    """Counts of a demo patient (6,000 genes, 450 cells a sample, doublets, ambient, modules) through INFER_CNV's kernel."""
    from scresist import simulation, simulation_tumour

    root = clone_profiles.Path(__file__).resolve().parents[2] / "assets"
    places = pd.read_csv(
        root / "gene_positions.tsv.gz", sep="\t", dtype={"chromosome": str}, keep_default_na=False, na_values=[""]
    )
    places[["gene_id", "chromosome"]] = places[["gene_id", "chromosome"]].fillna("")
    markers = pd.read_csv(root / "markers.tsv", sep="\t").fillna("")
    arms = pd.read_csv(root / "arms.tsv", sep="\t", dtype={"chromosome": str})
    states = simulation.state_table(markers)
    genes = simulation.choose_genes(places, markers, 6000, simulation.background_needed(states))
    model = simulation.build_model(genes, states, markers, np.random.default_rng(100 + seed))
    plan = simulation_tumour.make_plan(model, np.random.default_rng(200 + seed))
    made = simulation_tumour.DEMO_TUMOURS[tumour]
    effects = simulation_tumour.clone_effects(made, simulation_tumour.arm_of_genes(genes, arms))
    rng = np.random.default_rng(seed)
    own = simulation.tumour_effect(genes, plan.reserved(), rng)
    counts, cells = [], []
    for phase in phases:
        drawn, table, _, _ = simulation.simulate_sample(
            model, phase, 450, 1.0, own, simulation.batch_effect(genes, rng), rng,
            further=lambda x, c, phase=phase: simulation_tumour.plant(x, c, phase, made, effects, plan, rng),
        )  # fmt: skip
        keep = ~table["is_poor"].to_numpy(dtype=bool) & (table["doublet_kind"] != "heterotypic").to_numpy()
        counts.append(sparse.csr_matrix(drawn[keep].astype(float)))
        cells.append(table[keep].assign(phase=phase))
    x, table = sparse.csr_matrix(sparse.vstack(counts)), pd.concat(cells, ignore_index=True)
    mean = np.asarray(x.mean(axis=0)).ravel()
    genome = cnv.choose_genes(mean, genes["chromosome"], genes["start"].fillna(-1).astype(int), genes["symbol"], 0.1)
    parts = cnv.regions(genome, arms, 10)
    kernel = cnv.Kernel(x, genome)
    reference = (table["lineage"] != "epithelial").to_numpy()
    groups = cnv.reference_groups(table["main_type"].to_numpy()[reference])
    bounds = kernel.bounds([np.flatnonzero(reference)[groups == name] for name in sorted(set(groups))])
    values = kernel.profiles(np.arange(len(table)), bounds, parts)
    stat = clones.Arms(parts.arms, parts.arm_genes, *cnv.mean_sd(values.arms[reference]), *cnv.mean_sd(values.thirds[reference]))
    rows = np.flatnonzero(~reference & table["is_malignant"].to_numpy(dtype=bool))
    return values, stat, rows, table.iloc[rows], made


@pytest.mark.parametrize(
    ("seed", "tumour", "phases"),
    [(1, "P1", ["PRE", "RES", "POST"]), (2, "P2", ["PRE"]), (15, "P6", ["PRE-R"]), (4, "P8", ["POST"])],
)
def test_demo_patients_from_counts(seed, tumour, phases):
    values, stat, rows, cells, made = count_profiles(seed, tumour, phases)
    assert 60 <= len(rows) <= 300
    labels, _ = clones.find_clones(values.profile[rows], stat.scaled(values.arms[rows]), 1.0, 2.0, 10, 1)
    truth = cells["clone"].to_numpy()
    assert labels.max() + 1 == len(made.clones)
    assert clones.adjusted_rand(labels, truth) >= 0.9
    signs = clones.call_arms(*clones.clone_arms(values.arms[rows], values.thirds[rows], labels, stat), stat.n_genes)
    sets = clones.event_sets(signs, stat.names)
    inside = n = hits = false = n_events = 0
    for at, events in enumerate(sets):
        name = pd.Series(truth[labels == at]).mode()[0]
        planted = made.events[made.events["clone"] == name]
        wanted = {("+" if row.copy_number > 2 else "-") + row.arm for row in planted.itertuples()}
        hits, false, n_events = hits + len(wanted & set(events)), false + len(set(events) - wanted), n_events + len(wanted)
        for phase in phases:
            mine = (cells["phase"] == phase).to_numpy()
            low, high = clones.goodman(np.bincount(labels[mine], minlength=len(sets)))
            inside += low[at] <= made.share(phase)[made.clones.index(name)] <= high[at]
            n += 1
    assert inside >= 0.85 * n
    assert hits >= 0.75 * n_events  # gains of one copy on small arms stay near the limit
    assert false <= 1


# --- second opinions


def test_adjusted_rand_equals_scikit_learn():
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 4, 50), rng.integers(0, 3, 50)
        assert clones.adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b))
    assert clones.adjusted_rand([0, 0, 0], [1, 1, 1]) == 1.0


def plain_ward(values: np.ndarray) -> list[float]:
    """Heights of ward.D2 by its definition: join the pair that raises the within sum of squares least."""
    groups, heights = [[i] for i in range(len(values))], []
    while len(groups) > 1:
        costs = {}
        for a, b in combinations(range(len(groups)), 2):
            n_a, n_b = len(groups[a]), len(groups[b])
            gap = values[groups[a]].mean(axis=0) - values[groups[b]].mean(axis=0)
            costs[a, b] = np.sqrt(2 * n_a * n_b / (n_a + n_b) * (gap**2).sum())
        a, b = min(costs, key=costs.get)
        heights.append(costs[a, b])
        groups = [g for i, g in enumerate(groups) if i not in (a, b)] + [groups[a] + groups[b]]
    return heights


def test_ward_is_ward_d2():
    values = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    tree = clones.ward(values)
    assert np.array_equal(tree, hierarchy.linkage(values.astype(float), "ward"))
    assert tree[:, 2] == pytest.approx(plain_ward(values.astype(float)), abs=1e-9)


def test_silhouette_equals_scikit_learn():
    from sklearn.metrics import silhouette_score

    rng = np.random.default_rng(1)
    values, labels = rng.normal(size=(40, 3)), np.repeat([0, 1, 2, 3], [15, 14, 10, 1])
    gaps = cdist(values, values)
    assert clones.silhouette(gaps, labels) == pytest.approx(silhouette_score(gaps, labels, metric="precomputed"))
    assert clones.silhouette(gaps, np.zeros(40)) == -1.0


def test_ward_opinion_with_and_without_a_subsample():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [120, 90, 60])
    values = rng.normal(size=(270, 8)) + 8 * np.eye(3, 8)[truth]
    strata = np.where(np.arange(270) % 2, "PRE", "POST")
    for most in (5000, 90):
        labels, best, k = clones.ward_opinion(values, strata, 3, 1, max_cells=most)
        assert k == 3
        assert clones.adjusted_rand(labels, truth) == 1.0
        assert clones.adjusted_rand(best, truth) == 1.0
    assert clones.ward_opinion(values[:2], strata[:2], 1, 1)[2] == 0


def test_stratified_keeps_the_shares():
    strata = np.repeat(["a", "b", "c"], [800, 199, 1])
    rows = clones.stratified(strata, 100, 1)
    assert np.unique(strata[rows], return_counts=True)[1].tolist() == [80, 19, 1]
    assert rows.tolist() == sorted(rows)
    assert clones.stratified(strata, 1000, 1).tolist() == list(range(1000))


def test_reference_groups_and_bounds_by_hand():
    kind = np.array(["B"] * 25 + ["T"] * 15 + ["F"] * 10 + ["B"] * 19)
    phase = np.array(["PRE"] * 50 + ["POST"] * 19)
    groups = clones.reference_groups(kind, phase)
    assert [len(g) for g in groups] == [25, 25]  # B of PRE; F and T of PRE together; POST has too few
    reference = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 5.0], [4.0, 5.0]])
    out = clones.subtract_bounds(np.array([[0.0, 3.0], [9.0, 7.0]]), reference, [np.array([0, 1]), np.array([2, 3])])
    assert out.tolist() == [[-1.0, 0.0], [5.0, 2.0]]  # bounds 1 to 4 and 1 to 5


def test_a_phase_effect_in_all_cells_is_undone_by_the_second_reference_design():
    events = [{"8q": 4, "3p": -4}]
    made, _, planted = clone_profiles.patient("P1", events, {"PRE": [60], "POST": [60]}, n_reference=90)
    shift = np.where(made.obs["phase"] == "POST", 0.5, 0.0)[:, None]  # ten noise sd over two chromosomes, normal cells too
    at = np.isin(made.var["chromosome"], ["2", "6"])
    profile = np.asarray(made.obsm["X_cnv"], dtype=float) + shift * at
    arms = np.asarray(made.obsm["arms"], dtype=float)
    arms = arms + shift * np.isin([a.rstrip("pq") for a in clone_profiles.ARMS], ["2", "6"])
    reference = (made.obs["cnv_role"] == "reference").to_numpy()
    rows = made.obs_names.get_indexer(sorted(planted.index))
    table = arms_of(made)  # the spread of one phase, as if the effect had gone unseen
    limits = (1.0, 2.0, 10, 1)
    labels, _ = clones.find_clones(profile[rows], table.scaled(arms[rows]), *limits)
    phase = made.obs["phase"].to_numpy(dtype=str)
    assert clones.adjusted_rand(labels, phase[rows]) == 1.0  # pooled reference: a false clone
    kind = made.obs["main_type"].to_numpy(dtype=str)[reference]
    parts = (profile[rows], arms[rows], profile[reference], arms[reference], kind, phase[reference], table, limits)
    assert clones.reference_design_ari(labels, *parts) == 0.0  # the second design finds one clone
    one = (*parts[:5], np.repeat("PRE", reference.sum()), *parts[6:])
    assert np.isnan(clones.reference_design_ari(labels, *one))


# --- events


def test_event_names_and_scopes():
    signs = np.array([[1, -1, 0], [1, 0, 0], [1, -1, -1]])
    sets = clones.event_sets(signs, ["8q", "3p", "5q"])
    assert sets == [("+8q", "-3p"), ("+8q",), ("+8q", "-3p", "-5q")]
    assert [clones.scope(event, sets) for event in ("+8q", "-3p", "-5q")] == ["trunk", "shared", "private"]
    assert clones.scope("+8q", sets[:1]) == "trunk"


def test_an_arm_shown_in_one_clone_needs_its_mean_only_in_the_others():
    mean = np.array([[3.0, 2.0], [2.0, 2.0], [1.4, 2.0], [-2.0, 2.0]])
    third = np.array([[3, 3, 3, 5, 1, 0], [5, 1, 0, 5, 1, 0], [2, 1, 1, 5, 1, 0], [-5, -1, 0, 5, 1, 0]], dtype=float)
    genes = np.array([100, 100])
    assert cnv.shifted(mean, third, genes)[:, 0].tolist() == [1, 0, 0, 0]
    assert clones.call_arms(mean, third, genes).tolist() == [[1, 0], [1, 0], [0, 0], [0, 0]]


def test_segments_end_with_the_chromosome_and_the_sign():
    z = np.array([2.0] * 10 + [2.0] * 9 + [-2.0] * 12 + [0.0] * 3 + [1.0] * 12)
    chromosome = np.array(["1"] * 10 + ["2"] * 24 + ["3"] * 12)
    # 9 points are too short, a mean of 1 too low
    assert clones.segments(z, chromosome) == [(0, 9, 2.0), (19, 30, -2.0)]
    assert clones.segments(np.zeros(5), chromosome[:5]) == []


def test_segment_scopes():
    a, b, c = [(0, 19, 2.0)], [(5, 24, 2.0), (40, 50, -2.0)], [(0, 19, -2.0)]
    assert clones.segment_scopes([a, b]) == [["trunk"], ["trunk", "private"]]
    assert clones.segment_scopes([a, b, c]) == [["shared"], ["shared", "private"], ["private"]]
    assert clones.segment_scopes([[(0, 19, 2.0)], [(12, 24, 2.0)]]) == [["private"], ["trunk"]]  # half of the second only


def test_event_table():
    table = clones.Arms(("1p", "1q"), np.array([50, 60]), *(np.zeros(2), np.ones(2), np.zeros(6), np.ones(6)))
    points = pd.DataFrame({"chromosome": ["1"] * 3, "start": [1_000_000, 5_500_000, 9_000_000]}, index=["A", "B", "C"])
    made = clones.event_table("P", ["P.C1"], table, np.array([[0, -1]]), np.array([[0.1, -3.0]]), [[(0, 2, 1.9)]], points)
    assert list(made) == list(clones.EVENT_COLUMNS)
    assert made["event"].tolist() == ["-1q", "+1:1.0-9.0Mb"]
    assert made["n_genes"].tolist() == [60, 3]
    assert made["scope"].tolist() == ["trunk", "trunk"]
    assert made.loc[1, ["first_gene", "last_gene", "start", "end"]].tolist() == ["A", "C", 1_000_000, 9_000_000]


# --- shares and changes


def test_goodman_equals_statsmodels():
    from statsmodels.stats.proportion import multinomial_proportions_confint

    for counts in ([10, 20, 30], [0, 7, 93], [56], [1, 1]):
        low, high = clones.goodman(counts)
        theirs = multinomial_proportions_confint(counts, alpha=0.05, method="goodman")
        assert np.column_stack([low, high]) == pytest.approx(theirs, abs=1e-9)
    assert np.isnan(clones.goodman([0, 0])).all()
    low, high = clones.goodman([44, 55, 43, 32, 67, 78])  # example of the R package CoinMinD, function GM
    assert low[:3] == pytest.approx([0.09468368, 0.12376893, 0.09208527], abs=1e-8)
    assert high[:3] == pytest.approx([0.1966413, 0.2350489, 0.1931040], abs=1e-7)


@pytest.mark.parametrize(
    ("numbers", "published"),
    [
        ((56, 70, 48, 80), (0.0524, 0.3339)),  # Newcombe 1998, Stat Med 17:873, table II, method 10
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((6, 7, 2, 7), (0.0582, 0.8062)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
        ((10, 10, 0, 20), (0.6791, 1.0000)),
    ],
)
def test_newcombe_as_published(numbers, published):
    difference, low, high = clones.newcombe(*numbers)
    assert difference == pytest.approx(numbers[0] / numbers[1] - numbers[2] / numbers[3])
    assert (low, high) == pytest.approx(published, abs=6e-5)


def test_detection_limit():
    assert clones.detection_limit(40) == pytest.approx(0.072, abs=1e-3)  # not seen in 40 cells: up to 7 %
    assert (1 - clones.detection_limit(40)) ** 40 == pytest.approx(0.05)
    assert clones.detection_limit(58) > 0.05 > clones.detection_limit(59)
    assert np.isnan(clones.detection_limit(0))


TIMES = {"PRE": 0.0, "RES": 1.0, "POST": 2.0, "PRE-R": np.nan, "X": np.nan}


@pytest.mark.parametrize(
    ("present", "pairs"),
    [
        (["PRE"], []),
        ([], []),
        (["PRE-R"], []),
        (["PRE", "POST"], [("POST", "PRE", True)]),
        (["POST", "RES", "PRE"], [("RES", "PRE", True), ("POST", "RES", True), ("POST", "PRE", True)]),
        (["PRE", "PRE-R"], [("PRE-R", "PRE", False)]),
        (["PRE", "POST", "PRE-R"], [("POST", "PRE", True), ("PRE-R", "PRE", False)]),
        (["PRE-R", "X"], [("X", "PRE-R", False)]),
    ],
)
def test_pairs_of_phases(present, pairs):
    assert clones.phase_pairs(present, TIMES) == pairs


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ((50, 100, 10, 100), "expanding"),
        ((10, 100, 50, 100), "shrinking"),
        ((50, 100, 45, 100), "uncertain"),
        ((40, 100, 0, 59), "emerging"),
        ((40, 100, 0, 58), "expanding"),  # 58 cells cannot exclude a share of 5 %
        ((0, 59, 40, 100), "lost"),
        ((0, 58, 40, 100), "shrinking"),
        ((1, 100, 0, 100), "uncertain"),  # one cell is no clone
        ((0, 100, 0, 100), "uncertain"),
    ],
)
def test_classes_of_change(numbers, word):
    n_a, total_a, n_b, total_b = numbers
    _, low, high = clones.newcombe(*numbers)
    assert clones.change_class(n_a, total_a, n_b, low, high, total_b, True, 0.05) == word
    beside = clones.change_class(n_a, total_a, n_b, low, high, total_b, False, 0.05)
    assert beside == ("uncertain" if word == "uncertain" else "higher" if n_a > n_b else "lower")


def fisher(n_a: int, total_a: int, n_b: int, total_b: int) -> float:
    """Two-sided p by adding up every table that is no more probable than the one seen."""
    hits, total = n_a + n_b, total_a + total_b
    low, high = max(0, hits - total_b), min(hits, total_a)
    p = {k: comb(total_a, k) * comb(total_b, hits - k) / comb(total, hits) for k in range(low, high + 1)}
    return sum(value for value in p.values() if value <= p[n_a] * (1 + 1e-9))


def cells_of(table: dict[str, dict[str, int]]) -> tuple[np.ndarray, np.ndarray]:
    rows = [(clone, phase) for phase, given in table.items() for clone, n in given.items() for _ in range(n)]
    clone, phase = np.array(rows, dtype=object).T
    return clone, phase


COHORT = {"PRE": {"P.C1": 20, "P.C2": 40}, "RES": {"P.C1": 14, "P.C2": 6}, "POST": {"P.C1": 70, "P.C3": 30}}
NAMES = ["P.C1", "P.C2", "P.C3"]


def test_shares_by_phase():
    shares = clones.shares("P", NAMES, *cells_of(COHORT), ["PRE", "RES", "POST", "PRE-R"])
    assert list(shares) == list(clones.PHASE_COLUMNS)
    assert shares["n"].tolist() == [20, 40, 0, 14, 6, 0, 70, 0, 30, 0, 0, 0]
    assert shares["N"].tolist() == [60] * 3 + [20] * 3 + [100] * 3 + [0] * 3
    assert shares["share"].tolist()[:3] == pytest.approx([1 / 3, 2 / 3, 0])
    assert shares["detection_limit"].notna().tolist() == [False, False, True] * 2 + [False, True, False] + [False] * 3
    assert (shares["ci_low"] <= shares["share"]).iloc[:9].all()
    assert (shares["share"] <= shares["ci_high"]).iloc[:9].all()
    assert shares[["share", "ci_low", "ci_high", "detection_limit"]].iloc[9:].isna().all().all()  # no cells: no share, not 0
    assert shares["status"].tolist() == ["ok"] * 9 + ["not_estimable"] * 3


def test_changes_carry_test_and_class():
    shares = clones.shares("P", NAMES, *cells_of(COHORT), ["PRE", "RES", "POST"])
    made = clones.changes(shares, clones.phase_pairs(["PRE", "RES", "POST"], TIMES), 30, 0.05)
    assert list(made) == list(clones.CHANGE_COLUMNS)
    assert list(dict.fromkeys(made["contrast"])) == ["RES_vs_PRE", "POST_vs_RES", "POST_vs_PRE"]
    small = made[made["contrast"] != "POST_vs_PRE"]  # 20 cells at RES
    assert set(small["class"]) == set(small["status"]) == {"not_estimable"}
    assert small[["diff", "ci_low", "ci_high", "log2_ratio", "p_value", "p_adjusted"]].isna().all().all()
    assert small["n_a"].notna().all()
    last = made[made["contrast"] == "POST_vs_PRE"].set_index("clone")
    assert last["class"].to_dict() == {"P.C1": "expanding", "P.C2": "lost", "P.C3": "emerging"}
    p = [fisher(70, 100, 20, 60), fisher(0, 100, 40, 60), fisher(30, 100, 0, 60)]
    assert last["p_value"].tolist() == pytest.approx(p, rel=1e-9)
    order = np.argsort(p)
    by_hand = np.minimum.accumulate((np.array(p)[order] * 3 / np.arange(1, 4))[::-1])[::-1]
    assert last["p_adjusted"].to_numpy()[order] == pytest.approx(by_hand)
    assert last.loc["P.C1", "diff"] == pytest.approx(70 / 100 - 20 / 60)
    assert last.loc["P.C1", "log2_ratio"] == pytest.approx(log((70.5 / 101) / (20.5 / 61), 2))
    assert last.loc["P.C1", "statistic"] == pytest.approx(70 * 40 / (30 * 20))
    assert set(last["evidence"]) == {keys.CELL_LEVEL}
    assert set(last["unit"]) == {"cell"}


def test_one_phase_has_no_change():
    shares = clones.shares("P", NAMES[:2], *cells_of({"PRE": COHORT["PRE"]}), ["PRE"])
    made = clones.changes(shares, [], 30, 0.05)
    assert made["clone"].tolist() == NAMES[:2]
    assert set(made["status"]) == {"skipped_no_input"}
    assert set(made["class"]) == {"not_estimable"}
    assert made[["diff", "n_a", "p_value"]].isna().all().all()


# --- tree


def test_tree_of_shared_events():
    sets = [("t", "s", "x"), ("t", "s", "y"), ("t", "z"), ("t", "s", "x", "w")]
    gap = np.ones((4, 4)) - np.eye(4)
    branches = clones.tree(["C1", "C2", "C3", "C4"], sets, gap)
    assert branches == [
        ("normal", "node2", ("t",)),
        ("node2", "C3", ("z",)),
        ("node2", "node1", ("s",)),
        ("node1", "C1", ("x",)),
        ("C1", "C4", ("w",)),  # C1 has no event that C4 lacks: it is its ancestor
        ("node1", "C2", ("y",)),
    ]


def test_tree_without_shared_events_and_of_one_clone():
    gap = np.ones((3, 3)) - np.eye(3)
    assert clones.tree(["C1"], [("a",)], gap) == [("normal", "C1", ("a",))]
    assert clones.tree(["C1", "C2"], [("a",), ("b",)], gap) == [("normal", "C1", ("a",)), ("normal", "C2", ("b",))]
    # equal trunks make one node with three children, whatever the order of joining
    three = clones.tree(["C1", "C2", "C3"], [("t", "a"), ("t", "b"), ("t", "c")], gap)
    assert three == [("normal", "node1", ("t",)), ("node1", "C1", ("a",)), ("node1", "C2", ("b",)), ("node1", "C3", ("c",))]


def test_tree_table():
    means = np.array([[4.0, 0.0, 0.0], [4.0, 3.0, 0.0], [4.0, 0.0, -5.0]])
    made = clones.tree_table("P", ["C1", "C2", "C3"], [("+1q",), ("+1q", "+2q"), ("+1q", "-3q")], means)
    assert list(made) == list(clones.TREE_COLUMNS)
    pairs = made[made["kind"] == "pair"]
    assert pairs["arm_distance"].tolist() == [3.0, 5.0, 5.0]
    assert pairs["n_shared"].tolist() == [1, 1, 1]
    branches = made[made["kind"] == "branch"]
    assert branches[["clone_a", "clone_b"]].to_numpy().tolist() == [["normal", "C1"], ["C1", "C2"], ["C1", "C3"]]
    assert branches["gained_events"].tolist() == ["+1q", "+2q", "-3q"]


# --- diversity


def test_diversity_by_hand():
    even = clones.diversity([10, 10, 10, 0])
    assert [even["hill_q0"], even["hill_q1"]] == pytest.approx([3, 3])
    assert even["hill_q2"] == pytest.approx(3)
    assert even["pielou"] == pytest.approx(1)
    assert even["clonality"] == pytest.approx(0, abs=1e-12)
    skew = clones.diversity([98, 1, 1])
    h = -(0.98 * log(0.98) + 2 * 0.01 * log(0.01))
    assert skew["shannon"] == pytest.approx(h)
    assert skew["hill_q1"] == pytest.approx(exp(h))
    assert skew["chao1"] == pytest.approx(3 + 2 * 1 / 2)
    one = clones.diversity([50])
    assert one["shannon"] == 0
    assert np.isnan(one["pielou"]) and np.isnan(one["clonality"])


def test_diversity_is_rarefied_to_the_smallest_large_phase():
    counts = {"PRE": [60, 38, 2], "RES": [20, 9, 1], "POST": [400, 90, 10]}
    made = clones.diversity_table("P", counts, 1)
    assert list(made) == list(clones.DIVERSITY_COLUMNS)
    by = made.set_index(["phase", "index"])
    assert set(by.loc["RES", "status"]) == {"not_estimable"}
    assert by.loc["RES", "value"].isna().all()
    assert set(by.loc["POST", "n_cells_rarefied"]) == {100}
    richness = sum(1 - comb(500 - n, 100) / comb(500, 100) for n in counts["POST"])  # Hurlbert 1971
    assert by.loc[("POST", "hill_q0"), "value"] == pytest.approx(richness, abs=0.1)
    assert by.loc[("PRE", "shannon"), "value"] == pytest.approx(clones.diversity(counts["PRE"])["shannon"])
    low, high = by.loc[("PRE", "shannon"), ["ci_low", "ci_high"]]
    assert low < by.loc[("PRE", "shannon"), "value"] < high
    assert clones.diversity_table("P", {"PRE": [80]}, 1).set_index("index").loc["pielou", "status"] == "not_estimable"
    assert clones.diversity_table("P", {"PRE": [8]}, 1)["value"].isna().all()


# --- real data


@pytest.mark.real
def test_tnbc1(shared_data):
    """Breast tumour of CopyKAT, its aneuploid cells against its diploid ones: few clones, gains of 8q and 1q in all of them."""
    from tests.data import real_cohorts

    (sample,), calls = real_cohorts.tnbc1(shared_data)
    root = clone_profiles.Path(__file__).resolve().parents[2] / "assets"
    arms = pd.read_csv(root / "arms.tsv", sep="\t", dtype={"chromosome": str})
    counts = sparse.csr_matrix(sample.layers["counts"]).astype(float)
    mean = np.asarray(counts.mean(axis=0)).ravel()
    places = pd.read_csv(root / "gene_positions.tsv.gz", sep="\t", dtype={"chromosome": str}).drop_duplicates("symbol")
    places = places.set_index("symbol").reindex(sample.var_names)
    start = places["start"].fillna(-1).astype(int)
    genome = cnv.choose_genes(mean, places["chromosome"].fillna(""), start, sample.var_names, 0.1)
    parts = cnv.regions(genome, arms, 10)
    kernel = cnv.Kernel(counts, genome)
    diploid = (calls == "diploid").to_numpy()
    values = kernel.profiles(np.arange(len(calls)), kernel.bounds([np.flatnonzero(diploid)]), parts)
    stat = clones.Arms(parts.arms, parts.arm_genes, *cnv.mean_sd(values.arms[diploid]), *cnv.mean_sd(values.thirds[diploid]))
    rows = np.flatnonzero((calls == "aneuploid").to_numpy())
    labels, _ = clones.find_clones(values.profile[rows], stat.scaled(values.arms[rows]), 1.0, 2.0, 10, 1)
    signs = clones.call_arms(*clones.clone_arms(values.arms[rows], values.thirds[rows], labels, stat), stat.n_genes)
    sets = clones.event_sets(signs, stat.names)
    assert 1 <= len(sets) <= 3
    assert all({"+8q", "+1q"} <= set(events) for events in sets)
