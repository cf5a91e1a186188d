"""Kernels of CHECK_RECOVERY on tables small enough to work by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import recovery


def table(**columns) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    base = {
        "planted_sample": ["S"] * n,
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
