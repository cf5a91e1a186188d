"""SUBCLUSTER_EPITHELIUM through its command line."""

from __future__ import annotations

import gzip
import json
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import epithelium, io, keys, normalise

OUTPUTS = (
    "epi_clusters.parquet", "epi_clusters.tsv", "epi_composition.tsv", "epi_markers.tsv", "epi_resolutions.tsv",
    "epi_clusters.rankings.tsv.gz", "cluster.epi_map.png", "phase.epi_map.png", "patient.epi_map.png",
)  # fmt: skip
STATES = {"A": "STATEA", "B": "STATEB", "CYCLE": "", "LIPID": "FABP1"}  # state -> its marker; the cycling one has the cycle genes


def cohort(root, n_per_sample=60, seed=0, patients=("P1", "P2", "P3", "P4")):
    """P1, P2 (PRE), P3 (POST) with the states A, B and cycling; P4 (PRE-R) with LIPID in most cells; and T cells."""
    rng = np.random.default_rng(seed)
    table = io.read_tsv(root / "assets" / "cell_cycle.tsv", dtype=str)
    genes = sorted([*table["gene"], "STATEA", "STATEB", "FABP1", "MT-CO1", *(f"GENE{i:04d}" for i in range(600))])
    base = np.random.default_rng(1).gamma(1.0, 0.6, len(genes))
    base[[genes.index(g) for g in ("STATEA", "STATEB", "FABP1")]] = 0.05
    base[genes.index("MT-CO1")] = 20.0
    base[[genes.index(g) for g in table["gene"]]] = 0.08  # cycle genes are nearly silent in cells that do not divide
    rows, blocks, states, latent = [], [], [], []
    phase_of = {"P1": "PRE", "P2": "PRE", "P3": "POST", "P4": "PRE-R"}
    for patient in patients:
        phase = phase_of[patient]
        sample = f"{patient}-{phase}"
        for i in range(n_per_sample):
            tumour = i < n_per_sample * 3 // 4
            state = ("LIPID" if patient == "P4" and i % 5 else ("A", "B", "CYCLE")[i % 3]) if tumour else "T"
            mean = base.copy()
            if state == "CYCLE":
                mean[[genes.index(g) for g in table["gene"]]] *= 10.0
            elif state in STATES:
                mean[genes.index(STATES[state])] = 12.0
            blocks.append(rng.poisson(mean))
            rows.append((f"{sample}:C{i:03d}", sample, patient, phase, "epithelial" if tumour else "immune"))
            states.append(state)
            latent.append(8.0 * np.eye(5, 6)[["A", "B", "CYCLE", "LIPID", "T"].index(state)] + rng.normal(size=6))
    obs = pd.DataFrame(rows, columns=["cell", "sample", "patient", "phase", "lineage"]).set_index("cell")
    obs["batch"], obs["state"] = "none", states
    counts = sparse.csr_matrix(np.vstack(blocks).astype(np.int32))
    made = anndata.AnnData(normalise.log1p_cp10k(counts), obs=obs, var=pd.DataFrame(index=genes))
    made.layers[keys.COUNTS] = counts
    made.uns[keys.UNS] = {}
    return made, np.array(latent)


@pytest.fixture
def inputs(tmp_path, root):
    """Write all inputs; returns a function for the options."""

    def write(merged, latent, tumour=True, shuffle=False):
        obs = merged.obs.astype(str).reset_index(names="cell")
        order = np.random.default_rng(4).permutation(len(obs)) if shuffle else np.arange(len(obs))
        merged[order].copy().write_h5ad(tmp_path / "merged.h5ad")
        io.write_fragment(obs[["cell", "lineage"]].iloc[order[::-1]], tmp_path / "annotation.parquet")
        space = pd.DataFrame(latent, columns=[f"latent_{i + 1}" for i in range(latent.shape[1])])
        space.insert(0, "cell", obs["cell"])
        io.write_fragment(space.iloc[order], tmp_path / "embedding.parquet")
        shutil.copy(root / "assets" / "cell_cycle.tsv", tmp_path / "cell_cycle.tsv")
        shutil.copy(root / "assets" / "phases.tsv", tmp_path / "phases.tsv")
        options = ["--input", "merged.h5ad", "--annotation", "annotation.parquet", "--embedding", "embedding.parquet"]
        options += ["--cell_cycle", "cell_cycle.tsv", "--phases", "phases.tsv", "--min_cells", "100"]
        if tumour:
            paths = []
            for patient, part in obs[obs["lineage"] == "epithelial"].groupby("patient"):
                paths.append(f"{patient}.malignant.parquet")
                io.write_fragment(pd.DataFrame({"cell": part["cell"], "tumour": True}), tmp_path / paths[-1])
            options += ["--tumour", *(reversed(paths) if shuffle else paths)]
        return options

    return write


@pytest.fixture
def within(script_main):
    return script_main("subcluster_epithelium")


def read(folder, name):
    return io.read_tsv(folder / name, dtype={"cluster": str, "group": str, "status": str, "reason": str})


def test_planted_states_and_equal_bytes(run_script, within, inputs, tmp_path, root):
    from sklearn.metrics import adjusted_rand_score

    merged, latent = cohort(root)
    done = run_script("subcluster_epithelium", *inputs(merged, latent), cwd=tmp_path)
    assert done.stderr == ""
    first = {name: (tmp_path / name).read_bytes() for name in OUTPUTS}
    assert within(*inputs(merged, latent, shuffle=True)) == 0
    assert [name for name in OUTPUTS if first[name] != (tmp_path / name).read_bytes()] == []

    cells = io.read_fragment(tmp_path / "epi_clusters.parquet")
    assert list(cells) == ["epi_cluster", "epi_umap_1", "epi_umap_2", "s_score", "g2m_score", "cycle_phase", "dividing"]
    epithelial = merged.obs[merged.obs["lineage"] == "epithelial"]
    assert set(cells.index) == set(epithelial.index)
    truth = epithelial["state"].loc[cells.index].astype(str)
    assert adjusted_rand_score(truth, cells["epi_cluster"]) >= 0.7
    assert np.isfinite(cells[["epi_umap_1", "epi_umap_2", "s_score", "g2m_score"]].to_numpy()).all()
    after = anndata.read_h5ad(tmp_path / "merged.h5ad")
    assert set(after.obs["phase"]) == {"PRE", "POST", "PRE-R"}  # the phase of therapy, not of the cell

    table = read(tmp_path, "epi_clusters.tsv")
    assert list(table) == list(epithelium.CLUSTER_COLUMNS)
    of_state = {state: cells.loc[truth == state, "epi_cluster"].mode()[0] for state in STATES}
    rows = table.set_index("cluster")
    assert rows.loc[of_state["CYCLE"], "cycling_share"] > 0.9
    assert rows.loc[of_state["CYCLE"], "name"].endswith(" cycling")
    assert rows.loc[of_state["A"], "name"] == "STATEA"
    # only in primary resistance, and only in one patient: nothing of phases can be said
    lipid = rows.loc[of_state["LIPID"]]
    assert (lipid["name"], lipid["occurrence"], lipid["top_patient"], lipid["top_phase"]) == ("FABP1", "private", "P4", "PRE-R")
    assert pd.isna(lipid["exclusive_phase"])
    assert rows.loc[of_state["B"], "occurrence"] == "shared"
    assert (table["stability"] > 0.8).all()

    markers = read(tmp_path, "epi_markers.tsv")
    assert list(markers) == list(epithelium.MARKER_COLUMNS)
    assert markers[markers["cluster"] == of_state["B"]]["gene"].iloc[0] == "STATEB"
    ranked = pd.read_csv(tmp_path / "epi_clusters.rankings.tsv.gz", sep="\t", dtype={"group": str}, keep_default_na=False)
    assert list(ranked) == list(epithelium.RANKING_COLUMNS)
    assert set(ranked["source"] + " " + ranked["contrast"]) == {"epi_clusters cluster_vs_rest"}
    best = ranked[ranked["group"] == of_state["A"]]
    assert best.loc[best["score"].astype(float).idxmax(), "gene"] == "STATEA"
    assert "up" in set(best["direction"])
    assert gzip.decompress(first["epi_clusters.rankings.tsv.gz"]).startswith(b"source\tgroup")
    shares = read(tmp_path, "epi_composition.tsv")
    assert shares.groupby(["level", "phase", "sample"], dropna=False)["share"].sum().to_numpy() == pytest.approx(1.0, abs=1e-5)
    compared = io.read_tsv(tmp_path / "epi_resolutions.tsv", dtype={"resolution": str})
    assert compared["resolution"].tolist() == ["0.2", "0.4", "0.6", "0.8", "1.0"]
    assert compared.loc[compared["primary"], "resolution"].tolist() == ["0.4"]
    for name in OUTPUTS[-3:]:
        assert first[name].startswith(b"\x89PNG")
        assert len(first[name]) < 250_000
    status = io.read_tsv(tmp_path / "subcluster_epithelium.cohort.status.tsv")
    assert status["status"].tolist() == ["ok"]
    assert "1 of one patient only; 1 cycling." in status["sentence"][0]
    made = json.loads((tmp_path / "subcluster_epithelium.cohort.provenance.json").read_text())
    assert made["tumour_basis"] == "tumour"


def test_without_tumour_cells_the_epithelial_ones_are_used(within, inputs, tmp_path, root):
    merged, latent = cohort(root)
    within(*inputs(merged, latent, tumour=False), "--resolutions", "0.4")
    status = io.read_tsv(tmp_path / "subcluster_epithelium.cohort.status.tsv")
    assert status[["status", "reason", "n_cells"]].to_numpy().tolist() == [
        ["warning", "no tumour cells: all epithelial cells were used", 180]
    ]
    assert len(io.read_fragment(tmp_path / "epi_clusters.parquet")) == 180


def test_one_patient_and_no_cycle_genes_are_said(within, inputs, tmp_path, root):
    merged, latent = cohort(root, 200, patients=("P1",))
    options = inputs(merged, latent)
    io.write_tsv(pd.DataFrame({"gene": ["MCM5", "TOP2A"], "phase": ["S", "G2M"]}), tmp_path / "cell_cycle.tsv")
    within(*options, "--resolutions", "0.4")
    status = io.read_tsv(tmp_path / "subcluster_epithelium.cohort.status.tsv")
    assert status["status"].tolist() == ["warning"]
    assert "no cell-cycle scores: 1 S and 1 G2M genes" in status["reason"][0]
    assert "one patient: no cluster can be told from a patient's own" in status["reason"][0]
    table = read(tmp_path, "epi_clusters.tsv")
    assert set(table["occurrence"]) == {"private"}
    assert table["cycling_share"].isna().all()
    cells = io.read_fragment(tmp_path / "epi_clusters.parquet")
    assert cells[["s_score", "g2m_score", "cycle_phase", "dividing"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("n", "word", "reason"),
    [(99, "skipped_too_few_cells", "99 tumour cells, 100 needed"), (0, "skipped_no_input", "0 epithelial cells, 100 needed")],
)
def test_too_few_cells_write_empty_outputs(within, inputs, tmp_path, root, n, word, reason):
    merged, latent = cohort(root)
    options = inputs(merged, latent, tumour=n > 0)
    if n:
        known = [f"{p}.malignant.parquet" for p in ("P1", "P2", "P3", "P4")]
        left = n
        for name in known:
            part = io.read_fragment(tmp_path / name)
            part["tumour"] = np.arange(len(part)) < left
            left = max(0, left - len(part))
            io.write_fragment(part.reset_index(), tmp_path / name)
    else:
        io.write_fragment(
            pd.DataFrame({"cell": merged.obs_names, "lineage": "immune"}), tmp_path / "annotation.parquet"
        )  # fmt: skip
    within(*options)
    status = io.read_tsv(tmp_path / "subcluster_epithelium.cohort.status.tsv")
    assert status[["status", "reason"]].to_numpy().tolist() == [[word, reason]]
    cells = io.read_fragment(tmp_path / "epi_clusters.parquet")
    assert len(cells) == 0
    assert list(cells) == ["epi_cluster", "epi_umap_1", "epi_umap_2", "s_score", "g2m_score", "cycle_phase", "dividing"]
    for name, columns in (
        ("epi_clusters.tsv", epithelium.CLUSTER_COLUMNS),
        ("epi_composition.tsv", epithelium.COMPOSITION_COLUMNS),
        ("epi_markers.tsv", epithelium.MARKER_COLUMNS),
        ("epi_resolutions.tsv", epithelium.RESOLUTION_COLUMNS),
    ):
        assert (tmp_path / name).read_text() == "\t".join(columns) + "\n"
    assert gzip.decompress((tmp_path / OUTPUTS[5]).read_bytes()).decode() == "\t".join(epithelium.RANKING_COLUMNS) + "\n"
    assert (tmp_path / "cluster.epi_map.png").read_bytes().startswith(b"\x89PNG")


def test_input_that_cannot_be_used(within, run_script, inputs, tmp_path, root):
    merged, latent = cohort(root)
    options = inputs(merged, latent)
    space = io.read_fragment(tmp_path / "embedding.parquet").reset_index()

    def fails(message):
        with pytest.raises(io.InputError) as error:
            within(*options)
        assert message in str(error.value)

    io.write_fragment(space.assign(latent_2=np.nan), tmp_path / "embedding.parquet")
    fails("embedding.parquet: 180 of 180 cells have coordinates that are missing or infinite")
    io.write_fragment(space.rename(columns={"latent_1": "X_pca_1"}), tmp_path / "embedding.parquet")
    fails("expected the columns latent_1, ..., found X_pca_1")
    io.write_fragment(pd.DataFrame({"cell": ["X:1"], "tumour": [True]}), tmp_path / "P1.malignant.parquet")
    fails("P1.malignant.parquet: 1 cells are not in the merged cohort, the first is X:1")
    io.write_tsv(pd.DataFrame({"gene": ["MCM5"], "phase": ["G0"]}), tmp_path / "cell_cycle.tsv")
    done = run_script("subcluster_epithelium", *options, cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert "cell_cycle.tsv:\n  - row 2: phase 'G0' of gene 'MCM5', expected S or G2M" in done.stderr
    assert not (tmp_path / "epi_clusters.parquet").exists()


@pytest.mark.parametrize(("value", "message"), [("a,b", "is not a list of numbers"), ("0,1", "they are above 0")])
def test_wrong_resolutions(within, capsys, value, message):
    needed = ("--input", "x", "--annotation", "x", "--embedding", "x", "--cell_cycle", "x", "--phases", "x")
    with pytest.raises(SystemExit) as ended:
        within(*needed, "--resolutions", value)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
