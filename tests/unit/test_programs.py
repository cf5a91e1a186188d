"""Modules, scores, traits and preservation against numpy, scipy and hand-worked figures."""

from __future__ import annotations

from itertools import permutations
from math import factorial

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from scresist import programs


def planted(n=60, sizes=(20, 20, 15), noise=0.5, rest=10, seed=0):
    """Metacells x genes with one factor per module, then genes without; and the labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([*range(1, len(sizes) + 1), 0], [*sizes, rest])
    factors = rng.normal(size=(n, len(sizes) + 1))
    values = np.where(labels > 0, factors[:, labels - 1], 0) + noise * rng.normal(size=(n, len(labels)))
    return values + 5, labels, factors


# --- modules on metacells


@pytest.mark.parametrize("shape", [(60, 12), (12, 60)])
def test_eigengene_is_the_first_singular_vector(shape):
    values = np.random.default_rng(1).normal(size=shape) + np.random.default_rng(2).normal(size=(shape[0], 1))
    vector, share = programs.eigengene(values)
    z = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    u, d, _ = np.linalg.svd(z, full_matrices=False)
    assert abs(vector @ u[:, 0]) == pytest.approx(1)
    assert share == pytest.approx(d[0] ** 2 / (d**2).sum())
    assert np.corrcoef(vector, z.mean(axis=1))[0, 1] > 0
    assert programs.eigengene(-values)[0] == pytest.approx(-vector)  # the sign follows the expression


def test_membership_is_pearson():
    values, labels, _ = planted()
    vector = programs.eigengene(values[:, labels == 1])[0]
    kme = programs.membership(values, vector[:, None])[:, 0]
    assert kme.tolist() == pytest.approx([np.corrcoef(values[:, j], vector)[0, 1] for j in range(len(labels))])
    assert programs.membership(values, np.empty((60, 0))).shape == (65, 0)


def test_p_of_a_membership():
    z = np.arctanh(0.4) * np.sqrt(47)
    assert programs.log_p(np.array([0.4, -0.4]), 50) == pytest.approx([np.log(2 * stats.norm.sf(z))] * 2)
    assert np.isfinite(programs.log_p(np.array([1.0]), 5000))


def test_genes_of_low_membership_leave():
    values, labels, _ = planted()
    wrong = labels.copy()
    wrong[-4:] = 1
    assert programs.trim(values, wrong, 15, 0.4).tolist() == labels.tolist()


def test_modules_without_a_core_or_too_small_are_dissolved():
    values, labels, _ = planted(noise=0.5)
    noise = labels.copy()
    noise[labels == 0] = 4
    made = programs.trim(values, noise, 60, 0.2)  # a third of 60 is 20 genes of kME > 0.5: none has more than 20
    assert set(made.tolist()) <= {0}
    assert (programs.trim(values, noise, 20, 0.2) == 3).sum() == 0  # 15 genes are fewer than 20
    assert (programs.trim(values, noise, 20, 0.2) == 1).sum() == 20


def test_a_gene_of_another_module_moves_there():
    values, labels, _ = planted(sizes=(20, 20))
    wrong = labels.copy()
    wrong[0] = 2
    names, vectors = [1, 2], np.column_stack([programs.eigengene(values[:, wrong == m])[0] for m in (1, 2)])
    assert programs.reassign(values, wrong, names, vectors, 10).tolist() == labels.tolist()
    assert set(programs.reassign(values, wrong, names, vectors, 21).tolist()) == {0, 1}  # 2 would keep 20 of 21 genes


def test_close_modules_merge_and_far_ones_do_not():
    rng = np.random.default_rng(3)
    f = rng.normal(size=(200, 2))
    near = 0.95 * f[:, 0] + np.sqrt(1 - 0.95**2) * rng.normal(size=200)
    values = np.column_stack([f[:, [0]] + 0.1 * rng.normal(size=(200, 10)), near[:, None] + 0.1 * rng.normal(size=(200, 10)),
                              f[:, [1]] + 0.1 * rng.normal(size=(200, 10))])  # fmt: skip
    labels = np.repeat([1, 2, 3], 10)
    assert programs.merge_close(values, labels, 0.2).tolist() == [1] * 20 + [3] * 10
    assert programs.merge_close(values, labels, 0.001).tolist() == labels.tolist()
    assert labels.tolist() == np.repeat([1, 2, 3], 10).tolist()  # the input stays


def test_clean_leaves_a_good_partition_alone():
    values, labels, _ = planted()
    assert programs.clean(values, labels, 10, 0.2, 0.2).tolist() == labels.tolist()
    assert not programs.clean(values, np.zeros_like(labels), 10, 0.2, 0.2).any()


def test_names_by_size_then_first_gene():
    labels = np.array([3, 3, 1, 1, 2, 2, 2, 0])
    genes = ["B", "Z", "A", "Y", "Q", "R", "S", "T"]
    assert programs.name_modules(labels, genes).tolist() == ["M3", "M3", "M2", "M2", "M1", "M1", "M1", "grey"]
    assert programs.module_names(np.array(["M10", "grey", "M2"])) == ["M2", "M10"]


# --- single cells


def cells(n=300, g=30, seed=4):
    rng = np.random.default_rng(seed)
    activity = rng.normal(size=n)
    rate = np.exp(0.8 * activity[:, None] * (np.arange(g) < 20) - 0.5)
    return sparse.csr_matrix(np.log1p(rng.poisson(rate)).astype(np.float32)), activity


@pytest.mark.parametrize("block", [64, 4096])
def test_cell_score_is_the_first_component(monkeypatch, block):
    monkeypatch.setattr(programs, "BLOCK", block)
    x, activity = cells()
    score = programs.cell_score(x)
    dense = x.toarray().astype(float)
    z = np.minimum((dense - dense.mean(axis=0)) / dense.std(axis=0, ddof=1), 10)
    u, d, _ = np.linalg.svd(z, full_matrices=False)
    assert np.abs(score) == pytest.approx(np.abs(u[:, 0] * d[0]))
    assert np.corrcoef(score, activity)[0, 1] > 0.7


def test_high_values_are_cut_and_constant_genes_left_out():
    x = np.zeros((400, 3))
    x[:, 0] = np.random.default_rng(5).normal(1, 0.1, 400)
    x[0, 1] = 9.0  # z of 19.97
    score = programs.cell_score(sparse.csr_matrix(x))
    z = (x[:, :2] - x[:, :2].mean(axis=0)) / x[:, :2].std(axis=0, ddof=1)
    assert z[0, 1] > 19
    _, d, _ = np.linalg.svd(np.minimum(z, 10), full_matrices=False)
    assert (score**2).sum() == pytest.approx(d[0] ** 2)
    assert programs.cell_score(sparse.csr_matrix(np.ones((5, 2)))).tolist() == [0] * 5


def test_correlation_with_scores_is_pearson():
    x, activity = cells(g=5)
    x = sparse.hstack([x, sparse.csr_matrix(np.ones((300, 1)))]).tocsr()
    scores = np.column_stack([activity, activity**2])
    found = programs.correlation_with(x, scores)
    for gene in range(5):
        expected = [np.corrcoef(x[:, [gene]].toarray().ravel(), scores[:, j])[0, 1] for j in (0, 1)]
        assert found[gene] == pytest.approx(expected)
    assert np.isnan(found[5]).all()


def test_expression_score_takes_controls_of_like_expression():
    rng = np.random.default_rng(6)
    level = np.repeat(np.linspace(0.2, 4, 25), 40)
    x = rng.normal(level, 0.05, size=(50, 1000))
    x[:25, 990:] += 1.0  # ten genes of the highest level, up in half of the cells
    score = programs.expression_score(sparse.csr_matrix(x), np.arange(990, 1000), 1)
    assert score[:25].mean() - score[25:].mean() == pytest.approx(1.0, abs=0.05)
    assert score[25:].mean() == pytest.approx(0, abs=0.1)
    assert programs.expression_score(sparse.csr_matrix(x[:, :3]), np.arange(3), 1) == pytest.approx(x[:, :3].mean(axis=1))


def test_hubs_by_membership_then_name():
    modules = np.array(["M1"] * 30 + ["M2", "M2", "grey"])
    kme = np.r_[np.linspace(0.9, 0.5, 30), 0.4, 0.4, np.nan]
    genes = np.array([f"G{i:02d}" for i in range(30)] + ["Y", "X", "A"])
    rank = programs.hub_ranks(modules, kme, genes)
    assert rank[:30].tolist() == [*range(1, 26), 0, 0, 0, 0, 0]
    assert rank[30:].tolist() == [2, 1, 0]


def test_group_means():
    obs = pd.DataFrame({"sample": ["A", "A", "B"], "patient": ["P", "P", "Q"]})
    scores = pd.DataFrame({"M1": [1.0, 3.0, 5.0]})
    table = programs.group_means(scores, scores * 2, pd.Series(["x", "x", None]), obs)
    assert table.to_dict("records") == [
        {"group": "x", "module": "M1", "mean": 2.0, "sd": pytest.approx(np.sqrt(2)), "mean_expression": 4.0, "n_cells": 2,
         "n_samples": 1, "n_patients": 1}
    ]  # fmt: skip


# --- traits


PHASES = pd.DataFrame(
    {
        "phase": ["PRE", "RES", "POST", "PRE-R"],
        "role": ["baseline", "response", "acquired_resistance", "primary_resistance"],
        "time": [0.0, 1.0, 2.0, np.nan],
    }
)


def design(*rows, **columns):
    return pd.DataFrame(rows, columns=["sample", "patient", "phase"]).assign(**columns)


def test_traits_of_a_design():
    sheet = design(
        ("A", "1", "PRE"), ("B", "2", "PRE-R"), ("C", "1", "POST"), ("D", "3", "RES"),
        treated=["no", "yes", "yes", None], trait_age=["50", "61", None, "44.5"], trait_site=["x", "1", "2", "3"],
    )  # fmt: skip
    found = {trait.name: trait for trait in programs.traits(sheet, PHASES)}
    assert list(found) == ["primary_resistance", "acquired_resistance", "treated", "phase_time", "trait_age"]
    assert found["primary_resistance"].values == {"A": 0, "B": 1}
    assert found["primary_resistance"].contrast == "PRE-R_vs_PRE"
    assert found["acquired_resistance"].values == {"A": 0, "C": 1}
    assert found["treated"].values == {"A": 0, "B": 1, "C": 1}
    assert found["phase_time"].values == {"A": 0, "C": 2, "D": 1}  # primary resistance stands beside the time axis
    assert found["trait_age"].values == {"A": 50, "B": 61, "D": 44.5}


@pytest.mark.parametrize("values", [[0, 0, 0, 1, 1], [0, 0, 1, 2, 2], [1, 2, 3, 4, 5], [3, 3, 3]])
def test_all_orders_are_those_of_itertools(values):
    values = np.array(values, dtype=float)
    mine = {tuple(row) for row in programs._all_orders(values)}
    assert mine == set(permutations(values.tolist()))
    assert len(programs._all_orders(values)) == len(mine) == programs.arrangements(values)


def test_exact_permutation_by_brute_force():
    rng = np.random.default_rng(7)
    scores, trait = rng.normal(size=(6, 3)), np.array([0.0, 1, 0, 2, 2, 0])
    rho, p, test, least = programs.permutation_p(scores, trait, 1)
    assert test == "spearman_permutation_exact"
    for j in range(3):
        assert rho[j] == pytest.approx(stats.spearmanr(scores[:, j], trait).statistic)
        null = [stats.spearmanr(scores[:, j], order).statistic for order in permutations(trait)]
        assert p[j] == pytest.approx(np.mean(np.abs(null) >= abs(rho[j]) - 1e-9))
    assert least == pytest.approx(2 / (factorial(6) / (factorial(3) * 2)))


def test_smallest_p_of_two_against_four():
    scores = np.array([[5.0], [6.0], [1], [2], [3], [4]])
    rho, p, _, least = programs.permutation_p(scores, np.array([1.0, 1, 0, 0, 0, 0]), 1)
    assert (rho[0], p[0], least) == (pytest.approx(np.sqrt(24 / 35)), pytest.approx(2 / 15), pytest.approx(2 / 15))


def test_random_permutation_where_there_are_too_many_orders():
    rng = np.random.default_rng(8)
    trait = np.arange(12.0)
    scores = np.column_stack([trait, rng.normal(size=12)])
    _, p, test, least = programs.permutation_p(scores, trait, 3)
    assert test == "spearman_permutation_random"
    assert p[0] == pytest.approx(1 / 10001) == least
    assert p[1] == pytest.approx(stats.spearmanr(scores[:, 1], trait).pvalue, abs=0.05)
    again = programs.permutation_p(scores, trait, 3)[1]
    assert again.tolist() == p.tolist()


def sample_table(values, cells=50):
    return pd.DataFrame([(s, "M1", v, cells) for s, v in values.items()], columns=["sample", "module", "mean", "n_cells"])


def test_samples_of_one_patient_on_one_side_become_one_value():
    sheet = design(*[(f"S{i}", p, phase) for i, (p, phase) in enumerate(
        [("1", "PRE"), ("2", "PRE"), ("3", "PRE"), ("4", "POST"), ("4", "POST"), ("5", "POST")])])  # fmt: skip
    means = sample_table({"S0": 0.0, "S1": 0.1, "S2": 0.2, "S3": 3.0, "S4": -3.0, "S5": 1.0})
    means.loc[3, "n_cells"] = 150  # patient 4: (150 * 3 - 50 * 3) / 200 = 1.5
    patients = dict(zip(sheet["sample"], sheet["patient"], strict=True))
    row = (
        programs.sample_traits(means, {"M1": 2.0}, patients, programs.traits(sheet, PHASES), 1)
        .set_index("trait")
        .loc["acquired_resistance"]
    )
    assert row["n"] == 5
    assert (row["n_a"], row["n_patients_a"], row["n_b"], row["n_cells_a"]) == (3, 2, 3, 250)
    assert row["rho"] == pytest.approx(stats.spearmanr([0, 0.1, 0.2, 1.5, 1.0], [0, 0, 0, 1, 1]).statistic)
    assert row["difference"] == pytest.approx((1.25 - 0.1) / 2)
    assert (row["p_value"], row["p_min_attainable"]) == (pytest.approx(2 / 10), pytest.approx(2 / 10))
    assert (row["unit"], row["evidence"], row["status"]) == ("patient", "limited", "ok")


def test_statuses_of_traits():
    sheet = design(("A", "1", "PRE"), ("B", "2", "PRE"), ("C", "3", "POST"), treated=["no"] * 3)
    patients = dict(zip(sheet["sample"], sheet["patient"], strict=True))
    found = programs.traits(sheet, PHASES)
    table = programs.sample_traits(sample_table({"A": 1.0, "B": 2.0, "C": 3.0}), {"M1": 1.0}, patients, found, 1)
    rows = table.set_index("trait")
    assert rows["status"].to_dict() == {
        "primary_resistance": "not_estimable", "acquired_resistance": "no_replicates", "treated": "not_estimable",
        "phase_time": "no_replicates",
    }  # fmt: skip
    assert rows["p_value"].isna().all()
    assert rows.loc["acquired_resistance", "rho"] > 0.8
    assert np.isnan(rows.loc["treated", "rho"])  # constant
    assert rows.loc["acquired_resistance", "evidence"] == "single_patient"
    one = programs.sample_traits(sample_table({"A": 1.0}), {"M1": 1.0}, patients, found, 1)
    assert set(one["status"]) == {"no_replicates"}
    equal = programs.sample_traits(sample_table({"A": 1.0, "B": 1.0, "C": 1.0}), {"M1": 0.0}, patients, found, 1)
    assert set(equal["status"]) == {"not_estimable"}


def test_family_of_the_adjustment():
    sheet = design(*[(f"S{i}", str(i), "PRE" if i < 4 else "POST") for i in range(8)], treated=["no"] * 4 + ["yes"] * 4)
    patients = dict(zip(sheet["sample"], sheet["patient"], strict=True))
    rng = np.random.default_rng(9)
    means = pd.concat([sample_table({f"S{i}": rng.normal() for i in range(8)}).assign(module=m) for m in ("M1", "M2")])
    table = programs.sample_traits(means, {"M1": 1.0, "M2": 1.0}, patients, programs.traits(sheet, PHASES), 1)
    known = table["p_value"].notna()
    assert table.loc[known, "p_adjusted"].tolist() == pytest.approx(
        stats.false_discovery_control(table.loc[known, "p_value"]).tolist()
    )
    assert set(table["adjust_method"]) == {"BH:modules x traits"}


def test_cell_level_is_spearman_over_metacells_and_named_so():
    sheet = design(("A", "1", "PRE"), ("B", "2", "POST"), ("C", "3", "RES"))
    patients = dict(zip(sheet["sample"], sheet["patient"], strict=True))
    rng = np.random.default_rng(10)
    sample = np.repeat(["A", "B", "C"], 30)
    vectors = pd.DataFrame({"M1": rng.normal(size=90) + (sample == "B")})
    table = programs.cell_traits(vectors, sample, patients, programs.traits(sheet, PHASES)).set_index("trait")
    expected = stats.spearmanr(vectors["M1"][:60], sample[:60] == "B")
    row = table.loc["acquired_resistance"]
    assert (row["rho"], row["p_value"]) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    assert (row["n"], row["n_a"], row["n_cells_a"], row["n_patients_b"]) == (60, 1, 30, 1)
    assert set(table["evidence"]) == set(table["level"]) == {"cell_level"}
    assert table.loc["primary_resistance", "status"] == "not_estimable"


# --- preservation


def test_mean_correlation_equals_the_matrix():
    x, _ = cells(g=12)
    dense = x.toarray()
    r = np.corrcoef(dense.T)
    assert programs.mean_correlation(x) == pytest.approx(r[np.triu_indices(12, 1)].mean(), abs=1e-6)
    assert np.isnan(programs.mean_correlation(x[:, [0]]))


def test_preservation_of_a_module_that_holds_in_one_phase_only():
    x, _ = cells(n=600, g=30)
    dense = x.toarray()
    rng = np.random.default_rng(11)
    for gene in range(20):  # in the second half the genes no longer go together
        dense[300:, gene] = rng.permutation(dense[300:, gene])
    x = sparse.csr_matrix(dense)
    modules = np.array(["M1"] * 20 + ["grey"] * 10)
    scores = programs.cell_score(x[:, :20])[:, None]
    phase = np.repeat(["PRE", "POST", "RES"], [300, 250, 50])
    table = programs.preservation(x, modules, scores, programs.correlation_with(x, scores), phase, ["PRE", "RES", "POST"])
    rows = table.set_index("phase")
    assert rows.index.tolist() == ["PRE", "RES", "POST"]
    assert rows.loc["PRE", "mean_correlation"] > 0.2 > rows.loc["POST", "mean_correlation"]
    assert rows.loc["PRE", "mean_correlation"] > rows.loc["PRE", "background_correlation"] > 0
    assert rows["status"].to_dict() == {"PRE": "ok", "RES": "not_estimable", "POST": "ok"}
    assert np.isnan(rows.loc["RES", "mean_correlation"])
    own = programs.correlation_with(x[:300], scores[:300])[:20, 0]
    expected = stats.spearmanr(own, programs.correlation_with(x, scores)[:20, 0]).statistic
    assert rows.loc["PRE", "kme_rank_correlation"] == pytest.approx(expected)
