"""A bulk cohort with a planted hazard ratio: expression of a few hundred genes, a clinical table, the truth.

Times are Weibull with the hazard multiplied by the planted ratio per standard deviation of one gene; follow-up ends at a time
that knows nothing of the gene. Every other gene is without effect of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

N_PATIENTS, N_GENES = 160, 300
HAZARD_RATIO = 1.9  # per standard deviation of the marker
MARKER, NULL_MARKER = "MUC3A", "CST3"
MEDIAN_MONTHS = 14.0  # of a patient with a mean marker
SHAPE = 1.2  # Weibull: the hazard rises slowly
FOLLOW_UP = (8.0, 48.0)  # months, uniform: patients enter over time
LEVEL, SPREAD = (4.0, 11.0), (0.5, 1.2)  # log2 expression of a gene: mean, sd
FACTORS, FACTOR_LOADING = 4, 0.5  # processes that genes share, so that the table is correlated as real ones are
COMPANION = 0.7  # correlation of the genes that follow the marker
STEP = 0.1  # months: clinical tables are rounded, which makes ties
STAGES, STAGE_ODDS = ("II", "III", "IV"), (0.3, 0.45, 0.25)


@dataclass(frozen=True)
class BulkCohort:
    """expression: genes x patients (log2). clinical: patient, time (months), event, age, stage. truth: a row per known ratio."""

    expression: pd.DataFrame
    clinical: pd.DataFrame
    truth: pd.DataFrame


def bulk_cohort(
    rng: np.random.Generator,
    n: int = N_PATIENTS,
    hazard_ratio: float = HAZARD_RATIO,
    marker: str = MARKER,
    *,
    null_marker: str = NULL_MARKER,
    companions: Sequence[str] = (),
    genes: Sequence[str] = (),
    dataset: str = "bulk",
) -> BulkCohort:
    """Draw a cohort of `n` patients in which the hazard rises by `hazard_ratio` per standard deviation of `marker`.

    Parameters
    ----------
    null_marker
        a gene without effect, the control of the recovery check.
    companions
        genes that correlate with the marker (a program of the single cells, say) and share its relation weakly.
    genes
        names of the other genes; drawn names G001 ... fill up to 300.

    Returns
    -------
    BulkCohort; `truth` has dataset, marker, hazard_ratio (per SD of this cohort), n, n_events.

    Raises
    ------
    ValueError
        for fewer than 20 patients or a ratio that is not above 0.
    """
    if n < 20 or not hazard_ratio > 0:
        raise ValueError(f"{n} patients with hazard ratio {hazard_ratio}: at least 20 and a ratio above 0 are needed")
    named = list(dict.fromkeys([marker, null_marker, *companions]))
    others = [g for g in dict.fromkeys(genes) if g not in named]
    spare = (f"G{i:03d}" for i in range(1, N_GENES + 1))
    others += [g for g, _ in zip((g for g in spare if g not in {*named, *others}), range(N_GENES - len(named) - len(others)))]
    drawn = rng.normal(size=n)
    z = (drawn - drawn.mean()) / drawn.std(ddof=1)  # the ratio holds per SD of this very cohort

    names = [*named, *others]
    factors = rng.normal(size=(FACTORS, n))
    own = rng.normal(size=(len(names), n))
    belongs = rng.integers(0, FACTORS, size=len(names))
    values = FACTOR_LOADING * factors[belongs] + np.sqrt(1 - FACTOR_LOADING**2) * own
    values[0] = z
    values[1] = own[1]  # the control shares nothing
    for i, name in enumerate(named[2:], start=2):
        values[i] = COMPANION * z + np.sqrt(1 - COMPANION**2) * own[i]
        assert names[i] == name
    level = rng.uniform(*LEVEL, size=(len(names), 1))
    spread = rng.uniform(*SPREAD, size=(len(names), 1))

    scale = MEDIAN_MONTHS / np.log(2) ** (1 / SHAPE)
    latent = scale * (rng.exponential(size=n) / hazard_ratio**z) ** (1 / SHAPE)
    follow_up = rng.uniform(*FOLLOW_UP, size=n)
    time = np.maximum(np.ceil(np.minimum(latent, follow_up) / STEP), 1) * STEP
    event = (latent <= follow_up).astype(int)
    patients = [f"B{i:03d}" for i in range(1, n + 1)]
    clinical = pd.DataFrame(
        {
            "patient": patients,
            "time": np.round(time, 1),
            "event": event,
            "age": np.clip(np.round(rng.normal(62, 9, size=n)), 30, 90).astype(int),
            "stage": rng.choice(STAGES, size=n, p=STAGE_ODDS),
        }
    )
    order = np.argsort(names)
    expression = pd.DataFrame(
        np.round(level + spread * values, 4)[order], index=pd.Index([names[i] for i in order], name="gene"), columns=patients
    )
    truth = pd.DataFrame(
        {
            "dataset": dataset, "marker": [marker, null_marker], "hazard_ratio": [float(hazard_ratio), 1.0], "n": n,
            "n_events": int(event.sum()),
        }
    )  # fmt: skip
    return BulkCohort(expression, clinical, truth)
