"""Readers of the count files that laboratories and repositories give: 10x folder, 10x h5, h5ad, text table.

They say what a file holds and judge nothing but its form; which slot holds counts is decided in matrices.py.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import pandas as pd
from scipy import io as scipy_io
from scipy import sparse

from scresist import keys
from scresist.io import InputError
from scresist.matrices import GENE_EXPRESSION, Candidate

TABLE_ROWS = 1000  # rows of a text table read at once: bounds the dense part in memory
FORMATS = "a 10x folder (matrix.mtx, features.tsv or genes.tsv, barcodes.tsv), 10x .h5, .h5ad, or .csv/.tsv genes x cells"
# Where h5ad files of others keep the symbol beside an id (scanpy, nf-core/scrnaseq, cellxgene, Seurat converters).
SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "gene_names", "gene_name", "feature_name", "symbol", "symbols", "name")
ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "gene_versions", "feature_id")
TYPE_COLUMNS = ("feature_types", "feature_type")
_GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
# Where Cell Ranger (count, multi, 2.x) and STARsolo keep their matrices below the folder that users name.
FILTERED = (
    "filtered_feature_bc_matrix",
    "sample_filtered_feature_bc_matrix",
    "count/sample_filtered_feature_bc_matrix",
    "filtered_gene_bc_matrices/*",
    "filtered",
    "Gene/filtered",
)
RAW = (
    "raw_feature_bc_matrix",
    "count/raw_feature_bc_matrix",
    "multi/count/raw_feature_bc_matrix",
    "raw_gene_bc_matrices/*",
    "raw",
    "Gene/raw",
)
RAW_NAMES = ("raw_feature_bc_matrix", "raw_gene_bc_matrices", "raw_gene_bc_matrices_h5")


@dataclass(frozen=True)
class Source:
    """What a file holds: its format, its barcodes, and the slots that may hold counts, in order of preference."""

    format: str
    barcodes: list[str]
    candidates: list[Candidate]


def read(path: Path, raw: bool = False) -> Source:
    """Read any supported count file.

    Parameters
    ----------
    path
        file or folder; may be a symbolic link
    raw
        look for the unfiltered matrix in a Cell Ranger folder (for ambient correction)

    Raises
    ------
    InputError
        naming the file, what was found and what is expected.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if path.is_dir():
        return read_folder(path, raw)
    if h5py.is_hdf5(path):
        return _read_hdf5(path)
    name = _plain_name(path)
    if name.endswith((".h5", ".h5ad", ".hdf5")):
        raise InputError(f"{path.name} is not an HDF5 file (or is cut off); copy it again")
    if name.endswith(".mtx"):
        raise InputError(
            f"{path.name}: a matrix alone has no gene and cell names; give the folder that holds it together with "
            "features.tsv (or genes.tsv) and barcodes.tsv"
        )
    if name.endswith((".csv", ".tsv", ".txt", ".tab")):
        return read_table(path)
    raise InputError(f"{path.name} is of no known kind; expected {FORMATS}")


def _plain_name(path: Path) -> str:
    """Lower-case name without .gz."""
    name = path.name.lower()
    return name[:-3] if name.endswith(".gz") else name


def open_any(path: Path) -> AbstractContextManager[IO[bytes]]:
    """Open for reading bytes; compressed or not is told by the content, because names lie."""
    with path.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")


def _unpack(path: Path, work: Callable[[IO[bytes]], Any]) -> Any:
    try:
        with open_any(path) as stream:
            return work(stream)
    except _GZIP_ERRORS as error:
        raise InputError(f"{path.name}: the compressed file is cut off or damaged ({error}); copy it again") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: not text in UTF-8 ({error.reason} at byte {error.start})") from error


# --- 10x folder


def _find(folder: Path, *endings: str) -> dict[str, Path]:
    """Files of a folder with one of the endings (gzipped or not), by what stands before the ending."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = _plain_name(path)
        for ending in endings:
            if name.endswith(ending) and path.is_file() and not path.name.startswith("."):
                prefix = path.name[: len(name) - len(ending)]
                found.setdefault(prefix, path)
    return found


def locate(folder: Path, raw: bool) -> Path:
    """The folder or h5 file that holds the matrix: `folder` itself or its place below a Cell Ranger or STARsolo folder.

    Raises
    ------
    InputError
        when there is none, or only an unfiltered one.
    """
    if _find(folder, "matrix.mtx"):
        return folder
    for base in (folder, folder / "outs"):
        for pattern in RAW if raw else FILTERED:
            places = [place for place in sorted(base.glob(pattern)) if place.is_dir() and _find(place, "matrix.mtx")]
            if len(places) > 1:
                names = ", ".join(place.name for place in places)
                raise InputError(f"{folder.name} holds matrices of several genomes ({names}); give the folder of one")
            if places:
                return places[0]
        for name in (
            ("raw_feature_bc_matrix.h5", "raw_gene_bc_matrices_h5.h5")
            if raw
            else (
                "filtered_feature_bc_matrix.h5",
                "sample_filtered_feature_bc_matrix.h5",
                "count/sample_filtered_feature_bc_matrix.h5",
                "filtered_gene_bc_matrices_h5.h5",
            )
        ):
            if (base / name).is_file():
                return base / name
    here = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    if not raw and any((base / name).exists() for base in (folder, folder / "outs") for name in RAW_NAMES):
        raise InputError(f"{folder.name} holds only the unfiltered matrix; give filtered_feature_bc_matrix ({here} found)")
    raise InputError(f"{folder.name}: no count matrix found; expected {FORMATS}; the folder holds {here}")


def read_folder(folder: Path, raw: bool = False) -> Source:
    """Read a 10x folder of version 2 or 3, with or without prefixes before the file names, gzipped or not."""
    place = locate(folder, raw)
    if place.is_file():
        return _read_hdf5(place)
    where = folder.name if place == folder else f"{folder.name}/{place.relative_to(folder)}"
    matrices = _find(place, "matrix.mtx")
    if len(matrices) > 1:
        raise InputError(
            f"{where} holds {len(matrices)} matrices ({', '.join(p.name for p in list(matrices.values())[:4])}); "
            "give each sample a folder of its own"
        )
    (prefix, matrix_file), *_ = matrices.items()
    parts = {}
    for part, endings in (("barcodes.tsv", ("barcodes.tsv",)), ("features.tsv or genes.tsv", ("features.tsv", "genes.tsv"))):
        found = _find(place, *endings)
        if prefix not in found:
            raise InputError(f"{where}: {prefix}{part} (or .gz) is missing beside {matrix_file.name}")
        parts[part] = found[prefix]
    barcode_file, gene_file = parts.values()

    barcodes = [line.split("\t")[0].strip() for line in _lines(barcode_file)]
    genes = _features(gene_file)
    matrix = _unpack(matrix_file, lambda stream: _matrix_market(stream, matrix_file))
    if matrix.shape != (len(genes), len(barcodes)):
        turned = matrix.shape == (len(barcodes), len(genes))
        raise InputError(
            f"{where}: {matrix_file.name} is {matrix.shape[0]:,} x {matrix.shape[1]:,} but {gene_file.name} names "
            f"{len(genes):,} genes and {barcode_file.name} {len(barcodes):,} barcodes; expected genes x barcodes"
            + ("; the matrix is transposed: write it genes x cells" if turned else "; are the files from one run?")
        )
    version = "10x_mtx_v3" if "features.tsv" in gene_file.name else "10x_mtx_v2"
    return Source(version, barcodes, [Candidate(matrix_file.name, matrix.T.tocsr(), genes)])


def _lines(path: Path) -> list[str]:
    text = _unpack(path, lambda stream: stream.read().decode("utf-8"))
    return [line for line in text.splitlines() if line.strip()]


def _features(path: Path) -> pd.DataFrame:
    """features.tsv (id, symbol, type), genes.tsv (id, symbol) or a list of names."""
    rows = [line.split("\t") for line in _lines(path)]
    return pd.DataFrame(
        {
            "name": [row[1].strip() if len(row) > 1 and row[1].strip() else row[0].strip() for row in rows],
            "gene_id": [row[0].strip() if len(row) > 1 else "" for row in rows],
            "feature_type": [row[2].strip() if len(row) > 2 else GENE_EXPRESSION for row in rows],
        },
        dtype=object,
    )


def _matrix_market(stream: IO[bytes], path: Path) -> sparse.coo_matrix:
    # scipy reads through C++, where an error of a Python stream aborts the whole process: read it in Python beforehand
    text = BytesIO(stream.read())
    try:
        # spmatrix: the array class would change the meaning of `*` and of sums further on
        return scipy_io.mmread(text, spmatrix=True)
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{path.name}: not a complete Matrix Market file ({error}); it must start with %%MatrixMarket and hold as many "
            "lines as its header says; copy it again"
        ) from error


# --- HDF5


def _read_hdf5(path: Path) -> Source:
    try:
        with h5py.File(path, "r") as file:
            if "matrix" in file and "barcodes" in file["matrix"]:
                return _read_10x_v3(file, path)
            if "obs" in file and "var" in file:
                return _read_h5ad(file, path)
            genomes = sorted(name for name in file if isinstance(file[name], h5py.Group) and "gene_names" in file[name])
            if len(genomes) > 1:
                raise InputError(f"{path.name} holds several genomes ({', '.join(genomes)}); give the matrix of the human one")
            if genomes:
                return _read_10x_v2(file[genomes[0]], path)
            found = ", ".join(sorted(file)[:8])
            raise InputError(f"{path.name}: neither 10x h5 (group matrix) nor h5ad (obs, var); its groups are {found or 'none'}")
    except (OSError, KeyError) as error:
        raise InputError(f"{path.name}: the file cannot be read ({error}); copy it again") from error


def _text(dataset: h5py.Dataset) -> list[str]:
    return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in dataset[:]]


def _column_matrix(group: h5py.Group, path: Path, n_genes: int, n_barcodes: int) -> sparse.csr_matrix:
    """Cells x genes from the compressed columns (barcodes) of a 10x h5."""
    shape = tuple(int(n) for n in group["shape"][:])
    if shape != (n_genes, n_barcodes):
        raise InputError(
            f"{path.name}: the matrix is {shape[0]:,} x {shape[1]:,} but {n_genes:,} genes and {n_barcodes:,} barcodes are named"
        )
    parts = (group["data"][:], group["indices"][:], group["indptr"][:])
    return sparse.csr_matrix(parts, shape=(n_barcodes, n_genes))  # columns of genes x barcodes are rows of the turned matrix


def _read_10x_v3(file: h5py.File, path: Path) -> Source:
    group = file["matrix"]
    features = group["features"]
    barcodes = _text(group["barcodes"])
    genes = pd.DataFrame({"name": _text(features["name"]), "gene_id": _text(features["id"])}, dtype=object)
    genes["feature_type"] = _text(features["feature_type"]) if "feature_type" in features else GENE_EXPRESSION
    return Source("10x_h5_v3", barcodes, [Candidate("matrix", _column_matrix(group, path, len(genes), len(barcodes)), genes)])


def _read_10x_v2(group: h5py.Group, path: Path) -> Source:
    barcodes = _text(group["barcodes"])
    genes = pd.DataFrame({"name": _text(group["gene_names"]), "gene_id": _text(group["genes"])}, dtype=object)
    genes["feature_type"] = GENE_EXPRESSION
    slot = group.name.strip("/")
    return Source("10x_h5_v2", barcodes, [Candidate(slot, _column_matrix(group, path, len(genes), len(barcodes)), genes)])


def _read_h5ad(file: h5py.File, path: Path) -> Source:
    # element by element: a file with an unreadable `uns` or huge embeddings still has its counts
    from anndata.io import read_elem  # here: the other formats need no anndata

    obs = _frame(read_elem(file["obs"]))
    var = _frame(read_elem(file["var"]))
    candidates = []
    slots: list[tuple[str, str, pd.DataFrame]] = []
    if "layers" in file and keys.COUNTS in file["layers"]:
        slots.append((f"layers['{keys.COUNTS}']", f"layers/{keys.COUNTS}", var))
    if "raw" in file and "X" in file["raw"]:
        slots.append(("raw.X", "raw/X", _frame(read_elem(file["raw/var"]))))
    elif "raw.X" in file:  # anndata before 0.7
        slots.append(("raw.X", "raw.X", _frame(read_elem(file["raw.var"]))))
    if "X" in file and not (isinstance(file["X"], h5py.Dataset) and file["X"].shape in (None, ())):
        slots.append(("X", "X", var))
    for slot, place, frame in slots:
        matrix = read_elem(file[place])
        if matrix is None:
            continue
        if matrix.shape != (len(obs), len(frame)):
            raise InputError(
                f"{path.name}: {slot} is {matrix.shape[0]:,} x {matrix.shape[1]:,} but there are {len(obs):,} cells and "
                f"{len(frame):,} genes"
            )
        candidates.append(Candidate(slot, matrix, _h5ad_genes(frame)))
    if not candidates:
        raise InputError(f"{path.name} holds no matrix: neither layers['{keys.COUNTS}'] nor raw.X nor X")
    return Source("h5ad", [str(name) for name in obs.index], candidates)


def _frame(value: Any) -> pd.DataFrame:
    if isinstance(value, pd.DataFrame):
        return value
    table = pd.DataFrame(value)  # anndata before 0.7 wrote obs and var as one structured array
    table = table.map(lambda item: item.decode("utf-8") if isinstance(item, bytes) else item)
    return table.set_index(table.columns[0])


def _h5ad_genes(var: pd.DataFrame) -> pd.DataFrame:
    def first(columns: tuple[str, ...], default: str) -> list[str]:
        for column in columns:
            if column in var:
                return ["" if pd.isna(v) else str(v) for v in var[column].astype(object)]
        return [default] * len(var)

    return pd.DataFrame(
        {
            "name": [str(name) for name in var.index],
            "gene_id": first(ID_COLUMNS, ""),
            "symbol": first(SYMBOL_COLUMNS, ""),
            "feature_type": first(TYPE_COLUMNS, GENE_EXPRESSION),
        },
        dtype=object,
    )


# --- text table


def read_table(path: Path) -> Source:
    """Read a CSV or TSV with genes in rows and cells in columns; R's headers, one name short, are understood."""

    def head(stream: IO[bytes]) -> tuple[list[str], list[str], str]:
        first, second = (stream.readline().decode("utf-8-sig").rstrip("\r\n") for _ in range(2))
        delimiter = max("\t,;", key=first.count)
        fields = [next(csv.reader([line], delimiter=delimiter), []) for line in (first, second)]
        return fields[0], fields[1], delimiter

    header, row, delimiter = _unpack(path, head)
    if not header:
        raise InputError(f"{path.name} is empty; expected a table of genes x cells with a header")
    if row and len(row) not in (len(header), len(header) + 1):
        raise InputError(f"{path.name}: header of {len(header):,} fields, first row of {len(row):,}; expected genes x cells")
    barcodes = header if len(row) == len(header) + 1 else header[1:]
    if row and len(row) < 2:
        raise InputError(f"{path.name}: one column only; expected genes x cells, separated by tab, comma or semicolon")

    genes: list[str] = []
    blocks: list[sparse.csr_matrix] = []

    def body(stream: IO[bytes]) -> None:
        columns = range(len(barcodes) + 1)
        # fmt: off
        with pd.read_csv(
            stream, sep=delimiter, header=None, skiprows=1, names=list(columns), index_col=False, dtype={0: str},
            chunksize=TABLE_ROWS, keep_default_na=False, na_values=["NA", "NaN", ""], low_memory=False,
        ) as reader:
            # fmt: on
            for block in reader:
                names = block[0].fillna("").astype(str).tolist()
                values = block.drop(columns=0)
                for column in values.columns[[not pd.api.types.is_numeric_dtype(t) for t in values.dtypes]]:
                    odd = pd.to_numeric(values[column], errors="coerce").isna()
                    at = int(np.argmax(odd.to_numpy()))
                    raise InputError(
                        f"{path.name}: gene {names[at]!r}, cell {barcodes[column - 1]!r}: "
                        f"{values[column].iat[at]!r} is not a number"
                    )
                missing = values.isna()
                if missing.to_numpy().any():
                    at, column = (int(i[0]) for i in np.nonzero(missing.to_numpy()))
                    raise InputError(f"{path.name}: gene {names[at]!r}, cell {barcodes[column]!r} has no value")
                genes.extend(names)
                blocks.append(sparse.csr_matrix(values.to_numpy(dtype=np.float64)))

    if row:
        try:
            _unpack(path, body)
        except pd.errors.ParserError as error:
            raise InputError(f"{path.name}: not a regular table ({error}); a row needs {len(barcodes) + 1:,} fields") from error
    matrix = sparse.vstack(blocks).T.tocsr() if blocks else sparse.csr_matrix((len(barcodes), 0))
    frame = pd.DataFrame({"name": genes, "gene_id": "", "feature_type": GENE_EXPRESSION}, dtype=object)
    kind = "tsv" if delimiter == "\t" else "csv"
    return Source(kind, barcodes, [Candidate("table", matrix, frame)])
