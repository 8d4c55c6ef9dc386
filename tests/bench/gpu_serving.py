"""The whole server over gRPC against the engine by itself, under the same closed load, and the time to ready; on a GPU.

  deploy/gpu/run.sh serving --model FOLDER [--load-format dummy] [--rounds 3]

FOLDER holds a checkpoint and its tokenizer; with dummy weights config.json and tokenizer.json are enough. Rounds of
server and engine take turns; the ratio is the median of the rounds' ratios. Needs Python's own library alone.
"""

import argparse
import collections
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

from serving import BIN, Server, load, row


def read_all(folder):
    """What a start needs comes to the page cache, or stays there."""
    start = time.perf_counter()
    buffer, total = bytearray(16 << 20), 0
    for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with open(file, "rb", buffering=0) as source:
            while got := source.readinto(buffer):
                total += got
    return total, time.perf_counter() - start


class ThreadTimes:
    """CPU seconds of a process by its threads' names: where a server's time goes."""

    def __init__(self, pid):
        self.pid = pid
        self.before, self.start = self.read(), time.perf_counter()

    def read(self):
        tick, times = os.sysconf("SC_CLK_TCK"), {}
        for task in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
            try:
                name, rest = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue  # it ended
            fields = rest.split()
            times[task.name] = name, (int(fields[11]) + int(fields[12])) / tick
        return times

    def since(self):
        """Cores in use by each thread, busiest first."""
        elapsed, used = time.perf_counter() - self.start, []
        for task, (name, seconds) in self.read().items():
            used.append(((seconds - self.before.get(task, (name, 0))[1]) / elapsed, name, task))
        return sorted(used, reverse=True)


def engine(args):
    """Tokens a second of answers, by `penstock bench`."""
    with tempfile.NamedTemporaryFile() as out:
        command = [str(BIN / "penstock"), "bench", args.model, "--device", "cuda", "--load-format", args.load_format]
        command += ["--suite", "mixed", "--batch", str(args.concurrency), "--context", str(args.prompt)]
        command += ["--output", str(args.output), "--max-batch", str(args.concurrency), "--json", out.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        report = json.load(open(out.name))
        # The largest batch is the last row.
        return report["rows"][-1]["tokens_per_second"], report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--load-format", choices=["safetensors", "dummy"], default="safetensors")
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--prompt", type=int, default=512, help="tokens")
    parser.add_argument("--output", type=int, default=128, help="tokens")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--connections", type=int, default=8)
    args = parser.parse_args()
    args.model = os.path.abspath(args.model)
    row("what", "figure")
    row("---", "--:")
    if args.load_format == "safetensors":
        total, seconds = read_all(args.model)
        row("checkpoint, GB; reading it from the page cache, s", f"{total / 1e9:.1f}; {seconds:.1f}")
    settings = ["--set", f"model.load_format={args.load_format}", "--set", "model.device=cuda"]
    settings += ["--set", f"engine.max_batch={args.concurrency}"]
    traffic = ["--concurrency", str(args.concurrency)]
    traffic += ["--prompt-tokens", str(args.prompt), "--output-tokens", str(args.output)]
    traffic += ["--connections", str(args.connections)]
    ratios = []
    with tempfile.TemporaryDirectory() as scratch:
        config = pathlib.Path(scratch) / "penstock.yaml"
        config.write_text(f"model: {{path: {args.model}}}\n")
        for number in range(args.rounds):
            with Server(["--config", str(config), *settings]) as server:
                row("start to ready, s; tokens of KV cache", f"{server.seconds_to_ready:.2f}; {server.kv_tokens}")
                load(server, *traffic, "--requests", str(args.concurrency), "--seed", "99")
                times = ThreadTimes(server.process.pid)
                report = load(server, *traffic, "--requests", str(4 * args.concurrency), "--seed", str(number + 1))
                threads = times.since()
            every = report["all"]
            if every["failed"]:
                raise SystemExit(f"requests failed: {every}")
            served = every["generated_tokens_per_second"]
            alone, about = engine(args)
            ratios.append(served / alone)
            row(f"{args.concurrency} at once, {args.prompt} + {args.output} tokens: server; engine, tok/s; ratio",
                f"{served:.0f}; {alone:.0f}; {served / alone:.3f}")
            row("the same: ms to first token p50, p99; between tokens p50, p99",
                "; ".join(f"{every[key][q] * 1e3:.1f}" for key in ("time_to_first_token_seconds", "inter_token_seconds")
                          for q in ("p50", "p99")))
            row("the server's threads: cores in use", ", ".join(f"{name} {share:.2f}" for share, name, _ in threads[:8])
                + f"; all {sum(share for share, _, _ in threads):.2f}")
    row("server against engine, median", f"{statistics.median(ratios):.3f}")
    row("card", f"{about['device']}, copy {about['copy_bytes_per_second'] / 1e12:.2f} TB/s")


if __name__ == "__main__":
    main()
