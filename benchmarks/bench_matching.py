"""Matching: the tree, brute force and refinement, against products in blocks and against other packages."""

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import scipy.interpolate
import scipy.optimize
from threadpoolctl import threadpool_limits

import mrf
from benchmarks.ceilings import Counted
from benchmarks.runner import Case
from mrf.core.arrays import Array, usable_cores
from mrf.matching.brute import best_atoms, best_atoms_reference
from mrf.matching.interpolant import Interpolant
from mrf.matching.refine import Refined, refine
from mrf.matching.tree import Tree

RANK, SNR = 10, 20
GRIDS = {"10k": (140, 84), "100k": (420, 260), "1M": (1330, 830), "1.2k": (35, 46)}  # values of T1 and T2
_EVALUATIONS, _POINTS, _DOTS = 3, 44, 12  # of a refinement; multiply-adds an interpolated number; dot products
_BLOCKS = (16, 64, 256, 512, 2048)  # voxels of a product
PLAIN = "NumPy, best blocks"
_LARGEST = 8e9  # bytes of one
_PLAIN = {"1.2k": 65536, "10k": 16384, "100k": 4096, "1M": 256}  # voxels that the baseline does
_CHECKED = {"1.2k": 4096, "10k": 4096, "100k": 1024, "1M": 128}  # voxels compared with double precision


class Voxels:
    """A dictionary of Jiang's train, and noisy signals of its atoms in any phase."""

    def __init__(self, size: str, voxels: int, snr: float = SNR) -> None:
        n1, n2 = GRIDS[size]
        self.size, self.snr = size, snr
        sequence = mrf.preset("jiang2015_fisp", n_frames=1000)
        grid = mrf.Grid(t1=mrf.log_axis(0.1, 4.0, n1), t2=mrf.log_axis(0.01, 0.5, n2))
        self.dictionary = mrf.build(sequence, grid, rank=RANK)
        self.atoms = self.dictionary.coefficients
        rng = np.random.default_rng(0)
        self.pick = rng.integers(0, len(self.atoms), voxels)
        noise = rng.standard_normal((voxels, RANK)) + 1j * rng.standard_normal((voxels, RANK))
        signals = self.atoms[self.pick] + noise / (snr * np.sqrt(2 * RANK))
        self.signals = (signals * np.exp(2j * np.pi * rng.random(voxels))[:, None]).astype(np.complex128)
        self.few = self.signals[: _PLAIN[size]].astype(np.complex64)
        self.share = len(self.few) / voxels
        self.checked = np.unique(np.linspace(0, voxels - 1, _CHECKED[size]).astype(int))
        parts = np.array_split(self.signals[self.checked], max(1, len(self.checked) // 32))
        self.exact = np.concatenate([best_atoms_reference(part, self.atoms)[0] for part in parts])

    def wrong(self, index: Array, _: Any = None) -> float:
        """Of the voxels that are checked, those for which double precision finds another atom."""
        return float(np.count_nonzero(index[self.checked] != self.exact))

    def counted(self, share: float = 1.0, nodes: float = 0.0) -> Counted:
        """Products of real atoms and complex signals, and the magnitude; of children of nodes in three directions."""
        scores = share * len(self.atoms) * len(self.signals) + 3 * 32 * nodes
        return Counted(flops=scores * (4 * RANK + 3), bytes=float(self.signals.nbytes))

    def blocks(self) -> tuple[str, Callable[[], Array]]:
        """The fastest plain products, and the blocks that make them so: the atoms are real but for one phase, so real
        and imaginary parts of the signals go through one real product, whose squares are added; argmax."""
        turned = np.ascontiguousarray(real_atoms(self).T, np.float32)

        def best_of(x: Array) -> Array:
            products = np.concatenate([x.real, x.imag]) @ turned
            np.square(products, out=products)
            scores: Array = products[: len(x)]
            scores += products[len(x) :]
            index: Array = scores.argmax(axis=1)
            return index

        def match(block: int, x: Array) -> Array:
            with threadpool_limits(usable_cores()):
                return np.concatenate([best_of(x[i : i + block]) for i in range(0, len(x), block)])

        def seconds(block: int) -> float:
            taken = []
            for _ in range(3):
                start = time.perf_counter()
                match(block, self.few[:block])
                taken.append((time.perf_counter() - start) / len(self.few[:block]))
            return statistics.median(taken)

        possible = [block for block in _BLOCKS if 8 * block * len(self.atoms) <= _LARGEST and block <= len(self.few)]
        best = min(possible, key=seconds)
        return f"baseline: blocks of {best} voxels", lambda: match(best, self.few)


@cache
def _voxels(size: str, voxels: int) -> Voxels:
    return Voxels(size, voxels)


def _by_tree(size: str, voxels: int) -> Case:
    v = _voxels(size, voxels)
    tree = Tree.of(v.atoms)
    looked = tree.best_atoms(v.signals, v.atoms)[1]
    scored = 100 * looked[1] * 32 / len(v.signals) / len(v.atoms)
    best, plain = v.blocks()
    return Case(
        f"match, {size} atoms", PLAIN, lambda: tree.best_atoms(v.signals, v.atoms)[0], plain, v.wrong, 0, voxels,
        v.share, counted=v.counted(scored / 100, looked[0]),
        detail=f"{scored:.3f} % of atoms scored, tree {(tree.leaves.nbytes + tree.nodes.nbytes) / 1e6:.1f} MB; "
        f"{len(v.checked)} voxels checked; {best}",
    )  # fmt: skip


def match(small: bool) -> Case:
    """100 000 atoms by the tree."""
    return _by_tree("10k", 4096) if small else _by_tree("100k", 65536)


def million(small: bool) -> Case:
    """A million atoms by the tree."""
    return _by_tree("10k", 4096) if small else _by_tree("1M", 65536)


def brute(small: bool) -> Case:
    """Every atom scored, in registers."""
    size, voxels = ("10k", 4096) if small else ("100k", 8192)
    v = Voxels(size, voxels)
    best, plain = v.blocks()
    return Case(
        f"brute force, {size}",
        PLAIN,
        lambda: best_atoms(v.signals, v.atoms),
        plain,
        v.wrong,
        0,
        voxels,
        v.share,
        f"{len(v.checked)} voxels checked; {best}",
        counted=v.counted(),
    )


def growth(small: bool) -> Case:
    """How much longer a hundred times as many atoms take (small: ten times): the ratio."""
    few, many = (_voxels(size, 65536) for size in (("1.2k", "10k") if small else ("10k", "1M")))
    trees = [Tree.of(v.atoms) for v in (few, many)]

    def run(v: Voxels, tree: Tree) -> Callable[[], Array]:
        return lambda: tree.best_atoms(v.signals, v.atoms)[0]

    fast, slow = run(few, trees[0]), run(many, trees[1])
    return Case(
        f"{few.size} atoms", f"{many.size} atoms", fast, slow, lambda a, b: few.wrong(a) + many.wrong(b), 0,
        len(few.signals),
    )  # fmt: skip


def _spline(space: Interpolant) -> Callable[..., Array]:
    """Signals between the interpolant's nodes, and their derivatives `nu`, at (log T1, log T2): cubic splines."""
    nodes = [np.log(space.axes[name]) for name in ("t1", "t2")]
    t1, t2 = (np.exp(values).reshape(-1) for values in np.meshgrid(*nodes, indexing="ij"))
    values = space.signals({"t1": t1, "t2": t2}).reshape(*map(len, nodes), -1)
    made = scipy.interpolate.RegularGridInterpolator(nodes, values.view(np.float64), method="cubic")
    return lambda p, nu=(0, 0): made(p[None], nu=np.array(nu))[0].view(np.complex128)


def _parts(values: Array) -> Array:
    return np.concatenate([values.real, values.imag])


def refinement(small: bool) -> Case:
    """Gauss-Newton on 1 200 atoms, against SciPy's Levenberg-Marquardt with an analytic Jacobian, voxel by voxel.

    Error: how far the RMS of T1 and T2 over their error bars is from 1, whichever is farther.
    """
    v = Voxels("1.2k", 4096 if small else 65536)
    d, rng = v.dictionary, np.random.default_rng(1)
    t1, t2 = np.exp(rng.uniform(np.log(0.3), np.log(3), 4096)), np.exp(rng.uniform(np.log(0.03), np.log(0.25), 4096))
    signals = mrf.simulate(d.sequence, t1=t1, t2=t2, dtype="complex128") @ d.basis.conj().T
    std = np.linalg.norm(signals, axis=1) / SNR / np.sqrt(2 * RANK)
    noise = rng.standard_normal(signals.shape) + 1j * rng.standard_normal(signals.shape)
    signals = np.tile(signals + noise * std[:, None], (len(v.signals) // 4096, 1))
    space, index = Interpolant.of(d), best_atoms(signals[:4096], d.coefficients)
    start = {name: np.tile(values[index], len(signals) // 4096) for name, values in d.parameters.items()}
    few, spline = 64, _spline(space)

    def one(k: int) -> Array:
        x = signals[k]

        def left(p: Array) -> Array:
            s = spline(p)
            return _parts(x - s * (np.vdot(s, x) / np.vdot(s, s)))

        def slopes(p: Array) -> Array:
            s = spline(p)
            power, columns = np.vdot(s, s).real, []
            scale = np.vdot(s, x) / power
            for nu in ((1, 0), (0, 1)):
                d = spline(p, nu=nu)
                changed = (np.vdot(d, x) - 2 * scale * np.vdot(d, s).real) / power
                columns.append(_parts(-(d * scale + s * changed)))
            return np.stack(columns, axis=1)

        begin = np.log([start["t1"][k], start["t2"][k]])
        return np.asarray(scipy.optimize.least_squares(left, begin, slopes, method="lm").x)

    def above(fast: Refined, _: Any) -> float:
        inside = ~fast.at_end[:4096]
        apart = []
        for name, truth in (("t1", t1), ("t2", t2)):
            off = (fast.values[name][:4096] - truth) / (fast.deviations[name][:4096] * std)
            apart.append(abs(float(np.sqrt(np.mean(off[inside] ** 2)) - 1)))
        return max(apart)

    return Case(
        "refinement", "scipy least_squares, analytic", lambda: refine(space, signals, start, frozenset()),
        lambda: np.stack([one(k) for k in range(few)]), above, 0.05, len(signals), few / len(signals),
        counted=Counted(flops=len(signals) * _EVALUATIONS * 4.0 * RANK * (_POINTS + _DOTS), bytes=2.0 * signals.nbytes),
    )  # fmt: skip


def _peer(name: str, make: Callable[[Voxels], Callable[[], Array]], size: str = "100k") -> Callable[[bool], Case]:
    """Another package's search on the voxels that the baseline does."""

    def case(small: bool) -> Case:
        v = Voxels("10k", 4096) if small else _voxels(size, 65536)
        run, tree = make(v), Tree.of(v.atoms)
        found = np.asarray(run())
        differ = np.mean(found != tree.best_atoms(v.signals[: len(found)], v.atoms)[0])
        return Case(
            f"match, {v.size} atoms", name, lambda: tree.best_atoms(v.signals, v.atoms)[0], run, v.wrong, 0,
            len(v.signals), len(found) / len(v.signals), f"{name}: {100 * differ:.2f} % other atoms",
        )  # fmt: skip

    return case


def _embedded(x: Array) -> Array:
    """Rank-one embedding: the inner product of two is |<a, b>|^2, for real atoms and any signals."""
    rows, columns = np.triu_indices(x.shape[1])
    outer = (x[:, rows] * x[:, columns].conj()).real * np.where(rows == columns, 1, np.sqrt(2))
    return np.ascontiguousarray(outer, np.float32)


def real_atoms(v: Voxels) -> Array:
    phase = v.atoms[0, 0] / abs(v.atoms[0, 0])
    return np.ascontiguousarray((v.atoms * np.conj(phase)).real)


def _faiss(v: Voxels) -> Callable[[], Array]:
    import faiss

    faiss.omp_set_num_threads(usable_cores())
    index = faiss.IndexFlatIP(RANK * (RANK + 1) // 2)
    index.add(_embedded(real_atoms(v)))
    x = v.few[:1024]
    return lambda: index.search(_embedded(x), 1)[1][:, 0]


def _ball_tree(v: Voxels) -> Callable[[], Array]:
    from sklearn.neighbors import BallTree

    tree = BallTree(_embedded(real_atoms(v)))
    x = v.few[:256]
    return lambda: tree.query(_embedded(x / np.linalg.norm(x, axis=1, keepdims=True)), 1)[1][:, 0]


def _torch(v: Voxels) -> Callable[[], Array]:
    import torch

    torch.set_num_threads(usable_cores())
    d, x = torch.from_numpy(np.array(v.atoms)), torch.from_numpy(v.few[:1024])
    return lambda: torch.cat([(part @ d.conj().T).abs().argmax(1) for part in x.split(256)]).numpy()


def _mrpro(v: Voxels) -> Callable[[], Array]:
    import torch
    from mrpro.operators import DictionaryMatchOp

    torch.set_num_threads(usable_cores())
    d = torch.from_numpy(np.array(v.atoms).T.copy())
    operator = DictionaryMatchOp(lambda n: (d[:, n.long()],), index_of_scaling_parameter=None)
    operator.append(torch.arange(len(v.atoms)))
    x = torch.from_numpy(v.few[:512].T.copy())
    return lambda: torch.cat([operator(part)[0] for part in x.split(64, dim=1)]).numpy().astype(np.int64)


def _torchsim(v: Voxels) -> Callable[[], Array]:
    import torch
    from torchsim.estimators import DictionaryMatcher

    torch.set_num_threads(usable_cores())
    matcher = DictionaryMatcher(dictionary=torch.from_numpy(np.array(v.atoms)))
    x = torch.from_numpy(v.few[:1024])
    return lambda: np.asarray(matcher.match(x).indices).reshape(-1)


CASES = {"match": match, "million": million, "brute": brute, "growth": growth, "refinement": refinement}
PEERS = {
    "faiss": _peer("faiss, exact", _faiss),
    "ball_tree": _peer("scikit-learn ball tree", _ball_tree),
    "torch": _peer("torch, complex64", _torch),
    "mrpro_match": _peer("MRpro", _mrpro),
    "torchsim_match": _peer("torchsim", _torchsim),
}
