"""Spaces in which cells group by type and not by batch: principal components, scVI, harmony, bbknn.

Used for clusters, labels and pictures only; never for differential expression, copy number or communication.
"""

from __future__ import annotations

import logging
import os
import sys
import types
import warnings
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import sparse

# Minibatches of a few hundred cells are too small to share: 2.3 s an epoch of 5,358 cells with one thread, 5 s with two on a
# machine of two cores, 29 s where other tasks run beside. One thread also makes the result independent of their number.
SCVI_THREADS = 1
MIN_CELLS_BATCH = 10  # smaller batches are left out of the model and projected afterwards (methods.md, INTEGRATE_COHORT)
LARGE_COHORT = 20_000  # from here on scVI takes larger minibatches and fewer epochs
BBKNN_NEIGHBORS = 3  # per batch, the authors' default (Polanski 2020)
POOLED = "pooled batches"  # the batch that small ones make together; no id holds a blank
TRAINING = ("epoch", "loss", "elbo")


class NanLossError(Exception):
    """The model's loss became undefined."""


class NoDeviceError(Exception):
    """A GPU was asked for and there is none."""


@dataclass
class Embedding:
    """A space over cells and how it came about.

    `values` cells x dimensions, float32; `graph` connectivities (bbknn) or None; `training` epoch, loss, elbo (nats per
    cell); `small` batches below 10 cells, which had no batch effect of their own; `device` what was really used.
    """

    values: np.ndarray
    graph: sparse.csr_matrix | None = None
    training: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({name: [] for name in TRAINING}))
    small: list[str] = field(default_factory=list)
    device: str = "cpu"


def pca(x: sparse.csr_matrix, n_pcs: int, seed: int) -> np.ndarray:
    """Principal components of log values, centred and unscaled.

    Returns cells x min(n_pcs, cells - 1, genes - 1), float32; the sign of a component is such that its largest loading is
    positive, because the solver leaves it open. One cell or one gene has no component: a column of zeros.
    """
    from sklearn.decomposition import PCA

    n = min(n_pcs, min(x.shape) - 1)
    if n < 1:
        return np.zeros((x.shape[0], 1), dtype=np.float32)
    model = PCA(n_components=n, svd_solver="arpack", random_state=seed)
    values = model.fit_transform(sparse.csr_matrix(x, dtype=np.float64))  # centred implicitly, never made dense
    largest = np.abs(model.components_).argmax(axis=1)
    signs = np.sign(model.components_[np.arange(n), largest])
    return (values * signs).astype(np.float32)


def small_batches(batch: np.ndarray, minimum: int = MIN_CELLS_BATCH) -> list[str]:
    """Batches of fewer than `minimum` cells, sorted; none when every batch is that small."""
    sizes = pd.Series(batch.astype(str)).value_counts()
    small = sorted(sizes.index[sizes < minimum])
    return small if len(small) < len(sizes) else []


def pool_small(batch: np.ndarray, small: list[str]) -> np.ndarray:
    """Batches with the small ones made one; where that is still small, it joins the largest batch (ties by name).

    For methods that cannot project: a batch of a few cells would be moved onto the others whatever its cells are.
    """
    batch = batch.astype(str).astype(object)
    at = np.isin(batch, small)
    if not at.any():
        return batch.astype(str)
    sizes = pd.Series(batch[~at]).value_counts()
    batch[at] = POOLED if at.sum() >= MIN_CELLS_BATCH else sorted(sizes.index[sizes == sizes.max()])[0]
    return batch.astype(str)


def minibatch_size(n_cells: int, asked: int = 0) -> int:
    """Cells per minibatch: `asked`, or 128 (512 above 20,000 cells); never such that one cell is left over.

    A last minibatch of one cell breaks batch normalisation (scvi-tools issues 221, 426, 2214). The next smaller size that
    leaves none is taken, or the next larger one.

    Raises
    ------
    ValueError
        for fewer than two cells, which make no minibatch.
    """
    if n_cells < 2:
        raise ValueError(f"{n_cells} cells make no minibatch")
    size = min(asked or (512 if n_cells > LARGE_COHORT else 128), n_cells)
    candidates = [*range(size, 1, -1), *range(size + 1, n_cells + 1)]
    return next(k for k in candidates if k > 1 and n_cells % k != 1)


def epochs(n_cells: int, asked: int = 0) -> int:
    """Training epochs: `asked`, or scvi-tools' own heuristic min(400, round(400 x 20,000 / cells))."""
    return asked or max(1, min(400, round(400 * LARGE_COHORT / n_cells)))


def accelerator(device: str) -> str:
    """`cpu`, or the name of the GPU.

    Raises
    ------
    NoDeviceError
        when `device` is gpu and torch finds none, with what torch says.
    """
    if device == "cpu":
        return "cpu"
    import torch

    with warnings.catch_warnings(record=True) as notices:  # an unfit driver is told as a warning
        warnings.simplefilter("always")
        found = torch.cuda.is_available()
    if not found:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU only"
        said = "".join(f"; {str(notice.message).split('(Triggered')[0].strip()}" for notice in notices)
        raise NoDeviceError(f"torch {torch.__version__} ({built}) finds no CUDA device{said}")
    return torch.cuda.get_device_name(0)


def check_loss(loss: np.ndarray) -> np.ndarray:
    """The loss per epoch, when all of it is finite.

    Raises
    ------
    NanLossError
        naming the first epoch (from 1) at which it is not.
    """
    bad = np.flatnonzero(~np.isfinite(loss))
    if len(bad):
        raise NanLossError(f"the loss is {loss[bad[0]]} from epoch {bad[0] + 1} of {len(loss)} on")
    return loss


def scvi(
    counts: sparse.csr_matrix,
    batch: np.ndarray,
    *,
    n_latent: int,
    n_layers: int,
    n_hidden: int,
    max_epochs: int,
    batch_size: int,
    seed: int,
    threads: int,
    device: str = "cpu",
) -> Embedding:
    """Latent means of SCVI (Lopez 2018) with a negative binomial likelihood on raw counts.

    Batches of fewer than 10 cells do not train the model; their cells are projected with it, which needs no batch
    because the encoder does not see it. Writes no file: no checkpoint, no log.

    Parameters
    ----------
    counts
        cells x highly variable genes, non-negative integers.
    batch
        batch of each cell.
    max_epochs, batch_size
        0: chosen from the number of cells (`epochs`, `minibatch_size`).
    threads
        of torch; the result depends on it in its last digits.

    Raises
    ------
    NanLossError
        when the loss becomes undefined.
    NoDeviceError
        when a GPU is asked for and there is none.
    """
    name = accelerator(device)
    # cuBLAS adds up in a fixed order only with this, and reads it once (CUDA documentation, "Results reproducibility")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import anndata
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # import-time notices of optional packages
        import scvi as scvi_tools
    for logger in ("scvi", "lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    scvi_tools.settings.dl_num_workers = 0
    scvi_tools.settings.seed = seed

    batch = batch.astype(str)
    small = small_batches(batch)
    trains = ~np.isin(batch, small)
    rows, rest = np.flatnonzero(trains), np.flatnonzero(~trains)

    def data(at: np.ndarray, names: np.ndarray) -> anndata.AnnData:
        return anndata.AnnData(
            sparse.csr_matrix(counts[at], dtype=np.float32),
            obs=pd.DataFrame({"batch": pd.Categorical(names)}, index=[str(i) for i in at]),
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lightning's advice on workers and logging; an undefined loss is caught below
        fit = data(rows, batch[rows])
        scvi_tools.model.SCVI.setup_anndata(fit, batch_key="batch")
        model = scvi_tools.model.SCVI(fit, n_latent=n_latent, n_layers=n_layers, n_hidden=n_hidden, gene_likelihood="nb")
        try:
            model.train(
                max_epochs=epochs(len(rows), max_epochs),
                accelerator="cpu" if device == "cpu" else "gpu",
                devices=1,
                batch_size=minibatch_size(len(rows), batch_size),
                train_size=1.0,
                early_stopping=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
        except ValueError as error:
            # torch.distributions refuses NaN parameters before the loss itself is NaN
            if "nan" not in str(error).lower():
                raise
            raise NanLossError(str(error).splitlines()[0]) from error
        used = "cpu" if model.device.type == "cpu" else name
        history = {key: model.history[key].iloc[:, 0].to_numpy(dtype=np.float64) for key in ("train_loss", "elbo_train")}
        loss = check_loss(history["train_loss"])
        values = np.empty((len(batch), n_latent), dtype=np.float32)
        values[rows] = model.get_latent_representation(batch_size=4096)
        if len(rest):
            known = batch[rows[:1]]  # any batch that the model knows: the encoder does not see it
            values[rest] = model.get_latent_representation(data(rest, np.repeat(known, len(rest))), batch_size=4096)
    if not np.isfinite(values).all():
        raise NanLossError("the loss is defined but the latent space is not")
    training = pd.DataFrame({"epoch": np.arange(1, len(loss) + 1), "loss": loss, "elbo": history["elbo_train"]})
    return Embedding(values, training=training, small=small, device=used)


def harmony(components: np.ndarray, batch: np.ndarray, seed: int, threads: int = 1) -> Embedding:
    """Principal components corrected by harmony (Korsunsky 2019); batches below 10 cells are pooled.

    harmonypy is called directly: the wrapper of scanpy 1.11 transposes the result of harmonypy >= 2.

    Raises
    ------
    ValueError
        when the result has not the shape of the input, cells x components.
    """
    import harmonypy

    small = small_batches(batch)
    frame = pd.DataFrame({"batch": pool_small(batch, small)})
    if frame["batch"].nunique() < 2:
        return Embedding(components, small=small)
    found = harmonypy.run_harmony(
        np.ascontiguousarray(components.T, dtype=np.float64),
        frame,
        ["batch"],
        nclust=max(2, int(min(round(len(frame) / 30), 100))),  # harmony's own rule gives none below 15 cells
        random_state=seed,
        ncores=threads,
        verbose=False,
    )
    values = np.asarray(found.Z_corr)
    if values.shape != components.shape:
        raise ValueError(
            f"harmonypy returned {values.shape}, expected cells x components {components.shape}; it needs harmonypy 2"
        )
    return Embedding(values.astype(np.float32), small=small)


def bbknn(components: np.ndarray, batch: np.ndarray, threads: int = 1) -> Embedding:
    """Batch-balanced nearest neighbours (Polanski 2020): a graph; the space stays that of the principal components.

    Batches below 10 cells are pooled: as many neighbours from them as from a large batch would tie every cell to them.
    """
    # bbknn imports annoy at its top although another search is used here; annoy exists as source only and needs a
    # compiler, so it is not installed (containers/all/overrides.txt).
    if "annoy" not in sys.modules:
        placeholder = types.ModuleType("annoy")
        placeholder.AnnoyIndex = None
        sys.modules["annoy"] = placeholder
    import bbknn.matrix
    from scipy.spatial import cKDTree

    class BoundedTree(cKDTree):
        """bbknn asks for all processors of the machine; the task may use `threads`."""

        def query(self, x: np.ndarray, k: int, workers: int) -> tuple[np.ndarray, np.ndarray]:
            return super().query(x, k=k, workers=min(threads, workers) if workers > 0 else threads)

    bbknn.matrix.cKDTree = BoundedTree
    small = small_batches(batch)
    pooled = pool_small(batch, small)
    smallest = int(np.unique(pooled, return_counts=True)[1].min())
    _, connectivities, _ = bbknn.matrix.bbknn(
        components,
        pooled,
        neighbors_within_batch=min(BBKNN_NEIGHBORS, smallest),
        n_pcs=components.shape[1],
        computation="cKDTree",
        metric="euclidean",
    )
    graph = sparse.csr_matrix(connectivities, dtype=np.float32)
    graph.sort_indices()
    return Embedding(components, graph=graph, small=small)
