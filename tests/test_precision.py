"""Steps of a grid and the rank of a subspace from the Cramer-Rao bound."""

from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.dictionaries.precision import coarsest_steps, moved_by
from mrf.dictionaries.subspace import modes
from mrf.simulation.information import jacobian


@pytest.fixture(scope="module")
def train() -> mrf.Sequence:
    return mrf.preset("jiang2015_fisp", n_frames=300)


@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_steps_are_the_fraction_asked_for(train: mrf.Sequence, fraction: float) -> None:
    grid = mrf.resolved_grid(train, t1=(0.3, 3.0), t2=(0.02, 0.3), b1=(0.8, 1.2), noise_std=0.02, fraction=fraction)
    assert grid.axes["t1"][[0, -1]].tolist() == [0.3, 3.0]
    steps = coarsest_steps(train, grid, 0.02)
    assert set(steps) == {"t1", "t2", "b1"}
    for value in steps.values():
        assert value == pytest.approx(fraction, rel=0.15)
    finer = mrf.resolved_grid(train, t1=(0.3, 3.0), t2=(0.02, 0.3), b1=(0.8, 1.2), noise_std=0.01, fraction=fraction)
    assert len(finer.axes["t2"]) == pytest.approx(2 * len(grid.axes["t2"]), abs=3)


def test_a_step_is_what_the_bound_says(train: mrf.Sequence) -> None:
    """One tissue on the grid, by hand."""
    grid = mrf.Grid(t1=[1.0], t2=[0.08, 0.1])
    bound = mrf.cramer_rao_bound(train, ("t2",), t1=1.0, t2=[0.08, 0.1], noise_std=0.02)["t2"]
    assert coarsest_steps(train, grid, 0.02)["t2"] == pytest.approx(0.02 / bound.mean(), rel=0.02)


def test_coarse_grids_are_warned_of(train: mrf.Sequence) -> None:
    coarse, fine = mrf.Grid(t1=[0.5, 1.0], t2=[0.05, 0.1]), mrf.Grid(t1=[0.999, 1.0], t2=[0.0999, 0.1])
    with pytest.warns(UserWarning, match=r"coarser than the sequence resolves at noise_std 0.01.*t2 up to"):
        mrf.build(train, coarse, rank=2, noise_std=0.01)
    mrf.build(train, fine, rank=2, noise_std=0.01)
    mrf.build(train, coarse, rank=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.0}, "fraction: got 0"),
        ({"noise_std": -1.0}, "noise_std: got -1"),
        ({"t2": (0.3, 0.02)}, r"t2 is \(0.3, 0.02\)"),
        ({"b2": (0.3, 0.4)}, "got ranges of"),
        ({"noise_std": 1e-9}, "t1 would have"),
        ({"off_resonance": (-10.0, 10.0)}, "does not determine t1"),
    ],
)
def test_bad_ranges_are_refused(train: mrf.Sequence, options: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"t1": (0.3, 3.0), "t2": (0.02, 0.3), "noise_std": 0.01, **options}
    echo = mrf.Sequence([mrf.pulse(1.0), mrf.readout()] * 4) if "off_resonance" in options else train
    with pytest.raises(mrf.InputError, match=message):
        mrf.resolved_grid(echo, **given)


def test_estimates_move_as_far_as_is_said(train: mrf.Sequence) -> None:
    """Monte Carlo: linearized estimates from whole and from reduced noisy signals of one tissue."""
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3.0, 20), t2=mrf.log_axis(0.02, 0.3, 20))
    found = modes(mrf.simulate(train, **grid.parameters))
    tissue: dict[str, Any] = {"t1": np.array([1.0]), "t2": np.array([0.08])}
    said = moved_by(train, tissue, found)
    signal, by = jacobian(train, ("t1", "t2"), **tissue, dtype="complex128")
    columns = np.stack([by[0, 0], by[1, 0], signal[0], 1j * signal[0]], axis=1)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(signal[0]), 4000)) + 1j * rng.normal(size=(len(signal[0]), 4000))

    def estimates(reduce: Array) -> Array:
        model, data = reduce @ columns, reduce @ noise
        stacked = np.concatenate([model.real, model.imag]), np.concatenate([data.real, data.imag])
        found: Array = np.linalg.lstsq(*stacked, rcond=None)[0][:2]
        return found

    whole = estimates(np.eye(len(signal[0]), dtype=np.complex128))
    for rank in (6, 9, 14):
        moved = np.sqrt(((estimates(found.rows[:rank].astype(np.complex128)) - whole) ** 2).mean(axis=1))
        assert (moved / whole.std(axis=1)).max() == pytest.approx(said[rank - 1], rel=0.08)


def test_rank_by_parameter_error(train: mrf.Sequence) -> None:
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3.0, 30), t2=mrf.log_axis(0.02, 0.3, 30))
    ranks = [mrf.build(train, grid, parameter_error=limit).rank for limit in (0.5, 0.1, 0.02)]
    assert ranks[0] < ranks[1] < ranks[2]
    one = mrf.build(train, grid, parameter_error=0.1)
    assert one.provenance["parameter_error"] == 0.1
    assert one.digest != mrf.build(train, grid, parameter_error=0.5).digest
    for wrong in ({"parameter_error": 0.0}, {"parameter_error": 0.1, "rank": 5}):
        with pytest.raises(mrf.InputError, match="parameter_error: got"):
            mrf.build(train, grid, **wrong)


def test_interpolation_is_judged_at_the_corners_too() -> None:
    """A sample of atoms may miss the longest T1 with the shortest T2, where polynomials are worst."""
    angles = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(300) / 30)))
    train = mrf.fisp(angles, 0.012, 0.003, inversion_time=0.02)
    grid = mrf.Grid(t1=mrf.log_axis(0.1, 4, 120), t2=mrf.log_axis(0.01, 2, 120))
    exact = mrf.build(train, grid, rank=8)
    made = mrf.build(train, grid, rank=8, interpolation=1e-2)
    whole, other = (one.coefficients * one.norms[:, None] for one in (exact, made))
    off = np.linalg.norm(other - whole, axis=1) / np.linalg.norm(whole, axis=1)
    corner = off[grid.outline(2)].max()
    assert made.provenance["interpolation_error"] > 0.999 * corner
