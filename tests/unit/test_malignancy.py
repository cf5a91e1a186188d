"""The call of malignant cells: planted patients, and each rule by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scresist import cnv, malignancy
from tests.data import cnv_patients
from tests.data.cnv_patients import GAIN, LOSS, Clone

TRUNK = {"1q": GAIN, "8q": GAIN, "5q": LOSS}
NORMAL = {"T": 60, "Macrophage": 25, "Fibroblast": 25, "B": 15, "Endothelial": 12}


def profiles(clones, seed=1):
    """Evidence and profiles of one planted patient, and the truth (bool) of its epithelial cells."""
    merged, annotation, table = cnv_patients.patient(clones, seed)
    counts, reference = merged.layers["counts"], (annotation["lineage"] != "epithelial").to_numpy()
    mean = cnv.sums(counts)[1] / merged.n_obs
    genome = cnv.choose_genes(mean, merged.var["chromosome"], merged.var["start"], merged.var_names, 0.1)
    parts, kernel = cnv.regions(genome, table, 10), cnv.Kernel(counts, genome)
    group = np.full(merged.n_obs, "", dtype=object)
    group[reference] = cnv.reference_groups(annotation["main_type"].to_numpy()[reference])
    bounds = kernel.bounds([np.flatnonzero(group == name) for name in sorted(set(group) - {""})])
    made = kernel.profiles(np.arange(merged.n_obs), bounds, parts)
    found = malignancy.evidence(made.arms, made.thirds, reference, list(parts.arms), parts.arm_genes)
    truth = (merged.obs["clone"] != "normal").to_numpy()[~reference]
    return found, made.profile[~reference], truth


def f1(call: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (call & truth).sum() / (call.sum() + truth.sum())


@pytest.mark.parametrize("seed", [1, 2])
def test_planted_tumour(seed):
    clones = [
        *cnv_patients.normal("A", NORMAL),
        Clone("A", "Epithelial", 60, TRUNK, "C1"),
        Clone("A", "Epithelial", 30, {**TRUNK, "3p": LOSS, "7q": GAIN}, "C2"),
        Clone("A", "Epithelial", 20, {}, "normal"),
    ]
    found, profile, truth = profiles(clones, seed)
    clusters = malignancy.cluster(profile, 1)
    made = malignancy.call(found, clusters, malignancy.Rule())
    assert f1(made.malignant == "malignant", truth) >= 0.97
    assert not made.quiet
    listed = set(",".join(made.clusters.loc[made.clusters["tumour_like"], "arms"]).split(","))
    assert {"+1q", "+8q", "-5q"} <= listed <= {"+1q", "+8q", "-5q", "-3p", "+7q"}
    # what the study's quota would find: a tenth, whatever the truth
    moved = malignancy.sensitivity(found, clusters, malignancy.Rule())
    assert moved.loc[moved["is_default"], "jaccard_to_default"].tolist() == [1.0]
    assert len(moved) == 16 + 2 + 2
    tight = moved[(moved["min_shifted_arms"] == 4) & (moved["arm_shift"] == 1.5)].iloc[0]
    assert tight["n_malignant"] < (made.malignant == "malignant").sum()


def test_normal_epithelium_is_quiet():
    found, profile, _ = profiles([*cnv_patients.normal("A", NORMAL), Clone("A", "Epithelial", 60, {}, "normal")], 4)
    made = malignancy.call(found, malignancy.cluster(profile, 1), malignancy.Rule())
    assert made.quiet
    assert set(made.malignant) == {"unresolved"}
    assert set(made.basis) == {"cnv_quiet"}
    assert np.isnan(made.projection).all()
    moved = malignancy.sensitivity(found, malignancy.cluster(profile, 1), malignancy.Rule())
    assert moved.loc[moved["is_default"], "jaccard_to_default"].isna().all()  # nothing to compare: no value


def by_hand(n=24):
    """Two arms and a cluster each of tumour and normal cells; reference cells from -1 to 1 on both arms."""
    arms = np.zeros((n + 4, 3))
    arms[:12] = [4.0, -3.0, 0.0]
    arms[11] = [0.1, 0.0, 0.0]  # a cell of the tumour cluster without the pattern
    arms[23] = [4.0, -3.0, 0.0]  # and one with it among the others
    reference = np.linspace(-1, 1, 40)[:, None] * np.array([1.0, 1.0, 0.0])
    found = malignancy.Evidence(arms, np.repeat(arms, 3, axis=1), reference, ("1p", "2q", "3p"), np.array([60, 60, 60]))
    clusters = np.array(["0"] * 12 + ["1"] * 12 + ["2"] * 4)
    return found, clusters


def test_consensus_by_hand():
    found, clusters = by_hand()
    made = malignancy.call(found, clusters, malignancy.Rule())
    assert made.clusters["n_shifted"].tolist() == [2, 0, 0]
    assert made.clusters["judged"].tolist() == [True, True, False]
    assert made.clusters.loc[0, "arms"] == "+1p,-2q"
    assert made.malignant.tolist() == (
        ["malignant"] * 11 + ["unresolved"] + ["non_malignant"] * 11 + ["unresolved"] + ["unresolved"] * 4
    )
    assert set(made.basis[:11]) == {"cluster_and_cell"}
    assert made.basis[[11, 12, 23, 24]].tolist() == ["cluster_only", "neither", "cell_only", "cluster_too_small"]
    unit = found.arms[:12].mean(axis=0)
    unit = unit / np.sqrt((unit**2).sum())
    assert made.projection == pytest.approx(found.arms @ unit)
    assert made.cut == pytest.approx(np.quantile(found.reference_arms @ unit, 0.95))


def test_thresholds_by_hand():
    found, clusters = by_hand()
    assert malignancy.call(found, clusters, malignancy.Rule(min_shifted_arms=3)).quiet
    assert malignancy.call(found, clusters, malignancy.Rule(arm_shift=3.0)).quiet  # the mean over 12 cells is 3.67 and -2.75
    assert not malignancy.call(found, clusters, malignancy.Rule(arm_shift=2.7)).quiet


def test_small_arms_are_no_evidence():
    arms = np.vstack([np.ones((3, 3)) * 5, np.random.default_rng(0).normal(size=(20, 3))])
    reference = np.array([False] * 3 + [True] * 20)
    found = malignancy.evidence(arms, np.repeat(arms, 3, axis=1), reference, ["1p", "2p", "3p"], np.array([60, 39, 40]))
    assert found.names == ("1p", "3p")
    assert found.arms.shape == (3, 2)
    assert found.thirds.shape == (3, 6)
    assert found.reference_arms.mean(axis=0) == pytest.approx([0, 0])
    assert found.reference_arms.std(axis=0, ddof=1) == pytest.approx([1, 1])


def test_rules_of_the_score():
    score = np.arange(1.0, 12.0)  # quantile 0.9 of type 7: 1 + 0.9 x 10 = 10
    assert malignancy.above_quota(score, 0.1).tolist() == [False] * 10 + [True]
    reference = np.array([1.0, 2.0, 3.0])  # mean 2, sd 1
    assert malignancy.above_reference(np.array([3.9, 4.0, 4.1]), reference, 2).tolist() == [False, False, True]


def test_correlation():
    rng = np.random.default_rng(0)
    profile = rng.normal(size=(30, 12)).astype(np.float32)
    profile[4] = 0.5  # constant
    top = np.arange(30) < 3
    made = malignancy.correlation(profile, top)
    mean = profile[top].astype(float).mean(axis=0)
    expected = [np.corrcoef(row.astype(float), mean)[0, 1] for at, row in enumerate(profile) if at != 4]
    assert np.delete(made, 4) == pytest.approx(expected, abs=1e-6)
    assert np.isnan(made[4])
    assert np.isnan(malignancy.correlation(profile, np.zeros(30, dtype=bool))).all()


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_pca(shape):
    from sklearn.decomposition import PCA

    x = np.random.default_rng(1).normal(size=shape)
    made, expected = malignancy.pca(x, 5), PCA(5, svd_solver="full").fit_transform(x)
    assert np.abs(made) == pytest.approx(np.abs(expected), abs=1e-8)
    assert malignancy.pca(x[:3], 5).shape == (3, 2)


def test_agreement():
    call = np.array(["malignant", "malignant", "non_malignant", "unresolved"])
    assert malignancy.agreement(call, np.array([True, False, False, True])) == pytest.approx(2 / 3)
    assert np.isnan(malignancy.agreement(call[3:], np.array([True])))


def test_few_cells_are_one_cluster():
    assert malignancy.cluster(np.zeros((5, 3)), 1).tolist() == ["0"] * 5


def test_small_clusters_join_the_nearest():
    space = np.array([[0.0]] * 10 + [[10.0]] * 12 + [[7.0]] * 3 + [[2.0]] * 2)
    labels = np.array(["1"] * 10 + ["0"] * 12 + ["2"] * 3 + ["3"] * 2)
    assert malignancy.absorb(space, labels).tolist() == ["1"] * 10 + ["0"] * 15 + ["1"] * 2
    assert malignancy.absorb(space, labels, 2).tolist() == labels.tolist()
    assert set(malignancy.absorb(space[:6], np.array(list("001122")))) <= {"0", "1", "2"}
    assert len(set(malignancy.absorb(space[:6], np.array(list("001122"))))) == 1  # too few cells for two
