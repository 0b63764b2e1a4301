import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "..");
const node = join(root, "node_modules/.bin/node");

/** Pages whose programs are whole: each one runs by itself and prints what its lines with an arrow say. */
const pages = ["docs/policies.md", "framework/README.md"];

/** The programs of a page, named by the heading above them. */
function programs(page: string): { heading: string; source: string }[] {
  const text = readFileSync(join(root, page), "utf8");
  return text.split(/^#+ /m).flatMap((section) => {
    const [heading = ""] = section.split("\n");
    return [...section.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, source = ""]) => ({ heading, source }));
  });
}

/** What a program says that it prints. */
function promised(source: string): string[] {
  return [...source.matchAll(/\/\/ → (.*)$/gm)].map(([, line = ""]) => line);
}

describe.each(pages)("%s", (page) => {
  const all = programs(page);
  const fileOf = (index: number) => `program-${index}.ts`;
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "toolplane-docs-"));
    await symlink(join(root, "node_modules"), join(folder, "node_modules"));
    for (const name of ["gen", "text-service.ts"]) {
      await symlink(join(root, "examples/typescript", name), join(folder, name));
    }
    await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module" }));
    const compilerOptions = { noEmit: true, types: ["node"], typeRoots: ["node_modules/@types"] };
    await writeFile(
      join(folder, "tsconfig.json"),
      JSON.stringify({ extends: join(root, "tsconfig.json"), compilerOptions, include: ["program-*.ts"] }),
    );
    await Promise.all(all.map(({ source }, index) => writeFile(join(folder, fileOf(index)), source)));
  });

  afterAll(() => rm(folder, { recursive: true }));

  it.each(all.map(({ heading, source }, index) => ({ heading, source, index })))(
    "runs the program of $heading and prints what it says",
    async ({ source, index }) => {
      const { stdout, stderr } = await promisify(execFile)(
        node,
        ["--conditions=toolplane-source", fileOf(index)],
        { cwd: folder, timeout: 60_000 },
      );

      expect(stderr).toBe("");
      expect(stdout.trimEnd().split("\n")).toEqual(promised(source));
    },
  );

  it("has programs that the compiler accepts", async () => {
    const compiled = await promisify(execFile)(join(root, "node_modules/.bin/tsc"), ["--project", folder], {
      cwd: folder,
    }).catch((error: { stdout: string }) => error);

    expect(compiled.stdout).toBe("");
  });
});
