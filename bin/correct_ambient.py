#!/usr/bin/env python3
"""Take ambient RNA out of the counts of one sample with scAR (scvi-tools), where the unfiltered matrix is given.

    correct_ambient.py --sample P1-PRE --input P1-PRE.h5ad --raw raw_feature_bc_matrix --max_epochs 150 --device cpu

The ambient profile comes from the droplets of the unfiltered matrix that hold no cell. Writes <sample>.ambient.h5ad
(corrected counts as integers, the original ones in layers['counts_raw']) and <sample>.ambient.tsv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from scresist import cli, contract, io, keys, matrices, provenance, readers, status

STEP = "correct_ambient"
MIN_CELLS = 50  # chosen, not tuned: fewer cells cannot train the model
MIN_DROPLETS = 50  # as scvi.external.SCAR.get_ambient_profile asks for
TOP = 10  # ambient genes named in the table


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__, sample=True)
    parser.add_argument("--input", required=True, type=Path, help="sample h5ad with layers['counts']")
    parser.add_argument("--raw", required=True, type=Path, help="unfiltered matrix of the same library (folder, h5, h5ad)")
    parser.add_argument("--max_epochs", type=cli.number(1, 10**5, int), default=150, help="training epochs (default 150)")
    parser.add_argument("--max_droplet_counts", type=cli.number(1, 10**6, int), default=100, help="empty below (default 100)")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="gpu fails where there is none (default cpu)")
    return parser.parse_args(argv)


def empty_droplets(raw: sparse.csr_matrix, barcodes: list[str], cells: set[str], most: int) -> np.ndarray:
    """Rows of the unfiltered matrix that hold no cell: not among the cells, 1 to `most` - 1 counts.

    Cell-free droplets are taken by their counts, as LOAD_SAMPLE does, and not by scvi's multinomial test, which draws
    50,000 droplets without a seed and makes them dense (13 GB for 33,000 genes).
    """
    totals = np.asarray(raw.sum(axis=1, dtype=np.int64)).ravel()
    free = np.array([barcode not in cells for barcode in barcodes], dtype=bool)
    return np.flatnonzero(free & (totals > 0) & (totals < most))


def ambient_profile(raw: sparse.csr_matrix, symbols: pd.Series, rows: np.ndarray, genes: pd.Index) -> np.ndarray:
    """Share of each of `genes` in the counts of the given droplets; sums to 1."""
    sums = pd.Series(np.asarray(raw[rows].sum(axis=0, dtype=np.int64)).ravel()).groupby(symbols.to_numpy()).sum()
    values = sums.reindex(genes, fill_value=0).to_numpy(dtype=np.float64)
    return values / values.sum() if values.sum() else values


def denoise(counts: sparse.csr_matrix, profile: np.ndarray, args: argparse.Namespace, seed: int) -> sparse.csr_matrix | None:
    """Counts without ambient RNA, as integers and never above the original count; None when the model gave no values."""
    import scvi
    import torch
    from anndata import AnnData

    scvi.settings.seed = seed
    scvi.settings.verbosity = 40
    torch.set_num_threads(args.threads)
    if args.device == "gpu" and not torch.cuda.is_available():
        raise io.InputError("--device gpu: no GPU is visible to this task; use --device cpu")
    made = AnnData(counts.astype(np.float32), obs=pd.DataFrame(index=[str(i) for i in range(counts.shape[0])]))
    scvi.external.SCAR.setup_anndata(made)
    model = scvi.external.SCAR(made, ambient_profile=profile)
    accelerator = "gpu" if args.device == "gpu" else "cpu"
    model.train(max_epochs=args.max_epochs, accelerator=accelerator, devices=1, enable_progress_bar=False, logger=False)
    # scAR rounds by a draw from torch's generator, which scvi.settings.seed has set
    native = model.get_denoised_counts(made, n_samples=1)
    if np.isnan(native).any():
        return None
    corrected = np.minimum(np.rint(native), counts.toarray())
    return matrices.to_counts(corrected)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    import anndata  # after the thread limits, which its numeric libraries read at import

    adata = contract.check(anndata.read_h5ad(args.input), args.input.name)
    counts = adata.layers[keys.COUNTS]
    word, reason = keys.OK, ""
    n_droplets, overlap = 0, 0
    profile = np.zeros(adata.n_vars)
    corrected = counts
    try:
        source = readers.read(args.raw, raw=True)
        chosen, _ = matrices.choose_counts(source.candidates)
        raw = matrices.to_counts(chosen.matrix)
    except io.InputError as error:
        raise io.InputError(f"sample {args.sample}, unfiltered matrix {args.raw.name}: {error}") from error
    cells = {name.split(":", 1)[1] for name in adata.obs_names}
    overlap = len(cells & set(source.barcodes))
    if adata.n_obs and not overlap:
        raise io.InputError(
            f"sample {args.sample}: none of the {len(cells):,} cells is in the unfiltered matrix {args.raw.name} "
            f"(cells look like {sorted(cells)[0]}, droplets like {source.barcodes[0] if source.barcodes else 'none'}); "
            "is it of the same library?"
        )
    # names as in LOAD_SAMPLE: by id where the sample knows the id, else by symbol
    by_id = {gene_id: symbol for symbol, gene_id in zip(adata.var_names, adata.var[keys.GENE_ID], strict=True) if gene_id}
    symbols = pd.Series(
        [
            name if name in adata.var_names else by_id.get(matrices.ensembl_id(name) or matrices.ensembl_id(gene_id), name)
            for name, gene_id in zip(chosen.genes["name"], chosen.genes["gene_id"], strict=True)
        ],
        dtype=object,
    )
    rows = empty_droplets(raw, source.barcodes, cells, args.max_droplet_counts)
    n_droplets = len(rows)
    if adata.n_obs < MIN_CELLS:
        word, reason = keys.SKIPPED_TOO_FEW_CELLS, f"{adata.n_obs} cells, needed {MIN_CELLS}: counts stay as they are"
    elif n_droplets < MIN_DROPLETS:
        word = keys.SKIPPED_NO_INPUT
        reason = (
            f"{n_droplets} empty droplets (1 to {args.max_droplet_counts - 1} counts) in {args.raw.name}, needed {MIN_DROPLETS}: "
            "counts stay as they are; is it the unfiltered matrix?"
        )
    else:
        profile = ambient_profile(raw, symbols, rows, adata.var_names)
        if not profile.any():
            raise io.InputError(f"sample {args.sample}: the genes of {args.raw.name} are none of the sample's")
        measured = np.flatnonzero(np.asarray(counts.sum(axis=0)).ravel() > 0)  # unmeasured genes only cost memory
        part = profile[measured] / profile[measured].sum()
        seed = cli.unit_seed(args.seed, STEP, args.sample)
        cleaned = denoise(counts[:, measured], part, args, seed)
        if cleaned is None:
            word, reason = keys.FAILED_NAN_LOSS, "scAR gave undefined values: counts stay as they are"
        else:
            place = sparse.csr_matrix(
                (np.ones(len(measured), dtype=np.int32), (np.arange(len(measured)), measured)), (len(measured), adata.n_vars)
            )
            corrected = matrices.to_counts(cleaned @ place)

    before, after = int(counts.sum(dtype=np.int64)), int(corrected.sum(dtype=np.int64))
    adata.layers[keys.COUNTS_RAW] = counts
    adata.layers[keys.COUNTS] = corrected
    packages = ["anndata", "numpy", "pandas", "scipy", "scvi-tools", "torch"]
    entry = provenance.record(STEP, args.sample, args, packages, device=args.device)
    contract.stamp(adata, STEP, entry)
    contract.check(adata, f"{args.sample}.ambient.h5ad")
    io.write_h5ad(adata, Path(f"{args.sample}.ambient.h5ad"))
    top = np.lexsort((adata.var_names.to_numpy(dtype=str), -profile))[:TOP]
    row = {
        "sample": args.sample,
        "n_cells": adata.n_obs,
        "n_cells_in_raw": overlap,
        "n_empty_droplets": n_droplets,
        "n_counts_before": before,
        "n_counts_after": after,
        "pct_removed": 100 * (before - after) / before if before else np.nan,
        "top_ambient_genes": ", ".join(f"{adata.var_names[i]} {100 * profile[i]:.3g} %" for i in top if profile[i] > 0),
        "status": word,
    }
    io.write_tsv(pd.DataFrame([row]), Path(f"{args.sample}.ambient.tsv"))
    status.write(
        [status.StatusRow(STEP, "sample", args.sample, word, reason, n_cells=adata.n_obs, n_samples=1, n_patients=1)],
        STEP,
        args.sample,
    )
    provenance.write(entry)
    return 0


if __name__ == "__main__":
    cli.run(main)
