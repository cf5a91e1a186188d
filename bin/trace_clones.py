#!/usr/bin/env python3
"""Copy-number clones of one patient, followed over the phases of therapy: shares, changes, events, tree.

Writes <patient>.clones.parquet (clone of each malignant cell), <patient>.clones.tsv, .clone_events.tsv, .clone_phases.tsv,
.clone_changes.tsv, .clone_tree.tsv, .clone_diversity.tsv, .cnv_heatmap.png and .clone_flow.png.

Example: trace_clones.py --patient P1 --cnv P1.cnv.h5ad --malignant P1.malignant.parquet --phases phases.tsv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from scresist import cli, io, keys, provenance, status

STEP = "trace_clones"
CLONE_COLUMNS = [
    "patient", "clone", "n_cells", "n_phases", "trunk_events", "shared_events", "private_events", "mean_score", "n_leiden",
    "ari_ward", "ward_best_k", "ari_ward_best", "ari_reference_design",
]  # fmt: skip
LOCUS_PREFIX = "locus_"
ARM_KEYS = ("name", "n_genes", "mean_ref", "sd_ref", "third_mean_ref", "third_sd_ref")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--patient", required=True, type=cli.sample_id, help="patient id")
    add("--cnv", required=True, type=Path, help="<patient>.cnv.h5ad of INFER_CNV")
    add("--malignant", required=True, type=Path, help="<patient>.malignant.parquet of CALL_MALIGNANT")
    add("--phases", required=True, type=Path, help="phases.tsv: phase, order, time, colour")
    add("--panels", type=Path, help="table with a column `gene`: loci to list (default: all that INFER_CNV measured)")
    add("--resolution", type=cli.number(0.001, 1000), default=1.0, help="Leiden resolution before merging (default 1.0)")
    add("--arm_distance", type=cli.number(0.1, 100), default=2.0, help="reference sd by which clones differ in an arm (2.0)")
    add("--min_clone_cells", type=cli.number(2, 10**6, int), default=10, help="smallest clone, in cells (default 10)")
    add("--min_cells_phase", type=cli.number(1, 10**6, int), default=30, help="cells of a phase for a change (default 30)")
    add("--arm_shift", type=cli.number(0.1, 20), default=1.5, help="reference sd of a shifted arm (default 1.5)")
    add("--third_shift", type=cli.number(0, 20), default=0.75, help="reference sd of each third of a shifted arm (default 0.75)")
    add("--emerging_limit", type=cli.number(0, 1), default=0.05, help="detection limit for emerging and lost (default 0.05)")
    return parser.parse_args(argv)


def read_phases(path: Path) -> pd.DataFrame:
    """phases.tsv in its order: columns phase, time (float, NaN = beside the time axis), colour."""
    table = io.read_tsv(path, dtype=str)
    absent = [name for name in ("phase", "order", "time") if name not in table]
    if absent:
        raise io.InputError(f"{path.name}: no column {', '.join(absent)}; columns are {', '.join(table)}")
    for name in ("order", "time"):
        try:
            table[name] = table[name].astype(float)
        except ValueError as error:
            raise io.InputError(f"{path.name}: column {name}: {error}; expected numbers or nothing") from None
    table["colour"] = table["colour"].fillna("") if "colour" in table else ""
    return table.sort_values(["order", "phase"], kind="stable", ignore_index=True)


def read_profiles(path: Path, patient: str) -> anndata.AnnData:
    """The patient's profiles, cells sorted by name.

    Raises
    ------
    InputError
        naming every part that is missing or does not fit.
    """
    profiles = anndata.read_h5ad(path)
    problems = [f"obs['{name}'] is missing" for name in (keys.PHASE, keys.MAIN_TYPE, keys.CNV_ROLE) if name not in profiles.obs]
    problems += [f"obsm['{name}'] is missing" for name in ("X_cnv", "arms", "arm_thirds", "loci") if name not in profiles.obsm]
    table = profiles.uns.get("arms", {})
    problems += [f"uns['arms']['{name}'] is missing" for name in ARM_KEYS if name not in table]
    if not problems and profiles.n_obs:
        n = len(table["name"])
        for name, width in (("arms", n), ("arm_thirds", 3 * n), ("loci", len(profiles.uns.get("loci", {}).get("gene", ())))):
            found = profiles.obsm[name].shape[1]
            if found != width:
                problems.append(f"obsm['{name}'] has {found} columns, uns describes {width}")
        odd = ~np.isfinite(profiles.obsm["X_cnv"]).all(axis=1)
        if odd.any():
            first = profiles.obs_names[odd][0]
            problems.append(f"{odd.sum()} cells have values that are missing or infinite, the first is {first}")
        others = sorted(set(profiles.obs.get(keys.PATIENT, pd.Series(dtype=str)).astype(str)) - {patient})
        if others:
            problems.append(f"cells of {', '.join(others)}, expected {patient} only")
        if not (profiles.obs[keys.CNV_ROLE].astype(str) == keys.CNV_ROLE_REFERENCE).any():
            problems.append("no reference cell")
    if problems:
        raise io.InputError(f"{path.name} is not what INFER_CNV writes:\n  - " + "\n  - ".join(problems))
    order = np.argsort(profiles.obs_names.to_numpy(dtype=str), kind="stable")
    return profiles[order].copy() if profiles.n_obs else profiles


def locus_columns(profiles: anndata.AnnData, panels: Path | None) -> list[int]:
    """Columns of obsm['loci'] to list: the genes that the panels mark with `locus` = yes (all without that column), sorted."""
    genes = [str(gene) for gene in profiles.uns["loci"]["gene"]]
    if panels is None:
        return sorted(range(len(genes)), key=genes.__getitem__)
    table = io.read_tsv(panels, dtype=str)
    if "gene" not in table:
        raise io.InputError(f"{panels.name}: no column gene; columns are {', '.join(table)}")
    wanted = table[table["locus"] == keys.YES] if "locus" in table else table
    return [genes.index(gene) for gene in sorted(set(wanted["gene"].dropna())) if gene in genes]


def verdict(profiles: anndata.AnnData, calls: pd.DataFrame, n_malignant: int, args: argparse.Namespace) -> tuple[str, str]:
    """Status word and reason where no clones can be traced; ("ok", "") where they can."""
    if not profiles.n_obs:
        why = profiles.uns.get("status", {})
        told = f" ({why.get('word')}: {why.get('reason')})" if why.get("word") else ""
        return keys.SKIPPED_NO_INPUT, f"INFER_CNV gave no profile for this patient{told}"
    if not len(calls):
        return keys.SKIPPED_NO_INPUT, "no epithelial cell of this patient was judged by CALL_MALIGNANT"
    if not n_malignant:
        if not (calls[keys.MALIGNANT] == keys.MALIGNANT_NO).any():
            return keys.CNV_QUIET, f"none of {len(calls)} epithelial cells is called malignant: all are {keys.UNRESOLVED}"
        return keys.SKIPPED_TOO_FEW_CELLS, f"none of {len(calls)} epithelial cells is called malignant"
    if n_malignant < args.min_clone_cells:
        return keys.SKIPPED_TOO_FEW_CELLS, f"{n_malignant} malignant cells, {args.min_clone_cells} needed"
    return keys.OK, ""


def write_empty(args: argparse.Namespace, loci: list[str], reason: str) -> None:
    """Every promised file, without rows."""
    from scresist import clone_figures, clones

    who = args.patient
    nobody = pd.DataFrame({keys.CELL: pd.Series(dtype=str), keys.CLONE: pd.Series(dtype=str)})
    io.write_fragment(nobody, Path(f"{who}.clones.parquet"))
    tables = {
        "clones": [*CLONE_COLUMNS, *(LOCUS_PREFIX + gene for gene in loci)],
        "clone_events": clones.EVENT_COLUMNS,
        "clone_phases": clones.PHASE_COLUMNS,
        "clone_changes": clones.CHANGE_COLUMNS,
        "clone_tree": clones.TREE_COLUMNS,
        "clone_diversity": clones.DIVERSITY_COLUMNS,
    }
    for name, columns in tables.items():
        io.write_tsv(pd.DataFrame(columns=list(columns)), Path(f"{who}.{name}.tsv"))
    picture = clone_figures.note(f"{who}: no clones were traced. {reason}.")
    for name in ("cnv_heatmap", "clone_flow"):
        io.write_atomically(Path(f"{who}.{name}.png"), lambda path: path.write_bytes(picture))


def sentence_of(names: list[str], n_cells: int, trunk: tuple[str, ...], changed: pd.DataFrame, told: list[str]) -> str:
    """What a clinician reads."""
    from scresist import clones

    many = f"{len(names)} copy-number clones" if len(names) > 1 else "one copy-number clone"
    text = f"{status.SENTENCES[keys.OK]} The {n_cells:,} malignant cells form {many}"
    text += f" with {', '.join(trunk)} in all of them." if trunk else "."
    tested = changed[changed["status"] == keys.OK]
    if len(tested):
        contrast = tested["contrast"].iloc[-1]  # the last phase against the first, or the nearest to it that could be judged
        moved = tested[(tested["contrast"] == contrast) & (tested["class"] != clones.UNCERTAIN)]
        if len(moved):
            text += f" {contrast}: " + ", ".join(f"{row['clone']} {row['class']}" for _, row in moved.iterrows()) + "."
        else:
            text += f" {contrast}: no share changed beyond its interval."
    return " ".join([text, *told])


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    from scresist import clone_figures, clones, cnv, figures

    who, seed = args.patient, cli.unit_seed(args.seed, STEP, args.patient)
    profiles = read_profiles(args.cnv, who)
    calls = io.read_fragment(args.malignant)
    if keys.MALIGNANT not in calls:
        raise io.InputError(f"{args.malignant.name}: no column {keys.MALIGNANT}; columns are {', '.join(calls)}")
    phase_table = read_phases(args.phases)
    chosen = locus_columns(profiles, args.panels)
    loci = [str(profiles.uns["loci"]["gene"][at]) for at in chosen]
    cells = pd.Index(sorted(calls.index[calls[keys.MALIGNANT] == keys.MALIGNANT_YES].astype(str)))
    word, reason = verdict(profiles, calls, len(cells), args)
    packages = ["anndata", "igraph", "matplotlib", "numba", "numpy", "scipy"]
    samples = profiles.uns.get("samples", {})
    if word != keys.OK:
        write_empty(args, loci, reason)
        row = status.StatusRow(
            step=STEP, unit_type="patient", unit=who, status=word, reason=reason, n_cells=len(cells),
            n_samples=len(samples.get(keys.SAMPLE, ())), n_patients=1,
        )  # fmt: skip
        status.write([row], STEP, who)
        provenance.write(provenance.record(STEP, who, args, packages, unit_seed=seed))
        return 0

    absent = cells.difference(profiles.obs_names)
    if len(absent):
        raise io.InputError(
            f"{args.malignant.name}: {len(absent)} of {len(cells)} malignant cells have no profile in {args.cnv.name}, the first "
            f"is {absent[0]}: both must come from one run"
        )
    phase_all = profiles.obs[keys.PHASE].astype(str)
    present = set(phase_all[cells]) | {str(code) for code in samples.get(keys.PHASE, ())}
    unknown = sorted(present - set(phase_table["phase"]))
    if unknown:
        raise io.InputError(
            f"{args.phases.name}: no row for phase {', '.join(unknown)} of {who}; add it, or mend the samplesheet"
        )
    phases = [code for code in phase_table["phase"] if code in present]
    times = dict(zip(phase_table["phase"], phase_table["time"], strict=True))

    rows = profiles.obs_names.get_indexer(cells)
    is_reference = (profiles.obs[keys.CNV_ROLE].astype(str) == keys.CNV_ROLE_REFERENCE).to_numpy()
    table = clones.Arms(
        tuple(str(name) for name in profiles.uns["arms"]["name"]),
        *(np.asarray(profiles.uns["arms"][name], dtype=float) for name in ARM_KEYS[1:]),
    )
    profile, arms, thirds = (np.asarray(profiles.obsm[name]) for name in ("X_cnv", "arms", "arm_thirds"))
    phase = phase_all.to_numpy()[rows]
    limits = (args.resolution, args.arm_distance, args.min_clone_cells, seed)
    label, n_leiden = clones.find_clones(profile[rows], table.scaled(arms[rows]), *limits)
    n_clones = int(label.max()) + 1
    names = [f"{who}.C{at + 1}" for at in range(n_clones)]
    clone = np.array(names, dtype=object)[label]

    arm_z, third_z = clones.clone_arms(arms[rows], thirds[rows], label, table)
    signs = clones.call_arms(arm_z, third_z, table.n_genes, args.arm_shift, args.third_shift)
    sets = clones.event_sets(signs, table.names)
    profile_ref = profile[is_reference]
    point_z = cnv.against(clones.centroids(profile[rows], label), *cnv.mean_sd(profile_ref))
    chromosome = profiles.var[keys.CHROMOSOME].astype(str).to_numpy()
    segments = [clones.segments(values, chromosome, args.arm_shift, args.third_shift) for values in point_z]
    shares = clones.shares(who, names, clone, phase, phases)
    pairs = clones.phase_pairs(phases, times)
    changed = clones.changes(shares, pairs, args.min_cells_phase, args.emerging_limit)
    counts = {code: part["n"].tolist() for code, part in shares.groupby("phase", sort=False)}

    strata = phase.astype(str)
    ward, ward_best, best_k = clones.ward_opinion(profile[rows], strata, n_clones, seed)
    reference_ari = clones.reference_design_ari(
        label, profile[rows], arms[rows], profile_ref, arms[is_reference],
        profiles.obs[keys.MAIN_TYPE].astype(str).to_numpy()[is_reference], phase_all.to_numpy()[is_reference], table, limits,
    )  # fmt: skip
    listed = pd.DataFrame(
        {
            "patient": who,
            "clone": names,
            "n_cells": np.bincount(label),
            "n_phases": [int((shares["n"][shares["clone"] == name] > 0).sum()) for name in names],
            **{
                f"{word}_events": [",".join(e for e in events if clones.scope(e, sets) == word) for events in sets]
                for word in (clones.TRUNK, clones.SHARED, clones.PRIVATE)
            },
            "mean_score": clones.centroids(np.square(profile[rows], dtype=np.float64), label).mean(axis=1),
            "n_leiden": n_leiden,
            "ari_ward": clones.adjusted_rand(label, ward),
            "ward_best_k": best_k,
            "ari_ward_best": clones.adjusted_rand(label, ward_best),
            "ari_reference_design": reference_ari,
        }
    )[CLONE_COLUMNS]
    locus = clones.centroids(np.asarray(profiles.obsm["loci"])[rows], label)
    for at, gene in zip(chosen, loci, strict=True):
        listed[LOCUS_PREFIX + gene] = locus[:, at]

    fragment = pd.DataFrame({keys.CELL: cells.to_numpy(dtype=str), keys.CLONE: clone.astype(str)})
    io.write_fragment(fragment, Path(f"{who}.clones.parquet"))
    io.write_tsv(listed, Path(f"{who}.clones.tsv"))
    io.write_tsv(clones.event_table(who, names, table, signs, arm_z, segments, profiles.var), Path(f"{who}.clone_events.tsv"))
    io.write_tsv(shares, Path(f"{who}.clone_phases.tsv"))
    io.write_tsv(changed, Path(f"{who}.clone_changes.tsv"))
    means = clones.centroids(table.scaled(arms[rows]), label)
    io.write_tsv(clones.tree_table(who, names, sets, means), Path(f"{who}.clone_tree.tsv"))
    io.write_tsv(clones.diversity_table(who, counts, seed), Path(f"{who}.clone_diversity.tsv"))

    given = dict(zip(phase_table["phase"], phase_table["colour"], strict=True))
    colour = figures.colours(
        list(phase_table["phase"]), {**figures.PHASE_COLOURS, **{code: value for code, value in given.items() if value}}
    )
    heat = clone_figures.heat_map(
        profile[rows], clone, phase, profile_ref, chromosome, phases, colour, f"{who}: copy-number profile of single cells"
    )
    timed = sorted((code for code in phases if np.isfinite(times[code])), key=lambda code: (times[code], phases.index(code)))
    beside = [code for code in phases if code not in timed]
    flow = clone_figures.flow(shares, timed, beside, colour, f"{who}: shares of clones, n = {len(cells):,} malignant cells")
    for name, content in (("cnv_heatmap", heat), ("clone_flow", flow)):
        io.write_atomically(Path(f"{who}.{name}.png"), lambda path, content=content: path.write_bytes(content))

    sizes = {code: int((phase == code).sum()) for code in phases}
    remarks, told = [], []
    if len(cells) < clones.MIN_CELLS_CLUSTER:
        word = keys.WARNING
        remarks.append(f"{len(cells)} malignant cells, {clones.MIN_CELLS_CLUSTER} needed to look for more than one clone")
    small = [f"{code} ({n})" for code, n in sizes.items() if n < args.min_cells_phase]
    if small and pairs:
        word = keys.WARNING
        remarks.append(
            f"fewer than {args.min_cells_phase} malignant cells in {', '.join(small)}: no change of clones is judged there"
        )
    if not any(sets):
        word = keys.WARNING
        remarks.append("no arm of any clone is shifted, although cells were called malignant")
    if not pairs:
        told.append(f"Malignant cells of one phase only ({phases[0]}): shares, but no change over therapy.")
        remarks.append(f"one phase ({phases[0]}), two needed for a change")
    trunk = tuple(event for event in sets[0] if clones.scope(event, sets) == clones.TRUNK)
    row = status.StatusRow(
        step=STEP, unit_type="patient", unit=who, status=word, reason="; ".join(remarks), n_cells=len(cells),
        n_samples=len(samples.get(keys.SAMPLE, ())) or profiles.obs[keys.SAMPLE].nunique(), n_patients=1,
        sentence=sentence_of(names, len(cells), trunk, changed, told),
    )  # fmt: skip
    status.write([row], STEP, who)
    provenance.write(provenance.record(STEP, who, args, packages, unit_seed=seed))
    return 0


if __name__ == "__main__":
    cli.run(main)
