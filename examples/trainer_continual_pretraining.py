"""Continually pretrain a causal language model on two text files, more on the one that is slower to learn.

    python examples/trainer_continual_pretraining.py MODEL FIRST.txt SECOND.txt OUT [STEPS]

The end of each file is held out. The same command again goes on from the last checkpoint in OUT.
"""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from velocitune_core import VelocityReweighter
from velocitune_core.integrations.transformers_trainer import VelocityCallback
from velocitune_core.own_loop import targets_from_initial_losses

LENGTH = 64  # tokens of an example


def main(model: str, first: str, second: str, out: str, steps: str = "200") -> None:
    if Path(first).stem == Path(second).stem:
        sys.exit(f"{first} and {second} have the same name, which names their groups; rename one")
    tokenizer = AutoTokenizer.from_pretrained(model)
    train, held_out = {}, {}  # by name of the file
    for file in map(Path, (first, second)):
        ids = tokenizer(file.read_text(encoding="utf-8"))["input_ids"]
        rows = [ids[at : at + LENGTH] for at in range(0, len(ids) - LENGTH + 1, LENGTH)]
        examples = [{"input_ids": row, "labels": row} for row in rows]
        if len(examples) < 2:
            sys.exit(f"{file} has {len(ids)} tokens; give at least {2 * LENGTH}, for an example and one held out")
        border = len(examples) - max(1, min(32, len(examples) // 10))
        train[file.stem], held_out[file.stem] = examples[:border], examples[border:]

    total, every = int(steps), max(1, int(steps) // 10)
    args = TrainingArguments(out, max_steps=total, eval_strategy="steps", eval_steps=every, save_steps=every)
    network = AutoModelForCausalLM.from_pretrained(model)
    examples = [*train[Path(first).stem], *train[Path(second).stem]]
    trainer = Trainer(network, args, train_dataset=examples, eval_dataset=held_out)
    initial = {name: trainer.evaluate(held_out[name])["eval_loss"] for name in held_out}
    reweighter = VelocityReweighter(
        dict.fromkeys(train, 0.5),
        initial_losses=initial,
        target_losses=targets_from_initial_losses(initial, 0.7),
        options={"step_size": 2.0, "step_size_per": "budget"},  # weights change by e² at most over the whole training
        total_steps=total,
    )
    VelocityCallback(reweighter, train).attach(trainer)
    trainer.train(resume_from_checkpoint=any(Path(out).glob("checkpoint-*")))
    trainer.save_model(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
