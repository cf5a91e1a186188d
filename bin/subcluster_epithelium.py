#!/usr/bin/env python3
"""Expression states of the tumour cells: clusters, cell cycle, markers, and the samples, patients and phases they occur in.

Writes epi_clusters.parquet, epi_clusters.tsv, epi_composition.tsv, epi_markers.tsv, epi_resolutions.tsv,
epi_clusters.rankings.tsv.gz and the maps {cluster,phase,patient}.epi_map.png.

Example: subcluster_epithelium.py --input merged.h5ad --annotation annotation.parquet --tumour P1.malignant.parquet
--embedding embedding.parquet --cell_cycle cell_cycle.tsv --phases phases.tsv --resolution 0.4
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from scresist import cli, contract, io, keys, provenance, status

STEP = "subcluster_epithelium"
TOP_MARKERS = 50  # genes per cluster in epi_markers.tsv
MAPS = ("cluster", "phase", "patient")
FRAGMENT = (keys.EPI_CLUSTER, *keys.EPI_UMAP, keys.S_SCORE, keys.G2M_SCORE, keys.CYCLE_PHASE, keys.DIVIDING)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--annotation", required=True, type=Path, help="annotation.parquet of ANNOTATE_CELLS")
    add("--tumour", nargs="*", default=[], type=Path, help="<patient>.malignant.parquet of CALL_MALIGNANT, any number")
    add("--embedding", required=True, type=Path, help="embedding.parquet of INTEGRATE_COHORT")
    add("--cell_cycle", required=True, type=Path, help="cell_cycle.tsv: gene, phase (S or G2M)")
    add("--phases", required=True, type=Path, help="phases.tsv of CHECK_DESIGN: order and colours")
    add("--n_neighbors", type=cli.number(2, 1000, int), default=15, help="nearest neighbours (default 15)")
    add("--resolution", type=cli.number(0.001, 1000), default=0.4, help="primary Leiden resolution (default 0.4)")
    add("--resolutions", type=cli.resolutions, default="0.2,0.4,0.6,0.8,1.0", help="resolutions to compare, comma list")
    add("--umap_min_dist", type=cli.number(0, 10), default=0.5, help="UMAP: least distance of points (default 0.5)")
    add("--min_cells", type=cli.number(20, 10**7, int), default=100, help="tumour cells needed (default 100)")
    return parser.parse_args(argv)


def tumour_cells(paths: list[Path], labels: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Which cells are clustered, and why: the tumour cells, or without any all epithelial cells."""
    called = pd.Series(False, index=labels.index)
    problems = []
    for path in sorted(paths, key=lambda p: p.name):
        fragment = io.read_fragment(path, [keys.TUMOUR])[keys.TUMOUR].astype("boolean").fillna(False).astype(bool)
        strange = fragment.index.difference(labels.index)
        if len(strange):
            problems.append(f"{path.name}: {len(strange)} cells are not in the merged cohort, the first is {strange[0]}")
            continue
        called.loc[fragment.index[fragment]] = True
    if problems:
        raise io.InputError("give the files of this run:\n  - " + "\n  - ".join(problems))
    if called.any():
        return called.to_numpy(), keys.TUMOUR
    return (labels[keys.LINEAGE].astype(str) == "epithelial").to_numpy(), "epithelial"


def write_maps(fragment: pd.DataFrame, obs: pd.DataFrame, names: dict[str, str], phases: pd.DataFrame, why: str) -> None:
    """`<what>.epi_map.png`: the map by cluster, phase and patient; a picture of the reason where there is none."""
    from scresist import figures

    if why:
        for what in MAPS:
            figure, axes = figures.plt.subplots(figsize=(6, 1.2), layout="constrained")
            axes.set_axis_off()
            axes.text(0, 0.5, f"No map: {why}.", fontsize=9, color=figures.TEXT, va="center", wrap=True)
            content = figures.png(figure)
            io.write_atomically(Path(f"{what}.epi_map.png"), lambda p, content=content: p.write_bytes(content))
        return
    xy = fragment[list(keys.EPI_UMAP)].to_numpy(dtype=float)
    here = set(obs[keys.PHASE].astype(str))
    order = [p for p in phases["phase"] if p in here]
    given = {p: c for p, c in zip(phases["phase"], phases["colour"], strict=True) if isinstance(c, str) and c}
    patients = sorted(set(obs[keys.PATIENT].astype(str)))
    texts = {number: f"{number} {name}" for number, name in names.items()}
    label = {
        "cluster": fragment[keys.EPI_CLUSTER].map(texts).to_numpy(),
        "phase": obs[keys.PHASE].astype(str).to_numpy(),
        "patient": obs[keys.PATIENT].astype(str).to_numpy(),
    }
    palette = {
        "cluster": figures.colours(list(texts.values())),
        "phase": figures.colours(order, {**figures.PHASE_COLOURS, **given}),
        "patient": figures.colours(patients),
    }
    for what in MAPS:
        if what == "patient" and len(patients) > figures.MAX_COLOURS:
            content = figures.small_multiples(xy, label[what], patients, {}, "Tumour cells by patient")
        else:
            content = figures.cloud(xy, label[what], palette[what], f"Tumour cells by {what}", what == "cluster")
        io.write_atomically(Path(f"{what}.epi_map.png"), lambda p, content=content: p.write_bytes(content))


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)  # before numba and scikit-learn are imported, which the kernels do
    os.environ.setdefault("TQDM_DISABLE", "1")  # read at import: no progress bars in the logs of tasks
    from scresist import clustering, epithelium, panels

    merged = contract.check(anndata.read_h5ad(args.input), args.input.name, normalised=True)
    lists = epithelium.check_cycle(io.read_tsv(args.cell_cycle, dtype=str), args.cell_cycle.name)
    phases = io.read_tsv(args.phases, dtype={"phase": str, "colour": str}).sort_values("order", kind="stable")
    if "colour" not in phases:
        phases["colour"] = ""
    labels = io.join_fragment(merged.obs_names, io.read_fragment(args.annotation, [keys.LINEAGE]), args.annotation.name)
    rows, basis = tumour_cells(args.tumour, labels)
    # sorted by cell, so that the order of the merged cells changes nothing
    at = np.flatnonzero(rows)
    at = at[np.argsort(merged.obs_names[at].to_numpy(dtype=str), kind="stable")]
    obs, x = merged.obs.iloc[at], sparse.csr_matrix(merged.X[at])
    cells, genes = merged.obs_names[at], merged.var_names
    del merged
    n = len(cells)
    seed = cli.unit_seed(args.seed, STEP, "cohort")
    asked = cli.resolutions(args.resolutions) if isinstance(args.resolutions, str) else args.resolutions
    primary = str(float(args.resolution))
    wanted = sorted({*asked, primary}, key=float)

    fragment = pd.DataFrame({keys.CELL: cells.to_numpy(dtype=str)})
    described = pd.DataFrame(columns=list(epithelium.CLUSTER_COLUMNS))
    shares = pd.DataFrame(columns=list(epithelium.COMPOSITION_COLUMNS))
    compared = pd.DataFrame(columns=list(epithelium.RESOLUTION_COLUMNS))
    tested = pd.DataFrame()
    names: dict[str, str] = {}
    notes = []
    if basis != keys.TUMOUR and n:
        notes.append("no tumour cells: all epithelial cells were used")
    if n < args.min_cells:
        word = keys.SKIPPED_TOO_FEW_CELLS if n else keys.SKIPPED_NO_INPUT
        notes.insert(0, f"{n} {'tumour' if basis == keys.TUMOUR else 'epithelial'} cells, {args.min_cells} needed")
        kinds = {keys.EPI_CLUSTER: object, keys.CYCLE_PHASE: object, keys.DIVIDING: "boolean"}
        empty = {name: pd.Series(dtype=kinds.get(name, np.float32)) for name in FRAGMENT}
        fragment = pd.DataFrame({keys.CELL: pd.Series(dtype=object), **empty})
        obs = obs.iloc[:0]
    else:
        values = io.read_latent(args.embedding, cells)
        k = min(args.n_neighbors, n - 1)
        graph = clustering.neighbour_graph(values, k, seed)
        partitions = {resolution: clustering.leiden(graph, float(resolution), seed) for resolution in wanted}
        cluster = partitions[primary]
        from sklearn.metrics import adjusted_rand_score

        found = []
        jaccard: dict[str, float] = {}
        for resolution, labelled in partitions.items():
            ari, stable = clustering.stability(graph, labelled, float(resolution), seed)
            jaccard = stable if resolution == primary else jaccard
            private = epithelium.occurrence(labelled, obs)["occurrence"].eq(epithelium.PRIVATE).sum()
            found.append(
                {
                    "resolution": resolution, "n_clusters": len(set(labelled)), "ari_stability": ari,
                    "ari_to_primary": adjusted_rand_score(cluster, labelled), "n_private": int(private),
                    "primary": resolution == primary,
                }
            )  # fmt: skip
        compared = pd.DataFrame(found)
        fragment[keys.EPI_CLUSTER] = cluster
        fragment[list(keys.EPI_UMAP)] = clustering.umap(graph, values, k, args.umap_min_dist, seed)
        cycle = epithelium.cell_cycle(x, list(genes), lists, seed)
        for name in cycle:
            fragment[name] = cycle[name].to_numpy()
        tested = epithelium.one_versus_rest(x, genes, cluster, args.threads)
        dividing = pd.Series(epithelium.dividing(x, list(genes), lists, cycle, seed))
        scored = fragment[keys.CYCLE_PHASE].notna().any()
        fragment[keys.DIVIDING] = pd.array(dividing if scored else [pd.NA] * n, dtype="boolean")
        cycling = dividing.groupby(cluster).mean().to_dict() if scored else dict.fromkeys(sorted(set(cluster)), np.nan)
        names = epithelium.cluster_names(epithelium.top_markers(tested, TOP_MARKERS), cycling)
        described = epithelium.occurrence(cluster, obs)
        described["name"] = described["cluster"].map(names)
        described["cycling_share"] = described["cluster"].map(cycling).astype(float)
        described["stability"] = described["cluster"].map(jaccard).astype(float)
        described = described[list(epithelium.CLUSTER_COLUMNS)]
        shares = epithelium.composition(cluster, obs)
        if not scored:
            n_found = {phase: len(set(listed) & set(genes)) for phase, listed in lists.items()}
            notes.append(
                f"no cell-cycle scores: {n_found['S']} S and {n_found['G2M']} G2M genes among {len(genes)} measured, "
                f"{epithelium.MIN_CYCLE_GENES} of each and controls needed"
            )
        elif len(genes) < panels.MIN_GENES_SCORE:
            notes.append(f"{len(genes)} genes, {panels.MIN_GENES_SCORE} needed for cell-cycle scores with good controls")
        if described["n_patients"].max() < 2:
            notes.append("one patient: no cluster can be told from a patient's own")
        word = keys.WARNING if notes else keys.OK

    io.write_fragment(fragment[[keys.CELL, *FRAGMENT]], Path("epi_clusters.parquet"))
    io.write_tsv(described, Path("epi_clusters.tsv"))
    io.write_tsv(shares, Path("epi_composition.tsv"))
    io.write_tsv(epithelium.top_markers(tested, TOP_MARKERS), Path("epi_markers.tsv"))
    io.write_tsv(compared, Path("epi_resolutions.tsv"))
    io.write_tsv_gz(epithelium.rankings(tested), Path("epi_clusters.rankings.tsv.gz"))
    why = "; ".join(notes) if len(described) == 0 else ""
    write_maps(fragment, obs, names, phases, why)
    sentence = status.SENTENCES[word]
    if len(described):
        met = described["occurrence"].value_counts()
        sentence += (
            f" {len(described)} states among {n:,} {'tumour' if basis == keys.TUMOUR else 'epithelial'} cells: "
            f"{met.get(epithelium.SHARED, 0)} shared by patients and phases, {met.get(epithelium.EXCLUSIVE, 0)} in one phase "
            f"only, {met.get(epithelium.PRIVATE, 0)} of one patient only; "
            f"{int((described['cycling_share'] > epithelium.CYCLING_SHARE).sum())} cycling."
        )
    row = status.StatusRow(
        step=STEP, unit_type="cohort", unit="cohort", status=word, reason="; ".join(notes), n_cells=n,
        n_samples=obs[keys.SAMPLE].nunique(), n_patients=obs[keys.PATIENT].nunique(), sentence=sentence,
    )  # fmt: skip
    status.write([row], STEP, "cohort")
    packages = ["anndata", "igraph", "illico", "matplotlib", "numpy", "scanpy", "scikit-learn", "scipy", "umap-learn"]
    provenance.write(provenance.record(STEP, "cohort", args, packages, unit_seed=seed, tumour_basis=basis))
    return 0


if __name__ == "__main__":
    cli.run(main)
