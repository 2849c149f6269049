"""What one message costs in user space (micro.cpp); medians of the rounds."""

from __future__ import annotations

import json

from bench import cpu
from bench.result import Run
from bench.rig import program
from bench.show import Show


def run(options, show: Show) -> list[Run]:
    ended = cpu.run([program("bench_micro"), "--benchmark_format=json", f"--benchmark_repetitions={options.pairs}",
                     f"--benchmark_min_time={0.05 if options.quick else 0.5}"])
    runs = []
    for one in json.loads(ended.out)["benchmarks"]:
        if one["run_type"] != "iteration":
            continue
        runs.append(Run(one["run_name"], "walferry", one["cpu_time"] / 1e9, more={"ns": one["cpu_time"]}))
        show.run(runs[-1])
    return runs
