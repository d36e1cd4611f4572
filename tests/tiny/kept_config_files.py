"""Keeps what Hydra has read of config files and composed of them, for as long as the files stay as they are, and what
was made of equal parts of configs: composing is a third of the tests' time, and this spares most of it."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from afteredit.launch import compose
from afteredit.record.settings import TrackerSettings

_read: dict[Any, Any] = {}
_composed: dict[Any, Any] = {}
_typed: dict[Any, Any] = {}
_load = ConfigRepository.load_config
_compose = ConfigLoaderImpl._compose_config_from_defaults_list
_type = compose.typed


def load_kept(repository: ConfigRepository, config_path: str) -> Any:
    """Loads as Hydra's own `load_config` does; the config is not to be changed."""
    source = repository._find_object_source(config_path, ObjectType.CONFIG)
    if source is None or source.scheme() not in ("file", "pkg"):
        return _load(repository, config_path)
    key = (config_path, source.provider, source.path)
    if source.scheme() == "file":
        status = os.stat(os.path.join(source.path, source._normalize_file_name(config_path)))
        key += (status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _read:
        _read[key] = _load(repository, config_path)
        _read[key].key = key
    return copy.copy(_read[key])


def compose_kept(loader: ConfigLoaderImpl, defaults: Sequence[Any], repo: Any) -> Any:
    """Composes as Hydra's own does, before the command's values come in; the config is the caller's to change."""
    read = [repo.load_config(default.config_path) for default in defaults]
    key = tuple((default.config_path, default.package, default.primary, getattr(one, "key", None))
                for default, one in zip(defaults, read, strict=True))  # fmt: skip
    if key not in _composed:
        for one in filter(None, repo.cache.values()):
            one.config = copy.deepcopy(one.config)
        _composed[key] = _compose(loader, defaults, repo)
    return copy.deepcopy(_composed[key])


def typed_kept(cls: type, node: DictConfig, key: str, beside: str = "") -> Any:
    """Returns what `typed` does; what depends on the environment is made anew each time."""
    try:
        values = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException:
        return _type(cls, node, key, beside)
    name = (cls, key, beside, repr(values))
    if name not in _typed or cls is TrackerSettings:
        _typed[name] = _type(cls, node, key, beside)
    return copy.deepcopy(_typed[name])


def keep_config_files() -> None:
    """Lets this process read each config file once, compose each choice of files once, and type equal parts once."""
    compose.typed = typed_kept
    ConfigRepository.load_config = load_kept  # type: ignore[method-assign]
    ConfigLoaderImpl._compose_config_from_defaults_list = compose_kept  # type: ignore[method-assign,assignment]
