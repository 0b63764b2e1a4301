import { afterAll, beforeAll, describe } from "vitest";
import { testCommandLineClients } from "./command-line-clients.suite.ts";
import { testExamples } from "./examples.suite.ts";
import { testGeneratedClients } from "./generated-clients.suite.ts";
import { type Polyglot, startPolyglot } from "./setup.ts";

// One server and one set of services for all: starting and building them is what takes time here.
let polyglot: Polyglot;
beforeAll(async () => {
  polyglot = await startPolyglot();
});
afterAll(() => polyglot?.close());

describe("examples", () => testExamples(() => polyglot));
describe("command-line clients", () => testCommandLineClients(() => polyglot));
describe("generated clients", () => testGeneratedClients(() => polyglot));
