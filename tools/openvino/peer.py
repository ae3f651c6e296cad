"""OpenVINO GenAI's side of `cargo bench -p elenchus --bench compare`, which starts it; not meant to be called by hand.

    peer.py serve BASE.gguf THREADS     answers each line of JSON on stdin with one

Commands are those of `crates/elenchus/benches/compare/ours.rs`, of which it knows prefill and decode without adapters. The
clock runs around `generate` with ids; the answer also has the inference time that OpenVINO reports.
"""

import json
import sys
import time

import numpy
import openvino_genai
from openvino import Tensor


class Peer:
    def __init__(self, base, threads):
        # Threads that are bound to a core wait for other threads there.
        self.pipeline = openvino_genai.LLMPipeline(
            base, "CPU", INFERENCE_NUM_THREADS=threads, ENABLE_CPU_PINNING=False
        )

    def generate(self, tokens, count):
        ids = numpy.array([tokens], dtype=numpy.int64)
        inputs = openvino_genai.TokenizedInputs(Tensor(ids), Tensor(numpy.ones_like(ids)))
        started = time.perf_counter()
        metrics = self.pipeline.generate(inputs, max_new_tokens=count, ignore_eos=True).perf_metrics
        return time.perf_counter() - started, metrics

    def prefill(self, order):
        """The first token of a reply: the prompt is read, and one token is sampled."""
        seconds, metrics = self.generate(order["tokens"], 1)
        return {"seconds": seconds, "own_seconds": metrics.get_inference_duration().mean / 1000}

    def decode(self, order):
        """Greedy, as ids cannot be forced; the time of a token after the first, times their number."""
        (prompt,), (reply,) = order["prompts"], order["replies"]
        _, metrics = self.generate(prompt, len(reply) + 1)
        return {"seconds": metrics.get_tpot().mean / 1000 * len(reply)}


def serve(base, threads):
    started = time.perf_counter()
    peer = Peer(base, int(threads))
    say(
        {
            "build": f"OpenVINO GenAI {openvino_genai.__version__}",
            "load_seconds": time.perf_counter() - started,
        }
    )
    for line in sys.stdin:
        order = json.loads(line)
        say(getattr(peer, order["do"])(order))


def say(answer):
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    if verb != "serve":
        raise SystemExit(f"{verb} is not serve")
    serve(*rest)
