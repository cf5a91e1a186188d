"""Cell types by cluster: marker scores, votes of models, and a consensus that may end in `unresolved`.

A cluster's type is decided lineage first (epithelial, immune, stromal), then main type within the lineage, then subtype.
Each source (the marker table is one, every CellTypist model is one) gives each type a confidence in [0, 1]; their mean decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from scresist import keys

# Main types that share their defining markers compete as one and are told apart afterwards: the messenger of CD4 drops
# out so often that CD4 and CD8 T cells would otherwise both lose to a third type.
FAMILIES = {"T": ("CD4_T", "CD8_T")}
FAMILY_OF = {member: family for family, members in FAMILIES.items() for member in members}
EXCLUDE_SHARE = 0.5  # a negative marker positive in this share of a cluster: most of its cells are not of the type
STANDALONE_GENES = 3  # a subtype with so many genes of its own can stand for its main type, see `standalone_sets`
NEAR_TOP = 0.5  # a gene also counts as expressed at this share of the highest cluster's mean, see `expressed`
SUBTYPE_SHARE = 0.5  # a subtype needs half of its genes expressed

OK = "ok"
UNRESOLVED_LINEAGE = "unresolved_lineage"
UNRESOLVED_TYPE = "unresolved_type"
UNRESOLVED_MEMBER = "unresolved_member"
UNRESOLVED_WEAK = "unresolved_weak"
UNRESOLVED_OUTSIDE = "unresolved_outside"  # the models name a type that is none of ours, such as platelets
VETOED = "vetoed"
WEAK_SUPPORT = 0.2  # below, the leading type has less than one marker of five to show; chosen, not tuned
HETEROGENEOUS = "Heterogeneous"  # CellTypist's word
OUTSIDE = "(none of the types)"


@dataclass
class ClusterExpression:
    """Mean log value and share of positive cells, clusters x genes (frames with the cluster names as index)."""

    mean: pd.DataFrame
    positive: pd.DataFrame
    n_cells: pd.Series


def cluster_expression(x: sparse.csr_matrix, genes: pd.Index, cluster: np.ndarray, wanted: list[str]) -> ClusterExpression:
    """Expression of the wanted genes that were measured, by cluster.

    Parameters
    ----------
    x
        cells x genes, log1p of counts per 10,000.
    cluster
        cluster of each cell, as text.
    """
    found = [gene for gene in sorted(set(wanted)) if gene in genes]
    part = sparse.csr_matrix(x[:, genes.get_indexer(found)], dtype=np.float64)
    names, codes = np.unique(cluster, return_inverse=True)
    n_cells = np.bincount(codes, minlength=len(names))
    member = sparse.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(len(names), len(codes)))
    hits = part.copy()
    hits.data = (hits.data > 0).astype(np.float64)
    mean = np.asarray((member @ part).todense()) / n_cells[:, None]
    positive = np.asarray((member @ hits).todense()) / n_cells[:, None]
    return ClusterExpression(
        pd.DataFrame(mean, index=names, columns=found),
        pd.DataFrame(positive, index=names, columns=found),
        pd.Series(n_cells, index=names),
    )


def expressed(expression: ClusterExpression, marker_pct: float) -> pd.DataFrame:
    """Clusters x genes, boolean: positive in at least `marker_pct` of the cells, and high for this cohort.

    High is a mean above the mean of the other clusters, or at least half of the highest cluster's. The second clause keeps
    cohorts of one kind of cell (only T cells, a cell line) whole: there half of the clusters lie below the others' mean.
    """
    mean = expression.mean
    n = len(mean)
    others = (mean.sum(axis=0) - mean) / max(n - 1, 1)
    high = (mean > others) | (mean >= NEAR_TOP * mean.max(axis=0))
    return (expression.positive >= marker_pct) & high & (mean > 0)


def standalone_sets(markers: pd.DataFrame) -> dict[str, list[list[str]]]:
    """Gene sets of subtypes that stand for their main type: at least three genes that no other main type lists.

    Plasma cells have lost MS4A1, keratinocytes have no KRT8 or EPCAM, plasmacytoid dendritic cells no CD1C: the markers of the
    main type miss them (seen on GSE128531, where keratinocytes scored 0.2 and were taken for monocytes by S100A8 and S100A9).
    """
    owners = markers[markers["role"] != "negative"].groupby("gene")["main_type"].nunique()
    sets: dict[str, list[list[str]]] = {}
    rows = markers[markers["role"] == "subtype"]
    for (main_type, _subtype), genes in rows.groupby(["main_type", "subtype"], sort=True)["gene"]:
        own = sorted(gene for gene in set(genes) if owners[gene] == 1)
        if len(own) >= STANDALONE_GENES:
            sets.setdefault(main_type, []).append(own)
    return sets


def excluded_types(expression: ClusterExpression, markers: pd.DataFrame) -> pd.DataFrame:
    """Clusters x main types, boolean: a negative marker is positive in most cells, so the cluster cannot be of that type.

    An NK cell has no CD3D, whatever a model says of cytotoxic lymphocytes; what has PPBP is a platelet. Members of a family (CD4
    and CD8 T cells) do not exclude each other here: they are told apart afterwards.
    """
    positive = expression.positive
    found = {}
    for main_type, rows in markers.groupby("main_type", sort=True):
        genes = sorted(set(rows.loc[rows["role"] == "negative", "gene"]) & set(positive.columns))
        found[main_type] = (positive[genes] >= EXCLUDE_SHARE).any(axis=1) & (main_type not in FAMILY_OF)
    return pd.DataFrame(found, index=positive.index)


def missing_required(expression: ClusterExpression, markers: pd.DataFrame, veto_pct: float) -> pd.DataFrame:
    """Clusters x main types, boolean: none of the type's required markers is positive in `veto_pct` of the cluster.

    A type with several required markers needs one of them; a type without (measured) required markers is never vetoed.
    """
    positive = expression.positive
    found = {}
    for main_type, rows in markers.groupby("main_type", sort=True):
        genes = sorted(set(rows.loc[rows["role"] == "required", "gene"]) & set(positive.columns))
        found[main_type] = (positive[genes] < veto_pct).all(axis=1) & bool(genes)
    return pd.DataFrame(found, index=positive.index)


def marker_scores(expression: ClusterExpression, markers: pd.DataFrame, marker_pct: float, veto_pct: float) -> pd.DataFrame:
    """Clusters x main types, in [0, 1]: share of a type's measured markers that are expressed.

    Where the genes of a subtype stand for the main type (`standalone_sets`), the larger share counts. Expressed negative markers
    lower the score by the largest share of cells positive for one; without a required marker or with the type excluded it is 0.

    Parameters
    ----------
    markers
        columns `main_type, subtype, gene, role`; roles marker and required are counted, role negative lowers the score.
    """
    on = expressed(expression, marker_pct)
    standalone = standalone_sets(markers)
    void = missing_required(expression, markers, veto_pct) | excluded_types(expression, markers)
    scores = {}
    for main_type, rows in markers.groupby("main_type", sort=True):
        own = sorted(set(rows.loc[rows["role"].isin(["marker", "required"]), "gene"]) & set(on.columns))
        sets = [sorted(set(genes) & set(on.columns)) for genes in standalone.get(main_type, [])]
        shares = [on[genes].mean(axis=1) for genes in sets if len(genes) >= STANDALONE_GENES]
        shares += [on[own].mean(axis=1)] if own else []
        if not shares:
            continue
        score = pd.concat(shares, axis=1).max(axis=1)
        against = sorted(set(rows.loc[rows["role"] == "negative", "gene"]) & set(on.columns))
        if against:
            score = score * (1 - (expression.positive[against] * on[against]).max(axis=1))
        scores[main_type] = score.where(~void[main_type], 0.0)
    return pd.DataFrame(scores, index=on.index)


def model_votes(cluster: np.ndarray, label: np.ndarray, confidence: np.ndarray, label_map: pd.DataFrame) -> pd.DataFrame:
    """Votes of one model: `cluster, lineage, main_type, subtype, share, vote`.

    `share` is the share of the cluster's cells with such a label, `vote` that share times their mean confidence. Labels
    without a place in the map have empty lineage and type.

    Parameters
    ----------
    label, confidence
        the model's label and its confidence in [0, 1] for each cell.
    label_map
        columns `label, lineage, main_type, subtype` of this model.
    """
    frame = pd.DataFrame({"cluster": cluster, "label": label, "confidence": confidence.astype(float)})
    frame = frame.merge(label_map, on="label", how="left").fillna({"lineage": "", "main_type": "", "subtype": ""})
    sizes = frame.groupby("cluster").size()
    grouped = (
        frame.groupby(["cluster", "lineage", "main_type", "subtype"], sort=True)["confidence"].agg(["size", "sum"]).reset_index()
    )
    grouped["share"] = grouped["size"] / grouped["cluster"].map(sizes)
    grouped["vote"] = grouped["sum"] / grouped["cluster"].map(sizes)
    return grouped.drop(columns=["size", "sum"])


def majority(cluster: np.ndarray, label: np.ndarray, min_prop: float) -> np.ndarray:
    """Majority label of each cell's cluster, `Heterogeneous` below a share of `min_prop` (as CellTypist; ties by name)."""
    table = pd.crosstab(cluster, label, normalize="index")
    winner = table.idxmax(axis=1).where(table.max(axis=1) >= min_prop, HETEROGENEOUS)
    return winner.loc[cluster].to_numpy(dtype=str)


def _leader(votes: pd.Series) -> tuple[str, float, float]:
    """Best name, its vote, and its lead over the second; ties by name."""
    order = votes.sort_index().sort_values(ascending=False, kind="stable")
    second = order.iloc[1] if len(order) > 1 else 0.0
    return str(order.index[0]), float(order.iloc[0]), float(order.iloc[0] - second)


def _marker_items(scores: pd.Series, lineage_of: dict[str, str]) -> pd.DataFrame:
    """Marker scores of one cluster as `lineage, family, share, vote`; a family has the score of its best member."""
    best = scores.groupby(lambda t: FAMILY_OF.get(t, t)).max()
    lineages = [lineage_of[family] for family in best.index]
    return pd.DataFrame({"lineage": lineages, "family": best.index, "share": 1.0, "vote": best.to_numpy()})


def _model_items(table: pd.DataFrame) -> pd.DataFrame:
    """Votes of one model in one cluster as `lineage, family, share, vote`; types that are none of ours as OUTSIDE."""
    family = table["main_type"].map(lambda t: FAMILY_OF.get(t, t))
    family = family.where((family != "") | (table["lineage"] == ""), OUTSIDE)
    return table.assign(family=family).groupby(["lineage", "family"])[["share", "vote"]].sum().reset_index()


def specific_genes(markers: pd.DataFrame, members: tuple[str, ...]) -> dict[str, list[str]]:
    """Markers of each member of a family that no other member has."""
    use = markers[markers["role"].isin(["marker", "required"])]
    own = {member: set(use.loc[use["main_type"] == member, "gene"]) for member in members}
    return {m: sorted(own[m] - set().union(*(own[o] for o in members if o != m))) for m in members}


def consensus(
    expression: ClusterExpression,
    markers: pd.DataFrame,
    votes: dict[str, pd.DataFrame],
    *,
    marker_pct: float,
    veto_pct: float,
    margin: float,
    min_prop: float,
) -> pd.DataFrame:
    """One row per cluster with the evidence and the decision.

    A model abstains in a cluster where its leading main type (family) holds less than `min_prop` of the cells. A type excluded by
    its negative markers is no candidate, whoever names it. Where none of a type's required markers is positive in `veto_pct` of
    the cluster the type is vetoed; when that was the leading type, the lead is below `margin`, or its support
    below 0.2, the cluster is `unresolved`.

    Parameters
    ----------
    votes
        `model_votes` of each model by its name.

    Returns
    -------
    Index cluster; `n_cells, lineage, main_type, subtype, type_status, annotation_confidence` (mean confidence of the sources in
    the winning type, in [0, 1]), `margin, veto, marker_type, marker_score, n_sources, votes`.
    """
    scores = marker_scores(expression, markers, marker_pct, veto_pct)
    lineage_of = dict(zip(markers["main_type"], markers["lineage"], strict=True))
    lineage_of |= {family: lineage_of[members[0]] for family, members in FAMILIES.items() if members[0] in lineage_of}
    required = markers[markers["role"] == "required"].groupby("main_type")["gene"].agg(list).to_dict()
    lacking, excluded = missing_required(expression, markers, veto_pct), excluded_types(expression, markers)
    subtype_on = expressed(expression, marker_pct)
    levels = {
        family: member_levels(expression, markers, members, scores, veto_pct)
        for family, members in FAMILIES.items()
        if set(members) <= set(scores)
    }
    # the finest model first: the one that knows the most subtypes
    votes = dict(sorted(votes.items(), key=lambda item: (-item[1].loc[item[1]["subtype"] != "", "subtype"].nunique(), item[0])))
    rows = []
    for name in scores.index:
        own = scores.loc[name]
        banned = {main_type for main_type in excluded if excluded.loc[name, main_type]}
        sources = {"markers": _marker_items(own, lineage_of)}
        for model, table in votes.items():
            items = _model_items(table[table["cluster"] == name])
            if items["share"].max() >= min_prop:
                sources[model] = items
        marker_type, marker_score, _ = _leader(own)
        marker_type = marker_type if marker_score > 0 else keys.UNRESOLVED

        items = pd.concat(sources, names=["source"]).reset_index()
        items = items[~items["family"].isin(banned) & items["lineage"].isin(keys.LINEAGES)]
        # within a model the labels of a lineage exclude each other and add up; marker sets of types overlap, the best one counts
        of_models = items[items["source"] != "markers"].groupby("lineage")["vote"].sum()
        of_markers = items[items["source"] == "markers"].groupby("lineage")["vote"].max()
        lineage_votes = of_models.add(of_markers, fill_value=0.0).reindex(list(keys.LINEAGES), fill_value=0.0) / len(sources)
        lineage, _, lineage_lead = _leader(lineage_votes)
        inside = items[items["lineage"] == lineage].groupby("family")["vote"].sum() / len(sources)

        main_type, subtype, word, vetoed = keys.UNRESOLVED, keys.UNRESOLVED, OK, ""
        confidence, lead = 0.0, 0.0
        if lineage_lead < margin or inside.empty:
            word, lead, lineage = UNRESOLVED_LINEAGE, lineage_lead, keys.UNRESOLVED
        else:
            best, confidence, lead = _leader(inside)
            members = FAMILIES.get(best, (best,))
            if best == OUTSIDE:
                word = UNRESOLVED_OUTSIDE
            elif all(lacking.loc[name, member] for member in members):
                word, vetoed = VETOED, f"{best}: {', '.join(sorted({gene for m in members for gene in required.get(m, [])}))}"
            elif lead < margin:
                word = UNRESOLVED_TYPE
            elif confidence < WEAK_SUPPORT:
                word = UNRESOLVED_WEAK
            elif len(members) > 1:
                best = _member(levels[best].loc[name], name, [votes[m] for m in sources if m != "markers"], margin)
                word = OK if best else UNRESOLVED_MEMBER
            if word in (UNRESOLVED_OUTSIDE, VETOED):
                confidence = 0.0
            if word == OK:
                main_type = best
                subtype = _subtype(name, best, subtype_on, expression, markers, [votes[m] for m in sources if m != "markers"])
        rows.append(
            {
                "cluster": name,
                "n_cells": int(expression.n_cells[name]),
                keys.LINEAGE: lineage,
                keys.MAIN_TYPE: main_type,
                keys.SUBTYPE: subtype,
                keys.TYPE_STATUS: word,
                keys.ANNOTATION_CONFIDENCE: min(1.0, confidence),
                "margin": lead,
                "veto": vetoed,
                keys.MARKER_TYPE: marker_type,
                keys.MARKER_SCORE: marker_score,
                "n_sources": len(sources),
                "votes": "; ".join(
                    f"{t} {v:.2f}" for t, v in inside.sort_index().sort_values(ascending=False, kind="stable").head(4).items()
                ),
            }
        )
    return pd.DataFrame(rows).set_index("cluster")


def member_levels(
    expression: ClusterExpression, markers: pd.DataFrame, members: tuple[str, ...], scores: pd.DataFrame, veto_pct: float
) -> pd.DataFrame:
    """Clusters x members of a family: mean level of the genes that only one member has, in [0, 1] for clusters of the family.

    The level of a gene is its share of positive cells against the highest share in any cluster that the family leads by
    `marker_scores` (at least `veto_pct`, so that noise is not blown up where a member is absent). Plain shares would call naive
    CD4 T cells CD8: in pbmc3k at most 15 % of the cells of a T-cell cluster show CD4, but half show CD8A where it belongs.
    """
    positive = expression.positive
    best = scores[list(members)].max(axis=1)
    of_family = (best > 0) & (best >= scores.max(axis=1))
    levels = {}
    for member, genes in specific_genes(markers, members).items():
        measured = [gene for gene in genes if gene in positive]
        top = positive.loc[of_family, measured].max().fillna(0.0).clip(lower=veto_pct)
        levels[member] = positive[measured].div(top).mean(axis=1) if measured else pd.Series(0.0, index=positive.index)
    return pd.DataFrame(levels, index=positive.index)


def _member(level: pd.Series, name: str, votes: list[pd.DataFrame], margin: float) -> str:
    """The member of a family: mean over the sources that speak of each member's share of their evidence; empty when close.

    Markers speak through `member_levels` of the cluster, models through their labels.
    """
    shares = [level / level.sum()] if level.sum() > 0 else []
    for table in votes:
        table = table[table["cluster"] == name]
        vote = pd.Series({member: table.loc[table["main_type"] == member, "vote"].sum() for member in level.index})
        if vote.sum() > 0:
            shares.append(vote / vote.sum())
    if not shares:
        return ""
    best, _, lead = _leader(pd.concat(shares, axis=1).mean(axis=1))
    return best if lead >= margin else ""


def _subtype(
    name: str,
    main_type: str,
    on: pd.DataFrame,
    expression: ClusterExpression,
    markers: pd.DataFrame,
    votes: list[pd.DataFrame],
) -> str:
    """Subtype inside a main type: the finest model's leading one, else the best marker set, else the main type itself.

    `votes` has the finest model first.
    """
    inside = [table[(table["cluster"] == name) & (table["main_type"] == main_type)] for table in votes]
    fine = [table[table["subtype"] != ""] for table in inside]
    fine = [table for table in fine if len(table)]
    if fine:
        best, share, _ = _leader(fine[0].groupby("subtype")["share"].sum())
        if share >= SUBTYPE_SHARE:
            return best
    rows = markers[(markers["main_type"] == main_type) & (markers["role"] == "subtype")]
    candidates = []
    for subtype, genes in rows.groupby("subtype", sort=True)["gene"]:
        measured = [gene for gene in sorted(set(genes)) if gene in on]
        if not measured:
            continue
        score = on.loc[name, measured].mean()
        # relative to the highest cluster: classical monocytes have some MS4A7, nonclassical ones have the most
        level = (expression.mean.loc[name, measured] / expression.mean[measured].max().clip(lower=1e-9)).mean()
        if score >= SUBTYPE_SHARE:
            candidates.append((-score * level, subtype))
    return min(candidates)[1] if candidates else main_type


def model_overlap(features: list[str], genes: pd.Index) -> tuple[int, float]:
    """Number and share of a model's features that the data hold."""
    shared = len(set(features) & set(genes))
    return shared, shared / len(features)
