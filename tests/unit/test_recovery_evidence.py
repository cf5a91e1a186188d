"""Kernels of CHECK_RECOVERY for hazard ratios, curves, stains and routes, on hand-made cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import comparison, dose_response, keys, recovery_evidence, routes, survival


def test_the_words_are_those_of_the_steps():
    assert recovery_evidence.POOLED == dose_response.POOLED
    assert dose_response.OUT_OF_RANGE == keys.OUT_OF_RANGE
    assert set(recovery_evidence.CURVE) == set(dose_response.CURVE)
    assert (recovery_evidence.SUPPORTED, *recovery_evidence.JUDGED[1:], recovery_evidence.NOT_ASSESSABLE) == routes.WORDS
    assert {"patient", "contrast", "route", "word"} <= set(routes.CARD_COLUMNS)
    assert {"replicate", "unit", "ic50", "ic50_kind", "ic50_text", "status"} <= set(dose_response.FIT_COLUMNS)
    values = pd.Series(range(8), dtype=float, index=list("abcdefgh"))
    for paired in (False, True):
        contrast = comparison.Contrast("A_vs_B", tuple("abcd"), tuple("efgh"), paired, keys.OK, "", "phase")
        patients = {name: f"P{at % 4}" for at, name in enumerate("abcdefgh")}
        test = comparison.compare(values + np.arange(8) ** 2, values + 1, contrast, patients)["test"]
        assert test.startswith(recovery_evidence.RANK_TESTS)
    assert (survival.UNIVARIATE, survival.PER_SD) == (recovery_evidence.UNIVARIATE, recovery_evidence.PER_SD)


RATIOS = pd.DataFrame(
    [("bulk", "A", 2.0), ("bulk", "B", 1.0), ("other", "A", 3.0)], columns=["dataset", "marker", "hazard_ratio"]
)


def cox(*rows: tuple) -> pd.DataFrame:
    columns = ["marker", "kind", "model", "per", "hr", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns).assign(dataset="bulk")


def test_a_ratio_must_lie_in_the_univariate_interval():
    found = cox(
        ("A", "gene", "adjusted", "sd", 9.0, 8.0, 10.0),
        ("A", "module", "univariate", "sd", 9.0, 8.0, 10.0),
        ("A", "gene", "univariate", "sd", 1.8, 1.5, 2.0),  # the limit itself is inside
        ("B", "gene", "univariate", "sd", 1.2, 1.01, 1.4),
    )
    ratios = recovery_evidence.hazard_ratios(RATIOS, found)
    assert ratios["inside"].to_dict() == {"A bulk": True, "B bulk": False}  # no table of the other cohort
    assert ratios.loc["A bulk", ["hr", "ci_low", "ci_high"]].tolist() == [1.8, 1.5, 2.0]
    # a marker without a model is not inside
    ratios = recovery_evidence.hazard_ratios(RATIOS, found[found["marker"] == "B"])
    assert ratios["inside"].to_dict() == {"A bulk": False, "B bulk": False} and np.isnan(ratios.loc["A bulk", "hr"])
    assert recovery_evidence.hazard_ratios(RATIOS, found.iloc[:0]).empty


CURVES = pd.DataFrame(
    [("L1", "ctrl", "D", 100.0, "yes"), ("L1", "sh", "D", 10.0, "yes"), ("L2", "ctrl", "D", np.nan, "no")],
    columns=["line", "treatment", "compound", "ic50", "reaches_half"],
).assign(unit="nM")
FITS = pd.DataFrame(
    [("L1", "ctrl", "all", 95.0, "95", "ok"), ("L1", "ctrl", "R1", 50.0, "50", "ok"), ("L1", "sh", "all", 10.4, "10.4", "ok"),
     ("L2", "ctrl", "all", np.nan, "> 12500", "out_of_range"), ("L2", "ctrl", "R1", 900.0, "900", "ok")],
    columns=["line", "treatment", "replicate", "ic50", "ic50_text", "status"],
).assign(compound="D", unit="nM", ic50_kind="absolute")  # fmt: skip


def test_the_error_is_that_of_the_pooled_fit():
    assert recovery_evidence.ic50_errors(CURVES, FITS).to_dict() == pytest.approx({"L1 ctrl D": 0.05, "L1 sh D": 0.04})


@pytest.mark.parametrize("change", [{"ic50": np.nan}, {"ic50_kind": "relative"}, {"unit": "uM"}, {"replicate": "R1"}])
def test_a_curve_without_its_number_has_no_error(change):
    errors = recovery_evidence.ic50_errors(CURVES, FITS.assign(**change))
    assert errors.index.tolist() == ["L1 ctrl D", "L1 sh D"] and errors.isna().all()


def test_an_incomplete_curve_is_told_without_a_number():
    assert recovery_evidence.incomplete_curves(CURVES, FITS).to_dict() == {"L2 ctrl D": True}
    for change in ({"ic50": 20000.0}, {"ic50_text": ""}, {"ic50_text": "< 0.001"}, {"status": "ok"}, {"replicate": "R1"}):
        assert recovery_evidence.incomplete_curves(CURVES, FITS.assign(**change)).to_dict() == {"L2 ctrl D": False}, change


STAINED = pd.DataFrame(
    [("H", "PRE", "none"), ("H", "RES", "down"), ("H", "POST", "down"), ("K", "PRE", "none"), ("K", "RES", "up"),
     ("K", "POST", "none")],
    columns=["marker", "phase", "direction"],
)  # fmt: skip


def stain_tests(*rows: tuple) -> pd.DataFrame:
    columns = ["marker", "contrast", "unit", "test", "effect", "p_value", "p_adjusted"]
    return pd.DataFrame(rows, columns=columns)


def test_directions_are_read_between_patients_and_against_the_baseline():
    found = recovery_evidence.stains(
        STAINED,
        stain_tests(
            ("H", "POST_vs_PRE", "field", "tukey_hsd", 0.9, 0.01, 0.01),
            ("H", "POST_vs_PRE", "patient", "mixed_model", 0.2, 0.3, 0.3),
            ("H", "POST_vs_PRE", "patient", "rank_sum_exact", -0.2, 0.3, 0.3),  # the sign counts, not p
            ("H", "RES_vs_PRE", "patient", "rank_sum", -0.4, np.nan, np.nan),  # one patient: an effect without a test
            ("H", "POST_vs_RES", "patient", "rank_sum_exact", 0.3, 0.1, 0.1),  # not against the baseline
            ("H", "phases", "patient", "kruskal_wallis", 0.3, 0.001, 0.001),
            ("K", "POST_vs_PRE", "patient", "rank_sum_exact", 0.1, 0.2, 0.2),
            ("K", "POST_vs_PRE", "patient", "mixed_model", 0.1, 0.01, 0.04),
            ("K", "POST_vs_PRE", "field", "tukey_hsd", 0.1, 0.001, 0.001),
            ("K", "phases", "patient", "kruskal_wallis", 0.1, 0.001, 0.001),
        ),
    )
    # RES_vs_PRE is in the table, K is not there: its planted rise was not found
    assert found.agree == {"H POST_vs_PRE": True, "K RES_vs_PRE": False}
    assert found.called == {"K POST_vs_PRE": ["mixed_model"]}
    assert found.untested_moved == ["H RES_vs_PRE"] and found.untested_flat == []


def test_no_change_has_no_sign():
    rows = [(m, "POST_vs_PRE", "patient", "signed_rank_exact", 0.0, 0.5, 0.5) for m in ("H", "K")]
    found = recovery_evidence.stains(STAINED, stain_tests(*rows))
    assert found.agree == {"H POST_vs_PRE": False} and found.called == {"K POST_vs_PRE": []}
    found = recovery_evidence.stains(STAINED, stain_tests(*rows[:1]))
    assert found.untested_flat == ["K POST_vs_PRE"]  # what is not there was not kept still either
    assert recovery_evidence.stains(STAINED, stain_tests()) == recovery_evidence.Stains()
    moved = STAINED.assign(direction="up")  # no phase in which nothing moves: no baseline
    assert recovery_evidence.stains(moved, stain_tests(*rows)) == recovery_evidence.Stains()


def test_routes_are_judged_in_patients_with_cells_in_both_biopsies():
    cells = pd.DataFrame(
        [("P1", sample, True, False, True) for sample in ("a", "b") for _ in range(30)]
        + [("P2", "c", True, False, True)] * 40
        + [("P2", "d", True, False, True)] * 29
        + [("P2", "d", True, False, False), ("P2", "d", True, True, True), ("P2", "d", False, False, True)] * 9,
        columns=["planted_patient", "planted_sample", "planted_is_malignant", "planted_is_doublet", "kept"],
    )
    samples = pd.DataFrame([("a", "PRE"), ("b", "POST"), ("c", "PRE"), ("d", "POST")], columns=["sample", "phase"])
    counts = recovery_evidence.malignant_by_phase(cells, samples)
    assert counts.to_dict() == {("P1", "PRE"): 30, ("P1", "POST"): 30, ("P2", "PRE"): 40, ("P2", "POST"): 29}
    planted = pd.DataFrame(
        [("P2", "r", "yes"), ("P1", "r", "yes"), ("P1", "s", "no"), ("P1", "emt", "yes")], columns=["patient", "route", "planted"]
    ).assign(contrast="POST_vs_PRE")
    card = pd.DataFrame(
        [("P1", "POST_vs_PRE", "r", "mixed"), ("P1", "RES_vs_PRE", "r", "supported"), ("P1", "POST_vs_PRE", "s", "supported"),
         ("P2", "", "r", "not assessable")],
        columns=["patient", "contrast", "route", "word"],
    )  # fmt: skip
    words = recovery_evidence.route_words(planted, card, counts)
    assert words["word"].to_dict() == {
        "P1 emt POST_vs_PRE": "", "P1 r POST_vs_PRE": "mixed", "P1 s POST_vs_PRE": "supported", "P2 r POST_vs_PRE": "",
    }  # fmt: skip
    assert words["followed"].tolist() == [True, True, True, False]
    assert recovery_evidence.route_words(planted.iloc[:0], card, counts).empty
    assert not recovery_evidence.route_words(planted, card, counts.iloc[:0])["followed"].any()
