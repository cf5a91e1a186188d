"""SCORE_TCELLS through its command line."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import design, io, keys, normalise, tcells

TABLES = ("tcell_values.tsv", "tcell_tests.tsv")
STATES = pd.DataFrame(
    [
        ("exhaustion", "HAVCR2"), ("exhaustion", "LAG3"), ("exhaustion", "PDCD1"), ("cytotoxic", "GZMB"), ("cytotoxic", "PRF1"),
        ("naive", "CCR7"), ("naive", "TCF7"), ("regulatory", "FOXP3"), ("regulatory", "IL2RA"), ("regulatory", "IKZF2"),
    ],
    columns=["state", "gene"],
)  # fmt: skip
NAMED = sorted(set(STATES["gene"]) - {"IKZF2"})
KINDS = (("CD4_T", "immune"), ("CD8_T", "immune"), ("NK", "immune"), ("Epithelial", "epithelial"))
PHASES = ("PRE", "RES", "POST")
# counts of the gene in the cells that carry it, by phase
PLANTED = {
    **{(gene, "CD8_T"): {"PRE": 2, "RES": 1, "POST": 9} for gene in ("HAVCR2", "LAG3", "PDCD1")},
    **{(gene, kind): dict.fromkeys(PHASES, 9) for gene in ("GZMB", "PRF1") for kind in ("NK", "CD8_T")},
    **{(gene, "CD4_T"): {"PRE": 6, "RES": 6, "POST": 2} for gene in ("CCR7", "TCF7")},
}


def cohort(n_patients=4, n_cells=15, n_plain=600, seed=0):
    """n patients per phase, all different; four types of n_cells each."""
    rng = np.random.default_rng(seed)
    genes = sorted([*NAMED, *(f"GENE{i:04d}" for i in range(n_plain))])
    base = np.random.default_rng(1).gamma(1.0, 1.0, len(genes))
    base[[genes.index(gene) for gene in NAMED]] = 0.3
    rows, blocks = [], []
    for phase in PHASES:
        for i in range(n_patients):
            sample = f"{phase}-{i + 1}"
            for kind, lineage in KINDS:
                mean = base.copy()
                for (gene, carrier), count in PLANTED.items():
                    if carrier == kind:
                        mean[genes.index(gene)] = count[phase]
                blocks.append(rng.poisson(mean * rng.lognormal(0, 0.2, (n_cells, 1))))
                rows += [(f"{sample}:{kind}{j:03d}", sample, f"{phase}{i + 1}", phase, kind, lineage) for j in range(n_cells)]
    obs = pd.DataFrame(rows, columns=["cell", "sample", "patient", "phase", "main_type", "lineage"]).set_index("cell")
    obs["batch"] = "none"
    counts = sparse.csr_matrix(np.vstack(blocks).astype(np.int32))
    made = anndata.AnnData(normalise.log1p_cp10k(counts), obs=obs, var=pd.DataFrame(index=genes))
    made.layers[keys.COUNTS] = counts
    made.uns[keys.UNS] = {}
    return made


@pytest.fixture
def inputs(tmp_path):
    """Write the inputs of a cohort; returns the options."""

    def write(merged, states=STATES):
        merged.write_h5ad(tmp_path / "merged.h5ad")
        obs = merged.obs.astype(str).reset_index(names="cell").sample(frac=1, random_state=0)  # joined by cell, not by place
        io.write_fragment(obs[["cell", "main_type", "lineage"]], tmp_path / "annotation.parquet")
        samples = obs[["sample", "patient", "phase"]].drop_duplicates().sort_values("sample")
        samples["response"] = np.where(samples["sample"].str[-1].astype(int) % 2, "PD", "PR")
        io.write_tsv(samples, tmp_path / "samples.tsv")
        phases = pd.DataFrame(
            {
                "phase": PHASES, "name": PHASES, "order": [1, 2, 3], "time": [0.0, 1.0, 2.0],
                "role": [keys.ROLE_BASELINE, keys.ROLE_RESPONSE, keys.ROLE_ACQUIRED],
            }
        )  # fmt: skip
        io.write_tsv(phases, tmp_path / "phases.tsv")
        contrasts = design.contrast_table(design.default_contrasts(samples, phases), samples, "auto", 2)
        io.write_tsv(contrasts, tmp_path / "contrasts.tsv")
        io.write_tsv(states, tmp_path / "states.tsv")
        options = ["--input", "merged.h5ad", "--annotation", "annotation.parquet", "--samples", "samples.tsv"]
        return [*options, "--phases", "phases.tsv", "--contrasts", "contrasts.tsv", "--states", "states.tsv"]

    return write


@pytest.fixture
def within(script_main):
    return script_main("score_tcells")


def status_of(folder):
    return io.read_tsv(folder / "score_tcells.cohort.status.tsv").iloc[0]


def test_planted_states_and_equal_bytes(run_script, inputs, within, tmp_path):
    merged = cohort()
    run_script("score_tcells", *inputs(merged), cwd=tmp_path)
    first = {name: (tmp_path / name).read_bytes() for name in (*TABLES, "tcells.parquet")}
    scores = io.read_fragment(tmp_path / "tcells.parquet")
    assert list(scores) == [state + "_score" for state in tcells.STATES]
    assert len(scores) == 12 * 3 * 15  # the epithelial cells have no score
    assert scores.index.is_monotonic_increasing
    values = io.read_tsv(tmp_path / "tcell_values.tsv")
    assert list(values) == list(tcells.VALUE_COLUMNS)
    mean = values.groupby(["score", "cell_type", "phase"])["mean"].mean()
    assert mean["exhaustion_score", "CD8_T", "POST"] > mean["exhaustion_score", "CD8_T", "PRE"]
    assert mean["exhaustion_score", "CD8_T", "PRE"] > mean["exhaustion_score", "CD8_T", "RES"]
    assert mean["cytotoxic_score", "NK", "PRE"] > mean["cytotoxic_score", "CD4_T", "PRE"] + 1
    tests = io.read_tsv(tmp_path / "tcell_tests.tsv")
    assert list(tests) == list(tcells.TEST_COLUMNS)
    named = tests[tests["contrast"] == "POST_vs_PRE"].drop_duplicates(["score", "cell_type"]).set_index(["score", "cell_type"])
    exhausted = named.loc[("exhaustion_score", "CD8_T")]
    assert exhausted["effect"] > 0.3
    assert exhausted["ci_low"] > 0
    assert exhausted["p_value"] == pytest.approx(2 / 70)
    assert named.loc[("naive_score", "CD4_T"), "effect"] < -0.3
    assert abs(named.loc[("cytotoxic_score", "NK"), "effect"]) < 0.2
    assert "response:PD_vs_PR" in set(tests["contrast"])
    assert set(tests.loc[tests["test"] == "kruskal_wallis", "groups"]) == {"PRE=4;RES=4;POST=4"}
    row = status_of(tmp_path)
    assert (row["status"], row["reason"]) == (keys.WARNING, "not measured: IKZF2")
    assert "4 states scored in 540 T and NK cells (t_cell, CD4_T, CD8_T, NK) of 12 samples" in row["sentence"]
    record = json.loads((tmp_path / "score_tcells.cohort.provenance.json").read_text())
    assert record["parameters"]["min_cells"] == 10
    # neither the order of cells nor a second run changes a byte
    mixed = merged[np.random.default_rng(0).permutation(merged.n_obs)].copy()
    within(*inputs(mixed))
    assert {name: (tmp_path / name).read_bytes() for name in first} == first


def test_ok_and_types_by_name(inputs, within, tmp_path):
    states = STATES[STATES["gene"] != "IKZF2"]
    within(*inputs(cohort(2), states), "--types", "NK")
    row = status_of(tmp_path)
    assert row["status"] == keys.OK
    assert set(io.read_tsv(tmp_path / "tcell_values.tsv")["cell_type"]) == {"NK"}


def test_few_genes_give_plain_means(inputs, within, tmp_path):
    within(*inputs(cohort(2, n_plain=60)))
    row = status_of(tmp_path)
    assert row["status"] == keys.WARNING
    assert "69 genes, 500 needed for control genes: scores are plain means" in row["reason"]


def test_nothing_to_score(inputs, within, tmp_path):
    merged = cohort(2)
    only = merged[merged.obs["main_type"] == "Epithelial"].copy()
    within(*inputs(only))
    row = status_of(tmp_path)
    assert row["status"] == keys.SKIPPED_TOO_FEW_CELLS
    assert "0 T or NK cells among 90 cells" in row["reason"]
    assert io.read_fragment(tmp_path / "tcells.parquet").empty
    assert io.read_tsv(tmp_path / "tcell_values.tsv").empty
    assert list(io.read_tsv(tmp_path / "tcell_tests.tsv")) == list(tcells.TEST_COLUMNS)

    within(*inputs(merged), "--min_cells", "500")
    row = status_of(tmp_path)
    assert row["status"] == keys.SKIPPED_TOO_FEW_CELLS
    assert row["reason"] == "at most 30 T or NK cells of a type in a sample, 500 needed"

    within(*inputs(merged, pd.DataFrame({"state": ["naive"], "gene": ["XYZ1"]})))
    row = status_of(tmp_path)
    assert row["status"] == keys.SKIPPED_FEW_GENES
    assert "no state has 2 measured genes; not measured: XYZ1" in row["reason"]
    assert io.read_tsv(tmp_path / "tcell_values.tsv")["mean"].isna().all()


def test_faults(run_script, inputs, within, tmp_path):
    merged = cohort(2)
    options = inputs(merged)
    with pytest.raises(io.InputError, match="--types: Tcell is no main type of this cohort; its types are CD4_T, CD8_T"):
        within(*options, "--types", "Tcell")
    samples = io.read_tsv(tmp_path / "samples.tsv", dtype=str)
    io.write_tsv(samples.iloc[1:], tmp_path / "samples.tsv")
    with pytest.raises(io.InputError, match=r"samples.tsv: no row for the samples POST-1; give the table of this run"):
        within(*options)
    bare = merged.copy()
    del bare.obs["phase"]
    bare.write_h5ad(tmp_path / "merged.h5ad")
    done = run_script("score_tcells", *options, cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert "merged.h5ad: obs has no column phase; give merged.h5ad of this run" in done.stderr
