"""Quantities of the resistance card: by hand, against scipy and statsmodels, and by drawing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scresist import clones as clone_kernel
from scresist import comparison, keys, route_measures, routes
from tests.data.route_patients import PAIR, evidence_of, flows, planted_patient, two_biopsies

FEATURE = "PDCD1 in t_cell"


def test_auc_against_scipy_and_resampling():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 8, 60) + 1.0, rng.integers(0, 8, 90)
    value, low, high = route_measures.auc(a, b)
    assert value == pytest.approx(stats.mannwhitneyu(a, b).statistic / (60 * 90))
    drawn = [
        stats.mannwhitneyu(rng.choice(a, 60), rng.choice(b, 90), method="asymptotic").statistic / 5400 for _ in range(2000)
    ]  # fmt: skip
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.015)
    assert np.isnan(route_measures.auc(a, [])).all() and np.isnan(route_measures.auc([2, 3], [0, 1])[1])


def test_types_that_leave_are_no_change_of_the_gene():
    ev = two_biopsies([("PRE", "CD8_T", 60, 24), ("PRE", "CD4_T", 50, 2), ("POST", "CD8_T", 15, 6), ("POST", "CD4_T", 100, 4)])
    found = route_measures.gene_share(ev, "P1", PAIR, FEATURE)
    assert found.value == pytest.approx(0.0, abs=1e-12)  # 40 % and 4 % in both; crude 24 % against 9 %
    assert found.low < -0.05 and found.high > 0.05 and found.n_cells == 225
    crude = ev.cells.groupby(keys.PHASE)["PDCD1"].mean()
    assert abs(route_measures.expression(ev, "P1", PAIR, FEATURE).value) < 0.01 and crude["POST"] - crude["PRE"] < -0.25


def test_standardised_difference_by_hand():
    ev = two_biopsies([("PRE", "CD8_T", 30, 12), ("PRE", "CD4_T", 60, 3), ("POST", "CD8_T", 20, 14), ("POST", "CD4_T", 60, 6),
                       ("POST", "Treg", 40, 40)])  # fmt: skip
    w8, w4 = 20 * 30 / 50, 60 * 60 / 120  # 12 and 30; a type of one biopsy alone has no counterpart
    w8, w4 = w8 / 42, w4 / 42
    p_a, p_b = w8 * 0.7 + w4 * 0.1, w8 * 0.4 + w4 * 0.05
    n_a, n_b = 1 / (w8**2 / 20 + w4**2 / 60), 1 / (w8**2 / 30 + w4**2 / 60)
    found = route_measures.gene_share(ev, "P1", PAIR, FEATURE)
    assert found.value == pytest.approx(p_a - p_b, abs=1e-12) and found.n_cells == 170
    expected = clone_kernel.newcombe(p_a * n_a, n_a, p_b * n_b, n_b)
    assert (found.low, found.high) == pytest.approx(expected[1:], abs=1e-12)


def test_one_type_gives_the_usual_intervals():
    from statsmodels.stats.api import CompareMeans, DescrStatsW
    from statsmodels.stats.proportion import confint_proportions_2indep

    ev = two_biopsies([("PRE", "CD8_T", 60, 24), ("POST", "CD8_T", 45, 30)])
    share = route_measures.gene_share(ev, "P1", PAIR, FEATURE)
    low, high = confint_proportions_2indep(30, 45, 24, 60, method="newcomb", compare="diff")
    assert (share.value, share.low, share.high) == pytest.approx((30 / 45 - 24 / 60, low, high), abs=1e-9)
    values = ev.cells.groupby(keys.PHASE)["PDCD1"]
    a, b = (values.get_group(phase).to_numpy() for phase in PAIR)
    limits = CompareMeans(DescrStatsW(a), DescrStatsW(b)).tconfint_diff(usevar="unequal")
    mean = route_measures.expression(ev, "P1", PAIR, FEATURE)
    assert (mean.value, mean.low, mean.high) == pytest.approx((a.mean() - b.mean(), *limits), abs=1e-9)


def test_standardised_interval_covers_the_truth():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        n = {("PRE", "CD8_T"): 40, ("PRE", "CD4_T"): 60, ("POST", "CD8_T"): 15, ("POST", "CD4_T"): 90}
        share = {("PRE", "CD8_T"): 0.5, ("PRE", "CD4_T"): 0.1, ("POST", "CD8_T"): 0.6, ("POST", "CD4_T"): 0.2}
        ev = two_biopsies([(*key, size, int(rng.binomial(size, share[key]))) for key, size in n.items()])
        found = route_measures.gene_share(ev, "P1", PAIR, FEATURE)
        hits += found.low <= 0.1 <= found.high
    assert 0.93 <= hits / 300 <= 0.985


def test_too_few_cells_of_common_types():
    ev = two_biopsies([("PRE", "CD8_T", 60, 24), ("POST", "CD8_T", 12, 6), ("POST", "CD4_T", 100, 4)])
    for measure in (route_measures.gene_share, route_measures.expression):
        found = measure(ev, "P1", PAIR, FEATURE)
        assert found.word == keys.NOT_ESTIMABLE
        assert found.reason == "cells of t_cell of types that both biopsies hold: 60 in PRE, 12 in POST, 20 needed in each"
    assert "PDCD9 was not measured" in route_measures.gene_share(ev, "P1", PAIR, "PDCD9 in t_cell").reason


def test_a_mean_names_the_genes_that_were_measured():
    ev = two_biopsies([("PRE", "CD8_T", 60, 24), ("POST", "CD8_T", 45, 30)])
    some = route_measures.expression(ev, "P1", PAIR, "PDCD1, LAG3, TIGIT in t_cell")
    assert some.measured == "PDCD1 (1 of 3 genes measured) in t_cell"
    assert route_measures.expression(ev, "P1", PAIR, "PDCD1 in t_cell").measured == "PDCD1 in t_cell"
    assert route_measures.expression(ev, "P1", PAIR, "LAG3 in t_cell").measured == "LAG3 in t_cell"


def test_flow_needs_pathways():
    cells, tables = planted_patient("none", 3)
    tables["flow"] = tables["flow"][tables["flow"]["pathway"].isin(["TGFb", "EGF", "FGF"])]
    ev, *_ = evidence_of([(cells, tables)])
    found = route_measures.pathway_flow(ev, "P1", ("POST", "PRE"), "TGFb:up; EGF:up; FGF:up; CXCL:down")
    assert not found.estimable and "4 needed" in found.reason


def test_pathways_of_one_biopsy_are_no_replicates():
    rng = np.random.default_rng(5)
    feature = "TGFb:up; EGF:up; FGF:up; CXCL:down"
    values = {(phase, f"P{i}"): rng.lognormal(0, 0.3, 4) for phase in ("PRE", "POST") for i in (1, 2, 3)}
    samples = pd.DataFrame(
        [(f"{phase}-{patient}", patient, phase) for phase, patient in values], columns=["sample", "patient", "phase"]
    )
    cells = samples.loc[np.repeat(samples.index, 5)].reset_index(drop=True)
    ev = route_measures.Evidence(cells, pd.DataFrame(index=cells.index), {}, {"flow": flows(values)}, samples, {}, pd.DataFrame())
    mean = np.mean(list(values.values()), axis=0)
    index = {key: float((own / mean) @ [0.25, 0.25, 0.25, -0.25]) for key, own in values.items()}
    one = route_measures.pathway_flow(ev, "P1", PAIR, feature)
    assert one.value == pytest.approx(index["POST", "P1"] - index["PRE", "P1"])
    assert one.word == keys.NO_REPLICATES and routes.direction(one, 0.0) is None  # four pathways are one biopsy
    sides = [[index[phase, f"P{i}"] for i in (1, 2, 3)] for phase in PAIR]
    expected = stats.ttest_ind(*sides, equal_var=False).confidence_interval()
    both = route_measures.pathway_flow_between(ev, PAIR, feature)
    assert (both.low, both.high) == pytest.approx((expected.low, expected.high))
    assert (both.unit, both.evidence, both.n_patients) == ("patient", keys.REPLICATED, 3)


def test_measures_from_tests_of_other_steps():
    cells, tables = planted_patient("none", 3)
    base = dict.fromkeys(comparison.TEST_COLUMNS, np.nan) | {
        "contrast": "POST_vs_PRE", "unit": "patient", "n_a": 3, "n_b": 4, "n_patients_a": 3, "n_patients_b": 4, "n_cells_a": 50,
        "n_cells_b": 60, "effect": 0.5, "ci_low": 0.1, "ci_high": 0.9, "evidence": keys.REPLICATED, "status": keys.OK,
    }  # fmt: skip
    mine = {"cell_type": "tumour", "source": "TGFb", "network": "progeny", "level": "pseudobulk"}
    tables["activity_tests"] = pd.DataFrame([{**mine, **base}, {**mine, **base, "effect": -4.0, "level": "cell_mean"}])
    tables["tcell_tests"] = pd.DataFrame([{"score": "exhaustion_score", "cell_type": "t_cell", **base, "ci_low": np.nan}])
    tables["activity"] = pd.DataFrame([{**mine, "sample": "POST-P1", "score": 2.0}, {**mine, "sample": "PRE-P1", "score": 0.5}])
    ev, *_ = evidence_of([(cells, tables)])
    pair = ("POST", "PRE")
    found = route_measures.activity_between(ev, pair, "TGFb in tumour")
    assert (found.value, found.low, found.n_samples, found.n_cells) == (0.5, 0.1, 7, 110) and found.estimable
    assert found.n_patients == 1  # of the design: a patient on both sides is one
    assert not route_measures.activity_between(ev, pair, "WNT in tumour").estimable
    own = route_measures.activity(ev, "P1", pair, "TGFb in tumour")
    assert own.value == pytest.approx(1.5) and own.word == keys.NO_REPLICATES
    assert route_measures.tcell_between(ev, pair, "exhaustion in t_cell").word == keys.NO_REPLICATES


def test_networks_are_not_mixed():
    """A source that two networks have is two scores: their difference means nothing."""
    cells, tables = planted_patient("none", 3)
    rows = [("progeny", "POST-P1", 2.0), ("progeny", "PRE-P1", 1.0), ("mine", "POST-P1", -6.0), ("mine", "PRE-P1", -2.0)]
    table = pd.DataFrame(rows, columns=["network", "sample", "score"])
    tables["activity"] = table.assign(cell_type="tumour", source="TGFb", level="pseudobulk")
    ev, *_ = evidence_of([(cells, tables)])
    assert "several networks have TGFb" in route_measures.activity(ev, "P1", PAIR, "TGFb in tumour").reason
    assert route_measures.activity(ev, "P1", PAIR, "progeny:TGFb in tumour").value == pytest.approx(1.0)
    assert route_measures.activity(ev, "P1", PAIR, "mine:TGFb in tumour").value == pytest.approx(-4.0)


def test_locus_loss_by_hand():
    cells, tables = planted_patient("none", 3)
    tables["panel_clones"] = pd.DataFrame(
        {"patient": "P1", "clone": ["P1.C1", "P1.C2", "P1.C3"], "gene": "ERBB2", "locus_call": ["neutral", "loss", "gain"]}
    )
    ev, *_ = evidence_of([(cells, tables)])
    found = route_measures.locus_loss(ev, "P1", ("POST", "PRE"), "ERBB2")
    share = tables["clone_phases"].set_index(["clone", "phase"])["share"]["P1.C2"]
    assert found.value == pytest.approx(share["POST"] - share["PRE"])
    assert not route_measures.locus_loss(ev, "P1", ("POST", "PRE"), "MET").estimable
    # 30 % of the cells are in a clone that nobody could call
    tables["panel_clones"].loc[1, "locus_call"] = ""
    blind = route_measures.locus_loss(ev, "P1", ("POST", "PRE"), "ERBB2")
    assert not blind.estimable and "in clones with a call at the locus, 80% needed" in blind.reason
