#!/usr/bin/env python3
"""Dose-response curves with their IC50, or the reason why there is none, and tests between treatments and between lines.

Writes dose_fits.tsv, dose_points.tsv, dose_tests.tsv and one <compound>.dose_response.png for each of the first 12 compounds.

Example: fit_dose_response.py --tables plates.tsv --dose_unit nM --control shCtrl
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scresist import cli, dose_response, io, keys, long_table, provenance, status
from scresist.design import plural

STEP = "fit_dose_response"
PART, COMPARISONS = 50, 25  # curves, and comparisons, that one process takes at a time
MAX_PICTURES = 12  # compounds that are drawn, as many as the report shows; the tables hold all


def plateau(text: str) -> float | None:
    """argparse type: a number, or nothing for a plateau that is estimated."""
    return None if not text.strip() else cli.number(-1e9, 1e9)(text)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--tables", nargs="*", default=[], type=Path, help="long tables: line, compound, dose, response ...")
    add("--dose_unit", default="", help="unit of doses in rows that name none, such as nM (default: every row must name one)")
    add("--dose_scale", choices=dose_response.SCALES, default=dose_response.PERCENT, help="of the response (default percent)")
    add("--top_fixed", type=plateau, default=None, help="response without effect, where it is known (default: estimated)")
    add("--bottom_fixed", type=plateau, default=None, help="response at full effect, where it is known (default: estimated)")
    add("--control", default="", help="treatments or lines, comma list: the reference of every pair (default: the first by name)")
    add("--dose_alpha", type=cli.number(1e-6, 0.5), default=0.05, help="1 - level of intervals and bands (default 0.05)")
    return parser.parse_args(argv)


def read_wells(args: argparse.Namespace) -> pd.DataFrame:
    """The wells of all tables; every fault at once."""
    wells, _, problems = dose_response.read_wells(args.tables, args.dose_unit.strip(), args.dose_scale)
    if problems:
        raise long_table.told(problems, "the dose-response tables")
    return wells


def spread(work: Callable[[Any], list], items: Sequence[Any], size: int, pool: ProcessPoolExecutor | None) -> list:
    """What `work` makes of all items, `size` of them at a time; parts do not depend on how many processes share them."""
    parts = [items[at : at + size] for at in range(0, len(items), size)]
    return [one for part in (pool.map(work, parts) if pool else map(work, parts)) for one in part]


def words(row: dict, unit: str) -> str:
    """The IC50 of a curve in a legend."""
    if not row["ic50_text"]:
        return "not estimable"
    text = f"{row['ic50_text']} {unit}"
    if np.isfinite(row["ic50_low"]) or np.isfinite(row["ic50_high"]):
        text = f"{row['ic50']:.3g} {unit} ({row['ic50_low']:.3g} to {row['ic50_high']:.3g})"
    return text


def draw(wells: pd.DataFrame, found: dict, rows: dict, args: argparse.Namespace, pool: ProcessPoolExecutor | None) -> int:
    """One picture for each of the first compounds; returns how many were left out."""
    from scresist import wet_figures

    compounds = sorted(set(wells["compound"]))
    names = long_table.file_names(compounds, "compound")
    label = "response (% of untreated)" if args.dose_scale == dose_response.PERCENT else "response (as measured)"
    pictures = []
    for compound in compounds[:MAX_PICTURES]:
        mine = wells[wells["compound"] == compound]
        unit = mine["unit"].iloc[0]
        panels: dict[str, list] = {}
        for (line, treatment), part in mine.groupby(["line", "treatment"], sort=True):
            key = (line, treatment, compound)
            name = treatment if treatment != dose_response.NO_TREATMENT else "all wells"
            dose, y = part["dose"].to_numpy(dtype=float), part["response"].to_numpy(dtype=float)
            curve = wet_figures.Curve(name, dose, y, found[key][0], part["replicate"].nunique(), words(rows[key], unit))
            panels.setdefault(line, []).append(curve)
        pictures.append((panels, compound, unit, label, args.dose_alpha))
    for compound, content in zip(compounds, spread(drawn, pictures, 1, pool), strict=False):
        io.write_atomically(Path(f"{names[compound]}.dose_response.png"), lambda p, content=content: p.write_bytes(content))
    return max(0, len(compounds) - MAX_PICTURES)


def drawn(pictures: list[tuple]) -> list[bytes]:
    """PNG of each; in a process of its own where there are several."""
    from scresist import wet_figures

    return [wet_figures.dose_curves(*one) for one in pictures]


def summary(fits: pd.DataFrame, left_out: int) -> tuple[str, str, str]:
    """Status word, reason and sentence of the step."""
    pooled = fits[fits["replicate"] == dose_response.POOLED]
    n = pooled["status"].value_counts()
    known = int(n.get(keys.OK, 0) + n.get(keys.WARNING, 0))
    beyond, none = int(n.get(dose_response.OUT_OF_RANGE, 0)), int(n.get(keys.NOT_ESTIMABLE, 0))
    notes = []
    if none:
        notes.append(f"{none} of {plural(len(pooled), 'curve')} without an IC50 (see reason in dose_fits.tsv)")
    if n.get(keys.WARNING, 0):
        notes.append(f"{int(n[keys.WARNING])} with a note on the fit")
    if beyond:
        notes.append(f"{beyond} with an IC50 beyond the tested doses")
    if left_out:
        notes.append(f"{plural(left_out, 'compound')} not drawn: {MAX_PICTURES} pictures at most")
    word = keys.NOT_ESTIMABLE if not known and not beyond else keys.WARNING if none or n.get(keys.WARNING, 0) else keys.OK
    sentence = f"{status.SENTENCES[word]} An IC50 within the tested doses: {known} of {plural(len(pooled), 'curve')}"
    sentence += f"; {beyond} beyond these doses." if beyond else "."
    return word, "; ".join(notes), sentence


def work(
    wells: pd.DataFrame,
    tasks: list[tuple[tuple[str, str, str], str, pd.DataFrame]],
    curves: list[tuple[np.ndarray, np.ndarray]],
    fixed: dict[int, float],
    control: list[str],
    args: argparse.Namespace,
    pool: ProcessPoolExecutor | None,
) -> tuple[str, str, str]:
    """Fits, comparisons and pictures of all curves; status word, reason and sentence of the step."""
    fit = partial(dose_response.fit_rows, scale=args.dose_scale, fixed=fixed, alpha=args.dose_alpha)
    made = spread(fit, curves, PART, pool)
    rows, points, found, pooled_rows, replicates = [], [], {}, {}, {}
    for (key, replicate, part), (log_dose, y), (one, row) in zip(tasks, curves, made, strict=True):
        identity = {"curve": dose_response.curve_name(*key), **dict(zip(dose_response.CURVE, key, strict=True))}
        row.update(identity, replicate=replicate, unit=part["unit"].iloc[0], n_replicates=part["replicate"].nunique())
        rows.append(row)
        if replicate == dose_response.POOLED:
            found[key], pooled_rows[key] = (one, log_dose, y), row
            replicates[key] = [] if part["replicate"].nunique() > 1 else [one.log_ic50]
            fitted = dose_response.response(log_dose, one.fit.values) if one.fit else np.nan
            points.append(part.assign(curve=identity["curve"], fitted=fitted))
        else:
            replicates[key].append(one.log_ic50)
    fits = pd.DataFrame(rows, columns=list(dose_response.FIT_COLUMNS))
    table = pd.concat(points, ignore_index=True) if points else pd.DataFrame()
    io.write_tsv(fits, Path("dose_fits.tsv"))
    io.write_tsv(table.reindex(columns=list(dose_response.POINT_COLUMNS)), Path("dose_points.tsv"))
    compared = dose_response.comparison_groups(found, replicates, control)
    tested = spread(partial(dose_response.comparison_rows, alpha=args.dose_alpha), compared, COMPARISONS, pool)
    io.write_tsv(dose_response.adjusted_tests(tested), Path("dose_tests.tsv"))
    if fits.empty:
        return keys.SKIPPED_NO_INPUT, "no dose-response table was given", ""
    return summary(fits, draw(wells, found, pooled_rows, args, pool))


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    fixed, wrong = dose_response.fixed_plateaus(args.bottom_fixed, args.top_fixed)
    if wrong:
        raise io.InputError(wrong)
    wells = read_wells(args)
    control, wrong = dose_response.references(args.control, wells)
    if wrong:
        raise io.InputError(wrong)

    tasks: list[tuple[tuple[str, str, str], str, pd.DataFrame]] = []
    for (compound, line, treatment), part in wells.groupby(["compound", "line", "treatment"], sort=True):
        key = (str(line), str(treatment), str(compound))
        tasks.append((key, dose_response.POOLED, part))
        if part["replicate"].nunique() > 1:
            tasks += [(key, str(name), own) for name, own in part.groupby("replicate", sort=True)]
    curves = [(dose_response.log_doses(p["dose"].to_numpy()), p["response"].to_numpy(dtype=float)) for _, _, p in tasks]
    # fresh processes, not forks: the parent's thread pools would not survive in them
    many = args.threads > 1 and len(curves) > PART
    with ProcessPoolExecutor(args.threads, mp_context=get_context("spawn")) if many else nullcontext() as pool:
        word, reason, sentence = work(wells, tasks, curves, fixed, control, args, pool)
    entry = status.StatusRow(STEP, "cohort", "cohort", word, reason, sentence=sentence)
    status.write([entry], STEP, "cohort")
    provenance.write(provenance.record(STEP, "cohort", args, ["matplotlib", "numpy", "pandas", "scipy"]))
    return 0


if __name__ == "__main__":
    cli.run(main)
