"""The pytest plugin: fixtures, marker, backends; each test runs a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

NAME = "hatopo.testing.plugin"
QUIET = ("-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:hypothesispytest")
Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Runs this code as a file of tests, in a process of its own; the options are pytest's."""
    installed = any(one.value == NAME for one in entry_points(group="pytest11"))
    load = () if installed else ("-p", NAME)

    def run(code: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(code)
        return pytester.runpytest_subprocess(*QUIET, *load, *options)

    return run


def test_the_fixtures_start_what_they_are_named_for(run: Run) -> None:
    result = run(
        """
        def test_node(hatopo_node, hatopo_backend):
            assert hatopo_backend == "embedded"
            assert hatopo_node.execute("PING") == "PONG"

        def test_replication(hatopo_replication):
            assert len(hatopo_replication.replicas()) == 2

        def test_sentinel(hatopo_sentinel):
            assert (len(hatopo_sentinel.nodes), len(hatopo_sentinel.sentinels)) == (3, 3)
            old = hatopo_sentinel.kill_master()
            assert hatopo_sentinel.wait_switched(old) is not old
        """
    )
    result.assert_outcomes(passed=3)


def test_each_test_has_servers_of_its_own_and_leaves_none(run: Run) -> None:
    result = run(
        """
        import threading

        @__import__("pytest").mark.parametrize("number", range(3))
        def test_alone(hatopo_node, number):
            assert hatopo_node.execute("INCR", "n") == 1

        def test_nothing_runs_without_a_fixture():
            assert "hatopo-testing" not in [thread.name for thread in threading.enumerate()]
        """
    )
    result.assert_outcomes(passed=4)


def test_the_marker_has_the_arguments_of_the_deployment(run: Run) -> None:
    result = run(
        """
        import pytest
        from hatopo.testing import ManualClock

        pytestmark = pytest.mark.hatopo(seed=7)

        @pytest.mark.hatopo(replicas=1, sentinels=5, quorum=4, name="other", clock=ManualClock())
        def test_sentinel(hatopo_sentinel):
            assert (len(hatopo_sentinel.nodes), len(hatopo_sentinel.sentinels)) == (2, 5)
            assert hatopo_sentinel.name == "other"
            assert isinstance(hatopo_sentinel.clock, ManualClock)

        @pytest.mark.hatopo(replicas=1)
        class TestClass:
            @pytest.mark.hatopo(replicas=3)
            def test_the_nearest_marker_counts(self, hatopo_replication):
                assert len(hatopo_replication.replicas()) == 3

            def test_the_marker_of_a_class_counts(self, hatopo_replication):
                assert len(hatopo_replication.replicas()) == 1

        @pytest.mark.hatopo(password="secret")
        def test_node(hatopo_node):
            with hatopo_node.control() as control:
                assert control("PING") == "PONG"
        """,
        "--strict-markers",
    )
    result.assert_outcomes(passed=4)


def test_the_nearest_marker_counts_and_each_kind_takes_what_it_has(run: Run) -> None:
    result = run(
        """
        import pytest

        pytestmark = pytest.mark.hatopo(replicas=1, sentinels=1, quorum=1)

        @pytest.mark.hatopo(replicas=3)
        def test_the_function_wins(hatopo_replication):
            assert len(hatopo_replication.replicas()) == 3

        @pytest.mark.hatopo(replicas=2)
        class TestClass:
            def test_the_class_wins(self, hatopo_sentinel, hatopo_node):
                assert len(hatopo_sentinel.replicas()) == 2
                assert len(hatopo_sentinel.sentinels) == 1
                assert hatopo_node.execute("PING") == "PONG"

        @pytest.mark.hatopo(3)
        def test_positional(hatopo_replication):
            pass
        """
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*takes arguments by name only, not 3*"])


def test_an_argument_that_there_is_not_is_an_error(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.hatopo(nonsense=1)
        def test_it(hatopo_node):
            pass
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*nonsense*"])


def test_real_processes(run: Run, redis_installed: tuple[int, ...]) -> None:
    result = run(
        """
        import pytest

        pytestmark = pytest.mark.hatopo(seed=7)

        def test_node(hatopo_node, hatopo_backend):
            assert hatopo_backend == "real"
            assert type(hatopo_node).__name__ == "RealNode"
            assert hatopo_node.execute("PING") == "PONG"

        @pytest.mark.hatopo(replicas=1)
        def test_replication(hatopo_replication):
            assert [type(node).__name__ for node in hatopo_replication.nodes] == ["RealNode"] * 2
        """,
        "--hatopo-backend=real",
    )
    result.assert_outcomes(passed=2)


def test_what_real_processes_cannot_do_skips_the_test_with_the_reason(
    run: Run, redis_installed: tuple[int, ...]
) -> None:
    result = run(
        """
        import pytest

        @pytest.fixture
        def lagging(hatopo_node):
            hatopo_node.set_lag(1)
            return hatopo_node

        def test_in_the_test(hatopo_node):
            hatopo_node.fail("get", "ERR no")
            assert False, "not reached"

        def test_in_a_fixture(lagging):
            assert False, "not reached"

        def test_other_errors_fail(hatopo_node):
            raise LookupError("of the test")
        """,
        "--hatopo-backend=real",
        "-rs",
    )
    result.assert_outcomes(skipped=2, failed=1)
    result.stdout.fnmatch_lines(["SKIPPED*a real process cannot answer a command with an error*"])
    result.stdout.fnmatch_lines(["SKIPPED*a real process cannot lag*"])


def test_without_redis_server_the_real_backend_skips(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = run(
        """
        def test_node(hatopo_node):
            pass

        def test_other():
            pass
        """,
        "--hatopo-backend=real",
        "-rs",
    )
    result.assert_outcomes(skipped=1, passed=1)
    result.stdout.fnmatch_lines(["SKIPPED*redis-server is not on the PATH, nor does HATOPO_REDIS_SERVER name one*"])


def test_a_backend_that_there_is_not(run: Run) -> None:
    result = run("def test_it(): pass", "--hatopo-backend=other")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*invalid choice: 'other'*"])


def test_the_options_and_fixtures_explain_themselves(run: Run) -> None:
    result = run("def test_it(): pass", "--help")
    result.stdout.fnmatch_lines(["*--hatopo-backend=*"])
    shown = run("def test_it(): pass", "--fixtures")
    for name in ("node", "replication", "sentinel", "backend"):
        shown.stdout.re_match_lines([f"hatopo_{name} "])
    assert run("def test_it(): pass", "--markers").stdout.str().count("@pytest.mark.hatopo(") == 1


def test_tests_that_ask_for_no_server_pay_for_none(run: Run) -> None:
    result = run(
        """
        import sys

        def test_it():
            heavy = {"fakeredis", "lupa", "hatopo.testing.node._node", "hatopo.testing.real"}
            assert not heavy.intersection(sys.modules)
        """
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("module", ["hatopo", "hatopo.testing", NAME])
def test_an_import_does_not_import_the_engine(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'fakeredis', 'lupa'}} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_without_the_extra_the_first_use_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'fakeredis':\n"
        "            raise ModuleNotFoundError('No module named fakeredis', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import hatopo.testing\n"
        "try:\n    hatopo.testing.Node\n"
        "except ImportError as error:\n    print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "hatopo.testing.Node needs fakeredis: pip install 'hatopo[testing]'\n"
