"""Count matrices: which slot holds counts, which symbol a gene has, rows of one symbol summed.

Cells are rows and genes are columns throughout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from scresist.io import InputError

INTEGER_TOLERANCE = 1e-3  # methods.md, LOAD_SAMPLE: integers that went through float32 and back
LOG_MAXIMUM = 20  # ln(1 + 10,000) is 9.2, log2 of it 13.3: non-integers below 20 look like logarithms
MAX_COUNT = np.iinfo(np.int32).max
ENSEMBL = re.compile(r"^(ENS[A-Z]*G\d{11})(\.\d+)?(_PAR_Y)?$")
GENE_EXPRESSION = "Gene Expression"  # Cell Ranger's word for RNA; antibodies and guides have others
EMPTY_DROPLET_COUNTS = 100  # methods.md, LOAD_SAMPLE: barcodes below are empty droplets ...
EMPTY_DROPLET_SHARE = 0.5  # ... and a matrix with more of them than this was never filtered
EMPTY_DROPLET_BARCODES = 200  # chosen, not tuned: below, a poor sample and a raw matrix cannot be told apart


@dataclass(frozen=True)
class Candidate:
    """One slot of a file that may hold counts.

    Attributes
    ----------
    slot
        its name as a user of the file knows it, e.g. `layers['counts']`
    matrix
        cells x genes, sparse or dense
    genes
        one row per column of `matrix`: name, gene_id (empty where unknown), feature_type
    """

    slot: str
    matrix: sparse.spmatrix | np.ndarray
    genes: pd.DataFrame


def values_of(matrix: sparse.spmatrix | np.ndarray) -> np.ndarray:
    """The stored non-zero values (and NaN) of a matrix, flat."""
    data = matrix.data if sparse.issparse(matrix) else np.asarray(matrix).ravel()
    return data[data != 0]  # NaN is unequal to 0 and stays


def not_counts(matrix: sparse.spmatrix | np.ndarray) -> str | None:
    """Why the values cannot be counts (with the range found), or None when they can."""
    values = values_of(matrix)
    if values.dtype.kind == "b" or not len(values):
        return None
    if values.dtype.kind not in "iuf":
        return f"holds values of type {values.dtype}, not numbers"
    bad = int((~np.isfinite(values)).sum())
    if bad:
        return f"{bad:,} values are missing or infinite"
    low, high = float(values.min()), float(values.max())
    span = f"values {low:g} to {high:g}"
    if low < 0:
        return f"{span}: negative values, as scaled or centred data have"
    rounded = np.rint(values)
    odd = np.abs(values - rounded) > INTEGER_TOLERANCE
    if odd.any():
        share = f"{odd.mean():.1%} of the non-zero values are not integers"
        if high < LOG_MAXIMUM:
            return f"{span}: {share}; these look like log-normalised values"
        return f"{span}: {share}, as normalised or ambient-corrected values have"
    if high > MAX_COUNT:
        return f"{span}: larger than any count ({MAX_COUNT:,})"
    return None


def to_counts(matrix: sparse.spmatrix | np.ndarray) -> sparse.csr_matrix:
    """The matrix as canonical CSR of int32: sorted, no stored zeros, values rounded to the nearest integer."""
    counts = sparse.csr_matrix(matrix)
    counts = sparse.csr_matrix((np.rint(counts.data).astype(np.int64), counts.indices, counts.indptr), counts.shape)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    if counts.nnz and counts.data.max() > MAX_COUNT:
        raise InputError(f"a count of {counts.data.max():,} exceeds what is stored ({MAX_COUNT:,})")
    return counts.astype(np.int32)


def choose_counts(candidates: list[Candidate]) -> tuple[Candidate, list[str]]:
    """The first slot that holds counts, and why each slot before it does not.

    Raises
    ------
    InputError
        when no slot holds counts, with the range found in each.
    """
    problems = []
    for candidate in candidates:
        problem = not_counts(candidate.matrix)
        if problem is None:
            return candidate, problems
        problems.append(f"{candidate.slot}: {problem}")
    raise InputError(
        "no slot holds raw counts (integers >= 0):\n  - "
        + "\n  - ".join(problems)
        + "\n  Give the matrix of UMI counts before normalisation, ambient correction or scaling; in h5ad as layers['counts'],"
        " raw.X or X."
    )


def ensembl_id(name: str) -> str:
    """The Ensembl gene id without version, or an empty text where `name` is none."""
    match = ENSEMBL.match(name)
    return match.group(1) if match else ""


@dataclass(frozen=True)
class GeneTable:
    """What the position table says, ready for look-ups."""

    table: pd.DataFrame  # symbol, gene_id, chromosome, start, end; one row per symbol
    row_of_symbol: dict[str, int]
    row_of_id: dict[str, int]
    alias: dict[str, str]


def gene_table(positions: pd.DataFrame, aliases: pd.DataFrame | None = None) -> GeneTable:
    """Look-ups by symbol, Ensembl id and (optional) alias; of several rows with one id or symbol the first counts."""
    table = positions.drop_duplicates("symbol").reset_index(drop=True)
    rows = table.index.tolist()
    by_id: dict[str, int] = {}
    for row, gene_id in zip(rows, table["gene_id"], strict=True):
        if gene_id:
            by_id.setdefault(gene_id, row)
    by_symbol = dict(zip(table["symbol"], rows, strict=True))
    alias = {} if aliases is None else dict(zip(aliases["alias"], aliases["symbol"], strict=True))
    return GeneTable(table, by_symbol, by_id, alias)


def name_genes(genes: pd.DataFrame, known: GeneTable) -> pd.DataFrame:
    """Symbol and place of each gene.

    Symbols stay as they are; an Ensembl id (its version cut) becomes the symbol of the position table, else the file's
    own symbol (`symbol` column, where the file has one), else the id without version. Places are looked up by id, then
    by symbol, then by alias, so that a renamed gene keeps its place.

    Parameters
    ----------
    genes
        columns name, gene_id and, optionally, symbol; one row per gene

    Returns
    -------
    one row per gene, in the same order: symbol, gene_id, row (in the position table, -1 without), known (bool: name or
    id stands in the table; an alias does not count, because aliases hold names of other species)
    """
    own = genes["symbol"] if "symbol" in genes else [""] * len(genes)
    out = []
    for name, given_id, symbol in zip(genes["name"].astype(str), genes["gene_id"].astype(str), own, strict=True):
        id_as_name = ensembl_id(name)
        gene_id = id_as_name or ensembl_id(given_id)
        row = known.row_of_id.get(gene_id, -1) if gene_id else -1
        if id_as_name:
            name = known.table["symbol"].iat[row] if row >= 0 else str(symbol or "") or id_as_name
        if row < 0:
            row = known.row_of_symbol.get(name, -1)
        is_known = row >= 0
        if row < 0:
            row = known.row_of_symbol.get(known.alias.get(name, ""), -1)
        out.append((name, gene_id or (known.table["gene_id"].iat[row] if row >= 0 else ""), row, is_known))
    return pd.DataFrame(out, columns=["symbol", "gene_id", "row", "known"])


def sum_duplicates(counts: sparse.csr_matrix, named: pd.DataFrame) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Columns of one symbol summed; symbols sorted.

    Of several rows with one symbol the description is taken from the first with a place, else the first.

    Parameters
    ----------
    counts
        cells x genes
    named
        result of `name_genes`, one row per column of `counts`

    Returns
    -------
    cells x symbols (int32, CSR), and one row per symbol: symbol, gene_id, row, known
    """
    symbols, inverse = np.unique(named["symbol"].to_numpy(dtype=str), return_inverse=True)
    order = np.lexsort((np.arange(len(named)), (named["row"] < 0).to_numpy(), inverse))
    first = order[np.r_[True, np.diff(inverse[order]) > 0]] if len(order) else order
    merged = named.iloc[first].reset_index(drop=True)
    merged["known"] = pd.Series(named["known"].to_numpy(dtype=bool)).groupby(inverse).any().to_numpy(dtype=bool)
    collect = sparse.csr_matrix(
        (np.ones(len(inverse), dtype=np.int64), (np.arange(len(inverse)), inverse)), shape=(len(inverse), len(symbols))
    )
    summed = to_counts(counts.astype(np.int64) @ collect)
    return summed, merged


def place_genes(named: pd.DataFrame, known: GeneTable) -> pd.DataFrame:
    """The `var` frame of the contract, indexed by symbol: gene_id, chromosome, start, end, mt.

    Genes without a place have an empty chromosome, start and end -1. Mitochondrial: chromosome MT or prefix MT-.
    """
    rows = named["row"].to_numpy(dtype=np.int64)
    placed = rows >= 0
    table = known.table

    def column(name: str, empty: object, dtype: type) -> np.ndarray:
        values = np.full(len(rows), empty, dtype=dtype)
        values[placed] = table[name].to_numpy(dtype=dtype)[rows[placed]]
        return values

    chromosome = column("chromosome", "", object)
    start = column("start", -1, np.int64)
    symbol = named["symbol"].astype(str)
    mitochondrial = (chromosome == "MT") | symbol.str.startswith("MT-").to_numpy(dtype=bool)
    chromosome[start < 0] = ""  # a chromosome without a position would put the gene at its very beginning
    return pd.DataFrame(
        {
            "gene_id": named["gene_id"].to_numpy(dtype=object),
            "chromosome": chromosome,
            "start": start,
            "end": column("end", -1, np.int64),
            "mt": mitochondrial,
        },
        index=pd.Index(symbol.to_numpy(dtype=object), name="symbol"),
    )


def known_share(counts_per_gene: np.ndarray, known: np.ndarray) -> float:
    """Share of the counts that lie on genes of the position table, in [0, 1]; of the genes where nothing was counted.

    By counts, because references differ in what nobody expresses: of the 33,694 genes of a 10x reference 71 % are in
    the table but they hold 99.6 % of the counts (measured on GSE128531), while the symbols of a mouse match 0.8 % and 0.4 %.
    """
    if not len(known):
        return 0.0
    total = float(np.sum(counts_per_gene, dtype=np.float64))
    if total == 0:
        return float(np.mean(known))
    return float(np.sum(np.asarray(counts_per_gene)[known], dtype=np.float64) / total)


def name_hint(names: list[str]) -> str:
    """A guess what foreign gene names are, for an error message; empty when there is none."""
    if not names:
        return ""
    ensembl = [match.group(1) for name in names if (match := ENSEMBL.match(name))]
    if sum(not name.startswith("ENSG") for name in ensembl) > len(names) / 2:
        return "these are Ensembl ids of another species"
    if sum(name.isdigit() for name in names) > len(names) / 2:
        return "these are numbers (row numbers or Entrez ids)"
    if sum(bool(re.match(r"^(mm10|GRCm3\w|hg19|hg38|GRCh3\w)_", name)) for name in names) > len(names) / 2:
        return "these carry the prefix of a genome, as combined references write them"
    if sum(bool(re.match(r"^([A-Z][a-z0-9]+|mt-[A-Z]\w*)$", name)) and any(c.islower() for c in name) for name in names) > (
        len(names) / 2
    ):
        return "these look like mouse or rat symbols"
    return ""


def empty_droplet_share(counts: sparse.csr_matrix) -> float:
    """Share of barcodes with fewer than 100 counts, in [0, 1]; 0 without barcodes."""
    totals = np.asarray(counts.sum(axis=1, dtype=np.int64)).ravel()
    return float(np.mean(totals < EMPTY_DROPLET_COUNTS)) if len(totals) else 0.0
