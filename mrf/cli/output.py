"""What every verb that makes maps writes: report.png, maps.h5, and NIfTI with side-cars, DICOM or MRD."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.leftovers import files_in, moved_together, remove_unfinished
from ..core.maps import Maps
from ..core.storage import output_folder
from .arguments import SUBJECT

log = logging.getLogger(__name__)


@contextmanager
def results_folder(path: Path) -> Iterator[Path]:
    """`path` as a folder that can be written; after a failure, folders made for it are gone again.

    What a killed process left in it is finished or removed first.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        output_folder(path)
        remove_unfinished(path)
        yield path
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def into_results(told: argparse.Namespace, work: Callable[[argparse.Namespace], None]) -> None:
    """Check labels, formats and folder first, then work; a failure leaves no folder."""
    from ..io.nifti import check_label, check_subject

    check_subject(told.subject)
    if told.session is not None:
        check_label("session", told.session)
    if "dicom" in told.to:
        from ..dicom.extra import needed

        needed("highdicom")
    elif getattr(told, "body_part", "") or getattr(told, "laterality", ""):
        raise InputError("--body-part, --laterality: DICOM files tell them, and none are written; add --to dicom")
    check_apart(told)
    with results_folder(told.output):
        work(told)


def dicom_origin(told: argparse.Namespace, header: str | None = None) -> Any:
    """Whose DICOM files there will be, None if there are none.

    Nobody's: the patient is the subject's label, or made from the maps where that is the default; the rest is what the
    header of an MRD scan tells of the scanner.

    Raises
    ------
    InputError
        A body part that has no code, no side of one that is paired, or a header that DICOM cannot hold.
    """
    if "dicom" not in told.to:
        return None
    from ..dicom.origin import Origin

    subject = "" if told.subject == SUBJECT else told.subject
    part, side = told.body_part, told.laterality
    try:
        if header:
            return Origin.of_header(header, subject=subject, body_part=part, laterality=side)
        return Origin.anonymous(subject, body_part=part or "BRAIN", laterality=side)
    except InputError as error:
        raise InputError(f"--to dicom: {error}; see --body-part and --laterality") from error


def check_apart(told: argparse.Namespace) -> None:
    """Refuse to write results over what they are made of.

    Raises
    ------
    InputError
        The output is the folder that is read, or what is read is among the files that would be written there.
    """
    top = told.output.resolve()
    replaced = {"bids": ("sub-*",), "dicom": ("dicom",), "mrd": ("images.h5",)}
    ours = ("maps.h5", "report.png", *(pattern for kind in told.to for pattern in replaced[kind]))
    for value in vars(told).values():
        for given in value if isinstance(value, list) else [value]:
            if not isinstance(given, Path) or given is told.output:
                continue
            inside = given.resolve().parts[len(top.parts) :] if given.resolve().is_relative_to(top) else None
            if inside == () or (inside and any(fnmatchcase(inside[0], pattern) for pattern in ours)):
                raise InputError(
                    f"-o: got {told.output}, but {given}, which is read, is among what would be written there; give "
                    "another folder"
                )


def check_file_apart(option: str, output: Path | None, *given: Path | None) -> None:
    """Refuse to write a file over one that is read.

    Raises
    ------
    InputError
        It is one of those `given`, or the maps.h5 of a folder that is.
    """
    for one in given:
        if output is None or one is None:
            continue
        if output.resolve() in (one.resolve(), (one / "maps.h5").resolve()):
            raise InputError(f"{option}: got {output}, which is read as well; give another file")


def write_outputs(maps: Maps, told: argparse.Namespace, *, title: str, header: str | None = None) -> None:
    """Write all files of one result aside, move them into place, and print where they are.

    Parameters
    ----------
    maps : Maps
    told : Namespace
        Output folder, subject, session and formats.
    title : str
        Of the report.
    header : str, optional
        XML of the scan's MRD header: DICOM files tell the scanner from it, nothing of the patient.

    Raises
    ------
    FileError
        A file cannot be written; earlier results are untouched.
    """
    from ..report import write_report

    with moved_into(told.output, _dicom_below(told.output) if "dicom" in told.to else ()) as aside:
        for kind in told.to:
            _WRITERS[kind](maps, aside, told, header)
        write_report(maps, aside / "report.png", title=title)
        maps.save(aside)
        written = files_in(aside)
    _warn_of_earlier(told.output, written)


def _dicom_below(folder: Path) -> list[Path]:
    """DICOM files of an earlier result; relative to `folder`."""
    if not (folder / "dicom").is_dir():
        return []
    from ..dicom.write import files_below

    return [Path("dicom") / file for file in files_below(folder / "dicom")]


def _warn_of_earlier(folder: Path, written: Collection[Path]) -> None:
    """Files that look as if they belonged to the result, and are those of another."""
    from ..io.bids import without_map

    images = [Path("images.h5")] if (folder / "images.h5").is_file() else []
    left = [file for file in (*without_map(folder, written), *_dicom_below(folder), *images) if file not in written]
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        log.warning("%s: left from an earlier result, not of this one: %s%s; remove them", folder, left[0], more)


def _bids(maps: Maps, folder: Path, told: argparse.Namespace, header: str | None) -> None:
    from ..io.bids import write_maps

    write_maps(maps, folder, subject=told.subject, session=told.session)


def _dicom(maps: Maps, folder: Path, told: argparse.Namespace, header: str | None) -> None:
    from ..dicom.write import write_dicom

    write_dicom(maps, folder / "dicom", origin=dicom_origin(told, header))


def _mrd(maps: Maps, folder: Path, told: argparse.Namespace, header: str | None) -> None:
    """The images that a server would send."""
    from ..server.images import images_beside
    from ..server.send import write_images

    write_images(folder / "images.h5", images_beside(maps), (header or _NO_HEADER).encode())


_NO_HEADER = '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"/>'
_WRITERS = {"bids": _bids, "dicom": _dicom, "mrd": _mrd}


@contextmanager
def moved_into(folder: Path, earlier: Iterable[Path] = ()) -> Iterator[Path]:
    """A folder for files that are moved into `folder` together at the end, and named on standard output.

    Those of an `earlier` result that have no successor are removed.

    Raises
    ------
    FileError
        A file cannot be written; earlier results are untouched.
    """
    with moved_together(folder, earlier) as aside:
        yield aside
        files = files_in(aside)
    for file in files:
        if file.suffix not in (".json", "") and not file.name.startswith("."):
            print(folder / file)
