"""`triptych get`: every image once, in its own file, and none that is there is overwritten."""
import json
import subprocess

import pydicom
import raw
from conftest import data_set_bytes
from pydicom.uid import generate_uid
from triptych import BINARY

SYNTAXES = [raw.IMPLICIT, raw.EXPLICIT, "1.2.840.10008.1.2.4.106", "1.2.840.113619.5.2"]


def get(server, study, folder):
    command = [BINARY, "get", "--json", "--at", f"127.0.0.1:{server.dimse}", "--study", study, "--out", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_many_classes_come_whole_and_files_that_are_there_stay(server, tmp_path):
    study, series, sent = generate_uid(), generate_uid(), {}
    classes = [f"1.3.46.670589.5.0.{number}" for number in range(1, 13)]
    for number, sop_class in enumerate(classes):
        instance, syntax = generate_uid(), SYNTAXES[number % len(SYNTAXES)]
        data = raw.data_set(sop_class, instance, study, series)
        if syntax not in (raw.IMPLICIT, SYNTAXES[3]):
            data = raw.explicit(data)
        with raw.Raw(server.dimse) as peer:
            peer.associate([(1, sop_class, [syntax])])
            assert peer.store(1, sop_class, instance, data) == 0x0000
            peer.release()
        sent[instance] = (syntax, data)
    assert get(server, study, tmp_path) == {"fetched": 12, "kept": 0, "failed": 0}
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(f"{instance}.dcm" for instance in sent)
    for instance, (syntax, data) in sent.items():
        file = tmp_path / f"{instance}.dcm"
        assert data_set_bytes(file.read_bytes()) == data
        assert pydicom.filereader.read_file_meta_info(file).TransferSyntaxUID == syntax
    mine = tmp_path / f"{next(iter(sent))}.dcm"
    mine.write_bytes(b"mine")
    assert get(server, study, tmp_path) == {"fetched": 0, "kept": 12, "failed": 0}
    assert mine.read_bytes() == b"mine"
