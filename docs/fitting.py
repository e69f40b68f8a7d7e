"""Write the table of docs/memory.md that says which model fits which card, from the estimates of memory.

python -m docs.fitting
"""

import dataclasses
from pathlib import Path

from docs import generated
from prefline import files
from prefline.config.section import parser
from prefline.machine.memory import fit, inference, sizes
from prefline.machine.memory.training import Training, parts

PAGE = Path("docs/memory.md")
MARKS = "<!-- python -m docs.fitting -->", "<!-- end of the table -->"
CARDS, GPUS = (24, 48, 80), 8
PROMPT, COMPLETION, BATCH = 1024, 1024, 16
LORA = fit.LORA
QLORA = LORA | {"quantization": "nf4"}
METHODS = {
    "all parameters": {"method": "preference"},
    "all, `adamw_8bit`": {"method": "preference", "optim": "adamw_8bit"},
    "LoRA": {"method": "preference", "peft": LORA},
    "QLoRA": {"method": "preference", "peft": QLORA},
    "`kto`, LoRA": {"method": "kto", "peft": LORA},
    "`grpo`, LoRA": {"method": "grpo", "peft": LORA},
    "`ppo`": {"method": "ppo"},
    "reward model, LoRA": {"method": "reward_model", "peft": LORA},
}


def training(model, settings):
    """Return the Training of a column of the table on one GPU, with as few rows at once as it can have."""
    job = Training(
        model,
        prompt_tokens=PROMPT,
        completion_tokens=COMPLETION,
        rows=1,
        global_batch_size=BATCH,
        gradient_checkpointing=True,
        reference=model if settings["method"] in ("kto", "grpo", "ppo") else None,
        **settings,
    )
    return whole_batch(job)


def whole_batch(job):
    """Return a Training with the rows that its method needs on each GPU."""
    return dataclasses.replace(job, rows=job.share if job.method in ("kto", "ppo") else 1)


def smallest(job):
    """Return the cell of a Training: GB, and the smallest card; or GB on each of eight of the largest."""
    held = parts(job)
    for card in CARDS:
        if fit.fits(held, card):
            return f"{fit.total(held) / fit.GB:.0f} ({card})"
    parallel = "ddp" if job.quantized or job.method == "ppo" or "8bit" in job.optim else "fsdp2"
    held = parts(whole_batch(dataclasses.replace(job, devices=GPUS, parallel=parallel)))
    if fit.fits(held, CARDS[-1]):
        return f"{fit.total(held) / fit.GB:.0f} x {GPUS} ({CARDS[-1]})"
    return "-"


def served(model):
    """Return the cell of vLLM: the fewest GPUs, with the smallest cards, on which a context fits."""
    for most in (1, 2, 4, 8):
        for card in CARDS:
            found = fit.tensor_parallel_size(model, "bfloat16", PROMPT + COMPLETION, card, most=most)
            if found is not None:
                return f"{card}" if found == 1 else f"{found}x{card}"
    return "-"


def scored(model):
    """Return the cell of log-probabilities: GB, and the smallest card."""
    held = inference.scoring(model, "bfloat16", 4096, PROMPT + 2 * COMPLETION)
    card = next((card for card in CARDS if fit.fits(held, card)), None)
    return "-" if card is None else f"{fit.total(held) / fit.GB:.0f} ({card})"


def table():
    """Return the table (str, Markdown)."""
    models = [sizes.typical(billions) for billions in sizes.TYPICAL]
    rows = [["job", *(model.name for model in models)], ["---"] * (1 + len(models))]
    for name, settings in METHODS.items():
        rows.append([name, *(smallest(training(model, settings)) for model in models)])
    rows += [["log-probabilities", *map(scored, models)], ["vLLM", *map(served, models)]]
    return "\n".join(f"| {' | '.join(line)} |" for line in rows)


def page(text):
    """Return the page with a new table between its MARKS."""
    return generated.replaced(text, MARKS, table())


def main():
    parser(__doc__).parse_args()
    files.write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
