"""What SIMULATE_COHORT plants along time: a differentiation path in the malignant cells of patients followed through therapy.

A path belongs to the cohort, its use to patients with two or more phases. Each malignant cell has a place on the path, 0
(early) to 1 (late), drawn from the Beta distribution of its phase: baseline cells lie early, cells at acquired resistance
late, so that baseline cells further along resemble the resistant ones. Early cells hold more RNA and express more genes than late
ones, which is what CytoTRACE (Gulati 2020, Science 367:405) reads: most genes of the path fade along it. ln folds are centred
on the middle of the path, so that a patient's mean level hardly moves.
"""

from __future__ import annotations

from math import log

import numpy as np
import pandas as pd

from scresist.simulation import Model

N_FADING, N_RISING = 600, 120
LN_FOLD = 2.4  # over the whole path: a factor of 11
LN_LIBRARY = -0.8  # of the counts of a cell over the whole path: early cells hold more RNA
LEVEL_CP10K = (0.2, 1.0)  # in epithelium: below the genes of phases and modules, where on and off shows in the number of genes
PLACE: dict[str, tuple[float, float]] = {"PRE": (2.0, 4.0), "RES": (3.0, 3.0), "POST": (4.0, 2.0)}
ELSEWHERE = (3.0, 3.0)
MIN_PHASES = 2  # of a patient, for a path


def make_path(model: Model, rng: np.random.Generator) -> pd.Series:
    """ln fold of each gene from the beginning to the end of the path (0 for most), index gene.

    Drawn among background genes of LEVEL_CP10K in epithelium that no epithelial program moves; with few genes simulated, fewer.
    """
    states, symbols = model.states, model.genes["symbol"].to_numpy()
    epithelial = (states["lineage"] == "epithelial").to_numpy()
    level = np.exp(model.log_mean[epithelial]).min(axis=0) * 1e4
    own = model.programs.loc[model.programs["main_type"].isin(states.loc[epithelial, "main_type"]), "gene"]
    free = (model.genes["role"] == "background").to_numpy() & (level >= LEVEL_CP10K[0]) & (level < LEVEL_CP10K[1])
    order = rng.permutation(np.flatnonzero(free & ~np.isin(symbols, list(own))))[: N_FADING + N_RISING]
    n_rising = len(order) * N_RISING // (N_FADING + N_RISING)
    path = pd.Series(0.0, index=symbols)
    path.iloc[order] = -LN_FOLD
    path.iloc[order[:n_rising]] = LN_FOLD
    return path


def plant_path(
    log_mean: np.ndarray, cells: pd.DataFrame, phase: str, path: pd.Series, rng: np.random.Generator
) -> tuple[np.ndarray, pd.DataFrame]:
    """Put the malignant cells of a sample on the path.

    Parameters
    ----------
    log_mean
        cells x genes, float32; not changed.
    cells
        is_malignant, library (expected counts).

    Returns
    -------
    log_mean, cells
        library follows the path; a further column path_time (0 to 1; NaN where not malignant).
    """
    malignant = np.flatnonzero(cells["is_malignant"].to_numpy(dtype=bool))
    place = np.full(len(cells), np.nan)
    place[malignant] = rng.beta(*PLACE.get(phase, ELSEWHERE), len(malignant))
    out = log_mean.copy()
    out[malignant] += np.outer(place[malignant] - 0.5, path.to_numpy()).astype(np.float32)
    library = cells["library"].to_numpy() * np.exp(LN_LIBRARY * np.nan_to_num(place - 0.5))
    return out, cells.assign(library=library, path_time=place)


def path_table(path: pd.Series) -> pd.DataFrame:
    """gene, log2fc (end against beginning of the path), sorted by gene."""
    moved = path[path != 0].sort_index()
    return pd.DataFrame({"gene": moved.index, "log2fc": moved.to_numpy() / log(2)})
