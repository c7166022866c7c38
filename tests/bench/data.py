"""Images to measure with: made, not fetched; the same arguments give the same bytes.

    OUT/ct/00000/00000.dcm      512 x 512 signed 16 bit, 512 KiB of noise under a header of about 1 KB
    OUT/index/000/00000.dcm     8 x 8, one instance a study: only the index has work
    OUT/small/000.pack          8 x 8, five instances a study, three studies a patient: what a PACS counts its load in; whole files
                                one behind the other, each named `small/000.pack@OFFSET+LENGTH`, as 100,000 files of their own take
                                minutes to make and to remove where others use the disk
    OUT/ct.json index.json small.json       studies, their files, and what to query for

Pixels are noise, so that no peer gains by compressing, and slices of one noise field, so that making them is quick.
Standard library only.
"""
import json
import os
import random
import shutil
import struct

EXPLICIT_LE = "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
LONG = {"OB", "OW", "SQ", "UN", "UT"}
FAMILY = ("ADAMS BAKER CLARK DAVIS EVANS FRANK GHOSH HUGHES ISMAIL JONES KUMAR LOPEZ MOORE NOLAN OWENS PEREZ QUINN "
          "REYES SMITH TURNER UNDERWOOD VARGAS WALKER XU YOUNG ZHANG").split()


def element(group, number, vr, value):
    """One element, explicit VR little endian (PS3.5 7.1.2), padded to even length."""
    if isinstance(value, str):
        value = value.encode("ascii")
    if len(value) % 2:
        value += b"\0" if vr in ("UI", "OB", "UN") else b" "
    head = struct.pack("<HH2s", group, number, vr.encode())
    if vr in LONG:
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def us(number):
    return struct.pack("<H", number)


def instance(sop_class, study, series, uid, number, size, pixels, person, patient_id, date, accession, modality, frames=1):
    """A whole Part 10 file."""
    meta = b"".join([
        element(2, 1, "OB", b"\0\1"), element(2, 2, "UI", sop_class), element(2, 3, "UI", uid),
        element(2, 0x10, "UI", EXPLICIT_LE), element(2, 0x12, "UI", "2.25.331277913402134"), element(2, 0x13, "SH", "BENCH"),
    ])
    bits = 8 if len(pixels) == size * size else 16
    request = element(0x40, 7, "LO", f"{modality} CHEST") + element(0x40, 9, "SH", accession)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(request)) + request
    body = b"".join([
        element(8, 5, "CS", "ISO_IR 100"), element(8, 8, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        element(8, 0x16, "UI", sop_class), element(8, 0x18, "UI", uid), element(8, 0x20, "DA", date),
        element(8, 0x21, "DA", date), element(8, 0x23, "DA", date), element(8, 0x30, "TM", "101500"),
        element(8, 0x33, "TM", "101500.%06d" % number), element(8, 0x50, "SH", accession),
        element(8, 0x60, "CS", modality), element(8, 0x70, "LO", "Synthetic Imaging"),
        element(8, 0x80, "LO", "Bench General Hospital"), element(8, 0x90, "PN", "Referrer^Rita"),
        element(8, 0x1030, "LO", f"{modality} CHEST"), element(8, 0x103E, "LO", f"{modality} series"),
        element(0x10, 0x10, "PN", person), element(0x10, 0x20, "LO", patient_id),
        element(0x10, 0x30, "DA", "19700101"), element(0x10, 0x40, "CS", "F"),
        element(0x18, 0x50, "DS", "1.0"), element(0x18, 0x60, "DS", "120"), element(0x18, 0x5100, "CS", "HFS"),
        element(0x20, 0x0D, "UI", study), element(0x20, 0x0E, "UI", series), element(0x20, 0x10, "SH", "S1"),
        element(0x20, 0x11, "IS", "1"), element(0x20, 0x12, "IS", "1"), element(0x20, 0x13, "IS", str(number + 1)),
        element(0x20, 0x32, "DS", f"-180\\-180\\{number}"), element(0x20, 0x37, "DS", "1\\0\\0\\0\\1\\0"),
        element(0x20, 0x52, "UI", study + ".9"),
        element(0x28, 2, "US", us(1)), element(0x28, 4, "CS", "MONOCHROME2"),
        *([element(0x28, 8, "IS", str(frames))] if frames > 1 else []), element(0x28, 0x10, "US", us(size)),
        element(0x28, 0x11, "US", us(size)), element(0x28, 0x30, "DS", "0.7\\0.7"), element(0x28, 0x100, "US", us(bits)),
        element(0x28, 0x101, "US", us(bits)), element(0x28, 0x102, "US", us(bits - 1)), element(0x28, 0x103, "US", us(bits // 16)),
        element(0x28, 0x1050, "DS", "40"), element(0x28, 0x1051, "DS", "400"), element(0x28, 0x1052, "DS", "0"),
        element(0x28, 0x1053, "DS", "1"), element(0x29, 0x10, "LO", "BENCH 1.0"),
        element(0x29, 0x1010, "OB", bytes(range(256))), element(0x40, 0x275, "SQ", item),
        element(0x7FE0, 0x10, "OB" if bits == 8 else "OW", pixels),
    ])
    return b"\0" * 128 + b"DICM" + element(2, 0, "UL", struct.pack("<I", len(meta))) + meta + body


# Folder and number of a kind, side of its images in pixels; the number stands in every UID and accession.
KINDS = dict(ct=(1, 512), index=(2, 8), small=(3, 8))


def _studies(out, kind, count, per_study, seed):
    """Writes the files of one kind and gives its studies."""
    number_of_kind, size = KINDS[kind]
    sop_class, modality = (CT, "CT") if kind == "ct" else (SECONDARY_CAPTURE, "OT")
    noise = random.Random(seed).randbytes((1 << 20) + 524288)
    studies, packed, ends = [], {}, {}
    for s in range(count):
        folder = f"ct/{s:05d}" if kind == "ct" else f"{kind}/{s // 1000:03d}"
        r = random.Random(f"{seed}/{kind}/{s}")
        person = f"{FAMILY[r.randrange(len(FAMILY))]}^{kind.upper()}^{s // 3}"
        date = "%d%02d%02d" % (2015 + s % 10, 1 + r.randrange(12), 1 + r.randrange(28))
        uid = f"1.2.826.0.1.3680043.10.511.{seed}.{number_of_kind}.{s + 1}"
        patient, accession = f"{kind.upper()}{s // 3:06d}", f"A{number_of_kind}{s:07d}"
        files = []
        for i in range(per_study):
            at = r.randrange(1 << 19) * 2
            pixels = noise[at:at + size * size * (2 if size > 8 else 1)]
            part10 = instance(sop_class, uid, uid + ".1", f"{uid}.1.{i + 1}", i, size, pixels, person, patient, date, accession, modality)
            if kind == "small":
                path = f"{folder}.pack"
                packed.setdefault(path, []).append(part10)
                files.append(f"{path}@{ends.get(path, 0)}+{len(part10)}")
                ends[path] = ends.get(path, 0) + len(part10)
                continue
            path = os.path.join(folder, f"{i if kind == 'ct' else s:05d}.dcm")
            os.makedirs(os.path.join(out, folder), exist_ok=True)
            with open(os.path.join(out, path), "wb") as f:
                f.write(part10)
            files.append(path)
        studies.append(dict(study=uid, series=uid + ".1", person=person, patient=patient, date=date, accession=accession, files=files))
    for path, parts in packed.items():
        os.makedirs(os.path.join(out, kind), exist_ok=True)
        with open(os.path.join(out, path), "wb") as f:
            f.write(b"".join(parts))
    return studies


def read(out, name):
    """The bytes of one instance, by its name."""
    path, _, place = name.partition("@")
    offset, length = map(int, place.split("+")) if place else (0, -1)
    with open(os.path.join(out, path), "rb") as f:
        f.seek(offset)
        return f.read(length)


def make(out, seed=1, **wanted):
    """`ct=(studies, instances a study)` and so on: makes each kind that is not there with these very numbers; gives the
    studies by kind. A kind that is not wanted is left as it lies."""
    found = {kind: [] for kind in KINDS}
    os.makedirs(out, exist_ok=True)
    for kind, (count, per_study) in wanted.items():
        if not count:
            continue
        arguments = dict(version=3, studies=count, per_study=per_study, seed=seed)
        manifest = os.path.join(out, f"{kind}.json")
        if os.path.exists(manifest):
            with open(manifest, encoding="ascii") as f:
                there = json.load(f)
            if there["arguments"] == arguments:
                found[kind] = there["studies"]
                continue
            # Without its manifest a folder is unfinished: a run that is stopped here makes it again.
            os.unlink(manifest)
        shutil.rmtree(os.path.join(out, kind), ignore_errors=True)
        found[kind] = _studies(out, kind, count, per_study, seed)
        with open(manifest, "w", encoding="ascii") as f:
            json.dump(dict(arguments=arguments, studies=found[kind]), f)
    return found
