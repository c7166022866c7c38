"""Codings that no file of pydicom has, made by other libraries (imagecodecs: OpenJPH, libjxl, CharLS, libjpeg), decoded here."""
import zlib

import imagecodecs
import numpy
import pytest
from coded import BIG, EXPLICIT, IMPLICIT, ROOT, c_get, check_native, difference, made, samples


def picture(rows=61, columns=83, samples=1, bits=12, signed=False):
    """Edges, slopes and noise, the same each time; both ends of the range occur."""
    random = numpy.random.default_rng(7)
    y, x = numpy.mgrid[:rows, :columns]
    base = (x * 23 + y * 11) % (1 << bits) // 2 + (x > y) * (1 << (bits - 2))
    planes = [(base + random.integers(0, 1 << (bits - 3), base.shape) + sample * 17) % (1 << bits) for sample in range(samples)]
    array = numpy.stack(planes, -1) if samples > 1 else planes[0]
    array.flat[0], array.flat[-1] = 0, (1 << bits) - 1
    array = array.astype("u2" if bits > 8 else "u1")
    return (array.astype("i4") - (1 << (bits - 1))).astype("i2") if signed else array


def deflated(frame):
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(frame) + stream.flush()


GREY, SIGNED, COLOUR = picture(), picture(signed=True), picture(64, 48, 3, 8)
LOSSLESS = {
    "htj2k": lambda: made(GREY, ROOT + ".4.201", [imagecodecs.htj2k_encode(GREY, reversible=True)], stored=12),
    "htj2k signed": lambda: made(SIGNED, ROOT + ".4.201", [imagecodecs.htj2k_encode(SIGNED, reversible=True)], stored=12, signed=True),
    "htj2k rpcl": lambda: made(GREY, ROOT + ".4.202", [imagecodecs.htj2k_encode(GREY, reversible=True, tlm=True)], stored=12),
    "htj2k colour": lambda: made(COLOUR, ROOT + ".4.201", [imagecodecs.htj2k_encode(COLOUR, reversible=True)], "YBR_RCT"),
    "jpeg 2000": lambda: made(GREY, ROOT + ".4.90", [imagecodecs.jpeg2k_encode(GREY, level=0, codecformat="J2K", bitspersample=12)], stored=12),
    # More than 16 bit planes, of which `j2k` loses the lowest: OpenJPEG decodes it.
    "jpeg 2000 of 16 bits": lambda: made(SIGNED, ROOT + ".4.90", [imagecodecs.jpeg2k_encode(SIGNED, level=0, codecformat="J2K")], stored=16, signed=True),
    "jpeg 2000 in jp2": lambda: made(COLOUR, ROOT + ".4.90", [imagecodecs.jpeg2k_encode(COLOUR, level=0, codecformat="JP2")], "YBR_RCT"),
    "jpeg xl": lambda: made(GREY, ROOT + ".4.110", [imagecodecs.jpegxl_encode(GREY, lossless=True, bitspersample=12)], stored=12),
    "jpeg xl of 16 bits": lambda: made(GREY * 16, ROOT + ".4.110", [imagecodecs.jpegxl_encode(GREY * 16, lossless=True)]),
    "jpeg xl colour": lambda: made(COLOUR, ROOT + ".4.110", [imagecodecs.jpegxl_encode(COLOUR, lossless=True)], "RGB"),
    "jpeg-ls": lambda: made(GREY, ROOT + ".4.80", [imagecodecs.jpegls_encode(GREY)], stored=16),
    "jpeg lossless 1": lambda: made(GREY, ROOT + ".4.70", [imagecodecs.jpeg8_encode(GREY, lossless=True, predictor=1, bitspersample=16)], stored=12),
    **{
        f"jpeg lossless {predictor}": lambda predictor=predictor: made(
            GREY, ROOT + ".4.57", [imagecodecs.jpeg8_encode(GREY, lossless=True, predictor=predictor, bitspersample=16)], stored=12
        )
        for predictor in range(2, 8)
    },
    "deflated": lambda: made(GREY, ROOT + ".8.1", [deflated(GREY.tobytes())] * 3, stored=12),
    "deflated colour": lambda: made(COLOUR, ROOT + ".8.1", [deflated(COLOUR.tobytes())], "RGB"),
    "uncompressed": lambda: made(SIGNED, ROOT + ".1.98", [SIGNED.tobytes()] * 2, stored=12, signed=True),
}


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_frames_are_what_was_encoded(server, name, syntax):
    image = LOSSLESS[name]()
    image.send(server)
    final, received = c_get(server, image, [syntax])
    assert final.Status == 0x0000, server.said()[-2000:]
    ((got, _),) = received
    check_native(got, image.header, syntax)
    shown = COLOUR if got.SamplesPerPixel == 3 else SIGNED if got.PixelRepresentation else GREY * 16 if "16" in name else GREY
    frames = int(got.get("NumberOfFrames", 1))
    whole = samples(got)
    for frame in whole if frames > 1 else [whole]:
        assert difference(frame, shown) == 0


def lossy_rgb():
    frame = imagecodecs.jpegxl_encode(COLOUR, distance=1.0)
    return made(COLOUR, ROOT + ".4.112", [frame], "XYB", LossyImageCompression="01"), imagecodecs.jpegxl_decode(frame), 2


def recompressed():
    jpeg = imagecodecs.jpeg8_encode(COLOUR, level=90, colorspace="RGB", outcolorspace="YCBCR", subsampling="422")
    frame = imagecodecs.jpegxl_encode_jpeg(jpeg)
    return made(COLOUR, ROOT + ".4.111", [frame], "YBR_FULL_422", LossyImageCompression="01"), imagecodecs.jpegxl_decode(frame), 2


def lossy_htj2k():
    frame = imagecodecs.htj2k_encode(GREY, reversible=False, level=0.0005)
    return made(GREY, ROOT + ".4.203", [frame], stored=16, LossyImageCompression="01"), imagecodecs.htj2k_decode(frame), 1


@pytest.mark.parametrize("make", [lossy_rgb, recompressed, lossy_htj2k])
def test_lossy_frames_are_near_what_another_decoder_shows(server, make):
    image, shown, apart = make()
    image.send(server)
    final, received = c_get(server, image, [EXPLICIT])
    assert final.Status == 0x0000, server.said()[-2000:]
    ((got, _),) = received
    check_native(got, image.header, EXPLICIT)
    assert difference(samples(got), shown) <= apart
    assert got.LossyImageCompression == "01"
