"""The peer of `cargo bench -p elenchus_train --bench peft`, which starts it; not meant to be called by hand.

    peft_bench.py choose BASE FOLDER               the faster attention, and products in f32 and bf16, as one line of JSON
    peft_bench.py steps ATTENTION BASE FOLDER...   takes the steps requested on stdin, one answer a line

A FOLDER holds batches as the bench exports them; `peft_train.py` defines a step. Training mode, dropout included.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch

from peft_train import load_base, optimiser_of, read_lines, stock_loss, target_only_loss, train_step, with_adapter

LOSSES = {"stock": stock_loss, "targets": target_only_loss}


def learner(base, folder, attention):
    settings = json.loads((folder / "settings.json").read_text())
    model = with_adapter(load_base(base, attention), folder / "adapter", settings["dropout"]).train()
    return model, optimiser_of(model, settings["adamw"]), settings


def timed_step(model, optimiser, settings, batch, head):
    started = time.perf_counter()
    loss = train_step(
        model, optimiser, batch["examples"], batch["learning_rate"], settings["max_grad_norm"], LOSSES[head]
    )
    return {"seconds": time.perf_counter() - started, "loss": loss}


def steps(attention, base, *folders):
    model, optimiser, settings = learner(base, folders[0], attention)
    batches = [read_lines(folder / "batches.jsonl") for folder in folders]
    # The loader holds two copies of the base for a moment; that is not counted as memory of training.
    Path("/proc/self/clear_refs").write_text("5")
    say({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        batch = batches[order["folder"]][order["step"]]
        say(timed_step(model, optimiser, settings, batch, order["head"]))


def choose(base, folder):
    batch = read_lines(folder / "batches.jsonl")[0]
    attention = {}
    for kind in ("sdpa", "eager"):
        model, optimiser, settings = learner(base, folder, kind)
        attention[kind] = min(timed_step(model, optimiser, settings, batch, "stock")["seconds"] for _ in range(3))
    config = model.get_base_model().config
    tokens = sum(len(example["tokens"]) for example in batch["examples"])
    say({"attention": attention, "products": products(config, tokens)})


@torch.no_grad()
def products(config, tokens):
    """Seconds of one forward product of each shape, f32 and bf16 (oneDNN, with AVX-512 BF16 where the CPU has it)."""
    hidden, inner = config.hidden_size, config.intermediate_size
    kv = config.num_key_value_heads * (hidden // config.num_attention_heads)
    layers = config.num_hidden_layers
    shapes = {
        "q, o": (hidden, hidden, 2 * layers),
        "k, v": (hidden, kv, 2 * layers),
        "gate, up": (hidden, inner, 2 * layers),
        "down": (inner, hidden, layers),
        "head": (hidden, config.vocab_size, 1),
    }
    lines = []
    for name, (columns, rows, count) in shapes.items():
        line = {"name": name, "in": columns, "out": rows, "count": count, "tokens": tokens}
        for dtype, label in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
            x = torch.randn(tokens, columns).to(dtype)
            weight = torch.randn(rows, columns).to(dtype)
            line[label] = median_of(lambda: torch.nn.functional.linear(x, weight))
        lines.append(line)
    return lines


def median_of(run, repetitions=7):
    run()
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def say(answer):
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(2)
    torch.manual_seed(1)
    verb, *rest = sys.argv[1:]
    if verb == "choose":
        choose(*map(Path, rest))
    elif verb == "steps":
        steps(rest[0], *map(Path, rest[1:]))
    else:
        raise SystemExit(f"{verb} is neither choose nor steps")
