"""Pulseq files of every version, and ones that are not to be trusted."""

import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import mrf
from mrf import EventKind

from .pulseq_examples import FLIPS, SYSTEM, fisp_spiral, new, pp, trap, write

V12 = """# Pulseq sequence file

[VERSION]
major 1
minor 2
revision 0

[DEFINITIONS]
Name by_hand

[BLOCKS]
1 0 1 0 0 0 0
2 1 0 0 0 0 0
3 0 0 1 0 0 1
4 0 0 0 0 2 0
5 0 1 0 0 0 0
6 1 0 0 0 0 0
7 0 0 1 0 0 1

[RF]
1 250 1 2 100 0 1.5

[TRAP]
1 50000 100 1000 100 0
2 400000 200 800 200 0

[ADC]
1 100 10000 100 0 1.5

[DELAYS]
1 2000

[SHAPES]

shape_id 1
num_samples 1000
1
0
0
997

shape_id 2
num_samples 1000
0
0
998

"""


def later(minor: int) -> str:
    """The same sequence in versions 1.3 (extensions) and 1.4 (durations on a raster, time shapes)."""
    text = V12.replace("minor 2", f"minor {minor}")
    blocks = re.search(r"(?s)\[BLOCKS\]\n(.*?)\n\n", text)
    assert blocks
    rows = [row.split() for row in blocks[1].splitlines()]
    if minor == 4:
        duration = {"1": "110", "2": "200", "3": "120", "4": "120", "5": "110", "6": "200", "7": "120"}
        for row in rows:
            row[1] = duration[row[0]]
        text = text.replace("1 250 1 2 100", "1 250 1 2 0 100").replace("[DELAYS]\n1 2000\n\n", "")
        rasters = "AdcRasterTime 1e-07\nBlockDurationRaster 1e-05\nGradientRasterTime 1e-05\n"
        text = text.replace("[DEFINITIONS]\n", f"[DEFINITIONS]\n{rasters}RadiofrequencyRasterTime 1e-06\n")
    return text.replace(blocks[1], "\n".join(" ".join([*row, "0"]) for row in rows))


def sign(body: str) -> bytes:
    """With the signature pypulseq and the Matlab toolbox write."""
    told = hashlib.md5(body.encode()).hexdigest()
    return f"{body}\n[SIGNATURE]\n# how to verify it\nType md5\nHash {told}\n".encode()


@pytest.mark.parametrize("minor", [2, 3, 4])
def test_older_versions(tmp_path: Path, minor: int) -> None:
    path = tmp_path / "old.seq"
    path.write_bytes(sign(V12 if minor == 2 else later(minor)))
    read = mrf.read_pulseq(path)
    flip = 2 * np.pi * 250 * 1e-3
    one = [mrf.pulse(flip, 1.5), mrf.delay(0.5e-3 + 2e-3 + 1e-4), mrf.readout(1.5)]
    pause, half = mrf.delay(1.1e-3 + 1.2e-3 + 6e-4), mrf.dephase()  # of the readout, not rewound at the end
    expected = [mrf.delay(6e-4), *one, pause, mrf.dephase(33), *one, mrf.delay(1.1e-3), half]
    assert np.allclose(read.events, mrf.Sequence(expected).events, atol=1e-9)
    assert read.name == "by_hand"
    path.write_text(V12)
    with pytest.warns(UserWarning, match=r"old\.seq: no signature, so it cannot be told"):
        assert mrf.read_pulseq(path).digest == read.digest


def test_line_endings(tmp_path: Path) -> None:
    """Files written on Windows: the signature is of either form."""
    path = tmp_path / "a.seq"
    path.write_bytes(sign(V12))
    digest = mrf.read_pulseq(path).digest
    path.write_bytes(sign(V12).replace(b"\n", b"\r\n"))
    assert mrf.read_pulseq(path).digest == digest
    path.write_bytes(sign(V12.replace("\n", "\r\n")))
    assert mrf.read_pulseq(path).digest == digest


def test_tampered_files_are_refused(tmp_path: Path) -> None:
    path = write(fisp_spiral(FLIPS), tmp_path / "a.seq")
    signed = path.read_bytes()
    told = re.search(rb"Hash (\w+)", signed)
    assert told
    path.write_bytes(signed.replace(b"[ADC]", b"[ADC]\n", 1))
    with pytest.raises(
        mrf.FileError,
        match=rf"a\.seq: wrong signature: got MD5 \w{{32}}, expected {told[1].decode()}.*get the original",
    ):
        mrf.read_pulseq(path)
    path.write_bytes(signed + b"[BLOCKS]\n1 100 0 0 0 0 0 0\n")
    with pytest.raises(mrf.FileError, match=r"\[SIGNATURE\] is not the file's end"):
        mrf.read_pulseq(path)
    path.write_bytes(signed.replace(b"Type md5", b"Type sha1"))
    with pytest.raises(mrf.UnsupportedError, match="Type is 'sha1', expected md5"):
        mrf.read_pulseq(path)
    path.write_bytes(signed[: signed.index(b"[SIGNATURE]")] + b"[SIGNATURE]\n")
    with pytest.raises(mrf.FileError, match=r"\[SIGNATURE\] is not the file's end"):
        mrf.read_pulseq(path)


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("minor 2", "minor 1", "UnsupportedError", "Pulseq version 1.1, expected 1.2 to 1.5"),
        ("minor 2", "minor 6", "UnsupportedError", "Pulseq version 1.6, expected 1.2 to 1.5"),
        ("major 1\nminor 2\n", "", "FileError", "has no major and minor number"),
        ("[VERSION]", "", "FileError", "not a Pulseq file, or truncated: there is no .VERSION. section"),
        ("[DELAYS]", "[ADC]", "FileError", "section .ADC. comes 2 times"),
        ("minor 2", "minor 4", "FileError", "definition AdcRasterTime is missing"),
        (
            "[TRAP]",
            "[SPAM]\n1 2\n\n[TRAP]",
            "FileError",
            "not a valid Pulseq file .ValueError: Unknown section code: .SPAM.",
        ),
        ("[DELAYS]", "extension ROTATIONS 3\n1 1 0 0 0\n\n[DELAYS]", "UnsupportedError", "extension ROTATIONS is not"),
        ("[DELAYS]", "extension SPAM 3\n1 1 0 0 0\n\n[DELAYS]", "UnsupportedError", "extension SPAM is not handled"),
        ("3 0 0 1 0 0 1\n", "3 0 0 9 0 0 1\n", "FileError", "block 3 uses GX event 9, which is missing"),
        ("3 0 0 1 0 0 1\n", "3 0 0 1 0 0 x\n", "FileError", "block 3 is .3 0 0 1 0 0 x., expected 7 whole"),
        ("3 0 0 1 0 0 1\n", "3 0 0 1 0 0\n", "FileError", "block 3 is .3 0 0 1 0 0., expected 7 whole numbers"),
        ("997\n", "900\n", "FileError", "shape 1 has 903 samples, expected 1000; was the file truncated"),
        ("0\n0\n998", "0\nspam\n998", "FileError", "shape 2 is broken"),
        ("1 100 10000 100 0 1.5", "1 100", "FileError", "not a valid Pulseq file .ValueError"),
        ("num_samples 1000\n1", "num_samples 0\n1", "FileError", "shape 1: num_samples is 0, expected 1 to 10000000"),
        ("0\n0\n998", "0\n1e300\n998", "FileError", "shape 2 has values beyond 10000000"),
        ("2 400000 200", "2 1e300 200", "FileError", "TRAP. event 2 has the number 1e300, expected at most 1e.10"),
        ("2 400000 200", "2 nan 200", "FileError", "TRAP. event 2 has the number nan"),
        ("1 100 10000 100 0 1.5", "1 2000000 10000 100 0 1.5", "FileError", "num is 2000000, expected 1 to 1048576"),
        ("3 0 0 1 0 0 1\n", "3 0 0 1 0 0 ²\n", "FileError", "block 3 is .3 0 0 1 0 0 ²., expected 7 whole"),
        ("0 0 1\n", "0 0 0\n", "FileError", "no ADC event after the first pulse"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, old: str, new: str, error: str, message: str) -> None:
    assert old in V12
    path = tmp_path / "bad.seq"
    path.write_bytes(sign(V12.replace(old, new)))
    with pytest.raises(getattr(mrf, error), match=rf"bad\.seq: .*{message}"):
        mrf.read_pulseq(path)


@pytest.mark.filterwarnings("ignore:.*no signature")
@pytest.mark.parametrize("signed", [False, True])
def test_truncated_files_are_refused(tmp_path: Path, signed: bool) -> None:
    """Wherever it is cut before its last number, signed or not."""
    whole = (sign(V12) if signed else V12.encode()).rstrip()
    path = tmp_path / "cut.seq"
    end = len(whole) - 3 if not signed else len(whole)
    for length in range(0, end, 11):
        if signed and whole[:length].rstrip().endswith(b"998"):
            continue  # complete but for the signature
        path.write_bytes(whole[:length])
        with pytest.raises((mrf.FileError, mrf.UnsupportedError), match=r"cut\.seq"):
            mrf.read_pulseq(path)


def test_what_is_no_text_file(tmp_path: Path) -> None:
    path = tmp_path / "a.seq"
    with pytest.raises(mrf.FileError, match="cannot be read"):
        mrf.read_pulseq(path)
    path.write_bytes(b"\x01pulseq\x02\x00\x01")
    with pytest.raises(mrf.UnsupportedError, match="binary Pulseq file; expected the text format"):
        mrf.read_pulseq(path)


@pytest.mark.filterwarnings("ignore:.*no signature")
def test_other_binary_files(tmp_path: Path) -> None:
    path = tmp_path / "a.seq"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(mrf.FileError, match="not a Pulseq file"):
        mrf.read_pulseq(path)


def test_soft_delays_need_values(tmp_path: Path) -> None:
    seq = new()
    seq.add_block(pp.make_block_pulse(0.3, duration=1e-3, use="excitation", system=SYSTEM))
    seq.add_block(pp.make_soft_delay("TE", factor=2.0, offset=-1e-3, default_duration=5e-3))
    seq.add_block(pp.make_adc(20, duration=1e-3, system=SYSTEM))
    path = write(seq, tmp_path / "a.seq")
    with pytest.raises(mrf.UnsupportedError, match=r"block 2: soft delay 'TE' has no value.*soft_delays=\{'TE'"):
        mrf.read_pulseq(path)
    read = mrf.read_pulseq(path, soft_delays={"TE": 0.02})
    assert np.allclose(read.events[2], [EventKind.DELAY, 0.5e-3 + 9e-3, 0])
    assert mrf.read_pulseq(path, soft_delays={"TE": 0.03}).duration > read.duration
    with pytest.raises(mrf.InputError, match=r"'TE' of 0\.0 s makes block 2 last -"):
        mrf.read_pulseq(path, soft_delays={"TE": 0.0})
    with pytest.raises(mrf.InputError, match=r"soft_delays: got 'TR', but .* has TE"):
        mrf.read_pulseq(path, soft_delays={"TE": 0.02, "TR": 1.0})


def test_labels_and_triggers_are_ignored(tmp_path: Path) -> None:
    read = []
    for told in (False, True):
        seq = new()
        seq.add_block(pp.make_block_pulse(0.3, duration=1e-3, use="excitation", system=SYSTEM))
        extra = [pp.make_label("LIN", "SET", 3), pp.make_digital_output_pulse("osc0", duration=1e-4)] if told else []
        seq.add_block(trap("z", 10), *extra)
        seq.add_block(pp.make_adc(20, duration=1e-3, system=SYSTEM))
        read.append(mrf.read_pulseq(write(seq, tmp_path / "a.seq")).digest)
    assert read[0] == read[1]


def test_waiting_for_triggers_is_told(tmp_path: Path) -> None:
    seq = new()
    seq.add_block(pp.make_trigger("physio1", duration=1e-3))
    seq.add_block(pp.make_block_pulse(0.3, duration=1e-3, use="excitation", system=SYSTEM))
    seq.add_block(pp.make_adc(20, duration=1e-3, system=SYSTEM))
    path = write(seq, tmp_path / "a.seq")
    with pytest.warns(UserWarning, match="some blocks wait for a trigger; how long is not in the file"):
        mrf.read_pulseq(path)


def test_offsets_in_ppm_need_a_field(tmp_path: Path) -> None:
    seq = new()
    fat = pp.make_gauss_pulse(1.0, duration=8e-3, bandwidth=200, freq_ppm=-3.45, use="saturation", system=SYSTEM)
    seq.add_block(fat)
    seq.add_block(pp.make_block_pulse(0.3, duration=1e-3, use="excitation", system=SYSTEM))
    seq.add_block(pp.make_adc(20, duration=1e-3, system=SYSTEM))
    with pytest.warns(UserWarning, match=r"offsets in ppm but no definition B0: 3\.0 T assumed"):
        high = mrf.read_pulseq(write(seq, tmp_path / "a.seq"))
    seq.set_definition("B0", 0.05)
    with pytest.warns(UserWarning, match="its simulated flip angle is taken to scale with b1"):
        low = mrf.read_pulseq(write(seq, tmp_path / "a.seq"))
    assert high.events[1, 1] < 0.05
    assert low.events[1, 1] > 0.9


def test_pypulseq_missing_or_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(fisp_spiral(FLIPS), tmp_path / "a.seq")
    monkeypatch.setattr(pp, "__version__", "1.4.2")
    with pytest.raises(
        mrf.UnsupportedError, match=r"version 1\.5, but pypulseq 1\.4 is installed; pip install --upgrade"
    ):
        mrf.read_pulseq(path)
    monkeypatch.setitem(sys.modules, "pypulseq", None)
    with pytest.raises(mrf.UnsupportedError, match=r'not installed; pip install "pypulseq>=[0-9.]+"'):
        mrf.read_pulseq(path)
