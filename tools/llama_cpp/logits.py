"""llama.cpp's logits of the last position of each list of ids, little-endian f32 one after the other.

    logits.py BASE.gguf IDS.json OUT.f32 [ADAPTER.gguf]
"""

import json
import sys
from pathlib import Path

import numpy
from llama_cpp import GGML_TYPE_F32, Llama


def main():
    base, ids, out = sys.argv[1:4]
    lists = json.loads(Path(ids).read_text())
    model = Llama(
        base,
        lora_path=sys.argv[4] if len(sys.argv) > 4 else None,
        n_ctx=1024,
        n_threads=2,
        n_threads_batch=2,
        logits_all=True,
        # Keys and values as exact as ours.
        type_k=GGML_TYPE_F32,
        type_v=GGML_TYPE_F32,
        # Its messages go to stderr; they are needed when it refuses a file.
        verbose=True,
    )
    last = []
    for tokens in lists:
        model.reset()
        model.eval(tokens)
        last.append(numpy.array(model.scores[len(tokens) - 1], dtype="<f4"))
    Path(out).write_bytes(numpy.concatenate(last).tobytes())


main()
