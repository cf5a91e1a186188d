#!/usr/bin/env python3
"""Give each cell one main type and one subtype with the evidence of every source; unresolved where sources disagree.

Sources: the marker table, always; CellTypist models, by path, when given. A model is a pickle: only files that the user
names are opened. Writes annotation.parquet, annotation.tsv (per cluster), marker_check.tsv, types.tsv, models.tsv.

Example: annotate_cells.py --input merged.h5ad --clusters clusters.parquet --markers assets/markers.tsv
    --label_map assets/label_map.tsv --models Immune_All_High.pkl
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from scresist import cli, contract, io, keys, provenance, status

STEP = "annotate_cells"
OVER_CLUSTERS = f"{keys.LEIDEN_PREFIX}2.0"
BLOCK_CELLS = 10_000  # cells labelled at a time
NAMED_LABELS = 8  # unmapped labels named in the status; all of them stand in models.tsv
WARN_OVERLAP = 0.8  # below this share of a model's genes its labels are used, with a warning
MARKER_COLUMNS = ("main_type", "lineage", "doublet_group", "subtype", "gene", "role")
MAP_COLUMNS = ("model", "label", "lineage", "main_type", "subtype")
MODEL_COLUMNS = ("model", "sha256", "n_labels", "n_features", "n_shared", "share", "status", "labels_unmapped")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--clusters", required=True, type=Path, help=f"clusters.parquet with the column {OVER_CLUSTERS}")
    add("--markers", required=True, type=Path, help="marker table")
    add("--label_map", required=True, type=Path, help="table from model labels to lineage, main type, subtype")
    add("--models", nargs="*", default=[], type=Path, help="CellTypist models (.pkl); opening one can run code it holds")
    add("--min_prop", type=cli.number(0, 1), default=0.5, help="share of a cluster that a model's type needs (default 0.5)")
    add("--marker_pct", type=cli.number(0, 1), default=0.25, help="share of cells positive for a marker (default 0.25)")
    add("--veto_pct", type=cli.number(0, 1), default=0.10, help="least share positive for a required marker (default 0.10)")
    add("--margin", type=cli.number(0, 1), default=0.1, help="least lead over the second type (default 0.1)")
    add("--min_model_overlap", type=cli.number(0, 1), default=0.5, help="least share of a model's genes in the data (0.5)")
    return parser.parse_args(argv)


def read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A marker table or label map as text, empty cells as empty text.

    Raises
    ------
    InputError
        when a column is missing or the table has no row.
    """
    table = io.read_tsv(path, dtype=str).fillna("")
    missing = [name for name in columns if name not in table]
    if missing:
        raise io.InputError(f"{path.name} lacks the columns {', '.join(missing)}; found {', '.join(table)}")
    if table.empty:
        raise io.InputError(f"{path.name} has no row")
    return table


def check_tables(markers: pd.DataFrame, label_map: pd.DataFrame, names: tuple[str, str]) -> None:
    """Raise InputError naming every odd role, lineage or type of the two tables."""
    from scresist import annotation

    problems = []
    for row, entry in enumerate(markers.itertuples(), start=2):
        if entry.role not in ("marker", "required", "negative", "subtype"):
            problems.append(f"{names[0]} row {row}: role {entry.role!r}, expected marker, required, negative or subtype")
        if entry.lineage not in keys.LINEAGES:
            problems.append(f"{names[0]} row {row}: lineage {entry.lineage!r}, expected one of {', '.join(keys.LINEAGES)}")
    types = set(markers["main_type"]) | set(annotation.FAMILIES) | {""}
    for row, entry in enumerate(label_map.itertuples(), start=2):
        if entry.main_type not in types:
            problems.append(f"{names[1]} row {row}: main_type {entry.main_type!r} is not in {names[0]}")
    if problems:
        raise io.InputError("the annotation tables hold:\n  - " + "\n  - ".join(problems))


def load_model(path: Path):
    """A CellTypist model by its path; unpickling can run code, so only files that the user names come here.

    Raises
    ------
    InputError
        when there is no such file or it holds no model.
    """
    from celltypist.models import Model

    if not path.is_file():
        raise io.InputError(f"model {path.name}: no such file; give the path of a CellTypist model (.pkl), nothing is downloaded")
    try:
        model = Model.load(str(path.resolve()))
        features, labels = [str(gene) for gene in model.features], [str(label) for label in model.cell_types]
    except Exception as error:  # celltypist raises the bare class for whatever it cannot unpickle
        raise io.InputError(f"model {path.name} is not a CellTypist model ({' '.join(str(error).split())[:120]})") from error
    return model, features, labels


def predict(model, x: anndata.AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Label and confidence (probability of that label, in [0, 1]) of each cell.

    In blocks of cells, because CellTypist scales the model's genes as a dense matrix (5 GB for 90,000 cells); cells are labelled
    one by one, so that blocks change nothing.
    """
    import celltypist

    found = [
        celltypist.annotate(x[start : start + BLOCK_CELLS].copy(), model=model, majority_voting=False)
        for start in range(0, x.n_obs, BLOCK_CELLS)
    ]
    label = np.concatenate([block.predicted_labels["predicted_labels"].astype(str).to_numpy() for block in found])
    return label, np.concatenate([block.probability_matrix.max(axis=1).to_numpy(dtype=float) for block in found])


def run_model(
    path: Path, x: anndata.AnnData, over: np.ndarray, args: argparse.Namespace, label_map: pd.DataFrame
) -> tuple[pd.DataFrame | None, dict, str]:
    """Labels of one model: frame per cell (None when skipped), row of models.tsv, reason (empty when all is well)."""
    import warnings

    from scresist import annotation

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # import-time notices, and scikit-learn's on models made with an older version
        import celltypist

        celltypist.logger.logger.setLevel("ERROR")
        model, features, labels = load_model(path)
        n_shared, share = annotation.model_overlap(features, x.var_names)
        unmapped = sorted(set(labels) - set(label_map.loc[label_map["model"] == path.stem, "label"]))
        row = {
            "model": path.stem,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "n_labels": len(labels),
            "n_features": len(features),
            "n_shared": n_shared,
            "share": share,
            "status": keys.OK,
            "labels_unmapped": ", ".join(unmapped),
        }
        if not n_shared or share < args.min_model_overlap:
            row["status"] = keys.SKIPPED_FEW_GENES
            found = f"{n_shared} of {len(features)} genes of the model are in the data ({share:.0%})"
            return None, row, f"{path.stem} not used: {found}, {args.min_model_overlap:.0%} needed"
        label, confidence = predict(model, x)
    majority = annotation.majority(over, label, args.min_prop)
    table = pd.DataFrame({"label": label, "conf": confidence, "majority": majority}, index=x.obs_names)
    reasons = []
    if share < WARN_OVERLAP:
        row["status"] = keys.WARNING
        reasons.append(
            f"{path.stem}: {share:.0%} of the model's genes are in the data, below {WARN_OVERLAP:.0%} labels lose accuracy"
        )
    if unmapped:
        row["status"] = keys.WARNING
        listed = status.few(unmapped, NAMED_LABELS)
        reasons.append(f"{path.stem}: {len(unmapped)} of {len(labels)} labels are not in {args.label_map.name}: {listed}")
    return table, row, "; ".join(reasons)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)  # before celltypist is imported
    from scresist import annotation

    markers = read_table(args.markers, MARKER_COLUMNS)
    label_map = read_table(args.label_map, MAP_COLUMNS)
    check_tables(markers, label_map, (args.markers.name, args.label_map.name))
    merged = contract.check(anndata.read_h5ad(args.input), args.input.name, normalised=True)
    clusters = io.join_fragment(merged.obs_names, io.read_fragment(args.clusters, [OVER_CLUSTERS]), args.clusters.name)
    over = clusters[OVER_CLUSTERS].astype(str).to_numpy()

    x = anndata.AnnData(merged.X, obs=pd.DataFrame(index=merged.obs_names), var=pd.DataFrame(index=merged.var_names))
    votes, labelled, model_rows, reasons = {}, {}, [], []
    for path in sorted(args.models, key=lambda p: p.name):
        table, row, reason = run_model(path, x, over, args, label_map)
        model_rows.append(row)
        reasons += [reason] if reason else []
        if table is not None:
            labelled[path.stem] = table
            own = label_map.loc[label_map["model"] == path.stem, ["label", "lineage", "main_type", "subtype"]]
            votes[path.stem] = annotation.model_votes(over, table["label"].to_numpy(), table["conf"].to_numpy(), own)
    if not args.models:
        reasons.append("no CellTypist model given: types come from the marker table alone (--celltypist_models)")

    expression = annotation.cluster_expression(merged.X, merged.var_names, over, list(markers["gene"]))
    if expression.mean.shape[1] == 0:
        raise io.InputError(f"none of the {markers['gene'].nunique()} genes of {args.markers.name} is in merged.h5ad")
    decided = annotation.consensus(
        expression, markers, votes, marker_pct=args.marker_pct, veto_pct=args.veto_pct, margin=args.margin, min_prop=args.min_prop
    )

    columns = [
        keys.MAIN_TYPE, keys.SUBTYPE, keys.LINEAGE, keys.TYPE_STATUS, keys.ANNOTATION_CONFIDENCE,
        keys.MARKER_TYPE, keys.MARKER_SCORE,
    ]  # fmt: skip
    cells = decided.loc[over, columns].reset_index(drop=True)
    cells.insert(0, keys.CELL, merged.obs_names.to_numpy(dtype=str))
    for name, table in labelled.items():
        for column in ("label", "conf", "majority"):
            cells[f"{name}_{column}"] = table[column].to_numpy()
    io.write_fragment(cells, Path("annotation.parquet"))

    by_cluster = decided.reset_index()
    for name, table in labelled.items():
        first = table.groupby(over)["majority"].first()
        by_cluster[f"{name}_majority"] = by_cluster["cluster"].map(first)
    io.write_tsv(by_cluster.sort_values("cluster", key=lambda c: c.astype(int), ignore_index=True), Path("annotation.tsv"))

    main_type = cells[keys.MAIN_TYPE].to_numpy(dtype=str)
    by_type = annotation.cluster_expression(merged.X, merged.var_names, main_type, list(markers["gene"]))
    check = (
        by_type.positive.mul(100)
        .rename_axis(keys.MAIN_TYPE)
        .reset_index()
        .melt(keys.MAIN_TYPE, var_name="gene", value_name="pct")
    )
    means = by_type.mean.rename_axis(keys.MAIN_TYPE).reset_index().melt(keys.MAIN_TYPE, var_name="gene", value_name="mean_log")
    check = check.merge(means, on=[keys.MAIN_TYPE, "gene"])
    check["n_cells"] = check[keys.MAIN_TYPE].map(by_type.n_cells)
    io.write_tsv(check.sort_values([keys.MAIN_TYPE, "gene"], ignore_index=True), Path("marker_check.tsv"))

    cells[keys.SAMPLE] = merged.obs[keys.SAMPLE].astype(str).to_numpy()
    types = cells.groupby([keys.SAMPLE, keys.MAIN_TYPE, keys.SUBTYPE]).size().rename("n_cells").reset_index()
    io.write_tsv(types, Path("types.tsv"))
    io.write_tsv(pd.DataFrame(model_rows, columns=list(MODEL_COLUMNS)), Path("models.tsv"))

    n_unresolved = int((main_type == keys.UNRESOLVED).sum())
    found = sorted(set(main_type) - {keys.UNRESOLVED})
    word = keys.WARNING if reasons else keys.OK
    row = status.StatusRow(
        step=STEP, unit_type="cohort", unit="cohort", status=word, reason="; ".join(reasons), n_cells=merged.n_obs,
        n_samples=merged.obs[keys.SAMPLE].nunique(), n_patients=merged.obs[keys.PATIENT].nunique(),
        sentence=f"{status.SENTENCES[word]} {len(found)} main types; {n_unresolved} of {merged.n_obs} cells unresolved.",
    )  # fmt: skip
    status.write([row], STEP, "cohort")
    packages = ["anndata", "numpy", "pandas", "scipy", *(["celltypist", "scikit-learn"] if args.models else [])]
    digests = {row["model"]: row["sha256"] for row in model_rows}
    tables = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (args.markers, args.label_map)}
    provenance.write(provenance.record(STEP, "cohort", args, packages, models=digests, tables=tables))
    return 0


if __name__ == "__main__":
    cli.run(main)
