"""DICOM files to a PACS: C-STORE, or STOW-RS. What is not confirmed is an error."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ..core.errors import FileError, InputError, UnsupportedError
from .extra import needed
from .outgoing import Head, Sent, heads_of, whole

log = logging.getLogger(__name__)
_CONTEXTS = 128  # presentation contexts that one association can ask for
_GET_INSTEAD = (301, 302, 303)  # HTTP: ask elsewhere, and for something; what was to be stored is not sent again
_CURES = dict.fromkeys((401, 403), "check user and password in ~/.netrc") | {503: "send again when it is less busy"}


def send(
    files: Sequence[str | Path],
    host: str,
    port: int,
    calling: str,
    called: str,
    *,
    tls: ssl.SSLContext | None = None,
    timeout: float = 30.0,
) -> list[Sent]:
    """Store files by C-STORE, in the transfer syntax they have; all are looked at before anything is sent.

    A PACS that takes no explicit value representations of what is not compressed gets implicit ones.

    Parameters
    ----------
    files : sequence of path
    host, port : str, int
    calling, called : str
        Application-entity titles of this program and of the PACS.
    tls : SSLContext, optional
        None = not encrypted.
    timeout : float
        s, of the connection and of every answer.

    Returns
    -------
    list of Sent

    Raises
    ------
    FileError
        A file that is missing or no DICOM; no connection; an association that is refused or aborted; a kind of file
        that is not accepted; any status that is neither success nor a warning. The message says what was stored before.
    InputError
        Titles or a port that cannot be.
    UnsupportedError
        pynetdicom is not installed, or more kinds of files than an association has room for.

    References
    ----------
    DICOM PS3.4, annex B (Storage Service Class); PS3.5, 10.1 (the default transfer syntax)
    """
    pynetdicom = needed("pynetdicom")
    _check_address(host, port, calling, called)
    heads = heads_of(files)
    entity = _entity(pynetdicom, heads, calling, timeout)
    where = f"{host}:{port} ({calling} to {called})"
    _reach(host, port, where, timeout)
    association, refusals = _associate(entity, host, port, called, tls)
    try:
        _check_association(association, refusals, where, encrypted=tls is not None)
        _check_accepted(association, heads, where)
        out: list[Sent] = []
        for head in heads:
            out.append(_stored(association, head, where, f"{len(out)} of {len(heads)} files were stored before"))
        return out
    finally:
        if association.is_established:
            association.release()


def _check_address(host: str, port: int, calling: str, called: str) -> None:
    if not host or not 0 < port < 65536:
        raise InputError(f"host and port: got {host!r} and {port}, expected a name and 1 to 65535")
    for what, title in (("calling", calling), ("called", called)):
        if (
            not (0 < len(title.strip()) <= len(title) <= 16 and title.isascii() and title.isprintable())
            or "\\" in title
        ):
            raise InputError(f"{what}: got {title!r}, expected an AE title: 1 to 16 ASCII characters, no backslash")


def _entity(pynetdicom: Any, heads: Sequence[Head], calling: str, timeout: float) -> Any:
    """This side of the association: asks for what the files are, and waits no longer than `timeout`."""
    entity = pynetdicom.AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout
    kinds = sorted({(head.sop_class_uid, syntax) for head in heads for syntax in _syntaxes(head)})
    if len(kinds) > _CONTEXTS:
        raise UnsupportedError(f"files: are of {len(kinds)} kinds, expected at most {_CONTEXTS}; send fewer at once")
    for kind in kinds:
        entity.add_requested_context(*kind)
    return entity


def _syntaxes(head: Head) -> tuple[str, ...]:
    """In which a file can be sent: its own, and the default one if that takes no more than to write it anew."""
    own = head.transfer_syntax_uid
    return (own, ImplicitVRLittleEndian) if own == ExplicitVRLittleEndian else (own,)


def _reach(host: str, port: int, where: str, timeout: float) -> None:
    """Whether somebody listens there; the library does not tell why not."""
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as error:
        raise FileError(
            f"{where}: no connection ({error.strerror or error}); check host and port, nothing was sent"
        ) from error


def _associate(
    entity: Any, host: str, port: int, called: str, tls: ssl.SSLContext | None
) -> tuple[Any, list[Any]]:  # fmt: skip
    """The association, and refusals of it, which are heard as they arrive.

    The library calls one an abort if the PACS has hung up before its own thread has looked whether it is connected.
    """
    events, refusals = needed("pynetdicom.events"), list[Any]()

    def heard(event: Any) -> None:
        if type(event.pdu).__name__ == "A_ASSOCIATE_RJ":
            refusals.append(event.pdu)

    handlers, secured = [(events.EVT_PDU_RECV, heard)], (tls, host) if tls else None
    return entity.associate(host, port, ae_title=called, tls_args=secured, evt_handlers=handlers), refusals


def _check_association(association: Any, refusals: list[Any], where: str, *, encrypted: bool) -> None:
    if association.is_established or association.rejected_contexts:  # of which the next check tells
        return
    if refusals:
        said = refusals[0]
        raise FileError(
            f"{where}: refused the association ({said.result_str}: {said.reason_str}); check both AE "
            "titles and what the PACS allows, nothing was sent"
        )
    cure = "check certificates and whether that port speaks TLS" if encrypted else "check that the port speaks DICOM"
    raise FileError(f"{where}: aborted or did not answer the request for an association; {cure}, nothing was sent")


def _check_accepted(association: Any, heads: Sequence[Head], where: str) -> None:
    taken = {(c.abstract_syntax, syntax) for c in association.accepted_contexts for syntax in c.transfer_syntax}
    for head in heads:
        if not taken & {(head.sop_class_uid, syntax) for syntax in _syntaxes(head)}:
            kind = pydicom.uid.UID(head.sop_class_uid).name
            syntax = pydicom.uid.UID(head.transfer_syntax_uid).name
            raise FileError(f"{where}: does not accept {kind} in {syntax}, as {head.file} is; nothing was sent")


def _stored(association: Any, head: Head, where: str, so_far: str) -> Sent:
    """Send one file and wait for what becomes of it."""
    dataset = whole(head)
    if not association.is_established:
        raise FileError(f"{where}: ended the association before {head.file}; {so_far}")
    try:
        status = association.send_c_store(dataset)
    except (RuntimeError, ValueError, AttributeError) as error:
        raise FileError(f"{where}: {head.file} was not sent ({error}); {so_far}") from error
    if "Status" not in status:
        cause = "aborted, timed out, or it takes no files from this title"
        raise FileError(f"{where}: no valid answer about {head.file}: {cause}; {so_far}")
    code = int(status.Status)
    category = needed("pynetdicom.status").code_to_category(code)
    said = " ".join(str(status.get("ErrorComment", "")).split())
    told = f"status 0x{code:04X}{f', {said}' if said else ''}"
    if category == "Warning":
        log.warning("%s: %s was stored with a warning: %s", where, head.file, told)
        return Sent(head.file, head.sop_instance_uid, head.series, told)
    if code != 0:
        raise FileError(f"{where}: did not store {head.file} ({category.lower()}, {told}); {so_far}")
    return Sent(head.file, head.sop_instance_uid, head.series)


def stow(files: Sequence[str | Path], url: str, *, batch_bytes: int = 32 << 20, timeout: float = 60.0) -> list[Sent]:
    """Store files by STOW-RS (DICOMweb).

    Parameters
    ----------
    files : sequence of path
    url : str
        Of the DICOMweb service, e.g. "https://pacs.example.org/dicom-web"; user and password come from ~/.netrc.
    batch_bytes : int
        Files of about so many bytes go in one request; a larger file goes alone.
    timeout : float
        s, of the connection and of every answer.

    Returns
    -------
    list of Sent
        One a file, in order.

    Raises
    ------
    FileError
        A file that is missing or no DICOM, a server that does not answer or answers with an error, and any file the
        answer does not confirm. The message says what was stored before.
    InputError
        A URL that is none, or no files.
    UnsupportedError
        dicomweb-client is not installed.

    References
    ----------
    DICOM PS3.18, 10.5 (Store Transaction)
    """
    web, requests = needed("dicomweb_client.web"), needed("requests")
    if not url.startswith(("http://", "https://")):
        raise InputError(f"url: got {url!r}, expected one that begins with http:// or https://")
    heads = heads_of(files)
    out: list[Sent] = []
    with requests.Session() as session:
        client = _client(web, session, url, timeout)
        for batch in _batches(heads, batch_bytes):
            so_far = f"{len(out)} of {len(heads)} files were stored before"
            answer = _answer(client, batch, url, so_far)
            named = {str(one.get("ReferencedSOPInstanceUID", "")) for one in answer.get("ReferencedSOPSequence") or []}
            held = len(out) + sum(head.sop_instance_uid in named for head in batch)
            out += [_confirmed(answer, head, url, f"{held} of {len(heads)} files were stored") for head in batch]
    return out


def _answer(client: Any, batch: Sequence[Head], url: str, so_far: str) -> Any:
    """What the server says about files it was sent."""
    requests = needed("requests")
    try:
        return client.store_instances([whole(head) for head in batch])
    except requests.HTTPError as error:
        status = error.response.status_code
        told = _about_files(error.response)
        if told.get("ReferencedSOPSequence"):  # some were stored all the same
            return told
        reasons = sorted({_reason(one.get("FailureReason")) for one in told.get("FailedSOPSequence") or []})
        said = ", ".join([f"HTTP {status} {error.response.reason}", *reasons])
        many = f" and {len(batch) - 1} more" if len(batch) > 1 else ""
        cure = "see its log" if reasons else _CURES.get(status, "check the URL")
        raise FileError(f"{url}: did not store {batch[0].file}{many} ({said}); {cure}, {so_far}") from error
    except (requests.JSONDecodeError, SyntaxError, TypeError, KeyError, AttributeError) as error:
        raise FileError(f"{url}: its answer cannot be read ({error}): nothing is confirmed; {so_far}") from error
    except requests.RequestException as error:
        raise FileError(f"{url}: no answer ({_short(error)}); check URL and server, {so_far}") from error
    except ValueError as error:
        raise FileError(f"{url}: its answer makes no sense ({error}): nothing is confirmed; {so_far}") from error


def _about_files(response: Any) -> Dataset:
    """What an answer that is an error of HTTP tells of files; empty if nothing."""
    try:
        return Dataset.from_json(response.json())
    except Exception:  # a page for people, a list, nonsense: the status is what there is to tell
        return Dataset()


def _reason(code: Any) -> str:
    if code is None:
        return "without a reason"
    return f"failure 0x{code:04X}" if isinstance(code, int) else f"failure {code}"


def _client(web: Any, session: Any, url: str, timeout: float) -> Any:
    """A client that sends each request once and in one piece: a second try would be empty."""
    try:
        client = web.DICOMwebClient(url.rstrip("/"), session, chunk_size=1 << 40, timeout=timeout, callback=_plain_type)
    except ValueError as error:
        raise InputError(f"url: got {url!r} ({error}), expected e.g. https://pacs.example.org/dicom-web") from error
    client.set_http_retry_params(retry=False)
    return client


def _plain_type(response: Any, *_: Any, **__: Any) -> Any:
    """Media types may come with a character set, which the library takes for another type; moved services are told."""
    if response.status_code in _GET_INSTEAD:
        to = response.headers.get("Location", "another place").removesuffix("/studies")
        raise needed("requests").RequestException(f"it has moved to {to}, give that URL")
    told = response.headers.get("Content-Type", "")
    response.headers["Content-Type"] = told.partition(";")[0].strip().lower()
    return response


def _short(error: Exception) -> str:
    """The innermost reason, without the objects that wrap it."""
    inner: BaseException = error
    while inner.args and isinstance(getattr(inner.args[0], "reason", inner.args[0]), BaseException):
        inner = getattr(inner.args[0], "reason", inner.args[0])
    return str(inner).rpartition(": ")[2] or type(inner).__name__


def _batches(heads: Sequence[Head], limit: int) -> Iterator[list[Head]]:
    batch: list[Head] = []
    size = 0
    for head in heads:
        more = head.file.stat().st_size
        if batch and size + more > limit:
            yield batch
            batch, size = [], 0
        batch, size = [*batch, head], size + more
    yield batch


def _confirmed(answer: Dataset, head: Head, url: str, so_far: str) -> Sent:
    for failed in answer.get("FailedSOPSequence", None) or []:
        if str(failed.get("ReferencedSOPInstanceUID", "")) == head.sop_instance_uid:
            told = _reason(failed.get("FailureReason"))
            raise FileError(f"{url}: did not store {head.file} ({told}); {so_far}")
    for stored in answer.get("ReferencedSOPSequence", None) or []:
        if str(stored.get("ReferencedSOPInstanceUID", "")) == head.sop_instance_uid:
            warning = stored.get("WarningReason")
            told = "" if warning is None else _reason(warning).replace("failure", "warning")
            if told:
                log.warning("%s: %s was stored with a warning: %s", url, head.file, told)
            return Sent(head.file, head.sop_instance_uid, head.series, told)
    raise FileError(f"{url}: its answer does not say that {head.file} was stored; {so_far}")
