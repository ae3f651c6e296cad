"""llama.cpp's side of `cargo bench -p elenchus --bench compare`, which starts it; not meant to be called by hand.

    peer.py serve BASE.gguf THREADS [ADAPTER.gguf...]   answers each line of JSON on stdin with one
    peer.py requantise BASE.gguf OUT.gguf               makes a Q4_0 file, as `llama-quantize --allow-requantize` does

Commands are those of `crates/elenchus/benches/compare/ours.rs`. The clock runs around llama.cpp's calls alone; the answer
also has the decoding time that llama.cpp reports, so that Python's share can be seen. Settings are upstream's:
flash attention as it decides, memory-mapped weights, keys and values in f16, batches of 512.
"""

import ctypes
import json
import os
import sys
import time

import llama_cpp as cpp
import numpy

BATCH = 512
# The most tokens of a sequence.
CONTEXT = 1024


class Peer:
    def __init__(self, base, threads, adapters):
        started = time.perf_counter()
        self.model = cpp.llama_model_load_from_file(base.encode(), cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp does not load {base}")
        self.load_seconds = time.perf_counter() - started
        self.loaded = resident()
        self.threads = threads
        self.adapters = [cpp.llama_adapter_lora_init(self.model, path.encode()) for path in adapters]
        if not all(self.adapters):
            raise SystemExit("llama.cpp does not load every adapter")
        self.vocab_size = cpp.llama_vocab_n_tokens(cpp.llama_model_get_vocab(self.model))
        self.batch = cpp.llama_batch_init(BATCH, 0, 1)
        self.contexts = {}

    def context(self, sequences):
        """A context for so many sequences, emptied."""
        if sequences not in self.contexts:
            params = cpp.llama_context_default_params()
            params.n_ctx = CONTEXT * sequences
            params.n_batch = params.n_ubatch = BATCH
            params.n_seq_max = sequences
            params.n_threads = params.n_threads_batch = self.threads
            params.no_perf = False
            context = cpp.llama_init_from_model(self.model, params)
            if not context:
                raise SystemExit(f"llama.cpp makes no context for {sequences} sequences")
            self.contexts[sequences] = context
        context = self.contexts[sequences]
        cpp.llama_memory_clear(cpp.llama_get_memory(context), False)
        self.set_adapter(context, None)
        return context

    def set_adapter(self, context, adapter):
        if adapter is None:
            cpp.llama_set_adapters_lora(context, None, 0, None)
        else:
            one = (cpp.llama_adapter_lora_p_ctypes * 1)(self.adapters[adapter])
            cpp.llama_set_adapters_lora(context, one, 1, (ctypes.c_float * 1)(1.0))

    def fill(self, entries):
        """Writes (token, position, sequence, wants logits) into the batch."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for at, (token, position, sequence, logits) in enumerate(entries):
            batch.token[at] = token
            batch.pos[at] = position
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = sequence
            batch.logits[at] = logits

    def step(self, context):
        code = cpp.llama_decode(context, self.batch)
        if code:
            raise SystemExit(f"llama_decode answers {code}")

    def read(self, context, tokens, start=0, sequence=0):
        """Reads tokens after position `start`; logits of the last. Returns the seconds it took."""
        seconds = 0.0
        for chunk in range(0, len(tokens), BATCH):
            part = tokens[chunk : chunk + BATCH]
            last = len(tokens) - 1 - chunk
            self.fill([(token, start + chunk + at, sequence, at == last) for at, token in enumerate(part)])
            started = time.perf_counter()
            self.step(context)
            # The logits' address is returned once they are computed.
            cpp.llama_synchronize(context)
            seconds += time.perf_counter() - started
        return seconds

    def prefill(self, order):
        context = self.context(1)
        self.set_adapter(context, order.get("adapter"))
        return {"seconds": self.read(context, order["tokens"])}

    def decode(self, order):
        """Replies of one batch: one token each per step. All rows have the same adapter, as in llama.cpp."""
        prompts, replies, adapters = order["prompts"], order["replies"], order["adapters"]
        if any(adapter != adapters[0] for adapter in adapters):
            raise SystemExit("llama.cpp has one adapter per batch")
        count = len(prompts)
        context = self.context(count)
        self.set_adapter(context, adapters[0])
        prefill = sum(self.read(context, prompt, 0, number) for number, prompt in enumerate(prompts))
        self.fill([(0, 0, number, True) for number in range(count)])
        token, position = self.batch.token, self.batch.pos
        starts = [len(prompt) for prompt in prompts]
        cpp.llama_perf_context_reset(context)
        started = time.perf_counter()
        for at in range(len(replies[0])):
            for number in range(count):
                token[number] = replies[number][at]
                position[number] = starts[number] + at
            self.step(context)
            cpp.llama_synchronize(context)
        seconds = time.perf_counter() - started
        perf = cpp.llama_perf_context(context)
        # Steps of several tokens are counted as prompts there.
        own = (perf.t_eval_ms if count == 1 else perf.t_p_eval_ms) / 1000
        return {"seconds": seconds, "prefill_seconds": prefill, "own_seconds": own}

    def one_after_another(self, order):
        """As `decode`, but a whole reply before the next one, for which the adapter is changed."""
        prompts, replies, adapters = order["prompts"], order["replies"], order["adapters"]
        context = self.context(len(prompts))
        prefill = 0.0
        for number, prompt in enumerate(prompts):
            self.set_adapter(context, adapters[number])
            prefill += self.read(context, prompt, 0, number)
        token, position = self.batch.token, self.batch.pos
        seconds = 0.0
        for number, reply in enumerate(replies):
            self.fill([(0, 0, number, True)])
            start = len(prompts[number])
            started = time.perf_counter()
            self.set_adapter(context, adapters[number])
            for at, id in enumerate(reply):
                token[0] = id
                position[0] = start + at
                self.step(context)
                cpp.llama_synchronize(context)
            seconds += time.perf_counter() - started
        return {"seconds": seconds, "prefill_seconds": prefill}

    def first_token(self, order):
        """Reads persona and line; warm, the persona is cached."""
        persona, line = order["persona"], order["line"]
        context = self.context(1)
        self.set_adapter(context, order["adapter"])
        if not order["warm"]:
            return {"seconds": self.read(context, persona + line)}
        self.read(context, persona)
        return {"seconds": self.read(context, line, len(persona))}

    def logits(self, order):
        """Every position's logits, little-endian f32, into a file."""
        tokens = order["tokens"]
        context = self.context(1)
        with open(order["file"], "wb") as file:
            for chunk in range(0, len(tokens), BATCH):
                part = tokens[chunk : chunk + BATCH]
                self.fill([(token, chunk + at, 0, True) for at, token in enumerate(part)])
                self.step(context)
                values = numpy.ctypeslib.as_array(
                    cpp.llama_get_logits(context), shape=(len(part), self.vocab_size)
                )
                file.write(values.astype("<f4", copy=False).tobytes())
        return {}

    def memory(self, order):
        return {"resident": resident()}


def resident():
    """Resident bytes of this process, in total and without mapped files."""
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return {name: int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon", "RssFile")}


def serve(base, threads, *adapters):
    before = resident()
    peer = Peer(base, int(threads), adapters)
    say(
        {
            "build": cpp.llama_print_system_info().decode().strip(),
            "load_seconds": peer.load_seconds,
            "before": before,
            "loaded": peer.loaded,
            "with_adapters": resident(),
        }
    )
    for line in sys.stdin:
        order = json.loads(line)
        say(getattr(peer, order["do"])(order))


def requantise(base, out):
    params = cpp.llama_model_quantize_default_params()
    params.ftype = cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    params.allow_requantize = True
    # Appears whole or not at all.
    if cpp.llama_model_quantize(base.encode(), (out + ".part").encode(), ctypes.byref(params)):
        raise SystemExit(f"llama.cpp does not requantise {base}")
    os.replace(out + ".part", out)


def say(answer):
    print(json.dumps(answer), flush=True)


@cpp.llama_log_callback
def only_errors(level, text, _):
    # 4 is GGML_LOG_LEVEL_ERROR.
    if level == 4:
        sys.stderr.buffer.write(text)


if __name__ == "__main__":
    cpp.llama_log_set(only_errors, None)
    verb, *rest = sys.argv[1:]
    if verb == "serve":
        serve(*rest)
    elif verb == "requantise":
        requantise(*rest)
    else:
        raise SystemExit(f"{verb} is neither serve nor requantise")
