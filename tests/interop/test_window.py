"""Asynchronous operations (PS3.7 D.3.3.3), as dcm4che's senders propose them: requests that do not wait for answers."""
from io import BytesIO

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_STORE
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation
from pynetdicom.sop_class import (
    SecondaryCaptureImageStorage as CAPTURE,
    StudyRootQueryRetrieveInformationModelFind as STUDY_ROOT,
    Verification,
)


def window(invoked):
    asked = AsynchronousOperationsWindowNegotiation()
    asked.maximum_number_operations_invoked, asked.maximum_number_operations_performed = invoked, 1
    return asked


@pytest.fixture
def pipelined(server):
    """An association that was granted eight operations, with its own reactor out of the way."""
    contexts = [(CAPTURE, [ExplicitVRLittleEndian]), (STUDY_ROOT, [ExplicitVRLittleEndian]), (Verification, [ImplicitVRLittleEndian])]
    association = server.associate(contexts, roles=[window(0)])
    association._reactor_checkpoint.clear()
    yield association
    association._reactor_checkpoint.set()
    association.release()


def context_of(association, sop_class):
    return next(context.context_id for context in association.accepted_contexts if context.abstract_syntax == sop_class)


def capture(study, series, number):
    made = pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CAPTURE, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = study, series
    made.PatientID, made.PatientName, made.InstanceNumber = "WINDOW", "Pipe^Line", number
    made.Rows = made.Columns = 64
    made.SamplesPerPixel, made.BitsAllocated, made.BitsStored, made.HighBit = 1, 8, 8, 7
    made.PixelRepresentation, made.PhotometricInterpretation = 0, "MONOCHROME2"
    made.PixelData = bytes(number % 256 for _ in range(64 * 64))
    return made


def store(association, message, data_set):
    request = C_STORE()
    request.MessageID, request.Priority = message, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = data_set.SOPClassUID, data_set.SOPInstanceUID
    request.DataSet = BytesIO(encode(data_set, False, True))
    association.dimse.send_msg(request, context_of(association, CAPTURE))


def find(association, message, study):
    keys = pydicom.Dataset()
    keys.QueryRetrieveLevel, keys.StudyInstanceUID, keys.NumberOfStudyRelatedInstances = "STUDY", study, ""
    request = C_FIND()
    request.MessageID, request.Priority, request.AffectedSOPClassUID = message, 2, STUDY_ROOT
    request.Identifier = BytesIO(encode(keys, False, True))
    association.dimse.send_msg(request, context_of(association, STUDY_ROOT))


def echo(association, message):
    request = C_ECHO()
    request.MessageID, request.AffectedSOPClassUID = message, Verification
    association.dimse.send_msg(request, context_of(association, Verification))


def answer(association):
    _, response = association.dimse.get_msg(block=True)
    assert response is not None, "no answer within 30 s"
    return response


@pytest.mark.parametrize("asked, granted", [(0, 8), (1, 1), (5, 5), (100, 8)])
def test_as_many_operations_are_granted_as_are_asked_for_up_to_eight(server, asked, granted):
    association = server.associate([(Verification, [ImplicitVRLittleEndian])], roles=[window(asked)])
    assert association.acceptor.asynchronous_operations == (granted, 1)
    association.release()


def test_fifty_objects_are_sent_eight_ahead_and_a_query_behind_them_counts_them_all(server, pipelined):
    study, series = generate_uid(), generate_uid()
    sent, owed, failed = {}, set(), []

    def hear():
        response = answer(pipelined)
        owed.remove(response.MessageIDBeingRespondedTo)
        if response.Status != 0 or response.AffectedSOPInstanceUID != sent[response.MessageIDBeingRespondedTo]:
            failed.append(response)

    for number in range(1, 51):
        made = capture(study, series, number)
        store(pipelined, number, made)
        sent[number] = made.SOPInstanceUID
        owed.add(number)
        if len(owed) == 8:
            hear()
    find(pipelined, 99, study)
    while owed:
        hear()
    assert failed == []
    pending, final = answer(pipelined), answer(pipelined)
    assert (pending.Status, final.Status) == (0xFF00, 0)
    found = decode(pending.Identifier, False, True)
    assert int(found.NumberOfStudyRelatedInstances) == 50


def test_requests_during_a_query_are_answered_after_it(server, pipelined):
    study, series = generate_uid(), generate_uid()
    store(pipelined, 1, capture(study, series, 1))
    assert answer(pipelined).Status == 0
    find(pipelined, 2, study)
    echo(pipelined, 3)
    store(pipelined, 4, capture(study, series, 2))
    finals = []
    while len(finals) < 3:
        response = answer(pipelined)
        if response.Status != 0xFF00:
            finals.append((response.MessageIDBeingRespondedTo, response.Status))
    assert finals == [(2, 0), (3, 0), (4, 0)]
