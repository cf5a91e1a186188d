"""The communication kernel against arithmetic by hand, a slow plain version, liana's cellchat and liana's published ranks."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import communication, normalise, pair_tables
from scresist.io import InputError

PER_SIDE = {"ligand_genes": "ligand", "receptor_genes": "receptor"}


def frame(*rows: dict) -> pd.DataFrame:
    """Rows of a pair table; pair, pathway and names follow from the genes."""
    made = []
    for row in rows:
        names = {name: row[column].replace(",", "_") for column, name in PER_SIDE.items()}
        made.append({"pair": f"{names['ligand']}:{names['receptor']}", "pathway": "P", **names, **row})
    return pd.DataFrame(made)


def trimean(values: np.ndarray) -> np.ndarray:
    """Of the columns, by numpy's quantiles."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    return (low + 2 * middle + high) / 4


def plain(averages, pairs, kh=0.5, n=1.0, cofactors=True):
    """Section 20 of the method, one number at a time."""
    at = {gene: i for i, gene in enumerate(pairs.genes)}
    n_groups = len(averages)
    out = np.zeros((len(pairs), n_groups, n_groups))
    for p, row in enumerate(pairs.table.itertuples()):
        for i in range(n_groups):
            for j in range(n_groups):
                ligand = np.prod([averages[i, at[g]] for g in row.ligand_genes.split(",")]) ** (
                    1 / len(row.ligand_genes.split(","))
                )
                genes = row.receptor_genes.split(",")
                receptor = np.prod([averages[j, at[g]] for g in genes]) ** (1 / len(genes))
                factor = 1.0
                if cofactors:
                    receptor *= np.prod([1 + averages[j, g] for g in pairs.co_a[p] if g >= 0])
                    receptor /= np.prod([1 + averages[j, g] for g in pairs.co_i[p] if g >= 0])
                    for g in pairs.agonist[p][pairs.agonist[p] >= 0]:
                        factor *= np.prod([1 + averages[k, g] ** n / (kh**n + averages[k, g] ** n) for k in (i, j)])
                    for g in pairs.antagonist[p][pairs.antagonist[p] >= 0]:
                        factor *= np.prod([kh**n / (kh**n + averages[k, g] ** n) for k in (i, j)])
                power = (ligand * receptor) ** n
                out[p, i, j] = power / (kh**n + power) * factor
    return out


@pytest.fixture(scope="module")
def made():
    """300 cells, 6 groups of unlike size, 12 genes, pairs with complexes and every cofactor."""
    rng = np.random.default_rng(3)
    genes = [f"G{i:02d}" for i in range(12)]
    codes = rng.choice(6, 300, p=[0.3, 0.25, 0.2, 0.15, 0.06, 0.04])
    level = rng.gamma(1.0, 1.0, (6, 12)) * (rng.random((6, 12)) < 0.7)
    values = np.round(rng.gamma(2.0, 1.0, (300, 12)) * level[codes] * (rng.random((300, 12)) < 0.8), 3)
    table = frame(
        {"ligand_genes": "G00", "receptor_genes": "G01"},
        {"ligand_genes": "G02", "receptor_genes": "G03,G04", "agonist": "G05,G06", "co_a": "G07"},
        {"ligand_genes": "G08,G09", "receptor_genes": "G03", "antagonist": "G10", "co_i": "G11,G07"},
        {"ligand_genes": "G00,G02,G08", "receptor_genes": "G01,G04,G11", "agonist": "G03", "antagonist": "G05"},
        {"ligand_genes": "G05", "receptor_genes": "G06", "co_a": "ABSENT", "antagonist": "ABSENT,G00"},
    )
    return communication.scale(sparse.csr_matrix(values)), codes, communication.read_pairs(table, genes)


# --- by hand


def hand():
    """Two groups, one complex, one antagonist, one co-inhibitor; the largest value is 10.

    group A has 4 cells: quantiles at 0.75, 1.5 and 2.25 of the ascending order; B has 5: at 1, 2 and 3.
    """
    a = {"L": [0, 4, 6, 10], "R1": [1, 1, 1, 1], "R2": [0, 0, 0, 8], "AN": [0, 0, 0, 0], "CI": [2, 2, 2, 2]}
    b = {"L": [0, 0, 2, 4, 10], "R1": [0, 2, 4, 6, 8], "R2": [9, 9, 9, 9, 9], "AN": [5, 5, 5, 5, 5], "CI": [0, 0, 0, 0, 10]}
    genes = sorted(a)
    values = np.array([[*a[gene], *b[gene]] for gene in genes], dtype=float).T
    order = np.array([8, 0, 5, 3, 1, 7, 2, 6, 4])  # cells in no order
    return sparse.csr_matrix(values[order]), np.array([0] * 4 + [1] * 5)[order], genes


def test_trimean_by_hand():
    values, codes, genes = hand()
    found = communication.trimean_by_group(communication.scale(values), codes, 2)
    expected = {
        # A: Q1 = 0 + 0.75 x 4 = 3, Q2 = (4 + 6) / 2 = 5, Q3 = 6 + 0.25 x 4 = 7: (3 + 10 + 7) / 4 = 5. B: (0 + 2 x 2 + 4) / 4 = 2
        "L": (0.5, 0.2),
        # A: 1. B: (2 + 2 x 4 + 6) / 4 = 4
        "R1": (0.1, 0.4),
        # A: Q3 = 0 + 0.25 x 8 = 2: (0 + 0 + 2) / 4 = 0.5. B: 9
        "R2": (0.05, 0.9),
        "AN": (0.0, 0.5),
        # B: 10 is the fifth of five values, Q3 the fourth: 0
        "CI": (0.2, 0.0),
    }
    assert found == pytest.approx(np.array([expected[gene] for gene in genes]).T, abs=1e-12)


def test_probability_by_hand():
    values, codes, genes = hand()
    table = frame(
        {"ligand_genes": "L", "receptor_genes": "R1,R2", "antagonist": "AN", "co_i": "CI"},
        {"ligand_genes": "L", "receptor_genes": "R2", "agonist": "AN", "co_a": "R1"},
    )
    pairs = communication.read_pairs(table, genes)
    averages = communication.trimean_by_group(communication.scale(values), codes, 2)
    found = communication.probabilities(averages, pairs)
    # complex: A sqrt(0.1 x 0.05) = sqrt(0.005), B sqrt(0.4 x 0.9) = 0.6; co-inhibitor: A / (1 + 0.2), B / (1 + 0)
    # antagonist: A 0.5 / (0.5 + 0) = 1, B 0.5 / (0.5 + 0.5) = 0.5
    receptor_a = 0.005**0.5 / 1.2
    first = [
        [0.5 * receptor_a / (0.5 + 0.5 * receptor_a), 0.3 / 0.8 * 0.5],  # L_A = 0.5; 0.5 x 0.6 = 0.3
        [0.2 * receptor_a / (0.5 + 0.2 * receptor_a) * 0.5, 0.12 / 0.62 * 0.25],  # L_B = 0.2; 0.2 x 0.6 = 0.12
    ]
    # co-activator R1: A 0.05 x 1.1 = 0.055, B 0.9 x 1.4 = 1.26; agonist: A 1, B 1 + 0.5 / (0.5 + 0.5) = 1.5
    second = [
        [0.0275 / 0.5275, 0.63 / 1.13 * 1.5],
        [0.011 / 0.511 * 1.5, 0.252 / 0.752 * 2.25],
    ]
    assert pairs.table["pair"].tolist() == ["L:R1_R2", "L:R2"]
    assert found == pytest.approx(np.array([first, second]), abs=1e-9)
    without = communication.probabilities(averages, pairs, cofactors=False)
    a, b = 0.5 * 0.005**0.5, 0.2 * 0.005**0.5
    assert without[0] == pytest.approx(np.array([[a / (0.5 + a), 0.3 / 0.8], [b / (0.5 + b), 0.12 / 0.62]]), abs=1e-9)


def test_a_subunit_at_zero_silences_its_complex():
    pairs = communication.read_pairs(frame({"ligand_genes": "A", "receptor_genes": "B,C"}), list("ABC"))
    averages = np.array([[1.0, 0.5, 0.0], [1.0, 0.5, 0.2]])
    found = communication.probabilities(averages, pairs)[0]
    assert found[:, 0].tolist() == [0.0, 0.0] and (found[:, 1] > 0).all()


# --- against plain versions


@pytest.mark.parametrize("options", [{}, {"cofactors": False}, {"kh": 0.2, "n": 2.0}], ids=str)
def test_kernel_equals_a_plain_one(made, options):
    values, codes, pairs = made
    averages = communication.trimean_by_group(values, codes, 6)
    assert averages == pytest.approx(np.stack([trimean(values[codes == g].toarray()) for g in range(6)]), abs=1e-12)
    assert communication.probabilities(averages, pairs, **options) == pytest.approx(plain(averages, pairs, **options), abs=1e-12)


@pytest.mark.parametrize("sizes", [(1, 2, 3), (4, 5, 6, 7), (130, 1)])
def test_trimean_of_every_size(sizes):
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    values = rng.gamma(1, 1, (len(codes), 9)) * (rng.random((len(codes), 9)) < np.linspace(0, 1, 9))
    found = communication.trimean_by_group(sparse.csr_matrix(values), codes, len(sizes) + 1)
    assert found[:-1] == pytest.approx(np.stack([trimean(values[codes == g]) for g in range(len(sizes))]), abs=1e-12)
    assert np.isnan(found[-1]).all()  # no cells, no average


def test_more_groups_than_a_byte_holds():
    rng = np.random.default_rng(0)
    codes, values = np.repeat(np.arange(200), 3), rng.gamma(1, 1, (600, 2))
    found = communication.trimean_by_group(sparse.csr_matrix(values), codes, 200)
    assert found == pytest.approx(np.stack([trimean(values[codes == g]) for g in range(200)]), abs=1e-12)


def test_p_values_equal_a_plain_count(made):
    values, codes, pairs = made
    codes = np.where(codes == 5, -1, codes)  # a group too small for averages: its cells stay in the pool
    observed = communication.probabilities(communication.trimean_by_group(values, codes, 5), pairs)
    rng, above = np.random.default_rng(11), np.zeros(observed.shape)
    for _ in range(20):
        shuffled = rng.permutation(codes)
        averages = np.stack([trimean(values[shuffled == g].toarray()) for g in range(5)])
        above += plain(averages, pairs) - observed > 1e-13
    expected = np.where(observed == 0, 1.0, above / 20)
    found = communication.permutation_pvalues(values, codes, 5, pairs, observed, 20, np.random.default_rng(11))
    assert found.tolist() == expected.tolist()
    assert (observed == 0).any() and 0 < expected[observed > 0].mean() < 1


def test_p_values_follow_the_seed_and_not_the_threads(made):
    values, codes, pairs = made
    observed = communication.probabilities(communication.trimean_by_group(values, codes, 6), pairs)

    def run(seed, threads, given=values):
        rng = np.random.default_rng(seed)
        return communication.permutation_pvalues(given, codes, 6, pairs, observed, 100, rng, threads=threads)

    first = run(1, 1)
    for threads in (1, 2, 3, 7):
        assert run(1, threads, communication.rank(values)).tobytes() == first.tobytes()
    assert (run(2, 1) != first).any()
    assert np.round(first * 100) == pytest.approx(first * 100) and (first[observed == 0] == 1).all()


def test_a_choice_of_pairs_changes_no_value(made):
    values, codes, pairs = made
    averages = communication.trimean_by_group(values, codes, 6)
    observed = communication.probabilities(averages, pairs)
    chosen = np.array([3, 1])
    part = pairs.take(chosen)
    assert part.genes == pairs.genes and part.table["pair"].tolist() == pairs.table["pair"].iloc[chosen].tolist()
    assert communication.probabilities(averages, part).tolist() == observed[chosen].tolist()
    arguments = (values, codes, 6)
    whole = communication.permutation_pvalues(*arguments, pairs, observed, 30, np.random.default_rng(1))
    assert communication.permutation_pvalues(*arguments, part, observed[chosen], 30, np.random.default_rng(1)).tolist() == (
        whole[chosen].tolist()
    )


def test_a_group_without_cells_is_nan_and_never_zero(made):
    values, codes, pairs = made
    averages = communication.trimean_by_group(values, codes, 7)
    prob = communication.probabilities(averages, pairs)
    pval = communication.permutation_pvalues(values, codes, 7, pairs, prob, 5, np.random.default_rng(1))
    names, sums = communication.pathway_sums(prob, pval, pairs)
    for found in (prob, pval, sums):
        assert np.isnan(found[:, 6, :]).all() and np.isnan(found[:, :, 6]).all() and not np.isnan(found[:, :6, :6]).any()
    assert names == ["P"]


def test_no_pairs_and_no_cells():
    pairs = communication.read_pairs(frame({"ligand_genes": "A", "receptor_genes": "B"}), ["A"])
    assert len(pairs) == 0 and pairs.dropped == 1 and pairs.genes == ("A",)
    values = communication.scale(sparse.csr_matrix((4, 1)))
    averages = communication.trimean_by_group(values, np.array([0, 0, 1, 1]), 2)
    prob = communication.probabilities(averages, pairs)
    assert prob.shape == (0, 2, 2) and averages.tolist() == [[0.0], [0.0]]
    found = communication.permutation_pvalues(values, np.array([0, 0, 1, 1]), 2, pairs, prob, 3, np.random.default_rng(1))
    assert found.shape == (0, 2, 2)


def test_pathway_sums_count_pairs_up_to_the_cut():
    table = frame(*({"ligand_genes": f"G{i}", "receptor_genes": "R", "pathway": "ab"[i // 2]} for i in range(4)))
    pairs = communication.read_pairs(table, [*(f"G{i}" for i in range(4)), "R"])
    prob = np.array([0.1, 0.2, 0.4, 0.8]).reshape(4, 1, 1)
    pval = np.array([0.05, 0.051, 0.0, 0.02]).reshape(4, 1, 1)
    names, sums = communication.pathway_sums(prob, pval, pairs)
    assert names == ["a", "b"] and sums.ravel() == pytest.approx([0.1, 1.2])


def test_scale_is_the_maximum_over_all_cells_and_genes():
    assert communication.scale(sparse.csr_matrix([[0, 2.0], [8.0, 0]])).toarray().tolist() == [[0, 0.25], [1, 0]]
    for bad in (-1.0, np.nan, np.inf):
        for call in (communication.scale, communication.rank):
            with pytest.raises(ValueError, match="finite and not negative"):
                call(sparse.csr_matrix([[bad, 1.0]]))
    with pytest.raises(ValueError, match="3 codes for 2 cells"):
        communication.trimean_by_group(sparse.csr_matrix((2, 1)), np.zeros(3), 1)


# --- tables of pairs


def test_read_pairs():
    table = frame(
        {"ligand_genes": "B", "receptor_genes": "C, A", "agonist": "X,D,D"},
        {"ligand_genes": "A", "receptor_genes": "MISSING", "co_i": "E"},
        {"ligand_genes": "A", "receptor_genes": "B"},
    )
    pairs = communication.read_pairs(table, ["E", "D", "C", "B", "A", "UNUSED"])
    assert pairs.genes == ("A", "B", "C", "D", "E")  # E is a cofactor of a dropped pair: it counts for the maximum
    assert pairs.table["ligand"].tolist() == ["A", "B"] and pairs.dropped == 1
    assert pairs.receptor.tolist() == [[1, -1], [2, 0]] and pairs.agonist.tolist() == [[-1], [3]]
    assert communication.any_gene(pairs, np.array([False, False, True, False, False])).tolist() == [False, True]


def test_a_table_with_errors_names_all_of_them():
    with pytest.raises(InputError, match=r"(?s)no column `pair`.*no column `receptor_genes`"):
        communication.read_pairs(pd.DataFrame({"pathway": ["x"], "ligand": ["x"], "receptor": ["x"], "ligand_genes": ["x"]}), [])
    table = frame({"ligand_genes": "A", "receptor_genes": "B"}, {"ligand_genes": "A", "receptor_genes": "B"})
    table.loc[1, ["pathway", "receptor_genes"]] = [None, " "]
    with pytest.raises(InputError) as error:
        communication.check_table(table, "mine.tsv")
    for part in ("mine.tsv", "row 3: `pathway` is empty", "row 3: `receptor_genes` is empty", "pair A:B occurs more than once"):
        assert part in str(error.value)
    with pytest.raises(InputError, match="holds no pair"):
        communication.check_table(table.iloc[:0])


# --- LIANA


def test_liana_with_nothing_to_rank_is_empty():
    genes, types = ["TGFB1", "TGFBR1", "TGFBR2", "X"], np.repeat(["a", "b"], 10)
    resource = pd.DataFrame({"ligand": ["TGFB1"], "receptor": ["TGFBR1_TGFBR2"]})
    x = np.zeros((20, 4), dtype=np.float32)
    x[:10, 0], x[10:, 1], x[:, 3] = 1, 1, 1  # the second subunit is silent
    for values, min_cells, table in ((x, 5, resource), (x + 1, 11, resource), (x + 1, 5, resource.replace("TGFB1", "UNKNOWN"))):
        found = communication.liana_consensus(sparse.csr_matrix(values), genes, types, min_cells, 0.1, 2, 1, table)
        assert len(found) == 0 and list(found)[:4] == ["source", "target", "ligand", "receptor"]


@pytest.mark.real
def test_liana_ranks_equal_the_published_ones(shared_data):
    """scanpy's pbmc68k_reduced, bulk_labels, raw: LIANA's own example, 1,288 pairs."""
    import scanpy as sc

    given = sc.datasets.pbmc68k_reduced()
    x, genes, types = given.raw.X, list(given.raw.var_names), given.obs["bulk_labels"].to_numpy(dtype=str)
    found = communication.liana_consensus(sparse.csr_matrix(x), genes, types, 5, 0.1, 5, 1)
    gold = pd.read_csv(shared_data / "liana_gold" / "aggregate_rank_rest.csv", index_col=0)
    gold = gold.rename(columns={"ligand_complex": "ligand", "receptor_complex": "receptor"})
    key = ["source", "target", "ligand", "receptor"]
    both = gold.merge(found, on=key, suffixes=("_gold", ""), validate="one_to_one")
    assert len(gold) == len(found) == len(both) == 1288
    for name in ("lr_means", "expr_prod", "scaled_weight", "lrscore", "magnitude_rank"):
        assert both[name].to_numpy() == pytest.approx(both[f"{name}_gold"].to_numpy(), abs=1e-6), name
    assert found["magnitude_rank"].is_monotonic_increasing


@pytest.mark.real
def test_single_subunits_equal_liana_cellchat(shared_data):
    """kang_ifnb, control cells: P of pairs without complexes and cofactors, on the same matrix and groups."""
    import warnings

    import liana

    given = anndata.read_h5ad(shared_data / "kang_ifnb" / "harmony_pbmc_stim_2000x9015.h5ad")
    given = given[given.obs["condition"].astype(str).isin(["ctrl", "control"])].copy()
    assert given.n_obs > 500
    x = normalise.log1p_cp10k(sparse.csr_matrix(given.X))
    resource = pair_tables.liana_resource()
    table = frame(*(
        {"ligand_genes": row.ligand.replace("_", ","), "receptor_genes": row.receptor.replace("_", ",")}
        for row in resource.itertuples()
    ))  # fmt: skip
    pairs = communication.read_pairs(table, list(given.var_names))
    x = x[:, given.var_names.get_indexer(list(pairs.genes))]
    types = given.obs["cell_type"].astype(str).to_numpy()
    names, codes, sizes = np.unique(types, return_inverse=True, return_counts=True)
    names, codes = names[sizes > 5], np.where(sizes[codes] > 5, codes, -1)
    codes = np.unique(codes, return_inverse=True)[1] - int((codes < 0).any())
    averages = communication.trimean_by_group(communication.scale(x), codes, len(names))
    prob = communication.probabilities(averages, pairs)
    holder = anndata.AnnData(x, obs=pd.DataFrame({"t": pd.Categorical(types)}, index=[str(i) for i in range(len(types))]))
    holder.var_names = list(pairs.genes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock = liana.mt.cellchat(
            holder, groupby="t", resource=resource, expr_prop=0.0, min_cells=6, use_raw=False, n_perms=None, n_jobs=1,
            verbose=False, inplace=False,
        )  # fmt: skip
    single = stock[~(stock["ligand_complex"] + stock["receptor_complex"]).str.contains("_")]
    row = pairs.table.reset_index().set_index("pair")["index"]
    ours = prob[
        row.loc[single["ligand_complex"] + ":" + single["receptor_complex"]].to_numpy(),
        np.searchsorted(names, single["source"].astype(str)),
        np.searchsorted(names, single["target"].astype(str)),
    ]
    assert len(single) > 3000 and (ours > 0).sum() > 100
    assert ours == pytest.approx(single["lr_probs"].to_numpy(dtype=float), abs=1e-6)
