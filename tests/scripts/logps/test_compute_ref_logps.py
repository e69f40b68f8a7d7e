"""Reference log-probabilities: in parts, joined with their pairs, or refused."""

import math
import shutil

import pyarrow as pa
import pytest
import small_model
from policy_training import (
    VOCABULARY,
    example,
    make_world,
    reference_flags,
    train,
)
from safetensors.torch import load_file, save_file

from prefline.data import tables
from prefline.errors import InputError
from prefline.provenance import manifest
from prefline.training import ref_logps
from scripts.logps import compute_ref_logps


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


class TestJoin:
    """Log-probabilities are those of these ids, under this reference, at this temperature; or refused."""

    def files(self, world):
        return world / "tokenized.parquet", [world / f"ref_logps_{part}_2.parquet" for part in range(2)]

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self.work = tmp_path / "work"

    def join(self, world, tokenized=None, parts=None, model="sft", temperature=1.0):
        usual = self.files(world)
        contents = manifest.contents(world / model)
        tokenized, parts = [tokenized or usual[0]], parts or usual[1]
        return ref_logps.joined(tokenized, parts, contents, temperature, VOCABULARY, self.work)

    def changed(self, world, tmp_path, **ids):
        """The tokenized file with other ids in row 7."""
        rows = tables.read_rows(self.files(world)[0], tables.TOKENIZED)
        rows[7] |= ids
        tables.write(tmp_path / "tokenized.parquet", rows, tables.TOKENIZED)
        return tmp_path / "tokenized.parquet"

    def test_rows_get_their_log_probabilities(self, world):
        parts = tables.read(self.files(world)[1], tables.REF_LOGPS)
        assert self.join(world)["ref_chosen_logps"].to_pylist() == parts["ref_chosen_logps"].to_pylist()

    def test_pairs_are_mapped_and_take_no_memory_of_their_own(self, world):
        before = pa.total_allocated_bytes()
        pairs = self.join(world)
        ids = sum(pairs[name].nbytes for name in ref_logps.IDS)
        assert pa.total_allocated_bytes() - before < ids / 4
        read = tables.read(self.files(world)[0], tables.TOKENIZED)
        assert pairs.select(read.column_names).equals(read)

    def test_other_processes_map_what_the_first_wrote(self, world, monkeypatch):
        monkeypatch.setenv("RANK", "1")
        with pytest.raises(InputError, match=r"tokenized\.arrow: the first process has not written it"):
            self.join(world)
        monkeypatch.setenv("RANK", "0")
        wanted = self.join(world)
        monkeypatch.setenv("RANK", "1")
        assert self.join(world).equals(wanted)

    def test_rows_in_other_chunks_are_the_same_rows(self, world):
        table = tables.read(self.files(world)[0], tables.TOKENIZED)

        def hash_of(rows):
            return ref_logps.ids_hash(lambda name: rows[name].chunks)

        whole = hash_of(table.slice(3, 9))
        assert hash_of(pa.concat_tables([table.slice(3, 4), table.slice(7, 5)])) == whole
        assert hash_of(table.slice(3, 8)) != whole
        path, schema = self.files(world)[0], tables.TOKENIZED
        assert ref_logps.ids_hash(lambda name: tables.read_column(path, schema, name, 3, 9)) == whole

    def test_a_missing_part(self, world):
        with pytest.raises(InputError, match="do not belong together"):
            self.join(world, parts=self.files(world)[1][:1])

    def test_parts_in_another_order(self, world):
        with pytest.raises(InputError, match="row 0 is prompt_id p0 in --tokenized and p12"):
            self.join(world, parts=self.files(world)[1][::-1])

    def test_other_numbers_of_tokens(self, world, tmp_path):
        with pytest.raises(InputError, match=r"row 7 .*token counts"):
            self.join(world, self.changed(world, tmp_path, rejected_ids=[1] * 13))

    @pytest.mark.parametrize("name", ref_logps.IDS)
    def test_other_ids_of_as_many_tokens(self, world, tmp_path, name):
        ids = example(7, "train")[name]
        other = self.changed(world, tmp_path, **{name: [*ids[:-1], (ids[-1] + 1) % VOCABULARY]})
        with pytest.raises(InputError, match=r"ref_logps_0_2\.parquet holds .* of other ids than --tok"):
            self.join(world, other)

    def test_another_reference(self, world, tmp_path):
        small_model.make_model(tmp_path / "other", vocab_size=VOCABULARY, initializer_range=0.3)
        with pytest.raises(InputError, match=r"ref_logps_0_2\.parquet holds .* under another model than"):
            self.join(world, model=tmp_path / "other")

    def test_another_temperature(self, world):
        with pytest.raises(InputError, match=r"at temperature 1, but training is at 0\.7"):
            self.join(world, temperature=0.7)

    def test_a_file_that_does_not_say(self, world, tmp_path):
        parts = self.files(world)[1]
        rows = tables.read_rows(parts[0], tables.REF_LOGPS)
        tables.write(tmp_path / "old.parquet", rows, tables.REF_LOGPS)
        with pytest.raises(InputError, match=r"old\.parquet does not say what .* make it again"):
            self.join(world, parts=[tmp_path / "old.parquet", parts[1]])

    def test_a_training_refuses_them(self, world, tmp_path):
        with pytest.raises(InputError, match=r"at temperature 1, but training is at 0\.5"):
            train(world, tmp_path, temperature=0.5)


def test_parts_together_are_the_whole(world):
    compute_ref_logps.main(reference_flags(world))
    whole = tables.read_rows(world / "ref_logps_0_1.parquet", tables.REF_LOGPS)
    parts = tables.read_rows([world / f"ref_logps_{part}_2.parquet" for part in range(2)], tables.REF_LOGPS)
    for one, other in zip(parts, whole, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_pairs_at_once_change_rounding_alone(world, tmp_path, monkeypatch):
    """Five pairs at a time, from groups of seven rows, are those of one reading; the origin is the same."""
    monkeypatch.setattr(tables, "ROWS_IN_GROUP", 7)
    tables.write(
        tmp_path / "pairs.parquet",
        tables.read(world / "tokenized.parquet", tables.TOKENIZED),
        tables.TOKENIZED,
    )
    made = []
    for at_once in (5, 1000):
        monkeypatch.setattr(compute_ref_logps, "PAIRS_AT_ONCE", at_once)
        out = tmp_path / f"{at_once}.parquet"
        compute_ref_logps.main(reference_flags(world, tokenized=tmp_path / "pairs.parquet", out=out))
        made.append(tables.read(out, tables.REF_LOGPS))
    few, all_at_once = made
    assert tables.metadata(few.schema) == tables.metadata(all_at_once.schema)
    for one, other in zip(few.to_pylist(), all_at_once.to_pylist(), strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_more_parts_than_rows(world, tmp_path):
    sizes = []
    for part in (0, 1, 24):
        out = tmp_path / f"{part}.parquet"
        compute_ref_logps.main(reference_flags(world, part, 25, out=out))
        sizes.append(len(tables.read(out, tables.REF_LOGPS)))
    assert sizes == [0, 1, 1]


def test_a_reference_that_yields_nan_names_the_row(world, tmp_path):
    weights = load_file(world / "sft/model.safetensors")
    weights["model.norm.weight"].fill_(math.nan)
    shutil.copytree(world / "sft", tmp_path / "broken")
    save_file(weights, tmp_path / "broken/model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"prompt_id p\d+: ref_(chosen|rejected)_logps is nan"):
        compute_ref_logps.main(reference_flags(world, model=tmp_path / "broken", out=tmp_path / "x.parquet"))
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize(
    ("name", "ids", "said"),
    [
        ("chosen_ids", [0, VOCABULARY], f"chosen_ids holds the id {VOCABULARY}, but .* has {VOCABULARY} tok"),
        ("prompt_ids", [-1], "prompt_ids holds the id -1, but the model's vocabulary"),
        ("rejected_ids", [], "rejected_ids is empty; take this pair out of the preferences"),
    ],
)
def test_ids_that_a_model_does_not_have(world, tmp_path, name, ids, said):
    rows = [example(number, "train") for number in range(4)]
    rows[3][name] = ids
    tables.write(tmp_path / "t.parquet", rows, tables.TOKENIZED)
    part = {"part": 1, "num_shards": 2}
    with pytest.raises(InputError, match=rf"t\.parquet, row 3, prompt_id p3: {said}"):
        compute_ref_logps.main(
            reference_flags(world, tokenized=tmp_path / "t.parquet", out=tmp_path / "x", **part)
        )
