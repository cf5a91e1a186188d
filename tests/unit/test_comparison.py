"""Comparison of groups of samples: against R's documented results, statsmodels and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from scresist import comparison, keys


def contrast(a: str, b: str, paired: bool = False, status: str = "ok") -> comparison.Contrast:
    frame = pd.DataFrame(
        [{"contrast": "A_vs_B", "samples_a": a, "samples_b": b, "paired": str(paired).lower(), "status": status, "reason": ""}]
    )
    return comparison.contrasts(frame)[0]


def test_adjust_equals_statsmodels_and_keeps_gaps():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.5, 0.02])
    expected = multipletests(p[np.isfinite(p)], method="fdr_bh")[1]
    found = comparison.adjust(p)
    assert np.isnan(found[1])
    np.testing.assert_allclose(found[np.isfinite(p)], expected, rtol=1e-12)
    assert comparison.adjust([]).size == 0 and np.isnan(comparison.adjust([np.nan])).all()


@pytest.mark.parametrize(("a", "b", "word"), [(3, 3, keys.REPLICATED), (2, 9, keys.LIMITED), (1, 4, keys.SINGLE_PATIENT)])
def test_evidence(a, b, word):
    assert comparison.evidence(a, b) == word


def test_rank_sum_is_the_textbook_case_of_r():
    # help(wilcox.test): depression data of Hollander & Wolfe 1973, p. 69: W = 35, p = 0.1272 (greater), two-sided 0.2544
    a = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
    b = np.array([1.15, 0.88, 0.90, 0.74, 1.21])
    u, p, test = comparison.rank_sum(a, b)
    assert (u, test) == (35, "rank_sum_exact")
    assert p == pytest.approx(0.2544, abs=5e-5)


def test_signed_rank_is_the_textbook_case_of_r():
    # help(wilcox.test): Hollander & Wolfe 1973, p. 29: V = 40, p = 0.01953 (greater), two-sided 0.03906
    x = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    y = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    v, p, test = comparison.signed_rank(x - y)
    assert (v, test) == (40, "signed_rank_exact")
    assert p == pytest.approx(0.03906, abs=5e-6)


def test_ties_and_constants():
    assert comparison.rank_sum(np.array([1, 1.0]), np.array([1.0, 2]))[2] == "rank_sum_normal"
    assert np.isnan(comparison.rank_sum(np.ones(3), np.ones(4))[1])
    assert np.isnan(comparison.rank_sum(np.array([]), np.ones(4))[1])
    assert np.isnan(comparison.signed_rank(np.zeros(4))[1])
    assert np.isnan(comparison.kruskal([np.ones(3), np.ones(3)])[1])
    assert np.isnan(comparison.kruskal([np.arange(3.0)])[1])


def test_rank_biserial_by_hand():
    assert comparison.rank_biserial(np.array([3.0, 4]), np.array([1.0, 2])) == 1
    assert comparison.rank_biserial(np.array([1.0, 4]), np.array([2.0, 3])) == 0


def test_mean_difference_equals_welch_of_statsmodels():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 6), rng.normal(0, 3, 4)
    low, high = CompareMeans(DescrStatsW(a), DescrStatsW(b)).tconfint_diff(usevar="unequal")
    assert comparison.mean_difference(a, b, False) == pytest.approx((a.mean() - b.mean(), low, high), rel=1e-10)
    d = DescrStatsW(a[:4] - b)
    assert comparison.mean_difference(a[:4], b, True) == pytest.approx((d.mean, *d.tconfint_mean()), rel=1e-10)
    assert np.isnan(comparison.mean_difference(a[:1], b, False)[1:]).all()


@pytest.mark.parametrize(("k", "n"), [(0, 20), (3, 10), (20, 20), (451, 902), (17, 90)])
def test_wilson_equals_statsmodels(k, n):
    assert comparison.wilson(k, n) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)
    assert comparison.wilson(k, n, 0.1) == pytest.approx(proportion_confint(k, n, alpha=0.1, method="wilson"), abs=1e-12)


def test_wilson_without_cells():
    assert np.isnan(comparison.wilson(0, 0)).all()


def test_dunn_equals_scikit_posthocs_and_its_z_has_the_sign_of_b_minus_a():
    rng = np.random.default_rng(1)
    groups = {"a": rng.integers(0, 5, 12), "b": rng.integers(1, 6, 9), "c": rng.integers(0, 9, 15)}
    found = comparison.dunn(groups)
    expected = scikit_posthocs.posthoc_dunn(list(groups.values()), p_adjust="fdr_bh").to_numpy()
    np.testing.assert_allclose(found["p_adjusted"], expected[np.triu_indices(3, 1)], rtol=1e-9)
    high = comparison.dunn({"low": np.array([1, 2, 3]), "high": np.array([7, 8, 9])})
    assert high["z"].iloc[0] > 0


def test_samples_of_one_patient_are_one_value():
    values = pd.Series({"s1": 1.0, "s2": 4.0, "s3": 2.0, "s4": 0.0, "s5": 0.5})
    cells = pd.Series({"s1": 100, "s2": 300, "s3": 10, "s4": 10, "s5": 10})
    patient = {"s1": "P1", "s2": "P1", "s3": "P2", "s4": "P3", "s5": "P4"}
    row = comparison.compare(values, cells, contrast("s1,s2,s3", "s4,s5"), patient)
    # P1: (1*100 + 4*300)/400 = 3.25; A = (3.25 + 2)/2, B = 0.25
    assert row["effect"] == pytest.approx(2.625 - 0.25)
    assert (row["n_a"], row["n_b"], row["n_patients_a"], row["n_cells_a"]) == (3, 2, 2, 410)
    assert row["p_value"] == row["p_min_attainable"] == pytest.approx(2 / 6)
    assert (row["evidence"], row["status"], row["rank_biserial"]) == (keys.LIMITED, keys.OK, 1)
    assert set(comparison.TEST_COLUMNS) <= set(row)


def test_no_replicates_and_not_estimable_have_no_p():
    values, cells = pd.Series({"s1": 1.0, "s2": 2.0, "s3": np.nan}), pd.Series({"s1": 5, "s2": 5, "s3": 0})
    patient = {"s1": "P1", "s2": "P2", "s3": "P3"}
    one = comparison.compare(values, cells, contrast("s1", "s2"), patient)
    assert (one["status"], one["evidence"], one["effect"]) == (keys.NO_REPLICATES, keys.SINGLE_PATIENT, -1)
    assert np.isnan(one["p_value"])
    none = comparison.compare(values, cells, contrast("s3", "s2"), patient)
    assert none["status"] == keys.NOT_ESTIMABLE and np.isnan(none["effect"])


def test_paired_uses_complete_pairs_alone():
    values = pd.Series({"a1": 2.0, "b1": 1.0, "a2": 3.0, "b2": 1.5, "a3": 9.0})
    patient = {"a1": "P1", "b1": "P1", "a2": "P2", "b2": "P2", "a3": "P3", "b3": "P3"}
    row = comparison.compare(values, pd.Series(10, index=values.index), contrast("a1,a2,a3", "b1,b2,b3", True), patient)
    assert (row["n_patients_a"], row["n_a"], row["effect"], row["test"]) == (2, 2, 1.25, "signed_rank_exact")
    assert row["p_min_attainable"] == 0.5


def test_table_adjusts_within_a_contrast():
    rows = [{"gene": g, "contrast": c, "p_value": p} for c, g, p in [("x", "a", 0.01), ("x", "b", 0.04), ("y", "a", 0.03)]]
    table = comparison.adjusted(rows, "genes", ["gene"])
    assert table["p_adjusted"].tolist() == pytest.approx([0.02, 0.04, 0.03])
    assert set(table["adjust_method"]) == {"BH:genes"} and next(iter(table)) == "gene"
