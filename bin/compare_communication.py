#!/usr/bin/env python3
"""Which signalling pathways gain or lose between phases: information flow, its tests, who sends and receives.

Writes flow.tsv, ranknet.tsv, pathway_drivers.tsv, comm_phase.tsv and comm_absent.tsv.

Example: compare_communication.py --input merged.h5ad --annotation annotation.parquet --lr_table lr_pathways.tsv
--lr_prob PRE-1.lr_prob.tsv.gz POST-1.lr_prob.tsv.gz --groups PRE-1.comm_groups.tsv POST-1.comm_groups.tsv --samples samples.tsv
--phases phases.tsv --contrasts contrasts.tsv
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

from scresist import cli, comparison, contract, io, keys, provenance, status

STEP = "compare_communication"
TABLES = ("flow.tsv", "ranknet.tsv", "pathway_drivers.tsv", "comm_phase.tsv", "comm_absent.tsv")
# Rows that carry a change, per pathway; all of them stand in the <sample>.lr_prob.tsv.gz
MOST = {"pair": 10, "sender": 10, "receiver": 10, "types": 10, "interaction": 5}
MOST_OTHER = 3  # the same of a pathway that the pair table does not name
MOST_OVERALL = 50  # interactions of a whole comparison
HEADLINE = 8  # pathways of each comparison whose matrices are written
LEADING = 3  # senders and receivers per pathway and phase
ONE_WAY, ONE_WAY_FROM = 0.8, 8  # share of changed pathways in one direction, and how many there must be, for a remark


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--annotation", required=True, type=Path, help="annotation.parquet of ANNOTATE_CELLS")
    add("--lr_table", required=True, type=Path, help="pairs, families of ligands, or CellChatDB's interaction table, as scored")
    add("--lr_complexes", type=Path, help="CellChatDB's table of complexes, with its interaction table")
    add("--lr_cofactors", type=Path, help="CellChatDB's table of cofactors, with its interaction table")
    add("--lr_version", default="", help="keep pairs whose version ends with this text, e.g. v1 (default all)")
    add("--lr_prob", nargs="*", default=[], type=Path, help="<sample>.lr_prob.tsv.gz of SCORE_COMMUNICATION, all samples")
    add("--groups", nargs="*", default=[], type=Path, help="<sample>.comm_groups.tsv of SCORE_COMMUNICATION, all samples")
    add("--samples", required=True, type=Path, help="samples.tsv of CHECK_DESIGN")
    add("--phases", required=True, type=Path, help="phases.tsv of CHECK_DESIGN")
    add("--contrasts", required=True, type=Path, help="contrasts.tsv of CHECK_DESIGN")
    add("--groupby", default=keys.SUBTYPE, choices=(keys.MAIN_TYPE, keys.SUBTYPE), help="column of types (default subtype)")
    add("--kh", type=cli.number(1e-6, 100), default=0.5, help="half-saturation of the Hill function (default 0.5)")
    add("--no_cofactors", action="store_true", help="leave out agonists, antagonists and co-receptors, as in the scoring")
    add("--flow_p", type=cli.number(0, 1), default=0.05, help="largest p of a link that counts (default 0.05)")
    add("--n_perms", type=cli.number(0, 10**5, int), default=1000, help="permutations of cells between samples (default 1000)")
    add("--n_draws", type=cli.number(0, 10**4, int), default=20, help="draws of equal cell numbers per type (default 20)")
    add("--min_common_pairs", type=cli.number(1, 10**4, int), default=4, help="pairs of types in common needed (default 4)")
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Scored:
    """What SCORE_COMMUNICATION found in all samples: significant links, groups, which type was estimable where."""

    links: pd.DataFrame
    groups: pd.DataFrame
    listed: pd.DataFrame  # types x samples: whether the type was estimable there
    estimable: pd.DataFrame  # the same of the usable samples
    unusable: tuple[str, ...]  # samples in which fewer than two types could be estimated


@dataclass(frozen=True)
class Cells:
    """Values of the pair table's genes (log1p, unscaled), and type and sample of each cell."""

    values: sparse.csr_matrix
    types: np.ndarray
    samples: np.ndarray


def scored(args: argparse.Namespace, samples: pd.DataFrame) -> Scored:
    """The files of all samples, checked against each other and the design."""
    from scresist import flow

    problems: list[str] = []
    text = dict.fromkeys((keys.SAMPLE, keys.PATIENT, keys.PHASE, "cell_type", "estimable"), str)
    groups: list[pd.DataFrame] = []
    for path in sorted(args.groups, key=lambda p: p.name):
        frame = io.read_tsv(path, dtype=text)
        found = flow.check_groups(frame, path.name)
        problems += found
        if not found:
            groups.append(frame)
    links = []
    names = dict.fromkeys((keys.SAMPLE, "source", "target", "pair", "pathway", "ligand", "receptor"), "category")
    for path in sorted(args.lr_prob, key=lambda p: p.name):
        frame = io.read_tsv(path, dtype=names)
        found = flow.check_links(frame, path.name)
        problems += found
        if not found:
            kept = flow.significant(frame, args.flow_p)
            links.append(kept.astype(dict.fromkeys(kept.columns.drop("prob"), str)))
    if not problems and groups:
        problems += mismatch(pd.concat(groups, ignore_index=True), links, samples)
        problems += flow.unlisted(pd.concat(groups, ignore_index=True)) if not problems else []
    if problems:
        raise io.InputError("communication per sample cannot be compared:\n  - " + "\n  - ".join(problems))
    columns = [c for c in flow.LINK_COLUMNS if c != "pval"]
    links = [frame for frame in links if len(frame)]
    whole = pd.concat(links, ignore_index=True) if links else pd.DataFrame(columns=columns)
    whole = whole.sort_values([keys.SAMPLE, "pair", "source", "target"], ignore_index=True)
    joined = pd.concat(groups, ignore_index=True) if groups else pd.DataFrame(columns=list(flow.GROUP_COLUMNS))
    listed = flow.estimable_types(joined) if len(joined) else pd.DataFrame()
    usable = listed.columns[listed.sum() >= flow.MIN_TYPES].tolist() if len(joined) else []
    return Scored(whole, joined, listed, listed[usable], tuple(sorted(set(samples[keys.SAMPLE]) - set(usable))))


def mismatch(groups: pd.DataFrame, links: list[pd.DataFrame], samples: pd.DataFrame) -> list[str]:
    """Samples that one kind of file knows and another does not; links of types that were not estimable."""
    designed, grouped = set(samples[keys.SAMPLE]), set(groups[keys.SAMPLE])
    linked = {name for frame in links for name in set(frame[keys.SAMPLE])}
    problems = []
    for have, want, text in (
        (grouped, designed, "in comm_groups.tsv but not in samples.tsv"),
        (designed, grouped, "in samples.tsv but without comm_groups.tsv"),
        (linked, grouped, "in lr_prob.tsv.gz but without comm_groups.tsv"),
    ):
        if extra := sorted(have - want):
            problems.append(f"{', '.join(extra)[:200]}: {text}; give the files of this run")
    if groups.duplicated([keys.SAMPLE, "cell_type"]).any():
        problems.append("two comm_groups.tsv hold the same sample; give each sample once")
    known = groups[groups["estimable"] == "true"]
    known = pd.MultiIndex.from_frame(known[[keys.SAMPLE, "cell_type"]])
    for frame in links:
        for column in ("source", "target"):
            strange = ~pd.MultiIndex.from_frame(frame[[keys.SAMPLE, column]]).isin(known)
            if strange.any():
                row = frame[strange].iloc[0]
                problems.append(f"{row[keys.SAMPLE]}: a link of {row[column]}, which comm_groups.tsv calls not estimable")
    return problems


def read_cells(args: argparse.Namespace, found: Scored) -> tuple[Cells, Any]:
    """Values of the genes of the pair table with the labels that SCORE_COMMUNICATION used, and the usable pairs."""
    from scresist import communication, pair_tables

    table = pair_tables.load(args.lr_table, args.lr_complexes, args.lr_cofactors, args.lr_version)
    merged = contract.check(anndata.read_h5ad(args.input), args.input.name, normalised=True)
    if not merged.obs_names.is_monotonic_increasing:
        merged = merged[np.argsort(merged.obs_names.to_numpy(dtype=str), kind="stable")].copy()
    labels = io.join_fragment(merged.obs_names, io.read_fragment(args.annotation, [args.groupby]), args.annotation.name)
    pairs = communication.read_pairs(table, list(merged.var_names))
    values = sparse.csr_matrix(merged.X[:, merged.var_names.get_indexer(list(pairs.genes))])
    type_at = {name: i for i, name in enumerate(found.estimable.index)}
    sample_at = {name: i for i, name in enumerate(found.estimable)}
    types = labels[args.groupby].astype(str).map(type_at).fillna(-1).to_numpy(dtype=np.int64)
    cell_sample = merged.obs[keys.SAMPLE].astype(str)
    samples = cell_sample.map(sample_at).fillna(-1).to_numpy(dtype=np.int64)
    problems = []
    listed = found.groups.set_index([keys.SAMPLE, "cell_type"])["n_cells"].astype(int)
    counted = pd.crosstab(cell_sample.to_numpy(), labels[args.groupby].astype(str).to_numpy()).stack()
    for (sample, name), n in listed.items():
        here = int(counted.get((sample, name), 0))
        if here != n:
            problems.append(f"{sample}: {here} cells of {name} in {args.annotation.name}, {n} in comm_groups.tsv")
    strange = sorted(set(found.links["pair"]) - set(pairs.table["pair"]))
    if strange:
        problems.append(f"{args.lr_table.name}: no pair {', '.join(strange)[:200]}, which lr_prob.tsv.gz holds")
    if problems:
        lines = problems[:20] + [f"and {len(problems) - 20} more"] * (len(problems) > 20)
        raise io.InputError("cells and scored communication differ; give the files of this run:\n  - " + "\n  - ".join(lines))
    return Cells(values, types, samples), pairs


def compare(
    sides: Any,
    contrast: comparison.Contrast | None,
    found: Scored,
    cells: Cells,
    pairs: Any,
    scale: float,
    patient_of: dict[str, str],
    phase_of: dict[str, str],
    phases: list[str],
    args: argparse.Namespace,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, list[str]]:
    """One comparison: flows per sample, rows of ranknet.tsv, contributions of the sides, types in common."""
    from scresist import flow

    samples = sides.all_samples
    types = flow.common_types(found.estimable, samples)
    flows = flow.sample_flows(found.links, samples, types, args.min_common_pairs)
    parts = flow.contributions(found.links, sides, types if len(types) ** 2 >= args.min_common_pairs else [])
    by_side = flow.side_flows(flows, sides)
    by_phase = flow.side_flows(flows, phase_sides(sides, found, patient_of, phase_of, phases))
    present = [p for p in phases if p in {phase_of[s] for s in samples}]
    seed = cli.unit_seed(args.seed, STEP, sides.contrast)
    tested = cell_rows(sides, contrast, found, cells, pairs, scale, types, patient_of, args, seed)
    n_cells = cells_of(found, samples)
    wide = flows.pivot(index="pathway", columns=keys.SAMPLE, values="flow_common").sort_index()
    why = flows.drop_duplicates("pathway").set_index("pathway")
    rows = []
    for pathway in wide.index:
        values = wide.loc[pathway]
        if contrast is None:
            row = flow.phase_test(values, n_cells, sides, patient_of)
        else:
            row = flow.patient_test(values, n_cells, contrast, patient_of, cli.unit_seed(seed, "labels", pathway))
        if why.at[pathway, "status"] != keys.OK:
            row.update(status=keys.NOT_ESTIMABLE, reason=why.at[pathway, "reason"])
        mine = parts[parts["pathway"] == pathway]
        matrix = mine.groupby(["source", "target"], sort=True)[list(range(len(sides.names)))].sum().to_numpy(dtype=float)
        p, name, n = flow.pair_test(matrix) if len(matrix) else (np.nan, "", 0)
        row.update(pathway=pathway, cellchat_pair_p=p, cellchat_pair_test=name, n_type_pairs=n, cell_evidence=keys.CELL_LEVEL)
        rows.append(row)
    frame = pd.DataFrame(rows, columns=[*flow.RANKNET_COLUMNS[:2], *comparison.TEST_COLUMNS[1:], *flow.AFTER_TEST])
    for name in tested:
        frame[name] = frame["pathway"].map(tested[name])
    frame["contrast"] = sides.contrast
    names = frame["pathway"].tolist()
    frame["cell_p_adjusted"] = flow.adjusted(frame["cell_p_value"], names)
    frame["p_adjusted"] = flow.adjusted(frame["p_value"], names)
    frame["adjust_method"] = np.where(flow.named(names), "BH:pathways", "BH:other ligands")
    frame["rank"] = flow.ranked(frame)
    if contrast is not None:
        frame = frame.join(scales(by_side.to_numpy(), ["a", "b"], frame.index))
    frame["phase_max"] = [present[int(np.argmax(v))] if np.isfinite(v).all() and v.max() > 0 else "" for v in by_phase.to_numpy()]
    frame = frame.join(scales(by_phase.to_numpy(), present, frame.index))
    return flow.flow_rows(flows, sides.contrast, patient_of, phase_of), frame, parts, types


def scales(flows: np.ndarray, names: list[str], index: pd.Index) -> pd.DataFrame:
    """flow_, share_ and scaled_ of each side or phase."""
    from scresist import flow

    made = {}
    for kind, values in (("flow", flows), ("share", flow.side_shares(flows)), ("scaled", flow.display_scale(flows))):
        made.update({f"{kind}_{name}": values[:, i] for i, name in enumerate(names)})
    return pd.DataFrame(made, index=index)


def cells_of(found: Scored, samples: list[str]) -> pd.Series:
    """Cells of estimable types by sample: what stands behind a flow."""
    known = found.groups[(found.groups["estimable"] == "true") & found.groups[keys.SAMPLE].isin(samples)]
    return known.groupby(keys.SAMPLE)["n_cells"].sum().astype(float)


def phase_sides(sides: Any, found: Scored, patient_of: dict[str, str], phase_of: dict[str, str], phases: list[str]) -> Any:
    """The samples of a comparison by phase."""
    from scresist import flow

    here = sides.all_samples
    present = [p for p in phases if p in {phase_of[s] for s in here}]
    by = [[s for s in here if phase_of[s] == p] for p in present]
    return flow.sides_of(sides.contrast, present, by, cells_of(found, here), patient_of)


def cell_rows(
    sides: Any,
    contrast: comparison.Contrast | None,
    found: Scored,
    cells: Cells,
    pairs: Any,
    scale: float,
    types: list[str],
    patient_of: dict[str, str],
    args: argparse.Namespace,
    seed: int,
) -> pd.DataFrame:
    """The permutation of cells by pathway; no rows where nothing is to be compared."""
    from scresist import flow

    samples = sides.all_samples
    links = flow.link_set(found.links, samples, types)
    if len(types) ** 2 < args.min_common_pairs or links.empty:
        columns = ["cell_effect", "cell_z", "cell_d", "cell_p_value", "cell_effect_equal", "n_links_tested"]
        return pd.DataFrame(columns=columns, dtype=float)
    type_code = np.full(len(found.estimable.index) + 1, -1)  # the last place answers the code -1
    type_code[[found.estimable.index.get_loc(t) for t in types]] = np.arange(len(types))
    sample_code = np.full(found.estimable.shape[1] + 1, -1)
    sample_code[[found.estimable.columns.get_loc(s) for s in samples]] = np.arange(len(samples))
    kind, sample = type_code[cells.types], sample_code[cells.samples]
    kept = np.flatnonzero((kind >= 0) & (sample >= 0))
    weights = np.zeros((len(sides.names), len(samples)))
    for name, side in sides.side_of.items():
        weights[side, samples.index(name)] = sides.weights[name]
    strata = np.zeros(len(kept), dtype=np.int64)
    if contrast is not None and contrast.paired:
        patients = sorted({patient_of[s] for s in samples})
        strata = np.array([patients.index(patient_of[s]) for s in samples])[sample[kept]]
    made = flow.cell_permutation(
        cells.values[kept] / scale, kind[kept], sample[kept], strata, weights, pairs, links, types, args.n_perms, seed,
        args.threads, args.n_draws, args.kh, cofactors=not args.no_cofactors,
    )  # fmt: skip
    return flow.cell_table(made)


def with_expression(
    drivers: pd.DataFrame, sides: Any, found: Scored, pairs: Any, means: np.ndarray
) -> pd.DataFrame:
    """Expression of ligand (in the sender) and receptor (in the receiver) on both sides, for single interactions."""
    from scresist import flow

    at = {name: i for i, name in enumerate(pairs.table["pair"])}
    sample_at = {name: i for i, name in enumerate(found.estimable)}
    side_means = []
    for side in sides.samples:
        weight = np.array([sides.weights[s] for s in side])
        rows = means[[sample_at[s] for s in side]]
        with np.errstate(invalid="ignore"):
            side_means.append(np.tensordot(weight, rows, axes=1))
    out = drivers.copy()
    values: dict[str, list[float]] = {f"{what}_{x}": [] for what in ("ligand", "receptor") for x in "ab"}
    for row in out.to_dict("records"):
        single = row["level"] == "interaction"
        for what, index, where in (("ligand", pairs.ligand, "source"), ("receptor", pairs.receptor, "target")):
            for letter, mean in zip("ab", side_means, strict=True):
                value = np.nan
                if single:
                    kind = found.estimable.index.get_loc(row[where])
                    value = flow.complex_expression(mean[kind], index[at[row["pair"]]])
                values[f"{what}_{letter}"].append(value)
    for name, column in values.items():
        out[name] = np.array(column, dtype=float)
    return out


def status_row(
    unit: str, word: str, reason: str, sentence: str, found: Scored, samples: list[str], patient_of: dict[str, str]
) -> status.StatusRow:
    """A status row of the cohort or a contrast with the cells, samples and patients behind it."""
    unit_type = "cohort" if unit == "cohort" else "contrast"
    n_cells = int(cells_of(found, samples).sum()) if samples else 0
    return status.StatusRow(
        step=STEP, unit_type=unit_type, unit=unit, status=word, reason=reason, n_cells=n_cells, n_samples=len(samples),
        n_patients=len({patient_of[s] for s in samples}), sentence=sentence,
    )  # fmt: skip


def contrast_status(
    sides: Any, contrast: comparison.Contrast, ranknet: pd.DataFrame, types: list[str], found: Scored, args: argparse.Namespace
) -> tuple[str, str, str]:
    """Word, reason and sentence of one contrast."""
    from scresist import flow

    n_types, everyone = len(types), len(found.estimable.index)
    lost = [t for t in found.estimable.index if t not in types]
    if not all(sides.samples):
        lack = [name for name, side in zip((contrast.side_a, contrast.side_b), sides.samples, strict=True) if not side]
        reason = f"no sample with two estimable types in {' and '.join(lack)}; 1 a side needed"
        return keys.NOT_ESTIMABLE, reason, status.SENTENCES[keys.NOT_ESTIMABLE]
    if n_types**2 < args.min_common_pairs:
        reason = f"{n_types**2} pairs of types in common, {args.min_common_pairs} needed; absent from a sample: "
        reason += status.few(lost)
        return keys.NOT_ESTIMABLE, reason, status.SENTENCES[keys.NOT_ESTIMABLE]
    known = ranknet[ranknet["rank"].notna()]
    known = known[flow.named(known["pathway"].tolist())]
    n_cell = int((known["cell_p_adjusted"] < 0.05).sum())
    n_patient = int((known["p_adjusted"] < 0.05).sum())
    sentence = (
        f"{len(known)} named signalling pathways were compared over the {n_types} of {everyone} cell types that every sample has;"
        f" {n_patient} differ between patients (adjusted p below 0.05), {n_cell} between cells (exploratory)."
    )
    notes = []
    if not contrast.testable or known["p_value"].isna().all():
        notes += [contrast.reason or "no test between patients was possible", *one_way(known)]
        return keys.NO_REPLICATES, "; ".join(notes + ([f"types left out: {status.few(lost)}"] if lost else [])), sentence
    notes += one_way(known)
    if lost:
        notes.append(f"types left out, absent from a sample: {status.few(lost)}")
    if contrast.status == keys.WARNING and contrast.reason:
        notes.append(contrast.reason)
    return (keys.WARNING if notes else keys.OK), "; ".join(notes), sentence


def one_way(known: pd.DataFrame) -> list[str]:
    """A remark where nearly all changed pathways change in one direction: that is depth or quality before it is signalling."""
    changed = known.loc[known["cell_p_adjusted"] < 0.05, "cell_effect"]
    lower = int((changed < 0).sum())
    most = max(lower, len(changed) - lower)
    if len(changed) < ONE_WAY_FROM or most < ONE_WAY * len(changed):
        return []
    side = f"{'lower' if lower == most else 'higher'} on the first side"
    return [f"{most} of {len(changed)} changed pathways are {side}: compare sequencing depth before reading them"]


def write_empty(phases: list[str], absent: pd.DataFrame) -> None:
    """All tables with their header; the list of absent types where it is known."""
    from scresist import flow

    more = [f"{kind}_{phase}" for kind in ("flow", "share", "scaled") for phase in phases]
    for name, columns in zip(
        TABLES, (flow.FLOW_COLUMNS, [*flow.RANKNET_COLUMNS, *more], flow.DRIVER_COLUMNS, flow.PHASE_COLUMNS, None), strict=True
    ):
        io.write_tsv(absent if columns is None else pd.DataFrame(columns=list(columns)), Path(name))


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)  # before numba is imported, which the kernels do
    from scresist import flow

    samples = io.read_tsv(args.samples, dtype=str)
    table = io.read_tsv(args.phases, dtype={"phase": str}).sort_values("order", kind="stable")
    strange = sorted(set(samples[keys.PHASE]) - set(table["phase"]))
    if strange:
        raise io.InputError(f"{args.phases.name}: no row for phase {', '.join(strange)[:200]}; give the table of this run")
    contrasts = comparison.contrasts(io.read_tsv(args.contrasts, dtype=str))
    patient_of = dict(zip(samples[keys.SAMPLE], samples[keys.PATIENT], strict=True))
    phase_of = dict(zip(samples[keys.SAMPLE], samples[keys.PHASE], strict=True))
    found = scored(args, samples)
    usable = [s for s in sorted(patient_of) if s not in found.unusable]
    phases = [p for p in table["phase"] if p in {phase_of[s] for s in usable}]
    size = cells_of(found, usable)

    sides = {
        c.name: flow.sides_of(
            c.name, ("a", "b"), [[s for s in side if s in size.index] for side in (c.samples_a, c.samples_b)], size, patient_of,
            c.paired,
        )
        for c in contrasts
    }  # fmt: skip
    over = flow.sides_of(flow.ALL_PHASES, phases, [[s for s in usable if phase_of[s] == p] for p in phases], size, patient_of)
    run = [*(sides[c.name] for c in contrasts if all(sides[c.name].samples)), *([over] if len(phases) > 1 else [])]
    absent = flow.absent_types(found.groups, found.listed, phase_of, run)
    rows: list[status.StatusRow] = []
    if not run or found.links.empty:
        write_empty(phases, absent)
        reason = f"{len(phases)} phases with a sample of two estimable types or more, 2 needed"
        if run:
            reason = f"no significant link in {len(usable)} samples"
        if found.unusable:
            reason += f"; not usable: {status.few(list(found.unusable))}"
        word = keys.NOT_ESTIMABLE if run else keys.SKIPPED_NO_INPUT
        rows.append(status_row("cohort", word, reason, "", found, usable, patient_of))
    else:
        rows = compared(args, found, contrasts, sides, over, run, phases, patient_of, phase_of, absent)
    status.write(rows, STEP, "cohort")
    packages = ["anndata", "numba", "numpy", "pandas", "scipy"]
    provenance.write(provenance.record(STEP, "cohort", args, packages, unit_seed=cli.unit_seed(args.seed, STEP, "cohort")))
    return 0


def compared(
    args: argparse.Namespace,
    found: Scored,
    contrasts: list[comparison.Contrast],
    sides: dict[str, Any],
    over: Any,
    run: list[Any],
    phases: list[str],
    patient_of: dict[str, str],
    phase_of: dict[str, str],
    absent: pd.DataFrame,
) -> list[status.StatusRow]:
    """All comparisons, their tables, their status rows."""
    from scresist import flow

    cells, pairs = read_cells(args, found)
    scale = float(cells.values.data.max()) if cells.values.nnz else 1.0
    means = flow.mean_expression(cells.values, cells.types, cells.samples, *found.estimable.shape)
    of_name = {c.name: c for c in contrasts}
    flows, ranks, drivers, rows = [], [], [], []
    types: list[str] = []
    gone: dict[str, dict[str, str]] = {}
    for row in absent[absent["contrasts"] != ""].to_dict("records"):
        at = gone.setdefault(row["cell_type"], {})
        at[row[keys.PHASE]] = "; ".join(filter(None, (at.get(row[keys.PHASE]), row["reason"])))
    why = {name: "; ".join(by.values()) for name, by in gone.items()}
    for one in run:
        contrast = of_name.get(one.contrast)
        table, ranknet, parts, types = compare(
            one, contrast, found, cells, pairs, scale, patient_of, phase_of, phases, args
        )
        flows.append(table)
        ranks.append(ranknet)
        if contrast is not None:
            made = flow.driver_rows(parts, one.contrast, MOST, MOST_OVERALL, MOST_OTHER)
            made = flow.stacked([made, flow.absent_driver_rows(found.links, one, types, why)], flow.DRIVER_COLUMNS)
            drivers.append(with_expression(made, one, found, pairs, means))
    ranknet = pd.concat(ranks, ignore_index=True)
    columns = [*flow.RANKNET_COLUMNS, *(f"{kind}_{p}" for kind in ("flow", "share", "scaled") for p in phases)]
    ranknet = ranknet.reindex(columns=columns)
    ranknet["place"] = ranknet["contrast"].map({one.contrast: i for i, one in enumerate(run)})
    ranknet = ranknet.sort_values(["place", "rank", "pathway"], na_position="last", kind="stable", ignore_index=True)
    io.write_tsv(pd.concat(flows, ignore_index=True), Path("flow.tsv"))
    io.write_tsv(ranknet.drop(columns="place"), Path("ranknet.tsv"))
    whole = flow.stacked(drivers, flow.DRIVER_COLUMNS)
    whole = whole.sort_values(["contrast", "pathway", "level", "status", "rank"], kind="stable")
    io.write_tsv(whole, Path("pathway_drivers.tsv"))
    io.write_tsv(absent, Path("comm_absent.tsv"))
    if len(phases) > 1 and run[-1] is over:
        head = sorted(set(ranknet.loc[ranknet["rank"] <= HEADLINE, "pathway"]))
        n_patients = {p: len({patient_of[s] for s in side}) for p, side in zip(phases, over.samples, strict=True)}
        by_phase = flow.side_flows(
            flow.sample_flows(found.links, over.all_samples, types, args.min_common_pairs), over
        )
        matrices = flow.phase_matrices(found.links, over, found.estimable, cells_of(found, over.all_samples), patient_of)
        everyone = found.estimable.index.tolist()
        by_phase = flow.phase_rows(by_phase, over, everyone, matrices, gone, head, n_patients, LEADING)
    else:
        by_phase = pd.DataFrame(columns=list(flow.PHASE_COLUMNS))
    io.write_tsv(by_phase, Path("comm_phase.tsv"))
    for contrast in contrasts:
        one = sides[contrast.name]
        common = flow.common_types(found.estimable, one.all_samples)
        mine = ranknet[ranknet["contrast"] == contrast.name]
        word, reason, sentence = contrast_status(one, contrast, mine, common, found, args)
        rows.append(status_row(contrast.name, word, reason, sentence, found, one.all_samples, patient_of))
    rows.insert(0, cohort_status(found, ranknet, types, absent, run, phases, patient_of))
    return rows


def cohort_status(
    found: Scored,
    ranknet: pd.DataFrame,
    types: list[str],
    absent: pd.DataFrame,
    run: list[Any],
    phases: list[str],
    patient_of: dict[str, str],
) -> status.StatusRow:
    """The row of the cohort: what was compared, what could not be."""
    from scresist import flow

    known = ranknet[ranknet["rank"].notna()]
    n_named = int(flow.named(sorted(set(known["pathway"]))).sum())
    notes = []
    if found.unusable:
        notes.append(f"fewer than two estimable types, not compared: {status.few(list(found.unusable))}")
    gone = absent[absent["absent_from_phase"] == keys.YES].drop_duplicates(["cell_type", keys.PHASE])
    if len(gone):
        pairs_ = [f"{a} in {b}" for a, b in zip(gone["cell_type"], gone[keys.PHASE], strict=True)]
        notes.append(f"cannot be estimated in a whole phase: {status.few(pairs_)}; their part of the flow is left empty")
    word = keys.WARNING if notes else keys.OK
    if known.empty:
        word = keys.NOT_ESTIMABLE
        notes.insert(0, "no comparison has enough pairs of types in common")
    sentence = (
        f"{status.SENTENCES[word]} Signalling was compared over {len(phases)} phases in {known['contrast'].nunique()}"
        f" comparisons; {n_named} named pathways have a significant link. p values over cells are exploratory."
    )
    samples = sorted({s for one in run for s in one.all_samples})
    return status_row("cohort", word, "; ".join(notes), sentence, found, samples, patient_of)


if __name__ == "__main__":
    cli.run(main)
