import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { TestIdentitySchema } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { pytestRunner } from "./pytest.ts";
import type { RunnerPlan, RunnerSelection } from "./runner.ts";

const ALL: RunnerSelection = { files: [], namePattern: "", tags: [], tests: [] };

let workFolder: string;
beforeEach(async () => {
  workFolder = await mkdtemp(join(tmpdir(), "toolplane-pytest-"));
});
afterEach(() => rm(workFolder, { recursive: true }));

function prepare(command: string, selection: Partial<RunnerSelection> = {}, more: Partial<RunnerPlan> = {}) {
  return pytestRunner.prepare({
    command: command.split(" "),
    directory: workFolder,
    env: {},
    selection: { ...ALL, ...selection },
    coverage: false,
    workFolder,
    spoolFile: join(workFolder, "spool.jsonl"),
    ...more,
  });
}

describe("the command line of pytest", () => {
  it("is recognised", () => {
    const recognised = [
      "pytest",
      ".venv/bin/pytest -x",
      "python3 -m pytest tests",
      "uv run pytest",
      "coverage run -m pytest",
    ];
    expect(recognised.filter((command) => pytestRunner.recognises(command.split(" ")))).toEqual(recognised);
    const others = ["python3 test.py", "tox", "nose2", "vitest"];
    expect(others.filter((command) => pytestRunner.recognises(command.split(" ")))).toEqual([]);
  });

  it("gets the plug-in, and is kept as it is otherwise", async () => {
    const { argv, env } = await prepare("python3 -m pytest -x tests");
    expect(argv).toEqual("python3 -m pytest -p toolplane_pytest -x tests".split(" "));
    expect(env["TOOLPLANE_TEST_EVENTS"]).toBe(join(workFolder, "spool.jsonl"));
    expect(env).not.toHaveProperty("TOOLPLANE_PYTEST_SELECTION");
    const [folder = ""] = env["PYTHONPATH"]?.split(":") ?? [];
    expect(await readFile(join(folder, "toolplane_pytest.py"), "utf8")).toContain("def pytest_configure");
  });

  it("and its environment have nothing of this process", async () => {
    vi.stubEnv("PYTHONPATH", "/secret/of/the/server");
    vi.stubEnv("TOOLPLANE_TOKEN", "secret");
    onTestFinished(() => void vi.unstubAllEnvs());
    const alone = await prepare("pytest");
    expect(alone.env["PYTHONPATH"]).toBe(join(workFolder, "pytest-plugin"));
    const configured = await prepare("pytest", {}, { env: { PYTHONPATH: "/of/the/project" } });
    expect(configured.env["PYTHONPATH"]).toBe(`${join(workFolder, "pytest-plugin")}:/of/the/project`);

    // It is asked for its plug-ins before coverage is measured, with what the project's code may see.
    const asked = join(workFolder, "asked.json");
    const pytest = join(workFolder, "pytest");
    await writeFile(
      pytest,
      `#!${process.execPath}\nrequire("node:fs").writeFileSync(${JSON.stringify(asked)}, JSON.stringify(process.env)); console.log("pytest-cov-7.0");`,
      { mode: 0o755 },
    );
    await prepare(pytest, {}, { coverage: true, env: { MINE: "1" } });
    expect(JSON.parse(await readFile(asked, "utf8"))).toEqual({ MINE: "1" });
  });

  it("has nothing of a selection, which goes into a file", async () => {
    const test = create(TestIdentitySchema, {
      file: "a.py",
      suitePath: ["T"],
      name: "test",
      parameters: "--x",
    });
    const chosen = { files: ["--help"], namePattern: "--version", tags: ["slow"] };
    const { argv, env } = await prepare("pytest", { ...chosen, tests: [test] });
    expect(argv).toEqual(["pytest", "-p", "toolplane_pytest"]);
    expect(JSON.parse(await readFile(env["TOOLPLANE_PYTEST_SELECTION"] ?? "", "utf8"))).toEqual({
      ...chosen,
      tests: [{ file: "a.py", suitePath: ["T"], name: "test", parameters: "--x" }],
    });
  });

  it("refuses tags that no mark can have, and other commands", async () => {
    for (const tag of ["not", "a b", "a)", ""]) {
      await expect(prepare("pytest", { tags: [tag] })).rejects.toMatchObject({ field: "tags" });
    }
    await expect(prepare("npm test")).rejects.toMatchObject({ field: "command" });
  });
});
