"""MAP_FATES through its command line."""

from __future__ import annotations

import io as std_io
import json
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse, stats

from scresist import fates, figures, io, keys, normalise

TABLES = ("couplings", "macrostates", "fate_tests", "fate_drivers")
COLUMNS = ["cytotrace", "pseudotime", "later_resemblance", "fate", "fate_probability"]
PHASES = "phase\tname\trole\torder\ttime\tcolour\nPRE\tbefore\tbaseline\t1\t0\t#0072B2\nRES\tresponse\tresponse\t2\t1\t\n"
PHASES += "POST\tresistance\tacquired_resistance\t3\t2\t#D55E00\nPRE-R\tprimary\tprimary_resistance\t4\t\t\n"
# place on the path by phase, as SIMULATE_COHORT plants it
PLACE = {"PRE": (2, 4), "RES": (3, 3), "POST": (4, 2), "PRE-R": (3, 3)}
N_GENES = 500


def names(patient: str) -> list[str]:
    return [
        f"{patient}.fates.parquet", *(f"{patient}.{table}.tsv" for table in TABLES), f"{patient}.fates.png",
        f"map_fates.{patient}.status.tsv", f"map_fates.{patient}.provenance.json",
    ]  # fmt: skip


def cohort(folder: Path, sizes: dict[str, dict[str, int]], two_ends: bool = False, clones: bool = True) -> pd.Series:
    """Write the inputs of a cohort: patient -> phase -> tumour cells (and ten others per sample); returns the true places."""
    rng = np.random.default_rng(11)
    slope = np.zeros(N_GENES)
    slope[:200], slope[200:260] = -2.4, 2.4
    end = np.zeros(N_GENES)
    end[260:340] = 1.4
    level = rng.normal(np.log(0.5), 1.0, N_GENES)
    samples, obs, counts, place = [], [], [], []
    for patient, phases in sizes.items():
        for phase, n in phases.items():
            samples.append((f"{patient}-{phase}", patient, phase))
            where = rng.beta(*PLACE[phase], n + 10)
            side = np.arange(n + 10) % 2
            clone = np.arange(n + 10) // 2 % 2
            mean = np.exp(level + np.outer(where - 0.5, slope) + two_ends * np.outer(side, end))
            mean[:, 340:360] *= np.where(clone, 4.0, 1.0)[:, None]
            counts.append(rng.poisson(mean / mean.sum(axis=1, keepdims=True) * 2500))
            place.append(where)
            sample = f"{patient}-{phase}"
            obs.append(
                pd.DataFrame(
                    {
                        "sample": sample, "patient": patient, "phase": phase, "batch": "none", "tumour": np.arange(n + 10) < n,
                        "clone": [f"{patient}.C{c + 1}" for c in clone], "epi_cluster": [str(s) for s in side],
                    },
                    index=[f"{sample}:{at:04d}" for at in range(n + 10)],
                )
            )  # fmt: skip
    table, matrix = pd.concat(obs), sparse.csr_matrix(np.vstack(counts).astype(np.int32))
    genes = pd.DataFrame(index=[f"G{at:04d}" for at in range(N_GENES)])
    merged = anndata.AnnData(normalise.log1p_cp10k(matrix), obs=table[list(keys.IDENTITY)], var=genes, layers={"counts": matrix})
    merged.uns["scresist"] = {}
    merged.write_h5ad(folder / "merged.h5ad")
    io.write_tsv(pd.DataFrame(samples, columns=["sample", "patient", "phase"]), folder / "samples.tsv")
    (folder / "phases.tsv").write_text(PHASES)
    truth = pd.Series(np.concatenate(place), index=table.index)

    def write(frame: pd.DataFrame, name: str) -> None:
        io.write_fragment(frame.rename_axis("cell").reset_index(), folder / name)

    write(table[[]].assign(main_type="Epithelial", subtype="Enterocyte", lineage="epithelial"), "annotation.parquet")
    write(table[[]].assign(latent_1=truth, latent_2=rng.normal(size=len(table))), "embedding.parquet")
    tumour = table[table["tumour"]]
    write(tumour[["epi_cluster"]], "epi_clusters.parquet")
    write(tumour[[]].assign(module_M1=truth, module_M2=0.0), "modules.parquet")
    for patient in sizes:
        mine = table[table["patient"] == patient]
        write(mine[["tumour"]], f"{patient}.malignant.parquet")
        write(mine.loc[mine["tumour"] & clones, ["clone"]], f"{patient}.clones.parquet")
    return truth


def options(patient: str, *more: object) -> list[str]:
    given = {
        "input": "merged.h5ad", "annotation": "annotation.parquet", "malignant": f"{patient}.malignant.parquet",
        "clones": f"{patient}.clones.parquet", "embedding": "embedding.parquet", "epi_clusters": "epi_clusters.parquet",
        "modules": "modules.parquet", "samples": "samples.tsv", "phases": "phases.tsv",
    }  # fmt: skip
    flat = [word for name, value in given.items() for word in (f"--{name}", value)]
    return ["--patient", patient, *flat, "--n_null", "10", *map(str, more)]


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the script within this process (its imports take seconds); returns the one status row."""
    import map_fates

    def run(patient: str, *more: object) -> pd.Series:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(figures, "DPI", 40)
        assert map_fates.main(options(patient, *more)) == 0
        assert not [name for name in names(patient) if not (tmp_path / name).is_file()]
        status = io.read_tsv(tmp_path / f"map_fates.{patient}.status.tsv", dtype={"unit": str}, keep_default_na=False)
        assert status["unit_type"].tolist() == ["patient"]
        fragment = io.read_fragment(tmp_path / f"{patient}.fates.parquet")
        assert list(fragment) == COLUMNS
        return status.iloc[0]

    return run


def read(folder: Path, patient: str, table: str) -> pd.DataFrame:
    return io.read_tsv(folder / f"{patient}.{table}.tsv", dtype={"group": str, "group_from": str, "group_to": str})


def bytes_of(folder: Path, patient: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(patient)}


def test_path_with_two_ends(run_script, tmp_path):
    truth = cohort(tmp_path, {"P1": {"PRE": 120, "POST": 140, "PRE-R": 60}}, two_ends=True)
    done = run_script("map_fates", *options("P1", "--n_null", 40), cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout == ""
    status = io.read_tsv(tmp_path / "map_fates.P1.status.tsv")
    assert status.loc[0, ["status", "n_cells", "n_samples", "n_patients"]].tolist() == ["ok", 260, 2, 1]
    sentence = status.loc[0, "sentence"]
    assert "260 tumour cells of PRE, POST." in sentence
    assert "more differentiated PRE cells (by CytoTRACE) resemble the POST cells more" in sentence
    assert "2 terminal states of the POST cells" in sentence
    assert "exploratory" in sentence
    assert "become" not in sentence

    fragment = io.read_fragment(tmp_path / "P1.fates.parquet")
    assert list(fragment) == COLUMNS
    assert not fragment.index.str.contains("PRE-R").any()  # beside the time axis
    baseline = fragment[fragment.index.str.startswith("P1-PRE:")]
    assert len(baseline) == 120
    here = truth[fragment.index]
    assert stats.spearmanr(fragment["cytotrace"], here).statistic < -0.8
    # the direction: baseline cells further along the path resemble the last phase more
    assert stats.spearmanr(baseline["later_resemblance"], truth[baseline.index]).statistic > 0.6
    assert fragment.loc[fragment.index.str.contains("POST"), "later_resemblance"].isna().all()
    assert set(fragment["fate"]) == {"P1.F1", "P1.F2"}
    assert ((fragment["fate_probability"] >= 0.5) & (fragment["fate_probability"] <= 1)).all()
    side = io.read_fragment(tmp_path / "epi_clusters.parquet")["epi_cluster"][fragment.index]
    agree = pd.crosstab(side, fragment["fate"]).to_numpy()
    assert max(np.trace(agree), agree.sum() - np.trace(agree)) > 0.9 * agree.sum()

    tests = read(tmp_path, "P1", "fate_tests")
    assert tuple(tests) == fates.FATE_TEST_COLUMNS
    row = tests[(tests["control"] == "data") & (tests["measure"] == "direction") & (tests["group"] == "cytotrace")].iloc[0]
    assert row["value"] < row["null_low"]
    assert row["p_value"] == pytest.approx(1 / 41, rel=1e-5)
    assert row["p_min_attainable"] == row["p_value"]
    control = tests[tests["control"] == "permuted_labels"]
    assert len(control) == len(tests) / 2
    other = control[(control["measure"] == "direction") & (control["group"] == "cytotrace")].iloc[0]
    assert other["value"] != row["value"]
    assert other[["null_mean", "null_low", "null_high"]].tolist() == row[["null_mean", "null_low", "null_high"]].tolist()
    assert set(tests["measure"]) == {"direction", "resemblance", "fate_probability"}
    couplings = read(tmp_path, "P1", "couplings")
    used = couplings[(couplings["coupling"] == "used") & (couplings["group_kind"] == "clone")]
    assert (used.loc[~used["same_group"], "mass"] == 0).all()
    assert (used["mass_changed"] == 0).all()
    free = couplings[(couplings["coupling"] == "free") & (couplings["group_kind"] == "clone")]
    assert (free["mass_changed"] > 0.05).all()
    assert couplings.groupby(["coupling", "group_kind"])["mass"].sum().tolist() == pytest.approx([1] * 4, abs=1e-4)
    macro = read(tmp_path, "P1", "macrostates")
    assert macro.loc[macro["terminal"], "state"].tolist() == ["P1.F1", "P1.F2"]
    assert (macro["top_subtype"] == "Enterocyte").all()
    drivers = read(tmp_path, "P1", "fate_drivers")
    assert set(drivers["fate"]) == {"later", "P1.F1", "P1.F2"}
    to_side = drivers[drivers["fate"].str.startswith("P1") & (drivers["rank"] == 1)]
    assert to_side["gene"].str[1:].astype(int).between(260, 339).any()
    Image.open(std_io.BytesIO((tmp_path / "P1.fates.png").read_bytes())).verify()
    entry = json.loads((tmp_path / "map_fates.P1.provenance.json").read_text())
    assert entry["parameters"]["n_null"] == 40
    assert entry["cells_per_phase"] == {"POST": 140, "PRE": 120}

    # a second run, with the cells in another order, gives the same bytes (of one number of threads)
    first = bytes_of(tmp_path, "P1")
    merged = anndata.read_h5ad(tmp_path / "merged.h5ad")
    order = np.random.default_rng(0).permutation(merged.n_obs)
    merged[order].copy().write_h5ad(tmp_path / "merged.h5ad")
    for name in ("annotation", "embedding", "epi_clusters", "modules", "P1.malignant", "P1.clones"):
        path = tmp_path / f"{name}.parquet"
        pd.read_parquet(path).sample(frac=1, random_state=1).to_parquet(path)
    run_script("map_fates", *options("P1", "--n_null", 40), cwd=tmp_path)
    assert first == bytes_of(tmp_path, "P1")


def test_three_phases_without_clones(call, tmp_path):
    cohort(tmp_path, {"P2": {"PRE": 60, "RES": 60, "POST": 60}}, clones=False)
    row = call("P2", "--max_cells", 55, "--space", "integrated", "--reg", 0.2)
    assert row["status"] in ("warning", "no_terminal_state")
    assert "no clones: all cells are coupled together" in row["reason"]
    assert row["n_cells"] == 165
    couplings = read(tmp_path, "P2", "couplings")
    assert set(couplings["group_kind"]) == {"epi_cluster"}
    assert set(zip(couplings["phase_from"], couplings["phase_to"], strict=True)) == {
        ("PRE", "RES"),
        ("RES", "POST"),
        ("PRE", "POST"),
    }
    fragment = io.read_fragment(tmp_path / "P2.fates.parquet")
    assert fragment.loc[fragment.index.str.contains("RES"), "later_resemblance"].notna().all()


def test_no_terminal_state_is_a_result(call, tmp_path, monkeypatch):
    cohort(tmp_path, {"P3": {"PRE": 60, "POST": 60}})
    monkeypatch.setattr(fates, "STABILITY", 0.9999)
    row = call("P3", "--couple_within_clone", "no", "--n_states", 2)
    assert row["status"] == "no_terminal_state"
    assert "0.9999 needed" in row["reason"]
    fragment = io.read_fragment(tmp_path / "P3.fates.parquet")
    assert fragment["fate"].isna().all()
    assert fragment["fate_probability"].isna().all()
    assert fragment["cytotrace"].notna().all()
    assert not read(tmp_path, "P3", "macrostates")["terminal"].any()
    tests = read(tmp_path, "P3", "fate_tests")
    assert set(tests["measure"]) == {"direction", "resemblance"}
    assert "clone" in set(tests["group_kind"])
    assert set(read(tmp_path, "P3", "couplings")["coupling"]) == {"used"}


def test_a_small_phase_is_left_out_and_a_lost_clone_is_told(call, tmp_path):
    cohort(tmp_path, {"P4": {"PRE": 70, "RES": 20, "POST": 70}})
    clones = pd.read_parquet(tmp_path / "P4.clones.parquet")
    late = clones["cell"].str.contains("POST") & (clones["clone"] == "P4.C2")
    clones.loc[late, "clone"] = "P4.C3"
    clones.to_parquet(tmp_path / "P4.clones.parquet")
    row = call("P4")
    assert row["status"] in ("warning", "no_terminal_state")
    assert "left out: RES (20) tumour cells, 50 needed" in row["reason"]
    assert "of the mass from PRE to POST changes clone" in row["reason"]
    fragment = io.read_fragment(tmp_path / "P4.fates.parquet")
    clone = clones.set_index("cell")["clone"][fragment.index]
    before = fragment.index.str.startswith("P4-PRE:")
    assert fragment.loc[before & (clone == "P4.C2"), "later_resemblance"].isna().all()
    assert fragment.loc[before & (clone == "P4.C1"), "later_resemblance"].notna().all()


def test_cells_without_any_later_counterpart_have_no_fate(call, tmp_path):
    cohort(tmp_path, {"P5": {"PRE": 70, "POST": 70}})
    clones = pd.read_parquet(tmp_path / "P5.clones.parquet")
    clones.loc[clones["cell"].str.contains("POST"), "clone"] = "P5.C1"
    clones.to_parquet(tmp_path / "P5.clones.parquet")
    row = call("P5")
    assert "34 cells have no later counterpart and no fate" in row["reason"]


def test_patients_without_two_phases(run_script, tmp_path):
    cohort(
        tmp_path, {"P6": {"PRE": 60}, "P7": {"PRE": 60, "PRE-R": 60}, "P8": {"PRE": 60, "POST": 30}, "P9": {"PRE": 0, "POST": 0}}
    )
    expected = {
        "P6": ("skipped_no_input", "one phase on the time axis (PRE), two needed"),
        "P7": ("skipped_no_input", "one phase on the time axis (PRE), two needed"),
        "P8": ("skipped_too_few_cells", "tumour cells: PRE 60, POST 30; 50 needed in each of two phases"),
        "P9": ("skipped_no_input", "no tumour cells in PRE, POST"),
    }
    for patient, told in expected.items():
        done = run_script("map_fates", *options(patient), cwd=tmp_path)
        assert done.stderr == ""
        row = io.read_tsv(tmp_path / f"map_fates.{patient}.status.tsv").iloc[0]
        assert (row["status"], row["reason"]) == told
        fragment = io.read_fragment(tmp_path / f"{patient}.fates.parquet")
        assert list(fragment) == COLUMNS
        assert len(fragment) == 0
        for table in TABLES:
            assert len(read(tmp_path, patient, table)) == 0
        assert tuple(read(tmp_path, patient, "fate_tests")) == fates.FATE_TEST_COLUMNS
        Image.open(std_io.BytesIO((tmp_path / f"{patient}.fates.png").read_bytes())).verify()


def test_a_skipped_patient_imports_nothing_heavy(tmp_path, monkeypatch):
    cohort(tmp_path, {"P6": {"PRE": 60}})
    code = (
        "import sys, map_fates\n"
        f"map_fates.main({options('P6')!r})\n"
        "heavy = {'scanpy', 'anndata', 'cellrank', 'ot', 'numba', 'matplotlib', 'sklearn', 'scipy.stats'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    import subprocess

    bin_ = Path(__file__).resolve().parents[2] / "bin"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(bin_), "PATH": ""}
    )
    assert done.returncode == 0, done.stderr


def spoil_cells(folder: Path) -> None:
    frame = pd.read_parquet(folder / "P1.malignant.parquet")
    frame.loc[0, "cell"] = "P1-PRE:none"
    frame.to_parquet(folder / "P1.malignant.parquet")


def spoil_sample(folder: Path) -> None:
    frame = pd.read_parquet(folder / "P1.malignant.parquet")
    frame.loc[0, "cell"] = "P2-PRE:0001"
    frame.to_parquet(folder / "P1.malignant.parquet")


def rename(name: str, old: str, new: str):
    def spoil(folder: Path) -> None:
        frame = pd.read_parquet(folder / name).rename(columns={old: new})
        frame.to_parquet(folder / name)

    return spoil


def edit(name: str, old: str, new: str):
    def spoil(folder: Path) -> None:
        (folder / name).write_text((folder / name).read_text().replace(old, new))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_cells, "merged.h5ad: 1 of 110 tumour cells of P1 are not in it, the first is P1-PRE:none"),
        (spoil_sample, "1 tumour cells are of no sample of P1 in samples.tsv, the first is P2-PRE:0001"),
        (rename("P1.malignant.parquet", "tumour", "x"), "P1.malignant.parquet: no column tumour; columns are x"),
        (rename("P1.clones.parquet", "clone", "x"), "P1.clones.parquet: no column clone; columns are x"),
        (rename("epi_clusters.parquet", "epi_cluster", "x"), "epi_clusters.parquet: no column epi_cluster"),
        (edit("samples.tsv", "P1\t", "P2\t"), "samples.tsv: no sample of P1"),
        (edit("samples.tsv", "phase", "stage"), "samples.tsv: no column phase; columns are sample, patient, stage"),
        (edit("phases.tsv", "POST\t", "NEO\t"), "phases.tsv: no row for phase POST of P1; add it"),
        (edit("phases.tsv", "\t1\t0\t", "\t1\tsoon\t"), "phases.tsv: column time"),
        (edit("samples.tsv", "P1-PRE\tP1\tPRE", "P1-PRE\tP1\tRES"), "merged.h5ad: 55 cells have another phase than samples.tsv"),
    ],
)
def test_unusable_input(tmp_path, monkeypatch, spoil, message):
    import map_fates

    cohort(tmp_path, {"P1": {"PRE": 55, "POST": 55}})
    spoil(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(io.InputError) as error:
        map_fates.main(options("P1"))
    assert message in str(error.value)
    assert not (tmp_path / "P1.fates.parquet").exists()


def test_number_of_states_is_checked(capsys):
    import map_fates

    with pytest.raises(SystemExit):
        map_fates.parse_args(options("P1", "--n_states", 11))
    assert "11 is outside 2 to 10" in capsys.readouterr().err
    assert map_fates.parse_args(options("P1")).n_states == "auto"
    assert map_fates.parse_args(options("P1", "--n_states", 3)).n_states == 3


def test_what_could_not_be_estimated_is_not_told_as_no_resemblance(script_main):
    import sys

    from scresist import fates

    script_main("map_fates")
    sentence_of = sys.modules["script_map_fates"].sentence_of
    row = {"control": "data", "phase_from": "PRE", "phase_to": "POST", "measure": "resemblance", "group_kind": "clone"}
    row |= {"group": "P1.C1", "value": 0.1, "null_mean": 0.0}
    row |= {"p_adjusted": np.nan, "status": "not_estimable"}
    tests = pd.DataFrame([row], columns=list(fates.FATE_TEST_COLUMNS))
    assert "could not be estimated" in sentence_of("ok", tests, ["PRE", "POST"], 100, [])
    silent = tests.assign(p_adjusted=0.5, status="ok")
    assert "No group of PRE cells resembles the POST cells" in sentence_of("ok", silent, ["PRE", "POST"], 100, [])
