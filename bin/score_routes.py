#!/usr/bin/env python3
"""Evidence for the routes of resistance per patient and cohort, and targets that together reach every tumour clone.

Writes route_items.tsv, route_card.tsv, route_rules_used.tsv, decomposition.tsv, target_clones.tsv, target_normal.tsv and
target_sets.tsv. Tables of other steps are taken by name; items whose table is absent are `not_estimable`.

Example: score_routes.py --input merged.h5ad --annotation annotation.parquet --tumour P1.malignant.parquet
    --clones P1.clones.parquet --epi_clusters epi_clusters.parquet --modules modules.parquet --tables results/03_tumour
    --samples samples.tsv --phases phases.tsv --contrasts contrasts.tsv --rules route_rules.tsv --targets targets.tsv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from scresist import cli, comparison, contract, decomposition, io, keys, panels, provenance, routes, status, target_cover
from scresist.design import plural
from scresist.route_measures import Evidence, Program

STEP = "score_routes"
COHORT_TABLES = (
    "module_traits", "module_samples", "panel_values", "panel_clones", "activity", "activity_tests", "proportions", "flow",
    "ranknet", "tcell_values", "tcell_tests",
)  # fmt: skip
PATIENT_TABLES = ("clone_changes", "clone_phases", "clone_diversity")
TEXT = (
    keys.PATIENT, keys.SAMPLE, keys.PHASE, "clone", "contrast", "gene", "cell_type", "source", "module", "trait", "panel",
    "pathway", "score_name", "locus_call", "class", "status", "reason",
)  # fmt: skip
SCORED_GENES = ("CST3", "ERBB2")  # decomposed beside the program and G2M (methods.md, SCORE_ROUTES)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--annotation", required=True, type=Path, help="annotation.parquet of ANNOTATE_CELLS")
    add("--tumour", nargs="*", default=[], type=Path, help="<patient>.malignant.parquet of CALL_MALIGNANT, any number")
    add("--clones", nargs="*", default=[], type=Path, help="<patient>.clones.parquet of TRACE_CLONES, any number")
    add("--epi_clusters", nargs="*", default=[], type=Path, help="epi_clusters.parquet of SUBCLUSTER_EPITHELIUM")
    add("--modules", nargs="*", default=[], type=Path, help="modules.parquet of FIND_PROGRAMS")
    add("--tables", nargs="*", default=[], type=Path, help="tables of other steps, or folders that hold them")
    add("--samples", required=True, type=Path, help="samples.tsv of CHECK_DESIGN")
    add("--phases", required=True, type=Path, help="phases.tsv of CHECK_DESIGN")
    add("--contrasts", required=True, type=Path, help="contrasts.tsv of CHECK_DESIGN")
    add("--rules", required=True, type=Path, help="route_rules.tsv: what counts for and against which route")
    add("--targets", required=True, type=Path, help="targets.tsv: surface targets, their genes and drugs")
    add("--route_program", default="auto", help="module that stands for resistance, such as M3; auto = by its trait (default)")
    add("--target_cp10k", type=cli.number(0, 10**4), default=1.0, help="least CP10k of a positive clone (default 1.0)")
    add("--target_min_pct", type=cli.number(0, 1), default=0.1, help="least share of cells of a positive clone (default 0.1)")
    add("--coverage_goal", type=cli.number(0, 1), default=0.9, help="share of the clones that a set should reach (default 0.9)")
    add("--max_set", type=cli.number(1, 3, int), default=3, help="largest number of targets in a set (default 3)")
    add("--n_boot", type=cli.number(1, 10**5, int), default=500, help="draws behind an interval (default 500)")
    add("--min_cells", type=cli.number(1, 10**6, int), default=20, help="cells that a biopsy needs for an item (default 20)")
    add("--min_cells_phase", type=cli.number(1, 10**6, int), default=30, help="tumour cells that a phase needs (default 30)")
    return parser.parse_args(argv)


def read_tables(paths: list[Path]) -> dict[str, pd.DataFrame]:
    """Tables by name, those of patients one below the other; files of other names are passed over, empty ones are absent."""
    files: dict[str, Path] = {}
    problems = []
    for path in paths:
        for file in sorted(path.rglob("*.tsv")) if path.is_dir() else [path]:
            if not file.is_file():
                problems.append(f"{file.name}: no such file; give tables of this run")
            elif kind_of(file.name):
                if file.name in files and files[file.name].resolve() != file.resolve():
                    problems.append(f"{file.name}: given twice from different folders; give each table once")
                files[file.name] = file
    if problems:
        raise io.InputError("--tables:\n  - " + "\n  - ".join(problems))
    made: dict[str, list[pd.DataFrame]] = {}
    for name in sorted(files):
        if files[name].stat().st_size == 0:
            continue
        frame = io.read_tsv(files[name], dtype=dict.fromkeys(TEXT, str))
        if len(frame):
            made.setdefault(kind_of(name), []).append(frame)
    return {kind: pd.concat(frames, ignore_index=True) for kind, frames in made.items()}


def kind_of(name: str) -> str:
    """`clone_changes` of P1.clone_changes.tsv, `flow` of flow.tsv, nothing for other files."""
    stem = name.removesuffix(".tsv")
    if stem in COHORT_TABLES:
        return stem
    kind = stem.rpartition(".")[2]
    return kind if kind in PATIENT_TABLES and stem != kind else ""


def joined(paths: list[Path], columns: list[str] | None, cells: pd.Index) -> pd.DataFrame:
    """Fragments one below the other, indexed by cell; every cell known and there once."""
    frames = [io.read_fragment(path, columns) for path in sorted(paths, key=lambda p: p.name)]
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return pd.DataFrame(columns=columns or [], index=pd.Index([], dtype=str))
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


def design(args: argparse.Namespace, obs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """samples.tsv (those without a cell in the cohort included) and phases.tsv, checked against the cells and contrasts.tsv."""
    samples = io.read_tsv(args.samples, dtype=str)
    phases = io.read_tsv(args.phases, dtype={"phase": str, "role": str})
    contrasts = comparison.contrasts(io.read_tsv(args.contrasts, dtype=str))
    problems = []
    for name, frame, columns in ((args.samples.name, samples, [keys.SAMPLE, keys.PATIENT, keys.PHASE]),
                                 (args.phases.name, phases, ["phase", "role", "order"])):  # fmt: skip
        absent = [column for column in columns if column not in frame]
        if absent:
            raise io.InputError(f"{name}: no column {', '.join(absent)}; expected {', '.join(columns)}")
    unknown = sorted(set(obs[keys.SAMPLE].astype(str)) - set(samples[keys.SAMPLE]))
    if unknown:
        problems.append(f"{args.samples.name}: no row for {', '.join(unknown)[:200]}; give the table of this run")
    strange = sorted(set(samples[keys.PHASE]) - set(phases["phase"]))
    if strange:
        problems.append(f"{args.phases.name}: no row for phase {', '.join(strange)[:200]}; give the table of this run")
    named = {sample for contrast in contrasts for sample in (*contrast.samples_a, *contrast.samples_b)}
    lost = sorted(named - set(samples[keys.SAMPLE]))
    if lost:
        problems.append(f"{args.contrasts.name}: samples {', '.join(lost)[:200]} are not in {args.samples.name}")
    if problems:
        raise io.InputError("\n  - ".join(["design and cells differ:", *problems]))
    return samples, phases


def cell_frame(args: argparse.Namespace, merged: anndata.AnnData, program: Program | None) -> pd.DataFrame:
    """One row per cell: design, type, tumour, clone, state, cell cycle, program (oriented), the modules' program column."""
    names = merged.obs_names
    made = merged.obs[[keys.SAMPLE, keys.PATIENT, keys.PHASE]].astype(str)
    labels = io.join_fragment(names, io.read_fragment(args.annotation, [keys.MAIN_TYPE, keys.LINEAGE]), args.annotation.name)
    made[[keys.MAIN_TYPE, keys.LINEAGE]] = labels.fillna("").astype(str)
    called = joined(args.tumour, [keys.TUMOUR, keys.MALIGNANT], names).reindex(names)
    made[keys.TUMOUR] = called[keys.TUMOUR].astype("boolean").fillna(False).astype(bool)
    made[keys.MALIGNANT] = called[keys.MALIGNANT].astype(object).fillna("").astype(str)
    clone = joined(args.clones, [keys.CLONE], names)[keys.CLONE].reindex(names)
    made[keys.CLONE] = clone.astype(object).fillna("").astype(str)
    states = joined(args.epi_clusters, [keys.EPI_CLUSTER, keys.G2M_SCORE, keys.CYCLE_PHASE, keys.DIVIDING], names).reindex(names)
    for column in (keys.EPI_CLUSTER, keys.CYCLE_PHASE):
        made[column] = states[column].astype(object).fillna("").astype(str)
    # S or G2M by the sign of a score holds for most cells without any cycle: here only cells beyond random genes divide
    rests = (made[keys.CYCLE_PHASE] != "") & ~states[keys.DIVIDING].astype("boolean").fillna(False).astype(bool)
    made.loc[rests, keys.CYCLE_PHASE] = "G1"
    made[keys.G2M_SCORE] = states[keys.G2M_SCORE].astype(float)
    made["program"] = np.nan
    if program is not None:
        modules = joined(args.modules, None, names)
        if program.column in modules:
            made["program"] = program.sign * modules[program.column].reindex(names).astype(float)
    return made


def gene_frame(merged: anndata.AnnData, genes: list[str]) -> pd.DataFrame:
    """ln(1 + CP10k) of the measured ones among `genes`, cells x genes."""
    here = [gene for gene in genes if gene in merged.var_names]
    values = sparse.csr_matrix(merged.X[:, merged.var_names.get_indexer(here)]).toarray().astype(np.float64)
    return pd.DataFrame(values, index=merged.obs_names, columns=here)


def decompositions(
    args: argparse.Namespace, cells: pd.DataFrame, expression: pd.DataFrame, program: Program | None,
    courses: list[routes.Course],
) -> pd.DataFrame:  # fmt: skip
    """decomposition.tsv: program, named genes and G2M between every two biopsies of a patient's course."""
    scores = pd.DataFrame(index=cells.index)
    if program is not None and cells["program"].notna().any():
        scores[program.column] = program.sign * cells["program"]  # as the module's own column has it
    for gene in SCORED_GENES:
        scores[gene] = expression.get(gene, np.nan)
    scores[keys.G2M_SCORE] = cells[keys.G2M_SCORE]
    frames = []
    for course in courses:
        own = cells[(cells[keys.PATIENT] == course.unit) & cells[keys.TUMOUR]]
        traced = bool((own[keys.CLONE] != "").any())
        if traced:
            own = own[own[keys.CLONE] != ""]
        for later, earlier in dict.fromkeys(course.steps.values()):
            part = own[own[keys.PHASE].isin([later, earlier])]
            clone = part[keys.CLONE] if traced else pd.Series(f"{course.unit}.all", index=part.index)
            contrast = f"{later}_vs_{earlier}"
            seed = cli.unit_seed(args.seed, STEP, f"{course.unit}/{contrast}")
            frames.append(
                decomposition.table(
                    course.unit, contrast, scores.loc[part.index], clone, (part[keys.PHASE] == later).to_numpy(), traced,
                    args.min_cells_phase, args.n_boot, seed,
                )
            )  # fmt: skip
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(decomposition.COLUMNS))


def coverage(
    args: argparse.Namespace, merged: anndata.AnnData, cells: pd.DataFrame, targets: pd.DataFrame, phases: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """target_clones.tsv, target_normal.tsv and target_sets.tsv."""
    genes = [gene for gene in sorted(set(targets["gene"])) if gene in merged.var_names]
    column = {gene: at for at, gene in enumerate(genes)}
    counts = sparse.csr_matrix(merged.layers[keys.COUNTS][:, merged.var_names.get_indexer(genes)])
    depth = np.asarray(merged.layers[keys.COUNTS].sum(axis=1, dtype=np.float64)).ravel()
    tumour = cells[keys.TUMOUR].to_numpy()
    median = float(np.median(depth[tumour])) if tumour.any() else np.nan
    order = phases.sort_values("order", kind="stable")["phase"].tolist()
    normal_name = cells[keys.MAIN_TYPE].where(cells[keys.LINEAGE] != "epithelial", cells[keys.MAIN_TYPE] + " (non-malignant)")
    normal = (cells[keys.LINEAGE] != "epithelial") | (cells[keys.MALIGNANT] == keys.MALIGNANT_NO)
    normal &= ~cells[keys.MAIN_TYPE].isin(["", keys.UNRESOLVED]) & ~cells[keys.TUMOUR]
    found: tuple[list[pd.DataFrame], ...] = ([], [], [])
    measured = targets[targets["gene"].isin(column)]
    for patient in sorted(set(cells.loc[tumour, keys.PATIENT])):
        mine = (cells[keys.PATIENT] == patient).to_numpy()
        off = np.flatnonzero(mine & normal.to_numpy())
        kinds = normal_name.iloc[off].tolist()
        normals = target_cover.normal_table(patient, kinds, counts[off], depth[off], column, targets, median)
        found[1].append(normals)
        traced = (cells.loc[mine & tumour, keys.CLONE] != "").any()
        for phase in [p for p in order if p in set(cells.loc[mine & tumour, keys.PHASE])]:
            at = mine & tumour & (cells[keys.PHASE] == phase).to_numpy()
            at = np.flatnonzero(at & (cells[keys.CLONE] != "").to_numpy() if traced else at)
            if not len(at):
                continue
            clone = cells[keys.CLONE].iloc[at].tolist() if traced else [f"{patient}.all"] * len(at)
            table = target_cover.clone_table(
                patient, phase, clone, counts[at], depth[at], column, targets, median, args.target_cp10k, args.target_min_pct
            )
            found[0].append(table)
            if len(at) < args.min_cells_phase:
                row = dict.fromkeys(target_cover.SET_COLUMNS, np.nan) | {
                    keys.PATIENT: patient, keys.PHASE: phase, "n_cells": len(at), "status": keys.NOT_ESTIMABLE,
                    "reason": f"{len(at)} tumour cells, {args.min_cells_phase} needed",
                }  # fmt: skip
                found[2].append(pd.DataFrame([row], columns=list(target_cover.SET_COLUMNS)))
                continue
            detected = counts[at][:, [column[gene] for gene in measured["gene"]]].toarray() > 0
            seed = cli.unit_seed(args.seed, STEP, f"{patient}/{phase}/targets")
            sets = target_cover.best_sets(
                table, normals, clone, detected, measured["target"].tolist(), targets, args.max_set, args.coverage_goal,
                args.n_boot, seed,
            )  # fmt: skip
            if not traced:
                why = "no clones were traced: all cells count as one"
                told = sets["status"] != keys.NOT_ESTIMABLE
                sets.loc[told, "reason"] = [f"{why}; {own}" if own else why for own in sets.loc[told, "reason"]]
                sets.loc[told, "status"] = keys.WARNING
            found[2].append(sets)
    role = dict(zip(phases["phase"], phases["role"], strict=True))
    found = (found[0], found[1], [sets.assign(role=sets[keys.PHASE].map(role)) for sets in found[2]])
    columns = (target_cover.CLONE_COLUMNS, target_cover.NORMAL_COLUMNS, target_cover.SET_COLUMNS)
    made = [
        pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(names))
        for frames, names in zip(found, columns, strict=True)
    ]
    return made[0], made[1], made[2]


def status_rows(
    card: pd.DataFrame, cells: pd.DataFrame, samples: pd.DataFrame, without: dict[str, str], notes: list[str], n_courses: int
) -> list[status.StatusRow]:
    """One row per patient, one for the cohort."""
    rows = []
    routed = card[card["kind"] == "route"]
    for patient, part in samples.groupby(keys.PATIENT, sort=True):
        tumour = int(((cells[keys.PATIENT] == patient) & cells[keys.TUMOUR]).sum())
        mine = routed[routed[keys.PATIENT] == patient]
        said = "; ".join(f"{row['route'].replace('_', ' ')}: {row['word']}" for row in mine.to_dict("records"))
        open_ = patient not in without and (mine["word"] == routes.NOT_ASSESSABLE).all()
        word, reason = keys.OK, ""
        if patient in without:
            word, reason, said = keys.NOT_ESTIMABLE, without[patient], ""
        elif open_:
            word, reason = keys.NOT_ESTIMABLE, "fewer than 2 items of every route could be judged"
        rows.append(
            status.StatusRow(
                step=STEP, unit_type="patient", unit=str(patient), status=word, reason=reason, n_cells=tumour,
                n_samples=len(part), n_patients=1, sentence=f"{status.SENTENCES[word]} {said}." if said else "",
            )
        )  # fmt: skip
    told = routed[(routed[keys.PATIENT] != routes.COHORT) & (routed["word"] == routes.SUPPORTED)]
    word = keys.WARNING if notes else keys.OK
    if not n_courses:
        word, notes = keys.NOT_ESTIMABLE, ["no patient has a biopsy before therapy and a later one", *notes]
    rows.append(
        status.StatusRow(
            step=STEP, unit_type="cohort", unit="cohort", status=word, reason="; ".join(notes), n_cells=len(cells),
            n_samples=len(samples), n_patients=samples[keys.PATIENT].nunique(),
            sentence=f"{status.SENTENCES[word]} Followed over therapy: {plural(n_courses, 'patient')}; "
            f"{plural(len(told), 'route')} supported in them.",
        )
    )  # fmt: skip
    return rows


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    rules = routes.check_rules(io.read_tsv(args.rules, dtype=str), args.rules.name)
    targets = target_cover.check_targets(io.read_tsv(args.targets, dtype=str), args.targets.name)
    merged = contract.check(anndata.read_h5ad(args.input), args.input.name, normalised=True)
    if not merged.obs_names.is_monotonic_increasing:
        merged = merged[np.argsort(merged.obs_names.to_numpy(dtype=str), kind="stable")].copy()
    designed, phases = design(args, merged.obs)
    samples = designed[designed[keys.SAMPLE].isin(set(merged.obs[keys.SAMPLE].astype(str)))].reset_index(drop=True)
    tables = read_tables(args.tables)
    program = routes.choose_program(tables.get("module_traits"), tables.get("module_samples"), phases, args.route_program)
    if args.route_program != "auto" and program is None:
        known_modules = tables["module_samples"]["module"].unique().tolist() if "module_samples" in tables else []
        found = ", ".join(known_modules[:20]) or "none"
        raise io.InputError(f"--route_program {args.route_program}: no such module, found {found}; use one of them or auto")
    cells = cell_frame(args, merged, program)
    if program is not None and cells["program"].isna().all():
        program = None
    known = tables.get("panel_values")
    of_panel: dict[str, list[str]] = {}
    if known is not None:
        single = known[~known["gene"].isin([panels.SET_MEAN, panels.SET_SCORE]) & known["gene"].isin(merged.var_names)]
        of_panel = {str(name): sorted(set(part["gene"])) for name, part in single.groupby("panel", sort=True)}
    expression = gene_frame(merged, sorted({*routes.genes_of(rules, of_panel), *SCORED_GENES}))
    courses, cohort, single_phase = routes.courses(samples, phases)
    without = {}
    for patient in single_phase:
        have = sorted(set(samples.loc[samples[keys.PATIENT] == patient, keys.PHASE]))
        without[patient] = f"biopsies of {', '.join(have)} only; one before therapy and a later one are needed"
    for patient in sorted(set(designed[keys.PATIENT]) - set(samples[keys.PATIENT])):
        without[patient] = "no cell of this patient is in the cohort"
    divided = decompositions(args, cells, expression, program, courses)
    masks = panels.type_masks(cells[keys.MAIN_TYPE].tolist(), cells[keys.LINEAGE].tolist(), cells[keys.TUMOUR].to_numpy())
    evidence = Evidence(
        cells, expression, masks, tables, samples, of_panel, divided, min_cells=args.min_cells, program=program,
        contrasts={one.name: one for one in comparison.contrasts(io.read_tsv(args.contrasts, dtype=str))},
    )  # fmt: skip
    items = routes.score(evidence, rules, courses, cohort, without)
    card = routes.card(items)
    of_clones, of_normal, sets = coverage(args, merged, cells, targets, phases)

    notes = []
    absent = [name for name in (*COHORT_TABLES, *PATIENT_TABLES) if name not in tables]
    if absent:
        notes.append(f"tables that are absent or empty: {', '.join(absent)}; their items are not estimable")
    if program is None:
        notes.append("no resistance program: no co-expression module was found or compared")
    unmeasured = sorted(set(targets["gene"]) - set(merged.var_names))
    if unmeasured:
        notes.append(f"targets that were not measured: {', '.join(unmeasured)}")
    name, why = (program.column.removeprefix(keys.MODULE_PREFIX), program.why) if program else ("", "")
    used = rules.assign(program=name, program_chosen=why)
    io.write_tsv(items, Path("route_items.tsv"))
    io.write_tsv(card, Path("route_card.tsv"))
    io.write_tsv(used, Path("route_rules_used.tsv"))
    io.write_tsv(divided, Path("decomposition.tsv"))
    io.write_tsv(of_clones, Path("target_clones.tsv"))
    io.write_tsv(of_normal, Path("target_normal.tsv"))
    io.write_tsv(sets, Path("target_sets.tsv"))
    status.write(status_rows(card, cells, designed, without, notes, len(courses)), STEP, "cohort")
    packages = ["anndata", "numpy", "pandas", "scipy", "statsmodels"]
    provenance.write(provenance.record(STEP, "cohort", args, packages, unit_seed=cli.unit_seed(args.seed, STEP, "cohort")))
    return 0


if __name__ == "__main__":
    cli.run(main)
