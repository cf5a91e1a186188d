"""Statements of the first page and of findings.tsv, each taken from one table, with who stands behind it.

Nothing is worded as a claim that patients do not carry (methods.md, unit of replication).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from scresist import keys, report
from scresist.report import Facts, Tables, count, number, percent, to_number

ADJUSTED_P = 0.05  # below: a relation is worded as a finding where patients stand behind it
FINDING_COLUMNS = ["statement", "step", "contrast", "effect", "p_adjusted", "evidence", "table"]

Finding = tuple[Any, ...]  # the values of FINDING_COLUMNS


def wording(kind: str, tested: bool) -> tuple[str, str]:
    """(opening, verb) for a statement: a claim needs patients as replicates and a test; else it is exploratory."""
    if tested and kind in report.EVIDENCE_CLAIMS:
        return "", "was"
    return "exploratory: ", "looked"


def build(made: Facts, tables: Tables, cells: pd.DataFrame) -> pd.DataFrame:
    """Statements for findings.tsv and the first page; nothing without a test is worded as a claim."""
    rows: list[Finding] = []
    sources = ["filter.tsv", *(["filter.tsv"] if made.n_doublets is not None else []), "types.tsv"]
    for line, source in zip(report.key_sentences(made), sources, strict=False):
        rows.append((line, "filter_cells" if source == "filter.tsv" else "annotate_cells", "", None, None, "descriptive", source))
    contrasts = tables.get("contrasts")
    if keys.MAIN_TYPE in cells and not contrasts.empty:
        pooled = report.patient_shares(report.shares(cells))
        pooled = pooled[pooled[keys.MAIN_TYPE] != keys.UNRESOLVED]
        for row in contrasts.to_dict("records"):
            statement = _largest_shift(pooled, row)
            if statement:
                rows.append(statement)
    for part in (shares_of_types, genes, programs, clones, tcells, signals, routes, survival, dose_response, staining):
        rows += part(tables)
    return pd.DataFrame(rows, columns=FINDING_COLUMNS)


def shares_of_types(tables: Tables) -> list[Finding]:
    """Main types whose share among all cells differs between patients of a contrast (propeller on log odds, adjusted)."""
    tests = tables.get("composition_tests")
    if tests.empty:
        return []
    chosen = (tests["level"] == keys.MAIN_TYPE) & (tests["denominator"] == "all") & (tests["method"] == keys.SHARE_METHOD)
    made = []
    for row in tests[chosen & tests["evidence"].isin(report.EVIDENCE_CLAIMS)].to_dict("records"):
        p, effect = to_number(row["p_adjusted"]), to_number(row["effect"])
        a, b = to_number(row["mean_a"]), to_number(row["mean_b"])
        if None in (p, effect, a, b) or p >= ADJUSTED_P:
            continue
        sides = row["contrast"].split(":")[-1].split("_vs_")
        text = (
            f"the share of {row['cell_type']} was {'higher' if effect > 0 else 'lower'} in {sides[0]} than in {sides[-1]} (mean"
            f" {100 * a:.1f} % of {row['n_patients_a']} patients, {100 * b:.1f} % of {row['n_patients_b']})"
        )
        made.append((text, "test_composition", row["contrast"], a - b, p, row["evidence"], "composition_tests.tsv"))
    return made


def tcells(tables: Tables) -> list[Finding]:
    """States of T cells that differ between patients of a contrast after adjustment."""
    tests = tables.get("tcell_tests")
    if tests.empty:
        return []
    made = []
    for row in tests[tests["evidence"].isin(report.EVIDENCE_CLAIMS) & (tests["test"] != "dunn")].to_dict("records"):
        p, effect = to_number(row["p_adjusted"]), to_number(row["effect"])
        if None in (p, effect) or p >= ADJUSTED_P or "_vs_" not in row["contrast"]:
            continue
        sides = row["contrast"].split(":")[-1].split("_vs_")
        state = str(row["score"]).removesuffix("_score")
        text = (
            f"the {state} score of {str(row['cell_type']).replace('_', ' ')} was {'higher' if effect > 0 else 'lower'} in"
            f" {sides[0]} than in {sides[-1]} ({row['n_patients_a']} against {row['n_patients_b']} patients)"
        )
        made.append((text, "score_tcells", row["contrast"], effect, p, row["evidence"], "tcell_tests.tsv"))
    return made


def signals(tables: Tables) -> list[Finding]:
    """Pathways whose information flow differs between patients; else the largest change of a contrast, said to be exploratory."""
    ranks = tables.get("ranknet")
    if ranks.empty:
        return []
    made = []
    named = ranks[ranks["contrast"].str.contains("_vs_", regex=False) & ~ranks["pathway"].str.startswith("other:")]
    for contrast, rows in named.groupby("contrast", sort=False):
        sides = contrast.split("_vs_")
        records = rows.to_dict("records")
        sure = [
            row
            for row in records
            if row["evidence"] in report.EVIDENCE_CLAIMS and (p := to_number(row["p_adjusted"])) is not None and p < ADJUSTED_P
        ]
        for row in sure:
            effect = to_number(row["effect"]) or 0.0
            text = (
                f"signalling by {row['pathway']} was {'stronger' if effect > 0 else 'weaker'} in {sides[0]} than in {sides[-1]}"
                f" (information flow, {row['n_patients_a']} against {row['n_patients_b']} patients)"
            )
            p = to_number(row["p_adjusted"])
            made.append((text, "compare_communication", contrast, effect, p, row["evidence"], "ranknet.tsv"))
        for row in [] if sure else [row for row in records if row["rank"] == "1"]:
            effect, p = to_number(row["cell_effect"]), to_number(row["cell_p_adjusted"])
            if effect is None or p is None or p >= ADJUSTED_P:
                continue
            text = (
                f"{wording(keys.CELL_LEVEL, tested=False)[0]}signalling by {row['pathway']} looked"
                f" {'stronger' if effect > 0 else 'weaker'} in {sides[0]} than in {sides[-1]}; the largest change of any pathway,"
                " tested over cells, not patients"
            )
            made.append((text, "compare_communication", contrast, effect, p, keys.CELL_LEVEL, "ranknet.tsv"))
    return made


def genes(tables: Tables) -> list[Finding]:
    """One statement per contrast in which tumour cells could be compared between patients."""
    made = []
    summary = tables.of_units("de_summary", "contrast")
    if summary.empty:
        return made
    tested = summary[(summary["cell_type"] == keys.TUMOUR) & summary["evidence"].isin(report.EVIDENCE_CLAIMS)]
    for row in tested.to_dict("records"):
        up, down = to_number(row["n_up_pseudobulk"]), to_number(row["n_down_pseudobulk"])
        a, b = to_number(row["n_patients_used_a"]), to_number(row["n_patients_used_b"])
        if None in (up, down, a, b):
            continue
        sides = row["contrast"].replace("_vs_", " and ")
        text = (
            f"{number(up + down, 0)} genes differed in tumour cells between patients of {sides}: "
            f"{number(up, 0)} higher, {number(down, 0)} lower in the first ({number(a, 0)} against {number(b, 0)} patients)"
        )
        source = f"{row['contrast']}.de_pseudobulk.tsv.gz"
        made.append((text, "test_expression", row["contrast"], None, None, row["evidence"], source))
    return made


def programs(tables: Tables) -> list[Finding]:
    """Modules whose relation to a trait holds between patients after adjustment; none is a result that the chapter tells."""
    traits = tables.get("module_traits")
    if traits.empty:
        return []
    made = []
    for row in traits[(traits["level"] == "sample") & traits["evidence"].isin(report.EVIDENCE_CLAIMS)].to_dict("records"):
        p, rho = to_number(row["p_adjusted"]), to_number(row["rho"])
        if p is not None and rho is not None and p < ADJUSTED_P:
            text = (
                f"the co-expression module {row['module']} of tumour cells {'rose' if rho > 0 else 'fell'} with"
                f" {str(row['trait']).replace('_', ' ')} (Spearman's rho {rho:.2f} over {row['n']} patients)"
            )
            made.append((text, "find_programs", row["contrast"], rho, p, row["evidence"], "module_traits.tsv"))
    return made


def clones(tables: Tables) -> list[Finding]:
    """Clones that grew, shrank, came or went within a patient: they count cells of single biopsies, so they are exploratory."""
    changes = tables.of_units("clone_changes", keys.PATIENT)
    if changes.empty:
        return []
    words = {"emerging": "appeared", "lost": "was no longer found", "expanding": "grew", "shrinking": "shrank"}
    made = []
    for row in changes[changes["class"].isin(words)].to_dict("records"):
        counts = [to_number(row[name]) for name in ("n_a", "N_a", "n_b", "N_b")]
        if None in counts or not counts[1] or not counts[3]:
            continue
        opening, sides = wording(row["evidence"], tested=False)[0], row["contrast"].replace("_vs_", " against ")
        text = (
            f"{opening}clone {row['clone']} {words[row['class']]}: {percent(counts[2], counts[3])} to"
            f" {percent(counts[0], counts[1])} of the malignant cells, {sides} (one patient)"
        )
        effect, p = to_number(row["diff"]), to_number(row["p_adjusted"])
        made.append((text, "trace_clones", row["contrast"], effect, p, row["evidence"], f"{row[keys.PATIENT]}.clone_changes.tsv"))
    return made

def routes(tables: Tables) -> list[Finding]:
    """Routes of resistance that the card calls supported: in one patient exploratory, in the cohort as its evidence says."""
    made = []
    card = tables.get("route_card")
    if card.empty:
        return []
    for row in card[(card["kind"] == "route") & (card["word"] == "supported")].to_dict("records"):
        claim = row[keys.PATIENT] == "cohort" and row["evidence"] in report.EVIDENCE_CLAIMS
        opening = wording(row["evidence"], tested=claim)[0]
        who = "the cohort" if row[keys.PATIENT] == "cohort" else f"patient {row[keys.PATIENT]}"
        judged = sum(int(to_number(row[name]) or 0) for name in ("n_supports", "n_against", "n_neutral"))
        text = (
            f"{opening}in {who} the route {str(row['route']).replace('_', ' ')} is supported by {row['n_supports']} of"
            f" {count(judged, 'item')} that could be judged ({str(row['contrast']).replace('_vs_', ' against ')})"
        )
        made.append((text, "score_routes", row["contrast"], None, None, row["evidence"], "route_card.tsv"))
    return made


def survival(tables: Tables) -> list[Finding]:
    """Single genes, scores and groups whose hazard ratio differs from 1 after adjustment; sets and modules stand in the chapter.

    A model with a warning (few events, a ratio that changes with time) carries no claim.
    """
    table = tables.of_units("cox", "dataset")
    if table.empty:
        return []
    made = []
    for row in table[(table["model"] == "univariate") & table["kind"].isin(["gene", "score", "group"])].to_dict("records"):
        ratio, p = to_number(row["hr"]), to_number(row["padj"])
        if ratio is None or p is None or p >= ADJUSTED_P:
            continue
        per = "per standard deviation" if row["per"] == "sd" else row["per"]
        text = (
            f"in {row['dataset']} a higher {row['marker']} went with {'shorter' if ratio > 1 else 'longer'} {row['endpoint']}"
            if row["kind"] != "group"
            else f"in {row['dataset']} {row['endpoint']} differed by {row['marker']}"
        )
        low, high = number(row["ci_low"]), number(row["ci_high"])
        text += f" (hazard ratio {number(ratio)} {per}, 95 % {low} to {high}; {row['n']} patients, {row['events']} events)"
        text = ("" if row["status"] == keys.OK else "exploratory: ") + text
        source = f"{row['dataset']}.cox.tsv"
        made.append((text, "test_survival", "", ratio, p, "other_patients", source))
    return made


def dose_response(tables: Tables) -> list[Finding]:
    """Pairs of treatments or lines whose IC50 differs over replicates after adjustment: cells in a dish, no patients."""
    tests = tables.get("dose_tests")
    if tests.empty:
        return []
    made = []
    for row in tests[(tests["unit"] == "replicate") & (tests["test"] == "tukey_hsd")].to_dict("records"):
        p, fold = to_number(row["p_adjusted"]), to_number(row["fold_change"])
        if p is None or fold is None or p >= ADJUSTED_P:
            continue
        sides = str(row["contrast"]).split("_vs_")
        where = ", ".join(str(row[name]) for name in ("compound", "line", "treatment") if pd.notna(row[name]) and row[name])
        text = (
            f"the IC50 in {sides[0]} was {number(fold)} times that in {sides[-1]} ({where}; {row['n_a']} against"
            f" {count(int(to_number(row['n_b']) or 0), 'replicate')}, cells in a dish)"
        )
        made.append((text, "fit_dose_response", row["contrast"], fold, p, row["evidence"], "dose_tests.tsv"))
    return made


def staining(tables: Tables) -> list[Finding]:
    """Stained markers that differ between patients of a contrast after adjustment."""
    tests = tables.get("staining_tests")
    if tests.empty:
        return []
    chosen = (tests["unit"] == "patient") & ~tests["test"].isin(["dunn", "kruskal_wallis", "mixed_model"])
    made = []
    for row in tests[chosen & tests["evidence"].isin(report.EVIDENCE_CLAIMS)].to_dict("records"):
        p, a, b = (to_number(row[name]) for name in ("p_adjusted", "mean_a", "mean_b"))
        if None in (p, a, b) or p >= ADJUSTED_P:
            continue
        sides = str(row["contrast"]).split("_vs_")
        text = (
            f"stained {row['marker']} was {'higher' if a > b else 'lower'} in {sides[0]} than in {sides[-1]} (mean {number(a)} of"
            f" {row['n_patients_a']} patients, {number(b)} of {row['n_patients_b']})"
        )
        made.append((text, "compare_staining", row["contrast"], a - b, p, row["evidence"], "staining_tests.tsv"))
    return made


def _largest_shift(pooled: pd.DataFrame, contrast: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """The type whose mean share over patients differs most between two phases; None when a side is empty or no phase."""
    sides = [str(contrast.get("side_a")), str(contrast.get("side_b"))]
    parts = [pooled[pooled[keys.PHASE] == side] for side in sides]
    if any(part.empty for part in parts):
        return None
    n = [part[keys.PATIENT].nunique() for part in parts]
    # every patient of `pooled` has a row for every type, zeros included, so plain means are means over patients
    means = [part.groupby(keys.MAIN_TYPE)["share"].mean() for part in parts]
    shift = (means[0] - means[1]).sort_index()
    name = shift.abs().idxmax()
    opening, verb = wording(report.evidence(*n), tested=False)
    direction = "higher" if shift[name] > 0 else "lower"
    text = (
        f"{opening}the share of {name} {verb} {direction} in {sides[0]} than in {sides[1]} (mean {100 * means[0][name]:.0f} % of"
        f" {count(n[0], 'patient')}, {100 * means[1][name]:.0f} % of {count(n[1], 'patient')}); the largest difference of any"
        " type, not tested"
    )
    return (text, "annotate_cells", contrast.get("contrast"), float(shift[name]), None, report.evidence(*n), "types.tsv")
