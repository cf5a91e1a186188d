#!/usr/bin/env python3
"""Named genes and gene sets over the phases of therapy: values per sample and cell type, tests, trends, copy number per clone.

Writes panel_values.tsv, panel_tests.tsv, panel_trend.tsv and panel_clones.tsv.

Example: track_panels.py --input merged.h5ad --annotation annotation.parquet --tumour P1.malignant.parquet
--clones P1.clones.parquet --clone_tables P1.clones.tsv --panels panels.tsv --contrasts contrasts.tsv --samples samples.tsv
--phases phases.tsv
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from scresist import cli, comparison, contract, io, keys, panels, provenance, status

STEP = "track_panels"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--annotation", required=True, type=Path, help="annotation.parquet of ANNOTATE_CELLS")
    add("--tumour", nargs="*", default=[], type=Path, help="<patient>.malignant.parquet of CALL_MALIGNANT, any number")
    add("--clones", nargs="*", default=[], type=Path, help="<patient>.clones.parquet of TRACE_CLONES, any number")
    add("--clone_tables", nargs="*", default=[], type=Path, help="<patient>.clones.tsv of TRACE_CLONES, any number")
    add("--panels", required=True, type=Path, help="panels.tsv: panel, gene, compartment and more")
    add("--contrasts", required=True, type=Path, help="contrasts.tsv of CHECK_DESIGN")
    add("--samples", required=True, type=Path, help="samples.tsv of CHECK_DESIGN")
    add("--phases", required=True, type=Path, help="phases.tsv of CHECK_DESIGN")
    add("--min_cells", type=cli.number(1, 10**6, int), default=20, help="cells of a type that a sample needs (default 20)")
    add("--n_draws", type=cli.number(0, 10**5, int), default=100, help="draws of equal cell numbers per phase (default 100)")
    add("--locus_cut", type=cli.number(0, 10), default=0.1, help="log2 ratio from which a locus is gained or lost (default 0.1)")
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Tracked:
    """One gene or set in one cell type: its value per sample, and per cell where there is one."""

    panel: str
    gene: str
    cell_type: str
    values: dict[str, np.ndarray]  # pct, mean, cp10k by sample, NaN where there are too few cells
    per_cell: np.ndarray | None  # of all cells of the cohort; None for a gene that was not measured
    expected: str = ""

    @property
    def measures(self) -> tuple[str, ...]:
        return ("mean",) if self.gene in (panels.SET_SCORE, panels.SET_MEAN) else ("pct", "mean")


def joined(paths: list[Path], columns: list[str], cells: pd.Index) -> pd.DataFrame:
    """Fragments of several patients, one below the other, indexed by cell; every cell known and there once."""
    frames = [io.read_fragment(path, columns) for path in sorted(paths, key=lambda p: p.name)]
    if not frames:
        return pd.DataFrame(columns=columns, index=pd.Index([], dtype=str))
    frame = pd.concat(frames)
    problems = []
    if frame.index.duplicated().any():
        problems.append(f"cell {frame.index[frame.index.duplicated()][0]} stands in two files; give each patient once")
    strange = frame.index.difference(cells)
    if len(strange):
        problems.append(f"{len(strange)} cells are not in the merged cohort, the first is {strange[0]}; give files of this run")
    if problems:
        raise io.InputError(f"{', '.join(sorted(p.name for p in paths))[:300]}:\n  - " + "\n  - ".join(problems))
    return frame


def design(args: argparse.Namespace, obs: pd.DataFrame) -> tuple[pd.DataFrame, list[str], dict[str, float]]:
    """samples.tsv, the phases in order, and the time of those that have one; checked against the cells."""
    samples = io.read_tsv(args.samples, dtype=str)
    phases = io.read_tsv(args.phases, dtype={"phase": str})
    problems = []
    unknown = sorted(set(obs[keys.SAMPLE].astype(str)) - set(samples[keys.SAMPLE]))
    if unknown:
        problems.append(f"{args.samples.name}: no row for {', '.join(unknown)[:200]}; give the table of this run")
    strange = sorted(set(samples[keys.PHASE]) - set(phases["phase"]))
    if strange:
        problems.append(f"{args.phases.name}: no row for phase {', '.join(strange)[:200]}; give the table of this run")
    if problems:
        raise io.InputError("\n  - ".join(["design and cells differ:", *problems]))
    phases = phases.sort_values("order", kind="stable")
    times = {p: float(t) for p, t in zip(phases["phase"], phases["time"], strict=True) if pd.notna(t)}
    here = set(obs[keys.SAMPLE].astype(str))
    return samples[samples[keys.SAMPLE].isin(here)].reset_index(drop=True), phases["phase"].tolist(), times


def measured(
    merged: anndata.AnnData, table: pd.DataFrame, masks: dict[str, np.ndarray], names: list[str], min_cells: int, seed: int
) -> tuple[list[Tracked], dict[str, np.ndarray], bool]:
    """Every gene and set in every cell type of its compartment; cells per type and sample; whether sets could be scored."""
    wanted = panels.plan(table, masks)
    here = [gene for gene in sorted(set(table["gene"])) if gene in merged.var_names]
    at = {gene: i for i, gene in enumerate(here)}
    columns = merged.var_names.get_indexer(here)
    x = sparse.csc_matrix(merged.X[:, columns])
    counts = sparse.csc_matrix(merged.layers[keys.COUNTS][:, columns])
    totals = np.asarray(merged.layers[keys.COUNTS].sum(axis=1, dtype=np.float64)).ravel()
    samples = merged.obs[keys.SAMPLE].astype(str).to_numpy()
    used = list(dict.fromkeys(name for _, _, name in wanted))
    found = {name: panels.sample_values(x, counts, totals, samples, names, masks[name]) for name in used}
    cells = {name: found[name].pop("n_cells") for name in used}
    nothing = {measure: np.full(len(names), np.nan) for measure in ("pct", "mean", "cp10k")}

    def per_sample(cell_type: str, column: int) -> dict[str, np.ndarray]:
        enough = cells[cell_type] >= min_cells
        return {measure: np.where(enough, found[cell_type][measure][:, column], np.nan) for measure in nothing}

    expected = {(row["panel"], row["gene"]): row["expected_direction"] for row in table.to_dict("records")}
    dense = {gene: x[:, at[gene]].toarray().ravel().astype(np.float64) for gene in here}
    made = [
        Tracked(panel, gene, name, per_sample(name, at[gene]) if gene in at else nothing, dense.get(gene), expected[panel, gene])
        for panel, gene, name in wanted
    ]
    scored = merged.n_vars >= panels.MIN_GENES_SCORE
    sets: dict[tuple[str, str], list[str]] = {}
    for panel, gene, name in wanted:
        if gene in at:
            sets.setdefault((panel, name), []).append(gene)
    cache: dict[tuple[str, ...], np.ndarray] = {}
    for (panel, name), genes in sets.items():
        if len(genes) < panels.MIN_SET:
            continue
        kinds = [panels.SET_MEAN, *([panels.SET_SCORE] if scored else [])]
        for kind in kinds:
            key = (panel, kind, *genes)
            if key not in cache:
                own = cli.unit_seed(seed, STEP, "/".join(key))
                cache[key] = (
                    panels.score_genes(merged.X, merged.var_names, genes, own)
                    if kind == panels.SET_SCORE
                    else np.mean([dense[gene] for gene in genes], axis=0)
                )
            values = cache[key]
            mean = np.full(len(names), np.nan)
            for i, sample in enumerate(names):
                rows = masks[name] & (samples == sample)
                if cells[name][i] >= min_cells:
                    mean[i] = values[rows].mean()
            made.append(Tracked(panel, kind, name, {**nothing, "mean": mean}, values))
    return made, cells, scored


def value_rows(tracked: list[Tracked], cells: dict[str, np.ndarray], samples: pd.DataFrame, min_cells: int) -> pd.DataFrame:
    """panel_values.tsv."""
    rows: list[dict[str, Any]] = []
    for one in tracked:
        for i, record in enumerate(samples.to_dict("records")):
            n = int(cells[one.cell_type][i])
            word, reason = keys.OK, ""
            if one.per_cell is None:
                word, reason = keys.NOT_ESTIMABLE, panels.GENE_ABSENT
            elif n < min_cells:
                word, reason = keys.SKIPPED_TOO_FEW_CELLS, f"{n} cells, {min_cells} needed"
            rows.append(
                {
                    "panel": one.panel, "gene": one.gene, "cell_type": one.cell_type, keys.SAMPLE: record[keys.SAMPLE],
                    keys.PATIENT: record[keys.PATIENT], keys.PHASE: record[keys.PHASE], "n_cells": n,
                    "pct": one.values["pct"][i], "mean": one.values["mean"][i], "cp10k": one.values["cp10k"][i],
                    "status": word, "reason": reason,
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(panels.VALUE_COLUMNS))


def contrast_row(
    values: pd.Series, cells: pd.Series, contrast: comparison.Contrast, patient_of: dict[str, str]
) -> dict[str, Any]:
    """One contrast between patients, with the reason where there is no p."""
    row = comparison.compare(values, cells, contrast, patient_of)
    n_a, n_b = row["n_patients_a"], row["n_patients_b"]
    found, row["reason"] = f"{n_a} against {n_b} patients with values", ""
    if row["status"] == keys.NO_REPLICATES:
        row["reason"] = contrast.reason if not contrast.testable and contrast.reason else f"{found}, 2 a side needed"
    elif row["status"] == keys.NOT_ESTIMABLE:
        row["reason"] = "all values are equal" if min(n_a, n_b) else f"{found}, 1 a side needed"
    return row


def tested(
    tracked: list[Tracked],
    cells: dict[str, np.ndarray],
    masks: dict[str, np.ndarray],
    cell_sample: np.ndarray,
    samples: pd.DataFrame,
    phases: list[str],
    contrasts: list[comparison.Contrast],
    args: argparse.Namespace,
) -> pd.DataFrame:
    """panel_tests.tsv: contrasts and all phases between patients, then all phases over cells."""
    names = samples[keys.SAMPLE].tolist()
    patient_of = dict(zip(names, samples[keys.PATIENT], strict=True))
    phase_of = dict(zip(names, samples[keys.PHASE], strict=True))
    of_type: dict[str, tuple[np.ndarray, np.ndarray, list[str], np.ndarray]] = {}
    for name, n in cells.items():
        enough = [s for s, k in zip(names, n, strict=True) if k >= args.min_cells]
        here = [phase for phase in phases if phase in {phase_of[s] for s in enough}]
        rows = np.flatnonzero(masks[name] & np.isin(cell_sample, enough))
        group = np.array([here.index(phase_of[s]) for s in cell_sample[rows]], dtype=int)
        seed = cli.unit_seed(args.seed, STEP, name)
        draws = panels.equal_draws(group, len(here), args.n_draws, seed) if len(here) > 1 else np.empty((0, 0), dtype=int)
        of_type[name] = rows, group, here, draws
    scored = {(t.panel, t.cell_type) for t in tracked if t.gene == panels.SET_SCORE}
    made = []
    for one in tracked:
        if one.gene == panels.SET_MEAN and (one.panel, one.cell_type) in scored:
            continue  # one test per set
        found: list[tuple[str, dict[str, Any]]] = []
        size = pd.Series(cells[one.cell_type], index=names)
        for measure in one.measures:
            values = pd.Series(one.values[measure], index=names)
            for contrast in contrasts:
                found.append((measure, contrast_row(values, size, contrast, patient_of)))
            by_phase = panels.patient_phase_values(values, size, samples, phases)
            found += [(measure, row) for row in panels.patient_kruskal(by_phase)]
        rows, group, here, draws = of_type[one.cell_type]
        if one.per_cell is None or len(here) < 2:
            row = panels.blank(panels.ALL_PHASES, comparison.UNIT_CELL, "kruskal_wallis")
            row.update(evidence=keys.CELL_LEVEL, status=keys.NOT_ESTIMABLE)
            row["reason"] = f"{len(here)} of 2 phases have a sample with {args.min_cells} cells"
            found.append(("mean", row))
        else:
            patients = np.array([patient_of[s] for s in cell_sample[rows]], dtype=object)
            found += [
                ("mean", row)
                for row in panels.cell_rows(one.per_cell[rows], group, here, draws, patients, cell_sample[rows])
            ]  # fmt: skip
        for measure, row in found:
            if one.per_cell is None:
                row["reason"] = panels.GENE_ABSENT
            made.append({"panel": one.panel, "gene": one.gene, "cell_type": one.cell_type, "measure": measure, **row})
    return panels.adjust_tests(made)


def trends(tracked: list[Tracked], cells: dict[str, np.ndarray], samples: pd.DataFrame, times: dict[str, float]) -> pd.DataFrame:
    """panel_trend.tsv."""
    names = samples[keys.SAMPLE].tolist()
    rows = []
    for one in tracked:
        values, size = pd.Series(one.values["mean"], index=names), pd.Series(cells[one.cell_type], index=names)
        for row in panels.patient_trends(values, size, samples, times):
            agrees = (keys.YES if row["pattern"] == one.expected else keys.NO) if one.expected else ""
            rows.append(
                {"panel": one.panel, "gene": one.gene, "cell_type": one.cell_type, **row, "expected_direction": one.expected,
                 "as_expected": agrees}
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(panels.TREND_COLUMNS))


def clone_table(args: argparse.Namespace, merged: anndata.AnnData, table: pd.DataFrame) -> pd.DataFrame:
    """panel_clones.tsv: genes whose locus the table asks for, in every clone."""
    paths = sorted(args.clone_tables, key=lambda p: p.name)
    tables = [io.read_tsv(path, dtype={keys.PATIENT: str, "clone": str}) for path in paths]
    bad = [p.name for p, f in zip(paths, tables, strict=True) if not {keys.PATIENT, "clone"} <= set(f)]
    if bad:
        raise io.InputError(f"{', '.join(bad)}: no column patient or clone; give clones.tsv of TRACE_CLONES")
    tables = [frame for frame in tables if len(frame)]
    clone = joined(args.clones, [keys.CLONE], merged.obs_names)[keys.CLONE].dropna().astype(str)
    clone = clone[clone != ""]
    genes = sorted(set(table.loc[table["locus"] == keys.YES, "gene"]))
    if not tables or not genes:
        return pd.DataFrame(columns=list(panels.CLONE_COLUMNS))
    clone = clone.loc[sorted(clone.index)]
    part = merged[clone.index]
    here = [gene for gene in genes if gene in merged.var_names]
    at = merged.var_names.get_indexer(here)
    x = pd.DataFrame(sparse.csr_matrix(part.X)[:, at].toarray().astype(np.float64), index=clone.index, columns=here)
    positive = pd.DataFrame(part.layers[keys.COUNTS][:, at].toarray() > 0, index=clone.index, columns=here)
    return panels.clone_rows(pd.concat(tables, ignore_index=True), clone, x, positive, genes, args.locus_cut)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    merged = contract.check(anndata.read_h5ad(args.input), args.input.name, normalised=True)
    if not merged.obs_names.is_monotonic_increasing:
        merged = merged[np.argsort(merged.obs_names.to_numpy(dtype=str), kind="stable")].copy()
    table = panels.check_panels(io.read_tsv(args.panels, dtype=str), args.panels.name)
    samples, phases, times = design(args, merged.obs)
    contrasts = comparison.contrasts(io.read_tsv(args.contrasts, dtype=str))
    labels = io.join_fragment(
        merged.obs_names, io.read_fragment(args.annotation, [keys.MAIN_TYPE, keys.LINEAGE]), args.annotation.name
    )
    called = joined(args.tumour, [keys.TUMOUR], merged.obs_names)[keys.TUMOUR]
    tumour = merged.obs_names.isin(called.index[called.astype("boolean").fillna(False).astype(bool)])
    masks = panels.type_masks(labels[keys.MAIN_TYPE], labels[keys.LINEAGE], tumour)
    clones = clone_table(args, merged, table)

    names = samples[keys.SAMPLE].tolist()
    seed = args.seed
    tracked, cells, scored = measured(merged, table, masks, names, args.min_cells, seed)
    place = {key: i for i, key in enumerate(masks)}
    tracked.sort(key=lambda t: (t.panel, t.gene in (panels.SET_MEAN, panels.SET_SCORE), t.gene, place[t.cell_type]))
    values = value_rows(tracked, cells, samples, args.min_cells)
    cell_sample = merged.obs[keys.SAMPLE].astype(str).to_numpy(dtype=object)
    tests = tested(tracked, cells, masks, cell_sample, samples, phases, contrasts, args)
    trend = trends(tracked, cells, samples, times)

    absent = sorted(set(table["gene"]) - set(merged.var_names))
    with_values = values[values["mean"].notna()]
    n_phases = with_values[keys.PHASE].nunique()
    notes = []
    if absent:
        notes.append(f"{len(absent)} of {table['gene'].nunique()} genes were not measured: {status.few(absent)}")
    strange = panels.unknown_compartments(table, masks)
    if strange:
        notes.append(f"no cells of the compartment {status.few(strange)}")
    if not scored and merged.n_obs:
        notes.append(
            f"{merged.n_vars} genes, {panels.MIN_GENES_SCORE} needed for scores with control genes: sets are plain means"
        )
    if merged.n_obs and not tumour.any():
        notes.append("no tumour cells")
    if not merged.n_obs or table.empty:
        word, notes = keys.SKIPPED_NO_INPUT, [f"{merged.n_obs} cells, {len(table)} genes in {args.panels.name}; 1 of each needed"]
    elif n_phases < 2:
        word = keys.NOT_ESTIMABLE
        notes.insert(
            0, f"{n_phases} phases have a sample with {args.min_cells} cells of a tracked type, 2 needed for a comparison"
        )
    else:
        word = keys.WARNING if notes else keys.OK
    between = tests[(tests["unit"] == comparison.UNIT_PATIENT) & tests["p_value"].notna() & (tests["test"] != "dunn")]
    n_low = int((between["p_adjusted"] < 0.05).sum())
    sentence = (
        f"{status.SENTENCES[word]} {with_values['gene'].nunique()} genes and sets were followed in "
        f"{with_values['cell_type'].nunique()} cell types over {n_phases} phases; {n_low} of {len(between)} tests between "
        "patients have an adjusted p below 0.05."
    )
    io.write_tsv(values, Path("panel_values.tsv"))
    io.write_tsv(tests, Path("panel_tests.tsv"))
    io.write_tsv(trend, Path("panel_trend.tsv"))
    io.write_tsv(clones, Path("panel_clones.tsv"))
    row = status.StatusRow(
        step=STEP, unit_type="cohort", unit="cohort", status=word, reason="; ".join(notes), n_cells=merged.n_obs,
        n_samples=len(samples), n_patients=samples[keys.PATIENT].nunique(), sentence=sentence,
    )  # fmt: skip
    status.write([row], STEP, "cohort")
    packages = ["anndata", "numpy", "pandas", "scipy"]
    provenance.write(provenance.record(STEP, "cohort", args, packages, unit_seed=cli.unit_seed(args.seed, STEP, "cohort")))
    return 0


if __name__ == "__main__":
    cli.run(main)
