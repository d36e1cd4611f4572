"""Prints what a plan says of GPT-J's shape at the rates that docs/results/full-size measured on one H100.

python docs/results/plan/gptj.py
"""

from afteredit.commands.plan.plan import Planned, planned, total
from afteredit.launch.command_line import compose

EDITS = {"rome, one at a time": (31, "1.63 s"), "rome, 8 together": (168, "0.30 s")}
ABILITIES = ["n_edits=10", "eval_every=5", "task=all", "limit=32"]
EDITS_ALONE = ["n_edits=6", "eval_every=6", "task=none"]


def main() -> None:
    for name, (tflops, seconds) in EDITS.items():
        setting = "setting=single" if "together" in name else "setting=sequential"
        says = plan(tflops, "n_edits=16", "task=none", setting, "eval_every=16")
        print(f"{name} at {tflops} TFLOP/s: planned {says.update.expected:.2f} s an edit, measured {seconds}")
        print(
            {
                part: round(n / 2**30, 2)
                for part, n in {**says.held.always["device"], **says.held.phases["device"]}.items()
            }
        )
    for tflops in (31, 168):
        alone, abilities = (plan(tflops, "method=memit", *keys) for keys in (EDITS_ALONE, ABILITIES))
        print(f"memit at {tflops} TFLOP/s")
        for what, seconds, measured in (
            ("an edit", alone.update.expected, "3.0 to 3.9"),
            ("loading", alone.started.expected, "16"),
            ("preparing, constants cached", alone.start.expected, "21"),
            ("first checkpoint without abilities", total(alone.unedited.values()).expected, "6 and 7"),
            ("last checkpoint without abilities", total(alone.last.values()).expected, "3"),
            ("first checkpoint, eight abilities", total(abilities.unedited.values()).expected, "20"),
            ("later checkpoint, eight abilities", total(abilities.later.values()).expected, "11 and 12"),
        ):
            print(f"  {what}: planned {seconds:.1f} s, measured {measured}")


def plan(tflops: float, *keys: str) -> Planned:
    return planned(compose(["model=gptj", "dtype=bfloat16", "plan=given", f"plan.tflops={tflops}", "plan.gib=80",
                            "tracker=none", *keys]))  # fmt: skip


if __name__ == "__main__":
    main()
