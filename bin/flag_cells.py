#!/usr/bin/env python3
"""Mark poor cells and judge the sample; remove nothing.

    flag_cells.py --sample P1-PRE --input P1-PRE.h5ad --min_genes 200 --min_counts 500 --max_mt_pct 20

Writes <sample>.flags.parquet (metrics and flags of every cell) and <sample>.sample_qc.tsv (criteria of the sample,
computed on the cells that are not flagged).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from scresist import cli, contract, io, keys, provenance, quality, status

STEP = "flag_cells"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__, sample=True)
    percent = cli.number(0, 100)
    factor = cli.number(0, 1000)
    parser.add_argument("--input", required=True, type=Path, help="sample h5ad with layers['counts']")
    parser.add_argument("--min_genes", type=cli.number(0, 10**6), default=200, help="flag cells with fewer genes (default 200)")
    parser.add_argument("--min_counts", type=cli.number(0, 10**9), default=500, help="flag cells with fewer counts (default 500)")
    parser.add_argument("--max_mt_pct", type=percent, default=20, help="flag cells with more %% mitochondrial (default 20)")
    parser.add_argument("--mad_k", type=factor, default=5, help="scaled MAD either side for counts, genes, top 20 (default 5)")
    parser.add_argument("--mad_k_mt", type=factor, default=3, help="scaled MAD above the median for %% MT (default 3)")
    parser.add_argument("--mad_mt_floor", type=percent, default=8, help="the adaptive %% MT bound is never below (default 8)")
    parser.add_argument(
        "--sample_min_median_genes", type=cli.number(0, 10**6), default=1000, help="median genes must exceed this (default 1000)"
    )
    parser.add_argument("--sample_saturation_min", type=percent, default=60, help="sequencing saturation in %% (default 60)")
    parser.add_argument("--sample_saturation_max", type=percent, default=90, help="sequencing saturation in %% (default 90)")
    parser.add_argument("--sample_reads_in_cells_min", type=percent, default=70, help="reads in cells in %% (default 70)")
    parser.add_argument("--saturation_pct", type=percent, help="the sample's sequencing saturation in %%, when known")
    parser.add_argument("--reads_in_cells_pct", type=percent, help="the sample's reads in cells in %%, when known")
    return parser.parse_args(argv)


def median(values: pd.Series) -> float:
    """Median without missing values; missing for none."""
    values = values.dropna()
    return float(values.median()) if len(values) else float("nan")


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    import anndata  # after the thread limits, which its numeric libraries read at import

    adata = contract.check(anndata.read_h5ad(args.input), args.input.name)
    counts = adata.layers[keys.COUNTS]
    if keys.IS_MT not in adata.var:
        raise io.InputError(f"{args.input.name}: var['{keys.IS_MT}'] is missing; make the file with load_sample.py")
    mitochondrial = adata.var[keys.IS_MT].to_numpy(dtype=bool)
    table = quality.metrics(counts, adata.var_names, mitochondrial)
    fixed = quality.fixed_flags(table, args.min_genes, args.min_counts, args.max_mt_pct)
    adaptive, bounds, warnings = quality.adaptive_flags(table, args.mad_k, args.mad_k_mt, args.mad_mt_floor)
    if not mitochondrial.any():
        warnings.append("no mitochondrial gene in the matrix: mitochondrial rules are off")
    flags = pd.concat([fixed, adaptive], axis=1)
    flags[keys.FLAG_ANY] = flags.any(axis=1)
    cells = pd.concat([table, flags], axis=1)[[*keys.QC_METRICS, *keys.QC_FLAGS]]
    cells.insert(0, keys.CELL, adata.obs_names.to_numpy(dtype=object))

    # after flagging: debris must not decide about the sample
    good = cells[~cells[keys.FLAG_ANY].astype(bool)]
    saturation = np.nan if args.saturation_pct is None else args.saturation_pct
    reads = np.nan if args.reads_in_cells_pct is None else args.reads_in_cells_pct
    median_genes = median(good[keys.N_GENES])
    criteria = {
        # the study keeps data sets with a median of MORE than 1,000 genes (methods.md, FLAG_CELLS)
        "crit_genes": quality.criterion(median_genes, args.sample_min_median_genes, None, strict=True)
        if len(good)
        else quality.FAIL,
        "crit_saturation": quality.criterion(saturation, args.sample_saturation_min, args.sample_saturation_max),
        "crit_reads": quality.criterion(reads, args.sample_reads_in_cells_min, None),
    }
    failed = {
        "crit_genes": f"median of genes {median_genes:.6g}, needed more than {args.sample_min_median_genes:g}",
        "crit_saturation": f"saturation {saturation:g} %, "
        f"needed {args.sample_saturation_min:g} to {args.sample_saturation_max:g} %",
        "crit_reads": f"reads in cells {reads:g} %, needed {args.sample_reads_in_cells_min:g} %",
    }
    verdict = quality.FAIL if quality.FAIL in criteria.values() else quality.PASS
    if not len(good):
        word = keys.FAILED_NO_CELLS
        reason = f"all {len(cells)} cells are flagged as poor" if len(cells) else "the sample holds no cell"
        warnings = [reason]
    else:
        warnings += [failed[name] for name, value in criteria.items() if value == quality.FAIL]
        word = keys.WARNING if warnings else keys.OK

    entry = provenance.record(STEP, args.sample, args, ["anndata", "numpy", "pandas", "scipy"])
    io.write_fragment(cells, Path(f"{args.sample}.flags.parquet"))
    row = {
        "sample": args.sample,
        "n_before": len(cells),
        "n_after": len(good),
        "median_genes": median_genes,
        "median_counts": median(good[keys.N_COUNTS]),
        "median_mt": median(good[keys.PCT_MT]),
        "saturation": saturation,
        "reads_in_cells": reads,
        **criteria,
        "verdict": verdict,
        "mad_bounds": "; ".join(f"{name} {text}" for name, text in bounds.items()),
    }
    io.write_tsv(pd.DataFrame([row]), Path(f"{args.sample}.sample_qc.tsv"))
    status.write(
        [status.StatusRow(STEP, "sample", args.sample, word, "; ".join(warnings), n_cells=len(good), n_samples=1, n_patients=1)],
        STEP,
        args.sample,
    )
    provenance.write(entry)
    return 0


if __name__ == "__main__":
    cli.run(main)
