#!/usr/bin/env python3
"""States of T and NK cells (exhaustion, cytotoxic, naive, regulatory) per cell, sample and phase, compared between patients.

Writes tcells.parquet, tcell_values.tsv and tcell_tests.tsv.

Example: score_tcells.py --input merged.h5ad --annotation annotation.parquet --samples samples.tsv --phases phases.tsv
--contrasts contrasts.tsv --states tcell_states.tsv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from scresist import cli, comparison, composition, contract, io, keys, panels, provenance, status, tcells

STEP = "score_tcells"
LEVEL = 0.05  # adjusted p counted in the summary


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--annotation", required=True, type=Path, help="annotation.parquet of ANNOTATE_CELLS")
    add("--samples", required=True, type=Path, help="samples.tsv of CHECK_DESIGN")
    add("--phases", required=True, type=Path, help="phases.tsv of CHECK_DESIGN")
    add("--contrasts", required=True, type=Path, help="contrasts.tsv of CHECK_DESIGN")
    add("--states", required=True, type=Path, help="tcell_states.tsv: state, gene, source")
    add("--types", default="", help="main types to score, comma-separated (default: immune types named T or NK cells)")
    add("--min_cells", type=cli.number(1, 10**6, int), default=10, help="cells of a type that a sample needs (default 10)")
    return parser.parse_args(argv)


def read_cells(
    args: argparse.Namespace, asked: list[str]
) -> tuple[anndata.AnnData, dict[str, np.ndarray], pd.DataFrame, int]:  # fmt: skip
    """The T and NK cells sorted by name, the types among them, samples.tsv cut to the cohort's samples, and all its cells."""
    backed = anndata.read_h5ad(args.input, backed="r")
    absent = [name for name in keys.IDENTITY if name not in backed.obs]
    if absent:
        raise io.InputError(f"{args.input.name}: obs has no column {', '.join(absent)}; give merged.h5ad of this run")
    fragment = io.read_fragment(args.annotation, [keys.MAIN_TYPE, keys.LINEAGE])
    labels = io.join_fragment(backed.obs_names, fragment, args.annotation.name).astype(object)
    labels = labels.where(labels.notna(), "").astype(str)
    masks = tcells.types_of(labels[keys.MAIN_TYPE].to_numpy(), labels[keys.LINEAGE].to_numpy(), asked)
    unknown = sorted(set(asked) - set(labels[keys.MAIN_TYPE]))
    if unknown:
        known = status.few(sorted(set(labels[keys.MAIN_TYPE]) - {""}))
        raise io.InputError(f"--types: {', '.join(unknown)} is no main type of this cohort; its types are {known}")
    here = set(backed.obs[keys.SAMPLE].astype(str))
    samples = io.read_tsv(args.samples, dtype=str).fillna("")
    missing = sorted(here - set(samples[keys.SAMPLE]))
    if missing:
        raise io.InputError(f"{args.samples.name}: no row for the samples {status.few(missing)}; give the table of this run")
    samples = samples[samples[keys.SAMPLE].isin(here)].sort_values(keys.SAMPLE, kind="stable", ignore_index=True)
    chosen = np.any(list(masks.values()), axis=0) if masks else np.zeros(backed.n_obs, dtype=bool)
    rows = np.flatnonzero(chosen)
    n_cells = backed.n_obs
    # a file is read fastest in its own order; cells are sorted afterwards
    part = contract.check(backed[rows].to_memory(), args.input.name, normalised=len(rows) > 0)
    backed.file.close()
    order = np.argsort(part.obs_names.to_numpy(dtype=str), kind="stable")
    return part[order].copy(), {name: mask[rows][order] for name, mask in masks.items()}, samples, n_cells


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    states = tcells.check_states(io.read_tsv(args.states, dtype=str), args.states.name)
    asked = [part.strip() for part in args.types.split(",") if part.strip()]
    cells, masks, samples, n_cells = read_cells(args, asked)
    phases = io.read_tsv(args.phases, dtype={"phase": str}).sort_values("order", kind="stable")
    contrasts = comparison.contrasts(io.read_tsv(args.contrasts, dtype=str))
    contrasts += [c for c in composition.response_contrasts(samples, phases) if c.name not in {k.name for k in contrasts}]

    seeds = {state: cli.unit_seed(args.seed, STEP, state) for state in states}
    scores, basis = tcells.score_cells(sparse.csr_matrix(cells.X), list(cells.var_names), states, seeds)
    n_genes = {state + tcells.SUFFIX: int(n) for state, n in basis["n_genes"].items()}
    sample = cells.obs[keys.SAMPLE].astype(str).to_numpy()
    values = tcells.value_rows(scores, masks, sample, samples, n_genes, args.min_cells)
    tests = tcells.test_rows(values, contrasts, samples, phases["phase"].tolist())

    fragment = scores.astype(np.float32)
    fragment.insert(0, keys.CELL, cells.obs_names.to_numpy(dtype=object))
    io.write_fragment(fragment, Path("tcells.parquet"))
    io.write_tsv(values, Path("tcell_values.tsv"))
    io.write_tsv(tests, Path("tcell_tests.tsv"))
    status.write([describe(args, cells, masks, samples, n_cells, basis, values, tests)], STEP, "cohort")
    seed = cli.unit_seed(args.seed, STEP, "cohort")
    provenance.write(provenance.record(STEP, "cohort", args, ["anndata", "numpy", "pandas", "scipy"], unit_seed=seed))
    return 0


def describe(
    args: argparse.Namespace,
    cells: anndata.AnnData,
    masks: dict[str, np.ndarray],
    samples: pd.DataFrame,
    n_cells: int,
    basis: pd.DataFrame,
    values: pd.DataFrame,
    tests: pd.DataFrame,
) -> status.StatusRow:
    """The status row of the cohort."""
    notes = []
    absent = sorted({gene for text in basis["absent"] for gene in text.split(",") if gene})
    scored = basis.index[basis["method"] != "none"].tolist()
    measured = values[values["mean"].notna()]
    if not cells.n_obs:
        word = keys.SKIPPED_TOO_FEW_CELLS if n_cells else keys.SKIPPED_NO_INPUT
        notes = [f"0 T or NK cells among {n_cells} cells, {args.min_cells} needed in a sample"]
    elif not scored:
        word = keys.SKIPPED_FEW_GENES
        notes = [f"no state has {tcells.MIN_SET} measured genes; not measured: {status.few(absent)}"]
    elif measured.empty:
        word = keys.SKIPPED_TOO_FEW_CELLS
        most = int(values["n_cells"].max())
        notes = [f"at most {most} T or NK cells of a type in a sample, {args.min_cells} needed"]
    else:
        if absent:
            notes.append(f"not measured: {status.few(absent)}")
        empty = sorted(set(basis.index) - set(scored))
        if empty:
            notes.append(f"no score (fewer than {tcells.MIN_SET} genes): {status.few(empty)}")
        if (basis["method"] == "mean").any():
            notes.append(
                f"{cells.n_vars} genes, {panels.MIN_GENES_SCORE} needed for control genes: scores are plain means"
            )  # fmt: skip
        word = keys.WARNING if notes else keys.OK
    sentence = status.SENTENCES[word]
    if word in (keys.OK, keys.WARNING):
        between = tests[tests["p_value"].notna() & (tests["test"] != "dunn")]
        n_low = int((between["p_adjusted"] < LEVEL).sum())
        sentence += (
            f" {len(scored)} states scored in {cells.n_obs} T and NK cells ({', '.join(masks)}) of"
            f" {measured[keys.SAMPLE].nunique()} samples; {n_low} of {len(between)} tests between patients have an adjusted p"
            f" below {LEVEL:g}."
        )
    return status.StatusRow(
        STEP, "cohort", "cohort", word, "; ".join(notes), n_cells=cells.n_obs, n_samples=len(samples),
        n_patients=samples[keys.PATIENT].nunique(), sentence=sentence,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
