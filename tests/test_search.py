"""The best atom: brute force and tree against the plain definition, whatever the atoms."""

from collections.abc import Callable

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.matching import brute
from mrf.matching.brute import best_atoms, best_atoms_reference
from mrf.matching.nearest import best_atoms as nearest
from mrf.matching.tree import Tree

from .conftest import noisy, turning_bssfp

Search = Callable[[Array, Array], Array]


def by_tree(signals: Array, atoms: Array) -> Array:
    return Tree.of(atoms).best_atoms(signals, atoms)[0]


SEARCHES = pytest.mark.parametrize("search", [best_atoms, by_tree])


def random_atoms(rng: np.random.Generator, n: int, rank: int, kind: str) -> Array:
    atoms = rng.standard_normal((n, rank)) + (1j * rng.standard_normal((n, rank)) if kind == "complex" else 0)
    atoms = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    return np.asarray(atoms * (np.exp(0.7j) if kind == "one phase" else 1), np.complex64)


@pytest.fixture(scope="module")
def fisp() -> mrf.Dictionary:
    sequence = mrf.preset("jiang2015_fisp", n_frames=300)
    return mrf.build(sequence, mrf.Grid(t1=mrf.log_axis(0.1, 4, 160), t2=mrf.log_axis(0.01, 2, 130)), rank=8)


@pytest.fixture(scope="module")
def fisp_b1() -> mrf.Dictionary:
    sequence = mrf.preset("jiang2015_fisp", n_frames=300)
    axes = {"t1": mrf.log_axis(0.2, 4, 40), "t2": mrf.log_axis(0.02, 2, 40)}
    return mrf.build(sequence, mrf.Grid(**axes, b1=np.linspace(0.7, 1.3, 9)), rank=10)


@pytest.fixture(scope="module")
def bssfp() -> mrf.Dictionary:
    """Complex: off-resonance turns the phase from frame to frame."""
    return mrf.build(*turning_bssfp(200, t1=(0.2, 3, 20), t2=(0.02, 0.3, 20), off_resonance=(-40, 40, 41)), rank=12)


@SEARCHES
@pytest.mark.parametrize("kind", ["complex", "one phase", "real"])
@pytest.mark.parametrize("rank", [1, 2, 10, 23])
def test_random_atoms(search: Search, kind: str, rank: int) -> None:
    rng = np.random.default_rng(rank)
    atoms = random_atoms(rng, 3000, rank, kind)
    atoms[11] = atoms[2900]  # a tie: the lower index wins
    signals = atoms[rng.integers(0, 3000, 700)] * 3e-5j
    noise = rng.standard_normal((700, rank)) + 1j * rng.standard_normal((700, rank))
    signals = signals + noise * np.geomspace(1e-9, 1e-4, 700)[:, None]
    signals[5] = atoms[2900] * 1e12
    index = search(signals, atoms)
    assert np.array_equal(index, best_atoms_reference(signals, atoms)[0])
    assert rank < 10 or index[5] == 11


@SEARCHES
@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 1025])
def test_any_number_of_atoms(search: Search, n: int) -> None:
    rng = np.random.default_rng(n)
    atoms = random_atoms(rng, n, 5, "complex")
    signals = (rng.standard_normal((50, 5)) + 1j * rng.standard_normal((50, 5))).astype(np.complex128)
    assert np.array_equal(search(signals, atoms), best_atoms_reference(signals, atoms)[0])


@SEARCHES
def test_all_atoms_alike(search: Search) -> None:
    atoms = np.repeat(random_atoms(np.random.default_rng(0), 1, 4, "complex"), 5000, axis=0)
    assert (search(np.ones((20, 4), np.complex128), atoms) == 0).all()


@SEARCHES
def test_signals_that_no_atom_has_anything_of(search: Search) -> None:
    atoms = np.zeros((100, 4), np.complex64)
    atoms[:50, 0], atoms[50:, 1] = 1, 1
    signals = np.zeros((3, 4), np.complex128)
    signals[:, 3] = 1
    assert (search(signals, atoms) == 0).all()


@SEARCHES
@pytest.mark.parametrize("scale", [1e-4, 1e-6])
def test_near_ties_are_decided_in_double_precision(search: Search, scale: float) -> None:
    rng = np.random.default_rng(0)
    centre = rng.standard_normal(8)
    atoms = centre + scale * rng.standard_normal((5000, 8))
    atoms = (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(np.complex64)
    signals = (centre + scale * rng.standard_normal((300, 8))).astype(np.complex128)
    assert np.array_equal(search(signals, atoms), best_atoms_reference(signals, atoms)[0])


@SEARCHES
@pytest.mark.parametrize("snr", [2, 20, 200, 1e9])
@pytest.mark.parametrize("name", ["fisp", "fisp_b1", "bssfp"])
def test_dictionaries(search: Search, name: str, snr: float, request: pytest.FixtureRequest) -> None:
    d: mrf.Dictionary = request.getfixturevalue(name)
    signals, _ = noisy(d, 1024, snr)
    assert np.array_equal(search(signals, d.coefficients), best_atoms_reference(signals, d.coefficients)[0])


@SEARCHES
def test_voxels_far_from_every_atom(search: Search, fisp: mrf.Dictionary) -> None:
    rng = np.random.default_rng(0)
    signals = rng.standard_normal((500, 8)) + 1j * rng.standard_normal((500, 8))
    assert np.array_equal(search(signals, fisp.coefficients), best_atoms_reference(signals, fisp.coefficients)[0])


def test_the_tree_looks_at_few_atoms(fisp: mrf.Dictionary) -> None:
    """And finds real atoms: a complex tree of the same atoms would not have a phase."""
    tree = Tree.of(fisp.coefficients)
    assert tree.phase is not None
    signals, _ = noisy(fisp, 1000, 20)
    looked = tree.best_atoms(signals, fisp.coefficients)[1]
    assert looked[1] * 32 / 1000 < 0.02 * len(fisp)


def test_bounds_are_bounds(fisp_b1: mrf.Dictionary, bssfp: mrf.Dictionary) -> None:
    """Every atom is on its child's side of the cones, within its box and as close to its span as the node says."""
    for d in (fisp_b1, bssfp):
        tree = Tree.of(d.coefficients, unknowns=3)
        width, few = tree.leaves.shape[1], tree.directions
        leaves = tree.nodes[: tree.starts[1]] if len(tree.starts) > 1 else tree.nodes
        rows = leaves.transpose(0, 2, 1).reshape(-1, leaves.shape[1])[: len(tree.leaves)].astype(np.float64)
        spans = rows[:, : few * width].reshape(-1, few, width)
        middle, half = rows[:, few * width : few * (width + 2)].reshape(-1, few, 2).transpose(2, 0, 1)
        away = rows[:, -1]
        atoms = tree.leaves.transpose(0, 2, 1).astype(np.float64)
        if tree.phase is None:
            spans = spans[..., : width // 2] + 1j * spans[..., width // 2 :]
            atoms = atoms[..., : width // 2] + 1j * atoms[..., width // 2 :]
        inside = np.einsum("gnr,gmr->gnm", atoms, spans.conj())
        turn = np.einsum("gnm,gm->gn", inside, middle)
        far = np.linalg.norm(atoms - np.einsum("gnm,gmr->gnr", inside, spans), axis=2)
        assert (far <= away[:, None] + 1e-6).all()
        cosine = np.abs(turn) / np.linalg.norm(middle, axis=1)[:, None] / np.linalg.norm(atoms, axis=2)
        assert (cosine >= rows[:, few * (width + 2) + 1][:, None] - 1e-6).all()
        first = inside[..., :1] / np.abs(inside[..., :1])
        boxed = np.abs(np.abs(inside * first.conj()) - middle[:, None]) if tree.phase else np.zeros(1)
        assert (boxed <= half[:, None] + 1e-6).all()


@SEARCHES
def test_threads_change_nothing(search: Search, fisp: mrf.Dictionary) -> None:
    signals, _ = noisy(fisp, 3000, 20)
    tree = Tree.of(fisp.coefficients)
    for threads in (1, 3):
        found = tree.best_atoms(signals, fisp.coefficients, threads)[0]
        assert np.array_equal(found, best_atoms(signals, fisp.coefficients, threads=threads))


def test_stretches_of_atoms(fisp: mrf.Dictionary, monkeypatch: pytest.MonkeyPatch) -> None:
    signals, _ = noisy(fisp, 500, 20)
    whole = best_atoms(signals, fisp.coefficients)
    monkeypatch.setattr(brute, "STRETCH", 1000)
    assert np.array_equal(best_atoms(signals, fisp.coefficients), whole)


@pytest.mark.parametrize("voxels", [700, 6000])
def test_known_parameters_choose_among_their_atoms(fisp_b1: mrf.Dictionary, voxels: int) -> None:
    d = fisp_b1
    signals, pick = noisy(d, voxels, 20)
    known = {"b1": d.parameters["b1"][pick] + np.random.default_rng(1).uniform(-0.03, 0.03, voxels)}
    index = nearest(signals, d, known, 10**9)
    assert np.array_equal(d.parameters["b1"][index], d.parameters["b1"][pick])
    for v in range(0, voxels, voxels // 40):
        allowed = np.flatnonzero(d.parameters["b1"] == d.parameters["b1"][pick[v]])
        expected = allowed[best_atoms_reference(signals[v : v + 1], d.coefficients[allowed])[0][0]]
        assert index[v] == expected


def test_without_room_for_a_tree_every_atom_is_scored(fisp: mrf.Dictionary, monkeypatch: pytest.MonkeyPatch) -> None:
    signals, _ = noisy(fisp, 5000, 20)
    by = nearest(signals, fisp, {}, 10**9)
    monkeypatch.setattr("mrf.matching.nearest._kept", {})
    monkeypatch.setattr(Tree, "of", None)
    assert np.array_equal(nearest(signals, fisp, {}, 1000), by)
