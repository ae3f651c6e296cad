"""The peer of `cargo bench -p elenchus_train --bench trl`, which starts it; not meant to be called by hand.

    trl_bench.py export BASE.gguf FOLDER   the base in f32 as a Hugging Face folder, for both versions of TRL
    trl_bench.py ppo TASK.json FOLDER      one iteration of TRL's classic PPO for each line on stdin
    trl_bench.py rloo TASK.json FOLDER     one step of TRL's RLOO for each line on stdin

TASK.json is the bench's: prompts as ids, the number of tokens to generate, and the settings both sides have.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch

PAD = 2


def say(answer):
    print(json.dumps(answer), file=sys.__stdout__, flush=True)


def reset_peak():
    """Copies that loading makes are not counted as memory of training."""
    Path("/proc/self/clear_refs").write_text("5")


def export(gguf, folder):
    from peft_train import load_base

    model = load_base(gguf)
    # It was dequantised when it was loaded.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    say({"ready": True})


def tokenizer():
    """Ids are words: the text does not matter, only the time."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(at): at for at in range(49_152)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, pad_token=str(PAD), eos_token=str(PAD))
    fast.padding_side = "left"
    return fast


def lora(settings):
    from peft import LoraConfig

    return LoraConfig(
        r=settings["rank"], lora_alpha=settings["alpha"], target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )


def ppo(task, folder):
    from transformers import AutoModelForCausalLM
    from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

    base = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    model = AutoModelForCausalLMWithValueHead.from_pretrained(base, peft_config=lora(task))
    config = PPOConfig(
        batch_size=task["prompts_each"],
        mini_batch_size=task["mini_batch"],
        backward_batch_size=task["mini_batch"],
        ppo_epochs=task["epochs"],
        learning_rate=task["learning_rate"],
        accelerator_kwargs={"cpu": True},
        log_with=None,
    )
    trainer = PPOTrainer(config, model, None, tokenizer())
    reset_peak()
    say({"ready": True})
    for number, _ in enumerate(sys.stdin):
        prompts = task["prompts"][number * task["prompts_each"] :][: task["prompts_each"]]
        queries = [torch.tensor(prompt) for prompt in prompts]
        started = time.perf_counter()
        responses = trainer.generate(
            queries,
            batch_size=task["prompts_each"],
            return_prompt=False,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            min_new_tokens=task["max_tokens"],
            max_new_tokens=task["max_tokens"],
            pad_token_id=PAD,
        )
        respond = time.perf_counter() - started
        scores = [torch.tensor(float(len(set(response.tolist()))) / task["max_tokens"]) for response in responses]
        trainer.step(queries, responses, scores)
        tokens = sum(len(response) for response in responses)
        say({"seconds": time.perf_counter() - started, "respond": respond, "tokens": tokens})


def rloo(task, folder):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import RLOOConfig, RLOOTrainer

    class Turns(TrainerCallback):
        """Waits for a line before each step, and reports how long it took."""

        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 0:
                reset_peak()
                say({"ready": True})
            if not sys.stdin.readline():
                os._exit(0)
            self.started = time.perf_counter()

        def on_step_end(self, args, state, control, **_):
            seconds = time.perf_counter() - self.started
            say({"seconds": seconds, "tokens": task["max_tokens"] * task["prompts_each"] * task["group"]})

    def reward(completion_ids, **_):
        return [len(set(ids)) / task["max_tokens"] for ids in completion_ids]

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    base.generation_config.pad_token_id = PAD
    responses = task["prompts_each"] * task["group"]
    config = RLOOConfig(
        output_dir="target/bench_trl/rloo",
        per_device_train_batch_size=responses,
        num_generations=task["group"],
        max_completion_length=task["max_tokens"],
        generation_kwargs={"min_new_tokens": task["max_tokens"]},
        temperature=1.0,
        top_k=0,
        beta=task["kl_coef"],
        learning_rate=task["learning_rate"],
        max_steps=len(task["prompts"]) // task["prompts_each"],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    prompts = [{"prompt": " ".join(map(str, prompt))} for prompt in task["prompts"]]
    trainer = RLOOTrainer(
        model=base,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(prompts),
        processing_class=tokenizer(),
        peft_config=lora(task),
        callbacks=[Turns()],
    )
    trainer.train()


if __name__ == "__main__":
    # Output of libraries must not be taken for an answer.
    sys.stdout = sys.stderr
    torch.manual_seed(0)
    verb, task, folder = sys.argv[1:]
    if verb == "export":
        export(task, folder)
    else:
        {"ppo": ppo, "rloo": rloo}[verb](json.loads(Path(task).read_text()), folder)
