#!/usr/bin/env python3
"""Score doublets of one sample with Scrublet; call cells, and clusters that look like doublets.

    detect_doublets.py --sample P1-PRE --input P1-PRE.h5ad --flags P1-PRE.flags.parquet --markers markers.tsv \\
        --expected_doublet_rate 0.06

Works on the cells that FLAG_CELLS did not flag, never on merged samples: doublets form within one library. Writes
<sample>.doublets.parquet (all cells; flagged ones without score), <sample>.doublets.tsv, <sample>.doublet_hist.tsv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from scresist import cli, contract, doublets, io, keys, provenance, status

STEP = "detect_doublets"
N_COMPONENTS = 30  # methods.md, DETECT_DOUBLETS
N_NEIGHBORS = 15
# Scrublet's own settings, 0.5 sqrt(n) neighbours and two simulated doublets a cell, make the score of a few hundred cells
# follow the seed. Samples below 2,000 cells get 4,000 simulated doublets, and samples below 784 cells 14 neighbours.
# AUROC over three seeds, own settings / ours / 20 neighbours, doublets simulated ten to a cell in the latter two:
# sc_mixology celseq2 0.58-0.73 / 0.75-0.77 / 0.83, dropseq 0.91-0.94 / 0.94-0.97 / 0.93-0.94, planted (mean of ten samples)
# 0.95 / 0.93 / 0.90: few neighbours find doublets of rare types, many steady the score; 14 lies between.
SCRUBLET_NEIGHBORS = 14
SIMULATED_DOUBLETS = 4_000
SIMULATED_RATIO = 2.0
N_HVG = 2000  # for the fine clusters, as everywhere in the pipeline
MIN_VARIABLE_GENES = 10  # chosen, not tuned: with fewer, neighbours mean nothing
SCALE_NOTE = "Scrublet's scale: a cluster mean above {limit:g} is hardly ever reached; the highest score here is {score:.3g}"


def rate(text: str) -> str | float:
    """argparse type: `auto` or a rate above 0 and below 1."""
    if text == "auto":
        return text
    value = cli.number(0, 0.9)(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("the expected doublet rate must be above 0, or auto")
    return value


def rules(text: str) -> tuple[str, ...]:
    """argparse type: rules joined by `+`, or none."""
    chosen = () if text == "none" else tuple(text.split("+"))
    odd = [name for name in chosen if name not in doublets.RULES]
    if odd:
        raise argparse.ArgumentTypeError(f"{', '.join(odd)!r} is no rule: {'+'.join(doublets.RULES)}, some of them, or none")
    return chosen


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__, sample=True)
    parser.add_argument("--input", required=True, type=Path, help="sample h5ad with layers['counts']")
    parser.add_argument("--flags", required=True, type=Path, help="<sample>.flags.parquet")
    parser.add_argument("--markers", required=True, type=Path, help="marker table with the column doublet_group")
    parser.add_argument("--expected_doublet_rate", type=rate, default=0.06, help="rate, or auto = 0.008 x cells/1,000 (0.06)")
    parser.add_argument("--cluster_score", type=cli.number(0, 1), default=0.6, help="rule b: cluster mean above (default 0.6)")
    parser.add_argument("--over_resolution", type=cli.number(0, 100), default=2.0, help="Leiden resolution (default 2.0)")
    parser.add_argument("--coexpress_share", type=cli.number(0, 1), default=0.25, help="rule c: share of cells (default 0.25)")
    parser.add_argument(
        "--ambient_share",
        type=cli.number(0, 1),
        default=0.2,
        help="rule c: a marker counts where it exceeds this share of ambient RNA; 0: any count (default 0.2)",
    )
    parser.add_argument("--min_cells_doublets", type=cli.number(1, 10**9, int), default=50, help="fewer cells: skip (default 50)")
    parser.add_argument("--remove", type=rules, default=doublets.RULES, help="rules in use (default call+cluster+lineage)")
    return parser.parse_args(argv)


def scrublet_scores(counts: sparse.csr_matrix, seed: int, expected: float) -> tuple[np.ndarray, np.ndarray, float | None] | None:
    """Scrublet on one sample.

    Returns
    -------
    scores of the cells (missing where Scrublet dropped the cell), scores of simulated doublets, its threshold (None when
    it found none); None when fewer than ten genes vary enough
    """
    import scanpy
    from anndata import AnnData

    made = AnnData(counts.astype(np.float32), obs=pd.DataFrame(index=[str(i) for i in range(counts.shape[0])]))
    # how many genes Scrublet will keep (same filter, same selection): it fails when they are fewer than its components
    probe = made.copy()
    scanpy.pp.filter_genes(probe, min_cells=3)
    if probe.n_vars < MIN_VARIABLE_GENES:
        return None
    scanpy.pp.filter_cells(probe, min_genes=3)
    scanpy.pp.normalize_total(probe)
    scanpy.pp.log1p(probe)
    scanpy.pp.highly_variable_genes(probe)
    n_variable = int(probe.var["highly_variable"].sum())
    if n_variable < MIN_VARIABLE_GENES:
        return None
    scanpy.pp.scrublet(
        made,
        expected_doublet_rate=expected,
        n_prin_comps=min(N_COMPONENTS, n_variable - 1, probe.n_obs - 1),
        n_neighbors=max(SCRUBLET_NEIGHBORS, round(0.5 * np.sqrt(probe.n_obs))),
        sim_doublet_ratio=max(SIMULATED_RATIO, SIMULATED_DOUBLETS / probe.n_obs),
        use_approx_neighbors=False,  # exact: None turns to pynndescent above 8,192 cells and simulated doublets
        random_state=seed,
        verbose=False,
    )
    found = made.uns["scrublet"]
    threshold = found.get("threshold")
    return (
        made.obs["doublet_score"].to_numpy(dtype=np.float64),
        np.asarray(found["doublet_scores_sim"], dtype=np.float64),
        None if threshold is None else float(threshold),
    )


def fine_clusters(counts: sparse.csr_matrix, resolution: float, seed: int) -> np.ndarray:
    """Over-clustering: PCA 30 on variable genes, 15 exact neighbours, Leiden; named by size."""
    import scanpy
    from anndata import AnnData

    made = AnnData(counts.astype(np.float32), obs=pd.DataFrame(index=[str(i) for i in range(counts.shape[0])]))
    scanpy.pp.filter_genes(made, min_cells=3)
    scanpy.pp.normalize_total(made, target_sum=keys.TARGET_SUM)
    scanpy.pp.log1p(made)
    scanpy.pp.highly_variable_genes(made, n_top_genes=min(N_HVG, made.n_vars))
    n_variable = int(made.var["highly_variable"].sum())
    scanpy.pp.pca(made, n_comps=min(N_COMPONENTS, n_variable - 1, made.n_obs - 1), random_state=seed)
    neighbors = min(N_NEIGHBORS, made.n_obs - 1)
    # Gaussian weights: UMAP's would compile for ten seconds in every sample, for a partition that nobody sees
    scanpy.pp.neighbors(made, n_neighbors=neighbors, transformer="sklearn", method="gauss", random_state=seed)
    scanpy.tl.leiden(made, resolution=resolution, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    return doublets.name_clusters(made.obs["leiden"].to_numpy(dtype=str))


def empty_fragment(cells: pd.Index) -> pd.DataFrame:
    """The fragment before anything was computed: nobody has a score, nobody is called."""
    n = len(cells)
    frame = pd.DataFrame({keys.CELL: cells.to_numpy(dtype=object)})
    for column in keys.DOUBLET_COLUMNS:
        if column in (keys.DOUBLET_SCORE, keys.CLUSTER_MEAN_SCORE):
            frame[column] = np.full(n, np.nan)
        elif column in (keys.OVER_CLUSTER, keys.LINEAGE_PAIR):
            frame[column] = np.full(n, "", dtype=object)
        else:
            frame[column] = np.zeros(n, dtype=bool)
    return frame


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    # One thread whatever is offered: parallel sums round differently, and scores are to depend on the seed alone.
    cli.limit_threads(1)
    import anndata

    adata = contract.check(anndata.read_h5ad(args.input), args.input.name)
    flags = io.join_fragment(adata.obs_names, io.read_fragment(args.flags, [keys.FLAG_ANY]), args.flags.name)
    markers = io.read_tsv(args.markers, dtype=str, na_values=[])
    missing = [column for column in ("doublet_group", "gene", "role") if column not in markers]
    if missing:
        raise io.InputError(f"{args.markers.name} lacks the columns {', '.join(missing)}; it has {', '.join(markers.columns)}")

    seed = cli.unit_seed(args.seed, STEP, args.sample)
    good = np.flatnonzero(~flags[keys.FLAG_ANY].to_numpy(dtype=bool))
    counts = adata.layers[keys.COUNTS][good]
    expected = doublets.expected_rate(args.expected_doublet_rate, adata.n_obs)
    fragment = empty_fragment(adata.obs_names)
    simulated = np.empty(0)
    row: dict[str, object] = {
        "sample": args.sample, "n_cells": len(good), "expected_rate": expected, "expected": expected * len(good),
        "called": 0, "threshold": np.nan, "rule": "", "max_score": np.nan, "max_cluster_mean": np.nan, "n_clusters": 0,
        "n_clusters_flagged": 0, "n_flag_score": 0, "n_flag_lineage": 0, "n_spared": 0, "n_doublets": 0,
    }  # fmt: skip
    notes: list[str] = []
    word = keys.OK
    groups = doublets.marker_groups(markers, adata.var_names)
    result = None
    if len(good) < args.min_cells_doublets:
        word = keys.SKIPPED_TOO_FEW_CELLS
        notes = [f"{len(good)} cells are not flagged, needed {args.min_cells_doublets} (--min_cells_doublets)"]
    else:
        result = scrublet_scores(counts, seed, expected)
        if result is None:
            word = keys.SKIPPED_FEW_GENES
            notes = [f"fewer than {MIN_VARIABLE_GENES} genes vary between the cells"]

    if result is not None:
        scores, simulated, automatic = result
        calls, threshold, rule = doublets.call(scores, automatic, expected)
        if rule == doublets.EXPECTED_RATE:
            word = keys.WARNING
            auto = "no automatic threshold" if automatic is None else f"automatic threshold {automatic:.3g} not credible"
            notes.append(f"{auto}: the {int(calls.sum())} highest scores are called (expected rate {expected:.3g})")
        clusters = fine_clusters(counts, args.over_resolution, seed)
        means = doublets.cluster_means(scores, clusters)
        flag_score = doublets.above(means, args.cluster_score)
        pairs = doublets.coexpression(counts, groups, args.ambient_share)
        flagged = doublets.lineage_clusters(pairs, clusters, args.coexpress_share)
        flag_lineage = np.isin(clusters, list(flagged))
        columns = {
            keys.DOUBLET_SCORE: scores,
            keys.DOUBLET_CALL: calls,
            keys.OVER_CLUSTER: clusters,
            keys.CLUSTER_MEAN_SCORE: means,
            keys.CLUSTER_FLAG_SCORE: flag_score,
            keys.LINEAGE_PAIR: doublets.pair_names(pairs, len(good)),
            keys.CLUSTER_FLAG_LINEAGE: flag_lineage,
        }
        credible = doublets.lineage_credible(flag_lineage, expected)
        if not credible and "lineage" in args.remove:
            word = keys.WARNING
            notes.append(
                f"clusters with two lineages hold {flag_lineage.mean():.0%} of the cells, too many for doublets: ambient RNA? "
                "The lineage rule is not applied"
            )
        used_lineage = flag_lineage & credible
        rare: dict[str, float] = {}
        if rule == doublets.EXPECTED_RATE and len(groups) > 1:
            rare = doublets.rare_populations(calls, clusters, pairs, args.coexpress_share)
        spared = calls & np.isin(clusters, list(rare))
        if rare:
            told = ", ".join(f"{name} ({share:.0%} of {int((clusters == name).sum())} cells)" for name, share in rare.items())
            notes.append(
                f"kept although among the highest scores, because their cluster shows one lineage and may be a rare population: "
                f"{int(spared.sum())} cells of cluster {told}"
            )
        by_rule = dict(zip(doublets.RULES, (calls & ~spared, flag_score, used_lineage), strict=True))
        columns[keys.DOUBLET] = np.logical_or.reduce([np.zeros(len(good), bool), *(by_rule[name] for name in args.remove)])
        for column, values in columns.items():
            fragment.loc[good, column] = values
        row |= {
            "called": int(calls.sum()), "threshold": threshold, "rule": rule, "max_score": float(np.nanmax(scores)),
            "max_cluster_mean": float(np.nanmax(means)), "n_clusters": len(set(clusters)),
            "n_clusters_flagged": len(set(clusters[flag_score | flag_lineage])), "n_flag_score": int(flag_score.sum()),
            "n_flag_lineage": int(flag_lineage.sum()), "n_spared": int(spared.sum()),
            "n_doublets": int(columns[keys.DOUBLET].sum()),
        }  # fmt: skip
        if len(groups) < 2:
            word = keys.WARNING
            notes.append("fewer than two lineages have two measured markers: lineage rule off")
        row["lineage_pairs"] = "; ".join(f"cluster {name}: {pair} {share:.0%}" for name, (pair, share) in sorted(flagged.items()))
        row["note"] = SCALE_NOTE.format(limit=args.cluster_score, score=row["max_score"])
    row.setdefault("lineage_pairs", "")
    row.setdefault("note", "")
    row["status"] = word

    entry = provenance.record(STEP, args.sample, args, ["anndata", "igraph", "numpy", "scanpy", "scikit-image", "scikit-learn"])
    io.write_fragment(fragment, Path(f"{args.sample}.doublets.parquet"))
    io.write_tsv(pd.DataFrame([row]), Path(f"{args.sample}.doublets.tsv"))
    io.write_tsv(doublets.histogram(fragment[keys.DOUBLET_SCORE].to_numpy(), simulated), Path(f"{args.sample}.doublet_hist.tsv"))
    status.write(
        [status.StatusRow(STEP, "sample", args.sample, word, "; ".join(notes), n_cells=len(good), n_samples=1, n_patients=1)],
        STEP,
        args.sample,
    )
    provenance.write(entry)
    return 0


if __name__ == "__main__":
    cli.run(main)
