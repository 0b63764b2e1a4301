/** Small reports as each producer writes them. */
export const reports = {
  surefire: `<?xml version="1.0" encoding="UTF-8"?>
<testsuite xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" name="com.acme.CartTest" time="1,234.6" tests="4" errors="0" skipped="1" failures="1">
  <properties><property name="java.version" value="21"/></properties>
  <testcase name="adds" classname="com.acme.CartTest" time="1,234.5"/>
  <testcase name="sometimes" classname="com.acme.CartTest" time="0.02">
    <flakyFailure message="expected 1" type="AssertionError"><stackTrace><![CDATA[at CartTest:7]]></stackTrace><system-out>first try</system-out></flakyFailure>
    <flakyError message="no net" type="IOException"><stackTrace>at Net:1</stackTrace></flakyError>
  </testcase>
  <testcase name="never" classname="com.acme.CartTest" time="0,03">
    <failure message="a &lt; b" type="AssertionError">at CartTest:9</failure>
    <rerunError message="again" type="IOException"><stackTrace>at Net:2</stackTrace></rerunError>
  </testcase>
  <testcase name="counts(int)[2]" classname="com.acme.CartTest" time="0"><skipped message="off"/></testcase>
</testsuite>
`,
  pytest: `<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="2" tests="5" time="0.050" timestamp="2026-01-02T03:04:05.678901+00:00" hostname="box"><testcase classname="tests.unit.test_io.TestRead" name="test_read[3-utf8]" file="tests/unit/test_io.py" line="12" time="0.001"><properties><property name="owner" value="ada" /></properties></testcase><testcase classname="tests.unit.test_io" name="test_known" time="0.002"><skipped type="pytest.xfail" message="known" /></testcase><testcase classname="tests.unit.test_io" name="test_strict" time="0.002"><failure message="[XPASS(strict)] ">[XPASS(strict)] </failure></testcase><testcase classname="tests.unit.test_io" name="test_setup" time="0.003"><error message="failed on setup with &quot;KeyError&quot;">KeyError</error></testcase><testcase classname="tests.unit.test_io" name="test_later" time="0.000"><skipped type="pytest.skip" message="not on this machine">/x/test_io.py:3: not on this machine</skipped></testcase></testsuite></testsuites>`,
  vitest: `<?xml version="1.0" encoding="UTF-8" ?>
<testsuites name="vitest tests" tests="1" failures="0" errors="0" time="0.2">
    <testsuite name="src/a.test.ts" timestamp="2026-01-02T03:04:05.678Z" hostname="box" tests="1" failures="0" errors="0" skipped="0" time="0.005">
        <testcase classname="src/a.test.ts" name="cart &gt; adds" time="0.005">
        </testcase>
    </testsuite>
</testsuites>
`,
  jest: `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="jest tests" tests="2" failures="1" errors="0" time="1.1">
  <testsuite name="cart" errors="0" failures="1" skipped="0" timestamp="2026-01-02T03:04:05" time="0.8" tests="2">
    <testcase classname="cart adds" name="cart adds" time="0.007" file="src/b.test.js"><failure>Error: expect(received)</failure></testcase>
    <testcase classname="cart" name="is empty" time="0.001" file="src/b.test.js"></testcase>
  </testsuite>
</testsuites>`,
  nodeTest: `<?xml version="1.0" encoding="utf-8"?>
<testsuites>
	<testsuite name="outer" time="0.003" disabled="0" errors="0" tests="2" failures="0" skipped="1" hostname="box">
		<testcase name="inner" time="0.002" classname="test" file="/repo/a.test.js"/>
		<testcase name="later" time="0.000" classname="test" file="/repo/a.test.js"><skipped type="todo" message="true"/></testcase>
	</testsuite>
	<!-- tests 2 -->
</testsuites>
`,
  mocha: `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="Mocha Tests" time="0.004" tests="1" failures="0">
  <testsuite name="Root Suite" timestamp="2026-01-02T03:04:05" tests="0" file="test/a.js" time="0" failures="0"></testsuite>
  <testsuite name="Cart" timestamp="2026-01-02T03:04:05" tests="1" file="test/a.js" time="0.004" failures="0">
    <testcase name="Cart when empty adds" time="0.004" classname="adds"></testcase>
  </testsuite>
</testsuites>`,
  phpunit: `<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="/app/phpunit.xml" tests="1" assertions="1" errors="0" failures="0" skipped="0" time="0.009">
    <testsuite name="Tests\\CartTest" file="/app/tests/CartTest.php" tests="1" assertions="1" errors="0" failures="0" skipped="0" time="0.009">
      <testsuite name="Tests\\CartTest::testAdds" tests="1" assertions="1" errors="0" failures="0" skipped="0" time="0.009">
        <testcase name="testAdds with data set &quot;two items&quot;" file="/app/tests/CartTest.php" line="20" class="Tests\\CartTest" classname="Tests.CartTest" assertions="1" time="0.009"/>
      </testsuite>
    </testsuite>
  </testsuite>
</testsuites>`,
  gotestsum: `<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="1" failures="0" errors="0" time="0.01">
	<testsuite tests="1" failures="0" time="0.010000" name="acme.com/shop/cart" timestamp="2026-01-02T03:04:05Z">
		<properties><property name="go.version" value="go1.24 linux/amd64"></property></properties>
		<testcase classname="acme.com/shop/cart" name="TestAdd/two" time="0.010000"></testcase>
	</testsuite>
</testsuites>`,
  ctest: `<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="Linux-c++" tests="3" failures="1" disabled="1" skipped="0" hostname="" time="0" timestamp="2026-01-02T03:04:05">
	<testcase name="unit" classname="unit" time="0.5" status="run"><properties/><system-out>ok</system-out></testcase>
	<testcase name="off" classname="off" time="0" status="disabled"/>
	<testcase name="broken" classname="broken" time="0.1" status="fail"><failure message=""/></testcase>
</testsuite>`,
  gradle: `<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="com.acme.FooTest" tests="1" skipped="0" failures="0" errors="0" timestamp="2026-01-02T03:04:05" hostname="box" time="0.001">
  <properties/>
  <testcase name="works()" classname="com.acme.FooTest" time="0.001"/>
  <system-out><![CDATA[]]></system-out>
  <system-err><![CDATA[]]></system-err>
</testsuite>`,
  ctrf: `{
  "reportFormat": "CTRF",
  "specVersion": "0.0.0",
  "results": {
    "tool": { "name": "playwright" },
    "summary": { "tests": 3, "passed": 1, "failed": 1, "skipped": 0, "pending": 0, "other": 1, "start": 1700000000000, "stop": 1700000001000 },
    "tests": [
      { "name": "adds", "status": "passed", "duration": 12, "suite": ["cart"], "filePath": "e2e/cart.spec.ts", "tags": ["fast"], "browser": "firefox", "retries": 1, "flaky": true, "retryAttempts": [{ "attempt": 1, "status": "failed", "message": "timeout" }], "attachments": [{ "name": "shot", "contentType": "image/png", "path": "out/shot.png" }], "steps": [{ "name": "open", "status": "passed" }] },
      { "name": "breaks", "status": "failed", "duration": 3, "message": "boom", "trace": "at x", "start": 1700000000500 },
      { "name": "stopped", "status": "other", "rawStatus": "interrupted", "duration": 0 }
    ]
  }
}`,
  goTest: `{"Time":"2026-01-02T03:04:05Z","Action":"start","Package":"acme.com/shop"}
{"Time":"2026-01-02T03:04:05Z","Action":"run","Package":"acme.com/shop","Test":"TestAdd"}
{"Time":"2026-01-02T03:04:06Z","Action":"pass","Package":"acme.com/shop","Test":"TestAdd","Elapsed":0.5}
{"Time":"2026-01-02T03:04:06Z","Action":"pass","Package":"acme.com/shop","Elapsed":0.6}
`,
  lcov: `TN:
SF:/repo/src/a.ts
FN:1,adds
FNDA:3,adds
FNF:1
FNH:1
BRDA:2,0,0,1
BRDA:2,0,1,-
BRF:2
BRH:1
DA:1,3
DA:2,99999999999
DA:3,0
LF:3
LH:2
end_of_record
TN:
SF:/repo/src/b.ts
DA:1,0
end_of_record
`,
  istanbul: `{"/repo/src/a.ts":{"path":"/repo/src/a.ts","statementMap":{"0":{"start":{"line":1,"column":0},"end":{"line":1,"column":9}},"1":{"start":{"line":2,"column":0},"end":{"line":2,"column":9}}},"fnMap":{"0":{"name":"adds","decl":{"start":{"line":1,"column":0},"end":{"line":1,"column":9}},"loc":{"start":{"line":1,"column":0},"end":{"line":1,"column":9}},"line":1}},"branchMap":{"0":{"loc":{"start":{"line":2,"column":0},"end":{"line":2,"column":9}},"type":"if","locations":[{"start":{"line":2,"column":0},"end":{"line":2,"column":9}},{"start":{"line":2,"column":0},"end":{"line":2,"column":9}}],"line":2}},"s":{"0":4,"1":0},"f":{"0":4},"b":{"0":[4,0]}}}`,
  cobertura: `<?xml version="1.0" ?>
<!DOCTYPE coverage SYSTEM 'http://cobertura.sourceforge.net/xml/coverage-04.dtd'>
<coverage line-rate="0.5" branch-rate="0.5" version="1.9" timestamp="1700000000">
  <sources><source>/repo/src</source></sources>
  <packages><package name="shop"><classes>
    <class name="Cart" filename="cart.py" line-rate="0.5">
      <methods><method name="adds" signature="()"><lines><line number="1" hits="2"/></lines></method></methods>
      <lines><line number="1" hits="2"/><line number="2" hits="0" branch="true" condition-coverage="50% (1/2)"/></lines>
    </class>
    <class name="Item" filename="item.py"><methods/><lines><line number="5" hits="1"/></lines></class>
  </classes></package></packages>
</coverage>`,
  goCover: `mode: count
acme.com/shop/cart.go:3.20,5.2 2 7
acme.com/shop/cart.go:5.2,6.10 1 0
acme.com/shop/item.go:1.1,1.9 1 1
`,
} as const;
