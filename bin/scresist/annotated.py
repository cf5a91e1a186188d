"""An object that somebody has annotated: which obs column means what, the lineage of each type, the samples behind the cells.

Problems are sentences for the person who has to mend the object; functions return them beside their result, so that the
caller can report all of them at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from scresist import columns, design, keys
from scresist.io import format_float

FIELDS = (keys.SAMPLE, keys.PATIENT, keys.PHASE, keys.MAIN_TYPE)  # what every cell must have
ID_FIELDS = (keys.SAMPLE, keys.PATIENT)
# What a samplesheet may say of a sample beside its identity; trait_* too.
SAMPLE_COLUMNS = (keys.BATCH, "response", "treated", "site", "chemistry")
CLUSTER_COLUMNS = (keys.CLUSTER, "leiden")  # the first one found becomes `cluster`
MISSING_WORDS = ("", "nan", "NaN", "None", "<NA>")  # what a missing value becomes when a column is turned into text
EARLY_STEPS = ("load_sample", "flag_cells", "detect_doublets", "filter_cells", "cluster_cohort", "annotate_cells")
# Columns of the tumour stage: computed again from the cells and types given, so those of an earlier run are not read.
LATER_COLUMNS = frozenset(
    {
        keys.CNV_SCORE_SUM, keys.CNV_SCORE_MEAN, keys.CNV_ROLE, keys.CNV_CORR, keys.MALIGNANT, keys.MALIGNANT_BASIS,
        keys.CNV_CLUSTER, keys.ARM_PROJECTION, keys.QUOTA_TOP10, keys.REFERENCE_CUT, keys.TUMOUR, keys.TUMOUR_BASIS,
        keys.CLONE, keys.EPI_CLUSTER, *keys.EPI_UMAP, keys.S_SCORE, keys.G2M_SCORE, keys.CYCLE_PHASE,
        keys.DIVIDING,
    }
)  # fmt: skip
NUMBERS = (*keys.QC_METRICS, keys.DOUBLET_SCORE, keys.CLUSTER_MEAN_SCORE)
TRUTHS = (*keys.QC_FLAGS, keys.DOUBLET_CALL, keys.CLUSTER_FLAG_SCORE, keys.CLUSTER_FLAG_LINEAGE, keys.DOUBLET)
TEXTS = (keys.OVER_CLUSTER, keys.LINEAGE_PAIR)
TRUTH_WORDS = {"yes": True, "true": True, "no": False, "false": False, "unknown": None, "": None}
SHOWN = 5  # names listed in a message


def shown(values: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(values)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def first(mask: pd.Series) -> str:
    """The first cell for which `mask` is true."""
    return str(mask.index[int(np.argmax(mask.to_numpy()))])


def as_text(series: pd.Series) -> pd.Series:
    """A column as text, missing values empty; 1.0 of a column of whole numbers is `1`, true and false are `yes` and `no`."""
    whole = pd.api.types.is_float_dtype(series.dtype) and bool((series.dropna() % 1 == 0).all())

    def word(value: object) -> str:
        if pd.isna(value):
            return ""
        if isinstance(value, bool | np.bool_):
            return "yes" if value else "no"
        if isinstance(value, float | np.floating):
            return str(int(value)) if whole else format_float(float(value))
        return " ".join(str(value).split())  # tabs and line breaks would break the tables that these words end in

    out = series.astype(object).map(word).astype(object)
    return out.where(~out.isin(MISSING_WORDS), "")


def required(obs: pd.DataFrame, named: Mapping[str, str]) -> tuple[pd.DataFrame, list[str]]:
    """Sample, patient, phase and main type of each cell as text.

    Parameters
    ----------
    obs
        indexed by the cell names of the object.
    named
        field (sample, patient, phase, main_type) -> obs column that holds it.

    Returns
    -------
    A frame with the fields that are there, and one problem per missing column or per column with empty cells.
    """
    found, problems = {}, []
    for field in FIELDS:
        column = named[field]
        option = "type" if field == keys.MAIN_TYPE else field
        if column not in obs:
            near = design.nearest(column, map(str, obs.columns))
            mend = f"name {near} with --{option}_column {near}" if near else f"add it, or name yours with --{option}_column"
            problems.append(f"obs has no column {column}, which holds the {field} of each cell: {mend}")
            continue
        values = as_text(obs[column])
        empty = values == ""
        if empty.any():
            mend = f"write {keys.UNRESOLVED} for them" if field == keys.MAIN_TYPE else "fill it, or leave these cells out"
            n = f"{int(empty.sum())} of {len(values)}"
            problems.append(f"obs column {column}: {n} cells have no {field}, the first is {first(empty)}; {mend}")
        found[field] = values
    frame = pd.DataFrame(found, index=obs.index)
    if keys.MAIN_TYPE in frame:
        types = frame[keys.MAIN_TYPE]
        frame[keys.MAIN_TYPE] = types.where(types.str.casefold() != keys.UNRESOLVED, keys.UNRESOLVED)
    return frame, problems


def id_problems(values: pd.Series, column: str) -> list[str]:
    """One problem when a column holds words that cannot be ids (they become names of files)."""
    odd = sorted(word for word in set(values) - {""} if not keys.ID_PATTERN.match(word))
    if not odd:
        return []
    clean = re.sub(r"^[^A-Za-z0-9]+", "", re.sub(r"[^A-Za-z0-9_.-]+", "_", odd[0]))
    mend = f"rename {odd[0]!r} to {clean} for example" if clean else "rename them"
    return [
        f"obs column {column}: {len(odd)} values cannot be ids ({shown(map(repr, odd))}); expected letters, digits, _ . - "
        f"starting with a letter or digit: {mend}"
    ]


def cell_ids(names: Sequence[str], samples: Sequence[str]) -> tuple[list[str], list[str]]:
    """`<sample>:<name>` for each cell, a name that carries the prefix keeps it; and the problems found."""
    ids = [name if name.startswith(f"{sample}:") else f"{sample}:{name}" for name, sample in zip(names, samples, strict=True)]
    problems = []
    empty = sum(cell == f"{sample}:" for cell, sample in zip(ids, samples, strict=True))
    if empty:
        problems.append(f"obs_names: {empty} cells have no name; give each cell its barcode")
    series = pd.Series(ids, dtype=object)
    twice = series[series.duplicated()].unique()
    if len(twice):
        problems.append(
            f"obs_names: {len(twice)} names occur twice within a sample ({shown(twice)}); make them unique, for example with "
            "adata.obs_names_make_unique()"
        )
    return ids, problems


def lineage_words(markers: pd.DataFrame, label_map: pd.DataFrame) -> dict[str, str]:
    """Type, subtype or model label (in lower case) -> lineage, from the marker table and the label map.

    A word that the tables place in two lineages is left out: it settles nothing.
    """
    seen: dict[str, set[str]] = {}
    for table, names in ((markers, (keys.MAIN_TYPE, keys.SUBTYPE)), (label_map, (keys.MAIN_TYPE, keys.SUBTYPE, "label"))):
        for name in names:
            for word, lineage in zip(table[name], table[keys.LINEAGE], strict=True):
                if word and lineage:
                    seen.setdefault(str(word).casefold(), set()).add(str(lineage))
    return {word: next(iter(found)) for word, found in seen.items() if len(found) == 1}


def lineages(main_type: pd.Series, given: pd.Series | None, known: Mapping[str, str]) -> tuple[pd.Series, list[str]]:
    """Lineage of each cell: as given, else that of its type in the tables; of an unresolved cell, `unresolved`.

    Parameters
    ----------
    main_type
        text, index cells.
    given
        obs column `lineage` as text, or None; empty where it says nothing.
    known
        result of `lineage_words`.

    Returns
    -------
    The lineages, and a problem for each type without a lineage, each word that is none, and each type with several.
    """
    problems = []
    own = pd.Series("", index=main_type.index, dtype=object) if given is None else given.str.casefold()
    allowed = (*keys.LINEAGES, keys.UNRESOLVED, "")
    odd = ~own.isin(allowed)
    if odd.any():
        words = shown(sorted(set(given[odd.to_numpy()])))
        problems.append(
            f"obs column lineage: {int(odd.sum())} cells with {words}, the first is {first(odd)}; expected "
            f"{', '.join(keys.LINEAGES)} or {keys.UNRESOLVED}"
        )
    typed = (main_type != keys.UNRESOLVED) & (main_type != "")
    derived = main_type.map(lambda word: known.get(word.casefold(), "")).where(typed, keys.UNRESOLVED)
    # a type that is named has a lineage: `unresolved` says nothing about it
    own = own.where(~(typed & (own == keys.UNRESOLVED)), "")
    out = own.where(own != "", derived)
    unknown = typed & (out == "")
    if unknown.any():
        counts = main_type[unknown].value_counts().sort_index()
        told = ", ".join(f"{name!r} ({n:,})" for name, n in counts.items())
        problems.append(
            f"the lineage of {design.plural(len(counts), 'type')} (cells in brackets) is in neither the marker table nor the "
            f"label map: {told}; {'add an' if given is None else 'fill the'} obs column lineage ({', '.join(keys.LINEAGES)})"
        )
    settled = typed & ~unknown & ~odd
    for name, mine in out[settled].groupby(main_type[settled].to_numpy(), sort=True):
        if mine.nunique() > 1:
            counts = ", ".join(f"{lineage} {n}" for lineage, n in mine.value_counts().sort_index().items())
            problems.append(f"type {name!r} has cells of several lineages ({counts}); give each type one lineage")
    return out, problems


def subtypes(main_type: pd.Series, given: pd.Series | None) -> pd.Series:
    """Subtype of each cell; the main type itself where none is given, as ANNOTATE_CELLS writes it."""
    return main_type.copy() if given is None else given.where(given != "", main_type)


def sample_sheet(cells: pd.DataFrame, obs: pd.DataFrame, named: Mapping[str, str], source: str) -> tuple[pd.DataFrame, list[str]]:
    """The samples behind the cells, as the launcher makes them from a samplesheet (lib/Samplesheet.groovy).

    Parameters
    ----------
    cells
        sample, patient and phase of each cell, as text without gaps.
    obs
        all obs columns, same rows; batch, response, treated, site, chemistry and trait_* are taken where they are there.
    named
        field -> obs column, for the messages.
    source
        name of the object, from which each sample gets a path of its own.

    Returns
    -------
    One row per sample, sorted: `_row` (six digits, from 2 as in a sheet with a header), then the other columns by name;
    all text. And a problem for each column of which a sample has several values.
    """
    wide = {keys.PATIENT: cells[keys.PATIENT], keys.PHASE: cells[keys.PHASE]}
    traits = sorted(str(name) for name in obs if str(name).startswith(design.TRAIT_PREFIX))
    taken = set(named.values())
    for column in (*SAMPLE_COLUMNS, *traits):
        if column in obs and column not in taken:
            wide[column] = as_text(obs[column])
    if "treated" in wide:
        wide["treated"] = wide["treated"].where(wide["treated"] != "unknown", "")
    if keys.BATCH in wide:
        wide[keys.BATCH] = wide[keys.BATCH].where(wide[keys.BATCH] != keys.NO_BATCH, "")
    problems = []
    sheet = pd.DataFrame({keys.SAMPLE: sorted(set(cells[keys.SAMPLE]))}, dtype=object)
    for column, values in wide.items():
        pairs = pd.DataFrame({keys.SAMPLE: cells[keys.SAMPLE].to_numpy(), "value": values.to_numpy()}).drop_duplicates()
        pairs = pairs[pairs["value"] != ""].sort_values([keys.SAMPLE, "value"])
        of_sample = pairs.groupby(keys.SAMPLE)["value"].agg(list)
        several = {sample: found for sample, found in of_sample.items() if len(found) > 1}
        if several:
            told = "; ".join(f"{sample}: {shown(found)}" for sample, found in list(several.items())[:SHOWN])
            optional = "" if column in (keys.PATIENT, keys.PHASE) else ", or rename the column if it does not describe samples"
            problems.append(
                f"obs column {named.get(column, column)}: {design.plural(len(several), 'sample')} with several values ({told}); "
                f"expected one value per sample{optional}"
            )
        mine = sheet[keys.SAMPLE].map(lambda sample, table=of_sample: (table.get(sample) or [""])[0])
        if column in (keys.PATIENT, keys.PHASE) or (mine != "").any():
            sheet[column] = mine
    if keys.BATCH in sheet:
        problems += id_problems(sheet[keys.BATCH], keys.BATCH)
    # a place of its own for each sample, which CHECK_DESIGN demands; the object is what was looked at and is there
    sheet["path"] = [f"{source}:{sample}" for sample in sheet[keys.SAMPLE]]
    sheet["_path_found"] = "file"
    sheet = sheet[sorted(sheet)]
    sheet.insert(0, "_row", [f"{at + 2:06d}" for at in range(len(sheet))])
    return sheet, problems


def quality_columns(obs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Metrics, flags and doublet columns that an earlier run left in obs, in the types of cells.parquet.

    Returns
    -------
    The columns that hold what their names promise, and the names of those that do not (an object of others may use
    `doublet` for words of its own).
    """
    found, odd = {}, []
    for name in (*keys.QC_METRICS, *keys.QC_FLAGS, *keys.DOUBLET_COLUMNS):
        if name not in obs:
            continue
        column = obs[name]
        if name in NUMBERS:
            if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
                found[name] = column
                continue
        elif name in TRUTHS:
            words = as_text(column).str.casefold()
            if words.isin(list(TRUTH_WORDS)).all():
                truth = pd.array([TRUTH_WORDS[word] for word in words], dtype="boolean")
                found[name] = pd.Series(truth, index=obs.index)
                if not found[name].isna().any():
                    found[name] = found[name].astype(bool)
                continue
        else:
            found[name] = as_text(column)
            continue
        odd.append(name)
    return pd.DataFrame(found, index=obs.index), odd


def cluster_columns(obs: pd.DataFrame) -> pd.DataFrame:
    """`leiden_<resolution>` columns as they are, and `cluster`: the column of that name, else `leiden`; text."""
    found = {}
    for name in map(str, obs.columns):
        if re.fullmatch(re.escape(keys.LEIDEN_PREFIX) + r"\d+(\.\d+)?", name):
            found[name] = as_text(obs[name])
    for name in CLUSTER_COLUMNS:
        if name in obs:
            found[keys.CLUSTER] = as_text(obs[name])
            break
    return pd.DataFrame(found, index=obs.index)


def later_columns(names: Iterable[str]) -> list[str]:
    """Those of the obs columns that steps after COHORT make; sorted."""
    later = []
    for name in names:
        told = columns.describe(name)
        if name in LATER_COLUMNS or name.startswith(keys.MODULE_PREFIX) or (told is not None and told.step not in EARLY_STEPS):
            later.append(name)
    return sorted(later)


def latent_names(n: int) -> list[str]:
    """`latent_1` to `latent_<n>`."""
    return [f"{keys.LATENT_PREFIX}{i + 1}" for i in range(n)]
