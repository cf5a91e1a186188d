"""The AnnData contract, checked on read and before write.

`layers['counts']`: non-negative integers, CSR. `X` (from MERGE_COHORT on): log1p of counts per 10,000. `var_names`:
unique gene symbols, sorted. `obs_names`: `<sample>:<barcode>`, unique, sorted within a sample. `obs`: sample, patient,
phase, batch. `uns['scresist']`: one entry per step.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from scresist import keys
from scresist.io import InputError

if TYPE_CHECKING:
    from anndata import AnnData

SUM_TOLERANCE = 1e-2  # of 10,000: what float32 logs give back (methods.md, MERGE_COHORT)


def breaches(adata: AnnData, normalised: bool) -> list[str]:
    """Everything in which `adata` departs from the contract, each as slot, what was found, what was expected."""
    found = []
    counts = adata.layers.get(keys.COUNTS)
    if counts is None:
        found.append(f"layers['{keys.COUNTS}'] is missing; layers are {sorted(adata.layers)}")
    elif not (sparse.issparse(counts) and counts.format == "csr"):
        found.append(f"layers['{keys.COUNTS}'] is {type(counts).__name__}, expected a CSR matrix")
    elif counts.nnz and (counts.data.min() < 0 or np.any(counts.data != np.rint(counts.data))):
        found.append(
            f"layers['{keys.COUNTS}'] holds {counts.data.min():g} to {counts.data.max():g} with "
            f"{np.mean(counts.data != np.rint(counts.data)):.1%} non-integers, expected non-negative integers"
        )
    if not adata.var_names.is_unique:
        found.append(f"var_names: {adata.var_names[adata.var_names.duplicated()][0]} occurs twice")
    elif list(adata.var_names) != sorted(adata.var_names):
        found.append("var_names are not sorted")
    for column in keys.IDENTITY:
        if column not in adata.obs:
            found.append(f"obs['{column}'] is missing; columns are {sorted(adata.obs)}")
    if not adata.obs_names.is_unique:
        found.append(f"obs_names: {adata.obs_names[adata.obs_names.duplicated()][0]} occurs twice")
    elif keys.SAMPLE in adata.obs:
        prefix = adata.obs[keys.SAMPLE].astype(str) + ":"
        bad = [name for name, start in zip(adata.obs_names, prefix, strict=True) if not name.startswith(start)]
        if bad:
            found.append(f"obs_names: {len(bad)} do not start with `<sample>:`, the first is {bad[0]}")
    if keys.UNS not in adata.uns:
        found.append(f"uns['{keys.UNS}'] is missing")
    if normalised and counts is not None:
        found += _x_breaches(adata, counts)
    return found


def _x_breaches(adata: AnnData, counts: sparse.csr_matrix) -> list[str]:
    if adata.X is None:
        return ["X is missing, expected log1p of counts per 10,000"]
    total = np.asarray(sparse.csr_matrix(adata.X).expm1().sum(axis=1, dtype=np.float64)).ravel()
    filled = np.asarray(counts.sum(axis=1)).ravel() > 0
    off = np.abs(total[filled] - keys.TARGET_SUM) > SUM_TOLERANCE * keys.TARGET_SUM
    if off.any():
        return [
            f"X: expm1 sums to {total[filled].min():.4g} to {total[filled].max():.4g} per cell "
            f"({off.sum()} cells off), expected {keys.TARGET_SUM:g}"
        ]
    return []


def check(adata: AnnData, path: Path | str, normalised: bool = False) -> AnnData:
    """Return `adata` when it keeps the contract.

    Raises
    ------
    InputError
        naming the file and every breach.
    """
    found = breaches(adata, normalised)
    if found:
        raise InputError(f"{path} breaks the AnnData contract:\n  - " + "\n  - ".join(found))
    return adata


def stamp(adata: AnnData, step: str, entry: dict) -> None:
    """Record a step's provenance in `uns['scresist'][step]` as flat text, which every reader of h5ad can open."""
    store = dict(adata.uns.get(keys.UNS, {}))
    store[step] = {
        "version": str(entry["scresist"]),
        "parameters": repr(entry["parameters"]),
        "seed": str(entry["seed"]),
    }
    adata.uns[keys.UNS] = store
