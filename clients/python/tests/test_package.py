"""The package as a whole: what it exports, that it warns of nothing, its README."""

from __future__ import annotations

import subprocess
import sys

from readme import HOME, run_example
from scripted import Answer, Server

import repl_client


def test_everything_exported_is_there() -> None:
    assert all(hasattr(repl_client, name) for name in repl_client.__all__)
    assert repl_client.__all__ == sorted(repl_client.__all__)


def test_no_warnings() -> None:
    # In a process of its own, since a model is made, and warned about, once.
    code = """
import warnings, httpx, pydantic
warnings.simplefilter("error")
import repl_client as r
r.ScriptResponse(stdout="", stderr="", id="s", model_later=1, copy="x", wall_ms=1)
r.WriteFileResponse(success=True, id="s", rel_path="a")
r.ReadFileResponse(content="", id="s", rel_path="a")
r.DeleteFileResponse(success=True, id="s", rel_path="a")
r.RenameFileResponse(success=True, id="s", old_path="a", new_path="b")
repr(r.EvaluateCodeResponse(passed=True, case_results=[{"passed": True, "x": 1}]))
r.ForkSessionResponse(new_id="n")
r.ReplClient()
print(pydantic.VERSION)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_readme_example(server: Server) -> None:
    graded = {"passed": True, "case_results": [{"passed": True}], "error": None}
    server.script.extend(
        [
            Answer({"success": True, "id": "s", "rel_path": "placeholder.txt"}),
            Answer({"success": True, "id": "s", "rel_path": "example.py"}),
            Answer({"stdout": "Hello, REPL!\n", "stderr": "", "id": "s"}),
            Answer(graded),
            Answer({"success": True, "id": "s", "rel_path": "example.py"}),
        ]
    )
    out, err = run_example(server.url)
    assert err == ""
    assert out == "Hello, REPL!\n \nTrue [{'passed': True}]\n"
    paths = [asked.path for asked in server.asked]
    assert paths == ["/write_file", "/write_file", "/run", "/evaluate_code", "/delete_file"]
    assert server.asked[2].body["cmd"] == "python3 example.py"
