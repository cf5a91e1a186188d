#!/usr/bin/env python3
"""Draw a cohort with planted truth: 9 patients, 11 samples in the phases PRE, RES, PRE-R, POST, or a design of your own.

    simulate_cohort.py --positions assets/gene_positions.tsv.gz --arms assets/arms.tsv --markers assets/markers.tsv
        --cell_cycle assets/cell_cycle.tsv --seed 1

Writes `cohort/` (samplesheet.csv and one 10x folder per sample: the input of the pipeline), `evidence/` (a bulk cohort with
outcome, plates of cell lines, stained fields) and `truth/` (what was planted; no analysis step reads it). Equal options
and seed give equal bytes. A sample's counts follow from the seed, its own row of the design, whether its patient has further
phases and the number of genes: other patients can come and go.

--design: a table (.csv, or tab-separated) with the columns sample, patient, phase and, where wanted, batch, n_cells (droplets;
empty = about --n_cells), depth (factor on counts per cell), epithelial (factor on the odds of the epithelial share), tumour
(`clones`, the default; `quiet`: malignant cells without copy-number events; `none`: no malignant cells; one word per patient),
response, treated, saturation_pct, reads_in_cells_pct. The phases RES, POST and PRE-R differ from all others in the shares of the
cell types (scresist/simulation.py, PHASE_SHIFTS), in genes, modules, clones and signals (scresist/simulation_tumour.py) and along
a path of differentiation (scresist/simulation_path.py).
"""

from __future__ import annotations

import argparse
import functools
import gzip
import io as std_io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.io import mmwrite

from scresist import cli, io, keys, provenance, simulation, simulation_cycle, simulation_path, simulation_tumour, status
from scresist import simulation_evidence_survival as bulk_survival
from scresist import simulation_evidence_wet as wet

STEP = "simulate_cohort"
MIN_CELLS_SAMPLE = 50  # FILTER_CELLS: a sample with fewer cells leaves the cohort
REQUIRED = ["sample", "patient", "phase"]
OPTIONAL = ["batch", "n_cells", "depth", "epithelial", "tumour", "response", "treated", "saturation_pct", "reads_in_cells_pct"]
SHEET = ["sample", "patient", "phase", "path", "batch", "response", "treated", "saturation_pct", "reads_in_cells_pct"]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the script."""
    made = cli.parser(__doc__)
    made.add_argument("--positions", type=Path, required=True, help="assets/gene_positions.tsv.gz")
    made.add_argument("--arms", type=Path, required=True, help="assets/arms.tsv: chromosome arms (chromosome, arm, start, end)")
    made.add_argument("--markers", type=Path, required=True, help="assets/markers.tsv")
    made.add_argument("--cell_cycle", type=Path, required=True, help="assets/cell_cycle.tsv: gene, phase (S or G2M)")
    made.add_argument("--design", type=Path, help="your own design; default: the demo cohort")
    made.add_argument("--n_cells", type=cli.number(1, 20000, int), default=450, help="mean droplets per sample (default 450)")
    made.add_argument("--n_genes", type=cli.number(1, 30000, int), default=6500, help="genes (default 6500)")
    return made.parse_args(argv)


def read_positions(path: Path) -> pd.DataFrame:
    """The position table, start and end as numbers (missing where unknown)."""
    table = io.read_tsv(path, dtype={"symbol": str, "gene_id": str, "chromosome": str})
    missing = [name for name in ("symbol", "gene_id", "chromosome", "start", "end") if name not in table]
    if missing:
        raise io.InputError(f"{path}: columns {', '.join(missing)} are missing; found {', '.join(table.columns)}")
    return table.assign(gene_id=table["gene_id"].fillna(""))


def read_arms(path: Path) -> pd.DataFrame:
    """The table of chromosome arms."""
    table = io.read_tsv(path, dtype={"chromosome": str, "arm": str})
    missing = [name for name in ("chromosome", "arm", "start", "end") if name not in table]
    if missing:
        raise io.InputError(f"{path}: columns {', '.join(missing)} are missing; found {', '.join(table.columns)}")
    return table


def read_design(path: Path) -> pd.DataFrame:
    """A user's design with all columns of the demo design.

    Raises
    ------
    InputError
        listing every problem with its row.
    """
    separator = "," if path.suffix == ".csv" else "\t"
    table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    missing = [name for name in REQUIRED if name not in table]
    unknown = [name for name in table if name not in REQUIRED + OPTIONAL]
    problems = []
    if missing:
        problems.append(f"columns {', '.join(missing)} are missing; found {', '.join(table.columns)}")
    if unknown:
        problems.append(f"columns {', '.join(unknown)} are unknown; known are {', '.join(REQUIRED + OPTIONAL)}")
    if problems:
        raise io.InputError(f"{path}:\n  - " + "\n  - ".join(problems))
    if table.empty:
        raise io.InputError(f"{path}: no sample below the header; expected one row per sample")
    out = table.reindex(columns=REQUIRED + OPTIONAL, fill_value="")
    for index, row in table.iterrows():
        for name in [*REQUIRED, "batch"]:
            value = row.get(name, "")
            if (value or name != "batch") and not cli.ID_PATTERN.match(value):
                problems.append(f"row {index + 2}, {name}: {value!r} is not an id (letters, digits, `_`, `.`, `-`)")
        for name, low, high, kind in (
            ("n_cells", 0, 20000, int),
            ("depth", 0.01, 100, float),
            ("epithelial", 0.01, 100, float),
            ("saturation_pct", 0, 100, float),
            ("reads_in_cells_pct", 0, 100, float),
        ):
            try:
                if row.get(name, ""):
                    cli.number(low, high, kind)(row[name])
            except argparse.ArgumentTypeError as error:
                problems.append(f"row {index + 2}, {name}: {error}")
    for name in sorted(set(table.loc[table["sample"].duplicated(), "sample"])):
        problems.append(f"sample {name} occurs {(table['sample'] == name).sum()} times; every sample has one row")
    out["tumour"] = out["tumour"].replace("", simulation_tumour.HAS_CLONES)
    for index, word in out["tumour"].items():
        if word not in simulation_tumour.KINDS:
            problems.append(f"row {index + 2}, tumour: {word!r} is not one of {', '.join(simulation_tumour.KINDS)}")
    for name, words in out.groupby("patient")["tumour"].unique().items():
        if len(words) > 1:
            problems.append(f"patient {name} has the tumours {', '.join(sorted(words))}; all samples of a patient share one")
    if problems:
        raise io.InputError(f"{path}:\n  - " + "\n  - ".join(problems))
    for name in ("n_cells", "depth", "epithelial", "saturation_pct", "reads_in_cells_pct"):
        out[name] = pd.to_numeric(out[name].replace("", None))
    return out.fillna({"depth": 1.0, "epithelial": 1.0}).assign(size=1.0)


def write_gzip(path: Path, data: bytes) -> None:
    """Write gzip without time and name in its header: equal data, equal bytes."""
    buffer = std_io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=1, mtime=0) as stream:
        stream.write(data)
    io.write_atomically(path, lambda p: p.write_bytes(buffer.getvalue()))


def write_10x(folder: Path, counts: np.ndarray, genes: pd.DataFrame, names: list[str]) -> None:
    """Write droplets x genes as a Cell Ranger 3 folder (genes x barcodes)."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = std_io.BytesIO()
    mmwrite(buffer, sparse.csc_matrix(counts.T), field="integer", symmetry="general")
    write_gzip(folder / "matrix.mtx.gz", buffer.getvalue())
    ids = genes["gene_id"].where(genes["gene_id"] != "", genes["symbol"])
    lines = "".join(f"{i}\t{s}\tGene Expression\n" for i, s in zip(ids, genes["symbol"], strict=True))
    write_gzip(folder / "features.tsv.gz", lines.encode())
    write_gzip(folder / "barcodes.tsv.gz", "".join(f"{name}\n" for name in names).encode())


def expected_status(n_good: int) -> str:
    """What the pipeline should say of a sample with `n_good` good cells."""
    return keys.OK if n_good >= MIN_CELLS_SAMPLE else keys.SKIPPED_TOO_FEW_CELLS


def shift_table(
    model: simulation.Model, batches: dict[str, np.ndarray], tumours: dict[str, np.ndarray], phases: list[str]
) -> pd.DataFrame:
    """Planted effects in long form: kind (batch, tumour, proportion), unit, feature (gene or main type), log_fold (ln)."""
    symbols = model.genes["symbol"].to_numpy()
    rows = [(("batch", unit), symbols, effect) for unit, effect in sorted(batches.items())]
    rows += [(("tumour", unit), symbols[effect != 0], effect[effect != 0]) for unit, effect in sorted(tumours.items())]
    for phase in phases:
        shifts = simulation.PHASE_SHIFTS.get(phase, {})
        rows.append((("proportion", phase), np.array(list(shifts), dtype=object), np.array(list(shifts.values()), dtype=float)))
    return pd.concat(
        [pd.DataFrame({"kind": k, "unit": u, "feature": f, "log_fold": v}) for (k, u), f, v in rows if len(f)], ignore_index=True
    )


def patient_tumours(
    design: pd.DataFrame, arm: np.ndarray, demo: bool, rng: Callable[..., np.random.Generator]
) -> dict[str, simulation_tumour.Tumour]:
    """Patient -> tumour: written down for the demo, else drawn from the seed and the patient's name."""
    if demo:
        return {name: simulation_tumour.DEMO_TUMOURS[name] for name in sorted(set(design["patient"]))}
    kinds = design.drop_duplicates("patient").set_index("patient")["tumour"].sort_index()
    return {name: simulation_tumour.draw_tumour(name, kind, arm, rng("patient", name, "clones")) for name, kind in kinds.items()}


def write_tumour_truth(
    truth: Path,
    cells: pd.DataFrame,
    model: simulation.Model,
    plan: simulation_tumour.Plan,
    clones: dict[str, simulation_tumour.Tumour],
    path: pd.Series,
    cycle: dict[str, np.ndarray],
    design: pd.DataFrame,
) -> None:
    """Truth tables of what `plant` planted in tumour cells, and of the shares of the types."""
    phases = sorted(set(design["phase"]))
    of_patient = {name: sorted(set(group["phase"])) for name, group in design.groupby("patient")}
    events = [made.events.assign(patient=name) for name, made in clones.items()]
    symbols = model.genes["symbol"].tolist()
    moved = [simulation_tumour.expression_table(plan, phases), simulation_cycle.cycle_table(symbols, cycle, phases)]
    moved = [table for table in moved if len(table)] or moved[:1]
    tables = {
        "clones.tsv": simulation_tumour.clone_table(cells, design, clones),
        "clone_events.tsv": pd.concat(events, ignore_index=True)[["patient", "clone", "arm", "copy_number", "kind"]],
        "clone_changes.tsv": simulation_tumour.change_table(clones, of_patient),
        "expression.tsv": pd.concat(moved, ignore_index=True),
        "modules.tsv": simulation_tumour.module_table(plan),
        "marker.tsv": simulation_tumour.marker_table(plan),
        "panels.tsv": simulation_tumour.panel_table(plan, model, phases),
        "signals.tsv": simulation_tumour.signal_table(plan, phases),
        "shares.tsv": simulation.share_table(phases),
        "path.tsv": simulation_path.path_table(path),
        "tumours.tsv": pd.DataFrame({"patient": list(clones), "kind": [made.kind for made in clones.values()]}),
    }
    for name, table in tables.items():
        io.write_tsv(table, truth / name)


def plant(
    log_mean: np.ndarray,
    cells: pd.DataFrame,
    phase: str,
    made: simulation_tumour.Tumour,
    effects: np.ndarray,
    plan: simulation_tumour.Plan,
    path: pd.Series,
    cycle: dict[str, np.ndarray],
    rng: Callable[..., np.random.Generator],
) -> tuple[np.ndarray, pd.DataFrame]:
    """All of the tumour, then division and the path: the step `further` of `simulation.simulate_sample`."""
    log_mean, cells = simulation_tumour.plant(log_mean, cells, phase, made, effects, plan, rng("tumour"))
    log_mean, cells = simulation_cycle.plant_cycle(log_mean, cells, phase, cycle, rng("cycle"))
    if not path.any():
        return log_mean, cells.assign(path_time=np.nan)
    return simulation_path.plant_path(log_mean, cells, phase, path, rng("path"))


def write_evidence(
    folder: Path,
    truth: Path,
    model: simulation.Model,
    plan: simulation_tumour.Plan,
    design: pd.DataFrame,
    rng: Callable[..., np.random.Generator],
) -> None:
    """What a study has beside its cells: other patients' outcome, plates of cell lines, stained fields; and their truth."""
    folder.mkdir(exist_ok=True)
    loading = plan.loading[simulation_tumour.MARKER_MODULE]
    companions = sorted(loading.index[loading != 0])
    every = [gene for gene in model.genes["symbol"] if gene not in set(companions)]
    asked = [gene for gene in ("ERBB2", "MKI67") if gene in every]  # --survival_markers asks for them
    others = [*asked, *every[:: max(1, len(every) // 200)]]
    made = bulk_survival.bulk_cohort(rng("bulk"), marker=simulation_tumour.MARKER, companions=companions, genes=others)
    io.write_tsv(made.clinical, folder / "bulk_clinical.tsv")
    io.write_tsv_gz(made.expression.rename_axis("gene").reset_index(), folder / "bulk_expression.tsv.gz")
    head = "dataset,clinical,expression,endpoint,covariates,groups"
    sheet = f"{head}\nbulk,bulk_clinical.tsv,bulk_expression.tsv.gz,PFS,age,stage\n"
    io.write_atomically(folder / "survival.csv", lambda p: p.write_text(sheet, encoding="utf-8"))
    wells, planted_wells = wet.plates(functools.partial(rng, "plates"))
    samples = design[["sample", "patient", "phase"]].sort_values("sample")
    fields, planted_fields = wet.staining(samples, functools.partial(rng, "staining"))
    for table, name in ((wells, "plates"), (fields, "staining")):
        io.write_tsv(table, folder / f"{name}.tsv")
    for table, name in ((made.truth, "survival"), (planted_wells, "dose_response"), (planted_fields, "staining")):
        io.write_tsv(table, truth / f"{name}.tsv")


def route_table(design: pd.DataFrame, clones: dict[str, simulation_tumour.Tumour]) -> pd.DataFrame:
    """patient, contrast, route, planted (yes, no): which routes of resistance a patient with PRE and POST biopsies has.

    A clone that expands and had the program before (not in a tumour of one clone), a module that moves within clones and division
    that stops during response, signals and shares that change are planted in each; so is the loss of the target, but neither
    EMT, metabolism nor growth beyond that of the baseline.
    """
    rows = []
    for patient, group in design.groupby("patient"):
        if {"PRE", "POST"} <= set(group["phase"]) and clones[patient].kind == simulation_tumour.HAS_CLONES:
            several = bool(clones[patient].carried().any())
            for route in ("pre_existing_clone", "reprogramming", "microenvironment", "target_loss"):
                planted = route != "pre_existing_clone" or several
                rows.append((patient, "POST_vs_PRE", route, keys.YES if planted else keys.NO))
            rows += [(patient, "POST_vs_PRE", line, keys.NO) for line in ("emt", "metabolism", "proliferation")]
    return pd.DataFrame(rows, columns=["patient", "contrast", "route", "planted"])


def main(argv: list[str] | None = None) -> int:
    """Simulate and write; 0 when done."""
    args = parse_args(argv)
    cli.limit_threads(args.threads)
    design = simulation.DEMO_DESIGN if args.design is None else read_design(args.design)
    positions = read_positions(args.positions)
    markers = io.read_tsv(args.markers, dtype=str).fillna("")

    def rng(*unit: str) -> np.random.Generator:
        return np.random.default_rng(cli.unit_seed(args.seed, STEP, "/".join(unit)))

    try:
        states = simulation.state_table(markers)
        genes = simulation.choose_genes(positions, markers, args.n_genes, simulation.background_needed(states))
    except ValueError as error:
        raise io.InputError(f"{args.positions.name}, {args.markers.name}: {error}") from error
    model = simulation.build_model(genes, states, markers, rng("model"))
    arm = simulation_tumour.arm_of_genes(model.genes, read_arms(args.arms))
    try:
        plan = simulation_tumour.make_plan(model, rng("plan"))
        clones = patient_tumours(design, arm, args.design is None, rng)
    except ValueError as error:
        raise io.InputError(f"--n_genes {args.n_genes}: {error}") from error
    path = simulation_path.make_path(model, rng("path"))
    followed = design.groupby("patient")["phase"].nunique() >= simulation_path.MIN_PHASES
    batches = {name: simulation.batch_effect(model.genes, rng("batch", name)) for name in sorted(set(design["batch"]) - {""})}
    reserved = plan.reserved() | (path != 0).to_numpy()
    lists = io.read_tsv(args.cell_cycle, dtype=str).groupby("phase")["gene"].apply(list).to_dict()
    cycle = simulation_cycle.cycle_genes(model.genes["symbol"].tolist(), reserved, lists)
    tumours = {name: simulation.tumour_effect(model.genes, reserved, rng("patient", name)) for name in clones}
    clone_effects = {name: simulation_tumour.clone_effects(made, arm) for name, made in clones.items()}

    cohort, truth = Path("cohort"), Path("truth")
    truth.mkdir(exist_ok=True)
    all_cells, samples, shares_tables = [], [], []
    for row in design.sort_values("sample").itertuples():
        source = rng("sample", row.sample)
        drawn_size = simulation.draw_size(args.n_cells * row.size, source)  # drawn always: a given size moves no other draw
        made = clones[row.patient]
        further = functools.partial(
            plant,
            phase=row.phase,
            made=made,
            effects=clone_effects[row.patient],
            plan=plan,
            path=path if followed[row.patient] else path * 0.0,
            cycle=cycle,
            rng=functools.partial(rng, "sample", row.sample),
        )
        counts, cells, drawn, shares = simulation.simulate_sample(
            model,
            row.phase,
            drawn_size if pd.isna(row.n_cells) else int(row.n_cells),
            row.depth,
            tumours[row.patient],
            batches.get(row.batch, np.zeros(len(model.genes))),
            source,
            epithelial=row.epithelial,
            malignant_share=0.0 if made.kind == simulation_tumour.TUMOUR_FREE else simulation.MALIGNANT_SHARE,
            further=further,
        )
        write_10x(cohort / row.sample, counts, model.genes, list(cells["barcode"]))
        good = ~(cells["is_doublet"] | cells["is_poor"])
        identity = {"sample": row.sample, "patient": row.patient, "phase": row.phase, "batch": row.batch or "none"}
        cells.insert(0, keys.CELL, [f"{row.sample}:{barcode}" for barcode in cells.pop("barcode")])
        for position, (name, value) in enumerate(identity.items(), start=1):
            cells.insert(position, name, value)
        all_cells.append(cells)
        samples.append(
            {
                **identity,
                "depth": row.depth,
                "n_cells": len(cells),
                "n_good": int(good.sum()),
                "n_doublets": int(cells["is_doublet"].sum()),
                "n_heterotypic": int((cells["doublet_kind"] == simulation.HETEROTYPIC).sum()),
                "n_poor": int(cells["is_poor"].sum()),
                "median_genes": float(np.median((counts[good] > 0).sum(axis=1))) if good.any() else np.nan,
                **drawn,
                "expected_status": expected_status(int(good.sum())),
            }
        )
        n = cells.loc[good, "main_type"].value_counts().reindex(shares.index, fill_value=0)
        shares_tables.append(
            pd.DataFrame(
                {"sample": row.sample, "main_type": shares.index, "expected_share": shares.to_numpy(), "n_cells": n.to_numpy()}
            )
        )

    filled = [cells for cells in all_cells if len(cells)] or all_cells[:1]  # an empty frame would loosen the column types
    every_cell = pd.concat(filled, ignore_index=True)
    io.write_fragment(every_cell, truth / "cells.parquet")
    write_evidence(Path("evidence"), truth, model, plan, design, functools.partial(rng, "evidence"))
    io.write_tsv(route_table(design, clones), truth / "routes.tsv")
    write_tumour_truth(truth, every_cell, model, plan, clones, path, cycle, design)
    io.write_tsv(pd.DataFrame(samples), truth / "samples.tsv")
    io.write_tsv(pd.concat(shares_tables, ignore_index=True), truth / "proportions.tsv")
    gene_table = model.genes.rename(columns={"symbol": "gene"}).assign(dispersion=model.dispersion)
    io.write_tsv(gene_table.astype({"start": "Int64", "end": "Int64"}), truth / "genes.tsv")
    io.write_tsv(model.programs, truth / "programs.tsv")
    io.write_tsv(shift_table(model, batches, tumours, sorted(set(design["phase"]))), truth / "shifts.tsv")
    sheet = design.assign(path=design["sample"])[SHEET]
    # a column that nobody filled says nothing: leave it out
    sheet = sheet[[c for c in SHEET if c in [*REQUIRED, "path"] or (sheet[c].notna() & (sheet[c] != "")).any()]]
    io.write_atomically(cohort / "samplesheet.csv", lambda p: sheet.to_csv(p, index=False, lineterminator="\n"))

    total = int(sum(row["n_cells"] for row in samples))
    rows = [status.StatusRow(STEP, "cohort", "cohort", keys.OK, "", total, len(samples), len(tumours))]
    status.write(rows, STEP, "cohort")
    provenance.write(provenance.record(STEP, "cohort", args, ["numpy", "pandas", "scipy", "pyarrow"]))
    return 0


if __name__ == "__main__":
    cli.run(main)
