"""What every verb that makes maps writes: maps.h5, NIfTI with side-cars, report.png."""

from pathlib import Path

from ..core.maps import Maps


def write_outputs(maps: Maps, folder: Path, *, subject: str, title: str) -> None:
    """Write all files of one result and print where they are."""
    from ..io.nifti import write_maps
    from ..report import write_report

    maps.save(folder)
    images = write_maps(maps, folder, subject=subject)
    report = write_report(maps, folder / "report.png", title=title)
    for path in (*images, folder / "maps.h5", report):
        print(path)
