"""Reports the tests of pytest to Toolplane while they run.

Each event is one line of Protobuf JSON (`toolplane.testing.v1.TestEvent`). It is appended to the file that the
environment variable TOOLPLANE_TEST_EVENTS names, or, where there is none, uploaded to the server at TOOLPLANE_URL.
Reporting has no say in the outcome: whatever goes wrong with it is a line on standard error.

Needs pytest 7 or newer and nothing else.
"""

import ast
import hashlib
import json
import os
import platform
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timezone

import pytest

__version__ = "0.1.0"

EVENTS_VARIABLE = "TOOLPLANE_TEST_EVENTS"
SELECTION_VARIABLE = "TOOLPLANE_PYTEST_SELECTION"
ROOT_VARIABLE = "TOOLPLANE_PYTEST_ROOT"
# Set for everything that pytest starts: a pytest inside of a test is no part of this run.
NESTED_VARIABLE = "TOOLPLANE_PYTEST_NESTED"

DEFAULT_URL = "http://127.0.0.1:7400"

# What the contract allows, in characters and items.
MAX_TEXT = 65536
MAX_FILE = 1024
MAX_SUITES = 64
MAX_SUITE = 1024
MAX_NAME = 4096
MAX_ATTEMPTS = 100
MAX_TAGS = 64
MAX_TAG = 128
MAX_PROPERTIES = 64
FOUND_BATCH = 1000

# Marks that say how pytest is to run a test, and nothing about the test.
OWN_MARKS = {"parametrize", "usefixtures", "skip", "skipif", "xfail", "filterwarnings"}


def pytest_addoption(parser):
    group = parser.getgroup("toolplane", "reporting to Toolplane")
    group.addoption(
        "--toolplane",
        action="store_true",
        default=False,
        help="report the tests to the server at TOOLPLANE_URL, by default " + DEFAULT_URL,
    )
    group.addoption("--toolplane-url", default=None, metavar="URL", help="report the tests to this server")
    group.addoption(
        "--toolplane-project",
        default=None,
        metavar="NAME",
        help="the project that the run belongs to, by default TOOLPLANE_PROJECT, else the name of the root folder",
    )


def pytest_configure(config):
    if hasattr(config, "workerinput"):
        # A worker of pytest-xdist: its controller reports.
        config.pluginmanager.register(_Details(), "toolplane_details")
        selection = _Selection.read(config, os.environ.get(SELECTION_VARIABLE))
        if selection is not None:
            config.pluginmanager.register(selection, "toolplane_selection")
        return
    if os.environ.get(NESTED_VARIABLE):
        return
    selection = _Selection.read(config, os.environ.get(SELECTION_VARIABLE))
    if selection is not None:
        selection.narrow_expressions(config)
        config.pluginmanager.register(selection, "toolplane_selection")
    sink = _sink_of(config)
    if sink is None or config.option.collectonly:
        return
    config.pluginmanager.register(_Details(), "toolplane_details")
    config.pluginmanager.register(_Reporter(config, sink), "toolplane_reporter")


def _sink_of(config):
    path = os.environ.get(EVENTS_VARIABLE)
    if path:
        return _Spool(path)
    url = config.option.toolplane_url or os.environ.get("TOOLPLANE_URL")
    if not url and config.option.toolplane:
        url = DEFAULT_URL
    return _Upload(url, config) if url else None


# -- Names ----------------------------------------------------------------------------------------------------------


def _text(value, limit=MAX_TEXT):
    """Valid text of at most `limit` characters: the beginning and the end of what is longer."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    if len(text) <= limit:
        return text
    omission = "\n… {} characters left out …\n".format(len(text) - limit + 64)
    head = (limit - 64) * 3 // 4
    tail = limit - 64 - head
    return text[:head] + omission + text[-tail:]


def _name(value, limit):
    """A name of at most `limit` characters that differs from every other name, however alike they begin."""
    text = _text(value, len(value))
    if len(text) <= limit:
        return text
    return text[: limit - 18] + "… " + hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _split_node_id(node_id):
    """`file::Class::test[a-b]` as file, suites, name and parameters."""
    file, _, rest = node_id.partition("::")
    head, bracket, tail = rest.partition("[")
    parameters = tail[:-1] if bracket and tail.endswith("]") else ""
    names = (head if bracket and tail.endswith("]") else rest).split("::")
    return file, names[:-1], names[-1], parameters


class _Names:
    """Makes identities of node ids. Files are relative to the project's root."""

    def __init__(self, config):
        root = os.environ.get(ROOT_VARIABLE)
        self._prefix = None
        if root:
            self._prefix = os.path.relpath(str(config.rootpath), os.path.realpath(root)).replace(os.sep, "/")

    def file_of(self, file):
        if self._prefix in (None, "."):
            return file
        path = os.path.normpath(self._prefix + "/" + file).replace(os.sep, "/")
        return file if path.startswith("../") else path

    def identity(self, node_id):
        file, suites, name, parameters = _split_node_id(node_id)
        suites = [_name(suite, MAX_SUITE) for suite in suites[:MAX_SUITES]]
        file = self.file_of(file)
        test = {"framework": "pytest", "file": _name(file, MAX_FILE)}
        if suites:
            test["suitePath"] = suites
        test["name"] = _name(name or os.path.basename(file) or node_id or "?", MAX_NAME)
        if parameters:
            test["parameters"] = _name(parameters, MAX_NAME)
        return test

    def subtest(self, report):
        """The identity of a part of a test that reports for itself: its test is the last suite."""
        test = self.identity(report.nodeid)
        suites = test.get("suitePath", [])[: MAX_SUITES - 1]
        parameters = ", ".join("{}={}".format(key, value) for key, value in _subtest_values(report))
        message = report.context.msg
        part = {
            "framework": "pytest",
            "file": test["file"],
            "suitePath": suites + [_name(_label(test), MAX_SUITE)],
            "name": _name(str(message), MAX_NAME) if message not in (None, "") else "<subtest>",
        }
        if parameters:
            part["parameters"] = _name(parameters, MAX_NAME)
        return part


def _subtest_values(report):
    """The values of a subtest as Python writes them."""
    for key, value in (report.context.kwargs or {}).items():
        if type(report.context).__name__ != "SubtestContext":
            # The plug-in for pytest before version 9 has the values themselves.
            value = repr(value)
        elif hasattr(report, "node"):
            # pytest writes them, and writes what comes from a worker of pytest-xdist again.
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                pass
        yield key, value


def _label(test):
    parameters = test.get("parameters", "")
    return "{}[{}]".format(test["name"], parameters) if parameters else test["name"]


# -- Which tests ----------------------------------------------------------------------------------------------------


class _Selection:
    """Leaves out what a run was not asked for. Names come from a file, so that none of them can be an option."""

    def __init__(self, config, chosen):
        self._names = _Names(config)
        self._root = os.path.realpath(os.environ.get(ROOT_VARIABLE) or str(config.rootpath))
        self._files = [file.rstrip("/") for file in chosen["files"]]
        self._expression = chosen["namePattern"]
        self._tags = chosen["tags"]
        self._keys = None
        if chosen["tests"]:
            self._keys = set()
            for test in chosen["tests"]:
                self._keys.add((test["file"], tuple(test["suitePath"]), _label(test)))
                # Of a subtest, the test around it.
                if test["suitePath"]:
                    self._keys.add((test["file"], tuple(test["suitePath"][:-1]), test["suitePath"][-1]))
        self._test_files = None if self._keys is None else {file for file, _, _ in self._keys}

    @staticmethod
    def read(config, path):
        if not path:
            return None
        try:
            with open(path, encoding="utf-8") as file:
                return _Selection(config, json.load(file))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise pytest.UsageError("toolplane: the selection {} cannot be read: {}".format(path, error))

    def narrow_expressions(self, config):
        """Both the expressions of the command line and those of the run have to hold."""
        for option, expression in (("keyword", self._expression), ("markexpr", " or ".join(self._tags))):
            if expression:
                given = getattr(config.option, option)
                setattr(config.option, option, "({}) and ({})".format(given, expression) if given else expression)

    def _wants_file(self, file):
        if self._test_files is not None and file not in self._test_files:
            return False
        return not self._files or any(_below(file, chosen) for chosen in self._files)

    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path):
        """Other files are not even imported."""
        if not collection_path.is_file() or collection_path.suffix != ".py":
            return None
        if collection_path.name in ("__init__.py", "conftest.py"):
            return None
        file = os.path.relpath(os.path.realpath(str(collection_path)), self._root).replace(os.sep, "/")
        return None if self._wants_file(file) else True

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        kept = [item for item in items if self._wants(item)]
        if len(kept) < len(items):
            chosen = {id(item) for item in kept}
            config.hook.pytest_deselected(items=[item for item in items if id(item) not in chosen])
            items[:] = kept

    def _wants(self, item):
        test = self._names.identity(item.nodeid)
        if not self._wants_file(test["file"]):
            return False
        key = (test["file"], tuple(test.get("suitePath", [])), _label(test))
        return self._keys is None or key in self._keys


def _below(file, folder):
    return folder in ("", ".") or file == folder or file.startswith(folder + "/")


class _Details:
    """Adds to reports what only the process that ran the test knows. Reports carry it from worker to controller."""

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        outcome = yield
        try:
            report = outcome.get_result()
            tags = dict.fromkeys(mark.name for mark in item.iter_markers() if mark.name not in OWN_MARKS)
            details = {"tags": list(tags)[:MAX_TAGS]}
            if call.excinfo is not None:
                details["type"] = call.excinfo.typename
            report.toolplane = details
        except Exception:  # noqa: BLE001 - what made the report fail is told by pytest itself
            pass


# -- What happens ---------------------------------------------------------------------------------------------------


def _duration(seconds):
    return "{:.9f}s".format(max(0.0, min(seconds, 3e8)))


def _timestamp(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _skip_reason(report):
    longrepr = report.longrepr
    reason = longrepr[2] if isinstance(longrepr, tuple) and len(longrepr) == 3 else (longrepr or "")
    return re.sub(r"^Skipped: ", "", str(reason))


def _long_text(report):
    """What pytest prints about a failure, without the line that pytest-xdist puts before it."""
    return re.sub(r"^\[gw\d+\] .*\n", "", report.longreprtext)


def _failure(report):
    text = _long_text(report)
    crash = getattr(report.longrepr, "reprcrash", None)
    message = getattr(crash, "message", None) or re.sub(r"^E +", "", text.strip().rpartition("\n")[2]) or "The test failed without a message."
    failure = {"message": _text(message)}
    kind = getattr(report, "toolplane", {}).get("type") or _kind_of(message)
    if kind:
        failure["type"] = _name(kind, 256)
    if text and text != message:
        failure["stack"] = _text(text)
    return failure


def _kind_of(message):
    found = re.match(r"((?:\w+\.)*[A-Z]\w*)(?::|$)", message)
    return found.group(1) if found else ""


class _Attempt:
    """One execution of a test, of which pytest reports the set-up, the call and the tear-down."""

    def __init__(self, number):
        self.number = number
        self.start = time.time()
        self.reports = []
        self.subtests = {}

    @property
    def rerun(self):
        """Whether the test is to run again: pytest-rerunfailures says so, flaky keeps the failed call to itself."""
        outcomes = [report.outcome for report in self.reports]
        return "rerun" in outcomes or (set(outcomes) == {"passed"} and self.reports[-1].when == "teardown" and not self.called)

    @property
    def called(self):
        return any(report.when == "call" for report in self.reports)

    @property
    def seconds(self):
        return sum(getattr(report, "duration", 0) or 0 for report in self.reports)

    def status(self):
        """The status, with what is to be said about it."""
        status, message = ("FAILED" if self.rerun and not self.called else "ERROR"), ""
        for report in self.reports:
            broken = report.outcome in ("failed", "rerun")
            if report.when == "teardown":
                # pytest counts such a test twice; a failed call says more than what failed after it.
                if broken and status not in ("FAILED", "UNEXPECTED_PASS"):
                    status = "ERROR"
            elif report.outcome == "skipped":
                expected = hasattr(report, "wasxfail")
                status = "EXPECTED_FAILURE" if expected else "SKIPPED"
                message = str(report.wasxfail) if expected else _skip_reason(report)
            elif broken:
                status = "ERROR" if report.when == "setup" else "FAILED"
                if report.when == "call" and _is_unexpected_pass(report):
                    status, message = "UNEXPECTED_PASS", _long_text(report)
            elif report.when == "call":
                # pytest takes no offence at a test that passes where it may fail, unless it is strict about it.
                status = "PASSED"
                message = "XPASS " + str(report.wasxfail) if hasattr(report, "wasxfail") else ""
        return "TEST_STATUS_" + status, _text(message)

    def details(self, sections):
        attempt = {
            "status": self.status()[0],
            "startTime": _timestamp(self.start),
            "duration": _duration(self.seconds),
        }
        failures = [_failure(report) for report in self.reports if report.outcome in ("failed", "rerun")]
        if failures:
            attempt["failures"] = failures
        for key, names in (("stdout", ("stdout",)), ("stderr", ("stderr", "log"))):
            written = "".join(text for name, text in sections if name.startswith(tuple("Captured " + n for n in names)))
            if written:
                attempt[key] = _text(written)
        return attempt


def _is_unexpected_pass(report):
    text = _long_text(report)
    return text.startswith("[XPASS(strict)]") or text in ("Unexpected success", "Failed: Unexpected success")


class _Test:
    """A test that runs."""

    def __init__(self, identity):
        self.identity = identity
        self.attempt = None
        self.ended = []
        self.sections_seen = 0

    def new_sections(self):
        """What was captured since the attempt began: every report carries all that came before it."""
        sections = self.attempt.reports[-1].sections if self.attempt.reports else []
        new = sections[self.sections_seen :] if len(sections) >= self.sections_seen else sections
        self.sections_seen = len(sections)
        return new


class _Reporter:
    """Makes events of what pytest tells its plug-ins."""

    def __init__(self, config, sink):
        self._config = config
        self._sink = sink
        self._names = _Names(config)
        self._tests = {}
        self._announced = False
        self._collecting = {}
        self._environment = {name: os.environ.get(name) for name in (EVENTS_VARIABLE, NESTED_VARIABLE)}
        os.environ.pop(EVENTS_VARIABLE, None)
        os.environ[NESTED_VARIABLE] = "1"
        self._exit_code = None

    def _emit(self, kind, value):
        event = {"time": _timestamp(time.time()), kind: value}
        self._sink.write(event)

    def _problem(self, severity, message):
        self._emit("problem", {"severity": "PROBLEM_SEVERITY_" + severity, "message": _text(message)})

    # Collection

    def pytest_collectstart(self, collector):
        if isinstance(collector, pytest.File) and not isinstance(collector, pytest.Package):
            self._collecting[collector.nodeid] = time.time()
            self._emit("fileStarted", {"file": _name(self._names.file_of(collector.nodeid), MAX_FILE)})

    def pytest_collectreport(self, report):
        file = report.nodeid.partition("::")[0]
        started = self._collecting.pop(report.nodeid, None)
        if report.failed or started is not None:
            ended = {"file": _name(self._names.file_of(file) or "?", MAX_FILE)}
            if started is not None:
                ended["duration"] = _duration(time.time() - started)
            if report.failed:
                ended["failures"] = [_failure(report)]
            self._emit("fileEnded", ended)
        if report.skipped:
            # pytest counts a file that skips itself as one skipped test.
            self._end_collector(report)

    def _end_collector(self, report):
        result = {"test": self._names.identity(report.nodeid), "status": "TEST_STATUS_SKIPPED"}
        result["message"] = _text(_skip_reason(report))
        self._emit("testEnded", result)

    def pytest_collection_finish(self, session):
        self._announce([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node, ids):
        if not self._announced:
            self._announce(ids)

    def _announce(self, ids):
        self._announced = self._announced or bool(ids)
        for start in range(0, len(ids), FOUND_BATCH):
            tests = [self._names.identity(node_id) for node_id in ids[start : start + FOUND_BATCH]]
            self._emit("testsFound", {"tests": tests})

    # Execution

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid):
        self._begin(nodeid)

    def _begin(self, node_id):
        test = self._tests.get(node_id)
        if test is None:
            test = self._tests[node_id] = _Test(self._names.identity(node_id))
        test.attempt = _Attempt(len(test.ended) + 1)
        self._emit("testStarted", {"test": test.identity, "attempt": test.attempt.number})
        return test

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        test = self._tests.get(report.nodeid)
        if test is None or test.attempt is None:
            test = self._begin(report.nodeid)
        if hasattr(report, "context") and hasattr(report.context, "kwargs"):
            self._end_subtest(test.attempt, report)
            return
        if report.when == "setup" and test.attempt.rerun:
            self._end_attempt(test)
            test = self._begin(report.nodeid)
        test.attempt.reports.append(report)
        if report.when not in ("setup", "call", "teardown"):
            # pytest-xdist says so about the test during which a worker died, and says no more about it.
            self._finish(report.nodeid)

    def pytest_runtest_logfinish(self, nodeid):
        test = self._tests.get(nodeid)
        if test is None or test.attempt is None or not test.attempt.reports:
            return
        if test.attempt.rerun:
            self._end_attempt(test)
        else:
            self._finish(nodeid)

    def _end_attempt(self, test):
        details = test.attempt.details(test.new_sections())
        if len(test.ended) < MAX_ATTEMPTS - 1:
            test.ended.append(details)
        self._emit("attemptEnded", {"test": test.identity, "attempt": test.attempt.number, "result": details})
        test.attempt = None

    def _finish(self, node_id):
        test = self._tests.pop(node_id)
        attempt = test.attempt
        details = attempt.details(test.new_sections())
        status, message = attempt.status()
        result = {
            "test": test.identity,
            "status": status,
            "startTime": details["startTime"],
            "duration": details["duration"],
        }
        # Attempts before the last were told already; the last is told where it says more than the result.
        if test.ended or any(key in details for key in ("failures", "stdout", "stderr")):
            result["attempts"] = test.ended + [details]
        if message:
            result["message"] = message
        self._describe(result, attempt.reports)
        self._emit("testEnded", result)

    def _describe(self, result, reports):
        """What reports say besides how the test went."""
        report = reports[-1]
        tags = [tag for tag in getattr(report, "toolplane", {}).get("tags", []) if len(tag) <= MAX_TAG]
        if tags:
            result["tags"] = [_text(tag) for tag in tags]
        file, line = report.location[0].replace(os.sep, "/"), report.location[1]
        if line is not None and file == report.nodeid.partition("::")[0]:
            result["line"] = line + 1
        properties = getattr(report, "user_properties", None) or []
        if properties:
            result["properties"] = {_text(key, 256): _text(value, 4096) for key, value in properties[:MAX_PROPERTIES]}

    def _end_subtest(self, attempt, report):
        part = self._names.subtest(report)
        key = json.dumps(part)
        occurrence = attempt.subtests.get(key, 0)
        attempt.subtests[key] = occurrence + 1
        if occurrence:
            part["occurrence"] = occurrence
        single = _Attempt(1)
        single.start = getattr(report, "start", 0) or single.start
        single.reports.append(report)
        # Of a subtest, only what it wrote itself.
        details = single.details(report.sections)
        status, message = single.status()
        result = {"test": part, "status": status, "startTime": details["startTime"], "duration": details["duration"]}
        if any(key in details for key in ("failures", "stdout", "stderr")):
            result["attempts"] = [details]
        if message:
            result["message"] = message
        self._emit("testEnded", result)

    # The end

    def pytest_internalerror(self, excrepr):
        self._problem("ERROR", "pytest failed inside: {}".format(excrepr))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session, exitstatus):
        self._exit_code = int(exitstatus)
        for node_id, test in list(self._tests.items()):
            # Some plug-ins do not say that a test has ended.
            if test.attempt is not None and any(report.when == "teardown" for report in test.attempt.reports):
                self._finish(node_id)
            elif test.attempt is None and test.ended:
                # It was to run again, and did not.
                result = {"test": test.identity, "status": test.ended[-1]["status"], "attempts": test.ended}
                self._emit("testEnded", result)
        if self._exit_code == 5:
            self._problem("WARNING", "pytest found no tests to run: the selection, or a pattern for files, fits none")

    def pytest_unconfigure(self):
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._sink.close(self._exit_code)


# -- Where events go ------------------------------------------------------------------------------------------------


def _warn(message):
    try:
        sys.__stderr__.write("toolplane: {}\n".format(message))
    except Exception:  # noqa: BLE001 - there is nobody left to tell
        pass


def _encoded(event):
    return json.dumps(event, separators=(",", ":")).encode("ascii")


class _Spool:
    """Appends events to a file, which somebody else reads."""

    def __init__(self, path):
        self._path = path
        self._pid = os.getpid()
        self._file = None
        self._broken = False

    def write(self, event):
        # A fork of pytest runs on with a copy of the reporter, and is not the run.
        if self._broken or os.getpid() != self._pid:
            return
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
            line = _encoded(event) + b"\n"
            # One write a line, so that lines of several processes do not mix.
            if os.write(self._file, line) != len(line):
                raise OSError("the disk is full")
        except OSError as error:
            self._broken = True
            _warn("test events cannot be written to {}: {}".format(self._path, error))

    def close(self, exit_code):
        if self._file is not None and os.getpid() == self._pid:
            os.close(self._file)
            self._file = None


class _Refused(Exception):
    """The server has answered, and asking again will not help."""

    def __init__(self, code, message, reason=""):
        super().__init__(message)
        self.code = code
        self.reason = reason


class _Cancelled(Exception):
    """The run was cancelled."""


class _Upload:
    """Uploads events from a thread of its own, in order, each at least once; their positions make it exactly once."""

    MAX_PENDING_BYTES = 32 * 1024 * 1024
    MAX_BATCH_BYTES = 1024 * 1024
    MAX_BATCH_EVENTS = 500
    # The server gives a silent run 60 s.
    HEARTBEAT_SECONDS = 15.0
    REQUEST_SECONDS = 10.0
    # How long pytest waits at its end for what is not uploaded yet.
    FLUSH_SECONDS = 30.0
    # The same where the server has not answered once: it is likely not there.
    UNREACHED_SECONDS = 5.0
    BACKOFF_SECONDS = (0.1, 5.0)

    RETRYABLE = {"unavailable", "deadline_exceeded", "aborted", "resource_exhausted"}

    def __init__(self, url, config):
        self._url = url.rstrip("/") + "/toolplane.testing.v1.TestRunService/"
        self._token = os.environ.get("TOOLPLANE_TOKEN")
        self._request = {
            "project": _project_of(config),
            "framework": "pytest",
            "requestId": str(uuid.uuid4()),
        }
        if os.environ.get("TOOLPLANE_ENVIRONMENT"):
            self._request["environment"] = os.environ["TOOLPLANE_ENVIRONMENT"]
        self._directory = str(config.rootpath)
        self._reporter = "pytest-" + uuid.uuid4().hex[:12]
        self._changed = threading.Condition()
        self._pending = []
        self._pending_bytes = 0
        self._dropped = 0
        self._finish = None
        self._stopped = threading.Event()
        self._pid = os.getpid()
        self._outcome = "nothing was uploaded in time"
        self._reached = threading.Event()
        # The batch that is on its way, and how many events the server has. Only the thread touches them.
        self._sent = 0
        self._limit = self.MAX_BATCH_EVENTS
        self._thread = threading.Thread(target=self._run, name="toolplane-upload", daemon=True)
        self._thread.start()

    def write(self, event):
        if os.getpid() != self._pid:
            return
        line = _encoded(event)
        with self._changed:
            if self._pending_bytes + len(line) > self.MAX_PENDING_BYTES:
                self._dropped += 1
                return
            if self._dropped:
                self._push(_encoded(_dropped_problem(self._dropped)))
                self._dropped = 0
            self._push(line)
            self._changed.notify()

    def _push(self, line):
        self._pending.append(line)
        self._pending_bytes += len(line)

    def close(self, exit_code):
        if os.getpid() != self._pid:
            return
        with self._changed:
            if self._dropped:
                self._push(_encoded(_dropped_problem(self._dropped)))
            self._finish = {"reporter": self._reporter}
            if exit_code is not None:
                self._finish["exitCode"] = exit_code
            if exit_code in (2, 3, 4, None):
                self._finish["reason"] = "TEST_RUN_END_REASON_RUNNER_ERROR"
                self._finish["message"] = _EXIT_MESSAGES.get(exit_code, "pytest ended before its session did")
            self._changed.notify()
        deadline = time.monotonic() + self.FLUSH_SECONDS
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(self.UNREACHED_SECONDS)
            if not self._reached.is_set():
                break
        self._stopped.set()
        if self._outcome:
            _warn("the test run at {} is not complete: {}".format(self._url.split("/toolplane.")[0], self._outcome))

    def _run(self):
        try:
            self._request["context"] = _context(self._directory)
            run_id = self._call("CreateTestRun", self._request)["run"]["id"]
            self._outcome = "not all events were uploaded in time"
            while True:
                batch = self._next_batch()
                if batch is None:
                    break
                self._append(run_id, batch)
            self._call("FinishTestRun", dict(self._finish, runId=run_id, lastPosition=str(self._sent)))
            self._outcome = ""
        except _Cancelled:
            self._outcome = "it was cancelled"
        except _Refused as error:
            self._outcome = str(error)
        except Exception as error:  # noqa: BLE001 - reporting must not be what fails a test run
            self._outcome = "the reporter failed: {!r}".format(error)

    def _next_batch(self):
        """Events that are due; none at all after a while of silence; None at the end."""
        with self._changed:
            if not self._pending and self._finish is None:
                self._changed.wait(self.HEARTBEAT_SECONDS)
            if not self._pending:
                return None if self._finish is not None else []
            batch, size = [], 0
            for line in self._pending[: self._limit]:
                if batch and size + len(line) > self.MAX_BATCH_BYTES:
                    break
                batch.append(line)
                size += len(line)
            return batch

    def _append(self, run_id, batch):
        head = {"runId": run_id, "reporter": self._reporter, "firstPosition": str(self._sent + 1)}
        body = _encoded(head)[:-1] + b',"events":[' + b",".join(batch) + b"]}"
        try:
            answer = self._call("AppendTestEvents", body)
        except _Refused as error:
            if error.code not in ("invalid_argument", "resource_exhausted") or not batch:
                raise
            if len(batch) > 1:
                self._limit = max(1, len(batch) // 2)
                return
            # One event that the server does not take must not keep the others from it.
            message = "The server did not take an event of the reporter: {}".format(error)
            problem = _encoded({"problem": {"severity": "PROBLEM_SEVERITY_ERROR", "message": _text(message)}})
            with self._changed:
                self._pending_bytes += len(problem) - len(self._pending[0])
                if self._pending[0] == problem:
                    raise
                self._pending[0] = problem
            return
        self._sent += len(batch)
        self._limit = min(self.MAX_BATCH_EVENTS, self._limit * 2)
        with self._changed:
            del self._pending[: len(batch)]
            self._pending_bytes -= sum(len(line) for line in batch)
        if answer.get("cancelled"):
            raise _Cancelled()

    def _call(self, method, message):
        """Asks until there is an answer. The server recognises what it has had before."""
        body = message if isinstance(message, bytes) else _encoded(message)
        delay, longest = self.BACKOFF_SECONDS
        while True:
            try:
                return self._call_once(method, body)
            except _Refused as error:
                if error.code not in self.RETRYABLE:
                    raise
                self._outcome = str(error)
            except (OSError, ValueError) as error:
                # Broken connections, and answers that are not the server's, such as those of a gateway.
                self._outcome = "the server cannot be reached: {}".format(error)
            if self._stopped.wait(delay):
                raise _Refused("canceled", self._outcome)
            delay = min(delay * 2, longest)

    def _call_once(self, method, body):
        headers = {"Content-Type": "application/json", "Connect-Protocol-Version": "1"}
        if self._token:
            headers["Authorization"] = "Bearer " + self._token
        request = urllib.request.Request(self._url + method, data=body, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self.REQUEST_SECONDS) as response:
                self._reached.set()
                return json.loads(response.read(4 * 1024 * 1024).decode("utf-8"))
        except urllib.error.HTTPError as error:
            self._reached.set()
            raise _refusal(error)


_EXIT_MESSAGES = {
    2: "pytest was interrupted, or could not load all files",
    3: "pytest failed inside",
    4: "pytest was used wrongly",
}


def _refusal(error):
    """The error of a Connect server, or one made of the status that something in between has answered with."""
    status = error.code
    try:
        answer = json.loads(error.read(1024 * 1024).decode("utf-8"))
        return _Refused(str(answer["code"]), str(answer.get("message", answer["code"])))
    except (OSError, ValueError, KeyError, TypeError):
        code = "unavailable" if status in (408, 429) or status >= 500 else "unknown"
        return _Refused(code, "the server answered with HTTP status {}".format(status))


def _dropped_problem(count):
    message = "{} events were dropped: they came faster than they could be uploaded".format(count)
    return {"problem": {"severity": "PROBLEM_SEVERITY_ERROR", "message": message}}


def _project_of(config):
    given = config.option.toolplane_project or os.environ.get("TOOLPLANE_PROJECT")
    name = given or re.sub(r"[^a-zA-Z0-9@/._ -]", "-", os.path.basename(str(config.rootpath))).lstrip("-./_ ")
    return (name or "tests")[:128]


def _context(directory):
    """What is tested, and where."""

    def git(*arguments):
        try:
            command = ("git",) + arguments
            environment = dict(os.environ, GIT_OPTIONAL_LOCKS="0")
            done = subprocess.run(
                command, cwd=directory, env=environment, timeout=3, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )
            return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""
        except (OSError, subprocess.SubprocessError):
            return ""

    def first(*names):
        return next((os.environ[name] for name in names if os.environ.get(name)), "")

    commit = git("rev-parse", "HEAD") or first("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT", "BUILDKITE_COMMIT")
    branch = first("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "GIT_BRANCH", "BUILDKITE_BRANCH")
    return {
        "commit": commit[:128],
        "branch": (branch or git("symbolic-ref", "--quiet", "--short", "HEAD"))[:256],
        "dirty": git("status", "--porcelain", "--untracked-files=no") != "",
        "platform": "{}/{}".format(platform.system().lower(), platform.machine().lower()),
        "runtime": "{} {}".format(platform.python_implementation().lower(), platform.python_version()),
        "frameworkVersion": "pytest " + pytest.__version__,
        "host": socket.gethostname()[:256],
        "buildUrl": first("CI_JOB_URL", "BUILDKITE_BUILD_URL", "CIRCLE_BUILD_URL", "BUILD_URL")[:2048],
    }
