"""What every verb that makes maps writes: report.png, maps.h5, and NIfTI with side-cars, DICOM or MRD."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ismrmrd
import numpy as np

from ..core.leftovers import files_in, moved_together, remove_unfinished
from ..core.maps import Maps
from ..core.storage import output_folder
from .arguments import SUBJECT


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
    with results_folder(told.output):
        work(told)


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

    with moved_into(told.output) as aside:
        for kind in told.to:
            _WRITERS[kind](maps, aside, told, header)
        write_report(maps, aside / "report.png", title=title)
        maps.save(aside)


def _bids(maps: Maps, folder: Path, told: argparse.Namespace, header: str | None) -> None:
    from ..io.bids import write_maps

    write_maps(maps, folder, subject=told.subject, session=told.session)


def _dicom(maps: Maps, folder: Path, told: argparse.Namespace, header: str | None) -> None:
    """Nobody's files: the patient is the subject's label, or made from the maps where that is the default."""
    from ..dicom.origin import Origin
    from ..dicom.write import write_dicom

    subject = "" if told.subject == SUBJECT else told.subject
    origin = Origin.of_header(header, subject=subject) if header else Origin.anonymous(subject)
    write_dicom(maps, folder / "dicom", origin=origin)


def _mrd(maps: Maps, folder: Path, told: argparse.Namespace, header: str | None) -> None:
    """The images that a server would send."""
    from ..server.images import QUANTITIES, Place, Series
    from ..server.send import write_images

    shape = (1, *maps.shape)[-3:]
    place = Place(np.zeros((), ismrmrd.hdf5.acquisition_header_dtype), maps.affine, (shape[0], shape[1], shape[2]))
    images = Series(tuple(QUANTITIES), "uint16").of_maps(maps, place, "MRF")
    write_images(folder / "images.h5", images, (header or _NO_HEADER).encode())


_NO_HEADER = '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"/>'
_WRITERS = {"bids": _bids, "dicom": _dicom, "mrd": _mrd}


@contextmanager
def moved_into(folder: Path) -> Iterator[Path]:
    """A folder for files that are moved into `folder` together at the end, and named on standard output.

    Raises
    ------
    FileError
        A file cannot be written; earlier results are untouched.
    """
    with moved_together(folder) as aside:
        yield aside
        files = files_in(aside)
    for file in files:
        if file.suffix not in (".json", "") and not file.name.startswith("."):
            print(folder / file)
