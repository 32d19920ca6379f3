"""The same as `test_fuzz.py` of sequences, dictionaries, maps, images and tables."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.core.maps import Maps
from mrf.core.storage import write_hdf5
from mrf.dictionaries.dictionary import read_header
from mrf.io.bids_series import read_bids_series
from mrf.io.images import read_labels, read_map, read_series
from mrf.io.inputs import read_input
from mrf.io.sequences import load_sequence
from mrf.io.series import Series
from mrf.io.template import Template, read_template
from mrf.io.twix import read_twix
from mrf.recipe import Recipe
from mrf.recon.corrections import Measured
from mrf.recon.girf import Girf

from . import twix_examples
from .fuzzing import CUTS, DAMAGE, JSON, WORDS, damaged, fuzz, given, only_our_errors, st
from .hostile_files import PULSEQ

ARGUMENTS = [
    "kind", "name", "n_echoes", "echo_spacing_ms", "echo_spacing", "refocusing_angle_deg", "flip_angle_deg",
    "flip_angle",
    "repetition_time_ms", "echo_time_ms", "inversion_time_ms", "inversion_efficiency", "rf_phase_deg", "n_frames",
    "rr_intervals_ms", "events", "units",
]  # fmt: skip
SMALL = (
    st.sampled_from([0, 1, 2, 3, 12.5, -1, 1e9])
    | st.lists(st.sampled_from([1, 10, 15.5, -2, 1e300]), max_size=4)
    | JSON
)
KINDS = st.sampled_from(["fisp", "bssfp", "multi_spin_echo", "jiang2015_fisp", "hamilton2017_cardiac", "x"]) | JSON
EVENTS = st.lists(
    st.dictionaries(
        st.sampled_from(["type", "flip_angle_deg", "phase_deg", "duration_ms", "cycles", "b_value", "efficiency"]),
        st.sampled_from(["pulse", "invert", "delay", "dephase", "readout", "t2_preparation"]) | SMALL, max_size=4,
    ),
    max_size=5,
)  # fmt: skip


@fuzz
@given(told=st.dictionaries(st.sampled_from(ARGUMENTS), SMALL, max_size=6), kind=KINDS, events=st.none() | EVENTS)
def test_sequence_files(tmp_path: Path, told: dict[str, Any], kind: Any, events: Any) -> None:
    told = told | ({"kind": kind} if events is None else {"events": events})
    path = tmp_path / "s.json"
    path.write_text(json.dumps(told), "utf-8")
    with only_our_errors():
        assert isinstance(load_sequence(path), mrf.Sequence)


GOOD_TOML = 'kind = "fisp"\nflip_angle_deg = [10, 20, 30]\nrepetition_time_ms = 12\necho_time_ms = 2.5\n'
RECIPE = 'method = "wavelet"\nrank = 4\nt1 = [0.3, 5.0, 30]\niterations = "auto"\nshift = [0.1, 0.2]\nmemory = "1GB"\n'


@fuzz
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), WORDS | st.text(max_size=3)), min_size=1, max_size=4)
)
def test_text_of_sequences_and_recipes(tmp_path: Path, edits: list[tuple[float, str]]) -> None:
    for text, name, read in ((GOOD_TOML, "s.toml", load_sequence), (RECIPE, "r.toml", Recipe.load)):
        for place, word in edits:
            at = int(place * len(text))
            text = text[:at] + word + text[at + 1 :]
        (tmp_path / name).write_text(text, "utf-8")
        with only_our_errors():
            assert isinstance(read(tmp_path / name), mrf.Sequence | Recipe)


SEQ = (
    PULSEQ
    + """[BLOCKS]
1 100 1 0 0 1 0 0
2 100 0 2 0 0 1 0
3 100 1 0 0 1 0 1
4 100 0 2 0 0 1 0

[RF]
1 100 1 2 0 0 0 0

[GRADIENTS]
1 1000 1 0 0

[TRAP]
2 5000 100 400 100 0

[ADC]
1 40 10000 0 0 0

[EXTENSIONS]
1 1 1 0

extension LABELSET 1
1 1 SLC

[SHAPES]

shape_id 1
num_samples 4
1
1
1
1

shape_id 2
num_samples 4
0
0
2

"""
)
TOKENS = st.sampled_from(
    ["0", "1", "2", "-1", "1e9", "1e300", "nan", "inf", "x", "", "99", "0.5", "10000000000", "²", "[RF]"]
)


@fuzz
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), TOKENS | st.none()), max_size=4))
@pytest.mark.filterwarnings("ignore:.*no signature:UserWarning")
def test_words_of_pulseq_files(tmp_path: Path, edits: list[tuple[float, str | None]]) -> None:
    pytest.importorskip("pypulseq", reason="Pulseq files are read by pypulseq")
    text = SEQ
    for place, word in edits:
        words = list(re.finditer(r"\S+" if word is not None else r"[^\n]+\n", text))
        found = words[int(place * len(words))]
        text = text[: found.start()] + (word or "") + text[found.end() :]
    (tmp_path / "s.seq").write_text(text, "utf-8")
    with only_our_errors():
        assert isinstance(mrf.read_pulseq(tmp_path / "s.seq"), mrf.Sequence)
    if not edits:
        assert mrf.read_pulseq(tmp_path / "s.seq").n_frames == 2


def _grid(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    whole = {"pd": rng.standard_normal((2, 3)) + 0j, "score": rng.random((2, 3)), "index": np.zeros((2, 3), np.int64)}
    whole |= {"flags": np.zeros((2, 3), np.uint8), "mask": np.ones((2, 3), bool), "affine": np.eye(4)}
    return whole | {"parameters.t1": rng.random((2, 3)), "std.t1": rng.random((2, 3))}


ARRAYS = st.sampled_from(
    [
        np.zeros((0,)), np.zeros((2, 3)), np.zeros((3, 2)), np.full((2, 3), np.nan), np.zeros((2, 3), np.uint8),
        np.zeros((2, 3), complex), np.array([b"x", b"y"]), np.zeros((2, 3), bool), np.zeros((4, 4)),
        np.full((4, 4), np.inf), np.zeros((2, 3), "f2"), np.zeros(6, np.dtype([("a", "<f4")])), np.arange(6),
    ]
)  # fmt: skip


@fuzz
@given(
    changes=st.dictionaries(st.sampled_from([*_grid(0), "std.t2", "x", "parameters."]), ARRAYS | st.none(), max_size=3),
    told=st.dictionaries(st.sampled_from(["shape", "provenance", "x"]), JSON, max_size=2),
)
def test_fields_of_maps(tmp_path: Path, changes: dict[str, Any], told: dict[str, Any]) -> None:
    arrays = {name: array for name, array in (_grid(0) | changes).items() if array is not None}
    write_hdf5(tmp_path / "maps.h5", "maps", 1, arrays, {"shape": [2, 3], "provenance": {}} | told)
    with only_our_errors():
        assert isinstance(Maps.load(tmp_path), Maps)


@fuzz
@given(damage=DAMAGE, cut=CUTS)
def test_bytes_of_maps(tmp_path: Path, damage: list[tuple[float, int]], cut: float | None) -> None:
    write_hdf5(tmp_path / "maps.h5", "maps", 1, _grid(0), {"shape": [2, 3], "provenance": {}})
    (tmp_path / "maps.h5").write_bytes(damaged((tmp_path / "maps.h5").read_bytes(), damage, cut))
    with only_our_errors():
        assert isinstance(Maps.load(tmp_path), Maps)


PARTS = ["parameters.t1", "parameters.t2", "coefficients", "norms", "basis", "events", "x"]


@fuzz
@given(
    changes=st.dictionaries(st.sampled_from(PARTS), ARRAYS | st.none(), max_size=2),
    told=st.dictionaries(st.sampled_from(["digest", "axes", "sequence", "provenance"]), JSON, max_size=2),
)
def test_fields_of_dictionaries(
    tmp_path: Path, small_dictionary: mrf.Dictionary, changes: dict[str, Any], told: dict[str, Any]
) -> None:
    d, path = small_dictionary, tmp_path / "D.h5"
    arrays = {f"parameters.{name}": values for name, values in d.parameters.items()}
    arrays |= {
        "coefficients": d.coefficients,
        "norms": d.norms,
        "basis": d.basis,
        "events": d.sequence.events,
    } | changes
    metadata = {"digest": d.digest, "axes": ["t1", "t2"], "sequence": "", "provenance": {}} | told
    write_hdf5(path, "dictionary", 3, {name: one for name, one in arrays.items() if one is not None}, metadata)
    with only_our_errors():
        assert isinstance(mrf.Dictionary.load(path), mrf.Dictionary)
    with only_our_errors():
        read_header(path)


@fuzz
@given(damage=DAMAGE, cut=CUTS)
def test_bytes_of_dictionaries(
    tmp_path: Path, small_dictionary: mrf.Dictionary, damage: list[tuple[float, int]], cut: float | None
) -> None:
    path = tmp_path / "D.h5"
    small_dictionary.save(path)
    path.write_bytes(damaged(path.read_bytes(), damage, cut))
    with only_our_errors():
        assert isinstance(mrf.Dictionary.load(path), mrf.Dictionary)


@fuzz
@given(
    series=ARRAYS | st.none(), affine=ARRAYS | st.none(), k=ARRAYS | st.none(),
    girf=st.dictionaries(st.sampled_from(["frequencies", "response", "kernel", "axes"]), ARRAYS),
)  # fmt: skip
def test_fields_of_other_hdf5_files(tmp_path: Path, series: Any, affine: Any, k: Any, girf: dict[str, Any]) -> None:
    path = tmp_path / "a.h5"
    given_ = {"series": series, "affine": affine, "k": k, "sample_times": affine} | girf
    with h5py.File(path, "w") as file:
        for name, array in given_.items():
            if array is not None:
                file[name] = array
    for read in (read_series, read_input, Measured.load, Girf.load):
        with only_our_errors():
            assert read(path) is not None


@pytest.fixture(scope="module")
def bids_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three echoes with side-cars."""
    folder = tmp_path_factory.mktemp("bids") / "sub-01" / "anat"
    folder.mkdir(parents=True)
    for echo in (1, 2, 3):
        image = nibabel.Nifti1Image(np.full((3, 4, 2), 100.0 / echo, np.float32), np.diag([2.0, 2, 3, 1]))
        nibabel.save(image, folder / f"sub-01_echo-{echo}_MESE.nii")
    return folder


@fuzz
@given(
    damage=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=8),
    cut=CUTS,
    zipped=st.booleans(),
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning:nibabel")
def test_headers_of_nifti_files(
    tmp_path: Path, bids_folder: Path, damage: list[tuple[int, int]], cut: float | None, zipped: bool
) -> None:
    content = bytearray((bids_folder / "sub-01_echo-1_MESE.nii").read_bytes())
    for place, value in damage:
        content[place] = value
    whole = gzip.compress(content, mtime=0) if zipped else bytes(content)
    path = tmp_path / ("a.nii.gz" if zipped else "a.nii")
    path.write_bytes(whole[: None if cut is None else int(cut * len(whole))])
    for read in (
        lambda: read_series(path), lambda: read_bids_series(path), lambda: read_labels(path, np.eye(4), (2, 4, 3)),
        lambda: read_map(path, np.diag([2.0, 2, 3, 1]), (2, 4, 3)),
    ):  # fmt: skip
        with only_our_errors():
            assert read() is not None


SIDE_CARS = [
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    "RepetitionTime",
    "RepetitionTimeExcitation",
    "MagneticFieldStrength",
]


@fuzz
@given(
    told=st.lists(st.dictionaries(st.sampled_from(SIDE_CARS), JSON, max_size=3) | JSON, min_size=3, max_size=3),
    good=st.booleans(),
)
def test_side_cars(bids_folder: Path, told: list[Any], good: bool) -> None:
    for echo, one in enumerate(told, 1):
        fields = {"EchoTime": 0.01 * echo} | one if good and isinstance(one, dict) else one
        (bids_folder / f"sub-01_echo-{echo}_MESE.json").write_text(json.dumps(fields), "utf-8")
    with only_our_errors():
        assert isinstance(read_bids_series(bids_folder), Series)


CELLS = (
    st.sampled_from(["sphere", "x_mm", "y_mm", "row", "column", "t1_ms", "t1_1.5T_ms", "plate", "1", "2", "3"]) | WORDS
)


@fuzz
@given(
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=8),
    edits=st.lists(st.tuples(st.integers(0, 23), CELLS), max_size=3),
)
def test_template_files(tmp_path: Path, rows: list[list[str]], edits: list[tuple[int, str]]) -> None:
    good = [["sphere", "x_mm", "y_mm", "t1_ms"], *([str(n), str(10 * n), str(n * n), "900"] for n in range(1, 6))]
    for number, word in edits:
        good[number // 4][number % 4] = word
    for table in (rows, good):
        (tmp_path / "t.csv").write_text("\n".join(",".join(row) for row in table), "utf-8")
        with only_our_errors():
            assert isinstance(read_template(tmp_path / "t.csv"), Template)


@fuzz
@given(damage=DAMAGE, cut=CUTS, modern=st.booleans(), protocol_only=st.booleans())
def test_bytes_of_siemens_raw_data(
    tmp_path: Path, damage: list[tuple[float, int]], cut: float | None, modern: bool, protocol_only: bool
) -> None:
    pytest.importorskip("twixtools", reason="Siemens raw data are read by twixtools")
    kspace, trajectory = twix_examples.content()
    blocks = twix_examples.readouts(kspace, modern=modern)
    held = twix_examples.measurement(blocks, twix_examples.protocol(), modern)
    path = twix_examples.stored(tmp_path / "a.dat", held, modern=modern)
    whole = path.read_bytes()
    start = (
        whole.index(b"lBaseResolution") if protocol_only else 0
    )  # the text that tells matrix, field of view and times
    stop = start + 2000 if protocol_only else len(whole)
    path.write_bytes(whole[:start] + damaged(whole[start:stop], damage, cut) + whole[stop:])
    with only_our_errors():
        assert np.isfinite(read_twix(path, trajectory=trajectory).kspace).all()
