"""Joining per-cell fragments by cell id, and the conservative types that older readers and R can open."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from scresist import columns, keys
from scresist.io import InputError

UNKNOWN = "unknown"  # category of a yes/no or text value that no step gave


def gather(fragments: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Fragments of a step that ran once per patient become one: equal columns and no cell in common, one below the other.

    Parameters
    ----------
    fragments
        file name -> frame indexed by cell id.

    Returns
    -------
    The same mapping with such parts joined under the name of the first; others, also those that contradict each other (`join`
    refuses them by name), stay as they are.
    """
    families: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(fragments):
        families.setdefault(tuple(fragments[name].columns), []).append(name)
    out = {}
    for names in families.values():
        cells = np.concatenate([fragments[name].index.to_numpy(dtype=object) for name in names])
        if len(names) == 1 or len(set(cells)) < len(cells):
            out.update({name: fragments[name] for name in names})
            continue
        filled = [fragments[name] for name in names if len(fragments[name])] or [fragments[names[0]]]
        out[names[0]] = pd.concat(filled, axis=0).sort_index(kind="stable")
    return out


def join(base: pd.DataFrame, fragments: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Left join of fragments to `base` by cell id; the order of rows in a fragment means nothing.

    Parameters
    ----------
    base
        one row per cell, indexed by cell id.
    fragments
        file name -> frame indexed by cell id; cells may be absent (their values stay empty).

    Raises
    ------
    InputError
        naming every fragment with repeated or foreign ids, and every column that two files bring.
    """
    problems = _id_problems("cells", base.index, None)
    owner = dict.fromkeys(base.columns, "cells")
    for name, frame in fragments.items():
        problems += _id_problems(name, frame.index, base.index)
        for column in frame.columns:
            if column in owner:
                problems.append(f"{name}: column `{column}` stands in {owner[column]} too; one step must own it")
            owner.setdefault(column, name)
    if problems:
        raise InputError("fragments cannot be joined:\n  - " + "\n  - ".join(problems))
    parts = [base, *(_reindex(frame, base.index) for frame in fragments.values())]
    return pd.concat(parts, axis=1)


def _id_problems(name: str, index: pd.Index, known: pd.Index | None) -> list[str]:
    problems = []
    if index.has_duplicates:
        twice = index[index.duplicated()]
        problems.append(f"{name}: {twice.nunique()} cells occur more than once, the first is {twice[0]}")
    if known is not None:
        foreign = index[~index.isin(known)]
        if len(foreign):
            problems.append(
                f"{name}: {len(foreign)} of {len(index)} cells are unknown to the cohort, the first is {foreign[0]}; "
                "is the file from another run?"
            )
    return problems


def _reindex(frame: pd.DataFrame, index: pd.Index) -> pd.DataFrame:
    """Rows in the order of `index`; gaps keep whole numbers whole and truth values true or false."""
    if not index.isin(frame.index).all():
        frame = frame.copy()
        for name in frame.columns:
            if pd.api.types.is_bool_dtype(frame[name]):
                frame[name] = frame[name].astype("boolean")
            elif pd.api.types.is_integer_dtype(frame[name]):
                frame[name] = frame[name].astype("Int64")
    return frame.reindex(index)


def is_truth(series: pd.Series) -> bool:
    """Whether a column holds true/false values, gaps allowed (Parquet hands such columns back as objects)."""
    if pd.api.types.is_bool_dtype(series.dtype):
        return True
    if series.dtype != object:
        return False
    given = series.dropna()
    return bool(len(given)) and all(isinstance(value, bool | np.bool_) for value in given)


def conservative(series: pd.Series) -> pd.Series:
    """One obs column in a type that anndata 0.8 to 0.12 and R read alike.

    Truth values without gaps stay bool, with gaps they become the categories yes/no/unknown; text becomes categories
    without unused levels, in alphabetical order; whole numbers with gaps become floats. No nullable type is left.
    """
    if is_truth(series):
        if not series.isna().any():
            return series.astype(bool)
        words = series.map({True: "yes", False: "no"}).astype(object).where(series.notna(), UNKNOWN)
        return _categories(words)
    if pd.api.types.is_numeric_dtype(series.dtype):
        if pd.api.types.is_extension_array_dtype(series.dtype):
            return series.astype("float64" if series.isna().any() else "int64")
        return series
    text = series.astype(object)
    if text.isna().all() and len(text):
        text = pd.Series(UNKNOWN, index=series.index, dtype=object)  # categories without any level are not portable
    return _categories(text)


def _categories(text: pd.Series) -> pd.Series:
    levels = sorted({str(value) for value in text.dropna()})
    return pd.Series(
        pd.Categorical(text.map(str, na_action="ignore"), categories=np.array(levels, dtype=object)),
        index=text.index,
        name=text.name,
    )


def conservative_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """`conservative` for every column."""
    return pd.DataFrame({name: conservative(frame[name]) for name in frame.columns}, index=frame.index)


def plain_text(frame: pd.DataFrame) -> pd.DataFrame:
    """`conservative` for `var`, where text such as gene ids is nearly unique: it stays text, empty where missing."""
    out = {}
    for name in frame.columns:
        column = frame[name]
        if is_truth(column) or pd.api.types.is_numeric_dtype(column.dtype):
            out[name] = conservative(column)
        else:
            text = column.astype(object)
            out[name] = text.where(text.notna(), "").map(str).astype(object)
    return pd.DataFrame(out, index=frame.index)


def embedding(frame: pd.DataFrame, prefix: str = keys.LATENT_PREFIX) -> tuple[np.ndarray, list[str]]:
    """The columns `<prefix>1 .. <prefix>k` as an array (cells x k, float32) in numeric order, and their names."""
    names = sorted((c for c in frame.columns if c.startswith(prefix)), key=lambda c: int(c.removeprefix(prefix)))
    return frame[names].to_numpy(dtype=np.float32), names


def column_type(series: pd.Series) -> str:
    """The type of a column in words: truth, whole number, number or text."""
    if is_truth(series):
        return "true/false"
    if pd.api.types.is_integer_dtype(series.dtype):
        return "whole number"
    return "number" if pd.api.types.is_numeric_dtype(series.dtype) else "text"


def describe(frame: pd.DataFrame) -> pd.DataFrame:
    """The table columns.tsv: column, step, meaning, type, n_missing; one row per column of `frame`.

    Columns that the contract knows and this run did not make (a step was skipped) follow with type `absent`.

    Raises
    ------
    InputError
        naming every column without a meaning: a step has added it without a word in columns.py.
    """
    undescribed = [name for name in frame.columns if columns.describe(name) is None]
    if undescribed:
        raise InputError(f"columns without a meaning: {', '.join(undescribed)}; add them to scresist/columns.py")
    rows = []
    for name in frame.columns:
        known = columns.describe(name)
        rows.append((name, known.step, known.meaning, column_type(frame[name]), int(frame[name].isna().sum())))
    for name, known in columns.COLUMNS.items():
        if name not in frame.columns:
            rows.append((name, known.step, known.meaning, "absent", len(frame)))
    return pd.DataFrame(rows, columns=["column", "step", "meaning", "type", "n_missing"])


def status_arrays(status: pd.DataFrame) -> dict[str, np.ndarray]:
    """Status rows as plain text arrays for `uns`, which every reader of h5ad opens."""
    text = status.astype(object).where(status.notna(), "")
    return {name: text[name].map(str).to_numpy(dtype=object) for name in status.columns}


def portable(value: object) -> object:
    """`uns` entries without `None` (anndata before 0.11 cannot read it) and without nullable types."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return {str(key): portable(item) for key, item in value.items()}
    if isinstance(value, pd.DataFrame):
        return conservative_frame(value)
    return value
