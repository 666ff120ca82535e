#!/usr/bin/env python3
"""torch on a GPU at the work of `qis bench`, for benches/gpu.sh: one JSON object per line.

Inputs are made up as in peers.py and lie on the device before the clock starts; `transfer_seconds`
is their upload alone. Products are taken in half precision and added up in float32, which is what
a user does for speed; the engine's sums are exact. Where torch or a device is missing, it says so in
one line and ends well.

    gpu_peers.py [--small] [--device cuda]       cpu, at --small, tries the code without a GPU
"""
import argparse
import json
import sys
import time

try:
    import numpy as np
    import torch
except ImportError as problem:
    print(f"no torch beside: {problem}", file=sys.stderr)
    sys.exit(0)

import peers
from peers import GAMMA, SLOTS

SECONDS = 1.0


def product(a, b):
    """Half-precision factors, float32 sums."""
    if a.dim() == 2:
        multiply = torch.mm
    else:
        multiply = torch.bmm
    if a.is_cuda and a.dtype != torch.float32:
        return multiply(a, b, out_dtype=torch.float32)
    return multiply(a, b).float()


class Device:
    def __init__(self, name):
        self.name = name
        self.cuda = name == "cuda"
        self.title = torch.cuda.get_device_name() if self.cuda else "cpu"

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()

    def upload(self, *arrays):
        """The arrays on the device, and the seconds that it took from pinned memory."""
        hosts = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        if self.cuda:
            hosts = [host.pin_memory() for host in hosts]
        times = []
        for _ in range(3):
            self.wait()
            began = time.perf_counter()
            out = [host.to(self.name, non_blocking=True) for host in hosts]
            self.wait()
            times.append(time.perf_counter() - began)
        return out, float(np.median(times))

    def seconds(self, run):
        for _ in range(3):  # compiles, tunes, warms
            run()
        self.wait()
        times, end = [], time.perf_counter() + SECONDS
        while len(times) < 5 or (time.perf_counter() < end and len(times) < 1000):
            began = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - began)
        return float(np.median(times))


def report(device, task, peer, items, packets, prepare, remark=""):
    """Measures one peer; one that does not run is a line, not an end."""
    try:
        run, transfer = prepare()
        seconds = device.seconds(run)
    except Exception as problem:  # whatever a driver, a compiler or a kernel lacks
        first = (str(problem).splitlines() or [""])[0]
        print(f"DID NOT RUN: {task} {peer}: {type(problem).__name__}: {first}", file=sys.stderr)
        return
    line = {
        "task": task,
        "backend": peer,
        "adapter": device.title,
        "threads": 0,
        "items": items,
        "packets": packets,
        "seconds": seconds,
        "items_per_second": items / seconds,
        "kernel_seconds": seconds,
        "transfer_seconds": transfer,
        "remark": remark,
    }
    print(json.dumps(line, separators=(",", ":")), flush=True)


def compiled(function, device, dynamic=False):
    return torch.compile(function, dynamic=dynamic, mode="max-autotune-no-cudagraphs" if device.cuda else "default")


def fingerprint(device, packets):
    inputs, matrix = peers.embeddings(16, packets), peers.matrix()

    def bits(rows, RT):
        words = (product(rows, RT) >= 0).view(torch.int64) * 0x0102040810204080
        return (words >> 56).to(torch.uint8)

    def prepare(compile_):
        (X, R), transfer = device.upload(inputs, matrix)
        X, RT = X.bfloat16(), R.T.bfloat16().contiguous()
        one, step = compiled(bits, device) if compile_ else bits, 1 << 20
        return lambda: [one(X[at : at + step], RT) for at in range(0, packets, step)], transfer

    remark = "a dense matrix: another projection"
    report(device, "fingerprint", "torch bf16", packets, packets, lambda: prepare(False), remark)
    report(device, "fingerprint", "torch.compile bf16", packets, packets, lambda: prepare(True), remark)


def weigh(q, pT, q2, p2, v):
    w = torch.exp(product(q, pT) * (2 * GAMMA) - q2[..., :, None] - p2[..., None, :])
    sums = product(w.to(v.dtype), v)
    return torch.cat([sums, (w * w).sum(dim=-1, keepdim=True)], dim=-1)


def merge(device, task, queries, packets):
    Q, P = peers.embeddings(32, queries), peers.embeddings(48, packets)
    y = (peers.outcomes(packets) / 65535.0).astype(np.float32)

    def dense(compile_):
        (q8, p8, values), transfer = device.upload(Q, P, y)
        q, pT = q8.bfloat16(), p8.T.bfloat16().contiguous()
        q2, p2 = (q8.float() ** 2).sum(1) * GAMMA, (p8.float() ** 2).sum(1) * GAMMA
        v = torch.cat([torch.ones_like(values[:, :1]), values, values * values], 1).bfloat16()
        one = compiled(weigh, device) if compile_ else weigh
        # Weights of a chunk: 2^29 numbers at most.
        step = max(4096, (1 << 29) // queries)

        def run():
            parts = (slice(at, at + step) for at in range(0, packets, step))
            return sum(one(q, pT[:, part], q2, p2[part], v[part]) for part in parts)

        return run, transfer

    def attention():
        # softmax(2 q.p - |p|^2): |p|^2 enters as one more slot; the values are padded to the same width.
        (q8, p8, values), transfer = device.upload(Q, P, y)
        scale = (2 * GAMMA) ** 0.5
        p2 = (p8.float() ** 2).sum(1) * GAMMA
        q, p = (torch.zeros(len(rows), 136, device=device.name) for rows in (q8, p8))
        q[:, :SLOTS], q[:, SLOTS] = q8.float() * scale, 1
        p[:, :SLOTS], p[:, SLOTS] = p8.float() * scale, p2.mean() - p2
        v = torch.zeros(packets, 136, device=device.name)
        v[:, :4], v[:, 4:8] = values, values * values
        q, p, v = (rows.half()[None, None] for rows in (q, p, v))
        function = torch.nn.functional.scaled_dot_product_attention
        return lambda: function(q, p, v, scale=1.0), transfer

    items = queries * packets
    report(device, task, "torch bf16", items, packets, lambda: dense(False))
    report(device, task, "torch.compile bf16", items, packets, lambda: dense(True))
    if queries > 1:
        remark = "8 of 10 outputs: means, no sums of w and w^2"
        report(device, task, "torch SDPA fp16", items, packets, attention, remark)


def ragged(device, addresses):
    asked, held = peers.mailbox_sizes(addresses, 100)
    q_at, p_at = np.concatenate([[0], np.cumsum(asked)]), np.concatenate([[0], np.cumsum(held)])
    Q, P = peers.embeddings(32, int(q_at[-1])), peers.embeddings(48, int(p_at[-1]))
    y = (peers.outcomes(len(P)) / 65535.0).astype(np.float32)
    items = int((asked * held).sum())

    def buckets():
        (q8, p8, values), transfer = device.upload(Q, P, y)
        v_all = torch.cat([torch.ones_like(values[:, :1]), values, values * values], 1)
        q2_all, p2_all = (q8.float() ** 2).sum(1) * GAMMA, (p8.float() ** 2).sum(1) * GAMMA
        width = np.maximum(8, 1 << np.ceil(np.log2(held)).astype(np.int64))
        parts = []
        for size in np.unique(width):
            members = np.nonzero(width == size)[0]
            most = int(asked[members].max())
            step = max(1, (1 << 29) // (int(size) * max(most, SLOTS)))
            for at in range(0, len(members), step):
                some = members[at : at + step]
                rows, row_there = (t.to(device.name) for t in peers.padded(q_at[some], asked[some], most))
                columns, there = (t.to(device.name) for t in peers.padded(p_at[some], held[some], int(size)))
                p2 = p2_all[columns].masked_fill(~there, 1e4)
                v = (v_all[columns] * there[..., None]).bfloat16()
                pT = p8[columns].bfloat16().transpose(1, 2).contiguous()
                parts.append((q8[rows].bfloat16(), pT, q2_all[rows], p2, v, rows[row_there], row_there))
        out = torch.empty(len(Q), 10, device=device.name)

        def run():
            for q, pT, q2, p2, v, rows, there in parts:
                out[rows] = weigh(q, pT, q2, p2, v)[there]

        return run, transfer

    def varlen():
        (q8, p8, values), transfer = device.upload(Q, P, y)
        scale = (2 * GAMMA) ** 0.5
        q, p = (q8.float() * scale).half()[:, None], (p8.float() * scale).half()[:, None]
        v = torch.zeros(len(P), SLOTS, device=device.name)
        v[:, :4], v[:, 4:8] = values, values * values
        v = v.half()[:, None]
        q_ends, p_ends = (torch.from_numpy(at.astype(np.int32)).to(device.name) for at in (q_at, p_at))
        most = int(asked.max()), int(held.max())
        flash = torch.ops.aten._flash_attention_forward
        return lambda: flash(q, p, v, q_ends, p_ends, *most, 0.0, False, False, scale=1.0), transfer

    remark = "sizes padded to powers of two; making the buckets is not timed"
    report(device, "ragged", "torch buckets bf16", items, len(P), buckets, remark)
    remark = "8 of 10 outputs, and the kernel exp(q.p) in place of the Gaussian"
    report(device, "ragged", "varlen flash fp16", items, len(P), varlen, remark)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    a = parser.parse_args()
    if a.device == "cuda" and not torch.cuda.is_available():
        print(f"no torch beside: torch {torch.__version__} finds no CUDA device", file=sys.stderr)
        return
    torch.set_grad_enabled(False)
    device = Device(a.device)
    fingerprint(device, 10_000 if a.small else 1_000_000)
    merge(device, "merge", 64 if a.small else 1_000, 10_000 if a.small else 100_000)
    ragged(device, 200 if a.small else 10_000)
    for packets in [1_000, 10_000] if a.small else [1_000, 10_000, 100_000, 1_000_000]:
        merge(device, "query", 1, packets)


if __name__ == "__main__":
    main()
