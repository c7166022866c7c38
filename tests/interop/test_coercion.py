"""Peers with coercion rules, as pynetdicom sees them: what they find and get, what others get, and what stays stored. And the
policy for other content that comes by STOW."""
import copy
import json

import pydicom
import pytest
import raw
import requests
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGLSLossless, RLELossless, generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind as PATIENT_FIND,
    PatientRootQueryRetrieveInformationModelMove as PATIENT_MOVE,
    StudyRootQueryRetrieveInformationModelFind as FIND,
    StudyRootQueryRetrieveInformationModelGet as GET,
    StudyRootQueryRetrieveInformationModelMove as MOVE,
)
from conftest import SAMPLES
from real import parsed, unlike
from test_peers import file_of, keys, put, remove, triptych
from test_store import store
from triptych import data_set_bytes, free_port

STORE = raw.SECONDARY_CAPTURE
RULES = [
    "both AccessionNumber prefix H-",
    "both PatientID map P1=Q77",
    "retrieve PatientName set DOE^JOHN",
    "find PatientName clear",
    "retrieve InstitutionName remove",
    'retrieve (0009,"ACME 1.0",01) remove',
]


@pytest.fixture(autouse=True)
def nobody_is_left(server):
    yield
    for peer in requests.get(server.url + "/api/peers", timeout=10).json()["peers"]:
        remove(server, peer["ae"])


def image(syntax=raw.EXPLICIT, study=None, pixels=320_000):
    made = pydicom.Dataset()
    made.SpecificCharacterSet = "ISO_IR 100"
    made.SOPClassUID, made.SOPInstanceUID = STORE, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = study or generate_uid(), generate_uid()
    made.PatientID, made.PatientName, made.AccessionNumber = "P1", "Müller^Jörg", "A1"
    made.InstitutionName, made.Modality = "Röntgen", "OT"
    block = made.private_block(0x0009, "ACME 1.0", create=True)
    block.add_new(0x01, "LO", "vendor")
    block.add_new(0x02, "LO", "stays")
    made.Rows, made.Columns, made.BitsAllocated, made.BitsStored, made.HighBit = pixels // 64, 64, 8, 8, 7
    made.SamplesPerPixel, made.PixelRepresentation, made.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    made.PixelData = bytes(at * 7 % 256 for at in range(pixels))
    if syntax == JPEGLSLossless:
        made.PixelData = encapsulate([made.PixelData])
        made["PixelData"].VR = "OB"
        made["PixelData"].is_undefined_length = True
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    return made


def associate(server, calling, contexts, roles=(), handlers=()):
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
    for abstract, syntaxes in contexts:
        ae.add_requested_context(abstract, syntaxes)
    association = ae.associate(
        "127.0.0.1", server.dimse, ae_title="TRIPTYCH", ext_neg=list(roles), evt_handlers=list(handlers)
    )
    assert association.is_established
    return association


@pytest.fixture
def study(server):
    """A study of three objects, in as many encodings."""
    uid = generate_uid()
    made = [image(syntax, uid) for syntax in (raw.EXPLICIT, raw.IMPLICIT, JPEGLSLossless)]
    association = associate(server, "SENDER", [(STORE, [one.file_meta.TransferSyntaxUID]) for one in made])
    for one in made:
        assert association.send_c_store(one).Status == 0x0000
    association.release()
    return made


def get(server, calling, study):
    got = {}

    def take(event):
        got[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
        return 0x0000

    contexts = [(GET, [raw.IMPLICIT]), *((STORE, [one.file_meta.TransferSyntaxUID]) for one in study)]
    handlers = [(evt.EVT_C_STORE, take)]
    association = associate(server, calling, contexts, [build_role(STORE, scp_role=True)], handlers)
    answers = list(association.send_c_get(keys(StudyInstanceUID=study[0].StudyInstanceUID), GET))
    association.release()
    assert answers[-1][0].Status == 0x0000, answers[-1]
    return got


def move(server, calling, destination, wanted, model=MOVE):
    association = associate(server, calling, [(model, [raw.IMPLICIT])])
    answers = list(association.send_c_move(wanted, destination, model))
    association.release()
    return answers[-1][0]


def sent_bytes(one):
    """What pynetdicom sends of it."""
    return encode(one, one.file_meta.TransferSyntaxUID == raw.IMPLICIT, True)


def is_coerced(got, sent):
    got = parsed(got, sent.file_meta.TransferSyntaxUID)
    assert (got.AccessionNumber, got.PatientID, got.PatientName) == ("H-A1", "Q77", "DOE^JOHN")
    assert "InstitutionName" not in got
    private = got.private_block(0x0009, "ACME 1.0")
    assert 0x01 not in private and private[0x02].value in ("stays", b"stays ")
    assert got.PixelData == sent.PixelData
    (record,) = got.OriginalAttributesSequence
    assert (record.ReasonForTheAttributeModification, record.ModifyingSystem) == ("COERCE", "TRIPTYCH")
    assert record.SourceOfPreviousValues == "SENDER"
    assert len(record.AttributeModificationDateTime) == 23
    (former,) = record.ModifiedAttributesSequence
    assert (former.AccessionNumber, former.PatientID, former.InstitutionName) == ("A1", "P1", "Röntgen")
    assert former.PatientName == "Müller^Jörg"
    assert former.private_block(0x0009, "ACME 1.0")[0x01].value in ("vendor", b"vendor")
    assert len(former) == 6
    untouched = {"SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "Rows", "Columns", "Modality"}
    assert all(got[name].value == sent[name].value for name in untouched)


def test_a_peer_with_rules_gets_what_they_make_and_all_others_the_originals(server, study):
    port, moved = free_port(), {}
    scp = AE(ae_title="WS")
    for one in study:
        scp.add_supported_context(STORE, one.file_meta.TransferSyntaxUID)

    def take(event):
        moved[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
        return 0x0000

    listener = scp.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    before = [file_of(server, one) for one in study]
    wanted = keys(StudyInstanceUID=study[0].StudyInstanceUID)
    try:
        put(server, "WS", address=f"127.0.0.1:{port}", coerce=RULES)
        got = get(server, "WS", study)
        assert move(server, "OTHER", "WS", wanted).Status == 0x0000, "by the rules of who receives"
        for one in study:
            is_coerced(got[one.SOPInstanceUID], one)
            is_coerced(moved[one.SOPInstanceUID], one)
        others = get(server, "OTHER", study)
        for one in study:
            assert others[one.SOPInstanceUID] == sent_bytes(one)
        put(server, "WS", address=f"127.0.0.1:{port}")
        moved.clear()
        assert move(server, "OTHER", "WS", wanted).Status == 0x0000
        for one in study:
            assert moved[one.SOPInstanceUID] == sent_bytes(one)
    finally:
        listener.shutdown()
    after = [file_of(server, one) for one in study]
    assert after == before
    for one, file in zip(study, after):
        assert data_set_bytes(file) == sent_bytes(one), "what is stored is what was sent"


def test_an_object_is_coerced_and_converted_at_once(server):
    """A receiver that takes nothing but plain images, and one that takes nothing but RLE."""
    put(server, "WS", coerce=["retrieve PatientID set ZZZ", "retrieve PatientBirthDate remove"])
    named = {sample.path.name: sample for sample in SAMPLES}
    for name, syntax in (
        ("rtdose_rle.dcm", raw.EXPLICIT),
        ("SC_rgb_jpeg_gdcm.dcm", raw.IMPLICIT),
        ("examples_jpeg2k.dcm", raw.EXPLICIT),
        ("ExplVR_BigEnd.dcm", raw.IMPLICIT),
        ("CT_small.dcm", RLELossless),
        ("CT_small.dcm", raw.IMPLICIT),
    ):
        sample, got = named[name], []
        assert store(server, sample) == 0x0000

        def take(event):
            got.append(event.request.DataSet.getvalue())
            return 0x0000

        header = sample.header
        contexts = [(GET, [raw.IMPLICIT]), (header.SOPClassUID, [syntax])]
        role = build_role(header.SOPClassUID, scp_role=True)
        association = associate(server, "WS", contexts, [role], [(evt.EVT_C_STORE, take)])
        asked = keys("IMAGE", StudyInstanceUID=header.StudyInstanceUID, SeriesInstanceUID=header.SeriesInstanceUID)
        asked.SOPInstanceUID = header.SOPInstanceUID
        answers = list(association.send_c_get(asked, GET))
        association.release()
        assert answers[-1][0].Status == 0x0000, (name, server.said()[-2000:])
        shown, before = parsed(got[0], syntax), parsed(sample.bytes, sample.syntax)
        assert (shown.PatientID, "PatientBirthDate" in shown) == ("ZZZ", False)
        (former,) = shown.OriginalAttributesSequence[-1].ModifiedAttributesSequence
        assert former.PatientID == (before.get("PatientID") or "")
        assert (shown.pixel_array == before.pixel_array).all(), name
        assert server.fetch(header) == sample.bytes


CHANGED = [0x00100020, 0x00100010, 0x00081030, 0x00081140, 0x00081032, 0x04000561]


def test_of_every_real_file_nothing_changes_but_what_the_rules_say(server):
    """Images in many syntaxes, with sequences of both kinds, reports, plans: as they are stored, but for four elements."""
    rules = ["PatientID set ZZZ", "PatientName suffix ^X", "StudyDescription clear", "ReferencedImageSequence remove"]
    rules = [f"retrieve {rule}" for rule in [*rules, "ProcedureCodeSequence clear"]]
    put(server, "WS", coerce=rules)
    for sample in SAMPLES:
        header = sample.header
        assert store(server, sample) == 0x0000, sample
        got = []

        def take(event):
            got.append((event.request.DataSet.getvalue(), str(event.context.transfer_syntax)))
            return 0x0000

        syntax = sample.syntax
        contexts = [(GET, [raw.IMPLICIT]), (header.SOPClassUID, [syntax])]
        role = build_role(header.SOPClassUID, scp_role=True)
        association = associate(server, "WS", contexts, [role], [(evt.EVT_C_STORE, take)])
        asked = keys("IMAGE", StudyInstanceUID=header.StudyInstanceUID, SeriesInstanceUID=header.SeriesInstanceUID)
        asked.SOPInstanceUID = header.SOPInstanceUID
        answers = list(association.send_c_get(asked, GET))
        association.release()
        assert answers[-1][0].Status == 0x0000, (sample, server.said()[-2000:])
        (after, became), before = got[0], parsed(sample.bytes, sample.syntax)
        assert became == syntax
        shown = parsed(after, syntax)
        assert unlike(before, shown, CHANGED) == "", sample
        assert shown.PatientID == "ZZZ" and "ReferencedImageSequence" not in shown, sample
        assert not shown.get("StudyDescription") and not shown.get("ProcedureCodeSequence")
        assert str(shown.get("PatientName", "")) == (f"{before.PatientName}^X" if before.get("PatientName") else "")
        (former,) = shown.OriginalAttributesSequence[-1].ModifiedAttributesSequence
        assert former.PatientID == (before.get("PatientID") or ""), sample
        if "ReferencedImageSequence" in before:
            assert len(former.ReferencedImageSequence) == len(before.ReferencedImageSequence)
        # A deflated object is inflated, changed and deflated again.
        if "PixelData" in before and became != DeflatedExplicitVRLittleEndian:
            tail = sample.bytes[sample.bytes.rindex(pixel_tag(became)) :]
            assert after.endswith(tail), "pixel data and all behind it, byte for byte"
        assert server.fetch(header) == sample.bytes, "what is stored stays"


def pixel_tag(syntax):
    return b"\x7f\xe0\x00\x10" if syntax == ExplicitVRBigEndian else b"\xe0\x7f\x10\x00"


def find(server, calling, asked, model=FIND):
    association = associate(server, calling, [(model, [raw.IMPLICIT])])
    answers = list(association.send_c_find(asked, model))
    association.release()
    assert answers[-1][0].Status == 0x0000
    return [answer for _, answer in answers[:-1]]


def test_a_peer_with_rules_asks_for_what_it_is_shown(server, study):
    put(server, "WS", coerce=RULES)
    uid = study[0].StudyInstanceUID

    def ids(calling, **asked):
        answers = find(server, calling, keys(StudyInstanceUID=uid, **{"PatientID": "", "PatientName": "", **asked}))
        return [(one.PatientID, str(one.PatientName), one.get("AccessionNumber")) for one in answers]

    shown, stored = ("Q77", "", "H-A1"), ("P1", "Müller^Jörg", "A1")
    assert ids("WS", AccessionNumber="H-A1") == [shown]
    assert ids("WS", AccessionNumber="H-*") == ids("WS", AccessionNumber="", PatientID="Q77") == [shown]
    assert ids("WS", AccessionNumber="A1") == ids("WS", PatientID="P1") == ids("WS", PatientName="M*") == []
    assert ids("OTHER", AccessionNumber="A1") == ids("OTHER", AccessionNumber="", PatientID="P1") == [stored]
    assert ids("OTHER", AccessionNumber="H-A1") == []
    # A retrieval by patient is by the id that was shown.
    put(server, "WS", coerce=["find PatientID prefix W-"])
    patients = find(server, "WS", keys("PATIENT", PatientID="W-P1"), PATIENT_FIND)
    assert [one.PatientID for one in patients] == ["W-P1"]
    by_patient = keys("PATIENT", PatientID="W-P1")
    assert move(server, "WS", "NOBODY", by_patient, PATIENT_MOVE).NumberOfFailedSuboperations >= 3, "nobody listens there"
    assert move(server, "WS", "NOBODY", keys("PATIENT", PatientID="P1"), PATIENT_MOVE).Status == 0x0000


def test_rules_are_set_listed_and_removed_on_the_command_line(server):
    said = triptych(server, "set", "WS", "--coerce", RULES[0], "--coerce", 'retrieve (0009,"ACME 1.0",01) remove')
    assert "WS is set: it may" in said and "2 rules" in said
    triptych(server, "set", "WS", "--coerce", "find (0010,0010) clear", "--notes", "ward 3")
    listed = json.loads(triptych(server, "list", "--json"))["peers"][0]
    assert listed["coerce"] == [RULES[0], 'retrieve (0009,"ACME 1.0",01) remove', "find PatientName clear"]
    assert all(rule in triptych(server, "list") for rule in listed["coerce"])
    triptych(server, "set", "WS", "--no-coerce", RULES[0])
    assert len(json.loads(triptych(server, "list", "--json"))["peers"][0]["coerce"]) == 2
    for bad, why in (
        ("both StudyInstanceUID remove", "found by"),
        ("both (0002,0010) remove", "transmitted"),
        ("both PixelData remove", "pixel data"),
        ("both AccessionNumber set 12345678901234567", "16 characters"),
        ("both PatientName set Müller", "ASCII"),
    ):
        assert why in triptych(server, "set", "WS", "--coerce", bad, code=1)
    answer = requests.put(server.url + "/api/peers/WS", json={"coerce": ["both SOPInstanceUID clear"]}, timeout=10)
    assert answer.status_code == 400 and "found by" in answer.text
    triptych(server, "set", "WS", "--no-coerce", "all")
    entry = json.loads(triptych(server, "list", "--json"))["peers"][0]
    assert "coerce" not in entry and entry["notes"] == "ward 3"


def stow(server, *data_sets):
    files = [raw_file(one) for one in data_sets]
    body = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in files) + b"--b--\r\n"
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    return requests.post(server.web + "/studies", data=body, headers={"Content-Type": kind}, timeout=60)


def raw_file(data_set):
    out = pydicom.filebase.DicomBytesIO()
    data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    pydicom.dcmwrite(out, data_set, enforce_file_format=True)
    return out.getvalue()


def test_other_content_by_stow_follows_the_policy_for_dicomweb_clients(server):
    first = image(pixels=64)
    other = copy.deepcopy(first)
    other.ImageComments = "two"
    assert stow(server, first).status_code == 200
    triptych(server, "set", "*dicomweb", "--other-content", "reject")
    assert "other content: reject" in triptych(server, "list")
    before = server.totals()
    refused = stow(server, other)
    assert refused.status_code == 409
    assert refused.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0x0111]
    assert stow(server, first).status_code == 200, "the same again is normal"
    some = stow(server, other, image(pixels=64))
    assert some.status_code == 202 and len(some.json()["00081199"]["Value"]) == 1
    assert server.totals()["versions"] == before["versions"]
    # A caller who names itself so is none of those.
    association = associate(server, "*dicomweb", [(STORE, [raw.EXPLICIT])])
    assert association.send_c_store(other).Status == 0x0000
    association.release()
    assert server.totals()["versions"] == before["versions"] + 1
    other.ImageComments = "three"
    put(server, "*dicomweb", other_content="replace")
    assert stow(server, other).status_code == 200
    current = pydicom.dcmread(pydicom.filebase.DicomBytesIO(file_of(server, first)))
    assert current.ImageComments == "three"
    remove(server, "*dicomweb")
    other.ImageComments = "four"
    kept = stow(server, other)
    assert kept.status_code == 202
    assert kept.json()["00081199"]["Value"][0]["00081196"]["Value"] == [0xB000]
    answer = requests.put(server.url + "/api/peers/*dicomweb", json={"rights": []}, timeout=10)
    assert answer.status_code == 400 and "DICOMweb clients" in answer.text
