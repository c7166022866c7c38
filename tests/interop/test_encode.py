"""Plain images for who demands a lossless coding: compressed on their way, and the same for decoders that share no code."""
import numpy
import pydicom
import pytest
import requests
from coded import EXPLICIT, IMPLICIT, PIXELS, ROOT, Image, c_get, values
from pydicom.data import get_testdata_file
from pydicom.pixels import pixel_array

RLE, JPEG_LS, RPCL, HTJ2K = ROOT + ".5", ROOT + ".4.80", ROOT + ".4.202", ROOT + ".4.201"
PLUGINS = {RLE: "pydicom"}
FILES = ["CT_small.dcm", "MR_small.dcm", "examples_rgb_color.dcm", "rtdose.dcm", "SC_rgb_small_odd.dcm"]
CASES = [(name, syntax) for name in FILES for syntax in (RLE, JPEG_LS, RPCL, HTJ2K)]
# JPEG-LS of several components, and codings of 32 bits but RLE, are not written: never a wrong image, a failure.
REFUSED = {("examples_rgb_color.dcm", JPEG_LS), ("SC_rgb_small_odd.dcm", JPEG_LS)}
REFUSED |= {("rtdose.dcm", syntax) for syntax in (JPEG_LS, RPCL, HTJ2K)}


def image_of(name):
    return Image(pydicom.dcmread(get_testdata_file(name)), EXPLICIT, name)


@pytest.mark.parametrize("name, syntax", CASES)
def test_c_get_compresses_without_loss(server, name, syntax):
    image = image_of(name)
    stored = image.header
    image.send(server)
    final, received = c_get(server, image, [syntax])
    if (name, syntax) in REFUSED:
        assert (final.Status, received) == (0xA702, [])
        return
    assert final.Status == 0x0000, server.said()[-2000:]
    ((got, _),) = received
    assert got.file_meta.TransferSyntaxUID == syntax
    assert got["PixelData"].is_undefined_length and got["PixelData"].VR == "OB"
    transformed = stored.SamplesPerPixel == 3 and syntax in (RPCL, HTJ2K)
    assert got.PhotometricInterpretation == ("YBR_RCT" if transformed else stored.PhotometricInterpretation)
    assert values(got, PIXELS) == values(stored, PIXELS)
    decoded = pixel_array(got, raw=not transformed, decoding_plugin=PLUGINS.get(syntax, "pylibjpeg"))
    assert numpy.array_equal(decoded, pixel_array(stored, raw=True))
    frames = int(stored.get("NumberOfFrames", 1) or 1)
    table = pydicom.encaps.parse_basic_offsets(got.PixelData)
    assert len(table) == frames and table[0] == 0


def test_what_is_plain_is_preferred(server):
    image = image_of("CT_small.dcm")
    image.send(server)
    _, ((got, _),) = c_get(server, image, [RLE, JPEG_LS, IMPLICIT])
    assert got.file_meta.TransferSyntaxUID == IMPLICIT


@pytest.mark.parametrize("syntax", [RLE, JPEG_LS, RPCL, HTJ2K])
def test_wado_compresses_for_who_demands_it(server, syntax):
    image = image_of("CT_small.dcm")
    image.send(server)
    accept = {"Accept": f"application/dicom; transfer-syntax={syntax}"}
    answer = requests.get(server.instance_url(image.header), headers=accept, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == accept["Accept"]
    got = pydicom.dcmread(pydicom.filebase.DicomBytesIO(answer.content))
    assert numpy.array_equal(pixel_array(got, decoding_plugin=PLUGINS.get(syntax, "pylibjpeg")), image.header.pixel_array)
