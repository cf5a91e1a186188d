"""Planted plates and fields: what the truth says is what the tables hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import dose_response, keys, simulation_evidence_wet
from scresist.simulation import DEMO_DESIGN


def rng_of(seed):
    return lambda *unit: np.random.default_rng([seed, *("/".join(unit)).encode()])


def test_plates_have_the_design_of_the_study():
    wells, truth = simulation_evidence_wet.plates(rng_of(0))
    doses = sorted(set(wells["dose"]))
    assert len(doses) == 12
    assert doses[:2] == [0.0, 0.00128]
    assert doses[-1] == pytest.approx(12_500)
    assert set(wells.groupby(["line", "treatment", "compound", "replicate"]).size()) == {12}
    assert truth["reaches_half"].value_counts().to_dict() == {keys.YES: 6, keys.NO: 1}
    assert truth.loc[truth["reaches_half"] == keys.NO, "ic50"].isna().all()


def test_the_planted_ic50_is_the_absolute_one():
    for ic50, hill, bottom in ((480.0, 1.2, 6.0), (2.4, 1.4, 4.0)):
        values = (bottom, 100.0, simulation_evidence_wet.middle_of(ic50, hill, bottom), hill)
        assert dose_response.response(np.array([np.log10(ic50)]), values)[0] == pytest.approx(50)
        assert 10 ** dose_response.log_absolute(values) == pytest.approx(ic50)


def test_recovery_over_seeds():
    for seed in range(20):
        wells, truth = simulation_evidence_wet.plates(rng_of(seed))
        y = 100 * (wells["od_drug"] - wells["od_day0"]) / (wells["od_nodrug"] - wells["od_day0"])
        parts = {key: part.index for key, part in wells.groupby(["line", "treatment", "compound"])}
        keys_ = [(r["line"], r["treatment"], r["compound"]) for r in truth.to_dict("records")]
        curves = [(dose_response.log_doses(wells.loc[parts[k], "dose"]), y[parts[k]].to_numpy()) for k in keys_]
        for row, made in zip(truth.to_dict("records"), dose_response.estimate(curves), strict=True):
            if row["reaches_half"] == keys.YES:
                assert 10**made.log_ic50 == pytest.approx(row["ic50"], rel=0.1)
            else:
                assert (made.status, made.text) == (dose_response.OUT_OF_RANGE, "> 12500")


def test_equal_seed_equal_tables_and_samples_on_their_own():
    samples = DEMO_DESIGN[["sample", "patient", "phase"]]
    first, truth = simulation_evidence_wet.staining(samples, rng_of(1))
    again, _ = simulation_evidence_wet.staining(samples.iloc[::-1], rng_of(1))
    pd.testing.assert_frame_equal(first, again)
    fewer, _ = simulation_evidence_wet.staining(samples.iloc[:3], rng_of(1))
    kept = first[first["sample"].isin(samples["sample"].iloc[:3])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, fewer)
    wells, _ = simulation_evidence_wet.plates(rng_of(1))
    pd.testing.assert_frame_equal(wells, simulation_evidence_wet.plates(rng_of(1))[0])
    assert not wells.equals(simulation_evidence_wet.plates(rng_of(2))[0])
    assert set(truth.loc[truth["marker"] == "CTSB", "direction"]) == {"none"}
    assert truth.set_index(["marker", "phase"]).at[("HER2", "POST"), "direction"] == "down"


def test_fields_lie_around_the_planted_share():
    many = pd.DataFrame({"sample": [f"S{i}" for i in range(60)], "patient": [f"P{i}" for i in range(60)], "phase": "POST"})
    fields, _ = simulation_evidence_wet.staining(many, rng_of(3))
    assert fields["value"].between(0, 1).all()
    assert set(fields.groupby(["sample", "marker"]).size()) == {simulation_evidence_wet.N_FIELDS}
    mean = fields.groupby("marker")["value"].mean()
    assert mean["HER2"] == pytest.approx(0.25, abs=0.03)
    assert mean["CST3"] == pytest.approx(0.62, abs=0.03)
