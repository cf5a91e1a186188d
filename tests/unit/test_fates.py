"""Couplings, states, fates and their null against slow implementations, closed forms, CellRank, scanpy and planted paths."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse, stats

from scresist import fates, neighbours, normalise

RULES = fates.Rules()


@cache
def trajectory(n: int = 900, n_genes: int = 1200) -> tuple:
    """Cells along one path in three phases: early cells express more genes. Returns x, genes, phase, true time."""
    rng = np.random.default_rng(4)
    time = np.sort(rng.uniform(0, 1, n))
    slope = np.zeros(n_genes)
    slope[:350], slope[350:470] = -2.4, 2.4
    level = rng.normal(np.log(0.4), 1.0, n_genes)
    level[:470] = np.log(0.5)
    mean = np.exp(level + np.outer(time - 0.5, slope))
    depth = rng.lognormal(np.log(2500), 0.25, n)
    counts = rng.poisson(mean / mean.sum(axis=1, keepdims=True) * depth[:, None]).astype(np.int32)
    genes = pd.Index([f"G{at:04d}" for at in range(n_genes)])
    return normalise.log1p_cp10k(sparse.csr_matrix(counts)), genes, np.repeat([0, 1, 2], n // 3), time


@cache
def mapped() -> dict:
    """The trajectory through the step's parts."""
    x, genes, phase, time = trajectory()
    points = fates.space(x, genes, phase.astype(str))
    graph = neighbours.neighbour_weights(points, fates.n_neighbours(len(points)) + 1)
    cost, clone = fates.relative_cost(points), np.repeat("", len(points))
    couplings = [fates.couple(cost, phase, clone, pair, RULES) for pair in ((0, 1), (1, 2))]
    return {
        "points": points, "graph": graph, "cost": cost, "clone": clone, "couplings": couplings, "phase": phase, "time": time,
        "cytotrace": fates.cytotrace(x, graph, list(genes)), "diffusion": fates.diffusion_map(graph),
    }  # fmt: skip


def rho(a: np.ndarray, b: np.ndarray) -> float:
    return float(stats.spearmanr(a, b).statistic)


# --- space and order


def test_principal_components_are_those_of_the_svd():
    rng = np.random.default_rng(0)
    for shape in ((30, 12), (12, 30)):
        values = rng.normal(size=shape) @ np.diag(np.linspace(3, 1, shape[1]))
        found = fates.principal_components(values, 5)
        u, s, _v = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
        assert np.allclose(np.abs(found), np.abs(u[:, :5] * s[:5]))
        loading = (values - values.mean(axis=0)).T @ found
        assert (loading[np.abs(loading).argmax(axis=0), range(5)] > 0).all()
    assert fates.principal_components(np.ones((5, 3)) * np.arange(5)[:, None], 3).shape == (5, 1)  # one direction only


def test_cytotrace_equals_cellrank():
    import anndata
    from cellrank.kernels import CytoTRACEKernel

    x, genes, _, _ = trajectory()
    x = sparse.csr_matrix(x[::6])
    graph = neighbours.neighbour_weights(x[:, :300].toarray(), 11)
    weights = graph + sparse.identity(graph.shape[0])
    smoothed = sparse.diags(1 / np.asarray(weights.sum(axis=1)).ravel()) @ weights @ x.astype(float)
    holder = anndata.AnnData(x, var=pd.DataFrame(index=genes), layers={"Ms": sparse.csr_matrix(smoothed)})
    holder.obsp["connectivities"] = graph
    holder.uns["neighbors"] = {"connectivities_key": "connectivities"}
    CytoTRACEKernel(holder).compute_cytotrace()
    assert np.allclose(fates.cytotrace(x, graph, list(genes)), holder.obs["ct_score"], atol=1e-6)


def test_cytotrace_of_equal_cells_is_missing():
    x = sparse.csr_matrix(np.ones((6, 4)))
    assert np.isnan(fates.cytotrace(x, sparse.csr_matrix(np.ones((6, 6)) - np.eye(6)), list("abcd"))).all()


def test_pseudotime_equals_scanpy():
    import anndata
    import scanpy as sc

    made = mapped()
    holder = anndata.AnnData(np.zeros((900, 1), dtype=np.float32))
    holder.obsp["connectivities"] = made["graph"]
    holder.uns["neighbors"] = {"connectivities_key": "connectivities", "params": {"method": "umap", "n_neighbors": 30}}
    holder.uns["iroot"] = 7
    sc.tl.diffmap(holder, n_comps=15)
    sc.tl.dpt(holder, n_dcs=11)  # the first component is constant
    assert np.allclose(fates.pseudotime(made["diffusion"], 7), holder.obs["dpt_pseudotime"], atol=2e-3)


def test_pseudotime_of_a_piece_apart_is_missing():
    line = neighbours.neighbour_weights(np.arange(30.0)[:, None] + 0.01 * np.arange(30)[:, None] ** 2, 5)
    two = sparse.block_diag([line, line], format="csr")
    found = fates.pseudotime(fates.diffusion_map(sparse.csr_matrix(two)), 0)
    assert np.isnan(found[30:]).all()
    assert rho(found[:30], np.arange(30)) > 0.99


def test_planted_trajectory_is_ordered_and_ends_at_its_end():
    made = mapped()
    phase, time = made["phase"], made["time"]
    assert rho(made["cytotrace"], time) <= -0.9
    order = fates.pseudotime(made["diffusion"], fates.root_cell(made["points"], phase, 0, 2))
    assert rho(order, time) >= 0.9
    for coupling in made["couplings"]:  # the further along, the more like the later phase
        assert rho(coupling.resemblance(), time[coupling.rows]) >= 0.9
    keep = fates.linked(made["couplings"], phase)
    assert keep.all()
    matrix = fates.chain(made["points"], phase, made["cytotrace"], made["couplings"], keep)
    assert np.allclose(matrix.sum(axis=1), 1)
    later = phase[:, None] < phase[None, :]
    assert matrix.multiply(phase[:, None] > phase[None, :]).sum() == 0  # never back in time
    assert matrix.multiply(later).sum() > 0
    found = fates.states(matrix, phase, keep)
    assert found.fates == ["F1"]
    assert found.reason == ""
    last = np.sort(time[phase == 2])
    assert np.median(time[found.cells[0]]) > last[-50]  # among the last of 300 cells
    assert np.allclose(found.probability, 1)


@pytest.mark.real
def test_rna_mixtures_are_ordered_by_their_proportion(shared_data):
    """RNA of three lines mixed: nothing differentiates, so the order is that of the diffusion pseudotime, not of CytoTRACE."""
    folder = shared_data / "sc_mixology" / "csv"
    counts = pd.read_csv(folder / "RNAmix_celseq2.count.csv.gz", index_col=0)
    truth = pd.read_csv(folder / "RNAmix_celseq2.metadata.csv.gz", index_col=0).loc[counts.columns]
    matrix = sparse.csr_matrix(counts.T.to_numpy(dtype=np.int32))
    seen = np.flatnonzero(np.asarray((matrix > 0).sum(axis=0)).ravel() >= 3)
    x, genes = normalise.log1p_cp10k(sparse.csr_matrix(matrix[:, seen])), counts.index[seen]
    points = fates.space(x, genes, truth["mRNA_amount"].astype(str).to_numpy())
    graph = neighbours.neighbour_weights(points, fates.n_neighbours(len(points)) + 1)
    diffusion = fates.diffusion_map(graph)
    share = truth["HCC827_prop"].to_numpy()
    pure = np.flatnonzero(share == 1)
    root = pure[np.argmin(((points[pure] - points[pure].mean(axis=0)) ** 2).sum(axis=1))]
    assert rho(fates.pseudotime(diffusion, root), share) <= -0.9


# --- couplings


def slow_sinkhorn(cost, a, b, reg, reg_m, n_iter=4000):
    """Unbalanced Sinkhorn in logarithms, cell by cell (Chizat 2018, algorithm 1 with the KL proximal step)."""
    f, g = np.zeros(len(a)), np.zeros(len(b))
    damp = reg_m / (reg_m + reg)
    for _ in range(n_iter):
        for i in range(len(a)):
            f[i] = -damp * reg * np.log(sum(b[j] * np.exp((g[j] - cost[i, j]) / reg) for j in range(len(b))))
        for j in range(len(b)):
            g[j] = -damp * reg * np.log(sum(a[i] * np.exp((f[i] - cost[i, j]) / reg) for i in range(len(a))))
    return np.array([[a[i] * b[j] * np.exp((f[i] + g[j] - cost[i, j]) / reg) for j in range(len(b))] for i in range(len(a))])


def test_coupling_equals_a_slow_sinkhorn():
    rng = np.random.default_rng(1)
    cost = rng.uniform(0, 2, (6, 5))
    a, b = np.full(6, 1 / 12), np.full(5, 1 / 5)
    found = fates.sinkhorn(cost, a, b, 0.05, 1.0)
    assert np.allclose(found, slow_sinkhorn(cost, a, b, 0.05, 1.0, 300), rtol=1e-4, atol=1e-9)
    # and the first-order conditions of the problem
    with np.errstate(divide="ignore"):
        slope = 0.05 * np.log(found / np.outer(a, b)) + cost
    slope += np.log(found.sum(axis=1) / a)[:, None] + np.log(found.sum(axis=0) / b)[None, :]
    assert np.abs(slope).max() < 1e-4


def test_relative_cost():
    points = np.array([[0.0, 0], [1, 0], [0, 2]])
    squared = np.array([[0.0, 1, 4], [1, 0, 5], [4, 5, 0]])
    assert np.allclose(fates.relative_cost(points), squared / (20 / 6))
    far = np.vstack([np.random.default_rng(0).normal(size=(50, 2)), [[1e4, 0]]])
    assert fates.relative_cost(far).max() == fates.COST_CAP
    assert (fates.relative_cost(np.ones((3, 2))) == 0).all()


def two_clones(n: int = 40) -> tuple:
    """Two clones in two phases whose positions are exchanged: by place, every cell would change its clone."""
    rng = np.random.default_rng(2)
    clone = np.tile(np.repeat(["a", "b"], n), 2)
    labels = np.repeat([0, 1], 2 * n)
    points = rng.normal(size=(4 * n, 5))
    points[:, 0] += 4.0 * ((clone == "a") == (labels == 0))
    return fates.relative_cost(points), labels, clone


def test_clones_are_coupled_with_themselves():
    cost, labels, clone = two_clones()
    coupling = fates.couple(cost, labels, clone, (0, 1), RULES)
    table = fates.mass_between(coupling, clone)
    assert table.loc[~table["same_group"], "mass"].tolist() == [0.0, 0.0]
    assert (table["mass_changed"] == 0).all()
    assert table["mass"].sum() == pytest.approx(1)
    assert table["n_from"].tolist() == [40] * 4
    free = fates.mass_between(fates.couple(cost, labels, clone, (0, 1), fates.Rules(within_clone=False)), clone)
    assert free["mass_changed"].iloc[0] > 0.9


def test_small_clones_are_coupled_with_what_remains():
    cost, labels, clone = two_clones()
    clone = clone.copy()
    late_b = np.flatnonzero((clone == "b") & (labels == 1))
    clone[late_b] = "c"  # b is not found later, c not earlier
    coupling = fates.couple(cost, labels, clone, (0, 1), RULES)
    assert sorted(set(coupling.block)) == [0, 1]
    mass = fates.mass_between(coupling, clone).set_index(["group_from", "group_to"])["mass"]
    assert mass["a", "c"] == 0
    assert mass["b", "a"] == 0
    assert mass["b", "c"] > 0
    near = coupling.resemblance()
    assert np.isnan(near[clone[coupling.rows] == "b"]).all()
    assert np.isfinite(near[clone[coupling.rows] == "a"]).all()
    # nothing remains later: clone b has no counterpart
    keep = labels.copy()
    keep[late_b] = -1
    alone = fates.couple(cost, keep, clone, (0, 1), RULES)
    assert (alone.block[clone[alone.rows] == "b"] == -1).all()
    assert (alone.plan[clone[alone.rows] == "b"] == 0).all()
    assert fates.linked([alone], keep)[clone == "a"].all()
    assert not fates.linked([alone], keep)[(clone == "b") & (keep == 0)].any()


def test_resemblance_weighs_later_against_own_phase():
    # cells 0..9 of one phase on a line, later cells at its right end
    points = np.r_[np.linspace(0, 1, 12), np.linspace(1, 1.2, 12)][:, None]
    labels, clone = np.repeat([0, 1], 12), np.repeat("", 24)
    coupling = fates.couple(fates.relative_cost(points), labels, clone, (0, 1), fates.Rules(min_clone_cells=2))
    near = coupling.resemblance()
    assert (np.diff(near) > 0).all()
    assert near.mean() == pytest.approx(0)
    # by hand: mass to the later cells against mass to the other eleven, both from the slow implementation
    cost, share = fates.relative_cost(points), np.full(12, 1 / 12)
    inner = cost[:12, :12] + np.diag(np.full(12, fates.COST_CAP))
    later, own = (slow_sinkhorn(part, share, share, 0.05, 1.0, 300).sum(axis=1) for part in (cost[:12, 12:], inner))
    ratio = np.log2(later / own)
    assert np.allclose(near, ratio - ratio.mean(), atol=1e-4)


def test_coupling_table_and_groups_without_name():
    cost, labels, clone = two_clones()
    coupling = fates.couple(cost, labels, clone, (0, 1), RULES)
    none = np.repeat("", len(clone))
    table = fates.coupling_table("P1", [("PRE", "POST", fates.USED, coupling)], {"clone": clone, "epi_cluster": none})
    assert tuple(table) == fates.COUPLING_COLUMNS
    assert set(table["group_kind"]) == {"clone"}
    assert list(fates.coupling_table("P1", [], {})) == list(fates.COUPLING_COLUMNS)
    assert fates.phase_pairs(2) == [(0, 1)]
    assert fates.phase_pairs(3) == [(0, 1), (1, 2), (0, 2)]


# --- states


def blobs(apart: float) -> tuple:
    rng = np.random.default_rng(3)
    n = 270
    points = rng.normal(size=(n, 10))
    side = np.arange(n) % 2
    points[:, 0] += apart * side
    labels = np.repeat([0, 1], n // 2)
    order = fates.smooth(neighbours.neighbour_weights(points, 16), rng.uniform(size=n))
    order = (order - order.min()) / np.ptp(order)
    cost, clone = fates.relative_cost(points), np.repeat("", n)
    couplings = [fates.couple(cost, labels, clone, (0, 1), RULES)]
    keep = np.ones(n, dtype=bool)
    return fates.states(fates.chain(points, labels, order, couplings, keep), labels, keep), side, labels


def test_two_ends_are_two_terminal_states():
    found, side, labels = blobs(7.0)
    assert found.fates == ["F1", "F2"]
    assert (found.stability[found.terminal] >= fates.STABILITY).all()
    ends = [set(side[cells]) for cells in found.cells[:2]]
    assert sorted(map(sorted, ends)) == [[0], [1]]
    assert all((labels[cells] == 1).all() for cells in found.cells)
    assert np.allclose(found.probability.sum(axis=1), 1)
    fate = found.probability.argmax(axis=1)
    assert all(len(ends[at] & {value}) == 1 for at, value in zip(fate, side, strict=True))
    table = fates.describe_states(
        "P1",
        found,
        {"clone": np.array(["x", "y"])[side], "epi_cluster": np.repeat("", 270), "subtype": np.repeat("s", 270)},
        pd.DataFrame({"module_M1": side.astype(float), "module_M2": np.where(labels == 1, -side, 5.0)}),
    )
    assert tuple(table) == fates.MACRO_COLUMNS
    assert set(table["top_clone"]) == {"x", "y"}
    assert (table["top_clone_share"] == 1).all()
    assert (table["top_epi_cluster"] == "").all()
    assert table["top_epi_cluster_share"].isna().all()
    of_y = table.set_index("top_clone").loc["y"]
    assert of_y["top_module"] == "module_M1"
    assert of_y["top_module_z"] == pytest.approx(1)  # (1 - 1/2) / (1/2)


def test_a_single_cloud_has_no_terminal_state():
    found, _, _ = blobs(0.0)
    assert found.fates == []
    assert "0.96 needed" in found.reason
    assert found.probability.shape == (270, 0)


@pytest.mark.parametrize(
    ("text", "is_result"),
    [("Clustering into 2 clusters will split complex conjugate eigenvalues.", True), ("operands could not be broadcast", False)],
)
def test_only_refusals_of_gpcca_are_a_result(monkeypatch, text, is_result):
    from cellrank.estimators import GPCCA

    def refuse(self, **options):
        raise ValueError(text)

    monkeypatch.setattr(GPCCA, "compute_macrostates", refuse)
    if is_result:
        assert "split complex conjugate" in blobs(0.0)[0].reason
    else:
        with pytest.raises(ValueError, match="broadcast"):
            blobs(0.0)


def test_number_of_states_by_the_largest_gap():
    assert fates._by_gap(np.array([1, 0.99, 0.98, 0.5, 0.4, 0.3], dtype=complex)) == 3
    pair = np.array([1, 0.9 + 0.1j, 0.9 - 0.1j, 0.2, 0.1])
    assert fates._by_gap(pair) == 3  # 2 would split the pair
    assert fates._by_gap(np.array([1, 0.5 + 0.1j, 0.5 - 0.1j])) is None


def test_likeness_is_the_gamblers_ruin():
    line = sparse.csr_matrix(sparse.diags([np.ones(5), np.ones(5)], [1, -1]))
    found = fates.likeness(line, [np.array([0]), np.array([5])])
    assert np.allclose(found[:, 1], np.arange(6) / 5, atol=1e-6)
    assert np.allclose(found.sum(axis=1), 1)
    apart = sparse.block_diag([line, line], format="csr")
    assert np.allclose(fates.likeness(apart, [np.array([0]), np.array([5])])[6:], 0.5)


# --- statistics and null


def test_values_are_carried_back_by_the_rows_of_the_couplings():
    labels = np.array([0, 0, 1, 1, 2, 2])
    last = fates.Coupling(np.array([2, 3]), np.array([4, 5]), np.array([[3.0, 1.0], [0.0, 0.0]]), np.array([1, -1]), np.ones(2))
    first = fates.Coupling(np.array([0, 1]), np.array([2, 3]), np.array([[1.0, 1.0], [0.0, 2.0]]), np.array([1, 1]), np.ones(2))
    values = np.array([[9.0], [9], [9], [9], [1.0], [0.0]])
    found = fates.carried(values, [first, last], labels)
    assert found[2] == 0.75
    assert np.isnan(found[3])
    assert found[0] == 0.75  # by its only way
    assert np.isnan(found[1])


def test_null_summary():
    null = np.array([-1.0, 0, 1, 2])
    mean, low, high, p, n = fates.null_summary(3.0, null)
    assert (mean, n) == (0.5, 4)
    assert p == 2 / 5  # centre 1: distances 2, 1, 0, 1 and 2
    assert low == pytest.approx(-0.925)
    assert high == pytest.approx(1.925)
    assert fates.null_summary(10.0, null)[3] == 1 / 5
    assert all(np.isnan(value) for value in fates.null_summary(np.nan, null)[:4])
    assert fates.null_summary(1.0, np.array([np.nan]))[4] == 0


def small(n: int = 36) -> fates.Cells:
    rng = np.random.default_rng(5)
    points = rng.normal(size=(n, 4))
    graph = neighbours.neighbour_weights(points, 7)
    groups = {
        fates.GROUP_CLONE: np.repeat(["a", "b"], n // 2), fates.GROUP_STATE: np.tile(["0", "1"], n // 2),
        fates.GROUP_THIRD: np.repeat("", n),
    }  # fmt: skip
    like = fates.likeness(graph, [np.array([0, 1]), np.array([n - 2, n - 1])])
    return fates.Cells(
        fates.relative_cost(points), points, groups, rng.uniform(size=n), fates.diffusion_map(graph), like, ("F1", "F2")
    )


def test_p_is_uniform_when_phases_are_shuffled():
    cells, rules = small(24), fates.Rules(reg=0.2, within_clone=False)
    labels = np.tile([0, 1], 12)
    rng = np.random.default_rng(6)
    wanted = [row for row in fates.rows_of_interest(cells, labels, rules) if row[0] != fates.PROBABILITY or row[4] == "a"]
    shuffled = (fates.permuted(labels, cells.clone, rules, rng) for _ in range(60 * 5))
    drawn = np.array([fates.statistics(cells, given, rules, wanted)[0] for given in shuffled]).reshape(60, 5, -1)
    seen = 0
    for at, row in enumerate(wanted):
        if not np.isfinite(drawn[:, :, at]).all():
            continue
        p = np.array([fates.null_summary(values[0], values[1:])[3] for values in drawn[:, :, at]])
        counts = np.bincount(np.rint(p * 5).astype(int), minlength=6)[1:]  # p is 1/5, .., 5/5, each as often
        assert stats.chisquare(counts).pvalue > 1e-3, (row, counts)
        seen += 1
    assert seen >= 6


def test_permutations_keep_the_sizes_of_clones():
    clone, labels = np.repeat(["a", "b"], [6, 4]), np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    made = fates.permuted(labels, clone, RULES, np.random.default_rng(0))
    assert np.bincount(made[:6]).tolist() == [4, 2]
    assert (made[6:] == 1).all()
    free = fates.permuted(labels, clone, fates.Rules(within_clone=False), np.random.default_rng(1))
    assert np.bincount(free).tolist() == [4, 6]


def test_fate_tests_find_the_direction_and_the_control_does_not():
    made = mapped()
    keep = np.sort(np.random.default_rng(1).permutation(900)[:240])
    points, score, phase = made["points"][keep], made["cytotrace"][keep], made["phase"][keep]
    graph = neighbours.neighbour_weights(points, 16)
    # phases overlap, or a baseline cell could not resemble the last phase more than another
    phase = np.where(np.random.default_rng(2).uniform(size=240) < 0.6, phase, np.random.default_rng(3).permutation(phase))
    groups = {"clone": np.repeat("", 240), "epi_cluster": np.repeat("", 240), "cytotrace_third": fates.thirds(score)}
    cells = fates.Cells(fates.relative_cost(points), points, groups, score, fates.diffusion_map(graph), np.zeros((240, 0)), ())
    table = fates.fate_tests("P1", cells, phase, ["PRE", "RES", "POST"], RULES, 60, 1, np.zeros((240, 0)))
    assert tuple(table) == fates.FATE_TEST_COLUMNS
    data = table[table["control"] == "data"].set_index(["measure", "phase_from", "phase_to", "group"]).sort_index()
    row = data.loc[("direction", "PRE", "POST", "cytotrace")]
    assert row["spearman"] < -0.8
    assert row["value"] < row["null_low"] < 0
    assert row["p_value"] == 1 / 61
    assert data.loc[("direction", "PRE", "POST", "pseudotime"), "spearman"] > 0.8
    thirds = data.loc[("resemblance", "PRE", "POST")]["value"]
    assert thirds["early"] < 0 < thirds["differentiated"]
    assert (table.loc[table["control"] == "permuted_labels", "p_adjusted"] > 0.05).all()
    assert set(table["evidence"]) == {"cell_level"}
    family = data.loc[["direction"]]["p_value"].to_numpy()
    ranked = np.sort(family)
    by_hand = [
        min(min(ranked[k] * len(ranked) / (k + 1) for k in range(np.searchsorted(ranked, p), len(ranked))), 1) for p in family
    ]
    assert np.allclose(data.loc[["direction"]]["p_adjusted"], by_hand)


def test_small_groups_are_not_estimable():
    cells, rules = small(), fates.Rules(min_clone_cells=3)
    cells.groups[fates.GROUP_STATE] = np.array(["rare"] * 3 + ["0"] * 33)
    table = fates.fate_tests("P1", cells, np.tile([0, 1], 18), ["PRE", "POST"], rules, 10, 1, np.full((36, 2), 0.5))
    rare = table[table["group"] == "rare"]
    assert set(rare["status"]) == {"not_estimable"}
    assert rare["value"].isna().all()
    assert rare["p_value"].isna().all()
    fate = table[(table["measure"] == "fate_probability") & (table["status"] == "ok")]
    assert set(fate["fate"]) == {"P1.F1", "P1.F2"}
    both = fate[fate["control"] == "data"].groupby(["group_kind", "group"])["value"].sum()
    assert np.allclose(both, 1)
    assert (fate.loc[fate["control"] == "data", "cellrank_mean"] == 0.5).all()


def test_spearman():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 40).astype(float), rng.normal(size=40)
    a[3] = np.nan
    known = np.isfinite(a)
    assert fates.spearman(a, b) == pytest.approx(rho(a[known], b[known]))
    assert np.isnan(fates.spearman(a[:5], b[:5]))
    assert np.isnan(fates.spearman(np.ones(40), b))


def test_slope_is_that_of_least_squares_on_scaled_ranks():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=30), rng.normal(size=30)
    ranks = stats.rankdata(x)
    assert fates.slope(y, x) == pytest.approx(np.polyfit((ranks - ranks.mean()) / ranks.std(), y, 1)[0])
    assert np.isnan(fates.slope(y, np.ones(30)))
    assert np.isnan(fates.slope(y[:9], x[:9]))


def test_thirds():
    found = fates.thirds(np.r_[np.arange(9.0), np.nan])
    assert found.tolist() == ["differentiated"] * 3 + ["middle"] * 3 + ["early"] * 3 + [""]
    assert fates.thirds(np.array([np.nan])).tolist() == [""]


# --- drivers


def test_drivers_are_partial_correlations_within_clones():
    rng = np.random.default_rng(8)
    clone = np.repeat(["a", "b", "c"], [30, 25, 20])
    values = rng.normal(size=75) + np.repeat([0.0, 3, 6], [30, 25, 20])
    x = np.abs(rng.normal(size=(75, 4)))
    x[:, 1] += np.where(clone == "c", 5, 0)  # goes with the clone, not with the value
    x[:, 2] += 0.8 * (values - pd.Series(values).groupby(clone).transform("mean").to_numpy()).clip(min=0)
    x[:, 3] = 1.0
    found = fates.drivers(sparse.csr_matrix(x), ["G1", "CLONE", "DRIVER", "FLAT"], values, clone).set_index("gene")
    assert next(iter(found.index)) == "DRIVER"
    assert "FLAT" not in found.index
    assert found["n_genes"].tolist() == [3] * 3
    dummies = np.column_stack([clone == name for name in "abc"]).astype(float)

    def rest(y):
        return y - dummies @ np.linalg.lstsq(dummies, y, rcond=None)[0]

    for at, gene in enumerate(("G1", "CLONE", "DRIVER")):
        r = stats.pearsonr(rest(x[:, at]), rest(values)).statistic
        half = 1.959963985 / np.sqrt(75 - 2 - 3)
        assert found.loc[gene, "correlation"] == pytest.approx(r)
        assert found.loc[gene, "ci_low"] == pytest.approx(np.tanh(np.arctanh(r) - half))
        assert found.loc[gene, "ci_high"] == pytest.approx(np.tanh(np.arctanh(r) + half))
        assert found.loc[gene, "p_value"] == pytest.approx(2 * stats.norm.sf(abs(np.arctanh(r)) * np.sqrt(70)))
    top = fates.top_drivers("P1", "later", found.reset_index(), 1)
    assert tuple(top) == fates.DRIVER_COLUMNS
    assert top["rank"].tolist() == [1, -1]
    assert top["gene"].tolist()[0] == "DRIVER"
    assert fates.drivers(sparse.csr_matrix(x), list("abcd"), np.ones(75), clone).empty


def test_drivers_of_one_clone_against_cellrank_and_scipy():
    from cellrank._utils._lineage import Lineage
    from cellrank._utils._utils import _correlation_test

    x, genes, _, time = trajectory()
    x = sparse.csr_matrix(x[::9])
    theirs = _correlation_test(x.toarray(), Lineage(time[::9][:, None], names=["t"]), gene_names=genes)
    ours = fates.drivers(x, list(genes), time[::9], np.repeat("", x.shape[0])).set_index("gene")
    shared = ours.index[:20]
    # CellRank divides a sum over n by deviations over n - 1: its correlations are n/(n - 1) too large, and can exceed 1
    assert np.allclose(ours.loc[shared, "correlation"] * 100 / 99, theirs.loc[shared, "t_corr"], atol=1e-6)
    by_hand = [stats.pearsonr(x[:, genes.get_loc(gene)].toarray().ravel(), time[::9]).statistic for gene in shared]
    assert np.allclose(ours.loc[shared, "correlation"], by_hand)


# --- pictures


def test_pictures():
    rng = np.random.default_rng(0)
    n = 1200
    phase = np.repeat(["PRE", "RES", "POST"], n // 3)
    near = np.where(phase == "POST", np.nan, rng.normal(size=n))
    colours = {"PRE": "#0072B2", "RES": "#009E73", "POST": "#D55E00"}
    for fate in (np.repeat("", n), np.repeat(["P1.F1", "P1.F2"], n // 2)):
        made = [
            fates.picture("P1", rng.normal(size=(n, 2)) * 0 + np.c_[np.arange(n) % 61, np.arange(n) % 47], phase, colours,
                          np.linspace(0, 1, n), near, fate, "POST")
            for _ in range(2)
        ]  # fmt: skip
        assert made[0] == made[1]
        assert len(made[0]) < 250_000
        Image.open(io.BytesIO(made[0])).verify()
    missing = fates.picture(
        "P1", np.zeros((4, 2)), np.repeat("PRE", 4), colours, np.full(4, np.nan), np.full(4, np.nan), fate[:4], "X"
    )
    Image.open(io.BytesIO(missing)).verify()
    note = fates.note("no fates were mapped: " + "words " * 60)
    assert note == fates.note("no fates were mapped: " + "words " * 60)
    assert Image.open(io.BytesIO(note)).size[0] == 640


def test_sizes_of_graphs():
    assert [fates.n_neighbours(n) for n in (4, 16, 135, 300, 5000)] == [3, 5, 12, 17, 30]
