import { describe } from "vitest";
import { testGoTest } from "./go-test.suite.ts";
import { testJavaScriptSuites } from "./javascript.suite.ts";
import { testJest } from "./jest.suite.ts";
import { testPytest } from "./pytest.suite.ts";

describe("go test", testGoTest);
describe("Jest", testJest);
describe("suites in JavaScript", testJavaScriptSuites);
describe("pytest", testPytest);
