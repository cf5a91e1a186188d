"""Profiles of one patient with planted clones, as INFER_CNV and CALL_MALIGNANT write them: no counts, so that tests are quick."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from scresist import io

ARMS = tuple(f"{chromosome}{arm}" for chromosome in range(1, 23) for arm in "pq")
POINTS_PER_ARM = 12  # stored genes; three thirds of four
GENES_PER_ARM = 120
NOISE = 0.05  # sd of one point in one cell
TYPES = ("B", "CD8_T", "Fibroblast")
LOCI = {"ERBB2": "17q", "CST3": "20p"}
HEADER = "phase\tname\trole\torder\ttime\tcolour\n"
PHASES = HEADER + (
    "PRE\tbefore therapy\tbaseline\t1\t0\t#0072B2\nRES\tresponse\tresponse\t2\t1\t#009E73\n"
    "POST\tacquired resistance\tacquired_resistance\t3\t2\t#D55E00\nPRE-R\tprimary resistance\tprimary_resistance\t4\t\t#CC79A7\n"
)


def smooth(noise: np.ndarray) -> np.ndarray:
    """Neighbouring points of an arm resemble each other, as after the window over genes; sd NOISE again."""
    blocks = noise.reshape(len(noise), len(ARMS), POINTS_PER_ARM)
    padded = np.pad(blocks, ((0, 0), (0, 0), (1, 1)), mode="edge")
    mixed = (padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]) / 3
    return (NOISE * mixed / mixed.std()).reshape(len(noise), -1)


def arm_sd(values: np.ndarray) -> float:
    """Spread of an arm's mean between cells without events."""
    return float(values.reshape(len(values), len(ARMS), POINTS_PER_ARM).mean(axis=2).std())


def patient(
    name: str,
    events: list[dict[str, float]],
    cells: dict[str, list[int]],
    seed: int = 0,
    n_reference: int = 60,
    quiet: int = 0,
) -> tuple[anndata.AnnData, pd.DataFrame, pd.Series]:
    """Profiles, calls (columns cell, malignant) and the planted clone (index of `events`) of each malignant cell.

    Parameters
    ----------
    events
        per clone: arm -> shift in sd of an arm's mean between normal cells.
    cells
        phase -> malignant cells of each clone.
    n_reference
        normal cells per phase, of three types in turn.
    quiet
        further epithelial cells of the first phase without events, called non_malignant.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for at, (phase, numbers) in enumerate(cells.items()):
        rows += [(phase, TYPES[i % len(TYPES)], "reference", -1) for i in range(n_reference)]
        rows += [(phase, "Epithelial", "query", clone) for clone, n in enumerate(numbers) for _ in range(n)]
        rows += [(phase, "Epithelial", "query", -1) for _ in range(quiet if at == 0 else 0)]
    table = pd.DataFrame(rows, columns=["phase", "main_type", "cnv_role", "planted"])
    values = smooth(rng.normal(size=(len(table), len(ARMS) * POINTS_PER_ARM)))
    unit = arm_sd(values)
    for clone, shifts in enumerate(events):
        for arm, shift in shifts.items():
            first = ARMS.index(arm) * POINTS_PER_ARM
            values[np.ix_(table["planted"] == clone, range(first, first + POINTS_PER_ARM))] += shift * unit
    blocks = values.reshape(len(values), len(ARMS), POINTS_PER_ARM)
    arms = blocks.mean(axis=2)
    thirds = blocks.reshape(len(values), 3 * len(ARMS), POINTS_PER_ARM // 3).mean(axis=2)
    reference = (table["cnv_role"] == "reference").to_numpy()
    sample = name + "-" + table["phase"]
    barcode = rng.permutation(len(table))  # names must not follow the clones
    obs = pd.DataFrame(
        {
            "sample": sample.to_numpy(),
            "patient": name,
            "phase": table["phase"].to_numpy(),
            "main_type": table["main_type"].to_numpy(),
            "cnv_role": table["cnv_role"].to_numpy(),
            "cnv_group": np.where(reference, table["main_type"], ""),
        },
        index=[f"{s}:C{b:05d}" for s, b in zip(sample, barcode, strict=True)],
    )
    var = pd.DataFrame(
        {
            "chromosome": np.repeat([arm.rstrip("pq") for arm in ARMS], POINTS_PER_ARM),
            "start": np.tile(np.arange(2 * POINTS_PER_ARM) * 5_000_000 + 1_000_000, len(ARMS) // 2),
        },
        index=[f"G{i:04d}" for i in range(values.shape[1])],
    )
    listed = obs[["sample", "phase"]].drop_duplicates().sort_values("sample")
    uns = {
        "cnv": {"chr_pos": {f"chr{c}": 2 * POINTS_PER_ARM * (c - 1) for c in range(1, 23)}},
        "arms": {
            "name": np.array(ARMS),
            "n_genes": np.full(len(ARMS), GENES_PER_ARM),
            "mean_ref": arms[reference].mean(axis=0),
            "sd_ref": arms[reference].std(axis=0, ddof=1),
            "third_mean_ref": thirds[reference].mean(axis=0),
            "third_sd_ref": thirds[reference].std(axis=0, ddof=1),
        },
        "loci": {"gene": np.array(list(LOCI), dtype=object)},
        "samples": {column: listed[column].to_numpy(dtype=str) for column in listed},
        "status": {"word": "ok", "reason": ""},
    }
    loci = arms[:, [ARMS.index(arm) for arm in LOCI.values()]]
    obsm = {"X_cnv": values, "arms": arms, "arm_thirds": thirds, "loci": loci}
    obsm = {key: np.asarray(value, dtype=np.float32) for key, value in obsm.items()}
    made = anndata.AnnData(np.asarray(values, dtype=np.float32), obs=obs, var=var, obsm=obsm, uns=uns)
    epithelial = ~reference
    planted = pd.Series(table["planted"].to_numpy(), index=obs.index)
    calls = pd.DataFrame({"cell": obs.index[epithelial]})
    calls["malignant"] = np.where(planted[calls["cell"]] >= 0, "malignant", "non_malignant")
    order = np.argsort(made.obs_names.to_numpy(dtype=str))
    return made[order].copy(), calls, planted[planted >= 0]


def empty(name: str, word: str, reason: str) -> anndata.AnnData:
    """What INFER_CNV writes for a patient it skips."""
    none = np.empty((0, 0), dtype=np.float32)
    obs = pd.DataFrame(columns=["sample", "patient", "phase", "main_type", "cnv_role", "cnv_group"], dtype=str)
    keys = ("name", "n_genes", "mean_ref", "sd_ref", "third_mean_ref", "third_sd_ref")
    uns = {
        "cnv": {"chr_pos": {}},
        "arms": {key: np.empty(0) for key in keys},
        "loci": {"gene": np.empty(0)},
        "samples": {"sample": np.array([f"{name}-PRE"]), "phase": np.array(["PRE"])},
        "status": {"word": word, "reason": reason},
    }
    return anndata.AnnData(none, obs=obs, obsm=dict.fromkeys(("X_cnv", "arms", "arm_thirds", "loci"), none), uns=uns)


def write(folder: Path, name: str, profiles: anndata.AnnData, calls: pd.DataFrame, phases: str = PHASES) -> list[str]:
    """Write the inputs of TRACE_CLONES into `folder`; returns the options of the script."""
    profiles.write_h5ad(folder / f"{name}.cnv.h5ad")
    io.write_fragment(calls, folder / f"{name}.malignant.parquet")
    (folder / "phases.tsv").write_text(phases)
    options = ["--cnv", f"{name}.cnv.h5ad", "--malignant", f"{name}.malignant.parquet", "--phases", "phases.tsv"]
    return ["--patient", name, *options]
