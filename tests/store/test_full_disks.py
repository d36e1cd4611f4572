"""A full disk is said in words, whichever library meets it; a limit on the size of files stands for it."""

from __future__ import annotations

import resource
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from afteredit.store.atomic_files import refusing_full_disks
from afteredit.store.errors import BadInput


@contextmanager
def files_of_at_most(n_bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WORDS = Tokenizer(WordLevel({f"word{i}": i for i in range(4000)}, unk_token="word0"))
WRITERS = {
    "python": lambda path: path.write_bytes(b"x" * 20000),
    "safetensors": lambda path: save_file({"x": torch.zeros(5000)}, path),
    "tokenizers": lambda path: WORDS.save(str(path)),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_library_that_finds_no_room_is_refused_alike(tmp_path, write):
    with (
        pytest.raises(BadInput) as refused,
        files_of_at_most(4096),
        refusing_full_disks("replay.export=x", "make room"),
    ):
        write(tmp_path / "file")
    assert str(refused.value) == "replay.export=x cannot be written (File too large); make room"


@pytest.mark.parametrize("problem", [ValueError("no"), OSError(2, "No such file"), Exception("denied (os error 13)")])
def test_any_other_error_stays_what_it_is(problem):
    with pytest.raises(type(problem)) as raised, refusing_full_disks("x", "make room"):
        raise problem
    assert raised.value is problem
