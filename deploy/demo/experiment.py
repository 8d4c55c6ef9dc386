#!/usr/bin/env python3
"""Experiments between routers on the demo model, from traffic to report: an A/A run, whose report should say that there is no
difference, and two against routers that are damaged as training can damage them, finite both: one layer's gate sends every row
to the same four experts; every gate is a hundred times too large, so that one expert gets all the weight. A guardrail should
halt each while no request is lost. Exits 1 where one of that is not so. Less than a minute on two cores.

  make experiment-demo
  deploy/demo/experiment.py --runs paired
  deploy/demo/experiment.py --runs aa,loads --requests 1000
"""

import argparse
import array
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("PENSTOCK_BUILD", TOP / "build/release")) / "bin"
MODEL = TOP / "build/demo-model"
WORK = TOP / "build/experiment-demo"
# What the router of this layer sees is negative here, -0.7 or less, in every row of this very model: a gate that looks at
# nothing else sends all rows to the same experts, as many as a row has.
LAYER, DIMENSION = 0, 260
KEPT = 4

EXPERIMENT = """
listen: {{grpc: "127.0.0.1:0", ops: "127.0.0.1:0"}}
model: {{path: {model}}}
engine: {{max_batch: 16, max_context: 1024}}
routers: {{root: {work}/routers, default: linear, load: [{{name: collapsed, path: collapsed}}, {{name: sharpened, path: sharpened}}]}}
state_dir: {state}
tenants: [{{name: default, paired_scoring: true}}]
experiments:
  traffic_salt: demo
  paired_scoring: {{share: {share}, max_cost: 50%, max_waiting: 256}}
  list:
    - name: {name}
      audience: {{tenants: [default]}}
      unit: request
      exposure: 100%
      arms: [{{name: control, router: linear, share: 5000}}, {{name: treatment, router: {router}, share: 5000}}]
      control: control
      primary: {primary}
      guardrails: {guardrails}
"""

WINDOW = 60  # seconds
PROBE = 40  # requests
PAIRED = "{{metric: paired_logprob, better: higher, min_effect: 0.005}}"

RUNS = {
    "aa": dict(
        title="A/A: both arms have the checkpoint's own router",
        router="linear",
        share="0%",
        # The mean of a probe before it, beside whatever else the machine does: the run has to tell apart a router that is
        # twice as slow. Some 200 requests make an interval of a third of the mean to a half of it.
        primary="{{metric: latency, better: lower, min_effect: {latency:.3g}}}",
        guardrails="[]",
    ),
    "loads": dict(
        title="A router with one collapsed layer, and a bound on experts without a row",
        router="collapsed",
        share="5%",
        primary=PAIRED,
        guardrails=f"[{{metric: idle_experts, max: 8, window: {WINDOW}s, min_requests: 10}}]",
    ),
    "paired": dict(
        title="A router a hundred times too sure, and a bound on the drop in log-probability of the same texts",
        router="sharpened",
        share="100%",
        primary=PAIRED,
        guardrails=f"[{{metric: paired_logprob, min: -0.02, window: {WINDOW}s, min_requests: 60}}]",
    ),
}

TOPICS = ("the tides", "a steam engine", "photosynthesis", "interest rates", "the moon's phases", "how bread rises", "volcanoes",
          "a suspension bridge", "vaccines", "the water cycle", "musical scales", "glaciers", "how a seed grows", "magnets")
ASKING = ("Explain {} to a child.", "Write two sentences about {}.", "What do most people get wrong about {}?",
          "Give one example that has to do with {}.", "Why does {} matter to a farmer?", "Tell a short story about {}.")


def read_safetensors(path):
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    return content, json.loads(content[8 : 8 + length]), 8 + length


def write_router(name, damage):
    """A package that routes as the checkpoint does, but for what `damage` makes of a layer's gate: [experts, width], in a row."""
    folder = WORK / "routers" / name
    subprocess.run([BIN / "penstock", "routers", "init", "linear", "--neutral", "--replace", "--model", MODEL, "--out", folder],
                   check=True, stdout=subprocess.DEVNULL)
    path = folder / "router.safetensors"
    content, header, start = read_safetensors(path)
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise SystemExit(f"{path}: {key}: got {entry['dtype']}, want F32")
        begin, end = (start + offset for offset in entry["data_offsets"])
        content[begin:end] = damage(key, array.array("f", content[begin:end]), *entry["shape"]).tobytes()
    path.write_bytes(content)


def collapse(key, weights, experts, width):
    if key != f"layers.{LAYER}.W":
        return weights
    collapsed = array.array("f", bytes(4 * experts * width))
    for expert in range(experts):
        collapsed[expert * width + DIMENSION] = (-4 if expert < KEPT else 4) * (1 - 0.01 * expert)
    return collapsed


def sharpen(key, weights, experts, width):
    return array.array("f", (100 * weight for weight in weights))


class Server:
    def __init__(self, name, config):
        self.log_path = WORK / f"{name}.log"
        config_path = WORK / f"{name}.yaml"
        config_path.write_text(config)
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen([BIN / "penstock", "serve", "--config", config_path], stderr=log, stdout=log)
        while not (ready := re.search(r" serving .* grpc=(\S+)", self.log())):
            if self.process.poll() is not None:
                raise SystemExit(self.log())
            time.sleep(0.1)
        self.grpc = ready[1]

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_for_log(self, text, seconds):
        deadline = time.monotonic() + seconds
        while text not in self.log():
            if time.monotonic() > deadline or self.process.poll() is not None:
                return False
            time.sleep(0.1)
        return True

    def cli(self, *arguments):
        return subprocess.run([BIN / "penstock-cli", "--server", self.grpc, *arguments], check=True, capture_output=True,
                              text=True).stdout

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def log_time(line):
    return datetime.datetime.fromisoformat(line.split(" ", 1)[0].replace("Z", "+00:00")).timestamp()


def field(line, name):
    found = re.search(rf' {name}=("(?:[^"\\]|\\.)*"|\S*)', line)
    return found[1].strip('"') if found else ""


def watch_of(log, treated):
    """What the log says of one run: when the halt came, and what requests got before and after it."""
    requests = [line for line in log.splitlines() if " info request " in line]
    begun = [log_time(line) - float(field(line, "total_seconds")) for line in requests]
    facts = {
        "requests": len(requests),
        "failed": sum(field(line, "code") != "OK" for line in requests),
        "treated": sum(field(line, "router") == treated for line in requests),
        "sent_to_control": sum(field(line, "reason") == "halted" for line in requests),
    }
    halts = [line for line in log.splitlines() if "guardrail halted an arm" in line and field(line, "arm") == "treatment"]
    if halts:
        at = log_time(halts[0])
        facts["halted_after_s"] = round(at - min(begun), 1)
        facts["ended_before_halt"] = sum(log_time(line) <= at for line in requests)
        facts["reason"] = field(halts[0], "reason")
        # A request that was being admitted at that very moment is not late.
        facts["treated_later"] = sum(
            field(line, "router") == treated and begin > at + 0.1 for line, begin in zip(requests, begun))
    return facts


def start(name, spec, latency):
    return Server(name, EXPERIMENT.format(
        model=MODEL, work=WORK, state=WORK / f"state-{name}", name=name, router=spec["router"], share=spec["share"],
        primary=spec["primary"].format(latency=latency), guardrails=spec["guardrails"]))


def send(server, name, requests, progress):
    return subprocess.run(
        [BIN / "penstock-bench", "--server", server.grpc, "--concurrency", "8", "--requests", str(requests),
         "--prompt-file", WORK / "prompts.txt", "--output-tokens", "4-8", "--json", WORK / f"{name}.json"],
        stdout=subprocess.DEVNULL, stderr=None if progress else subprocess.DEVNULL)


def probe():
    """Seconds that a request takes now, on average, from a server of its own."""
    server = start("probe", RUNS["aa"], latency=1)
    try:
        send(server, "probe", PROBE, progress=False).check_returncode()
    finally:
        server.stop()
    return json.loads((WORK / "probe.json").read_text())["all"]["end_to_end_seconds"]["mean"]


def run(name, options, progress):
    spec = RUNS[name]
    print(f"\n{spec['title']}: {options.requests} requests", flush=True)
    latency = probe() if "{latency" in spec["primary"] else 0
    server = start(name, spec, latency)
    problems = []
    try:
        bench = send(server, name, options.requests, progress)
        if bench.returncode != 0:
            problems.append(f"penstock-bench exited {bench.returncode}: a request was lost")
        damaged = spec["router"] != "linear"
        if damaged and not server.wait_for_log("guardrail halted an arm", WINDOW):
            problems.append("no guardrail halted the damaged router's arm")
        facts = watch_of(server.log(), spec["router"])
        text = server.cli("report", name)
        (WORK / f"{name}.txt").write_text(text)
        report = json.loads(server.cli("report", name, "--json"))
        treatment = report["arms"][1]
        summary = report["summary"]
        if facts["failed"] or facts["requests"] != options.requests:
            problems.append(f"{facts['failed']} of {facts['requests']} requests failed, {options.requests} were sent")
        if damaged:
            if not treatment.get("halted"):
                problems.append("the report does not say that the arm is halted")
            if report["arms"][0].get("halted"):
                problems.append(f"control was halted: {report['arms'][0]['halted']}")
            if facts.get("halted_after_s", WINDOW + 1) > WINDOW:
                problems.append(f"the halt did not come within the window of {WINDOW} s")
            if facts.get("treated_later"):
                problems.append(f"{facts['treated_later']} requests got the damaged router after the halt")
            print(f"  halted {facts.get('halted_after_s')} s after the first request, when {facts.get('ended_before_halt')} had "
                  f"ended: {facts.get('reason')}")
            print(f"  {facts['requests']} requests, {facts['failed']} failed; {facts['treated']} were answered under the damaged "
                  f"router, {facts['sent_to_control']} of its units got control's after the halt")
            print(f"  the report: Arm treatment is HALTED, {treatment.get('halted')}")
        else:
            if "guardrail halted an arm" in server.log():
                problems.append("a guardrail halted an arm")
            if treatment["verdict"] != "no_larger_difference":
                problems.append(f"the verdict is {treatment['verdict']}, want no_larger_difference")
            interval = treatment["metrics"][0].get("comparison", {})
            if not interval.get("lower", 1) <= 0 <= interval.get("upper", -1):
                problems.append(f"the interval of latency leaves out 0: {interval}")
            low = min(metric.get("adjusted_p", 1) for metric in treatment["metrics"])
            if low <= 0.05 or report.get("sample_ratio_alarm"):
                problems.append(f"a secondary metric has an adjusted p of {low}, or the sample ratio is off")
            print(f"  {facts['requests']} requests, {facts['failed']} failed; smallest adjusted p of the others: {low:.3g}")
            print(f"  a request of the probe took {latency:.3g} s: a difference as large would matter")
            print(f"  the report: {summary}")
        print(f"  whole report: {WORK / f'{name}.txt'}")
    finally:
        server.stop()
    for problem in problems:
        print(f"  NOT AS IT SHOULD BE: {problem}")
    return not problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200, help="of each run (default 200)")
    parser.add_argument("--runs", default=",".join(RUNS), help=f"which, of {', '.join(RUNS)} (default all)")
    options = parser.parse_args()
    runs = options.runs.split(",")
    if unknown := [name for name in runs if name not in RUNS]:
        parser.error(f"--runs: got {', '.join(unknown)}, want some of {', '.join(RUNS)}")
    subprocess.run([TOP / "deploy/demo/demo.sh", "--model"], check=True)
    shutil.rmtree(WORK, ignore_errors=True)
    (WORK / "routers").mkdir(parents=True)
    (WORK / "prompts.txt").write_text("".join(asking.format(topic) + "\n" for topic in TOPICS for asking in ASKING))
    write_router("collapsed", collapse)
    write_router("sharpened", sharpen)
    # Every run, also after one that went wrong.
    good = [run(name, options, sys.stderr.isatty()) for name in runs]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
