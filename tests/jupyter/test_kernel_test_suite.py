"""jupyter_kernel_test's suite, on a kernel in a container and on a plain local one: the same tests pass, and the same are skipped."""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from pathlib import Path

import jupyter_kernel_test
import pytest

from ..conftest import EngineUnderTest


class PythonSamples(jupyter_kernel_test.KernelTests):  # type: ignore[misc] # it ships no types
    """What IPython is asked: the samples of jupyter_kernel_test's own test of ipykernel."""

    __test__ = False
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = ({"text": "zi", "matches": {"zip"}},)
    complete_code_samples = ("1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n")
    incomplete_code_samples = ("print('''hello", "def f(x):\n  x*2")
    invalid_code_samples = ("import = 7q",)
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_execute_result = (
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    )
    code_display_data = (
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('\\frac{1}{2}'))", "mime": "text/latex"},
    )
    supported_history_operations = ("tail", "search")  # IPython numbers the session that runs 0 in a range
    code_history_pattern = "1?2*"
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


class PythonWelcome(jupyter_kernel_test.IopubWelcomeTests):  # type: ignore[misc]
    __test__ = False
    support_iopub_welcome = True


class Outcome(unittest.TestResult):
    """The suite's result by the tests' names."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: set[str] = set()

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802 # unittest's name
        self.ran.add(test.id())
        super().stopTest(test)

    @property
    def problems(self) -> str:
        return "\n".join(f"{test}: {report}" for test, report in (*self.failures, *self.errors))

    @property
    def skips(self) -> set[tuple[str, str]]:
        return {(str(test), reason) for test, reason in self.skipped}


def suite_on(kernel_name: str) -> Outcome:
    suite = unittest.TestSuite()
    for base in (PythonSamples, PythonWelcome):
        tests = type(base.__name__, (base,), {"kernel_name": kernel_name})
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(tests))
    outcome = Outcome()
    suite.run(outcome)
    return outcome


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """The suite's result on `python3`, started as ever. (Its stderr may come before its iopub_welcome: it need not pass.)"""
    with pytest.MonkeyPatch.context() as patch:
        directory: Path = tmp_path_factory.mktemp("local")
        patch.setenv("IPYTHONDIR", str(directory))  # a history of its own
        patch.chdir(directory)
        yield suite_on("python3")


# The welcome's test is over so soon that its client's heartbeat thread may be about to make its socket when the context is gone.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_suite(local: Outcome, engine: EngineUnderTest, notebook_directory: Path) -> None:
    contained = suite_on("container-python")
    assert contained.problems == ""
    assert contained.ran == local.ran
    assert len(contained.ran) > 12
    assert contained.skips == local.skips
