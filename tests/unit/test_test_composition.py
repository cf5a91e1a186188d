"""TEST_COMPOSITION through its command line, and on the lung cohort of Maynard et al."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from scresist import composition, design, io, keys

TABLES = ("proportions.tsv", "composition_tests.tsv", "diversity.tsv", "beta_diversity.tsv")
TYPES = {"CD8_T": "immune", "B": "immune", "Mast": "immune", "Fibroblast": "stromal", "Endothelial": "stromal",
         "Epithelial": "epithelial"}  # fmt: skip
SHARES = {
    "PRE": [0.15, 0.1, 0.05, 0.1, 0.1, 0.5],
    "RES": [0.35, 0.1, 0.0, 0.1, 0.1, 0.35],
    "POST": [0.05, 0.1, 0.05, 0.2, 0.1, 0.5],
}


def cohort(n_patients=4, n_cells=300, seed=0, phases=("PRE", "RES", "POST")):
    """n patients per phase, all different; T cells high at RES, low at POST; no mast cells at RES; fibroblasts high at POST."""
    rng = np.random.default_rng(seed)
    rows, sheet = [], []
    for phase in phases:
        for i in range(n_patients):
            sample, patient = f"{phase}-{i + 1}", f"{phase}{i + 1}"
            sheet.append((sample, patient, phase, ("PR", "PD")[i % 2]))
            shares = rng.dirichlet(np.array(SHARES[phase]) * 80 + 1e-9)
            kinds = np.repeat(list(TYPES), rng.multinomial(n_cells, shares))
            rows += [(f"{sample}:{j:04d}", kind, f"{kind}_{j % 2}", TYPES[kind]) for j, kind in enumerate(kinds)]
    cells = pd.DataFrame(rows, columns=["cell", "main_type", "subtype", "lineage"])
    return cells, pd.DataFrame(sheet, columns=["sample", "patient", "phase", "response"])


@pytest.fixture
def inputs(tmp_path):
    """Write the inputs of a cohort; returns the options."""

    def write(cells, samples, labels=None, names=("PRE", "RES", "POST"), roles=None):
        io.write_fragment(cells, tmp_path / "annotation.parquet")
        io.write_tsv(samples, tmp_path / "samples.tsv")
        roles = roles or (keys.ROLE_BASELINE, keys.ROLE_RESPONSE, keys.ROLE_ACQUIRED)
        n = len(names)
        phases = pd.DataFrame(
            {"phase": names, "name": names, "role": roles[:n], "order": range(1, n + 1), "time": np.arange(n, dtype=float)}
        )
        io.write_tsv(phases, tmp_path / "phases.tsv")
        contrasts = design.contrast_table(design.default_contrasts(samples, phases), samples, "auto", 2)
        io.write_tsv(contrasts, tmp_path / "contrasts.tsv")
        options = ["--annotation", "annotation.parquet", "--samples", "samples.tsv", "--phases", "phases.tsv"]
        options += ["--contrasts", "contrasts.tsv"]
        for name, frame in (labels or {}).items():
            io.write_fragment(frame, tmp_path / name)
        return [*options, *(["--labels", *labels] if labels else [])]

    return write


@pytest.fixture
def within(script_main):
    return script_main("test_composition")


def read(folder, name):
    return io.read_tsv(folder / name, dtype={"cell_type": str, "contrast": str, "sample": str})


def status_of(folder):
    return read(folder, "test_composition.cohort.status.tsv").iloc[0]


def pick(table, **want):
    for name, value in want.items():
        table = table[table[name] == value]
    return table


def labels_of(cells):
    """Clusters of epithelial cells of all samples and clones of one patient."""
    mine = cells[cells["main_type"] == "Epithelial"]
    at = np.arange(len(mine)) % 3
    clusters = pd.DataFrame({"cell": mine["cell"], "epi_cluster": np.where(at == 0, "1", "0"), "epi_umap_1": 0.0})
    first = mine[mine["cell"].str.startswith("PRE-1:")]
    clones = pd.DataFrame({"cell": first["cell"], "clone": np.where(np.arange(len(first)) % 2, "PRE1.C1", "PRE1.C2")})
    return {"epi_clusters.parquet": clusters, "PRE1.clones.parquet": clones}


def test_planted_shifts_and_equal_bytes(run_script, inputs, within, tmp_path):
    cells, samples = cohort()
    options = inputs(cells, samples, labels_of(cells))
    run_script("test_composition", *options, cwd=tmp_path)
    first = {name: (tmp_path / name).read_bytes() for name in TABLES}
    tests = read(tmp_path, "composition_tests.tsv")
    assert list(tests) == list(composition.TEST_COLUMNS)
    found = pick(tests, level="main_type", denominator="all", contrast="POST_vs_PRE")
    for method in ("propeller_logit", "propeller_arcsin", "clr"):
        low = found[(found["method"] == method) & (found["p_adjusted"] < 0.05)].set_index("cell_type")["effect"]
        assert {"CD8_T", "Fibroblast"} <= set(low.index), method
        assert low["CD8_T"] < 0 < low["Fibroblast"]
    ranks = pick(found, method="rank").set_index("cell_type")
    assert ranks["test"].str.startswith("rank_sum").all()
    assert ranks["p_min_attainable"].tolist() == pytest.approx([2 / 70] * 6)
    mast = pick(tests, level="main_type", denominator="immune", contrast="RES_vs_PRE", cell_type="Mast", method="rank").iloc[0]
    assert mast["mean_a"] == 0
    assert mast["status"] == keys.OK
    assert set(tests["denominator"]) == {"all", "immune", "stromal", "epithelial", "labelled"}
    assert "response:PD_vs_PR" in set(tests["contrast"])
    whole = pick(tests, level="main_type", denominator="all", method="kruskal", cell_type="CD8_T")
    assert set(whole["contrast"]) == {"phases", "RES_vs_PRE", "POST_vs_PRE", "POST_vs_RES"}
    assert whole["groups"].dropna().tolist() == ["PRE=4;RES=4;POST=4"]

    shares = read(tmp_path, "proportions.tsv")
    assert list(shares) == list(composition.PROPORTION_COLUMNS)
    mine = pick(shares, level="main_type", denominator="all", sample="PRE-1").set_index("cell_type")
    counted = cells[cells["cell"].str.startswith("PRE-1:")]["main_type"].value_counts()
    assert mine["n_cells"].to_dict() == {name: int(counted.get(name, 0)) for name in TYPES}
    assert mine["share"].sum() == pytest.approx(1)
    assert (mine["wilson_low"] <= mine["share"]).all()
    assert (mine["share"] <= mine["wilson_high"]).all()
    assert set(pick(shares, level="clone")["sample"]) == {"PRE-1"}
    diverse = read(tmp_path, "diversity.tsv")
    assert list(diverse) == list(composition.DIVERSITY_COLUMNS)
    whole = pick(diverse, level="main_type", denominator="all")
    assert whole["n_cells_rarefied"].eq(300).all()
    beta = read(tmp_path, "beta_diversity.tsv")
    assert list(beta) == list(composition.BETA_COLUMNS)
    near = pick(beta, level="main_type", denominator="all", index="bray_curtis")
    assert len(near) == 12 * 11 // 2
    assert near.loc[near["relation"] == "same_phase", "value"].mean() < near.loc[near["relation"] == "other", "value"].mean()
    row = status_of(tmp_path)
    assert row["status"] == keys.WARNING
    assert row["reason"] == "too few patients for a rank test below 0.05: response:PD_vs_PR"
    assert row["n_patients"] == 12
    assert "CD8_T in POST_vs_PRE" in row["sentence"]

    record = json.loads((tmp_path / "test_composition.cohort.provenance.json").read_text())
    assert "scanpro" in record["packages"]
    # neither the order of cells and files nor a second run changes a byte
    mixed = cells.sample(frac=1, random_state=1)
    options = inputs(mixed, samples.iloc[::-1], dict(reversed(labels_of(cells).items())))
    within(*options)
    assert {name: (tmp_path / name).read_bytes() for name in TABLES} == first


def test_ok_without_remarks(inputs, within, tmp_path):
    cells, samples = cohort()
    within(*inputs(cells, samples.drop(columns="response")), "--levels", "main_type", "--denominators", "all")
    row = status_of(tmp_path)
    assert row["status"] == keys.OK
    tests = read(tmp_path, "composition_tests.tsv")
    assert set(tests["level"]) == {"main_type"}
    assert set(tests["denominator"]) == {"all"}
    assert read(tmp_path, "proportions.tsv")["response"].isna().all()


def test_small_samples_and_single_patients(inputs, within, tmp_path):
    cells, samples = cohort(2, phases=("PRE", "RES"))
    few = cells[~cells["cell"].str.startswith("RES-2:") | (cells["cell"].str[-4:].astype(int) % 20 == 0)]
    within(*inputs(few, samples, names=("PRE", "RES")), "--transform", "logit")
    row = status_of(tmp_path)
    assert row["status"] == keys.NO_REPLICATES
    assert "none with 2 patients on each side" in row["reason"]
    assert "fewer than 20 cells, left out of the tests: RES-2 (main_type, all: 15)" in row["reason"]
    tests = pick(read(tmp_path, "composition_tests.tsv"), contrast="RES_vs_PRE", level="main_type", denominator="all")
    assert set(tests["status"]) <= {keys.NO_REPLICATES, keys.NOT_ESTIMABLE}
    assert tests["p_value"].isna().all()
    assert tests["left_out"].eq("RES-2").all()
    share = pick(tests, method="rank", cell_type="CD8_T").iloc[0]
    assert share["ci_low"] < share["effect"] < share["ci_high"]
    assert "propeller_arcsin" not in set(tests["method"])


def test_no_cells(inputs, within, tmp_path):
    cells, samples = cohort(2)
    within(*inputs(cells.iloc[:0], samples))
    for name in TABLES:
        frame = read(tmp_path, name)
        assert frame.empty
        assert len(frame.columns) > 5
    row = status_of(tmp_path)
    assert row["status"] == keys.SKIPPED_NO_INPUT
    assert row["n_cells"] == 0


def test_faults_are_named_together(inputs, within, tmp_path):
    cells, samples = cohort(2)
    clusters = labels_of(cells)["epi_clusters.parquet"]
    strange = clusters.assign(cell="X" + clusters["cell"])
    labels = {"a.parquet": clusters, "b.parquet": clusters, "c.parquet": strange, "d.parquet": clusters[["cell", "epi_umap_1"]]}
    with pytest.raises(io.InputError) as told:
        within(*inputs(cells, samples, labels))
    text = str(told.value)
    assert "b.parquet: cells that have a epi_cluster in another file too" in text
    assert "c.parquet: " in text
    assert "not in the annotation, the first is XPOST" in text
    assert "d.parquet: no column epi_cluster or clone; found epi_umap_1" in text

    with pytest.raises(io.InputError, match=r"no row for the samples PRE-1; give the table of this run"):
        within(*inputs(cells, samples[samples["sample"] != "PRE-1"]))
    options = inputs(cells, samples)
    io.write_tsv(samples.assign(phase="LATER"), tmp_path / "samples.tsv")
    with pytest.raises(io.InputError, match=r"phases.tsv: no row for the phases LATER"):
        within(*options)
    io.write_tsv(samples.drop(columns="patient"), tmp_path / "samples.tsv")
    with pytest.raises(io.InputError, match=r"samples.tsv: no column patient"):
        within(*options)
    with pytest.raises(io.InputError, match=r"no column lineage; found main_type, subtype"):
        within(*inputs(cells.drop(columns="lineage"), samples))
    with pytest.raises(io.InputError, match=r"not named <sample>:<barcode>, the first is"):
        within(*inputs(cells.assign(cell=cells["cell"].str.replace(":", "_")), samples))


def test_exit_code_and_usage(run_script, inputs, tmp_path):
    cells, samples = cohort(2)
    options = inputs(cells.drop(columns="main_type"), samples)
    done = run_script("test_composition", *options, cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert "annotation.parquet: no column main_type" in done.stderr


def test_words_of_options(within, inputs, capsys):
    cells, samples = cohort(2)
    with pytest.raises(SystemExit):
        within(*inputs(cells, samples), "--levels", "type")
    assert "expected some of main_type, subtype, epi_cluster, clone" in capsys.readouterr().err


@pytest.mark.real
def test_maynard_through_the_script(shared_data, inputs, within, tmp_path):
    """T cells among immune cells of 38 biopsies with 20 of them (Maynard 2020, Cell 182:1232).

    Medians 0.069, 0.364, 0.289; Kruskal-Wallis p 0.024 over samples, 0.040 over 31 patients and phases; propeller naive
    against residual over samples: T cells alone below 0.05, p 0.016, adjusted 0.14.
    """
    folder = shared_data / "maynard_tables"
    table = pd.read_csv(folder / "IM01_Table_of_immune_cell_types_by_sample.csv", sep=" ", index_col=0)
    facts = pd.read_csv(folder / "sample_metadata.tsv", sep="\t").set_index("sample_name")
    names = ("naive", "residual", "progression")
    phase = facts["analysis"].map(dict(zip(("naive", "grouped_pr", "grouped_pd"), names, strict=True)))
    here = [s for s in table.index if s in facts.index]
    samples = pd.DataFrame({"sample": here, "patient": facts.loc[here, "patient_id"], "phase": phase.loc[here]})
    kinds = [(s, kind) for s in here for kind, n in table.loc[s].items() for _ in range(n)]
    cells = pd.DataFrame(kinds, columns=["sample", "main_type"])
    cells["cell"] = [f"{s}:{i:06d}" for i, s in enumerate(cells["sample"])]
    cells = cells[["cell", "main_type"]].assign(lineage="immune")
    within(*inputs(cells, samples.reset_index(drop=True), names=names), "--denominators", "lineage")

    shares = pick(read(tmp_path, "proportions.tsv"), cell_type="T-cells", status=keys.OK)
    assert len(shares) == 38
    assert shares["patient"].nunique() == 27
    assert shares.groupby("phase")["share"].median()[list(names)].round(3).tolist() == [0.069, 0.364, 0.289]
    tests = pick(read(tmp_path, "composition_tests.tsv"), level="main_type", denominator="immune")
    whole = pick(tests, cell_type="T-cells", method="kruskal", contrast="phases").set_index("unit")
    assert whole.loc["sample", "p_value"] == pytest.approx(0.0239, abs=1e-4)
    assert whole.loc["sample", "evidence"] == keys.EXPLORATORY
    assert whole.loc["patient", "p_value"] == pytest.approx(0.0404, abs=1e-4)
    assert sum(int(part.split("=")[1]) for part in whole.loc["patient", "groups"].split(";")) == 31
    logit = pick(tests, method="propeller_logit", contrast="residual_vs_naive", unit="sample").set_index("cell_type")
    assert len(logit) == 9
    assert logit.index[logit["p_value"] < 0.05].tolist() == ["T-cells"]
    assert logit.loc["T-cells", "p_value"] == pytest.approx(0.0157, abs=1e-4)
    assert logit.loc["T-cells", "p_adjusted"] == pytest.approx(0.141, abs=1e-3)
    assert logit.loc["T-cells", "effect"] > 0
    # patients are the unit: the same direction, a little less certain, and still no finding after adjustment
    people = pick(tests, method="propeller_logit", contrast="residual_vs_naive", unit="patient").set_index("cell_type")
    assert people.index[people["p_value"] < 0.05].tolist() == ["T-cells"]
    assert 0.1 < people.loc["T-cells", "p_adjusted"] < 0.3
    assert people.loc["T-cells", "evidence"] == keys.REPLICATED
    # speckle's pseudocount of half a cell weighs samples without T cells less
    within(*inputs(cells, samples.reset_index(drop=True), names=names), "--denominators", "lineage", "--pseudocount", "0.5")
    again = pick(read(tmp_path, "composition_tests.tsv"), method="propeller_logit", contrast="residual_vs_naive", unit="sample")
    assert again.set_index("cell_type").loc["T-cells", "p_value"] == pytest.approx(0.0040, abs=1e-4)
