#!/usr/bin/env python3
"""What a user would pick instead of the engine, at the same work on the same numbers.

    peers.py --gen DIR                       write the inputs (.npy) that `qis bench --inputs` reads
    peers.py --table FILE                    the table that benches/peers.sh ends in
    peers.py --task A --list                 names of the peers of a task
    peers.py --task B --peer torch --inputs DIR
                                             measure one peer: one JSON object on one line

Tasks, as `qis bench` has them:

A  fingerprint: packets x 128 int8 -> 256 sign bits. Peers multiply with a dense 256 x 128 matrix; the
   engine does three rounds of signs and Walsh-Hadamard transforms: another projection of the same kind.
B  merge: for each question, over all packets, with w = exp(-|q - p|^2 / 65536): sums of w, w^2, w y_k
   and w y_k^2 for four outcomes, 10 numbers. Peers compute in float32 with one case a packet; the
   engine computes exact integers with gains and cases as factors.
C  ragged: B within each of many mailboxes.
D  query: B for one question.

A peer gets its inputs in the type that it likes best before the clock starts, and may use one
thread: benches/peers.sh pins it. Its result is compared with float64 over a few rows.
"""
import argparse
import json
import os
import sys
import time

import numpy as np

SLOTS, BITS, OUTCOMES = 128, 256, 4
KERNEL_WIDTH = 65536  # the kernel is exp(-D / KERNEL_WIDTH)
GAMMA = 1.0 / KERNEL_WIDTH
# Packets that are worked on at a time, so that what lies between two steps stays in the cache.
CHUNK_FINGERPRINT = 8192


# ---------------------------------------------------------------------------------------- inputs
# The numbers of src/bench/data.rs: each a function of (seed, stream, index).

SEED = 1
U64 = np.uint64


def numbers(stream, begin, end):
    """SplitMix64's finaliser over seed, stream and the indices begin..end."""
    with np.errstate(over="ignore"):
        start = U64(SEED) * U64(0x9E3779B97F4A7C15) + (U64(stream) << U64(48))
        x = start + np.arange(begin, end, dtype=U64) + U64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> U64(30))) * U64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> U64(27))) * U64(0x94D049BB133111EB)
        return x ^ (x >> U64(31))


def bell(stream, begin, end, scale):
    """Near a normal distribution: the sum of eight bytes; standard deviation 209 scale / 256."""
    sums = numbers(stream, begin, end).view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int32)
    return ((sums - 1020) * scale) >> 8


def embeddings(stream, rows):
    """One of 1,024 centres for each row, with noise."""
    centres = bell(1, 0, 1024 * SLOTS, 29).reshape(1024, SLOTS)
    out = np.empty((rows, SLOTS), np.int8)
    for begin in range(0, rows, 65536):
        end = min(rows, begin + 65536)
        kinds = ((numbers(stream + 1, begin, end) >> U64(20)) % U64(1024)).astype(np.int64)
        noise = bell(stream, begin * SLOTS, end * SLOTS, 20).reshape(-1, SLOTS)
        out[begin:end] = np.clip(centres[kinds] + noise, -127, 127)
    return out


def outcomes(packets):
    return (numbers(64, 0, packets * OUTCOMES) >> U64(48)).astype(np.uint16).reshape(packets, OUTCOMES)


def mailbox_sizes(addresses, mean):
    """Packets by a power law (Pareto, alpha 1.5, at most 64 means), a tenth as many questions."""
    u = (numbers(9, 0, addresses) >> U64(11)).astype(np.float64) / 2.0**53
    packets = np.minimum(mean / 3.0 * (1 - u) ** (-1 / 1.5), 64 * mean).astype(np.int64) + 1
    return np.maximum(1, packets // 10), packets


def matrix():
    """The dense projection of the peers."""
    return np.clip(bell(2, 0, BITS * SLOTS, 39), -127, 127).astype(np.int8).reshape(BITS, SLOTS)


def generate(folder, fingerprints, queries, packets, addresses, mean):
    os.makedirs(folder, exist_ok=True)

    def save(name, array):
        np.save(os.path.join(folder, name + ".npy"), np.ascontiguousarray(array))

    save("A_X", embeddings(16, fingerprints))
    save("B_Q", embeddings(32, queries))
    save("B_P", embeddings(48, packets))
    save("B_Y", outcomes(packets))
    asked, held = mailbox_sizes(addresses, mean)
    save("C_Q", embeddings(32, int(asked.sum())))
    save("C_P", embeddings(48, int(held.sum())))
    save("C_Y", outcomes(int(held.sum())))
    save("C_qo", np.concatenate([[0], np.cumsum(asked)]))
    save("C_po", np.concatenate([[0], np.cumsum(held)]))


class Inputs:
    """The arrays of one task."""

    def __init__(self, folder, task, packets=None):
        def load(name):
            return np.load(os.path.join(folder, name + ".npy"))

        if task == "A":
            self.X = load("A_X")[:packets]
            self.R = matrix()
            return
        part = "C" if task == "C" else "B"
        self.Q, self.P, y = load(part + "_Q"), load(part + "_P"), load(part + "_Y")
        if task == "D":
            self.Q = self.Q[:1]
        if packets is not None and task in "BD":
            self.P, y = self.P[:packets], y[:packets]
        self.y = (y / 65535.0).astype(np.float32)
        if task == "C":
            self.asked, self.held = load("C_qo"), load("C_po")

    def items(self, task):
        if task == "A":
            return len(self.X)
        if task == "C":
            return int((np.diff(self.asked) * np.diff(self.held)).sum())
        return len(self.Q) * len(self.P)


def moments(y):
    """Columns whose weighted sums are wanted: 1, y, y^2."""
    return np.concatenate([np.ones((len(y), 1), np.float32), y, y * y], axis=1)


def norms(rows):
    rows = rows.astype(np.float32)
    return (rows * rows).sum(axis=1) * np.float32(GAMMA)


def chunk_for(queries):
    """Packets at a time, so that the weights of a chunk are about 2 M numbers."""
    return max(2048, (1 << 21) // max(1, queries))


# ---------------------------------------------------------------------------------------- peers
# Each takes the inputs and returns a function without arguments that does the work once. Its result
# for A is packed bits, else questions x [w, w^2, 4 x w y, 4 x w y^2].

PEERS = {"A": {}, "B": {}, "C": {}, "D": {}}
REMARKS = {}


def peer(tasks, name, remark=""):
    def enter(function):
        for task in tasks:
            PEERS[task][name] = function
            REMARKS[task, name] = remark
        return function

    return enter


def pack(positive):
    return np.packbits(positive, axis=1, bitorder="little")


@peer("A", "numpy")
def fingerprint_numpy(inputs):
    X, RT = inputs.X.astype(np.float32), np.ascontiguousarray(inputs.R.T.astype(np.float32))

    def run():
        steps = range(0, len(X), CHUNK_FINGERPRINT)
        return np.concatenate([pack(X[at : at + CHUNK_FINGERPRINT] @ RT >= 0) for at in steps])

    return run


@peer("A", "faiss IndexLSH")
def fingerprint_faiss(inputs):
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexLSH(SLOTS, BITS, True, False)
    faiss.copy_array_to_vector(inputs.R.astype(np.float32).ravel(), index.rrot.A)
    X, step = inputs.X.astype(np.float32), 2 * CHUNK_FINGERPRINT
    return lambda: np.concatenate([index.sa_encode(X[at : at + step]) for at in range(0, len(X), step)])


@peer("A", "numkong")
def fingerprint_numkong(inputs):
    import numkong

    X, packed = inputs.X, numkong.dots_pack(inputs.R, dtype="int8")

    def run():
        steps = range(0, len(X), CHUNK_FINGERPRINT)
        dots = (np.asarray(numkong.dots_packed(X[at : at + CHUNK_FINGERPRINT], packed)) for at in steps)
        return np.concatenate([pack(part >= 0) for part in dots])

    return run


@peer("A", "torch")
def fingerprint_torch(inputs):
    torch = one_thread_torch()
    X = torch.from_numpy(inputs.X).float()
    RT = torch.from_numpy(inputs.R).float().T.contiguous()

    def run():
        parts = []
        for at in range(0, len(X), 2 * CHUNK_FINGERPRINT):
            positive = X[at : at + 2 * CHUNK_FINGERPRINT] @ RT >= 0
            # Eight bools are one word, whose top byte after this product holds their bits.
            words = positive.view(torch.int64) * 0x0102040810204080
            parts.append((words >> 56).to(torch.uint8))
        return torch.cat(parts)

    return run


@peer("A", "jax")
def fingerprint_jax(inputs):
    import jax
    import jax.numpy as jnp

    step = 2 * CHUNK_FINGERPRINT
    X = jnp.asarray(inputs.X)
    RT = jnp.asarray(inputs.R.T, jnp.float32)

    @jax.jit
    def part(rows):
        return jnp.packbits(rows.astype(jnp.float32) @ RT >= 0, axis=1, bitorder="little")

    def run():
        parts = [part(X[at : at + step]) for at in range(0, len(X), step)]
        return np.concatenate([np.asarray(bits) for bits in parts])

    return run


@peer("BD", "numpy")
def merge_numpy(inputs):
    Q, PT = inputs.Q.astype(np.float32), np.ascontiguousarray(inputs.P.T.astype(np.float32))
    V, q2, p2 = moments(inputs.y), norms(inputs.Q)[:, None], norms(inputs.P)[None]

    def run():
        sums, squares = np.zeros((len(Q), 9), np.float32), np.zeros(len(Q), np.float32)
        for at in range(0, PT.shape[1], 4096):
            part = slice(at, at + 4096)
            w = Q @ PT[:, part]
            w *= np.float32(2 * GAMMA)
            w -= q2
            w -= p2[:, part]
            np.exp(w, out=w)
            sums += w @ V[part]
            squares += np.einsum("ij,ij->i", w, w)
        return np.concatenate([sums[:, :1], squares[:, None], sums[:, 1:]], axis=1)

    return run


@peer("BD", "sklearn rbf_kernel")
def merge_sklearn(inputs):
    from sklearn.metrics.pairwise import rbf_kernel

    Q, P, V = inputs.Q.astype(np.float32), inputs.P.astype(np.float32), moments(inputs.y)

    def run():
        sums, squares = 0, 0
        for at in range(0, len(P), 8192):
            w = rbf_kernel(Q, P[at : at + 8192], gamma=GAMMA)
            sums, squares = sums + w @ V[at : at + 8192], squares + np.einsum("ij,ij->i", w, w)
        return np.concatenate([sums[:, :1], squares[:, None], sums[:, 1:]], axis=1)

    return run


@peer("BD", "numkong")
def merge_numkong(inputs):
    import numkong

    Q, P, V = inputs.Q, inputs.P, moments(inputs.y)
    q2, p2 = norms(Q)[:, None], norms(P)[None]
    steps = range(0, len(P), 4096)
    one = len(Q) == 1
    # The packed side is the one that is used again: the packets, or a single question.
    packed = numkong.dots_pack(Q, dtype="int8") if one else None
    parts = [] if one else [numkong.dots_pack(P[at : at + 4096], dtype="int8") for at in steps]

    def run():
        sums, squares = 0, 0
        for index, at in enumerate(steps):
            if one:
                dots = np.asarray(numkong.dots_packed(P[at : at + 4096], packed)).reshape(1, -1)
            else:
                dots = np.asarray(numkong.dots_packed(Q, parts[index]))
            w = dots.astype(np.float32)
            w *= np.float32(2 * GAMMA)
            w -= q2
            w -= p2[:, at : at + 4096]
            np.exp(w, out=w)
            sums, squares = sums + w @ V[at : at + 4096], squares + np.einsum("ij,ij->i", w, w)
        return np.concatenate([sums[:, :1], squares[:, None], sums[:, 1:]], axis=1)

    return run


@peer("BD", "torch")
def merge_torch(inputs):
    torch = one_thread_torch()
    Q, P = torch.from_numpy(inputs.Q).float(), torch.from_numpy(inputs.P).float()
    V = torch.from_numpy(moments(inputs.y))
    q2, p2 = torch.from_numpy(norms(inputs.Q))[:, None], torch.from_numpy(norms(inputs.P))[None]
    step = chunk_for(len(Q))

    def run():
        sums = torch.zeros(len(Q), 10)
        for at in range(0, len(P), step):
            part = slice(at, at + step)
            w = torch.addmm(-p2[:, part], Q, P[part].T, alpha=2 * GAMMA).sub_(q2).exp_()
            sums += torch.cat([w @ V[part], torch.linalg.vecdot(w, w)[:, None]], dim=1)
        return torch.cat([sums[:, :1], sums[:, 9:], sums[:, 1:9]], dim=1)

    return run


@peer("B", "torch SDPA", "8 of 10 outputs: means, no sums of w and w^2")
def merge_sdpa(inputs):
    torch = one_thread_torch()
    # softmax(2 q.p - |p|^2) in units of the kernel: |p|^2 enters as one more slot, centred.
    scale = (2 * GAMMA) ** 0.5
    p2 = norms(inputs.P)
    q = torch.zeros(len(inputs.Q), 136)
    q[:, :SLOTS], q[:, SLOTS] = torch.from_numpy(inputs.Q).float() * scale, 1
    p = torch.zeros(len(inputs.P), 136)
    p[:, :SLOTS] = torch.from_numpy(inputs.P).float() * scale
    p[:, SLOTS] = torch.from_numpy(p2.mean() - p2)
    v = torch.from_numpy(moments(inputs.y)[:, 1:].copy())
    attention = torch.nn.functional.scaled_dot_product_attention
    return lambda: attention(q[None, None], p[None, None], v[None, None], scale=1.0)[0, 0]


@peer("BD", "jax")
def merge_jax(inputs):
    import jax
    import jax.numpy as jnp

    step = min(len(inputs.P), 8192)
    whole = len(inputs.P) // step * step
    Q, P, V = jnp.asarray(inputs.Q), jnp.asarray(inputs.P), jnp.asarray(moments(inputs.y))
    q2, p2 = jnp.asarray(norms(inputs.Q))[:, None], jnp.asarray(norms(inputs.P))

    @jax.jit
    def all_parts(Q, P, V, p2):
        q = Q.astype(jnp.float32)

        def add(sums, part):
            p, v, norm = part
            w = jnp.exp(2 * GAMMA * (q @ p.astype(jnp.float32).T) - q2 - norm[None])
            return sums + jnp.concatenate([w @ v, (w * w).sum(axis=1, keepdims=True)], axis=1), None

        parts = (P[:whole].reshape(-1, step, SLOTS), V[:whole].reshape(-1, step, 9), p2[:whole].reshape(-1, step))
        sums, _ = jax.lax.scan(add, jnp.zeros((len(Q), 10), jnp.float32), parts)
        if whole < len(P):
            sums, _ = add(sums, (P[whole:], V[whole:], p2[whole:]))
        return jnp.concatenate([sums[:, :1], sums[:, 9:], sums[:, 1:9]], axis=1)

    return lambda: all_parts(Q, P, V, p2).block_until_ready()


@peer("C", "numpy loop")
def ragged_numpy(inputs):
    Q, P, V = inputs.Q.astype(np.float32), inputs.P.astype(np.float32), moments(inputs.y)
    q2, p2 = norms(inputs.Q)[:, None], norms(inputs.P)[None]
    asked, held = inputs.asked.tolist(), inputs.held.tolist()

    def run():
        out = np.empty((len(Q), 10), np.float32)
        for q0, q1, p0, p1 in zip(asked, asked[1:], held, held[1:]):
            w = Q[q0:q1] @ P[p0:p1].T
            w *= np.float32(2 * GAMMA)
            w -= q2[q0:q1]
            w -= p2[:, p0:p1]
            np.exp(w, out=w)
            sums = w @ V[p0:p1]
            out[q0:q1, 0], out[q0:q1, 2:] = sums[:, 0], sums[:, 1:]
            out[q0:q1, 1] = np.einsum("ij,ij->i", w, w)
        return out

    return run


@peer("C", "torch buckets", "sizes padded to powers of two; making the buckets is not timed")
def ragged_torch(inputs):
    torch = one_thread_torch()
    Q, P = torch.from_numpy(inputs.Q).float(), torch.from_numpy(inputs.P).float()
    V = torch.from_numpy(moments(inputs.y))
    q2, p2 = torch.from_numpy(norms(inputs.Q)), torch.from_numpy(norms(inputs.P))
    asked, held = np.diff(inputs.asked), np.diff(inputs.held)
    width = np.maximum(8, 1 << np.ceil(np.log2(np.maximum(held, 1))).astype(np.int64))
    buckets = []
    for size in np.unique(width):
        members = np.nonzero(width == size)[0]
        most = int(asked[members].max())
        # So that the weights of a bucket are about 2 M numbers.
        step = max(1, (1 << 21) // (int(size) * max(most, SLOTS)))
        for at in range(0, len(members), step):
            some = members[at : at + step]
            rows, row_there = padded(inputs.asked[some], asked[some], most)
            columns, there = padded(inputs.held[some], held[some], int(size))
            norm = p2[columns].clone()
            norm[~there] = 1e4  # exp(-1e4) is 0
            q, pT = Q[rows], P[columns].transpose(1, 2).contiguous()
            buckets.append((q, pT, q2[rows], norm, V[columns] * there[..., None], rows[row_there], row_there))

    def run():
        out = torch.empty(len(Q), 10)
        for q, pT, q2_, p2_, v, rows, there in buckets:
            w = torch.bmm(q, pT).mul_(2 * GAMMA).sub_(q2_[:, :, None]).sub_(p2_[:, None, :]).exp_()
            sums = torch.cat([torch.bmm(w, v), (w * w).sum(dim=-1, keepdim=True)], dim=-1)
            out[rows] = sums[there]
        return torch.cat([out[:, :1], out[:, 9:], out[:, 1:9]], dim=1)

    return run


def padded(begins, counts, width):
    """Indices of rows, filled up to one width, and which of them are there."""
    import torch

    at = np.arange(width)[None]
    there = at < counts[:, None]
    return torch.from_numpy(np.where(there, begins[:, None] + at, 0)), torch.from_numpy(there)


def one_thread_torch():
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    torch.set_grad_enabled(False)
    return torch


# ---------------------------------------------------------------------------------------- measuring


def exact(Q, P, y):
    """The ten numbers in float64."""
    q, p, y = Q.astype(np.float64), P.astype(np.float64), y.astype(np.float64)
    distance = (q * q).sum(axis=1)[:, None] + (p * p).sum(axis=1)[None] - 2 * q @ p.T
    w = np.exp(-distance * GAMMA)
    return np.concatenate([w.sum(axis=1)[:, None], (w * w).sum(axis=1)[:, None], w @ y, w @ (y * y)], axis=1)


def error(task, inputs, result):
    """Share of wrong bits of A, else the largest error relative to the sum of the weights."""
    result = np.asarray(result)
    if task == "A":
        expected = pack(inputs.X[:512].astype(np.int32) @ inputs.R.T.astype(np.int32) >= 0)
        return float(np.unpackbits(expected ^ result[:512]).mean())
    if task == "C":
        largest = int(np.argmax(np.diff(inputs.held)))
        begin, end = inputs.asked[largest], min(inputs.asked[largest + 1], inputs.asked[largest] + 8)
        packets = slice(inputs.held[largest], inputs.held[largest + 1])
        expected = exact(inputs.Q[begin:end], inputs.P[packets], inputs.y[packets])
        result = result[begin:end]
    else:
        expected = exact(inputs.Q[:8], inputs.P, inputs.y)
        result = result[:8]
    if result.shape[1] == 8:  # means in place of sums
        return float(np.abs(result - expected[:, 2:] / expected[:, :1]).max())
    return float((np.abs(result - expected) / expected[:, :1]).max())


def measure(task, name, inputs, seconds):
    run = PEERS[task][name](inputs)
    result = run()  # compiles, fills caches
    wall, processor = [], []
    end = time.perf_counter() + seconds
    while len(wall) < 3 or (time.perf_counter() < end and len(wall) < 1000):
        began, cpu_began = time.perf_counter(), time.process_time()
        result = run()
        wall.append(time.perf_counter() - began)
        processor.append(time.process_time() - cpu_began)
    items = inputs.items(task)
    return {
        "task": task,
        "peer": name,
        "items": items,
        "seconds": float(np.median(wall)),
        "cpu_seconds": float(np.median(processor)),
        "items_per_cpu_second": items / max(1e-9, float(np.median(processor))),
        "repetitions": len(wall),
        "error": error(task, inputs, result),
        "packets": len(inputs.X if task == "A" else inputs.P),
        "remark": REMARKS[task, name],
    }


# ---------------------------------------------------------------------------------------- the table


def table(path):
    """One row for each task and peer: medians over the rounds, each ratio of runs side by side."""
    with open(path) as file:
        lines = [json.loads(line) for line in file]
    runs = {}
    for one, engine in zip(lines, lines[1:]):
        if "peer" in one and "peer" not in engine:
            key = one["task"] + (f" {one['packets']:,}" if one["task"] == "D" else "")
            runs.setdefault(key, {}).setdefault(one["peer"], []).append((one, engine))
    form = "{:<10} {:<20} {:>12} {:>12} {:>8}  {}"
    print(form.format("task", "peer", "its M/CPU s", "engine's", "ratio", "remark"))
    summary = []
    for task, peers in runs.items():
        rows = []
        for name, pairs in peers.items():
            rate = np.median([one["items_per_cpu_second"] for one, _ in pairs])
            engine = np.median([engine["items_per_cpu_second"] for _, engine in pairs])
            ratio = np.median([e["items_per_cpu_second"] / one["items_per_cpu_second"] for one, e in pairs])
            rows.append((rate, name, engine, ratio, pairs[0][0]["remark"]))
        rows.sort(reverse=True)
        for rate, name, engine, ratio, remark in rows:
            rates = (f"{rate / 1e6:.3f}", f"{engine / 1e6:.3f}", f"{ratio:.2f}")
            print(form.format(task, name, *rates, remark).rstrip())
        fraction = [e["fraction_of_limit"] for pairs in peers.values() for _, e in pairs if e["limit"]]
        limit = next((e["limit"]["name"] for pairs in peers.values() for _, e in pairs if e["limit"]), None)
        of_limit = f"; {100 * np.median(fraction):.0f}% of the limit ({limit})" if limit else ""
        summary.append(f"{task}: {rows[0][3]:.2f} times the fastest peer that ran ({rows[0][1]}){of_limit}")
    print()
    print("\n".join(summary))
    print()
    print("Items are packets for A, query-packet pairs for B, C and D; M per second of processor time.")
    print("A: the peers' projection is a dense matrix of 256 x 128, the engine's three rounds of signs and")
    print("Walsh-Hadamard transforms. B, C, D: the peers compute in float32 with one case a packet; the")
    print("engine's sums are exact integers, with gains and cases as factors, and equal to the scalar law.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gen", metavar="DIR")
    parser.add_argument("--task", choices=list(PEERS))
    parser.add_argument("--peer")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--inputs", metavar="DIR")
    parser.add_argument("--packets", type=int, help="the first so many; with --gen those of B")
    parser.add_argument("--fingerprints", type=int, default=1_000_000, help="with --gen: packets of A")
    parser.add_argument("--queries", type=int, default=1_000, help="with --gen: questions of B")
    parser.add_argument("--addresses", type=int, default=10_000, help="with --gen: mailboxes of C")
    parser.add_argument("--mean", type=int, default=100, help="with --gen: mean packets of a mailbox of C")
    parser.add_argument("--table", metavar="FILE", help="the table of what benches/peers.sh has gathered")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to repeat")
    a = parser.parse_args()
    if a.table:
        table(a.table)
    elif a.gen:
        generate(a.gen, a.fingerprints, a.queries, a.packets or 100_000, a.addresses, a.mean)
    elif a.task and a.list:
        print("\n".join(PEERS[a.task]))
    elif a.task and a.peer in PEERS[a.task] and a.inputs:
        try:
            print(json.dumps(measure(a.task, a.peer, Inputs(a.inputs, a.task, a.packets), a.seconds)))
        except ImportError as problem:
            sys.exit(f"{a.peer} is not installed: {problem}")
    else:
        parser.error("--gen DIR, --table FILE, --task T --list, or --task T --peer NAME --inputs DIR")


if __name__ == "__main__":
    main()
