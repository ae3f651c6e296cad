"""Trains an adapter with transformers + PEFT on the very batches that `elenchus train sft` takes: the peer whose held-out
perplexity ours is compared with.

    cargo bench -p elenchus_train --bench peft -- export adapters/socrates/training.toml runs/peft/socrates
    nice -n 19 $(tools/python/venv) tools/python/peft_train.py runs/peft/socrates BASE.gguf runs/peft/socrates/peer

It starts from the same A and B, at the same learning rate in each step. Before the first step it proves that the model is
the same: the loss of the first batch must equal ours within 1e-4 (B is zero then, so dropout has no effect). Padding is per
batch, the loss is the mean over all targets of a batch, everything is f32. Only the dropout masks differ.

OUT gets `losses.jsonl`, `before.json`, `result.json` and `adapter/`; a killed run resumes from its last checkpoint.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM
from transformers.utils import logging

CHECKPOINT_STEPS = 20
IGNORED = -100


def load_base(gguf, attention="sdpa"):
    """The base, dequantised to f32 by transformers: q and k rows in Hugging Face's order."""
    gguf = Path(gguf)
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, attn_implementation=attention
    )
    model.config.use_cache = False
    return model


def with_adapter(base, folder, dropout):
    """The base under our fresh adapter, trainable."""
    config = LoraConfig.from_pretrained(folder)
    config.lora_dropout = dropout
    config.inference_mode = False
    model = PeftModel.from_pretrained(base, folder, is_trainable=True, config=config)
    assert all(p.dtype == torch.float32 for p in model.parameters()), "the comparison is in f32"
    return model


def trainable(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def optimiser_of(model, settings):
    betas = (settings["beta1"], settings["beta2"])
    return torch.optim.AdamW(
        trainable(model), lr=0.0, betas=betas, eps=settings["eps"], weight_decay=settings["weight_decay"]
    )


def padded(examples):
    """Token ids, attention mask and labels of a batch, as long as its longest example."""
    longest = max(len(example["tokens"]) for example in examples)
    ids = torch.zeros((len(examples), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        tokens, start = torch.tensor(example["tokens"]), example["reply_start"]
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
        labels[row, start : len(tokens)] = tokens[start:]
    return ids, mask, labels


def stock_loss(model, examples):
    """As transformers computes it: logits at every position, padding included."""
    ids, mask, labels = padded(examples)
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss


def target_only_loss(model, examples):
    """The head at target positions only: not transformers' default, but possible for its user."""
    ids, mask, labels = padded(examples)
    causal = model.get_base_model()
    hidden = causal.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1]
    labels = labels[:, 1:]
    chosen = labels != IGNORED
    return torch.nn.functional.cross_entropy(causal.lm_head(hidden[chosen]), labels[chosen])


def train_step(model, optimiser, examples, learning_rate, max_grad_norm, loss_of=stock_loss):
    """Forward, backward, clipping, AdamW. The loss."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
    loss = loss_of(model, examples)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainable(model), max_grad_norm)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss.item()


@torch.no_grad()
def perplexity(model, examples, batch=8):
    """Reply perplexity, end tokens apart."""
    model.eval()
    words, ends = [], []
    for start in range(0, len(examples), batch):
        rows = examples[start : start + batch]
        ids, mask, labels = padded(rows)
        logits = model(input_ids=ids, attention_mask=mask).logits
        for row, example in enumerate(rows):
            first, last = example["reply_start"], len(example["tokens"])
            targets = labels[row, first:last]
            logprobs = logits[row, first - 1 : last - 1].log_softmax(-1)[torch.arange(len(targets)), targets].double()
            end = int(example["is_ended"])
            words.append(logprobs[: len(logprobs) - end])
            ends.append(logprobs[len(logprobs) - end :])
    model.train()
    words, ends = torch.cat(words), torch.cat(ends)
    return {
        "tokens": len(words),
        "perplexity": math.exp(-words.mean().item()) if len(words) else None,
        "end_tokens": len(ends),
        "end_perplexity": math.exp(-ends.mean().item()) if len(ends) else None,
    }


def read_lines(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def write(path, write_to):
    """Replaces a file as a whole."""
    beside = path.with_suffix(".tmp")
    write_to(beside)
    beside.replace(path)


def restore(checkpoint, model, optimiser):
    state = torch.load(checkpoint, weights_only=True)
    with torch.no_grad():
        for parameter, saved in zip(trainable(model), state["parameters"], strict=True):
            parameter.copy_(saved)
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["rng"])
    return state["step"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("batches", type=Path, help="folder that `export` wrote")
    arguments.add_argument("base", type=Path, help="GGUF file")
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--steps", type=int, help="stop after this many steps")
    arguments.add_argument("--held-out", type=int, help="measure on this many held-out examples only")
    arguments.add_argument("--threads", type=int, default=2)
    arguments = arguments.parse_args()

    torch.set_num_threads(arguments.threads)
    settings = json.loads((arguments.batches / "settings.json").read_text())
    batches = read_lines(arguments.batches / "batches.jsonl")[: arguments.steps]
    held_out = read_lines(arguments.batches / "held_out.jsonl")[: arguments.held_out]
    torch.manual_seed(settings["seed"])
    model = with_adapter(load_base(arguments.base), arguments.batches / "adapter", settings["dropout"]).train()
    optimiser = optimiser_of(model, settings["adamw"])
    arguments.out.mkdir(parents=True, exist_ok=True)
    losses, checkpoint = arguments.out / "losses.jsonl", arguments.out / "checkpoint.pt"

    begin = 0
    if checkpoint.exists():
        begin = restore(checkpoint, model, optimiser)
        print(f"resumes after step {begin}", flush=True)
    else:
        with torch.no_grad():
            theirs = stock_loss(model, batches[0]["examples"]).item()
        ours = settings["first_loss"]
        print(f"loss of the first batch: {theirs:.6f} (ours {ours:.6f})", flush=True)
        if abs(theirs - ours) >= 1e-4:
            raise SystemExit(f"the models differ: {theirs} instead of {ours} (hint: another base file?)")
        torch.manual_seed(settings["seed"])
        before = perplexity(model, held_out)
        print(f"before: {json.dumps(before)}", flush=True)
        write(arguments.out / "before.json", lambda path: path.write_text(json.dumps(before)))
    known = read_lines(losses) if losses.exists() else []
    kept = "".join(json.dumps(line) + "\n" for line in known if line["step"] < begin)
    write(losses, lambda path: path.write_text(kept))

    with open(losses, "a") as log:
        for batch in batches[begin:]:
            started = time.perf_counter()
            loss = train_step(
                model, optimiser, batch["examples"], batch["learning_rate"], settings["max_grad_norm"]
            )
            seconds = time.perf_counter() - started
            line = {"step": batch["step"], "loss": loss, "learning_rate": batch["learning_rate"], "seconds": seconds}
            log.write(json.dumps(line) + "\n")
            log.flush()
            taken = batch["step"] + 1
            print(f"step {taken} of {len(batches)}: loss {loss:.4f}, {seconds:.1f} s", flush=True)
            if taken % CHECKPOINT_STEPS == 0 or taken == len(batches):
                state = {
                    "step": taken,
                    "parameters": [parameter.detach() for parameter in trainable(model)],
                    "optimiser": optimiser.state_dict(),
                    "rng": torch.get_rng_state(),
                }
                write(checkpoint, lambda path: torch.save(state, path))

    after = perplexity(model, held_out)
    model.save_pretrained(arguments.out / "adapter")
    result = {"before": json.loads((arguments.out / "before.json").read_text()), "after": after, "steps": len(batches)}
    write(arguments.out / "result.json", lambda path: path.write_text(json.dumps(result, indent=1)))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
