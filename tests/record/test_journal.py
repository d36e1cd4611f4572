"""The journal: what was written is read back, a torn end is dropped, anything altered is refused by name."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

from afteredit.edit.update import LowRank, Update
from afteredit.record.journal import Journal, Stopwatch
from afteredit.store.atomic_files import write_json
from afteredit.store.checked_lines import Lines
from afteredit.store.errors import BadInput

SECOND = "import sys, pathlib; from afteredit.record.journal import Journal; Journal(pathlib.Path(sys.argv[1]))"


def an_update(seed: int) -> Update:
    generator = torch.Generator().manual_seed(seed)
    change = LowRank(torch.randn(4, 1, generator=generator), torch.randn(6, 1, generator=generator))
    return Update({"w.weight": change}, {"key": torch.ones(6)}, {"loss": 0.1 * seed, "kl": 1e-17})


def batch(fact, index: int):
    return [replace(fact, id=f"f{index}", subject="Łód\u2028 \u0085\nź")]


@pytest.fixture(autouse=True)
def every_edit_takes_half_a_second(monkeypatch):
    monkeypatch.setattr(Stopwatch, "seconds", lambda _watch: 0.5)


@pytest.fixture
def folder(tmp_path, fact):
    """A run directory of three edits, closed."""
    journal = Journal(tmp_path)
    for i in range(3):
        journal.append(batch(fact, i), an_update(i))
    journal.close()
    return tmp_path


def same(one: Update, other: Update) -> bool:
    left, right = one.flat(), other.flat()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_reopened_journal_has_the_same_records(folder, fact, tmp_path):
    journal = Journal(folder)
    assert [record["n_edits"] for record in journal.records] == [1, 2, 3]
    assert journal.n_batches == 3
    journal.append(batch(fact, 3), an_update(3))
    written = list(journal.records)
    journal.close()
    reopened = Journal(folder)
    assert list(reopened.records) == written
    assert written[3]["edit_s"] == 0.5
    assert written[3]["diagnostics"] == {"loss": 0.1 * 3, "kl": 1e-17}
    assert written[3]["requests"][0]["subject"] == "Łód\u2028 \u0085\nź"
    assert all(same(reopened.update(i), an_update(i)) for i in range(4))


def test_a_stored_request_is_the_one_that_was_written(tmp_path, fact):
    asked = replace(fact, portability=("Who rules?", "Who sings?"), portability_answers=("Ada", "Bo"),
                    portability_aliases=(("A.", "Adda"), ()), row="6")  # fmt: skip
    journal = Journal(tmp_path)
    journal.append([asked, fact], an_update(1))
    journal.close()
    reopened = Journal(tmp_path)
    assert reopened.batches == [[asked, fact]] and len(set(reopened.batches[0])) == 2
    reopened.refuse_other_edits([[asked, fact]])
    with pytest.raises(BadInput, match="portability_aliases"):
        reopened.refuse_other_edits([[replace(asked, portability_aliases=((), ())), fact]])
    reopened.close()


@pytest.mark.parametrize("cut", [1, 2, 40, "all_but_one"])
def test_a_torn_last_line_is_dropped_and_made_again(folder, fact, cut):
    path = folder / "edits.jsonl"
    whole = path.read_bytes()
    *kept, last = whole.splitlines(keepends=True)
    torn = whole[: -(len(last) - 1 if cut == "all_but_one" else cut)]
    path.write_bytes(torn)
    assert len(Lines(path, read_only=True).records) == 2 and path.read_bytes() == torn  # reading never writes
    journal = Journal(folder)
    assert journal.n_batches == 2
    assert path.read_bytes() == b"".join(kept)
    assert b"".join(kept) + (folder / "edits.jsonl.damaged").read_bytes() == torn
    journal.append(batch(fact, 2), an_update(2))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(("old", "new"), [(b"boxing", b"rowing"), (b"}", b"]"), (b'"check"', b'"chuck"')])
def test_an_altered_line_is_refused_with_file_and_line(folder, number, old, new):
    path = folder / "edits.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    path.write_bytes(b"".join(lines))
    before = path.read_bytes()
    with pytest.raises(BadInput, match=rf"edits.jsonl:{number}: .*checksum"):
        Journal(folder)
    assert path.read_bytes() == before


def test_an_altered_or_missing_update_is_refused_by_name(folder, fact):
    path = folder / "updates" / "000001.safetensors"
    content = path.read_bytes()
    journal = Journal(folder)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BadInput, match="000001.safetensors"):
        journal.update(1)
    path.unlink()
    with pytest.raises(BadInput, match="000001.safetensors"):
        journal.update(1)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:46\nsize 9\n")
    with pytest.raises(BadInput, match="000001.safetensors is a pointer of Git LFS .*git lfs pull"):
        journal.update(1)
    assert same(journal.update(0), an_update(0))
    path.write_bytes(content)
    assert same(journal.update(1), an_update(1))


@pytest.mark.parametrize(("held", "said"), [({}, "no matrix"), ({"v.weight": 0}, "v.weight")])
def test_an_update_that_changes_other_matrices_than_its_record_says_is_refused(tmp_path, fact, held, said):
    """With a right checksum, which anybody can write.  A dropped fact's update is empty, and its record says so."""
    content = save(Update({name: an_update(0).changes["w.weight"] for name in held}, {"key": torch.ones(6)}).flat())
    journal = Journal(tmp_path)
    journal.append(batch(fact, 0), an_update(0))
    journal.append(batch(fact, 1), Update({}))
    (tmp_path / "updates" / "000000.safetensors").write_bytes(content)
    journal.records[0]["sha256"] = hashlib.sha256(content).hexdigest()
    with pytest.raises(BadInput, match=rf"000000.safetensors changes {said}, but by edits.jsonl .*w.weight"):
        journal.update(0)
    assert not journal.update(1).changes
    del journal.records[0]["changes"]  # as an older version wrote it
    assert set(journal.update(0).changes) == set(held)


def test_batches_of_other_edits_are_refused(folder, fact):
    journal = Journal(folder)
    written = [batch(fact, i) for i in range(3)]
    journal.refuse_other_edits(written[:2])
    journal.refuse_other_edits([*written, batch(fact, 9)])
    with pytest.raises(BadInput, match=r"batch 1 wrote edits \['f1'\].*\['f2'\]"):
        journal.refuse_other_edits([written[0], written[2]])
    with pytest.raises(BadInput, match="batch 1"):
        journal.refuse_other_edits([written[0], [*written[1], *written[2]]])
    with pytest.raises(BadInput, match="edit f1 was written with target_new 'boxing', the config gives 'rowing'"):
        journal.refuse_other_edits([written[0], [replace(written[1][0], target_new="rowing")]])


def test_a_run_that_another_process_has_is_refused(folder):
    journal = Journal(folder)
    with pytest.raises(BadInput, match="in use by another process"):
        Journal(folder)
    ran = subprocess.run([sys.executable, "-c", SECOND, folder], capture_output=True, text=True, timeout=60)
    assert "BadInput" in ran.stderr
    assert f"{folder} is in use by another process" in ran.stderr
    journal.close()
    ran = subprocess.run([sys.executable, "-c", SECOND, folder], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


def test_a_leftover_update_without_its_line_counts_for_nothing(folder, fact):
    """What a process killed between the update's file and its line leaves behind."""
    (folder / "updates" / "000003.safetensors").write_bytes(b"half")
    (folder / "updates" / "000004.safetensors.part").write_bytes(b"half")
    journal = Journal(folder)
    assert journal.n_batches == 3
    journal.append(batch(fact, 3), an_update(3))
    assert same(journal.update(3), an_update(3))


def test_lines_keep_numbers_bit_for_bit(tmp_path):
    record = {"a": 0.1 + 0.2, "b": 1e-320, "c": [2**53 + 1, None, True], "ü": "\r\n\x0b\x0c"}
    Lines(tmp_path / "x.jsonl").append(record)
    assert Lines(tmp_path / "x.jsonl").records == [record]


def test_write_json_replaces_the_file_whole(tmp_path):
    write_json(tmp_path / "a.json", {"ö": list(range(100))})
    write_json(tmp_path / "a.json", {"ö": 1})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "ö": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
