"""Files: tables, fragments and h5ad, each written under a temporary name and renamed, each readable back unchanged."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scresist import keys

if TYPE_CHECKING:
    from anndata import AnnData

SIGNIFICANT_DIGITS = 6  # of every float in a table: what two machines can be asked to agree on


class InputError(Exception):
    """Input that cannot be used. The text names file, row or sample, what was found, what was expected, the mend."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary neighbour of `path`, then rename: a reader never meets half a file."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def format_float(value: float) -> str:
    """Six significant digits; empty for a missing value, whole numbers without a point."""
    if value is None or np.isnan(value):
        return ""
    if np.isinf(value):
        return "inf" if value > 0 else "-inf"
    return f"{value:.{SIGNIFICANT_DIGITS}g}"


def write_tsv(frame: pd.DataFrame, path: Path) -> None:
    """Write a tab-separated table: header, no index, six significant digits, missing = empty, booleans as true/false."""
    text = _tsv(frame)
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8", newline=""))


def write_tsv_gz(frame: pd.DataFrame, path: Path) -> None:
    """The same table compressed; without name and time in the gzip header, so that equal tables are equal bytes."""
    packed = gzip.compress(_tsv(frame).encode("utf-8"), compresslevel=6, mtime=0)
    write_atomically(path, lambda p: p.write_bytes(packed))


def _tsv(frame: pd.DataFrame) -> str:
    # column by column on plain lists: cell by cell through pandas took a third of the time of steps with a million values
    header = "\t".join(str(name) for name in frame.columns)
    columns = [_texts(frame.iloc[:, at]) for at in range(frame.shape[1])]
    rows = map("\t".join, zip(*columns, strict=True)) if columns else [""] * len(frame)
    return "\n".join([header, *rows, ""])


def _texts(column: pd.Series) -> list[str]:
    """The cells of a column as they stand in the file."""
    if pd.api.types.is_bool_dtype(column):
        return ["" if v is pd.NA else "true" if v else "false" for v in column.tolist()]
    if pd.api.types.is_float_dtype(column):
        made = list(map(f"{{:.{SIGNIFICANT_DIGITS}g}}".format, column.to_numpy(dtype=float, na_value=np.nan).tolist()))
        for at in np.flatnonzero(column.isna().to_numpy()):
            made[at] = ""
        return made
    if isinstance(column.dtype, pd.CategoricalDtype):
        names = [*_texts(pd.Series(column.cat.categories, dtype=object)), ""]  # the code -1 is a missing value
        return [names[code] for code in column.cat.codes.tolist()]
    # A tab or line break inside a cell (a user's own words) would shift every later column.
    known: dict[str, str] = {}
    made = []
    for value, missing in zip(column.tolist(), column.isna().tolist(), strict=True):
        if missing:
            made.append("")
        elif isinstance(value, str):
            text = known.get(value)
            if text is None:
                text = known[value] = " ".join(value.split())
            made.append(text)
        else:
            made.append(str(value))
    return made


def read_tsv(path: Path, **options: Any) -> pd.DataFrame:
    """Read a table written by `write_tsv`; ids such as `001` and `NA` stay text when their dtype is given as str."""
    options.setdefault("keep_default_na", False)
    options.setdefault("na_values", [""])
    options.setdefault("low_memory", False)  # else the types of a long column are guessed piece by piece
    return pd.read_csv(path, sep="\t", quoting=3, encoding="utf-8", **options)


def write_fragment(frame: pd.DataFrame, path: Path) -> None:
    """Write a per-cell fragment as Parquet, keyed by the column `cell`.

    Raises
    ------
    ValueError
        when the key is absent or a cell occurs twice.
    """
    if keys.CELL not in frame.columns:
        raise ValueError(f"{path}: a fragment needs the column `{keys.CELL}`")
    if frame[keys.CELL].duplicated().any():
        twice = frame.loc[frame[keys.CELL].duplicated(), keys.CELL].iloc[0]
        raise ValueError(f"{path}: cell {twice} occurs twice")
    frame = frame.reset_index(drop=True)
    write_atomically(path, lambda p: frame.to_parquet(p, index=False, engine="pyarrow", compression="zstd"))


def read_fragment(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a fragment; returns a frame indexed by cell."""
    frame = pd.read_parquet(path, engine="pyarrow", columns=None if columns is None else [keys.CELL, *columns])
    return frame.set_index(keys.CELL)


def join_fragment(index: pd.Index, fragment: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows of `fragment` (indexed by cell) in the order of `index`.

    Raises
    ------
    InputError
        when a cell of `index` is missing from the fragment, naming the first one and their number.
    """
    missing = index.difference(fragment.index)
    if len(missing):
        raise InputError(f"{name}: {len(missing)} of {len(index)} cells have no row, the first is {missing[0]}")
    return fragment.loc[index]


def read_latent(path: Path, cells: pd.Index) -> np.ndarray:
    """The integrated space (embedding.parquet) in the order of `cells`, cells x dimensions, float32; never another one.

    Raises
    ------
    InputError
        when the file holds other columns, lacks cells, or has coordinates that are missing or infinite.
    """
    fragment = read_fragment(path)
    names = [name for name in fragment if name.startswith(keys.LATENT_PREFIX)]
    if not names or list(fragment) != names:
        raise InputError(f"{path.name}: expected the columns {keys.LATENT_PREFIX}1, ..., found {', '.join(fragment)[:200]}")
    values = join_fragment(cells, fragment, path.name).to_numpy(dtype=np.float32)
    if not np.isfinite(values).all():
        n_odd = int((~np.isfinite(values)).any(axis=1).sum())
        raise InputError(f"{path.name}: {n_odd} of {len(values)} cells have coordinates that are missing or infinite")
    return values


def write_json(value: Any, path: Path) -> None:
    """Write JSON with sorted keys, so that equal values are equal bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, default=_plain) + "\n"
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return value.name
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def write_h5ad(adata: AnnData, path: Path, compression: str | None = "lzf") -> None:
    """Write an AnnData object (lzf: fast and readable everywhere)."""
    write_atomically(path, lambda p: adata.write_h5ad(p, compression=compression))
