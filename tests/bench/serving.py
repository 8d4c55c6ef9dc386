"""What serving costs, on this machine's CPU: the real binaries over loopback connections, one line of a table a figure.

  python3 tests/bench/serving.py --model build/demo-model [--rounds 5]

Needs Python's own library alone. Environment: PENSTOCK_BUILD (build tree, default build/release).
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("PENSTOCK_BUILD", ROOT / "build/release")) / "bin"
SIX = "attention=1,hash=1,hybrid=1,linear=1,mlp=1,mlp_hadamard=1"
STREAMS = 500


class Server:
    """`penstock serve` on free ports, from its start to SIGTERM; on `cpus`, or those of this process."""

    def __init__(self, arguments, cpus=None):
        command = [str(BIN / "penstock"), "serve", "--set", "listen.grpc=127.0.0.1:0", "--set", "listen.ops=127.0.0.1:0"]
        self.log = tempfile.TemporaryFile("w+")
        start = time.perf_counter()
        self.process = subprocess.Popen(
            command + arguments, stderr=self.log, preexec_fn=cpus and (lambda: os.sched_setaffinity(0, cpus))
        )
        while (serving := self.find(r" serving .* weight_bytes=(\d+) .*grpc=(\S+) ")) is None:
            if self.process.poll() is not None:
                raise SystemExit("the server ended:\n" + self.text())
            time.sleep(0.005)
        self.seconds_to_ready = time.perf_counter() - start
        self.weight_bytes, self.grpc = int(serving[1]), serving[2]
        self.ops = self.find(r" serving .* ops=(\S+)")[1]
        self.kv_tokens = int(self.find(r" serving .* kv_tokens=(\d+)")[1])

    def text(self):
        return os.pread(self.log.fileno(), 1 << 20, 0).decode()  # its own writes stay where they are

    def find(self, pattern):
        return re.search(pattern, self.text())

    def metric(self, name):
        """The sum of a metric's series."""
        with urllib.request.urlopen(f"http://{self.ops}/metrics") as page:
            values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page.read().decode(), re.MULTILINE)
        return sum(map(float, values))

    def resident_bytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)


def load(server, *options):
    """penstock-bench's report. A failed request ends this program."""
    command = [str(BIN / "penstock-bench"), "--server", server.grpc, "--json", "-", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"penstock-bench failed:\n{done.stderr}{done.stdout}")
    return json.loads(done.stdout)


def row(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def demo_model(model, rounds):
    arguments = ["--config", str(ROOT / "deploy/demo/penstock.yaml")]
    arguments += ["--set", f"model.path={model}", "--set", f"routers.root={model}/routers"]
    ready = []
    for _ in range(3):
        with Server(arguments) as server:
            ready.append(server.seconds_to_ready)
    row("demo model: start to ready, page cache warm", "", f"{statistics.median(ready):.2f} s", "")
    with Server(arguments) as server:
        idle = server.resident_bytes()
        traffic = ["--concurrency", "6", "--requests", "24", "--prompt-tokens", "64", "--output-tokens", "32"]
        alone, mixed = [], []
        for seed in range(1, rounds + 1):  # in turn, so that a busy moment hits neither alone
            alone.append(load(server, *traffic, "--seed", str(2 * seed), "--routers", "linear=1"))
            mixed.append(load(server, *traffic, "--seed", str(2 * seed + 1), "--routers", SIX))
        rate = lambda reports: [report["all"]["generated_tokens_per_second"] for report in reports]
        ratio = statistics.median(m / a for a, m in zip(rate(alone), rate(mixed)))
        row("six routers mixed against `linear` alone, tok/s", f"{statistics.median(rate(alone)):.1f}",
            f"{statistics.median(rate(mixed)):.1f}", f"{ratio:.2f}")
        weights = server.weight_bytes
        for when, resident in ("six routers loaded", idle), ("after that load", server.resident_bytes()):
            row(f"resident MB against the checkpoint's, {when}", f"{weights / 1e6:.0f}", f"{resident / 1e6:.0f}",
                f"{resident / weights:.2f}")


def paired_scoring(model, rounds):
    """What live paired scoring costs the traffic beside it, at its bound."""
    config = pathlib.Path(__file__).with_name("paired_scoring.yaml")
    servers = []
    for share in "0%", "100%":
        values = {"model.path": model, "routers.root": f"{model}/routers", "experiments.paired_scoring.share": share}
        servers.append(["--config", str(config)] + [f"--set={path}={value}" for path, value in values.items()])
    requests = 24
    traffic = ["--tenant", "acme", "--concurrency", "6", "--requests", str(requests), "--prompt-tokens", "64", "--output-tokens", "32"]
    with Server(servers[0]) as without, Server(servers[1]) as scoring:
        plain, paired = [], []
        for seed in range(1, rounds + 1):
            plain.append(load(without, *traffic, "--seed", str(seed))["all"])
            paired.append(load(scoring, *traffic, "--seed", str(seed))["all"])
            # What is still to be scored must not run beside the other server's traffic.
            end = time.monotonic() + 60
            while scoring.metric("penstock_paired_texts_total") < requests * seed:
                if time.monotonic() > end:
                    raise SystemExit("texts of paired scoring neither scored nor dropped within a minute")
                time.sleep(0.02)
        scored = scoring.metric('penstock_paired_texts_total{[^}]*result="scored"[^}]*}')
    row("paired scoring: texts scored of those finished", f"{requests * rounds}", f"{scored:.0f}", f"{scored / (requests * rounds):.2f}")
    rate = lambda reports: [report["generated_tokens_per_second"] for report in reports]
    ratio = statistics.median(p / a for a, p in zip(rate(plain), rate(paired)))
    row("paired scoring of at most 10 % of all rows against none, tok/s", f"{statistics.median(rate(plain)):.1f}",
        f"{statistics.median(rate(paired)):.1f}", f"{ratio:.2f}")
    gap = lambda reports, key: statistics.median(report["inter_token_seconds"][key] * 1e3 for report in reports)
    for key in "p50", "p99":
        row(f"the same: {key} between tokens, ms", f"{gap(plain, key):.1f}", f"{gap(paired, key):.1f}",
            f"{gap(paired, key) / gap(plain, key):.2f}")


def tiny_model(folder):
    command = [str(BIN / "stream_bench"), str(folder)]
    stream = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    direct, grpc = stream["direct"], stream["grpc"]
    for name, key in ("each streamed token", "per_token"), ("the first token", "first_token"):
        row(f"tiny model: gRPC against the engine called directly, p50 of {name}, ms", f"{direct[key] * 1e3:.3f}",
            f"{grpc[key] * 1e3:.3f}", f"{(grpc[key] - direct[key]) * 1e3:+.3f}")
    cpus = sorted(os.sched_getaffinity(0))[:2]
    (folder / "penstock.yaml").write_text(f"model: {{path: {folder}}}\nengine: {{max_batch: {STREAMS}, max_context: 256}}\n")
    with Server(["--config", str(folder / "penstock.yaml")], cpus) as server:
        traffic = ["--concurrency", str(STREAMS), "--requests", str(4 * STREAMS), "--connections", "4"]
        report = load(server, *traffic, "--prompt-tokens", "16-64", "--output-tokens", "64-128")
        every = report["all"]
        if report["peak_in_flight"] != STREAMS or every["requests"] != 4 * STREAMS:
            raise SystemExit(f"want {STREAMS} streams at once and {4 * STREAMS} in all, got {report}")
        row(f"tiny model: {STREAMS} streams at once on {len(cpus)} cores, {4 * STREAMS} in all: lost", "", str(every["failed"]), "")
        row("the same: tok/s; p50 and p99 between tokens", "", f"{every['generated_tokens_per_second']:.0f}; "
            f"{every['inter_token_seconds']['p50'] * 1e3:.1f} ms; {every['inter_token_seconds']['p99'] * 1e3:.1f} ms", "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the demo model's folder")
    parser.add_argument("--rounds", type=int, default=5, help="of linear alone and six routers mixed")
    args = parser.parse_args()
    row("what", "against", "figure", "ratio or difference")
    row("---", "--:", "--:", "--:")
    demo_model(os.path.abspath(args.model), args.rounds)
    paired_scoring(os.path.abspath(args.model), args.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        tiny_model(pathlib.Path(scratch) / "tiny")


if __name__ == "__main__":
    main()
