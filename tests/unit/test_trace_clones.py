"""TRACE_CLONES through its command line."""

from __future__ import annotations

import io as std_io
import json

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scresist import clones, figures, io
from tests.data import clone_profiles

TABLES = ("clones", "clone_events", "clone_phases", "clone_changes", "clone_tree", "clone_diversity")
PICTURES = ("cnv_heatmap", "clone_flow")
TRUNK = {"8q": 4.0, "3p": -4.0}
THREE = [{**TRUNK, "1q": 5.0}, {**TRUNK, "17q": 6.0, "11q": -4.0}, {**TRUNK, "12q": 6.0}]
COURSE = {"PRE": [25, 45, 0], "RES": [40, 22, 0], "POST": [70, 0, 45]}


def names(patient: str) -> list[str]:
    return [
        f"{patient}.clones.parquet",
        *(f"{patient}.{table}.tsv" for table in TABLES),
        *(f"{patient}.{picture}.png" for picture in PICTURES),
        f"trace_clones.{patient}.status.tsv",
        f"trace_clones.{patient}.provenance.json",
    ]


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the script within this process (its imports take seconds); returns the one status row."""
    monkeypatch.syspath_prepend(str(clone_profiles.Path(__file__).resolve().parents[2] / "bin"))
    import trace_clones

    def run(options: list[str], dpi: int = 30) -> pd.Series:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(figures, "DPI", dpi)  # coarse pictures, where nothing depends on them
        assert trace_clones.main([str(option) for option in options]) == 0
        patient = options[options.index("--patient") + 1]
        assert not [name for name in names(patient) if not (tmp_path / name).is_file()]
        for picture in PICTURES:
            content = (tmp_path / f"{patient}.{picture}.png").read_bytes()
            assert len(content) < 250_000
            Image.open(std_io.BytesIO(content)).verify()
        status = io.read_tsv(tmp_path / f"trace_clones.{patient}.status.tsv", dtype={"unit": str}, keep_default_na=False)
        assert status["unit_type"].tolist() == ["patient"]
        return status.iloc[0]

    return run


def read(folder, patient: str, table: str) -> pd.DataFrame:
    return io.read_tsv(folder / f"{patient}.{table}.tsv")


def test_three_clones_through_therapy(run_script, call, tmp_path):
    made, calls, planted = clone_profiles.patient("P1", THREE, COURSE, quiet=12)
    options = clone_profiles.write(tmp_path, "P1", made, calls)
    done = run_script("trace_clones", *options, cwd=tmp_path)
    assert done.stderr == ""
    first = {name: (tmp_path / name).read_bytes() for name in names("P1")}
    status = io.read_tsv(tmp_path / "trace_clones.P1.status.tsv")
    assert status.loc[0, ["status", "n_cells", "n_samples", "n_patients"]].tolist() == ["ok", 247, 3, 1]
    assert "3 copy-number clones" in status.loc[0, "sentence"]
    assert "POST_vs_PRE: " in status.loc[0, "sentence"]

    fragment = io.read_fragment(tmp_path / "P1.clones.parquet")
    assert set(fragment.index) == set(planted.index)  # cells called non_malignant have no clone
    assert clones.adjusted_rand(fragment["clone"][planted.index], planted) >= 0.98
    table = read(tmp_path, "P1", "clones")
    assert table["clone"].tolist() == ["P1.C1", "P1.C2", "P1.C3"]
    assert table["n_cells"].tolist() == fragment["clone"].value_counts().tolist()
    assert table["n_phases"].tolist() == [3, 2, 1]
    assert set(table["trunk_events"]) == {"-3p,+8q"}
    assert table["private_events"].tolist() == ["+1q", "-11q,+17q", "+12q"]
    assert (table["ari_ward"] > 0.9).all()
    assert (table["ari_reference_design"] > 0.9).all()
    gain = table.set_index("clone")["locus_ERBB2"]
    assert gain.idxmax() == "P1.C2"  # the clone with 17q
    assert list(table)[-2:] == ["locus_CST3", "locus_ERBB2"]

    events = read(tmp_path, "P1", "clone_events")
    arms = events[events["level"] == "arm"]
    assert set(arms.loc[arms["clone"] == "P1.C2", "event"]) == {"-3p", "+8q", "-11q", "+17q"}
    assert set(events["level"]) == {"arm", "segment"}
    changes = read(tmp_path, "P1", "clone_changes").set_index(["contrast", "clone"])
    assert changes.loc["POST_vs_PRE", "class"].to_dict() == {"P1.C1": "expanding", "P1.C2": "lost", "P1.C3": "emerging"}
    assert set(changes["evidence"]) == {"cell_level"}
    shares = read(tmp_path, "P1", "clone_phases")
    assert shares.groupby("phase")["share"].sum().tolist() == pytest.approx([1, 1, 1])
    tree = read(tmp_path, "P1", "clone_tree")
    assert tree["kind"].tolist() == ["pair"] * 3 + ["branch"] * 4
    assert set(read(tmp_path, "P1", "clone_diversity")["phase"]) == {"PRE", "RES", "POST"}
    assert json.loads((tmp_path / "trace_clones.P1.provenance.json").read_text())["parameters"]["arm_distance"] == 2.0

    # a second run, and one with the cells in another order, give the same bytes
    call(options, figures.DPI)
    assert first == {name: (tmp_path / name).read_bytes() for name in names("P1")}
    shuffled = made[np.random.default_rng(0).permutation(made.n_obs)].copy()
    call(clone_profiles.write(tmp_path, "P1", shuffled, calls.sample(frac=1, random_state=0)), figures.DPI)
    assert first == {name: (tmp_path / name).read_bytes() for name in names("P1")}


def test_one_phase_has_shares_and_no_changes(call, tmp_path):
    made, calls, _ = clone_profiles.patient("P2", THREE[:2], {"PRE": [45, 30]})
    row = call(clone_profiles.write(tmp_path, "P2", made, calls))
    assert row["status"] == "ok"
    assert row["reason"] == "one phase (PRE), two needed for a change"
    assert "2 copy-number clones with -3p, +8q in all of them" in row["sentence"]
    changes = read(tmp_path, "P2", "clone_changes")
    assert changes["status"].tolist() == ["skipped_no_input"] * 2
    assert read(tmp_path, "P2", "clone_phases")["share"].tolist() == pytest.approx([0.6, 0.4])
    assert read(tmp_path, "P2", "clones")["ari_reference_design"].isna().all()


def test_one_clone_in_two_phases_and_a_small_phase(call, tmp_path):
    made, calls, _ = clone_profiles.patient("P3", [{**TRUNK, "5q": -4.0}], {"PRE": [60], "POST": [12]})
    row = call(clone_profiles.write(tmp_path, "P3", made, calls))
    assert row["status"] == "warning"
    assert row["reason"] == "fewer than 30 malignant cells in POST (12): no change of clones is judged there"
    assert "one copy-number clone with -3p, -5q, +8q" in row["sentence"]
    assert read(tmp_path, "P3", "clones")["clone"].tolist() == ["P3.C1"]
    assert read(tmp_path, "P3", "clone_changes")["class"].tolist() == ["not_estimable"]


def test_a_phase_without_malignant_cells_is_listed(call, tmp_path):
    made, calls, _ = clone_profiles.patient("P3", THREE[:1], {"PRE": [60], "RES": [0]})
    row = call(clone_profiles.write(tmp_path, "P3", made, calls))
    assert row["status"] == "warning"
    assert "RES (0)" in row["reason"]
    shares = read(tmp_path, "P3", "clone_phases").set_index("phase")
    assert shares["N"].to_dict() == {"PRE": 60, "RES": 0}
    assert np.isnan(shares.loc["RES", "share"])


def test_primary_resistance_stands_beside_the_time_axis(call, tmp_path):
    made, calls, _ = clone_profiles.patient("P4", THREE[:2], {"PRE": [50, 10], "PRE-R": [10, 50]})
    row = call(clone_profiles.write(tmp_path, "P4", made, calls))
    assert row["status"] == "ok"
    changes = read(tmp_path, "P4", "clone_changes")
    assert set(changes["contrast"]) == {"PRE-R_vs_PRE"}
    assert sorted(changes["class"]) == ["higher", "lower"]


def test_fewer_than_twenty_cells(call, tmp_path):
    made, calls, _ = clone_profiles.patient("P5", THREE[:1], {"PRE": [14]})
    row = call(clone_profiles.write(tmp_path, "P5", made, calls))
    assert row["status"] == "warning"
    assert row["reason"].startswith("14 malignant cells, 20 needed to look for more than one clone")
    assert read(tmp_path, "P5", "clones")["n_cells"].tolist() == [14]


def test_malignant_cells_without_events(call, tmp_path):
    made, calls, _ = clone_profiles.patient("P5", [{}], {"PRE": [40]})
    row = call(clone_profiles.write(tmp_path, "P5", made, calls))
    assert row["status"] == "warning"
    assert "no arm of any clone is shifted" in row["reason"]
    assert read(tmp_path, "P5", "clone_tree")["gained_events"].isna().all()


def refused(call, tmp_path, patient, made, calls):
    """A patient without clones: every file is there and holds no row."""
    row = call(clone_profiles.write(tmp_path, patient, made, calls))
    assert len(io.read_fragment(tmp_path / f"{patient}.clones.parquet")) == 0
    for table in TABLES:
        frame = read(tmp_path, patient, table)
        assert len(frame) == 0
        assert "patient" in frame
    return row["status"], row["reason"]


def test_skipped_profiles(call, tmp_path):
    made = clone_profiles.empty("P6", "skipped_insufficient_reference", "12 cells, 50 needed")
    calls = pd.DataFrame({"cell": ["P6-PRE:A"], "malignant": ["unresolved"]})
    assert refused(call, tmp_path, "P6", made, calls) == (
        "skipped_no_input",
        "INFER_CNV gave no profile for this patient (skipped_insufficient_reference: 12 cells, 50 needed)",
    )


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (["unresolved"] * 40, "cnv_quiet", "none of 40 epithelial cells is called malignant: all are unresolved"),
        (["non_malignant"] * 40, "skipped_too_few_cells", "none of 40 epithelial cells is called malignant"),
        (["malignant"] * 9 + ["unresolved"] * 31, "skipped_too_few_cells", "9 malignant cells, 10 needed"),
        ([], "skipped_no_input", "no epithelial cell of this patient was judged by CALL_MALIGNANT"),
    ],
)
def test_patients_without_clones(call, tmp_path, words, status, reason):
    made, calls, _ = clone_profiles.patient("P7", THREE[:1], {"PRE": [40]})
    calls = calls.iloc[: len(words)].assign(malignant=np.array(words, dtype=str))
    assert refused(call, tmp_path, "P7", made, calls) == (status, reason)


def test_loci_of_the_panels(call, tmp_path):
    made, calls, _ = clone_profiles.patient("P8", THREE[:1], {"PRE": [40]})
    options = clone_profiles.write(tmp_path, "P8", made, calls)
    for text, listed in (
        ("panel\tgene\tlocus\nadc\tERBB2\tyes\nadc\tCST3\tno\nadc\tNONE\tyes\n", ["locus_ERBB2"]),
        ("panel\tgene\nadc\tCST3\nadc\tERBB2\n", ["locus_CST3", "locus_ERBB2"]),
        ("panel\tgene\n", []),
    ):
        (tmp_path / "panels.tsv").write_text(text)
        call([*options, "--panels", "panels.tsv"])
        assert [name for name in read(tmp_path, "P8", "clones") if name.startswith("locus_")] == listed


def with_uns(made: anndata.AnnData, name: str) -> anndata.AnnData:
    made = made.copy()
    del made.uns["arms"][name]
    return made


def broken_cell(made: anndata.AnnData) -> anndata.AnnData:
    made = made.copy()
    made.obsm["X_cnv"][3, 0] = np.nan
    return made


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m, c, p: (with_uns(m, "sd_ref"), c, p), "uns['arms']['sd_ref'] is missing"),
        (lambda m, c, p: (broken_cell(m), c, p), "1 cells have values that are missing or infinite, the first is P9-PRE:C"),
        (lambda m, c, p: (m[m.obs["cnv_role"] == "query"].copy(), c, p), "no reference cell"),
        (lambda m, c, p: (m[m.obs["cnv_role"] == "reference"].copy(), c, p), "40 of 40 malignant cells have no profile"),
        (lambda m, c, p: (m, c.drop(columns="malignant").assign(x=1), p), "no column malignant; columns are x"),
        (lambda m, c, p: (m, c, p.replace("PRE\t", "NEO\t", 1)), "phases.tsv: no row for phase PRE of P9"),
        (lambda m, c, p: (m, c, "phase\tname\nPRE\tx\n"), "phases.tsv: no column order, time; columns are phase, name"),
        (lambda m, c, p: (m, c, p.replace("\t1\t0\t", "\t1\tsoon\t", 1)), "phases.tsv: column time"),
    ],
)
def test_unusable_input(call, tmp_path, monkeypatch, spoil, message):
    import trace_clones

    made, calls, _ = clone_profiles.patient("P9", THREE[:1], {"PRE": [40]})
    made, calls, phases = spoil(made, calls, clone_profiles.PHASES)
    options = clone_profiles.write(tmp_path, "P9", made, calls, phases)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(io.InputError, match=r"P9|phases\.tsv") as error:
        trace_clones.main(options)
    assert message in str(error.value)
    assert not (tmp_path / "P9.clones.parquet").exists()


def test_other_patient_and_panels_without_genes(call, tmp_path, monkeypatch):
    import trace_clones

    made, calls, _ = clone_profiles.patient("P9", THREE[:1], {"PRE": [40]})
    options = clone_profiles.write(tmp_path, "P9", made, calls)
    (tmp_path / "panels.tsv").write_text("panel\nadc\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(io.InputError, match=r"panels\.tsv: no column gene; columns are panel"):
        trace_clones.main([*options, "--panels", "panels.tsv"])
    options[1] = "P1"
    with pytest.raises(io.InputError, match="cells of P9, expected P1 only"):
        trace_clones.main(options)
