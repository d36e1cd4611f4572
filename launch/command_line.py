"""From a command line to a typed experiment: Hydra composes the overrides; errors are put in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from afteredit.launch.checks import check_own_configs
from afteredit.launch.compose import CONF, experiment, refuse_no_groups
from afteredit.launch.experiment import Experiment
from afteredit.launch.help.hydra_messages import in_our_words
from afteredit.launch.help.unknown_names import MOVED, refuse_hidden_keys, unknown_key
from afteredit.launch.overrides import (
    as_typed,
    choices,
    in_quotes,
    refuse_carriage_returns,
    refuse_hydras_keys,
    refuse_typographic_quotes,
    unknown_entry,
    unreadable,
)
from afteredit.launch.stored_config import as_it_ran
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from omegaconf import DictConfig

TAKE_A_VALUE = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--info",
                "-i", "--experimental-rerun")  # fmt: skip
NO_INDEX = "invalid literal for int() with base 10: "  # and a name that was given below a list


def compose(overrides: Sequence[str]) -> Experiment:
    """Returns the typed experiment of command-line overrides.  Raises BadInput."""
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    overrides = with_search_path(overrides)
    refuse_wrong_choices(overrides)
    overrides = as_typed(overrides)
    with _hydra_in_conf():
        try:
            config = hydra_compose("run", list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException, RecursionError, ValueError, YAMLError) as problem:
            if type(problem) is ValueError and not any(words in str(problem) for words in ("group", NO_INDEX)):
                raise
            raise BadInput(_explained(problem, overrides)) from None
    refuse_hydras_keys(overrides)
    return experiment_from(config, config.hydra)


@contextmanager
def _hydra_in_conf() -> Iterator[None]:
    """Lets Hydra compose from conf/, also inside a `@hydra.main` of the caller's own, which is put back."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def with_search_path(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with one `hydra.searchpath=[…]` for all folders with configs that they name, also by
    --config-dir.  Raises BadInput for a folder that is not there, and for Windows line ends."""
    refuse_carriage_returns(arguments)
    refuse_typographic_quotes(arguments)
    folders: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            folders.append(value if equals else next(words, ""))
        elif option == "hydra.searchpath":
            folders += [str(folder) for _, _, given in choices([word]) for folder in _as_list(given)]
        else:
            rest.append(word)
    for folder in (given.removeprefix("file://") for given in folders if "pkg://" not in given):
        if not Path(folder).expanduser().is_dir():
            raise BadInput(f"--config-dir={folder} is no folder (seen from {Path.cwd()}); give the one that holds your "
                           "method/, edits/, task/, …")  # fmt: skip
        check_own_configs(Path(folder).expanduser(), rest)
        refuse_hidden_keys(Path(folder).expanduser(), (key for key, *_ in choices(rest)))
    paths = [folder if "://" in folder else str(Path(folder).expanduser()) for folder in dict.fromkeys(folders)]
    return [*rest, f"hydra.searchpath=[{','.join(map(in_quotes, paths))}]"] if paths else rest


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _search_path(arguments: Sequence[str]) -> list[str]:
    """Returns the override that names the user's folders with configs, where there is one."""
    return [argument for argument in arguments if argument.startswith("hydra.searchpath=")]


def refuse_wrong_choices(arguments: Sequence[str]) -> None:
    """Raises BadInput where a group of conf/ is given what names no entry, or several entries, of which Hydra would
    merge the files.  Only `task` takes several."""
    for group, given, value in choices(arguments):
        if not _is_group(group) or isinstance(value, dict):
            continue
        if isinstance(value, list) and (group != "task" or not all(isinstance(name, str) and name for name in value)):
            rest = "a list takes names" if group == "task" else "it takes one entry (with -m, a,b are tried one by one)"
        elif isinstance(value, str) and "," in value:
            rest = f"several are written as a list: {group}=[{value}]" if group == "task" else "it takes one entry"
        elif value is None or value in ("", "base"):
            rest = {"task": "task=[] is none", "experiment": "leave it out for none"}.get(group, "it takes one entry")
        else:
            continue
        raise BadInput(f"{given} names no entry of {group}; {rest}. Allowed: {', '.join(_entries(group, arguments))}")


def _is_group(key: str) -> bool:
    """Tells whether a key chooses a file of a group of ours; those of hydra/ are plug-ins' too."""
    return (CONF / key).is_dir() and not key.startswith("hydra")


def _entries(group: str, arguments: Sequence[str]) -> list[str]:
    """Returns the names that a group has in conf/ and in the user's own folders."""
    own = [
        Path(str(folder).removeprefix("file://"))
        for _, _, given in choices(_search_path(arguments))
        for folder in given
    ]
    files = {path.relative_to(folder / group).with_suffix("")
             for folder in (CONF, *own) for path in (folder / group).rglob("*.yaml")}  # fmt: skip
    return sorted(file.as_posix() for file in files if file.name != "base")


def keys_of_entry(group: str, name: str, arguments: Sequence[str]) -> list[str]:
    """Returns the keys that an entry of a group has, also one of the user's own folders; none where it is unknown."""
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException

    with _hydra_in_conf():
        try:
            return [str(key) for key in hydra_compose("run", [f"{group}={name}", *_search_path(arguments)])[group]]
        except HydraException:
            return []


def experiment_from(config: DictConfig, hydra: Any) -> Experiment:
    """Returns the typed experiment of a composed config.  Raises BadInput."""
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    names = {str(k): str(v) for k, v in hydra.runtime.choices.items() if not str(k).startswith("hydra/")}
    with open_dict(config):
        config.pop("hydra", None)
    refuse_no_groups(config)
    own, given = (
        cast(list[str], OmegaConf.to_container(part)) for part in (hydra.overrides.hydra, hydra.overrides.task)
    )
    _replace_maps(config, given)
    try:
        if config.replay.run is not None:
            config = as_it_ran(config, hydra.overrides.task)
        overrides = OmegaConf.create([*_search_path(own), *given], parent=hydra.overrides)  # ${…} is looked up later
        return experiment(config, names, cast(Any, overrides))
    except OmegaConfBaseException as problem:  # of ${…} in a key that no dataclass checks alone
        raise BadInput(f"{problem.full_key or 'the config'}: {str(problem).strip().splitlines()[0]}") from None


def _replace_maps(config: DictConfig, overrides: Sequence[str]) -> None:
    """Leaves in each map of columns that the command gives as a whole what the command itself says: Hydra merges it
    into the edit set's own."""
    given = [(key, value) for key, _, value in choices(overrides) if key.startswith("edits.")]
    for key in {key for key, value in given if key.endswith("columns") and isinstance(value, dict)}:
        names = {name for other, value in given if other == key for name in value}
        names |= {other.removeprefix(f"{key}.") for other, _ in given if other.startswith(f"{key}.")}
        columns = config.edits[key.removeprefix("edits.")]
        config.edits[key.removeprefix("edits.")] = {name: columns[name] for name in columns if name in names}


def _explained(problem: Exception, overrides: Sequence[str], *, multirun: bool = False) -> str:
    """Returns the given and the allowed for what Hydra cannot read, an unknown entry of a group or an unknown key;
    else Hydra's message."""
    from hydra import compose as hydra_compose
    from omegaconf import DictConfig, OmegaConf

    if sentence := unreadable(overrides, multirun=multirun) or _of_a_file(problem):
        return sentence
    message = " ".join(str(problem).split())
    below_a_list = message.removeprefix(NO_INDEX).strip("'")
    for key, _, value in (override.lstrip("+~").partition("=") for override in overrides):
        if message == f"Error merging override {key}={value}":  # a list for a mapping, a number for a list
            reason = str(problem.__cause__).splitlines()[0]
            return f"{key}={value} cannot be put there: {reason}; give {key} the kind of value that it has in conf/"
        if _is_group(key):
            entries = _entries(key, overrides)
            unknown = [name for name in value.strip("[]").split(",") if name.strip() not in (*entries, "null", "")]
            if unknown:
                return unknown_entry(key, unknown[0].strip("'\""), entries)
        elif f"'{key}'" in message and "Could not override" in message or key.endswith(f".{below_a_list}"):
            if key in MOVED:
                return unknown_key(key, [])
            whole: Any = hydra_compose("run", _chosen_files(overrides))
            task = key.split(".")[1] if key.startswith("task.") else ""
            if task and task not in whole.task and task in _entries("task", overrides):
                return f"{key}={value}, but {task} is not measured; name it too: task=[…,{task}]"
            wrong, parent = key, key.rpartition(".")[0]
            while parent and not isinstance(OmegaConf.select(whole, parent), DictConfig):
                wrong, parent = parent, parent.rpartition(".")[0]
            node = OmegaConf.select(whole, parent) if parent else whole
            known = [f"{parent}.{name}" if parent else name for name in map(str, node or [])]
            return unknown_key(wrong, known) if known or key in MOVED else message
    return in_our_words(message)


def _of_a_file(problem: Exception) -> str | None:
    """Returns what is wrong with a file of a user's own conf/ that is no YAML in UTF-8; None for other problems."""
    from yaml import MarkedYAMLError

    if isinstance(problem, UnicodeDecodeError):
        begin = bytes(problem.object[: problem.start]).decode(errors="replace")
        n_lines, last = begin.count("\n"), begin.rpartition("\n")[2]
        return (f"a YAML file of the config is no text in UTF-8: {problem.reason} in its line {n_lines + 1}, which "
                f"begins with {last!r}; save it as UTF-8")  # fmt: skip
    if not isinstance(problem, MarkedYAMLError) or problem.problem_mark is None:
        return None
    mark = problem.problem_mark
    return f"{mark.name}, line {mark.line + 1}: {problem.problem}; YAML has spaces, no tabs, and each key once"


def _chosen_files(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides that choose a file of a group, and where files are searched; of several files, to be tried
    one by one, the first."""
    pairs = [(override, *override.lstrip("+").partition("=")[::2]) for override in overrides]
    chosen = [override if value.startswith("[") else override.partition(",")[0]
              for override, key, value in pairs if _is_group(key)]  # fmt: skip
    return [*chosen, *_search_path(overrides)]


def explained_after_hydra(problem: Exception, argv: Sequence[str]) -> str:
    """Returns the same after a failure of Hydra's own command line, which leaves its globals set."""
    with _hydra_in_conf():
        overrides = [argument for argument, before in zip(argv, ["", *argv], strict=False)
                     if not argument.startswith("-") and before not in TAKE_A_VALUE]  # fmt: skip
        return _explained(problem, overrides, multirun=bool({"-m", "--multirun"} & set(argv)))
