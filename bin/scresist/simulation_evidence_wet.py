"""What SIMULATE_COHORT plants at the bench: dose-response plates with known IC50s, stained fields with known differences.

Plates follow the study's assay: twelve doses (0, then fivefold from 0.00128 to 12,500 nM), triplicates, optical densities at
day 0 and at the end. One curve levels off above half effect, so that it has no IC50. Fields follow the samples of the design: the
target falls and the protease inhibitor rises at resistance, as in the planted transcripts; one marker does not move.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from scresist import keys

UNIT = "nM"
DOSES = (0.0, *(0.00128 * 5.0**step for step in range(11)))
N_REPLICATES = 3
OD_BLANK, OD_DAY0, OD_NODRUG = 0.08, 0.25, 1.35
NOISE_PCT = 1.2  # sd of the viability of a well, in percent
REPLICATE_LN_SD = 0.02  # sd of ln IC50 between replicates
# line, treatment, compound -> absolute IC50 (nM), hill, bottom (%); a bottom above 50 has no IC50
PLATES: dict[tuple[str, str, str], tuple[float, float, float]] = {
    ("LINE-1", "shCtrl", "ADC-1"): (480.0, 1.2, 6.0),
    ("LINE-1", "shMUC3A-1", "ADC-1"): (60.0, 1.2, 6.0),
    ("LINE-1", "shMUC3A-2", "ADC-1"): (85.0, 1.1, 8.0),
    ("LINE-2", "shCtrl", "ADC-1"): (np.nan, 1.0, 68.0),
    ("LINE-2", "shMUC3A-1", "ADC-1"): (900.0, 1.0, 5.0),
    ("LINE-1", "shCtrl", "PAYLOAD-1"): (2.4, 1.4, 4.0),
    ("LINE-1", "shMUC3A-1", "PAYLOAD-1"): (2.4, 1.4, 4.0),
}
PLATEAU_MIDDLE = 150.0  # nM: relative IC50 of a curve that does not reach 50 %
HALF = 50.0

N_FIELDS = 5
FIELD_CELLS = (120, 400)  # cells of a field
SAMPLE_LOGIT_SD, FIELD_LOGIT_SD = 0.25, 0.20
# marker, gene -> share of positive tumour cells by phase; a phase that is not named has the share of ""
STAINS: dict[tuple[str, str], dict[str, float]] = {
    ("HER2", "ERBB2"): {"": 0.80, "RES": 0.62, "POST": 0.25},
    ("CST3", "CST3"): {"": 0.15, "RES": 0.30, "POST": 0.62},
    ("Ki67", "MKI67"): {"": 0.45, "RES": 0.12, "POST": 0.30},
    ("CTSB", "CTSB"): {"": 0.40},
}


def middle_of(ic50: float, hill: float, bottom: float, top: float = 100.0) -> float:
    """log10 of the relative IC50 of a curve whose absolute IC50 is given."""
    if not np.isfinite(ic50):
        return float(np.log10(PLATEAU_MIDDLE))
    return float(np.log10(ic50) - np.log10((top - HALF) / (HALF - bottom)) / hill)


def plates(rng: Callable[..., np.random.Generator]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Wells as a plate reader gives them, and the truth.

    Parameters
    ----------
    rng
        name parts -> generator: a curve's wells follow from the seed and its own name.

    Returns
    -------
    wells
        line, treatment, compound, replicate, dose, unit, od_drug, od_nodrug, od_day0, od_blank.
    truth
        line, treatment, compound, ic50 (empty = not reached), hill, bottom, top, reaches_half (yes, no), unit.
    """
    rows, truth = [], []
    for (line, treatment, compound), (ic50, hill, bottom) in PLATES.items():
        source = rng("dose_response", line, treatment, compound)
        for replicate in range(1, N_REPLICATES + 1):
            shift = source.normal(0, REPLICATE_LN_SD)
            for dose in DOSES:
                middle = middle_of(ic50, hill, bottom) + shift / np.log(10)
                share = 1.0 if dose == 0 else 1 / (1 + 10 ** (hill * (np.log10(dose) - middle)))
                viability = bottom + (100 - bottom) * share + source.normal(0, NOISE_PCT)
                growth = OD_NODRUG - OD_DAY0
                rows.append(
                    {
                        "line": line, "treatment": treatment, "compound": compound, "replicate": f"R{replicate}", "dose": dose,
                        "unit": UNIT, "od_drug": round(OD_DAY0 + growth * viability / 100, 5), "od_nodrug": OD_NODRUG,
                        "od_day0": OD_DAY0, "od_blank": OD_BLANK,
                    }
                )  # fmt: skip
        truth.append(
            {
                "line": line, "treatment": treatment, "compound": compound, "ic50": ic50, "hill": hill, "bottom": bottom,
                "top": 100.0, "reaches_half": keys.YES if bottom < HALF else keys.NO, "unit": UNIT,
            }
        )  # fmt: skip
    return pd.DataFrame(rows), pd.DataFrame(truth)


def staining(samples: pd.DataFrame, rng: Callable[..., np.random.Generator]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fields of view of every sample, and the truth.

    Parameters
    ----------
    samples
        sample, patient, phase.
    rng
        name parts -> generator: a sample's fields follow from the seed and its own name.

    Returns
    -------
    fields
        patient, sample, phase, section, field, marker, gene, value (share of positive cells), n_cells.
    truth
        marker, gene, phase, share, direction against the phases that are not named (up, down, none).
    """
    rows = []
    for record in samples.sort_values(keys.SAMPLE).to_dict("records"):
        sample, phase = str(record[keys.SAMPLE]), str(record[keys.PHASE])
        for (marker, gene), course in STAINS.items():
            source = rng("staining", sample, marker)
            share = course.get(phase, course[""])
            level = np.log(share / (1 - share)) + source.normal(0, SAMPLE_LOGIT_SD)
            for field in range(1, N_FIELDS + 1):
                n_cells = int(source.integers(*FIELD_CELLS))
                positive = source.binomial(n_cells, 1 / (1 + np.exp(-(level + source.normal(0, FIELD_LOGIT_SD)))))
                rows.append(
                    {
                        keys.PATIENT: str(record[keys.PATIENT]), keys.SAMPLE: sample, keys.PHASE: phase, "section": "1",
                        "field": str(field), "marker": marker, "gene": gene, "value": round(positive / n_cells, 5),
                        "n_cells": n_cells,
                    }
                )  # fmt: skip
    truth = []
    for (marker, gene), course in STAINS.items():
        for phase in sorted(set(samples[keys.PHASE].astype(str))):
            share = course.get(phase, course[""])
            word = "none" if share == course[""] else "up" if share > course[""] else "down"
            truth.append({"marker": marker, "gene": gene, "phase": phase, "share": share, "direction": word})
    return pd.DataFrame(rows), pd.DataFrame(truth)
