"""From a command line to a typed experiment: overrides composed by Hydra, and what is wrong with them in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afteredit.launch.compose import Experiment, as_it_ran, experiment, unknown_key
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = Path(__file__).resolve().parent.parent / "conf"


def compose(overrides: Sequence[str]) -> Experiment:
    """The typed experiment of command-line overrides.  Raises BadInput."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            config = hydra_compose("run", list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as problem:
            raise BadInput(_explained(problem, overrides)) from None
    return experiment_of(config, config.hydra)


def experiment_of(config: DictConfig, hydra: Any) -> Experiment:
    from omegaconf import open_dict

    names = {str(k): str(v) for k, v in hydra.runtime.choices.items() if not str(k).startswith("hydra/")}
    with open_dict(config):
        config.pop("hydra", None)
    if config.replay.run is not None:
        config = as_it_ran(config, hydra.overrides.task)
    return experiment(config, names, hydra.overrides.task)


def _explained(problem: Exception, overrides: Sequence[str]) -> str:
    """What was given, what is allowed: for an unknown entry of a group or an unknown key; else Hydra's own message."""
    from hydra import compose as hydra_compose

    message = " ".join(str(problem).split())
    for key, _, value in (override.lstrip("+~").partition("=") for override in overrides):
        if (CONF / key).is_dir():
            entries = sorted(path.stem for path in (CONF / key).glob("*.yaml") if path.stem != "base")
            unknown = [name for name in value.strip("[]").split(",") if name.strip() not in (*entries, "null", "")]
            if unknown:
                return unknown_key(f"{key}={unknown[0]}", [f"{key}={entry}" for entry in entries], "entry")
        elif f"'{key}'" in message and "Could not override" in message:
            parent, _, _ = key.rpartition(".")
            node = _at(hydra_compose("run"), parent) if parent else hydra_compose("run")
            known = [f"{parent}.{k}" if parent else k for k in map(str, node or [])]
            return unknown_key(key, known) if known else message
    if "Error parsing override" in message:
        return f"{message.partition(' See https')[0]}; a list is written [a,b], with -m values to try one by one a,b"
    return message


def _at(config: Any, path: str) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.select(config, path)


def explained_again(problem: Exception, argv: Sequence[str]) -> str:
    """The same after Hydra's own command line, which leaves its globals behind."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return _explained(problem, [argument for argument in argv if not argument.startswith("-")])
