"""The planted bulk cohort: what it promises is what a Cox model finds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import keys, survival
from scresist.simulation_evidence_survival import BulkCohort, bulk_cohort


def fit(made: BulkCohort, gene: str):
    values = made.expression.loc[gene].to_numpy()
    terms = pd.DataFrame({"sd": survival.standard(values)})
    return survival.cox(made.clinical["time"].to_numpy(), made.clinical["event"].to_numpy(dtype=float), terms)["sd"]


def test_planted_ratio_lies_within_the_interval():
    held, null, estimates = [], [], []
    for seed in range(40):
        made = bulk_cohort(np.random.default_rng(seed))
        ratio = fit(made, "MUC3A")
        assert ratio.status in (keys.OK, keys.WARNING)
        held.append(ratio.ci_low <= 1.9 <= ratio.ci_high)
        estimates.append(np.log(ratio.hr))
        control = fit(made, "CST3")
        null.append(control.ci_low <= 1 <= control.ci_high)
    assert np.mean(held) >= 0.9
    assert np.mean(null) >= 0.85
    assert np.exp(np.mean(estimates)) == pytest.approx(1.9, rel=0.05)


def test_tables():
    made = bulk_cohort(np.random.default_rng(1), 80, 0.5, "ZEB1", companions=("VIM", "SPARC"), genes=("VIM", "ACTB"), dataset="d")
    assert made.expression.shape == (300, 80)
    assert list(made.expression.index) == sorted(made.expression.index)
    assert {"ZEB1", "CST3", "VIM", "SPARC", "ACTB", "G001"} <= set(made.expression.index)
    clinical = made.clinical
    assert list(clinical) == ["patient", "time", "event", "age", "stage"]
    assert list(clinical["patient"]) == list(made.expression.columns)
    assert (clinical["time"] > 0).all()
    assert set(clinical["event"]) == {0, 1}
    assert 0.3 < clinical["event"].mean() < 0.95
    assert made.truth.to_dict("records") == [
        {"dataset": "d", "marker": "ZEB1", "hazard_ratio": 0.5, "n": 80, "n_events": int(clinical["event"].sum())},
        {"dataset": "d", "marker": "CST3", "hazard_ratio": 1.0, "n": 80, "n_events": int(clinical["event"].sum())},
    ]
    marker = made.expression.loc["ZEB1"].to_numpy()
    assert np.corrcoef(marker, made.expression.loc["VIM"])[0, 1] > 0.4
    assert abs(np.corrcoef(marker, made.expression.loc["CST3"])[0, 1]) < 0.3
    _, problems = survival.read_clinical(clinical.astype(str), "patient", "time", "event", covariates=["age", "stage"])
    assert problems == []


def test_same_generator_same_cohort():
    a, b = (bulk_cohort(np.random.default_rng(5)) for _ in range(2))
    pd.testing.assert_frame_equal(a.expression, b.expression)
    pd.testing.assert_frame_equal(a.clinical, b.clinical)


def test_median_of_a_mean_patient():
    made = bulk_cohort(np.random.default_rng(2), 4000, 1.0)
    _, (median, _, _) = survival.kaplan_meier(made.clinical["time"].to_numpy(), made.clinical["event"].to_numpy())
    assert median == pytest.approx(14, rel=0.06)


@pytest.mark.parametrize(("n", "ratio"), [(10, 2.0), (100, 0.0)])
def test_what_cannot_be_drawn(n, ratio):
    with pytest.raises(ValueError, match="at least 20 and a ratio above 0"):
        bulk_cohort(np.random.default_rng(1), n, ratio)
