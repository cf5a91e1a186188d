#!/usr/bin/env python3
"""Read any usual count file of one sample into one contract, or refuse it clearly.

    load_sample.py --sample P1-PRE --patient P1 --phase PRE --batch none --input filtered_feature_bc_matrix \\
        --positions gene_positions.tsv.gz

Reads a 10x folder (version 2 or 3, gzipped or not, with or without prefixes), a Cell Ranger `outs` folder, 10x .h5,
.h5ad, or a CSV/TSV of genes x cells. Writes <sample>.h5ad (contract.py) and <sample>.load.tsv.

An unfiltered matrix is refused rather than skipped: the filtered one exists beside it, and a cohort that silently lacks
a sample would be worse than a stop before any work.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from scresist import cli, contract, io, keys, matrices, provenance, readers, status

STEP = "load_sample"
SHOWN = 5  # names listed in a message


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__, sample=True)
    parser.add_argument("--patient", required=True, help="patient id")
    parser.add_argument("--phase", required=True, help="phase of the sample, e.g. PRE")
    parser.add_argument("--batch", default="none", help="batch, `none` when not given (default none)")
    parser.add_argument("--input", required=True, type=Path, help="count file or folder")
    parser.add_argument("--positions", required=True, type=Path, help="table symbol, gene_id, chromosome, start, end")
    parser.add_argument("--aliases", type=Path, help="table alias, symbol: places for renamed genes (names stay)")
    parser.add_argument(
        "--min_known_gene_share",
        type=cli.number(0, 1),
        default=0.5,
        help="share of the counts that must lie on genes of the position table, 0 to 1 (default 0.5)",
    )
    parser.add_argument(
        "--min_genes_matrix", type=cli.number(0, 10**7, int), default=5000, help="fewer genes give a warning (default 5000)"
    )
    return parser.parse_args(argv)


def read_positions(positions: Path, aliases: Path | None) -> matrices.GeneTable:
    """The position table and, where given, the aliases.

    Raises
    ------
    InputError
        when a column is missing.
    """
    tables = []
    for path, columns in ((positions, ("symbol", "gene_id", "chromosome", "start", "end")), (aliases, ("alias", "symbol"))):
        if path is None:
            tables.append(None)
            continue
        table = io.read_tsv(path, dtype=str, na_values=[])
        missing = [column for column in columns if column not in table]
        if missing:
            raise io.InputError(f"{path.name} lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}")
        tables.append(table)
    try:
        # a gene known by name only has no place
        table = tables[0].replace({"start": {"": "-1"}, "end": {"": "-1"}}).astype({"start": np.int64, "end": np.int64})
    except ValueError as error:
        raise io.InputError(f"{positions.name}: start and end must be whole numbers ({error})") from error
    return matrices.gene_table(table, tables[1])


def cell_names(sample: str, barcodes: list[str]) -> list[str]:
    """`<sample>:<barcode>` for each barcode; one that carries the prefix already keeps it.

    Raises
    ------
    InputError
        when a barcode is empty or occurs twice.
    """
    prefix = f"{sample}:"
    names = [barcode if barcode.startswith(prefix) else prefix + barcode for barcode in barcodes]
    empty = names.count(prefix)
    if empty:
        raise io.InputError(f"{empty} barcodes are empty")
    seen = pd.Series(names, dtype=object)
    twice = seen[seen.duplicated()].unique()
    if len(twice):
        shown = ", ".join(name.removeprefix(prefix) for name in twice[:SHOWN])
        raise io.InputError(
            f"{len(twice)} barcodes occur twice ({shown}); a sample is one library: list merged libraries as samples of their own"
        )
    return names


def only_expression(candidate: matrices.Candidate) -> tuple[sparse.csr_matrix, pd.DataFrame, dict[str, int]]:
    """Counts and genes of gene expression, and the number of other features by type.

    Raises
    ------
    InputError
        when no feature is gene expression.
    """
    genes = candidate.genes
    types = genes["feature_type"].replace("", matrices.GENE_EXPRESSION)
    keep = (types == matrices.GENE_EXPRESSION).to_numpy(dtype=bool)
    others = {str(kind): int(n) for kind, n in types[~keep].value_counts().sort_index().items()}
    if len(genes) and not keep.any():
        found = ", ".join(f"{kind} ({n})" for kind, n in others.items())
        raise io.InputError(f"no feature is of type `{matrices.GENE_EXPRESSION}`, found {found}; give the RNA matrix")
    counts = matrices.to_counts(candidate.matrix)
    return counts[:, np.flatnonzero(keep)], genes[keep].reset_index(drop=True), others


def check_known(counts: sparse.csr_matrix, genes: pd.DataFrame, known: np.ndarray, barcodes: list[str], least: float,
                table: matrices.GeneTable) -> float:  # fmt: skip
    """The share of counts on known genes.

    Raises
    ------
    InputError
        when it is below `least`, with the first unknown names.
    """
    share = matrices.known_share(np.asarray(counts.sum(axis=0, dtype=np.int64)).ravel(), known)
    if share >= least:
        return share
    unknown = genes["name"][~known].astype(str).tolist()
    hint = matrices.name_hint(unknown)
    turned = [name in table.row_of_symbol or matrices.ensembl_id(name) in table.row_of_id for name in barcodes]
    if turned and np.mean(turned) >= least:
        hint = "the columns are genes: the table is cells x genes, transpose it"
    raise io.InputError(
        f"only {share:.1%} of the counts lie on known human genes ({int(known.sum()):,} of {len(known):,} genes), "
        f"needed {least:.0%} (--min_known_gene_share); the first unknown names are {', '.join(unknown[:SHOWN])}"
        + (f"; {hint}" if hint else "")
        + "; expected human gene symbols or Ensembl ids (ENSG...)"
    )


def check_filtered(counts: sparse.csr_matrix, n_genes_min: int) -> str:
    """An empty text, or a warning for a matrix too small to judge.

    Raises
    ------
    InputError
        when most barcodes are empty droplets.
    """
    share = matrices.empty_droplet_share(counts)
    if share <= matrices.EMPTY_DROPLET_SHARE:
        return ""
    found = f"{share:.0%} of {counts.shape[0]:,} barcodes have fewer than {matrices.EMPTY_DROPLET_COUNTS} counts"
    if counts.shape[0] < matrices.EMPTY_DROPLET_BARCODES or counts.shape[1] < n_genes_min:
        return f"{found}: a poor sample, a gene panel, or an unfiltered matrix"
    raise io.InputError(
        f"{found}, so this is the unfiltered matrix (empty droplets included); give the filtered one, in Cell Ranger's output "
        "filtered_feature_bc_matrix; the unfiltered one belongs into the column raw_path"
    )


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    import anndata  # after the thread limits, which its numeric libraries read at import

    table = read_positions(args.positions, args.aliases)
    warnings: list[str] = []
    try:
        source = readers.read(args.input)
        names = cell_names(args.sample, source.barcodes)
        chosen, passed_over = matrices.choose_counts(source.candidates)
        counts, genes, others = only_expression(chosen)
        named = matrices.name_genes(genes, table)
        if len(names):
            known = named["known"].to_numpy(dtype=bool)
            share = check_known(counts, genes, known, source.barcodes, args.min_known_gene_share, table)
            warnings.append(check_filtered(counts, args.min_genes_matrix))
        else:
            share = float("nan")
    except io.InputError as error:
        raise io.InputError(f"sample {args.sample}, {args.input.name}: {error}") from error

    summed, merged = matrices.sum_duplicates(counts, named)
    var = matrices.place_genes(merged, table)
    cells = np.argsort(np.array(names, dtype=str), kind="stable")
    obs = pd.DataFrame(
        {keys.SAMPLE: args.sample, keys.PATIENT: args.patient, keys.PHASE: args.phase, keys.BATCH: args.batch},
        index=pd.Index(np.array(names, dtype=object)[cells], name=keys.CELL),
        dtype=object,
    )
    adata = anndata.AnnData(obs=obs, var=var, layers={keys.COUNTS: summed[cells].tocsr()})

    mt_genes = var.index[var[keys.IS_MT]].tolist()
    total = int(summed.sum(dtype=np.int64))
    word = keys.OK
    if not len(names):
        word = keys.FAILED_NO_CELLS
        warnings = [f"{args.input.name} names {len(genes):,} genes but no barcode"]
    else:
        if len(var) < args.min_genes_matrix:
            warnings.append(f"{len(var):,} genes, fewer than {args.min_genes_matrix:,}: CNV and cell-type models may be skipped")
        if not mt_genes:
            warnings.append("no mitochondrial gene in the matrix: mitochondrial rules are off")
        if total == 0:
            warnings.append("all counts are zero")
        if any(warnings):
            word = keys.WARNING
    reason = "; ".join(text for text in warnings if text)

    entry = provenance.record(STEP, args.sample, args, ["anndata", "h5py", "numpy", "pandas", "scipy"])
    contract.stamp(adata, STEP, entry)
    contract.check(adata, f"{args.sample}.h5ad")
    io.write_h5ad(adata, Path(f"{args.sample}.h5ad"))
    row = {
        "sample": args.sample,
        "format": source.format,
        "slot": chosen.slot,
        "slots_passed_over": "; ".join(passed_over),
        "n_barcodes": len(names),
        "n_genes_in": len(genes),
        "n_features_other": sum(others.values()),
        "n_genes": len(var),
        "n_genes_known": int(merged["known"].sum()),
        "pct_counts_known": 100 * share,
        "n_duplicates_summed": len(genes) - len(var),
        "n_genes_placed": int((var[keys.START] >= 0).sum()),
        "total_umi": total,
        "mt_genes": len(mt_genes),
        "status": word,
    }
    io.write_tsv(pd.DataFrame([row]), Path(f"{args.sample}.load.tsv"))
    status.write(
        [status.StatusRow(STEP, "sample", args.sample, word, reason, n_cells=len(names), n_samples=1, n_patients=1)],
        STEP,
        args.sample,
    )
    provenance.write(entry)
    return 0


if __name__ == "__main__":
    cli.run(main)
