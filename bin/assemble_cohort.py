#!/usr/bin/env python3
"""Join everything known about each cell, by its id and never by its place, into the delivered objects.

    assemble_cohort.py --input merged.h5ad --cells *.cells.parquet --fragments embedding.parquet clusters.parquet \\
        annotation.parquet --status *.status.tsv --latent_key X_scVI --compression gzip

Writes cohort.h5ad (the kept cells), cells.parquet (every input cell), columns.tsv (what each column means).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from scresist import assembly, cli, contract, io, keys, provenance, status

STEP = "assemble_cohort"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    parser.add_argument("--input", required=True, type=Path, help="merged.h5ad: counts and normalised values of the kept cells")
    parser.add_argument(
        "--cells", required=True, nargs="+", type=Path, help="<sample>.cells.parquet: all cells, dropped ones too"
    )
    parser.add_argument("--fragments", nargs="*", default=[], type=Path, help="Parquet files keyed by `cell`, from any step")
    parser.add_argument("--status", nargs="*", default=[], type=Path, help="status tables of the steps so far")
    parser.add_argument("--latent_key", default="X_latent", help="name of the integrated space in obsm (default X_latent)")
    parser.add_argument(
        "--compression", default="gzip", choices=("gzip", "lzf", "none"), help="of cohort.h5ad; gzip is smaller, lzf faster"
    )
    args = parser.parse_args(argv)
    for name in ("cells", "fragments", "status"):  # the order in which files arrive must not reach the provenance
        setattr(args, name, sorted(getattr(args, name), key=lambda path: path.name))
    return args


def read_cells(paths: list[Path]) -> pd.DataFrame:
    """All cells of all samples, sorted by cell id."""
    frames = [io.read_fragment(path) for path in paths]
    filled = [frame for frame in frames if len(frame)] or frames[:1]  # an empty table has no types to offer
    return pd.concat(filled, axis=0).sort_index(kind="stable")


def check_promise(cells: pd.DataFrame, merged: pd.Index) -> None:
    """The merged matrix must hold exactly the cells that were kept.

    Raises
    ------
    InputError
        naming how many cells differ and the first of them.
    """
    kept = cells.index[cells[keys.KEPT].astype(bool)]
    for here, there, text in (
        (kept, merged, "are marked as kept but missing from the merged matrix"),
        (merged, kept, "are in the merged matrix but not marked as kept"),
    ):
        odd = here.difference(there)
        if len(odd):
            raise io.InputError(f"{len(odd)} cells {text}, the first is {odd[0]}; are the files from one run?")


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    import anndata  # after the thread limits, which its numeric libraries read at import

    adata = contract.check(anndata.read_h5ad(args.input), args.input, normalised=True)
    cells = read_cells(args.cells)
    fragments = assembly.gather({path.name: io.read_fragment(path) for path in args.fragments})
    # fragments hold kept cells; joined to all cells, so that dropped ones have a row with empty values
    joined = assembly.join(cells, fragments)
    check_promise(joined, adata.obs_names)

    latent_names = assembly.embedding(joined.iloc[:0])[1]
    table = joined.drop(columns=latent_names).rename_axis(keys.CELL).reset_index()
    described = assembly.describe(table)

    kept = joined.loc[adata.obs_names]
    adata.obs = assembly.conservative_frame(kept.drop(columns=[*latent_names, *(c for c in keys.UMAP if c in kept)]))
    adata.var = assembly.plain_text(adata.var)
    if latent_names:
        adata.obsm[args.latent_key] = assembly.embedding(kept)[0]
    if set(keys.UMAP) <= set(kept.columns):
        adata.obsm["X_umap"] = kept[list(keys.UMAP)].to_numpy(dtype="float32")

    rows = [io.read_tsv(path, dtype=str) for path in args.status]
    rows = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(status.COLUMNS))
    rows = rows.sort_values(["step", "unit_type", "unit"], kind="stable", ignore_index=True)
    entry = provenance.record(STEP, "cohort", args, ["anndata", "h5py", "numpy", "pandas", "pyarrow"])
    contract.stamp(adata, STEP, entry)
    adata.uns = {keys.UNS: assembly.portable({**adata.uns[keys.UNS], "status": assembly.status_arrays(rows)})}

    contract.check(adata, "cohort.h5ad", normalised=True)
    io.write_h5ad(adata, Path("cohort.h5ad"), None if args.compression == "none" else args.compression)
    io.write_fragment(table, Path("cells.parquet"))
    io.write_tsv(described, Path("columns.tsv"))

    absent = described.loc[described["type"] == "absent", "column"].tolist()
    status.write(
        [
            status.StatusRow(
                STEP,
                "cohort",
                "cohort",
                keys.WARNING if absent else keys.OK,
                f"{len(absent)} columns absent because their step made none: {', '.join(absent)}" if absent else "",
                n_cells=adata.n_obs,
                n_samples=int(kept[keys.SAMPLE].nunique()),
                n_patients=int(kept[keys.PATIENT].nunique()),
            )
        ],
        STEP,
        "cohort",
    )
    provenance.write(entry)
    return 0


if __name__ == "__main__":
    cli.run(main)
