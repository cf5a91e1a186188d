"""What is planted in tumour cells can be measured: dosage, shares, folds, correlations, strata; and is told truly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import simulation, simulation_tumour
from scresist.io import read_tsv


@pytest.fixture(scope="module")
def model(root):
    positions = read_tsv(root / "assets" / "gene_positions.tsv.gz", dtype={"symbol": str, "gene_id": str, "chromosome": str})
    positions["gene_id"] = positions["gene_id"].fillna("")
    markers = read_tsv(root / "assets" / "markers.tsv", dtype=str).fillna("")
    genes = simulation.choose_genes(positions, markers, 3000, 1600)
    return simulation.build_model(genes, simulation.state_table(markers), markers, np.random.default_rng(0))


@pytest.fixture(scope="module")
def arm(model, root):
    return simulation_tumour.arm_of_genes(model.genes, read_tsv(root / "assets" / "arms.tsv", dtype={"chromosome": str}))


@pytest.fixture(scope="module")
def plan(model):
    return simulation_tumour.make_plan(model, np.random.default_rng(1))


@pytest.fixture(scope="module")
def p1() -> simulation_tumour.Tumour:
    return simulation_tumour.DEMO_TUMOURS["P1"]


@pytest.fixture(scope="module")
def drawn(model, arm, plan, p1):
    """1,500 secretory cells of P1 in PRE, half of them malignant, with Poisson counts around 6,000."""
    rng = np.random.default_rng(2)
    state = int(model.states.index[model.states["subtype"] == "Secretory"][0])
    cells = pd.DataFrame({"state": state, "is_malignant": np.arange(1500) % 2 == 0})
    base = model.log_mean[cells["state"].to_numpy()].astype(np.float32)
    effects = simulation_tumour.clone_effects(p1, arm)
    log_mean, cells = simulation_tumour.plant(base, cells, "PRE", p1, effects, plan, rng)
    return rng.poisson(simulation.to_rates(log_mean, np.full(len(cells), 6000.0))), cells


def test_arms_follow_the_centromeres():
    genes = pd.DataFrame(
        {
            "chromosome": ["17", "17", "X", ""],
            "start": [7_661_779, 39_688_094, 100, np.nan],
            "end": [7_687_550, 39_728_662, 200, np.nan],
        }
    )
    arms = pd.DataFrame(
        {
            "chromosome": ["17", "17", "X"],
            "arm": ["p", "q", "Xp"],
            "start": [1, 25_100_001, 1],
            "end": [25_100_000, 83_257_441, 9],
        }
    )
    # TP53, ERBB2, a gene on no listed arm, a gene without a place
    assert list(simulation_tumour.arm_of_genes(genes, arms)) == ["17p", "17q", "", ""]


def test_real_arms_hold_known_genes(model, arm):
    at = dict(zip(model.genes["symbol"], arm, strict=True))
    assert [at[gene] for gene in ("ERBB2", "CST3", "MUC3A", "HLA-A", "B2M")] == ["17q", "20p", "7q", "6p", "15q"]
    names = simulation_tumour.event_arms(arm)
    assert {"17q", "8q", "20q", "3p", "1q"} <= set(names) and not {"6p", "Xq", ""} & set(names)


def test_every_event_of_the_demo_lies_on_an_arm_with_enough_genes(arm):
    used = {name for made in simulation_tumour.DEMO_TUMOURS.values() for name in made.events["arm"]}
    assert used <= set(simulation_tumour.event_arms(arm)) | {"7p"}
    for made in simulation_tumour.DEMO_TUMOURS.values():
        if made.kind == simulation_tumour.HAS_CLONES:
            kinds = made.events.groupby(["clone", "kind"]).size().unstack()
            assert (kinds["trunk"] == 3).all() and kinds["private"].between(2, 4).all()
            assert not made.events.duplicated(["clone", "arm"]).any()
        assert all(sum(shares) == pytest.approx(1) for shares in made.shares.values())
    # no arm tells resistant from untreated tumours: an arm altered in both PRE-R patients, or all POST ones, would
    arms_of = {name: set(made.events["arm"]) for name, made in simulation_tumour.DEMO_TUMOURS.items()}
    assert not arms_of["P5"] & arms_of["P6"]
    assert not arms_of["P7"] & arms_of["P8"] & arms_of["P1"]


def test_dosage_is_measurable_in_the_counts_of_each_clone(drawn, arm, p1, plan):
    counts, cells = drawn
    normal = counts[~cells["is_malignant"].to_numpy()].sum(axis=0).astype(float)
    still = ~plan.reserved()
    for clone, events in p1.events.groupby("clone"):
        if clone == "P1.c":
            continue  # has not emerged in PRE
        own = counts[(cells["clone"] == clone).to_numpy()].sum(axis=0).astype(float)
        neutral = still & ~np.isin(arm, events["arm"])
        for row in events.itertuples():
            on = still & (arm == row.arm)
            ratio = own[on].sum() / own[neutral].sum() / (normal[on].sum() / normal[neutral].sum())
            error = np.sqrt(1 / own[on].sum() + 1 / normal[on].sum())
            assert abs(np.log(ratio) - 0.85 * np.log(row.copy_number / 2)) < 4 * error + 0.01, (clone, row.arm)


def test_clones_are_drawn_in_their_shares_and_only_in_malignant_cells(drawn):
    _, cells = drawn
    malignant = cells[cells["is_malignant"]]
    assert (cells.loc[~cells["is_malignant"], "clone"] == "").all()
    share = malignant["clone"].value_counts(normalize=True)
    assert "P1.c" not in share
    # 750 cells: standard error 0.017
    assert share["P1.a"] == pytest.approx(0.35, abs=0.06) and share["P1.b"] == pytest.approx(0.65, abs=0.06)


def test_modules_correlate_within_and_not_between(drawn, plan):
    counts, cells = drawn
    own = counts[cells["is_malignant"].to_numpy()]
    logs = np.log1p(own / own.sum(axis=1, keepdims=True) * 1e4)
    score = {name: logs[:, (plan.loading[name] != 0).to_numpy()].mean(axis=1) for name in plan.loading}
    for name in plan.loading:
        assert np.corrcoef(score[name], cells.loc[cells["is_malignant"], f"activity_{name}"])[0, 1] > 0.8
    assert abs(np.corrcoef(score["primary"], score["acquired"])[0, 1]) < 0.15
    normal = counts[~cells["is_malignant"].to_numpy()]
    halves = [normal[:, np.flatnonzero(plan.loading["primary"])[k::2]].sum(axis=1) for k in (0, 1)]
    assert abs(np.corrcoef(*halves)[0, 1]) < 0.15  # cells that are not malignant do not carry it


@pytest.mark.parametrize("phase", ["PRE", "PRE-R", "RES", "POST", "never heard of"])
def test_told_folds_are_those_of_many_cells(model, plan, phase):
    """Expected factor of each gene against the mean over 8,000 cells without noise of counts (80 samples)."""
    none = simulation_tumour.quiet_tumour("P")
    rng = np.random.default_rng(5)
    cells = pd.DataFrame({"state": 0, "is_malignant": [True] * 100})
    genes = np.flatnonzero(plan.reserved())
    total = np.zeros(len(genes))
    effects = np.zeros((1, len(model.genes)))
    zero = np.zeros((100, len(model.genes)), np.float32)
    for _ in range(80):
        log_mean, _ = simulation_tumour.plant(zero, cells, phase, none, effects, plan, rng)
        total += np.exp(log_mean[:, genes]).sum(axis=0)
    told = simulation_tumour.expected_ln_level(plan, phase)[0].to_numpy()[genes]
    np.testing.assert_allclose(np.log(total / 8_000), told, atol=0.06)


def test_phase_genes_have_the_promised_numbers_and_sizes(plan):
    folds = plan.phase / np.log(2)
    for phase, (up, down) in simulation_tumour.PHASE_GENES.items():
        own = folds[phase].drop(["ERBB2", "CST3"])
        assert ((own > 0).sum(), (own < 0).sum()) == (up, down)
        assert own[own != 0].abs().between(1.2, 2).all()
    assert folds.loc["ERBB2"].to_dict() == {"PRE-R": 0, "RES": 0, "POST": -1.5}
    # one effect per gene
    modules = plan.loading != 0
    assert modules.sum().to_dict() == {"primary": 70, "acquired": 70}
    assert ((folds != 0).sum(axis=1) + modules.sum(axis=1)).max() == 1


def test_the_stratum_carries_marker_and_module(model, plan):
    rng = np.random.default_rng(6)
    positive, activity = simulation_tumour.draw_activities("PRE-R", 20_000, rng)
    assert positive.mean() == pytest.approx(0.45, abs=0.02)
    assert activity[positive, 0].mean() - activity[~positive, 0].mean() == pytest.approx(1.2, abs=0.05)
    assert abs(activity[positive, 1].mean() - activity[~positive, 1].mean()) < 0.06
    elsewhere, _ = simulation_tumour.draw_activities("PRE", 20_000, rng)
    assert elsewhere.mean() == pytest.approx(0.06, abs=0.01)
    table = simulation_tumour.marker_table(plan)
    assert set(table["gene"]) == set(plan.loading.index[plan.loading["primary"] != 0])
    np.testing.assert_allclose(table["log2fc"], 1.2 * plan.loading.loc[table["gene"], "primary"] / np.log(2))


def test_panels_touch_the_types_they_name(model, plan):
    at = {symbol: index for index, symbol in enumerate(model.genes["symbol"])}
    states = model.states["main_type"].to_numpy()
    cells = pd.DataFrame({"state": np.arange(len(states)), "is_malignant": False})
    zero = np.zeros((len(states), len(model.genes)), np.float32)
    none = simulation_tumour.quiet_tumour("P")
    moved = {
        phase: simulation_tumour.plant(zero, cells, phase, none, np.zeros((1, zero.shape[1])), plan, np.random.default_rng(0))[0]
        for phase in ("PRE", "RES", "POST")
    }
    is_t = np.isin(states, ("CD4_T", "CD8_T"))
    assert (moved["RES"][is_t, at["PDCD1"]] < 0).all() and (moved["POST"][is_t, at["PDCD1"]] > 0).all()
    assert not moved["RES"][~is_t, at["PDCD1"]].any()
    assert (moved["RES"][:, at["HLA-A"]] > 0).all() and not moved["POST"][:, at["HLA-A"]].any()
    assert not moved["PRE"].any()


def test_drawn_tumours_keep_the_rules(arm):
    n_clones = []
    for seed in range(60):
        made = simulation_tumour.draw_tumour("Q", "clones", arm, np.random.default_rng(seed))
        n_clones.append(len(made.clones))
        kinds = made.events.groupby(["clone", "kind"]).size().unstack()
        assert (kinds["trunk"] == 3).all() and kinds["private"].between(2, 4).all()
        private = made.events[made.events["kind"] == "private"]
        assert private["arm"].is_unique and not set(private["arm"]) & set(made.events.loc[made.events["kind"] == "trunk", "arm"])
        assert set(made.events["copy_number"]) <= {1, 3, 4}
    assert set(n_clones) == {1, 2, 3}
    assert simulation_tumour.draw_tumour("Q", "quiet", arm, np.random.default_rng(0)).events.empty
    assert simulation_tumour.draw_tumour("Q", "none", arm, np.random.default_rng(0)).clones == ()
    with pytest.raises(ValueError, match="only 1 chromosome arms hold enough genes, 15 are needed"):
        simulation_tumour.draw_tumour("Q", "clones", np.array(["1p"] * 50, dtype=object), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("a", "b", "word"),
    [(0.4, 0.0, "emerging"), (0.0, 0.3, "lost"), (0.6, 0.4, "expanding"), (0.1, 0.4, "shrinking"), (0.2, 0.2, ""), (0, 0, "")],
)
def test_words_of_changes(a, b, word):
    assert simulation_tumour.change_class(a, b) == word


def test_too_few_expressed_genes_are_refused(model):
    rare = simulation.Model(model.genes, model.states, model.log_mean - 8, model.dispersion, model.programs)
    with pytest.raises(ValueError, match="0 genes can carry effects of phases and modules, 280 are needed"):
        simulation_tumour.make_plan(rare, np.random.default_rng(0))


def test_signals_tell_both_ways_of_every_planted_pathway(plan):
    table = simulation_tumour.signal_table(plan, ["PRE", "RES", "POST"]).set_index(["pathway", "contrast"])["direction"]
    assert table["TGFb", "RES_vs_PRE"] == "down" and table["TGFb", "PRE_vs_RES"] == "up" and table["TGFb", "POST_vs_RES"] == "up"
    assert table["MHC-I", "RES_vs_PRE"] == "up" and table["MHC-I", "POST_vs_RES"] == "down"
    assert ("MHC-I", "POST_vs_PRE") not in table.index  # back where it was: no change is told
