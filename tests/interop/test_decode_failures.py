"""Damage, and decoders that die: one failed sub-operation or request each, and everything else goes on."""
import fcntl
import os
import shutil
import signal
import struct
import termios
import threading
import time
from array import array
from pathlib import Path

import imagecodecs
import numpy
import pydicom
import pytest
import requests
from coded import EXPLICIT, ROOT, Image, c_get, difference, made, rle, samples
from conftest import Server, free_port
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as MOVE
from triptych import BINARY

GREY = (numpy.mgrid[:64, :80].sum(0) * 25 % 4096).astype("u2")
PORT = free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    flags = ["--remote-ae", f"PLAIN=127.0.0.1:{PORT}", "--codec-workers", "1", "--codec-seconds", "3"]
    node = Server(tmp_path_factory.mktemp("server"), *flags)
    yield node
    node.stop()


def good(**more):
    return made(GREY, ROOT + ".5", [rle(GREY)], stored=12, **more)


def check_good(server):
    image = good()
    image.send(server)
    final, ((got, _),) = c_get(server, image, [EXPLICIT])
    assert final.Status == 0x0000 and difference(samples(got), GREY) == 0


def flipped(frame, at):
    return frame[:at] + bytes([frame[at] ^ 0xFF]) + frame[at + 1 :]


STREAMS = {
    ".5": lambda: rle(GREY),
    ".4.70": lambda: imagecodecs.jpeg8_encode(GREY, lossless=True, predictor=1, bitspersample=16),
    ".4.80": lambda: imagecodecs.jpegls_encode(GREY),
    ".4.90": lambda: imagecodecs.jpeg2k_encode(GREY, level=0, codecformat="J2K"),
    ".4.201": lambda: imagecodecs.htj2k_encode(GREY, reversible=True),
    ".4.110": lambda: imagecodecs.jpegxl_encode(GREY, lossless=True),
    ".8.1": lambda: __import__("zlib").compress(GREY.tobytes(), wbits=-15),
    ".1.98": lambda: GREY.tobytes(),
}
DAMAGES = {
    "cut": lambda frame: frame[: len(frame) // 2],
    "empty": lambda frame: b"\0\0",
    "noise": lambda frame: bytes(at * 7 % 251 for at in range(len(frame))),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("syntax", STREAMS)
def test_a_damaged_stream_is_a_failed_suboperation(server, syntax, damage):
    frame = DAMAGES[damage](STREAMS[syntax]())
    image = made(GREY, ROOT + syntax, [frame], stored=16)
    if syntax == ".1.98" and damage == "noise":
        pytest.skip("noise of the right length is an image")
    image.send(server)
    final, received = c_get(server, image, [EXPLICIT])
    assert (final.Status, final.NumberOfFailedSuboperations, received) == (0xA702, 1, [])
    check_good(server)


@pytest.mark.parametrize("keyword, value", [("Rows", 65535), ("Columns", 10), ("Rows", 0), ("SamplesPerPixel", 3),
                                            ("BitsAllocated", 8), ("BitsStored", 0), ("NumberOfFrames", 2),
                                            ("PhotometricInterpretation", "RGB"), ("PhotometricInterpretation", "HSV")])
@pytest.mark.parametrize("syntax", [key for key in STREAMS if key != ".1.98"])
def test_attributes_that_are_not_the_streams_are_a_failed_suboperation(server, syntax, keyword, value):
    image = made(GREY, ROOT + syntax, [STREAMS[syntax]()], **{"stored": 16, keyword: value})
    image.send(server)
    final, received = c_get(server, image, [EXPLICIT])
    assert (final.Status, final.NumberOfFailedSuboperations, received) == (0xA702, 1, [])


def test_one_damaged_image_of_a_study_does_not_stop_the_rest(server):
    study = generate_uid()
    images = [good(study=study) for _ in range(2)]
    bad = made(GREY, ROOT + ".5", [rle(GREY)[:200]], stored=12, study=study)
    for image in [images[0], bad, images[1]]:
        image.send(server)
    final, received = c_get(server, bad, [EXPLICIT], "STUDY")
    assert (final.Status, final.NumberOfCompletedSuboperations, final.NumberOfFailedSuboperations) == (0xB000, 2, 1)
    assert all(difference(samples(got), GREY) == 0 for got, _ in received)


def workers(server):
    """The codec processes of this server."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = status.read_text().split("(", 1)[1].rsplit(")", 1)
        except (OSError, IndexError):
            continue
        if name == "triptych-codec" and int(rest.split()[1]) == server.process.pid and rest.split()[0] != "Z":
            found.append(int(status.parent.name))
    return found


def until(true, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def asked(worker):
    """Whether a request waits to be read by this worker, which is stopped."""
    with open(f"/proc/{worker}/fd/0", "rb", buffering=0) as pipe:
        count = array("i", [0])
        fcntl.ioctl(pipe, termios.FIONREAD, count)
        return count[0] > 0


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "silent"])
def test_a_worker_that_dies_or_is_silent_costs_one_frame(server, kill):
    check_good(server)
    (worker,) = workers(server)
    os.kill(worker, signal.SIGSTOP)
    image, finals = good(), []
    image.send(server)
    thread = threading.Thread(target=lambda: finals.append(c_get(server, image, [EXPLICIT])))
    thread.start()
    until(lambda: asked(worker), "the worker was not asked")
    if kill:
        os.kill(worker, signal.SIGKILL)
    thread.join(30)
    ((final, received),) = finals
    assert (final.Status, final.NumberOfFailedSuboperations, received) == (0xA702, 1, [])
    until(lambda: worker not in workers(server), "the worker lives on")
    check_good(server)
    assert len(workers(server)) == 1
    metrics = requests.get(server.url + "/metrics", timeout=10).text
    assert 'archive_service_codec_frames_total{outcome="%s"} 1' % ("lost" if kill else "late") in metrics


def test_a_worker_that_was_killed_while_idle_costs_nothing(server):
    check_good(server)
    (worker,) = workers(server)
    os.kill(worker, signal.SIGKILL)
    until(lambda: worker not in workers(server), "the worker lives on")
    check_good(server)


LARGE = numpy.full((1024, 1024), 0x0123, "u2")


def large(frames, bad=None):
    """2 MiB a frame, of some kilobytes coded: each row of each plane is eight runs of 128 times one byte."""
    head = struct.pack("<16I", 2, 64, 64 + 16 * 1024, *[0] * 13)
    coded = [head + b"".join(bytes([129, byte]) * 8 * 1024 for byte in divmod(0x0123 + at, 256)) for at in range(frames)]
    if bad is not None:
        coded[bad] = coded[bad][:100]
    return made(LARGE, ROOT + ".5", coded)


def memory(server):
    (line,) = [line for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if "VmRSS" in line]
    return int(line.split()[1]) << 10


def test_a_large_multi_frame_is_decoded_while_it_is_sent(server):
    check_good(server)
    image = large(150)
    image.send(server)
    before, most, frame_bytes = memory(server), 0, LARGE.nbytes
    accept = {"Accept": f"application/dicom; transfer-syntax={EXPLICIT}"}
    with requests.get(server.instance_url(image.header), headers=accept, timeout=120, stream=True) as answer:
        assert answer.status_code == 200, answer.text
        body = bytearray()
        for piece in answer.iter_content(1 << 20):
            body += piece
            most = max(most, memory(server))
    pixels = bytes(body[-150 * frame_bytes :])
    for at in range(150):
        assert pixels[at * frame_bytes : (at + 1) * frame_bytes] == (LARGE + at).tobytes()
    got = pydicom.dcmread(pydicom.filebase.DicomBytesIO(bytes(body)))
    assert len(got.PixelData) == 150 * frame_bytes
    assert most - before < 100 << 20, f"{(most - before) >> 20} MiB for an image of 300"


def test_a_late_frame_that_is_damaged_cuts_the_answer_off_and_nothing_else(server):
    image = large(40, bad=35)
    image.send(server)
    accept = {"Accept": f"application/dicom; transfer-syntax={EXPLICIT}"}
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(server.instance_url(image.header), headers=accept, timeout=120)
    check_good(server)


def test_c_move_goes_on_behind_a_late_frame_that_is_damaged(server):
    study = generate_uid()
    bad, images = large(40, bad=35), [good(study=study) for _ in range(2)]
    bad = Image(bad.header, bad.syntax, "bad", study)
    for image in [images[0], bad, images[1]]:
        image.send(server)
    received = []

    def take(event):
        received.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    ae = AE(ae_title="PLAIN")
    ae.maximum_pdu_size = 0
    ae.add_supported_context(bad.header.SOPClassUID, [EXPLICIT])
    listener = ae.start_server(("127.0.0.1", PORT), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    try:
        association = server.associate([(MOVE, [EXPLICIT])])
        wanted = pydicom.Dataset()
        wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", study
        final = list(association.send_c_move(wanted, "PLAIN", MOVE))[-1][0]
        association.release()
    finally:
        listener.shutdown()
    assert (final.Status, final.NumberOfCompletedSuboperations, final.NumberOfFailedSuboperations) == (0xB000, 2, 1)
    assert sorted(received) == sorted(image.header.SOPInstanceUID for image in images)


def test_without_the_codec_images_are_passed_on_and_it_is_said_what_to_install(tmp_path):
    alone = tmp_path / "triptych"
    try:
        os.link(BINARY, alone)
    except OSError:  # another file system
        shutil.copy2(BINARY, alone)
    node = Server(tmp_path, binary=alone)
    try:
        image = good()
        image.send(node)
        final, received = c_get(node, image, [EXPLICIT])
        assert (final.Status, received) == (0xA702, [])
        assert "install it beside triptych" in node.said()
        final, ((_, body),) = c_get(node, image, [image.syntax])
        assert final.Status == 0x0000 and body == image.bytes
        accept = {"Accept": f"application/dicom; transfer-syntax={EXPLICIT}"}
        answer = requests.get(node.instance_url(image.header), headers=accept, timeout=30)
        assert answer.status_code == 406 and "--codec" in answer.text
    finally:
        node.stop()
