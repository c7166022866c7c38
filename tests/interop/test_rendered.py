"""Pictures by WADO-RS: every real image against the formulas of the standard (`pictured.py`), each to one grey level; what
requests may ask for; and what strangers may send.

    stored object ─► GET …/rendered, image/png ─► levels ─┐
                 └─► pydicom ─► formulas ─► levels ───────┴─ apart by at most 1, and by what two decoders of a lossy coding may
"""
import io
import os
import struct
from pathlib import Path

import numpy
import pydicom
import pytest
import requests
from coded import ROOT
from conftest import SAMPLES
from PIL import Image, ImageCms
from pictured import decoded_frames, has_square_pixels, picture_of
from pydicom.uid import generate_uid
from test_real import DECODERS, FILES, REFUSED, SHOWN_BY, allowed
from test_web import stow

CT = next(s for s in SAMPLES if s.path.name == "CT_small.dcm")
PNG, JPEG = {"Accept": "image/png"}, {"Accept": "image/jpeg"}
IMAGES = [real for real in FILES if real.name not in REFUSED]

# What has frames and no picture: the status, and what its text says.
NOT_SHOWN = {
    "made/jpegls_lossless_rgb.dcm": "JPEG-LS of several components",
    "made/video_h264.dcm": "video/mp4",
    "made/video_hevc.dcm": "video",
    "made/video_mpeg2.dcm": "video/mpeg",
    "pydicom/JPEG2000-embedded-sequence-delimiter.dcm": "",
}
# Number of Frames is "1A": pydicom shows nothing, and there is a first frame.
ALONE = {"pydicom/badVR.dcm"}
SHOWN_AT_LEAST = 200


def levels(answer):
    assert answer.status_code == 200, answer.text[:500]
    assert answer.headers["Content-Type"] == "image/png"
    return numpy.asarray(Image.open(io.BytesIO(answer.content)))


def cpu_seconds(pid):
    """Of the server, its workers, and those of them that have ended: what a busy machine does not change."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    children = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    living = [Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[11:13] for child in children]
    return (sum(map(int, fields[11:15])) + sum(int(ticks) for each in living for ticks in each)) / os.sysconf("SC_CLK_TCK")


def get(server, path, headers=PNG, **parameters):
    return requests.get(server.web + path, headers=headers, params=parameters, timeout=60)


def send(server, file):
    answer = stow(server, [file])
    assert answer.status_code == 200, answer.text


def decoded(real):
    """Frames by other decoders; none where there is no other."""
    data_set = next((each for each in FILES if each.name == SHOWN_BY.get(real.name)), real).parse()
    syntax = str(data_set.file_meta.TransferSyntaxUID)[len(ROOT):]
    if (decoder := DECODERS.get(syntax)) is not None:
        frames = int(data_set.get("NumberOfFrames", 1) or 1)
        coded = pydicom.encaps.generate_frames(data_set.PixelData, number_of_frames=frames)
        if data_set.BitsAllocated == 1:
            pixels = data_set.Rows * data_set.Columns
            return numpy.stack([numpy.unpackbits(decoder(frame), bitorder="little")[:pixels].reshape(data_set.Rows, -1) for frame in coded])
        shape = (data_set.Rows, data_set.Columns) + ((3,) if data_set.SamplesPerPixel == 3 else ())
        kind = f"<{'i' if data_set.PixelRepresentation else 'u'}{data_set.BitsAllocated // 8}"
        each = [decoder(frame) for frame in coded]
        return numpy.stack([(frame.view(kind) if frame.dtype == numpy.uint8 else frame).reshape(-1)[: numpy.prod(shape)].reshape(shape) for frame in each])
    return decoded_frames(data_set, "pillow" if syntax == ".4.50" else "")


def bounds(data_set, frame, values):
    """The lowest and the highest levels that are right: two decoders of a lossy coding may differ a little."""
    apart = allowed(data_set)
    if not apart or values.ndim == 3:
        level = picture_of(data_set, frame, values)
        return level - apart - 1, level + apart + 1
    ends = [picture_of(data_set, frame, values.astype("int32") + step) for step in (-apart, 0, apart)]
    # Where no window is given, the extent differs too.
    return numpy.min(ends, axis=0) - 2, numpy.max(ends, axis=0) + 2


@pytest.mark.parametrize("real", IMAGES, ids=repr)
def test_a_real_image_looks_as_the_standard_says(server, real):
    stored = real.parse()
    if not any(keyword in stored for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        pytest.skip("no image")
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=real'}
    body = b"--real\r\nContent-Type: application/dicom\r\n\r\n" + real.file() + b"\r\n--real--\r\n"
    assert requests.post(f"{server.web}/studies", data=body, headers=headers, timeout=60).status_code == 200
    try:
        check_frames(server, real, stored)
    finally:
        requests.delete(server.web + real.path_of_instance(), timeout=30)


def check_frames(server, real, stored):
    path = real.path_of_instance()
    if real.name in NOT_SHOWN:
        answer = get(server, path + "/rendered")
        assert answer.status_code == 406 and NOT_SHOWN[real.name] in answer.text, answer.text
        return
    if real.name in ALONE:
        assert levels(get(server, path + "/rendered")).shape == (stored.Rows, stored.Columns)
        return
    frames = decoded(real)
    for frame in sorted({1, (len(frames) + 1) // 2, len(frames)}):
        got = levels(get(server, f"{path}/frames/{frame}/rendered"))
        if not has_square_pixels(stored, frame):
            assert max(got.shape[0] / stored.Rows, got.shape[1] / stored.Columns) > 1.01
            continue
        low, high = bounds(stored, frame, frames[frame - 1])
        assert got.shape == low.shape
        wrong = (got < low) | (got > high)
        worst = numpy.maximum(low - got, got - high).max()
        assert not wrong.any(), f"frame {frame}: {wrong.mean():.4%} of all levels are wrong, by up to {worst:.1f} more than allowed"


def test_most_of_the_files_have_a_picture():
    with_pixels = [real for real in IMAGES if "PixelData" in real.parse() or "FloatPixelData" in real.parse()]
    assert len([real for real in with_pixels if real.name not in NOT_SHOWN]) >= SHOWN_AT_LEAST
    assert set(NOT_SHOWN) <= {real.name for real in IMAGES}


@pytest.fixture(scope="module")
def ct(server):
    send(server, CT.path.read_bytes())
    return server.instance_url(CT.header)[len(server.web):]


@pytest.mark.parametrize("text,window", [
    ("40,400,linear", (40, 400, "LINEAR")), ("40,1,linear", (40, 1, "LINEAR")), ("-100.5,0.25,linear-exact", (-100.5, 0.25, "LINEAR_EXACT")),
    ("40,400,linear-exact", (40, 400, "LINEAR_EXACT")), ("0,300,sigmoid", (0, 300, "SIGMOID")),
])
def test_the_window_of_the_request_is_applied(server, ct, text, window):
    data_set = pydicom.dcmread(CT.path)
    expected = numpy.rint(picture_of(data_set, 1, data_set.pixel_array, window))
    got = levels(get(server, ct + "/rendered", window=text))
    assert numpy.abs(got.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("viewport,box,size,flip", [
    ("64,64", None, (64, 64), None), ("300,200", None, (200, 200), None), ("50,50,32,16,64,32", (32, 16, 96, 48), (50, 25), None),
    ("128,128,,,-128", None, (128, 128), Image.Transpose.FLIP_LEFT_RIGHT), ("128,128,,,,-128", None, (128, 128), Image.Transpose.FLIP_TOP_BOTTOM),
    ("17,90,10.5,3.25,40,80", (10.5, 3.25, 50.5, 83.25), (17, 34), None),
])
def test_a_viewport_scales_cuts_and_mirrors(server, ct, viewport, box, size, flip):
    """Pillow's resampling is the reference: the same triangle, other code."""
    whole = Image.fromarray(levels(get(server, ct + "/rendered")))
    expected = whole.resize(size, Image.Resampling.BILINEAR, box=box)
    expected = numpy.asarray(expected.transpose(flip) if flip is not None else expected).astype(int)
    got = levels(get(server, ct + "/rendered", viewport=viewport)).astype(int)
    assert got.shape == expected.shape
    assert numpy.abs(got - expected).max() <= 1


@pytest.mark.parametrize("query", ["quality=0", "quality=101", "viewport=0,1", "viewport=1", "viewport=10,10,200,0", "viewport=99999,9",
                                   "viewport=10,10,0,0,0,0", "window=1", "window=40,0,linear", "window=40,0.5,linear", "window=x,y,linear",
                                   "window=1,2,steep", "window=nan,1,linear", "iccprofile=maybe"])
def test_parameters_that_make_no_sense_are_400(server, ct, query):
    answer = requests.get(f"{server.web}{ct}/rendered?{query}", headers=PNG, timeout=30)
    assert answer.status_code == 400 and answer.text, answer.text


def test_the_form_is_the_one_that_is_asked_for(server, ct):
    for accept, kind in (("image/jpeg", "image/jpeg"), ("image/png", "image/png"), ("*/*", "image/jpeg"), ("image/*", "image/jpeg"),
                         ("image/png;q=0.9, image/jpeg;q=0.5", "image/png"), ("text/html, image/webp, */*;q=0.8", "image/jpeg")):
        answer = get(server, ct + "/rendered", {"Accept": accept})
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
    assert get(server, ct + "/rendered", {"Accept": "image/gif"}).status_code == 406
    assert get(server, ct + "/frames/2/rendered").status_code == 404
    assert get(server, ct + "/frames/x/rendered").status_code == 400
    fine, coarse = (get(server, ct + "/rendered", JPEG, quality=quality).content for quality in (95, 20))
    assert len(coarse) < len(fine) / 2
    png, jpeg = levels(get(server, ct + "/rendered")), numpy.asarray(Image.open(io.BytesIO(fine)))
    assert numpy.abs(png.astype(int) - jpeg).mean() < 3


def test_what_is_not_done_is_said_in_a_warning(server, ct):
    answer = get(server, ct + "/rendered", annotation="patient,technique", quality=50)
    warning = answer.headers["Warning"]
    assert answer.status_code == 200 and "annotation" in warning and "quality" in warning
    assert "Warning" not in get(server, ct + "/rendered").headers


def test_what_is_known_is_304(server, ct):
    for end in ("/rendered", "/thumbnail", "/frames/1/thumbnail"):
        first = get(server, ct + end)
        tag = first.headers["ETag"]
        assert tag.startswith('"') and "max-age" in first.headers["Cache-Control"]
        again = get(server, ct + end, {**PNG, "If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert get(server, ct + end, {**PNG, "If-None-Match": '"other"'}).status_code == 200
        assert get(server, ct + end).content == first.content
        assert get(server, ct + end, viewport="20,20").headers["ETag"] != tag
        assert get(server, ct + end, JPEG).headers["ETag"] != tag


def multiframe(frames, **more):
    """Frame n is all n, of 40 × 30; a file, and its path."""
    data_set = pydicom.Dataset()
    data_set.SOPClassUID, data_set.Modality, data_set.PatientID = "1.2.840.10008.5.1.4.1.1.7.2", "OT", "MANY"
    data_set.SOPInstanceUID, data_set.StudyInstanceUID, data_set.SeriesInstanceUID = generate_uid(), generate_uid(), generate_uid()
    data_set.Rows, data_set.Columns, data_set.SamplesPerPixel = 30, 40, 1
    data_set.BitsAllocated = data_set.BitsStored = 8
    data_set.HighBit, data_set.PixelRepresentation, data_set.PhotometricInterpretation = 7, 0, "MONOCHROME2"
    data_set.WindowCenter, data_set.WindowWidth, data_set.NumberOfFrames = 128, 256, frames
    for keyword, value in more.items():
        setattr(data_set, keyword, value)
    data_set.PixelData = b"".join(bytes([number]) * 1200 for number in range(1, frames + 1))
    return made_file(data_set), data_set


def made_file(data_set, syntax="1.2.840.10008.1.2.1"):
    data_set.file_meta = pydicom.dataset.FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.file_meta.MediaStorageSOPClassUID, data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPClassUID, data_set.SOPInstanceUID
    out = io.BytesIO()
    pydicom.dcmwrite(out, data_set, enforce_file_format=True)
    return out.getvalue()


def path_of(data_set):
    return f"/studies/{data_set.StudyInstanceUID}/series/{data_set.SeriesInstanceUID}/instances/{data_set.SOPInstanceUID}"


def parts(answer):
    """The pictures of a multipart body, and where each is from."""
    assert answer.status_code == 200, answer.text
    boundary = answer.headers["Content-Type"].split("boundary=")[1].encode()
    assert answer.content.endswith(b"\r\n--" + boundary + b"--\r\n")
    found = []
    for part in answer.content.split(b"--" + boundary)[1:-1]:
        head, body = part.split(b"\r\n\r\n", 1)
        assert b"Content-Type: image/png" in head
        found.append((int(numpy.asarray(Image.open(io.BytesIO(body[:-2])))[0, 0]), head.split(b"Content-Location: ")[1].split(b"\r\n")[0].decode()))
    return found


def test_frames_series_and_studies_come_in_parts(server):
    file, data_set = multiframe(7, RepresentativeFrameNumber=6)
    send(server, file)
    path, many = path_of(data_set), {"Accept": 'multipart/related; type="image/png"'}
    assert levels(get(server, path + "/rendered"))[0, 0] == 1
    assert levels(get(server, path + "/frames/5/rendered"))[0, 0] == 5
    assert levels(get(server, path + "/thumbnail"))[0, 0] == 6
    assert levels(get(server, path + "/frames/3/thumbnail", viewport="10,10")).shape == (8, 10)
    assert [level for level, _ in parts(get(server, path + "/frames/7,2,2/rendered", many))] == [7, 2, 2]
    assert [level for level, _ in parts(get(server, path + "/frames/4/rendered", many))] == [4]
    study, series = (path.split(end)[0] for end in ("/series", "/instances"))
    for resource in (path, series, study):
        found = parts(get(server, resource + "/rendered", many))
        assert [level for level, _ in found] == [1, 2, 3, 4, 5, 6, 7]
        assert levels(requests.get(found[4][1], headers=PNG, timeout=30))[0, 0] == 5
        if resource != path:
            assert levels(get(server, resource + "/thumbnail"))[0, 0] == 6
            assert get(server, resource + "/rendered", PNG).status_code == 406
    assert get(server, path + "/frames/1,8/rendered", many).status_code == 404
    assert get(server, path + "/frames/8/rendered").status_code == 404


def test_a_document_is_an_attachment_and_a_video_itself(server):
    for name, kind in (("encapsulated_pdf.dcm", "application/pdf"), ("video_h264.dcm", "video/mp4"), ("video_mpeg2.dcm", "video/mpeg")):
        real = next(each for each in FILES if each.name == f"made/{name}")
        send(server, real.file())
        answer = get(server, real.path_of_instance() + "/rendered", {"Accept": "*/*"})
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
        refused = get(server, real.path_of_instance() + "/rendered", PNG)
        assert refused.status_code == 406 and kind in refused.text
        assert get(server, real.path_of_instance() + "/thumbnail").status_code == 406
        data_set = real.parse()
        if kind == "application/pdf":
            assert answer.headers["Content-Disposition"].startswith("attachment")
            document = bytes(data_set.EncapsulatedDocument)[: data_set.get("EncapsulatedDocumentLength")]
            assert answer.content == document or answer.content + b"\0" == document
        else:
            assert answer.content == next(pydicom.encaps.generate_frames(data_set.PixelData, number_of_frames=1))


def test_a_profile_of_colours_goes_with_the_picture(server):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file, data_set = multiframe(1, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, ICCProfile=profile + b"\0" * (len(profile) % 2))
    data_set.PixelData = bytes(range(256)) * 14 + bytes(16)
    send(server, made_file(data_set))
    for headers in (PNG, JPEG):
        seen = Image.open(io.BytesIO(get(server, path_of(data_set) + "/rendered", headers).content))
        assert seen.info["icc_profile"] == profile
        seen = Image.open(io.BytesIO(get(server, path_of(data_set) + "/rendered", headers, iccprofile="no").content))
        assert "icc_profile" not in seen.info


# ---- what strangers may send: an answer for a second of work at most, and bounded memory


HOSTILE = {
    "huge": dict(Rows=65535, Columns=65535),
    "huge and declared small": dict(Rows=65535, Columns=1),
    "no rows": dict(Rows=None),
    "no columns": dict(Columns=0),
    "no bits": dict(BitsAllocated=None),
    "bits that do not fit": dict(BitsStored=77, HighBit=76),
    "bits stored 0": dict(BitsStored=0),
    "window of nothing": dict(WindowWidth=0),
    "window of minus": dict(WindowWidth=-5),
    "endless window": dict(WindowWidth="1e300", WindowCenter="-1e300"),
    "slope 0": dict(RescaleSlope=0, RescaleIntercept=0),
    "slope of everything": dict(RescaleSlope="1e308", RescaleIntercept="-1e308"),
    "no interpretation": dict(PhotometricInterpretation=None),
    "an unknown interpretation": dict(PhotometricInterpretation="HSV", SamplesPerPixel=3),
    "a palette without tables": dict(PhotometricInterpretation="PALETTE COLOR"),
    "255 samples": dict(SamplesPerPixel=255),
    "two billion frames": dict(NumberOfFrames=2147483647),
    "pixels like ropes": dict(PixelAspectRatio=[1, 1000000]),
    "padding everywhere": dict(PixelPaddingValue=0, PixelPaddingRangeLimit=255),
    "64 bits": dict(BitsAllocated=64, BitsStored=64, HighBit=63),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_costs_less_than_a_second(server, name):
    file, data_set = multiframe(1)
    for keyword, value in HOSTILE[name].items():
        if value is None:
            delattr(data_set, keyword)
        else:
            setattr(data_set, keyword, value)
    answer = stow(server, [made_file(data_set)])
    if answer.status_code != 200:
        return
    for end in ("/rendered", "/thumbnail", "/frames/1/rendered"):
        began = cpu_seconds(server.process.pid)
        answer = get(server, path_of(data_set) + end)
        assert cpu_seconds(server.process.pid) - began < 1
        assert answer.status_code in (200, 404, 406), answer.text
        if answer.status_code == 200:
            Image.open(io.BytesIO(answer.content)).load()
    began = cpu_seconds(server.process.pid)
    answer = get(server, path_of(data_set) + "/rendered", {"Accept": 'multipart/related; type="image/png"'})
    assert cpu_seconds(server.process.pid) - began < 1
    assert answer.status_code in (200, 400, 406), answer.text


def test_a_bomb_of_run_lengths_is_one_refusal(server):
    """8000 × 8000 in one segment; and 65,535 × 65,535, which nothing decodes."""
    for rows, columns in ((8000, 8000), (65535, 65535)):
        file, data_set = multiframe(1, Rows=rows, Columns=columns)
        run = b"\x81\x07" * (min(rows * columns, 64_000_000) // 128 + 1)
        frame = struct.pack("<16I", 1, 64, *([0] * 14)) + run
        data_set.PixelData = pydicom.encaps.encapsulate([frame + b"\0" * (len(frame) % 2)])
        data_set["PixelData"].VR = "OB"
        data_set["PixelData"].is_undefined_length = True
        send(server, made_file(data_set, "1.2.840.10008.1.2.5"))
        began = cpu_seconds(server.process.pid)
        answer = get(server, path_of(data_set) + "/thumbnail")
        assert answer.status_code in (200, 406)
        assert cpu_seconds(server.process.pid) - began < (10 if answer.status_code == 200 else 1)
    assert highest_mib(server.process.pid) < 512


def highest_mib(pid):
    status = open(f"/proc/{pid}/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def test_damage_of_any_header_byte_is_an_answer(server):
    """A CT with each of its first elements damaged in turn: a picture, or a reason."""
    whole = CT.path.read_bytes()
    seen = set()
    for at in range(400, len(whole) - CT.header.Rows * CT.header.Columns * 2, 97):
        uid = generate_uid()
        file = bytearray(whole.replace(str(CT.header.SOPInstanceUID).encode(), uid[: len(CT.header.SOPInstanceUID)].ljust(len(CT.header.SOPInstanceUID), "1").encode()))
        file[at] ^= 0x15
        if stow(server, [bytes(file)]).status_code != 200:
            continue
        uid = uid[: len(CT.header.SOPInstanceUID)].ljust(len(CT.header.SOPInstanceUID), "1")
        found = requests.get(f"{server.web}/instances", params={"SOPInstanceUID": uid}, timeout=30)
        if found.status_code != 200 or not found.json():
            continue
        row = found.json()[0]
        path = f"/studies/{row['0020000D']['Value'][0]}/series/{row['0020000E']['Value'][0]}/instances/{uid}"
        answer = get(server, path + "/rendered")
        assert answer.status_code in (200, 406), answer.text
        seen.add(answer.status_code)
    assert 200 in seen
