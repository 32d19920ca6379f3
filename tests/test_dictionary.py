from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import mrf
from mrf import RfPulse
from mrf.dictionaries.build import dictionary_digest, dictionary_inputs
from mrf.dictionaries.dictionary import write_rows

from .conftest import relative


def test_atoms_are_in_c_order_without_impossible_ones() -> None:
    grid = mrf.Grid(t1=[0.1, 0.2], t2=[0.05, 0.15], b1=[0.9, 1.0])
    assert grid.shape == (2, 2, 2)
    assert np.array_equal(grid.parameters["t1"], [0.1, 0.1, 0.2, 0.2, 0.2, 0.2])
    assert np.array_equal(grid.parameters["t2"], [0.05, 0.05, 0.05, 0.05, 0.15, 0.15])
    assert np.array_equal(grid.parameters["b1"], [0.9, 1.0] * 3)
    assert set(mrf.Grid(t1=[1.0], t2=[0.1], off_resonance=[-10.0, 0.0]).parameters) == {"t1", "t2", "off_resonance"}


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"t1": [], "t2": [0.1]}, "t1 has shape"),
        ({"t1": [1.0, 0.5], "t2": [0.1]}, "t1 goes from 1 to 0.5 at index 0"),
        ({"t1": [1.0, 1.0], "t2": [0.1]}, "without duplicates"),
        ({"t1": [1.0], "t2": [-0.1]}, "t2: got -0.1"),
        ({"t1": [0.1], "t2": [0.2]}, "no atom is left: no t2"),
        ({"t1": [1.0], "t2": [0.2], "t2_over_t1": (0.5, 0.1)}, "t2_over_t1 is"),
        ({"t1": [1.0], "t2": [0.2], "t2_over_t1": (0.3, 1.0)}, "0.3 to 1 times a t1"),
        ({"t1": [1.0], "t2": [0.1], "b2": [1.0]}, "unknown axis 'b2'"),
        ({"t1": [[1.0]], "t2": [0.1]}, "1-D axis"),
        ({"t1": [200.0, 4000.0], "t2": [0.1]}, "t1 goes to 4000, expected at most 60; give seconds, not milli"),
        ({"t1": [1.0], "t2": [20.0, 90.0]}, "t2 goes to 90, expected at most 60; give seconds"),
        ({"t1": [1.0], "t2": [0.1], "b1": [80.0, 120.0]}, "b1 goes to 120, expected at most 5; 1 is nominal"),
    ],
)
def test_bad_grids_are_refused(axes: dict[str, object], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        mrf.Grid(**axes)


def test_log_axis() -> None:
    assert np.allclose(mrf.log_axis(1.0, 100.0, 3), [1, 10, 100])
    with pytest.raises(mrf.InputError, match="at least 2 values"):
        mrf.log_axis(1.0, 2.0, 1)


@pytest.mark.parametrize("precession", [False, True])
def test_basis_and_coefficients(short_fisp: mrf.Sequence, precession: bool) -> None:
    off_resonance = [-5.0, 3.0, 20.0] if precession else None
    s = mrf.bssfp(np.linspace(0.2, 1.0, 60), 0.012, inversion_time=0.02) if precession else short_fisp
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3.0, 6), t2=mrf.log_axis(0.03, 0.3, 5), off_resonance=off_resonance)
    d = mrf.build(s, grid, rank=9)
    signals = mrf.simulate(s, **grid.parameters)
    assert np.iscomplexobj(d.basis) == precession
    assert np.allclose(d.basis @ d.basis.conj().T, np.eye(9), atol=1e-5)
    unit = (signals / np.linalg.norm(signals, axis=1, keepdims=True)).astype(np.complex128)
    singular = np.linalg.svd(unit, compute_uv=False)
    kept = np.linalg.norm(unit @ d.basis.conj().T) ** 2
    assert kept / len(d) == pytest.approx(np.sum(singular[:9] ** 2) / len(d), abs=1e-6)
    assert d.provenance["retained_energy"] == pytest.approx(kept / len(d), abs=1e-6)
    assert relative(d.compress(signals.T).T, d.coefficients * d.norms[:, None]) < 1e-5


def test_energy_chooses_the_rank(short_fisp: mrf.Sequence) -> None:
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3.0, 6), t2=mrf.log_axis(0.03, 0.3, 5))
    ranks = [mrf.build(short_fisp, grid, energy=energy).rank for energy in (0.9, 0.999, 0.99999)]
    assert ranks == sorted(ranks)
    assert mrf.build(short_fisp, grid, rank=ranks[1]).provenance["retained_energy"] >= 0.999
    assert mrf.build(short_fisp, grid, rank=ranks[1] - 1).provenance["retained_energy"] < 0.999


def test_numpy_numbers_are_numbers(short_fisp: mrf.Sequence) -> None:
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3.0, 6), t2=mrf.log_axis(0.03, 0.3, 5))
    plain = mrf.build(short_fisp, grid, rank=6, n_states=20)
    same = mrf.build(short_fisp, grid, rank=np.int64(6), n_states=20.0)
    assert same.digest == plain.digest
    assert mrf.build(short_fisp, grid, energy=np.float32(0.5)).rank >= 1


def test_impossible_dictionaries_are_refused(small_dictionary: mrf.Dictionary) -> None:
    d = small_dictionary
    for change, message in (
        ({"basis": np.ones_like(d.basis)}, "basis are not orthonormal"),
        ({"parameters": {}}, "no atoms or no parameters"),
        ({"parameters": {"t1": -d.parameters["t1"]}}, "values a tissue can have"),
    ):
        with pytest.raises(mrf.InputError, match=message):
            replace(d, **change)
    with pytest.raises(ValueError, match="read-only"):
        d.parameters["t1"][0] = 5


def test_digest_follows_every_input(short_fisp: mrf.Sequence) -> None:
    grid, other = mrf.Grid(t1=[1.0], t2=[0.1]), mrf.Grid(t1=[1.0], t2=[0.11])
    inputs = [
        dictionary_inputs(short_fisp, grid, rank=1),
        dictionary_inputs(short_fisp * 2, grid, rank=1),
        dictionary_inputs(short_fisp, other, rank=1),
        dictionary_inputs(short_fisp, grid, rank=None),
        dictionary_inputs(short_fisp, grid, rank=None, energy=0.9),
        dictionary_inputs(short_fisp, grid, rank=1, n_states=20),
        dictionary_inputs(short_fisp, grid, rank=1, slice_profile=[1.0, 0.5]),
        dictionary_inputs(short_fisp, grid, rank=1, slice_profile=RfPulse.hann_sinc(4)),
        dictionary_inputs(short_fisp, grid, rank=1, slice_profile=RfPulse.hann_sinc(4, n_positions=20)),
        dictionary_inputs(short_fisp, grid, rank=1, repetitions=2),
        dictionary_inputs(short_fisp, grid, rank=1, repetitions="steady"),
    ]
    assert len({dictionary_digest(one) for one in inputs}) == len(inputs)
    assert mrf.build(short_fisp, grid, rank=1).digest == dictionary_digest(inputs[0])


def test_round_trip(small_dictionary: mrf.Dictionary, tmp_path: Path) -> None:
    small_dictionary.save(tmp_path / "d.h5")
    loaded = mrf.Dictionary.load(tmp_path / "d.h5")
    assert list(tmp_path.iterdir()) == [tmp_path / "d.h5"]
    assert loaded.digest == small_dictionary.digest
    assert loaded.sequence.digest == small_dictionary.sequence.digest
    assert loaded.provenance == small_dictionary.provenance
    for name in ("coefficients", "norms", "basis"):
        assert np.array_equal(getattr(loaded, name), getattr(small_dictionary, name))
    assert all(np.array_equal(loaded.parameters[name], v) for name, v in small_dictionary.parameters.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank: got 0"),
        ({"rank": 2.5}, "rank: got 2.5"),
        ({"rank": 61}, "expected 1 to 60"),
        ({"energy": 0.0}, "energy: got 0.0"),
    ],
)
def test_bad_options_are_refused(short_fisp: mrf.Sequence, options: dict[str, object], message: str) -> None:
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3.0, 12), t2=mrf.log_axis(0.03, 0.3, 12))
    with pytest.raises(mrf.InputError, match=message):
        mrf.build(short_fisp, grid, **options)


def test_atoms_without_signal_are_refused_at_build() -> None:
    silent = mrf.Sequence([mrf.saturate(), mrf.readout(), mrf.readout()])
    with pytest.raises(mrf.InputError, match=r"atom 0 \(t1 1, t2 0.1\) has norm 0"):
        mrf.build(silent, mrf.Grid(t1=[1.0], t2=[0.1]), rank=1)


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_poisoned_atoms_are_refused_at_load(small_dictionary: mrf.Dictionary, tmp_path: Path, value: float) -> None:
    d, path = small_dictionary, tmp_path / "d.h5"
    poisoned = d.coefficients.copy()
    poisoned[7] = value
    rows = {f"parameters.{name}": [values] for name, values in d.parameters.items()}
    rows |= {"coefficients": [poisoned], "norms": [d.norms]}
    write_rows(path, rows, len(d), d.basis, d.sequence, d.digest, d.provenance)
    with pytest.raises(mrf.FileError, match=r"d\.h5: dictionary: 1 atoms are NaN, infinite or of zero norm.*atom 7"):
        mrf.Dictionary.load(path)


def test_damaged_files_are_refused(small_dictionary: mrf.Dictionary, tmp_path: Path) -> None:
    path = tmp_path / "d.h5"
    with pytest.raises(mrf.FileError, match="no such file"):
        mrf.Dictionary.load(path)
    small_dictionary.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(mrf.FileError, match="truncated or damaged"):
        mrf.Dictionary.load(path)
    path.write_text("not HDF5")
    with pytest.raises(mrf.FileError, match="not a readable HDF5 file"):
        mrf.Dictionary.load(path)
    with h5py.File(path, "w") as file:
        file["something"] = 1
    with pytest.raises(mrf.FileError, match="not a dictionary file written by mrf"):
        mrf.Dictionary.load(path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 99
    with pytest.raises(mrf.FileError, match="schema 99 of a newer mrf, this one reads 3"):
        mrf.Dictionary.load(path)
    with h5py.File(path, "r+") as file:
        file.attrs.update({"schema": 3, "complete": False})
    with pytest.raises(mrf.FileError, match="incomplete"):
        mrf.Dictionary.load(path)


def test_a_flipped_bit_is_noticed(short_fisp: mrf.Sequence, tmp_path: Path) -> None:
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3.0, 200), t2=mrf.log_axis(0.03, 0.3, 150))
    path = tmp_path / "d.h5"
    mrf.build(short_fisp, grid, rank=6).save(path)
    damaged = bytearray(path.read_bytes())
    with h5py.File(path, "r") as file:
        offset = file["coefficients"].id.get_offset()
    damaged[offset + 100] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(mrf.FileError, match="damaged"):
        mrf.Dictionary.load(path)


def test_an_interrupted_save_leaves_the_old_file(
    small_dictionary: mrf.Dictionary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.h5"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(mrf.FileError, match="No space left"):
        small_dictionary.save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_compress_checks_the_frames(small_dictionary: mrf.Dictionary) -> None:
    with pytest.raises(mrf.InputError, match="expected 60 frames on axis 0"):
        small_dictionary.compress(np.zeros((59, 4)))


def test_periodic_dictionaries(short_fisp: mrf.Sequence) -> None:
    grid = mrf.Grid(t1=[0.8, 1.5], t2=[0.05, 0.1])
    made = mrf.build(short_fisp, grid, rank=3, repetitions="steady")
    signals = mrf.simulate(short_fisp, **grid.parameters, repetitions="steady")
    assert np.allclose(made.norms, np.linalg.norm(signals, axis=1), rtol=1e-3)
    assert not np.allclose(made.norms, mrf.build(short_fisp, grid, rank=3).norms, rtol=0.05)
