import { realpathSync } from "node:fs";
import { isAbsolute, relative, sep } from "node:path";

/** The environment variable that names the project's root, to which files in identities are relative. */
export const ROOT_VARIABLE = "TOOLPLANE_TEST_ROOT";

/** Names files relative to the project's root, which is the framework's own unless the environment says otherwise. */
export function createFileNames(frameworkRoot: string): (path: string) => string {
  const root = realPath(process.env[ROOT_VARIABLE] || frameworkRoot);
  const names = new Map<string, string>();
  return (path) => {
    let name = names.get(path);
    if (name === undefined) {
      const place = isAbsolute(path) ? relative(root, realPath(path)) : path;
      // Files on another drive have no relative path.
      name = (sep === "/" ? place : place.replaceAll(sep, "/")) || ".";
      names.set(path, name);
    }
    return name;
  };
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
