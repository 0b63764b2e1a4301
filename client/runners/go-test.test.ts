import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { TestIdentitySchema } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { describe, expect, it } from "vitest";
import { commandRunner } from "./command.ts";
import { goTestRunner } from "./go-test.ts";
import type { RunnerPlan, RunnerSelection } from "./runner.ts";

const ALL: RunnerSelection = { files: [], namePattern: "", tags: [], tests: [] };

function plan(command: string, selection: Partial<RunnerSelection> = {}, coverage = false): RunnerPlan {
  return {
    command: command.split(" "),
    directory: import.meta.dirname,
    selection: { ...ALL, ...selection },
    coverage,
    workFolder: "/work folder",
    spoolFile: "/work folder/spool",
    env: {},
  };
}

function test(file: string, ...levels: string[]): MessageInitShape<typeof TestIdentitySchema> {
  return { framework: "go-test", file, suitePath: levels.slice(0, -1), name: levels.at(-1) ?? "" };
}

async function argv(...given: Parameters<typeof plan>): Promise<string[]> {
  return [...(await goTestRunner.prepare(plan(...given))).argv];
}

async function argvOf(tests: ReturnType<typeof test>[], command = "go test"): Promise<string[]> {
  return argv(command, { tests: tests.map((each) => create(TestIdentitySchema, each)) });
}

describe("the command line of go test", () => {
  it("is recognised", () => {
    const recognised = [
      "go test",
      "/usr/local/go/bin/go test ./...",
      "go -C sub test",
      "env X=1 go1.24 test",
    ];
    expect(recognised.filter((command) => goTestRunner.recognises(command.split(" ")))).toEqual(recognised);
    const others = ["go vet", "cargo test", "go", "npm test", "gotestsum"];
    expect(others.filter((command) => goTestRunner.recognises(command.split(" ")))).toEqual([]);
  });

  it("gets -json and, where it names none, all packages", async () => {
    expect(await argv("go test")).toEqual(["go", "test", "-json", "./..."]);
    expect(await argv("go test -v -json ./a")).toEqual(["go", "test", "./a", "-v", "-json"]);
  });

  it("keeps flags with their values, and what is for the tests alone", async () => {
    expect(await argv("go test -race -run X -count 1 ./a ./b -update -timeout 5s -args -x y")).toEqual(
      "go test -json ./a ./b -race -run X -count 1 -update -timeout 5s -args -x y".split(" "),
    );
    expect(await argv("go test ./a -v more words")).toEqual("go test -json ./a -v more words".split(" "));
  });

  it("replaces packages by the selected ones, of which folders are paths", async () => {
    expect(await argv("go test -v ./...", { files: ["fixtures", "fixtures/...", "example.com/p"] })).toEqual(
      "go test -json ./fixtures ./fixtures/... example.com/p -v".split(" "),
    );
  });

  it("takes a pattern of names as a value that cannot be a flag", async () => {
    expect(await argv("go test ./a", { namePattern: "-exec=sh" })).toEqual(
      "go test -json -run=-exec=sh ./a".split(" "),
    );
    await expect(argv("go test -run A", { namePattern: "B" })).rejects.toMatchObject({
      field: "name_pattern",
    });
  });

  it("selects tests by their whole names, level by level", async () => {
    const words = await argvOf([test("p", "TestA"), test("p", "TestB", "x+y", "z"), test("q", "TestC")]);
    expect(words).toEqual(["go", "test", "-json", "-run=^TestA$|^TestB$/^x\\+y$/^z$|^TestC$", "p", "q"]);
  });

  it("runs of a test only the part that is selected, too", async () => {
    expect(await argvOf([test("p", "TestA"), test("p", "TestA", "x")])).toContain("-run=^TestA$/^x$");
  });

  it("selects benchmarks with their own flag, in place of the flags that were given", async () => {
    expect(await argvOf([test("p", "BenchmarkA")], "go test -run X -bench . -v ./...")).toEqual(
      "go test -json -run=^$ -bench=^BenchmarkA$ p -v".split(" "),
    );
  });

  it("refuses what go test cannot express", async () => {
    await expect(argv("go test", { tags: ["slow"] })).rejects.toMatchObject({ field: "tags" });
    await expect(argv("go test", { files: ["-exec=sh"] })).rejects.toMatchObject({ field: "files" });
    await expect(argvOf([test("-exec=sh", "TestA")])).rejects.toMatchObject({ field: "files" });
    const many = Array.from({ length: 10_000 }, (_, index) => test("p", `TestWithALongName${index}`));
    await expect(argvOf(many)).rejects.toMatchObject({ field: "test_ids" });
    await expect(argv("npm test")).rejects.toMatchObject({ field: "command" });
  });

  it("measures coverage where it does not do so already", async () => {
    const own = await goTestRunner.prepare(plan("go test -coverprofile c.out ./a", {}, true));
    expect(own).toMatchObject({ coverageFiles: ["c.out"] });
    const ours = await goTestRunner.prepare(plan("go test", {}, true));
    expect(ours.argv).toContain("-coverprofile=/work folder/coverage.out");
    expect(ours.coverageFiles).toEqual(["/work folder/coverage.out"]);
  });
});

describe("any other command", () => {
  it("is run as it is", async () => {
    expect((await commandRunner.prepare(plan("make test"))).argv).toEqual(["make", "test"]);
  });

  it("cannot be told which tests to run", async () => {
    for (const [field, selection] of Object.entries({
      files: { files: ["a"] },
      name_pattern: { namePattern: "a" },
      tags: { tags: ["a"] },
      test_ids: { tests: [create(TestIdentitySchema, test("p", "A"))] },
    })) {
      await expect(commandRunner.prepare(plan("make test", selection))).rejects.toMatchObject({ field });
    }
  });
});
