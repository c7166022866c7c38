"""Storage commitment asked for by pynetdicom: reported over the same association, or over one that the archive asks for.
DCMTK has no user of this service."""
import threading

import pytest
import raw
import requests
from conftest import Server, free_port
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StorageCommitmentPushModel as CLASS,
    StorageCommitmentPushModelInstance as INSTANCE,
)

SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]
PORT = free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    node = Server(tmp_path_factory.mktemp("server"), "--remote-ae", f"PYTEST=127.0.0.1:{PORT}")
    yield node
    node.stop()


class Reports:
    """What comes by N-EVENT-REPORT, and over how many associations."""

    def __init__(self):
        self.came, self.associations, self.arrived = [], set(), threading.Condition()

    def take(self, event):
        with self.arrived:
            self.came.append((event.event_type, event.event_information))
            self.associations.add(event.assoc)
            self.arrived.notify_all()
        return 0x0000, None

    def wait(self, count=1, seconds=30):
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.came) >= count, seconds), "no report came"
        return self.came

    @property
    def handlers(self):
        return [(evt.EVT_N_EVENT_REPORT, self.take)]


def store(server, study=None, series=None):
    """The UIDs of an instance that is stored: study, series, instance."""
    study, series, instance = study or generate_uid(), series or generate_uid(), generate_uid()
    with raw.Raw(server.dimse) as peer:
        peer.associate([(1, raw.SECONDARY_CAPTURE, [raw.IMPLICIT])])
        assert peer.store(1, raw.SECONDARY_CAPTURE, instance, raw.data_set(raw.SECONDARY_CAPTURE, instance, study, series)) == 0
        peer.release()
    return study, series, instance


def wanted(*instances, transaction=None):
    """A request for (class, instance) pairs."""
    request = Dataset()
    request.TransactionUID = transaction or generate_uid()
    request.ReferencedSOPSequence = []
    for class_uid, instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, instance
        request.ReferencedSOPSequence.append(item)
    return request


def status_of(association, request, action=1, class_uid=CLASS, instance=INSTANCE):
    status, _ = association.send_n_action(request, action, class_uid, instance)
    return status.Status


def committed(report):
    return [str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence", [])]


def failed(report):
    return {str(item.ReferencedSOPInstanceUID): item.FailureReason for item in report.get("FailedSOPSequence", [])}


def test_the_report_comes_over_the_same_association(server):
    """All reasons in one request: stored, deleted, never stored, and stored with another class."""
    reports = Reports()
    stored = [store(server)[2] for _ in range(3)]
    study, series, deleted = store(server)
    assert requests.delete(f"{server.web}/studies/{study}/series/{series}/instances/{deleted}", timeout=10).status_code == 200
    unknown, other = generate_uid(), store(server)[2]
    association = server.associate([(CLASS, SYNTAXES)], handlers=reports.handlers)
    sc = raw.SECONDARY_CAPTURE
    all_good = wanted(*((sc, instance) for instance in stored))
    assert status_of(association, all_good) == 0x0000
    event_type, report = reports.wait()[0]
    assert (event_type, report.TransactionUID, report.RetrieveAETitle) == (1, all_good.TransactionUID, "TRIPTYCH")
    assert (committed(report), failed(report)) == (stored, {})
    assert "FailedSOPSequence" not in report
    mixed = wanted((sc, stored[0]), (sc, deleted), (sc, unknown), (CTImageStorage, other))
    assert status_of(association, mixed) == 0x0000
    event_type, report = reports.wait(2)[1]
    assert (event_type, committed(report)) == (2, stored[:1])
    assert failed(report) == {deleted: 0x0112, unknown: 0x0112, other: 0x0119}
    assert reports.associations == {association}
    association.release()


def test_requests_that_are_none_are_refused(server):
    association = server.associate([(CLASS, SYNTAXES)])
    good = wanted((raw.SECONDARY_CAPTURE, generate_uid()))
    assert status_of(association, good, action=2) == 0x0123
    assert status_of(association, good, instance=generate_uid()) == 0x0112
    assert status_of(association, wanted()) == 0x0115
    without = wanted((raw.SECONDARY_CAPTURE, generate_uid()))
    del without.ReferencedSOPSequence
    assert status_of(association, without) == 0x0115
    without = wanted((raw.SECONDARY_CAPTURE, generate_uid()))
    del without.TransactionUID
    assert status_of(association, without) == 0x0115
    association.release()


@pytest.fixture
def listener():
    """The requester's own port, where the archive calls: it takes the provider's role there."""
    reports = Reports()
    entity = AE(ae_title="PYTEST")
    entity.require_called_aet = True
    entity.add_supported_context(CLASS, SYNTAXES, scu_role=False, scp_role=True)
    running = entity.start_server(("127.0.0.1", PORT), block=False, evt_handlers=reports.handlers)
    yield reports
    running.shutdown()


def test_the_report_comes_over_a_new_association_with_role_selection(server, listener):
    instance = store(server)[2]
    association = server.associate([(CLASS, SYNTAXES)])
    request = wanted((raw.SECONDARY_CAPTURE, instance))
    assert status_of(association, request) == 0x0000
    association.release()
    event_type, report = listener.wait()[0]
    assert (event_type, report.TransactionUID, committed(report)) == (1, request.TransactionUID, [instance])
    (called,) = listener.associations
    (context,) = called.accepted_contexts
    assert context.as_scu and not context.as_scp, "the requester of storage commitment stays its user"


def test_a_transaction_again_is_answered_from_the_record_and_with_another_list_it_fails(server, listener):
    instance, transaction = store(server)[2], generate_uid()
    unknown, sc = generate_uid(), raw.SECONDARY_CAPTURE
    lists = [((sc, instance), (sc, unknown)), ((sc, unknown), (sc, instance)), ((sc, instance),)]
    answers = []
    for number, instances in enumerate(lists):
        association = server.associate([(CLASS, SYNTAXES)])
        assert status_of(association, wanted(*instances, transaction=transaction)) == 0x0000
        association.release()
        event_type, report = listener.wait(number + 1)[number]
        assert report.TransactionUID == transaction
        answers.append((event_type, committed(report), failed(report)))
    assert answers == [(2, [instance], {unknown: 0x0112})] * 2 + [(2, [], {instance: 0x0131})]
    # The web sees the same record.
    answer = requests.get(f"{server.web}/commitment-requests/{transaction}", timeout=10)
    assert answer.status_code == 200
    found = Dataset.from_json(answer.json())
    assert (committed(found), failed(found)) == ([instance], {unknown: 0x0112})


def test_the_web_asks_and_looks(server):
    instance, transaction = store(server)[2], generate_uid()
    url = f"{server.web}/commitment-requests/{transaction}"
    assert requests.get(url, timeout=10).status_code == 404
    request = wanted((raw.SECONDARY_CAPTURE, instance))
    del request.TransactionUID
    kind = {"Content-Type": "application/dicom+json"}
    answer = requests.post(url, data=request.to_json(), headers=kind, timeout=15)
    assert answer.status_code == 200, (answer.status_code, answer.text)
    assert answer.headers["Content-Type"] == "application/dicom+json"
    assert committed(Dataset.from_json(answer.json())) == [instance]
    other = wanted((raw.SECONDARY_CAPTURE, generate_uid()))
    assert requests.post(url, data=other.to_json(), headers=kind, timeout=15).status_code == 409


def test_what_waits_is_counted_and_outlives_the_process(server, tmp_path):
    """Asked of a node that is killed at once: after its start the report comes."""
    port = free_port()
    node = Server(tmp_path, "--remote-ae", f"PYTEST=127.0.0.1:{port}")
    instance = store(node)[2]
    association = node.associate([(CLASS, SYNTAXES)])
    request = wanted((raw.SECONDARY_CAPTURE, instance))
    assert status_of(association, request) == 0x0000
    node.kill()
    node = Server(tmp_path, "--remote-ae", f"PYTEST=127.0.0.1:{port}")
    reports = Reports()
    entity = AE(ae_title="PYTEST")
    entity.add_supported_context(CLASS, SYNTAXES, scu_role=False, scp_role=True)
    running = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=reports.handlers)
    event_type, report = reports.wait(seconds=60)[0]
    assert (event_type, report.TransactionUID, committed(report)) == (1, request.TransactionUID, [instance])
    metrics = requests.get(node.url + "/metrics", timeout=10).text
    assert 'archive_service_commitments_total{result="committed"}' in metrics or 'reports_total{result="sent"} 1' in metrics
    assert "archive_service_commitments_waiting" in metrics
    running.shutdown()
    node.stop()
