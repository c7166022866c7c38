"""What a frame is to look like, by the formulas of PS3.3 and PS3.4 alone: pydicom decodes, numpy computes, nothing is shared with
the archive.

    stored values ─► padding ─► modality LUT or rescale ─► VOI LUT or window ─► inversion ─► 0 … 255
    palette       ─► three tables          colours ─► RGB of 8 bits          overlays ─► white
"""
import numpy
import pydicom
from pydicom.pixels import pixel_array

WHITE = 255.0
# X-Ray angiography and radiofluoroscopy: their Modality LUT is not for the eye (PS3.3 C.8.7.1.1.2).
MEASURING = ("1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2")


def groups(data_set, frame, name):
    """Where a functional group says something of a frame: the frame's own, the shared one, the data set."""
    for sequence, at in (("PerFrameFunctionalGroupsSequence", frame - 1), ("SharedFunctionalGroupsSequence", 0)):
        items = data_set.get(sequence) or []
        if len(items) > at and items[at].get(name):
            yield items[at][name].value[0]
    yield data_set


def numbers(data_set, keyword):
    value = data_set.get(keyword)
    if value is None or value == "":
        return []
    found = []
    for each in value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]:
        try:
            found.append(float(each))
        except (TypeError, ValueError):
            found.append(None)
    return found


def table(descriptor, data, signed, values, big=False):
    """The entries of `values`; the descriptor's second number has the sign of what is looked up."""
    count, first, bits = (int(each) for each in descriptor)
    count, first = count % 65536 or 65536, first % 65536
    if signed and first > 32767:
        first -= 65536
    if isinstance(data, bytes):
        # Words of OW, which pydicom leaves as they are.
        data = numpy.frombuffer(data, ">u2").byteswap().tobytes() if big else data
        packed = bits == 8 and len(data) <= count + count % 2
        entries = numpy.frombuffer(data, "u1" if packed else "<u2")[:count]
    else:
        entries = numpy.array([int(each) % 65536 for each in numpy.atleast_1d(data)])[:count]
    at = numpy.clip(numpy.rint(values) - first, 0, len(entries) - 1).astype(int)
    return entries[at].astype(float), bits


def window(values, centre, width, function):
    if function == "SIGMOID":
        return WHITE / (1 + numpy.exp(-4 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return numpy.clip(((values - centre) / width + 0.5) * WHITE, 0, WHITE)
    # LINEAR (PS3.3 C.11.2.1.2.1).
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    between = ((values - (centre - 0.5)) / (width - 1) + 0.5) * WHITE if width > 1 else numpy.zeros_like(values)
    return numpy.where(values <= low, 0, numpy.where(values > high, WHITE, between))


def is_big(data_set):
    return not data_set.file_meta.TransferSyntaxUID.is_little_endian


def stored_values(data_set, frame, decoded):
    """Of a grey frame: the bits that are stored, with their sign."""
    if "PixelData" not in data_set:
        return decoded.astype(float)
    allocated, stored = data_set.BitsAllocated, data_set.get("BitsStored", data_set.BitsAllocated)
    high = data_set.get("HighBit", stored - 1)
    bits = decoded.astype("int64") & ((1 << allocated) - 1) >> 0
    bits = bits >> max(high + 1 - stored, 0) & ((1 << stored) - 1)
    if data_set.get("PixelRepresentation", 0) == 1:
        bits = numpy.where(bits >= 1 << (stored - 1), bits - (1 << stored), bits)
    return bits.astype(float)


def is_padding(data_set, values):
    name = {"FloatPixelData": "FloatPixelPadding", "DoubleFloatPixelData": "DoubleFloatPixelPadding"}
    prefix = next((prefix for keyword, prefix in name.items() if keyword in data_set), "PixelPadding")
    ends = [numbers(data_set, prefix + end) for end in ("Value", "RangeLimit")]
    nothing = ~numpy.isfinite(values)
    if not ends[0] or ends[0][0] is None:
        return nothing
    value, limit = ends[0][0], (ends[1] or ends[0])[0]
    if prefix == "PixelPadding":
        signed = data_set.get("PixelRepresentation", 0) == 1
        value, limit = (x - 65536 if signed and x > 32767 else x + 65536 if not signed and x < 0 else x for x in (value, limit))
    return nothing | (values >= min(value, limit)) & (values <= max(value, limit))


def modality(data_set, frame, values):
    """Values of the modality, and whether they can be negative."""
    signed = data_set.get("PixelRepresentation", 0) == 1
    for place in groups(data_set, frame, "PixelValueTransformationSequence"):
        luts = place.get("ModalityLUTSequence")
        if luts and str(data_set.get("SOPClassUID")) not in MEASURING:
            return table(luts[0].LUTDescriptor, luts[0].LUTData, signed, values, is_big(data_set))[0], False
        slope, intercept = (numbers(place, keyword)[:1] for keyword in ("RescaleSlope", "RescaleIntercept"))
        if any(slope) or intercept:
            slope, intercept = (slope[0] if any(slope) else 1.0), (intercept[0] if intercept else 0.0)
            stored = data_set.get("BitsStored", 16)
            ends = (-(2.0 ** (stored - 1)), 2.0 ** (stored - 1) - 1) if signed else (0.0, 2.0**stored - 1)
            return values * slope + intercept, min(end * slope + intercept for end in ends) < 0
    return values, signed


def voi(data_set, frame, values, signed, shown):
    for place in groups(data_set, frame, "FrameVOILUTSequence"):
        if luts := place.get("VOILUTSequence"):
            entries, bits = table(luts[0].LUTDescriptor, luts[0].LUTData, signed, values, is_big(data_set))
            return numpy.clip(entries / (2**bits - 1) * WHITE, 0, WHITE)
        function = str(place.get("VOILUTFunction") or "LINEAR").strip()
        for centre, width in zip(numbers(place, "WindowCenter"), numbers(place, "WindowWidth")):
            if centre is not None and width is not None and width > 0:
                exact = function == "LINEAR" and width < 1
                return window(values, centre, width, "LINEAR_EXACT" if exact else function)
    if data_set.get("BitsStored") == 1:
        return values * WHITE
    low, high = (values[shown].min(), values[shown].max()) if shown.any() else (0, 0)
    return (values - low) / (high - low) * WHITE if high > low else numpy.zeros_like(values)


def grey(data_set, frame, decoded, asked):
    stored = stored_values(data_set, frame, decoded)
    padding = is_padding(data_set, stored)
    with numpy.errstate(all="ignore"):
        values, signed = modality(data_set, frame, stored)
        light = window(values, *asked) if asked else voi(data_set, frame, values, signed, ~padding)
        light = numpy.clip(light, 0, WHITE)
    if data_set.PhotometricInterpretation == "MONOCHROME1" or str(data_set.get("PresentationLUTShape", "")) == "INVERSE":
        light = WHITE - light
    return numpy.where(padding, 0, numpy.nan_to_num(light))


def palette(data_set, decoded):
    signed = data_set.get("PixelRepresentation", 0) == 1
    values, big = stored_values(data_set, 1, decoded), is_big(data_set)
    out = []
    for colour in ("Red", "Green", "Blue"):
        descriptor = data_set[f"{colour}PaletteColorLookupTableDescriptor"].value
        data = data_set.get(f"{colour}PaletteColorLookupTableData")
        if data is None:
            data = expanded(data_set[f"Segmented{colour}PaletteColorLookupTableData"].value, big)
        entries, bits = table(descriptor, data, signed, values, big)
        out.append(entries / (2**bits - 1) * WHITE)
    return numpy.stack(out, axis=-1)


def expanded(data, big):
    """A segmented palette (PS3.3 C.7.9.2)."""
    words, out = list(numpy.frombuffer(data, ">u2" if big else "<u2")), []

    def segment(at):
        opcode, count = int(words[at]), int(words[at + 1])
        if opcode == 0:
            out.extend(int(word) for word in words[at + 2 : at + 2 + count])
            return at + 2 + count
        if opcode == 1:
            start, end = out[-1], int(words[at + 2])
            out.extend(round(start + (end - start) * step / count) for step in range(1, count + 1))
            return at + 3
        place = int(words[at + 2]) | int(words[at + 3]) << 16
        for _ in range(count):
            place = segment(place)
        return at + 4

    at = 0
    while at < len(words):
        at = segment(at)
    return out


def colours(data_set, decoded):
    stored = data_set.BitsStored
    return decoded.astype(float) / (2**stored - 1) * WHITE


def overlays(data_set, frame, picture):
    """White where the graphics overlays over this frame have a bit."""
    for group in range(0x6000, 0x6020, 2):
        if (group, 0x3000) not in data_set or str(data_set.get((group, 0x0040), "G").value).strip() != "G":
            continue
        planes = numpy.atleast_3d(data_set.overlay_array(group))
        planes = planes if data_set.overlay_array(group).ndim == 3 else data_set.overlay_array(group)[None]
        start = int(data_set[group, 0x0051].value) if (group, 0x0051) in data_set else 1
        at = 0 if len(planes) == 1 else frame - start
        if not 0 <= at < len(planes):
            continue
        top, left = (int(each) - 1 for each in data_set[group, 0x0050].value)
        for row, column in zip(*numpy.nonzero(planes[at])):
            if 0 <= row + top < picture.shape[0] and 0 <= column + left < picture.shape[1]:
                picture[row + top, column + left] = WHITE


def has_square_pixels(data_set, frame=1):
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        places = groups(data_set, frame, "PixelMeasuresSequence") if name == "PixelSpacing" else [data_set]
        for place in places:
            pair = numbers(place, name)
            if len(pair) == 2 and all(pair):
                return abs(pair[0] / pair[1] - 1) <= 0.01
    return True


def picture_of(data_set, frame, decoded, asked=None):
    """Levels from 0 to 255, not rounded; `decoded` is the frame as other decoders have it, `asked` a window in place of its own:
    centre, width, function."""
    if data_set.get("SamplesPerPixel", 1) == 3:
        picture = colours(data_set, decoded)
    elif data_set.PhotometricInterpretation == "PALETTE COLOR":
        picture = palette(data_set, decoded)
    else:
        picture = grey(data_set, frame, decoded, asked)
    overlays(data_set, frame, picture)
    return picture


def decoded_frames(data_set, plugin=""):
    """All frames, RGB where they have colours; of several frames also for one."""
    array = pixel_array(data_set, decoding_plugin=plugin)
    frames = int(data_set.get("NumberOfFrames") or 1)
    return array if frames > 1 else array[None]
