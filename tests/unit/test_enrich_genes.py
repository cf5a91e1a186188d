"""ENRICH_GENES through its command line."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scresist import cli, io

GENES = [f"G{i:04d}" for i in range(300)]
OUTPUTS = (
    "U.ora.tsv.gz", "U.gsea.tsv.gz", "U.ora_top.tsv", "U.gsea_top.tsv", "U.enrichment_groups.tsv", "U.running_sum.png",
    "U.enrichment_dots.png", "enrich_genes.U.status.tsv", "enrich_genes.U.provenance.json",
)  # fmt: skip
PNG = b"\x89PNG"


def rows(group, shift=(), source="expression", scored=True, n_up=20, seed=1, evidence="replicated"):
    """A group of 300 genes with normal scores, those in `shift` raised by 3; the strongest `n_up` chosen."""
    score = np.random.default_rng(seed).normal(size=len(GENES)) + 3 * np.isin(GENES, shift)
    direction = np.full(len(GENES), "", dtype=object)
    direction[np.argsort(-score)[:n_up]] = "up"
    return pd.DataFrame(
        {
            "source": source, "group": group, "contrast": "A_vs_B", "evidence": evidence, "gene": GENES,
            "score": score if scored else np.nan, "direction": direction,
        }
    )  # fmt: skip


PLANTED = GENES[40:60]


@pytest.fixture(scope="module")
def script(root):
    spec = importlib.util.spec_from_file_location("enrich_genes_script", root / "bin" / "enrich_genes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def call(run_script, script, root, tmp_path, monkeypatch, capsys):
    """Write rankings and two collections; returns a function that runs the step there: with `process=True` as a task does, else
    its main within this process, which spares the imports."""
    rng = np.random.default_rng(5)
    sets = {"GOBP_PLANTED_SET": PLANTED, **{f"GOBP_R{i}": sorted(rng.choice(GENES, 15 + i, replace=False)) for i in range(8)}}
    text = "".join("\t".join([name, "note", *members]) + "\n" for name, members in sets.items())
    (tmp_path / "go.gmt.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "own.gmt").write_text("MINE\tx\t" + "\t".join(PLANTED[:12]) + "\nSMALL\tx\tG0001\tG0002\n")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))  # what the step sets is undone after the test
    for name, folder in (("NUMBA_CACHE_DIR", "numba"), ("MPLCONFIGDIR", "matplotlib"), ("CELLTYPIST_FOLDER", "celltypist")):
        monkeypatch.setenv(name, os.environ.get(name, str(root / ".cache" / folder)))

    def run(frame, *more, check=True, collections=("go.gmt.gz", "own.gmt"), process=False):
        io.write_tsv_gz(frame, tmp_path / "U.rankings.tsv.gz")
        options = ["--unit", "U", "--rankings", "U.rankings.tsv.gz", "--permutations", "500", *more]
        options += ["--collections", *collections] if collections else []
        if process:
            return run_script("enrich_genes", *options, cwd=tmp_path, check=check)
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.run(lambda _: script.main(options))
        written = capsys.readouterr()
        assert not (check and ended.value.code), written.err
        return SimpleNamespace(returncode=ended.value.code, stderr=written.err, stdout=written.out)

    return run


def table(tmp_path, name):
    return io.read_tsv(tmp_path / f"U.{name}", dtype={"group": str})


def status_of(tmp_path):
    return io.read_tsv(tmp_path / "enrich_genes.U.status.tsv").iloc[0]


def test_planted_set_is_found_and_a_second_run_has_equal_bytes(call, tmp_path):
    frame = pd.concat([rows("tumour", PLANTED), rows("B", seed=2), rows("M2", PLANTED, source="modules", seed=3)])
    done = call(frame, process=True)
    assert done.stderr == ""
    first = {name: (tmp_path / name).read_bytes() for name in OUTPUTS}
    call(frame.sample(frac=1, random_state=1), "--threads", "2", process=True)  # neither the order of rows nor threads matter
    for name in OUTPUTS:
        if not name.endswith("provenance.json"):
            assert first[name] == (tmp_path / name).read_bytes(), name
    ora, gsea = table(tmp_path, "ora.tsv.gz"), table(tmp_path, "gsea.tsv.gz")
    assert list(ora) == [
        "source", "group", "contrast", "evidence", "direction", "collection", "set", "hits", "set_size", "query", "universe",
        "fold", "p", "padj", "genes", "status",
    ]  # fmt: skip
    assert list(gsea) == [
        "source", "group", "contrast", "evidence", "collection", "set", "set_size", "es", "nes", "p", "padj", "q_broad",
        "n_leading", "leading_edge", "n_permutations", "status",
    ]  # fmt: skip
    assert set(ora["group"]) == {"tumour", "B", "M2"}
    assert set(gsea["group"]) == {"tumour", "M2"}  # B is another cell type of the contrast
    best = ora[(ora["group"] == "tumour") & (ora["collection"] == "go")].iloc[0]
    assert best["set"] == "GOBP_PLANTED_SET" and best["padj"] < 1e-6 and best["evidence"] == "replicated"
    best = gsea[(gsea["group"] == "tumour") & (gsea["collection"] == "own")].iloc[0]
    assert best["set"] == "MINE" and best["nes"] > 1.5 and best["set_size"] == 12
    assert (gsea["n_permutations"] == 500).all() and (gsea["p"] > 0).all() and (ora["p"] > 0).all()
    groups = table(tmp_path, "enrichment_groups.tsv")
    assert set(groups["method"]) == {"ora", "gsea"}
    assert "down" not in set(groups["direction"])  # no gene of the file fell
    found = status_of(tmp_path)
    assert (found["status"], found["unit_type"]) == ("ok", "cohort")  # two sources: no contrast alone
    assert "3 group(s) of genes against 11 gene sets" in found["sentence"]
    for name in ("U.running_sum.png", "U.enrichment_dots.png"):
        assert first[name].startswith(PNG) and 2_000 < len(first[name]) < 250_000
    facts = json.loads(first["enrich_genes.U.provenance.json"])
    assert facts["collection_sizes"]["go"].startswith("9 sets")
    assert facts["parameters"]["permutations"] == 500


def test_top_tables_are_short(call, tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"S{i:02d}\tx\t" + "\t".join(rng.choice(GENES, 40, replace=False)) for i in range(60)]
    (tmp_path / "many.gmt").write_text("\n".join(lines) + "\n")
    call(rows("tumour", n_up=80), collections=("many.gmt",))
    ora, gsea = table(tmp_path, "ora_top.tsv"), table(tmp_path, "gsea_top.tsv")
    assert len(ora) == 20 < len(table(tmp_path, "ora.tsv.gz"))
    assert gsea["direction"].value_counts().max() <= 20
    assert ((gsea["nes"] > 0) == (gsea["direction"] == "up")).all()
    assert max(text.count(",") for text in [*ora["genes"], *gsea["leading_edge"]]) == 9
    assert status_of(tmp_path)["unit_type"] == "contrast"


@pytest.mark.parametrize(
    ("option", "expected"),
    [((), {"tumour"}), (("--gsea_groups", "all"), {"tumour", "B", "NK"}), (("--gsea_groups", "NK,B"), {"B", "NK"}),
     (("--gsea_groups", "Mast"), {"tumour", "B", "NK"})],
)  # fmt: skip
def test_groups_of_gsea(call, tmp_path, option, expected):
    call(pd.concat([rows("tumour"), rows("B", seed=2), rows("NK", seed=3)]), *option)
    assert set(table(tmp_path, "gsea.tsv.gz")["group"]) == expected


def test_lists_without_scores(call, tmp_path):
    call(rows("M1", PLANTED, source="modules", scored=False, evidence=""))
    assert table(tmp_path, "gsea.tsv.gz").empty
    assert table(tmp_path, "ora.tsv.gz")["set"].iloc[0] == "GOBP_PLANTED_SET"
    assert (tmp_path / "U.running_sum.png").read_bytes().startswith(PNG)
    assert status_of(tmp_path)["status"] == "ok"


def test_few_chosen_genes_are_told(call, tmp_path):
    frame = rows("tumour", PLANTED)
    frame.loc[frame["gene"].isin(["G0001", "G0002"]), "direction"] = "down"
    call(frame)
    groups = table(tmp_path, "enrichment_groups.tsv")
    down = groups[groups["direction"] == "down"].set_index("collection")
    assert set(down["status"]) == {"skipped_few_genes"}
    assert down.loc["own", "reason"] == "2 of the 2 chosen genes are annotated, 5 needed"
    assert down.loc["own", "n_sets"] == 0 and np.isnan(down.loc["own", "top_padj"])
    assert status_of(tmp_path)["status"] == "ok"


def test_nothing_chosen_leaves_only_the_ranking(call, tmp_path):
    call(rows("tumour", PLANTED, n_up=0))
    assert table(tmp_path, "ora.tsv.gz").empty
    assert len(table(tmp_path, "gsea.tsv.gz")) == 10


def test_constant_scores(call, tmp_path):
    call(rows("tumour", n_up=0).assign(score=1.0))
    assert table(tmp_path, "gsea.tsv.gz").empty
    groups = table(tmp_path, "enrichment_groups.tsv")
    assert set(groups["status"]) == {"not_estimable"}
    found = status_of(tmp_path)
    assert found["status"] == "skipped_few_genes"
    assert found["reason"] == "all genes have the same score; scores that differ are needed"


def test_empty_rankings(call, tmp_path):
    call(rows("tumour").head(0))
    assert all((tmp_path / name).is_file() for name in OUTPUTS)
    assert table(tmp_path, "ora.tsv.gz").empty and table(tmp_path, "ora_top.tsv").empty
    found = status_of(tmp_path)
    assert found["status"] == "skipped_no_input"
    assert found["reason"] == "U.rankings.tsv.gz holds no gene; at least one group of tested genes is needed"


def test_no_collection(call, tmp_path):
    call(rows("tumour"), collections=())
    assert all((tmp_path / name).is_file() for name in OUTPUTS)
    found = status_of(tmp_path)
    assert found["status"] == "skipped_no_input"
    assert found["reason"] == "no gene set collection was given; at least one GMT file is needed"


def test_genes_of_another_species(call, tmp_path):
    frame = rows("tumour").assign(gene=[f"Mm{i}" for i in range(300)])
    call(frame)
    found = status_of(tmp_path)
    assert found["status"] == "skipped_few_genes"
    assert found["reason"] == "none of the 300 genes (such as Mm0) is in go, own; gene symbols are needed"


def test_one_foreign_collection_is_a_warning(call, tmp_path):
    (tmp_path / "fly.gmt").write_text("FLY\tx\t" + "\t".join(f"fb{i}" for i in range(20)) + "\n")
    call(rows("tumour", PLANTED), collections=("go.gmt.gz", "fly.gmt"))
    found = status_of(tmp_path)
    assert found["status"] == "warning"
    assert found["reason"] == "no gene of the data is in fly; is it of another species or naming?"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="score"), "columns score are missing; expected source, group"),
        (lambda f: f.assign(direction="sideways"), "direction sideways: expected up, down or empty"),
        (lambda f: pd.concat([f, f.head(2)]), "2 genes stand twice in a group, the first is G0000 in tumour"),
        (lambda f: f.assign(score=[*["inf"] * 3, *["1"] * 297]), "3 scores are no finite numbers, the first is 'inf'"),
        (lambda f: f.assign(score=["high", *["1"] * 299]), "1 scores are no finite numbers, the first is 'high'"),
        (lambda f: f.assign(gene=["", *GENES[1:]]), "1 rows have no gene, the first is row 2"),
        (lambda f: f.assign(group=[*["tumour"] * 299, ""]), "1 rows have no group, the first is row 301"),
    ],
)
def test_wrong_rankings(call, tmp_path, change, message):
    done = call(change(rows("tumour")), check=False)
    assert done.returncode == 65
    assert "U.rankings.tsv.gz" in done.stderr and message in done.stderr
    assert not (tmp_path / "U.ora.tsv.gz").exists()


def test_unreadable_files(call, tmp_path):
    (tmp_path / "bad.gmt").write_bytes(b"\x1f\x8bnot gzip at all")
    (tmp_path / "list.gmt").write_text("TP53\nMYC\n")
    done = call(rows("tumour"), check=False, collections=("bad.gmt", "list.gmt", "go.gmt.gz"), process=True)
    assert done.returncode == 65
    assert "bad.gmt: cannot be read as text" in done.stderr
    assert "list.gmt is no gene set collection" in done.stderr  # all problems at once
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "own.gmt").write_text("A\tx\tg\n")
    done = call(rows("tumour"), check=False, collections=("own.gmt", "more/own.gmt"))
    assert "the name own stands for several files" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--min_size", "50", "--max_size", "20"), "--min_size 50 is above --max_size 20"),
        (("--permutations", "10"), "10 is outside 100 to"),
        (("--gsea_groups", ","), "give `all` or the names"),
    ],
)
def test_wrong_options(call, options, message):
    done = call(rows("tumour"), *options, check=False)
    assert done.returncode == 2
    assert message in done.stderr
