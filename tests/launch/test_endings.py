"""Signals: the first is remembered, the second acts, and handlers come back."""

import errno
import io
import os
import signal
import threading

import pytest
import torch
from transformers import AutoModelForCausalLM

from afteredit.launch.endings import exit_code, in_words
from afteredit.model.loading.model_source import ModelSource
from afteredit.record.terminal import PlainConsole
from afteredit.run import main
from afteredit.store.errors import Interrupted
from afteredit.store.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_raised_where_the_run_asks_for_it(number):
    before = signal.getsignal(number)
    with Interruption() as interruption:
        interruption.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as stopped:
            interruption.check()
        assert stopped.value.exit_code == 128 + number
        assert signal.getsignal(number) == before  # a second one acts at once
    assert signal.getsignal(number) == before


RUN = ["task=none", "tracker=none"]


@pytest.mark.parametrize(
    "given", [["model=hf", "model.source={}"], ["data={}"], ["edits=my", "edits.file={}/x.csv"], ["held_out={}"]]
)
def test_a_path_that_no_disk_takes_is_refused_in_a_line(tmp_path, capsys, given):
    assert main([*RUN, *(each.format(tmp_path / ("a" * 300)) for each in given)]) == 2
    said = capsys.readouterr().err
    assert "File name too long" in said and "aaa" in said and "Traceback" not in said


def test_links_that_lead_in_a_circle_and_long_names_say_what_to_do():
    for number in (errno.ENAMETOOLONG, errno.ELOOP):
        said = in_words(OSError(number, os.strerror(number), "/x/y"))
        assert said == f"{os.strerror(number)}: /x/y; give another path (a name holds up to 255 bytes)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_nothing_is_lost_by_it_a_signal_is_raised_at_once(number):
    """Even inside code that catches every Exception."""
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stopped, Interruption(at_once=True):
        try:
            os.kill(os.getpid(), number)
            pytest.fail("it went on")
        except Exception:  # noqa: BLE001
            pytest.fail("it was swallowed")
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) == before


def test_inside_another_the_first_signal_waits_and_the_second_does_not():
    with Interruption(at_once=True), Interruption() as inner:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            inner.check()


def test_a_thread_runs_without_handlers_of_its_own():
    before, raised = [signal.getsignal(number) for number in Interruption.SIGNALS], []

    def run():
        try:
            with Interruption() as interruption:
                assert [signal.getsignal(number) for number in Interruption.SIGNALS] == before
                interruption.check()
        except BaseException as problem:  # noqa: BLE001  a thread's errors are lost otherwise
            raised.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert raised == []


def test_handlers_come_back_without_a_signal():
    before = [signal.getsignal(number) for number in Interruption.SIGNALS]
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in Interruption.SIGNALS] == before


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "make room"), (errno.EACCES, "make it readable")])
def test_a_file_that_cannot_be_written_is_the_one_that_is_named(number, words, capsys):
    """A full cache or output is not called the run directory."""
    assert exit_code(OSError(number, "no", "/some/cache")) == 2
    assert (error := capsys.readouterr().err) and "/some/cache cannot be" in error and words in error


class Full(io.StringIO):
    name = "a full disk"

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("problem", [
    MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("unable to mmap 321247424 bytes from file </m/model.safetensors>: Cannot allocate memory (12)"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
])  # fmt: skip
def test_memory_that_runs_out_is_told_in_a_line_whoever_says_so(problem, capsys, monkeypatch, tiny_folder):
    assert exit_code(problem) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: not enough memory (") and "plan=machine" in error and "dtype=bfloat16" in error

    def full(*_arguments, **_options):
        raise problem

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(type(problem)):  # and no sound model is called damaged
        ModelSource("hf", str(tiny_folder)).load("cpu", "float32")


def test_another_error_is_raised_again():
    with pytest.raises(RuntimeError, match="a fault of ours"):
        exit_code(RuntimeError("a fault of ours"))


def test_a_full_disk_under_the_output_is_named():
    with pytest.raises(OSError) as problem:
        PlainConsole(file=Full()).print("x")
    assert problem.value.filename == "the output (a full disk)"


def test_ctrl_c_before_a_run_begins_is_no_traceback(capsys):
    assert exit_code(KeyboardInterrupt()) == 130
    assert "stopped" in capsys.readouterr().err
