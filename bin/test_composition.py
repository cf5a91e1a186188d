#!/usr/bin/env python3
"""Shares of cell types per sample, their comparison between patients, and the diversity of samples.

Writes proportions.tsv, composition_tests.tsv, diversity.tsv and beta_diversity.tsv.

Example: test_composition.py --annotation annotation.parquet --samples samples.tsv --phases phases.tsv --contrasts contrasts.tsv
--labels epi_clusters.parquet P1.clones.parquet
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from scresist import cli, comparison, composition, diversity, io, keys, provenance, status

STEP = "test_composition"
TABLES = ("proportions", "composition_tests", "diversity", "beta_diversity")
LEVEL = 0.05  # adjusted p counted in the summary
WORDED = (composition.RANK, composition.PROPELLER + composition.LOGIT, composition.PROPELLER + composition.ARCSIN)


def words(allowed: tuple[str, ...]):
    """argparse type: some of the allowed words, joined by commas, in the order given."""

    def convert(text: str) -> list[str]:
        given = [part.strip() for part in text.split(",") if part.strip()]
        strange = [part for part in given if part not in allowed]
        if strange or not given:
            raise argparse.ArgumentTypeError(f"{text!r}: expected some of {', '.join(allowed)}, joined by commas")
        return list(dict.fromkeys(given))

    return convert


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--annotation", required=True, type=Path, help="annotation.parquet of ANNOTATE_CELLS")
    add("--samples", required=True, type=Path, help="samples.tsv of CHECK_DESIGN")
    add("--phases", required=True, type=Path, help="phases.tsv of CHECK_DESIGN")
    add("--contrasts", required=True, type=Path, help="contrasts.tsv of CHECK_DESIGN")
    add("--labels", nargs="*", default=[], type=Path, help="fragments with further labels (epi_cluster, clone), any number")
    levels = words(composition.LEVELS)
    add("--levels", type=levels, default=list(composition.LEVELS), help="labels to look at, comma-separated (default all)")
    denominators = words((composition.ALL, composition.BY_LINEAGE))
    both = [composition.ALL, composition.BY_LINEAGE]
    add("--denominators", type=denominators, default=both, help="all cells, cells of each lineage (default all,lineage)")
    transforms = words((composition.LOGIT, composition.ARCSIN))
    both = [composition.LOGIT, composition.ARCSIN]
    add("--transform", type=transforms, default=both, help="of the shares for propeller (default logit,arcsin)")
    add("--pseudocount", type=cli.number(1e-6, 10), default=0.01, help="cells added for propeller (default 0.01, as scanpro)")
    add("--min_cells", type=cli.number(1, 10**6, int), default=20, help="cells of the denominator for a test (default 20)")
    add("--rarefy_min", type=cli.number(2, 10**6, int), default=100, help="cells a sample needs for diversity (default 100)")
    return parser.parse_args(argv)


def read_design(args: argparse.Namespace, present: set[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """samples.tsv cut to the samples with cells, and phases.tsv in order; checked against the cells."""
    samples = io.read_tsv(args.samples, dtype=str).fillna("")
    phases = io.read_tsv(args.phases, dtype={"phase": str}).sort_values("order", kind="stable")
    problems = [
        f"{args.samples.name}: no column {name}" for name in (keys.SAMPLE, keys.PATIENT, keys.PHASE) if name not in samples
    ]
    if not problems:
        unknown = sorted(present - set(samples[keys.SAMPLE]))
        strange = sorted(set(samples[keys.PHASE]) - set(phases["phase"]))
        if unknown:
            problems.append(f"{args.samples.name}: no row for the samples {status.few(unknown)}; give the table of this run")
        if strange:
            problems.append(f"{args.phases.name}: no row for the phases {status.few(strange)}; give the table of this run")
    if problems:
        raise io.InputError("design and cells differ:\n  - " + "\n  - ".join(problems))
    here = samples[samples[keys.SAMPLE].isin(present)].sort_values(keys.SAMPLE, kind="stable", ignore_index=True)
    return here, phases


def read_labels(args: argparse.Namespace, cells: pd.Index) -> pd.DataFrame:
    """The further labels as columns of one frame over `cells`, "" where a cell has none."""
    made = pd.DataFrame(index=cells)
    wanted = [level for level in args.levels if level not in (keys.MAIN_TYPE, keys.SUBTYPE)]
    problems = []
    for path in sorted(args.labels, key=lambda p: p.name):
        fragment = io.read_fragment(path)
        found = [level for level in composition.LEVELS[2:] if level in fragment]
        if not found:
            problems.append(f"{path.name}: no column {' or '.join(composition.LEVELS[2:])}; found {', '.join(fragment)[:200]}")
            continue
        strange = fragment.index.difference(cells)
        if len(strange):
            problems.append(f"{path.name}: {len(strange)} cells are not in the annotation, the first is {strange[0]}")
            continue
        for level in found:
            label = fragment[level].astype(object)
            label = label[label.notna() & (label.astype(str) != "")].astype(str)
            if level in made and (made.loc[label.index, level] != "").any():
                problems.append(f"{path.name}: cells that have a {level} in another file too, the first is {label.index[0]}")
                continue
            if level in wanted:
                if level not in made:
                    made[level] = ""
                made.loc[label.index, level] = label
    if problems:
        raise io.InputError("labels cannot be joined:\n  - " + "\n  - ".join(problems))
    return made


def read_cells(args: argparse.Namespace) -> pd.DataFrame:
    """One row per cell, sorted by cell: sample and labels as text, "" where there is none."""
    fragment = io.read_fragment(args.annotation)
    absent = [name for name in (keys.MAIN_TYPE, keys.LINEAGE) if name not in fragment]
    if absent:
        found = ", ".join(fragment)[:200]
        raise io.InputError(f"{args.annotation.name}: no column {', '.join(absent)}; found {found}; give annotation.parquet")
    bare = [cell for cell in fragment.index if ":" not in str(cell)]
    if bare:
        raise io.InputError(
            f"{args.annotation.name}: {len(bare)} cells are not named <sample>:<barcode>, the first is {bare[0]}; give the file "
            "of this run"
        )
    columns = [name for name in (keys.MAIN_TYPE, keys.SUBTYPE, keys.LINEAGE) if name in fragment]
    cells = fragment[columns].astype(object)
    cells = cells.where(cells.notna(), "").astype(str).sort_index()
    cells[keys.MAIN_TYPE] = cells[keys.MAIN_TYPE].replace("", keys.UNRESOLVED)
    cells[keys.SAMPLE] = [str(cell).split(":", 1)[0] for cell in cells.index]
    return cells.join(read_labels(args, cells.index))


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    cells = read_cells(args)
    samples, phases = read_design(args, set(cells[keys.SAMPLE]))
    contrasts = comparison.contrasts(io.read_tsv(args.contrasts, dtype=str))
    contrasts += [c for c in composition.response_contrasts(samples, phases) if c.name not in {k.name for k in contrasts}]
    cells[keys.PATIENT] = cells[keys.SAMPLE].map(dict(zip(samples[keys.SAMPLE], samples[keys.PATIENT], strict=True)))
    names = samples[keys.SAMPLE].tolist()

    frames: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    rows = []
    for parts in composition.parts_of(cells, args.levels, args.denominators, names):
        frames["proportions"].append(composition.proportions(parts, samples, args.min_cells))
        rows += composition.test_parts(
            parts, contrasts, samples, phases["phase"].tolist(), args.min_cells, args.transform, args.pseudocount
        )
        if len(parts.types) > 1:
            unit = f"{parts.level}/{parts.denominator}"
            seed_of = {name: cli.unit_seed(args.seed, STEP, f"{unit}/{name}") for name in names}
            found, pairs = composition.diversity_rows(parts, samples, args.rarefy_min, seed_of.__getitem__)
            frames["diversity"].append(found)
            frames["beta_diversity"].append(pairs)
    columns = (composition.PROPORTION_COLUMNS, (), composition.DIVERSITY_COLUMNS, composition.BETA_COLUMNS)
    made = {}
    for name, named in zip(TABLES, columns, strict=True):
        filled = [frame for frame in frames[name] if len(frame)]
        made[name] = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(named))
    found = made["diversity"]
    if len(found):
        rows += composition.test_diversity(found, contrasts, samples, phases["phase"].tolist())
    made["composition_tests"] = composition.adjusted(rows)
    for name, frame in made.items():
        io.write_tsv(frame, Path(f"{name}.tsv"))
    status.write([describe(args, cells, samples, contrasts, made)], STEP, "cohort")
    packages = ["numpy", "pandas", "scipy", "scanpro"]
    seed = cli.unit_seed(args.seed, STEP, "cohort")
    provenance.write(provenance.record(STEP, "cohort", args, packages, unit_seed=seed))
    return 0


def describe(
    args: argparse.Namespace,
    cells: pd.DataFrame,
    samples: pd.DataFrame,
    contrasts: list[comparison.Contrast],
    made: dict[str, pd.DataFrame],
) -> status.StatusRow:
    """The status row of the cohort."""
    tests, shares = made["composition_tests"], made["proportions"]
    notes = []
    small = sorted(set(shares.loc[shares["status"] == keys.SKIPPED_TOO_FEW_CELLS, keys.SAMPLE])) if len(shares) else []
    if small:
        first = shares[shares["status"] == keys.SKIPPED_TOO_FEW_CELLS].drop_duplicates([keys.SAMPLE, "level", "denominator"])
        listed = [f"{r[keys.SAMPLE]} ({r['level']}, {r['denominator']}: {r['n_total']})" for r in first.to_dict("records")]
        notes.append(f"fewer than {args.min_cells} cells, left out of the tests: {status.few(listed)}")
    main = tests[(tests["unit"] == comparison.UNIT_PATIENT) & (tests["test"] != "dunn")]
    testable = sorted(set(main.loc[main["p_value"].notna() & (main["contrast"] != "phases"), "contrast"]))
    plain = main[(main["level"] == main["level"].iloc[0]) & (main["method"] == composition.RANK)] if len(main) else main
    blocked = sorted(set(plain["contrast"]) - set(plain.loc[~(plain["p_min_attainable"] > LEVEL), "contrast"]))
    alone = sorted({c.name for c in contrasts} - set(testable))
    if not len(cells):
        word, notes = keys.SKIPPED_NO_INPUT, [f"0 cells in {args.annotation.name}, 1 needed"]
    elif not contrasts or not testable:
        word = keys.NO_REPLICATES
        notes.insert(0, f"{len(contrasts)} contrasts, none with 2 patients on each side")
    else:
        if alone:
            notes.append(f"effects without a test (2 patients a side needed): {status.few(alone)}")
        if blocked:
            notes.append(f"too few patients for a rank test below {LEVEL:g}: {status.few(blocked)}")
        word = keys.WARNING if notes else keys.OK
    sentence = status.SENTENCES[word]
    if len(cells):
        low = main[(main["p_adjusted"] < LEVEL) & main["method"].isin(WORDED)]
        # within a lineage one rise makes the others fall: what is named here changed among all cells
        low = low[(low["level"] == keys.MAIN_TYPE) & (low["denominator"] == composition.ALL)]
        hits = sorted(set(low["cell_type"] + " in " + low["contrast"]))
        sentence += (
            f" Shares of {shares.loc[shares['level'] == keys.MAIN_TYPE, 'cell_type'].nunique()} main types in {len(samples)}"
            f" samples of {samples[keys.PATIENT].nunique()} patients;"
            f" {status.few(hits) if hits else 'no main type'} changed its share of all cells"
            f" with an adjusted p below {LEVEL:g} (rank test or propeller)."
        )
        n_diverse = int(made["diversity"].loc[np.isfinite(made["diversity"]["value"].astype(float)), keys.SAMPLE].nunique())
        sentence += f" Diversity in {n_diverse} samples with {args.rarefy_min} cells or more ({diversity.DRAWS} draws)."
    return status.StatusRow(
        STEP, "cohort", "cohort", word, "; ".join(notes), n_cells=len(cells), n_samples=len(samples),
        n_patients=samples[keys.PATIENT].nunique(), sentence=sentence,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
