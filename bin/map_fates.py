#!/usr/bin/env python3
"""Which early tumour cells of one patient resemble the later ones: couplings between phases, terminal states, fates, a null.

Writes <patient>.fates.parquet (cytotrace, pseudotime, later_resemblance, fate, fate_probability of each tumour cell used),
<patient>.couplings.tsv, .macrostates.tsv, .fate_tests.tsv, .fate_drivers.tsv and .fates.png. Patients with fewer than two
ordered phases end at once with empty files.

Example: map_fates.py --patient P1 --input merged.h5ad --annotation annotation.parquet --malignant P1.malignant.parquet
    --clones P1.clones.parquet --embedding embedding.parquet --epi_clusters epi_clusters.parquet --samples samples.tsv
    --phases phases.tsv
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scresist import cli, io, keys, provenance, status

if TYPE_CHECKING:
    import anndata

# Most patients have one phase: nothing that takes long is imported before two phases with cells are known (scresist.fates
# imports scipy, CellRank and POT only within main).
STEP = "map_fates"
PSEUDOTIME, RESEMBLANCE = keys.PSEUDOTIME, keys.LATER_RESEMBLANCE
FRAGMENT = (keys.CYTOTRACE, PSEUDOTIME, RESEMBLANCE, keys.FATE, keys.FATE_PROBABILITY)
TABLES = ("couplings", "macrostates", "fate_tests", "fate_drivers")
PACKAGES = ["anndata", "cellrank", "matplotlib", "numpy", "POT", "pygpcca", "scanpy", "scipy"]
PCA, INTEGRATED = "pca", "integrated"
AUTO = "auto"
DEPTH_RHO = 0.7  # |Spearman| of CytoTRACE and counts from which it is read as depth; chosen
CHANGED = 0.1  # share of the mass that changes clone from which it is said; chosen
ALPHA = 0.05


def states_asked(text: str) -> str | int:
    """argparse type: `auto` or a number of macrostates."""
    return AUTO if text == AUTO else int(cli.number(2, 10, int)(text))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--patient", required=True, type=cli.sample_id, help="patient id")
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--annotation", required=True, type=Path, help="annotation.parquet; its subtype describes the states")
    add("--malignant", required=True, type=Path, help="<patient>.malignant.parquet of CALL_MALIGNANT")
    add("--clones", required=True, type=Path, help="<patient>.clones.parquet of TRACE_CLONES; may be empty")
    add("--embedding", required=True, type=Path, help="embedding.parquet; read with --space integrated only")
    add("--epi_clusters", required=True, type=Path, help="epi_clusters.parquet of SUBCLUSTER_EPITHELIUM; may be empty")
    add("--modules", type=Path, help="modules.parquet of FIND_PROGRAMS; module scores describe the states")
    add("--samples", required=True, type=Path, help="samples.tsv: sample, patient, phase")
    add("--phases", required=True, type=Path, help="phases.tsv: phase, order, time (empty = not on the time axis), colour")
    add(
        "--space", choices=(PCA, INTEGRATED), default=PCA,
        help="where cells are compared: components of the patient's tumour cells, or the integrated space (default pca)",
    )  # fmt: skip
    add("--max_cells", type=cli.number(50, 5000, int), default=1000, help="cells per phase, a larger one is sampled (1000)")
    add("--min_cells_phase", type=cli.number(20, 10**6, int), default=50, help="cells of a phase that is used (default 50)")
    add("--couple_within_clone", choices=(keys.YES, keys.NO), default=keys.YES, help="couple each clone with itself (yes)")
    add("--min_clone_cells", type=cli.number(2, 10**6, int), default=20, help="cells of a clone in both phases for that (20)")
    add("--reg", type=cli.number(0.005, 10), default=0.05, help="entropy of the couplings, in mean costs (default 0.05)")
    add("--reg_m", type=cli.number(0.01, 1000), default=1.0, help="price of mass lost or made, in mean costs (default 1.0)")
    add("--n_states", type=states_asked, default=AUTO, help="macrostates of the last phase: auto or 2 to 10 (default auto)")
    add("--n_null", type=cli.number(10, 10000, int), default=100, help="permutations of the phases (default 100)")
    return parser.parse_args(argv)


# --- what decides whether there is anything to do ---------------------------------------------------------------------


def ordered_phases(samples: pd.DataFrame, phases: pd.DataFrame, patient: str) -> list[str]:
    """The patient's phases on the time axis, earliest first."""
    here = set(samples.loc[samples[keys.PATIENT] == patient, keys.PHASE])
    timed = phases[phases["phase"].isin(here) & phases["time"].notna()]
    return timed.sort_values(["time", "order", "phase"], kind="stable")["phase"].tolist()


def read_design(args: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """samples.tsv and phases.tsv, checked."""
    samples, phases = io.read_tsv(args.samples, dtype=str), io.read_tsv(args.phases, dtype=str)
    problems = []
    for path, table, needed in (
        (args.samples, samples, (keys.SAMPLE, keys.PATIENT, keys.PHASE)),
        (args.phases, phases, ("phase", "order", "time")),
    ):
        absent = [name for name in needed if name not in table]
        if absent:
            problems.append(f"{path.name}: no column {', '.join(absent)}; columns are {', '.join(table)}")
    if not problems:
        for name in ("order", "time"):
            try:
                phases[name] = phases[name].astype(float)
            except ValueError as error:
                problems.append(f"{args.phases.name}: column {name}: {error}; expected numbers or nothing")
        mine = samples[samples[keys.PATIENT] == args.patient]
        unknown = sorted(set(mine[keys.PHASE].dropna()) - set(phases["phase"]))
        if mine.empty:
            problems.append(f"{args.samples.name}: no sample of {args.patient}; its patients are those of another run")
        if unknown:
            problems.append(f"{args.phases.name}: no row for phase {', '.join(unknown)} of {args.patient}; add it")
    if problems:
        raise io.InputError("\n  - ".join(["the design cannot be used:", *problems]))
    return samples, phases


def read_tumour(args: argparse.Namespace, samples: pd.DataFrame) -> pd.DataFrame:
    """Tumour cells of the patient, sorted: columns cell, sample, phase (from the cell id, `<sample>:<barcode>`)."""
    calls = io.read_fragment(args.malignant)
    if keys.TUMOUR not in calls:
        raise io.InputError(f"{args.malignant.name}: no column {keys.TUMOUR}; columns are {', '.join(calls)}")
    cells = np.sort(calls.index[calls[keys.TUMOUR].fillna(False).astype(bool)].to_numpy(dtype=str))
    frame = pd.DataFrame({keys.CELL: cells, keys.SAMPLE: [cell.partition(":")[0] for cell in cells]})
    mine = samples[samples[keys.PATIENT] == args.patient]
    frame[keys.PHASE] = frame[keys.SAMPLE].map(dict(zip(mine[keys.SAMPLE], mine[keys.PHASE], strict=True)))
    foreign = frame[frame[keys.PHASE].isna()]
    if len(foreign):
        raise io.InputError(
            f"{args.malignant.name}: {len(foreign)} tumour cells are of no sample of {args.patient} in {args.samples.name}, "
            f"the first is {foreign[keys.CELL].iloc[0]}; both must come from one run"
        )
    return frame


def verdict(phases: list[str], counts: dict[str, int], least: int) -> tuple[str, str]:
    """Status word and reason where there is nothing to do; ("ok", "") where there is."""
    if len(phases) < 2:
        found = f"one phase on the time axis ({phases[0]})" if phases else "no phase on the time axis"
        return keys.SKIPPED_NO_INPUT, f"{found}, two needed"
    if not sum(counts.values()):
        return keys.SKIPPED_NO_INPUT, f"no tumour cells in {', '.join(phases)}"
    if sum(n >= least for n in counts.values()) < 2:
        found = ", ".join(f"{phase} {n}" for phase, n in counts.items())
        return keys.SKIPPED_TOO_FEW_CELLS, f"tumour cells: {found}; {least} needed in each of two phases"
    return keys.OK, ""


def empty_fragment() -> pd.DataFrame:
    """The fragment without rows."""
    kinds = dict.fromkeys(FRAGMENT, np.float32) | {keys.FATE: object}
    return pd.DataFrame({keys.CELL: pd.Series(dtype=object), **{name: pd.Series(dtype=kind) for name, kind in kinds.items()}})


def write_files(patient: str, fragment: pd.DataFrame, tables: dict[str, pd.DataFrame], content: bytes) -> None:
    """Every promised file."""
    io.write_fragment(fragment, Path(f"{patient}.fates.parquet"))
    for name in TABLES:
        io.write_tsv(tables[name], Path(f"{patient}.{name}.tsv"))
    io.write_atomically(Path(f"{patient}.fates.png"), lambda path: path.write_bytes(content))


# --- input of the work itself -----------------------------------------------------------------------------------------


def read_cells(path: Path, cells: np.ndarray, patient: str) -> anndata.AnnData:
    """The rows of merged.h5ad of these cells, in their order."""
    import anndata
    from scipy import sparse

    from scresist import contract

    backed = anndata.read_h5ad(path, backed="r")
    rows = backed.obs_names.get_indexer(pd.Index(cells))
    if (rows < 0).any():
        backed.file.close()
        raise io.InputError(
            f"{path.name}: {(rows < 0).sum()} of {len(cells)} tumour cells of {patient} are not in it, the first is "
            f"{cells[rows < 0][0]}; --malignant and --input must come from one run"
        )
    order = np.argsort(rows)  # h5 files are read in ascending order
    part = backed[rows[order]].to_memory()
    backed.file.close()
    part.X = sparse.csr_matrix(part.X)
    part.layers[keys.COUNTS] = sparse.csr_matrix(part.layers[keys.COUNTS])
    return contract.check(part, path.name, normalised=True)[np.argsort(order)].copy()


def labels_of(path: Path, column: str, cells: np.ndarray) -> np.ndarray:
    """One text column of a fragment for these cells; "" where there is no row or value."""
    fragment = io.read_fragment(path)
    if column not in fragment:
        raise io.InputError(f"{path.name}: no column {column}; columns are {', '.join(fragment)}")
    values = fragment[column].astype(object).reindex(cells)
    return np.array(["" if pd.isna(value) else str(value) for value in values], dtype=object).astype(str)


def module_scores(path: Path | None, cells: np.ndarray) -> pd.DataFrame | None:
    """Module scores of these cells; None where there is no file, no module or no cell of ours."""
    if path is None:
        return None
    fragment = io.read_fragment(path)
    names = [name for name in fragment if name.startswith(keys.MODULE_PREFIX)]
    scores = fragment[names].reindex(cells)
    return scores if names and scores.notna().any(axis=None) else None


def sample_cells(frame: pd.DataFrame, clone: np.ndarray, phases: list[str], most: int, seed: int) -> np.ndarray:
    """Rows to use: of each phase at most so many, every clone with its share; sorted."""
    from scresist import clones

    chosen = []
    for at, phase in enumerate(phases):
        rows = np.flatnonzero((frame[keys.PHASE] == phase).to_numpy())
        chosen.append(rows[clones.stratified(clone[rows], most, seed + at)])
    return np.sort(np.concatenate(chosen))


# --- words ------------------------------------------------------------------------------------------------------------


def sentence_of(word: str, tests: pd.DataFrame, phases: list[str], n_cells: int, fates: list[str]) -> str:
    """What a clinician reads: what resembles the last phase more than chance, or that nothing does."""
    from scresist import fates as kernel

    first, last = phases[0], phases[-1]
    text = f"{status.SENTENCES[word]} {n_cells:,} tumour cells of {', '.join(phases)}."
    rows = tests[
        (tests["control"] == kernel.DATA) & (tests["phase_from"] == first) & (tests["phase_to"] == last)
        & (tests["status"] == keys.OK)
    ]  # fmt: skip
    if rows.empty:  # not to be told as "none resembles"
        text += f" Whether {first} cells resemble the {last} cells could not be estimated: no clone holds enough of both."
        return text + " Resemblance in one patient, over cells: exploratory."
    told = []
    named = {kernel.GROUP_STATE: "state", kernel.GROUP_CLONE: "clone"}
    for row in rows[rows["p_adjusted"] < ALPHA].to_dict("records"):
        more = row["value"] > row["null_mean"]
        if row["measure"] == kernel.DIRECTION and row["group"] == "cytotrace":
            told.append(
                f"{'earlier' if more else 'more differentiated'} {first} cells (by CytoTRACE) resemble the {last} cells more"
            )
        elif row["measure"] == kernel.RESEMBLANCE and row["group_kind"] in named:
            group = f"{first} cells of {named[row['group_kind']]} {row['group']}"
            told.append(f"{group} resemble the {last} cells {'more' if more else 'less'} than others do")
    if told:
        text += " Beyond what permuted phases give: " + "; ".join(told) + "."
    else:
        text += f" No group of {first} cells resembles the {last} cells beyond what permuted phases give."
    if fates:
        text += f" {len(fates)} terminal state{'s' if len(fates) > 1 else ''} of the {last} cells."
    return text + " Resemblance in one patient, over cells: exploratory."


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    who, seed = args.patient, cli.unit_seed(args.seed, STEP, args.patient)
    samples, phase_table = read_design(args)
    wanted = ordered_phases(samples, phase_table, who)
    tumour = read_tumour(args, samples) if len(wanted) > 1 else pd.DataFrame({keys.PHASE: []})
    counts = {phase: int((tumour[keys.PHASE] == phase).sum()) for phase in wanted}
    word, reason = verdict(wanted, counts, args.min_cells_phase)
    phases = [phase for phase in wanted if counts[phase] >= args.min_cells_phase]
    mine = samples[samples[keys.PATIENT] == who]
    from scresist import fates

    if word != keys.OK:
        tables = {
            "couplings": fates.COUPLING_COLUMNS, "macrostates": fates.MACRO_COLUMNS, "fate_tests": fates.FATE_TEST_COLUMNS,
            "fate_drivers": fates.DRIVER_COLUMNS,
        }  # fmt: skip
        empty = {name: pd.DataFrame(columns=list(columns)) for name, columns in tables.items()}
        write_files(who, empty_fragment(), empty, fates.note(f"{who}: no fates were mapped. {reason}."))
        row = status.StatusRow(
            step=STEP, unit_type="patient", unit=who, status=word, reason=reason, n_cells=sum(counts.values()),
            n_samples=len(mine), n_patients=1,
        )  # fmt: skip
        status.write([row], STEP, who)
        provenance.write(provenance.record(STEP, who, args, PACKAGES, unit_seed=seed))
        return 0

    tumour = tumour[tumour[keys.PHASE].isin(phases)].reset_index(drop=True)
    clone = labels_of(args.clones, keys.CLONE, tumour[keys.CELL].to_numpy(dtype=str))
    rows = sample_cells(tumour, clone, phases, args.max_cells, seed)
    tumour, clone = tumour.iloc[rows].reset_index(drop=True), clone[rows]
    cells = tumour[keys.CELL].to_numpy(dtype=str)
    part = read_cells(args.input, cells, who)
    odd = part.obs_names[(part.obs[keys.PHASE].astype(str).to_numpy() != tumour[keys.PHASE].to_numpy())]
    if len(odd):
        raise io.InputError(
            f"{args.input.name}: {len(odd)} cells have another phase than {args.samples.name}, the first is {odd[0]}"
        )
    x, genes = part.X, part.var_names
    depth = np.asarray(part.layers[keys.COUNTS].sum(axis=1), dtype=float).ravel()
    state = labels_of(args.epi_clusters, keys.EPI_CLUSTER, cells)
    subtype = labels_of(args.annotation, keys.SUBTYPE, cells)
    modules = module_scores(args.modules, cells)
    labels = tumour[keys.PHASE].map({phase: at for at, phase in enumerate(phases)}).to_numpy(dtype=int)

    from scresist import neighbours

    if args.space == INTEGRATED:
        points = io.read_latent(args.embedding, pd.Index(cells)).astype(np.float64)
        points -= points.mean(axis=0)
    else:
        points = fates.space(x, genes, tumour[keys.PHASE].to_numpy(dtype=str))
    graph = neighbours.neighbour_weights(points, fates.n_neighbours(len(points)) + 1)
    early = fates.cytotrace(x, graph, list(genes))
    diffusion = fates.diffusion_map(graph)
    last = len(phases) - 1
    order = fates.pseudotime(diffusion, fates.root_cell(points, labels, 0, last))
    depth_rho = fates.spearman(early, depth)

    # couplings, used and (as a diagnostic) free of clones
    rules = fates.Rules(args.reg, args.reg_m, args.couple_within_clone == keys.YES, args.min_clone_cells)
    free = fates.Rules(args.reg, args.reg_m, False, args.min_clone_cells)
    cost = fates.relative_cost(points)
    pairs = fates.phase_pairs(len(phases))
    used = {pair: fates.couple(cost, labels, clone, pair, rules) for pair in pairs}
    listed = [(phases[a], phases[b], fates.USED, used[(a, b)]) for a, b in pairs]
    if rules.within_clone and len({*clone} - {""}) > 1:
        listed += [
            (phases[a], phases[b], fates.FREE, fates.couple(cost, labels, clone, (a, b), free, own=False)) for a, b in pairs
        ]
    couplings = fates.coupling_table(who, listed, {fates.GROUP_CLONE: clone, fates.GROUP_STATE: state})
    to_last = np.full(len(cells), np.nan)
    for a in range(last):
        coupling = used.get((a, last)) or fates.couple(cost, labels, clone, (a, last), rules)
        to_last[coupling.rows] = coupling.resemblance()

    # states and fates
    steps = [used[(at, at + 1)] for at in range(last)]
    keep = fates.linked(steps, labels)
    if any(not (keep & (labels == at)).any() for at in range(last + 1)):
        found = fates.nothing(len(cells), "no clone reaches from the first phase to the last")
    else:
        matrix = fates.chain(points, labels, early, steps, keep)
        found = fates.states(matrix, labels, keep, None if args.n_states == AUTO else args.n_states)
    names = found.fates
    ends = [np.asarray(cells_of) for cells_of, is_end in zip(found.cells, found.terminal, strict=True) if is_end]
    likeness = fates.likeness(graph, ends) if len(ends) > 1 else np.zeros((len(cells), 0))
    groups = {fates.GROUP_CLONE: clone, fates.GROUP_STATE: state, fates.GROUP_THIRD: fates.thirds(early)}
    tested = fates.Cells(cost, points, groups, early, diffusion, likeness, tuple(names) if len(ends) > 1 else ())
    tests = fates.fate_tests(who, tested, labels, phases, rules, args.n_null, seed, found.probability)
    macro = fates.describe_states(
        who, found, {"clone": clone, "epi_cluster": state, "subtype": subtype}, modules,
    )  # fmt: skip
    base = np.flatnonzero(labels == 0)
    driven = [(fates.LATER, to_last)] + [(f"{who}.{n}", found.probability[:, at]) for at, n in enumerate(names) if len(names) > 1]
    parts = [
        fates.top_drivers(who, fate, fates.drivers(x[base], list(genes), values[base], clone[base])) for fate, values in driven
    ]
    parts = [table for table in parts if len(table)]
    drivers = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(fates.DRIVER_COLUMNS))

    fragment = pd.DataFrame({keys.CELL: cells, keys.CYTOTRACE: early, PSEUDOTIME: order, RESEMBLANCE: to_last})
    fragment[keys.FATE], fragment[keys.FATE_PROBABILITY] = pd.Series([None] * len(cells), dtype=object), np.nan
    if names:
        known = np.flatnonzero(np.isfinite(found.probability).all(axis=1))
        best = found.probability[known].argmax(axis=1)
        fragment.loc[known, keys.FATE] = [f"{who}.{names[at]}" for at in best]
        fragment.loc[known, keys.FATE_PROBABILITY] = found.probability[known, best]
    for name in FRAGMENT:
        if name != keys.FATE:
            fragment[name] = fragment[name].astype(np.float32)
    given = dict(zip(phase_table["phase"], phase_table["colour"], strict=True)) if "colour" in phase_table else {}
    from scresist import figures

    palette = figures.colours(phases, {**figures.PHASE_COLOURS, **{p: c for p, c in given.items() if isinstance(c, str) and c}})
    xy = points[:, :2] if args.space == PCA else fates.principal_components(points, 2)
    xy = np.pad(xy, ((0, 0), (0, 2 - xy.shape[1])))  # cells along one line have one component
    shown = fragment[keys.FATE].fillna("").to_numpy(dtype=str)
    content = fates.picture(who, xy, tumour[keys.PHASE].to_numpy(dtype=str), palette, early, to_last, shown, phases[-1])
    tables = {"couplings": couplings, "macrostates": macro, "fate_tests": tests, "fate_drivers": drivers}
    write_files(who, fragment, tables, content)

    notes = []
    dropped = [f"{phase} ({counts[phase]})" for phase in wanted if phase not in phases]
    if dropped:
        notes.append(f"left out: {', '.join(dropped)} tumour cells, {args.min_cells_phase} needed")
    if not {*clone} - {""}:
        notes.append("no clones: all cells are coupled together")
    if np.isfinite(depth_rho) and abs(depth_rho) > DEPTH_RHO:
        notes.append(f"CytoTRACE follows the depth of the cells (Spearman {depth_rho:.2f}): read it as depth")
    without = int((~keep).sum())
    if without:
        notes.append(f"{without} cells have no later counterpart and no fate: their clone is not found later")
    kinds = couplings[(couplings["coupling"] == fates.USED) & (couplings["group_kind"] == fates.GROUP_CLONE)]
    for (a, b), pair in kinds.groupby(["phase_from", "phase_to"], sort=False):
        changed = pair["mass_changed"].iloc[0]
        if changed > CHANGED:
            notes.append(f"{changed:.0%} of the mass from {a} to {b} changes clone: these clones are not found in both phases")
    word = keys.WARNING if notes else keys.OK
    if found.reason:
        word = keys.NO_TERMINAL_STATE
        notes.insert(0, found.reason)
    row = status.StatusRow(
        step=STEP, unit_type="patient", unit=who, status=word, reason="; ".join(notes), n_cells=len(cells),
        n_samples=int(tumour[keys.SAMPLE].nunique()), n_patients=1, sentence=sentence_of(word, tests, phases, len(cells), names),
    )  # fmt: skip
    status.write([row], STEP, who)
    more = {
        "depth_rho": None if np.isnan(depth_rho) else round(depth_rho, 4),
        "cells_per_phase": {p: int(n) for p, n in zip(phases, np.bincount(labels), strict=True)},
    }
    provenance.write(provenance.record(STEP, who, args, PACKAGES, unit_seed=seed, **more))
    return 0


if __name__ == "__main__":
    cli.run(main)
