"""Patients with planted copy-number clones: genes along 22 chromosomes, normal types with programs of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

# ln fold of one copy more or less of two, damped as expression is
GAIN, LOSS = float(np.log(1.5) * 0.85), float(np.log(0.5) * 0.85)


@dataclass(frozen=True)
class Clone:
    """Cells of one kind in one sample: main type, number, signed arms."""

    sample: str
    main_type: str
    n: int
    events: dict[str, float]
    name: str = ""


def arms(n_genes: int = 4400) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Genes (sorted by symbol) with places on 22 chromosomes of falling size, and the table of arms."""
    share = np.linspace(2.2, 0.4, 22)
    sizes = np.floor(share / share.sum() * n_genes).astype(int)
    genes, table = [], []
    for at, size in enumerate(sizes):
        name, middle = str(at + 1), size // 3
        table += [(name, "p", 1, middle * 1000), (name, "q", middle * 1000 + 1, size * 1000)]
        genes += [(name, i * 1000 + 500, "p" if i * 1000 + 500 <= middle * 1000 else "q") for i in range(size)]
    frame = pd.DataFrame(genes, columns=["chromosome", "start", "arm"])
    # symbols in an order that is not that of the genome
    rng = np.random.default_rng(5)
    frame.index = [f"G{i:05d}" for i in rng.permutation(len(frame))]
    frame["end"], frame["gene_id"] = frame["start"] + 400, ""
    return frame.sort_index(), pd.DataFrame(table, columns=["chromosome", "arm", "start", "end"])


def lineage(main_type: str) -> str:
    """The lineage of the types used here."""
    return {"Epithelial": "epithelial", "Fibroblast": "stromal", "Endothelial": "stromal"}.get(main_type, "immune")


def patient(clones: list[Clone], seed: int = 1, depth: float = 5000.0, name: str = "P1", phases: dict[str, str] | None = None):
    """Merged cohort of one patient, its annotation and the table of arms; `obs['clone']` is the truth."""
    genes, table = arms()
    rng = np.random.default_rng(seed)
    n = len(genes)
    fixed = np.random.default_rng(77)
    base = fixed.normal(0, 1.2, n)
    program = {kind: np.where(fixed.random(n) < 0.05, fixed.normal(0, 1.2, n), 0) for kind in KINDS}
    where = genes["chromosome"] + genes["arm"]
    counts, obs, labels = [], [], []
    for clone in clones:
        mean = base + program[clone.main_type]
        for arm, fold in clone.events.items():
            mean = mean + fold * (where == arm).to_numpy()
        share = np.exp(mean)
        share = share / share.sum()
        size = depth * np.exp(rng.normal(0, 0.3, clone.n))
        rate = size[:, None] * share * rng.gamma(4.0, 0.25, (clone.n, n))
        counts.append(sparse.csr_matrix(rng.poisson(rate).astype(np.int32)))
        obs += [(clone.sample, name, (phases or {}).get(clone.sample, "PRE"), "none", clone.name)] * clone.n
        labels += [clone.main_type] * clone.n
    frame = pd.DataFrame(obs, columns=["sample", "patient", "phase", "batch", "clone"])
    frame.index = frame["sample"] + ":C" + frame.groupby("sample").cumcount().map("{:05d}".format)
    annotation = pd.DataFrame({"cell": frame.index, "main_type": labels, "lineage": [lineage(kind) for kind in labels]})
    merged = anndata.AnnData(obs=frame, var=genes[["gene_id", "chromosome", "start", "end"]])
    merged.layers["counts"] = sparse.csr_matrix(sparse.vstack(counts))
    merged.uns["scresist"] = {"merge_cohort": {"version": "0"}}
    return merged, annotation, table


KINDS = ("T", "Macrophage", "B", "Fibroblast", "Endothelial", "Epithelial")


def normal(sample: str, n: dict[str, int]) -> list[Clone]:
    """Normal cells of several types."""
    return [Clone(sample, kind, size, {}, "normal") for kind, size in n.items()]


def write(folder: Path, merged: anndata.AnnData, annotation: pd.DataFrame, table: pd.DataFrame) -> None:
    """merged.h5ad, annotation.parquet and arms.tsv as the step expects them."""
    folder.mkdir(parents=True, exist_ok=True)
    merged.write_h5ad(folder / "merged.h5ad")
    annotation.to_parquet(folder / "annotation.parquet")
    table.to_csv(folder / "arms.tsv", sep="\t", index=False)


def placed(samples: list[anndata.AnnData], root: Path) -> anndata.AnnData:
    """Real samples as MERGE_COHORT writes them, with the places of the bundled table; all genes are kept."""
    from scresist import normalise

    shared = sorted(set.intersection(*(set(sample.var_names) for sample in samples)))
    counts = sparse.csr_matrix(sparse.vstack([sample[:, shared].layers["counts"] for sample in samples]))
    counts.sort_indices()
    table = pd.read_csv(root / "assets" / "gene_positions.tsv.gz", sep="\t", dtype=str, keep_default_na=False)
    known = table[table["start"] != ""].set_index("symbol").reindex(shared)
    var = pd.DataFrame({"gene_id": "", "chromosome": known["chromosome"].fillna("").to_numpy(dtype=object)}, index=shared)
    var["start"], var["end"] = (pd.to_numeric(known[name]).fillna(-1).astype(int).to_numpy() for name in ("start", "end"))
    obs = pd.concat([sample.obs for sample in samples])
    merged = anndata.AnnData(normalise.log1p_cp10k(counts), obs=obs, var=var, layers={"counts": counts})
    merged.uns["scresist"] = {"merge_cohort": {"version": "0"}}
    return merged


def immune_high(merged: anndata.AnnData, data: Path) -> np.ndarray:
    """CellTypist's Immune_All_High label of each cell, computed from the model's coefficients."""
    import pickle

    with (data / "celltypist" / "Immune_All_High.pkl").open("rb") as stream:
        model = pickle.load(stream)  # noqa: S301
    classifier, scaler = model["Model"], model["Scaler_"]
    features = np.array([str(name) for name in classifier.features])
    at = np.flatnonzero(np.isin(features, merged.var_names))
    x = merged[:, features[at]].X.toarray()
    scaled = np.minimum((x - scaler.mean_[at]) / scaler.scale_[at], 10)
    decision = scaled @ classifier.coef_[:, at].T + classifier.intercept_
    return np.array([str(name) for name in classifier.classes_])[decision.argmax(axis=1)]


LINEAGE_OF_HIGH = {"Epithelial cells": "epithelial", "Fibroblasts": "stromal", "Endothelial cells": "stromal"}


def write_real(folder: Path, merged: anndata.AnnData, label: np.ndarray) -> pd.DataFrame:
    """merged.h5ad and annotation.parquet by CellTypist's labels; returns the annotation."""
    lineages = [LINEAGE_OF_HIGH.get(name, "immune") for name in label]
    annotation = pd.DataFrame({"cell": merged.obs_names, "main_type": label, "lineage": lineages})
    merged.write_h5ad(folder / "merged.h5ad")
    annotation.to_parquet(folder / "annotation.parquet")
    return annotation


def real_tnbc1(folder: Path, data: Path, root: Path) -> pd.DataFrame:
    """TNBC1 with the types of Immune_All_High."""
    from tests.data import real_cohorts

    merged = placed(real_cohorts.tnbc1(data)[0], root)
    return write_real(folder, merged, immune_high(merged, data))


def real_skins(folder: Path, data: Path, root: Path) -> pd.DataFrame:
    """Healthy skins HC-1, HC-2, HC-3 with the types of Immune_All_High: epithelial cells are keratinocytes."""
    from tests.data import real_cohorts

    merged = placed([sample for sample in real_cohorts.ctcl(data) if sample.obs["sample"].iloc[0].startswith("HC")], root)
    return write_real(folder, merged, immune_high(merged, data))
