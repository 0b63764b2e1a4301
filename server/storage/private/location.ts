import { createHash } from "node:crypto";
import { chmod, chown, lstat, mkdir, realpath, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { isMissing, storageConfigurationError } from "../configuration-error.ts";

/** A user and group to run programs as. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
}

/** By convention the user `nobody`, who owns nothing. */
const NOBODY: Identity = { uid: 65_534, gid: 65_534 };

/** Where clusters go that root keeps in a folder which nobody else may enter, such as its home. */
const SYSTEM_DIR = "/var/lib/toolplane";

/** The shortest limit of a Unix socket's path: 104 bytes with the final NUL on macOS, 108 on Linux. */
const MAX_SOCKET_PATH_BYTES = 103;

/** Where a private PostgreSQL keeps its things, and as whom it runs. */
export interface Location {
  /** The data directory as the user knows it, without symbolic links. */
  readonly dataDir: string;
  /** The cluster, or the link to it: it exists if and only if the cluster is complete. */
  readonly cluster: string;
  /** Where a new cluster is put together, and, unless it is `dataDir`, where it stays. */
  readonly home: string;
  readonly logFile: string;
  /** Whom to run as; undefined means as ourselves. */
  readonly identity: Identity | undefined;
}

/**
 * Decides where the cluster of a data directory lies.
 *
 * PostgreSQL refuses to run as root, so a root process runs it as the user that owns the cluster, or as `nobody`. When that
 * user may not enter the data directory, the cluster is kept below `/var/lib/toolplane` and linked from the data directory.
 */
export async function locate(dataDirOption: string, systemDir: string = SYSTEM_DIR): Promise<Location> {
  const isRoot = process.geteuid?.() === 0;
  // Root's folder has to let another user through to the cluster below it, and shows nothing else.
  const created = await mkdir(dataDirOption, { recursive: true, mode: isRoot ? 0o711 : 0o700 });
  const dataDir = await realpath(dataDirOption);
  if (created !== undefined && isRoot) {
    await chmod(dataDir, 0o711); // whatever the umask is
  }
  const cluster = join(dataDir, "postgres");
  const logFile = join(dataDir, "postgres.log");
  if (!isRoot) {
    return { dataDir, cluster, home: dataDir, logFile, identity: undefined };
  }
  const owner = await ownerOf(cluster);
  const identity = owner === undefined || owner.uid === 0 ? NOBODY : owner;
  const home = (await canEnter(dataDir, identity)) ? dataDir : systemDir;
  return { dataDir, cluster, home, logFile, identity };
}

/** Whether a user may pass through a folder and all folders above it, as far as their modes tell. */
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
  // Commas and quotes have a meaning in `unix_socket_directories`.
  if (fitsSocket(cluster) && !/[,"]/.test(cluster)) {
    return cluster;
  }
  const name = `toolplane-${digestOf(cluster)}`;
  const preferred = join(tmpdir(), name);
  const path = fitsSocket(preferred) && !/[,"]/.test(preferred) ? preferred : join("/tmp", name);
  const created = await mkdir(path, { mode: 0o700 }).then(
    () => true,
    (error: unknown) => {
      if (error instanceof Error && "code" in error && error.code === "EEXIST") {
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

function fitsSocket(dir: string): boolean {
  return Buffer.byteLength(join(dir, ".s.PGSQL.5432")) <= MAX_SOCKET_PATH_BYTES;
}

async function ownerOf(path: string): Promise<Identity | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (isMissing(error)) {
      return undefined;
    }
    throw error;
  }
}
