import { createHash } from "node:crypto";
import { chown, lstat, mkdir, realpath, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import type { DomainError } from "@toolplane/framework";
import { storageConfigurationError } from "../configuration-error.ts";
import { codeOf } from "../error-code.ts";

/** A user and group to run programs as. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
}

/** By convention the user `nobody`, who owns nothing. */
const NOBODY: Identity = { uid: 65_534, gid: 65_534 };

/** The shortest limit of a Unix socket's path: 104 bytes with the final NUL on macOS, 108 on Linux. */
const MAX_SOCKET_PATH_BYTES = 103;

/** Where a private PostgreSQL keeps its things, and as whom it runs. */
export interface Location {
  /** The data directory without symbolic links. */
  readonly dataDir: string;
  /** The folder that PostgreSQL keeps its files in. It exists if and only if it is complete. */
  readonly cluster: string;
  readonly logFile: string;
  /** Whom to run PostgreSQL as, which refuses to run as root; undefined: as ourselves. */
  readonly identity: Identity | undefined;
}

/**
 * Decides where the cluster of a data directory lies and as whom its PostgreSQL runs: as ourselves, or, when we are root, as
 * the user that the cluster belongs to, which is `nobody` when it is new.
 */
export async function locate(dataDirOption: string): Promise<Location> {
  await makeFolder(dataDirOption);
  const dataDir = await realpath(dataDirOption);
  const cluster = join(dataDir, "postgres");
  const logFile = join(dataDir, "postgres.log");
  const owner = await ownerOf(cluster);
  const uid = process.geteuid?.() ?? 0;
  if (uid !== 0) {
    if (owner !== undefined && owner.uid !== uid) {
      throw storageConfigurationError(
        "DATA_DIRECTORY_OF_OTHER_USER",
        "TOOLPLANE_DATA_DIR",
        `data directory ${dataDir} belongs to user ${owner.uid} and this process runs as user ${uid}; start as that user or as root, or set TOOLPLANE_DATA_DIR to another folder`,
      );
    }
    return { dataDir, cluster, logFile, identity: undefined };
  }
  const identity = owner === undefined || owner.uid === 0 ? NOBODY : owner;
  if (process.platform !== "linux" && !(await canEnter(dataDir, identity))) {
    throw storageConfigurationError(
      "DATA_DIRECTORY_UNREACHABLE",
      "TOOLPLANE_DATA_DIR",
      `PostgreSQL refuses to run as root, and user ${identity.uid}, as whom it runs instead, may not enter ${dataDir}; set TOOLPLANE_DATA_DIR to a folder that everybody may pass through, or start as an ordinary user`,
    );
  }
  return { dataDir, cluster, logFile, identity };
}

/**
 * Creates a folder unless it is there. The folder that it lies in must exist: a path that was mistyped, or a volume that is
 * not mounted, would otherwise begin an empty database. Besides, Node never returns from creating folders recursively where
 * none can be, as below `/proc`.
 */
async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    const parent = dirname(resolve(path));
    switch (codeOf(error)) {
      case "EEXIST":
        if ((await ownerOf(path)) === undefined) {
          throw unusableDataDir(path, "is a symbolic link to what does not exist", error);
        }
        if (!(await stat(path)).isDirectory()) {
          throw unusableDataDir(path, "is a file and not a folder", error);
        }
        return;
      case "ENOENT":
        throw (await ownerOf(parent)) === undefined
          ? unusableDataDir(path, `cannot be created: there is no folder ${parent}`, error)
          : error;
      default:
        throw error;
    }
  }
}

/** The data directory has to be another one. `problem` continues a sentence that begins with its path. */
export function unusableDataDir(path: string, problem: string, cause: unknown): DomainError {
  return storageConfigurationError(
    "DATA_DIRECTORY_UNUSABLE",
    "TOOLPLANE_DATA_DIR",
    `the data_dir ${path} ${problem}; set data_dir (--data-dir, TOOLPLANE_DATA_DIR) to a folder that this process may create and write to`,
    cause,
  );
}

/**
 * How to name a cluster to a program that is started inside it. When the program runs as another user, that user need not
 * be able to reach the folder by its path, for instance when it lies in root's home: Linux offers a name that leads
 * straight there.
 */
export function clusterArgument(cluster: string, identity: Identity | undefined): string {
  return identity !== undefined && process.platform === "linux" ? "/proc/self/cwd" : cluster;
}

/** Whether the modes of a path and of all folders above it let a user pass. */
export async function canEnter(path: string, identity: Identity): Promise<boolean> {
  const { uid, gid, mode } = await stat(path);
  const bit = uid === identity.uid ? 0o100 : gid === identity.gid ? 0o010 : 0o001;
  if ((mode & bit) === 0) {
    return false;
  }
  const parent = dirname(path);
  return parent === path || canEnter(parent, identity);
}

/** A short name for a folder, equal for all who ask. */
export function digestOf(path: string): string {
  return createHash("sha256").update(path).digest("hex").slice(0, 16);
}

/**
 * The folder for the Unix socket: the cluster itself, which only its owner may enter, or, when that path is too long for a
 * socket, a folder of its own below the folder for temporary files.
 */
export async function prepareSocketDir(cluster: string, identity: Identity | undefined): Promise<string> {
  if (fitsSocket(cluster)) {
    return cluster;
  }
  const name = `toolplane-${digestOf(cluster)}`;
  const path = [join(tmpdir(), name), join("/tmp", name)].find(fitsSocket) ?? join("/tmp", name);
  const created = await mkdir(path, { mode: 0o700 }).then(
    () => true,
    (error: unknown) => {
      if (codeOf(error) === "EEXIST") {
        return false;
      }
      throw error;
    },
  );
  if (created && identity !== undefined) {
    await chown(path, identity.uid, identity.gid);
  }
  // Others may write to the folder above: a folder that somebody else has put here must not be trusted.
  const found = await lstat(path);
  const uid = identity?.uid ?? process.geteuid?.();
  if (!found.isDirectory() || found.uid !== uid || (found.mode & 0o077) !== 0) {
    throw storageConfigurationError(
      "SOCKET_DIRECTORY_UNSAFE",
      "TOOLPLANE_DATA_DIR",
      `${path} is not a folder of user ${uid} that only that user may enter; remove it, or choose a shorter data directory`,
    );
  }
  return path;
}

/** Besides its length, the path must do without the characters that mean something in `unix_socket_directories`. */
function fitsSocket(dir: string): boolean {
  return Buffer.byteLength(join(dir, ".s.PGSQL.5432")) <= MAX_SOCKET_PATH_BYTES && !/[,"]/.test(dir);
}

async function ownerOf(path: string): Promise<Identity | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT") {
      return undefined;
    }
    throw error;
  }
}
