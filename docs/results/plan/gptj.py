"""Prints what a plan says of GPT-J's shape at the rates that docs/results/full-size measured on one H100.

python docs/results/plan/gptj.py
"""

from afteredit.commands.plan.plan import planned
from afteredit.launch.command_line import compose

MEASURED = {"rome, one at a time": (31, "1.63 s"), "rome, 8 together": (168, "0.30 s")}


def main() -> None:
    for name, (tflops, seconds) in MEASURED.items():
        setting = "setting=single" if "together" in name else "setting=sequential"
        x = compose(["model=gptj", "dtype=bfloat16", "n_edits=16", "task=none", setting, "eval_every=16", "plan=given",
                     f"plan.tflops={tflops}", "plan.gib=80", "tracker=none"])  # fmt: skip
        says = planned(x)
        print(f"{name} at {tflops} TFLOP/s: planned {says.update.expected:.2f} s an edit, measured {seconds}")
        print(
            {
                part: round(n / 2**30, 2)
                for part, n in {**says.held.always["device"], **says.held.phases["device"]}.items()
            }
        )


if __name__ == "__main__":
    main()
