"""A file's hash is taken again whenever its content may have changed, however that is hidden."""

import os
import time

import pytest

from prefline import files
from prefline.provenance import hashes


@pytest.fixture
def look(tmp_path, monkeypatch):
    """A function that hashes a file as the next start of Snakemake does."""
    monkeypatch.chdir(tmp_path)

    def again(path):
        known = hashes.Hashes("hashes.json")
        found = known.of(path)
        known.save()
        return found

    return again


def settled(path, text):
    """Write a file, and wait until a change of it has another time."""
    with open(path, "w") as file:
        file.write(text)
    time.sleep(hashes.TICK_NS / 1e9 + 0.02)


def test_a_byte_changed_in_place_with_its_date_set_back_is_seen(look):
    settled("data", "one")
    status = os.stat("data")
    assert look("data") == files.sha256("data")
    with open("data", "r+") as file:
        file.write("two")
    os.utime("data", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert look("data") == files.sha256("data")


def test_a_file_with_a_deleted_ones_inode_size_and_date_is_seen(look, monkeypatch):
    settled("data", "one")
    status = os.stat("data")
    look("data")
    os.unlink("data")
    settled("data", "two")
    os.utime("data", ns=(status.st_atime_ns, status.st_mtime_ns))
    real = hashes.look_of  # not every file system reuses inodes at once

    def same_inode(path):
        return (*real(path)[:3], status.st_ino)

    monkeypatch.setattr(hashes, "look_of", same_inode)
    assert look("data") == files.sha256("data")


def test_a_second_change_within_a_tick_of_the_clock_is_seen_by_the_next_start(look, monkeypatch):
    (now,) = [time.time_ns()]
    monkeypatch.setattr(hashes, "look_of", lambda path: (3, now, now, 1))  # a clock that stands still
    with open("data", "w") as file:
        file.write("one")
    look("data")
    with open("data", "w") as file:
        file.write("two")
    assert look("data") == files.sha256("data")


def test_a_file_that_is_as_it_was_is_not_read_again(look, monkeypatch):
    settled("data", "one")
    first = look("data")
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail(f"read {path}"))
    assert look("data") == first
