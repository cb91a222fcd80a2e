#!/usr/bin/env python3
"""Runs the files of tests in their order, beside the node. Started by run.py; owns order, progress and the report of a
failure.

The first failure ends the run: what comes after it would start from an unknown state."""

import os
import pathlib
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
# `documentation` begins with an empty cluster and leaves it with everything installed. Those that come after begin with
# `harness.quickstart()` and leave what it promises; the last may take it away.
ORDER = [
    "documentation",
    "isolation",
    "revocation",
    "operator_away",
    "replicas",
    "api_server_away",
    "rollout",
    "scale",
    "upgrade",
]


class InOrderOfLines(unittest.TestLoader):
    """Tests run in the order in which they are written."""

    def getTestCaseNames(self, case):
        return sorted(super().getTestCaseNames(case), key=lambda name: getattr(case, name).__code__.co_firstlineno)


class Result(unittest.TextTestResult):
    """Says how long each test took, and what the cluster looks like where one fails."""

    def getDescription(self, test):
        return getattr(test, "_testMethodName", str(test))

    def startTest(self, test):
        self.begun = time.monotonic()
        super().startTest(test)

    def stopTest(self, test):
        print(f"  {time.monotonic() - self.begun:.1f} s", file=sys.stderr, flush=True)
        super().stopTest(test)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.report(test, error)

    def addError(self, test, error):
        super().addError(test, error)
        self.report(test, error)

    def report(self, test, error):
        import harness

        print(f"\n{test}: {error[1]}", file=sys.stderr)
        harness.diagnose(sys.stderr)


def is_test(name):
    """Whether a name is that of a test, not of a file."""
    return name.startswith("test_")


def chosen(names):
    """The files to run, in order. One that the order does not name would never run: that is an error."""
    there = {path.stem.removeprefix("check_") for path in HERE.glob("check_*.py")}
    if there != set(ORDER):
        raise SystemExit(f"ORDER in {__file__} and the files check_*.py differ: {sorted(there ^ set(ORDER))}")
    names = [name.removeprefix("check_").removesuffix(".py") for name in names if not is_test(name)] or ORDER
    if unknown := set(names) - there:
        raise SystemExit(f"no such tests: {', '.join(sorted(unknown))}; there are: {', '.join(ORDER)}")
    return [name for name in ORDER if name in names]


def main(names):
    helm = pathlib.Path(os.environ["HELM"])
    os.environ["PATH"] = f"{helm.parent}:{os.environ['PATH']}"
    sys.path.insert(0, str(HERE))
    loader = InOrderOfLines()
    loader.testNamePatterns = [f"*.{name}" for name in names if is_test(name)] or None
    tests = unittest.TestSuite(loader.loadTestsFromName(f"check_{name}") for name in chosen(names))
    with tempfile.TemporaryDirectory() as folder:
        # Helm reads no plugins or repositories of the user's, and no cache of kubectl's is of another cluster.
        os.environ |= {f"HELM_{what}_HOME": folder for what in ("CONFIG", "CACHE", "DATA")}
        os.environ["KUBECACHEDIR"] = folder
        result = unittest.TextTestRunner(verbosity=2, failfast=True, resultclass=Result).run(tests)
    if not result.testsRun:
        raise SystemExit("no test ran")
    return 0 if result.wasSuccessful() and not result.skipped else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
