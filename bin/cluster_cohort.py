#!/usr/bin/env python3
"""Neighbour graph, UMAP and Leiden clusters of all cells at several resolutions, with their stability and markers.

Writes clusters.parquet (umap_1, umap_2, leiden_<resolution> ..., cluster = the primary resolution), clusters.tsv, markers.tsv.

Example: cluster_cohort.py --input merged.h5ad --embedding embedding.parquet --graph graph.npz --resolution 1.0
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

STEP = "cluster_cohort"
TOP_MARKERS = 50  # genes per cluster in markers.tsv
OVER_RESOLUTION = "2.0"  # always computed: ANNOTATE_CELLS votes over these clusters


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--embedding", required=True, type=Path, help="embedding.parquet of INTEGRATE_COHORT")
    add("--graph", required=True, type=Path, help="graph.npz of INTEGRATE_COHORT; used where it is not empty")
    add("--n_neighbors", type=cli.number(2, 1000, int), default=15, help="nearest neighbours (default 15)")
    add("--resolutions", type=cli.resolutions, default="0.2,0.4,0.6,0.8,1.0,1.5,2.0", help="Leiden resolutions, comma list")
    add("--resolution", type=cli.number(0.001, 1000), default=1.0, help="primary resolution (default 1.0)")
    add("--umap_min_dist", type=cli.number(0, 10), default=0.5, help="UMAP: least distance of points (default 0.5)")
    return parser.parse_args(argv)


def describe(cluster: np.ndarray, obs: pd.DataFrame, resolution: str, ari: float, jaccard: dict[str, float]) -> pd.DataFrame:
    """One row per cluster: size, samples, patients, share of its largest sample, stability."""
    frame = pd.DataFrame(
        {
            "cluster": cluster,
            keys.SAMPLE: obs[keys.SAMPLE].astype(str).to_numpy(),
            keys.PATIENT: obs[keys.PATIENT].astype(str).to_numpy(),
        }
    )
    table = (
        frame.groupby("cluster")
        .agg(
            n_cells=("cluster", "size"),
            n_samples=(keys.SAMPLE, "nunique"),
            n_patients=(keys.PATIENT, "nunique"),
            top_sample_share=(keys.SAMPLE, lambda values: values.value_counts(normalize=True).iloc[0]),
        )
        .reset_index()
    )
    table["jaccard_stability"] = table["cluster"].map(jaccard).astype(float)
    table["ari_stability"] = ari
    table.insert(0, "resolution", resolution)
    return table.sort_values("cluster", key=lambda column: column.astype(int), ignore_index=True)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)  # before numba and scikit-learn are imported, which the kernel does
    os.environ.setdefault("TQDM_DISABLE", "1")  # read at import: no progress bars in the logs of tasks
    from scresist import clustering

    merged = contract.check(anndata.read_h5ad(args.input), args.input.name, normalised=True)
    values = io.read_latent(args.embedding, merged.obs_names)
    given = sparse.load_npz(args.graph)
    seed = cli.unit_seed(args.seed, STEP, "cohort")
    asked = cli.resolutions(args.resolutions) if isinstance(args.resolutions, str) else args.resolutions
    primary = str(float(args.resolution))
    wanted = sorted({*asked, primary, OVER_RESOLUTION}, key=float)

    fragment = pd.DataFrame({keys.CELL: merged.obs_names.to_numpy(dtype=str)})
    word, reason, described = keys.OK, "", []
    if merged.n_obs < clustering.MIN_CELLS_CLUSTER:
        word, reason = (
            keys.SKIPPED_TOO_FEW_CELLS,
            f"{merged.n_obs} cells, {clustering.MIN_CELLS_CLUSTER} needed; they are one cluster",
        )
        fragment[list(keys.UMAP)] = np.nan
        for resolution in wanted:
            fragment[keys.LEIDEN_PREFIX + resolution] = "0"
            described.append(describe(np.repeat("0", merged.n_obs), merged.obs, resolution, np.nan, {}))
    else:
        k = min(args.n_neighbors, merged.n_obs - 1)
        graph = sparse.csr_matrix(given) if given.shape[0] else clustering.neighbour_graph(values, k, seed)
        if graph.shape[0] != merged.n_obs:
            raise io.InputError(f"{args.graph.name}: {graph.shape[0]} cells, merged.h5ad has {merged.n_obs}")
        fragment[list(keys.UMAP)] = clustering.umap(graph, values, k, args.umap_min_dist, seed)
        for resolution in wanted:
            labels = clustering.leiden(graph, float(resolution), seed)
            ari, jaccard = clustering.stability(graph, labels, float(resolution), seed)
            fragment[keys.LEIDEN_PREFIX + resolution] = labels
            described.append(describe(labels, merged.obs, resolution, ari, jaccard))
    fragment[keys.CLUSTER] = fragment[keys.LEIDEN_PREFIX + primary]
    cluster = fragment[keys.CLUSTER].to_numpy(dtype=str)
    markers = clustering.cluster_markers(merged.X, merged.var_names, cluster, TOP_MARKERS, args.threads)

    io.write_fragment(fragment, Path("clusters.parquet"))
    io.write_tsv(pd.concat(described, ignore_index=True), Path("clusters.tsv"))
    io.write_tsv(markers, Path("markers.tsv"))
    n_clusters = len(set(cluster))
    sentence = f"{status.SENTENCES[word]} {n_clusters} clusters of {merged.n_obs} cells at resolution {primary}."
    row = status.StatusRow(
        step=STEP, unit_type="cohort", unit="cohort", status=word, reason=reason, n_cells=merged.n_obs,
        n_samples=merged.obs[keys.SAMPLE].nunique(), n_patients=merged.obs[keys.PATIENT].nunique(), sentence=sentence,
    )  # fmt: skip
    status.write([row], STEP, "cohort")
    packages = ["anndata", "igraph", "illico", "numpy", "scanpy", "scikit-learn", "scipy", "umap-learn"]
    provenance.write(provenance.record(STEP, "cohort", args, packages, unit_seed=seed))
    return 0


if __name__ == "__main__":
    cli.run(main)
