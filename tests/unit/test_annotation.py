"""Marker scores, votes and consensus on hand-worked clusters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import annotation, io, keys

LIMITS = {"marker_pct": 0.25, "veto_pct": 0.10, "margin": 0.1, "min_prop": 0.5}


def table(*rows: str) -> pd.DataFrame:
    """Marker table from `type lineage subtype gene role`, `-` for none."""
    split = [row.replace("-", "").split(" ") for row in rows]
    return pd.DataFrame(split, columns=["main_type", "lineage", "subtype", "gene", "role"])


MARKERS = table(
    "B immune - MS4A1 marker", "B immune - CD79A required", "B immune Plasma MZB1 subtype", "B immune Plasma JCHAIN subtype",
    "B immune Plasma SDC1 subtype", "B immune Naive_B TCL1A subtype",
    "CD4_T immune - CD3D required", "CD4_T immune - CD4 marker", "CD4_T immune - CD8A negative",
    "CD8_T immune - CD3D required", "CD8_T immune - CD8A marker", "CD8_T immune - CD4 negative",
    "NK immune - KLRD1 required", "NK immune - KLRF1 required", "NK immune - GNLY marker", "NK immune - CD3D negative",
    "Epithelial epithelial - EPCAM marker", "Epithelial epithelial - KRT18 marker",
    "Fibroblast stromal - COL1A2 required", "Fibroblast stromal - DCN marker",
)  # fmt: skip


def expression(**clusters: dict[str, float]) -> annotation.ClusterExpression:
    """Clusters of 100 cells from shares positive; the mean is the share, genes not named are 0."""
    genes = sorted(set(MARKERS["gene"]))
    positive = pd.DataFrame({name: [shares.get(gene, 0.0) for gene in genes] for name, shares in clusters.items()}, index=genes).T
    return annotation.ClusterExpression(positive.copy(), positive, pd.Series(100, index=positive.index))


B = {"MS4A1": 0.8, "CD79A": 0.9}
CD8 = {"CD3D": 0.8, "CD8A": 0.5, "GNLY": 0.4}
CD4 = {"CD3D": 0.8, "CD4": 0.15}
NK = {"KLRD1": 0.5, "GNLY": 0.9, "KLRF1": 0.4}
EPITHELIAL = {"EPCAM": 0.7, "KRT18": 0.9}
FIBROBLAST = {"COL1A2": 0.9, "DCN": 0.9}
ALL = {"b": B, "cd8": CD8, "cd4": CD4, "nk": NK, "epi": EPITHELIAL, "fib": FIBROBLAST}


def votes(cluster: str, share: float, confidence: float = 1.0, lineage: str = "", main_type: str = "", subtype: str = ""):
    """Votes of a model that has labelled `share` of one cluster with one type and the rest with nothing."""
    own = {"cluster": cluster, "lineage": lineage, "main_type": main_type, "subtype": subtype}
    rest = {"cluster": cluster, "lineage": "", "main_type": "", "subtype": ""}
    return pd.DataFrame(
        [{**own, "share": share, "vote": share * confidence}, {**rest, "share": 1 - share, "vote": (1 - share) * confidence}]
    )


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix])
def test_cluster_expression_by_hand(kind):
    x = kind(np.array([[1.0, 0, 0], [3.0, 0, 2.0], [0, 0, 4.0]]))
    found = annotation.cluster_expression(x, pd.Index(["A", "B", "C"]), np.array(["p", "p", "q"]), ["C", "A", "absent", "A"])
    assert found.mean.to_dict("index") == {"p": {"A": 2.0, "C": 1.0}, "q": {"A": 0.0, "C": 4.0}}
    assert found.positive.to_dict("index") == {"p": {"A": 1.0, "C": 0.5}, "q": {"A": 0.0, "C": 1.0}}
    assert found.n_cells.to_dict() == {"p": 2, "q": 1}


def test_expressed_needs_cells_and_a_high_mean():
    given = expression(a={"EPCAM": 0.9}, b={"EPCAM": 0.3}, c={"EPCAM": 0.24}, d={})
    # b: 30 % of the cells, but its mean lies below the others' (0.38) and below half of the highest (0.45)
    assert annotation.expressed(given, 0.25)["EPCAM"].to_dict() == {"a": True, "b": False, "c": False, "d": False}


def test_a_cohort_of_one_kind_keeps_its_markers():
    # three tumour clusters: each below the mean of the others is still at more than half of the highest
    given = expression(a={"EPCAM": 0.9}, b={"EPCAM": 0.8}, c={"EPCAM": 0.7})
    assert annotation.expressed(given, 0.25)["EPCAM"].all()


def test_marker_scores_by_hand():
    found = annotation.marker_scores(expression(**ALL), MARKERS, 0.25, 0.10)
    assert found.loc["b"].to_dict() == {"B": 1.0, "CD4_T": 0, "CD8_T": 0, "NK": 0, "Epithelial": 0, "Fibroblast": 0}
    assert found.loc["cd8", "CD8_T"] == 1.0
    # CD3D of CD3D and CD4, less half for the CD8A that half of the cells have
    assert found.loc["cd8", "CD4_T"] == pytest.approx(0.5 * (1 - 0.5))
    # no NK cell where no KLRD1 and KLRF1 is, whatever GNLY says; and CD3D in most cells excludes it
    assert found.loc["cd8", "NK"] == 0
    assert found.loc["nk", "NK"] == 1.0
    # CD4 in 15 % of the cells is below marker_pct: one marker of two
    assert found.loc["cd4", "CD4_T"] == 0.5


def test_a_subtype_with_three_genes_of_its_own_stands_for_its_type():
    assert annotation.standalone_sets(MARKERS) == {"B": [["JCHAIN", "MZB1", "SDC1"]]}
    plasma = {"MZB1": 0.9, "JCHAIN": 0.9, "SDC1": 0.4, "CD79A": 0.3}
    found = annotation.consensus(expression(**ALL, plasma=plasma), MARKERS, {}, **LIMITS)
    assert found.loc["plasma", [keys.MAIN_TYPE, keys.SUBTYPE]].tolist() == ["B", "Plasma"]


def test_genes_shared_with_another_type_do_not_stand_for_one():
    shared = pd.concat([MARKERS, table("NK immune Odd MZB1 subtype")])
    assert annotation.standalone_sets(shared) == {}


def test_markers_alone():
    found = annotation.consensus(expression(**ALL), MARKERS, {}, **LIMITS)
    assert found[keys.MAIN_TYPE].to_dict() == {
        "b": "B", "cd8": "CD8_T", "cd4": "CD4_T", "nk": "NK", "epi": "Epithelial", "fib": "Fibroblast",
    }  # fmt: skip
    assert found[keys.LINEAGE].to_dict()["fib"] == "stromal"
    assert (found[keys.TYPE_STATUS] == "ok").all()
    assert found[keys.SUBTYPE].equals(found[keys.MAIN_TYPE].rename(keys.SUBTYPE))
    assert (found["n_sources"] == 1).all()
    # CD4 drops out: half of the markers, yet the lead over the other types is whole
    assert found.loc["cd4", [keys.ANNOTATION_CONFIDENCE, "margin"]].tolist() == [0.5, 0.5]


def test_a_type_absent_from_the_data_changes_nothing():
    few = {name: ALL[name] for name in ("b", "epi")}
    found = annotation.consensus(expression(**few), MARKERS, {}, **LIMITS)
    assert found[keys.MAIN_TYPE].to_dict() == {"b": "B", "epi": "Epithelial"}


def test_order_of_clusters_and_rows_changes_nothing():
    one = annotation.consensus(expression(**ALL), MARKERS, {}, **LIMITS)
    shuffled = MARKERS.sample(frac=1, random_state=0)
    two = annotation.consensus(expression(**dict(reversed(ALL.items()))), shuffled, {}, **LIMITS)
    pd.testing.assert_frame_equal(one, two.loc[one.index])


def test_nothing_expressed_is_unresolved():
    found = annotation.consensus(expression(**ALL, dead={}), MARKERS, {}, **LIMITS).loc["dead"]
    assert found[keys.TYPE_STATUS] == "unresolved_lineage"
    assert found[[keys.MAIN_TYPE, keys.SUBTYPE, keys.LINEAGE, keys.MARKER_TYPE]].tolist() == [keys.UNRESOLVED] * 4
    assert found[keys.ANNOTATION_CONFIDENCE] == 0


def test_two_lineages_alike_are_unresolved():
    found = annotation.consensus(expression(**ALL, both={**EPITHELIAL, **B}), MARKERS, {}, **LIMITS).loc["both"]
    assert found[[keys.MAIN_TYPE, keys.TYPE_STATUS]].tolist() == [keys.UNRESOLVED, "unresolved_lineage"]


def test_two_types_of_a_lineage_alike_are_unresolved():
    found = annotation.consensus(expression(**ALL, both={**NK, **B}), MARKERS, {}, **LIMITS).loc["both"]
    assert found[[keys.MAIN_TYPE, keys.LINEAGE, keys.TYPE_STATUS]].tolist() == [keys.UNRESOLVED, "immune", "unresolved_type"]


def test_cd4_and_cd8_alike_are_unresolved():
    mixed = {"CD3D": 0.8, "CD4": 0.15, "CD8A": 0.5}  # each as high as where it belongs
    found = annotation.consensus(expression(**ALL, mixed=mixed), MARKERS, {}, **LIMITS).loc["mixed"]
    assert found[[keys.MAIN_TYPE, keys.LINEAGE, keys.TYPE_STATUS]].tolist() == [keys.UNRESOLVED, "immune", "unresolved_member"]


def test_sum_over_sources_by_hand():
    model = votes("fib", 0.8, 0.9, "stromal", "Fibroblast")
    found = annotation.consensus(expression(**ALL), MARKERS, {"m": model}, **LIMITS).loc["fib"]
    assert found[keys.ANNOTATION_CONFIDENCE] == pytest.approx((1.0 + 0.8 * 0.9) / 2)
    assert found["n_sources"] == 2


def test_a_confident_model_outvotes_weak_markers_and_a_contradiction_is_unresolved():
    weak = expression(**ALL, x={"DCN": 0.8, "COL1A2": 0.2, "EPCAM": 0.6})
    # markers: Fibroblast 0.5, Epithelial 0.5; the model decides
    model = votes("x", 1.0, 0.9, "epithelial", "Epithelial")
    found = annotation.consensus(weak, MARKERS, {"m": model}, **LIMITS).loc["x"]
    assert found[keys.MAIN_TYPE] == "Epithelial"
    # markers say Epithelial 1.0, the model says B with the same weight
    against = votes("epi", 1.0, 0.95, "immune", "B")
    found = annotation.consensus(expression(**ALL), MARKERS, {"m": against}, **LIMITS).loc["epi"]
    assert found[keys.TYPE_STATUS] == "unresolved_lineage"


def test_a_model_without_a_majority_abstains():
    model = votes("fib", 0.49, 1.0, "immune", "B")
    found = annotation.consensus(expression(**ALL), MARKERS, {"m": model}, **LIMITS).loc["fib"]
    # the half without a label is a majority of its own: the model speaks, and says mostly nothing
    assert found["n_sources"] == 2
    split = pd.concat([votes("fib", 0.49, 1.0, "immune", "B").iloc[:1], votes("fib", 0.3, 1.0, "immune", "NK").iloc[:1]])
    found = annotation.consensus(expression(**ALL), MARKERS, {"m": split}, **LIMITS).loc["fib"]
    assert found["n_sources"] == 1
    assert found[keys.ANNOTATION_CONFIDENCE] == 1.0


def test_veto_by_the_required_marker():
    # tumour cells that a model for immune cells takes for B cells: no CD79A, so nothing is called
    cells = expression(**ALL, tumour={"KRT18": 0.1})
    model = votes("tumour", 1.0, 1.0, "immune", "B")
    found = annotation.consensus(cells, MARKERS, {"m": model}, **LIMITS).loc["tumour"]
    assert found[[keys.MAIN_TYPE, keys.TYPE_STATUS, "veto"]].tolist() == [keys.UNRESOLVED, "vetoed", "B: CD79A"]
    at_limit = expression(**ALL, tumour={"CD79A": 0.10})
    assert annotation.consensus(at_limit, MARKERS, {"m": model}, **LIMITS).loc["tumour", keys.MAIN_TYPE] == "B"


def test_one_of_several_required_markers_is_enough():
    found = annotation.missing_required(expression(one={"KLRF1": 0.2}, none={"GNLY": 1.0}), MARKERS, 0.10)["NK"]
    assert found.to_dict() == {"one": False, "none": True}


def test_cytotoxic_t_cells_are_no_nk_cells_whatever_the_model_says():
    model = votes("cd8", 1.0, 1.0, "immune", "NK")
    found = annotation.consensus(expression(**ALL), MARKERS, {"m": model}, **LIMITS).loc["cd8"]
    assert found[keys.MAIN_TYPE] == "CD8_T"


def test_a_label_outside_the_table_competes():
    platelets = expression(**ALL, platelets={"GNLY": 0.4})
    model = votes("platelets", 1.0, 0.9, "immune", "")
    found = annotation.consensus(platelets, MARKERS, {"m": model}, **LIMITS).loc["platelets"]
    assert found[[keys.MAIN_TYPE, keys.LINEAGE, keys.TYPE_STATUS]].tolist() == [keys.UNRESOLVED, "immune", "unresolved_outside"]


def test_little_support_is_unresolved():
    weak = expression(**ALL, weak={"KRT18": 0.1})
    model = votes("weak", 0.6, 0.6, "epithelial", "Epithelial")  # 0.36 / 2 sources = 0.18
    found = annotation.consensus(weak, MARKERS, {"m": model}, **LIMITS).loc["weak"]
    assert found[keys.TYPE_STATUS] == "unresolved_weak"


def test_t_cells_of_a_model_without_cd4_and_cd8_are_told_apart_by_markers():
    model = pd.concat([votes("cd4", 1.0, 1.0, "immune", "T"), votes("cd8", 1.0, 1.0, "immune", "T")])
    found = annotation.consensus(expression(**ALL), MARKERS, {"m": model}, **LIMITS)
    assert found.loc[["cd4", "cd8"], keys.MAIN_TYPE].tolist() == ["CD4_T", "CD8_T"]
    # a finer model outvotes the markers: 1.0 : 0.5 for CD8 (0.5 of 0.5, 0.075 of 0.15), model 1 : 0 for CD4
    mixed = expression(**ALL, x={"CD3D": 0.8, "CD4": 0.075, "CD8A": 0.5})
    found = annotation.consensus(mixed, MARKERS, {"m": votes("x", 1.0, 1.0, "immune", "CD4_T")}, **LIMITS)
    assert found.loc["x", keys.MAIN_TYPE] == "CD4_T"


def test_scarce_cd4_messenger_is_weighed_against_its_own_highest_cluster():
    # more cells show CD8A (20 %) than CD4 (12 %), yet 0.12 of 0.15 is more than 0.20 of 0.50
    naive = expression(**ALL, naive={"CD3D": 0.8, "CD4": 0.12, "CD8A": 0.20}, dc={"CD3D": 0.12, "CD4": 0.9, **B})
    found = annotation.consensus(naive, MARKERS, {}, **LIMITS)
    assert found.loc[["naive", "cd8", "cd4"], keys.MAIN_TYPE].tolist() == ["CD4_T", "CD8_T", "CD4_T"]


def test_a_member_that_is_absent_is_not_made_of_noise():
    only = {"b": B, "one": {"CD3D": 0.8, "CD8A": 0.5, "CD4": 0.02}, "two": {"CD3D": 0.8, "CD8A": 0.4, "CD4": 0.01}}
    found = annotation.consensus(expression(**only), MARKERS, {}, **LIMITS)
    assert found.loc[["one", "two"], keys.MAIN_TYPE].tolist() == ["CD8_T", "CD8_T"]


def test_subtype_of_the_finest_model_then_of_the_markers():
    naive = {**B, "TCL1A": 0.6}
    cells = expression(**ALL, naive=naive)
    assert annotation.consensus(cells, MARKERS, {}, **LIMITS).loc["naive", keys.SUBTYPE] == "Naive_B"
    coarse = votes("naive", 1.0, 1.0, "immune", "B")
    assert annotation.consensus(cells, MARKERS, {"a": coarse}, **LIMITS).loc["naive", keys.SUBTYPE] == "Naive_B"
    fine = votes("naive", 1.0, 1.0, "immune", "B", "Memory_B")
    found = annotation.consensus(cells, MARKERS, {"a": coarse, "b": fine}, **LIMITS)
    assert found.loc["naive", keys.SUBTYPE] == "Memory_B"


def test_model_votes_by_hand():
    label_map = pd.DataFrame(
        [["T cells", "immune", "T", ""], ["B cells", "immune", "B", "Naive_B"]],
        columns=["label", "lineage", "main_type", "subtype"],
    )
    cluster = np.array(["0", "0", "0", "0", "1"])
    label = np.array(["B cells", "B cells", "T cells", "unheard of", "T cells"])
    found = annotation.model_votes(cluster, label, np.array([1.0, 0.5, 0.8, 0.9, 0.7]), label_map)
    own = found.set_index(["cluster", "main_type"])
    assert own.loc[("0", "B"), ["share", "vote"]].tolist() == pytest.approx([0.5, 1.5 / 4])
    assert own.loc[("0", "T"), ["share", "vote"]].tolist() == pytest.approx([0.25, 0.2])
    assert own.loc[("0", ""), ["lineage", "share"]].tolist() == ["", 0.25]
    assert own.loc[("1", "T"), ["share", "vote"]].tolist() == pytest.approx([1.0, 0.7])


def test_majority_by_hand():
    cluster = np.array(["0"] * 4 + ["1"] * 3)
    label = np.array(["B", "B", "A", "C", "C", "B", "A"])
    assert annotation.majority(cluster, label, 0.5).tolist() == ["B"] * 4 + ["Heterogeneous"] * 3
    assert annotation.majority(cluster, label, 0.0).tolist() == ["B"] * 4 + ["A"] * 3


def test_model_overlap():
    assert annotation.model_overlap(["A", "B", "C", "D"], pd.Index(["B", "D", "X"])) == (2, 0.5)


def test_bundled_tables_agree(root):
    markers = io.read_tsv(root / "assets" / "markers.tsv", dtype=str).fillna("")
    label_map = io.read_tsv(root / "assets" / "label_map.tsv", dtype=str).fillna("")
    assert len(set(markers["main_type"])) == 11
    assert not markers.duplicated().any()
    assert not label_map.duplicated(["model", "label"]).any()
    lineage_of = dict(zip(markers["main_type"], markers["lineage"], strict=True)) | {"T": "immune"}
    subtypes = set(zip(markers["main_type"], markers["subtype"], strict=True))
    for row in label_map.itertuples():
        assert row.lineage in (*keys.LINEAGES, "")
        assert not row.main_type or row.lineage == lineage_of[row.main_type], row
        assert not row.subtype or (row.main_type, row.subtype) in subtypes, row


@pytest.mark.real
def test_every_label_of_the_immune_models_is_mapped(root, shared_data, monkeypatch, tmp_path):
    monkeypatch.setenv("CELLTYPIST_FOLDER", str(tmp_path))
    from celltypist.models import Model

    label_map = io.read_tsv(root / "assets" / "label_map.tsv", dtype=str).fillna("")
    for name, n_labels in (("Immune_All_High", 32), ("Immune_All_Low", 98)):
        labels = set(map(str, Model.load(str(shared_data / "celltypist" / f"{name}.pkl")).cell_types))
        assert len(labels) == n_labels
        assert labels == set(label_map.loc[label_map["model"] == name, "label"])
