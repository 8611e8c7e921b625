"""What ``import probes`` costs above torch, beside its peers: CPU seconds and resident memory of fresh processes.

Goal: at most 0.3 s and 30 MB above torch.

    python tests/benchmarks/bench_import.py [--quick] [--module probes transformer_lens devinterp.slt.llc]
"""

import interleaved  # isort: skip (limits threads before numpy comes)

import argparse
import subprocess
import sys

import numpy as np

_PROGRAM = (
    "import {module}, resource; use = resource.getrusage(resource.RUSAGE_SELF); "
    "resident = [line for line in open('/proc/self/status') if line.startswith('VmRSS')][0].split()[1]; "
    "print(use.ru_utime + use.ru_stime, int(resident) / 1024)"
)


def cost(module: str) -> tuple[float, float] | None:
    """Return CPU seconds and resident megabytes of a fresh process, or None where the module is not installed."""
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(module=module)], capture_output=True, text=True, check=False
    )
    if run.returncode:
        return None
    seconds, megabytes = run.stdout.split()[-2:]
    return float(seconds), float(megabytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds; a look, no result")
    parser.add_argument("--module", nargs="+", default=["probes", "transformer_lens", "devinterp.slt.llc"])
    args = parser.parse_args()
    rounds = 3 if args.quick else 9
    modules = ["torch", *(module for module in args.module if cost(module))]
    for absent in set(args.module) - set(modules):
        print(f"without {absent}: it cannot be imported here")
    costs = np.array([[cost(module) for module in modules] for _ in range(rounds)], dtype=float)
    above = costs - costs[:, :1]
    result = {
        module: {
            "seconds_above_torch": interleaved.spread(above[:, i, 0]),
            "megabytes_above_torch": interleaved.spread(above[:, i, 1]),
        }
        for i, module in enumerate(modules)
        if module != "torch"
    }
    interleaved.write_result("import", result, {"rounds": rounds, "quick": args.quick})


if __name__ == "__main__":
    main()
