"""What Hydra says about overrides, in words that the command line goes on from."""

from __future__ import annotations

import re

SAID = tuple((re.compile(theirs), ours) for theirs, ours in (
    (r".*hydra/launcher/submitit_.*",
     "hydra/launcher=slurm needs hydra-submitit-launcher: pip install 'afteredit[slurm]'"),
    (r"Multiple values for (\S+)\. To override a value use 'override \S+: (.+)'",
     r"+\1=\2 would add a second entry to \1, which always has one; say \1=\2, without +"),
    (r"(\S+) appears more than once in the final defaults list",
     r"+\1=… would add to \1, which is given whole; say \1=…, without +"),
    (r"force-add of config groups is not supported: '\+\+(.+)'",
     r"++\1 chooses an entry of a group; say \1, without ++"),
    (r"Could not delete from config\. '(\S+)' does not exist\.",
     r"~\1 leaves out what is not there; --cfg job shows what is, and task=[…] names the tasks that are wanted"),
))  # fmt: skip


def in_our_words(message: str) -> str:
    """Returns what to do instead of an override that Hydra does not take; the message itself where nothing is known."""
    for theirs, ours in SAID:
        if found := theirs.fullmatch(message):
            return found.expand(ours)
    return message
