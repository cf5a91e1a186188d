"""FIND_PROGRAMS through its command line, on a small cohort with planted modules tied to primary and acquired resistance."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from scresist import io

OUTPUTS = (
    "modules.parquet", "soft_threshold.tsv", "modules.tsv", "module_sizes.tsv", "module_samples.tsv", "module_traits.tsv",
    "module_groups.tsv", "preservation.tsv", "modules.rankings.tsv.gz", "modules.dendrogram.png",
    "find_programs.cohort.status.tsv", "find_programs.cohort.provenance.json",
)  # fmt: skip
SIZES = (70, 65, 60, 75)
# sample, patient, phase, cells: the size of the demo's tumour part; S8 is too small for metacells
COHORT = [
    ("S0", "P0", "PRE", 150), ("S1", "P1", "PRE", 130), ("S2", "P2", "PRE", 180), ("S3", "P3", "PRE", 120),
    ("S4", "P4", "PRE-R", 140), ("S5", "P5", "PRE-R", 160), ("S6", "P6", "RES", 110), ("S7", "P7", "POST", 170),
    ("S8", "P8", "POST", 60), ("S9", "P0", "POST", 190),
]  # fmt: skip


def cohort(n_genes=6000, n_expressed=2000, seed=0):
    """A merged cohort of tumour cells, its integrated space and the planted module (0 = none) of each gene.

    Modules follow an activity of each cell; the first is up in primary resistance, the second down in acquired resistance.
    """
    rng = np.random.default_rng(seed)
    base = np.full(n_genes, 1e-6)
    expressed = rng.choice(n_genes, n_expressed, replace=False)
    base[expressed] = rng.gamma(0.8, 1.0, n_expressed) + 0.05
    strong = expressed[base[expressed] > np.quantile(base[expressed], 0.4)]
    chosen = rng.choice(strong, sum(SIZES), replace=False)
    truth = np.zeros(n_genes, dtype=int)
    truth[chosen] = np.repeat(np.arange(1, len(SIZES) + 1), SIZES)
    parts, rows, activities = [], [], []
    for sample, patient, phase, n in COHORT:
        activity = rng.normal(size=(n, len(SIZES)))
        activity[:, 0] += 1.5 * (phase == "PRE-R")
        activity[:, 1] -= 1.5 * (phase == "POST")
        rate = base * np.exp(rng.normal(0, 0.1, n_genes)) * np.ones((n, 1))
        for module in range(len(SIZES)):
            rate[:, truth == module + 1] *= np.exp(0.6 * activity[:, [module]])
        depth = 4000 * rng.lognormal(0, 0.3, n)
        parts.append(sparse.csr_matrix(rng.poisson(rate / rate.sum(axis=1, keepdims=True) * depth[:, None]).astype(np.int32)))
        rows += [(f"{sample}:C{i:04d}", sample, patient, phase, "none") for i in range(n)]
        activities.append(activity + 0.3 * rng.normal(size=activity.shape))
    obs = pd.DataFrame(rows, columns=["cell", "sample", "patient", "phase", "batch"]).set_index("cell")
    for name in obs:
        obs[name] = pd.Categorical(obs[name])
    counts = sparse.vstack(parts).tocsr()
    x = counts.astype(np.float64)
    x.data = np.log1p(1e4 * x.data / np.repeat(np.asarray(x.sum(axis=1)).ravel(), np.diff(x.indptr)))
    var = pd.DataFrame({"gene_id": "", "chromosome": "1", "start": 0, "end": 1}, index=[f"GENE{i:04d}" for i in range(n_genes)])
    merged = anndata.AnnData(x.astype(np.float32), obs=obs, var=var, layers={"counts": counts})
    merged.uns["scresist"] = {"merge_cohort": {"version": "0"}}
    latent = pd.DataFrame(np.vstack(activities), columns=[f"latent_{i + 1}" for i in range(len(SIZES))])
    latent.insert(0, "cell", merged.obs_names)
    return merged, latent, truth


@pytest.fixture(scope="module")
def planted():
    return cohort()


@pytest.fixture(scope="module")
def small():
    return cohort(n_genes=900, n_expressed=700, seed=1)


def write(folder, merged, latent, shuffle=False, **replaced):
    """All inputs of the step in `folder`; returns the options."""
    cells = merged.obs_names
    tumour = pd.DataFrame({"cell": cells, "tumour": True, "patient": merged.obs["patient"].astype(str).to_numpy()})
    sheet = pd.DataFrame([row[:3] for row in COHORT], columns=["sample", "patient", "phase"])
    sheet["treated"] = ["no" if phase == "PRE" else "yes" for phase in sheet["phase"]]
    sheet["trait_dose"] = [str(i % 4) for i in range(len(sheet))]
    phases = pd.DataFrame({
        "phase": ["PRE", "RES", "POST", "PRE-R"],
        "role": ["baseline", "response", "acquired_resistance", "primary_resistance"],
        "time": ["0", "1", "2", ""],
    })  # fmt: skip
    annotation = pd.DataFrame({"cell": cells, "main_type": "Epithelial", "lineage": "epithelial"})
    clones = pd.DataFrame({"cell": cells, "clone": merged.obs["patient"].astype(str).to_numpy() + ".C1"})
    clusters = pd.DataFrame({"cell": cells, "epi_cluster": np.where(np.arange(len(cells)) % 2, "1", "0"), "epi_umap_1": 0.0})
    files = {"tumour": tumour, "samples": sheet, "phases": phases, "annotation": annotation, "embedding": latent,
             "clones": clones, "clusters": clusters} | replaced  # fmt: skip
    if shuffle:
        files = {name: frame.sample(frac=1, random_state=3) for name, frame in files.items()} | {"phases": files["phases"]}
        merged = merged[np.random.default_rng(5).permutation(merged.n_obs)].copy()
    merged.write_h5ad(folder / "merged.h5ad")
    names = []
    for patient, part in files["tumour"].groupby("patient") if "patient" in files["tumour"] else [("P0", files["tumour"])]:
        io.write_fragment(part.drop(columns="patient", errors="ignore"), folder / f"{patient}.malignant.parquet")
        names.append(f"{patient}.malignant.parquet")
    io.write_tsv(files["samples"], folder / "samples.tsv")
    io.write_tsv(files["phases"], folder / "phases.tsv")
    for name, frame in (("annotation", "annotation"), ("embedding", "embedding"), ("clones", "clones"), ("epi", "clusters")):
        io.write_fragment(files[frame], folder / f"{name}.parquet")
    return [
        "--input", "merged.h5ad", "--annotation", "annotation.parquet", "--tumour", *(reversed(names) if shuffle else names),
        "--embedding", "embedding.parquet", "--samples", "samples.tsv", "--phases", "phases.tsv",
        "--groups", "clones.parquet", "epi.parquet",
    ]  # fmt: skip


@pytest.fixture
def step(monkeypatch):
    """Call the script's main in a folder, within this process: importing the libraries anew takes longer than most checks."""
    path = Path(__file__).resolve().parents[2] / "bin" / "find_programs.py"
    spec = importlib.util.spec_from_file_location("find_programs", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "find_programs", module)  # dataclasses look their module up by name
    spec.loader.exec_module(module)

    def call(folder, *options):
        monkeypatch.chdir(folder)
        assert module.main([str(option) for option in options]) == 0

    return call


def read(folder, name):
    return io.read_tsv(folder / f"{name}.tsv", dtype={"group": str, "cluster": str})


def status_of(folder):
    return io.read_tsv(folder / "find_programs.cohort.status.tsv").iloc[0]


@pytest.fixture(scope="module")
def found(planted, run_script, tmp_path_factory):
    """The folder of a run on the planted cohort."""
    folder = tmp_path_factory.mktemp("found")
    merged, latent, truth = planted
    done = run_script("find_programs", *write(folder, merged, latent), cwd=folder)
    assert done.stderr == ""
    return folder, truth


def best(table, trait):
    """The module with the largest |rho| of a trait at sample level, ties by the larger difference."""
    rows = table[(table["trait"] == trait) & (table["level"] == "sample")]
    top = rows[rows["rho"].abs() >= rows["rho"].abs().max() - 1e-6]
    return top.loc[top["difference"].abs().idxmax()]


def test_planted_modules_are_found(found):
    folder, truth = found
    modules = read(folder, "modules")
    planted_label = modules["gene"].map({f"GENE{i:04d}": label for i, label in enumerate(truth)})
    both = (planted_label > 0) & (modules["module"] != "grey")
    assert both.sum() >= 0.9 * (planted_label > 0).sum()
    assert adjusted_rand_score(planted_label[both], modules.loc[both, "module"]) >= 0.8
    table = read(folder, "module_traits")
    for trait, label, sign, evidence in (
        ("primary_resistance", 1, 1, "limited"),
        ("acquired_resistance", 2, -1, "replicated"),
    ):
        row = best(table, trait)
        mine = planted_label[modules["module"] == row["module"]]
        assert mine[mine > 0].mode().tolist() == [label], trait
        assert np.sign(row["rho"]) == np.sign(row["difference"]) == sign
        assert row["evidence"] == evidence
    status = status_of(folder)
    assert (status["status"], status["n_cells"], status["n_samples"], status["n_patients"]) == ("ok", 1410, 10, 9)
    assert "rise and fall together in 1,410 tumour cells" in status["sentence"]


def test_all_outputs_and_their_columns(found):
    folder, _ = found
    assert all((folder / name).is_file() for name in OUTPUTS)
    cells = io.read_fragment(folder / "modules.parquet")
    sizes = read(folder, "module_sizes")
    names = sizes["module"].tolist()[:-1]
    assert names == [f"M{i + 1}" for i in range(len(names))] and sizes["module"].iloc[-1] == "grey"
    assert list(cells) == [f"module_{name}" for name in names]
    assert len(cells) == 1410 and np.isfinite(cells.to_numpy()).all()
    assert sizes["n_genes"][:-1].is_monotonic_decreasing
    modules = read(folder, "modules")
    assert list(modules) == ["gene", "module", "kme", "kme_cells", "hub_rank"]
    assert modules.groupby("module").size().to_dict() == dict(zip(sizes["module"], sizes["n_genes"], strict=True))
    assert modules.loc[modules["module"] != "grey", "kme"].min() > 0
    hubs = modules[modules["hub_rank"] == 1].set_index("module")["gene"]
    assert [text.split(",")[0] for text in sizes["hub_genes"][:-1]] == hubs[names].tolist()
    soft = read(folder, "soft_threshold")
    assert soft["chosen"].astype(str).str.lower().eq("true").sum() == 1
    samples = read(folder, "module_samples")
    assert len(samples) == 10 * len(names)
    mine = cells.loc[cells.index.str.startswith("S3:"), "module_M1"]
    row = samples[(samples["sample"] == "S3") & (samples["module"] == "M1")].iloc[0]
    assert (row["mean"], row["sd"]) == (pytest.approx(mine.mean(), rel=1e-4), pytest.approx(mine.std(), rel=1e-4))
    groups = read(folder, "module_groups")
    assert groups.groupby("group_type")["group"].nunique().to_dict() == {"clone": 9, "epi_cluster": 2, "phase": 4}
    preserved = read(folder, "preservation")
    assert preserved["phase"].drop_duplicates().tolist() == ["PRE", "RES", "POST", "PRE-R"]
    assert set(preserved["status"]) == {"ok"}
    record = json.loads((folder / "find_programs.cohort.provenance.json").read_text())
    assert record["parameters"]["soft_power"] == "auto"
    with Image.open(folder / "modules.dendrogram.png") as image:
        assert min(image.size) > 300
    assert (folder / "modules.dendrogram.png").stat().st_size < 250_000


def test_rankings_hold_every_gene_of_the_network_for_every_module(found):
    folder, _ = found
    with gzip.open(folder / "modules.rankings.tsv.gz", "rt") as handle:
        table = pd.read_csv(handle, sep="\t", keep_default_na=False)
    assert list(table) == ["source", "group", "contrast", "evidence", "gene", "score", "direction"]
    modules = read(folder, "modules")
    names = sorted(set(modules["module"]) - {"grey"})
    assert len(table) == len(names) * len(modules)
    assert (set(table["source"]), set(table["evidence"]), set(table["contrast"])) == ({"modules"}, {"cell_level"}, {""})
    for name in names:
        part = table[table["group"] == name]
        assert set(part.loc[part["direction"] == "up", "gene"]) == set(modules.loc[modules["module"] == name, "gene"])
        joined = part.merge(modules[modules["module"] == name], on="gene")
        assert joined["score"].astype(float).tolist() == pytest.approx(joined["kme"].tolist())


def test_levels_are_kept_apart(found):
    folder, _ = found
    table = read(folder, "module_traits")
    cell = table[table["level"] == "cell_level"]
    assert set(cell["unit"]) == {"cell"} and set(cell["evidence"]) == {"cell_level"}
    sample = table[table["level"] == "sample"]
    assert set(sample["unit"]) == {"patient"}
    assert set(sample["trait"]) == {"primary_resistance", "acquired_resistance", "treated", "phase_time", "trait_dose"}
    primary = sample[sample["trait"] == "primary_resistance"]
    assert primary["p_min_attainable"].tolist() == pytest.approx([2 / 15] * len(primary), rel=1e-5)
    assert (primary["p_value"] >= 2 / 15 - 1e-6).all()
    # S7, S8 and S9 are three samples of three patients, one of whom stands on both sides
    acquired = sample[sample["trait"] == "acquired_resistance"].iloc[0]
    assert (acquired["n"], acquired["n_a"], acquired["n_patients_a"], acquired["n_patients_b"]) == (7, 3, 3, 4)
    assert cell.loc[cell["trait"] == "acquired_resistance", "n_a"].iloc[0] == 2  # S8 forms no metacells


def test_second_run_and_other_orders_give_the_same_bytes(found, planted, run_script, tmp_path):
    folder, _ = found
    merged, latent, _ = planted
    run_script("find_programs", *write(tmp_path, merged, latent, shuffle=True), cwd=tmp_path)
    assert [name for name in OUTPUTS[:-1] if (folder / name).read_bytes() != (tmp_path / name).read_bytes()] == []


def test_fixed_power_outside_the_tried_ones_and_the_most_variable_genes(small, step, tmp_path):
    merged, latent, truth = small
    step(tmp_path, *write(tmp_path, merged, latent), "--soft_power", 11, "--min_module_size", 40, "--max_genes", 400)
    genes = set(read(tmp_path, "modules")["gene"])
    assert len(genes) == 400
    assert len(genes & {f"GENE{i:04d}" for i in np.flatnonzero(truth)}) > 0.8 * (truth > 0).sum()  # planted genes vary most
    soft = read(tmp_path, "soft_threshold")
    assert soft.loc[soft["chosen"].astype(str).str.lower() == "true", "power"].tolist() == [11]
    assert status_of(tmp_path)["status"] == "ok"
    assert read(tmp_path, "module_sizes")["n_genes"][:-1].min() >= 40


def test_no_scale_free_fit_is_a_warning(small, step, tmp_path):
    merged, latent, _ = small
    part = merged[:, :150].copy()  # so few genes show no law
    part.X = part.layers["counts"].astype(np.float64)
    part.X.data = np.log1p(1e4 * part.X.data / np.repeat(np.asarray(part.X.sum(axis=1)).ravel(), np.diff(part.X.indptr)))
    options = write(tmp_path, part, latent)
    step(tmp_path, *options, "--sft_r2", 1, "--min_module_size", 20, "--soft_power_default", 7)
    status = status_of(tmp_path)
    soft = read(tmp_path, "soft_threshold")
    chosen = soft.loc[soft["chosen"].astype(str).str.lower() == "true", "power"].tolist()
    if soft["signed_r2"].max() < 0.8:
        assert (status["status"], chosen) == ("warning", [7])
        assert status["reason"].startswith("no_scale_free_fit: the best signed R2 is")
    else:
        assert chosen == [soft.loc[soft["signed_r2"] >= 0.8, "power"].iloc[0]]


def test_no_module_is_a_result(small, step, tmp_path):
    merged, latent, _ = small
    step(tmp_path, *write(tmp_path, merged, latent), "--detect_cut_height", 0.001, "--soft_power", 6)
    status = status_of(tmp_path)
    assert status["status"] == "ok"
    assert status["sentence"].startswith("No group of genes that rise and fall together was found")
    assert read(tmp_path, "module_sizes")["module"].tolist() == ["grey"]
    assert list(io.read_fragment(tmp_path / "modules.parquet")) == []
    assert len(read(tmp_path, "module_traits")) == len(read(tmp_path, "module_samples")) == 0
    assert set(read(tmp_path, "modules")["module"]) == {"grey"}


def test_one_sample_gives_modules_and_no_test(small, step, tmp_path):
    merged, latent, _ = small
    keep = merged.obs["sample"] == "S9"
    sheet = pd.DataFrame({"sample": ["S9"], "patient": ["P0"], "phase": ["POST"]})
    options = write(tmp_path, merged[keep].copy(), latent[keep.to_numpy()], samples=sheet)
    step(tmp_path, *options, "--min_module_size", 20)
    status = status_of(tmp_path)
    assert status["status"] == "warning"
    assert "1 samples of 1 patients allow no test of any trait" in status["reason"]
    table = read(tmp_path, "module_traits")
    assert set(table.loc[table["level"] == "sample", "status"]) == {"no_replicates"}
    assert table["p_value"].isna().all()


@pytest.mark.parametrize(
    ("keep", "extra", "word", "reason"),
    [
        (lambda o: o["sample"] == "S8", [], "skipped_too_few_cells",
         "0 metacells from 0 samples with 100 tumour cells or more (60 tumour cells in 1 samples); 30 metacells needed"),
        (lambda o: o["sample"].isin(["S0", "S8"]), ["--target_metacells", 7], "skipped_too_few_cells",
         "7 metacells from 1 samples with 100 tumour cells or more (210 tumour cells in 2 samples); 30 metacells needed"),
        (lambda o: o["sample"] != "", ["--min_module_size", 5000], "skipped_few_genes", "genes are expressed in 5% of"),
        (lambda o: o["sample"] != "", ["--min_genes_program", 5000], "skipped_too_few_cells",
         "(0 tumour cells in 0 samples); 30 metacells needed"),
    ],
)  # fmt: skip
def test_too_little_data_writes_empty_tables(small, step, tmp_path, keep, extra, word, reason):
    merged, latent, _ = small
    mask = keep(merged.obs).to_numpy()
    options = write(tmp_path, merged[mask].copy(), latent[mask])
    step(tmp_path, *options, *extra)
    status = status_of(tmp_path)
    assert status["status"] == word
    assert reason in status["reason"]
    assert all((tmp_path / name).is_file() for name in OUTPUTS)
    for name in ("modules", "module_sizes", "module_samples", "module_traits", "module_groups", "preservation", "soft_threshold"):
        table = read(tmp_path, name)
        assert len(table) == 0 and len(table.columns) > 5 - 1
    assert list(io.read_fragment(tmp_path / "modules.parquet")) == []


def test_no_tumour_cells_at_all(small, step, tmp_path):
    merged, latent, _ = small
    none = pd.DataFrame({"cell": merged.obs_names, "tumour": False})
    step(tmp_path, *write(tmp_path, merged, latent, tumour=none))
    assert status_of(tmp_path)["status"] == "skipped_too_few_cells"
    assert len(io.read_fragment(tmp_path / "modules.parquet")) == 0


def test_filters_of_the_study(small, step, tmp_path):
    merged, latent, _ = small
    limit = int(np.median(np.diff(merged.layers["counts"].indptr)))
    step(tmp_path, *write(tmp_path, merged, latent), "--min_genes_program", limit, "--min_cells_metacell", 30)  # fmt: skip
    left = io.read_fragment(tmp_path / "modules.parquet").index
    more = np.diff(merged.layers["counts"].indptr) > limit
    assert set(left) == set(merged.obs_names[more])
    sizes = read(tmp_path, "module_sizes")
    assert sizes["n_genes"].sum() < 1500  # a small network: the least size is 30
    assert sizes["n_genes"][:-1].min() >= 30


def drop(frame, *columns):
    return frame.drop(columns=list(columns))


def fragment(merged, **columns):
    return pd.DataFrame({"cell": merged.obs_names, **columns})


FOREIGN = pd.DataFrame({"cell": ["S0:x"], "tumour": [True]})
SHEET = pd.DataFrame([row[:3] for row in COHORT], columns=["sample", "patient", "phase"])
PHASES = pd.DataFrame(
    {"phase": ["PRE", "RES", "POST", "PRE-R"], "role": ["baseline", *["other"] * 3], "time": ["0", "1", "2", ""]}
)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (lambda m: {"tumour": fragment(m, malignant="malignant")}, "P0.malignant.parquet: no column tumour"),
        (lambda m: {"tumour": FOREIGN}, "1 of 1 tumour cells are not in it, the first is S0:x"),
        (lambda m: {"annotation": fragment(m, main_type="T")}, "annotation.parquet: no column lineage"),
        (lambda m: {"annotation": fragment(m, lineage="immune")}, "are not epithelial, the first is S0:C0000 (immune)"),
        (lambda m: {"annotation": fragment(m, lineage="epithelial").iloc[1:]}, "1 of 1410 cells have no row"),
        (lambda m: {"embedding": fragment(m, X_pca_1=0.0)}, "expected the columns latent_1, ..., found X_pca_1"),
        (lambda m: {"embedding": fragment(m, latent_1=np.nan)}, "1410 of 1410 tumour cells have coordinates that are missing"),
        (lambda m: {"samples": SHEET.iloc[1:]}, "samples.tsv: sample S0 of merged.h5ad is not in it"),
        (lambda m: {"samples": drop(SHEET, "patient")}, "samples.tsv: no column patient"),
        (lambda m: {"phases": PHASES.iloc[:3]}, "phases.tsv: phase PRE-R of samples.tsv is not in it"),
        (lambda m: {"phases": PHASES.assign(time=["soon", "1", "2", ""])}, "phase PRE has the time 'soon'; expected a number"),
        (lambda m: {"clones": fragment(m, colour="x")}, "clones.parquet: none of the columns clone, epi_cluster"),
        (lambda m: {"clones": fragment(m, epi_cluster="1")}, "--groups: 1410 cells have a epi_cluster in two files"),
    ],
)  # fmt: skip
def test_contradictory_input(small, step, tmp_path, replaced, message):
    merged, latent, _ = small
    with pytest.raises(io.InputError) as caught:
        step(tmp_path, *write(tmp_path, merged, latent, **replaced(merged)))
    assert message in str(caught.value)
    assert not (tmp_path / "modules.tsv").exists()


def test_a_cell_in_two_files_and_exit_code(small, run_script, tmp_path):
    merged, latent, _ = small
    options = write(tmp_path, merged, latent)
    (tmp_path / "P9.malignant.parquet").write_bytes((tmp_path / "P0.malignant.parquet").read_bytes())
    options[options.index("--tumour") + 1 : options.index("--tumour") + 1] = ["P9.malignant.parquet"]
    done = run_script("find_programs", *options, cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert "340 cells stand in two files of --tumour, the first is S0:C0000; give each patient once" in done.stderr


def test_metacells_that_could_be_equal(small, step, tmp_path):
    merged, latent, _ = small
    with pytest.raises(io.InputError, match="--max_shared 25 is not below --metacell_k 25"):
        step(tmp_path, *write(tmp_path, merged, latent), "--max_shared", 25)
