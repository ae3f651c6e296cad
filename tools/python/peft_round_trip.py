"""Tests that peft and Elenchus read an adapter folder in the same way.

    peft_round_trip.py BASE.gguf IDS.json OUT ADAPTER...

Loads the base as transformers does, then every adapter with peft, and fails on a warning, a missing key or an
unexpected one. Writes the logits of the last position of each list of ids, little-endian f32 one after the other:
`OUT/base.f32`, and `OUT/0.f32`, `OUT/1.f32`, ... for the adapters. Then lets peft save its own adapters in
`OUT/plain` and `OUT/mixed`, with their logits in `OUT/plain.f32` and `OUT/mixed.f32`.
"""

import copy
import json
import os
import sys
import warnings
from pathlib import Path

# All files are local; a base's name in a folder must not cause network requests.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM


def open_base(path):
    """The file's weights in a model that knows nothing of GGUF, so that peft wraps ordinary linears."""
    from_gguf = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    config = copy.deepcopy(from_gguf.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config)
    result = model.load_state_dict(from_gguf.state_dict(), strict=False)
    assert not result.unexpected_keys and set(result.missing_keys) <= {"lm_head.weight"}, result
    model.tie_weights()
    return model.float().eval()


@torch.no_grad()
def write_logits(model, lists, path):
    last = [model(torch.tensor([ids])).logits[0, -1].float() for ids in lists]
    path.write_bytes(torch.stack(last).numpy().astype("<f4").tobytes())


def open_adapter(base, folder):
    """Fails on any warning of peft about the folder."""
    with warnings.catch_warnings():
        # Deprecation warnings between libraries do not concern the folder.
        warnings.simplefilter("error", UserWarning)
        model = PeftModel.from_pretrained(copy.deepcopy(base), folder)
        result = model.load_adapter(folder, "again")
    assert not result.missing_keys and not result.unexpected_keys, (folder, result)
    file = load_file(folder / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    assert loaded.keys() == file.keys(), (folder, loaded.keys() ^ file.keys())
    for name, tensor in file.items():
        assert torch.equal(loaded[name], tensor.float()), (folder, name)
    model.set_adapter("default")
    return model.eval()


def save_own(base, config, folder):
    model = get_peft_model(copy.deepcopy(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(folder, save_embedding_layers=False)
    return model.eval()


def main():
    base_path, ids_path, out = (Path(argument) for argument in sys.argv[1:4])
    adapters = [Path(argument) for argument in sys.argv[4:]]
    torch.manual_seed(0)
    torch.set_num_threads(2)
    out.mkdir(parents=True, exist_ok=True)
    lists = json.loads(ids_path.read_text())
    base = open_base(base_path)
    write_logits(base, lists, out / "base.f32")
    for number, folder in enumerate(adapters):
        write_logits(open_adapter(base, folder), lists, out / f"{number}.f32")
    own = {
        "plain": LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"]),
        "mixed": LoraConfig(
            task_type="CAUSAL_LM",
            r=6,
            lora_alpha=9,
            use_rslora=True,
            target_modules="all-linear",
            rank_pattern={"k_proj": 3, "layers.1.mlp.down_proj": 10},
            alpha_pattern={"layers.0.self_attn.v_proj": 5},
        ),
    }
    for name, config in own.items():
        write_logits(save_own(base, config, out / name), lists, out / f"{name}.f32")


main()
