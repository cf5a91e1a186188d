"""SCORE_ACTIVITY through its command line."""

from __future__ import annotations

import importlib.util
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scresist import activity, cli, comparison, io
from tests.data import cohorts

PHASES = {"A": "PRE", "B": "PRE", "C": "PRE", "D": "POST", "E": "POST", "F": "POST"}
OUTPUTS = ("activity.tsv", "activity_tests.tsv", "score_activity.cohort.status.tsv", "score_activity.cohort.provenance.json")
TARGETS = [f"GENE{i:04d}" for i in range(0, 120, 4)]  # raised in POST below


def cohort(n_cells=60, names="ABCDEF"):
    """Six patients; in POST the targets of one pathway are five times as high in every cell."""
    samples = [cohorts.sample(name, n_cells, i + 1, phase=PHASES[name], shift=0.1) for i, name in enumerate(names)]
    for made in samples:
        if made.obs["phase"].iloc[0] == "POST":
            counts = made.layers["counts"].toarray()
            counts[:, made.var_names.isin(TARGETS)] *= 5
            made.layers["counts"] = type(made.layers["counts"])(counts)
    return cohorts.merged(samples)


@pytest.fixture(scope="module")
def script(root):
    spec = importlib.util.spec_from_file_location("score_activity_script", root / "bin" / "score_activity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def merged():
    return cohort()


@pytest.fixture
def network():
    rng = np.random.default_rng(0)
    plain = [f"GENE{i:04d}" for i in range(300)]
    rows = [("PLANTED", gene, 1.0) for gene in TARGETS]
    rows += [(f"P{s}", gene, rng.normal()) for s in range(3) for gene in sorted(rng.choice(plain, 40, replace=False))]
    return pd.DataFrame(rows, columns=["source", "target", "weight"])


CONTRASTS = pd.DataFrame(
    {
        "contrast": ["POST_vs_PRE"], "side_a": ["POST"], "side_b": ["PRE"], "samples_a": ["D,E,F"], "samples_b": ["A,B,C"],
        "paired": [False], "status": ["ok"], "reason": [""], "kind": ["phase"],
    }
)  # fmt: skip


@pytest.fixture
def call(run_script, script, root, tmp_path, monkeypatch, capsys, network):
    """Write the inputs; returns a function that runs the step there: with `process=True` as a task does, else in this process."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    for name, folder in (("NUMBA_CACHE_DIR", "numba"), ("MPLCONFIGDIR", "matplotlib"), ("CELLTYPIST_FOLDER", "celltypist")):
        monkeypatch.setenv(name, os.environ.get(name, str(root / ".cache" / folder)))

    def run(merged, *more, contrasts=CONTRASTS, networks=None, samples=None, tumour=None, check=True, process=False):
        merged.write_h5ad(tmp_path / "merged.h5ad")
        kinds = merged.obs["kind"].astype(str).replace({"T_NK": "CD8_T"})
        types = pd.DataFrame({"cell": merged.obs_names, "main_type": kinds.to_numpy()})
        io.write_fragment(types.sample(frac=1, random_state=0), tmp_path / "annotation.parquet")
        if tumour is None:
            epithelial = sorted(merged.obs_names[kinds == "Epithelial"])
            tumour = pd.DataFrame({"cell": epithelial, "tumour": np.arange(len(epithelial)) % 4 != 0})
        io.write_fragment(tumour, tmp_path / "P.malignant.parquet")
        io.write_tsv(contrasts, tmp_path / "contrasts.tsv")
        given = pd.DataFrame({"sample": list(PHASES), "patient": list(PHASES), "phase": list(PHASES.values())})
        io.write_tsv(given if samples is None else samples, tmp_path / "samples.tsv")
        networks = {"net.tsv.gz": network} if networks is None else networks
        for name, frame in networks.items():
            (io.write_tsv_gz if name.endswith("gz") else io.write_tsv)(frame, tmp_path / name)
        options = [
            "--input", "merged.h5ad", "--annotation", "annotation.parquet", "--tumour", "P.malignant.parquet",
            "--contrasts", "contrasts.tsv", "--samples", "samples.tsv", *more, "--networks", *networks,
        ]  # fmt: skip
        if process:
            return run_script("score_activity", *options, cwd=tmp_path, check=check)
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.run(lambda _: script.main(options))
        written = capsys.readouterr()
        assert not (check and ended.value.code), written.err
        return SimpleNamespace(returncode=ended.value.code, stderr=written.err)

    return run


def read(tmp_path):
    types = {"sample": str, "cell_type": str, "source": str}
    return io.read_tsv(tmp_path / "activity.tsv", dtype=types), io.read_tsv(tmp_path / "activity_tests.tsv", dtype=types)


def status_of(tmp_path):
    return io.read_tsv(tmp_path / "score_activity.cohort.status.tsv").iloc[0]


def test_planted_pathway_is_found_and_a_second_run_has_equal_bytes(call, merged, network, tmp_path):
    done = call(merged, process=True)
    assert done.stderr == ""
    first = [(tmp_path / name).read_bytes() for name in OUTPUTS]
    order = np.random.default_rng(0).permutation(merged.n_obs)
    call(merged[order].copy(), process=True)  # the order of cells does not matter
    assert first == [(tmp_path / name).read_bytes() for name in OUTPUTS]
    scored, tests = read(tmp_path)
    assert list(scored) == ["sample", "cell_type", "network", "method", "source", "score", "n_targets", "level", "n_cells"]
    assert list(tests) == ["cell_type", "level", "network", "method", "source", *comparison.TEST_COLUMNS]
    assert set(scored["cell_type"]) == {"B", "CD8_T", "Epithelial", "tumour"}
    assert len(scored) == 6 * 4 * 4 and set(scored["method"]) == {"mlm"} and set(scored["level"]) == {"pseudobulk"}
    assert scored.loc[scored["cell_type"] == "tumour", "n_cells"].tolist() == [15] * 24
    assert set(scored.loc[scored["source"] == "PLANTED", "n_targets"]) == {30}
    planted = tests[tests["source"] == "PLANTED"]
    assert (planted["effect"] > 5).all() and (planted["p_value"] == 0.1).all()  # 3 against 3: nothing smaller exists
    assert (planted["p_min_attainable"] == 0.1).all() and set(planted["evidence"]) == {"replicated"}
    assert set(tests["adjust_method"]) == {"BH:celltypes x sources"} and set(tests["unit"]) == {"patient"}
    others = tests[tests["source"] != "PLANTED"]
    assert others["effect"].abs().max() < planted["effect"].min()
    found = status_of(tmp_path)
    assert found["status"] == "ok" and found["n_patients"] == 6
    assert "24 groups of sample and cell type (0 with too few cells left out)" in found["sentence"]


def test_scores_are_those_of_summed_counts(call, merged, network, tmp_path):
    call(merged)
    scored, _ = read(tmp_path)
    counts = merged.layers["counts"].toarray()
    mine = (merged.obs["sample"] == "D").to_numpy() & (merged.obs["kind"] == "B").to_numpy()
    genes = counts.sum(axis=0) > 0
    total = counts[mine].sum(axis=0)
    y = np.log1p(total / total.sum() * 1e4)[None, genes]
    w = activity.weights(network, merged.var_names[genes])
    one = scored[(scored["sample"] == "D") & (scored["cell_type"] == "B")].set_index("source")["score"]
    np.testing.assert_allclose(one[w.columns], activity.mlm(y, w.to_numpy())[0], rtol=1e-3)  # float32 logs


def test_means_of_cells_beside_pseudobulk(call, merged, network, tmp_path):
    call(merged, "--levels", "both", "--method", "ulm")
    scored, tests = read(tmp_path)
    assert set(scored["level"]) == {"pseudobulk", "cell_mean"} == set(tests["level"]) and set(scored["method"]) == {"ulm"}
    mine = (merged.obs["sample"] == "A").to_numpy() & (merged.obs["kind"] == "B").to_numpy()
    genes = merged.layers["counts"].toarray().sum(axis=0) > 0
    w = activity.weights(network, merged.var_names[genes])
    expected = activity.ulm(merged.X[mine][:, genes], w.to_numpy()).mean(axis=0)
    one = scored[(scored["sample"] == "A") & (scored["cell_type"] == "B") & (scored["level"] == "cell_mean")]
    np.testing.assert_allclose(one.set_index("source")["score"][w.columns], expected, rtol=1e-4)


def test_two_networks_and_no_contrast(call, merged, network, tmp_path):
    plain = network[["source", "target"]].assign(source="F_" + network["source"])
    call(merged, contrasts=CONTRASTS.head(0), networks={"b.tsv": plain, "a.tsv.gz": network})
    scored, tests = read(tmp_path)
    assert list(dict.fromkeys(scored["network"])) == ["a", "b"]
    assert tests.empty and list(tests)[:2] == ["cell_type", "level"]
    assert status_of(tmp_path)["status"] == "ok"


def test_single_patient_gives_effects_only(call, merged, tmp_path):
    one = CONTRASTS.assign(samples_a="D", samples_b="A", status="no_replicates")
    call(merged, contrasts=one)
    _, tests = read(tmp_path)
    assert set(tests["status"]) == {"no_replicates"} and tests["p_value"].isna().all() and tests["effect"].notna().all()
    assert set(tests["evidence"]) == {"single_patient"}


def test_too_few_cells(call, tmp_path):
    call(cohort(n_cells=9, names="AD"))
    scored, tests = read(tmp_path)
    assert scored.empty and tests.empty
    found = status_of(tmp_path)
    assert found["status"] == "skipped_too_few_cells"
    assert found["reason"] == "8 groups of sample and cell type, none with 10 cells and 1000 counts"


def test_networks_of_foreign_genes(call, merged, network, tmp_path):
    foreign = network.assign(target="mm" + network["target"])
    call(merged, networks={"mouse.tsv": foreign})
    found = status_of(tmp_path)
    assert found["status"] == "skipped_few_genes"
    assert found["reason"].startswith("mouse: no source has 5 measured targets (its targets are such as mmGENE")
    assert read(tmp_path)[0].empty
    call(merged, networks={"mouse.tsv": foreign, "net.tsv": network})
    assert status_of(tmp_path)["status"] == "warning"
    assert set(read(tmp_path)[0]["network"]) == {"net"}


def test_dependent_sources_fall_back(call, merged, network, tmp_path):
    twin = network[network["source"] == "P0"].assign(source="TWIN", weight=lambda f: -f["weight"])
    call(merged, networks={"net.tsv": pd.concat([network, twin])})
    found = status_of(tmp_path)
    assert found["status"] == "warning"
    assert found["reason"].startswith("net: mlm needs independent sources") and found["reason"].endswith("so ulm was used")
    assert set(read(tmp_path)[0]["method"]) == {"ulm"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename(columns={"target": "gene"}), "columns target are missing; expected source, target, weight"),
        (lambda f: pd.concat([f, f.head(2)]), "2 pairs stand twice, the first is P"),
        (lambda f: f.assign(weight="strong"), "weights are no finite numbers, the first is strong of PLANTED"),
        (lambda f: f.assign(target=["", *f["target"][1:]]), "1 rows lack a source or a target, the first is row 2"),
    ],
)
def test_wrong_network(call, merged, network, change, message, tmp_path):
    done = call(merged, networks={"net.tsv": change(network)}, check=False)
    assert done.returncode == 65
    assert "net.tsv" in done.stderr and message in done.stderr
    assert not (tmp_path / "activity.tsv").exists()


def test_contradicting_inputs(call, merged):
    stranger = pd.DataFrame({"cell": ["X:1", "X:2"], "tumour": [True, False]})
    done = call(merged, tumour=stranger, check=False)
    assert done.returncode == 65
    assert "P.malignant.parquet: 1 cells are not in the cohort, the first is X:1" in done.stderr
    few = pd.DataFrame({"sample": ["A", "B"], "patient": ["A", "B"]})
    done = call(merged, samples=few, check=False)
    assert done.returncode == 65 and "samples.tsv: no row for the samples C, D, E, F of the cohort" in done.stderr
    done = call(merged, samples=few[["sample"]], check=False)
    assert "samples.tsv: columns patient are missing" in done.stderr
