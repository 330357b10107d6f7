"""Has the engine and `transformers` take turns at the same model, and compares their medians.

Run: python tests/parity/compare_throughput.py EXAMPLE FOLDER [THREADS [TURNS]]   (EXAMPLE: the built program
target/release/examples/throughput)
"""

import pathlib
import re
import statistics
import subprocess
import sys

example, folder = sys.argv[1:3]
threads, turns = (sys.argv[3:] + ["1", "3"][len(sys.argv) - 3:])[:2]
python = pathlib.Path(__file__).with_name("throughput.py")
sides = {"ff2": [example, folder, threads], "transformers": [sys.executable, str(python), folder, threads]}
found = {}
for turn in range(int(turns)):
    # Who is first changes, so that a machine that becomes slower favours nobody.
    for side in sorted(sides, reverse=turn % 2 == 1):
        said = subprocess.run(sides[side], check=True, capture_output=True, text=True).stdout
        for name, rate in re.findall(r"^(.+): ([0-9.]+) tokens/s$", said, re.MULTILINE):
            found.setdefault(name, {}).setdefault(side, []).append(float(rate))
print(f"{threads} threads, medians of {turns} turns, tokens/s")
for name, rates in found.items():
    ours, theirs = statistics.median(rates["ff2"]), statistics.median(rates["transformers"])
    print(f"{name}: ff2 {ours:.1f}, transformers {theirs:.1f}, ratio {ours / theirs:.2f}   {rates}")
