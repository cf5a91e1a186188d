"""Kernels of CHECK_RECOVERY on tables small enough to work by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from scresist import recovery


def table(**columns) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    base = {
        "planted_sample": ["S"] * n,
        "planted_patient": ["P"] * n,
        "planted_clone": [""] * n,
        "planted_batch": ["b"] * n,
        "planted_main_type": ["B"] * n,
        "planted_subtype": ["Plasma"] * n,
        "planted_is_malignant": [False] * n,
        "planted_is_doublet": [False] * n,
        "planted_doublet_kind": [""] * n,
        "planted_is_poor": [False] * n,
        "kept": [True] * n,
        "drop_reason": [""] * n,
        "doublet_score": [0.1] * n,
        "main_type": ["B"] * n,
        "subtype": ["Plasma"] * n,
        "cluster": ["0"] * n,
        "malignant": [""] * n,
        "clone": [""] * n,
    }
    return pd.DataFrame(base | columns)


def test_accuracy_counts_unresolved_as_missed_and_leaves_doublets_and_removed_cells_out():
    cells = table(
        planted_main_type=["B", "B", "NK", "NK", "NK", "B"],
        main_type=["B", "unresolved", "NK", "B", "", "NK"],
        kept=[True, True, True, True, False, True],
        planted_is_doublet=[False, False, False, False, False, True],
    )
    assert recovery.main_type_accuracy(cells) == (0.5, 4)
    assert recovery.resolved_accuracy(cells) == (pytest.approx(2 / 3), 3)
    assert recovery.unresolved_share(cells) == (0.25, 4)
    assert recovery.weakest_type(cells) == ("B", 0.5, 2)


def test_subtypes_are_judged_in_types_with_several():
    cells = table(
        planted_main_type=["B", "B", "Mast"], planted_subtype=["Plasma", "Naive_B", "Mast"], subtype=["Plasma", "Plasma", ""]
    )
    assert recovery.subtype_accuracy(cells) == (0.5, 2)


def test_auroc_agrees_with_counting_pairs():
    positive = np.array([1, 1, 0, 0, 0])
    score = np.array([0.9, 0.3, 0.3, 0.1, 0.5])
    # pairs won: 3 of 3, then 1 (0.1) + half of the tie at 0.3: 4.5 of 6
    assert recovery.auroc(positive, score) == pytest.approx(0.75)
    assert np.isnan(recovery.auroc(np.array([1, 1]), np.array([0.1, 0.2])))


def test_doublet_auroc_is_within_samples_and_ignores_homotypic_and_unscored():
    cells = table(
        planted_sample=["S", "S", "T", "T", "T", "T"],
        planted_doublet_kind=["heterotypic", "", "heterotypic", "", "homotypic", ""],
        # pooled, T's singlet (0.8) would beat S's doublet (0.4)
        doublet_score=[0.4, 0.1, 0.9, 0.8, 0.0, np.nan],
    )
    assert recovery.doublet_auroc(cells) == (1.0, 2, 2)
    value, n, n_samples = recovery.doublet_auroc(table(kept=[True]))
    assert np.isnan(value)
    assert (n, n_samples) == (0, 0)


def test_poor_recall_and_good_retention():
    cells = table(
        planted_sample=["S", "S", "S", "T"], planted_is_poor=[True, True, False, False], kept=[False, True, True, False]
    )
    assert recovery.poor_cell_recall(cells) == (0.5, 2)
    assert recovery.good_cell_retention(cells) == (1.0, 1)  # T is not in the cohort


def test_a_poor_sample_must_be_out_as_skipped():
    expected = pd.Series({"S": "ok", "T": "skipped_too_few_cells", "U": "skipped_too_few_cells"})
    cells = table(planted_sample=["S", "T", "U"], kept=[True, False, False], drop_reason=["", "sample_skipped", "low_counts"])
    assert recovery.sample_verdicts(cells, expected).to_dict() == {"S": True, "T": True, "U": False}


def test_proportions_over_resolved_cells_of_samples_in_the_cohort():
    planted = pd.DataFrame({"sample": ["S", "S", "T"], "main_type": ["B", "NK", "B"], "n_cells": [3, 1, 5]})
    cells = table(planted_sample=["S"] * 5, main_type=["B", "B", "NK", "NK", "unresolved"])
    correlation, largest, n = recovery.proportion_agreement(cells, planted.fillna(0))
    assert largest == pytest.approx(0.25)
    assert np.isnan(correlation)  # the recovered shares are constant
    assert n == 2


def test_mixing_is_one_when_clusters_are_blind_to_the_batch_and_zero_when_they_are_the_batch():
    batch = ["a", "b"] * 4
    assert recovery.batch_mixing(table(planted_batch=batch, cluster=list("00001111"))) == (pytest.approx(1), 8)
    assert recovery.batch_mixing(table(planted_batch=batch, cluster=list("01010101"))) == (pytest.approx(0), 8)
    malignant = table(planted_batch=batch, cluster=list("01010101"), planted_is_malignant=[True] * 8)
    assert np.isnan(recovery.batch_mixing(malignant)[0])


# --- the tumour


def tumour_cells(clones: list[str], found: list[str], **columns) -> pd.DataFrame:
    """Malignant cells of patient P, called malignant, with planted and found clones."""
    n = len(clones)
    base = {"planted_is_malignant": [True] * n, "malignant": ["malignant"] * n, "planted_clone": clones, "clone": found}
    return table(**(base | columns))


def test_f1_counts_missed_and_false_calls_of_all_types():
    # 3 hits, 1 missed, 1 false: 2 * 3 / (4 + 4); a doublet and a removed cell are left out
    cells = table(
        planted_is_malignant=[True] * 4 + [False, False, True, True],
        malignant=["malignant", "malignant", "malignant", "unresolved", "malignant", "", "", ""],
        planted_is_doublet=[False] * 6 + [True, False],
        kept=[True] * 7 + [False],
    )
    score = recovery.malignant_f1(cells, ["P", "Q"])
    assert score.loc["P", "f1"] == 0.75
    assert score.loc["P", "n"] == 4
    assert score.loc["Q", "f1"] == 0  # no cell: nothing found


def test_patients_are_judged_from_thirty_malignant_cells_on():
    cells = table(planted_is_malignant=[True] * 59, planted_patient=["P"] * 30 + ["Q"] * 29)
    assert recovery.judged_patients(cells, ["Q", "P", "R"]) == ["P"]


def test_quiet_tumours_must_stay_open():
    cells = table(planted_patient=list("PPQQRR"), malignant=["unresolved", "unresolved", "unresolved", "non_malignant", "", ""])
    verdict = recovery.quiet_verdicts(cells, ["P", "Q", "R"], None)
    assert verdict.to_dict() == {"P": True, "Q": False, "R": False}
    assert not recovery.quiet_verdicts(cells, ["P"], pd.Series({"P": "ok"}))["P"]
    assert recovery.quiet_verdicts(cells, ["P"], pd.Series({"P": "cnv_quiet"}))["P"]


def test_clone_agreement_is_the_adjusted_rand_index():
    planted, found = list("aaabbbcccc"), list("xxyyyyzzzz")
    got = recovery.clone_agreement(tumour_cells(planted, found), ["P", "Q"])
    assert got.loc["P", "ari"] == pytest.approx(adjusted_rand_score(planted, found))
    assert got.loc["P", ["n", "n_planted", "n_found"]].tolist() == [10, 3, 3]
    assert got.loc["Q", "ari"] == 0
    # one planted clone, found whole or split
    assert recovery.clone_agreement(tumour_cells(["a"] * 5, ["x"] * 5), ["P"]).loc["P", "ari"] == 1
    split = recovery.clone_agreement(tumour_cells(["a"] * 5, list("xxxxy")), ["P"]).loc["P"]
    assert split["ari"] == 0
    assert split["n_found"] == 2


def test_clones_are_matched_one_to_one():
    cells = tumour_cells(list("aaaaaabbb"), list("xxxxyyxxx"))
    # x holds most of both: a -> x, b -> y shares no cell, so a -> y and b -> x (2 + 3) beat a -> x alone (4)
    assert recovery.match_clones(cells, ["P"]) == {"a": "y", "b": "x"}


def test_shares_inside_their_intervals():
    planted = pd.DataFrame(
        {
            "patient": "P",
            "clone": ["a", "a", "b", "b", "c"],
            "phase": ["1", "2", "1", "2", "3"],
            "expected_share": [0.4, 0.9, 0, 0.1, 1],
        }
    )
    found = pd.DataFrame(
        {"patient": "P", "clone": ["x", "x"], "phase": ["1", "2"], "N": [50, 50], "ci_low": [0.3, 0.5], "ci_high": [0.5, 0.8]}
    )
    # a: 1 inside, 2 outside; b has no partner: absent as planted in 1, missed in 2; phase 3 has no cells
    value, n, missed = recovery.share_coverage(planted, {"a": "x"}, found)
    assert (value, n, missed) == (0.5, 4, ["a 2", "b 2"])
    value, n, _ = recovery.share_coverage(planted, {"a": "x"}, found.assign(N=29))
    assert np.isnan(value) and n == 0


def test_changes_are_named_rightly():
    planted = pd.DataFrame(
        [
            ("P", "a", "B_vs_A", 0.4, "expanding"),
            ("P", "b", "B_vs_A", -0.4, "lost"),
            ("P", "c", "B_vs_A", 0.1, "expanding"),  # below 0.2
            ("P", "a", "C_vs_A", 0.5, "expanding"),  # not compared
            ("P", "d", "B_vs_A", 0.3, "emerging"),  # no partner
            ("P", "e", "B_vs_A", -0.3, "shrinking"),  # too few cells
            ("P", "f", "B_vs_A", -0.3, "shrinking"),
        ],
        columns=["patient", "clone", "contrast", "difference", "expected_class"],
    )
    found = pd.DataFrame(
        {
            "patient": "P",
            "clone": ["x", "y", "v", "w"],
            "contrast": "B_vs_A",
            "class": ["expanding", "shrinking", "not_estimable", "lower"],
        }
    )
    value, n, wrong = recovery.change_verdicts(planted, {"a": "x", "b": "y", "e": "v", "f": "w"}, found)
    assert (value, n) == (0.5, 4)
    assert wrong == ["b B_vs_A: shrinking, planted lost", "d B_vs_A: not found, planted emerging"]


def test_genes_called_as_the_pipeline_calls_them():
    planted = pd.DataFrame({"gene": ["A", "B", "C", "D", "absent"], "log2fc": [1.5, -1.2, 2.0, 0.4, 1.8]})
    found = pd.DataFrame(
        {
            "gene": ["A", "B", "C", "D", "E", "F", "G"],
            "log2fc": [1.0, 1.0, 1.5, 0.6, 2.0, 0.3, 1.0],
            "p_adjusted": [0.01, 0.01, 0.2, 0.01, 0.01, 0.01, np.nan],
        }
    )
    # called: A, B (wrong sign), D (planted, small), E (not planted); F is too small a change, G has no p
    got = recovery.gene_recovery(planted, found)
    assert got == {"recall": pytest.approx(1 / 3), "fdr": 0.5, "n_planted": 3, "n_called": 4}
    assert recovery.gene_recovery(planted, found.assign(p_adjusted=1.0))["fdr"] == 0


def test_modules_over_genes_that_are_not_grey():
    planted = pd.DataFrame({"gene": list("ABCDEFG"), "module": ["one"] * 4 + ["two"] * 3})
    found = pd.DataFrame({"gene": list("ABCDEFXY"), "module": ["M2", "M2", "M1", "grey", "M3", "M3", "M1", "M1"]})
    ari, n, seen, partner = recovery.module_agreement(planted, found)
    assert ari == pytest.approx(adjusted_rand_score([1, 1, 1, 2, 2], [2, 2, 1, 3, 3]))
    assert (n, seen) == (5, 6)
    assert partner == {"one": "M2", "two": "M3"}
    assert recovery.module_agreement(planted, found.assign(module="grey"))[0] == 0


def test_traits_need_sign_and_rank():
    planted = pd.DataFrame({"module": ["one", "two"], "trait": ["primary", "acquired"], "sign": [1, -1]})
    traits = pd.DataFrame(
        [("M1", "primary", 0.8), ("M1", "acquired", -0.7), ("M1", "age", 0.9), ("M2", "primary", -0.8), ("M2", "acquired", -0.6)],
        columns=["module", "trait", "rho"],
    )
    assert recovery.trait_verdicts(planted, {"one": "M1", "two": "M2"}, traits).to_dict() == {"one": True, "two": False}
    assert recovery.trait_verdicts(planted, {"one": "M2"}, traits).to_dict() == {"one": False, "two": False}


def test_panel_directions_within_patients_first():
    planted = pd.DataFrame(
        [("G", "T", "B_vs_A", "up"), ("G", "T", "A_vs_B", "down"), ("G", "U", "B_vs_A", "up"), ("H", "T", "B_vs_A", "up")],
        columns=["gene", "cell_type", "contrast", "direction"],
    )
    values = pd.DataFrame(
        [
            ("G", "T", "P", "A", 1.0),
            ("G", "T", "P", "B", 1.5),
            ("G", "T", "Q", "A", 9.0),  # other patients would turn the sign
            ("G", "U", "P", "A", 1.0),
            ("G", "U", "Q", "B", 0.5),
            ("H", "T", "P", "A", np.nan),
            ("H", "T", "P", "B", 2.0),
        ],
        columns=["gene", "cell_type", "patient", "phase", "mean"],
    )
    verdict = recovery.panel_verdicts(planted, values)
    assert list(verdict) == [True, False]  # each pair of phases once, H cannot be told
    assert list(verdict.index) == ["G T A_vs_B", "G U B_vs_A"]


def test_marker_genes_are_higher_in_positive_cells():
    found = pd.DataFrame({"gene": list("ABCX"), "log2fc": [1.0, -0.1, np.nan, 3.0]})
    assert recovery.marker_recall(pd.DataFrame({"gene": list("ABCD")}), found) == (0.5, 2)
