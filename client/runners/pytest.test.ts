import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { TestIdentitySchema } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { pytestRunner } from "./pytest.ts";
import type { RunnerSelection } from "./runner.ts";

const ALL: RunnerSelection = { files: [], namePattern: "", tags: [], tests: [] };

let workFolder: string;
beforeEach(async () => {
  workFolder = await mkdtemp(join(tmpdir(), "toolplane-pytest-"));
});
afterEach(() => rm(workFolder, { recursive: true }));

function prepare(command: string, selection: Partial<RunnerSelection> = {}) {
  return pytestRunner.prepare({
    command: command.split(" "),
    directory: workFolder,
    selection: { ...ALL, ...selection },
    coverage: false,
    workFolder,
    spoolFile: join(workFolder, "spool.jsonl"),
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
