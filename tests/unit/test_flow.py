"""Information flow: sums, RankNet's scale, tests against closed forms and scipy, the permutation of cells, drivers."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from scresist import communication, comparison, flow, keys

PATIENT_OF = {"a1": "P1", "a2": "P1", "a3": "P2", "b1": "P3", "b2": "P4"}
CELLS = pd.Series({"a1": 10.0, "a2": 30.0, "a3": 50.0, "b1": 20.0, "b2": 20.0})


def links(rows):
    """Links from (sample, source, target, pair, pathway, prob)."""
    frame = pd.DataFrame(rows, columns=["sample", "source", "target", "pair", "pathway", "prob"])
    return frame.assign(ligand=frame["pair"].str.split("_").str[0], receptor=frame["pair"].str.split("_").str[-1])


HAND = links(
    [
        ("a1", "T", "B", "L1_R1", "TGFb", 0.30),
        ("a1", "T", "B", "L2_R1", "TGFb", 0.10),
        ("a1", "T", "Mast", "L1_R1", "TGFb", 0.20),
        ("a1", "Mast", "B", "L9_R9", "KIT", 0.50),
        ("b1", "T", "B", "L1_R1", "TGFb", 0.05),
        ("b1", "B", "T", "L3_R3", "CXCL", 0.40),
    ]
)


def test_flows_by_hand():
    found = flow.sample_flows(HAND, ["b1", "a1"], ["B", "T"], 4).set_index(["sample", "pathway"])
    expected = {  # flow_all, flow_common, pairs, links
        ("a1", "CXCL"): (0.0, 0.0, 0, 0),
        ("a1", "KIT"): (0.5, np.nan, 1, 1),
        ("a1", "TGFb"): (0.6, 0.4, 2, 3),
        ("b1", "CXCL"): (0.4, 0.4, 1, 1),
        ("b1", "KIT"): (0.0, np.nan, 0, 0),
        ("b1", "TGFb"): (0.05, 0.05, 1, 1),
    }
    assert found.index.tolist() == sorted(expected)
    for key, (whole, common, pairs, n) in expected.items():
        row = found.loc[key]
        assert row["flow_all"] == pytest.approx(whole, abs=1e-9)
        assert row["flow_common"] == pytest.approx(common, abs=1e-9, nan_ok=True)
        assert (row["n_pairs"], row["n_links"]) == (pairs, n)
    assert found.loc[("a1", "TGFb"), "share_common"] == pytest.approx(2 / 3, abs=1e-9)
    assert found["share_common"].isna().tolist() == [True, True, False, False, True, False]  # 0 / 0 and what is not estimable
    assert found.loc[("a1", "KIT"), ["status", "reason"]].tolist() == [
        keys.NOT_ESTIMABLE, "every link ends at a type that a compared sample lacks",
    ]  # fmt: skip
    few = flow.sample_flows(HAND, ["b1", "a1"], ["T"], 4)
    assert few["flow_common"].isna().all()
    assert set(few["status"]) == {keys.NOT_ESTIMABLE}
    assert few["reason"].iloc[0] == "1 pairs of types in common, 4 needed"
    assert few["flow_all"].sum() == pytest.approx(1.55)


def test_flow_common_of_other_pathways_does_not_know_a_type_that_left():
    """Without Mast in b1 the pathways between B and T keep their common flows to the last digit."""
    both = links([("b1", "Mast", "B", "L9_R9", "KIT", 0.2), ("b1", "T", "Mast", "L1_R1", "TGFb", 0.1)])
    with_mast = flow.sample_flows(pd.concat([HAND, both]), ["a1", "b1"], ["B", "T", "Mast"], 4).set_index(["sample", "pathway"])
    without = flow.sample_flows(HAND, ["a1", "b1"], ["B", "T"], 4).set_index(["sample", "pathway"])
    cxcl = [("a1", "CXCL"), ("b1", "CXCL")]
    assert with_mast.loc[cxcl, "flow_common"].tolist() == without.loc[cxcl, "flow_common"].tolist()
    assert without.loc[[("a1", "KIT"), ("b1", "KIT")], "flow_common"].isna().all()  # never 0
    assert with_mast.loc[("b1", "KIT"), "flow_common"] == pytest.approx(0.2)


def test_common_types_and_links():
    estimable = pd.DataFrame({"a1": [True, True, True], "b1": [True, True, False]}, index=["B", "T", "Mast"])
    assert flow.common_types(estimable, ["a1", "b1"]) == ["B", "T"]
    assert flow.common_types(estimable, ["a1"]) == ["B", "T", "Mast"]
    assert flow.common_types(estimable, []) == []
    union = flow.link_set(HAND, ["a1", "b1"], ["B", "T"])
    assert union.to_numpy().tolist() == [["L1_R1", "T", "B"], ["L2_R1", "T", "B"], ["L3_R3", "B", "T"]]
    frame = HAND.assign(pval=[0.0, 0.05, 0.051, 0.01, 1.0, 0.02])
    assert flow.significant(frame, 0.05)["prob"].tolist() == [0.30, 0.10, 0.50, 0.40]


def test_sides_weigh_patients_alike():
    sides = flow.sides_of("x", ("a", "b"), [["a3", "a1", "a2"], ["b1", "b2"]], CELLS, PATIENT_OF)
    assert sides.samples == (("a1", "a2", "a3"), ("b1", "b2"))
    assert dict(sides.weights) == pytest.approx({"a1": 0.125, "a2": 0.375, "a3": 0.5, "b1": 0.5, "b2": 0.5})
    values = pd.Series({"a1": 1.0, "a2": 2.0, "a3": 5.0, "b1": 1.0, "b2": 3.0})
    side = comparison.by_patient(values, CELLS, sides.samples[0], PATIENT_OF)["value"].mean()
    assert sum(sides.weights[s] * values[s] for s in sides.samples[0]) == pytest.approx(side, abs=1e-12)
    paired = flow.sides_of("x", ("a", "b"), [["a1", "a3"], ["b1", "b2"]], CELLS, {**PATIENT_OF, "b1": "P1"}, paired=True)
    assert paired.samples == (("a1",), ("b1",))


def test_contributions_and_sides_by_hand():
    sides = flow.sides_of("x", ("a", "b"), [["a1", "a3"], ["b1"]], CELLS, PATIENT_OF)
    parts = flow.contributions(HAND, sides, ["B", "T"]).set_index(["pair", "source", "target"])
    assert parts.loc[("L1_R1", "T", "B"), [0, 1]].tolist() == pytest.approx([0.15, 0.05], abs=1e-12)  # a3 has none: half
    assert parts.loc[("L3_R3", "B", "T"), [0, 1]].tolist() == pytest.approx([0.0, 0.4], abs=1e-12)
    assert len(parts) == 3
    flows = flow.side_flows(flow.sample_flows(HAND, sides.all_samples, ["B", "T"], 4), sides)
    assert flows.loc["TGFb"].tolist() == pytest.approx([0.2, 0.05], abs=1e-9)
    assert flows.loc["KIT"].isna().all()
    assert flow.contributions(HAND, sides, []).empty


def test_display_scale_by_hand():
    """rankNet: -1/ln F below 1; F >= 1 at 1.1 .. 1.5 times the largest of the others, in order of F."""
    given = np.array([[0.5, np.exp(-1)], [2.0, 1.0], [0.0, 7.0]])
    small = [-1 / np.log(0.5), 1.0]
    top = max(small)
    found = flow.display_scale(given)
    assert found[0] == pytest.approx(small, abs=1e-9)
    assert found[1, 1] == pytest.approx(1.1 * top, abs=1e-9)
    assert found[1, 0] == pytest.approx(1.3 * top, abs=1e-9)
    assert found[2].tolist() == pytest.approx([0.0, 1.5 * top], abs=1e-9)
    assert flow.display_scale(np.array([3.0, np.nan])).tolist() == pytest.approx([1.1, np.nan], nan_ok=True)
    assert flow.display_scale(np.array([0.1, 4.0]))[1] == pytest.approx(1.1 * (-1 / np.log(0.1)))
    assert flow.display_scale(np.zeros((0, 2))).shape == (0, 2)


def test_shares():
    found = flow.side_shares(np.array([[1.0, 3.0], [0.0, 0.0], [np.nan, 1.0]]))
    assert found[0].tolist() == [0.25, 0.75]
    assert np.isnan(found[1:]).all()


def test_pair_test_is_the_paired_wilcoxon_of_r():
    rng = np.random.default_rng(0)
    a, b = rng.random(12), rng.random(12)
    zeros = np.zeros((5, 2))  # pairs of types that are silent on both sides do not count
    p, name, n = flow.pair_test(np.vstack([np.column_stack([a, b]), zeros]))
    assert (p, name, n) == (pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue, abs=1e-12), "wilcoxon_paired", 12)
    # ties and pairs without change: normal approximation with continuity correction, as R does
    tied = np.array([[0.5, 0.4], [0.3, 0.2], [0.2, 0.4], [0.6, 0.3], [0.1, 0.1], [0.9, 0.5]]).round(1)
    d = np.round(tied[:, 0] - tied[:, 1], 10)
    expected = stats.wilcoxon(d[d != 0], method="approx", correction=True).pvalue
    assert flow.pair_test(np.column_stack([d, np.zeros(6)])[d != 0])[0] == pytest.approx(expected, abs=1e-12)
    # the normal approximation written out: a pair without change leaves, ties narrow the spread
    x, y = np.array([1, 2, 3, 4, 5, 6, 0.5, 7]), np.array([2, 1, 4, 8, 3, 10, 0.5, 1])
    p, _, n = flow.pair_test(np.column_stack([x, y]))
    ranks = stats.rankdata(np.abs((x - y)[x != y]))
    v = ranks[(x - y)[x != y] > 0].sum()
    ties = np.unique(ranks, return_counts=True)[1]
    sd = np.sqrt(7 * 8 * 15 / 24 - (ties.astype(float) ** 3 - ties).sum() / 48)
    z = v - 14
    assert p == pytest.approx(2 * stats.norm.sf(abs(z - np.sign(z) * 0.5) / sd), abs=1e-12)
    assert n == 8
    c = rng.random(12)
    p, name, _ = flow.pair_test(np.column_stack([a, b, c]))
    assert (p, name) == (pytest.approx(stats.friedmanchisquare(a, b, c).pvalue, abs=1e-12), "friedman")
    assert np.isnan(flow.pair_test(np.column_stack([a, b])[:3])[0])  # CellChat prints 0 here
    assert np.isnan(flow.pair_test(np.ones((6, 2)))[0])
    assert np.isnan(flow.pair_test(np.ones((6, 3)))[0])


def test_label_test_counts_every_arrangement():
    a, b = np.array([5.0, 6.0, 4.5]), np.array([1.0, 2.0, 3.0, 0.5])
    both = np.concatenate([a, b])
    observed = a.mean() - b.mean()
    hits = 0
    for chosen in combinations(range(7), 3):
        rest = [i for i in range(7) if i not in chosen]
        hits += abs(both[list(chosen)].mean() - both[rest].mean()) >= abs(observed) - 1e-9
    p, name, least = flow.label_test(a, b, False, 1)
    assert (p, name) == (pytest.approx(hits / 35), "permutation_labels_exact")
    assert least == pytest.approx(1 / 35)
    assert flow.label_test(a, b[:3], False, 1)[2] == pytest.approx(2 / 20)
    d = np.array([0.5, 1.5, -0.2, 2.0])
    hits = sum(abs(np.dot(signs, d)) >= abs(d.sum()) - 1e-9 for signs in product([-1, 1], repeat=4))
    p, name, least = flow.label_test(d, np.zeros(4), True, 1)
    assert (p, name, least) == (pytest.approx(hits / 16), "permutation_signs_exact", 0.125)
    assert np.isnan(flow.label_test(a[:1], b, False, 1)[0])
    assert np.isnan(flow.label_test(np.ones(3), np.ones(4), False, 1)[0])
    assert np.isnan(flow.label_test(np.ones(3), np.ones(3), True, 1)[0])


def test_label_test_draws_where_arrangements_are_too_many():
    rng = np.random.default_rng(2)
    a, b = rng.normal(0, 1, 12), rng.normal(0.8, 1, 12)
    p, name, least = flow.label_test(a, b, False, 5)
    assert name == "permutation_labels_drawn"
    assert p == flow.label_test(a, b, False, 5)[0]
    assert p == pytest.approx(stats.ttest_ind(a, b).pvalue, abs=0.02)
    assert least == pytest.approx(1 / 10000)
    paired, name, _ = flow.label_test(np.tile(a, 2), np.tile(b, 2), True, 5)
    assert name == "permutation_signs_drawn"
    assert 0 < paired < 0.1


def test_patient_and_phase_tests():
    contrast = comparison.Contrast("x", ("a1", "a2", "a3"), ("b1", "b2"), False, keys.OK, "", "declared")
    values = pd.Series({"a1": 1.0, "a2": 2.0, "a3": 5.0, "b1": 0.2, "b2": 0.4})
    row = flow.patient_test(values, CELLS, contrast, PATIENT_OF, 1)
    assert row["effect"] == pytest.approx((1.75 + 5) / 2 - 0.3)
    assert row["p_value"] == pytest.approx(1 / 3)
    assert (row["label_p_value"], row["label_test"]) == (pytest.approx(1 / 3), "permutation_labels_exact")
    gone = flow.patient_test(values.drop(["b1", "b2"]), CELLS, contrast, PATIENT_OF, 1)
    assert (gone["status"], gone["reason"]) == (keys.NOT_ESTIMABLE, "2 against 0 patients with values, 1 a side needed")
    one = flow.patient_test(values.drop("b1"), CELLS, contrast, PATIENT_OF, 1)
    assert (one["status"], one["reason"]) == (keys.NO_REPLICATES, "2 against 1 patients with values, 2 a side needed")
    assert np.isnan(one["label_p_value"])
    same = flow.patient_test(values * 0, CELLS, contrast, PATIENT_OF, 1)
    assert (same["status"], same["reason"]) == (keys.NOT_ESTIMABLE, "all values are equal")

    names = [f"{p}{i}" for p in "abc" for i in range(3)]
    patient_of = {name: f"P{i}" for i, name in enumerate(names)}
    cells = pd.Series(10.0, index=names)
    sides = flow.sides_of(flow.ALL_PHASES, ("PRE", "RES", "POST"), [names[:3], names[3:6], names[6:]], cells, patient_of)
    values = pd.Series(np.array([1, 2, 3, 7, 8, 9, 4, 5, 6.5]), index=names)
    row = flow.phase_test(values, cells, sides, patient_of)
    assert row["p_value"] == pytest.approx(stats.kruskal(values[:3], values[3:6], values[6:]).pvalue)
    assert (row["status"], row["reason"], row["evidence"]) == (keys.OK, "", keys.REPLICATED)
    repeated = flow.phase_test(values, cells, sides, {**patient_of, "c0": "P0"})
    assert (repeated["status"], repeated["reason"][:15]) == (keys.WARNING, "patients repeat")
    alone = flow.phase_test(values.drop(["a1", "a2"]), cells, sides, patient_of)
    assert (alone["status"], np.isnan(alone["p_value"])) == (keys.NO_REPLICATES, True)
    assert flow.phase_test(values[:3], cells, sides, patient_of)["status"] == keys.NOT_ESTIMABLE
    assert flow.phase_test(values * 0, cells, sides, patient_of)["status"] == keys.NOT_ESTIMABLE


# --- permutation of cells

TABLE = pd.DataFrame(
    [
        ("p1", "W1", "l1", "r1", "G0", "G1,G2", "G4"),
        ("p2", "W2", "l2", "r2", "G3", "G1", ""),
        ("p3", "W1", "l3", "r3", "G2", "G3", ""),
    ],
    columns=["pair", "pathway", "ligand", "receptor", "ligand_genes", "receptor_genes", "antagonist"],
)  # fmt: skip
TYPES = ("A", "B")
UNION = pd.DataFrame(
    [("p1", "A", "B"), ("p1", "B", "B"), ("p2", "B", "A"), ("p3", "A", "A")], columns=["pair", "source", "target"]
)


def some_cells(seed=0, n=160, shift=0.0):
    """Values of five genes, type (2) and sample (4) of each cell; `shift` is added to G0 in samples 0 and 1."""
    rng = np.random.default_rng(seed)
    dense = rng.gamma(2.0, 0.1, (n, 5)) * (rng.random((n, 5)) < 0.8)
    types, samples = rng.integers(0, 2, n), np.sort(np.arange(n) % 4)
    dense[samples < 2, 0] += shift
    return sparse.csr_matrix(dense / dense.max()), types, samples


def run(values, types, samples, pairs, n_perms=20, strata=None, **more):
    weights = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    strata = np.zeros(len(types), dtype=int) if strata is None else strata
    return flow.cell_permutation(values, types, samples, strata, weights, pairs, UNION, TYPES, n_perms, 7, **more)


def test_cell_permutation_equals_a_plain_computation():
    values, types, samples = some_cells()
    pairs = communication.read_pairs(TABLE, [f"G{i}" for i in range(5)])
    found = run(values, types, samples, pairs)
    assert found.pathways == ("W1", "W2")
    assert found.n_links.tolist() == [3, 1]
    dense = values.toarray()
    expected = np.zeros((4, 2))
    for sample in range(4):
        mean = np.empty((2, 5))
        for kind in range(2):
            q1, q2, q3 = np.quantile(dense[(samples == sample) & (types == kind)], [0.25, 0.5, 0.75], axis=0)
            mean[kind] = (q1 + 2 * q2 + q3) / 4

        def hill(x):
            return x / (0.5 + x)

        def stop(mean, kind):
            return 0.5 / (0.5 + mean[kind, 4])

        def complex_(mean, kind):
            return np.sqrt(mean[kind, 1] * mean[kind, 2])

        w1 = hill(mean[0, 0] * complex_(mean, 1)) * stop(mean, 0) * stop(mean, 1)
        w1 += hill(mean[1, 0] * complex_(mean, 1)) * stop(mean, 1) ** 2 + hill(mean[0, 2] * mean[0, 3])
        expected[sample] = w1, hill(mean[1, 3] * mean[0, 1])
    sides = np.array([expected[:2].mean(axis=0), expected[2:].mean(axis=0)])
    assert found.observed == pytest.approx(sides, abs=1e-12)
    plain = run(values, types, samples, pairs, cofactors=False).observed
    assert (plain[:, 0] > found.observed[:, 0]).all()
    assert plain[:, 1] == pytest.approx(found.observed[:, 1])


def test_cell_permutation_knows_neither_threads_nor_the_order_of_links():
    values, types, samples = some_cells()
    pairs = communication.read_pairs(TABLE, [f"G{i}" for i in range(5)])
    one, two = run(values, types, samples, pairs, n_draws=3), run(values, types, samples, pairs, threads=2, n_draws=3)
    assert np.array_equal(one.null, two.null)
    assert np.array_equal(one.equal, two.equal)
    again = flow.cell_permutation(
        values, types, samples, np.zeros(160, dtype=int), np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]), pairs, UNION.iloc[::-1],
        TYPES, 20, 7,
    )  # fmt: skip
    assert again.null == pytest.approx(one.null, abs=1e-12)


def test_cell_permutation_keeps_strata_apart():
    """Where each stratum holds one sample, nothing can move: the null is the observed flow and no p exists."""
    values, types, samples = some_cells(shift=0.5)
    pairs = communication.read_pairs(TABLE, [f"G{i}" for i in range(5)])
    found = run(values, types, samples, pairs, strata=samples)
    assert found.null == pytest.approx(np.broadcast_to(found.observed, found.null.shape), abs=1e-12)
    table = flow.cell_table(found)
    assert table[["cell_z", "cell_p_value"]].isna().all(axis=None)
    assert table["cell_effect"].notna().all()
    within = run(values, types, samples, pairs, strata=samples % 2)
    assert flow.cell_table(within).loc["W1", "cell_p_value"] < 0.1


def test_cell_table_finds_a_shift_and_keeps_its_level():
    pairs = communication.read_pairs(TABLE, [f"G{i}" for i in range(5)])
    shifted = flow.cell_table(run(*some_cells(shift=0.5), pairs, n_perms=99, n_draws=5))
    assert shifted.loc["W1", "cell_p_value"] == pytest.approx(0.01)
    assert shifted.loc["W1", "cell_z"] > 4
    assert shifted.loc["W1", "cell_effect_equal"] == pytest.approx(shifted.loc["W1", "cell_effect"], rel=0.3)
    p = [flow.cell_table(run(*some_cells(seed, n=80), pairs, n_perms=19)).loc["W2", "cell_p_value"] for seed in range(100)]
    assert 0.04 <= np.mean(np.array(p) <= 0.2) <= 0.36  # 20 expected of 100, four standard deviations either way


def test_cell_table_by_hand():
    null = np.zeros((4, 2, 1))
    null[:, 0, 0] = [0.1, -0.3, 0.2, 0.0]
    found = flow.CellTest(("W",), np.array([[0.25], [0.0]]), null, np.array([[0.2], [0.1]]), np.array([3]))
    row = flow.cell_table(found).loc["W"]
    centre = (0.1 - 0.3 + 0.2 + 0 + 0.25) / 5
    hits = sum(abs(v - centre) >= 0.25 - centre for v in (0.1, -0.3, 0.2, 0.0))
    assert row["cell_p_value"] == pytest.approx((hits + 1) / 5)
    assert row["cell_z"] == pytest.approx((0.25 - 0.0) / np.std([0.1, -0.3, 0.2, 0.0], ddof=1))
    assert row["cell_effect_equal"] == pytest.approx(0.1)
    assert row["cell_d"] == pytest.approx(row["cell_z"] / 2)  # alone, its own sd is the median
    # a named pathway of large spread and an unnamed one of small spread: d weighs the second by the first
    two = flow.CellTest(("W", "other:X"), np.array([[2.0, 0.3], [0.0, 0.0]]), np.concatenate([null, null / 100], axis=2),
                        np.full((2, 2), np.nan), np.array([3, 1]))  # fmt: skip
    made, sd = flow.cell_table(two), np.std([0.1, -0.3, 0.2, 0.0], ddof=1)
    assert made["cell_z"].tolist() == pytest.approx([2 / sd, 0.3 / (sd / 100)])
    assert made["cell_d"].tolist() == pytest.approx([2 / (2 * sd), 0.3 / (sd / 100 + sd)])
    # three phases: the range
    more = flow.CellTest(("W",), np.array([[0.5], [0.1], [0.3]]), np.full((3, 3, 1), 0.2) + np.arange(3)[None, :, None] * 0.1,
                         np.full((3, 1), np.nan), np.array([1]))  # fmt: skip
    assert flow.cell_table(more).loc["W", "cell_effect"] == pytest.approx(0.4)
    row = flow.cell_table(more).loc["W"]
    assert row["cell_p_value"] == 0.25  # every permutation gave the same, none as much as observed
    assert np.isnan(row["cell_z"])
    # a signal that mixing abolishes in every permutation has no z, yet a d from the spread of the others
    both = flow.CellTest(("V", "W"), np.array([[0.3, 0.5], [0.0, 0.1]]), np.concatenate([null, null * 0], axis=2),
                         np.full((2, 2), np.nan), np.array([1, 1]))  # fmt: skip
    row = flow.cell_table(both).loc["W"]
    assert (row["cell_p_value"], row["cell_d"]) == (0.2, pytest.approx(0.4 / np.std([0.1, -0.3, 0.2, 0.0], ddof=1)))
    assert np.isnan(row["cell_z"])
    none = flow.CellTest(("W",), np.array([[0.5], [0.1]]), np.empty((0, 2, 1)), np.full((2, 1), np.nan), np.array([1]))
    assert flow.cell_table(none).loc["W", ["cell_z", "cell_p_value"]].isna().all()


# --- tables


def test_ranks():
    rows = pd.DataFrame(
        {
            "pathway": ["E", "D", "C", "B", "A", "other:Z"], "cell_d": [1.0, -3.0, 1.0, np.nan, np.nan, 9.0],
            "cell_effect": [0.1, 0.1, -0.2, 0.5, np.nan, 9.0], "effect": [0.1, 0.1, 0.1, 0.1, np.nan, 9.0],
        }
    )  # fmt: skip
    assert flow.ranked(rows).fillna(0).tolist() == [3, 1, 2, 4, 0, 5]
    assert flow.named(["TGFb", "other:TGFB1"]).tolist() == [True, False]
    p = pd.Series([0.01, 0.04, 0.02, np.nan])
    found = flow.adjusted(p, ["A", "B", "other:C", "other:D"])
    assert found == pytest.approx([0.02, 0.04, 0.02, np.nan], nan_ok=True)


def test_drivers_by_hand():
    sides = flow.sides_of("x", ("a", "b"), [["a1"], ["b1"]], CELLS, PATIENT_OF)
    parts = flow.contributions(HAND, sides, ["B", "T"])
    most = dict.fromkeys(flow.LEVELS, 1)
    rows = flow.driver_rows(parts, "x", most, 0, 1)
    mine = rows[rows["pathway"] == "TGFb"].set_index("level")
    assert mine.index.tolist() == ["pair", "sender", "receiver", "types", "interaction"]
    assert mine.loc["pair", ["pair", "delta", "rank"]].tolist() == ["L1_R1", pytest.approx(0.25), 1]
    assert mine.loc["pair", "share_of_change"] == pytest.approx(0.25 / 0.35)
    assert mine.loc["sender", ["source", "flow_a", "flow_b", "delta"]].tolist() == [
        "T", pytest.approx(0.4), pytest.approx(0.05), pytest.approx(0.35),
    ]  # fmt: skip
    assert mine.loc["sender", "target"] is np.nan or pd.isna(mine.loc["sender", "target"])
    cxcl = rows[(rows["pathway"] == "CXCL") & (rows["level"] == "receiver")].iloc[0]
    assert (cxcl["target"], cxcl["delta"]) == ("T", pytest.approx(-0.4))
    assert len(flow.driver_rows(parts, "x", most, 50, 1).query("level == 'interaction'")) == 3
    gone = flow.absent_driver_rows(HAND, sides, ["B", "T"], {"Mast": "2 cells in b1"})
    assert gone[["pathway", "level", "source", "target", "status", "reason"]].fillna("").to_numpy().tolist() == [
        ["KIT", "sender", "Mast", "", keys.NOT_ESTIMABLE, "2 cells in b1"],
        ["TGFb", "receiver", "", "Mast", keys.NOT_ESTIMABLE, "2 cells in b1"],
    ]
    assert gone[["flow_a", "flow_b", "delta"]].isna().all(axis=None)
    assert list(gone) == list(rows) == list(flow.DRIVER_COLUMNS)


def test_phase_matrices_by_hand():
    """Two patients in PRE, the first with two samples; Mast was estimable in one of his samples only."""
    estimable = pd.DataFrame(True, index=["B", "Mast", "T"], columns=["a1", "a2", "a3", "b1"])
    estimable.loc["Mast", ["a2", "a3", "b1"]] = False
    sides = flow.sides_of(flow.ALL_PHASES, ("PRE", "RES"), [["a1", "a2", "a3"], ["b1"]], CELLS, PATIENT_OF)
    more = links(
        [("a2", "T", "B", "L1_R1", "TGFb", 0.1), ("a3", "T", "B", "L1_R1", "TGFb", 0.6), ("a3", "T", "B", "x_y", "other:x", 1.0)]
    )
    pathways, found, n = flow.phase_matrices(pd.concat([HAND, more]), sides, estimable, CELLS, PATIENT_OF)
    assert pathways == ["CXCL", "KIT", "TGFb"]
    tgfb = found[0, 2]
    assert tgfb[2, 0] == pytest.approx(((10 * 0.4 + 30 * 0.1) / 40 + 0.6) / 2, abs=1e-12)  # T to B
    assert tgfb[2, 1] == pytest.approx(0.2, abs=1e-12)  # T to Mast: a1 alone
    assert n[0].tolist() == [[2, 1, 2], [1, 1, 1], [2, 1, 2]]
    assert np.isnan(found[1, 2, 2, 1])  # RES has no mast cells
    assert found[1, 0, 0, 2] == pytest.approx(0.4)
    assert found[1, 0, 2, 0] == 0


def test_phase_rows():
    sides = flow.sides_of(flow.ALL_PHASES, ("PRE", "RES"), [["a1"], ["b1"]], CELLS, PATIENT_OF)
    flows = flow.side_flows(flow.sample_flows(HAND, ["a1", "b1"], ["B", "T"], 4), sides)
    estimable = pd.DataFrame({"a1": True, "b1": [True, False, True]}, index=["B", "Mast", "T"])
    matrices = flow.phase_matrices(HAND, sides, estimable, CELLS, PATIENT_OF)
    absent = {"Mast": {"RES": "2 cells in b1"}}
    rows = flow.phase_rows(flows, sides, ["B", "Mast", "T"], matrices, absent, ["TGFb"], {"PRE": 1, "RES": 1}, 1)
    assert list(rows) == list(flow.PHASE_COLUMNS)
    whole = rows[rows["level"] == "pathway"].set_index(["pathway", "phase"])
    assert whole.loc[("TGFb", "PRE"), "share"] == pytest.approx(0.4 / 0.45)
    assert whole.loc[("KIT", "PRE"), "status"] == keys.NOT_ESTIMABLE
    assert np.isnan(whole.loc[("KIT", "PRE"), "flow"])
    lead = rows[(rows["level"] == "receiver") & (rows["pathway"] == "TGFb")]
    assert lead[["phase", "target", "rank"]].to_numpy().tolist() == [["PRE", "B", 1], ["RES", "B", 1]]
    assert lead["share"].tolist() == pytest.approx([0.4 / 0.6, 1])
    matrix = rows[rows["level"] == "types"]
    assert len(matrix) == 2 * 9
    mast = matrix[((matrix["source"] == "Mast") | (matrix["target"] == "Mast")) & (matrix["phase"] == "RES")]
    assert mast["flow"].isna().all()
    assert set(mast["status"]) == {keys.NOT_ESTIMABLE}
    assert set(mast["reason"]) == {"2 cells in b1"}
    assert set(mast["n_patients"]) == {0}
    rest = matrix.drop(mast.index)
    assert rest["flow"].notna().all()
    assert rest["flow"].sum() == pytest.approx(0.65)


def test_absent_types():
    groups = pd.DataFrame(
        [("a1", "P1", "PRE", "B", 20, "true"), ("a1", "P1", "PRE", "Mast", 9, "true"), ("b1", "P3", "RES", "B", 20, "true"),
         ("b1", "P3", "RES", "Mast", 2, "false")],
        columns=list(flow.GROUP_COLUMNS),
    )  # fmt: skip
    estimable = flow.estimable_types(groups)
    assert estimable.loc["Mast"].tolist() == [True, False]
    sides = flow.sides_of("RES_vs_PRE", ("a", "b"), [["b1"], ["a1"]], CELLS, PATIENT_OF)
    found = flow.absent_types(groups, estimable, {"a1": "PRE", "b1": "RES"}, [sides])
    assert found.to_numpy().tolist() == [
        ["Mast", "b1", "P3", "RES", 2, "yes", "RES_vs_PRE", keys.NOT_ESTIMABLE, "2 cells in b1, too few for an average"]
    ]
    assert flow.unlisted(groups) == []
    assert flow.unlisted(groups.iloc[:3]) == ["b1: no row for Mast in its comm_groups.tsv"]


def test_expression():
    values = sparse.csr_matrix([[1.0, 0.0], [3.0, 2.0], [5.0, 0.0], [7.0, 7.0]])
    means = flow.mean_expression(values, np.array([0, 0, 1, -1]), np.array([0, 0, 1, 1]), 2, 2)
    assert means[0, 0].tolist() == [2.0, 1.0]
    assert means[1, 1].tolist() == [5.0, 0.0]
    assert np.isnan(means[0, 1]).all()
    assert flow.complex_expression(means[0, 0], np.array([0, 1, -1])) == 1.0
    assert np.isnan(flow.complex_expression(means[0, 0], np.array([-1])))


def test_words_about_bad_tables():
    good = HAND.assign(pval=0.01)[list(flow.LINK_COLUMNS)]
    assert flow.check_links(good, "x") == []
    assert flow.check_links(good.drop(columns="pval"), "x")[0].startswith("x: no column pval")
    assert flow.check_links(good.assign(prob=-1.0), "x")[0] == "x: row 2: prob is -1.0, expected a number of at least 0"
    assert flow.check_links(good.assign(pval=2.0), "x")[0].startswith("x: row 2: pval is 2.0")
    assert "stands twice" in flow.check_links(pd.concat([good, good]), "x")[0]
    groups = pd.DataFrame([("a1", "P1", "PRE", "B", 20, "true")], columns=list(flow.GROUP_COLUMNS))
    assert flow.check_groups(groups, "g") == []
    assert flow.check_groups(groups.drop(columns="n_cells"), "g")[0].startswith("g: no column n_cells")
    assert "B stands twice" in flow.check_groups(pd.concat([groups, groups]), "g")[0]
    assert flow.check_groups(groups.assign(estimable="1"), "g") == ["g: estimable is 1, expected true or false"]
