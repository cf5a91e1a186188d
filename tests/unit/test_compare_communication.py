"""COMPARE_COMMUNICATION through its command line."""

from __future__ import annotations

import json
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import communication, design, flow, io, keys, normalise, pair_tables

TABLES = ("flow.tsv", "ranknet.tsv", "pathway_drivers.tsv", "comm_phase.tsv", "comm_absent.tsv")
PHASES = ("PRE", "RES", "POST", "PRE-R")
TYPES = {"B": "immune", "CD8_T": "immune", "Endothelial": "stromal", "Macrophage": "immune", "Mast": "immune"}
# gene -> type -> mean count where it does not follow the phase
STEADY = {
    "TGFBR1": {"Endothelial": 3.0}, "TGFBR2": {"Endothelial": 3.0}, "CD8A": {"CD8_T": 4.0}, "CCL5": {"CD8_T": 4.0, "B": 2.0},
    "CCR5": {"Macrophage": 3.0}, "VEGFA": {"Macrophage": 4.0}, "KDR": {"Endothelial": 4.0}, "TNF": {"Macrophage": 3.0},
    "TNFRSF1A": {"Endothelial": 3.0, "B": 2.0}, "KITLG": {"Endothelial": 4.0}, "KIT": {"Mast": 5.0},
    "IL4": {"Mast": 5.0}, "IL4R": {"B": 4.0},
}  # fmt: skip
PLANTED = {
    "TGFB1": {kind: {"PRE": 2.0, "RES": 0.2, "POST": 6.0, "PRE-R": 2.0} for kind in ("B", "CD8_T")},
    "HLA-A": {kind: {"PRE": 2.0, "RES": 6.0, "POST": 2.0, "PRE-R": 2.0} for kind in ("Macrophage", "Endothelial")},
}
PAIRS = pd.DataFrame(
    [
        ("TGFB1_TGFBR1_R2", "TGFb", "TGFB1", "TGFbR1_R2", "TGFB1", "TGFBR1,TGFBR2"),
        ("HLA-A_CD8A", "MHC-I", "HLA-A", "CD8A", "HLA-A", "CD8A"),
        ("CCL5_CCR5", "CCL", "CCL5", "CCR5", "CCL5", "CCR5"),
        ("VEGFA_KDR", "VEGF", "VEGFA", "KDR", "VEGFA", "KDR"),
        ("TNF_TNFRSF1A", "TNF", "TNF", "TNFRSF1A", "TNF", "TNFRSF1A"),
        ("KITLG_KIT", "KIT", "KITLG", "KIT", "KITLG", "KIT"),
        ("IL4_IL4R", "IL4", "IL4", "IL4R", "IL4", "IL4R"),
    ],
    columns=["pair", "pathway", "ligand", "receptor", "ligand_genes", "receptor_genes"],
)


def cohort(n_patients=3, n_cells=25, phases=("PRE", "RES", "POST"), without=(), seed=0, n_plain=150):
    """Patients with all phases; five types of n_cells each per sample; `without`: (sample, type) that have no cells."""
    rng = np.random.default_rng(seed)
    genes = sorted([*STEADY, *PLANTED, *(f"GENE{i:04d}" for i in range(n_plain))])
    base = np.random.default_rng(1).gamma(1.0, 1.0, len(genes))
    rows, blocks = [], []
    for i in range(n_patients):
        for phase in phases:
            sample = f"P{i + 1}-{phase}"
            for kind, lineage in TYPES.items():
                if (sample, kind) in without:
                    continue
                mean = base.copy()
                for gene in (*STEADY, *PLANTED):
                    level = STEADY[gene].get(kind, 0.05) if gene in STEADY else PLANTED[gene].get(kind, {}).get(phase, 0.05)
                    mean[genes.index(gene)] = level
                blocks.append(rng.poisson(mean * rng.lognormal(0, 0.15, (n_cells, 1))))
                rows += [(f"{sample}:{kind}{j:03d}", sample, f"P{i + 1}", phase, kind, lineage) for j in range(n_cells)]
    obs = pd.DataFrame(rows, columns=["cell", "sample", "patient", "phase", "main_type", "lineage"]).set_index("cell")
    obs["batch"] = "none"
    order = np.argsort(obs.index.to_numpy(dtype=str))
    counts = sparse.csr_matrix(np.vstack(blocks).astype(np.int32))[order]
    made = anndata.AnnData(normalise.log1p_cp10k(counts), obs=obs.iloc[order], var=pd.DataFrame(index=genes))
    made.layers[keys.COUNTS] = counts
    made.uns[keys.UNS] = {}
    return made


def scored(merged, folder, table=PAIRS, column="main_type", min_cells=5, n_perms=50):
    """What SCORE_COMMUNICATION writes for each sample, by the shared kernel: names of lr_prob and of group files."""
    pairs = communication.read_pairs(table, list(merged.var_names))
    kinds = sorted(set(merged.obs[column].astype(str)))
    links, groups = [], []
    for sample in sorted(set(merged.obs["sample"].astype(str))):
        part = merged[(merged.obs["sample"] == sample).to_numpy()]
        label = part.obs[column].astype(str).to_numpy()
        sizes = [int((label == kind).sum()) for kind in kinds]
        here = [kind for kind, n in zip(kinds, sizes, strict=True) if n > min_cells]
        frame = pd.DataFrame({"sample": sample, "patient": part.obs["patient"].iloc[0], "phase": part.obs["phase"].iloc[0],
                              "cell_type": kinds, "n_cells": sizes, "estimable": [k in here for k in kinds]})  # fmt: skip
        io.write_tsv(frame, folder / f"{sample}.comm_groups.tsv")
        values = communication.scale(sparse.csr_matrix(part.X[:, part.var_names.get_indexer(list(pairs.genes))]))
        codes = np.array([here.index(k) if k in here else -1 for k in label])
        prob = communication.probabilities(communication.trimean_by_group(values, codes, len(here)), pairs)
        pval = communication.permutation_pvalues(
            values, codes, len(here), pairs, prob, n_perms, np.random.default_rng(3)
        )
        i, a, b = np.nonzero(prob > 0)
        rows = pairs.table.loc[i, ["pair", "pathway", "ligand", "receptor"]].reset_index(drop=True)
        rows.insert(0, "target", [here[k] for k in b])
        rows.insert(0, "source", [here[k] for k in a])
        rows.insert(0, "sample", sample)
        rows["prob"], rows["pval"] = prob[i, a, b], pval[i, a, b]
        io.write_tsv_gz(rows, folder / f"{sample}.lr_prob.tsv.gz")
        links.append(f"{sample}.lr_prob.tsv.gz")
        groups.append(f"{sample}.comm_groups.tsv")
    return links, groups


def inputs_of(folder, merged, table=PAIRS, n_perms=99, column="main_type"):
    """Write all inputs of a cohort to a folder; returns the options."""
    merged.write_h5ad(folder / "merged.h5ad")
    obs = merged.obs.astype(str).reset_index(names="cell").sample(frac=1, random_state=0)  # joined by cell, not by place
    io.write_fragment(obs[["cell", column, "lineage"]], folder / "annotation.parquet")
    samples = obs[["sample", "patient", "phase"]].drop_duplicates().sort_values("sample")
    io.write_tsv(samples, folder / "samples.tsv")
    phases = pd.DataFrame(
        {
            "phase": PHASES, "name": PHASES, "order": [1, 2, 3, 4], "time": [0.0, 1.0, 2.0, np.nan],
            "role": [keys.ROLE_BASELINE, keys.ROLE_RESPONSE, keys.ROLE_ACQUIRED, keys.ROLE_PRIMARY],
        }
    )  # fmt: skip
    io.write_tsv(phases, folder / "phases.tsv")
    contrasts = design.contrast_table(design.default_contrasts(samples, phases), samples, "auto", 2)
    io.write_tsv(contrasts, folder / "contrasts.tsv")
    io.write_tsv(table, folder / "pairs.tsv")
    links, groups = scored(merged, folder, table, column)
    return [
        "--input", "merged.h5ad", "--annotation", "annotation.parquet", "--lr_table", "pairs.tsv", "--lr_prob", *links,
        "--groups", *groups, "--samples", "samples.tsv", "--phases", "phases.tsv", "--contrasts", "contrasts.tsv",
        "--groupby", column, "--n_perms", n_perms, "--n_draws", 3,
    ]  # fmt: skip


@pytest.fixture
def inputs(tmp_path):
    """Write all inputs of a cohort to the test's folder; returns a function for the options."""
    return lambda merged, **more: inputs_of(tmp_path, merged, **more)


@pytest.fixture
def within(script_main):
    return script_main("compare_communication")


def read(folder, name):
    names = ("contrast", "sample", "patient", "phase", "pathway", "pair", "source", "target", "cell_type", "status", "reason",
             "level", "contrasts", "phase_max")  # fmt: skip
    return io.read_tsv(folder / name, dtype=dict.fromkeys(names, str))


def reverse(options, *names):
    """The files of these options in the opposite order."""
    out = list(options)
    for name in names:
        first = out.index(name) + 1
        last = next(i for i in range(first, len(out)) if str(out[i]).startswith("--"))
        out[first:last] = out[first:last][::-1]
    return out


def test_planted_change_is_found_first_and_bytes_are_equal(run_script, within, inputs, tmp_path):
    merged = cohort()
    options = inputs(merged)
    done = run_script("compare_communication", *options, cwd=tmp_path)
    assert done.stderr == ""
    names = (*TABLES, "compare_communication.cohort.status.tsv")
    first = [(tmp_path / name).read_bytes() for name in names]
    # another order of cells, files and rows, and two threads
    merged[np.random.default_rng(9).permutation(merged.n_obs)].copy().write_h5ad(tmp_path / "merged.h5ad")
    io.write_tsv(PAIRS.iloc[::-1], tmp_path / "pairs.tsv")
    for path in sorted(tmp_path.glob("*.lr_prob.tsv.gz")):
        io.write_tsv_gz(io.read_tsv(path).iloc[::-1], path)
    assert within(*reverse(options, "--lr_prob", "--groups"), "--threads", 2) == 0
    assert [(tmp_path / name).read_bytes() for name in names] == first

    ranknet = read(tmp_path, "ranknet.tsv")
    assert list(ranknet)[: len(flow.RANKNET_COLUMNS)] == list(flow.RANKNET_COLUMNS)
    assert list(ranknet)[len(flow.RANKNET_COLUMNS) :] == [
        f"{kind}_{phase}" for kind in ("flow", "share", "scaled") for phase in ("PRE", "RES", "POST")
    ]
    assert not ranknet.duplicated(["contrast", "pathway"]).any()
    for contrast, order, signs in (
        ("POST_vs_RES", {"TGFb", "MHC-I"}, {"TGFb": 1, "MHC-I": -1}),
        ("POST_vs_PRE", {"TGFb"}, {"TGFb": 1}),
        ("RES_vs_PRE", {"TGFb", "MHC-I"}, {"TGFb": -1, "MHC-I": 1}),
    ):
        mine = ranknet[ranknet["contrast"] == contrast].set_index("pathway")
        assert set(mine.index) == {"TGFb", "MHC-I", "CCL", "VEGF", "TNF", "KIT", "IL4"}
        assert set(mine.index[: len(order)]) == order
        assert mine["rank"].tolist() == list(range(1, len(mine) + 1))
        for pathway, sign in signs.items():
            row = mine.loc[pathway]
            assert np.sign(row["effect"]) == np.sign(row["cell_effect"]) == np.sign(row["cell_z"]) == sign
            assert np.sign(row["cell_effect_equal"]) == sign
            assert row["cell_p_value"] == pytest.approx(0.01)  # the least that 99 permutations give
            assert row["cell_evidence"] == "cell_level"
            assert row["test"] == "signed_rank_exact"
            assert row["p_value"] == pytest.approx(0.25)  # three pairs: no more can be shown between patients
            assert row["label_p_value"] == pytest.approx(0.25)
            assert row["evidence"] == "replicated"
            assert abs(row["effect"]) == pytest.approx(abs(row["flow_a"] - row["flow_b"]), rel=1e-4)
        steady = mine.loc[["CCL", "VEGF", "TNF", "KIT", "IL4"]]
        assert (steady["cell_p_adjusted"] > 0.01).all()
    over = ranknet[ranknet["contrast"] == "phases"].set_index("pathway")
    assert over.loc["TGFb", "phase_max"] == "POST"
    assert over.loc["MHC-I", "phase_max"] == "RES"
    assert over.loc["TGFb", ["flow_RES", "flow_PRE", "flow_POST"]].is_monotonic_increasing
    assert over["share_PRE"].add(over["share_RES"]).add(over["share_POST"]).to_numpy() == pytest.approx(1)
    assert over[["flow_a", "flow_b"]].isna().all(axis=None)
    assert set(over["test"]) == {"kruskal_wallis"}
    assert over.loc["TGFb", "cellchat_pair_test"] in ("friedman",)

    # flows are sums of the rows that SCORE_COMMUNICATION wrote
    table = read(tmp_path, "flow.tsv")
    assert list(table) == list(flow.FLOW_COLUMNS)
    one = table[(table["sample"] == "P2-POST") & (table["pathway"] == "TGFb") & (table["contrast"] == "phases")].iloc[0]
    given = io.read_tsv(tmp_path / "P2-POST.lr_prob.tsv.gz")
    given = given[(given["pathway"] == "TGFb") & (given["pval"] <= 0.05)]
    assert one["flow_all"] == pytest.approx(given["prob"].sum(), rel=1e-5)
    assert one["flow_common"] == one["flow_all"]
    assert one["n_links"] == len(given)

    drivers = read(tmp_path, "pathway_drivers.tsv")
    assert list(drivers) == list(flow.DRIVER_COLUMNS)
    mine = drivers[(drivers["contrast"] == "POST_vs_RES") & (drivers["pathway"] == "TGFb")]
    assert set(mine.loc[mine["level"] == "sender", "source"].head(2)) == {"B", "CD8_T"}
    assert mine.loc[mine["level"] == "receiver", "target"].iloc[0] == "Endothelial"
    assert mine.loc[mine["level"] == "pair", "pair"].tolist() == ["TGFB1_TGFBR1_R2"]
    by_level = mine.groupby("level")["delta"].sum()
    assert by_level.loc[["pair", "sender", "receiver", "types"]].to_numpy() == pytest.approx(by_level.loc["pair"], rel=1e-4)
    top = mine[mine["level"] == "interaction"].iloc[0]
    phase = merged.obs["phase"].to_numpy()
    cells = (merged.obs["main_type"] == top["source"]).to_numpy()
    for side, name in (("a", "POST"), ("b", "RES")):
        x = merged[cells & (phase == name)].X[:, merged.var_names.get_loc("TGFB1")]
        assert top[f"ligand_{side}"] == pytest.approx(x.mean(), rel=1e-4)  # as many cells in every sample
    assert drivers.loc[drivers["level"] != "interaction", "ligand_a"].isna().all()

    matrix = read(tmp_path, "comm_phase.tsv")
    assert list(matrix) == list(flow.PHASE_COLUMNS)
    lead = matrix[(matrix["pathway"] == "TGFb") & (matrix["phase"] == "POST")]
    assert set(lead.loc[lead["level"] == "sender", "source"].head(2)) == {"B", "CD8_T"}
    assert lead.loc[lead["level"] == "receiver", "target"].iloc[0] == "Endothelial"
    whole = lead.loc[lead["level"] == "pathway", "flow"].iloc[0]
    assert lead.loc[lead["level"] == "types", "flow"].sum() == pytest.approx(whole, rel=1e-4)
    assert whole == pytest.approx(over.loc["TGFb", "flow_POST"], rel=1e-5)
    assert (tmp_path / "comm_absent.tsv").read_text() == "\t".join(flow.ABSENT_COLUMNS) + "\n"
    status = io.read_tsv(tmp_path / "compare_communication.cohort.status.tsv", dtype=str)
    assert status[["unit_type", "unit", "status"]].to_numpy().tolist() == [
        ["cohort", "cohort", "ok"], ["contrast", "POST_vs_PRE", "ok"], ["contrast", "POST_vs_RES", "ok"],
        ["contrast", "RES_vs_PRE", "ok"],
    ]  # fmt: skip
    made = json.loads((tmp_path / "compare_communication.cohort.provenance.json").read_text())
    assert made["parameters"]["n_perms"] == 99


def statuses(folder):
    return io.read_tsv(folder / "compare_communication.cohort.status.tsv", dtype=str).fillna("").set_index("unit")


def test_type_absent_from_a_phase_is_not_estimable(within, inputs, tmp_path):
    gone = [(f"P{i}-RES", "Mast") for i in (1, 2)]
    assert within(*inputs(cohort(2, 15, without=gone), n_perms=19)) == 0
    ranknet = read(tmp_path, "ranknet.tsv")
    # the receptor of KIT and the ligand of IL4 are on mast cells: nothing of these pathways is left to compare with RES
    lost = ranknet[ranknet["pathway"].isin(["KIT", "IL4"]) & (ranknet["contrast"] != "POST_vs_PRE")]
    assert len(lost) == 6
    assert set(lost["status"]) == {keys.NOT_ESTIMABLE}
    assert set(lost["reason"]) == {"every link ends at a type that a compared sample lacks"}
    numbers = [c for c in lost if c.startswith(("flow_", "share_", "scaled_"))]
    numbers += ["rank", "effect", "p_value", "cell_effect", "cell_p_value", "cellchat_pair_p", "label_p_value"]
    assert lost[numbers].isna().all(axis=None)
    kept = ranknet[(ranknet["contrast"] == "POST_vs_PRE") & (ranknet["pathway"] == "KIT")].iloc[0]
    assert kept["flow_a"] > 0
    flows = read(tmp_path, "flow.tsv")
    mine = flows[(flows["pathway"] == "KIT") & (flows["contrast"] == "RES_vs_PRE")]
    assert mine["flow_common"].isna().all()
    assert set(mine["status"]) == {keys.NOT_ESTIMABLE}
    assert (mine.loc[mine["phase"] == "PRE", "flow_all"] > 0).all()
    drivers = read(tmp_path, "pathway_drivers.tsv")
    listed = drivers[drivers["status"] == keys.NOT_ESTIMABLE]
    assert set(zip(listed["pathway"], listed["level"], listed["source"].fillna(listed["target"]), strict=True)) == {
        ("KIT", "receiver", "Mast"), ("IL4", "sender", "Mast"),
    }  # fmt: skip
    assert listed[["flow_a", "flow_b", "delta"]].isna().all(axis=None)
    assert set(listed["contrast"]) == {"POST_vs_RES", "RES_vs_PRE"}
    assert listed["reason"].str.contains("0 cells in P1-RES").all()
    absent = read(tmp_path, "comm_absent.tsv")
    assert absent[["cell_type", "sample", "phase", "n_cells", "absent_from_phase", "contrasts"]].to_numpy().tolist() == [
        ["Mast", f"P{i}-RES", "RES", 0, "yes", "RES_vs_PRE,POST_vs_RES,phases"] for i in (1, 2)
    ]
    matrix = read(tmp_path, "comm_phase.tsv")
    mast = matrix[(matrix["level"] == "types") & ((matrix["source"] == "Mast") | (matrix["target"] == "Mast"))]
    assert mast.loc[mast["phase"] == "RES", "flow"].isna().all()
    assert set(mast.loc[mast["phase"] == "RES", "status"]) == {keys.NOT_ESTIMABLE}
    assert mast.loc[mast["phase"] != "RES", "flow"].notna().all()
    rows = statuses(tmp_path)
    assert rows.loc["cohort", "status"] == keys.WARNING
    assert "cannot be estimated in a whole phase: Mast in RES" in rows.loc["cohort", "reason"]
    assert "types left out, absent from a sample: Mast" in rows.loc["RES_vs_PRE", "reason"]
    assert "Mast" not in rows.loc["POST_vs_PRE", "reason"]


def test_one_patient_gives_no_test_between_patients(within, inputs, tmp_path):
    assert within(*inputs(cohort(1, 15), n_perms=19)) == 0
    ranknet = read(tmp_path, "ranknet.tsv")
    assert set(ranknet["status"]) == {keys.NO_REPLICATES}
    assert set(ranknet["evidence"]) == {keys.SINGLE_PATIENT}
    assert ranknet[["p_value", "label_p_value"]].isna().all(axis=None)
    mine = ranknet[ranknet["contrast"] == "POST_vs_RES"].set_index("pathway")
    assert mine.loc["TGFb", "cell_p_value"] == pytest.approx(0.05)
    assert mine.loc["TGFb", "effect"] > 0
    rows = statuses(tmp_path)
    assert rows.loc["cohort", "status"] == keys.OK
    assert set(rows.loc[rows["unit_type"] == "contrast", "status"]) == {keys.NO_REPLICATES}
    assert rows.loc["POST_vs_RES", "reason"]
    assert "0 differ between patients" in rows.loc["POST_vs_RES", "sentence"]


def test_one_phase_is_skipped(within, inputs, tmp_path):
    assert within(*inputs(cohort(2, 12, phases=("PRE",)))) == 0
    assert statuses(tmp_path).loc["cohort", ["status", "reason"]].tolist() == [
        keys.SKIPPED_NO_INPUT, "1 phases with a sample of two estimable types or more, 2 needed",
    ]  # fmt: skip
    more = [f"{kind}_PRE" for kind in ("flow", "share", "scaled")]
    headers = (flow.FLOW_COLUMNS, [*flow.RANKNET_COLUMNS, *more], flow.DRIVER_COLUMNS, flow.PHASE_COLUMNS, flow.ABSENT_COLUMNS)
    for name, columns in zip(TABLES, headers, strict=True):
        assert (tmp_path / name).read_text() == "\t".join(columns) + "\n"


def test_sample_without_types_is_left_out(within, inputs, tmp_path):
    lost = [("P1-RES", kind) for kind in TYPES if kind != "B"]
    assert within(*inputs(cohort(2, 12, without=lost), n_perms=5)) == 0
    rows = statuses(tmp_path)
    assert rows.loc["cohort", "reason"].startswith("fewer than two estimable types, not compared: P1-RES")
    flows = read(tmp_path, "flow.tsv")
    assert "P1-RES" not in set(flows["sample"])
    ranknet = read(tmp_path, "ranknet.tsv").set_index("contrast")
    # P1 has lost its pair, and with one pair left there is no test
    assert set(ranknet.loc["RES_vs_PRE", "n_patients_a"]) == {1}
    assert set(ranknet.loc["RES_vs_PRE", "status"]) == {keys.NO_REPLICATES}
    absent = read(tmp_path, "comm_absent.tsv")
    assert len(absent) == 4
    assert absent["contrasts"].isna().all()


def test_few_common_types(within, inputs, tmp_path):
    lost = [("P1-RES", kind) for kind in ("CD8_T", "Macrophage", "Mast")] + [("P1-POST", "B"), ("P2-POST", "B")]
    assert within(*inputs(cohort(2, 12, without=lost), n_perms=5)) == 0
    ranknet = read(tmp_path, "ranknet.tsv").set_index("contrast")
    mine = ranknet.loc["POST_vs_RES"]
    assert set(mine["status"]) == {keys.NOT_ESTIMABLE}
    assert set(mine["reason"]) == {"1 pairs of types in common, 4 needed"}
    assert mine[["flow_a", "flow_b", "effect", "cell_effect"]].isna().all(axis=None)
    rows = statuses(tmp_path)
    assert rows.loc["POST_vs_RES", "status"] == keys.NOT_ESTIMABLE
    assert rows.loc["POST_vs_RES", "reason"].startswith("1 pairs of types in common, 4 needed; absent from a sample: B, CD8_T")
    matrix = read(tmp_path, "comm_phase.tsv")
    assert matrix.loc[matrix["level"] == "pathway", "flow"].isna().all()


def test_no_link_is_not_estimable(within, inputs, tmp_path):
    options = inputs(cohort(2, 12, phases=("PRE", "POST")), n_perms=5)
    for path in tmp_path.glob("*.lr_prob.tsv.gz"):
        io.write_tsv_gz(io.read_tsv(path).assign(pval=1.0), path)
    assert within(*options) == 0
    assert statuses(tmp_path).loc["cohort", ["status", "reason"]].tolist() == [
        keys.NOT_ESTIMABLE, "no significant link in 4 samples",
    ]  # fmt: skip


def test_remark_where_all_pathways_change_alike(within):
    remark = sys.modules["script_compare_communication"].one_way
    changed = pd.DataFrame({"cell_p_adjusted": [0.01] * 10 + [0.5], "cell_effect": [-1.0] * 8 + [1.0] * 3})
    assert remark(changed) == [
        "8 of 10 changed pathways are lower on the first side: compare sequencing depth before reading them"
    ]
    assert remark(changed.assign(cell_effect=-changed["cell_effect"]))[0].startswith("8 of 10 changed pathways are higher")
    assert remark(changed.iloc[2:]) == []  # 6 of 8
    assert remark(changed.iloc[:7]) == []  # too few to say


def spoil(folder, what):
    links, groups = folder / "P1-PRE.lr_prob.tsv.gz", folder / "P1-PRE.comm_groups.tsv"
    if what == "column":
        io.write_tsv_gz(io.read_tsv(links).drop(columns="pval"), links)
    elif what == "prob":
        io.write_tsv_gz(io.read_tsv(links).assign(prob="high"), links)
    elif what == "groups":
        io.write_tsv(io.read_tsv(groups).assign(estimable="maybe"), groups)
    elif what == "types":
        io.write_tsv(io.read_tsv(groups).iloc[:-1], groups)
        io.write_tsv_gz(io.read_tsv(links).query("source != 'Mast' and target != 'Mast'"), links)
    elif what == "lost type":
        frame = io.read_tsv(groups)
        io.write_tsv(frame.assign(estimable=frame["cell_type"] != "CD8_T"), groups)
    elif what == "stranger":
        io.write_tsv(io.read_tsv(groups).assign(sample="X"), groups)
    elif what == "twice":
        (folder / "P2-PRE.comm_groups.tsv").write_bytes(groups.read_bytes())
    elif what == "phases":
        io.write_tsv(io.read_tsv(folder / "phases.tsv", dtype=str).iloc[1:], folder / "phases.tsv")
    elif what == "cells":
        frame = io.read_tsv(groups)
        io.write_tsv(frame.assign(n_cells=frame["n_cells"] + 1), groups)
    elif what == "pairs":
        io.write_tsv(PAIRS[PAIRS["pathway"] != "TGFb"], folder / "pairs.tsv")
    elif what == "annotation":
        part = io.read_fragment(folder / "annotation.parquet").iloc[1:].reset_index()
        io.write_fragment(part, folder / "annotation.parquet")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("column", "P1-PRE.lr_prob.tsv.gz: no column pval; give <sample>.lr_prob.tsv.gz of SCORE_COMMUNICATION"),
        ("prob", "P1-PRE.lr_prob.tsv.gz: row 2: prob is high, expected a number of at least 0"),
        ("groups", "P1-PRE.comm_groups.tsv: estimable is maybe, expected true or false"),
        ("types", "P1-PRE: no row for Mast in its comm_groups.tsv"),
        ("lost type", "P1-PRE: a link of CD8_T, which comm_groups.tsv calls not estimable"),
        ("stranger", "X: in comm_groups.tsv but not in samples.tsv"),
        ("twice", "two comm_groups.tsv hold the same sample"),
        ("phases", "phases.tsv: no row for phase PRE"),
        ("cells", "P1-PRE: 12 cells of B in annotation.parquet, 13 in comm_groups.tsv"),
        ("pairs", "pairs.tsv: no pair TGFB1_TGFBR1_R2, which lr_prob.tsv.gz holds"),
        ("annotation", "annotation.parquet: 1 of 240 cells have no row"),
    ],
)
def test_input_that_cannot_be_used(within, inputs, tmp_path, what, message):
    options = inputs(cohort(2, 12, phases=("PRE", "POST")), n_perms=5)
    spoil(tmp_path, what)
    with pytest.raises(io.InputError) as error:
        within(*options)
    assert message in str(error.value)
    assert not (tmp_path / "ranknet.tsv").exists()


def test_bad_input_ends_with_its_exit_code(run_script, inputs, tmp_path):
    options = inputs(cohort(1, 8, phases=("PRE", "POST"), n_plain=10), n_perms=5)
    spoil(tmp_path, "column")
    done = run_script("compare_communication", *options, cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert done.stderr.startswith("ERROR compare_communication: communication per sample cannot be compared:")


def types_of_kang(x, stimulated, given):
    """Types of stimulated cells, of which the file names few: by centroids of the control cells, each condition scaled alone."""
    dense = x.toarray().astype(np.float64)
    top = np.argsort(-dense[~stimulated].var(axis=0), kind="stable")[:800]
    z = np.empty((len(dense), len(top)))
    for side in (stimulated, ~stimulated):
        part = dense[np.ix_(side, top)]
        z[side] = (part - part.mean(axis=0)) / (part.std(axis=0) + 0.1)
    kinds = sorted(set(given[~stimulated]) - {"nan"})
    centroids = np.array([z[~stimulated & (given == kind)].mean(axis=0) for kind in kinds])
    found = np.array(kinds)[np.corrcoef(z, centroids)[: len(z), len(z) :].argmax(axis=1)]
    return np.where(stimulated | (given == "nan"), found, given)


@pytest.mark.real
def test_interferon_in_stimulated_blood_cells(within, shared_data, root, tmp_path):
    """Kang 2018: blood cells with and without interferon beta, taken as two phases of one patient.

    Interferon induces the chemokines CXCL10 and CXCL11, whose receptor is CXCR3, and MHC molecules: their pathways must be found
    as risen.
    """
    kang = anndata.read_h5ad(shared_data / "kang_ifnb" / "harmony_pbmc_stim_2000x9015.h5ad")
    counts = sparse.csr_matrix(kang.X).astype(np.int32)
    x = normalise.log1p_cp10k(counts)
    stimulated = (kang.obs["condition"].astype(str) == "stim").to_numpy()
    kinds = types_of_kang(x, stimulated, kang.obs["cell_type"].astype(str).to_numpy())
    phase = np.where(stimulated, "RES", "PRE")
    cells = [f"P1-{p}:{name}" for p, name in zip(phase, kang.obs_names, strict=True)]
    obs = pd.DataFrame({"sample": [f"P1-{p}" for p in phase], "patient": "P1", "phase": phase, "batch": "none",
                        "main_type": kinds, "lineage": "immune"}, index=cells)  # fmt: skip
    merged = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=kang.var_names.astype(str)), layers={keys.COUNTS: counts})
    merged.uns[keys.UNS] = {}
    merged = merged[np.argsort(merged.obs_names.to_numpy(dtype=str)), np.argsort(merged.var_names.to_numpy(dtype=str))].copy()
    table = pair_tables.load(root / "assets" / "lr_pathways.tsv")
    assert within(*inputs_of(tmp_path, merged, table, 199)) == 0
    ranknet = read(tmp_path, "ranknet.tsv")
    mine = ranknet[ranknet["contrast"] == "RES_vs_PRE"].set_index("pathway")
    for pathway in ("CXCL", "MHC-I", "MHC-II", "CCL"):
        row = mine.loc[pathway]
        assert row["effect"] > 0, pathway
        assert row["cell_p_value"] < 0.05, pathway
        assert row["cell_p_adjusted"] < 0.05, pathway
        assert row["cell_effect_equal"] > 0, pathway
        assert row["rank"] <= 8, pathway
        assert row["status"] == keys.NO_REPLICATES, pathway  # one pool of donors a side
    assert mine.loc["CXCL", "flow_b"] == 0
    drivers = read(tmp_path, "pathway_drivers.tsv")
    drivers = drivers[(drivers["contrast"] == "RES_vs_PRE") & (drivers["pathway"] == "CXCL")]
    pairs = drivers[drivers["level"] == "pair"].set_index("pair")
    assert pairs.index[:2].tolist() == ["CXCL10:CXCR3", "CXCL11:CXCR3"]
    assert (pairs["delta"] > 0).all()
    single = drivers[(drivers["level"] == "interaction") & (drivers["pair"] == "CXCL10:CXCR3")].iloc[0]
    assert single["source"] in ("CD14+ Monocytes", "FCGR3A+ Monocytes", "Dendritic cells")
    assert single["target"] in ("CD8 T cells", "NK cells")
    assert single["ligand_a"] > single["ligand_b"] + 2
    # interferons themselves: the type I genes were not measured, IFNG is in too few cells for a trimean above zero
    assert not {"IFN-I", "IFN-II"} & set(mine.index)
    assert not {"IFNB1", "IFNA1"} & set(merged.var_names)
    absent = read(tmp_path, "comm_absent.tsv")
    assert absent[["cell_type", "sample", "n_cells"]].to_numpy().tolist() == [["Megakaryocytes", "P1-RES", 3]]
