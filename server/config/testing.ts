import { isAbsolute, resolve } from "node:path";
import type { RunnerKind } from "@toolplane/client/runners";
import type {
  TestEnvironmentConfig,
  TestingConfig,
  TestProjectConfig,
} from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { milliseconds } from "./durations.ts";
import type { ReportMistake } from "./mistakes.ts";

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

/** Which projects this server may run, and what is kept of test runs. */
export interface TestingSettings {
  /** By name. */
  readonly projects: ReadonlyMap<string, TestProjectSettings>;
  /** On this replica. */
  readonly maxConcurrentRuns: number;
  /** On all replicas together. */
  readonly maxQueuedRuns: number;
  readonly retentionMs: number;
  readonly maxRunsPerProject: number;
  readonly maxEventsPerRun: number;
  readonly maxImportBytes: number;
}

/** A project whose tests can be run. */
export interface TestProjectSettings {
  readonly name: string;
  readonly description: string;
  readonly runner: RunnerKind;
  /** Absolute. */
  readonly directory: string;
  /** How the runner is started. At least one word. */
  readonly command: readonly string[];
  /** By name; at least one. */
  readonly environments: ReadonlyMap<string, TestEnvironmentSettings>;
  readonly timeoutMs: number;
  readonly silenceMs: number;
  /** On all replicas together. */
  readonly maxConcurrentRuns: number;
  readonly reports: readonly string[];
  readonly coverageFiles: readonly string[];
}

/** What the runner gets of the environment, with what the project says for all of its environments. */
export interface TestEnvironmentSettings {
  readonly variables: Readonly<Record<string, string>>;
  /** Names of the server's variables. */
  readonly passed: readonly string[];
}

/** How each runner is started where the configuration does not say. `command` has no default. */
const COMMANDS: Readonly<Record<RunnerKind, readonly string[]>> = {
  vitest: ["vitest", "run"],
  jest: ["jest"],
  "node-test": ["node", "--test"],
  pytest: ["pytest"],
  "go-test": ["go", "test"],
  command: [],
};

/** The environment that a project has when it names none. */
const DEFAULT_ENVIRONMENT = "default";

/** @param folder that relative directories of projects stand below */
export function resolveTesting(
  config: TestingConfig | undefined,
  folder: string,
  report: ReportMistake,
): TestingSettings {
  const projects = (config?.projects ?? []).map((project, index) =>
    resolveProject(project, folder, `testing.projects[${index}]`, report),
  );
  reportTwins(projects, "testing.projects", report);
  return {
    projects: new Map(projects.map((project) => [project.name, project])),
    maxConcurrentRuns: config?.maxConcurrentRuns || 2,
    maxQueuedRuns: config?.maxQueuedRuns || 100,
    retentionMs: milliseconds(config?.retention, 90 * DAY),
    maxRunsPerProject: config?.maxRunsPerProject || 2_000,
    maxEventsPerRun: config?.maxEventsPerRun || 1_000_000,
    maxImportBytes: Number(config?.maxImportBytes ?? 0n) || 256 * 1024 * 1024,
  };
}

function resolveProject(
  config: TestProjectConfig,
  folder: string,
  field: string,
  report: ReportMistake,
): TestProjectSettings {
  const runner = config.runner as RunnerKind;
  const command = config.command.length > 0 ? config.command : COMMANDS[runner];
  if (command.length === 0) {
    report(
      `${field}.command`,
      'is needed for the runner "command": the words that start it, such as [make, test]',
    );
  } else if (command[0] === "") {
    report(`${field}.command[0]`, "must name the program to start");
  }
  if (runner === "command" && config.reports.length === 0) {
    report(
      `${field}.reports`,
      'is needed for the runner "command": where it writes JUnit XML, such as build/*.xml',
    );
  }
  for (const name of ["reports", "coverageFiles"] as const) {
    for (const [index, pattern] of config[name].entries()) {
      if (isAbsolute(pattern) || pattern.split("/").includes("..")) {
        const place = name === "reports" ? "reports" : "coverage_files";
        report(
          `${field}.${place}[${index}]`,
          "must be relative to the project's directory and stay below it",
        );
      }
    }
  }
  const environments =
    config.environments.length > 0 ? config.environments : [{ name: DEFAULT_ENVIRONMENT, ...NOTHING_MORE }];
  reportTwins(environments, `${field}.environments`, report);
  return {
    name: config.name,
    description: config.description,
    runner,
    directory: resolve(folder, config.directory),
    command,
    environments: new Map(environments.map((each) => [each.name, resolveEnvironment(config, each)])),
    timeoutMs: milliseconds(config.timeout, 30 * MINUTE),
    silenceMs: milliseconds(config.silenceTimeout, 10 * MINUTE),
    maxConcurrentRuns: config.maxConcurrentRuns || 1,
    reports: config.reports,
    coverageFiles: config.coverageFiles,
  };
}

type EnvironmentParts = Pick<TestEnvironmentConfig, "variables" | "passEnvironment">;

const NOTHING_MORE: EnvironmentParts = { variables: {}, passEnvironment: [] };

function resolveEnvironment(
  project: EnvironmentParts,
  environment: EnvironmentParts,
): TestEnvironmentSettings {
  return {
    variables: { ...project.variables, ...environment.variables },
    passed: [...new Set([...project.passEnvironment, ...environment.passEnvironment])],
  };
}

/** Reports every item whose name another one before it has. */
function reportTwins(
  items: readonly { readonly name: string }[],
  field: string,
  report: ReportMistake,
): void {
  const seen = new Set<string>();
  for (const [index, { name }] of items.entries()) {
    if (seen.has(name)) {
      report(
        `${field}[${index}].name`,
        `is ${JSON.stringify(name)}, as is that of another one; each needs its own`,
      );
    }
    seen.add(name);
  }
}
