"""Planted against recovered in the microenvironment: shares of types, signals, absent types, the path of differentiation."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from scresist import keys

SHIFTED = 0.5  # |ln ratio| of expected shares from which a type counts as shifted
STEADY = 0.1  # below: as unchanged; what lies between is neither
CALLED_P = 0.05
MIN_PATH_CELLS = 30  # malignant cells of a patient with a place on the path
GENE_PARTS = re.compile(r"[,_+]")  # subunits of a complex are joined by one of these


def shift_calls(planted: pd.DataFrame, tests: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Which shifted types were called with the right sign, and which steady types were called at all.

    Parameters
    ----------
    planted
        main_type, contrast, log_ratio (ln of expected shares, A against B; NaN where a phase lacks the type: left out).
    tests
        contrast, cell_type, effect (A minus B), p_adjusted of one method.

    Returns
    -------
    found, false
        bool with the index `<type> <contrast>`: found by shifted type, called by steady type; only where a test was made.
    """
    tested = tests.loc[tests["p_adjusted"].notna(), ["contrast", "cell_type", "effect", "p_adjusted"]]
    tested = tested.drop_duplicates(["contrast", "cell_type"])
    joined = planted.merge(tested, left_on=["main_type", "contrast"], right_on=["cell_type", "contrast"])
    joined = joined.sort_values(["contrast", "main_type"])
    joined.index = pd.Index(joined["main_type"] + " " + joined["contrast"])
    called = joined["p_adjusted"] < CALLED_P
    size = joined["log_ratio"].abs()
    right = called & (np.sign(joined["effect"]) == np.sign(joined["log_ratio"]))
    return right[size >= SHIFTED], called[size < STEADY]


def signal_directions(planted: pd.DataFrame, found: pd.DataFrame) -> pd.Series:
    """Per planted signal (index `<pathway> <contrast>`): did its information flow move that way? A pathway not found did not.

    Parameters
    ----------
    planted
        pathway, contrast, direction (up, down).
    found
        contrast, pathway, flow_a, flow_b; contrasts that were not compared are left out.
    """
    flows = found.drop_duplicates(["pathway", "contrast"]).set_index(["pathway", "contrast"])
    verdict = {}
    for row in planted[planted["contrast"].isin(set(found["contrast"]))].sort_values(["pathway", "contrast"]).itertuples():
        key = (row.pathway, row.contrast)
        moved = float(flows.loc[key, "flow_a"] - flows.loc[key, "flow_b"]) if key in flows.index else np.nan
        verdict[" ".join(key)] = bool(moved > 0 if row.direction == "up" else moved < 0)
    return pd.Series(verdict, dtype=bool)


def touched_pathways(links: pd.DataFrame, genes: set[str]) -> set[str]:
    """Pathways with a planted gene among the ligands and receptors of their pairs.

    Parameters
    ----------
    links
        pathway, ligand, receptor (subunits of a complex joined by `_`, `+` or a comma).
    """
    pairs = links[["pathway", "ligand", "receptor"]].drop_duplicates()
    parts = (pairs["ligand"] + "," + pairs["receptor"]).map(lambda text: not genes.isdisjoint(GENE_PARTS.split(text)))
    return set(pairs.loc[parts, "pathway"])


def signal_ranks(planted: pd.DataFrame, found: pd.DataFrame, touched: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """Per planted signal `<pathway> <contrast>`: the pathways that rank above it although nothing was planted in them.

    Parameters
    ----------
    found
        contrast, pathway, rank (1 = largest change; NaN = not estimable).
    touched
        contrast -> pathways whose genes have any planted change between the phases.
    """
    own_names = planted.groupby("contrast")["pathway"].agg(set)
    above = {}
    for row in planted.sort_values(["pathway", "contrast"]).itertuples():
        own = found[(found["contrast"] == row.contrast) & found["rank"].notna()].set_index("pathway")["rank"]
        if own.empty:
            continue
        limit = own.get(row.pathway, np.inf)
        moved = touched.get(row.contrast, set()) | own_names[row.contrast]
        higher = own[own < limit].drop(labels=list(moved), errors="ignore")
        above[f"{row.pathway} {row.contrast}"] = [str(name) for name in higher.sort_values().index]
    return above


def strongest_signals(planted: pd.DataFrame) -> list[str]:
    """`<pathway> <contrast>` of the signal with the largest planted change of each contrast (ties: first by name)."""
    order = planted.assign(size=-planted["ln_fold"].abs()).sort_values(["contrast", "size", "pathway"], kind="stable")
    first = order.drop_duplicates("contrast")
    return (first["pathway"] + " " + first["contrast"]).tolist()


def absent_types(shares: pd.DataFrame, groups: pd.DataFrame, links: pd.DataFrame) -> pd.Series:
    """Per sample and type that the sample's phase lacks (index `<type> <sample>`): told as not estimable, and without a signal?

    Parameters
    ----------
    shares
        sample, main_type, expected_share.
    groups
        sample, cell_type, estimable (`true`, `false`); samples that were not scored are left out.
    links
        sample, source, target.
    """
    scored = groups.drop_duplicates(["sample", "cell_type"]).set_index(["sample", "cell_type"])["estimable"].astype(str)
    estimable = scored.str.lower() == "true"
    samples = set(groups.loc[groups["estimable"].astype(str).str.lower() == "true", "sample"])
    verdict = {}
    for row in shares[(shares["expected_share"] == 0) & shares["sample"].isin(samples)].itertuples():
        own = links[links["sample"] == row.sample]
        silent = row.main_type not in set(own["source"]) | set(own["target"])
        told = not estimable.get((row.sample, row.main_type), True)
        verdict[f"{row.main_type} {row.sample}"] = bool(told and silent)
    return pd.Series(verdict, dtype=bool).sort_index()


def path_order(cells: pd.DataFrame, column: str) -> pd.Series:
    """|Spearman's rho| of a found order with the planted path, per patient; only patients with cells of both.

    Parameters
    ----------
    cells
        joined table with planted_path_time, planted_patient and `column`.
    """
    known = cells[cells[keys.KEPT] & cells["planted_path_time"].notna() & cells[column].notna()]
    found = {
        str(patient): abs(float(stats.spearmanr(part["planted_path_time"], part[column]).statistic))
        for patient, part in known.groupby("planted_patient")
        if len(part) >= MIN_PATH_CELLS
    }
    return pd.Series(found, dtype=float)


def path_directions(tests: pd.DataFrame, cells: pd.DataFrame, column: str) -> tuple[pd.Series, pd.Series]:
    """Is the planted direction found, and does the control stay silent? Index `<patient> <from> to <to>`.

    Along the planted path cells come nearer to the later phases. So the slope of the resemblance to the later phase along a found
    order must be significant, with the sign of that order's correlation with the path; the same statistic on permuted labels must
    not be.

    Parameters
    ----------
    tests
        patient, control (data, permuted_labels), measure, phase_from, phase_to, group (name of the order), value, p_adjusted.
    cells
        as in `path_order`; patients without a planted path are left out.

    Returns
    -------
    found, silent
        bool, of rows with a value.
    """
    own = tests[(tests["measure"] == "direction") & (tests["group"] == column) & tests["value"].notna()]
    known = cells[cells[keys.KEPT] & cells["planted_path_time"].notna() & cells[column].notna()]
    sign = {
        str(patient): float(np.sign(stats.spearmanr(part["planted_path_time"], part[column]).statistic))
        for patient, part in known.groupby("planted_patient")
        if len(part) >= MIN_PATH_CELLS
    }
    own = own[own["patient"].isin(list(sign))].sort_values(["patient", "phase_from", "phase_to"])
    own.index = pd.Index(own["patient"] + " " + own["phase_from"] + " to " + own["phase_to"])
    significant = own["p_adjusted"] < CALLED_P
    right = significant & (np.sign(own["value"]) == own["patient"].map(sign))
    return right[own["control"] == "data"], ~significant[own["control"] == "permuted_labels"]
