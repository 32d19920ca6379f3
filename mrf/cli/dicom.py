"""``mrf dicom``: maps as DICOM files, and files to a PACS."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_body_part, add_regions, region_names, seconds

if TYPE_CHECKING:
    import ssl

    from ..dicom.origin import Origin


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("dicom", help="maps as DICOM files, and DICOM files to a PACS")
    actions = verb.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_write(actions)
    _add_send(actions)


def _add_write(actions: Any) -> None:
    made = actions.add_parser("write", help="maps, and regions with their measurements, to OUT/dicom")
    made.add_argument("output", type=Path, metavar="OUT", help="an OUT folder of this program, with its maps.h5")
    add_regions(made, required=False)
    made.add_argument(
        "--as", dest="kinds", default="parametric_map,mr", metavar="KIND,...",
        help="parametric_map (the values), mr (single images for any viewer), or both (default)",
    )  # fmt: skip
    made.add_argument("--header", type=Path, metavar="SCAN.h5", help="MRD file whose header tells scanner and patient")
    made.add_argument("--identified", action="store_true", help="take over patient and study from --header")
    made.add_argument(
        "--subject", default="", help="patient ID of what is not identified (default: made from the maps)"
    )
    add_body_part(made)
    made.set_defaults(run=_write)


def _add_send(actions: Any) -> None:
    sent = actions.add_parser("send", help="store files in a PACS by C-STORE or STOW-RS")
    sent.add_argument(
        "paths", type=Path, nargs="+", metavar="OUT", help="folders (their dicom/, or *.dcm in them) or files"
    )
    sent.add_argument("--host", help="of the PACS")
    sent.add_argument("--port", type=int, help="of the PACS")
    sent.add_argument("--aet", metavar="TITLE", help="AE title of this program (default MRF)")
    sent.add_argument("--aec", metavar="TITLE", help="AE title of the PACS")
    sent.add_argument("--tls", action="store_true", help="encrypt C-STORE")
    sent.add_argument("--tls-ca", type=Path, metavar="FILE", help="certificates to trust (default: the system's)")
    sent.add_argument("--tls-cert", type=Path, metavar="FILE", help="own certificate with its key, if asked for")
    sent.add_argument("--stow", metavar="URL", help="of a DICOMweb service, instead of host and titles")
    sent.add_argument("--timeout", type=seconds, default=30.0, metavar="S", help="of every answer (default 30)")
    sent.set_defaults(run=_send)


def _quiet() -> None:
    """Libraries keep their steps to themselves; what goes wrong is in the error that ends the command."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    for noisy in ("highdicom", "dicomweb_client", "pydicom"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _write(told: argparse.Namespace) -> None:
    from ..core.errors import InputError
    from ..core.maps import Maps
    from ..dicom.write import KINDS, write_dicom
    from ..io.images import read_labels

    kinds = [kind for kind in told.kinds.split(",") if kind]
    if not kinds or not set(kinds) <= set(KINDS):
        raise InputError(f"--as: got {told.kinds!r}, expected {', '.join(KINDS)}, or both with a comma between")
    _quiet()
    maps = Maps.load(told.output)
    labels = None if told.rois is None else read_labels(told.rois, maps.affine, maps.shape)
    top = (told.output if told.output.is_dir() else told.output.parent) / "dicom"
    written = write_dicom(
        maps, top, origin=_origin(told), kinds=kinds, labels=labels, names=region_names(told.names)
    )  # fmt: skip
    for place, count in Counter(path.parent if path.parent != top else path for path in written).items():
        print(f"{place}: {count} file{'s' if count > 1 else ''}")


def _origin(told: argparse.Namespace) -> Origin:
    from ..core.errors import InputError
    from ..dicom.origin import Origin, scan_header

    if told.identified and told.subject:
        raise InputError(
            "--subject: got it and --identified; an identified patient has an ID of its own: leave one out"
        )
    if told.header is not None:
        found = Origin.of_header(
            scan_header(told.header), identified=told.identified, subject=told.subject, body_part=told.body_part,
            laterality=told.laterality,
        )  # fmt: skip
        if told.identified and not found.patient_id:
            raise InputError(
                f"--identified: the header of {told.header} has no patient's ID (subjectInformation/patientID), so "
                "nothing tells who it is; leave --identified out"
            )
        return found
    if told.identified:
        raise InputError("--identified: nothing tells who it is; give the scan with --header SCAN.h5")
    return Origin.anonymous(told.subject, body_part=told.body_part or "BRAIN", laterality=told.laterality)


def _send(told: argparse.Namespace) -> None:
    from ..core.errors import InputError
    from ..dicom.outgoing import files_in
    from ..dicom.send import send, stow

    _quiet()
    given = {f"--{name}": getattr(told, name) for name in ("host", "port", "aec")}
    if told.stow:
        extra = [name for name, value in {**given, "--aet": told.aet}.items() if value is not None] + [
            "--tls"
        ] * _wants_tls(told)
        if extra:
            raise InputError(f"--stow: got {' '.join(extra)} too; give either a URL or host, port and titles")
        sent = stow(files_in(told.paths), told.stow, timeout=told.timeout)
    else:
        missing = [name for name, value in given.items() if value is None]
        if missing:
            raise InputError(f"{missing[0]}: missing; give --host, --port and --aec, or --stow URL")
        files = files_in(told.paths)
        sent = send(files, told.host, told.port, told.aet or "MRF", told.aec, tls=_tls(told), timeout=told.timeout)
    for series, count in Counter(one.series for one in sent).items():
        print(f"{series or 'without a description'}: {count} stored")
    warnings = sum(bool(one.warning) for one in sent)
    print(
        f"{len(sent)} file{'s' if len(sent) > 1 else ''} stored" + (f", {warnings} with a warning" if warnings else "")
    )


def _wants_tls(told: argparse.Namespace) -> bool:
    return told.tls or told.tls_ca is not None or told.tls_cert is not None


def _tls(told: argparse.Namespace) -> ssl.SSLContext | None:
    """What encrypts, if it was asked for."""
    import ssl

    from ..core.errors import FileError

    if not _wants_tls(told):
        return None
    try:
        context = ssl.create_default_context(cafile=told.tls_ca)
        if told.tls_cert is not None:
            context.load_cert_chain(told.tls_cert)
    except OSError as error:
        names = " or ".join(str(path) for path in (told.tls_ca, told.tls_cert) if path)
        raise FileError(f"{names}: no certificates can be read from it ({error}); give PEM files") from error
    return context
