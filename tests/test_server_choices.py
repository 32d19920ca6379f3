"""Choices of the command line and of clients: none is lost, all are checked; what is kept; the client."""

import gc
import importlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from ismrmrd.serialization import ProtocolDeserializer

import mrf
from mrf.cli.main import main
from mrf.server.asked import Asked, Menu
from mrf.server.codec import Acquisition
from mrf.server.desk import Desk
from mrf.server.measurement import Reading

from .mrd_server import (
    FRAMES,
    QUICK,
    RECIPE,
    ConfigFile,
    Stranger,
    answered,
    asking,
    errors,
    scan_objects,
    served,
)

# --- choices that are silently lost


def test_a_later_configuration_takes_the_place_of_null(scan: Path) -> None:
    """Was: "null" sticks, although the JSON's config (also the default one, -d null) overrides it."""
    _, header, *rest = scan_objects(scan)
    with served(QUICK) as server:
        told = answered(server.port, ConfigFile("null"), header, json.dumps({"parameters": {"config": "mrf"}}), *rest)
    assert len(told.images) == 3


def test_mrf_is_the_servers_own_recipe_again(scan: Path, tmp_path: Path) -> None:
    """Was: after another recipe, "mrf" leaves that one, though it is said to be the server's own."""
    (tmp_path / "other.toml").write_text("method = 'tikhonov'\nrank = 4\nslice_profile = 'none'\n")
    menu = Menu.of(tmp_path, None)
    asked, _ = menu.configured(QUICK, "other")
    asked, _ = menu.parameters(asked, json.dumps({"parameters": {"config": "mrf"}}))
    assert asked.recipe == QUICK.recipe


def test_options_override_the_recipe_that_a_client_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Was: -d NAME (and a client's NAME) replaces the recipe with all that --slice-profile overrode."""
    serve_module: Any = importlib.import_module("mrf.server.serve")

    seen: list[Asked] = []

    class Stop(mrf.MrfError):
        """Enough was seen."""

    def server(host: str, port: int, desk: Desk, *, asked: Asked, **options: Any) -> None:
        desk.close()
        seen.append(asked)
        raise Stop("seen")

    monkeypatch.setattr(serve_module, "Server", server)
    (tmp_path / "quick.toml").write_text("method = 'gridding'\nrank = 4\n")
    command = ["-q", "serve", "-p", "0", "--recipes", str(tmp_path), "-d", "quick", "--slice-profile", "hann_sinc:4"]
    assert main(command) == 1
    assert seen[0].recipe.method == "gridding"
    assert seen[0].recipe.slice_profile == "hann_sinc:4"


def starting(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    """What `mrf serve` with these options says instead of starting."""
    serve_module: Any = importlib.import_module("mrf.server.serve")

    monkeypatch.setattr(serve_module.Server, "run", lambda self: None)
    monkeypatch.setattr(serve_module, "warm_up", lambda desk, asked: 0.0)
    assert main(["-q", "serve", "-p", "0", *options]) == 1, "it started"
    return capsys.readouterr().err


def test_a_default_configuration_that_is_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: `-d NAME` of no recipe is taken as mrf without a word."""
    assert "nonsense" in starting(capsys, monkeypatch, "-d", "nonsense")


def test_a_frame_counter_that_is_none(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: --frame-counter is not checked: every scan then ends in an internal error."""
    assert "nonsense" in starting(capsys, monkeypatch, "--frame-counter", "nonsense")


def test_a_sequence_that_is_none(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: --sequence is not read before the first scan, which then fails."""
    assert "nonsense" in starting(capsys, monkeypatch, "--sequence", "nonsense")


def test_a_recipes_file_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: errors of the recipe (a missing girf file) are swallowed; every scan then fails."""
    (tmp_path / "r.toml").write_text("girf = 'missing.h5'\n")
    assert "missing.h5" in starting(capsys, monkeypatch, "--recipe", str(tmp_path / "r.toml"))


def test_a_folder_that_cannot_be_written_is_told_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: -S is not tried before the first scan, which is then refused."""
    (tmp_path / "file").write_text("")
    assert "cannot write there" in starting(capsys, monkeypatch, "-s", "-S", str(tmp_path / "file/x"))


def test_a_dictionary_and_other_physics_contradict_each_other(
    tmp_path: Path,
    small_dictionary: mrf.Dictionary,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Was: --slice-profile beside --dictionary has no effect; `mrf reconstruct` refuses the two."""
    small_dictionary.save(tmp_path / "d.h5")
    said = starting(capsys, monkeypatch, "--dictionary", str(tmp_path / "d.h5"), "--cache", "1GB")
    assert "--cache: with --dictionary no other is built" in said
    said = starting(capsys, monkeypatch, "--dictionary", str(tmp_path / "d.h5"), "--slice-profile", "hann_sinc:4")
    assert "--slice-profile" in said


def test_a_clients_slice_profile_beside_the_servers_dictionary(scan: Path) -> None:
    """Was: slice_profile has no effect with --dictionary, and nobody says so."""
    own = mrf.build(mrf.preset("jiang2015_fisp", n_frames=FRAMES), RECIPE.grid(), rank=3)
    with served(QUICK, desk=Desk(given=own)) as server:
        told = answered(server.port, *asking(scan, slice_profile="hann_sinc:4"))
    assert any("slice_profile" in text for text in told.texts)


def test_truth_is_no_number(scan: Path) -> None:
    """It was 1 s."""
    with served(QUICK) as server:
        told = answered(server.port, *asking(scan, deadline=True))
    assert "parameter deadline: got 'True', expected a number" in errors(told)[0]


def test_a_number_of_hundreds_of_digits(scan: Path) -> None:
    """Was: OverflowError of float(10**400) is an internal error that also ends the reading."""
    with served(QUICK) as server:
        told = answered(server.port, *asking(scan, deadline=10**400))
    assert "parameter deadline" in errors(told)[0]


# --- what is kept


def test_a_full_disk_does_not_end_the_scan(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: what cannot be saved ends the reconstruction; the file stays open."""
    from mrf.server.save import Saved

    def write(self: Any) -> None:
        raise mrf.FileError(f"{self.path}: cannot be written (disk full)")

    monkeypatch.setattr(Saved, "_write", write)
    monkeypatch.setattr("mrf.server.save._AT_ONCE", 20)
    with served(QUICK, reading=Reading(save=tmp_path)) as server:
        told = answered(server.port, *scan_objects(scan))
    assert len(told.images) == 3
    assert any(text.startswith("WARNING") and "not saved" in text for text in told.texts)


def test_files_are_closed_where_the_disk_is_full(tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: _write() stands outside the try: where it fails, the HDF5 file stays open."""
    import h5py

    from mrf.io.mrd import read_table
    from mrf.server.save import Saved

    def write(self: Any) -> None:
        raise mrf.FileError("disk full")

    monkeypatch.setattr(Saved, "_write", write)
    saved = Saved(tmp_path, read_table(scan)[0])
    with pytest.raises(mrf.FileError, match="disk full"):
        saved.close()
    still_open = isinstance(saved._file, h5py.File) and bool(saved._file)
    if still_open:
        saved._file.close()
    assert not still_open


def test_what_is_passed_over_is_saved(scan: Path, tmp_path: Path) -> None:
    """Was: with configuration null nothing is saved but an empty file, though -s keeps all."""
    _, *rest = scan_objects(scan)
    with served(QUICK, reading=Reading(save=tmp_path)) as server:
        answered(server.port, ConfigFile("null"), *rest)
    (path,) = tmp_path.iterdir()
    assert mrf.read_mrd(path).kspace.shape == (4, FRAMES, 200)


def test_a_question_leaves_no_empty_file(scan: Path, tmp_path: Path) -> None:
    """Was: a header without data (a dependency query) leaves a file that no reader takes."""
    with served(QUICK, reading=Reading(save=tmp_path)) as server:
        answered(server.port, *scan_objects(scan)[:2])
    assert list(tmp_path.iterdir()) == []


# --- the client


def test_attributes_that_are_not_ascii_are_kept(tmp_path: Path) -> None:
    """Was: attributes of other servers that are not ASCII lose all images."""
    from mrf.server.codec import IMAGE_HEADER, Image
    from mrf.server.send import write_images

    head = np.zeros((), IMAGE_HEADER)
    head["data_type"], head["matrix_size"], head["channels"] = 1, (2, 2, 1), 1
    meta = ismrmrd.Meta({"Units": "\u00b5s"}).serialize()
    image = Image(head, meta if isinstance(meta, str) else meta.decode(), np.zeros((1, 1, 2, 2), np.uint16))
    write_images(tmp_path / "o.h5", [image], b"<ismrmrdHeader/>")
    with ismrmrd.File(str(tmp_path / "o.h5"), mode="r") as file:
        told = file["dataset/images_0"].images[0].attribute_string
    assert ismrmrd.Meta.deserialize(told)["Units"] == "\u00b5s"


def test_a_configuration_with_a_long_name(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Was: ValueError of message_bytes is an internal error, and the connection stays open."""
    with served(QUICK) as server:
        command = ["-q", "send", str(scan), f"127.0.0.1:{server.port}", "--config", "x" * 2000]
        assert main([*command, "-o", str(tmp_path / "o.h5")]) == 1
    assert "internal error" not in capsys.readouterr().err


def test_zero_hertz_is_a_value_in_float_images() -> None:
    """Was: in float32, 0 is "no value": an off-resonance of 0 Hz is the same; scaled() makes it NaN."""
    from mrf.server.codec import ACQUISITION_HEADER
    from mrf.server.images import Place, Series, scaled

    place = Place(np.zeros((), ACQUISITION_HEADER), np.eye(4), (1, 2, 2))
    field = np.array([[0.0, 5.0], [-5.0, np.nan]])
    maps = mrf.Maps(
        parameters={"off_resonance": field}, pd=field + 0j, score=field, index=np.zeros((2, 2), int),
        flags=np.zeros((2, 2), np.uint8), mask=np.isfinite(field),
    )  # fmt: skip
    (image,) = Series(("off_resonance",), "float32").of_maps(maps, place, "")
    assert np.array_equal(scaled(image)[0, 0], field, equal_nan=True)


# --- more


def test_noise_scans_that_come_late_are_told(slices: Path) -> None:
    """Was: noise after a slice was complete: that one is not white, the next are: PD's units change."""
    config, header, noise, *rest = scan_objects(slices)
    with served(QUICK) as server:
        told = answered(server.port, config, header, *rest[:FRAMES], noise, *rest[FRAMES:])
    assert any("noise" in text and text.startswith(("WARNING", "ERROR")) for text in told.texts)


def test_repetitions_that_are_joined_are_waited_for(scan: Path) -> None:
    """Was: with --frame-counter contrast, repetitions are shots; their limits are not looked at."""
    config, header, noise, *rest = scan_objects(scan)
    header.encoding[0].encodingLimits.repetition = ismrmrd.xsd.limitType(minimum=0, maximum=1, center=0)
    made = []
    for shot in (0, 1):
        for one in rest:
            head = ismrmrd.AcquisitionHeader.from_buffer_copy(one.getHead())
            head.idx.repetition, head.number_of_samples = shot, 100
            if shot == 0:
                head.clearFlag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
            part = slice(100 * shot, 100 * shot + 100)
            made.append(ismrmrd.Acquisition(head, one.data[:, part].copy(), one.traj[part].copy()))
    with served(QUICK, reading=Reading(frame_counter="contrast")) as server:
        told = answered(server.port, config, header, noise, *made)
    assert errors(told) == []
    assert len(told.images) == 3


def test_what_waits_to_be_saved_is_bounded_in_bytes(scan: Path, tmp_path: Path) -> None:
    """Was: up to 255 acquisitions wait, of any size and beside --memory: here 77 MB, at most 64 GB."""

    def kept() -> int:
        return sum(one.data.nbytes for one in gc.get_objects() if type(one) is Acquisition)

    config, header, *_ = scan_objects(scan)
    navigator = ismrmrd.Acquisition.from_array(np.ones((4, 60_000), np.complex64))
    navigator.setFlag(ismrmrd.ACQ_IS_NAVIGATION_DATA)
    last = ismrmrd.Acquisition.from_array(np.ones((4, 3), np.complex64))
    last.setFlag(ismrmrd.ACQ_IS_NAVIGATION_DATA)
    gc.collect()
    before = kept()
    with served(QUICK, reading=Reading(save=tmp_path)) as server, Stranger(server.port) as client:
        client.send(config, header, *[navigator] * 40, last, json.dumps({"parameters": {"config": "unheard"}}))
        next(iter(ProtocolDeserializer(client.stream).deserialize()))  # all before has been read
        assert kept() - before < 20e6


def test_after_an_internal_error_the_client_may_go_on_sending(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: an internal error ends the reading: 5 s later a client that still sends is reset."""
    from mrf.server.measurement import Measurement

    def add(self: Any, acquisition: Any) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(Measurement, "add", add)
    monkeypatch.setattr("mrf.server.wire._LINGER", 0.1)
    objects = scan_objects(scan)
    with served(QUICK) as server, Stranger(server.port) as client:
        client.send(*objects[:5])
        time.sleep(0.5)
        for one in objects[5:]:
            client.send(one)
            time.sleep(0.002)
        told = client.finish()
    assert told.closed
    assert len(errors(told)) == 1


def test_files_that_cannot_be_closed_do_not_cost_the_answers(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: what _keep() raises but FileError skips the rest of finally: no maps, no CLOSE, a leak."""
    from mrf.server.save import Saved

    def close(self: Any) -> None:
        self._file.close()
        raise RuntimeError("unable to close the file")

    monkeypatch.setattr(Saved, "close", close)
    monkeypatch.setattr(threading, "excepthook", lambda told: None)
    with served(QUICK, reading=Reading(save=tmp_path)) as server:
        told = answered(server.port, *scan_objects(scan), timeout=5)
    assert told.closed
    assert len(told.images) == 3


def test_dictionaries_on_disk_keep_to_their_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Was: clients fill the disk, a dictionary for each sequence that they choose."""
    monkeypatch.setenv("MRF_CACHE", str(tmp_path))

    def built(desk: Desk, n_frames: int) -> Path:
        sequence, before = mrf.preset("jiang2015_fisp", n_frames=n_frames), set(tmp_path.glob("*.h5"))
        desk.dictionary(sequence, RECIPE).result(120)
        (made,) = set(tmp_path.glob("*.h5")) - before or [tmp_path]
        return made

    first = Desk()
    try:
        old = built(first, 60)
        size = old.stat().st_size
    finally:
        first.close()
    desk = Desk(cache=int(2.5 * size))
    try:
        assert built(desk, 60) == tmp_path  # which another server made: taken from the cache, and not counted
        made = [built(desk, 61), built(desk, 62)]
        assert all(path.exists() for path in (old, *made))
        with caplog.at_level("INFO", logger="mrf.server.shelf"):
            made.append(built(desk, 63))
        assert [path.exists() for path in made] == [False, True, True]
        assert f"{made[0].name}: removed" in caplog.text
        assert old.exists()
    finally:
        desk.close()
    with pytest.raises(mrf.InputError, match="cache: got 'much'"):
        Desk(cache="much")


def test_the_warm_up_measures_gridding() -> None:
    """Was: its second run never gets through (1 ms): nothing of gridding is compiled or measured."""
    from mrf.server.serve import warm_up

    desk = Desk()
    default = desk.gridding_rate
    try:
        warm_up(desk, Asked(recipe=RECIPE))
        assert desk.gridding_rate != default
    finally:
        desk.close()
