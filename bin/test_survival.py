#!/usr/bin/env python3
"""Genes, signatures, programs, scores and groups of patients against time to an event in one bulk or clinical cohort.

Writes, with D = the name of the dataset: D.survival_summary.tsv, D.cox.tsv, D.logrank.tsv, D.km.tsv, D.survival_groups.tsv,
D.kaplan_meier.png, D.hazard_ratios.png.

Example: test_survival.py --dataset acrg --clinical clinical.tsv --expression expression.tsv.gz --markers MUC3A,CST3
    --signatures hallmark.gmt --covariates age,stage --cuts median
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scresist import cli, io, keys, provenance, status, survival_tables

if TYPE_CHECKING:
    from scresist.survival import Clinical, Cut, Marker
    from scresist.survival_figures import Panel
    from scresist.survival_tables import Expression

STEP = "test_survival"
MOST_CURVES = 50  # markers whose curves are written; log-rank and Cox are made for all
ALPHA = 0.05
HEAD = ["dataset", "marker", "kind", "source", "endpoint"]
SUMMARY_COLUMNS = [
    "dataset", "endpoint", "time_unit", "n_clinical", "n_expression", "n_patients", "n_events", "median", "median_ci_low",
    "median_ci_high", "median_follow_up", "orientation", "n_genes", "n_markers", "n_estimated", "status", "reason",
]  # fmt: skip
COX_COLUMNS = [
    *HEAD, "model", "adjusted_for", "per", "n", "events", "hr", "ci_low", "ci_high", "p", "padj", "adjust_method", "concordance",
    "ph_p", "n_genes", "n_genes_measured", "status", "reason",
]  # fmt: skip
LOGRANK_COLUMNS = [
    *HEAD, "cut", "operator", "cut_value", "n", "events", "n_high", "n_low", "median_high", "median_high_ci_low",
    "median_high_ci_high", "median_low", "median_low_ci_low", "median_low_ci_high", "groups", "chi2", "df", "statistic", "p",
    "padj", "adjust_method", "chi2_stratified", "p_stratified", "scanned", "evidence", "status", "reason",
]  # fmt: skip
KM_COLUMNS = [
    "dataset", "marker", "kind", "source", "cut", "operator", "group", "time", "survival", "ci_low", "ci_high", "at_risk",
    "events", "censored",
]  # fmt: skip
FAMILIES = {"gene": "genes", "score": "scores", "group": "groups", "module": "modules", "signature": "signatures"}
PACKAGES = ["lifelines", "matplotlib", "numpy", "pandas", "scipy", "statsmodels"]


# --- options --------------------------------------------------------------------------------------------------------


def typed(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """argparse type of a converter that says by ValueError what is wrong."""

    def checked(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--dataset", required=True, type=cli.sample_id, help="name of the cohort, the beginning of its files")
    add("--clinical", required=True, type=Path, help="one row per patient: id, time, event, other columns (csv, tsv, gzipped)")
    add("--expression", type=Path, help="bulk expression, log scale: genes x patients or patients x genes (csv, tsv, gzipped)")
    add("--sheet", type=Path, help="table with a row per dataset; filled cells replace the options of their column's name")
    add("--modules", type=Path, help="modules.tsv of FIND_PROGRAMS: mean z of each module's genes")
    survival_tables.add_options(add, typed)
    return parser.parse_args(argv)


# --- files ----------------------------------------------------------------------------------------------------------


def apply_sheet(args: argparse.Namespace) -> None:
    """Replace options by the filled cells of the dataset's row."""
    table = survival_tables.read_table(args.sheet)
    if "dataset" not in table:
        raise io.InputError(f"{args.sheet.name}: no column dataset; expected a row per dataset. Add it.")
    problems = survival_tables.unknown_columns(table)
    mine = np.flatnonzero((table["dataset"] == args.dataset).to_numpy())
    if len(mine) != 1:
        problems.append(f"column dataset: {args.dataset} stands in {len(mine)} rows; expected one. Give each dataset one row.")
    else:
        found, wrong = survival_tables.row_options(table, int(mine[0]))
        problems += wrong
        vars(args).update(found)
    if problems:
        raise io.InputError(f"{args.sheet.name}:\n  - " + "\n  - ".join(problems))


def read_sets(args: argparse.Namespace) -> tuple[list[survival_tables.GeneSet], list[str]]:
    """Modules, then signatures: (kind, source, name, genes), with problems as lines."""
    from scresist import survival

    found: list[survival_tables.GeneSet] = []
    problems: list[str] = []
    if args.modules:
        table = survival_tables.read_table(args.modules)
        absent = [name for name in ("gene", "module") if name not in table]
        if absent:
            problems.append(f"{args.modules.name}: no column {', '.join(absent)}; expected modules.tsv of FIND_PROGRAMS.")
        else:
            from scresist.programs import GREY

            for name, part in sorted(table.groupby("module", sort=False), key=lambda item: keys.natural(item[0])):
                if name != GREY:
                    found.append((survival.MODULE, args.modules.name, str(name), part["gene"].tolist()))
    signatures, wrong = survival_tables.read_signatures(args.signatures)
    return [*found, *signatures], [*problems, *wrong]


# --- what is analysed -----------------------------------------------------------------------------------------------


@dataclass
class Cohort:
    """Patients with outcome and a value of some marker; markers over them, of which each may lack patients; remarks."""

    clinical: Clinical
    markers: list[Marker]
    n_clinical: int
    expression: Expression
    remarks: list[str]


def load(args: argparse.Namespace) -> tuple[Cohort, list[Cut]]:
    """Everything that was given, checked; all problems at once."""
    sets, wrong = read_sets(args)
    made, problems = survival_tables.read_dataset(args, args.clinical, args.expression, sets)
    if wrong or made is None:
        raise io.InputError("the tables cannot be used:\n  - " + "\n  - ".join([*wrong, *problems]))
    markers = gather(args, made.clinical, made.expression, sets)
    known = [known_of(marker) for marker in markers if marker.values is not None]
    keep = np.any(known, axis=0) if known else np.zeros(0, dtype=bool)
    clinical = made.clinical
    if keep.any():  # who has no value of any marker says nothing; a score reaches further than a gene
        clinical = clinical.take(keep)
        markers = [m if m.values is None else replace(m, values=m.values[keep]) for m in markers]
    return Cohort(clinical, markers, made.n_clinical, made.expression, made.remarks), made.cuts


def over_patients(expression: Expression, patients: np.ndarray) -> np.ndarray:
    """Genes x patients of the clinical table; NaN where a patient was not measured."""
    values = np.full((len(expression.genes), len(patients)), np.nan)
    place = {name: i for i, name in enumerate(patients.tolist())}
    values[:, [place[name] for name in expression.patients]] = expression.values
    return values


def gather(args: argparse.Namespace, clinical: Clinical, expression: Expression, sets: list[Any]) -> list[Marker]:
    """Markers in the order named, scores, groups, modules, signatures; those that cannot be measured with their reason."""
    from scresist import survival

    row = {name: i for i, name in enumerate(expression.genes)}
    measured = over_patients(expression, clinical.patients) if expression.patients else np.empty((0, len(clinical.patients)))
    made = []
    for name in args.markers:
        if name in row:
            made.append(survival.Marker(name, survival.GENE, measured[row[name]]))
        elif name in clinical.numbers and name not in args.scores:
            made.append(survival.Marker(name, survival.SCORE, clinical.numbers[name]))
        elif name not in args.scores:
            where = f"not among the {expression.n_genes} genes of the table" if args.expression else "no expression table"
            reason = f"gene_absent: {where}, nor a column of the clinical table"
            made.append(survival.Marker(name, survival.GENE, None, reason=reason))
    made += [survival.Marker(name, survival.SCORE, clinical.numbers[name]) for name in args.scores]
    made += [survival.Marker(name, survival.GROUP, clinical.words[name]) for name in args.groups]
    for kind, source, name, genes in sets:
        values, n, reason = survival.signature(measured, expression.genes, genes)
        made.append(survival.Marker(name, kind, values, source, (len(set(genes)), n), reason))
    return made


def known_of(marker: Marker) -> np.ndarray:
    """Mask of the patients with a value."""
    from scresist import survival

    return marker.values != "" if marker.kind == survival.GROUP else np.isfinite(marker.values)


def beside(covariates: list[str], strata: str) -> str:
    """What a model adjusts for, as it stands in tables."""
    return ",".join([*covariates, *([f"strata({strata})"] if strata else [])])


def cox_rows(args: argparse.Namespace, cohort: Cohort, marker: Marker) -> list[dict[str, Any]]:
    """The univariate and, with covariates or strata, the adjusted model of one marker."""
    from scresist import survival

    clinical = cohort.clinical
    base = {**head(args, marker)}
    if marker.genes:
        base["n_genes"], base["n_genes_measured"] = marker.genes
    models = [survival.UNIVARIATE] + ([survival.ADJUSTED] if args.covariates or args.strata else [])
    others = [name for name in args.covariates if name != marker.name]
    told = {survival.UNIVARIATE: "", survival.ADJUSTED: beside(others, args.strata)}
    if marker.values is None:
        return [
            {**base, "model": model, "adjusted_for": told[model], "status": keys.NOT_ESTIMABLE, "reason": marker.reason}
            for model in models
        ]
    known = known_of(marker)
    group = marker.kind == survival.GROUP
    sd = 1.0 if group else survival.sd_of(marker.values)
    rows = []
    for model in models:
        rest, keep, constant, strata = None, known, [], None
        if model == survival.ADJUSTED and marker.name == args.strata:
            reason = "stratum: the marker is the stratum, within which it does not vary"
            rows.append({**base, "model": model, "adjusted_for": told[model], "status": keys.NOT_ESTIMABLE, "reason": reason})
            continue
        if model == survival.ADJUSTED:
            if args.strata:
                keep = keep & (clinical.words[args.strata] != "")
            matrix, keep, constant = survival.covariate_matrix(clinical, others, keep)
            rest = matrix if matrix.shape[1] else None
            strata = clinical.words[args.strata][keep] if args.strata else None
            used = [name for name in others if name not in constant]
            told[model] = beside(used, args.strata)
            if not used and not args.strata:
                same = f"no variation of {', '.join(constant)} in {int(keep.sum())} patients"
                reason = f"no_covariate: {same if constant else 'the marker is the only covariate'}"
                rows.append({**base, "model": model, "status": keys.NOT_ESTIMABLE, "reason": reason})
                continue
        time, event = clinical.time[keep], clinical.event[keep]
        mine = {**base, "model": model, "adjusted_for": told[model], "n": int(keep.sum()), "events": int(event.sum())}
        if group:
            terms = survival.levels_against_first(marker.values[keep]) if keep.any() else pd.DataFrame()
            constant_marker = terms.shape[1] == 0
        else:
            constant_marker = sd == 0 or survival.sd_of(marker.values[keep]) == 0
            # the same standard deviation in both models, so that their ratios can be compared
            terms = pd.DataFrame({survival.PER_SD: marker.values[keep] / (sd or 1.0)})
            if not constant_marker:
                terms -= terms.mean()
        if constant_marker:
            reason = f"constant: the {int(keep.sum())} patients with a value do not differ"
            rows.append({**mine, "per": "" if group else survival.PER_SD, "status": keys.NOT_ESTIMABLE, "reason": reason})
            continue
        for per, fit in survival.cox(time, event, terms, rest, strata, args.min_events).items():
            reasons = [fit.reason] if fit.reason else []
            word = fit.status
            if constant:
                reasons.append(f"constant_covariate: {', '.join(constant)} left out")
                word = keys.WARNING if word == keys.OK else word
            rows.append(
                {
                    **mine, "per": per, "hr": fit.hr, "ci_low": fit.ci_low, "ci_high": fit.ci_high, "p": fit.p,
                    "concordance": fit.concordance, "ph_p": fit.ph_p, "status": word, "reason": "; ".join(reasons),
                }
            )  # fmt: skip
    return rows


def head(args: argparse.Namespace, marker: Marker) -> dict[str, Any]:
    """The columns that every table of markers begins with."""
    return {
        "dataset": args.dataset, "marker": marker.name, "kind": marker.kind, "source": marker.source, "endpoint": args.endpoint,
    }  # fmt: skip


def p_text(p: float) -> str:
    """p as it is written into a picture."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def logrank_row(
    args: argparse.Namespace, cohort: Cohort, marker: Marker, cut: Cut
) -> tuple[dict[str, Any], list[dict[str, Any]], Panel | None]:
    """Log-rank of one marker at one declared cut, its curves as rows, and its picture's panel."""
    from scresist import survival
    from scresist.survival_figures import MOST_GROUPS, Panel

    row = {**head(args, marker), "cut": cut.what, "operator": cut.operator, "scanned": False, "evidence": survival.DECLARED}
    if marker.values is None:
        return {**row, "status": keys.NOT_ESTIMABLE, "reason": marker.reason}, [], None
    known = known_of(marker)
    values = marker.values[known]
    clinical = cohort.clinical.take(known)
    row |= {"n": len(values), "events": int(clinical.event.sum())}
    if not len(values):
        return {**row, "status": keys.NOT_ESTIMABLE, "reason": "no_values: no patient has a value"}, [], None
    labels, order, row["cut_value"] = survival.split(values, cut)
    size = {name: int((labels == name).sum()) for name in order}
    small = [f"{name} {size[name]}" for name in order if size[name] < args.min_group]
    medians, curves, curve_rows = {}, {}, []
    for name in order:
        if not size[name]:
            continue
        mine = labels == name
        curves[name], medians[name] = survival.kaplan_meier(clinical.time[mine], clinical.event[mine])
        frame = curves[name].to_dict("records")
        start = {**head(args, marker), "cut": cut.what, "operator": cut.operator, "group": name}
        curve_rows += [{**start, **point} for point in frame]
    reached = {name: f" (median {found[0]:.6g})" for name, found in medians.items() if np.isfinite(found[0])}
    row["groups"] = ";".join(f"{name}={size[name]}{reached.get(name, '')}" for name in order)
    if set(order) >= {survival.LOW, survival.HIGH} and marker.kind != survival.GROUP:
        for name in (survival.HIGH, survival.LOW):
            row[f"n_{name}"] = size[name]
            found = medians.get(name, (np.nan,) * 3)
            row[f"median_{name}"], row[f"median_{name}_ci_low"], row[f"median_{name}_ci_high"] = found
    # a tiny level of a group leaves; a cut that leaves a tiny side has no test
    used = [name for name in order if size[name] >= args.min_group] if marker.kind == survival.GROUP else order
    word, reason = keys.OK, ""
    notes = []
    if len(used) < 2 or (small and marker.kind != survival.GROUP):
        needed = f"{args.min_group} patients in each group needed"
        word, reason = keys.NOT_ESTIMABLE, f"small_group: {', '.join(small) or 'one group only'}; {needed}"
    elif not clinical.event.any():
        word, reason = keys.NOT_ESTIMABLE, "no_events: nothing happened to the patients with a value"
    else:
        keep = np.isin(labels.astype(str), np.array(used, dtype=str))
        time, event, groups = clinical.time[keep], clinical.event[keep], labels[keep]
        row["chi2"], row["df"], row["p"] = survival.log_rank(time, event, groups)
        if not np.isfinite(row["p"]):
            word, reason = keys.NOT_ESTIMABLE, "no_events: nothing happened while several groups were observed"
        elif small:
            notes.append(f"small_group: {', '.join(small)} left out; {args.min_group} patients needed")
        n_events = int(event.sum())  # of the groups that are compared
        if np.isfinite(row["p"]) and n_events < args.min_events:
            notes.append(f"few_events: {n_events} found, {args.min_events} advised")
        if args.strata and args.strata != marker.name and np.isfinite(row["p"]):
            stratum = clinical.words[args.strata][keep]
            full = stratum != ""
            row["chi2_stratified"], row["p_stratified"] = survival.stratified_log_rank(
                time[full], event[full], groups[full], stratum[full]
            )
            if not np.isfinite(row["p_stratified"]):
                n = len(set(stratum[full].tolist()))
                notes.append(f"strata: in none of the {n} strata are several groups observed when an event happens")
    if notes:
        word, reason = keys.WARNING, "; ".join(notes)
    panel = None
    if len(curves) > 1:
        shown = [name for name in order if name in curves][:MOST_GROUPS]
        by = "levels" if cut.what == survival.LEVELS else f"cut: {cut.what}"
        if cut.what != survival.LEVELS:
            by += f", high {cut.operator} {float(row['cut_value'].split(';')[-1]):.4g}"
        result = f"log-rank {p_text(row['p'])}" if np.isfinite(row.get("p", np.nan)) else "no test: " + reason.split(":")[0]
        panel = Panel(
            f"{marker.name[:40]} ({by})", f"{result}, n = {len(values):,}", shown, [curves[name] for name in shown],
            [clinical.time[labels == name] for name in shown],
        )  # fmt: skip
    return {**row, "status": word, "reason": reason}, curve_rows, panel


def scan_row(args: argparse.Namespace, cohort: Cohort, marker: Marker) -> dict[str, Any] | None:
    """The scanned cut of one marker; the p is that of the search, never that of the cut."""
    from scresist import survival

    if marker.values is None or marker.kind == survival.GROUP:
        return None
    known = known_of(marker)
    values, clinical = marker.values[known], cohort.clinical.take(known)
    row = {
        **head(args, marker), "cut": survival.SCAN, "operator": survival.ABOVE, "scanned": True, "evidence": keys.EXPLORATORY,
        "n": len(values), "events": int(clinical.event.sum()),
    }  # fmt: skip
    rng = np.random.default_rng(cli.unit_seed(args.seed, STEP, f"{args.dataset}/{marker.kind}/{marker.source}/{marker.name}"))
    found = survival.scan(values, clinical.time, clinical.event, rng, args.permutations)
    if found is None:
        reason = "no_cut: no cut between the 20 % and 80 % quantiles, or no event"
        return {**row, "status": keys.NOT_ESTIMABLE, "reason": reason}
    high = values > found.cut
    row |= {"cut_value": f"{found.cut:.6g}", "n_high": int(high.sum()), "n_low": int((~high).sum())}
    row |= {"statistic": found.statistic, "p": found.p}
    reason = f"scanned: the best of {found.n_cuts} cuts; p by {args.permutations} permutations of the search"
    return {**row, "status": keys.WARNING, "reason": reason}


def group_table(args: argparse.Namespace, cohort: Cohort) -> pd.DataFrame:
    """Markers of patients with an early event against those without one by then."""
    from scresist import comparison, survival

    extra = ["dataset", "marker", "kind", "source", "endpoint", "split_time", "time_unit", "n_unknown", "rank_biserial", "reason"]
    rows = []
    at = survival.split_time(args.split_months, args.time_unit)
    for marker in cohort.markers if args.split_months else []:
        if marker.kind == survival.GROUP or marker.values is None:
            continue
        clinical = cohort.clinical
        side = survival.early_or_late(clinical.time, clinical.event, at)
        row = survival.compare_early_late(marker.values, side, clinical.patients)
        row |= {**head(args, marker), "split_time": at, "time_unit": args.time_unit}
        row["n_unknown"] = int((known_of(marker) & (side == "")).sum())
        row["reason"] = ""
        if row["status"] != keys.OK:
            n_early, n_late = row["n_patients_a"], row["n_patients_b"]
            row["reason"] = f"few_patients: {n_early} with an early event, {n_late} later; 2 of each needed"
            if min(n_early, n_late) >= comparison.LIMITED_FROM:
                row["reason"] = "constant: the patients do not differ"
        rows.append(row)
    table = comparison.adjusted(rows, "genes", extra)
    if len(table):
        for kind, part in table.groupby("kind", sort=False):
            table.loc[part.index, "p_adjusted"] = comparison.adjust(part["p_value"])
            table.loc[part.index, "adjust_method"] = f"BH:{FAMILIES[kind]}"
    for name in ("n_cells_a", "n_cells_b"):
        table[name] = table[name].astype("Int64")
    return table


# --- tables and pictures --------------------------------------------------------------------------------------------


def tidy(rows: list[dict[str, Any]], columns: list[str], whole: Iterable[str], numbers: Iterable[str]) -> pd.DataFrame:
    """Rows as a table: whole numbers nullable, other numbers float, absent cells empty."""
    frame = pd.DataFrame(rows, columns=columns)
    for name in whole:
        frame[name] = frame[name].astype("Int64")
    for name in numbers:
        frame[name] = frame[name].astype(float)
    return frame


def cox_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """cox.tsv; adjusted within model and kind."""
    from scresist import survival

    frame = tidy(
        rows, COX_COLUMNS, ("n", "events", "n_genes", "n_genes_measured"), ("hr", "ci_low", "ci_high", "p", "concordance", "ph_p")
    )
    return survival.adjust_by(frame, ("model", "kind"), "p", FAMILIES)


def logrank_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """logrank.tsv; adjusted within kind and cut, numbers as one cut."""
    from scresist import survival

    medians = [name for name in LOGRANK_COLUMNS if name.startswith("median_")]
    numbers = (*medians, "chi2", "statistic", "p", "chi2_stratified", "p_stratified")
    frame = tidy(rows, LOGRANK_COLUMNS, ("n", "events", "n_high", "n_low", "df"), numbers)
    frame["scanned"] = frame["scanned"].astype(bool)
    named = {survival.MEDIAN, survival.TERTILES, survival.SCAN, survival.LEVELS}
    frame["_family"] = [cut if cut in named else "number" for cut in frame["cut"]]
    return survival.adjust_by(frame, ("kind", "_family"), "p", FAMILIES)[LOGRANK_COLUMNS]


def forest_rows(cox: pd.DataFrame) -> pd.DataFrame:
    """Rows of the picture: named markers, scores and groups in their order, then sets by p."""
    from scresist import survival

    rows = cox[cox["hr"].notna()].copy()
    named = ~rows["kind"].isin([survival.MODULE, survival.SIGNATURE])
    rows["name"] = [
        marker + (f": {per}" if per != survival.PER_SD else "") for marker, per in zip(rows["marker"], rows["per"], strict=True)
    ]
    sets = rows[~named & (rows["model"] == survival.UNIVARIATE)].sort_values(["p", "source", "marker"], kind="stable")
    return pd.concat([rows[named], sets], ignore_index=True)


def sentence_of(args: argparse.Namespace, summary: dict[str, Any], cox: pd.DataFrame, word: str) -> str:
    """For a clinician: how many patients and events, what relates to the outcome."""
    from scresist import survival

    who = f"{args.dataset}: {summary['n_patients']} patients, {summary['n_events']} events ({args.endpoint})."
    start = f"{status.SENTENCES[word]} {who}"
    mine = cox[(cox["model"] == survival.UNIVARIATE) & cox["p"].notna()]
    if mine.empty:
        return start
    low, weak = mine[(mine["padj"] < ALPHA) & (mine["status"] == keys.OK)], mine[mine["padj"] < ALPHA]
    n, n_low, n_weak = (len(part[["kind", "source", "marker"]].drop_duplicates()) for part in (mine, low, weak))
    found = f" {n_low} of {n} testable markers relate to it (Cox, adjusted p below {ALPHA})"
    if len(low):
        best = low.sort_values(["p", "kind", "marker"], kind="stable").iloc[0]
        per = "standard deviation" if best["per"] == survival.PER_SD else best["per"]
        found += (
            f"; the clearest: {best['marker']}, hazard ratio {best['hr']:.2f} per {per}"
            f" (95 % {best['ci_low']:.2f} to {best['ci_high']:.2f})"
        )
    if n_weak > n_low:  # few events, or a ratio that changes with time
        found += f"; {n_weak - n_low} more with a warning, which is exploratory"
    return f"{start}{found}."


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.sheet is not None:
        apply_sheet(args)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    from scresist import survival, survival_figures

    cohort, cuts = load(args)
    clinical = cohort.clinical
    n_patients, n_events = len(clinical.patients), int(clinical.event.sum())
    cox: list[dict[str, Any]] = []
    logrank: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    drawn: list[tuple[int, Panel]] = []
    overall, median = survival.kaplan_meier(clinical.time, clinical.event)
    everyone = {"dataset": args.dataset, "marker": "", "kind": "", "source": "", "cut": "none", "operator": "", "group": "all"}
    curves += [{**everyone, **point} for point in overall.to_dict("records")]
    for i, marker in enumerate(cohort.markers):
        cox += cox_rows(args, cohort, marker)
        for place, cut in enumerate(survival.cuts_of(marker, cuts)):
            row, points, panel = logrank_row(args, cohort, marker, cut)
            logrank.append(row)
            curves += points if i < MOST_CURVES else []
            if panel:
                drawn.append((place, panel))
        if args.scan and (row := scan_row(args, cohort, marker)):
            logrank.append(row)
    cox_made, logrank_made = cox_table(cox), logrank_table(logrank)

    estimated = cox_made[(cox_made["model"] == survival.UNIVARIATE) & cox_made["p"].notna()]
    n_estimated = len(estimated[["kind", "source", "marker"]].drop_duplicates())
    word, reasons = keys.OK, list(cohort.remarks)
    absent = [m.name for m in cohort.markers if m.values is None and m.kind == survival.GENE]
    if absent:
        reasons.append(f"gene_absent: {', '.join(absent[:10])}" + (f" and {len(absent) - 10} more" if len(absent) > 10 else ""))
    few = [m for m in cohort.markers if m.values is None and m.kind != survival.GENE]
    if few:
        reasons.append(f"few_genes: {len(few)} of {sum(m.genes is not None for m in cohort.markers)} signatures and modules")
    if n_events < args.min_events:
        reasons.append(f"few_events: {n_events} found, {args.min_events} advised")
    if len(cohort.markers) > MOST_CURVES:
        reasons.append(f"curves: written for the first {MOST_CURVES} of {len(cohort.markers)} markers")
    if not cohort.markers:
        word, reasons = keys.SKIPPED_NO_INPUT, ["no marker, score, group, module or signature was named; at least one is needed"]
    elif not n_estimated:
        first = cox_made["reason"].iloc[0]
        word = keys.NOT_ESTIMABLE
        reasons = [f"no marker could be tested in {n_patients} patients with {n_events} events; the first: {first}", *reasons]
    elif reasons:
        word = keys.WARNING
    follow_up = survival.median_follow_up(clinical.time, clinical.event)
    summary = {
        "dataset": args.dataset, "endpoint": args.endpoint, "time_unit": args.time_unit, "n_clinical": cohort.n_clinical,
        "n_expression": cohort.expression.n_table if args.expression is not None else None, "n_patients": n_patients,
        "n_events": n_events, "median": median[0], "median_ci_low": median[1], "median_ci_high": median[2],
        "median_follow_up": follow_up, "orientation": cohort.expression.orientation,
        "n_genes": cohort.expression.n_genes if args.expression is not None else None, "n_markers": len(cohort.markers),
        "n_estimated": n_estimated, "status": word, "reason": "; ".join(reasons),
    }  # fmt: skip

    unit = args.dataset
    io.write_tsv(tidy([summary], SUMMARY_COLUMNS, ("n_expression", "n_genes"), ()), Path(f"{unit}.survival_summary.tsv"))
    io.write_tsv(cox_made, Path(f"{unit}.cox.tsv"))
    io.write_tsv(logrank_made, Path(f"{unit}.logrank.tsv"))
    io.write_tsv(pd.DataFrame(curves, columns=KM_COLUMNS), Path(f"{unit}.km.tsv"))
    io.write_tsv(group_table(args, cohort), Path(f"{unit}.survival_groups.tsv"))
    about = f"{unit}, {args.endpoint}: {n_patients:,} patients, {n_events:,} events"
    # the first cut of every marker before the second of any
    panels = [panel for _, panel in sorted(drawn, key=lambda pair: pair[0])][: survival_figures.MOST_PANELS]
    page = survival_figures.kaplan_meier_page(panels, about, f"time ({args.time_unit})", args.endpoint)
    Path(f"{unit}.kaplan_meier.png").write_bytes(page)
    Path(f"{unit}.hazard_ratios.png").write_bytes(survival_figures.forest(forest_rows(cox_made), about))
    row = status.StatusRow(
        step=STEP, unit_type="dataset", unit=unit, status=word, reason="; ".join(reasons), n_patients=n_patients,
        sentence=sentence_of(args, summary, cox_made, word),
    )  # fmt: skip
    status.write([row], STEP, unit)
    provenance.write(provenance.record(STEP, unit, args, PACKAGES, unit_seed=cli.unit_seed(args.seed, STEP, unit)))
    return 0


if __name__ == "__main__":
    cli.run(main)
