"""Is a folder of results still what was written: its files against each other, and against what they were made of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .core.arrays import Array
from .core.errors import FileError, InputError, MrfError
from .core.maps import Flag, Maps
from .core.storage import file_digest
from .dictionaries.cache import cache_folder
from .dictionaries.dictionary import Dictionary
from .io.bids import bids_files, without_map
from .io.nifti import opened, unlike_codes, unlike_qform, values_of

OK, CHANGED, MISSING = "ok", "changed", "missing"
_COPY = re.compile(r"(.+) \((\d+)\)")  # how the provenance tells files of one name apart
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_ROUNDED = 1e-6  # of a score
_PLACE = re.compile(r"sub-([A-Za-z0-9]+)(?:_ses-([A-Za-z0-9]+))?_")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    what : str
        A file of the folder, or ``source NAME``, ``dictionary DIGEST``.
    state : {"ok", "changed", "missing"}
    why : str
        What is wrong, or where a source was found.
    outside : bool
        That it is missing says nothing against the results: sources, the dictionary, the picture.
    """

    what: str
    state: str
    why: str = ""
    outside: bool = False


def validate_output(
    folder: str | Path, *, sources: Sequence[str | Path] = (), dictionary: str | Path | None = None
) -> list[Check]:
    """Check a folder of results: ``maps.h5``, the files made of it, and the hashes of what it was made from.

    Parameters
    ----------
    folder : path
        What a verb wrote with ``-o``.
    sources : sequence of paths
        Folders, searched with all that lie in them, or files, for the sources that the provenance names; those beside
        `folder`, in it, and in the current folder are found without.
    dictionary : path, optional
        The dictionary that was used; by default it is looked for among the sources and in the cache.

    Returns
    -------
    list of Check
        ``maps.h5`` first. Where it cannot be trusted it is the only one, because nothing else can be compared with it.

    Raises
    ------
    FileError
        There is no such folder, or no ``maps.h5`` in it.
    InputError
        A folder of `sources` that is not there.
    """
    folder = Path(folder)
    if folder.is_file():
        raise FileError(f"{folder}: is a file; give the folder it lies in")
    if not (folder / "maps.h5").is_file():
        raise FileError(f"{folder}: holds no maps.h5; give a folder that mrf reconstruct, match or fit wrote")
    for place in map(Path, sources):
        if not place.exists():
            raise InputError(f"sources: {place} is not there; give a folder or file")
    try:
        maps = Maps.load(folder)
    except MrfError as error:
        return [Check("maps.h5", CHANGED, str(error).removeprefix(f"{folder / 'maps.h5'}: "))]
    wrong = _contradiction(maps)
    checks = [Check("maps.h5", CHANGED if wrong else OK, wrong), _picture(folder / "report.png")]
    checks += _bids(folder, maps)
    if not wrong:  # of nonsense neither images nor their headers can be made
        checks += _others(folder, maps)
    found = _Search(folder, tuple(map(Path, sources)))
    checks += [_source(name, told, found) for name, told in _hashes(maps).items()]
    told = maps.provenance.get("dictionary")
    if isinstance(told, str):
        checks.append(_dictionary(told, dictionary, found))
    return checks


def _contradiction(maps: Maps) -> str:
    """What in the maps cannot be: a voxel without a result that has one, or the other way round."""
    empty = ~maps.mask | (maps.flags & Flag.INVALID).astype(bool)
    for name, values in maps.parameters.items():
        if np.isfinite(values[empty]).any():
            return f"field parameters.{name} has values where the mask or the flags say that there are none"
    for name, values in maps.std.items():
        if (values < 0).any():
            return f"field std.{name} has negative values"
    if np.isfinite(maps.pd[empty]).any() or (maps.index[~maps.mask] != -1).any():
        return "field pd or index has values where the mask or the flags say that there are none"
    if ((maps.score < 0) | (maps.score > 1 + _ROUNDED)).any():
        return "field score has values outside 0 to 1"
    if not np.isfinite(maps.affine).all() or np.linalg.det(maps.affine) == 0:
        return "field affine is not finite or singular: voxels have no place or volume"
    if (maps.flags & ~np.uint8(sum(Flag))).any():
        return f"field flags has bits beyond {sum(Flag)}"
    return ""


def _picture(path: Path) -> Check:
    if not path.is_file():
        return Check(path.name, MISSING, "mrf report draws it again", outside=True)
    held = path.read_bytes()
    whole = held.startswith(_PNG) and held.endswith(_PNG_END)
    return Check(path.name, OK if whole else CHANGED, "" if whole else "is no whole PNG; mrf report draws it again")


def _bids(folder: Path, maps: Maps) -> Iterator[Check]:
    """NIfTI files and side-cars beside what the maps would be written as."""
    if not (folder / "dataset_description.json").is_file():
        if any(folder.glob("sub-*")):
            yield Check("dataset_description.json", MISSING)
        return
    try:
        description = _json(folder / "dataset_description.json")
        version = str(description["GeneratedBy"][0]["Version"])
        source = next((value for one in description.get("SourceDatasets", []) for value in one.values()), None)
        yield Check("dataset_description.json", OK)
    except (FileError, KeyError, IndexError, TypeError, AttributeError) as error:
        yield Check("dataset_description.json", CHANGED, f"tells no version of its maker ({error})")
        version, source = "", None
    places = {found.groups() for path in folder.glob("sub-*/**/*.nii.gz") if (found := _PLACE.match(path.name))}
    if not places:
        yield Check("sub-*/", MISSING, "no NIfTI file is there")
    expected: set[Path] = set()
    for subject, session in sorted(places, key=str):
        files = bids_files(maps, subject=subject, session=session, source=source)
        expected |= set(files)
        for path, (values, side_car) in files.items():
            yield _image(folder, path, values, maps.affine)
            yield _side_car(folder, path, side_car, same=version == __version__)
    for path in without_map(folder, expected):
        yield Check(str(path), CHANGED, "is of no map in maps.h5; an earlier result left it")


def _others(folder: Path, maps: Maps) -> Iterator[Check]:
    """DICOM and MRD files, where there are some."""
    if not (folder / "dicom").is_dir() and not (folder / "images.h5").is_file():
        return
    from .validate_images import dicom_faults, mrd_fault

    for name, why in dicom_faults(folder / "dicom", maps):
        yield Check(str(Path("dicom", name)), CHANGED if why else OK, why)
    if (folder / "images.h5").is_file():
        why = mrd_fault(folder / "images.h5", maps)
        yield Check("images.h5", CHANGED if why else OK, why)


def _image(folder: Path, name: Path, values: Array, affine: Array) -> Check:
    """A NIfTI file beside the map that it was made of: voxels, values, places and units."""
    if not (folder / name).is_file():
        return Check(str(name), MISSING)
    try:
        image = opened(folder / name)
        found, own = values_of(folder / name, image)
    except FileError as error:
        return Check(str(name), CHANGED, str(error).removeprefix(f"{folder / name}: "))
    expected = (values if values.ndim == 3 else values[None]).transpose(2, 1, 0).astype(np.float32)
    if found.shape != expected.shape:
        return Check(str(name), CHANGED, f"has {found.shape} voxels, maps.h5 {expected.shape}")
    differ = ~((found == expected) | (np.isnan(found) & np.isnan(expected)))
    if differ.any():
        return Check(str(name), CHANGED, f"{int(differ.sum())} of {differ.size} values are not those of maps.h5")
    if (units := image.header.get_xyzt_units()) != ("mm", "sec"):
        return Check(str(name), CHANGED, f"its header tells the units {' and '.join(units)}, expected mm and sec")
    for form, apart in (("affine", float(np.abs(own - affine).max())), ("qform", unlike_qform(image.header, affine))):
        if not apart <= 1e-5 * max(1.0, float(np.abs(affine).max())):
            return Check(str(name), CHANGED, f"its {form} differs from that of maps.h5 by {apart:.3g} mm")
    why = unlike_codes(image.header, affine)
    return Check(str(name), CHANGED if why else OK, why)


def _side_car(folder: Path, image: Path, expected: dict[str, Any], *, same: bool) -> Check:
    """Every field that is written of such maps is there and the same; of another version only Units must be."""
    name = str(image).removesuffix(".nii.gz") + ".json"
    if not (folder / name).is_file():
        return Check(name, MISSING)
    try:
        told = _json(folder / name)
    except FileError as error:
        return Check(name, CHANGED, str(error).removeprefix(f"{folder / name}: "))
    if lost := [field for field in expected if field not in told]:
        return Check(name, CHANGED, f"lacks {', '.join(lost)}")
    fields = list(expected) if same else ["Units"]
    plain = json.loads(json.dumps(expected))
    for field in fields:
        if told[field] != plain[field]:
            return Check(name, CHANGED, f"{field} is {_short(told[field])}, expected {_short(plain[field])}")
    return Check(name, OK)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path}: no readable JSON ({error})") from error
    if not isinstance(told, dict):
        raise FileError(f"{path}: holds a {type(told).__name__}, expected a JSON object")
    return told


def _hashes(maps: Maps) -> dict[str, str]:
    """{file name: SHA-256} of what the maps were made from."""
    told = maps.provenance.get("sha256")
    return {str(name): str(value) for name, value in told.items()} if isinstance(told, dict) else {}


@dataclass(frozen=True)
class _Search:
    """Where sources may lie: in, beside and above the results, in the current folder, and where it was said."""

    folder: Path
    told: tuple[Path, ...]

    def named(self, name: str) -> list[Path]:
        """Files of this name, each once."""
        flat = [
            self.folder,
            self.folder.resolve().parent,
            Path.cwd(),
            *(place for place in self.told if place.is_dir()),
        ]
        found = [place / name for place in flat] + [place for place in self.told if place.name == name]
        found += self._below.get(name, [])
        return list({file.resolve(): file for file in found if file.is_file()}.values())

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        """All files in the folders that were told, and in those in them, by name."""
        files: dict[str, list[Path]] = {}
        for place in self.told:
            for path in place.rglob("*"):
                files.setdefault(path.name, []).append(path)
        return files


def _source(name: str, told: str, search: _Search) -> Check:
    copy = _COPY.fullmatch(name)
    places = search.named(name) or (search.named(copy[1]) if copy else [])
    return _matched(f"source {name}", places, told, file_digest, "name its folder with --sources DIR")


def _matched(what: str, places: list[Path], told: str, digest_of: Callable[[Path], str], cure: str) -> Check:
    """The first place whose digest is the one that is told."""
    faults = []
    for place in places:
        try:
            found = digest_of(place)
        except (MrfError, OSError) as error:
            faults.append(" ".join(str(error).split()))
            continue
        if found == told:
            return Check(what, OK, str(place), outside=True)
        faults.append(f"{place} has the digest {found[:12]}, expected {told[:12]}")
    return Check(what, CHANGED if faults else MISSING, "; ".join(faults[:3]) or cure, outside=True)


def _dictionary(told: str, given: str | Path | None, search: _Search) -> Check:
    """The dictionary with the digest that the maps tell, read whole: where it was said, or in the cache."""
    what = f"dictionary {told[:12]}"
    if given is not None and not Path(given).is_file():
        raise InputError(f"dictionary: {given} is not there; give the file that was used, or leave it out")
    places = (
        [Path(given)] if given is not None else [path for path in [cache_folder() / f"{told}.h5"] if path.is_file()]
    )
    cure = "name its file with --dictionary D.h5"
    return _matched(what, places, told, lambda path: Dictionary.load(path).digest, cure)


def verdict(checks: Sequence[Check], *, strict: bool = False) -> str:
    """What is wrong with checked results in one line; empty if nothing is.

    Parameters
    ----------
    strict : bool
        Sources and dictionaries that were not found count, too.
    """
    changed = [one for one in checks if one.state == CHANGED]
    missing = [one for one in checks if one.state == MISSING and (strict or not one.outside)]
    told = [f"{len(some)} {word}" for some, word in ((changed, "changed"), (missing, "missing")) if some]
    return f"{' and '.join(told)} of {len(checks)}: {', '.join(one.what for one in [*changed, *missing][:4])}" * bool(
        told
    )
