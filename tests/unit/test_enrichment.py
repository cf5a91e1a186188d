"""Gene set kernels against slow plain versions of their definitions, scipy, gseapy and the known answer of real data."""

from __future__ import annotations

import gzip
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from scresist import enrichment, keys, normalise
from scresist.io import InputError

GENES = [f"G{i:04d}" for i in range(400)]


def collection_of(sets):
    return enrichment.collection("c", sets)


@pytest.fixture(scope="module")
def ranking():
    rng = np.random.default_rng(1)
    return enrichment.rank(GENES, rng.normal(size=len(GENES)) + np.linspace(0.4, -0.4, len(GENES)))


@pytest.fixture(scope="module")
def random_sets():
    rng = np.random.default_rng(2)
    return {f"S{i}": sorted(rng.choice(GENES, size, replace=False)) for i, size in enumerate([10, 10, 11, 25, 60, 150])}


# --- GMT


def test_gmt_text_becomes_sets():
    sets = enrichment.parse_gmt("A\thttp://x\tg1\tg2\tg1\n\nB\t\tg3\t\r\nEMPTY\tnote\n", "x.gmt")
    assert sets == {"A": ["g1", "g2"], "B": ["g3"], "EMPTY": []}
    made = enrichment.collection("x", sets)
    assert made.genes.tolist() == ["g1", "g2", "g3"]
    assert made.members.toarray().tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no set with genes"),
        ("A\tnote\n", "no set with genes"),
        ("gene1\ngene2\n", "line 1: 'gene1' has 1 field(s); expected name, description, genes"),
        ("A\tn\tg1\nA\tn\tg2\n", "line 2: the set A stands twice"),
        ("\tn\tg1\n", "line 1"),
        ("x\n" * 14, "and 4 more"),
    ],
)
def test_what_is_no_gmt_is_told(text, message):
    with pytest.raises(InputError) as told:
        enrichment.parse_gmt(text, "x.gmt")
    assert message in str(told.value)
    assert "x.gmt" in str(told.value)


# --- over-representation


def test_tail_by_counting_every_draw():
    """Universe of 7, set of 3, query of 4: all 35 queries counted."""
    members = {0, 1, 2}
    found = [len(members & set(draw)) for draw in itertools.combinations(range(7), 4)]
    for hits in range(4):
        expected = sum(n >= hits for n in found) / len(found)
        assert enrichment.hypergeometric_tail([hits], 7, [3], 4)[0] == pytest.approx(expected, rel=1e-13)


def test_tail_equals_scipy():
    rng = np.random.default_rng(0)
    universe, query = 15_000, 321
    sizes = rng.integers(10, 501, 300)
    hits = rng.binomial(np.minimum(sizes, query), rng.uniform(0, 0.3, 300))
    expected = stats.hypergeom.sf(hits - 1, universe, sizes, query)
    np.testing.assert_allclose(enrichment.hypergeometric_tail(hits, universe, sizes, query), expected, rtol=1e-9)


def test_tail_at_its_ends():
    assert enrichment.hypergeometric_tail([0], 100, [10], 20)[0] == pytest.approx(1, abs=1e-12)
    assert enrichment.hypergeometric_tail([5], 100, [80], 25)[0] == pytest.approx(1, abs=1e-12)  # 5 hits cannot be avoided
    assert enrichment.hypergeometric_tail([10], 100, [10], 20)[0] == pytest.approx(math.comb(90, 10) / math.comb(100, 20))
    assert enrichment.hypergeometric_tail([500], 20_000, [500], 500)[0] == 1e-300  # never 0
    assert len(enrichment.hypergeometric_tail([], 10, [], 5)) == 0


def plain_ora(sets, universe, query, min_size, max_size):
    """clusterProfiler's convention in words: cut to annotated genes, then sizes, then BH over sets with a hit."""
    annotated = set().union(*map(set, sets.values()))
    u = annotated & set(universe)
    q = u & set(query)
    rows = {}
    for name, members in sets.items():
        inside = u & set(members)
        hits = inside & q
        if min_size <= len(inside) <= max_size and hits:
            rows[name] = (len(hits), len(inside), stats.hypergeom.sf(len(hits) - 1, len(u), len(inside), len(q)), hits)
    ordered = sorted(rows, key=lambda name: rows[name][2])
    padj, least = {}, 1.0
    for place in range(len(ordered), 0, -1):
        least = min(least, rows[ordered[place - 1]][2] * len(ordered) / place)
        padj[ordered[place - 1]] = least
    return rows, padj, len(u), len(q)


def test_ora_equals_the_convention_word_by_word(random_sets):
    universe = [*GENES[50:350], "NOT_ANNOTATED_1", "NOT_ANNOTATED_2"]
    query = [*random_sets["S3"][:15], *GENES[100:130], "NOT_ANNOTATED_1"]
    query = [gene for gene in universe if gene in set(query)]
    found, facts = enrichment.over_representation(collection_of(random_sets), universe, query, 8, 100, 5)
    rows, padj, n_universe, n_query = plain_ora(random_sets, universe, query, 8, 100)
    assert "S5" not in rows and len(rows) >= 3  # too large; the test is not empty
    assert found["set"].tolist() == sorted(rows, key=lambda name: (rows[name][2], name))
    assert facts["universe"] == n_universe and facts["query"] == n_query and facts["n_sets"] == len(rows)
    for row in found.to_dict("records"):
        hits, size, p, genes = rows[row["set"]]
        assert (row["hits"], row["set_size"], row["universe"], row["query"]) == (hits, size, n_universe, n_query)
        assert row["p"] == pytest.approx(p, rel=1e-9)
        assert row["padj"] == pytest.approx(padj[row["set"]], rel=1e-9)
        assert row["fold"] == pytest.approx(hits / n_query / (size / n_universe))
        assert row["genes"].split(",") == [gene for gene in universe if gene in genes]  # in the order of the universe


def test_ora_refuses_few_genes_and_says_so(random_sets):
    found, facts = enrichment.over_representation(collection_of(random_sets), GENES, GENES[:4])
    assert found.empty and list(found) == list(enrichment.ORA_COLUMNS)
    assert facts["status"] == keys.SKIPPED_FEW_GENES
    known = len(set(GENES[:4]) & {g for s in random_sets.values() for g in s})
    assert facts["reason"] == f"{known} of the 4 chosen genes are annotated, 5 needed"
    found, facts = enrichment.over_representation(collection_of(random_sets), GENES, GENES[:100], 300, 400)
    assert found.empty and facts["status"] == keys.NOT_ESTIMABLE


def test_ora_of_genes_outside_the_universe_is_a_fault(random_sets):
    with pytest.raises(ValueError, match="outside the universe"):
        enrichment.over_representation(collection_of(random_sets), GENES[:50], GENES[40:60])


# --- ranking and enrichment score


def test_ties_are_ordered_by_name_and_missing_scores_leave():
    made = enrichment.rank(["d", "c", "b", "a", "x"], [1.0, 2.0, 1.0, 1.0, np.nan])
    assert made.genes.tolist() == ["c", "a", "b", "d"]
    assert made.usable
    assert not enrichment.rank(["a", "b"], [3.0, 3.0]).usable
    with pytest.raises(ValueError, match="infinite"):
        enrichment.rank(["a", "b"], [1.0, np.inf])
    with pytest.raises(ValueError, match="twice"):
        enrichment.rank(["a", "a"], [1.0, 2.0])


def test_score_of_four_genes_by_hand():
    """Scores 3, 2, 1, -4. Set {a, c}: +3/4, -1/2, +1/4, -1/2 -> 0.75, 0.25, 0.5, 0. Set {d}: -1/3, -2/3, -1, 0."""
    made = enrichment.rank(["a", "b", "c", "d"], [3.0, 2.0, 1.0, -4.0])
    measured = enrichment.measure(collection_of({"ac": ["a", "c"], "d": ["d"], "all": list("abcd")}), made, 1, 10)
    assert measured.rows.tolist() == [0, 1]  # a set of all genes has no background
    es, peak = enrichment.enrichment_scores(made, measured)
    assert es == pytest.approx([0.75, -1.0])
    assert peak.tolist() == [0, 0]
    curve, hits = enrichment.running_sum(made, ["a", "c"])
    assert curve == pytest.approx([0.75, 0.25, 0.5, 0.0])
    assert hits.tolist() == [0, 2]


def plain_es(scores, positions):
    """The running sum written out gene by gene."""
    inside = set(positions)
    total = sum(abs(scores[i]) for i in inside)
    at, values = 0.0, []
    for i in range(len(scores)):
        at += abs(scores[i]) / total if i in inside else -1 / (len(scores) - len(inside))
        values.append(at)
    return max(values) if max(values) > -min(values) else min(values)


def test_scores_equal_the_written_out_sum(ranking, random_sets):
    measured = enrichment.measure(collection_of(random_sets), ranking)
    es, peak = enrichment.enrichment_scores(ranking, measured)
    for i, row in enumerate(measured.rows):
        members = set(random_sets[f"S{row}"])
        at = [k for k, gene in enumerate(ranking.genes) if gene in members]
        assert es[i] == pytest.approx(plain_es(ranking.scores, at), abs=1e-12)
        assert 0 <= peak[i] < len(at)


def test_sets_of_weight_zero_have_no_score():
    made = enrichment.rank(list("abcdef"), [2.0, 1.0, 0.0, 0.0, 0.0, -1.0])
    known = collection_of({"none": ["c", "d"], "some": ["a", "b"]})
    measured = enrichment.measure(known, made, 2, 5)
    found = enrichment.preranked(known, made, measured, enrichment.null(made, measured.sizes, 200, 1)).set_index("set")
    assert found.loc["none", "status"] == keys.NOT_ESTIMABLE
    assert found.loc["none", ["es", "nes", "p", "padj", "q_broad"]].isna().all()
    assert found.loc["none", "leading_edge"] == ""
    assert found.loc["some", "leading_edge"] == "a,b"


# --- null


def splitmix(state):
    mask = (1 << 64) - 1
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_null_equals_plain_scores_of_the_same_random_sets(ranking):
    """The random orders drawn again in plain Python, the score of each prefix by the written-out sum."""
    sizes, seed, n = [1, 2, 10, 37, 150], 7, len(GENES)
    found = enrichment.null_scores(np.abs(ranking.scores), sizes, 12, seed)
    mask = (1 << 64) - 1
    for t in range(12):
        state = (seed * 0x9E3779B97F4A7C15 + t * 0xD1342543DE82EF95) & mask
        order = list(range(n))
        for k in range(max(sizes)):
            state = (state + 0x9E3779B97F4A7C15) & mask
            j = k + (((splitmix(state) >> 32) * (n - k)) >> 32)
            order[k], order[j] = order[j], order[k]
        for row, size in enumerate(sizes):
            assert found[row, t] == pytest.approx(plain_es(ranking.scores, order[:size]), abs=1e-12)


def test_null_does_not_depend_on_threads_or_other_sizes(ranking):
    weights = np.abs(ranking.scores)
    one = enrichment.null_scores(weights, [10, 25, 60], 101, 3, threads=1)
    assert np.array_equal(one, enrichment.null_scores(weights, [10, 25, 60], 101, 3, threads=3))
    assert np.allclose(one[1], enrichment.null_scores(weights, [25], 101, 3)[0], atol=1e-12)
    assert not np.array_equal(one, enrichment.null_scores(weights, [10, 25, 60], 101, 4))
    assert enrichment.null_scores(weights, [], 5, 1).shape == (0, 5)


def test_random_sets_are_uniform():
    """With all weights equal the score of one gene at rank i is known, so ranks can be read back: each equally often."""
    n, draws = 8, 40_000
    found = enrichment.null_scores(np.ones(n), [1], draws, 11)[0]
    expected = {round(1 - i / (n - 1) if 1 - i / (n - 1) > i / (n - 1) else -i / (n - 1), 9) for i in range(n)}
    values, count = np.unique(np.round(found, 9), return_counts=True)
    assert set(values) == expected
    assert stats.chisquare(count).pvalue > 1e-3


def test_significance_in_words(ranking, random_sets):
    """NES, p and Broad q by their definitions, with loops over the null."""
    known = collection_of(random_sets)
    measured = enrichment.measure(known, ranking)
    against = enrichment.null(ranking, measured.sizes, 500, 5)
    es, _ = enrichment.enrichment_scores(ranking, measured)
    nes, p, q = enrichment.significance(es, measured.sizes, against)
    nulls = [against.scores[list(against.sizes).index(size)] for size in measured.sizes]
    normed = []
    for one in nulls:
        up, down = [v for v in one if v >= 0], [v for v in one if v < 0]
        normed += [[v / np.mean(up) for v in up], [v / abs(np.mean(down)) for v in down]]
    everything = [v for part in normed for v in part]
    for i in range(len(es)):
        same = [v for v in nulls[i] if (v >= 0) == (es[i] >= 0)]
        assert nes[i] == pytest.approx(es[i] / abs(np.mean(same)), rel=1e-10)
        b = sum(abs(v) >= abs(es[i]) for v in same)
        assert p[i] == pytest.approx((b + 1) / (len(same) + 1))
        mine = [v for v in everything if (v >= 0) == (es[i] >= 0)]
        seen = [v for v in nes if (v >= 0) == (es[i] >= 0)]
        top = (sum(abs(v) >= abs(nes[i]) for v in mine) + 1) / (len(mine) + 1)
        share = sum(abs(v) >= abs(nes[i]) for v in seen) / len(seen)
        assert q[i] == pytest.approx(min(1, top / share), rel=1e-6)


def test_p_is_never_zero_and_a_planted_set_is_first(ranking, random_sets):
    sets = {**random_sets, "TOP": ranking.genes[:40].tolist(), "END": ranking.genes[-40:].tolist()}
    known = collection_of(sets)
    measured = enrichment.measure(known, ranking)
    found = enrichment.preranked(known, ranking, measured, enrichment.null(ranking, measured.sizes, 1000, 1))
    assert set(found["set"].head(2)) == {"TOP", "END"}
    assert (found["p"] > 0).all() and (found["q_broad"] > 0).all()
    by = found.set_index("set")
    assert by.loc["TOP", "es"] == pytest.approx(1)
    assert by.loc["TOP", "leading_edge"].split(",") == ranking.genes[:40].tolist()
    assert by.loc["END", "es"] == pytest.approx(-1)
    assert by.loc["END", "leading_edge"].split(",") == ranking.genes[-40:][::-1].tolist()
    assert by.loc["TOP", "n_leading"] == 40


def test_p_is_uniform_without_signal():
    """Random sets in a random ranking: the p values of 300 sets are spread evenly."""
    rng = np.random.default_rng(4)
    made = enrichment.rank(GENES, rng.normal(size=len(GENES)))
    known = collection_of({f"R{i}": rng.choice(GENES, 20, replace=False).tolist() for i in range(300)})
    measured = enrichment.measure(known, made)
    found = enrichment.preranked(known, made, measured, enrichment.null(made, measured.sizes, 2000, 9))
    assert stats.kstest(found["p"].astype(float), "uniform").pvalue > 1e-3


def test_result_does_not_depend_on_the_order_of_genes_and_sets(ranking, random_sets):
    def run(genes, scores, sets):
        known = collection_of(sets)
        made = enrichment.rank(genes, scores)
        measured = enrichment.measure(known, made)
        return enrichment.preranked(known, made, measured, enrichment.null(made, measured.sizes, 300, 1))

    first = run(ranking.genes, ranking.scores, random_sets)
    backward = run(ranking.genes[::-1], ranking.scores[::-1], dict(reversed(list(random_sets.items()))))
    pd.testing.assert_frame_equal(first, backward)


def gseapy_prerank(ranking, sets, n_permutations, seed):
    import gseapy

    found = gseapy.prerank(
        rnk=pd.DataFrame({"gene": ranking.genes, "score": ranking.scores}), gene_sets=sets, min_size=10, max_size=500,
        permutation_num=n_permutations, weight=1, outdir=None, no_plot=True, seed=seed, threads=1, ascending=None,
    ).res2d  # fmt: skip
    return found.set_index("Term")


def test_equals_gseapy(ranking, random_sets):
    known = collection_of(random_sets)
    measured = enrichment.measure(known, ranking)
    against = enrichment.null(ranking, measured.sizes, 10_000, 1)
    ours = enrichment.preranked(known, ranking, measured, against).set_index("set")
    theirs = gseapy_prerank(ranking, random_sets, 10_000, 1).loc[ours.index]
    np.testing.assert_allclose(ours["es"], theirs["ES"].astype(float), atol=1e-9)
    np.testing.assert_allclose(ours["nes"], theirs["NES"].astype(float), atol=0.03)
    np.testing.assert_allclose(ours["p"], theirs["NOM p-val"].astype(float), atol=0.03)
    for name in ours.index:
        assert set(ours.loc[name, "leading_edge"].split(",")) == set(theirs.loc[name, "Lead_genes"].split(";"))


# --- real data


@pytest.fixture(scope="module")
def kang(shared_data):
    import anndata

    return anndata.read_h5ad(shared_data / "kang_ifnb" / "harmony_pbmc_stim_2000x9015.h5ad")


def z_scores(x, first):
    """Wilcoxon z with tie correction per gene, by scipy's ranks."""
    dense = x.toarray()
    a, b = int(first.sum()), int((~first).sum())
    out = np.full(dense.shape[1], np.nan)
    for j in range(dense.shape[1]):
        ranks = stats.rankdata(dense[:, j])
        _, ties = np.unique(dense[:, j], return_counts=True)
        n = a + b
        spread = a * b / 12 * ((n + 1) - (ties.astype(float) ** 3 - ties).sum() / (n * (n - 1)))
        if spread > 0:
            out[j] = (ranks[first].sum() - a * (a + 1) / 2 - a * b / 2) / math.sqrt(spread)
    return out


@pytest.mark.real
def test_interferon_responses_lead_in_kang(kang, shared_data):
    text = (shared_data / "genesets" / "IOBR_hallmark.gmt").read_text()
    known = enrichment.collection("hallmark", enrichment.parse_gmt(text, "hallmark"))
    x = normalise.log1p_cp10k(sparse.csr_matrix(kang.X).astype(np.int64))
    made = enrichment.rank(kang.var_names, z_scores(x, (kang.obs["condition"] == "stim").to_numpy()))
    measured = enrichment.measure(known, made)
    found = enrichment.preranked(known, made, measured, enrichment.null(made, measured.sizes, 10_000, 1))
    assert set(found["set"].head(2)) == {"HALLMARK_INTERFERON_ALPHA_RESPONSE", "HALLMARK_INTERFERON_GAMMA_RESPONSE"}
    assert (found["nes"].head(2) > 2.5).all()  # seen when written: 3.30 and 3.21
    assert (found["padj"].head(2) < 0.01).all()
    theirs = gseapy_prerank(made, {s: known.genes[known.members[i].indices].tolist() for i, s in enumerate(known.sets)}, 100, 1)
    es = found.set_index("set")["es"].loc[theirs.index]
    np.testing.assert_allclose(es, theirs["ES"].astype(float), atol=1e-9)


@pytest.mark.real
def test_ora_of_the_interferon_genes_of_kang(kang, shared_data, root):
    """The 60 genes highest in stimulated cells hold the Hallmark interferon sets, and GO's response to virus."""
    x = normalise.log1p_cp10k(sparse.csr_matrix(kang.X).astype(np.int64))
    stim = (kang.obs["condition"] == "stim").to_numpy()
    difference = np.asarray(x[stim].mean(axis=0) - x[~stim].mean(axis=0)).ravel()
    query = kang.var_names[np.sort(np.argsort(-difference)[:60])].tolist()
    text = (shared_data / "genesets" / "IOBR_hallmark.gmt").read_text()
    known = enrichment.collection("hallmark", enrichment.parse_gmt(text, "hallmark"))
    found, _ = enrichment.over_representation(known, kang.var_names.tolist(), query)
    assert set(found["set"].head(2)) == {"HALLMARK_INTERFERON_ALPHA_RESPONSE", "HALLMARK_INTERFERON_GAMMA_RESPONSE"}
    go = enrichment.parse_gmt(gzip.decompress((root / "assets" / "go_bp.gmt.gz").read_bytes()).decode(), "go")
    found, _ = enrichment.over_representation(enrichment.collection("go", go), kang.var_names.tolist(), query)
    assert "GOBP_DEFENSE_RESPONSE_TO_VIRUS" in set(found["set"].head(5))
