"""How much of the change of a score between two biopsies came by selection of clones and how much within clones.

For clones c with shares p and mean scores m in an earlier (0) and a later biopsy (1), M = sum_c p m and the centre
K = (M0 + M1) / 2:

    selection      = sum over clones seen in both   (p1 - p0) ((m0 + m1) / 2 - K)
    reprogramming  = sum over clones seen in both   (p0 + p1) / 2 (m1 - m0)
    emergence      = sum over clones seen later     p1 (m1 - K)
    loss           = - sum over clones seen earlier p0 (m0 - K)

The four add up to M1 - M0 exactly (as in the Price equation with migration, Kerr and Godfrey-Smith 2009, Evolution 63:531).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from scresist import keys

SELECTION, REPROGRAMMING, EMERGENCE, LOSS = "selection", "reprogramming", "emergence", "loss"
PARTS = (SELECTION, REPROGRAMMING, EMERGENCE, LOSS)
TOTAL = "total"
RESIDUAL = "residual"  # the change less its four parts, taken before the table rounds them
RESIDUAL_DECIMALS = 12  # what lies below is the rounding of one processor or another; two machines must write the same table
LEVEL = 0.95
COLUMNS = (
    keys.PATIENT, "contrast", "score", "mean_a", "mean_b", TOTAL, f"{TOTAL}_low", f"{TOTAL}_high",
    *(name for part in PARTS for name in (part, f"{part}_low", f"{part}_high")),
    RESIDUAL, "n_clones", "n_shared", "n_new", "n_lost", "n_cells_a", "n_cells_b", "n_boot", "unit", "evidence", "status",
    "reason",
)  # fmt: skip


def parts(p0: np.ndarray, p1: np.ndarray, m0: np.ndarray, m1: np.ndarray) -> dict[str, float]:
    """The total change and its four parts.

    Parameters
    ----------
    p0, p1
        shares of the clones in the earlier and the later biopsy; each sums to 1.
    m0, m1
        mean score of each clone; where a clone is absent (share 0) its mean is not read and may be NaN.
    """
    p0, p1 = np.asarray(p0, dtype=float), np.asarray(p1, dtype=float)
    m0, m1 = (np.asarray(m, dtype=float) for m in (m0, m1))
    return _parts(p0, p1, np.where(p0 > 0, m0, 0.0), np.where(p1 > 0, m1, 0.0), p0 > 0, p1 > 0)


def _parts(
    p0: np.ndarray, p1: np.ndarray, m0: np.ndarray, m1: np.ndarray, seen0: np.ndarray, seen1: np.ndarray
) -> dict[str, Any]:
    """The parts along the last axis; `seen0` and `seen1` say which clones count as present, so that draws keep their kind."""
    before, after = (p0 * m0).sum(axis=-1), (p1 * m1).sum(axis=-1)
    k = ((before + after) / 2)[..., None]
    shared, new, lost = seen0 & seen1, ~seen0 & seen1, seen0 & ~seen1
    return {
        TOTAL: after - before,
        SELECTION: np.where(shared, (p1 - p0) * ((m0 + m1) / 2 - k), 0.0).sum(axis=-1),
        REPROGRAMMING: np.where(shared, (p0 + p1) / 2 * (m1 - m0), 0.0).sum(axis=-1),
        EMERGENCE: np.where(new, p1 * (m1 - k), 0.0).sum(axis=-1),
        LOSS: np.where(lost, -p0 * (m0 - k), 0.0).sum(axis=-1),
    }


def decompose(
    scores: np.ndarray, clone: Sequence[str], later: np.ndarray, n_boot: int, seed: int
) -> list[dict[str, tuple[float, float, float]]]:
    """Total and parts of every score with percentile intervals over draws of cells.

    In each draw the numbers of cells of the clones are drawn anew in each biopsy (multinomial) and then the cells within
    clone and biopsy, with replacement; a clone keeps its kind (shared, new, lost) in every draw. Without the first draw the
    shares would count as known and the interval of `selection` would be too short.

    Parameters
    ----------
    scores
        cells x scores, finite.
    clone
        clone of each cell.
    later
        boolean: the cell is of the later biopsy.

    Returns
    -------
    One dict per score: part -> (value, lower, upper 95 % limit); limits NaN for n_boot = 0.
    """
    scores = np.asarray(scores, dtype=float)
    names, code = np.unique(np.asarray(clone, dtype=str), return_inverse=True)
    sides = [np.asarray(~later, dtype=bool), np.asarray(later, dtype=bool)]
    rows = [[np.flatnonzero(side & (code == at)) for at in range(len(names))] for side in sides]
    counts = [np.array([len(r) for r in side]) for side in rows]
    seen = [n > 0 for n in counts]
    means = [np.array([scores[r].mean(axis=0) if len(r) else np.zeros(scores.shape[1]) for r in side]) for side in rows]
    p = [n / n.sum() for n in counts]
    observed = _parts(p[0], p[1], means[0].T, means[1].T, *seen)
    rng = np.random.default_rng(seed)
    drawn_p, drawn_m = [], []
    for side in range(2):
        n = rng.multinomial(counts[side].sum(), p[side], size=n_boot)
        drawn = np.repeat(means[side].T[None], n_boot, axis=0)  # draws x scores x clones
        for at, own in enumerate(rows[side]):
            for draw in range(n_boot):
                if size := n[draw, at]:
                    drawn[draw, :, at] = scores[own[rng.integers(len(own), size=size)]].mean(axis=0)
        drawn_p.append(n / counts[side].sum())
        drawn_m.append(drawn)
    made = _parts(drawn_p[0][:, None], drawn_p[1][:, None], *drawn_m, *seen) if n_boot else {}
    tail = (1 - LEVEL) / 2
    out = []
    for at in range(scores.shape[1]):
        one = {}
        for name, value in observed.items():
            low, high = np.quantile(made[name][:, at], [tail, 1 - tail]) if n_boot else (np.nan, np.nan)
            one[name] = (float(value[at]), float(low), float(high))
        out.append(one)
    return out


def table(
    patient: str, contrast: str, scores: pd.DataFrame, clone: pd.Series, later: np.ndarray, traced: bool, min_cells: int,
    n_boot: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """COLUMNS: one row per score of one patient and pair of biopsies.

    Parameters
    ----------
    scores
        cells x scores; a score that is missing in all cells gives a row that is not estimable, cells that lack another are
        left out of it.
    traced
        whether `clone` comes from copy number. Without clones, and with a single one, all change is within it: selection,
        emergence and loss are then empty, not 0.
    min_cells
        cells that each biopsy needs.
    """
    rows = []
    for name in scores.columns:
        values = scores[name].to_numpy(dtype=float)
        known = np.isfinite(values)
        a, b = int((known & later).sum()), int((known & ~later).sum())
        own = clone[known]
        kinds = [set(own[later[known]]), set(own[~later[known]])]
        blank: Mapping[str, Any] = dict.fromkeys(COLUMNS, np.nan) | {
            keys.PATIENT: patient, "contrast": contrast, "score": name, "n_clones": len(kinds[0] | kinds[1]) if traced else pd.NA,
            "n_shared": len(kinds[0] & kinds[1]), "n_new": len(kinds[0] - kinds[1]), "n_lost": len(kinds[1] - kinds[0]),
            "n_cells_a": a, "n_cells_b": b, "n_boot": n_boot, "unit": "cell", "evidence": keys.SINGLE_PATIENT,
            "status": keys.OK, "reason": "",
        }  # fmt: skip
        row = dict(blank)
        if not known.any():
            rows.append(row | {"status": keys.NOT_ESTIMABLE, "reason": f"{name} was not measured"})
            continue
        if min(a, b) < min_cells:
            why = f"{b} and {a} tumour cells in the two biopsies, {min_cells} needed in each"
            rows.append(row | {"status": keys.NOT_ESTIMABLE, "reason": why})
            continue
        found = decompose(values[known][:, None], own.tolist(), later[known], n_boot, seed)[0]
        one = len(kinds[0] | kinds[1]) < 2 or not traced
        for part, (value, low, high) in found.items():
            if one and part not in (TOTAL, REPROGRAMMING):
                continue
            row |= {part: value, f"{part}_low": low, f"{part}_high": high}
        if one:
            row["reason"] = "one clone: all change is within it" if traced else "no clones were traced: all cells count as one"
            row["status"] = keys.WARNING
        row |= {"mean_a": values[known & later].mean(), "mean_b": values[known & ~later].mean()}
        # also against the means over cells, which know nothing of clones: `total` is made of the clones' shares and means
        made_up = sum(found[part][0] for part in PARTS)
        left = max(found[TOTAL][0] - made_up, row["mean_a"] - row["mean_b"] - made_up, key=abs)
        rows.append(row | {RESIDUAL: round(float(left), RESIDUAL_DECIMALS) + 0.0})  # + 0.0: never -0
    made = pd.DataFrame(rows, columns=list(COLUMNS))
    whole = ["n_clones", "n_shared", "n_new", "n_lost", "n_cells_a", "n_cells_b", "n_boot"]
    return made.astype(dict.fromkeys(whole, "Int64"))
