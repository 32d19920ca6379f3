import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.optimize

import mrf
from mrf.core.arrays import Array
from mrf.tissue import joint, voxels
from mrf.tissue.fractions import Fractions, tissue_fractions
from mrf.tissue.nonnegative import fit

from .conftest import turning_bssfp

MYELIN_WATER, WHITE, GREY, FLUID = (0.15, 0.015), (0.9, 0.07), (1.4, 0.1), (4.0, 1.0)


@pytest.fixture(scope="module")
def brain() -> mrf.Dictionary:
    """Jiang's train, 2723 atoms, rank 8."""
    grid = mrf.Grid(t1=mrf.log_axis(0.1, 5, 60), t2=mrf.log_axis(0.01, 2.5, 60))
    return mrf.build(mrf.preset("jiang2015_fisp"), grid, rank=8)


@pytest.fixture(scope="module")
def turning() -> mrf.Dictionary:
    """Complex atoms: a balanced train off resonance."""
    sequence, grid = turning_bssfp(120, (0.2, 3.0, 12), (0.03, 0.5, 10), (-15, 15, 4))
    return mrf.build(sequence, grid, rank=6)


def nearest(d: mrf.Dictionary, tissues: Sequence[tuple[float, float]]) -> list[int]:
    t1, t2 = d.parameters["t1"], d.parameters["t2"]
    return [int(np.argmin(np.log(t1 / a) ** 2 + np.log(t2 / b) ** 2)) for a, b in tissues]


def signals_of(d: mrf.Dictionary, atoms: Sequence[int]) -> Array:
    """(rank, atoms) compressed signals, in double precision."""
    made: Array = (d.coefficients[list(atoms)].astype(np.complex128) * d.norms[list(atoms), None]).T
    return made


def mixed(d: mrf.Dictionary, atoms: Sequence[int], fractions: Array, seed: int = 0, noise: float = 0) -> Array:
    """(rank, *matrix) signals of amount 1 in random phases."""
    rng = np.random.default_rng(seed)
    x = np.tensordot(signals_of(d, atoms), fractions, 1) * np.exp(2j * np.pi * rng.random(fractions.shape[1:]))
    made: Array = x + noise * (rng.standard_normal(x.shape) + 1j * rng.standard_normal(x.shape))
    return made


def shares(matrix: tuple[int, ...], components: int, seed: int = 0) -> Array:
    """(components, *matrix) fractions, a few of them 0."""
    rng = np.random.default_rng(seed)
    f = np.moveaxis(rng.dirichlet(np.ones(components), matrix), -1, 0)
    f[0][rng.random(matrix) < 0.2] = 0
    made: Array = f / f.sum(axis=0)
    return made


def noise_of(x: Array, frames: int, snr: float) -> float:
    """SD of each part at which a frame's signal is `snr` times its noise."""
    return float(np.sqrt((np.abs(x) ** 2).sum(axis=0).mean() / frames)) / snr


def plain_fit(x: Array, atoms: Array, phase: float) -> float:
    """Residual by scipy at a given phase: the plain reference."""
    y = x * np.exp(-1j * phase)
    columns = np.concatenate([atoms.real.T, atoms.imag.T])
    return float(scipy.optimize.nnls(columns, np.concatenate([y.real, y.imag]))[1]) ** 2


def best_fit(x: Array, atoms: Array) -> float:
    """The same at the best of all phases."""
    phases = np.linspace(-np.pi, np.pi, 90, endpoint=False)
    values = [plain_fit(x, atoms, phase) for phase in phases]
    around = phases[int(np.argmin(values))]
    found = scipy.optimize.minimize_scalar(
        lambda phase: plain_fit(x, atoms, phase), bounds=(around - 0.07, around + 0.07), method="bounded"
    )
    return min(float(found.fun), *values)


@pytest.mark.parametrize("matrix", [(5, 40), (3, 4, 10)])
def test_known_components_are_exact(brain: mrf.Dictionary, matrix: tuple[int, ...]) -> None:
    tissues, truth = [FLUID, MYELIN_WATER, WHITE], shares(matrix, 3)
    amount = np.random.default_rng(1).uniform(0.1, 30, matrix)
    atoms = nearest(brain, tissues)
    x = mixed(brain, atoms, truth * amount)
    for components in (tissues, atoms):
        found = tissue_fractions(x, brain, components=components)
        assert found.index.tolist() == atoms  # in the order that was asked for
        assert found.fractions.shape == (3, *matrix)
        assert np.abs(found.fractions - truth).max() < 1e-12
        assert np.abs(found.fractions.sum(axis=0) - 1).max() < 1e-14
        assert np.allclose(found.amount, amount, rtol=1e-12)
        assert found.residual.max() < 1e-7
        for name, values in found.components.items():
            assert np.array_equal(values, brain.parameters[name][atoms])
    again = np.exp(1j * found.phase) * np.tensordot(signals_of(brain, atoms), found.fractions * found.amount, 1)
    assert np.abs(again - x).max() < 1e-12 * np.abs(x).max()
    assert np.asarray(found.provenance["components"]).tolist() == atoms


@pytest.mark.parametrize("tissues", [(MYELIN_WATER, WHITE, FLUID), (MYELIN_WATER, GREY, FLUID), (WHITE, GREY, FLUID)])
def test_joint_finds_three_components_and_no_more(brain: mrf.Dictionary, tissues: Any) -> None:
    truth, atoms = shares((25, 40), 3), nearest(brain, tissues)
    found = tissue_fractions(mixed(brain, atoms, truth), brain)
    assert found.index.tolist() == sorted(atoms)
    assert np.abs(found.fractions - truth).max() < 1e-9
    assert found.residual.max() < 1e-7
    assert found.provenance["method"] == "joint"


@pytest.mark.parametrize(("snr", "largest"), [(100, 0.0016), (50, 0.0032), (10, 0.016)])
@pytest.mark.parametrize("told", [True, False])
def test_joint_under_noise(brain: mrf.Dictionary, snr: float, largest: float, told: bool) -> None:
    """RMS errors of myelin water, white matter and fluid; measured: 0.0013, 0.0025 and 0.013 of the worst of them."""
    truth, atoms = shares((1000,), 3), nearest(brain, [MYELIN_WATER, WHITE, FLUID])
    noise = noise_of(mixed(brain, atoms, truth), 1000, snr)
    x = mixed(brain, atoms, truth, noise=noise)
    found = tissue_fractions(x, brain, noise_std=noise if told else None)
    assert found.index.tolist() == atoms
    error = np.sqrt(((found.fractions - truth) ** 2).mean(axis=1))
    assert (error < largest).all(), error
    assert error.max() > largest / 3  # the bound is one
    assert (found.std is None) == (not told)
    if found.std is not None:
        inside = (truth > 0.05).all(axis=0)  # where the bound at 0 plays no part
        pull = (found.fractions - truth)[:, inside] / found.std[:, inside]
        assert inside.sum() > 300
        assert np.abs(pull.std(axis=1) - 1).max() < 0.1
        assert np.abs(pull.mean(axis=1)).max() < 0.2


def white_matter_with_its_water(voxels: int) -> Array:
    """(4, voxels) myelin water of at most a fifth of white matter, grey matter, and fluid in a third of the voxels."""
    rng = np.random.default_rng(3)
    white, water = rng.random(voxels), rng.uniform(0, 0.2, voxels)
    fluid = rng.random(voxels) * (rng.random(voxels) < 0.3)
    rest = 1 - fluid
    return np.stack([water * white * rest, (1 - water) * white * rest, (1 - white) * rest, fluid])


@pytest.mark.parametrize(("snr", "largest"), [(100, 0.008), (50, 0.016)])
def test_joint_finds_a_fourth_component(brain: mrf.Dictionary, snr: float, largest: float) -> None:
    truth, atoms = white_matter_with_its_water(1000), nearest(brain, [MYELIN_WATER, WHITE, GREY, FLUID])
    noise = noise_of(mixed(brain, atoms, truth), 1000, snr)
    found = tissue_fractions(mixed(brain, atoms, truth, noise=noise), brain)
    assert found.index.tolist() == atoms
    error = np.sqrt(((found.fractions - truth) ** 2).mean(axis=1)).max()
    assert largest / 3 < error < largest


def test_two_tissues_that_hold_each_other_in_place_move_together(brain: mrf.Dictionary) -> None:
    """White matter one atom off: exchanged one at a time, myelin water follows it instead of letting it go."""
    atoms = nearest(brain, [MYELIN_WATER, WHITE, GREY, FLUID])
    all_voxels = voxels.Voxels.of(mixed(brain, atoms, white_matter_with_its_water(500)), brain, None, None)
    start = [atoms[0], *nearest(brain, [(0.953, 0.0714)]), *atoms[2:]]
    assert start[1] != atoms[1]
    choice = joint._choice(all_voxels, np.array(start), 0.01, None)
    alone = list(start)
    joint._exchanged(all_voxels.atoms[None], choice.scatter, alone)
    assert sorted(alone) != atoms
    assert joint._paired(all_voxels, choice, 0.01, None).atoms.tolist() == atoms


def test_more_regularization_leaves_fewer_components(brain: mrf.Dictionary) -> None:
    x = mixed(brain, nearest(brain, [MYELIN_WATER, WHITE, GREY, FLUID]), shares((400,), 4))
    counts = [len(tissue_fractions(x, brain, regularization=value).index) for value in (0.01, 0.1, 0.5)]
    assert counts[0] == 4
    assert counts[0] > counts[1] > counts[2]
    assert tissue_fractions(x, brain, iterations=1).provenance["iterations"] == 1
    assert 2 < tissue_fractions(x, brain).provenance["iterations"] <= 50


def test_noise_of_a_map_decides_what_counts(brain: mrf.Dictionary) -> None:
    """Half the voxels hold nothing but strong noise: told so, they change nothing."""
    truth, atoms = shares((600,), 3), nearest(brain, [MYELIN_WATER, WHITE, FLUID])
    x = mixed(brain, atoms, truth)
    level = np.where(np.arange(600) < 300, noise_of(x, 1000, 100), 3 * np.abs(x).max())
    rng = np.random.default_rng(5)
    x = x + level * (rng.standard_normal(x.shape) + 1j * rng.standard_normal(x.shape))
    assert tissue_fractions(x, brain, noise_std=level).index.tolist() == atoms
    assert tissue_fractions(x, brain).index.tolist() != atoms


def test_voxels_agree_with_the_plain_reference(brain: mrf.Dictionary, turning: mrf.Dictionary) -> None:
    for d, most in ((brain, 8), (turning, 12)):
        atoms = signals_of(d, range(len(d))).T
        x = mixed(d, [5, len(d) // 2, len(d) - 7], shares((40,), 3), noise=0.02 * float(d.norms.mean()))
        found = tissue_fractions(x, d, method="voxel")
        for v in range(40):
            power = float((np.abs(x[:, v]) ** 2).sum())
            assert found.residual[v] ** 2 == pytest.approx(plain_fit(x[:, v], atoms, found.phase[v]) / power, abs=1e-12)
        assert 1 < (found.fractions > 0).sum(axis=0).max() <= most
        assert (found.fractions > 0).any(axis=1).all()  # only atoms that some voxel has


def test_the_phase_is_the_best_of_all(brain: mrf.Dictionary, turning: mrf.Dictionary) -> None:
    for d in (brain, turning):
        atoms = [7, len(d) // 3, len(d) // 2, len(d) - 9]
        x = mixed(d, atoms, shares((30,), 4), noise=0.1 * float(d.norms[atoms].mean()))
        signals = signals_of(d, atoms).T
        found = tissue_fractions(x, d, components=atoms)
        for v in range(30):
            power = float((np.abs(x[:, v]) ** 2).sum())
            assert found.residual[v] ** 2 <= best_fit(x[:, v], signals) / power + 1e-9


def test_inverted_signals_have_the_opposite_phase(brain: mrf.Dictionary) -> None:
    """Half of the angle of sum x^2 leaves the sign open; a mixture near its null decides it by fractions alone."""
    atoms, truth = nearest(brain, [MYELIN_WATER, FLUID]), np.array([[0.9, 0.5, 0.1], [0.1, 0.5, 0.9]])
    signals = signals_of(brain, atoms) @ truth
    for phase in (0.3, 0.3 - np.pi):
        found = tissue_fractions(signals * np.exp(1j * phase), brain, components=atoms)
        assert np.allclose(found.phase, phase, atol=1e-12)
        assert np.allclose(found.fractions, truth, atol=1e-12)


def test_voxels_are_exact_where_atoms_are_independent(brain: mrf.Dictionary) -> None:
    d = mrf.build(brain.sequence, mrf.Grid(t1=[0.3, 0.9, 4.0], t2=[0.02, 0.08]), rank=6)
    truth = shares((300,), 6)
    found = tissue_fractions(mixed(d, range(6), truth), d, method="voxel")
    assert found.index.tolist() == list(range(6))
    assert np.abs(found.fractions - truth).max() < 1e-9


def test_magnitudes_of_unconstrained_weights_are_worse(brain: mrf.Dictionary) -> None:
    truth, atoms = shares((400,), 3), nearest(brain, [WHITE, GREY, FLUID])
    noise = noise_of(mixed(brain, atoms, truth), 1000, 10)
    x = mixed(brain, atoms, truth, noise=noise)
    loose = np.abs(np.linalg.lstsq(signals_of(brain, atoms), x, rcond=None)[0])
    found = tissue_fractions(x, brain, components=atoms)
    error = np.abs(loose / loose.sum(axis=0) - truth).mean()
    assert np.abs(found.fractions - truth).mean() < 0.85 * error


def test_complex_dictionaries(turning: mrf.Dictionary) -> None:
    d = turning
    pool = np.flatnonzero(d.parameters["off_resonance"] == d.parameters["off_resonance"][0])
    atoms, truth = [int(pool[i]) for i in (6, 45, 90)], shares((500,), 3)
    x = mixed(d, atoms, truth)
    assert np.abs(tissue_fractions(x, d, components=atoms).fractions - truth).max() < 1e-9
    found = tissue_fractions(x, d, known={"off_resonance": d.parameters["off_resonance"][0]})
    assert found.index.tolist() == atoms
    assert np.abs(found.fractions - truth).max() < 1e-6
    assert found.provenance["known"] == ["off_resonance"]


def test_error_bars_of_a_complex_dictionary_count_the_phase(turning: mrf.Dictionary) -> None:
    d, atoms = turning, [131, 364, 371]  # a known phase would make two error bars a quarter less
    truth = np.repeat(np.array([[0.3], [0.3], [0.4]]), 3000, axis=1)
    noise = 0.003 * float(d.norms[atoms].mean())
    found = tissue_fractions(mixed(d, atoms, truth, noise=noise), d, components=atoms, noise_std=noise)
    assert found.std is not None
    assert np.allclose(found.fractions.std(axis=1) / np.median(found.std, axis=1), 1, atol=0.05)


def test_invalid_voxels_are_counted_and_never_plausible(brain: mrf.Dictionary) -> None:
    atoms = nearest(brain, [WHITE, FLUID])
    x = mixed(brain, atoms, np.full((2, 2, 3), 0.5))
    mask = np.array([[True, True, True], [True, True, False]])
    x[0, 0, 0], x[3, 0, 1], x[:, 0, 2] = np.nan, np.inf, 0
    found = tissue_fractions(x, brain, components=atoms, mask=mask, noise_std=0.1)
    assert found.invalid == 2
    assert np.array_equal(found.mask, mask)
    assert found.std is not None
    for images in (*found.fractions, *found.std, found.phase, found.residual):
        assert np.isfinite(images).tolist() == [[False, False, False], [True, True, False]]
    assert np.isfinite(found.amount).tolist() == [[False, False, True], [True, True, False]]
    assert found.amount[0, 2] == 0
    assert np.allclose(found.fractions[:, 1, :2], 0.5)


def test_a_signal_that_nothing_fits_is_left_as_it_is(turning: mrf.Dictionary) -> None:
    """A signal orthogonal to the only component."""
    d = turning
    one = d.coefficients[10].astype(np.complex128)
    other = np.linalg.svd(one[None].conj())[2][-1].conj()
    assert abs(one.conj() @ other) < 1e-6
    found = tissue_fractions(np.stack([other - (one.conj() @ other) * one, one], axis=1), d, components=[10])
    assert found.residual[0] == pytest.approx(1)
    assert found.amount[0] < 1e-6 * found.amount[1]


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_any_scale(brain: mrf.Dictionary, scale: float) -> None:
    truth, atoms = shares((50,), 3), nearest(brain, [MYELIN_WATER, WHITE, FLUID])
    for noise in (None, 1e-3):
        found = tissue_fractions(mixed(brain, atoms, truth) * scale, brain, noise_std=noise and noise * scale)
        assert found.index.tolist() == atoms
        assert np.allclose(found.fractions, truth, atol=1e-9)
        assert np.allclose(found.amount / scale, 1)
    assert tissue_fractions(mixed(brain, atoms, truth) * scale, brain, noise_std=1.0).std is not None


def equal(a: Fractions, b: Fractions) -> bool:
    names = ("fractions", "amount", "phase", "residual", "index")
    return all(np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in names)


def test_threads_and_stretches_change_nothing(brain: mrf.Dictionary, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, atoms = shares((700,), 3), nearest(brain, [MYELIN_WATER, WHITE, FLUID])
    x = mixed(brain, atoms, truth, noise=0.01 * float(brain.norms[atoms].mean()))
    options: list[dict[str, Any]] = [{}, {"method": "voxel"}, {"components": atoms}]
    for some in options:
        one = tissue_fractions(x, brain, threads=1, **some)
        assert equal(one, tissue_fractions(x, brain, threads=2, **some))
        with monkeypatch.context() as patched:
            patched.setattr(voxels, "_TOGETHER", 100)
            assert equal(one, tissue_fractions(x, brain, **some))


def test_the_penalty_is_the_squared_weighted_sum(brain: mrf.Dictionary) -> None:
    """Against scipy with a row more; the weights are of the atoms as they are given."""
    atoms = (brain.coefficients[::40].astype(np.complex128) * 1j).real * 3
    x = mixed(brain, [100, 900, 2000], shares((20,), 3)).T
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    penalty = np.random.default_rng(0).uniform(0.1, 1, len(atoms))
    found = fit(x, atoms, penalty)
    for v in range(20):
        y = (x[v] * np.exp(-1j * found.phase[v])).real
        weights, rest = scipy.optimize.nnls(np.concatenate([atoms.T, penalty[None]]), np.append(y, 0))
        ours = np.zeros(len(atoms))
        ours[found.atoms[v][found.atoms[v] >= 0]] = found.weights[v][found.atoms[v] >= 0]
        assert np.allclose(ours, weights, atol=1e-9)
        turned = (x[v] * np.exp(-1j * found.phase[v])).imag
        assert found.residual[v] == pytest.approx(rest**2, abs=1e-12)
        assert turned @ turned < 1  # what the phase leaves is no part of a real fit


def test_gpu_arrays_are_refused_by_name(brain: mrf.Dictionary) -> None:
    array = type("ndarray", (), {"__module__": "cupy"})()
    with pytest.raises(mrf.UnsupportedError, match="coefficients: got a cupy array"):
        tissue_fractions(array, brain)
    assert "cupy" not in sys.modules


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": [(1.0, 0.1), (1.001, 0.1)]}, "components: two of them have the same nearest atom"),
        ({"components": [99999]}, r"components: got atoms 99999 to 99999 of 2723"),
        ({"components": []}, r"components: got float64 values of shape \(0,\), expected pairs"),
        ({"components": list(range(9))}, "components: got 9, expected 1 to 8, which signals of this rank tell apart"),
        ({"components": [(1.0, -0.1)]}, "components: T1 and T2 have to be finite and positive, in s"),
        ({"components": [3], "method": "joint"}, "method: got 'joint', but components are given"),
        ({"method": "spijn"}, 'method: got \'spijn\', expected "joint" or "voxel"'),
        ({"method": "voxel", "iterations": 3}, "iterations: options of method joint, not of voxel"),
        ({"components": [3], "regularization": 0.1}, "options of method joint, not of given components"),
        ({"regularization": 0}, "regularization: got 0, expected a fraction between 0 and 1"),
        ({"iterations": 0}, "iterations: got 0, expected a whole number >= 1"),
        ({"mask": np.zeros(5, bool)}, "coefficients: no voxel of the mask has a finite signal other than 0"),
        ({"mask": np.ones(4, bool)}, r"mask: got bool values of shape \(4,\), expected bool of \(5,\)"),
        ({"noise_std": 0.0}, "noise_std: got values that are not finite and positive"),
        ({"noise_std": np.ones(3)}, r"noise_std: got float64 values of shape \(3,\)"),
        ({"threads": 0}, "threads: got 0"),
        ({"method": "voxel", "memory": 100}, "memory: [0-9]+ components in 5 voxels take"),
    ],
)
def test_what_is_refused(brain: mrf.Dictionary, options: dict[str, Any], message: str) -> None:
    x = mixed(brain, [100, 2000], np.full((2, 5), 0.5))
    with pytest.raises(mrf.InputError, match=message):
        tissue_fractions(x, brain, **options)


def test_complex_signals_tell_one_component_less_apart(turning: mrf.Dictionary) -> None:
    with pytest.raises(mrf.InputError, match="components: got 12, expected 1 to 11, which signals of this rank"):
        tissue_fractions(np.ones((6, 3)), turning, components=list(range(0, 120, 10)))


def test_wrong_rank_and_ambiguous_pairs_are_refused(brain: mrf.Dictionary, turning: mrf.Dictionary) -> None:
    with pytest.raises(mrf.InputError, match=r"coefficients: got shape \(5, 3\), expected rank 8 on axis 0"):
        tissue_fractions(np.ones((5, 3)), brain)
    with pytest.raises(mrf.InputError, match="coefficients: got <U1 values, expected complex numbers"):
        tissue_fractions(np.full((8, 3), "x"), brain)
    with pytest.raises(
        mrf.InputError,
        match=r"components: T1 and T2 name no single atom of .* over t1, t2, off_resonance; give known={'off_resonance",
    ):
        tissue_fractions(np.ones((6, 3)), turning, components=[(1.0, 0.1)])
