"""SCORE_ROUTES through its command line."""

from __future__ import annotations

import json
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import clones as clone_kernel
from scresist import io, keys, normalise, routes

MADE = ("route_items", "route_card", "route_rules_used", "decomposition", "target_clones", "target_normal", "target_sets")
PHASES = ("PRE", "RES", "POST")
GENES = sorted(["ERBB2", "TACSTD2", "CST3", "HLA-A", "HLA-B", "PDCD1", "MKI67", *(f"GENE{i:03d}" for i in range(60))])
# clone 1 carries ERBB2, clone 2 TACSTD2; clone 2 grows from 20 % to 70 %
SHARES = {"PRE": 0.2, "RES": 0.4, "POST": 0.7}


def cohort(seed=0):
    """P1 with three biopsies and two clones, P2 with one biopsy and no clones; 80 tumour, 40 T and 30 epithelial cells each."""
    rng = np.random.default_rng(seed)
    rows, blocks = [], []
    for patient, phase in [("P1", phase) for phase in PHASES] + [("P2", "PRE")]:
        sample = f"{patient}-{phase}"
        for kind, lineage, n in (("Epithelial", "epithelial", 110), ("CD8_T", "immune", 40), ("B", "immune", 10)):
            mean = np.ones((n, len(GENES)))
            at = {gene: i for i, gene in enumerate(GENES)}
            for gene in ("ERBB2", "TACSTD2", "PDCD1", "CST3"):
                mean[:, at[gene]] = 0.001
            second = np.zeros(n, dtype=bool)
            if kind == "Epithelial":
                second[: round(80 * SHARES[phase])] = True
                if patient == "P1":
                    mean[:80, at["ERBB2"]] = np.where(second[:80], 0.001, 3.0)
                    mean[:80, at["TACSTD2"]] = np.where(second[:80], 3.0, 0.001)
            if kind == "CD8_T":
                mean[:, at["PDCD1"]] = 0.3
            blocks.append(rng.poisson(mean))
            for i in range(n):
                tumour = kind == "Epithelial" and i < 80
                clone = (f"{patient}.C2" if second[i] else f"{patient}.C1") if tumour and patient == "P1" else ""
                rows.append((f"{sample}:{kind}{i:03d}", sample, patient, phase, kind, lineage, tumour, clone))
    obs = pd.DataFrame(
        rows, columns=["cell", "sample", "patient", "phase", "main_type", "lineage", "tumour", "clone"]
    ).set_index("cell")
    obs["batch"] = "none"
    order = np.argsort(obs.index.to_numpy(dtype=str))
    counts = sparse.csr_matrix(np.vstack(blocks).astype(np.int32))[order]
    made = anndata.AnnData(normalise.log1p_cp10k(counts), obs=obs.iloc[order], var=pd.DataFrame(index=GENES))
    made.layers[keys.COUNTS] = counts
    made.uns[keys.UNS] = {}
    return made


def write_inputs(folder, made, shuffle=False):
    """Every input of the step in `folder`; returns the arguments."""
    rng = np.random.default_rng(5)
    obs = made.obs.copy()
    order = rng.permutation(made.n_obs) if shuffle else np.arange(made.n_obs)
    plain = made[order].copy()
    plain.obs = plain.obs[["sample", "patient", "phase", "batch"]]
    plain.write_h5ad(folder / "merged.h5ad")
    cells = obs.rename_axis(keys.CELL).reset_index().iloc[order]
    io.write_fragment(cells[[keys.CELL, "main_type", "lineage"]], folder / "annotation.parquet")
    epithelial = cells[cells["lineage"] == "epithelial"]
    for patient, part in epithelial.groupby("patient", observed=True):
        part = part.assign(malignant=np.where(part["tumour"], "malignant", "non_malignant"))
        io.write_fragment(part[[keys.CELL, "malignant", "tumour"]], folder / f"{patient}.malignant.parquet")
        traced = part[part["clone"] != ""]
        io.write_fragment(traced[[keys.CELL, "clone"]], folder / f"{patient}.clones.parquet")
    tumour = epithelial[epithelial["tumour"]]
    noise = pd.Series(np.random.default_rng(2).normal(size=made.n_obs), index=obs.index)
    states = pd.DataFrame(
        {
            keys.CELL: tumour[keys.CELL], "epi_cluster": "0", "g2m_score": noise[tumour[keys.CELL]].to_numpy(),
            "cycle_phase": "G1", "dividing": False,
        }
    )
    io.write_fragment(states, folder / "epi_clusters.parquet")
    program = noise[tumour[keys.CELL]].to_numpy() - 2.0 * tumour["clone"].str.endswith(".C2").to_numpy()
    io.write_fragment(pd.DataFrame({keys.CELL: tumour[keys.CELL], "module_M1": program}), folder / "modules.parquet")
    tables = folder / "tables"
    tables.mkdir(exist_ok=True)
    own = obs[(obs["patient"] == "P1") & obs["tumour"]]
    shares = clone_kernel.shares(
        "P1", ["P1.C1", "P1.C2"], own["clone"].to_numpy(dtype=object), own["phase"].to_numpy(dtype=object), PHASES
    )
    pairs = clone_kernel.phase_pairs(PHASES, {"PRE": 0, "RES": 1, "POST": 2})
    io.write_tsv(shares, tables / "P1.clone_phases.tsv")
    io.write_tsv(clone_kernel.changes(shares, pairs, 30, 0.05), tables / "P1.clone_changes.tsv")
    io.write_tsv(clone_kernel.diversity_table("P1", {p: [30, 50] for p in PHASES}, 1), tables / "P1.clone_diversity.tsv")
    (tables / "flow.tsv").touch()
    traits = pd.DataFrame(
        {"module": ["M1"], "trait": ["acquired_resistance"], "level": ["sample"], "rho": [-0.9], "difference": [-1.0]}
    )
    io.write_tsv(traits, tables / "module_traits.tsv")
    design = obs[["sample", "patient", "phase"]].drop_duplicates().sort_values("sample")
    io.write_tsv(design, folder / "samples.tsv")
    io.write_tsv(
        pd.DataFrame(
            {"phase": ["PRE", "RES", "POST"], "role": ["baseline", "response", "acquired_resistance"], "order": [1, 2, 3],
             "time": [0, 1, 2]}
        ), folder / "phases.tsv",
    )  # fmt: skip
    io.write_tsv(
        pd.DataFrame(
            {"contrast": ["POST_vs_PRE"], "side_a": "POST", "side_b": "PRE", "samples_a": "P1-POST", "samples_b": "P1-PRE,P2-PRE",
             "paired": "false", "status": "no_replicates", "reason": "few", "kind": "acquired_resistance"}
        ), folder / "contrasts.tsv",
    )  # fmt: skip
    return {
        "input": folder / "merged.h5ad", "annotation": folder / "annotation.parquet",
        "tumour": sorted(folder.glob("*.malignant.parquet")), "clones": sorted(folder.glob("*.clones.parquet")),
        "epi_clusters": folder / "epi_clusters.parquet", "modules": folder / "modules.parquet", "tables": tables,
        "samples": folder / "samples.tsv", "phases": folder / "phases.tsv", "contrasts": folder / "contrasts.tsv",
    }  # fmt: skip


def arguments(given, root, **changed):
    values = {
        **given, "rules": root / "assets" / "route_rules.tsv", "targets": root / "assets" / "targets.tsv", "n_boot": 50, **changed
    }  # fmt: skip
    out = []
    for name, value in values.items():
        if value is None:
            continue
        out += [f"--{name}", *([str(v) for v in value] if isinstance(value, list) else [str(value)])]
    return out


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"), cohort())


@pytest.fixture
def within(script_main, root, tmp_path):
    """The script in this process, in an empty folder."""
    main = script_main("score_routes")

    def call(given, **changed):
        assert main(*arguments(given, root, **changed)) == 0
        made = {name: io.read_tsv(tmp_path / f"{name}.tsv") for name in MADE}
        return made, io.read_tsv(tmp_path / "score_routes.cohort.status.tsv", dtype=str).fillna("").set_index("unit")

    return call


def test_planted_clone_and_equal_bytes(run_script, inputs, root, tmp_path):
    outputs = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        given = inputs if name == "one" else write_inputs(folder, cohort(), shuffle=True)
        run = folder / "run"
        run.mkdir()
        run_script("score_routes", *arguments(given, root), cwd=run)
        outputs.append({path.name: path.read_bytes() for path in sorted(run.iterdir()) if path.is_file()})
    assert outputs[0] == outputs[1]
    assert {f"{name}.tsv" for name in MADE} < set(outputs[0])
    first = tmp_path / "one" / "run"
    card = io.read_tsv(first / "route_card.tsv").set_index(["patient", "route"])
    assert card.loc[("P1", "pre_existing_clone"), "word"] == routes.SUPPORTED
    assert card.loc[("P1", "microenvironment"), "word"] == routes.NOT_ASSESSABLE
    assert card.loc[("P2", "pre_existing_clone"), "word"] == routes.NOT_ASSESSABLE
    items = io.read_tsv(first / "route_items.tsv")
    assert list(items.columns) == list(routes.ITEM_COLUMNS)
    grown = items[(items["patient"] == "P1") & (items["item"] == "clone_expands")].iloc[0]
    assert grown["value"] == pytest.approx(0.5) and grown["vote"] == 1
    own = io.read_tsv(first / "decomposition.tsv")
    own = own[(own["contrast"] == "POST_vs_PRE") & (own["score"] == "module_M1")].iloc[0]
    cells, fragment = cohort().obs, pd.read_parquet(inputs["modules"]).set_index("cell")["module_M1"]
    mean = {p: fragment[cells.index[(cells["patient"] == "P1") & cells["tumour"] & (cells["phase"] == p)]].mean() for p in PHASES}
    assert own["total"] == pytest.approx(mean["POST"] - mean["PRE"], rel=1e-5)
    sets = io.read_tsv(first / "target_sets.tsv")
    last = sets[(sets["patient"] == "P1") & (sets["phase"] == "POST")]
    one, two = (last[(last["n_targets"] == n) & (last["rank"] == 1)].iloc[0] for n in (1, 2))
    assert (one["targets"], one["clone_coverage"], one["uncovered_clones"]) == ("TROP2", pytest.approx(0.7), "P1.C1")
    assert (two["targets"], two["clone_coverage"], two["smallest"]) == ("HER2+TROP2", 1.0, "yes")
    assert json.loads((first / "score_routes.cohort.provenance.json").read_text())["step"] == "score_routes"
    words = io.read_tsv(first / "score_routes.cohort.status.tsv").set_index("unit")
    assert words.loc["P1", "status"] == keys.OK and "supported" in words.loc["P1", "sentence"]
    assert words.loc["P2", "status"] == keys.NOT_ESTIMABLE and "PRE only" in words.loc["P2", "reason"]
    assert words.loc["cohort", "status"] == keys.WARNING and "flow" in words.loc["cohort", "reason"]


def test_without_clones_tables_and_modules(within, inputs):
    made, words = within(inputs, clones=None, tables=None, modules=None, epi_clusters=None)
    items = made["route_items"]
    assert items.loc[items["item"] == "clone_expands", "reason"].str.contains("absent or empty|no patient|biopsies of").all()
    assert made["decomposition"]["selection"].isna().all()
    assert set(made["target_clones"].loc[made["target_clones"]["patient"] == "P1", "clone"]) == {"P1.all"}
    assert set(made["target_sets"].loc[made["target_sets"]["patient"] == "P1", "status"]) == {keys.WARNING}
    assert "no resistance program" in words.loc["cohort", "reason"]
    assert words.loc["P1", "status"] == keys.NOT_ESTIMABLE and "every route" in words.loc["P1", "reason"]


def test_one_phase_and_no_tumour(within, inputs, tmp_path):
    made = cohort()
    folder = tmp_path / "one_phase"
    folder.mkdir()
    given = write_inputs(folder, made[made.obs["phase"] == "PRE"].copy())
    empty = pd.DataFrame({"contrast": [], "samples_a": [], "samples_b": [], "paired": [], "status": []})
    io.write_tsv(empty, folder / "contrasts.tsv")
    out, words = within(given, tumour=None)
    assert words.loc["cohort", "status"] == keys.NOT_ESTIMABLE
    assert (out["route_card"]["word"] == routes.NOT_ASSESSABLE).all() and out["route_items"]["value"].isna().all()
    for name in ("target_sets", "target_clones", "decomposition"):
        assert out[name].empty and len(out[name].columns) > 5


def test_named_program(within, inputs, tmp_path):
    samples = pd.DataFrame({"module": ["M1"], "phase": ["PRE"], "mean": [0.0], "sd": [1.0]})
    folder = tmp_path / "more"
    shutil.copytree(inputs["tables"], folder)
    io.write_tsv(samples, folder / "module_samples.tsv")
    made, _ = within(inputs, tables=folder, route_program="M1")
    assert set(made["route_rules_used"]["program"]) == {"M1"}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("rules", "no column"), ("targets", "no column gene"), ("samples", "no row for P1-POST"),
        ("phases", "no row for phase POST"),
        ("contrasts", "are not in samples.tsv"), ("twice", "stands in two files"), ("strange", "not in the merged cohort"),
        ("program", "no such module"), ("absent", "no such file"), ("same", "given twice"), ("columns", "no column role"),
    ],
)  # fmt: skip
def test_input_that_cannot_be_used(script_main, inputs, root, tmp_path, monkeypatch, what, message):
    monkeypatch.chdir(tmp_path)
    changed = {}
    if what in ("rules", "targets"):
        (tmp_path / "bad.tsv").write_text("target\troute\nA\tb\n")
        changed[what] = tmp_path / "bad.tsv"
    elif what in ("samples", "phases", "contrasts", "columns"):
        name = "phases" if what == "columns" else what
        frame = io.read_tsv(inputs[name], dtype=str)
        if what == "samples":
            frame = frame[frame["sample"] != "P1-POST"]
        elif what == "phases":
            frame = frame[frame["phase"] != "POST"]
        elif what == "contrasts":
            frame["samples_a"] = "X1"
        else:
            frame = frame.drop(columns="role")
        io.write_tsv(frame, tmp_path / f"{name}.tsv")
        changed[name] = tmp_path / f"{name}.tsv"
    elif what == "twice":
        changed["clones"] = [inputs["clones"][0], inputs["clones"][0]]
    elif what == "strange":
        io.write_fragment(pd.DataFrame({keys.CELL: ["X:1"], "clone": ["a"]}), tmp_path / "x.parquet")
        changed["clones"] = tmp_path / "x.parquet"
    elif what == "program":
        changed["route_program"] = "M7"
    elif what == "absent":
        changed["tables"] = tmp_path / "none.tsv"
    else:
        shutil.copy(inputs["tables"] / "module_traits.tsv", tmp_path / "module_traits.tsv")
        changed["tables"] = [inputs["tables"], tmp_path / "module_traits.tsv"]
    with pytest.raises(io.InputError, match=message):
        script_main("score_routes")(*arguments(inputs, root, **changed))


def test_bad_input_ends_with_its_exit_code(run_script, inputs, root, tmp_path):
    (tmp_path / "rules.tsv").write_text("route\nx\n")
    done = run_script("score_routes", *arguments(inputs, root, rules=tmp_path / "rules.tsv"), cwd=tmp_path, check=False)
    assert done.returncode == 65 and "rules.tsv: no column item" in done.stderr
