"""Records and files of Snakemake's that are broken or foreign: as if they were not there, and named once."""

import json

import pytest
from snakemake.persistence.file import FilePersistence

from prefline import files
from prefline.errors import InputError
from prefline.provenance import metadata, records
from prefline.provenance.hashes import Hashes

OUTPUT = "results/a/made.json"
GOOD = {
    **{"sha256": "", "inputs": {}, "data": {}, "seconds": 1.0, "packages": {}},
    "snakemake": {
        **{"rule": "make", "input": [], "log": [], "shellcmd": "", "params": [], "code": ""},
        **{"record_format_version": 6, "software_stack_hash": ""},
    },
}
BROKEN = {
    "empty": b"",
    "half": b'{"sha256": "a',
    "bytes": b"\xff\xfe\x00",
    "control": b'{"sha256": "\x07"}',
    "list": b"[1]",
    "null": b"null",
    "no keys": b'{"sha256": "a"}',
    "other": json.dumps(GOOD | {"snakemake": None}).encode(),
    "less": json.dumps(GOOD | {"snakemake": {"rule": "make"}}).encode(),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metadata.name_once.cache_clear()
    files.write_text(OUTPUT, "made")
    return tmp_path


def sync():
    records.sync(Hashes("hashes.json"), None, {})


def test_a_good_record_becomes_metadata(folder):
    files.write_json(records.path_of(OUTPUT), GOOD | {"sha256": files.sha256(OUTPUT)})
    sync()
    assert records.origin(OUTPUT) == ("make", [])
    records.check_known([OUTPUT], lambda path: True)


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_record_counts_as_missing_and_is_named_once(folder, content, capsys):
    path = records.path_of(OUTPUT)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    sync()
    sync()
    assert records.read(OUTPUT) is None and records.origin(OUTPUT) is None
    with pytest.raises(InputError, match=f"without a record under results/records/.*: {OUTPUT}; get "):
        records.check_known([OUTPUT], lambda path: True)
    assert (
        capsys.readouterr().err == f"{path}: is not a record of a result, and counts as missing; delete it\n"
    )


SNAKEMAKES = GOOD["snakemake"] | {"conda_env": None, "starttime": 1.0, "endtime": 2.0}
BROKEN_METADATA = {
    **{"empty": b"", "half": b'{"rule": "ma', "bytes": b"\xff\xfe\x00", "list": b"[1]", "null": b"null"},
    **{"no keys": b"{}", "type": json.dumps(SNAKEMAKES | {"input": "a"}).encode()},
    **{"inner type": json.dumps(SNAKEMAKES | {"params": [1]}).encode()},
}


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("content", BROKEN_METADATA.values(), ids=BROKEN_METADATA)
def test_metadata_that_is_broken_counts_as_missing_and_snakemake_never_reads_it(
    folder, content, recorded, capsys
):
    if recorded:
        files.write_json(records.path_of(OUTPUT), GOOD | {"sha256": files.sha256(OUTPUT)})
        sync()
    path = metadata.path_of(OUTPUT)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    sync()
    sync()
    assert records.origin(OUTPUT) == (("make", []) if recorded else None)
    assert path.exists() == recorded
    assert FilePersistence(path=folder / ".snakemake")._read_record(OUTPUT) or not recorded
    assert capsys.readouterr().err.count("not metadata of Snakemake") == 1


@pytest.mark.parametrize("name", [".nfs000000000001", "a~", "4913", ".a.swp", "x.orig", "é", "YQ==.bak"])
@pytest.mark.parametrize("where", [metadata.METADATA, metadata.INCOMPLETE, records.RECORDS])
def test_a_foreign_file_stays_and_hurts_nothing(folder, where, name, capsys):
    files.write_json(records.path_of(OUTPUT), GOOD | {"sha256": files.sha256(OUTPUT)})
    foreign = where / name
    foreign.parent.mkdir(parents=True, exist_ok=True)
    foreign.write_bytes(b"\xff")
    sync()
    sync()
    records.check_known([OUTPUT], lambda path: True)
    assert records.origin(OUTPUT) == ("make", []) and foreign.exists()
    assert capsys.readouterr().err.count(f"/{name}: ") == (where != records.RECORDS)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"\xff"])
def test_a_damaged_marker_of_an_unfinished_output_still_marks_it(folder, content):
    path = metadata.path_of(OUTPUT, metadata.INCOMPLETE)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    files.write_json(records.path_of(OUTPUT), GOOD | {"sha256": "of another file"})
    sync()  # of an unfinished output nothing is expected
    persistence = FilePersistence(path=folder / ".snakemake")
    assert list(persistence._filter_incomplete_keys([OUTPUT])) == [OUTPUT]
    assert persistence._get_external_jobids([OUTPUT]) == set()


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"a": 1}', '{"results/a/made.json": [1]}', "\0"])
@pytest.mark.parametrize("name", ["prefline_seen.json", "prefline_plan.json", "hashes.json"])
def test_a_damaged_cache_is_none(folder, name, content):
    files.write_json(records.path_of(OUTPUT), GOOD | {"sha256": files.sha256(OUTPUT)})
    files.write_text(name if name == "hashes.json" else folder / ".snakemake" / name, content)
    sync()
    assert records.origin(OUTPUT) == ("make", [])


def test_all_files_that_were_changed_are_named_with_the_command_that_makes_them_again(folder):
    names = [f"results/a/{number}.json" for number in range(7)]
    for name in names:
        files.write_text(name, "another")
        files.write_json(records.path_of(name), GOOD | {"sha256": "of the first"})
    with pytest.raises(InputError) as error:
        sync()
    assert str(error.value).endswith(f"rm -r {' '.join(names)} && snakemake {' '.join(names)}")
    with pytest.raises(InputError) as error:
        records.check_known(["results/x.json", "results/y.json"], lambda path: True)
    assert str(error.value).endswith("snakemake results/x.json results/y.json")
