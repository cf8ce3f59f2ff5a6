#!/usr/bin/env python3
"""Checks the verdicts recorded in workload files against Python itself. Standard library only.

  check.py problems.jsonl …

Each case runs in a process of its own, with 5 s to do so. The comparison runs in that process too, next to the
submission: good enough for examples, which are honest, and for no others. Exit status 0: every verdict agrees.
"""

import json
import subprocess
import sys

WALL_S = 5

CASE = """
import ast, json, sys
case = json.load(sys.stdin)
call = ast.parse("f(" + case["input"] + ")", mode="eval").body
args = [ast.literal_eval(a) for a in call.args]
named = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
space = {"__name__": "submission"}
exec(case["code"], space)
got = eval(case["entry_point"], space)(*args, **named)
print("equal" if got == eval(case["output"], space) else "different")
"""


def verdict(row, case):
    request = json.dumps({**case, "code": row["code"], "entry_point": row["entry_point"]})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", CASE], input=request, capture_output=True, text=True, timeout=WALL_S
        )
    except subprocess.TimeoutExpired:
        return False
    return done.stdout.endswith("equal\n")


def main(paths):
    cases = differ = 0
    for path in paths:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                got = [verdict(row, case) for case in row["io_cases"]]
                cases += len(got)
                if got != row["verdicts"]:
                    differ += 1
                    print(f"{path}: {row['task_id']}: recorded {row['verdicts']}, got {got}")
    print(f"{cases} cases, {differ} submissions differ")
    return 1 if differ or not cases else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
