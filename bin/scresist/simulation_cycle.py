"""What SIMULATE_COHORT plants of cell division: a share of the malignant cells divides, fewer of them during response.

Tumours that survive a drug as resting cells (persisters; Sharma 2010, Cell 141:69) stop dividing and begin again. A dividing cell
is in S or G2/M with equal chance and holds more of that phase's genes (assets/cell_cycle.tsv); genes that carry another planted
effect are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log

import numpy as np
import pandas as pd

SHARE = {"RES": 0.05}  # of the malignant cells that divide, by phase
SHARE_ELSEWHERE = 0.35
LN_FOLD = 1.6  # of the genes of the cell's phase of the cycle: five times
LISTS = ("S", "G2M")


def cycle_genes(symbols: Sequence[str], reserved: np.ndarray, lists: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """S and G2M -> indices of their genes among `symbols` that are not `reserved` (bool, one per gene)."""
    names = np.asarray(symbols, dtype=object)
    return {name: np.flatnonzero(np.isin(names, list(lists.get(name, ()))) & ~reserved) for name in LISTS}


def plant_cycle(
    log_mean: np.ndarray, cells: pd.DataFrame, phase: str, genes: Mapping[str, np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, pd.DataFrame]:
    """Let malignant cells of a sample divide.

    Parameters
    ----------
    log_mean
        cells x genes, float32; not changed.
    cells
        is_malignant.
    genes
        of `cycle_genes`.

    Returns
    -------
    log_mean, cells
        a further column cycle: S, G2M, rest, or "" where not malignant.
    """
    malignant = np.flatnonzero(cells["is_malignant"].to_numpy(dtype=bool))
    divides = rng.random(len(malignant)) < SHARE.get(phase, SHARE_ELSEWHERE)
    state = np.where(divides, np.array(LISTS, dtype=object)[rng.integers(0, 2, len(malignant))], "rest")
    out = log_mean.copy()
    for name, columns in genes.items():
        out[np.ix_(malignant[state == name], columns)] += np.float32(LN_FOLD)
    every = np.full(len(cells), "", dtype=object)
    every[malignant] = state
    return out, cells.assign(cycle=every)


def cycle_table(symbols: Sequence[str], genes: Mapping[str, np.ndarray], phases: Sequence[str]) -> pd.DataFrame:
    """contrast, gene, log2fc, source: change of the malignant cells' mean, for ordered pairs of phases that divide unequally."""
    gain = (np.exp(LN_FOLD) - 1) / len(LISTS)
    level = {phase: log(1 + SHARE.get(phase, SHARE_ELSEWHERE) * gain) / log(2) for phase in phases}
    names = sorted(str(symbols[i]) for columns in genes.values() for i in columns)
    rows = [
        (f"{a}_vs_{b}", name, level[a] - level[b], "cycle")
        for a in phases for b in phases if abs(level[a] - level[b]) > 1e-9 for name in names
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["contrast", "gene", "log2fc", "source"])
