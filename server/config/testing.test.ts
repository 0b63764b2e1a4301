import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { loadText, mistakesIn } from "./test-support/load-text.ts";

const page = readFileSync(join(import.meta.dirname, "../../docs/configuration.md"), "utf8");

test("without a word on it, no project can be run and the documented limits hold", () => {
  expect(loadText("").testing).toEqual({
    projects: new Map(),
    maxConcurrentRuns: 2,
    maxQueuedRuns: 100,
    retentionMs: 7_776_000_000,
    maxRunsPerProject: 2_000,
    maxEventsPerRun: 1_000_000,
    maxImportBytes: 268_435_456,
  });
});

test("a project needs no more than a name, a runner and a directory", () => {
  const { projects } = loadText(
    "testing: { projects: [{ name: web, runner: vitest, directory: /srv/web }] }",
  ).testing;

  expect([...projects]).toEqual([
    [
      "web",
      {
        name: "web",
        description: "",
        runner: "vitest",
        directory: "/srv/web",
        command: ["vitest", "run"],
        environments: new Map([["default", { variables: {}, passed: [] }]]),
        timeoutMs: 1_800_000,
        silenceMs: 600_000,
        maxConcurrentRuns: 1,
        reports: [],
        coverageFiles: [],
      },
    ],
  ]);
});

test("an environment adds to what the project says", () => {
  const { projects } = loadText(`
    testing:
      projects:
        - name: web
          runner: jest
          directory: /srv/web
          variables: { A: project, B: project }
          pass_environment: [X]
          environments:
            - { name: plain }
            - { name: staging, variables: { B: staging }, pass_environment: [X, Y] }`).testing;

  expect(projects.get("web")?.environments).toEqual(
    new Map([
      ["plain", { variables: { A: "project", B: "project" }, passed: ["X"] }],
      ["staging", { variables: { A: "project", B: "staging" }, passed: ["X", "Y"] }],
    ]),
  );
});

test("directories are relative to the folder of the file", () => {
  const [project] = loadText(
    "testing: { projects: [{ name: web, runner: jest, directory: ../web }] }",
  ).testing.projects.values();

  expect(project?.directory).toMatch(/^\/.*\/web$/);
  expect(project?.directory).not.toContain("..");
  expect(project?.directory).not.toContain("toolplane-config-");
});

test("mistakes are told by their fields", () => {
  expect(
    mistakesIn(`
      testing:
        projects:
          - { name: a, runner: command, directory: a }
          - { name: a, runner: jest, directory: a, command: [""], reports: [../x.xml], coverage_files: [/lcov.info] }
          - { name: b, runner: jest, directory: b, environments: [{ name: x }, { name: x }] }`),
  ).toEqual({
    "testing.projects[0].command": expect.stringContaining("is needed"),
    "testing.projects[0].reports": expect.stringContaining("is needed"),
    "testing.projects[1].command[0]": expect.stringContaining("program"),
    "testing.projects[1].reports[0]": expect.stringContaining("stay below"),
    "testing.projects[1].coverage_files[0]": expect.stringContaining("stay below"),
    "testing.projects[1].name": expect.stringContaining('"a"'),
    "testing.projects[2].environments[1].name": expect.stringContaining('"x"'),
  });
  expect(Object.keys(mistakesIn("testing: { projects: [{ name: a, runner: make, directory: a }] }"))).toEqual(
    ["testing.projects[0].runner"],
  );
});

test("the example in the documentation is valid", () => {
  const [, example = ""] = /^## Test runs$.*?```yaml\n(.*?)```/ms.exec(page) ?? [];

  const { projects } = loadText(example).testing;

  expect([...projects.keys()]).toEqual(["web", "billing"]);
  expect([...(projects.get("web")?.environments.keys() ?? [])]).toEqual(["default", "staging"]);
});
