"""Instance Availability Notification (PS3.4 Annex R) taken by pynetdicom."""
import subprocess
import threading

import pytest
from conftest import Server
from pynetdicom import AE, evt
from pynetdicom.sop_class import InstanceAvailabilityNotification as IAN
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from test_rejection import SAFETY, image, note, store
from triptych import BINARY, free_port


class Listener:
    """Takes notifications; the first `refusals` are answered with a failure."""

    def __init__(self, refusals=0):
        self.port, self.refusals = free_port(), refusals
        self.came, self.instances, self.arrived = [], [], threading.Condition()
        ae = AE(ae_title="WATCHER")
        ae.add_supported_context(IAN, ExplicitVRLittleEndian)
        self.server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_N_CREATE, self.take)])

    def take(self, event):
        with self.arrived:
            self.instances.append(str(event.request.AffectedSOPInstanceUID))
            if self.refusals:
                self.refusals -= 1
                return 0x0110, None
            self.came.append(event.attribute_list)
            self.arrived.notify_all()
        return 0x0000, None

    def wait(self, count, seconds=30):
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.came) >= count, seconds), "no notification came"
        return self.came[count - 1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    node = Server(tmp_path_factory.mktemp("server"), "--study-quiet-seconds", "2")
    yield node
    node.stop()


def peer_set(server, *flags):
    return subprocess.run(
        [BINARY, "peer", "set", "WATCHER", *flags, "--http", server.url], capture_output=True, text=True, timeout=60
    )


def said(notification):
    """Availability by SOP Instance UID."""
    return {
        str(item.ReferencedSOPInstanceUID): item.InstanceAvailability
        for series in notification.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def test_a_quiet_study_is_told_and_a_rejection_at_once(server):
    listener = Listener(refusals=1)
    try:
        assert peer_set(server, "--notify", "yes").returncode != 0, "it has no address"
        done = peer_set(server, "--notify", "yes", "--address", f"127.0.0.1:{listener.port}")
        assert done.returncode == 0, done
        study, series = generate_uid(), generate_uid()
        first, second = image(study, series, 1), image(study, series, 2)
        assert store(server, first, second) == [0, 0]
        told = listener.wait(1)
        assert said(told) == {first.SOPInstanceUID: "ONLINE", second.SOPInstanceUID: "ONLINE"}
        assert told.StudyInstanceUID == study and len(told.ReferencedPerformedProcedureStepSequence) == 0
        item = told.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        assert (item.RetrieveAETitle, item.ReferencedSOPClassUID) == ("TRIPTYCH", first.SOPClassUID)
        assert len(set(listener.instances)) == 1 and len(listener.instances) == 2, "the same notification again"

        rejected = note(SAFETY, second)
        assert store(server, rejected) == [0]
        wanted = {first.SOPInstanceUID: "ONLINE", second.SOPInstanceUID: "UNAVAILABLE", rejected.SOPInstanceUID: "ONLINE"}
        assert said(listener.wait(2)) == wanted
    finally:
        assert peer_set(server, "--notify", "no").returncode == 0
        listener.server.shutdown()


def test_a_notification_outlives_the_process(tmp_path_factory):
    node = Server(tmp_path_factory.mktemp("dies"), "--study-quiet-seconds", "5")
    listener = Listener()
    try:
        assert peer_set(node, "--notify", "yes", "--address", f"127.0.0.1:{listener.port}").returncode == 0
        one = image(generate_uid(), generate_uid())
        assert store(node, one) == [0]
        node.kill()
        assert listener.came == []
        node = Server(node.folder, "--study-quiet-seconds", "5")
        assert said(listener.wait(1)) == {one.SOPInstanceUID: "ONLINE"}
    finally:
        node.stop()
        listener.server.shutdown()
