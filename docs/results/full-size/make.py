"""A folder with random weights in the shape of GPT-J (6B), bfloat16: for what edits and checkpoints take.

    python docs/results/full-size/make.py FOLDER

The tokenizer is SmolLM2's, whose 49,152 tokens GPT-J's 50,400 rows hold.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from afteredit.launch.command_line import compose


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    tokenizer = compose(["model=smollm2"]).model.load("cpu", "float32").tokenizer
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(arguments.device):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gptj"))
    model.save_pretrained(arguments.folder)
    tokenizer.save_pretrained(arguments.folder)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters in {arguments.folder}")


if __name__ == "__main__":
    main()
