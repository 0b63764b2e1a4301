import { glob, stat } from "node:fs/promises";
import { basename, isAbsolute, relative, resolve, sep } from "node:path";

/** More files than any run writes; the rest are left out. */
const MAX_FILES = 2_000;

/** Files that match any of the patterns and were written since `since`, in order of their names. */
export async function filesWritten(
  patterns: readonly string[],
  root: string,
  since: number,
): Promise<{ readonly files: readonly string[]; readonly truncated: boolean }> {
  const found = new Set<string>();
  for (const pattern of patterns) {
    const exclude = (path: string) =>
      [".git", "node_modules"].includes(basename(path)) && !pattern.includes(basename(path));
    for await (const match of glob(pattern, { cwd: root, exclude })) {
      const path = resolve(root, match);
      if (
        !found.has(path) &&
        (isAbsolute(pattern) || isBelow(root, path)) &&
        (await isWritten(path, since))
      ) {
        if (found.size === MAX_FILES) {
          return { files: [...found].sort(), truncated: true };
        }
        found.add(path);
      }
    }
  }
  return { files: [...found].sort(), truncated: false };
}

function isBelow(root: string, path: string): boolean {
  const steps = relative(root, path).split(sep);
  return steps[0] !== ".." && !isAbsolute(steps[0] ?? "");
}

async function isWritten(path: string, since: number): Promise<boolean> {
  try {
    const file = await stat(path);
    // Time stamps lag by up to a tick of the kernel, and some file systems count in seconds.
    const earliest = file.mtimeMs % 1_000 === 0 ? Math.floor(since / 1_000) * 1_000 : since - 20;
    return file.isFile() && file.mtimeMs >= earliest;
  } catch {
    return false;
  }
}
