"""Plausible tables of a run, for the report's tests: `write(folder, n_samples=11)` makes everything that BUILD_REPORT reads.

Columns follow methods.md sections 1-9; the numbers are drawn, not computed from counts. Run as a script:
`python tests/data/report_tables.py FOLDER [N_SAMPLES]`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bin"))

from scresist import assembly, io, keys, status

STUDY = (
    ("P1", "PRE"),
    ("P1", "RES"),
    ("P1", "POST"),
    ("P2", "PRE"),
    ("P3", "PRE"),
    ("P4", "PRE"),
    ("P5", "PRE-R"),
    ("P6", "PRE-R"),
    ("P7", "POST"),
    ("P8", "POST"),
    ("P9", "POST"),
)
TYPES = {
    "Epithelial": "epithelial",
    "CD4_T": "immune",
    "CD8_T": "immune",
    "B": "immune",
    "NK": "immune",
    "Macrophage": "immune",
    "Monocyte": "immune",
    "DC": "immune",
    "Mast": "immune",
    "Fibroblast": "stromal",
    "Endothelial": "stromal",
    keys.UNRESOLVED: "",
}
SHARES = np.array([0.40, 0.11, 0.09, 0.07, 0.04, 0.06, 0.04, 0.03, 0.02, 0.07, 0.05, 0.02])
MARKERS = {
    "Epithelial": ("EPCAM", "KRT18", "KRT8"),
    "CD4_T": ("CD4", "IL7R", "CD40LG"),
    "CD8_T": ("CD8A", "CD8B", "GZMK"),
    "B": ("MS4A1", "CD79A"),
    "NK": ("GNLY", "NKG7"),
    "Macrophage": ("C1QA", "CD163"),
    "Monocyte": ("S100A8", "FCN1"),
    "DC": ("FCER1A", "CD1C"),
    "Mast": ("CPA3", "TPSAB1"),
    "Fibroblast": ("COL1A2", "DCN"),
    "Endothelial": ("PECAM1", "VWF"),
}
OPTIONS = {
    "check_design": {"min_replicates": 2, "pairing": "auto"},
    "load_sample": {"min_known_gene_share": 0.5, "min_genes_matrix": 5000},
    "flag_cells": {
        "min_genes": 200,
        "min_counts": 500,
        "max_mt_pct": 20.0,
        "mad_k": 5.0,
        "mad_k_mt": 3.0,
        "mad_mt_floor": 8.0,
        "sample_min_median_genes": 1000,
    },
    "detect_doublets": {
        "expected_doublet_rate": "0.06",
        "over_resolution": 2.0,
        "cluster_score": 0.6,
        "coexpress_share": 0.25,
        "remove": "call+cluster+lineage",
    },
    "filter_cells": {"min_cells_sample": 50, "on_sample_fail": "flag"},
    "merge_cohort": {"n_hvg": 2000},
    "integrate_cohort": {
        "method": "scvi",
        "n_latent": 30,
        "n_layers": 2,
        "n_hidden": 128,
        "max_epochs": 0,
        "batch_size": 0,
        "batch_key": "sample",
        "device": "cpu",
    },
    "cluster_cohort": {"n_neighbors": 15, "resolutions": [0.2, 1.0, 2.0], "resolution": 1.0, "umap_min_dist": 0.5},
    "annotate_cells": {"min_prop": 0.5, "marker_pct": 0.25, "veto_pct": 0.1, "margin": 0.1, "min_model_overlap": 0.5},
    "assemble_cohort": {"compression": "gzip"},
    "check_recovery": {},
}
PACKAGES = {
    "load_sample": {"anndata": "0.12.19"},
    "detect_doublets": {"scanpy": "1.11.5"},
    "merge_cohort": {"scanpy": "1.11.5"},
    "integrate_cohort": {"scvi-tools": "1.4.2"},
    "cluster_cohort": {"scanpy": "1.11.5"},
    "annotate_cells": {"celltypist": "1.7.1"},
    "assemble_cohort": {"anndata": "0.12.19"},
}


def draw_cells(design: pd.DataFrame, n_cells: int, random: np.random.Generator) -> pd.DataFrame:
    """cells.parquet: one row per input cell."""
    names = np.array(list(TYPES))
    centre = {name: random.normal(0, 6, 2) for name in names}
    frames = []
    for at, row in enumerate(design.to_dict("records")):
        n = 20 if at == len(design) - 1 else int(n_cells * random.uniform(0.7, 1.3))
        kind = random.choice(names, n, p=SHARES / SHARES.sum())
        genes = random.normal(1900 if at != 3 else 900, 450, n).clip(50).round().astype(int)
        mt = random.gamma(3, 2.2, n)
        reason = np.full(n, "", dtype=object)
        reason[genes < 400] = "low_genes"
        reason[(reason == "") & (mt > 14)] = "high_mt"
        reason[(reason == "") & (random.random(n) < 0.015)] = "mad"
        reason[(reason == "") & (random.random(n) < 0.05)] = "doublet"
        if n < 50:
            reason[reason == ""] = "sample_skipped"
        kept = reason == ""
        xy = np.array([centre[k] for k in kind]) + random.normal(0, 0.9, (n, 2)) + (at * 0.15 if n else 0)
        frame = pd.DataFrame(
            {
                keys.CELL: [f"{row['sample']}:{i:05d}-1" for i in range(n)],
                **{name: row[name] for name in keys.IDENTITY},
                keys.N_COUNTS: genes * 3,
                keys.N_GENES: genes,
                keys.PCT_MT: mt,
                keys.PCT_RIBO: random.uniform(5, 25, n),
                keys.PCT_HB: 0.0,
                keys.PCT_TOP20: random.uniform(15, 35, n),
                **dict.fromkeys(keys.QC_FLAGS, False),
                keys.FLAG_LOW_GENES: reason == "low_genes",
                keys.FLAG_HIGH_MT: reason == "high_mt",
                keys.DOUBLET_SCORE: random.beta(1.4, 14, n),
                keys.DOUBLET_CALL: reason == "doublet",
                keys.DOUBLET: reason == "doublet",
                keys.LINEAGE_PAIR: "",
                keys.KEPT: kept,
                keys.DROP_REASON: reason,
                keys.UMAP[0]: np.where(kept, xy[:, 0], np.nan),
                keys.UMAP[1]: np.where(kept, xy[:, 1], np.nan),
                keys.CLUSTER: pd.array(np.where(kept, [str(list(TYPES).index(k)) for k in kind], None), dtype=object),
                keys.MAIN_TYPE: np.where(kept, kind, None),
                keys.SUBTYPE: np.where(kept, kind, None),
                keys.LINEAGE: np.where(kept, [TYPES[k] for k in kind], None),
                keys.TYPE_STATUS: np.where(kept, "ok", None),
                keys.ANNOTATION_CONFIDENCE: np.where(kept, random.uniform(0.6, 1, n), np.nan),
            }
        )
        frames.append(frame)
    return pd.concat(frames, ignore_index=True).sort_values(keys.CELL, ignore_index=True)


def make_design(n_samples: int) -> pd.DataFrame:
    """samples.tsv: the study's eleven, or as many patients with PRE and POST as asked for."""
    pairs = list(STUDY) if n_samples == len(STUDY) else [(f"P{i // 2 + 1}", ("PRE", "POST")[i % 2]) for i in range(n_samples)]
    count: dict[str, int] = {}
    rows = []
    for patient, phase in pairs:
        count[phase] = count.get(phase, 0) + 1
        rows.append(
            (
                f"{phase}-{count[phase]}",
                patient,
                phase,
                f"B{1 + len(rows) % 2}",
                "responder" if phase != "PRE-R" else "",
                200,
                500,
                20,
            )
        )
    columns = ["sample", "patient", "phase", "batch", "response", "min_genes", "min_counts", "max_mt_pct"]
    return pd.DataFrame(rows, columns=columns).sort_values("sample", ignore_index=True)


def write(folder: Path, n_samples: int = 11, n_cells: int = 450, seed: int = 1) -> dict[str, Path]:
    """Write tables/, status/, provenance/ and cells.parquet below `folder`; returns these paths by name."""
    random = np.random.default_rng(seed)
    tables, rows_dir, prov = (Path(folder) / name for name in ("tables", "status", "provenance"))
    for path in (tables, rows_dir, prov):
        path.mkdir(parents=True, exist_ok=True)
    design = make_design(n_samples)
    cells = draw_cells(design, n_cells, random)
    io.write_fragment(cells, Path(folder) / "cells.parquet")

    def tsv(name: str, frame: pd.DataFrame) -> None:
        io.write_tsv(frame, tables / f"{name}.tsv")

    def state(step: str, unit: str, word: str = keys.OK, reason: str = "", **n: int) -> None:
        kind = "cohort" if unit == "cohort" else "sample"
        status.write([status.StatusRow(step, kind, unit, word, reason, **n)], step, unit, rows_dir)
        entry = {
            "step": step, "unit": unit, "scresist": "0.1.0", "python": "3.11.2",
            "packages": PACKAGES.get(step, {"pandas": "2.3.3"}),
            "parameters": dict(OPTIONS[step]), "seed": 1, "threads": 1, "code": "abc",
        }  # fmt: skip
        if step == "flag_cells" and unit == design["sample"].iloc[0]:
            entry["parameters"]["min_genes"] = 300
        io.write_json(entry, prov / f"{step}.{unit}.provenance.json")

    tsv("samples", design)
    phases = [
        ("PRE", "baseline", 0, "#0072B2"),
        ("RES", "during response", 1, "#009E73"),
        ("POST", "acquired resistance", 2, "#D55E00"),
    ]
    tsv(
        "phases",
        pd.DataFrame([*phases, ("PRE-R", "primary resistance", None, "#CC79A7")], columns=["phase", "meaning", "time", "colour"]),
    )
    contrasts = []
    for a, b in (("PRE-R", "PRE"), ("POST", "PRE"), ("RES", "PRE"), ("POST", "RES")):
        side = [sorted(design.loc[design["phase"] == phase, "sample"]) for phase in (a, b)]
        n = [design.loc[design["phase"] == phase, "patient"].nunique() for phase in (a, b)]
        if min(n):
            few = min(n) < 2
            p = None if few else {(2, 4): 0.133333, (4, 4): 0.0285714}.get((n[0], n[1]), 0.01)
            word, why = (keys.NO_REPLICATES, f"{n[0]} and {n[1]} patients, a test needs 2 a side") if few else (keys.OK, "")
            contrasts.append(
                (f"{a}_vs_{b}", a, b, ",".join(side[0]), ",".join(side[1]), *n, 1 if a == "POST" else 0, False, p, word, why)
            )
    columns = [
        "contrast",
        "side_a",
        "side_b",
        "samples_a",
        "samples_b",
        "n_patients_a",
        "n_patients_b",
        "n_pairs",
        "paired",
        "p_min_attainable",
        "status",
        "reason",
    ]
    tsv("contrasts", pd.DataFrame(contrasts, columns=columns))
    tsv(
        "confounding",
        pd.DataFrame(
            [("batch", "phase", 0.41, False), ("site", "phase", 1.0, True)],
            columns=["factor", "phase_factor", "cramers_v", "aliased"],
        ),
    )
    questions = [
        ("Does acquired resistance differ from baseline?", "yes", "4 against 4 patients"),
        ("Does response differ?", "no", "1 patient"),
    ]
    tsv("questions", pd.DataFrame(questions, columns=["question", "answer", "reason"]))
    state("check_design", "cohort", keys.WARNING, "site is aliased with phase", n_samples=len(design))

    for sample, mine in cells.groupby("sample"):
        n, reason = len(mine), mine[keys.DROP_REASON]
        n_reason = {name: int((reason == name).sum()) for name in keys.DROP_REASONS}
        few = n < 50
        word, why = (keys.SKIPPED_TOO_FEW_CELLS, f"{n} cells, 50 needed") if few else (keys.OK, "")
        load = [(sample, "10x_mtx", "X", n, 6500, 6480, 3, 6400, int(mine[keys.N_COUNTS].sum()), 13, "ok")]
        tsv(
            f"{sample}.load",
            pd.DataFrame(
                load,
                columns=[
                    "sample",
                    "format",
                    "slot",
                    "n_barcodes",
                    "n_genes_in",
                    "n_genes_known",
                    "n_duplicates_summed",
                    "n_genes_placed",
                    "total_umi",
                    "mt_genes",
                    "status",
                ],
            ),
        )
        state("load_sample", sample, n_cells=n)
        median = float(mine[keys.N_GENES].median())
        fails = median < 1000
        qc = [
            (
                sample,
                n,
                n - n_reason["low_genes"] - n_reason["high_mt"] - n_reason["mad"],
                median,
                3 * median,
                float(mine[keys.PCT_MT].median()),
                None,
                None,
                "fail" if fails else "pass",
                "not_given",
                "not_given",
                "fail" if fails else "pass",
                "log1p_genes 6.1 to 8.9",
            )
        ]
        tsv(
            f"{sample}.sample_qc",
            pd.DataFrame(
                qc,
                columns=[
                    "sample",
                    "n_before",
                    "n_after",
                    "median_genes",
                    "median_counts",
                    "median_mt",
                    "saturation",
                    "reads_in_cells",
                    "crit_genes",
                    "crit_saturation",
                    "crit_reads",
                    "verdict",
                    "mad_bounds",
                ],
            ),
        )
        state("flag_cells", sample, *((keys.WARNING, "median of genes below 1,000") if fails else (keys.OK, "")), n_cells=n)
        called = None if few else n_reason["doublet"]
        row = [
            (
                sample,
                n,
                round(0.06 * n, 2),
                called,
                None if few else 0.24,
                None if few else 0.41,
                None if few else 0.2,
                None if few else 0,
                word,
            )
        ]
        tsv(
            f"{sample}.doublets",
            pd.DataFrame(
                row,
                columns=[
                    "sample",
                    "n_cells",
                    "expected",
                    "called",
                    "threshold",
                    "max_score",
                    "max_cluster_mean",
                    "n_clusters_flagged",
                    "status",
                ],
            ),
        )
        edges = np.linspace(0, 0.6, 31)
        hist = pd.DataFrame(
            {
                "bin_low": edges[:-1],
                "bin_high": edges[1:],
                "n_observed": 0 if few else np.histogram(mine[keys.DOUBLET_SCORE], edges)[0],
                "n_simulated": 0 if few else np.histogram(random.beta(4, 9, 2 * n), edges)[0],
            }
        )
        tsv(f"{sample}.doublet_hist", hist)
        state("detect_doublets", sample, word, why, n_cells=n)
        row = [(sample, n, *(n_reason[name] for name in keys.DROP_REASONS[:5]), int(mine[keys.KEPT].sum()), word)]
        tsv(
            f"{sample}.filter",
            pd.DataFrame(
                row,
                columns=["sample", "n_in", "n_low_genes", "n_low_counts", "n_high_mt", "n_mad", "n_doublet", "n_out", "status"],
            ),
        )
        state("filter_cells", sample, word, why, n_cells=int(mine[keys.KEPT].sum()))

    kept = cells[cells[keys.KEPT]]
    n = {"n_cells": len(kept), "n_samples": kept["sample"].nunique(), "n_patients": kept["patient"].nunique()}
    tsv(
        "merge",
        pd.DataFrame([(len(kept), 6500, 6480, "")], columns=["n_cells", "n_genes_union", "n_genes_kept", "panel_genes_lost"]),
    )
    tsv(
        "hvg",
        pd.DataFrame({"gene": ["EPCAM"], "mean": [0.5], "dispersion_norm": [2.0], "n_samples": [10], "highly_variable": [True]}),
    )
    state("merge_cohort", "cohort", **n)
    measures = [
        ("none", "silhouette_batch", "all", 0.12, "nearest_0"),
        ("scvi", "silhouette_batch", "all", 0.01, "nearest_0"),
        ("none", "ilisi", "all", 0.22, "higher"),
        ("scvi", "ilisi", "all", 0.55, "higher"),
        ("none", "knn_entropy", "all", 0.4, "higher"),
        ("scvi", "knn_entropy", "all", None, "higher"),
    ]
    tsv(
        "integration_quality",
        pd.DataFrame(
            [(a, b, c, d, len(kept), e) for a, b, c, d, e in measures],
            columns=["method", "metric", "label", "value", "n_cells", "better"],
        ),
    )
    tsv(
        "training",
        pd.DataFrame({"epoch": range(1, 101), "loss": 1200 + 400 * np.exp(-np.arange(100) / 18) + random.normal(0, 2, 100)}),
    )
    state("integrate_cohort", "cohort", **n)
    groups = [
        (r, str(i), int(len(kept) * SHARES[i]), n["n_samples"], n["n_patients"], 0.2, 0.9 - 0.02 * i)
        for r in (0.2, 1.0)
        for i in range(len(TYPES))
    ]
    tsv(
        "clusters",
        pd.DataFrame(
            groups,
            columns=["resolution", "cluster", "n_cells", "n_samples", "n_patients", "top_sample_share", "jaccard_stability"],
        ),
    )
    genes = [
        (1.0, str(i), gene, 3.0 - 0.3 * j, 0.8, 0.05, 1e-30, 1e-28)
        for i, name in enumerate(MARKERS)
        for j, gene in enumerate(MARKERS[name])
    ]
    tsv(
        "markers",
        pd.DataFrame(genes, columns=["resolution", "cluster", "gene", "log2_fc", "pct_in", "pct_out", "p_value", "p_adjusted"]),
    )
    state("cluster_cohort", "cohort", **n)
    evidence = [
        (str(i), int(len(kept) * SHARES[i]), f"markers: {name} (0.92)", name, 0.05 if name == keys.UNRESOLVED else 0.6, "", "ok")
        for i, name in enumerate(TYPES)
    ]
    tsv(
        "annotation",
        pd.DataFrame(evidence, columns=["cluster", "n_cells", "votes", "main_type", "margin", "veto", "type_status"]),
    )
    check = [
        (t, g, 85.0 if g in MARKERS.get(t, ()) else float(random.uniform(0, 10)), 2.1 if g in MARKERS.get(t, ()) else 0.1)
        for t in TYPES
        for own in MARKERS.values()
        for g in own
    ]
    tsv("marker_check", pd.DataFrame(check, columns=["main_type", "gene", "pct", "mean_log"]))
    counts = kept.groupby(["sample", "main_type", "subtype"], as_index=False).size().rename(columns={"size": "n_cells"})
    tsv("types", counts)
    tsv("models", pd.DataFrame(columns=["model", "sha256", "n_features", "overlap", "status"]))
    state("annotate_cells", "cohort", keys.WARNING, "no model was given: types rest on marker genes alone", **n)
    tsv("columns", assembly.describe(cells))
    state("assemble_cohort", "cohort", **n)
    found = [
        (
            "main types",
            "11 types",
            "11 types",
            "accuracy",
            0.98,
            0.95,
            True,
            len(kept),
            "share of resolved cells with the planted main type",
        ),
        (
            "doublets",
            "5 %",
            "4.1 %",
            "AUROC",
            0.81,
            0.85,
            False,
            len(cells),
            "planted heterotypic doublets against all other cells",
        ),
    ]
    tsv(
        "recovery",
        pd.DataFrame(found, columns=["what", "planted", "recovered", "metric", "value", "floor", "passed", "n", "explanation"]),
    )
    state("check_recovery", "cohort", keys.WARNING, "1 of 2 floors missed")
    return {"tables": tables, "status": rows_dir, "provenance": prov, "cells": Path(folder) / "cells.parquet"}


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 11)
