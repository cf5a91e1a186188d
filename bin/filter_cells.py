#!/usr/bin/env python3
"""Apply the flags of one sample once, and keep for every cell why it was left out.

    filter_cells.py --sample P1-PRE --input P1-PRE.h5ad --flags P1-PRE.flags.parquet --doublets P1-PRE.doublets.parquet \\
        --sample_qc P1-PRE.sample_qc.tsv --min_cells_sample 50

Writes <sample>.filtered.h5ad (no cells when the sample leaves the cohort), <sample>.filter.tsv and
<sample>.cells.parquet (every cell of the input with metrics, flags and the reason for dropping it).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from scresist import cli, contract, io, keys, provenance, quality, status

STEP = "filter_cells"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__, sample=True)
    parser.add_argument("--input", required=True, type=Path, help="sample h5ad with layers['counts']")
    parser.add_argument("--flags", required=True, type=Path, help="<sample>.flags.parquet")
    parser.add_argument("--doublets", required=True, type=Path, help="<sample>.doublets.parquet")
    parser.add_argument("--sample_qc", required=True, type=Path, help="<sample>.sample_qc.tsv")
    parser.add_argument(
        "--min_cells_sample", type=cli.number(1, 10**9, int), default=50, help="fewer cells left: the sample leaves (default 50)"
    )
    parser.add_argument(
        "--on_sample_fail", choices=("flag", "drop"), default="flag", help="a sample that fails the criteria (default flag)"
    )
    return parser.parse_args(argv)


def read_criteria(path: Path, sample: str) -> tuple[str, str]:
    """Verdict of the sample, and the criteria that it fails.

    Raises
    ------
    InputError
        when the table has no row of the sample or no verdict.
    """
    table = io.read_tsv(path, dtype=str)
    if "verdict" not in table or "sample" not in table:
        raise io.InputError(f"{path.name} lacks the columns sample and verdict; make it with flag_cells.py")
    rows = table[table["sample"] == sample]
    if len(rows) != 1:
        raise io.InputError(f"{path.name} has {len(rows)} rows of sample {sample}, expected one")
    row = rows.iloc[0]
    failed = [column.removeprefix("crit_") for column in table if column.startswith("crit_") and row[column] == quality.FAIL]
    return str(row["verdict"]), ", ".join(failed)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    import anndata  # after the thread limits, which its numeric libraries read at import

    adata = contract.check(anndata.read_h5ad(args.input), args.input.name)
    flags = io.join_fragment(adata.obs_names, io.read_fragment(args.flags, [*keys.QC_METRICS, *keys.QC_FLAGS]), args.flags.name)
    calls = io.join_fragment(adata.obs_names, io.read_fragment(args.doublets, list(keys.DOUBLET_COLUMNS)), args.doublets.name)
    verdict, failed = read_criteria(args.sample_qc, args.sample)

    doublet = calls[keys.DOUBLET].to_numpy(dtype=bool)
    reason = quality.drop_reasons(flags, doublet, sample_skipped=False)
    n_good = int((reason == "").sum())
    word, text = keys.OK, ""
    if not n_good:
        word, text = keys.FAILED_NO_CELLS, f"0 of {adata.n_obs} cells pass"
    elif n_good < args.min_cells_sample:
        word = keys.SKIPPED_TOO_FEW_CELLS
        text = f"{n_good} of {adata.n_obs} cells pass, needed {args.min_cells_sample} (--min_cells_sample)"
    elif verdict == quality.FAIL:
        drop = args.on_sample_fail == "drop"
        word = keys.SKIPPED_SAMPLE_CRITERIA if drop else keys.WARNING
        text = f"the sample fails the criteria: {failed}" + ("" if drop else "; kept (--on_sample_fail flag)")
    skipped = word not in (keys.OK, keys.WARNING)
    if skipped:
        reason = quality.drop_reasons(flags, doublet, sample_skipped=True)
    kept = reason == ""

    cells = pd.concat([adata.obs[list(keys.IDENTITY)].astype(str).astype(object), flags, calls], axis=1)
    cells[keys.KEPT] = kept
    cells[keys.DROP_REASON] = reason
    cells = cells.rename_axis(keys.CELL).reset_index()
    numbers = {word: int((reason == word).sum()) for word in keys.DROP_REASONS}
    row = {
        "sample": args.sample,
        "n_in": adata.n_obs,
        **{f"n_{word}": number for word, number in numbers.items()},
        "n_out": int(kept.sum()),
        "status": word,
    }

    # `warning` is a remark on a sample that stays: the verdict for the steps that follow is ok
    entry = provenance.record(STEP, args.sample, args, ["anndata", "numpy", "pandas", "pyarrow"])
    filtered = adata[np.flatnonzero(kept)].copy()
    contract.stamp(filtered, STEP, entry)
    filtered.uns[keys.UNS]["filter"] = {"verdict": word if skipped else keys.OK, "reason": text}
    contract.check(filtered, f"{args.sample}.filtered.h5ad")
    io.write_h5ad(filtered, Path(f"{args.sample}.filtered.h5ad"))
    io.write_fragment(cells, Path(f"{args.sample}.cells.parquet"))
    io.write_tsv(pd.DataFrame([row]), Path(f"{args.sample}.filter.tsv"))
    status.write(
        [status.StatusRow(STEP, "sample", args.sample, word, text, n_cells=int(kept.sum()), n_samples=1, n_patients=1)],
        STEP,
        args.sample,
    )
    provenance.write(entry)
    return 0


if __name__ == "__main__":
    cli.run(main)
