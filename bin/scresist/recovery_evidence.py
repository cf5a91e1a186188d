"""Planted against recovered beyond the cells: hazard ratios, dose-response, staining, routes of resistance."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from scresist import keys
from scresist.comparison import UNIT_PATIENT
from scresist.recovery import MIN_MALIGNANT, kept_singlets

CALLED_P = 0.05
UNIVARIATE, PER_SD, GENE = "univariate", "sd", "gene"  # words of TEST_SURVIVAL
POOLED, ABSOLUTE = "all", "absolute"  # words of FIT_DOSE_RESPONSE
CURVE = ("line", "treatment", "compound")
BEYOND = re.compile(r"^> \d")  # an IC50 told as lying above the highest dose
RANK_TESTS = ("rank_sum", "signed_rank")  # how the tests between patients begin whose effect is a difference of means
UP, DOWN, UNMOVED = "up", "down", "none"  # planted directions of a marker
SUPPORTED, MIXED, NOT_SUPPORTED, NOT_ASSESSABLE = "supported", "mixed", "not supported", "not assessable"
JUDGED = (SUPPORTED, MIXED, NOT_SUPPORTED)  # words of SCORE_ROUTES that stand for an answer


def hazard_ratios(planted: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Planted hazard ratios and the interval found for each; only of datasets that `found` holds.

    Parameters
    ----------
    planted
        dataset, marker, hazard_ratio (per standard deviation).
    found
        dataset, marker, kind, model, per, hr, ci_low, ci_high: the tables of Cox models.

    Returns
    -------
    Index `<marker> <dataset>`; hazard_ratio, hr, ci_low, ci_high (NaN where the marker has no univariate model), inside (bool).
    """
    own = found[(found["kind"] == GENE) & (found["model"] == UNIVARIATE) & (found["per"] == PER_SD)]
    own = own[["dataset", "marker", "hr", "ci_low", "ci_high"]].drop_duplicates(["dataset", "marker"])
    here = planted[planted["dataset"].isin(set(found["dataset"]))]
    joined = here.merge(own, on=["dataset", "marker"], how="left").sort_values(["dataset", "marker"])
    joined.index = pd.Index(joined["marker"] + " " + joined["dataset"])
    joined["inside"] = (joined["ci_low"] <= joined["hazard_ratio"]) & (joined["hazard_ratio"] <= joined["ci_high"])
    return joined[["hazard_ratio", "hr", "ci_low", "ci_high", "inside"]]


def _pooled(planted: pd.DataFrame, fits: pd.DataFrame) -> pd.DataFrame:
    """Planted curves with the fit over all replicates, in the same unit of dose; index `<line> <treatment> <compound>`."""
    own = fits[fits["replicate"] == POOLED].drop_duplicates([*CURVE, "unit"])
    joined = planted.merge(own, on=[*CURVE, "unit"], how="left", suffixes=("", "_found")).sort_values(list(CURVE))
    joined.index = pd.Index([" ".join(names) for names in joined[list(CURVE)].itertuples(index=False)], dtype=str)
    return joined


def ic50_errors(planted: pd.DataFrame, fits: pd.DataFrame) -> pd.Series:
    """|found / planted - 1| of the absolute IC50 per curve that reaches half effect; NaN where none was given.

    Parameters
    ----------
    planted
        line, treatment, compound, unit, ic50, reaches_half (yes, no).
    fits
        line, treatment, compound, replicate, unit, ic50, ic50_kind.
    """
    joined = _pooled(planted[planted["reaches_half"] == keys.YES], fits)
    number = joined["ic50_found"].astype(float).where(joined["ic50_kind"] == ABSOLUTE)
    return (number / joined["ic50"] - 1).abs()


def incomplete_curves(planted: pd.DataFrame, fits: pd.DataFrame) -> pd.Series:
    """Per curve that does not reach half effect: is it told as beyond the highest dose, without a number?

    fits: as in `ic50_errors`, and ic50_text, status.
    """
    joined = _pooled(planted[planted["reaches_half"] == keys.NO], fits)
    told = (joined["status"] == keys.OUT_OF_RANGE) & joined["ic50_text"].fillna("").astype(str).str.match(BEYOND)
    return told & joined["ic50_found"].isna()


@dataclass
class Stains:
    """Verdicts on planted stains by `<marker> <contrast>`.

    agree: the planted direction was found. called: the tests that call a marker that stays (empty = none). untested_moved,
    untested_flat: contrasts that hold too few patients, or constant values, for a test.
    """

    agree: dict[str, bool] = field(default_factory=dict)
    called: dict[str, list[str]] = field(default_factory=dict)
    untested_moved: list[str] = field(default_factory=list)
    untested_flat: list[str] = field(default_factory=list)


def stains(planted: pd.DataFrame, tests: pd.DataFrame) -> Stains:
    """Planted stains against the tests between patients.

    Contrasts are those of a phase with a phase in which no marker is planted to differ (the baseline). The direction is the sign
    of the difference of means behind the rank test; called is a marker with any test between patients below an adjusted p of 0.05
    in the contrast (rank, mixed model, Dunn). A difference without any row in a contrast of the table was not found.

    Parameters
    ----------
    planted
        marker, phase, direction (up, down, none).
    tests
        marker, contrast, unit, test, effect, p_value, p_adjusted.
    """
    still = planted.groupby("phase")["direction"].agg(lambda words: (words == UNMOVED).all())
    baselines = sorted(still.index[still])
    own = tests[tests["unit"] == UNIT_PATIENT]
    known = set(own["contrast"])
    made = Stains()
    for row in planted.sort_values(["marker", "phase"]).itertuples():
        for contrast in (f"{row.phase}_vs_{base}" for base in baselines if base != row.phase):
            if contrast not in known:
                continue
            name = f"{row.marker} {contrast}"
            mine = own[(own["marker"] == row.marker) & (own["contrast"] == contrast)]
            tested = mine[mine["p_value"].notna()]
            flat = row.direction == UNMOVED
            if tested.empty and (len(mine) or flat):
                (made.untested_flat if flat else made.untested_moved).append(name)
            elif flat:
                made.called[name] = sorted(set(tested.loc[tested["p_adjusted"] < CALLED_P, "test"]))
            else:
                effect = tested.loc[tested["test"].str.startswith(RANK_TESTS), "effect"]
                moved = float(effect.iloc[0]) if len(effect) else np.nan
                made.agree[name] = bool(moved > 0 if row.direction == UP else moved < 0)
    return made


def malignant_by_phase(cells: pd.DataFrame, samples: pd.DataFrame) -> pd.Series:
    """Kept single planted malignant cells by (patient, phase).

    Parameters
    ----------
    cells
        joined table with planted_sample, planted_patient, planted_is_malignant.
    samples
        sample, phase.
    """
    own = kept_singlets(cells)
    own = own[own["planted_is_malignant"]]
    phase = own["planted_sample"].map(samples.set_index("sample")["phase"].astype(str))
    return own.groupby([own["planted_patient"], phase.rename("phase")]).size()


def route_words(planted: pd.DataFrame, card: pd.DataFrame, counts: pd.Series) -> pd.DataFrame:
    """Planted routes and the word of the card for each.

    Parameters
    ----------
    planted
        patient, contrast, route, planted (yes, no).
    card
        patient, contrast, route, word.
    counts
        cells by (patient, phase), of `malignant_by_phase`.

    Returns
    -------
    Index `<patient> <route> <contrast>`; planted, word ("" = not on the card), followed: both biopsies of the contrast have at
    least MIN_MALIGNANT malignant cells, so that the card must answer.
    """
    enough = counts[counts >= MIN_MALIGNANT]
    phases: dict[str, list[str]] = {}
    for patient, phase in enough.index:
        phases.setdefault(str(patient), []).append(str(phase))
    compared = {(who, f"{a}_vs_{b}") for who, names in phases.items() for a in names for b in names if a != b}
    by = ["patient", "contrast", "route"]
    joined = planted.merge(card[[*by, "word"]].drop_duplicates(by), on=by, how="left").sort_values(by)
    joined["word"] = joined["word"].fillna("")
    joined["followed"] = [pair in compared for pair in joined[["patient", "contrast"]].itertuples(index=False, name=None)]
    joined.index = pd.Index(joined["patient"] + " " + joined["route"] + " " + joined["contrast"])
    return joined[["planted", "word", "followed"]]
