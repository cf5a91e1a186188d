#!/usr/bin/env python3
"""Join the filtered samples into one sparse matrix, normalise it once, and pick the highly variable genes.

Writes merged.h5ad (the only writer of the cohort matrix), hvg.tsv, merge.tsv.

Example: merge_cohort.py --inputs PRE-1.filtered.h5ad POST-1.filtered.h5ad --markers assets/markers.tsv --n_hvg 2000
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from scresist import cli, contract, io, keys, provenance, status

STEP = "merge_cohort"
MIN_CELLS_GENE = 3  # a gene seen in fewer cells of the cohort carries no information (scanpy's and Seurat's custom)
MIN_GENES_HVG = 2  # below, no gene can be told from another
SHARED_WARN = 0.7  # of the union of genes; chosen, not tuned: references of one species share more
NAMED_GENES = 8  # lost genes named in the status; all of them stand in merge.tsv
SUFFIX = ".filtered.h5ad"


@dataclass
class Sample:
    """What the cohort takes from one sample."""

    name: str
    counts: sparse.csr_matrix
    obs: pd.DataFrame
    var: pd.DataFrame


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    parser.add_argument("--inputs", required=True, nargs="+", type=Path, help="filtered h5ad of every sample")
    parser.add_argument("--markers", required=True, type=Path, help="marker table; its genes are looked for after the join")
    parser.add_argument("--panels", nargs="*", default=[], type=Path, help="further tables with a column `gene` to look for")
    parser.add_argument("--n_hvg", type=cli.number(2, 10**6, int), default=2000, help="highly variable genes (default 2000)")
    parser.add_argument("--join", choices=("inner",), default="inner", help="genes that every sample has (the only join offered)")
    return parser.parse_args(argv)


def read_samples(paths: list[Path]) -> tuple[list[Sample], dict[str, str]]:
    """Usable samples sorted by id, and why the others were left out.

    Raises
    ------
    InputError
        when files break the contract, a sample comes twice, or none is usable; all files are looked at first.
    """
    samples: dict[str, Sample] = {}
    left_out, problems = {}, []
    for path in paths:
        adata = anndata.read_h5ad(path)
        for layer in set(adata.layers) - {keys.COUNTS}:
            del adata.layers[layer]  # such as the counts before ambient correction: as large as the counts
        name = path.name.removesuffix(SUFFIX)
        found = contract.breaches(adata, normalised=False)
        if not found and set(adata.obs[keys.SAMPLE].astype(str)) - {name}:
            found = [f"obs['{keys.SAMPLE}'] holds {', '.join(sorted(set(adata.obs[keys.SAMPLE].astype(str))))}, expected {name}"]
        if not found and (name in samples or name in left_out):
            found = [f"sample {name} is given twice"]
        problems += [f"{path.name}: {problem}" for problem in found]
        if found:
            continue
        filtered = adata.uns[keys.UNS].get("filter", {})
        word = str(filtered.get("verdict", keys.OK))
        if word != keys.OK or not adata.n_obs:
            reason = str(filtered.get("reason", "")) or "the file holds no cell"
            left_out[name] = f"{word if word != keys.OK else keys.FAILED_NO_CELLS} ({reason})"
            continue
        samples[name] = Sample(name, adata.layers[keys.COUNTS], adata.obs[list(keys.IDENTITY)].astype(str), adata.var)
    if problems:
        raise io.InputError("samples that cannot be merged; make them with filter_cells.py:\n  - " + "\n  - ".join(problems))
    if not samples:
        listed = "\n  - ".join(f"{name}: {why}" for name, why in sorted(left_out.items()))
        raise io.InputError(
            f"no sample is left for the cohort:\n  - {listed}\nLook at 01_samples/*/*.filter.tsv for the reasons; "
            "lower --min_genes, --min_counts, --min_cells_sample or raise --max_mt_pct if the cells are sound"
        )
    return [samples[name] for name in sorted(samples)], left_out


def panel_genes(markers: Path, panels: list[Path]) -> list[str]:
    """Genes of the marker table and the panels.

    Raises
    ------
    InputError
        when a table has no column `gene`.
    """
    genes: set[str] = set()
    for path in [markers, *panels]:
        table = io.read_tsv(path, dtype=str)
        if "gene" not in table:
            raise io.InputError(f"{path.name} has the columns {', '.join(table)}; expected one named `gene`")
        genes |= set(table["gene"].dropna())
    return sorted(genes)


def gene_sets(samples: list[Sample]) -> tuple[set[str], pd.Index, pd.DataFrame]:
    """Union of the genes, genes of every sample (sorted), and per sample how many of the union it lacks.

    Raises
    ------
    InputError
        when the samples share fewer than two genes.
    """
    union = set().union(*(sample.var.index for sample in samples))
    shared = set.intersection(*(set(sample.var.index) for sample in samples))
    lacks = pd.DataFrame(
        {"sample": [sample.name for sample in samples], "n_lacking": [len(union) - len(sample.var) for sample in samples]}
    )
    if len(shared) < MIN_GENES_HVG:
        listed = "; ".join(f"{sample.name}: {', '.join(sample.var.index[:3])}, ..." for sample in samples)
        raise io.InputError(
            f"the {len(samples)} samples share {len(shared)} of {len(union):,} genes ({listed}). "
            "Were they counted with different references or kinds of gene ids? Load them from one kind of matrix"
        )
    return union, pd.Index(sorted(shared)), lacks


def join(samples: list[Sample], shared: pd.Index) -> anndata.AnnData:
    """Cells of all samples over the shared genes that at least 3 cells express.

    An outer join would turn "not in this reference" into "not expressed". Empties `samples` while it goes, so that the
    counts exist at most twice.

    Raises
    ------
    InputError
        when fewer than two genes are left.
    """
    at = [sample.var.index.get_indexer(shared) for sample in samples]
    n_cells = sum(np.asarray((s.counts > 0).sum(axis=0)).ravel()[columns] for s, columns in zip(samples, at, strict=True))
    seen = np.flatnonzero(n_cells >= MIN_CELLS_GENE)
    if len(seen) < MIN_GENES_HVG:
        raise io.InputError(
            f"{len(seen)} of {len(shared):,} genes are found in {MIN_CELLS_GENE} cells or more: the samples are empty"
        )
    genes = shared[seen]
    var = samples[0].var.loc[genes].copy()
    if keys.GENE_ID in var:
        # a file without Ensembl ids must not hide those of the others
        ids = var[keys.GENE_ID].astype(str).astype(object)
        for sample in samples[1:]:
            if keys.GENE_ID in sample.var:
                ids = ids.where(ids != "", sample.var[keys.GENE_ID].astype(str).reindex(genes).fillna(""))
        var[keys.GENE_ID] = ids
    obs = pd.concat([sample.obs for sample in samples])
    for column in obs:
        obs[column] = pd.Categorical(obs[column], categories=sorted(obs[column].unique()))
    blocks = []
    for columns in at:
        blocks.append(samples.pop(0).counts[:, columns[seen]].astype(np.int32))
    counts = sparse.csr_matrix(sparse.vstack(blocks, format="csr"))
    blocks.clear()
    counts.eliminate_zeros()
    counts.sort_indices()
    return anndata.AnnData(obs=obs, var=var, layers={keys.COUNTS: counts})


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    args.inputs.sort(key=lambda path: path.name)  # the order in which samples arrive must not show in any output
    cli.prepare_caches()
    cli.limit_threads(args.threads)  # before scanpy is imported, which the kernel does
    from scresist import normalise

    panel = panel_genes(args.markers, args.panels)
    samples, left_out = read_samples(args.inputs)
    n_samples = len(samples)
    union, shared, lacks = gene_sets(samples)
    merged = join(samples, shared)
    merged.X = normalise.log1p_cp10k(merged.layers[keys.COUNTS])
    if normalise.excluded_genes(merged.var_names).all():
        raise io.InputError(
            f"all {merged.n_vars} shared genes are mitochondrial, ribosomal, haemoglobin or immune-receptor variable genes: "
            "nothing is left to tell cell types by"
        )
    hvg = normalise.highly_variable(merged.X, merged.var_names, merged.obs[keys.SAMPLE], args.n_hvg)
    merged.var[keys.HIGHLY_VARIABLE] = hvg["highly_variable"].to_numpy()

    entry = provenance.record(STEP, "cohort", args, ["anndata", "numpy", "pandas", "scanpy", "scipy"])
    contract.stamp(merged, STEP, entry)
    contract.check(merged, "merged.h5ad", normalised=True)
    io.write_h5ad(merged, Path("merged.h5ad"))
    io.write_tsv(hvg.rename_axis("gene").reset_index(), Path("hvg.tsv"))

    lost = [gene for gene in panel if gene in union and gene not in shared]
    rare = [gene for gene in panel if gene in shared and gene not in merged.var_names]
    worst = lacks.sort_values(["n_lacking", "sample"], ascending=[False, True]).iloc[0]
    summary = {
        "n_samples": n_samples,
        "n_cells": merged.n_obs,
        "n_genes_union": len(union),
        "n_genes_shared": len(shared),
        "n_genes_kept": merged.n_vars,
        "n_hvg": int(hvg["highly_variable"].sum()),
        "panel_genes_lost": ", ".join(lost),
        "panel_genes_rare": ", ".join(rare),
        "samples_left_out": "; ".join(f"{name}: {why}" for name, why in sorted(left_out.items())),
    }
    io.write_tsv(pd.DataFrame([summary]), Path("merge.tsv"))

    reasons = []
    if left_out:
        reasons.append(f"{len(left_out)} of {len(left_out) + n_samples} samples left out: {summary['samples_left_out']}")
    if len(shared) < SHARED_WARN * len(union):
        reasons.append(
            f"the samples share {len(shared):,} of {len(union):,} genes; {worst['sample']} lacks most ({worst['n_lacking']:,})"
        )
    if lost:
        reasons.append(f"marker or panel genes lost because a sample lacks them: {status.few(lost, NAMED_GENES)}")
    row = status.StatusRow(
        step=STEP,
        unit_type="cohort",
        unit="cohort",
        status=keys.WARNING if reasons else keys.OK,
        reason="; ".join(reasons),
        n_cells=merged.n_obs,
        n_samples=n_samples,
        n_patients=merged.obs[keys.PATIENT].nunique(),
    )
    status.write([row], STEP, "cohort")
    provenance.write(entry)
    return 0


if __name__ == "__main__":
    cli.run(main)
