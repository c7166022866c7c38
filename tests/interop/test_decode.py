"""Compressed images for those who take none: every compressed file of pydicom, decoded here and by other decoders.

What may differ, and why: a lossless or near-lossless stream has one right answer (0). Of a DCT the standard leaves the
rounding open (ISO/IEC 10918-2 allows one level a sample), the conversion to RGB multiplies it by up to 1.772 and adds two
of them, and interpolates subsampled chroma as it likes. JPEG 2000 of real numbers (9/7) rounds once at its end.
"""
import numpy
import pydicom
import pytest
import requests
from coded import BIG, EXPLICIT, IMPLICIT, PLAIN, ROOT, c_get, check_native, compressed_files, difference, image_of, samples
from pydicom.pixels import pixel_array

FILES = compressed_files()
# Never a wrong image: a failure, and why.
REFUSED = {
    "SC_rgb_jls_lossy_line.dcm": "JPEG-LS of several components",  # no decoder of it is written in Rust (archive/codec)
    "SC_rgb_jls_lossy_sample.dcm": "JPEG-LS of several components",
    "JPEG2000-embedded-sequence-delimiter.dcm": "frame 1 cannot be decoded",  # its main header is overwritten
}
DECODED = [path for path in FILES if path.name not in REFUSED]
PLUGINS = {ROOT + ".4.50": "pillow", ROOT + ".5": "pydicom"}


def theirs(data_set):
    """As decoders in C have it (or, of RLE, in Python); colour as RGB."""
    syntax = data_set.file_meta.TransferSyntaxUID
    if getattr(data_set, "named", "") == "JPEG-lossy.dcm":
        # libjpeg refuses the end of its spectral selection; JPGExtended.dcm is the same image with that mended.
        return theirs(image_of(next(path for path in FILES if path.name == "JPGExtended.dcm")).header)
    return pixel_array(data_set, decoding_plugin=PLUGINS.get(syntax, "pylibjpeg"))


def allowed(data_set):
    """Levels that two right decoders may be apart."""
    syntax = data_set.file_meta.TransferSyntaxUID
    if syntax in (ROOT + ".4.50", ROOT + ".4.51"):
        return 1 if data_set.SamplesPerPixel == 1 else 4
    return 1 if syntax == ROOT + ".4.91" else 0


def test_there_are_files_of_every_coding_that_pydicom_has():
    codings = {pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID[len(ROOT):] for path in FILES}
    assert codings >= {".4.50", ".4.51", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91", ".5"}
    assert len(FILES) >= 35


@pytest.mark.parametrize("syntax", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("path", DECODED, ids=lambda path: path.name)
def test_c_get_gives_a_good_image_to_who_takes_only_this(server, path, syntax):
    image = image_of(path)
    image.send(server)
    final, received = c_get(server, image, [syntax])
    assert final.Status == 0x0000, server.said()[-2000:]
    ((got, _),) = received
    check_native(got, image.header, syntax)
    assert difference(samples(got), theirs(image.header)) <= allowed(image.header)


@pytest.mark.parametrize("path", DECODED[::3], ids=lambda path: path.name)
def test_the_stored_syntax_is_preferred_and_explicit_to_implicit(server, path):
    image = image_of(path)
    image.send(server)
    _, ((got, body),) = c_get(server, image, [BIG, IMPLICIT, EXPLICIT, image.syntax])
    assert got.file_meta.TransferSyntaxUID == image.syntax and body == image.bytes
    _, ((got, _),) = c_get(server, image, [BIG, IMPLICIT, EXPLICIT])
    assert got.file_meta.TransferSyntaxUID == EXPLICIT


@pytest.mark.parametrize("path", DECODED, ids=lambda path: path.name)
def test_wado_decodes_for_who_demands_it_and_only_then(server, path):
    image = image_of(path)
    image.send(server)
    url = server.instance_url(image.header)
    demanded = {"Accept": f"application/dicom; transfer-syntax={EXPLICIT}"}
    answer = requests.get(url, headers=demanded, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == f"application/dicom; transfer-syntax={EXPLICIT}"
    got = pydicom.dcmread(pydicom.filebase.DicomBytesIO(answer.content))
    check_native(got, image.header, EXPLICIT)
    assert difference(samples(got), theirs(image.header)) <= allowed(image.header)
    for accept in ("*/*", "application/dicom; transfer-syntax=*", "application/dicom"):
        answer = requests.get(url, headers={"Accept": accept}, timeout=60)
        assert f"transfer-syntax={image.syntax}".encode() in answer.content + answer.headers["Content-Type"].encode()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_no_decoder_here_knows_is_a_failure_and_never_a_wrong_image(server, name):
    (path,) = [path for path in FILES if path.name == name]
    image = image_of(path)
    image.send(server)
    final, received = c_get(server, image, [EXPLICIT])
    assert (final.Status, final.NumberOfFailedSuboperations, received) == (0xA702, 1, [])
    demanded = {"Accept": f"application/dicom; transfer-syntax={EXPLICIT}"}
    answer = requests.get(server.instance_url(image.header), headers=demanded, timeout=60)
    assert answer.status_code == 406 and REFUSED[name] in answer.text
    final, ((_, body),) = c_get(server, image, [image.syntax])
    assert final.Status == 0x0000 and body == image.bytes


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "SC_rgb_rle_2frame.dcm", "MR_small_jpeg_ls_lossless.dcm", "examples_ybr_color.dcm"])
def test_frames_are_decoded_for_who_demands_it_if_the_metadata_still_fit(server, name):
    (path,) = [path for path in FILES if path.name == name]
    image = image_of(path)
    image.send(server)
    frames = int(image.header.get("NumberOfFrames", 1) or 1)
    url = f"{server.instance_url(image.header)}/frames/{frames}"
    demanded = {"Accept": f"application/octet-stream; transfer-syntax={EXPLICIT}"}
    answer = requests.get(url, headers=demanded, timeout=60)
    if name == "examples_ybr_color.dcm":  # decoded it is RGB, which its metadata do not say
        assert answer.status_code == 406 and "metadata" in answer.text
        return
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == demanded["Accept"]
    shown = theirs(image.header)
    frame = shown[-1] if frames > 1 else shown
    got = numpy.frombuffer(answer.content, frame.dtype.newbyteorder("<")).reshape(frame.shape)
    assert difference(got, frame) <= allowed(image.header)
    stored = requests.get(url, headers={"Accept": "*/*"}, timeout=60)
    assert f"transfer-syntax={image.syntax}".encode() in stored.content + stored.headers["Content-Type"].encode()
