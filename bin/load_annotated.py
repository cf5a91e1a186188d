#!/usr/bin/env python3
"""Read one annotated object in place of samples: the cohort that the later steps need, with its types taken as given.

    load_annotated.py --input cohort.h5ad --positions gene_positions.tsv.gz --markers markers.tsv --label_map label_map.tsv \\
        --sample_column sample --patient_column patient --phase_column phase --type_column main_type

Takes a cohort.h5ad of an earlier run or anybody's AnnData file. Writes merged.h5ad, annotation.parquet, clusters.parquet,
embedding.parquet, cohort.cells.parquet (all cells, for ASSEMBLE_COHORT), samplesheet.tsv (for CHECK_DESIGN), types.tsv,
marker_check.tsv and load_annotated.tsv. Everything that is wrong with the
object is reported at once.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from scresist import annotated, cli, contract, io, keys, matrices, provenance, readers, status

STEP = "load_annotated"
MIN_CELLS_GENE = 3  # as in MERGE_COHORT: a gene seen in fewer cells of the cohort carries no information
MIN_GENES = 2  # below, no gene can be told from another
# Spaces looked for, in this order: an integrated one before plain principal components; X_latent is what ASSEMBLE_COHORT writes.
EMBEDDINGS = ("X_scVI", "X_latent", "X_pca_harmony", "X_pca")
UMAP_KEY = "X_umap"
N_PCS = 30  # components computed where the object has no space, the default of INTEGRATE_COHORT
PARTS = ("spliced", "unspliced", "ambiguous")  # layers of RNA velocity: whole numbers, but a part of the counts each
MARKER_COLUMNS = (keys.MAIN_TYPE, keys.LINEAGE, keys.SUBTYPE, "gene")
MAP_COLUMNS = ("label", keys.LINEAGE, keys.MAIN_TYPE, keys.SUBTYPE)
POSITION_COLUMNS = ("symbol", "gene_id", "chromosome", "start", "end")
ALIAS_COLUMNS = ("alias", "symbol")
CHUNK = 1 << 22  # bytes read at once for the checksum


@dataclass
class Cells:
    """What the obs of the object says, one row per cell in the order of the file."""

    frame: pd.DataFrame  # sample, patient, phase, batch, main_type, subtype, lineage; index `<sample>:<barcode>`
    quality: pd.DataFrame
    clusters: pd.DataFrame
    sheet: pd.DataFrame
    later: list[str]  # columns of the tumour stage, which are computed again
    left_out: list[str]  # further columns, which no step reads
    lineage_from: str
    problems: list[str]


@dataclass
class Spaces:
    """The integrated space and the map of the object; None where it has none."""

    key: str
    latent: np.ndarray | None
    umap: np.ndarray | None
    found: list[str]  # names in obsm
    problems: list[str]


@dataclass
class Genes:
    """Counts by symbol, and where they came from."""

    counts: sparse.csr_matrix
    var: pd.DataFrame
    slot: str
    passed_over: list[str]
    n_in: int
    n_other: int
    share: float


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, type=Path, help="annotated AnnData file (.h5ad) with raw counts in some slot")
    add("--positions", required=True, type=Path, help="table symbol, gene_id, chromosome, start, end")
    add("--aliases", type=Path, help="table alias, symbol: places for renamed genes (names stay)")
    add("--markers", required=True, type=Path, help="marker table: lineages of types, genes of marker_check.tsv")
    add("--label_map", required=True, type=Path, help="table from model labels to lineage, main type, subtype")
    add("--sample_column", default=keys.SAMPLE, help="obs column with the sample of each cell (default sample)")
    add("--patient_column", default=keys.PATIENT, help="obs column with the patient (default patient)")
    add("--phase_column", default=keys.PHASE, help="obs column with the phase of therapy (default phase)")
    add("--type_column", default=keys.MAIN_TYPE, help="obs column with the main cell type (default main_type)")
    add("--embedding_key", default="", help=f"obsm key of the integrated space (default: the first of {', '.join(EMBEDDINGS)})")
    add("--n_hvg", type=cli.number(2, 10**6, int), default=2000, help="highly variable genes (default 2000)")
    add(
        "--min_known_gene_share",
        type=cli.number(0, 1),
        default=0.5,
        help="share of the counts that must lie on genes of the position table, 0 to 1 (default 0.5)",
    )
    add("--min_genes_matrix", type=cli.number(0, 10**7, int), default=5000, help="fewer genes give a warning (default 5000)")
    return parser.parse_args(argv)


def read_table(path: Path, needed: tuple[str, ...]) -> pd.DataFrame:
    """A bundled or given table as text, empty cells as empty text.

    Raises
    ------
    InputError
        when a column is missing.
    """
    table = io.read_tsv(path, dtype=str, na_values=[]).fillna("")
    missing = [name for name in needed if name not in table]
    if missing:
        raise io.InputError(f"{path.name} lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}")
    return table


def read_positions(positions: Path, aliases: Path | None) -> matrices.GeneTable:
    """The position table and, where given, the aliases.

    Raises
    ------
    InputError
        when a column is missing or a position is no number.
    """
    table = read_table(positions, POSITION_COLUMNS)
    try:
        # a gene known by name only has no place
        table = table.replace({"start": {"": "-1"}, "end": {"": "-1"}}).astype({"start": np.int64, "end": np.int64})
    except ValueError as error:
        raise io.InputError(f"{positions.name}: start and end must be whole numbers ({error})") from error
    return matrices.gene_table(table, read_table(aliases, ALIAS_COLUMNS) if aliases else None)


def read_obs(file: h5py.File, name: str) -> pd.DataFrame:
    """The obs frame; cells by the names of the object, columns by their names as text.

    Raises
    ------
    InputError
        when obs is not a frame, as before anndata 0.7.
    """
    from anndata.io import read_elem

    obs = read_elem(file["obs"])
    if not isinstance(obs, pd.DataFrame):
        raise io.InputError(f"{name}: obs is no data frame (anndata before 0.7); read the file with anndata and write it again")
    obs.index = obs.index.map(str)
    obs.columns = obs.columns.map(str)
    return obs


def read_cells(obs: pd.DataFrame, args: argparse.Namespace, known: dict[str, str]) -> Cells:
    """Everything taken from obs, with everything that is wrong with it.

    Parameters
    ----------
    known
        lineage of each type that the tables know (`annotated.lineage_words`).
    """
    named = {
        keys.SAMPLE: args.sample_column,
        keys.PATIENT: args.patient_column,
        keys.PHASE: args.phase_column,
        keys.MAIN_TYPE: args.type_column,
    }
    frame, problems = annotated.required(obs, named)
    if obs.empty:
        problems.append("the object holds no cell")
    for name in annotated.ID_FIELDS:
        if name in frame:
            problems += annotated.id_problems(frame[name], named[name])
    taken = set(named.values())
    own = {name: annotated.as_text(obs[name]) for name in (keys.SUBTYPE, keys.LINEAGE) if name in obs and name not in taken}
    if keys.MAIN_TYPE in frame:
        frame[keys.SUBTYPE] = annotated.subtypes(frame[keys.MAIN_TYPE], own.get(keys.SUBTYPE))
        frame[keys.LINEAGE], found = annotated.lineages(frame[keys.MAIN_TYPE], own.get(keys.LINEAGE), known)
        problems += found
    sheet = pd.DataFrame()
    identity = [keys.SAMPLE, keys.PATIENT, keys.PHASE]
    if set(identity) <= set(frame):
        whole = (frame[identity] != "").all(axis=1).to_numpy()
        sheet, found = annotated.sample_sheet(frame[whole], obs[whole], named, args.input.name)
        problems += found
    if keys.SAMPLE in frame:
        ids, found = annotated.cell_ids(list(obs.index), frame[keys.SAMPLE].tolist())
        problems += found
        frame.index = pd.Index(ids, dtype=object)
    rest = obs[[name for name in obs if name not in taken]]
    quality, odd = annotated.quality_columns(rest)
    clusters = annotated.cluster_columns(rest)
    later = annotated.later_columns(list(rest))
    read = {*own, *quality, *clusters, *later, *sheet, *annotated.CLUSTER_COLUMNS, keys.KEPT}
    left_out = sorted({*odd, *(name for name in rest if name not in read)})
    quality.index = clusters.index = frame.index
    return Cells(frame, quality, clusters, sheet, later, left_out, "obs" if keys.LINEAGE in own else "tables", problems)


def read_spaces(file: h5py.File, embedding_key: str, n_cells: int) -> Spaces:
    """The space that `embedding_key` names, else the first of EMBEDDINGS, and the map.

    Only what is used is read: objects hold many spaces.
    """
    from anndata.io import read_elem

    found = sorted(file["obsm"]) if "obsm" in file else []
    problems = []
    key = embedding_key or next((name for name in EMBEDDINGS if name in found), "")
    if key and key not in found:
        problems.append(f"obsm has no {key} (--embedding_key); it has {', '.join(found) or 'nothing'}")
        key = ""

    def values(name: str) -> np.ndarray | None:
        given = read_elem(file["obsm"][name])
        made = np.asarray(given.toarray() if sparse.issparse(given) else given)
        if made.ndim != 2 or len(made) != n_cells or not made.shape[1] or made.dtype.kind not in "fiu":
            shape = " x ".join(map(str, made.shape))
            problems.append(
                f"obsm['{name}'] is {shape} of type {made.dtype}; expected numbers, one row for each of {n_cells:,} cells"
            )
            return None
        return made.astype(np.float32)

    latent = values(key) if key else None
    if latent is not None and not np.isfinite(latent).all():
        n_odd = int((~np.isfinite(latent)).any(axis=1).sum())
        problems.append(f"obsm['{key}']: {n_odd:,} cells have missing or infinite coordinates; name another with --embedding_key")
    umap = values(UMAP_KEY) if UMAP_KEY in found else None
    if umap is not None and umap.shape[1] < 2:
        problems.append(f"obsm['{UMAP_KEY}'] has {umap.shape[1]} column, expected 2")
    if umap is not None and not np.isfinite(umap).any():
        umap = None  # an earlier run that was too small for a map
    return Spaces(key, latent, umap, found, problems)


def choose_counts(path: Path) -> tuple[matrices.Candidate, list[str]]:
    """The slot with counts: layers['counts'], raw.X, X, then any other layer; and why those before it do not hold counts.

    Raises
    ------
    InputError
        when the file is no h5ad, or no slot holds counts, with the range found in each.
    """
    from anndata.io import read_elem

    source = readers.read(path)
    if source.format != "h5ad":
        raise io.InputError(f"the file is {source.format}, which has no annotation; give an AnnData file (.h5ad)")
    candidates = list(source.candidates)
    if all(matrices.not_counts(candidate.matrix) for candidate in candidates):
        genes = next((candidate.genes for candidate in candidates if candidate.slot != "raw.X"), None)
        with h5py.File(path, "r") as file:
            names = sorted(file["layers"]) if genes is not None and "layers" in file else []
            for name in names:
                if name == keys.COUNTS or name in PARTS:
                    continue
                matrix = read_elem(file["layers"][name])
                if matrix.shape[1] == len(genes):
                    candidates.append(matrices.Candidate(f"layers['{name}']", matrix, genes))
    return matrices.choose_counts(candidates)


def read_genes(path: Path, table: matrices.GeneTable, least: float) -> Genes:
    """Counts with one column per symbol, sorted, and the place of each gene.

    Raises
    ------
    InputError
        when there are no counts, no feature is gene expression, or less than `least` of the counts lie on known genes.
    """
    chosen, passed_over = choose_counts(path)
    kinds = chosen.genes["feature_type"].replace("", matrices.GENE_EXPRESSION)
    keep = (kinds == matrices.GENE_EXPRESSION).to_numpy(dtype=bool)
    if not keep.any():
        found = ", ".join(sorted(set(kinds))) or "none"
        raise io.InputError(f"no feature is of type `{matrices.GENE_EXPRESSION}`, found {found}; give an object with RNA")
    counts = matrices.to_counts(chosen.matrix)[:, np.flatnonzero(keep)]
    genes = chosen.genes[keep].reset_index(drop=True)
    named = matrices.name_genes(genes, table)
    known = named["known"].to_numpy(dtype=bool)
    share = matrices.known_share(np.asarray(counts.sum(axis=0, dtype=np.int64)).ravel(), known)
    if share < least:
        unknown = genes["name"][~known].astype(str).tolist()
        hint = matrices.name_hint(unknown)
        raise io.InputError(
            f"only {share:.1%} of the counts lie on known human genes ({int(known.sum()):,} of {len(known):,} genes), needed "
            f"{least:.0%} (--min_known_gene_share); the first unknown names are {annotated.shown(unknown)}"
            + (f"; {hint}" if hint else "")
            + "; expected human gene symbols or Ensembl ids (ENSG...)"
        )
    summed, merged = matrices.sum_duplicates(counts, named)
    return Genes(summed, matrices.place_genes(merged, table), chosen.slot, passed_over, len(genes), int((~keep).sum()), share)


def read_object(args: argparse.Namespace) -> tuple[Cells, Spaces, Genes, str]:
    """Cells, spaces and genes of the object, and the scresist version that made it (empty for others).

    Raises
    ------
    InputError
        with every problem of the object and the obs columns that it has.
    """
    table = read_positions(args.positions, args.aliases)
    known = annotated.lineage_words(read_table(args.markers, MARKER_COLUMNS), read_table(args.label_map, MAP_COLUMNS))
    if not args.input.is_file() or not h5py.is_hdf5(args.input):
        raise io.InputError(f"{args.input.name} is not an HDF5 file, or is cut off; give an AnnData file (.h5ad)")
    try:
        with h5py.File(args.input, "r") as file:
            if not {"obs", "var"} <= set(file):
                groups = ", ".join(sorted(file)) or "none"
                raise io.InputError(f"{args.input.name} is no AnnData file: its groups are {groups}, expected obs and var")
            obs = read_obs(file, args.input.name)
            cells = read_cells(obs, args, known)
            spaces = read_spaces(file, args.embedding_key, len(obs))
            place = f"uns/{keys.UNS}/assemble_cohort/version"
            value = file[place][()] if place in file else b""
            made_by = value.decode() if isinstance(value, bytes) else ""
    except (OSError, KeyError) as error:
        raise io.InputError(f"{args.input.name}: the file cannot be read ({error}); copy it again") from error
    problems, genes = [*cells.problems, *spaces.problems], None
    try:
        genes = read_genes(args.input, table, args.min_known_gene_share)
    except io.InputError as error:
        problems.append(str(error))
    if problems or genes is None:
        listed = "\n  - ".join(problems)
        raise io.InputError(
            f"{args.input.name}: {len(problems)} problem{'s' * (len(problems) > 1)} with the annotated object; nothing was "
            f"computed:\n  - {listed}\nobs columns found: {', '.join(obs.columns) or 'none'}"
        )
    return cells, spaces, genes, made_by


def cohort_matrix(cells: Cells, genes: Genes, order: np.ndarray, n_hvg: int):
    """The cohort as MERGE_COHORT makes it: counts and logs of the genes seen in three cells or more, X normalised.

    Raises
    ------
    InputError
        when too few genes are left.
    """
    import anndata

    from scresist import normalise

    seen = np.flatnonzero(np.asarray((genes.counts > 0).sum(axis=0)).ravel() >= MIN_CELLS_GENE)
    if len(seen) < MIN_GENES:
        raise io.InputError(
            f"{len(seen)} of {len(genes.var):,} genes are found in {MIN_CELLS_GENE} cells or more, {MIN_GENES} needed"
        )
    counts = sparse.csr_matrix(genes.counts[order][:, seen], dtype=np.int32)
    counts.sort_indices()
    obs = cells.frame.iloc[order][list(keys.IDENTITY)].copy()
    for column in obs:
        obs[column] = pd.Categorical(obs[column], categories=sorted(obs[column].unique()))
    x = normalise.log1p_cp10k(counts)
    merged = anndata.AnnData(x, obs=obs, var=genes.var.iloc[seen].copy(), layers={keys.COUNTS: counts})
    if normalise.excluded_genes(merged.var_names).all():
        raise io.InputError(
            f"all {merged.n_vars} genes are mitochondrial, ribosomal, haemoglobin or immune-receptor variable genes: nothing is "
            "left to tell cell types by"
        )
    hvg = normalise.highly_variable(merged.X, merged.var_names, merged.obs[keys.SAMPLE], n_hvg)
    merged.var[keys.HIGHLY_VARIABLE] = hvg["highly_variable"].to_numpy()
    return merged


def marker_check(x: sparse.csr_matrix, genes: pd.Index, main_type: np.ndarray, wanted: list[str]) -> pd.DataFrame:
    """Percentage positive and mean log of each marker gene in each given type; columns as ANNOTATE_CELLS writes them."""
    from scresist import annotation

    found = annotation.cluster_expression(x, genes, main_type, wanted)
    rows = []
    for name in found.positive.index:
        for gene in found.positive.columns:
            rows.append((name, gene, 100 * found.positive.at[name, gene], found.mean.at[name, gene], int(found.n_cells[name])))
    return pd.DataFrame(rows, columns=[keys.MAIN_TYPE, "gene", "pct", "mean_log", "n_cells"])


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    made = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(CHUNK):
            made.update(block)
    return made.hexdigest()


def remarks(cells: Cells, spaces: Spaces, genes: Genes, n_genes: int, least_genes: int) -> list[str]:
    """What a reader must know of the object, one sentence each."""
    found = []
    if cells.later:
        found.append(f"columns of an earlier run are not read but computed again: {', '.join(cells.later)}")
    if genes.slot.startswith("layers[") and genes.slot != f"layers['{keys.COUNTS}']":
        found.append(f"counts were taken from {genes.slot}, the only slot with whole numbers: check that they are raw counts")
    if spaces.latent is None:
        found.append(
            f"obsm holds none of {', '.join(EMBEDDINGS)} (it has {', '.join(spaces.found) or 'nothing'}): principal components "
            "were computed in their place, which are not integrated; name your space with --embedding_key"
        )
    if spaces.umap is None:
        found.append(f"obsm has no {UMAP_KEY}: the report shows no map of all cells")
    if n_genes < least_genes:
        found.append(f"{n_genes:,} genes, fewer than {least_genes:,}: copy number and programs may be skipped")
    return found


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    seed = cli.unit_seed(args.seed, STEP, "cohort")
    cells, spaces, genes, made_by = read_object(args)

    batch = dict(zip(cells.sheet[keys.SAMPLE], cells.sheet.get(keys.BATCH, [""] * len(cells.sheet)), strict=True))
    cells.frame[keys.BATCH] = [batch[sample] or keys.NO_BATCH for sample in cells.frame[keys.SAMPLE]]
    # sorted by sample, then name: the order of cells in the object must not show in any output
    order = np.lexsort((cells.frame.index.to_numpy(dtype=str), cells.frame[keys.SAMPLE].to_numpy(dtype=str)))
    merged = cohort_matrix(cells, genes, order, args.n_hvg)
    frame, names = cells.frame.iloc[order], merged.obs_names.to_numpy(dtype=object)

    if spaces.latent is None:
        from scresist import integration

        latent = integration.pca(merged.X[:, np.flatnonzero(merged.var[keys.HIGHLY_VARIABLE])], N_PCS, seed)
    else:
        latent = spaces.latent[order]
    embedding = pd.DataFrame(latent, columns=annotated.latent_names(latent.shape[1]))
    embedding.insert(0, keys.CELL, names)
    umap = np.full((len(names), 2), np.nan, dtype=np.float32) if spaces.umap is None else spaces.umap[order][:, :2]
    clusters = pd.concat(
        [pd.DataFrame(umap, columns=list(keys.UMAP), index=frame.index), cells.clusters.iloc[order]], axis=1
    ).reset_index(drop=True)
    clusters.insert(0, keys.CELL, names)
    annotation = frame[[keys.MAIN_TYPE, keys.SUBTYPE, keys.LINEAGE]].reset_index(drop=True)
    annotation.insert(0, keys.CELL, names)
    base = pd.concat([frame[list(keys.IDENTITY)], cells.quality.iloc[order]], axis=1).reset_index(drop=True)
    base.insert(0, keys.CELL, names)
    base[keys.KEPT] = True

    reasons = remarks(cells, spaces, genes, merged.n_vars, args.min_genes_matrix)
    word = keys.WARNING if reasons else keys.OK
    types = frame.groupby([keys.SAMPLE, keys.MAIN_TYPE, keys.SUBTYPE]).size().rename("n_cells").reset_index()
    found = sorted(set(frame[keys.MAIN_TYPE]) - {keys.UNRESOLVED})
    n_unresolved = int((frame[keys.MAIN_TYPE] == keys.UNRESOLVED).sum())
    n_samples, n_patients = frame[keys.SAMPLE].nunique(), frame[keys.PATIENT].nunique()
    summary = {
        "file": args.input.name,
        "made_by": f"scresist {made_by}" if made_by else "",
        "slot": genes.slot,
        "slots_passed_over": "; ".join(genes.passed_over),
        "sample_column": args.sample_column,
        "patient_column": args.patient_column,
        "phase_column": args.phase_column,
        "type_column": args.type_column,
        "lineage_from": cells.lineage_from,
        "embedding": spaces.key,
        "n_latent": latent.shape[1],
        "umap": UMAP_KEY if spaces.umap is not None else "",
        "n_cells": merged.n_obs,
        "n_samples": n_samples,
        "n_patients": n_patients,
        "n_types": len(found),
        "n_unresolved": n_unresolved,
        "n_genes_in": genes.n_in,
        "n_features_other": genes.n_other,
        "n_genes_kept": merged.n_vars,
        "n_genes_placed": int((merged.var[keys.START] >= 0).sum()),
        "pct_counts_known": 100 * genes.share,
        "columns_recomputed": ", ".join(cells.later),
        "columns_left_out": ", ".join(cells.left_out),
        "status": word,
    }

    packages = ["anndata", "h5py", "numpy", "pandas", "scanpy", "scipy", *(["scikit-learn"] if spaces.latent is None else [])]
    tables = {path.name: digest(path) for path in (args.markers, args.label_map)}
    entry = provenance.record(
        STEP, "cohort", args, packages, unit_seed=seed, slot=genes.slot, embedding_used=spaces.key or "principal components",
        lineage_from=cells.lineage_from, files={args.input.name: digest(args.input)}, tables=tables,
    )  # fmt: skip
    contract.stamp(merged, STEP, entry)
    contract.check(merged, "merged.h5ad", normalised=True)
    wanted = read_table(args.markers, MARKER_COLUMNS)["gene"].tolist()
    check = marker_check(merged.X, merged.var_names, frame[keys.MAIN_TYPE].to_numpy(dtype=str), wanted)

    io.write_h5ad(merged, Path("merged.h5ad"))
    for name, table in (("annotation", annotation), ("clusters", clusters), ("embedding", embedding), ("cohort.cells", base)):
        io.write_fragment(table, Path(f"{name}.parquet"))
    for name, table in (("samplesheet", cells.sheet), ("types", types), ("marker_check", check), (STEP, pd.DataFrame([summary]))):
        io.write_tsv(table, Path(f"{name}.tsv"))
    row = status.StatusRow(
        step=STEP, unit_type="cohort", unit="cohort", status=word, reason="; ".join(reasons), n_cells=merged.n_obs,
        n_samples=n_samples, n_patients=n_patients,
        sentence=f"{status.SENTENCES[word]} The run began with the annotated object {args.input.name}: {merged.n_obs:,} cells of "
        f"{len(found)} cell types.",
    )  # fmt: skip
    status.write([row], STEP, "cohort")
    provenance.write(entry)
    return 0


if __name__ == "__main__":
    cli.run(main)
