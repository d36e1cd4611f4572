"""From text to token ids: prompts, answers, and where a subject ends."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any

from afteredit.model.loading.chat_template import CHAT_DATE, check_template, render
from afteredit.model.loading.special_tokens import special_ids, start_ids
from afteredit.model.scripts import ends_without_spaces
from afteredit.store.errors import BadInput

LENGTH_SHOWN = 200  # characters of a text in a message
MOST_TEXTS = 4096  # whose ids are held


class Tokens:
    """Turns text into token ids for one tokenizer, start token and prompt mode.

    `start_ids` holds the ids that stand in front of every text; nothing for models trained without a start token.
    `separator` says what stands between a prompt and its answer: "auto", "space" or "none" (`edits.separator`).
    `chat_date` is the day, as year-month-day, that a chat template is told where it asks for the date.
    `end_ids` holds the ids at which the model ends a text or its turn; `special_ids` those that are part of no answer.
    """

    def __init__(self, tokenizer: Any, start_token: str | None = None, prompt: str = "plain", separator: str = "auto",
                 chat_date: str = CHAT_DATE, n_rows: int | None = None, end_ids: Iterable[int] = ()):  # fmt: skip
        """Raises BadInput where the tokenizer is slow, lacks the start token, or has no template for `prompt=chat`.

        `end_ids`: the model's own, beside the tokenizer's end of text.  `n_rows` is the number of rows of the model's
        embedding: an id beyond them is refused wherever it would be read.
        """
        if not tokenizer.is_fast:
            raise BadInput(f"{type(tokenizer).__name__} is a slow tokenizer; subjects are located by the offsets that "
                           "only fast tokenizers give; install or convert to a fast one")  # fmt: skip
        dropout = getattr(tokenizer.backend_tokenizer.model, "dropout", None)
        if dropout:
            raise BadInput(f"the tokenizer drops merges by chance (dropout={dropout:.3g} in tokenizer.json), so that "
                           "one text has other tokens each time; set it to null there")  # fmt: skip
        if prompt == "chat" and not tokenizer.chat_template:
            raise BadInput("model.prompt=chat, but the tokenizer has no chat template; use model.prompt=plain")
        if prompt == "chat":
            check_template(tokenizer)
        self.tokenizer = tokenizer
        self.prompt, self.separator, self.chat_date = prompt, separator, chat_date
        self.n_rows = n_rows
        self.end_ids = frozenset({*end_ids, tokenizer.eos_token_id} - {None})
        self.special_ids = special_ids(tokenizer, self.end_ids)
        self._ids_by_text = lru_cache(MOST_TEXTS)(self._read)  # the same prompts are asked at every checkpoint
        self.start_ids = self._known(start_ids(tokenizer, start_token), f"model.start_token={start_token}")

    def _known(self, ids: list[int], place: str) -> list[int]:
        """Returns the ids.  Raises BadInput where the model has no embedding for one of them."""
        beyond = [] if self.n_rows is None else [i for i in ids if i >= self.n_rows]
        if beyond:
            raise BadInput(f"{place} is or holds the token {self.tokenizer.convert_ids_to_tokens(beyond[0])!r} (id "
                           f"{beyond[0]}), for which the model's embedding of {self.n_rows} rows has none; take the "
                           "token out")  # fmt: skip
        return ids

    def text_ids(self, text: str) -> list[int]:
        """Returns the ids of the text alone: those that the tokenizer itself would add are left out."""
        return list(self._ids_by_text(text))

    def _read(self, text: str) -> tuple[int, ...]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return tuple(self._known(ids, f"the text {text[:LENGTH_SHOWN]!r}"))

    def opening_ids(self) -> list[int]:
        """Returns what a text that the model writes by itself begins with: the start token, else the end of the text
        before.  Raises BadInput where there is neither."""
        if self.start_ids:
            return self.start_ids
        end = self.tokenizer.eos_token_id
        if end is None:
            raise BadInput("neither a start token nor the tokenizer's end of text (eos_token) is there to begin a text "
                           "with; set model.start_token=<token>")  # fmt: skip
        return self._known([end], "the tokenizer's end of text (eos_token), with which a text begins,")

    def encode(self, text: str) -> tuple[int, ...]:
        """Returns the token ids of a text, after the start token."""
        return tuple(self._started(self.text_ids(text)))

    def _started(self, ids: list[int]) -> list[int]:
        """Puts the start token in front, unless it is there: some chat templates write it themselves."""
        return ids if ids[: len(self.start_ids)] == self.start_ids else [*self.start_ids, *ids]

    def in_prompt_mode(self, question: str) -> tuple[str, int]:
        """Returns the text that asks `question` (itself, or a chat turn), and the character where the question starts
        in it.  Raises BadInput where the chat template changes the question."""
        if self.prompt == "plain":
            return question, 0
        text = render(self.tokenizer, [{"role": "user", "content": question}], self.chat_date)
        if question not in text:
            raise BadInput(f"the chat template changes the prompt {question!r}; use model.prompt=plain for it")
        return text, text.rindex(question)

    def question_ids(self, question: str) -> tuple[int, ...]:
        """Returns the token ids of `question` in this prompt mode."""
        return self.encode(self.in_prompt_mode(question)[0])

    def locate(self, question: str, start: int, length: int) -> tuple[list[int], int]:
        """Returns the ids of `question` in prompt mode, and `subject_last`: the index of the last token that overlaps
        the subject, characters [start, start + length) of the question."""
        ids, _, last = self.span(question, start, length)
        return ids, last

    def span(self, question: str, start: int, length: int) -> tuple[list[int], int, int]:
        """Returns what `locate` does, with the index of the subject's first token between the two."""
        text, shift = self.in_prompt_mode(question)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        begin, end = start + shift, start + shift + length
        overlapping = [i for i, (a, b) in enumerate(encoded.offset_mapping) if a < end and b > begin and b > a]
        if not overlapping:
            raise BadInput(f"the subject {text[begin:end]!r} is covered by no token of {text!r}")
        ids = self._started(self._known(encoded.input_ids, f"the text {text[:LENGTH_SHOWN]!r}"))
        shift = len(ids) - len(encoded.input_ids)
        return ids, overlapping[0] + shift, overlapping[-1] + shift

    def answer_ids(self, answer: str, question: str) -> tuple[int, ...]:
        """Returns the ids of an answer as it continues `question`, with what `between` puts between the two.

        They are read off after a letter or a line break, since SentencePiece marks the space on the word, and only
        there.  Raises BadInput where the tokenizer merges the answer with what stands
        before it, or has no token for a letter of it.
        """
        text = self.between(question) + answer.strip()
        for before in ("x", "\n"):
            start, continued = self.text_ids(before), self.text_ids(before + text)
            ids = continued[len(start) :]
            if continued[: len(start)] == start and ids:
                unknown = self.tokenizer.unk_token_id
                if unknown in ids and self.tokenizer.unk_token not in answer:
                    raise BadInput(f"the tokenizer has no token for a letter of the answer {answer!r}: it writes "
                                   f"{self.tokenizer.convert_ids_to_tokens(ids)}")  # fmt: skip
                return tuple(ids)
        raise BadInput(f"the answer {answer!r} cannot be told apart from the text before it by this tokenizer")

    def between(self, question: str) -> str:
        """Returns what stands between `question` and its answer: a space or nothing.

        With "auto" it is in a chat what the template itself writes there, else nothing where the last letter of the
        question belongs to a script that puts no spaces between words, else a space.
        """
        if self.separator != "auto":
            return " " if self.separator == "space" else ""
        if self.prompt == "chat":
            return self._before_a_reply
        return "" if ends_without_spaces(question) else " "

    @cached_property
    def _before_a_reply(self) -> str:
        """A space where the chat template writes one between the begin of the model's turn and its text."""
        asked = [{"role": "user", "content": "What is it?"}]
        begun = render(self.tokenizer, asked, self.chat_date)
        try:
            told = [*asked, {"role": "assistant", "content": "Bread"}]
            whole = render(self.tokenizer, told, self.chat_date, add_generation_prompt=False)
        except BadInput:  # it takes questions only
            return ""
        return " " if whole.startswith(f"{begun} Bread") else ""
