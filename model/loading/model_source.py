"""Says where a model comes from (hub id, folder, GGUF file, or that of an installed package) and loads it as an LM."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afteredit.model.loading.chat_template import CHAT_DATE, drop_marks
from afteredit.model.loading.gguf import converted, converted_package, file_of, weights_in_words
from afteredit.model.loading.hub import snapshot
from afteredit.model.loading.model_folder import check_folder, check_shapes
from afteredit.model.loading.special_tokens import in_words
from afteredit.store.errors import BadInput, out_of_memory
from afteredit.store.field_roles import NOTHING, SPEED, WEIGHTS, decides

if TYPE_CHECKING:
    from torch import nn

    from afteredit.model.lm import LM

log = logging.getLogger(__name__)


class Unreported(logging.Filter):
    """Leaves out transformers' table of tensors that are missing or too many, which `check_loaded` puts in words: it
    prints the names of a stranger's file as they are, and they may command the terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.funcName != "log_state_dict_report"


UNREPORTED = Unreported()
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
TOKENIZER_FILES = ("tokenizer*.json", "vocab*", "merges.txt", "*.model", "*.tiktoken", "spiece*", "tekken.json")


class Prompt(Enum):
    """How a question is asked: as plain text, or as a turn of a chat."""

    plain = "plain"
    chat = "chat"


@dataclass(frozen=True)
class ModelSource:
    """Holds what a model's own structure does not tell; its fields are the keys of `conf/model/*.yaml`."""

    name: str = field(metadata=decides(NOTHING))
    source: str = field(metadata=decides(NOTHING))  # hub id, folder, GGUF file, or package:<one with such a file>
    revision: str | None = field(default=None, metadata=decides(WEIGHTS, by_content=True))  # of a hub id
    # put in front of every text: a token, null for none, or auto: what the tokenizer itself puts there
    start_token: str | None = None
    prompt: Prompt = Prompt.plain
    chat_date: str = CHAT_DATE  # the day that a chat template is told, if it asks
    trust_remote_code: bool = field(default=False, metadata=decides(NOTHING))
    device_map: str | None = field(default=None, metadata=decides(SPEED))  # auto: shard over all devices; it must fit
    # as published, null where it is not stated; base.yaml has the keys
    shape: dict[str, Any] | None = field(default=None, metadata=decides(NOTHING))
    # what was tuned for this model, read by conf/method/*.yaml
    edit: dict[str, Any] = field(default_factory=dict, metadata=decides(WEIGHTS, by_content=True))

    def __post_init__(self) -> None:
        """Raises BadInput where the date is none."""
        try:
            date.fromisoformat(self.chat_date)
        except ValueError:
            raise BadInput(f"model.chat_date={self.chat_date!r}; it must be a day as {CHAT_DATE}") from None

    def load(self, device: str, dtype: str, separator: str = "auto") -> LM:
        """Returns the model, frozen, on its device; `separator` stands between prompts and answers (`Tokens`).

        Raises BadInput, naming the file or id looked for and the remedy, where the weights cannot be had or do not fit.
        """
        from afteredit.model.lm import LM
        from afteredit.model.loading.loaded_model import check_answers, check_loaded, plainly_answering

        place = self._folder()
        try:
            tokenizer, (model, info) = self._from_pretrained(place, dtype)
            self._check_in_memory(model, dtype)
            plainly_answering(model)
            check_loaded(model, tokenizer, info, repr(place))
            if not self.device_map:
                model = model.to(device)
            with self._reading(place, "run on three tokens"):
                check_answers(model, repr(place))
        except BadInput as problem:
            again = f"; delete {place!r}, and it is made again" if weights_in_words(Path(place)) else ""
            raise BadInput(f"model={self.name}: {problem}{again}") from None
        with self._reading(place, "taken apart"):
            lm = LM(model, tokenizer, start_token=self.start_token, prompt=self.prompt.value, separator=separator,
                    chat_date=self.chat_date, stored_as=weights_in_words(Path(place)))  # fmt: skip
        if lm.stored_as:
            log.info("weights: %s", lm.stored_as)
        log.info(in_words(lm.tokens.start_ids, tokenizer, self.start_token))
        return lm

    def _from_pretrained(self, place: str, dtype: str) -> tuple[Any, Any]:
        """Returns the tokenizer, and the model with what transformers says of its loading."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

        options: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        headers = check_folder(Path(place), trust_remote_code=self.trust_remote_code)
        with self._reading(place, "read: config.json"):
            config = AutoConfig.from_pretrained(place, **options)
        if config.is_encoder_decoder:
            raise BadInput(f"{type(config).__name__} is an encoder-decoder; only decoder-only models can be edited "
                           "here")  # fmt: skip
        if not config.to_dict().get("auto_map") and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise BadInput(f"{place!r}: {type(config).__name__} (model_type={config.model_type!r}) is no text model "
                           "that AutoModelForCausalLM knows; give the folder of its text model")  # fmt: skip
        with self._reading(place, "read on from: config.json"):
            if "sliding_attention" in (getattr(config.get_text_config(), "layer_types", None) or []):
                DynamicCache(config=config)
        if not any(list(Path(place).glob(name)) for name in TOKENIZER_FILES):
            raise BadInput(f"{place!r} holds no tokenizer (tokenizer.json); copy the tokenizer's files there, as "
                           "tokenizer.save_pretrained writes them")  # fmt: skip
        with self._reading(place, "read: tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(place, **options)
            drop_marks(tokenizer)
        with self._reading(place, "built as config.json says"), torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, trust_remote_code=self.trust_remote_code)
            check_shapes(empty, headers, Path(place))
        logging.getLogger("transformers.modeling_utils").addFilter(UNREPORTED)
        placed = {"device_map": self.device_map} if self.device_map else {}
        with self._reading(place, "filled with its weights"):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                place, dtype=getattr(torch, dtype), output_loading_info=True, use_safetensors=True, **placed, **options
            )
        return tokenizer, loaded

    @contextmanager
    def _reading(self, place: str, what: str) -> Iterator[None]:
        """Raises BadInput for whatever transformers raises inside: it runs on files that anyone may have made."""
        try:
            yield
        except BadInput:
            raise
        except Exception as problem:
            if out_of_memory(problem):
                raise
            raise BadInput(f"the model in {place!r} cannot be {what} ({type(problem).__name__}: "
                           f"{_short(problem)}); its files are damaged, of different models, or hold a value that this "
                           "architecture does not take; mend it, or give another copy") from None  # fmt: skip

    def _check_in_memory(self, model: nn.Module, dtype: str) -> None:
        """Raises BadInput where weights were offloaded: accelerate leaves them on `meta` and fetches them for each pass
        from memory or disk, while edits and fingerprints read them in between."""
        away = {name: p.nbytes for name, p in model.named_parameters() if p.device.type == "meta"}
        if away:
            total = sum(p.nbytes for p in model.parameters())
            lower = "" if dtype == "bfloat16" else f"dtype=bfloat16 (now {dtype}), "
            raise BadInput(f"with model.device_map={self.device_map}, {_gib(sum(away.values()))} of "
                           f"its {_gib(total)} of weights ({next(iter(away))}, …) do not fit on the devices and were "
                           f"offloaded, but edits read all weights; give more or larger devices, {lower}or a smaller "
                           "model")  # fmt: skip

    def check(self) -> None:
        """Raises BadInput where `source` names no model by its form, or a file, folder or package that is not there;
        a hub is not asked."""
        if self.source == "":
            raise BadInput("model.source is empty; give model.source=<hub id, folder or GGUF file>")
        kind, _, package = self.source.partition(":")
        path = Path(self.source).expanduser()
        if kind == "package":
            file_of(package)
        elif path.is_file() and path.suffix in (".safetensors", ".bin", ".json"):
            raise BadInput(f"model={self.name}: {self.source!r} is one file of a model's folder; give model.source="
                           f"{path.parent}")  # fmt: skip
        elif path.suffix.lower() == ".gguf" and not path.is_file():
            raise BadInput(f"model={self.name}: looked for the GGUF file {str(path)!r}, which is not there")
        elif self._is_folder() and not path.is_file() and not (path / "config.json").is_file():
            held = sorted(path.glob("*.[gG][gG][uU][fF]"))  # none where there is no folder
            instead = f"; it holds {held[0].name}: give model.source={held[0]}" if held else ""
            raise BadInput(f"model={self.name}: looked for {path / 'config.json'}, which is not there"
                           f"{instead or '; give model.source=<folder with config.json and safetensors>, '}"
                           f"{'' if instead else '<GGUF file> or <hub id>'}")  # fmt: skip
        elif not (path.exists() or HUB_ID.fullmatch(self.source)):
            raise BadInput(f"model.source={self.source!r} is neither a folder nor a file here, nor a hub id; allowed: "
                           "<organisation>/<name> of the hub, a folder with config.json and safetensors, a GGUF file, "
                           "or package:<Python package that holds one>")  # fmt: skip

    def _is_folder(self) -> bool:
        return self.source.startswith((".", "/", "~")) or Path(self.source).is_dir()

    def _folder(self) -> str:
        self.check()
        kind, _, package = self.source.partition(":")
        path = Path(self.source).expanduser()
        if kind == "package":
            return str(converted_package(package))
        try:
            if path.is_file():
                return str(converted(path))
            return str(path) if self._is_folder() else snapshot(self.source, self.revision)
        except BadInput as problem:
            raise BadInput(f"model={self.name}: {problem}") from None


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.3g} GiB"


def _short(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300] or type(problem).__name__
