"""What every verb that makes maps writes: NIfTI with side-cars, report.png, maps.h5."""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..core.errors import FileError
from ..core.maps import Maps
from ..core.storage import output_folder


@contextmanager
def results_folder(path: Path) -> Iterator[Path]:
    """`path` as a folder that can be written; after a failure, folders made for it are gone again."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield output_folder(path)
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def into_results(told: argparse.Namespace, work: Callable[[argparse.Namespace], None]) -> None:
    """Check subject and folder first, then work; a failure leaves no folder."""
    from ..io.nifti import check_subject

    check_subject(told.subject)
    with results_folder(told.output):
        work(told)


def write_outputs(maps: Maps, folder: Path, *, subject: str, title: str) -> None:
    """Write all files of one result aside, move them into place, and print where they are.

    Raises
    ------
    FileError
        A file cannot be written; earlier results are untouched unless moving itself fails.
    """
    from ..io.nifti import write_maps
    from ..report import write_report

    with moved_into(folder) as aside:
        write_maps(maps, aside, subject=subject)
        write_report(maps, aside / "report.png", title=title)
        maps.save(aside)


@contextmanager
def moved_into(folder: Path) -> Iterator[Path]:
    """A folder for files that are moved into `folder` together at the end, and named on standard output.

    Raises
    ------
    FileError
        A file cannot be written; earlier results are untouched unless moving itself fails.
    """
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as name:
        aside = Path(name)
        yield aside
        files = sorted(path.relative_to(aside) for path in aside.rglob("*") if path.is_file())
        for file in files:
            if (folder / file).is_dir():
                raise FileError(f"{folder / file}: is a folder; remove it or choose another output folder")
        for file in files:
            output_folder((folder / file).parent)
            os.replace(aside / file, folder / file)
    for file in files:
        if file.suffix not in (".json", "") and not file.name.startswith("."):
            print(folder / file)
