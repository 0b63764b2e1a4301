import { realpathSync, statSync } from "node:fs";
import { join, sep } from "node:path";
import type { TestIdentity } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { UNNAMED } from "../reporters/events.ts";
import { RunnerError, type RunnerPlan } from "./runner.ts";

/** The longest argument that Linux takes is 128 KiB, in bytes. */
const MAX_PATTERN_BYTES = 120_000;
/** All arguments together may take 2 MiB there, of which the environment needs some. */
const MAX_FILES_BYTES = 1_000_000;

/** What frameworks write between the names of suites and of a test. */
const BETWEEN = "(?: > | )";

/** A selection in the terms of the JavaScript runners. */
export interface JavaScriptSelection {
  /** Absolute paths, so that none can be taken for an option. Empty: all. */
  readonly files: readonly string[];
  /** The same as regular expressions over absolute paths. */
  readonly filePatterns: readonly string[];
  /** A regular expression over full names. Empty: any. */
  readonly namePattern: string;
}

/**
 * Single tests are selected by their files and a pattern of all their names. It takes more than them where another of
 * these files has a test of the same name, and where their names together are too long for a command line: then their
 * files run as a whole.
 */
export function selectionOf({ selection, directory }: RunnerPlan): JavaScriptSelection {
  const { tests, namePattern } = selection;
  if (tests.length > 0 && namePattern !== "") {
    throw new RunnerError("name_pattern", "select single tests or a pattern of names, not both");
  }
  if (tests.length > 0 && selection.files.length > 0) {
    throw new RunnerError("files", "select single tests or files, not both: tests name their files");
  }
  assertPattern(namePattern);
  const names = tests.length > 0 ? tests.map(({ file }) => file) : selection.files;
  const root = realpathSync(directory);
  const files = [...new Set(names)].map((file) => placeOf(root, file));
  if (files.reduce((bytes, { path }) => bytes + Buffer.byteLength(path) + 1, 0) > MAX_FILES_BYTES) {
    throw new RunnerError(
      tests.length > 0 ? "test_ids" : "files",
      `${files.length} files are too many for one command line: select folders, or run all`,
    );
  }
  return {
    files: files.map(({ path }) => path),
    filePatterns: files.map(({ path, isFolder }) => `^${escaped(path)}${isFolder ? "" : "$"}`),
    namePattern: tests.length > 0 ? patternOf(tests) : namePattern,
  };
}

function assertPattern(pattern: string): void {
  try {
    new RegExp(pattern);
  } catch (error) {
    throw new RunnerError(
      "name_pattern",
      `not a regular expression: ${error instanceof Error ? error.message : error}`,
    );
  }
}

/** A folder ends with a slash: runners compare beginnings of paths, and `src` is not `src2`. */
function placeOf(root: string, file: string) {
  const path = join(root, file);
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  return { path: isFolder && !path.endsWith(sep) ? path + sep : path, isFolder };
}

/** Matches the full names of these tests and no other; empty where that takes too long a pattern. */
function patternOf(tests: readonly TestIdentity[]): string {
  const names = tests.map(({ suitePath, name }) =>
    [...suitePath.map(escaped), name === UNNAMED ? `(?:${escaped(name)})?` : escaped(name)].join(BETWEEN),
  );
  const pattern = `^(?:${[...new Set(names)].join("|")})$`;
  return Buffer.byteLength(pattern) > MAX_PATTERN_BYTES ? "" : pattern;
}

/** As a regular expression with or without flags, of characters that an argument may have. */
function escaped(text: string): string {
  return text
    .replaceAll(/[\\^$.*+?()[\]{}|/]/g, "\\$&")
    .replaceAll(
      /[\p{Cc}\p{Cs}]/gu,
      (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
    );
}
